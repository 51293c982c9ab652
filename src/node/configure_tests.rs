//! Users, quorum and settings against real redis-servers: what is refused stops nothing else.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::configure::CLIENTS_RESERVE;
use super::tests::{PATIENCE, TestNode, hash, pair, promote, quorum, unhurried, usual_settings};
use crate::model::memory::replica_buffer;
use crate::model::node::Role;
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

fn settings(config: &[(&str, &str)], users: &[(&str, &str, &str)]) -> Command {
    Command::Configure(wire::Configure {
        generation: format!("{config:?}{users:?}"),
        redis_config: config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        users: users
            .iter()
            .map(|(name, password, rules)| wire::AclUser {
                name: (*name).into(),
                password_sha256: vec![hash(password)],
                rules: (*rules).into(),
            })
            .collect(),
        maxmemory_bytes: 64 * 1024 * 1024,
        append_only: true,
        quorum: Some(quorum(0)),
        ..wire::Configure::default()
    })
}

const ALL: &str = "~* &* +@all -@admin -@dangerous";

impl TestNode {
    async fn config(&self, name: &str) -> String {
        let mut session = self.node.redis.open(PATIENCE).await.unwrap();
        let pair = session.ask(redis::cmd("CONFIG").arg("GET").arg(name)).await;
        pair.split('"').nth(3).unwrap_or_default().to_owned()
    }

    async fn comes_in(&self, user: &str, password: &str) -> bool {
        let address = format!("redis://{user}:{password}@127.0.0.1:{}/", self.port());
        let client = redis::Client::open(address).unwrap();
        client.get_multiplexed_async_connection_with_config(&unhurried()).await.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_refuses_stops_nothing_else() {
    let node = TestNode::start(0);
    node.running().await;
    let bad = [
        ("maxmemory-policy", "lru"),
        ("set-max-listpack-entries", "5"),
        ("notify-keyspace-events", "Q"),
        ("replicaof", "h 1"),
        ("timeout", "77"),
        ("repl-backlog-size", "2mb"),
    ];
    let state = node.command(1, settings(&bad, &[("app", "old", ALL)])).await.unwrap();
    assert!(state.configured.contains("maxmemory-policy"), "it counts as configured");
    let told: Vec<(&str, &str)> =
        state.refused.iter().map(|r| (r.name.as_str(), r.value.as_str())).collect();
    assert_eq!(
        told,
        [
            ("config.replicaof", "h 1"),
            ("config.set-max-listpack-entries", "5"),
            ("config.maxmemory-policy", "lru"),
            ("config.notify-keyspace-events", "Q"),
        ]
    );
    assert!(state.refused[2].reason.contains("must be one of"), "{:?}", state.refused);
    assert!(
        state.refused[3].reason.starts_with("Invalid event class character"),
        "{:?}",
        state.refused
    );
    assert_eq!(node.config("timeout").await, "77");
    assert_eq!(node.config("repl-backlog-size").await, "2097152");
    assert_eq!(node.config("maxmemory-policy").await, "noeviction", "what was in force stays");
    assert_eq!(node.config("maxmemory").await, "67108864");
    assert_eq!(node.command(1, promote(0)).await.unwrap().redis.role, Role::Master);
    assert!(node.comes_in("app", "old").await);

    let next = [("maxmemory-policy", "lfu"), ("timeout", "0")];
    let state = node.command(1, settings(&next, &[("app", "new", ALL)])).await.unwrap();
    assert_eq!(state.refused.len(), 1);
    assert!(node.comes_in("app", "new").await);
    assert!(!node.comes_in("app", "old").await, "a password that was taken back");
    let state = node.command(1, settings(&[("maxmemory-policy", "allkeys-lru")], &[])).await;
    assert_eq!(state.unwrap().refused, []);
    assert_eq!(node.config("maxmemory-policy").await, "allkeys-lru");
    assert!(!node.comes_in("app", "new").await, "a user that was taken away");
    node.command(1, settings(&[], &[])).await.unwrap();
    assert_eq!(node.config("maxmemory-policy").await, "noeviction", "the default is back");
    assert_eq!(node.config("repl-backlog-size").await, (4 << 20).to_string());
    node.stop().await;
}

/// A limit by time would end every full sync that takes longer under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_may_be_behind_by_what_the_memory_holds_for_as_long_as_it_takes() {
    let node = TestNode::start(0);
    node.running().await;
    let limits = async || node.config("client-output-buffer-limit").await;
    let replica = |bytes: u64| format!("slave {bytes} 0 0");
    let container = node.node.identity.memory_bytes;
    assert!(
        limits().await.contains(&replica(replica_buffer(container, 218 * 1024 * 1024 + 419_430)))
    );
    let rule = replica(replica_buffer(container, 64 << 20));
    node.command(1, settings(&[], &[])).await.unwrap();
    assert!(limits().await.contains(&rule), "{} / {rule}", limits().await);
    let own = "normal 2097152 1048576 60 replica 33554432 0 0";
    node.command(1, settings(&[("client-output-buffer-limit", own)], &[])).await.unwrap();
    assert!(limits().await.starts_with("normal 2097152 1048576 60 slave 33554432 0 0 pubsub"));
    let others = [("client-output-buffer-limit", "normal 0 0 0")];
    node.command(1, settings(&others, &[])).await.unwrap();
    assert!(limits().await.contains(&rule), "{}", limits().await);
    node.command(1, settings(&[], &[])).await.unwrap();
    assert!(limits().await.contains(&rule), "{}", limits().await);
    node.stop().await;
}

/// What a full sync under load is to its master: a replica that takes nothing for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_far_behind_is_not_dropped() {
    const WRITES: u64 = 100;
    let (master, replica) = pair().await;
    let info = async |node: &TestNode| node.node.redis.open(PATIENCE).await.unwrap().info().await;
    let pid = info(&replica).await.unwrap().number("process_id");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let value = "x".repeat(1 << 20);
    for _ in 0..WRITES {
        master.write("k", &value).await.unwrap();
    }
    let behind = info(&master).await.unwrap();
    assert_eq!(behind.number("connected_slaves"), 1);
    kill_process(pid, Signal::CONT).unwrap();
    replica.until(|s| s.redis.offset >= behind.offset() && s.redis.is_linked()).await;
    assert!(behind.offset() > 100 << 20);
    assert_eq!(info(&master).await.unwrap().number("sync_full"), 1, "it was copied once");
    master.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_rules_are_refused_gets_its_passwords_and_keeps_its_rules() {
    let node = TestNode::start(0);
    node.running().await;
    node.command(1, settings(&[], &[("app", "old", "~* +ping +get"), ("gone", "p", ALL)]))
        .await
        .unwrap();
    let users = [("app", "new", "~* +gett"), ("fresh", "p", "+@nonsense"), ("good", "p", ALL)];
    let state = node.command(1, settings(&[], &users)).await.unwrap();
    let told: Vec<&str> = state.refused.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(told, ["users.app", "users.fresh"]);
    let comes_in = async |user, password| node.comes_in(user, password).await;
    assert!(comes_in("app", "new").await && comes_in("good", "p").await);
    assert!(!comes_in("app", "old").await && !comes_in("gone", "p").await);
    let mut session = node.node.redis.open(PATIENCE).await.unwrap();
    let list = session.ask(redis::cmd("ACL").arg("LIST")).await;
    assert!(list.contains("-@all +get +ping") || list.contains("-@all +ping +get"), "{list}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_user_comes_with_a_password_and_goes() {
    let node = TestNode::start(0);
    node.running().await;
    let state = node.command(1, settings(&[], &[("default", "p", ALL)])).await.unwrap();
    assert_eq!(state.refused, []);
    assert!(node.comes_in("", "p").await, "AUTH without a name");
    assert!(!node.comes_in("", "q").await);
    let state = node.command(1, settings(&[], &[("default", "p", "~* +get nopass")])).await;
    assert_eq!(state.unwrap().refused.len(), 1, "nobody comes in without a password");
    node.command(1, settings(&[], &[])).await.unwrap();
    assert!(!node.comes_in("", "p").await);
    node.stop().await;
}

/// Redis keeps no place for anybody: whoever comes after the last one is turned away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_fill_maxclients_do_not_keep_the_agent_out() {
    let node = TestNode::start(0);
    node.running().await;
    let few = |password| settings(&[("maxclients", "10")], &[("app", password, ALL)]);
    node.command(1, few("old")).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    assert_eq!(node.config("maxclients").await, (10 + CLIENTS_RESERVE).to_string());
    let mut idle = Vec::new();
    loop {
        let mut client = TcpStream::connect(("127.0.0.1", node.port())).await.unwrap();
        let mut word = [0; 4];
        // Who is let in is told nothing.
        if let Ok(Ok(n)) = timeout(Duration::from_millis(50), client.read(&mut word)).await {
            assert_eq!(&word[..n], b"-ERR");
            break;
        }
        idle.push(client);
    }
    assert!(idle.len() >= 10, "{} came in", idle.len());
    let fenced = node.command(2, Command::Fence(wire::Fence {})).await.unwrap();
    assert!(fenced.redis.fenced);
    let quorum = Some(quorum(0));
    node.command(3, Command::Unfence(wire::Unfence { quorum })).await.unwrap();
    node.command(3, few("new")).await.unwrap();
    node.command(4, Command::Detach(wire::Detach::default())).await.unwrap();
    assert_eq!(node.command(5, promote(0)).await.unwrap().redis.role, Role::Master);
    drop(idle);
    let free = async {
        while !node.comes_in("app", "new").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("there is room again");
    assert!(!node.comes_in("app", "old").await);
    node.command(5, usual_settings()).await.unwrap();
    node.stop().await;
}
