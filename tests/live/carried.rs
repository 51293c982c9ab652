//! A stock client behind the proxy, over a real mesh, while its master moves as planned: it tries
//! nothing twice by itself, and sees no error. The longest gap is printed.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use akash_redis::cli::demo::writer::Access;
use akash_redis::devnet::sandbox::Sandbox;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, cluster, is_ready, until};

const LIMIT: Duration = Duration::from_mins(8);
/// Commands that show that it goes on.
const SOME: usize = 200;

/// One connection without a retry, and one that waits for elements.
const APPLICATION: &str = r#"
import json, sys, threading, time, redis
host, port, user, password = sys.argv[1:]
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
def connect():
    return redis.Redis(host=host, port=int(port), username=user, password=password, single_connection_client=True, retry_on_timeout=False)
errors, popped, gap = [], [], 0.0
def pops():
    client = connect()
    while not stop.is_set():
        try:
            got = client.blpop("jobs", timeout=1)
            if got: popped.append(int(got[1]))
        except redis.RedisError as error:
            errors.append("pop: %r" % error)
worker = threading.Thread(target=pops)
worker.start()
client, sent, pushed, last = connect(), 0, [], time.monotonic()
while not stop.is_set():
    sent += 1
    try:
        if sent % 4 == 0:
            pipe = client.pipeline(transaction=True)
            pipe.rpush("ids", sent).incr("count").execute()
        elif sent % 4 == 1:
            pipe = client.pipeline(transaction=False)
            pipe.rpush("ids", sent).incr("count").get("count").execute()
        elif sent % 4 == 2:
            client.rpush("ids", sent); client.incr("count")
        else:
            client.rpush("ids", sent); client.incr("count"); client.rpush("jobs", sent); pushed.append(sent)
    except redis.RedisError as error:
        errors.append("%d: %r" % (sent, error))
    now = time.monotonic()
    gap, last = max(gap, now - last), now
    print(flush=True)
worker.join()
while True:
    got = client.lpop("jobs")
    if got is None: break
    popped.append(int(got))
ids = [int(one) for one in client.lrange("ids", 0, -1)]
print(json.dumps({"sent": sent, "errors": errors, "in_order": ids == list(range(1, sent + 1)), "count": int(client.get("count")), "jobs": sorted(popped) == pushed, "gap_ms": round(gap * 1000)}), flush=True)
"#;

struct Application {
    process: Child,
    done: Arc<AtomicUsize>,
    last: JoinHandle<String>,
}

impl Application {
    fn start(access: &Access) -> Self {
        let mut process = Command::new("/usr/bin/python3")
            .args(["-c", APPLICATION, &access.host, &access.port.to_string()])
            .args([&access.user, &access.password])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let done = Arc::new(AtomicUsize::new(0));
        let counts = done.clone();
        let last = tokio::spawn(async move {
            let mut last = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                counts.fetch_add(1, Ordering::Relaxed);
                last = line;
            }
            last
        });
        Self { process, done, last }
    }

    async fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until("the application to go on", async || {
            self.done.load(Ordering::Relaxed) >= before + SOME
        })
        .await;
    }

    /// What it saw, after it was told to end.
    async fn end(mut self) -> Value {
        drop(self.process.stdin.take());
        let last = timeout(LIMIT, self.last).await.expect("it ends").unwrap();
        serde_json::from_str(&last).unwrap_or_else(|error| panic!("{last}: {error}"))
    }
}

#[test]
fn a_client_behind_the_proxy_sees_nothing_of_planned_changes() {
    let test = "carried::a_client_behind_the_proxy_sees_nothing_of_planned_changes";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let asked = async |arguments: &[&str]| {
            let said = stage.cli(arguments).await;
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        };
        for what in ["a switchover", "another switchover", "a migration of the master"] {
            // One for each, so that the gap is of this change.
            let application = Application::start(&access);
            application.goes_on().await;
            let old = stage.master().await;
            if what.contains("migration") {
                asked(&["migrate", CLUSTER, &old.ordinal.to_string()]).await;
            } else {
                asked(&["switchover", CLUSTER]).await;
            }
            stage
                .until("another master, and all in sync", |c| {
                    is_ready(c)
                        && c.status.as_ref().is_some_and(|s| {
                            s.master.as_ref().is_some_and(|m| m.incarnation != old.incarnation)
                                && s.nodes.iter().filter(|n| n.ordinal == old.ordinal).count() == 1
                        })
                })
                .await;
            application.goes_on().await;
            let saw = application.end().await;
            println!("{what}: {saw}");
            assert_eq!(saw["errors"], serde_json::json!([]), "{what}");
            assert_eq!((&saw["in_order"], &saw["jobs"]), (&true.into(), &true.into()), "{what}");
            assert_eq!(saw["count"], saw["sent"], "{what}");
            redis_flush(&access).await;
        }
    });
}

/// The next application begins with nothing.
async fn redis_flush(access: &Access) {
    let program = "import sys, redis; r = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]), username=sys.argv[3], password=sys.argv[4]); r.delete('ids', 'count', 'jobs')";
    let done = Command::new("/usr/bin/python3")
        .args(["-c", program, &access.host, &access.port.to_string()])
        .args([&access.user, &access.password])
        .status()
        .await
        .unwrap();
    assert!(done.success());
}
