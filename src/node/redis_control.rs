//! The only hand on Redis: each change of role as the order of calls that keeps it safe.
//!
//! A [`Session`] never reconnects, so that a sequence of calls reaches one redis process or fails.
//! All of them share one connection, which is opened with the process and kept: when clients fill
//! `maxclients`, nobody else gets in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use super::acl::UserRefusal;
use super::info::Info;
use super::psync::{Attached, Introduced, PsyncError, introduce};
use super::redis_config::{AGENT_USER, BLACK_HOLE, FENCE, FROM_A_MASTER, PING_PERIOD};
use super::snapshots;
use super::stand_in;
use super::state_file::StateFileError;
use crate::model::node::Role;
use crate::model::step::{Quorum, SettingsUser};

/// Redis answers on its unix socket within this, or it is in trouble.
pub const ANSWER: Duration = Duration::from_secs(5);
/// Writes are held back for ten years at a fence: it does not end before it is taken off, also when
/// the agent hangs.
const PAUSE_MS: u64 = 315_360_000_000;
/// A fenced master sends its replicas no ping within this, seconds: each is a piece of history that
/// a chosen successor may lack.
const NO_PING: u32 = i32::MAX as u32;

/// Why Redis was not brought to what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No connection, or it broke, or no answer in time.
    #[error(
        "redis does not answer on its socket: it is starting, stuck or gone; watch the state and send the command again"
    )]
    Unreachable(#[source] redis::RedisError),
    /// It answered with an error.
    #[error(
        "redis refused a call: {0}; what was done before it stays, the command can be sent again"
    )]
    Redis(#[source] redis::RedisError),
    /// A user may not have these rules.
    #[error(transparent)]
    User(#[from] UserRefusal),
    /// Asked for something that cannot be.
    #[error("{0}")]
    Refused(String),
    /// The process is another one than the state showed.
    #[error(
        "redis restarted since that state was sent, its data may be older than it said; take the newest state and decide again"
    )]
    Restarted,
    /// The snapshot was written, but not kept.
    #[error("the snapshot cannot be kept as {path}")]
    Keep {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Where the data stands was not written down, and it must be before anything is added to it.
    #[error(transparent)]
    History(#[from] StateFileError),
}

impl From<redis::RedisError> for ControlError {
    fn from(error: redis::RedisError) -> Self {
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            Self::Unreachable(error)
        } else {
            Self::Redis(error)
        }
    }
}

/// How to reach this node's Redis.
#[derive(Clone)]
pub struct RedisControl {
    client: Client,
    socket: PathBuf,
    password: SecretString,
    /// The connection to the process that runs now, or to the last one.
    kept: Arc<Mutex<Option<Session>>>,
}

/// A replica's user on its master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationUser {
    /// Name.
    pub name: String,
    /// Lower-case hex SHA-256 of its password.
    pub password_sha256: String,
}

/// What was set in the present redis process; a new process knows none of it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Names of application users that were set.
    pub users: BTreeSet<String>,
    /// Names of replication users that were set; masters have them, nobody else.
    pub replication: BTreeSet<String>,
    /// Value before the manifest's, by setting.
    pub originals: BTreeMap<String, String>,
    /// Since when a master is fenced by command.
    pub fenced: Option<Instant>,
    /// Epoch of the replicas that may attach to this one before it is master, 0 when there are none.
    pub admitted: u64,
}

/// Settings of a node, as they arrive.
#[derive(Clone, Debug, Default)]
pub struct WantedSettings {
    /// All application users there are to be; others are removed.
    pub users: Vec<SettingsUser>,
    /// Settings of the manifest.
    pub redis_config: BTreeMap<String, String>,
    /// Append-only file, synced each second.
    pub append_only: bool,
    /// maxmemory, bytes.
    pub maxmemory_bytes: u64,
    /// How many replicas a write needs.
    pub quorum: Option<Quorum>,
    /// Who may replicate from it.
    pub replication: Vec<ReplicationUser>,
    /// Redis may keep everybody waiting for so long; zero where the operator says nothing.
    pub stuck_after: Duration,
}

/// Whom to follow.
#[derive(Clone)]
pub struct MasterAddress {
    /// What Redis dials.
    pub host: String,
    /// Where the master is reached on the mesh.
    pub port: u16,
    /// Own user there.
    pub user: String,
    /// Password of the replication user.
    pub password: SecretString,
    /// Name to be listed under.
    pub announce: String,
}

impl RedisControl {
    /// Talks to the socket as the agent's user.
    pub fn new(socket: &Path, password: &str) -> Result<Self, ControlError> {
        let settings = RedisConnectionInfo::default()
            .set_username(AGENT_USER)
            .set_password(password)
            .set_skip_set_lib_name();
        let info = ConnectionAddr::Unix(socket.to_owned())
            .into_connection_info()?
            .set_redis_settings(settings);
        Ok(Self {
            client: Client::open(info)?,
            socket: socket.to_owned(),
            password: password.into(),
            kept: Arc::default(),
        })
    }

    /// The way to the process that runs now, on which each answer must arrive within `limit`.
    pub async fn open(&self, limit: Duration) -> Result<Session, ControlError> {
        let kept = self.kept().clone();
        if let Some(mut session) = kept {
            session.connection.set_response_timeout(limit);
            match session.run(&redis::cmd("PING")).await {
                // Whoever answers that this may not be asked now is there.
                Ok(()) | Err(ControlError::Redis(_)) => return Ok(session),
                // It hangs; it would on a new connection too.
                Err(ControlError::Unreachable(error)) if error.is_timeout() => {
                    return Err(error.into());
                }
                // That process is gone.
                Err(_) => {}
            }
        }
        let mut session = self.apart(limit).await?;
        // Clients' memory is freed by ending clients; never this one.
        session.run(redis::cmd("CLIENT").arg("NO-EVICT").arg("on")).await?;
        *self.kept() = Some(session.clone());
        Ok(session)
    }

    /// The way to the very process `run_id`, and a look at it: in one exchange, where the way is known.
    pub async fn open_to(
        &self,
        run_id: &str,
        limit: Duration,
    ) -> Result<(Session, Info), ControlError> {
        let kept = self.kept().clone();
        if let Some(mut session) = kept {
            session.connection.set_response_timeout(limit);
            if let Ok(info) = session.info().await {
                let same = info.run_id() == run_id;
                return if same { Ok((session, info)) } else { Err(ControlError::Restarted) };
            }
        }
        let mut session = self.open(limit).await?;
        let info = session.expect_process(run_id).await?;
        Ok((session, info))
    }

    /// A connection of its own, for what may wait: nothing behind it waits too. There is none while
    /// clients fill `maxclients`.
    pub async fn apart(&self, limit: Duration) -> Result<Session, ControlError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(Some(limit));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config);
        Ok(Session { connection: connection.await? })
    }

    /// What is said on a channel from now on.
    pub async fn listen_for(&self, channel: &str) -> Result<PubSub, ControlError> {
        let listen = async {
            let mut words = self.client.get_async_pubsub().await?;
            words.subscribe(channel).await?;
            Ok::<_, redis::RedisError>(words)
        };
        let late = |_| redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        Ok(timeout(ANSWER, listen).await.map_err(late)??)
    }

    /// The beginning of a replica of the agent's own; it may be made before there is a master.
    pub async fn stand_in(&self) -> Result<Introduced, PsyncError> {
        introduce(&self.socket, self.password.expose_secret(), stand_in::NAME).await
    }

    /// A link to the process that runs now, on which the stream of replication comes from an offset
    /// on, as to the replica `name`.
    pub async fn replicate(
        &self,
        name: &str,
        (replid, next): (&str, i64),
    ) -> Result<Attached, PsyncError> {
        introduce(&self.socket, self.password.expose_secret(), name)
            .await?
            .attach(replid, next)
            .await
    }

    fn kept(&self) -> MutexGuard<'_, Option<Session>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection to one redis process.
#[derive(Clone)]
pub struct Session {
    pub(super) connection: MultiplexedConnection,
}

impl Session {
    /// Runs one call whose answer does not matter.
    pub async fn run(&mut self, command: &redis::Cmd) -> Result<(), ControlError> {
        Ok(command.exec_async(&mut self.connection).await?)
    }

    /// Runs one call and shows its answer, for tests.
    #[cfg(test)]
    pub(super) async fn ask(&mut self, command: &redis::Cmd) -> String {
        let answer: redis::Value =
            command.query_async(&mut self.connection).await.expect("an answer");
        match answer {
            redis::Value::Array(_) | redis::Value::Map(_) => {
                let texts: Vec<String> = redis::from_redis_value(answer).expect("texts");
                format!("{texts:?}")
            }
            other => format!("{other:?}"),
        }
    }

    /// Looks at everything.
    pub async fn info(&mut self) -> Result<Info, ControlError> {
        let mut ask = redis::pipe();
        look(&mut ask);
        let (text, config): (String, HashMap<String, String>) =
            ask.query_async(&mut self.connection).await?;
        Ok(Info::parse(&text, &config))
    }

    /// Makes sure that this is the process that was looked at.
    pub async fn expect_process(&mut self, run_id: &str) -> Result<Info, ControlError> {
        let info = self.info().await?;
        if info.run_id() == run_id { Ok(info) } else { Err(ControlError::Restarted) }
    }

    /// Becomes master and stays under the fence; [`Session::open_for_writes`] takes it off. Users
    /// first, because a replica may come at once. What Redis says afterwards comes back, with when it
    /// was asked for.
    pub async fn lead(
        &mut self,
        users: &[ReplicationUser],
        quorum: Quorum,
        applied: &mut Applied,
    ) -> Result<(Instant, Info), ControlError> {
        checked(quorum)?;
        let admitted = applied.admitted > 0
            && applied
                .replication
                .iter()
                .eq(users.iter().map(|u| &u.name).collect::<BTreeSet<_>>());
        if !admitted {
            self.replication_users(users, applied).await?;
        }
        applied.admitted = 0;
        let mut lead = redis::pipe();
        let nobody = ["masteruser", "", "masterauth", ""];
        lead.cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(FENCE).ignore();
        lead.cmd("REPLICAOF").arg("NO").arg("ONE").ignore();
        // An agent may have died while it restored a backup here.
        lead.cmd("CONFIG").arg("SET").arg(&nobody).arg(&FROM_A_MASTER).ignore();
        look(&mut lead);
        let (text, config): (String, HashMap<String, String>) =
            lead.query_async(&mut self.connection).await?;
        // A look that was asked for before this may show the replica.
        let (asked, info) = (Instant::now(), Info::parse(&text, &config));
        if info.role() != Role::Master {
            return Err(ControlError::Refused("redis did not become master although it accepted REPLICAOF NO ONE; it stays fenced".into()));
        }
        Ok((asked, info))
    }

    /// Takes the fence off a master of which `info` is a look. Only a master that was promoted since
    /// it started can be without a black hole.
    pub async fn open_for_writes(
        &mut self,
        info: &Info,
        quorum: Quorum,
    ) -> Result<(), ControlError> {
        let quorum = checked(quorum)?;
        if info.role() != Role::Master {
            return Err(ControlError::Refused(
                "redis is not master, there is nothing to unfence; promote it instead".into(),
            ));
        }
        let mut open = redis::pipe();
        open.cmd("CONFIG")
            .arg("SET")
            .arg("repl-ping-replica-period")
            .arg(PING_PERIOD)
            .arg("min-replicas-max-lag")
            .arg(quorum.max_lag_seconds)
            .arg("min-replicas-to-write")
            .arg(quorum.min_replicas);
        open.cmd("CLIENT").arg("UNPAUSE");
        Ok(open.exec_async(&mut self.connection).await?)
    }

    /// Lets others attach to this replica under `epoch`, before it is their master: they have what it
    /// has, and a promotion keeps them.
    pub async fn admit(
        &mut self,
        users: &[ReplicationUser],
        epoch: u64,
        applied: &mut Applied,
    ) -> Result<(), ControlError> {
        let info = self.info().await?;
        if info.role() != Role::Replica || !info.link_up() {
            return Err(ControlError::Refused(
                "redis is no replica in sync, so nobody may attach to it; watch the state and send the command again".into(),
            ));
        }
        self.replication_users(users, applied).await?;
        applied.admitted = epoch;
        Ok(())
    }

    /// Takes no more writes, and adds nothing else to its history: no ping to replicas, no expiry
    /// of keys. Clients that write are held until the fence is taken off, the node is demoted, or
    /// they are refused.
    ///
    /// The number is not raised here: Redis looks at it before it looks at the pause, so that both
    /// together refuse at once.
    pub async fn fence(&mut self) -> Result<(), ControlError> {
        let mut calls = redis::pipe();
        fence(&mut calls);
        Ok(calls.exec_async(&mut self.connection).await?)
    }

    /// A fence, and a message to those who listen on a channel of this node's replicas, which hear it
    /// when they have all that was written. Redis carries it out as one: nothing is written in
    /// between. A fence that is there holds back messages too, and nothing is said again.
    /// `info` is a look at it of just now.
    pub async fn hand_over(&mut self, channel: &str, info: &Info) -> Result<(), ControlError> {
        if info.ping_period == NO_PING {
            return self.fence().await;
        }
        Ok(handover(channel).exec_async(&mut self.connection).await?)
    }

    /// Refuses the writes that a fence holds, and all later ones. The number comes first: nothing
    /// gets through in between.
    pub async fn refuse_writes(&mut self) -> Result<(), ControlError> {
        self.set(&[("min-replicas-to-write", FENCE.to_string())]).await?;
        self.run(redis::cmd("CLIENT").arg("UNPAUSE")).await
    }

    /// Follows a master; a node that is master is demoted. Its replication users go, so that nobody
    /// replicates from it.
    pub async fn follow(
        &mut self,
        master: &MasterAddress,
        applied: &mut Applied,
    ) -> Result<(), ControlError> {
        let demoted = self.step_back().await?;
        self.set(&[
            ("masteruser", master.user.clone()),
            ("masterauth", master.password.expose_secret().to_owned()),
            ("replica-announce-ip", master.announce.clone()),
        ])
        .await?;
        self.copies(FROM_A_MASTER).await?;
        self.run(redis::cmd("REPLICAOF").arg(&master.host).arg(master.port)).await?;
        self.refuse_held(applied).await?;
        self.stand_down(demoted, applied).await
    }

    /// Sets how it copies its next master: one of [`FROM_A_MASTER`] and
    /// [`FROM_A_BACKUP`](super::redis_config::FROM_A_BACKUP).
    pub(super) async fn copies(&mut self, how: [(&str, &str); 2]) -> Result<(), ControlError> {
        self.set(&how.map(|(name, value)| (name, value.to_owned()))).await
    }

    /// Dials the master anew where an attempt came to nothing, and Redis waits for its next turn;
    /// whether that was so.
    pub async fn ask_again(&mut self, host: &str, port: u16) -> Result<bool, ControlError> {
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut self.connection).await?;
        // What it waits for is to be seen there alone: `connect` is before, the rest in an attempt.
        let waits =
            matches!(role.get(3), Some(redis::Value::BulkString(word)) if word == b"connect");
        let told = |value: Option<&redis::Value>| match value {
            Some(redis::Value::BulkString(word)) => word == host.as_bytes(),
            _ => false,
        };
        if !waits || !told(role.get(1)) {
            return Ok(false);
        }
        let (hole, nobody) = BLACK_HOLE;
        self.run(redis::cmd("REPLICAOF").arg(hole).arg(nobody)).await?;
        self.run(redis::cmd("REPLICAOF").arg(host).arg(port)).await?;
        Ok(true)
    }

    /// Stops replicating and stays read-only: the offset freezes.
    pub async fn detach(&mut self, applied: &mut Applied) -> Result<(), ControlError> {
        let demoted = self.step_back().await?;
        let (hole, port) = BLACK_HOLE;
        self.run(redis::cmd("REPLICAOF").arg(hole).arg(port)).await?;
        self.refuse_held(applied).await?;
        self.set(&[("masteruser", String::new()), ("masterauth", String::new())]).await?;
        self.stand_down(demoted, applied).await
    }

    /// Refuses writes for good; whether this was a master.
    async fn step_back(&mut self) -> Result<bool, ControlError> {
        let demoted = self.role().await? == Role::Master;
        self.set(&[("min-replicas-to-write", FENCE.to_string())]).await?;
        Ok(demoted)
    }

    /// What a fence held of clients is refused, by a replica: the answer tells them, and proxies,
    /// that nothing was written and that another one is master. Before anybody is disconnected, and
    /// at once: the pause would hold back the stream of the next master too.
    async fn refuse_held(&mut self, applied: &mut Applied) -> Result<(), ControlError> {
        self.run(redis::cmd("CLIENT").arg("UNPAUSE")).await?;
        applied.fenced = None;
        Ok(())
    }

    /// What a node that is no master must not keep: replication users, and clients that believe in
    /// it.
    async fn stand_down(
        &mut self,
        demoted: bool,
        applied: &mut Applied,
    ) -> Result<(), ControlError> {
        if self.role().await? != Role::Replica {
            return Err(ControlError::Refused(
                "redis did not become a replica although it accepted REPLICAOF; it is fenced"
                    .into(),
            ));
        }
        applied.admitted = 0;
        self.replication_users(&[], applied).await?;
        if demoted {
            self.disconnect(applied.users.iter()).await?;
        }
        self.set(&[("repl-ping-replica-period", PING_PERIOD.to_string())]).await
    }

    pub(super) async fn replication_users(
        &mut self,
        users: &[ReplicationUser],
        applied: &mut Applied,
    ) -> Result<(), ControlError> {
        let mut all = redis::pipe();
        for user in users {
            if user.name == AGENT_USER
                || user.name == "default"
                || applied.users.contains(&user.name)
            {
                return Err(ControlError::Refused(format!(
                    "replication user {:?} has the name of another user",
                    user.name
                )));
            }
            all.cmd("ACL")
                .arg("SETUSER")
                .arg(&user.name)
                .arg("reset")
                .arg("on")
                .arg(format!("#{}", user.password_sha256));
            all.arg("+psync").arg("+replconf").arg("+ping");
        }
        if !users.is_empty() {
            applied.replication.extend(users.iter().map(|user| user.name.clone()));
            all.exec_async(&mut self.connection).await?;
        }
        let wanted: BTreeSet<String> = users.iter().map(|u| u.name.clone()).collect();
        let gone: Vec<String> = applied.replication.difference(&wanted).cloned().collect();
        // Deleting is what cuts a running link; `off` would not.
        self.delete_users(&gone).await?;
        applied.replication = wanted;
        Ok(())
    }

    pub(super) async fn delete_users(&mut self, names: &[String]) -> Result<(), ControlError> {
        if names.is_empty() {
            Ok(())
        } else {
            self.run(redis::cmd("ACL").arg("DELUSER").arg(names)).await
        }
    }

    async fn disconnect(
        &mut self,
        users: impl Iterator<Item = &String>,
    ) -> Result<(), ControlError> {
        for user in users {
            self.run(redis::cmd("CLIENT").arg("KILL").arg("USER").arg(user)).await?;
        }
        Ok(())
    }

    /// Switches the append-only file on or off. Off only after a snapshot, which may take so long:
    /// what the file held must be on disk in another way.
    ///
    /// Returns whether the file was switched off just now, and is to be removed.
    pub async fn append_only(
        &mut self,
        wanted: bool,
        limit: Duration,
    ) -> Result<bool, ControlError> {
        let now: HashMap<String, String> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("appendonly")
            .query_async(&mut self.connection)
            .await?;
        let on = now.get("appendonly").is_some_and(|v| v == "yes");
        if wanted && !on {
            self.set(&[("appendonly", "yes".into())]).await?;
        }
        if on && !wanted {
            let info = self.info().await?;
            self.with_stale_reads(&info, &Applied::default(), async |session| {
                let late = |_| {
                    ControlError::Refused(format!(
                        "the snapshot that must come before it took more than {} s",
                        limit.as_secs()
                    ))
                };
                timeout(limit, snapshots::write_dump(session)).await.map_err(late)?
            })
            .await?;
            self.set(&[("appendonly", "no".into())]).await?;
        }
        Ok(on && !wanted)
    }

    /// Runs `work`, which needs a replica without a link to answer, while application users are
    /// shut out: nobody is connected and nobody can connect, which clients try again, and the users
    /// are off as well.
    ///
    /// Redis refuses to save as long as it refuses stale reads. The users come back whatever comes
    /// of the work, but for a process that does not answer any more. `info` is a look at it of just
    /// now.
    pub async fn with_stale_reads<F>(
        &mut self,
        info: &Info,
        applied: &Applied,
        work: F,
    ) -> Result<(), ControlError>
    where
        F: AsyncFnOnce(&mut Self) -> Result<(), ControlError>,
    {
        if !needs_stale_reads(info) {
            return work(self).await;
        }
        let port = self.in_force("port").await?.unwrap_or_default();
        self.listen("0").await?;
        for user in &applied.users {
            self.run(redis::cmd("ACL").arg("SETUSER").arg(user).arg("off")).await?;
        }
        self.disconnect(applied.users.iter()).await?;
        // Those that have not said who they are, too; this connection stays.
        for kind in ["normal", "pubsub"] {
            self.run(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind)).await?;
        }
        self.set(&[("replica-serve-stale-data", "yes".into())]).await?;
        let result = work(self).await;
        self.set(&[("replica-serve-stale-data", "no".into())]).await?;
        for user in &applied.users {
            self.run(redis::cmd("ACL").arg("SETUSER").arg(user).arg("on")).await?;
        }
        self.listen(&port).await?;
        result
    }

    /// Clients come in at this port of loopback; at none when it is 0.
    pub(super) async fn listen(&mut self, port: &str) -> Result<(), ControlError> {
        self.set(&[("port", port.to_owned())]).await
    }

    pub(super) async fn set(&mut self, values: &[(&str, String)]) -> Result<(), ControlError> {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET");
        for (name, value) in values {
            set.arg(*name).arg(value);
        }
        self.run(&set).await
    }

    /// Its role, its offset and its links, as cheaply as Redis tells them.
    pub async fn place(&mut self) -> Result<redis::Value, ControlError> {
        Ok(redis::cmd("ROLE").query_async(&mut self.connection).await?)
    }

    async fn role(&mut self) -> Result<Role, ControlError> {
        let answer: Vec<redis::Value> =
            redis::cmd("ROLE").query_async(&mut self.connection).await?;
        Ok(match answer.first() {
            Some(redis::Value::BulkString(word)) if word == b"master" => Role::Master,
            Some(redis::Value::BulkString(word)) if word == b"slave" => Role::Replica,
            _ => Role::Unknown,
        })
    }
}

/// What [`Info`] is read from.
fn look(calls: &mut redis::Pipeline) {
    calls.cmd("INFO");
    calls.cmd("CONFIG").arg("GET").arg("min-replicas-*").arg("repl-ping-replica-period");
}

/// A message on `channel` and a fence, which Redis carries out as one.
#[must_use]
pub fn handover(channel: &str) -> redis::Pipeline {
    let mut calls = redis::pipe();
    calls.atomic().cmd("PUBLISH").arg(channel).arg("");
    fence(&mut calls);
    calls
}

fn fence(calls: &mut redis::Pipeline) {
    calls.cmd("CLIENT").arg("PAUSE").arg(PAUSE_MS).arg("WRITE");
    calls.cmd("CONFIG").arg("SET").arg("repl-ping-replica-period").arg(NO_PING);
}

/// A replica without a link: it saves nothing while it refuses stale reads.
#[must_use]
pub fn needs_stale_reads(info: &Info) -> bool {
    info.role() != Role::Master && !info.link_up()
}

/// A lag of 0 would switch the whole fence off.
pub(super) fn checked(quorum: Quorum) -> Result<Quorum, ControlError> {
    if quorum.max_lag_seconds == 0 || quorum.min_replicas >= FENCE {
        return Err(ControlError::Refused(
            "the quorum is refused: min-replicas-max-lag is at least 1 s, and min-replicas-to-write a real number".into(),
        ));
    }
    Ok(quorum)
}
