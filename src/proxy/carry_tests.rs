//! Planned changes and failovers between real redis-servers, seen from a client of the proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::servers::{Client, LIMIT, Redis, Servers, ask, stand_aside};
use super::way::{DIALS, Way};
use super::{Confirm, Socks5};

#[tokio::test]
async fn who_waits_for_a_turn_is_told_nothing_while_others_are_let_in() {
    let servers = Servers::start().await;
    let wait = Duration::from_millis(300);
    let way = Way::new(Socks5::new(None));
    let turns = way.dials.clone().acquire_many_owned(u32::try_from(DIALS).unwrap()).await.unwrap();
    let mut first = servers.by(way.clone(), None, wait).await;
    let answer = first.ask(&["SET", "k", "v"]).await;
    assert!(answer.starts_with("-LOADING"), "nobody reaches it: {answer}");

    let mut second = servers.by(way.clone(), None, wait).await;
    second.send(&["SET", "k", "v"]).await;
    // As long as somebody reaches the master.
    for _ in 0..20 {
        way.reaches();
        tokio::time::sleep(wait / 5).await;
    }
    drop(turns);
    assert_eq!(second.next().await.as_deref(), Some("+OK\r\n"));
}

#[tokio::test]
async fn a_command_with_a_long_name_is_answered() {
    let servers = Servers::start().await;
    let mut client = servers.connect(None).await;
    let answer = client.ask(&["a.command.of.a.module.with.a.long.name", "k"]).await;
    assert!(answer.starts_with("-ERR unknown command"), "{answer}");
    assert_eq!(client.ask(&["SET", "k", "v"]).await, "+OK\r\n");
}

#[tokio::test]
async fn writes_that_the_fence_holds_are_carried_out_by_the_next_master() {
    let mut servers = Servers::start().await;
    for told in [false, true] {
        let mut busy = servers.connect(None).await;
        let mut idle = servers.connect(None).await;
        let old = servers.master().port.to_string();
        assert_eq!(busy.ask(&["SET", "k", "0"]).await, "+OK\r\n");
        assert!(idle.ask(&["CONFIG", "GET", "port"]).await.contains(&old));
        ask(servers.master(), &["CLIENT", "PAUSE", "1000000", "WRITE"]).await;
        for words in [&["INCR", "k"][..], &["GET", "k"], &["APPEND", "k", "x"], &["GET", "k"]] {
            busy.send(words).await;
        }
        servers.switch(told).await;
        assert_eq!(busy.next().await.as_deref(), Some(":1\r\n"));
        assert_eq!(busy.next().await.as_deref(), Some("$1\r\n1\r\n"));
        assert_eq!(busy.next().await.as_deref(), Some(":2\r\n"));
        assert_eq!(busy.next().await.as_deref(), Some("$2\r\n1x\r\n"));
        let port = servers.master().port.to_string();
        assert!(idle.ask(&["CONFIG", "GET", "port"]).await.contains(&port), "idle ones move too");
    }
}

/// Who is logged in, which database, which protocol, the name, what is listened to.
#[tokio::test]
async fn the_state_of_a_connection_goes_with_it() {
    let mut servers = Servers::start().await;
    for node in &servers.nodes {
        ask(node, &["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]).await;
    }
    let mut two = servers.connect(None).await;
    assert_eq!(two.ask(&["AUTH", "app", "secret"]).await, "+OK\r\n");
    assert_eq!(two.ask(&["SELECT", "3"]).await, "+OK\r\n");
    assert_eq!(two.ask(&["CLIENT", "SETNAME", "me"]).await, "+OK\r\n");
    assert_eq!(two.ask(&["SET", "k", "in three"]).await, "+OK\r\n");
    let mut three = servers.connect(None).await;
    let hello = ["HELLO", "3", "AUTH", "app", "secret", "SETNAME", "other"];
    assert!(three.ask(&hello).await.starts_with('%'));
    assert_eq!(three.ask(&["CLIENT", "TRACKING", "ON"]).await, "+OK\r\n");
    three.send(&["SUBSCRIBE", "a", "b"]).await;
    assert!(three.next().await.unwrap().starts_with(">3\r\n$9\r\nsubscribe"));
    assert!(three.next().await.unwrap().starts_with(">3\r\n$9\r\nsubscribe"));
    let mut listens = servers.connect(None).await;
    listens.send(&["PSUBSCRIBE", "n*"]).await;
    let confirmed = "*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:1\r\n";
    assert_eq!(listens.next().await.as_deref(), Some(confirmed));
    for told in [true, false] {
        servers.switch(told).await;
        assert_eq!(two.ask(&["GET", "k"]).await, "$8\r\nin three\r\n");
        assert_eq!(two.ask(&["CLIENT", "GETNAME"]).await, "$2\r\nme\r\n");
        assert_eq!(two.ask(&["ACL", "WHOAMI"]).await, "$3\r\napp\r\n");
        assert_eq!(three.next().await.as_deref(), Some(">2\r\n$10\r\ninvalidate\r\n_\r\n"));
        assert_eq!(three.ask(&["CLIENT", "GETNAME"]).await, "$5\r\nother\r\n");
        assert_eq!(three.ask(&["GET", "k"]).await, "_\r\n", "another database");
        // Both have moved when both are counted.
        let published = async |channel: &str| {
            while ask(servers.master(), &["PUBLISH", channel, "x"]).await != ":1\r\n" {}
        };
        published("b").await;
        assert_eq!(
            three.next().await.as_deref(),
            Some(">3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$1\r\nx\r\n")
        );
        published("news").await;
        let message = "*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$1\r\nx\r\n";
        assert_eq!(listens.next().await.as_deref(), Some(message));
    }
    listens.send(&["PUNSUBSCRIBE"]).await;
    let ended = "*3\r\n$12\r\npunsubscribe\r\n$2\r\nn*\r\n:0\r\n";
    assert_eq!(listens.next().await.as_deref(), Some(ended));
    assert_eq!(listens.ask(&["SET", "k", "v"]).await, "+OK\r\n", "a connection as any other");
}

#[tokio::test]
async fn an_open_transaction_is_carried_out_as_a_whole_and_a_watched_one_is_not() {
    let mut servers = Servers::start().await;
    let mut plain = servers.connect(None).await;
    let mut watching = servers.connect(None).await;
    let mut fails = servers.connect(None).await;
    assert_eq!(plain.ask(&["MULTI"]).await, "+OK\r\n");
    assert_eq!(plain.ask(&["INCR", "n"]).await, "+QUEUED\r\n");
    assert_eq!(watching.ask(&["WATCH", "w"]).await, "+OK\r\n");
    assert_eq!(watching.ask(&["MULTI"]).await, "+OK\r\n");
    assert_eq!(watching.ask(&["SET", "w", "1"]).await, "+QUEUED\r\n");
    assert_eq!(fails.ask(&["MULTI"]).await, "+OK\r\n");
    assert!(fails.ask(&["NOSUCH"]).await.starts_with("-ERR"));
    servers.switch(true).await;
    assert_eq!(plain.ask(&["INCR", "n"]).await, "+QUEUED\r\n");
    assert_eq!(plain.ask(&["EXEC"]).await, "*2\r\n:1\r\n:2\r\n");
    assert_eq!(watching.ask(&["EXEC"]).await, "*-1\r\n");
    assert!(fails.ask(&["EXEC"]).await.starts_with("-EXECABORT"));
    assert_eq!(watching.ask(&["GET", "w"]).await, "$-1\r\n");

    // One that the fence holds.
    ask(servers.master(), &["CLIENT", "PAUSE", "1000000", "WRITE"]).await;
    for words in [&["MULTI"][..], &["INCR", "n"], &["GET", "n"], &["EXEC"]] {
        plain.send(words).await;
    }
    servers.switch(false).await;
    for wanted in ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n:3\r\n$1\r\n3\r\n"] {
        assert_eq!(plain.next().await.as_deref(), Some(wanted));
    }
}

#[tokio::test]
async fn who_waits_for_an_element_waits_for_it_at_the_next_master() {
    let mut servers = Servers::start().await;
    let mut waits = servers.connect(None).await;
    waits.send(&["BLPOP", "list", "0"]).await;
    waits.send(&["SET", "after", "1"]).await;
    let blocked = async || ask(servers.master(), &["INFO", "clients"]).await;
    while !blocked().await.contains("blocked_clients:1") {}
    servers.switch(false).await;
    ask(servers.master(), &["RPUSH", "list", "e"]).await;
    assert_eq!(waits.next().await.as_deref(), Some("*2\r\n$4\r\nlist\r\n$1\r\ne\r\n"));
    assert_eq!(waits.next().await.as_deref(), Some("+OK\r\n"));
}

#[tokio::test]
async fn values_in_pieces_and_larger_than_what_is_kept_go_through() {
    let mut servers = Servers::start().await;
    let mut client = servers.connect(None).await;
    for length in [10, 70_000, 900_000, 5_000_000] {
        let value = "v".repeat(length);
        client.send(&["SET", "k", &value]).await;
        client.send(&["GET", "k"]).await;
        assert_eq!(client.next().await.as_deref(), Some("+OK\r\n"));
        let got = client.next().await.unwrap();
        assert_eq!(got.len(), format!("${length}\r\n").len() + length + 2);
    }
    servers.switch(true).await;
    assert_eq!(client.ask(&["STRLEN", "k"]).await, ":5000000\r\n");
}

/// A new master takes no write before it has a replica.
#[tokio::test]
async fn a_master_that_takes_no_writes_yet_is_asked_again() {
    let servers = Servers::start().await;
    ask(servers.master(), &["CONFIG", "SET", "min-replicas-to-write", "2"]).await;
    let mut client = servers.connect(None).await;
    client.send(&["SET", "k", "v"]).await;
    client.send(&["GET", "k"]).await;
    // It has been refused some times by then.
    let refused = async || {
        let said = ask(servers.master(), &["INFO", "errorstats"]).await;
        let count = said.split_once("NOREPLICAS:count=").and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
        });
        count.unwrap_or(0)
    };
    while refused().await < 3 {}
    ask(servers.master(), &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert_eq!(client.next().await.as_deref(), Some("+OK\r\n"));
    assert_eq!(client.next().await.as_deref(), Some("$1\r\nv\r\n"));

    // Not for ever: what redis said is told then, and at once from there on.
    ask(servers.master(), &["CONFIG", "SET", "min-replicas-to-write", "2"]).await;
    let mut client = servers.patient(None, Duration::from_millis(200)).await;
    assert!(client.ask(&["SET", "k", "w"]).await.starts_with("-NOREPLICAS"));
    assert!(client.ask(&["SET", "k", "w"]).await.starts_with("-NOREPLICAS"));
    ask(servers.master(), &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    assert_eq!(client.ask(&["SET", "k", "w"]).await, "+OK\r\n");
}

/// The master is gone: nobody knows what became of a write that it did not answer.
#[tokio::test]
async fn a_failover_ends_what_may_have_been_carried_out_and_nothing_else() {
    let mut servers = Servers::start().await;
    let mut idle = servers.connect(None).await;
    let mut reads = servers.connect(None).await;
    let mut writes = servers.connect(None).await;
    assert_eq!(idle.ask(&["SET", "k", "v"]).await, "+OK\r\n");
    assert_eq!(idle.ask(&["WAIT", "1", "0"]).await, ":1\r\n");
    assert_eq!(idle.ask(&["SET", "k", "w"]).await, "+OK\r\n");
    for client in [&mut reads, &mut writes] {
        assert_eq!(client.ask(&["PING"]).await, "+PONG\r\n");
    }
    servers.nodes[0].signal(Signal::STOP);
    reads.send(&["GET", "k"]).await;
    writes.send(&["INCR", "n"]).await;
    ask(&servers.nodes[1], &["REPLICAOF", "NO", "ONE"]).await;
    (servers.master, servers.epoch) = (1, 2);
    servers.tell(None);
    assert!(reads.next().await.is_some_and(|got| got.starts_with("$1")), "a read is asked again");
    assert_eq!(writes.next().await, None, "a write is not");
    // What it wrote to the old master may be lost: no replica is said to have it.
    assert_eq!(idle.ask(&["WAIT", "0", "0"]).await, ":0\r\n");
    assert_eq!(idle.ask(&["SET", "k", "x"]).await, "+OK\r\n");
    assert!(
        idle.ask(&["CONFIG", "GET", "port"]).await.contains(&servers.nodes[1].port.to_string())
    );
    servers.nodes[0].signal(Signal::CONT);
}

#[tokio::test]
async fn a_client_that_asked_for_it_is_told_of_a_planned_change() {
    let mut servers = Servers::start().await;
    let mut client = servers.connect(None).await;
    assert!(client.ask(&["HELLO", "3"]).await.starts_with('%'));
    let on = ["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "internal-ip"];
    assert_eq!(client.ask(&on).await, "+OK\r\n");
    servers.switch(true).await;
    let told = client.next().await.unwrap();
    assert_eq!(told, format!(">3\r\n$12\r\nFAILING_OVER\r\n:2\r\n:{}\r\n", LIMIT.as_secs()));
    assert_eq!(client.next().await.as_deref(), Some(">2\r\n$11\r\nFAILED_OVER\r\n:2\r\n"));
    // One that is undone ends too, and writes wait for that.
    servers.tell(Some(3));
    assert!(client.next().await.unwrap().contains("FAILING_OVER"));
    client.send(&["SET", "k", "v"]).await;
    servers.tell(None);
    assert_eq!(client.next().await.as_deref(), Some(">2\r\n$11\r\nFAILED_OVER\r\n:3\r\n"));
    assert_eq!(client.next().await.as_deref(), Some("+OK\r\n"));
}

#[tokio::test]
async fn writes_wait_for_the_end_of_a_planned_change_that_is_undone() {
    let servers = Servers::start().await;
    let mut client = servers.connect(None).await;
    assert_eq!(client.ask(&["GET", "k"]).await, "$-1\r\n");
    servers.tell(Some(2));
    let mut other = servers.connect(None).await;
    other.send(&["SET", "k", "v"]).await;
    assert_eq!(client.ask(&["GET", "k"]).await, "$-1\r\n", "reads go on");
    assert_eq!(ask(servers.master(), &["GET", "k"]).await, "$-1\r\n");
    servers.tell(None);
    assert_eq!(other.next().await.as_deref(), Some("+OK\r\n"));
}

/// What a client did, and what it was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<String>,
    errors: Vec<String>,
    counted: i64,
    lost_connections: u32,
}

/// One client that writes numbers of its own to a list and to a counter until it is stopped.
async fn writes(servers: Connects, name: usize, seed: u64, stop: CancellationToken) -> Told {
    let mut random = StdRng::seed_from_u64(seed + name as u64);
    let (mut told, mut number) = (Told::default(), 0);
    let (list, counter) = (format!("list-{name}"), format!("counter-{name}"));
    let mut client = servers.connect().await;
    while !stop.is_cancelled() {
        let count = random.gen_range(1..10);
        let mut expected = Vec::new();
        for _ in 0..count {
            number += 1;
            let id = format!("{name}-{number}");
            match random.gen_range(0..5) {
                0 | 1 => {
                    client.send(&["RPUSH", &list, &id]).await;
                    expected.push((Some(id), false));
                }
                2 => {
                    client.send(&["INCR", &counter]).await;
                    expected.push((None, true));
                }
                3 => {
                    client.send(&["LLEN", &list]).await;
                    expected.push((None, false));
                }
                _ => {
                    client.send(&["MULTI"]).await;
                    client.send(&["RPUSH", &list, &id]).await;
                    client.send(&["EXEC"]).await;
                    expected.extend([(None, false), (None, false), (Some(id), false)]);
                }
            }
        }
        for (id, counts) in expected {
            let Some(answer) = client.next().await else {
                told.lost_connections += 1;
                client = servers.connect().await;
                break;
            };
            if answer.starts_with('-') {
                told.errors.push(answer);
                continue;
            }
            told.acknowledged.extend(id);
            told.counted += i64::from(counts);
        }
    }
    told
}

/// What it takes to connect.
#[derive(Clone)]
struct Connects {
    word: tokio::sync::watch::Receiver<super::Word>,
    confirm: Option<Confirm>,
}

impl Connects {
    async fn connect(&self) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let way = Way::new(Socks5::new(None));
        tokio::spawn(super::carry::carry(accepted, self.word.clone(), way, LIMIT, self.confirm));
        Client::new(client)
    }
}

/// How often each element is in the lists.
async fn elements(redis: &Redis, clients: usize) -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    for name in 0..clients {
        let list = ask(redis, &["LRANGE", &format!("list-{name}"), "0", "-1"]).await;
        for id in list.split("\r\n").filter(|line| line.contains('-') && !line.starts_with('-')) {
            *all.entry(id.to_owned()).or_default() += 1;
        }
    }
    all
}

fn seed() -> u64 {
    let seed = std::env::var("PROXY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("PROXY_SEED={seed} repeats this");
    seed
}

/// The promise: nobody notices, and each write that was acknowledged is there exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_ride_through_planned_changes_without_an_error() {
    for (name, told) in rides(true).await.iter().enumerate() {
        assert_eq!(told.errors, Vec::<String>::new(), "client {name}");
        assert_eq!(told.lost_connections, 0, "client {name}");
    }
}

/// The old master closes connections as soon as it has stepped aside: a write that was on its way to
/// it then has no reply, and the client is not told what became of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_a_proxy_hears_of_late_loses_nothing() {
    for told in rides(false).await {
        let changed = |error: &String| error.starts_with("-UNCONFIRMED the master changed before");
        assert!(told.errors.iter().all(changed), "{:?}", told.errors);
    }
}

/// Clients that write all the time through twelve planned changes, the last two with confirmation;
/// `told` where proxies hear of a change before writes stand still.
async fn rides(told: bool) -> Vec<Told> {
    const CLIENTS: usize = 6;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut servers = Servers::start().await;
    let stop = CancellationToken::new();
    let confirm = Confirm { replicas: 1, timeout: LIMIT };
    let mut running = Vec::new();
    for name in 0..CLIENTS {
        let confirm = (name >= 4).then_some(confirm);
        let connects = Connects { word: servers.word.subscribe(), confirm };
        running.push(tokio::spawn(writes(connects, name, seed, stop.clone())));
    }
    for _ in 0..12 {
        sleep(Duration::from_millis(random.gen_range(0..100))).await;
        servers.switch(told).await;
    }
    stop.cancel();
    let mut all = Vec::new();
    for client in running {
        all.push(timeout(LIMIT, client).await.expect("it ends").unwrap());
    }
    let there = elements(servers.master(), CLIENTS).await;
    for (name, told) in all.iter().enumerate() {
        assert!(told.errors.is_empty() || name >= 4, "{:?}", told.errors);
        assert!(told.acknowledged.len() > 20, "client {name} wrote hardly anything");
        for id in &told.acknowledged {
            assert_eq!(there.get(id), Some(&1), "{id}");
        }
        if told.errors.is_empty() && told.lost_connections == 0 {
            let counter = ask(servers.master(), &["GET", &format!("counter-{name}")]).await;
            assert!(counter.contains(&format!("\r\n{}\r\n", told.counted)), "{counter}");
        }
    }
    assert!(there.values().all(|times| *times == 1), "something is there twice");
    all
}

/// With kills: what was confirmed is there, and nothing is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_outlives_the_master_and_nothing_is_done_twice() {
    const CLIENTS: usize = 4;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut servers = Servers::start().await;
    let stop = CancellationToken::new();
    let confirm = Some(Confirm { replicas: 1, timeout: Duration::from_millis(500) });
    let mut running = Vec::new();
    for name in 0..CLIENTS {
        let connects = Connects { word: servers.word.subscribe(), confirm };
        running.push(tokio::spawn(writes(connects, name, seed, stop.clone())));
    }
    for _ in 0..5 {
        sleep(Duration::from_millis(random.gen_range(50..250))).await;
        let dead = servers.master;
        servers.nodes[dead].signal(Signal::KILL);
        servers.master = 1 - dead;
        servers.epoch += 2;
        ask(servers.master(), &["REPLICAOF", "NO", "ONE"]).await;
        servers.tell(None);
        let port = servers.master().port.to_string();
        let args = ["--replica-serve-stale-data", "no", "--replicaof", "127.0.0.1", &port];
        servers.nodes[dead] = Redis::start(&args).await;
        servers.master().says("WAIT 1 1000\r\n", ":1\r\n").await;
    }
    sleep(Duration::from_millis(100)).await;
    stop.cancel();
    let mut all = Vec::new();
    for client in running {
        all.extend(timeout(LIMIT, client).await.expect("it ends").unwrap().acknowledged);
    }
    let there = elements(servers.master(), CLIENTS).await;
    assert!(all.len() > 50, "hardly anything was written");
    let lost: Vec<_> = all.iter().filter(|id| !there.contains_key(*id)).collect();
    assert!(lost.is_empty(), "confirmed, and lost: {lost:?}");
    assert!(there.values().all(|times| *times == 1), "something is there twice");
}

/// The old master takes writes again: its clients go on there.
#[tokio::test]
async fn a_connection_to_a_master_that_steps_aside_for_nobody_is_not_moved() {
    let servers = Servers::start().await;
    let mut client = servers.connect(None).await;
    assert_eq!(client.ask(&["SET", "k", "v"]).await, "+OK\r\n");
    let before = client.ask(&["CLIENT", "ID"]).await;
    servers.tell(Some(2));
    servers.tell(None);
    assert_eq!(client.ask(&["CLIENT", "ID"]).await, before);
    // It became a replica, and nobody is told of another master.
    let other = servers.nodes[1].port;
    let mut late = servers.patient(None, Duration::from_millis(300)).await;
    assert_eq!(late.ask(&["PING"]).await, "+PONG\r\n");
    stand_aside(servers.master(), other).await;
    assert!(late.ask(&["SET", "k", "w"]).await.starts_with("-READONLY"));
}
