//! The table of versions against real servers: who can copy whose data, and what each calls itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::model::redis_version::RedisVersion;
use akash_redis::node::info::Info;
use akash_redis::node::redis_control::handover;
use futures::StreamExt as _;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::sandboxed::sandboxed;
use crate::stage::until;

/// Eleven servers are 121 pairs.
const LIMIT: Duration = Duration::from_mins(10);
/// Where the word is said.
const CHANNEL: &str = "the-word";
/// What a replica says that cannot read what it was sent.
const UNREADABLE: &str = "Can't handle RDB format version";

/// Where `make servers` puts them.
fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    cache.join("akash-redis/servers")
}

/// One of those that `make servers` brings.
pub fn cached(name: &str) -> PathBuf {
    let server = cache().join(name).join("server");
    assert!(server.is_file(), "{} is not there: `make servers` first", server.display());
    server
}

/// This machine's own, and those that `make servers` brings.
fn servers() -> Vec<PathBuf> {
    let dir = cache();
    let mut found: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{} ({error}): `make servers` first", dir.display()))
        .map(|entry| entry.unwrap().path().join("server"))
        .collect();
    found.push("redis-server".into());
    found
}

struct Server {
    _process: Child,
    log: PathBuf,
    port: u16,
    client: MultiplexedConnection,
}

/// Of a client: by itself it waits for half a second, which a busy machine may need.
fn unhurried() -> AsyncConnectionConfig {
    let patience = Some(Duration::from_secs(20));
    AsyncConnectionConfig::new().set_connection_timeout(patience).set_response_timeout(patience)
}

impl Server {
    async fn start(program: &Path, dir: &Path, port: u16) -> Self {
        let dir = dir.join(port.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let log = dir.join("log");
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"]);
        command.arg("--dir").arg(&dir).arg("--logfile").arg(&log);
        let process = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        let mut found = None;
        until("a server to answer", async || {
            found = client.get_multiplexed_async_connection_with_config(&unhurried()).await.ok();
            found.is_some()
        })
        .await;
        Self { _process: process, log, port, client: found.unwrap() }
    }

    async fn run(&mut self, words: &[&str]) -> String {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut self.client).await.unwrap()
    }

    async fn info(&mut self) -> Info {
        Info::parse(&self.run(&["INFO"]).await, &HashMap::new())
    }
}

/// The word of a handover comes when everything is there, and nothing comes after it.
async fn hands_over(lead: &mut Server, own: &mut Server) {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", own.port)).unwrap();
    let mut words = client.get_async_pubsub().await.unwrap();
    words.subscribe(CHANNEL).await.unwrap();
    let mut heard = words.into_on_message();
    let mut writer = lead.client.clone();
    let writer = tokio::spawn(async move {
        let mut number = 0_u32;
        loop {
            number += 1;
            let written: redis::RedisResult<()> =
                redis::cmd("SET").arg("n").arg(number).query_async(&mut writer).await;
            if written.is_err() {
                break;
            }
        }
    });
    let mut own_connection = own.client.clone();
    until("writes to arrive", async || {
        let there: Option<u32> =
            redis::cmd("GET").arg("n").query_async(&mut own_connection).await.unwrap();
        there.is_some_and(|n| n > 20)
    })
    .await;
    // The writer's connection is held by the fence, and this one waits for nobody.
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", lead.port)).unwrap();
    lead.client = client.get_multiplexed_async_connection_with_config(&unhurried()).await.unwrap();
    handover(CHANNEL).exec_async(&mut lead.client).await.unwrap();
    let told = timeout(Duration::from_secs(10), heard.next()).await.expect("the word");
    assert!(told.is_some());
    let (end, has) = (lead.info().await, own.info().await);
    assert_eq!(has.number("slave_repl_offset"), end.number("master_repl_offset"));
    let last: u32 = own.run(&["GET", "n"]).await.parse().unwrap();
    assert_eq!(lead.run(&["GET", "n"]).await, last.to_string(), "the last write is there");
    writer.abort();
}

async fn version(program: &Path) -> RedisVersion {
    let said = Command::new(program).arg("--version").output().await.unwrap();
    RedisVersion::of_program(&String::from_utf8_lossy(&said.stdout)).unwrap()
}

#[test]
fn real_servers_copy_each_others_data_as_the_table_says() {
    sandboxed(
        "versions::real_servers_copy_each_others_data_as_the_table_says",
        LIMIT,
        async |sandbox: Sandbox| {
            let servers = servers();
            assert!(servers.len() >= 3, "{servers:?}");
            let mut port = 20_000;
            for master in &servers {
                for replica in &servers {
                    port += 2;
                    let mut lead = Server::start(master, &sandbox.dir, port).await;
                    let mut own = Server::start(replica, &sandbox.dir, port + 1).await;
                    let (its, this) = (version(master).await, version(replica).await);
                    assert_eq!(lead.info().await.state().version, its.report());
                    assert!(its.is_supported() && this.is_supported(), "{its}, {this}");
                    lead.run(&["SET", "k", "the master's"]).await;
                    own.run(&["SET", "own", "the replica's"]).await;
                    own.run(&["REPLICAOF", "127.0.0.1", &lead.port.to_string()]).await;
                    let mut copied = false;
                    until("an end of the full sync", async || {
                        copied = own.info().await.link_up();
                        let log = std::fs::read_to_string(&own.log).unwrap_or_default();
                        copied || log.contains(UNREADABLE)
                    })
                    .await;
                    println!("{this} follows {its}: {copied}");
                    assert_eq!(copied, this.can_follow(its), "{this} follows {its}");
                    if copied {
                        hands_over(&mut lead, &mut own).await;
                    }
                }
            }
        },
    );
}
