//! A redis-server that goes on when its agent dies, and what the next agent of this container needs
//! to take it over.
//!
//! The file lies in the container's scratch: a container that ends takes redis along, and the file.
//! Taken over is only the very process that the file names, when no command was half done: what the
//! agent was about to do to it is not known. Every other one is ended, and the next start is fenced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::commands::Memory;
use super::info::Info;
use super::probe::{Following, Tracker};
use super::redis_config::BootConfig;
use super::redis_control::{Applied, RedisControl};
use super::redis_process::RedisInstance;
use crate::model::node::{RedisState, Role};
use crate::process::{Child, Output};

/// A killed process is gone within this.
const DEATH: Duration = Duration::from_secs(5);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(10);

/// A redis-server, and what was set in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// Its process.
    pub pid: i32,
    /// When that was started, in the kernel's ticks: ids are given again.
    started: u64,
    /// The kernel's own boot.
    kernel: String,
    /// Whose it is.
    incarnation: String,
    /// `boot_id` of its agent: the word of the next one is as good, because it is the same redis.
    pub boot_id: String,
    /// Of the agent's user.
    pub password: String,
    /// Empty before its first answer.
    run_id: String,
    /// Commands that are being carried out.
    in_hand: u32,
    /// Whom it was told to follow.
    pub following: Option<Following>,
    users: BTreeSet<String>,
    replication: BTreeSet<String>,
    originals: BTreeMap<String, String>,
    fenced: bool,
    /// Epoch of those that it lets attach before it is master.
    #[serde(default)]
    admitted: u64,
}

impl Life {
    /// One that was just started.
    #[must_use]
    pub fn new(pid: Pid, incarnation: &str, boot_id: &str, password: &str) -> Self {
        let pid = pid.as_raw_nonzero().get();
        Self {
            pid,
            started: started(pid).unwrap_or_default(),
            kernel: kernel(),
            incarnation: incarnation.to_owned(),
            boot_id: boot_id.to_owned(),
            password: password.to_owned(),
            run_id: String::new(),
            in_hand: 0,
            following: None,
            users: BTreeSet::new(),
            replication: BTreeSet::new(),
            originals: BTreeMap::new(),
            fenced: false,
            admitted: 0,
        }
    }

    /// What was set in it.
    #[must_use]
    pub fn applied(&self) -> Applied {
        Applied {
            users: self.users.clone(),
            replication: self.replication.clone(),
            originals: self.originals.clone(),
            fenced: self.fenced.then(Instant::now),
            admitted: self.admitted,
        }
    }

    /// Notes what was set in it.
    pub fn set_applied(&mut self, applied: &Applied) {
        let Applied { users, replication, originals, fenced, admitted } = applied;
        self.users.clone_from(users);
        self.replication.clone_from(replication);
        self.originals.clone_from(originals);
        self.fenced = fenced.is_some();
        self.admitted = *admitted;
    }
}

/// Where the life of the present redis is written down; nowhere when it is not to outlive its agent.
pub struct LifeFile {
    path: Option<PathBuf>,
    life: Mutex<Option<Life>>,
}

impl LifeFile {
    /// Below this directory. `life` is that of a redis that was taken over.
    #[must_use]
    pub fn new(dir: Option<&Path>, life: Option<Life>) -> Self {
        Self { path: dir.map(path), life: Mutex::new(life) }
    }

    fn life(&self) -> MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A redis was started.
    pub fn begin(&self, life: Life) {
        let mut held = self.life();
        *held = Some(life);
        self.write(held.as_ref());
    }

    /// It is gone.
    pub fn end(&self) {
        let mut held = self.life();
        *held = None;
        self.write(None);
    }

    /// Something was set in it.
    pub fn change(&self, edit: impl FnOnce(&mut Life)) {
        let mut held = self.life();
        if let Some(life) = held.as_mut() {
            edit(life);
            self.write(held.as_ref());
        }
    }

    /// It answered: this is the process.
    pub fn answered(&self, run_id: &str) {
        let mut held = self.life();
        if let Some(life) = held.as_mut().filter(|life| life.run_id != run_id) {
            run_id.clone_into(&mut life.run_id);
            self.write(held.as_ref());
        }
    }

    /// A command begins; it ends when the answer is dropped. What dies in between is not taken over.
    #[must_use]
    pub fn in_hand(&self) -> InHand<'_> {
        self.change(|life| life.in_hand += 1);
        InHand(self)
    }

    /// Nothing is better than what is no longer true.
    fn write(&self, life: Option<&Life>) {
        let Some(path) = &self.path else { return };
        if life.is_none_or(|life| keep(path, life).is_err()) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A command that is being carried out.
pub struct InHand<'a>(&'a LifeFile);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.change(|life| life.in_hand = life.in_hand.saturating_sub(1));
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("redis.life.json")
}

/// Whole or not at all. It need not outlive the machine, so nothing is synced.
fn keep(path: &Path, life: &Life) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(life)?)?;
    fs::rename(&new, path)
}

/// A redis that an earlier agent left behind.
pub struct Left {
    /// Its process.
    pub child: Child,
    /// What is known of it.
    pub found: Found,
}

/// What is known of a redis that was left behind.
pub struct Found {
    /// What was written down.
    pub life: Life,
    /// As it is now.
    pub redis: RedisState,
    /// When it was asked.
    pub asked: Instant,
}

/// Where a redis that was left behind is looked for.
pub struct Search<'a> {
    /// Scratch of this container.
    pub dir: &'a Path,
    /// Its directories.
    pub instance: &'a RedisInstance,
    /// Who is asking.
    pub incarnation: &'a str,
    /// What this node remembers of commands.
    pub memory: Option<&'a Memory>,
    /// It answers within this, or it is not taken over.
    pub answer: Duration,
}

impl Search<'_> {
    /// Takes over the redis that an earlier agent of this container left behind, or ends it.
    ///
    /// # Errors
    /// What was left behind does not end: another redis on its data would ruin them.
    pub async fn take_over(&self, output: &Output) -> io::Result<Option<Left>> {
        let found = fs::read(path(self.dir)).ok();
        let found = found.and_then(|text| serde_json::from_slice::<Life>(&text).ok());
        if let Some(life) = found
            && let Some(left) = self.adopt(life, output).await?
        {
            return Ok(Some(left));
        }
        let _ = fs::remove_file(path(self.dir));
        end_strays(&self.instance.config_file()).await?;
        Ok(None)
    }

    async fn adopt(&self, life: Life, output: &Output) -> io::Result<Option<Left>> {
        let pid = Pid::from_raw(life.pid).filter(|_| {
            life.kernel == kernel() && life.incarnation == self.incarnation && life.in_hand == 0
        });
        let Some(pid) = pid else { return Ok(None) };
        let log = self.instance.log();
        let is_it = || started(life.pid) == Some(life.started);
        let Some(child) = Child::take_over(pid, &log, output, is_it)? else { return Ok(None) };
        let asked = Instant::now();
        let Some(info) = self.look(&life).await else { return Ok(None) };
        let following = life.following.clone();
        let mut redis = Tracker::default().look(&info, following.as_ref(), asked);
        redis.fenced |= life.fenced;
        // Nobody takes writes here but the master of the epoch that this node obeyed.
        let may = redis.fenced || self.memory.is_some_and(Memory::promoted);
        let may = redis.role != Role::Master || may;
        Ok(may.then_some(Left { child, found: Found { life, redis, asked } }))
    }

    /// The answer of this very process.
    async fn look(&self, life: &Life) -> Option<Info> {
        let socket = self.instance.run_dir.join(BootConfig::SOCKET);
        let control = RedisControl::new(&socket, &life.password).ok()?;
        let info = control.open(self.answer).await.ok()?.info().await.ok()?;
        (info.run_id() == life.run_id).then_some(info)
    }
}

/// Ends every process that was started with this file: also one of whose start nobody had time to
/// write, and the child that writes its snapshot.
pub async fn end_strays(file: &Path) -> io::Result<()> {
    let asked = Instant::now();
    while kill_strays(file) > 0 {
        if asked.elapsed() > DEATH {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Kills every process that has this file among its arguments; how many there were.
#[must_use]
pub fn kill_strays(file: &Path) -> usize {
    use std::os::unix::ffi::OsStrExt as _;
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let strays = pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == file.as_os_str().as_bytes() || word.ends_with(&socket_flag(file)))
    });
    let kill = |pid| Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
    strays.filter_map(kill).count()
}

/// A tailscaled names its socket by a flag.
fn socket_flag(file: &Path) -> Vec<u8> {
    format!("--socket={}", file.display()).into_bytes()
}

/// When a process was started, in ticks since the kernel's boot.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, brackets and blanks included.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}
