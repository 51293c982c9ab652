//! What each command is answered. Clients are told of the master and its replicas, and nobody can
//! change anything here: the operator decides who is master.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::reply::{Protocol, Reply};
use super::{WORDS, view};
use crate::announce::Word;
use crate::model::step::SettingsUser;

/// Version that is shown to clients: they choose by it how they speak to Sentinel.
const VERSION: &str = "7.0.15";
/// Channels that one client may listen to, and bytes of each name.
const CHANNELS: usize = 64;
const CHANNEL: usize = 256;

/// What an answer is made of.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The newest word.
    pub word: Option<&'a Word>,
    /// Users of the manifest: a client may say who it is.
    pub users: &'a [SettingsUser],
    /// The cluster, also while nothing was heard of it.
    pub cluster: &'a str,
    /// The incarnation that answers.
    pub own: &'a str,
}

/// What is known of one client.
#[derive(Debug, Default)]
pub struct Session {
    /// Number of the connection.
    pub id: u64,
    /// How it is answered.
    pub protocol: Protocol,
    /// The client asked for the end.
    pub ends: bool,
    name: Vec<u8>,
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
}

impl Session {
    /// A client that has said nothing yet.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    /// It listens to something.
    #[must_use]
    pub fn listens(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// What this client is told of a newer word.
    #[must_use]
    pub fn told_word(&self, word: &Word) -> Option<Reply> {
        let message =
            || vec![Reply::text("message"), Reply::text(WORDS), Reply::text(word.signed.line())];
        self.channels.contains(WORDS.as_bytes()).then(|| Reply::Push(message()))
    }

    /// What this client is told of an event.
    #[must_use]
    pub fn told(&self, channel: &str, message: &str) -> Vec<Reply> {
        let mut told = Vec::new();
        let (name, message) = (Reply::text(channel), Reply::text(message));
        if self.channels.contains(channel.as_bytes()) {
            told.push(Reply::Push(vec![Reply::text("message"), name.clone(), message.clone()]));
        }
        for pattern in self.patterns.iter().filter(|p| matches(p, channel.as_bytes())) {
            let pattern = Reply::Bulk(pattern.clone());
            let parts = vec![Reply::text("pmessage"), pattern, name.clone(), message.clone()];
            told.push(Reply::Push(parts));
        }
        told
    }
}

/// Answers one command; `words` is its name and arguments.
#[must_use]
pub fn answer(facts: Facts<'_>, session: &mut Session, words: &[Vec<u8>]) -> Vec<Reply> {
    let Some((name, arguments)) = words.split_first() else { return Vec::new() };
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let only_listens = session.listens() && session.protocol == Protocol::Resp2;
    let subscribes = ["subscribe", "unsubscribe", "psubscribe", "punsubscribe"];
    if only_listens && !["ping", "quit", "reset"].iter().chain(&subscribes).any(|n| *n == name) {
        return vec![error(format!(
            "Can't execute '{name}': only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        ))];
    }
    if subscribes.contains(&name.as_str()) {
        let mut replies = subscription(session, &name, arguments);
        if name == "subscribe" && arguments.iter().any(|channel| channel == WORDS.as_bytes()) {
            replies.extend(facts.word.and_then(|word| session.told_word(word)));
        }
        return replies;
    }
    vec![match name.as_str() {
        "ping" => ping(only_listens, arguments),
        "auth" => auth(facts.users, arguments),
        "hello" => hello(facts.users, session, arguments),
        "info" => info(facts),
        "role" => Reply::Array(vec![
            Reply::text("sentinel"),
            Reply::Array(
                facts.word.map(|word| Reply::text(&*word.said.cluster)).into_iter().collect(),
            ),
        ]),
        "command" => match lower(arguments.first()).as_str() {
            "count" => Reply::Integer(0),
            "docs" => Reply::Map(Vec::new()),
            _ => Reply::Array(Vec::new()),
        },
        "client" => client(session, arguments),
        "sentinel" => sentinel(facts, arguments),
        "reset" => {
            *session = Session::new(session.id);
            Reply::Simple("RESET")
        }
        "quit" => {
            session.ends = true;
            Reply::Simple("OK")
        }
        _ => error(format!(
            "unknown command '{name}': this port answers as Sentinel, Redis of the cluster is on port 6379"
        )),
    }]
}

fn error(sentence: impl std::fmt::Display) -> Reply {
    Reply::Error(format!("ERR {sentence}"))
}

fn arity(command: &str) -> Reply {
    error(format!("wrong number of arguments for '{command}' command"))
}

fn lower(word: Option<&Vec<u8>>) -> String {
    word.map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).unwrap_or_default()
}

fn ping(listens: bool, arguments: &[Vec<u8>]) -> Reply {
    let message = arguments.first().cloned();
    if listens {
        return Reply::Array(vec![Reply::text("pong"), Reply::Bulk(message.unwrap_or_default())]);
    }
    message.map_or(Reply::Simple("PONG"), Reply::Bulk)
}

/// A client that says who it is must be somebody of the manifest; nobody has to.
fn auth(users: &[SettingsUser], arguments: &[Vec<u8>]) -> Reply {
    let (user, password) = match arguments {
        [password] => (&b"default"[..], password),
        [user, password] => (user.as_slice(), password),
        _ => return arity("auth"),
    };
    let hash = hex::encode(Sha256::digest(password));
    let known =
        |one: &SettingsUser| one.name.as_bytes() == user && one.password_sha256.contains(&hash);
    if users.iter().any(known) {
        Reply::Simple("OK")
    } else {
        Reply::Error("WRONGPASS invalid username-password pair or user is disabled.".to_owned())
    }
}

fn hello(users: &[SettingsUser], session: &mut Session, arguments: &[Vec<u8>]) -> Reply {
    let mut protocol = session.protocol;
    let mut rest = arguments;
    if let [version, more @ ..] = rest {
        protocol = match version.as_slice() {
            b"2" => Protocol::Resp2,
            b"3" => Protocol::Resp3,
            _ => return Reply::Error("NOPROTO unsupported protocol version".to_owned()),
        };
        rest = more;
    }
    let mut name = None;
    while let [option, more @ ..] = rest {
        rest = match (lower(Some(option)).as_str(), more) {
            ("auth", [user, password, more @ ..]) => {
                let refused = auth(users, &[user.clone(), password.clone()]);
                if refused != Reply::Simple("OK") {
                    return refused;
                }
                more
            }
            ("setname", [wanted, more @ ..]) => {
                name = Some(wanted.clone());
                more
            }
            _ => return error("Syntax error in HELLO option"),
        };
    }
    session.protocol = protocol;
    session.name = name.unwrap_or_else(|| session.name.clone());
    Reply::Map(vec![
        ("server", Reply::text("redis")),
        ("version", Reply::text(VERSION)),
        ("proto", Reply::Integer(if protocol == Protocol::Resp3 { 3 } else { 2 })),
        ("id", Reply::Integer(i64::try_from(session.id).unwrap_or(i64::MAX))),
        ("mode", Reply::text("sentinel")),
        ("modules", Reply::Array(Vec::new())),
    ])
}

fn info(facts: Facts<'_>) -> Reply {
    let run_id = view::run_id(facts.own);
    let mut text = format!(
        "# Server\r\nredis_version:{VERSION}\r\nredis_mode:sentinel\r\nrun_id:{run_id}\r\n\r\n# Sentinel\r\nsentinel_masters:{}\r\n",
        u8::from(facts.word.is_some())
    );
    if let Some(said) = facts.word.map(|word| &word.said) {
        use std::fmt::Write as _;
        let (master, replicas) = (&said.master, said.replicas.len());
        let _ = write!(
            text,
            "master0:name={},status=ok,address={}:{},slaves={replicas},sentinels={}\r\n",
            said.cluster,
            said.host(master),
            master.port,
            replicas + 1
        );
    }
    Reply::text(text)
}

fn client(session: &mut Session, arguments: &[Vec<u8>]) -> Reply {
    match (lower(arguments.first()).as_str(), &arguments[1.min(arguments.len())..]) {
        ("setname", [name]) => {
            session.name.clone_from(name);
            Reply::Simple("OK")
        }
        ("getname", []) if session.name.is_empty() => Reply::Nil,
        ("getname", []) => Reply::Bulk(session.name.clone()),
        ("id", []) => Reply::Integer(i64::try_from(session.id).unwrap_or(i64::MAX)),
        // Its own connection: others are nobody's business.
        ("info" | "list", _) => Reply::text(format!(
            "id={} name={} resp={} sub={} psub={}\n",
            session.id,
            String::from_utf8_lossy(&session.name),
            if session.protocol == Protocol::Resp3 { 3 } else { 2 },
            session.channels.len(),
            session.patterns.len()
        )),
        // Who it is and what it can do is taken, whatever it is.
        ("setinfo" | "no-evict" | "no-touch", [_, ..]) => Reply::Simple("OK"),
        (other, _) => error(format!(
            "Unknown subcommand or wrong number of arguments for '{other}': CLIENT knows SETNAME, GETNAME, SETINFO, ID, INFO, LIST, NO-EVICT and NO-TOUCH here"
        )),
    }
}

fn sentinel(facts: Facts<'_>, arguments: &[Vec<u8>]) -> Reply {
    let what = lower(arguments.first());
    let named = |at: usize| arguments.get(at).is_some_and(|name| name == facts.cluster.as_bytes());
    let said = facts.word.map(|word| &word.said).filter(|_| named(1));
    let unknown = || error("No such master with that name");
    match (what.as_str(), arguments.len()) {
        ("get-master-addr-by-name", 2) => said.map_or(Reply::Nil, view::address),
        ("master", 2) => said.map_or_else(unknown, view::master),
        ("masters", 1) => {
            Reply::Array(facts.word.map(|word| view::master(&word.said)).into_iter().collect())
        }
        ("replicas" | "slaves", 2) => said.map_or_else(unknown, |said| {
            Reply::Array(said.replicas.iter().map(|one| view::replica(said, one)).collect())
        }),
        ("sentinels", 2) => said.map_or_else(unknown, |said| view::sentinels(said, facts.own)),
        ("ckquorum", 2) => said.map_or_else(unknown, |said| {
            let nodes = said.replicas.len() + 1;
            Reply::text(format!("OK {nodes} nodes know the master; the operator decides who it is"))
        }),
        ("myid", 1) => Reply::text(view::run_id(facts.own)),
        // Not of Sentinel: how nodes and proxies hand the signed word on.
        ("announcement", 2) if !named(1) => {
            error(format!("No such master with that name: this is a node of {}", facts.cluster))
        }
        ("announcement", 2) => facts.word.map_or(Reply::Nil, |word| {
            let signed = word.signed.clone();
            Reply::Array(vec![Reply::Bulk(signed.content), Reply::Bulk(signed.signature)])
        }),
        ("is-master-down-by-addr", _) => error(
            "this is no Sentinel that votes: the operator of the cluster decides who is master; do not list it among Sentinels of your own",
        ),
        ("failover", _) => error(format!(
            "nobody is promoted from here: use `akash-redis switchover {}` on the operator's machine",
            facts.cluster
        )),
        ("monitor" | "remove" | "set" | "reset" | "config" | "flushconfig", _) => {
            error("nothing can be set here: change the manifest of the cluster and apply it")
        }
        _ => error(format!(
            "Unknown subcommand or wrong number of arguments for '{what}': SENTINEL knows get-master-addr-by-name, master, masters, replicas, slaves, sentinels, ckquorum and myid here"
        )),
    }
}

fn subscription(session: &mut Session, name: &str, arguments: &[Vec<u8>]) -> Vec<Reply> {
    let (begins, by_pattern) = (!name.contains("unsub"), name.starts_with('p'));
    if begins && arguments.is_empty() {
        return vec![arity(name)];
    }
    let of = if by_pattern { &session.patterns } else { &session.channels };
    let all: Vec<_> = if arguments.is_empty() {
        of.iter().cloned().map(Some).collect()
    } else {
        arguments.iter().cloned().map(Some).collect()
    };
    let all = if all.is_empty() { vec![None] } else { all };
    let mut replies = Vec::new();
    for channel in all {
        let full = session.channels.len() + session.patterns.len() >= CHANNELS;
        if begins && (full || channel.as_ref().is_some_and(|c| c.len() > CHANNEL)) {
            replies.push(error(format!(
                "a client listens to {CHANNELS} channels of {CHANNEL} bytes at most"
            )));
            break;
        }
        let of = if by_pattern { &mut session.patterns } else { &mut session.channels };
        match &channel {
            Some(channel) if begins => drop(of.insert(channel.clone())),
            Some(channel) => drop(of.remove(channel)),
            None => {}
        }
        let left = session.channels.len() + session.patterns.len();
        replies.push(Reply::Push(vec![
            Reply::text(name),
            channel.map_or(Reply::Nil, Reply::Bulk),
            Reply::Integer(i64::try_from(left).unwrap_or(i64::MAX)),
        ]));
    }
    replies
}

/// `*` stands for anything and `?` for one byte; `\` takes the meaning off what follows.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        // As one, or some patterns would take for ever.
        [b'*', b'*', ..] => matches(&pattern[1..], text),
        [b'*', pattern @ ..] => (0..=text.len()).any(|at| matches(pattern, &text[at..])),
        [b'?', pattern @ ..] => text.split_first().is_some_and(|(_, text)| matches(pattern, text)),
        [b'\\', byte, pattern @ ..] | [byte, pattern @ ..] => {
            text.split_first().is_some_and(|(first, text)| first == byte && matches(pattern, text))
        }
    }
}
