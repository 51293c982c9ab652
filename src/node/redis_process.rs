//! Keeps redis-server running. Every start is fenced, whatever it was before.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::append_only;
use super::archive;
use super::history;
use super::probe::{Following, Tracker};
use super::proxychains;
use super::redis_config::{BootConfig, FENCE, acl_text, boot_maxmemory};
use super::redis_control::{Applied, ControlError, Session};
use super::save_again::SaveAgain;
use super::settings::Settings;
use super::state::{Discard, Node, Stand};
use super::stuck::{self, Silence};
use super::users::{self, Owner};
use super::write_probe::WriteProbe;
use super::{restore, verify, volume};
use crate::model::identity::Egress;
use crate::model::node::{Process, Role};
use crate::model::redis_version::RedisVersion;
use crate::process::{Child, Output, Program};
use crate::retry::RestartDelays;

/// A server says its version within this.
const VERSION: Duration = Duration::from_secs(10);
/// Between two looks while the operator waits for what comes next: a master moves meanwhile.
const CLOSE_LOOK: Duration = Duration::from_millis(2);
/// Before a master that lets nobody in yet is asked again.
const FIRST_ASK: Duration = Duration::from_millis(20);

/// Where and as whom one node's Redis runs.
#[derive(Clone, Debug)]
pub struct RedisInstance {
    /// Socket and generated files.
    pub run_dir: PathBuf,
    /// Snapshot and append-only files; outlives the container where there is a volume.
    pub data_dir: PathBuf,
    /// User and group it runs as, when that is not the agent's.
    pub run_as: Option<Owner>,
    /// Password of the agent's user.
    pub password: String,
}

impl RedisInstance {
    /// Makes the directories and gives them to Redis' user.
    pub fn prepare(&self) -> std::io::Result<()> {
        for dir in [&self.run_dir, &self.data_dir] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            users::give(dir, self.run_as)?;
        }
        Ok(())
    }

    /// The append-only file is there: it, not the snapshot, is what Redis must load.
    #[must_use]
    pub fn has_append_only_file(&self) -> bool {
        self.append_only_manifest().exists()
    }

    /// What says which files are the append-only file. Without it there is none.
    #[must_use]
    pub fn append_only_manifest(&self) -> PathBuf {
        self.append_only_dir().join("appendonly.aof.manifest")
    }

    /// Redis does not start with the append-only file that is there. It must not be writing it.
    ///
    /// # Errors
    /// It may be there still, or again after a crash of the machine.
    pub fn forget_append_only_file(&self) -> std::io::Result<()> {
        match fs::remove_file(self.append_only_manifest()) {
            Ok(()) => File::open(self.append_only_dir())?.sync_all(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Directory of the append-only file.
    #[must_use]
    pub fn append_only_dir(&self) -> PathBuf {
        self.data_dir.join("appendonlydir")
    }

    /// The file that Redis starts from.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.run_dir.join("redis.conf")
    }

    /// The pipe that it prints to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run_dir.with_file_name("redis.out")
    }

    /// The snapshot that Redis loads.
    #[must_use]
    pub fn dump(&self) -> PathBuf {
        self.data_dir.join("dump.rdb")
    }

    /// Empties the directory of the data. What was there is kept in `broken` beside it, in place of
    /// what was put there before, if it must be or if there is room for twice as much as it takes:
    /// a copy of the master's data and its log. Returns whether it is kept.
    pub fn set_aside(&self, must_keep: bool) -> std::io::Result<bool> {
        let broken = self.data_dir.with_file_name("broken");
        if broken.exists() {
            fs::remove_dir_all(&broken)?;
        }
        let keeps =
            must_keep || volume::space(&self.data_dir)?.free >= 2 * volume::size(&self.data_dir)?;
        if keeps {
            fs::rename(&self.data_dir, &broken)?;
        } else {
            fs::remove_dir_all(&self.data_dir)?;
        }
        self.prepare()?;
        Ok(keeps)
    }

    fn config(&self, node: &Node) -> BootConfig {
        let name = node.peek().mesh.dns_name;
        BootConfig {
            port: node.settings.redis_port,
            run_dir: self.run_dir.clone(),
            data_dir: self.data_dir.clone(),
            append_only: self.has_append_only_file(),
            snapshots: node.identity.persistent,
            maxmemory: boot_maxmemory(node.identity.memory_bytes),
            container_bytes: node.identity.memory_bytes,
            announce: (!name.is_empty()).then_some(name),
            startup: node.identity.startup.clone(),
        }
    }

    fn program(&self, node: &Node) -> std::io::Result<Program> {
        let config = self.config(node);
        self.write(&config.acl_file(), &acl_text(&self.password))?;
        let file = self.config_file();
        self.write(&file, &config.text())?;
        let mut program = Program {
            program: node.settings.redis_server.clone(),
            run_as: self.run_as,
            log: node.settings.outlives_agent.then(|| self.log()),
            ..Program::default()
        };
        if node.identity.egress == Egress::Proxychains {
            let proxy = self.run_dir.join("proxychains.conf");
            self.write(&proxy, &proxychains::text(node.settings.socks_port))?;
            program.args = vec![
                "-q".into(),
                "-f".into(),
                proxy.into(),
                node.settings.redis_server.clone().into(),
            ];
            program.program.clone_from(&node.settings.proxychains);
        }
        program.args.push(file.into());
        Ok(program)
    }

    fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        users::give_one(path, self.run_as)
    }
}

/// Runs redis-server until `stop`; each exit is shown at once and followed by a fenced start. The
/// first may be one that an earlier agent left behind.
pub async fn keep_running(
    node: Arc<Node>,
    instance: RedisInstance,
    left: Option<Child>,
    stop: CancellationToken,
) {
    let mut delays = RestartDelays::new(node.settings.restarts);
    if left.is_none()
        && let Some(refusal) = refused(&node).await
    {
        node.redis_exited(Instant::now(), instance.has_append_only_file());
        node.book.agent(&refusal);
        node.set_note("redis", Some(refusal));
        return stop.cancelled().await;
    }
    if let Some(left) = left {
        node.book.agent("redis-server went on without its agent, and is taken over as it is");
        run_once(&node, &instance, left, &stop).await;
    }
    while !stop.is_cancelled() {
        if let Some(Discard { must_keep, done }) = node.take_discard() {
            let _ = done.send(take_away(&node, &instance, must_keep).await);
        }
        let started = Instant::now();
        append_only::prepare(&node, &instance);
        history::forget_without_data(&node, &instance);
        match instance.program(&node).and_then(|program| program.start(&node.book.output("redis")))
        {
            Ok(child) => {
                if let Some(pid) = child.pid() {
                    node.begin_life(pid, &instance.password);
                }
                node.update(|state| state.redis.process = Process::Starting);
                run_once(&node, &instance, child, &stop).await;
            }
            Err(error) => {
                node.redis_exited(Instant::now(), instance.has_append_only_file());
                node.ended_with(Some(error.to_string()));
                node.set_note(
                    "redis",
                    Some(format!("redis-server cannot be started ({error}); it is tried again")),
                );
            }
        }
        if stop.is_cancelled() {
            break;
        }
        let pause = delays.after(started.elapsed());
        node.book
            .agent(&format!("redis-server is started again, fenced, in {} ms", pause.as_millis()));
        tokio::select! {
            () = stop.cancelled() => break,
            () = node.asked_to_discard() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Why this redis-server is none to start. One that does not say its version is tried.
async fn refused(node: &Node) -> Option<String> {
    let said = Arc::new(Mutex::new(String::new()));
    let heard = said.clone();
    let output: Output = Arc::new(move |line: &str| {
        heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(line);
    });
    let program = Program {
        program: node.settings.redis_server.clone(),
        args: vec!["--version".into()],
        ..Program::default()
    };
    // What keeps it from being run is said when it is started.
    let _ = program.run(VERSION, &output).await;
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    RedisVersion::of_program(&said).filter(|v| !v.is_supported()).map(RedisVersion::refusal)
}

/// Takes away what Redis does not start with, off the threads that everybody shares.
async fn take_away(node: &Node, instance: &RedisInstance, must_keep: bool) -> std::io::Result<()> {
    let own = instance.clone();
    let kept = tokio::task::spawn_blocking(move || own.set_aside(must_keep))
        .await
        .map_err(std::io::Error::other)??;
    node.starts_anew();
    node.book.agent(if kept {
        "what redis could not start with was put aside into `broken`"
    } else {
        "what redis could not start with was removed"
    });
    Ok(())
}

/// One life of one process.
async fn run_once(
    node: &Arc<Node>,
    instance: &RedisInstance,
    mut child: Child,
    stop: &CancellationToken,
) {
    let alive = CancellationToken::new();
    let looking = tokio::spawn(look_on(node.clone(), alive.clone()));
    tokio::spawn(append_only::watch(node.clone(), instance.clone(), alive.clone()));
    let exit = loop {
        tokio::select! {
            exit = child.wait() => break exit,
            () = node.kill_redis.notified() => child.kill(),
            () = node.asked_to_discard() => child.kill(),
            () = stop.cancelled() => {
                stop_cleanly(node, &mut child).await;
                break child.wait().await;
            }
        }
    };
    alive.cancel();
    // The last look must not come after the exit.
    let _ = looking.await;
    let died = Instant::now();
    node.append_only.note(None, died);
    node.redis_exited(died, instance.has_append_only_file());
    child.last_output().await;
    node.ended_with(node.book.last_of("redis"));
    // The volume may be slow, and nothing waits for it: the state says it already.
    let kept = node.clone();
    let _ = tokio::task::spawn_blocking(move || history::keep(&kept)).await;
    let how = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
    node.book.agent(&format!("redis-server is gone: {how}"));
    if !stop.is_cancelled() {
        node.set_note(
            "redis",
            Some(format!("redis-server exited ({how}) and was started again, fenced")),
        );
    }
}

/// Fence, last offset, history, then the stop: what the history says is then exactly what was
/// saved.
async fn stop_cleanly(node: &Node, child: &mut Child) {
    // Redis would wait for what it takes for a replica that is behind.
    archive::end(node);
    // It answers nothing, and does not stop, while it waits for data.
    restore::end(node);
    verify::end(node, "the agent stops");
    let last = async {
        let mut session = node.redis.open(node.settings.stuck_after).await?;
        let info = session.info().await?;
        let master = info.role() == Role::Master;
        if master {
            session.fence().await?;
            node.set_applied(
                Applied { fenced: Some(Instant::now()), ..node.applied() },
                info.run_id(),
            );
        }
        let asked = Instant::now();
        let info = session.info().await?;
        node.stands(&info, asked, if master { Stand::Closed } else { Stand::Replica });
        Ok::<_, ControlError>(())
    };
    if let Err(error) = last.await {
        node.book.agent(&format!("no last look at redis before it stops: {error}"));
    }
    history::keep(node);
    child.stop(Settings::REDIS_STOP).await;
}

/// Looks at Redis until it is gone.
async fn look_on(node: Arc<Node>, alive: CancellationToken) {
    let mut ticks = interval(node.settings.probe_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tracker = Tracker::default();
    let mut writes = WriteProbe::default();
    let mut session: Option<Session> = None;
    let mut silence = Silence::default();
    let mut asks = Asks::default();
    let mut again = SaveAgain::default();
    loop {
        tokio::select! {
            () = alive.cancelled() => return,
            _ = ticks.tick() => {}
            () = sleep(CLOSE_LOOK), if node.hurries() => {}
            () = node.asked_to_look() => {}
        }
        node.looking.over().await;
        let asked = Instant::now();
        let look = async {
            if session.is_none() {
                session = Some(node.redis.open(node.settings.stuck_after).await?);
            }
            let Some(open) = session.as_mut() else { return Ok(None) };
            open.info().await.map(Some)
        };
        let limit = node.settings.stuck_after;
        let result = tokio::select! {
            () = alive.cancelled() => return,
            result = timeout(limit, look) => result,
        };
        if let Ok(Ok(Some(info))) = result {
            silence.ended(&info);
            node.append_only.note(Some(&info), asked);
            let mut redis = tracker.look(&info, node.following().as_ref(), Instant::now());
            // The operator waits for the look itself.
            if !node.hurries() {
                redis.health.refusal = writes.ask(&node, &redis).await;
                if let Some(open) = session.as_mut() {
                    again.look(&node, &info, &redis, open).await;
                }
            }
            node.looked_at(redis, asked);
            refuse_what_is_held(&node, session.as_mut()).await;
            if node.hurries() {
                asks.ask_again(&node, session.as_mut()).await;
            }
        } else {
            if matches!(&result, Ok(Err(error)) if stuck::is_busy(error)) {
                silence.says_busy(&node, session.as_mut()).await;
            } else {
                session = None;
            }
            if node.is_fed() {
                // It waits for data of the agent, or loads what it has: whoever sends them sees to it
                // that this ends.
                node.update(|state| state.redis.loading = true);
            } else if silence.lasts().is_some_and(|lasts| lasts >= limit) {
                let busy = silence.busy();
                node.update(|state| {
                    (state.redis.process, state.redis.health.busy) = (Process::Stuck, busy);
                });
            }
        }
        node.looked(asked);
    }
}

/// Clients of a switchover wait for its end; if that does not come, they are told that nobody takes
/// their writes here.
async fn refuse_what_is_held(node: &Node, session: Option<&mut Session>) {
    let held =
        node.applied().fenced.is_some_and(|since| since.elapsed() >= node.settings.hold_writes);
    let (true, Some(session)) = (held && node.peek().redis.min_replicas != FENCE, session) else {
        return;
    };
    // A command that takes the fence off must not be overtaken by this; there is a next look.
    let Ok(_turn) = node.accepting.try_lock() else { return };
    if node.applied().fenced.is_some()
        && let Err(error) = session.refuse_writes().await
    {
        node.book.agent(&format!("writes are still held, not refused: {error}"));
    }
}

/// Attempts to reach a master that is being promoted and lets nobody in yet. Redis would make the
/// next one after a second; while a master moves it is made at once, and then ever later.
#[derive(Default)]
struct Asks {
    whom: Option<Following>,
    pause: Duration,
    next: Option<Instant>,
}

impl Asks {
    async fn ask_again(&mut self, node: &Node, session: Option<&mut Session>) {
        let (Some(following), Some(session)) = (node.following(), session) else { return };
        if self.whom.as_ref() != Some(&following) {
            *self = Self { whom: Some(following.clone()), pause: FIRST_ASK, next: None };
        }
        let redis = node.peek().redis;
        let up = redis.role != Role::Replica || redis.is_linked() || redis.is_syncing();
        if up || self.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        // A command that changes whom it follows must not be overtaken by this.
        let Ok(_turn) = node.accepting.try_lock() else { return };
        if node.following().as_ref() != Some(&following) {
            return;
        }
        match session.ask_again(&following.host, node.settings.master_port).await {
            Ok(false) => {}
            Ok(true) => {
                self.next = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(Duration::from_secs(1));
            }
            Err(error) => node.book.agent(&format!("the master is not asked again: {error}")),
        }
    }
}
