//! Passwords against a real redis: those of replicas end with their epoch, those of applications
//! change without a failed command.

use redis::aio::MultiplexedConnection;

use super::tests::{TestNode, hash, pair, promote, quorum, unhurried, usual_settings};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

async fn connect(
    node: &TestNode,
    user: &str,
    password: &str,
) -> redis::RedisResult<MultiplexedConnection> {
    let address = format!("redis://{user}:{password}@127.0.0.1:{}/", node.port());
    redis::Client::open(address)?.get_multiplexed_async_connection_with_config(&unhurried()).await
}

/// What a promotion by the replication protocol would take.
async fn take_over(node: &TestNode, replid: &str, password: &str) -> redis::RedisResult<()> {
    let mut connection = connect(node, "_repl-b", password).await?;
    redis::cmd("PSYNC").arg(replid).arg(1).arg("FAILOVER").exec_async(&mut connection).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_password_of_an_earlier_epoch_neither_reads_nor_promotes() {
    let (master, replica) = pair().await;
    master.write("k", "v").await.unwrap();
    let replid = master.node.peek().redis.replid;
    let mut old = connect(&master, "_repl-b", "repl-secret").await.expect("it is good now");
    let read = redis::cmd("GET").arg("k").query_async::<String>(&mut old).await.unwrap_err();
    assert_eq!(read.code(), Some("NOPERM"), "it replicates, and does nothing else");
    let elsewhere = take_over(&replica, &replid, "repl-secret").await.unwrap_err();
    assert_eq!(elsewhere.kind(), redis::ErrorKind::AuthenticationFailed, "on the master alone");

    // The next epoch has another one.
    let users = vec![wire::ReplicationUser {
        name: "_repl-b2".into(),
        password_sha256: hash("repl-secret-2"),
    }];
    let next = wire::Promote {
        replication_users: users,
        quorum: Some(quorum(0)),
        ..wire::Promote::default()
    };
    master.command(2, Command::Promote(next)).await.unwrap();
    redis::cmd("PING").exec_async(&mut old).await.expect_err("the open connection is cut");
    let late = take_over(&master, &replid, "repl-secret").await.unwrap_err();
    assert_eq!(late.kind(), redis::ErrorKind::AuthenticationFailed);
    replica.until(|s| !s.redis.is_linked()).await;
    connect(&master, "_repl-b2", "repl-secret-2").await.expect("that of this epoch");

    // A node that is no master any more has none.
    master.command(3, Command::Detach(wire::Detach::default())).await.unwrap();
    let demoted = connect(&master, "_repl-b2", "repl-secret-2").await.unwrap_err();
    assert_eq!(demoted.kind(), redis::ErrorKind::AuthenticationFailed);
    master.stop().await;
    replica.stop().await;
}

fn passwords(of: &[&str]) -> Command {
    let Command::Configure(settings) = usual_settings() else { unreachable!("they are settings") };
    let mut users = settings.users.clone();
    users[0].password_sha256 = of.iter().map(|password| hash(password)).collect();
    let generation = format!("{of:?}");
    Command::Configure(wire::Configure { generation, users, ..settings })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_while_two_are_good_and_no_command_fails() {
    let node = TestNode::start(0);
    node.running().await;
    node.command(1, passwords(&["old"])).await.unwrap();
    node.command(1, promote(0)).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let writing = |mut client: MultiplexedConnection| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut done = 0u64;
            while !stop.is_cancelled() {
                redis::cmd("INCR").arg("k").exec_async(&mut client).await?;
                done += 1;
            }
            redis::RedisResult::Ok(done)
        })
    };
    let first = writing(connect(&node, "app", "old").await.unwrap());
    node.command(1, passwords(&["old", "new"])).await.unwrap();
    connect(&node, "app", "old").await.expect("the old one is good still");
    let second = writing(connect(&node, "app", "new").await.expect("and the new one already"));
    node.command(1, passwords(&["new"])).await.unwrap();
    let late = connect(&node, "app", "old").await.unwrap_err();
    assert_eq!(late.kind(), redis::ErrorKind::AuthenticationFailed);
    stop.cancel();
    for client in [first, second] {
        assert!(client.await.unwrap().expect("no command failed") > 0);
    }
    node.stop().await;
}
