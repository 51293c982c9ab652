//! What clients did together is there after Redis has loaded its append-only file: it carries out a
//! transaction of that file as its default user, whom nobody can be.

use redis::{ErrorKind, RedisError};
use tokio::time::timeout;

use super::restore_tests::{node, servers};
use super::tests::{PATIENCE, open_dir, promote, usual_settings};
use crate::model::node::{NodeState, Process};

const TOGETHER: &str = "redis.call('SET', 'c', 1) redis.call('RPUSH', 'd', 1) return 'OK'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_loads_the_transactions_of_its_append_only_file() {
    let dir = open_dir();
    for server in servers(dir.path()) {
        let node = node(&server).await;
        node.command(1, promote(0)).await.unwrap();
        let logs = async {
            while !node.instance.has_append_only_file() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, logs).await.expect("its first file");
        let mut client = node.client().await;
        redis::cmd("SET").arg("alone").arg(1).exec_async(&mut client).await.unwrap();
        let mut both = redis::pipe();
        both.atomic().cmd("SET").arg("a").arg(1).cmd("HSET").arg("b").arg("f").arg(1);
        both.exec_async(&mut client).await.unwrap();
        redis::cmd("EVAL").arg(TOGETHER).arg(0).exec_async(&mut client).await.unwrap();

        let run_id = node.node.peek().redis.run_id;
        node.kill_redis();
        let back = |s: &NodeState| {
            let runs = s.redis.process == Process::Running && !s.redis.loading;
            runs && !s.redis.run_id.is_empty() && s.redis.run_id != run_id
        };
        let state = node.until(back).await;
        assert_eq!(state.redis.keys, 5, "{}", server.display());
        node.command(2, usual_settings()).await.unwrap();
        node.command(2, promote(0)).await.unwrap();
        assert_eq!(node.read("c").await.as_deref(), Some("1"));
        for way in ["", "default@", ":@", "default:x@"] {
            let asked = ask_as(way, node.port()).await.expect_err("nobody is the default user");
            let refused =
                asked.kind() == ErrorKind::AuthenticationFailed || asked.code() == Some("NOAUTH");
            assert!(refused, "{}: {way:?}: {asked}", server.display());
        }
        node.stop().await;
    }
}

async fn ask_as(way: &str, port: u16) -> Result<(), RedisError> {
    let client = redis::Client::open(format!("redis://{way}127.0.0.1:{port}/"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("GET").arg("alone").exec_async(&mut connection).await
}
