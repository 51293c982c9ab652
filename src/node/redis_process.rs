//! Keeps redis-server running. Every start is fenced, whatever it was before.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::info::advance_history;
use super::probe::Tracker;
use super::proxychains;
use super::redis_config::{BootConfig, acl_text, default_maxmemory};
use super::redis_control::{ControlError, Session};
use super::settings::Settings;
use super::state::Node;
use super::supervisor::{Child, Program, RestartDelay};
use super::users::{self, Owner};
use crate::model::node::{Process, Role};

/// Where one node's Redis lives.
#[derive(Clone, Debug)]
pub struct RedisPlace {
    /// Socket and generated files.
    pub run_dir: PathBuf,
    /// Data.
    pub data_dir: PathBuf,
    /// User and group it runs as, when that is not the agent's.
    pub run_as: Option<Owner>,
    /// Password of the agent's user.
    pub password: String,
}

impl RedisPlace {
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
        self.append_only_dir().join("appendonly.aof.manifest").exists()
    }

    /// Directory of the append-only file.
    #[must_use]
    pub fn append_only_dir(&self) -> PathBuf {
        self.data_dir.join("appendonlydir")
    }

    /// The snapshot that Redis loads.
    #[must_use]
    pub fn dump(&self) -> PathBuf {
        self.data_dir.join("dump.rdb")
    }

    fn config(&self, node: &Node) -> BootConfig {
        let name = node.peek().mesh.dns_name;
        BootConfig {
            port: node.settings.redis_port,
            run_dir: self.run_dir.clone(),
            data_dir: self.data_dir.clone(),
            append_only: self.has_append_only_file(),
            snapshots: node.identity.persistent,
            maxmemory: default_maxmemory(node.identity.memory_bytes),
            announce: (!name.is_empty()).then_some(name),
        }
    }

    fn program(&self, node: &Node) -> std::io::Result<Program> {
        let config = self.config(node);
        self.write(&config.acl_file(), &acl_text(&self.password))?;
        let file = self.run_dir.join("redis.conf");
        self.write(&file, &config.text())?;
        let mut program =
            Program { source: "redis", program: node.settings.redis_server.clone(), run_as: self.run_as, ..Program::default() };
        if node.identity.egress == "proxychains" {
            let proxy = self.run_dir.join("proxychains.conf");
            self.write(&proxy, &proxychains::text(node.settings.socks_port))?;
            program.args = vec!["-q".into(), "-f".into(), proxy.into(), node.settings.redis_server.clone().into()];
            program.program.clone_from(&node.settings.proxychains);
        }
        program.args.push(file.into());
        Ok(program)
    }

    fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        users::give_one(path, self.run_as)
    }
}

/// Runs redis-server until `stop`; each exit is shown at once and followed by a fenced start.
pub async fn keep_running(node: Arc<Node>, place: RedisPlace, stop: CancellationToken) {
    let mut delay = RestartDelay::new(node.settings.restart_delay);
    while !stop.is_cancelled() {
        let started = Instant::now();
        forget_history_without_data(&node, &place);
        match place.program(&node).and_then(|program| program.start(&node.book)) {
            Ok(child) => {
                node.update(|state| state.redis.process = Process::Starting);
                run_once(&node, child, &stop).await;
            }
            Err(error) => {
                node.note("redis", Some(format!("redis-server cannot be started ({error}); it is tried again")));
            }
        }
        if stop.is_cancelled() {
            break;
        }
        let pause = delay.after(started.elapsed());
        node.book.agent(&format!("redis-server is started again, fenced, in {} ms", pause.as_millis()));
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(pause) => {}
        }
    }
}

/// One life of one process.
async fn run_once(node: &Arc<Node>, mut child: Child, stop: &CancellationToken) {
    let alive = CancellationToken::new();
    let looking = tokio::spawn(look_on(node.clone(), alive.clone()));
    let exit = loop {
        tokio::select! {
            exit = child.wait() => break exit,
            () = node.kill_redis.notified() => child.kill(),
            () = stop.cancelled() => {
                stop_cleanly(node, &mut child).await;
                break child.wait().await;
            }
        }
    };
    alive.cancel();
    // The last look must not come after the exit.
    let _ = looking.await;
    node.redis_exited();
    let how = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
    node.book.agent(&format!("redis-server is gone: {how}"));
    if !stop.is_cancelled() {
        node.note("redis", Some(format!("redis-server exited ({how}) and was started again, fenced")));
    }
}

/// Fence, last offset, history, then the stop: what the history says is then exactly what was saved.
async fn stop_cleanly(node: &Node, child: &mut Child) {
    let last = async {
        let mut session = node.redis.open(node.settings.stuck_after).await?;
        if session.info().await?.role() == Role::Master {
            session.fence().await?;
        }
        let info = session.info().await?;
        node.update(|state| {
            state.redis.offset = info.offset();
            info.replid().clone_into(&mut state.redis.replid);
        });
        Ok::<_, ControlError>(())
    };
    if let Err(error) = last.await {
        node.book.agent(&format!("no last look at redis before it stops: {error}"));
    }
    keep_history(node);
    child.stop(Settings::REDIS_STOP).await;
}

/// Looks at Redis until it is gone.
async fn look_on(node: Arc<Node>, alive: CancellationToken) {
    let mut ticks = interval(node.settings.probe_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tracker = Tracker::default();
    let mut session: Option<Session> = None;
    let mut answered: Option<Instant> = None;
    loop {
        tokio::select! {
            () = alive.cancelled() => return,
            _ = ticks.tick() => {}
            () = node.asked_to_look() => {}
        }
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
            let now = Instant::now();
            answered = Some(now);
            let redis = tracker.look(&info, node.following().as_ref(), now);
            node.update(|state| state.redis = redis);
        } else {
            session = None;
            // Not before its first answer: a long start is no failure.
            if answered.is_some_and(|last| last.elapsed() >= limit) {
                node.update(|state| state.redis.process = Process::Stuck);
            }
        }
        node.looked();
    }
}

/// Writes down where the data stands, once a second until `stop`.
pub async fn keep_history_written(node: Arc<Node>, stop: CancellationToken) {
    let mut ticks = interval(std::time::Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let node = node.clone();
        // The volume may be slow; the probe must not wait for it.
        let _ = tokio::task::spawn_blocking(move || keep_history(&node)).await;
    }
}

/// Writes down where the data stands, if that changed. Without a volume nothing outlives the process, so nothing is claimed.
pub fn keep_history(node: &Node) {
    if !node.identity.persistent {
        return;
    }
    let state = node.peek();
    let memory = node.memory();
    let promoted = memory.promoted().then_some(memory.highest.epoch);
    let next = advance_history(state.history.as_ref(), &state.redis, promoted);
    if next == state.history {
        return;
    }
    match node.files.keep_history(next.as_ref()) {
        Ok(()) => {
            node.note("history", None);
            node.update(|state| state.history = next);
        }
        Err(error) => node.note("history", Some(error.to_string())),
    }
}

/// A volume without data proves nothing, whatever was written down.
fn forget_history_without_data(node: &Node, place: &RedisPlace) {
    if place.has_append_only_file() || place.dump().exists() || node.peek().history.is_none() {
        return;
    }
    match node.files.keep_history(None) {
        Ok(()) => node.update(|state| state.history = None),
        Err(error) => node.note("history", Some(error.to_string())),
    }
}
