//! What all parts of the agent share: the state that is pushed, the memory of commands, the nonces.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::commands::Memory;
use super::forwarder::Egress;
use super::logs::LogBook;
use super::nonces::{Freshness, Nonces, random_hex};
use super::probe::Following;
use super::redis_control::{Applied, RedisControl};
use super::settings::Settings;
use super::snapshots::Snapshots;
use super::state_file::{StateFile, StateFileError};
use crate::model::identity::NodeIdentity;
use crate::model::node::{NodeMesh, NodeState, RedisState};

/// The node.
pub struct Node {
    /// Paths, ports, time-outs.
    pub settings: Settings,
    /// Who it is.
    pub identity: NodeIdentity,
    /// Its log.
    pub book: LogBook,
    /// Its files on the volume.
    pub files: StateFile,
    /// The hand on Redis.
    pub redis: RedisControl,
    /// Kept snapshots.
    pub snapshots: Snapshots,
    /// How Redis reaches a master.
    pub egress: Egress,
    /// Held while a command is carried out; `false` once the agent stops.
    pub accepting: tokio::sync::Mutex<bool>,
    /// Asks the keeper of Redis to kill it.
    pub kill_redis: Notify,
    look_now: Notify,
    looks: watch::Sender<u64>,
    state: watch::Sender<NodeState>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    nonces: Nonces,
    memory: Memory,
    following: Option<Following>,
    applied: Applied,
    notes: BTreeMap<&'static str, String>,
}

/// The parts a node is made of.
pub struct Parts {
    /// Paths, ports, time-outs.
    pub settings: Settings,
    /// Who it is.
    pub identity: NodeIdentity,
    /// Its log.
    pub book: LogBook,
    /// Its files on the volume.
    pub files: StateFile,
    /// The hand on Redis.
    pub redis: RedisControl,
    /// Kept snapshots.
    pub snapshots: Snapshots,
    /// How Redis reaches a master.
    pub egress: Egress,
    /// Where the state is shown; the status page may read there already.
    pub state: watch::Sender<NodeState>,
}

impl Node {
    /// Reads the files and puts the parts together. `joined_before` says that the volume was in use already.
    pub fn new(parts: Parts, joined_before: bool) -> Result<Self, StateFileError> {
        let Parts { settings, identity, book, files, redis, snapshots, egress, state: shown } = parts;
        let found = files.memory()?;
        let lost = found.is_none() && joined_before;
        let memory = found.unwrap_or(Memory { lost, ..Memory::default() });
        let state = NodeState {
            incarnation: identity.incarnation.clone(),
            boot_id: random_hex(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            highest: memory.highest,
            promoted: memory.promoted(),
            mesh: NodeMesh { backend_state: "Down".into(), ..NodeMesh::default() },
            redis: RedisState { fenced: true, ..RedisState::default() },
            history: files.history()?,
            saved: snapshots.labels(),
            ..NodeState::default()
        };
        shown.send_replace(state);
        let node = Self {
            settings,
            identity,
            book,
            files,
            redis,
            snapshots,
            egress,
            accepting: tokio::sync::Mutex::new(true),
            kill_redis: Notify::new(),
            look_now: Notify::new(),
            looks: watch::Sender::new(0),
            state: shown,
            shared: Mutex::new(Shared { memory, ..Shared::default() }),
        };
        if lost {
            node.note("memory", Some("the file with the highest epoch obeyed is gone although the volume was in use: nothing is promoted before another command".into()));
        }
        Ok(node)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state with a fresh nonce, as it may be sent.
    #[must_use]
    pub fn issue(&self) -> NodeState {
        // The nonce is issued under the state's lock: it must not vouch for a state that changed in between.
        let state = self.state.borrow();
        let nonce = self.shared().nonces.issue(Instant::now());
        NodeState { nonce, ..state.clone() }
    }

    /// The present state without a nonce.
    #[must_use]
    pub fn peek(&self) -> NodeState {
        self.state.borrow().clone()
    }

    /// Follows the state.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<NodeState> {
        self.state.subscribe()
    }

    /// Changes the state; it is pushed when it differs.
    pub fn update(&self, change: impl FnOnce(&mut NodeState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// Whether a nonce is good, now.
    pub fn check_nonce(&self, nonce: &str) -> Freshness {
        self.shared().nonces.check(nonce, Instant::now())
    }

    /// The memory of commands.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.shared().memory.clone()
    }

    /// Keeps the memory on disk, then in mind, then shows it.
    pub fn remember(&self, memory: Memory) -> Result<(), StateFileError> {
        if memory != self.memory() {
            self.files.keep_memory(&memory)?;
        }
        let (highest, promoted) = (memory.highest, memory.promoted());
        self.shared().memory = memory;
        self.note("memory", None);
        self.update(|state| (state.highest, state.promoted) = (highest, promoted));
        Ok(())
    }

    /// Whom Redis was told to follow.
    #[must_use]
    pub fn following(&self) -> Option<Following> {
        self.shared().following.clone()
    }

    /// Notes whom Redis is told to follow.
    pub fn set_following(&self, following: Option<Following>) {
        self.shared().following = following;
    }

    /// What was set in the present redis process.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.shared().applied.clone()
    }

    /// Notes what was set; `run_id` is the process it was set in.
    pub fn set_applied(&self, applied: Applied, run_id: &str) {
        // Order of locks: state, then shared.
        let state = self.state.borrow();
        if state.redis.run_id == run_id {
            self.shared().applied = applied;
        }
    }

    /// The redis process is gone: commands formed before are void, and nothing that was set is true any more.
    pub fn redis_exited(&self) {
        self.state.send_modify(|state| {
            let mut shared = self.shared();
            shared.nonces = Nonces::default();
            shared.following = None;
            shared.applied = Applied::default();
            let version = std::mem::take(&mut state.redis.version);
            state.redis = RedisState { process: crate::model::node::Process::Exited, version, fenced: true, ..RedisState::default() };
            state.configured = String::new();
        });
    }

    /// Sets or clears a sentence about what this node lacks.
    pub fn note(&self, topic: &'static str, sentence: Option<String>) {
        let notes: Vec<String> = {
            let mut shared = self.shared();
            match sentence {
                Some(sentence) => shared.notes.insert(topic, sentence),
                None => shared.notes.remove(topic),
            };
            shared.notes.values().cloned().collect()
        };
        self.update(|state| state.notes = notes);
    }

    /// Has Redis looked at without waiting for the next turn.
    pub fn look_now(&self) {
        self.look_now.notify_one();
    }

    /// Waits for [`Node::look_now`].
    pub async fn asked_to_look(&self) {
        self.look_now.notified().await;
    }

    /// Counts the looks at Redis that ended.
    #[must_use]
    pub fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// A look at Redis ended.
    pub fn looked(&self) {
        self.looks.send_modify(|count| *count += 1);
    }

    /// Own mesh name, or the host name asked for as long as there is none.
    #[must_use]
    pub fn own_name(&self) -> String {
        let name = self.state.borrow().mesh.dns_name.clone();
        if name.is_empty() { self.identity.hostname.clone() } else { name }
    }
}
