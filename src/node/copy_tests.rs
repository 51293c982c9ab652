//! The copy of a real redis-server that lets nobody replicate.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::import_tests::{Source, cut_over, empty, refusal, set, task};
use super::tests::{TestNode, usual_settings};
use crate::model::import::{CopyTask, ImportTask};
use crate::model::node::{NodeState, Role};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

/// For what is much work: a build for tests reads or hashes tens of thousands of keys, or a hundred
/// megabytes, beside other tests.
const LONG: Duration = Duration::from_mins(5);

/// What the guide has a source allow that is copied.
const RULES: &str = "~* +@read +select +ping +info +client|pause +client|unpause";

fn copies(source: &Source, last_pass: &str) -> Command {
    let last_pass = last_pass.to_owned();
    Command::Import(wire::Import { copy: true, last_pass, ..source.import() })
}

fn copy(state: &NodeState) -> CopyTask {
    task(state).copy.unwrap_or_default()
}

/// The first pass is over, and the link to redis is up.
fn copied(state: &NodeState) -> bool {
    let told = task(state);
    // What stands there is told with the next look.
    let looked = told.error.is_empty() && !told.replid.is_empty();
    copy(state).copied && state.redis.is_linked() && looked
}

async fn run(client: &mut MultiplexedConnection, words: &[&str]) {
    redis::cmd(words[0]).arg(&words[1..]).exec_async(client).await.unwrap();
}

/// One value of each type, small and large, and times to live.
async fn fill(client: &mut MultiplexedConnection) {
    for n in 0..2000 {
        set(client, &format!("key-{n}"), &"v".repeat(n % 300)).await;
    }
    let mut pipe = redis::pipe();
    for n in 0..3000 {
        pipe.cmd("HSET").arg("hash").arg(format!("field-{n}")).arg(n).ignore();
        pipe.cmd("SADD").arg("set").arg(format!("member-{n}")).ignore();
        pipe.cmd("ZADD").arg("zset").arg(f64::from(n) / 3.0).arg(format!("member-{n}")).ignore();
        pipe.cmd("RPUSH").arg("list").arg(n).ignore();
        pipe.cmd("XADD").arg("stream").arg(format!("{n}-1")).arg("k").arg(n).ignore();
    }
    pipe.exec_async(client).await.unwrap();
    run(client, &["XGROUP", "CREATE", "stream", "readers", "0"]).await;
    run(client, &["XREADGROUP", "GROUP", "readers", "a", "COUNT", "5", "STREAMS", "stream", ">"])
        .await;
    run(client, &["SADD", "numbers", "1", "2", "3"]).await;
    run(client, &["SET", "ends", "1", "EX", "3600"]).await;
    redis::cmd("SET").arg(b"bytes\xff\r\n").arg(b"\0\xfe").exec_async(client).await.unwrap();
    run(client, &["SELECT", "3"]).await;
    run(client, &["SET", "of-another-database", "1"]).await;
    run(client, &["SELECT", "0"]).await;
}

/// Each value as its type shows it, in an order that does not depend on the server.
async fn all(client: &mut MultiplexedConnection) -> BTreeMap<Vec<u8>, String> {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(client).await.unwrap();
    let mut found = BTreeMap::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(client).await.unwrap();
        let ask: &[&str] = match kind.as_str() {
            "string" => &["GET"],
            "list" => &["LRANGE", "0", "-1"],
            "set" => &["SMEMBERS"],
            "zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
            "hash" => &["HGETALL"],
            "stream" => &["XRANGE", "-", "+"],
            other => panic!("{other}"),
        };
        let mut command = redis::cmd(ask[0]);
        command.arg(&key).arg(&ask[1..]);
        let value: redis::Value = command.query_async(client).await.unwrap();
        let mut text = format!("{value:?}");
        if let (redis::Value::Array(parts), "set" | "hash") = (&value, kind.as_str()) {
            let size = if kind == "hash" { 2 } else { 1 };
            let mut parts: Vec<_> = parts.chunks(size).map(|c| format!("{c:?}")).collect();
            parts.sort();
            text = format!("{parts:?}");
        }
        found.insert(key, text);
    }
    found
}

/// A node that may have as many data as there are.
async fn roomy() -> TestNode {
    let node = empty().await;
    run(&mut of_the_node(&node).await, &["CONFIG", "SET", "maxmemory", "0"]).await;
    node.until(|s| s.redis.health.maxmemory_bytes == 0).await;
    node
}

async fn of_the_node(node: &TestNode) -> MultiplexedConnection {
    node.node.redis.apart(Duration::from_secs(20)).await.unwrap().connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_forbids_replication_is_copied_and_what_changed_meanwhile_is_found() {
    let source = Source::start(RULES, &[]).await;
    let mut client = source.client().await;
    fill(&mut client).await;
    let node = empty().await;
    node.command(1, copies(&source, "")).await.unwrap();
    let state = node.until(copied).await;
    assert!(task(&state).can_pause && state.redis.fenced && state.redis.role == Role::Replica);
    assert_eq!(state.redis.replid, task(&state).replid);
    assert!(copy(&state).keys_per_second > 0 && copy(&state).difference.left == 0);
    assert!(node.write("x", "1").await.is_err(), "nobody writes here before");
    assert_eq!(all(&mut of_the_node(&node).await).await, all(&mut client).await);

    // Nothing is taken for changed that is not: large sets and hashes come in another order.
    node.command(1, copies(&source, "1")).await.unwrap();
    let state = node.until(|s| copy(s).done).await;
    assert_eq!(copy(&state).difference, crate::model::import::Difference::default());
    let held = timeout(Duration::from_millis(500), set(&mut source.client().await, "x", "1")).await;
    assert!(held.is_err(), "the source takes no writes");
    node.command(1, copies(&source, "")).await.unwrap();
    node.until(|s| copy(s).pass.is_empty()).await;
    set(&mut client, "x", "1").await;

    for words in [
        &["SET", "key-7", "other"][..],
        &["HSET", "hash", "field-9", "other"],
        &["SREM", "set", "member-11"],
        &["ZADD", "zset", "7", "member-2999"],
        &["XACK", "stream", "readers", "1-1"],
        &["LPOP", "list"],
        &["PERSIST", "ends"],
        &["EXPIRE", "key-9", "1000"],
        &["DEL", "key-1", "key-2", "numbers"],
        &["SET", "key-3", "ends-soon", "PX", "1"],
    ] {
        run(&mut client, words).await;
    }
    node.command(1, copies(&source, "2")).await.unwrap();
    let state = node.until(|s| copy(s).done).await;
    let found = copy(&state).difference;
    assert_eq!((found.added, found.gone, found.left), (1, 4, 0), "{found:?}");
    assert_eq!(found.changed, 8, "{found:?}");
    node.command(1, cut_over()).await.unwrap();
    let state = node.node.peek();
    assert_eq!((state.redis.role, task(&state)), (Role::Master, ImportTask::default()));
    let mut here = of_the_node(&node).await;
    assert_eq!(all(&mut here).await, all(&mut client).await);
    let pending: Vec<redis::Value> =
        redis::cmd("XPENDING").arg("stream").arg("readers").query_async(&mut here).await.unwrap();
    assert_eq!(pending[0], redis::Value::Int(4));
    let ttl: i64 = redis::cmd("TTL").arg("key-9").query_async(&mut here).await.unwrap();
    assert!((990..=1000).contains(&ttl), "{ttl}");
    run(&mut here, &["SELECT", "3"]).await;
    let other: String =
        redis::cmd("GET").arg("of-another-database").query_async(&mut here).await.unwrap();
    assert_eq!(other, "1");
    node.write("after", "1").await.unwrap();
    let held = timeout(Duration::from_millis(500), set(&mut source.client().await, "x", "1")).await;
    assert!(held.is_err(), "what it took now would be lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_too_large_is_named_and_one_of_60_mib_is_not() {
    let source = Source::start(RULES, &[]).await;
    let mut client = source.client().await;
    set(&mut client, "small", "1").await;
    run(&mut client, &["SETRANGE", "huge", "85000000", "x"]).await;
    let node = empty().await;
    node.command(1, copies(&source, "")).await.unwrap();
    let state = node.until(copied).await;
    let found = copy(&state).difference;
    assert_eq!((found.left, state.redis.keys), (1, 1));
    assert!(
        found.names[0].contains("\"huge\" of database 0 (96 MiB are more than 80 MiB"),
        "{found:?}"
    );
    run(&mut client, &["DEL", "huge"]).await;
    run(&mut client, &["SETRANGE", "large", "62000000", "x"]).await;
    node.command(1, copies(&source, "1")).await.unwrap();
    let state = node.until(|s| copy(s).done).await;
    let found = copy(&state).difference;
    assert_eq!((found.added, found.left), (1, 0), "{found:?}");
    node.command(1, cut_over()).await.unwrap();
    assert_eq!(node.read("large").await.map(|v| v.len()), Some(62_000_001));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_on_after_a_broken_link_and_begins_anew_where_it_must() {
    let source = Source::start(RULES, &[]).await;
    let mut client = source.client().await;
    run(&mut client, &["CONFIG", "SET", "latency-tracking", "no"]).await;
    let mut pipe = redis::pipe();
    for n in 0..60_000 {
        pipe.cmd("SET").arg(format!("key-{n}")).arg(n).ignore();
    }
    pipe.exec_async(&mut client).await.unwrap();
    let node = empty().await;
    node.command(1, copies(&source, "")).await.unwrap();
    node.until(|s| copy(s).looked_at > 0).await;
    // In the middle of it, unless the machine was very quick.
    run(&mut client, &["CLIENT", "KILL", "USER", "importer"]).await;
    let state = node.until_within(LONG, |s| copied(s) && s.redis.keys == 60_000).await;
    assert!(copy(&state).looked_at < 120_000, "it went on where it was");
    // Redis here forgets whose stream it followed: everything is copied anew.
    node.kill_redis();
    node.until(|s| s.redis.process == crate::model::node::Process::Exited).await;
    node.until(|s| !copy(s).copied).await;
    // The new process has no users yet, and loads for a while.
    node.running().await;
    node.command(1, usual_settings()).await.unwrap();
    node.until_within(LONG, |s| copied(s) && s.redis.keys == 60_000).await;
    // Another source at the same address is compared as any.
    let port = source.port;
    drop(source);
    node.until(|s| !task(s).answers).await;
    let source = Source::start_at(port, RULES, &[]).await;
    set(&mut source.client().await, "key-1", "other").await;
    node.until(|s| task(s).answers && task(s).error.is_empty()).await;
    node.command(1, copies(&source, "1")).await.unwrap();
    let state = node.until_within(LONG, |s| copy(s).done).await;
    let found = copy(&state).difference;
    assert_eq!((found.changed, found.gone, found.left), (1, 59_999, 0), "SCAN names keys twice");
    node.command(1, cut_over()).await.unwrap();
    assert_eq!(node.read("key-1").await.as_deref(), Some("other"));
    assert_eq!(node.read("key-2").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_after_the_comparison_keeps_a_source_that_cannot_be_held_from_being_left() {
    let source = Source::start("~* +@read +select +ping +info", &[]).await;
    let mut client = source.client().await;
    set(&mut client, "a", "1").await;
    let node = empty().await;
    node.command(1, copies(&source, "")).await.unwrap();
    let state = node.until(copied).await;
    assert!(!task(&state).can_pause);
    let refused = node.command(2, cut_over()).await.unwrap_err();
    assert!(refused.message().contains("not compared once more"), "{refused}");
    node.command(2, copies(&source, "1")).await.unwrap();
    node.until(|s| copy(s).done).await;
    set(&mut client, "b", "2").await;
    let refused = node.command(3, cut_over()).await.unwrap_err();
    assert!(refused.message().contains("somebody wrote"), "{refused}");
    let state = node.until(|s| task(s).refused_epoch == 3).await;
    assert_eq!(state.redis.role, Role::Replica);
    node.command(4, copies(&source, "2")).await.unwrap();
    node.until(|s| copy(s).pass == "2" && copy(s).done).await;
    node.command(4, cut_over()).await.unwrap();
    assert_eq!(node.read("b").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_source_cannot_be_copied_is_said_in_a_sentence() {
    let source = Source::start("~* +ping +info +select", &["--databases", "20"]).await;
    let mut client = source.client().await;
    set(&mut client, "a", "1").await;
    let node = empty().await;
    node.command(1, copies(&source, "")).await.unwrap();
    refusal(&node, "it needs ~* +@read").await;
    let other = |id: &str, edit: fn(&mut wire::Import)| {
        let mut import = wire::Import { id: id.into(), copy: true, ..source.import() };
        edit(&mut import);
        Command::Import(import)
    };
    node.command(1, other("wrong", |i| i.password = "x".into())).await.unwrap();
    refusal(&node, "refuses the user importer: name or password is wrong").await;
    run(&mut client, &["ACL", "SETUSER", "importer", "+@read"]).await;
    run(&mut client, &["SELECT", "18"]).await;
    set(&mut client, "a", "1").await;
    node.command(1, other("far", |_| {})).await.unwrap();
    refusal(&node, "a larger `databases` in spec.redis.config").await;
}

/// A table that shrinks while it is scanned is one whose keys `SCAN` names twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_counted_once_however_often_the_source_names_it() {
    const KEYS: u64 = 10_000;
    let source = Source::start(RULES, &[]).await;
    let mut client = source.client().await;
    let mut pipe = redis::pipe();
    for n in 0..KEYS {
        pipe.cmd("SET").arg(format!("key-{n}")).arg(n).ignore();
    }
    pipe.exec_async(&mut client).await.unwrap();
    run(&mut client, &["SETRANGE", "huge", "84000000", "x"]).await;
    let node = roomy().await;
    node.command(1, copies(&source, "")).await.unwrap();
    // The source's table is resized again and again meanwhile: it grows, and is emptied.
    let resized = tokio::spawn(async move {
        for round in 0..8 {
            let mut pipe = redis::pipe();
            for n in 0..30_000 {
                pipe.cmd("SET").arg(format!("other-{n}")).arg(round).ignore();
            }
            pipe.exec_async(&mut client).await.unwrap();
            let mut pipe = redis::pipe();
            for n in 0..30_000 {
                pipe.cmd("UNLINK").arg(format!("other-{n}")).ignore();
            }
            pipe.exec_async(&mut client).await.unwrap();
        }
        client
    });
    let state = node.until_within(LONG, copied).await;
    assert_eq!(copy(&state).difference.left, 1, "{:?}", copy(&state).difference);
    let mut client = resized.await.unwrap();
    // Half of what is here is gone there, and the rest is another.
    let mut pipe = redis::pipe();
    for n in 0..KEYS / 2 {
        pipe.cmd("DEL").arg(format!("key-{n}")).ignore();
    }
    for n in KEYS / 2..KEYS {
        pipe.cmd("SET").arg(format!("key-{n}")).arg("changed").ignore();
    }
    for n in 0..5000 {
        pipe.cmd("SET").arg(format!("new-{n}")).arg(n).ignore();
    }
    pipe.exec_async(&mut client).await.unwrap();
    let here = node.node.peek().redis.keys;
    node.command(1, copies(&source, "1")).await.unwrap();
    let found = copy(&node.until_within(LONG, |s| copy(s).done).await).difference;
    let there: u64 = redis::cmd("DBSIZE").query_async(&mut client).await.unwrap();
    println!("{here} keys here, {there} there: {found:?}");
    assert_eq!((found.changed, found.added, found.left), (KEYS / 2, 5000, 1));
    assert_eq!(here + found.added - found.gone + found.left, there);
    node.command(1, cut_over()).await.unwrap();
    assert_eq!(node.node.peek().redis.keys + found.left, there);
}

/// All that this program has allocated; the test below runs in a process of its own.
#[global_allocator]
static ALLOCATED: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Bytes that nothing compresses.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::RngCore::fill_bytes(&mut rand::thread_rng(), &mut bytes);
    bytes
}

#[test]
fn no_more_than_one_large_value_is_held_at_a_time() {
    const INSIDE: &str = "AKASH_REDIS_TEST_COUNTS_BYTES";
    const MIB: usize = 1 << 20;
    if std::env::var_os(INSIDE).is_none() {
        let test = "node::copy_tests::no_more_than_one_large_value_is_held_at_a_time";
        let done = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        println!("{said}");
        return assert!(done.status.success() && said.contains("1 passed"), "{said}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let source = Source::start(RULES, &[]).await;
        let bytes = noise(24 * MIB);
        let write = async |key: &str, bytes: &[u8]| {
            let mut set = redis::cmd("SET");
            set.arg(key).arg(bytes).exec_async(&mut source.client().await).await.unwrap();
        };
        for n in 0..10 {
            write(&format!("middle-{n}"), &bytes[..6 * MIB]).await;
        }
        // A sample of its fields shows none of the large ones.
        let mut client = source.client().await;
        let mut pipe = redis::pipe();
        for n in 0..2000 {
            pipe.cmd("HSET").arg("uneven").arg(n).arg("small").ignore();
        }
        pipe.exec_async(&mut client).await.unwrap();
        for n in 0..4 {
            let mut set = redis::cmd("HSET");
            set.arg("uneven").arg(format!("large-{n}")).arg(&bytes);
            set.exec_async(&mut client).await.unwrap();
        }
        for n in 0..3 {
            write(&format!("large-{n}"), &bytes).await;
        }
        drop(client);
        let node = roomy().await;
        let most = async |what: &str, before: usize| {
            let peak = ALLOCATED.peak_usage() - before;
            println!("{what}: {} MiB at most", peak / MIB);
            assert!(peak < (5 * 24 + 30) * MIB, "{what}: {peak} bytes were held at once");
        };
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        node.command(1, copies(&source, "")).await.unwrap();
        let state = node.until_within(LONG, copied).await;
        most("the first pass", before).await;
        let found = copy(&state).difference;
        assert_eq!(found.left, 1, "{found:?}");
        assert!(found.names[0].contains("\"uneven\" of database 0 ("), "{found:?}");

        write("large-1", &noise(24 * MIB)).await;
        write("middle-1", &noise(6 * MIB)).await;
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        node.command(1, copies(&source, "1")).await.unwrap();
        let found = copy(&node.until_within(LONG, |s| copy(s).done).await).difference;
        assert_eq!((found.changed, found.added, found.gone, found.left), (2, 0, 0, 1));
        most("the last pass", before).await;
        node.stop().await;
    });
}
