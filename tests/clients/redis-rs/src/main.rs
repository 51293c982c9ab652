//! Writes all the time, and says on a line what became of each write.

use std::time::{Duration, Instant};

use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{AsyncTypedCommands as _, RedisConnectionInfo, RedisError};

#[tokio::main]
async fn main() -> Result<(), RedisError> {
    let of = |name: &str| std::env::var(name).unwrap();
    let (password, key) = (of("PASSWORD"), of("KEY"));
    let nodes: Vec<String> =
        of("NODES").split(' ').map(|host| format!("redis://{host}:26379")).collect();

    // guide: begin
    let user = RedisConnectionInfo::default().set_username("app").set_password(password);
    let user = SentinelNodeConnectionInfo::default().set_redis_connection_info(user);
    let mut client =
        SentinelClient::build(nodes, "cache".into(), Some(user), SentinelServerType::Master)?;
    // It stays with the master that it found: after an error, get another one.
    let mut master = client.get_async_connection().await?;
    master.set("greeting", "hello").await?;
    // guide: end

    let begun = Instant::now();
    let say = |what: String| println!("{{\"at\":{},{what}}}", begun.elapsed().as_millis());
    let failed = |error: &RedisError| {
        let kind = error.code().map_or_else(|| format!("{:?}", error.kind()), str::to_owned);
        say(format!("\"error\":{kind:?},\"message\":{:?}", error.to_string()));
    };
    for n in 1_u64.. {
        match master.sadd(&key, n).await {
            Ok(_) => say(format!("\"acked\":{n}")),
            Err(error) => {
                failed(&error);
                match client.get_async_connection().await {
                    Ok(found) => master = found,
                    Err(error) => failed(&error),
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
