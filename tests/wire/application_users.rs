//! What an application's user may do when the manifest says nothing of it: a real redis-server is
//! asked, with the commands that real clients and frameworks send when they start and when they
//! work. They were read off `MONITOR` while each of them ran.

use akash_redis::api::{rules, validate};

use crate::redis_settings::Server;

/// Rules of a user of which the manifest says nothing.
fn default_rules() -> String {
    let manifest = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: x }\nspec:\n  nodes: 3\n  redis: { users: [{ name: app, passwordFrom: { env: X } }] }\n  resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }\n  budget: { maxPerMonth: 12act }\n";
    validate::parse(manifest).unwrap()[0].spec.redis.users[0].rules.clone()
}

/// A server that takes reads and writes: none is when it starts.
async fn opened() -> Server {
    let mut server = Server::start().await;
    server.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    server.ask::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await.unwrap();
    server
}

async fn set(server: &mut Server, name: &str, rules: &str) {
    let expanded = rules::expand(rules);
    let words: Vec<&str> = expanded.split_whitespace().collect();
    let user = ["ACL", "SETUSER", name, "reset", "on", ">secret"];
    server.ask::<()>(&[&user[..], &words].concat()).await.unwrap();
}

/// Who sends it, and what: a command a line.
const SENT: &[(&str, &str)] = &[
    (
        "every client, when it connects",
        "HELLO 2
         CLIENT SETNAME x
         CLIENT GETNAME
         CLIENT ID
         CLIENT INFO
         CLIENT LIST
         CLIENT SETINFO LIB-NAME x
         CLIENT SETINFO LIB-VER 1
         CLIENT NO-TOUCH on
         CLIENT TRACKING off
         CLIENT MAINT_NOTIFICATIONS on
         COMMAND COUNT
         COMMAND DOCS get
         COMMAND INFO get
         ACL WHOAMI
         PING
         SELECT 0
         INFO
         INFO server
         ROLE",
    ),
    (
        "ioredis",
        "INFO
         SET a 1
         MULTI
         INCR a
         EXEC
         SCAN 0
         PUBLISH c m
         EVAL return(redis.call('set',KEYS[1],1)) 1 z
         DEL a",
    ),
    (
        "redis-rs, Ruby's redis-client: is it a master?",
        "ROLE
         INFO replication",
    ),
    (
        "BullMQ",
        "INFO
         CLIENT SETNAME bull:bWFpbA==
         CLIENT LIST
         HMSET bull:mail:meta opts.maxLenEvents 10000 version bullmq:6.7.0
         EVAL return(redis.call('rpush',KEYS[1],1)) 1 bull:mail:wait
         SCRIPT LOAD return(1)
         XADD bull:mail:events * event added
         XREAD BLOCK 1 STREAMS bull:mail:events $
         XTRIM bull:mail:events MAXLEN 10
         ZADD bull:mail:marker 0 0
         BZPOPMIN bull:mail:marker 0.01
         RPOPLPUSH bull:mail:wait bull:mail:active
         ZRANGEBYSCORE bull:mail:delayed 0 1
         PEXPIRE bull:mail:1:lock 30000",
    ),
    (
        "Sidekiq",
        "INFO
         SADD processes x
         UNLINK x:workers
         HMSET x info {}
         EXPIRE x 60
         LPUSH queue:default {}
         BRPOP queue:default queue:low 1
         INCRBY stat:processed 1
         ZADD retry 1 {}
         SSCAN processes 0",
    ),
    (
        "Celery",
        "LPUSH celery {}
         LLEN celery
         BRPOP celery celery\u{6}\u{16}3 1
         HSET unacked x {}
         ZADD unacked_index 1 x
         SADD _kombu.binding.celery x
         SETEX celery-task-meta-x 86400 {}
         PUBLISH celery-task-meta-x {}
         TIME
         SCRIPT EXISTS 0000000000000000000000000000000000000000
         PUBSUB NUMSUB x
         WATCH a
         UNWATCH",
    ),
    (
        "RQ",
        "CLIENT LIST
         INFO server
         LMOVE rq:queue:a rq:queue:b LEFT RIGHT
         ZREMRANGEBYSCORE rq:wip:default 0 1
         HINCRBYFLOAT rq:worker:x time 0.5
         PERSIST rq:job:x",
    ),
    (
        "Django's cache",
        "SET :1:a 1 EX 300
         MGET :1:a :1:b
         EXISTS :1:a
         EXPIRE :1:a 5
         SCAN 0 MATCH :1:*",
    ),
    (
        "Spring Data, Spring Session",
        "INFO
         HSET spring:session:sessions:x a b
         HGETALL spring:session:sessions:x
         SET x::k v
         EVAL return(1) 0
         XADD s * a b",
    ),
    (
        "redis-om",
        "INFO server
         HSET :C:x pk x
         HGETALL :C:x
         EXPIRE :C:x 100
         SCAN 0 MATCH :C:*",
    ),
];

/// Those that change what a connection is for.
const LISTENS: &[&str] = &["SUBSCRIBE c", "PSUBSCRIBE *", "UNSUBSCRIBE", "PUNSUBSCRIBE", "RESET"];

#[tokio::test]
async fn real_clients_start_and_work_with_the_rules_of_a_user_of_whom_nothing_is_said() {
    let mut server = opened().await;
    set(&mut server, "app", &default_rules()).await;
    let mut denied = Vec::new();
    for (who, commands) in SENT {
        let mut connection = server.user("app", "secret").await.unwrap();
        for command in commands.lines() {
            let words: Vec<&str> = command.split_whitespace().collect();
            let said: redis::RedisResult<redis::Value> =
                redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await;
            match said {
                Err(error) if error.code() == Some("NOPERM") => {
                    denied.push(format!("{who}: {command}: {error}"));
                }
                // What this server does not know yet, such as CLIENT SETINFO, clients live without.
                Err(error) => assert!(
                    command.contains("CLIENT "),
                    "{who}: {command}: the list has an error: {error}"
                ),
                Ok(_) => {}
            }
        }
    }
    for command in LISTENS {
        let words: Vec<&str> = command.split_whitespace().collect();
        let ask = [&["ACL", "DRYRUN", "app"][..], &words].concat();
        let said: String = server.ask(&ask).await.unwrap();
        if said != "OK" {
            denied.push(format!("{command}: {said}"));
        }
    }
    assert!(denied.is_empty(), "{}", denied.join("\n"));
}

/// The guide has these with their reasons; who needs one writes it behind the rules.
#[tokio::test]
async fn what_stops_the_server_or_empties_it_is_left_to_whoever_asks_for_it() {
    let mut server = Server::start().await;
    let guide = include_str!("../../docs/guide/clients.md");
    let open = ["KEYS *", "FLUSHDB", "FLUSHALL", "SORT l", "MONITOR", "SLOWLOG GET"];
    for command in open {
        let words: Vec<&str> = command.split_whitespace().collect();
        let ask = [&["ACL", "DRYRUN", "app"][..], &words].concat();
        set(&mut server, "app", &default_rules()).await;
        let said: String = server.ask(&ask).await.unwrap();
        assert_ne!(said, "OK", "{command}");
        let rules = format!("{} +{}", default_rules(), words[0].to_lowercase());
        set(&mut server, "app", &rules).await;
        assert_eq!(server.ask::<String>(&ask).await.unwrap(), "OK", "{command}");
        assert!(guide.contains(words[0]), "the guide does not say that {command} is refused");
    }
    for command in ["CONFIG GET x", "CONFIG SET x y", "CLIENT KILL x", "SHUTDOWN", "REPLICAOF h 1"]
    {
        let words: Vec<&str> = command.split_whitespace().collect();
        set(&mut server, "app", &default_rules()).await;
        let ask = [&["ACL", "DRYRUN", "app"][..], &words].concat();
        assert_ne!(server.ask::<String>(&ask).await.unwrap(), "OK", "{command}");
    }
}

#[tokio::test]
async fn every_shipped_manifest_has_a_user_one_can_log_in_with() {
    let mut server = opened().await;
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if !text.contains("kind: RedisCluster") {
            continue;
        }
        for cluster in validate::parse(&text).unwrap() {
            seen += 1;
            let users = &cluster.spec.redis.users;
            assert!(!users.is_empty(), "{}: nobody can log in", path.display());
            for user in users {
                let named = user.password_from.is_some() || !user.passwords.is_empty();
                assert!(named || user.password_sha256.is_some(), "{}", path.display());
                set(&mut server, &user.name, &user.rules).await;
                let mut connection = server.user(&user.name, "secret").await.unwrap();
                for command in ["PING", "INFO", "ROLE"] {
                    let said: redis::RedisResult<redis::Value> =
                        redis::cmd(command).query_async(&mut connection).await;
                    assert!(said.is_ok(), "{}: {command}: {said:?}", path.display());
                }
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}
