//! The signed word about the master, heard from the nodes themselves: no operator is needed, and
//! nobody on the way can change it.
//!
//! All nodes that are known are listened to at once, so that the first one that hears of a change
//! tells it. The word itself names further nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::told::{Heard, Reader, Told};
use super::{ProxyError, Socks5, Target};
use crate::announce::{Keeper, KeptWord, PublicKey, Refused, Signed, Word};
use crate::error_chain::error_chain;
use crate::mesh::dial::{FIRST_DIAL, dial_host};
use crate::mesh::outside;
use crate::model::announcement::{Place, Replica};
use crate::model::ports::SENTINEL_PORT;
use crate::model::time::Backoff;
use crate::sentinel::{AskError, Listener};

/// Between two tries to reach a node.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

/// Whom to ask, and how to prove what they say.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// Nodes that are asked first, and for ever.
    pub seeds: Vec<Seed>,
    /// The installation's.
    pub key: PublicKey,
    /// Keeps the last word over a restart.
    pub state: Option<PathBuf>,
}

/// Where a node answers as Sentinel: an address or a mesh name, with a port where it is not 26379.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    host: String,
    port: u16,
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let node = |host: &str, port| Self { host: host.to_owned(), port };
        if let Ok(ip) = text.parse::<std::net::IpAddr>() {
            return Ok(node(&ip.to_string(), SENTINEL_PORT));
        }
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Ok(node(&address.ip().to_string(), address.port()));
        }
        let (host, port) = text
            .split_once(':')
            .map_or(Some((text, SENTINEL_PORT)), |(host, port)| Some((host, port.parse().ok()?)))
            .unwrap_or_default();
        outside::dns_name(host).filter(|_| port > 0).map(|host| Self { host, port }).ok_or_else(
            || format!("{text:?} is neither an address nor a mesh name of a node; write it like 100.64.0.3 or cache-0-x7k2.tailnet.ts.net"),
        )
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} port {}", self.host, self.port)
    }
}

/// Reads a file with one node a line; empty lines and those that begin with `#` are none.
///
/// # Errors
/// It cannot be read, or has a line that is no node.
pub fn read_seeds(path: &Path) -> Result<Vec<Seed>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read ({error})", path.display()))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().map_err(|error| format!("{}: {error}", path.display()))).collect()
}

/// What every conversation with a node shares.
struct Shared {
    keeper: Keeper,
    cluster: String,
    state: Option<PathBuf>,
    socks5: Socks5,
    told: Told,
    /// Nodes that answered and are of no use, with the reason.
    useless: watch::Sender<BTreeMap<Seed, String>>,
    /// Troubles that the log has heard of.
    logged: Mutex<BTreeMap<Seed, String>>,
}

/// Tells the newest word of all nodes. What was heard last stays when none of them answers. Ends with
/// an error when nothing is known and every node that was named answers that it has no such cluster,
/// or with words of another installation.
pub(super) async fn follow(
    nodes: Nodes,
    cluster: String,
    socks5: Socks5,
    told: Told,
) -> ProxyError {
    let Nodes { seeds, key, state } = nodes;
    let keeper = Keeper::new(key, None, cluster.clone());
    if let Some(path) = &state {
        take_up(&keeper, path);
    }
    let (useless, logged) = (watch::Sender::default(), Mutex::default());
    let shared = Arc::new(Shared { keeper, cluster, state, socks5, told, useless, logged });
    let (mut word, mut useless) = (shared.keeper.subscribe(), shared.useless.subscribe());
    let mut conversations = JoinSet::new();
    let mut asked: BTreeMap<Seed, AbortHandle> = BTreeMap::new();
    loop {
        let newest = word.borrow_and_update().clone();
        let wanted: BTreeSet<Seed> =
            seeds.iter().cloned().chain(newest.iter().flat_map(|word| members(word))).collect();
        asked.retain(|node, conversation| {
            let stays = wanted.contains(node);
            if !stays {
                conversation.abort();
            }
            stays
        });
        for node in wanted {
            asked
                .entry(node.clone())
                .or_insert_with(|| conversations.spawn(keep_listening(shared.clone(), node)));
        }
        if let Some(word) = &newest {
            match heard(word) {
                Some(heard) => shared.told.hear(heard),
                None => shared.miss("a word about the master that has an address".to_owned()),
            }
        } else {
            let useless = useless.borrow_and_update();
            if seeds.iter().all(|node| useless.contains_key(node)) {
                let why: Vec<_> = useless.iter().map(|(n, why)| format!("{n}: {why}")).collect();
                let cluster = shared.cluster.clone();
                return ProxyError::NoNode { cluster, why: why.join("; ") };
            }
        }
        tokio::select! {
            // Neither sender is gone while this runs.
            _ = word.changed() => {}
            _ = useless.changed() => {}
            Some(_) = conversations.join_next() => {}
        }
    }
}

/// All nodes that a word names.
fn members(word: &Word) -> impl Iterator<Item = Seed> {
    let said = &word.said;
    let places = said.replicas.iter().map(|replica| &replica.place).chain([&said.master]);
    places.filter_map(|place| place.ip.parse().ok())
}

fn heard(word: &Word) -> Option<Heard> {
    let said = &word.said;
    let target = |place: &Place| {
        let ip = place.ip.parse().ok()?;
        let incarnation = place.incarnation.clone();
        Some(Target { epoch: said.epoch, incarnation, ip, port: place.port })
    };
    let reader = |replica: &Replica| {
        let (in_sync, lag_bytes) = (replica.in_sync, replica.lag_bytes);
        Some(Reader { target: target(&replica.place)?, in_sync, lag_bytes })
    };
    let successor = said.changing.zip(said.successor.as_ref()).and_then(|(epoch, name)| {
        let replica = said.replicas.iter().find(|replica| replica.place.incarnation == *name)?;
        Some(Target { epoch, ..target(&replica.place)? })
    });
    let replicas = said.replicas.iter().filter_map(reader).collect();
    let (target, changing) = (target(&said.master)?, said.changing);
    Some(Heard { uid: said.uid.clone(), target, changing, successor, replicas })
}

/// What a process before this one kept. What cannot be read or proved is as good as nothing.
fn take_up(keeper: &Keeper, path: &Path) {
    let kept = match std::fs::read(path) {
        Ok(text) => serde_json::from_slice::<KeptWord>(&text).map_err(|e| e.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => Err(error.to_string()),
    };
    let taken = kept.and_then(|kept| keeper.offer(kept.into(), |_| {}).map_err(|e| e.to_string()));
    if let Err(error) = taken {
        tracing::warn!(path = %path.display(), error, "the kept word about the master is of no use; the nodes are asked");
    }
}

/// In the place of the one before, at once or not at all.
fn keep(path: &Path, signed: &Signed) {
    let written = serde_json::to_vec(&KeptWord::from(signed)).map_err(std::io::Error::from);
    let new = path.with_extension("new");
    let written = written.and_then(|text| {
        std::fs::write(&new, text)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, path)
    });
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "the word about the master is not kept; after a restart a node must answer");
    }
}

async fn keep_listening(shared: Arc<Shared>, node: Seed) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let trouble = match converse(&shared, &node).await {
            Trouble::Away(why) => why,
            Trouble::Useless(why) => {
                shared.useless.send_modify(|all| drop(all.insert(node.clone(), why.clone())));
                why
            }
        };
        if begun.elapsed() > FIRST_DIAL + PAUSES.longest {
            failures = 0;
        }
        shared.log(&node, &trouble);
        shared.miss(format!("the nodes ({node}: {trouble})"));
        sleep(PAUSES.delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Why a conversation with a node ended.
enum Trouble {
    /// It may be there again in a moment.
    Away(String),
    /// It is no node of the cluster, or of another installation.
    Useless(String),
}

/// Hears what a node says until it is away or says what nobody believes.
async fn converse(shared: &Arc<Shared>, node: &Seed) -> Trouble {
    let dialled = dial_host(shared.socks5.get(), &node.host, node.port, FIRST_DIAL).await;
    let stream = match dialled {
        Ok(stream) => stream,
        Err(error) => return Trouble::Away(error_chain(&error)),
    };
    let trouble = |error: AskError| match error {
        AskError::Refused(said) => Trouble::Useless(format!("it answers {said:?}")),
        AskError::Unreadable => Trouble::Useless(AskError::Unreadable.to_string()),
        AskError::Away(_) => Trouble::Away(error.to_string()),
    };
    let (mut listener, mut word) = match Listener::begin(stream, &shared.cluster).await {
        Ok(begun) => begun,
        Err(error) => return trouble(error),
    };
    loop {
        match word {
            Some(signed) => match shared.offer(signed).await {
                Ok(()) => shared.is_well(node),
                Err(why) => return Trouble::Useless(why),
            },
            None => shared.miss(format!("a master; {node} has heard of none yet")),
        }
        word = match listener.next().await {
            Ok(signed) => Some(signed),
            Err(error) => return trouble(error),
        };
    }
}

impl Shared {
    /// Takes a word that is news; an older one is none, and no fault.
    async fn offer(self: &Arc<Self>, signed: Signed) -> Result<(), String> {
        let shared = self.clone();
        // It waits for the disk.
        let offered = tokio::task::spawn_blocking(move || {
            shared.keeper.offer(signed, |signed| {
                if let Some(path) = &shared.state {
                    keep(path, signed);
                }
            })
        });
        match offered.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error @ Refused::NotOurs)) => {
                Err(format!("{error}: is it the right --public-key?"))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn is_well(&self, node: &Seed) {
        self.useless.send_if_modified(|all| all.remove(node).is_some());
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    fn miss(&self, why: String) {
        self.told.miss(why);
    }

    /// Each trouble of a node once.
    fn log(&self, node: &Seed, trouble: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.insert(node.clone(), trouble.to_owned()).as_deref() != Some(trouble) {
            tracing::warn!(%node, trouble, "a node is not heard");
        }
    }
}
