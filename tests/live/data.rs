//! Data in a Redis, and whether all of it is there.

use std::collections::BTreeMap;
use std::time::Duration;

use akash_redis::cli::demo::writer::Access;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

/// A busy machine is no fault.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Keys that [`fill`] makes.
pub const FILLED: usize = 5150;

/// Where that user finds Redis.
pub fn url(access: &Access) -> String {
    let Access { host, port, user, password } = access;
    format!("redis://{user}:{password}@{host}:{port}/")
}

/// A connection, once somebody answers.
pub async fn connected(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    for _ in 0..600 {
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        if let Ok(connection) = connection.await {
            return connection;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody answers at {url}");
}

/// Bytes that nothing compresses.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::Rng::fill(&mut rand::thread_rng(), &mut bytes[..]);
    bytes
}

/// Writes keys of several types.
pub async fn fill(connection: &mut MultiplexedConnection) {
    for n in 0..50 {
        let mut pipe = redis::pipe();
        for m in 0..100 {
            pipe.cmd("SET").arg(format!("key:{n}:{m}")).arg(bytes(n * 20)).ignore();
        }
        pipe.cmd("ZADD").arg(format!("zset:{n}")).arg(n).arg("a").arg(0.5).arg("b").ignore();
        pipe.cmd("HSET").arg(format!("hash:{n}")).arg("f").arg(n).ignore();
        pipe.cmd("XADD").arg(format!("stream:{n}")).arg("1-1").arg("k").arg(n).ignore();
        pipe.exec_async(connection).await.unwrap();
    }
}

/// Every key with its value, as Redis serializes it.
pub async fn all(connection: &mut MultiplexedConnection) -> BTreeMap<String, Vec<u8>> {
    let (mut cursor, mut found) = (0u64, BTreeMap::new());
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(connection).await.unwrap();
        for key in keys {
            let value = redis::cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
            found.insert(key, value);
        }
        cursor = next;
        if cursor == 0 {
            return found;
        }
    }
}
