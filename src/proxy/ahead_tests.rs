//! Connections that wait for the end of a planned change, at the node that is to be master.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::servers::{Client, LIMIT, Servers, ask, stand_aside};

/// Two servers with a user of applications, and a client logged in that wrote something which both
/// have.
async fn started() -> (Servers, Client) {
    let servers = Servers::start().await;
    for node in &servers.nodes {
        ask(node, &["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]).await;
    }
    let mut client = servers.connect(None).await;
    assert_eq!(client.ask(&["AUTH", "app", "secret"]).await, "+OK\r\n");
    assert_eq!(client.ask(&["SET", "k", "0"]).await, "+OK\r\n");
    servers.nodes[1].says("EXISTS k\r\n", ":1\r\n").await;
    (servers, client)
}

/// A planned change begins, and the client asks for something meanwhile.
async fn asked(servers: &Servers, client: &mut Client) {
    servers.tell(Some(servers.epoch + 1));
    assert_eq!(ask(servers.master(), &["CLIENT", "PAUSE", "1000000", "WRITE"]).await, "+OK\r\n");
    client.send(&["INCR", "k"]).await;
    client.send(&["GET", "k"]).await;
}

/// The id of the application's connection at a node, once it is there.
async fn arrives(servers: &Servers, node: usize) -> String {
    let there = async {
        loop {
            let list = ask(&servers.nodes[node], &["CLIENT", "LIST"]).await;
            let line = list.lines().find(|line| line.contains(" user=app "));
            if let Some(id) = line.and_then(|line| line.split("id=").nth(1)?.split(' ').next()) {
                return id.to_owned();
            }
        }
    };
    timeout(LIMIT, there).await.expect("the connection is made")
}

/// The successor is promoted under this epoch.
async fn promoted(servers: &mut Servers, epoch: u64) {
    let next = 1 - servers.master;
    assert_eq!(ask(&servers.nodes[next], &["REPLICAOF", "NO", "ONE"]).await, "+OK\r\n");
    (servers.master, servers.epoch) = (next, epoch);
    servers.tell(None);
    stand_aside(&servers.nodes[1 - next], servers.nodes[next].port).await;
}

#[tokio::test]
async fn who_waits_is_at_the_successor_before_it_is_master_and_asks_nothing_of_it() {
    let (mut servers, mut client) = started().await;
    asked(&servers, &mut client).await;
    let id = arrives(&servers, 1).await;
    let counted = ask(&servers.nodes[1], &["INFO", "commandstats"]).await;
    assert!(!counted.contains("cmdstat_get:"), "a replica is not read from: {counted}");
    let next = servers.epoch + 1;
    promoted(&mut servers, next).await;
    assert_eq!(client.next().await.as_deref(), Some(":1\r\n"));
    assert_eq!(client.next().await.as_deref(), Some("$1\r\n1\r\n"));
    assert_eq!(client.ask(&["CLIENT", "ID"]).await, format!(":{id}\r\n"), "it is the same");
    client.send(&["WAIT", "1", "1000"]).await;
    assert_eq!(client.next().await.as_deref(), Some(":1\r\n"));
}

#[tokio::test]
async fn after_a_change_that_came_to_nothing_the_master_is_asked() {
    let (mut servers, mut client) = started().await;
    asked(&servers, &mut client).await;
    arrives(&servers, 1).await;
    servers.epoch += 2;
    servers.tell(None);
    assert_eq!(ask(servers.master(), &["CLIENT", "UNPAUSE"]).await, "+OK\r\n");
    assert_eq!(client.next().await.as_deref(), Some(":1\r\n"));
    assert_eq!(client.next().await.as_deref(), Some("$1\r\n1\r\n"));
    arrives(&servers, 0).await;
}

#[tokio::test]
async fn a_successor_that_does_not_know_the_user_yet_ends_no_connection() {
    let (mut servers, mut client) = started().await;
    assert_eq!(ask(&servers.nodes[1], &["ACL", "DELUSER", "app"]).await, ":1\r\n");
    asked(&servers, &mut client).await;
    let refused =
        async { while !ask(&servers.nodes[1], &["ACL", "LOG"]).await.contains("auth") {} };
    timeout(LIMIT, refused).await.expect("it was tried");
    let user = ["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"];
    assert_eq!(ask(&servers.nodes[1], &user).await, "+OK\r\n");
    let next = servers.epoch + 1;
    promoted(&mut servers, next).await;
    assert_eq!(client.next().await.as_deref(), Some(":1\r\n"));
    assert_eq!(client.next().await.as_deref(), Some("$1\r\n1\r\n"));
}

#[tokio::test]
async fn a_successor_that_became_master_otherwise_is_not_said_to_have_everything() {
    let (mut servers, mut client) = started().await;
    asked(&servers, &mut client).await;
    arrives(&servers, 1).await;
    let later = servers.epoch + 2;
    promoted(&mut servers, later).await;
    assert_eq!(client.next().await.as_deref(), Some(":1\r\n"));
    assert_eq!(client.next().await.as_deref(), Some("$1\r\n1\r\n"));
    // The connection wrote before, and after: what it wrote before may be lost.
    assert_eq!(client.ask(&["WAIT", "1", "1000"]).await, ":0\r\n");
}

#[tokio::test]
async fn a_connection_that_the_next_master_has_no_room_for_yet_is_made_again() {
    let (mut servers, mut client) = started().await;
    has_room_later(&mut servers).await;
    assert_eq!(client.ask(&["GET", "k"]).await, "$1\r\n0\r\n", "the client sees nothing of it");
}

#[tokio::test]
async fn one_without_a_log_in_is_made_again_too() {
    let (mut servers, _) = started().await;
    let mut client = servers.connect(None).await;
    assert_eq!(client.ask(&["GET", "k"]).await, "$1\r\n0\r\n");
    has_room_later(&mut servers).await;
    assert_eq!(client.ask(&["GET", "k"]).await, "$1\r\n0\r\n", "the client sees nothing of it");
}

#[tokio::test]
async fn a_subscriber_that_was_turned_away_once_goes_on_listening() {
    let (mut servers, mut client) = started().await;
    assert!(client.ask(&["SUBSCRIBE", "news"]).await.starts_with("*3"));
    let mut admin = has_room_later(&mut servers).await;
    let heard = async { while admin.ask(&["PUBLISH", "news", "m"]).await != ":1\r\n" {} };
    timeout(LIMIT, heard).await.expect("it listens there");
    assert!(client.next().await.expect("it stays connected").contains("\r\nmessage\r\n"));
}

/// The next master turns connections away at first. Who asks it things.
async fn has_room_later(servers: &mut Servers) -> Client {
    let mut admin = Client::new(servers.nodes[1].dial().await.expect("it is there"));
    for words in [&["CONFIG", "SET", "maxclients", "1"][..], &["REPLICAOF", "NO", "ONE"]] {
        assert_eq!(admin.ask(words).await, "+OK\r\n");
    }
    (servers.master, servers.epoch) = (1, servers.epoch + 1);
    servers.tell(None);
    let turned_away =
        async { while admin.ask(&["INFO", "stats"]).await.contains("rejected_connections:0") {} };
    timeout(LIMIT, turned_away).await.expect("there is no room");
    assert_eq!(admin.ask(&["CONFIG", "SET", "maxclients", "100"]).await, "+OK\r\n");
    admin
}

#[tokio::test]
async fn one_that_the_next_master_has_no_room_for_is_told_that_nothing_was_carried_out() {
    let (mut servers, _) = started().await;
    let mut client = servers.patient(None, Duration::from_millis(300)).await;
    assert_eq!(client.ask(&["INCR", "k"]).await, ":1\r\n");
    let mut admin = Client::new(servers.nodes[1].dial().await.expect("it is there"));
    for words in [&["CONFIG", "SET", "maxclients", "1"][..], &["REPLICAOF", "NO", "ONE"]] {
        assert_eq!(admin.ask(words).await, "+OK\r\n");
    }
    servers.tell(Some(servers.epoch + 1));
    client.send(&["INCR", "k"]).await;
    (servers.master, servers.epoch) = (1, servers.epoch + 1);
    servers.tell(None);
    let told = client.next().await.expect("the client is told");
    assert!(told.starts_with("-LOADING no master"), "{told}");
    assert_eq!(client.next().await, None, "the connection ends");
    assert_eq!(admin.ask(&["GET", "k"]).await, "$1\r\n1\r\n");
}

/// The master's redis is killed with a client at it, and the replica is chosen. What the client asks
/// may be on its way to the dead one still: a read is asked again.
async fn failed(servers: &Servers, client: &mut Client) {
    servers.master().signal(Signal::KILL);
    let away = async { while servers.master().dial().await.is_some() {} };
    timeout(LIMIT, away).await.expect("it ends");
    client.send(&["GET", "k"]).await;
    servers.elect();
}

#[tokio::test]
async fn who_waits_after_a_failure_is_at_the_one_that_was_chosen_before_it_is_master() {
    let (mut servers, mut client) = started().await;
    failed(&servers, &mut client).await;
    let id = arrives(&servers, 1).await;
    let counted = ask(&servers.nodes[1], &["INFO", "commandstats"]).await;
    assert!(!counted.contains("cmdstat_get:"), "nothing is asked of a replica: {counted}");
    assert_eq!(ask(&servers.nodes[1], &["REPLICAOF", "NO", "ONE"]).await, "+OK\r\n");
    (servers.master, servers.epoch) = (1, servers.epoch + 1);
    servers.tell(None);
    assert_eq!(client.next().await.as_deref(), Some("$1\r\n0\r\n"));
    assert_eq!(client.ask(&["CLIENT", "ID"]).await, format!(":{id}\r\n"), "it is the same");
    // What it wrote before may have been lost with the master.
    assert_eq!(client.ask(&["WAIT", "1", "1000"]).await, ":0\r\n");
}

#[tokio::test]
async fn after_a_choice_that_came_to_nothing_the_next_one_is_asked() {
    let (mut servers, mut client) = started().await;
    failed(&servers, &mut client).await;
    arrives(&servers, 1).await;
    // The one that was given up comes back, and is the master of a later epoch.
    let port = servers.master().port;
    servers.nodes[0] = super::servers::Redis::at(port, &[]).await;
    ask(servers.master(), &["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]).await;
    servers.epoch += 2;
    servers.tell(None);
    assert_eq!(client.next().await.as_deref(), Some("$-1\r\n"), "it came back empty");
    arrives(&servers, 0).await;
}

#[tokio::test]
async fn one_that_was_chosen_and_never_is_master_is_not_waited_for_without_end() {
    let (servers, _) = started().await;
    let mut client = servers.patient(None, Duration::from_millis(300)).await;
    assert_eq!(client.ask(&["AUTH", "app", "secret"]).await, "+OK\r\n");
    failed(&servers, &mut client).await;
    for _ in 0..2 {
        let told = client.next().await.expect("it stays connected");
        assert!(told.starts_with("-LOADING no master"), "{told}");
        client.send(&["GET", "k"]).await;
    }
}
