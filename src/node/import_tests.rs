//! An import from a real redis-server outside of the cluster.

use std::process::Stdio;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::process::{Child, Command as Process};
use tokio::time::{Instant, sleep, timeout};

use super::tests::{PATIENCE, TestNode, free_port, promote, unhurried, usual_settings};
use crate::model::import::ImportTask;
use crate::model::node::{NodeState, Role};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

/// May replicate, and hold writes.
const FULL: &str = "+psync +replconf +ping +info +client|pause +client|unpause";

/// A redis-server of somebody else.
pub(super) struct Source {
    _child: Child,
    pub(super) port: u16,
    dir: tempfile::TempDir,
}

impl Source {
    /// With the user `importer`, who may do this.
    pub(super) async fn start(rules: &str, more: &[&str]) -> Self {
        Self::start_at(free_port(), rules, more).await
    }

    /// At a port where one was before.
    pub(super) async fn start_at(port: u16, rules: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Process::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--dir", dir.path().to_str().unwrap()])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(more)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let source = Self { _child: child, port, dir };
        if !more.contains(&"--tls-port") {
            let mut client = source.client().await;
            redis::cmd("ACL")
                .arg(&["SETUSER", "importer", "on", ">import-secret"])
                .arg(rules.split(' ').collect::<Vec<_>>())
                .exec_async(&mut client)
                .await
                .unwrap();
        }
        source
    }

    pub(super) async fn client(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        let work = async {
            loop {
                match client.get_multiplexed_async_connection_with_config(&unhurried()).await {
                    Ok(connection) => return connection,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(PATIENCE, work).await.expect("the source to answer")
    }

    pub(super) fn import(&self) -> wire::Import {
        wire::Import {
            id: "import-1".into(),
            host: "127.0.0.1".into(),
            port: self.port.into(),
            user: "importer".into(),
            password: "import-secret".into(),
            ..wire::Import::default()
        }
    }
}

pub(super) async fn set(client: &mut MultiplexedConnection, key: &str, value: &str) {
    redis::cmd("SET").arg(key).arg(value).exec_async(client).await.unwrap();
}

pub(super) async fn empty() -> TestNode {
    let node = TestNode::start(0);
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node
}

pub(super) fn task(state: &NodeState) -> ImportTask {
    state.import.clone().unwrap()
}

/// It has everything that the source had when it was asked last.
fn caught_up(state: &NodeState) -> bool {
    let task = task(state);
    state.redis.is_linked() && task.answers && task.replid == state.redis.replid && task.lag_ms == 0
}

/// The promotion that ends the import.
pub(super) fn cut_over() -> Command {
    let Command::Promote(told) = promote(0) else { unreachable!() };
    Command::Promote(wire::Promote { import_id: "import-1".into(), ..told })
}

pub(super) async fn refusal(node: &TestNode, what: &str) -> String {
    node.until(|s| task(s).error.contains(what)).await.import.unwrap().error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cutover_under_writes_loses_none_and_the_source_takes_no_more() {
    let source = Source::start(FULL, &[]).await;
    let mut client = source.client().await;
    for n in 0..1000 {
        set(&mut client, &format!("before-{n}"), &"v".repeat(n)).await;
    }
    redis::cmd("SET").arg(&["lives", "1", "EX", "3600"]).exec_async(&mut client).await.unwrap();
    let node = empty().await;
    node.command(1, Command::Import(source.import())).await.unwrap();
    let state = node.until(caught_up).await;
    assert!(task(&state).can_pause && state.redis.fenced);
    assert!(node.write("x", "1").await.is_err(), "nobody writes here before");
    let writer = tokio::spawn({
        let mut client = source.client().await;
        async move {
            let mut done = 0;
            loop {
                let key = format!("during-{done}");
                let mut write = redis::cmd("SET");
                write.arg(key).arg("1");
                match timeout(Duration::from_millis(700), write.exec_async(&mut client)).await {
                    Ok(Ok(())) => done += 1,
                    // Held.
                    _ => return done,
                }
            }
        }
    });
    node.until(|s| s.redis.keys > 1100).await;
    let began = Instant::now();
    let state = node.command(1, cut_over()).await.unwrap();
    println!("promoted {:?} after the command", began.elapsed());
    assert_eq!((state.redis.role, task(&state)), (Role::Master, ImportTask::default()));
    let done = writer.await.unwrap();
    println!("{done} writes were acknowledged by the source while it was imported");
    for n in 0..done {
        assert_eq!(node.read(&format!("during-{n}")).await.as_deref(), Some("1"), "{n} of {done}");
    }
    assert_eq!(node.read("before-999").await.map(|v| v.len()), Some(999));
    let lives: i64 =
        redis::cmd("PTTL").arg("lives").query_async(&mut node.client().await).await.unwrap();
    assert!(lives > 3_000_000, "{lives}");
    node.write("after", "1").await.unwrap();
    assert!(node.command(1, cut_over()).await.is_ok(), "the same promotion again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_link_and_another_agent_go_on_where_it_was() {
    let source = Source::start(FULL, &[]).await;
    let mut client = source.client().await;
    set(&mut client, "a", "1").await;
    let node = empty().await;
    node.command(1, Command::Import(source.import())).await.unwrap();
    node.until(caught_up).await;
    let syncs = async |client: &mut MultiplexedConnection| -> (i64, i64) {
        let info: redis::InfoDict =
            redis::cmd("INFO").arg("stats").query_async(client).await.unwrap();
        (info.get("sync_full").unwrap(), info.get("sync_partial_ok").unwrap())
    };
    assert_eq!(syncs(&mut client).await, (1, 0));
    let kill = ["KILL", "TYPE", "replica"];
    redis::cmd("CLIENT").arg(&kill).exec_async(&mut client).await.unwrap();
    set(&mut client, "b", "2").await;
    node.until(|s| s.redis.keys == 2 && caught_up(s)).await;
    assert_eq!(syncs(&mut client).await, (1, 1));
    // As an agent that was started anew knows nothing of it.
    super::import::stop(&node.node);
    set(&mut client, "c", "3").await;
    node.command(1, Command::Import(source.import())).await.unwrap();
    node.until(|s| s.redis.keys == 3 && caught_up(s)).await;
    assert_eq!(syncs(&mut client).await.0, 1, "nothing is copied twice");
    node.kill_redis();
    node.until(|s| s.redis.process == crate::model::node::Process::Exited).await;
    node.until(|s| s.redis.keys == 3 && caught_up(s)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_source_cannot_be_imported_is_said_in_a_sentence() {
    let source = Source::start("+info +ping", &[]).await;
    let node = empty().await;
    node.command(1, Command::Import(source.import())).await.unwrap();
    assert!(refusal(&node, "lets nobody replicate").await.contains("NOPERM"));
    let other = |id: &str, edit: fn(&mut wire::Import)| {
        let mut import = wire::Import { id: id.into(), ..source.import() };
        edit(&mut import);
        Command::Import(import)
    };
    node.command(1, other("wrong", |i| i.password = "x".into())).await.unwrap();
    refusal(&node, "refuses the user importer: name or password is wrong").await;
    node.command(1, other("nobody", |i| i.port = 1)).await.unwrap();
    refusal(&node, "cannot be reached from this node").await;
    node.command(1, other("tls", |i| i.tls = true)).await.unwrap();
    refusal(&node, "speaks no TLS").await;
    let port = source.port.to_string();
    let replica = Source::start(FULL, &["--replicaof", "127.0.0.1", &port]).await;
    let import = wire::Import { id: "replica".into(), ..replica.import() };
    node.command(1, Command::Import(import)).await.unwrap();
    refusal(&node, "name its master").await;
    assert_eq!(node.node.peek().redis.keys, 0);
    let lead = node.command(1, promote(0)).await;
    assert!(lead.is_ok(), "without an import nothing is held");
    let again = node.command(1, Command::Import(source.import())).await.unwrap_err();
    assert!(again.message().contains("redis is master here"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_cannot_be_held_is_left_when_it_stands_still_and_not_before() {
    let source = Source::start("+psync +replconf +ping +info", &[]).await;
    let mut client = source.client().await;
    set(&mut client, "a", "1").await;
    let node = empty().await;
    node.command(1, Command::Import(source.import())).await.unwrap();
    let state = node.until(caught_up).await;
    assert!(!task(&state).can_pause);
    set(&mut client, "b", "2").await;
    node.until(|s| task(s).still_ms < 600 && s.redis.keys == 2 && caught_up(s)).await;
    let refused = node.command(2, cut_over()).await.unwrap_err();
    assert!(refused.message().contains("stop the applications"), "{refused}");
    let state = node.until(|s| task(s).refused_epoch == 2).await;
    assert!(task(&state).refused.contains("stop the applications"));
    assert_eq!(state.redis.role, Role::Replica);
    node.until(|s| task(s).still_ms >= 2000 && caught_up(s)).await;
    node.command(3, cut_over()).await.unwrap();
    assert_eq!(node.read("b").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_refused_where_nothing_is_known_of_the_source() {
    let node = empty().await;
    let refused = node.command(1, cut_over()).await.unwrap_err();
    assert!(refused.message().contains("does not import"), "{refused}");
    assert_eq!(node.node.peek().redis.role, Role::Replica);
    let source = Source::start(FULL, &[]).await;
    node.command(2, Command::Import(source.import())).await.unwrap();
    node.until(caught_up).await;
    drop(source);
    node.until(|s| !task(s).answers).await;
    assert!(node.command(3, cut_over()).await.is_err());
    assert_eq!(node.node.peek().redis.role, Role::Replica, "what it had last is not known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_tls_is_checked_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["db.example.org".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cert = file("cert.pem", issued.cert.pem());
    let key = file("key.pem", issued.signing_key.serialize_pem());
    let port = free_port();
    let port = port.to_string();
    let tls = ["--tls-port", &port, "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert];
    let mut source = Source::start("", &[&tls[..], &files[..]].concat()).await;
    let mut client = source.client().await;
    set(&mut client, "a", "1").await;
    source.port = port.parse().unwrap();
    let import = wire::Import {
        user: String::new(),
        password: String::new(),
        tls: true,
        ca: issued.cert.pem(),
        ..source.import()
    };
    let node = empty().await;
    let wrong = wire::Import { id: "wrong".into(), ..import.clone() };
    node.command(1, Command::Import(wrong)).await.unwrap();
    refusal(&node, "is not who it should be").await;
    let import = wire::Import { server_name: "db.example.org".into(), ..import };
    node.command(1, Command::Import(import)).await.unwrap();
    node.until(|s| s.redis.keys == 1 && caught_up(s)).await;
    node.command(1, cut_over()).await.unwrap();
    assert_eq!(node.read("a").await.as_deref(), Some("1"));
    assert!(source.dir.path().exists());
}
