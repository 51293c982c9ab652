//! What a manifest may say of settings, users and rules, held to a real redis-server that is started
//! as a node starts it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use akash_redis::api::commands::{commands, newer};
use akash_redis::api::redis_settings::{
    FIXED, Kind, NARROWED, NEWER, OURS, SETTINGS, STARTUP, Setting, find, wrong,
};
use akash_redis::api::{rules, validate};
use akash_redis::node::redis_config::{AGENT_USER, BootConfig, acl_text};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

/// Nothing here takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Of a client: by itself it waits for half a second.
fn unhurried() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
}

/// A redis-server that ends with the test.
pub struct Server {
    child: Child,
    agent: MultiplexedConnection,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = BootConfig {
            port: 6379,
            run_dir: dir.path().into(),
            data_dir: dir.path().into(),
            append_only: false,
            snapshots: true,
            maxmemory: 64 << 20,
            container_bytes: 512 << 20,
            announce: None,
            startup: BTreeMap::new(),
        };
        std::fs::write(config.acl_file(), acl_text("secret")).unwrap();
        let file = dir.path().join("redis.conf");
        std::fs::write(&file, config.text()).unwrap();
        let child = Command::new("redis-server").arg(file).stdout(Stdio::null()).spawn().unwrap();
        let socket = dir.path().join(BootConfig::SOCKET);
        let client = redis::Client::open(format!(
            "unix://{}?user={AGENT_USER}&pass=secret",
            socket.display()
        ))
        .unwrap();
        let answers = async {
            loop {
                if let Ok(agent) =
                    client.get_multiplexed_async_connection_with_config(&unhurried()).await
                {
                    return agent;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let agent = tokio::time::timeout(PATIENCE, answers).await.expect("it answers");
        Self { child, agent, dir }
    }

    pub async fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> redis::RedisResult<T> {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.agent).await
    }

    /// A connection of a user with this password.
    pub async fn user(
        &self,
        name: &str,
        password: &str,
    ) -> redis::RedisResult<MultiplexedConnection> {
        let socket = self.dir.path().join(BootConfig::SOCKET);
        let url = format!("unix://{}?user={name}&pass={password}", socket.display());
        redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&unhurried()).await
    }

    async fn takes(&mut self, name: &str, value: &str) -> bool {
        match self.ask::<()>(&["CONFIG", "SET", name, value]).await {
            Ok(()) => true,
            Err(refused) if refused.code().is_some() => false,
            Err(silent) => panic!("CONFIG SET {name} {value:?}: {silent}"),
        }
    }

    async fn settings(&mut self) -> BTreeMap<String, String> {
        self.ask(&["CONFIG", "GET", "*"]).await.unwrap()
    }
}

/// Values to try: those that a manifest may give, and those that it may not.
fn values(setting: &Setting) -> (Vec<String>, Vec<String>) {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    match setting.kind {
        Kind::YesNo => (texts(&["yes", "no", "YES"]), texts(&["maybe", "", "1"])),
        Kind::Word(words) => (texts(words), texts(&["nonsense", "", "no way"])),
        Kind::Number(least, most) => (
            vec![least.to_string(), most.to_string()],
            vec![
                (i128::from(least) - 1).to_string(),
                (i128::from(most) + 1).to_string(),
                "abc".into(),
                String::new(),
                "05".into(),
                "1.5".into(),
            ],
        ),
        Kind::Size(least, most) => (
            vec![least.to_string(), most.to_string(), "2mb".into(), "2M".into()],
            vec![
                (i128::from(least) - 1).to_string(),
                (i128::from(most) + 1).to_string(),
                "abc".into(),
                "1.5mb".into(),
                "1Gi".into(),
            ],
        ),
        Kind::Share => (texts(&["0", "0%", "100%", "5mb"]), texts(&["101%", "-5%", "x", "x%"])),
        Kind::Save => (
            texts(&["", "1 0", "900 1 300 10", "2147483647 2147483647"]),
            texts(&["abc", "60", "0 1", "60 -1", "60 1 2", "60  1"]),
        ),
        Kind::Events => (texts(&["", "Ex", "KEAg$lshzxetmdn"]), texts(&["Q", "Ey", "KE "])),
        Kind::BufferLimits => (
            texts(&[
                "normal 0 0 0",
                "pubsub 32mb 8mb 60 normal 1gb 0 0",
                "replica 64mb 64mb 0",
                "SLAVE 64mb 0 0",
            ]),
            texts(&["normal 0 0", "foo 0 0 0", "normal x 0 0", "normal 0 0 x", "normal 0 0 -1"]),
        ),
        Kind::Percentiles => (texts(&["", "50 99.9", "0 100"]), texts(&["101", "-1", "x"])),
    }
}

#[tokio::test]
async fn what_a_manifest_may_say_is_taken_and_what_it_may_not_is_refused() {
    let mut server = Server::start().await;
    // It cannot raise its own limit of files.
    let system = |name: &str, value: &str| name == "maxclients" && value == "1000000";
    // Of a build without the jemalloc that comes with Redis: the node tells that.
    let build =
        |name: &str, value: &str| name == "activedefrag" && value.eq_ignore_ascii_case("yes");
    let before = server.settings().await;
    let mut odd = Vec::new();
    for setting in SETTINGS {
        let name = setting.name;
        let narrowed = NARROWED.iter().any(|(one, _)| *one == name);
        let (good, bad) = values(setting);
        for value in good {
            if let Some(sentence) = wrong(setting, &value) {
                odd.push(format!("{name} {value:?} is not taken here: {sentence}"));
            }
            let excused = system(name, &value) || build(name, &value);
            if !server.takes(name, &value).await && !excused {
                odd.push(format!("{name} {value:?} is refused by redis"));
            }
        }
        for value in bad {
            if wrong(setting, &value).is_none() {
                odd.push(format!("{name} {value:?} is taken here"));
            }
            if server.takes(name, &value).await && !narrowed {
                odd.push(format!("{name} {value:?} is taken by redis"));
            }
        }
        server.takes(name, &before[name]).await;
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}

#[tokio::test]
async fn every_setting_of_redis_is_known_and_those_that_are_fixed_have_their_value() {
    let mut server = Server::start().await;
    let all = server.settings().await;
    let ours = |name: &str| {
        OURS.iter().any(|(beginnings, _)| beginnings.iter().any(|one| name.starts_with(one)))
    };
    // They say on which processors what runs, which is the provider's.
    let unheard_of: Vec<_> = all
        .keys()
        .filter(|name| find(name).is_none() && !ours(name) && !name.ends_with("cpulist"))
        .collect();
    assert_eq!(unheard_of, Vec::<&String>::new());
    for setting in SETTINGS {
        assert!(all.contains_key(setting.name), "{}", setting.name);
    }
    for (name, _) in NEWER {
        assert!(!all.contains_key(*name), "{name}");
    }
    for (name, value) in FIXED.iter().filter(|(name, _)| *name != "port") {
        assert_eq!(all.get(*name).map(String::as_str), Some(*value), "{name}");
        assert!(ours(name) && find(name).is_none(), "{name}");
    }
    for (setting, usual) in STARTUP {
        let (name, value) = (setting.name, usual.to_owned());
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        assert!(wrong(setting, value).is_none() && !ours(name), "{name}");
        assert!(!server.takes(name, "7").await, "{name} can be changed while redis runs");
    }
}

#[tokio::test]
async fn the_commands_are_those_of_redis() {
    let mut server = Server::start().await;
    let real: BTreeSet<String> = server.ask(&["COMMAND", "LIST"]).await.unwrap();
    let ours: BTreeSet<String> = commands().map(str::to_owned).collect();
    assert_eq!(ours.symmetric_difference(&real).collect::<Vec<_>>(), Vec::<&String>::new());
    for (name, version) in newer() {
        assert!(!real.contains(name), "{name} of {version}");
    }
}

/// What a manifest says about rules.
fn problems(rules: &str) -> Vec<String> {
    let user =
        serde_json::json!({ "name": "app", "rules": rules, "passwordSha256": "ab".repeat(32) });
    let manifest = serde_json::json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": { "name": "a" },
        "spec": { "nodes": 1, "redis": { "users": [user] } },
    });
    let found = validate::parse(&manifest.to_string()).err().unwrap_or_default();
    found.into_iter().map(|problem| problem.to_string()).collect()
}

#[tokio::test]
async fn rules_are_words_that_redis_knows() {
    let mut server = Server::start().await;
    for rule in [
        "+get",
        "-get",
        "+GET",
        "+gett",
        "-gett",
        "+memory|usage",
        "-memory|usage",
        "+memory|foo",
        "+memory",
        "+select|0",
        "-select|0",
        "+select|",
        "+@read",
        "+@reed",
        "-@write",
        "+client|setinfo",
        "+hexpire",
        "~a",
        "%R~a",
        "%X~a",
        "&a",
        "get",
        "+",
        "-",
        "+@",
        "allkeys",
        "resetkeys",
        "nocommands",
        "sanitize-payload",
        "(+get ~a)",
        "(+gett ~a)",
        "+xinfo|stream",
        "-xinfo|streams",
        "+json.get",
        "+function|load",
        "+object|freq",
        "+sort_ro",
        "~* ~a",
        "~* ~*",
        "allkeys %R~a",
        "~* resetkeys ~a",
        "&* &a",
        "&* resetchannels &a",
        "%R~* ~a",
    ] {
        let words: Vec<&str> = rule.split(' ').collect();
        // A selector is one argument.
        let joined = [words.join(" ")];
        let words = if rule.starts_with('(') { vec![joined[0].as_str()] } else { words };
        let taken =
            server.ask::<()>(&[&["ACL", "SETUSER", "x", "reset"][..], &words].concat()).await;
        assert_eq!(
            problems(rule).is_empty(),
            taken.is_ok(),
            "{rule}: here {:?}, redis {taken:?}",
            problems(rule)
        );
    }
}

#[tokio::test]
async fn names_of_rules_allow_what_they_say() {
    let mut server = Server::start().await;
    let rows: [(&str, &[&str], &[&str]); 3] = [
        (
            "full",
            &["set k v", "flushall", "keys *", "info", "acl whoami", "eval x 0", "monitor"][..],
            &[
                "config get x",
                "acl setuser x",
                "acl list",
                "psync ? -1",
                "replicaof h 1",
                "shutdown",
                "client kill x",
                "client pause 1",
                "debug jmap",
                "module list",
                "failover",
            ][..],
        ),
        (
            "readonly",
            &[
                "get k",
                "scan 0",
                "subscribe c",
                "ping",
                "info",
                "eval_ro x 0",
                "multi",
                "client setname x",
                "lrange k 0 1",
            ],
            &[
                "set k v",
                "del k",
                "flushall",
                "publish c m",
                "keys *",
                "eval x 0",
                "config get x",
                "client kill x",
                "function flush",
                "expire k 1",
            ],
        ),
        (
            "monitoring",
            &[
                "info",
                "slowlog get",
                "latency latest",
                "client list",
                "dbsize",
                "ping",
                "memory stats",
                "role",
            ],
            &[
                "get k",
                "set k v",
                "keys *",
                "config get x",
                "client kill x",
                "monitor",
                "publish c m",
                "slowlog reset",
                "memory usage k",
                "acl list",
            ],
        ),
    ];
    for (name, allowed, denied) in rows {
        assert_eq!(problems(name), Vec::<String>::new());
        let expanded = rules::expand(name);
        let words: Vec<&str> = expanded.split_whitespace().collect();
        server.ask::<()>(&[&["ACL", "SETUSER", "x", "reset"][..], &words].concat()).await.unwrap();
        for (commands, may) in [(allowed, true), (denied, false)] {
            for command in commands {
                let words: Vec<&str> = command.split(' ').collect();
                let said: String =
                    server.ask(&[&["ACL", "DRYRUN", "x"][..], &words].concat()).await.unwrap();
                assert_eq!(said == "OK", may, "{name}: {command}: {said}");
            }
        }
    }
}
