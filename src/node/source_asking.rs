//! Asks the Redis that is imported from, and holds its writes: who it is, what it has, and whether
//! that can be read here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::convert::Source;
use super::info::Info;
use super::source_link;
use super::state::Node;
use crate::model::node::Role;
use crate::model::redis_version::RedisVersion;
use crate::model::time::Backoff;

/// Between two looks at the source.
pub(super) const BEAT: Duration = Duration::from_millis(500);
/// The same while it cannot be reached.
pub(super) const PAUSES: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(15) };
/// The source answers within this.
const SOURCE_ANSWER: Duration = Duration::from_secs(5);
/// Writes of the source are held for so long for a promotion, milliseconds: longer than any command
/// is carried out.
pub(super) const HOLD_MS: u64 = 25_000;
/// The same once the node is master: until the applications come here.
const KEEP_MS: u64 = 600_000;

/// The connection on which the source is asked.
pub(super) type Asking = Arc<tokio::sync::Mutex<Option<MultiplexedConnection>>>;

/// The connection that is kept, or a new one.
pub(super) async fn connection(
    node: &Node,
    source: &Source,
    asking: &Asking,
) -> Result<MultiplexedConnection, String> {
    let mut kept = asking.lock().await;
    if let Some(connection) = kept.as_ref() {
        return Ok(connection.clone());
    }
    let connection = connect(node, source, SOURCE_ANSWER).await?;
    *kept = Some(connection.clone());
    Ok(connection)
}

/// A new connection, on which each answer comes within `limit`.
pub(super) async fn connect(
    node: &Node,
    source: &Source,
    limit: Duration,
) -> Result<MultiplexedConnection, String> {
    let stream = source_link::dial(node, &source.spec).await?;
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if !source.spec.user.is_empty() {
        login = login.set_username(&source.spec.user);
    }
    let password = source.password.expose_secret();
    if !password.is_empty() {
        login = login.set_password(password);
    }
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
    let work = MultiplexedConnection::new_with_config(&login, stream, config);
    let (connection, driver) = timeout(SOURCE_ANSWER, work)
        .await
        .map_err(|_| format!("{} does not answer as a Redis does", source.spec.address()))?
        .map_err(|error| not_answered(source, &error))?;
    // It ends with the connection.
    tokio::spawn(driver);
    Ok(connection)
}

/// Why the source says nothing, one sentence.
pub(super) fn not_answered(source: &Source, error: &redis::RedisError) -> String {
    let (address, user) = (source.spec.address(), &source.spec.user);
    let user = if user.is_empty() { "default" } else { user };
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return format!(
            "{address} refuses the user {user}: name or password is wrong; correct user and passwordFrom, and apply the manifest again"
        );
    }
    match error.code() {
        Some("NOPERM") => format!(
            "{address} does not let the user {user} ask what is needed ({error}); {} there",
            needs(source)
        ),
        Some(_) => format!(
            "{address} refuses the user {user} ({error}); check user and passwordFrom, and apply the manifest again"
        ),
        None => format!("{address} does not answer ({error}); it is tried again"),
    }
}

/// What the user needs.
pub(super) fn needs(source: &Source) -> &'static str {
    if source.copy {
        "it needs ~* +@read +select +ping +info"
    } else {
        "it needs +psync +replconf +ping +info"
    }
}

/// One look at it.
pub(super) async fn info(connection: &mut MultiplexedConnection) -> redis::RedisResult<Info> {
    let text: String = redis::cmd("INFO").query_async(connection).await?;
    Ok(Info::parse(&text, &HashMap::new()))
}

/// Holds the writes of the source.
pub(super) async fn hold(
    connection: &mut MultiplexedConnection,
    ms: u64,
) -> redis::RedisResult<()> {
    redis::cmd("CLIENT").arg("PAUSE").arg(ms).arg("WRITE").exec_async(connection).await
}

/// Whether what the source has can be read and kept here. A replica that cannot read it empties
/// itself before it notices.
pub(super) fn fits(node: &Node, source: &Source, there: &Info) -> Result<(), String> {
    let (address, redis) = (source.spec.address(), node.peek().redis);
    if there.role() != Role::Master {
        let (host, port) = (there.text("master_host"), there.text("master_port"));
        return Err(format!(
            "{address} is a replica of {host}:{port}, and its writes cannot be held: name its master in fromRedis"
        ));
    }
    if there.flag("cluster_enabled") {
        return Err(format!(
            "{address} is a part of a Redis Cluster, and has some of its keys alone; this cannot be imported"
        ));
    }
    let (own, its) = (RedisVersion::parse(&redis.version), RedisVersion::parse(&there.version()));
    let reads = own.zip(its).is_none_or(|(own, its)| own.can_import(its));
    if !reads {
        return Err(format!(
            "{address} runs {}, whose data {} cannot read; use an image with that version or a later one (spec.image)",
            there.version(),
            redis.version
        ));
    }
    let (used, most) = (there.number("used_memory"), redis.health.maxmemory_bytes);
    if most > 0 && u64::try_from(used).is_ok_and(|used| used > most) {
        return Err(format!(
            "{address} has {} MiB of data, and redis here may have {} MiB (maxmemory); give the nodes more memory in another cluster",
            used >> 20,
            most >> 20
        ));
    }
    Ok(())
}

/// The source takes no writes, and this node has all of them.
pub struct Held {
    pub(super) connection: MultiplexedConnection,
    /// By us, so that they can be let go again.
    pub(super) paused: bool,
    pub(super) address: String,
}

impl Held {
    /// The source takes writes again.
    pub async fn release(mut self) {
        if self.paused {
            let unpause =
                redis::cmd("CLIENT").arg("UNPAUSE").exec_async(&mut self.connection).await;
            // It ends by itself soon.
            drop(unpause);
        }
    }

    /// The source takes none until its applications are here: what it took would be lost.
    pub fn keep(mut self, node: &Arc<Node>) {
        let node = node.clone();
        tokio::spawn(async move {
            if !self.paused {
                return;
            }
            let said = match hold(&mut self.connection, KEEP_MS).await {
                Ok(()) => format!(
                    "{} takes no writes for {} s more: what it took then would be lost",
                    self.address,
                    KEEP_MS / 1000
                ),
                Err(error) => format!(
                    "{} takes writes again in {} s ({error}): stop it, what it takes is lost",
                    self.address,
                    HOLD_MS / 1000
                ),
            };
            node.book.agent(&said);
        });
    }
}
