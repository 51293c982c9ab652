//! What all parts of the agent share: the state that is pushed, the memory of commands, the nonces.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::announced::Announced;
use super::append_only::LastLook;
use super::commands::Memory;
use super::forwarder::Egress;
use super::history::{self, Known};
use super::info::Info;
use super::life::{Found, Life, LifeFile};
use super::logs::LogBook;
use super::nonces::{Freshness, Nonces, random_hex};
use super::probe::Following;
use super::redis_config::{BOOT_MAX_LAG, FENCE};
use super::redis_control::{Applied, RedisControl};
use super::rest::Rest;
use super::settings::Settings;
use super::snapshots::Snapshots;
use super::state_file::{KeptCopy, StateFile, StateFileError};
use crate::error_chain::error_chain;
use crate::model::archive::ArchiveTask;
use crate::model::backup::{BackupTask, RestoreTask, VerifyTask};
use crate::model::identity::NodeIdentity;
use crate::model::import::ImportTask;
use crate::model::mesh::BackendState;
use crate::model::node::{
    AttachedReplica, History, NodeMesh, NodeState, Process, RedisState, ReplicaState, Role,
};
use crate::model::step::Quorum;
use crate::model::text::clipped;
use crate::model::time::UnixMs;

/// A note, bytes: other programs word parts of them.
const LONGEST_NOTE: usize = 500;

/// The keeper of Redis is asked to take the data away that it does not start with.
pub struct Discard {
    /// They are kept aside, whatever room is left.
    pub must_keep: bool,
    /// What came of it.
    pub done: oneshot::Sender<std::io::Result<()>>,
}

/// A redis that has answered for so long has started.
const GOOD_START: Duration = Duration::from_secs(10);

/// What the parts of the agent share: the state that is shown, and what changes it.
pub struct Node {
    /// Paths, ports, time-outs.
    pub settings: Settings,
    /// Who it is.
    pub identity: NodeIdentity,
    /// Lines of its programs, and of the agent itself.
    pub book: LogBook,
    /// Its files on the volume.
    pub files: StateFile,
    /// The hand on Redis.
    pub redis: RedisControl,
    /// Snapshots that are kept whatever becomes of the data.
    pub snapshots: Snapshots,
    /// How Redis reaches a master.
    pub egress: Egress,
    /// What it answers with as Sentinel.
    pub announced: Announced,
    /// What the next agent of this container has to know of the present redis.
    pub life: LifeFile,
    /// Held while a command is carried out; `false` once the agent stops.
    pub accepting: tokio::sync::Mutex<bool>,
    /// Asks the keeper of Redis to kill it.
    pub kill_redis: Notify,
    /// What Redis said last of its append-only file.
    pub append_only: LastLook,
    /// The operator asked for the end of this container.
    pub restart: CancellationToken,
    /// The run that archives the log of writes.
    pub archiving: Mutex<Option<AbortOnDropHandle<()>>>,
    /// The import from a running Redis.
    pub importing: super::import::Slot,
    /// What restores a backup beside the own data.
    pub verifying: Mutex<Option<AbortOnDropHandle<()>>>,
    /// What gives Redis the data of a backup.
    pub restoring: Mutex<Option<AbortOnDropHandle<()>>>,
    fed: AtomicBool,
    discard_asked: Notify,
    discard: Mutex<Option<Discard>>,
    look_now: Notify,
    /// When the question was asked that was answered last.
    looks: watch::Sender<Instant>,
    /// Looks at Redis that nobody waits for rest.
    pub looking: Rest,
    /// The operator is told no news: what it waits for is told by another node.
    pub telling: Rest,
    state: watch::Sender<NodeState>,
    shared: Mutex<Shared>,
    /// What stands on the volume, and whether writes may have followed it.
    written: Mutex<Option<(History, bool)>>,
}

/// The time in which Redis gets data from the agent.
#[derive(Debug)]
#[must_use]
pub struct Fed<'a>(&'a AtomicBool);

impl Drop for Fed<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Shared {
    nonces: Nonces,
    memory: Memory,
    /// The volume did not take the memory.
    unwritten: bool,
    copy: Option<KeptCopy>,
    following: Option<Following>,
    applied: Applied,
    known: Option<Known>,
    notes: BTreeMap<&'static str, String>,
    /// Since when the present redis process has its data and answers.
    serving: Option<Instant>,
    patience: Duration,
    /// Until when Redis is looked at all the time.
    hurry: Option<Hurry>,
}

impl Shared {
    /// What the state of a redis process says about where the data stands.
    fn advance(&mut self, state: &mut NodeState, asked: Instant) {
        let promoted = self.memory.promoted().then_some(self.memory.highest.epoch);
        self.known = history::advance(self.known.as_ref(), &state.redis, promoted, asked);
        state.history = self.known.as_ref().map(|known| known.history.clone());
    }

    /// What was waited for is there: a master has the replicas that it needs, or a replica its
    /// master, and nobody is about to attach to it.
    fn is_settled(&self, redis: &RedisState) -> bool {
        let online = |r: &&AttachedReplica| {
            r.state == ReplicaState::Online && r.lag_seconds <= redis.max_lag_seconds
        };
        match redis.role {
            Role::Master => {
                let good = redis.replicas.iter().filter(online).count();
                !redis.fenced && good >= redis.min_replicas as usize
            }
            Role::Replica => redis.is_linked() && self.applied.admitted == 0,
            Role::Unknown => false,
        }
    }
}

/// The operator waits for what a command does.
struct Hurry {
    /// The command was carried out.
    since: Instant,
    until: Instant,
}

/// A redis-server before the first look at it: fenced, as each one starts.
pub(super) fn not_looked_at() -> RedisState {
    RedisState {
        fenced: true,
        min_replicas: FENCE,
        max_lag_seconds: BOOT_MAX_LAG,
        ..RedisState::default()
    }
}

/// What a redis-server that takes no writes at the moment is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// A master whose fence is about to be taken off.
    Opening,
    /// A master that has been fenced or demoted: nothing follows.
    Closed,
    /// A replica: what follows is its master's.
    Replica,
}

/// The parts a node is made of.
pub struct Parts {
    /// Paths, ports, time-outs.
    pub settings: Settings,
    /// Who it is.
    pub identity: NodeIdentity,
    /// Lines of its programs, and of the agent itself.
    pub book: LogBook,
    /// Its files on the volume.
    pub files: StateFile,
    /// The hand on Redis.
    pub redis: RedisControl,
    /// Snapshots that are kept whatever becomes of the data.
    pub snapshots: Snapshots,
    /// How Redis reaches a master.
    pub egress: Egress,
    /// Where the state is shown; the status page may read there already.
    pub state: watch::Sender<NodeState>,
    /// A redis that an earlier agent of this container left behind, and that goes on.
    pub found: Option<Found>,
}

impl Node {
    /// Reads the files and puts the parts together. `joined_before` says that the volume was in use
    /// already.
    pub fn new(parts: Parts, joined_before: bool) -> Result<Self, StateFileError> {
        let Parts {
            settings,
            identity,
            book,
            files,
            redis,
            snapshots,
            egress,
            state: shown,
            found: left,
        } = parts;
        let found = files.memory()?;
        let lost = found.is_none() && joined_before;
        if let Some(found) = &found {
            // The room for the next one is taken now; what an earlier version wrote has none.
            let _ = files.keep_memory(found);
        }
        let memory = found.unwrap_or(Memory { lost, ..Memory::default() });
        let kept = files.history()?;
        let known = match &left {
            // It never ended: a look at it says how far it is by now.
            Some(left) => {
                let known = kept.map(|kept| kept.goes_on(left.asked));
                let promoted = memory.promoted().then_some(memory.highest.epoch);
                history::advance(known.as_ref(), &left.redis, promoted, left.asked)
            }
            None => kept.map(|kept| {
                let history = kept.found(UnixMs::now());
                Known { seen: history.offset, history, asked: Instant::now(), open: false }
            }),
        };
        let history = known.as_ref().map(|known| known.history.clone());
        // One that cannot be read is as good as none: the operator gives another.
        let copy = files.copy().ok().flatten();
        let state = NodeState {
            incarnation: identity.incarnation.clone(),
            boot_id: left.as_ref().map_or_else(random_hex, |left| left.life.boot_id.clone()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            highest: memory.highest,
            promoted: memory.promoted(),
            mesh: NodeMesh { backend_state: BackendState::Down, ..NodeMesh::default() },
            redis: left.as_ref().map_or_else(not_looked_at, |left| left.redis.clone()),
            history,
            saved: snapshots.labels(),
            kept_copy: Some(copy.as_ref().map(KeptCopy::hash).unwrap_or_default()),
            admits: Some(left.as_ref().map_or(0, |left| left.life.applied().admitted)),
            awaits: Some(0),
            has_subscribers: Some(false),
            revision: settings.revision.clone(),
            backup: Some(BackupTask::default()),
            restore: Some(RestoreTask::default()),
            archive: Some(ArchiveTask::default()),
            import: Some(ImportTask::default()),
            verify: Some(VerifyTask::default()),
            ..NodeState::default()
        };
        shown.send_replace(state);
        let dir = settings.outlives_agent.then_some(settings.run_dir.as_path());
        let life = left.map(|left| left.life);
        let (following, applied) = life
            .as_ref()
            .map_or_else(Default::default, |life| (life.following.clone(), life.applied()));
        let node = Self {
            announced: Announced::new(&identity, files.clone()),
            life: LifeFile::new(dir, life),
            settings,
            identity,
            book,
            files,
            redis,
            snapshots,
            egress,
            accepting: tokio::sync::Mutex::new(true),
            kill_redis: Notify::new(),
            append_only: LastLook::default(),
            restart: CancellationToken::new(),
            archiving: Mutex::default(),
            importing: Mutex::default(),
            verifying: Mutex::default(),
            restoring: Mutex::default(),
            fed: AtomicBool::new(false),
            discard_asked: Notify::new(),
            discard: Mutex::default(),
            look_now: Notify::new(),
            looks: watch::Sender::new(Instant::now()),
            looking: Rest::default(),
            telling: Rest::default(),
            state: shown,
            shared: Mutex::new(Shared {
                memory,
                copy,
                following,
                applied,
                known,
                ..Shared::default()
            }),
            // Not what was found: how long that had been open is decided now, and is the first
            // thing written.
            written: Mutex::default(),
        };
        if lost {
            node.set_note("memory", Some("the file with the highest epoch accepted is gone although the volume was in use: nothing is promoted before another command".into()));
        }
        Ok(node)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state with a fresh nonce, as it may be sent.
    #[must_use]
    pub fn issue(&self) -> NodeState {
        // The nonce is issued under the state's lock: it must not vouch for a state that changed in
        // between.
        let state = self.state.borrow();
        let nonce = self.shared().nonces.issue(Instant::now());
        NodeState { nonce, ..state.clone() }
    }

    /// The present state without a nonce.
    #[must_use]
    pub fn peek(&self) -> NodeState {
        self.state.borrow().clone()
    }

    /// Follows the state.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<NodeState> {
        self.state.subscribe()
    }

    /// Changes the state; it is pushed when it differs.
    pub fn update(&self, change: impl FnOnce(&mut NodeState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// The agent sends Redis data that it loads as they come, or Redis loads the last of them: that it
    /// answers nothing means nothing.
    #[must_use]
    pub fn is_fed(&self) -> bool {
        self.fed.load(Ordering::Relaxed)
    }

    /// From now on it is fed, until the answer is dropped.
    pub fn feeds(&self) -> Fed<'_> {
        self.fed.store(true, Ordering::Relaxed);
        Fed(&self.fed)
    }

    /// Whether a nonce is good, now.
    pub fn check_nonce(&self, nonce: &str) -> Freshness {
        self.shared().nonces.check(nonce, Instant::now())
    }

    /// When a nonce was issued that is good now.
    pub fn nonce_issued(&self, nonce: &str) -> Option<Instant> {
        self.shared().nonces.issued(nonce, Instant::now())
    }

    /// The memory of commands.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.shared().memory.clone()
    }

    /// This is what is remembered, and is on disk.
    #[must_use]
    pub fn has_written(&self, memory: &Memory) -> bool {
        let shared = self.shared();
        shared.memory == *memory && !shared.unwritten
    }

    /// Keeps the memory on disk, then in mind, then shows it.
    pub fn remember(&self, memory: Memory) -> Result<(), StateFileError> {
        if !self.has_written(&memory) {
            self.files.keep_memory(&memory)?;
        }
        self.has_in_mind(memory, false);
        self.set_note("memory", None);
        Ok(())
    }

    /// The same for a command by which writes end, where the volume takes nothing: it is better that
    /// they end than that this outlives the container. Whatever leads is still written down first.
    pub fn remember_unwritten(&self, memory: Memory, why: &StateFileError) {
        self.has_in_mind(memory, true);
        let why = error_chain(why);
        self.set_note("memory", Some(format!("the highest epoch accepted cannot be written down, so that this node becomes no master before it can be ({why})")));
    }

    fn has_in_mind(&self, memory: Memory, unwritten: bool) {
        let (highest, promoted) = (memory.highest, memory.promoted());
        {
            let mut shared = self.shared();
            (shared.memory, shared.unwritten) = (memory, unwritten);
        }
        self.update(|state| (state.highest, state.promoted) = (highest, promoted));
    }

    /// What is kept for an operator that lost its store.
    #[must_use]
    pub fn copy(&self) -> Option<KeptCopy> {
        self.shared().copy.clone()
    }

    /// Keeps a copy in place of the one before. On a volume that is full it is in mind alone, which
    /// is better than none.
    pub fn keep_copy(&self, copy: KeptCopy) {
        if self.copy().as_ref() == Some(&copy) {
            return;
        }
        let kept = self.files.keep_copy(&copy);
        self.set_note("copy", kept.err().map(|error| error_chain(&error)));
        let hash = copy.hash();
        self.shared().copy = Some(copy);
        self.update(|state| state.kept_copy = Some(hash));
    }

    /// Whom Redis was told to follow.
    #[must_use]
    pub fn following(&self) -> Option<Following> {
        self.shared().following.clone()
    }

    /// Notes whom Redis is told to follow.
    pub fn set_following(&self, following: Option<Following>) {
        self.shared().following.clone_from(&following);
        self.life.change(|life| life.following = following);
    }

    /// What was set in the present redis process.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.shared().applied.clone()
    }

    /// Notes what was set; `run_id` is the process it was set in.
    pub fn set_applied(&self, applied: Applied, run_id: &str) {
        // Order of locks: state, then shared.
        self.state.send_if_modified(|state| {
            if state.redis.run_id != run_id {
                return false;
            }
            let admits = Some(applied.admitted);
            self.life.change(|life| life.set_applied(&applied));
            self.shared().applied = applied;
            let news = std::mem::replace(&mut state.admits, admits) != admits;
            // A master that is about to open is none, whoever it had let in before.
            news && !(state.redis.role == Role::Master && state.redis.fenced)
        });
    }

    /// A redis was started, by this process and with this password.
    pub fn begin_life(&self, pid: Pid, password: &str) {
        let boot_id = self.peek().boot_id;
        self.life.begin(Life::new(pid, &self.identity.incarnation, &boot_id, password));
    }

    /// Shows a look at Redis that was asked for at `asked`.
    pub fn looked_at(&self, redis: RedisState, asked: Instant) {
        self.life.answered(&redis.run_id);
        self.state.send_if_modified(|state| {
            let before = state.clone();
            let mut shared = self.shared();
            // It was asked before Redis became something else, or before writes were held, and
            // answered after: where it stood then is not where it stands.
            let overtaken = shared.known.as_ref().is_some_and(|known| asked < known.asked);
            if overtaken || shared.applied.fenced.is_some_and(|since| asked < since) {
                return false;
            }
            state.redis = redis;
            // That writes are held is not to be seen from outside.
            state.redis.fenced |= shared.applied.fenced.is_some();
            let settled = shared.is_settled(&state.redis);
            // What was asked before does not show what the operator waits for.
            if settled && shared.hurry.as_ref().is_some_and(|hurry| asked >= hurry.since) {
                shared.hurry = None;
            }
            shared.advance(state, asked);
            if state.redis.process == Process::Running && !state.redis.loading {
                let serving = shared.serving.get_or_insert_with(Instant::now);
                if serving.elapsed() >= GOOD_START {
                    state.failed_starts = 0;
                    state.failed_start_line.clear();
                }
            }
            // What it has to do goes with the next state: it is no news by itself.
            let mut before = before;
            before.redis.load = state.redis.load;
            *state != before
        });
    }

    /// Notes where the data of this very process stands, by an answer that was asked for at `asked`
    /// while it took no writes; `stand` says what it is about to be. `false` when that process is
    /// not the one that is shown: then nothing is known of it. A master that is about to open is no
    /// news: that it is open is.
    pub fn stands(&self, info: &Info, asked: Instant, stand: Stand) -> bool {
        let mut same = false;
        self.state.send_if_modified(|state| {
            same = !state.redis.run_id.is_empty() && state.redis.run_id == info.run_id();
            if !same {
                return false;
            }
            let mut shared = self.shared();
            (state.redis.role, state.redis.offset, state.redis.fenced) =
                (info.role(), info.offset(), true);
            info.replid().clone_into(&mut state.redis.replid);
            if stand == Stand::Replica {
                shared.advance(state, asked);
                return true;
            }
            let promoted = shared.memory.promoted().then_some(shared.memory.highest.epoch);
            let epoch = promoted
                .or_else(|| shared.known.as_ref().map(|known| known.history.epoch))
                .unwrap_or(0);
            let offset = history::written(shared.known.as_ref(), info.replid(), info.offset());
            let history = History { replid: info.replid().to_owned(), offset, epoch, gap_ms: 0 };
            shared.known = Some(Known {
                history: history.clone(),
                seen: info.offset(),
                asked,
                open: stand == Stand::Opening,
            });
            state.history = Some(history);
            stand != Stand::Opening
        });
        same
    }

    /// The master of which `info` is a look, and `quorum` what it needs for a write, takes writes from
    /// now on, since it has this replica: it need not be looked at to be shown as that.
    pub fn opens(&self, info: &Info, quorum: Quorum, replica: AttachedReplica) {
        self.update(|state| {
            if state.redis.run_id != info.run_id() {
                return;
            }
            // A look that was asked for before this shows the fence.
            if let Some(known) = &mut self.shared().known {
                known.asked = Instant::now();
            }
            let before = std::mem::take(&mut state.redis);
            state.redis = RedisState {
                fenced: false,
                min_replicas: quorum.min_replicas,
                max_lag_seconds: quorum.max_lag_seconds,
                online_epoch: before.online_epoch,
                health: before.health,
                ..info.state()
            };
            state.redis.replicas.push(replica);
        });
    }

    /// The redis process is gone: commands formed before are void, and nothing that was set is true
    /// any more. `logged` says that its writes are in an append-only file.
    ///
    /// What it was stays in the state: whoever asks how many replicas a lost master needed for a
    /// write must not read that it needed none.
    pub fn redis_exited(&self, died: Instant, logged: bool) {
        self.life.end();
        self.state.send_modify(|state| {
            let mut shared = self.shared();
            shared.nonces = Nonces::default();
            shared.following = None;
            shared.applied = Applied::default();
            // A start that came to nothing. One that had served long enough was forgotten before.
            if shared.serving.take().is_none_or(|since| died.duration_since(since) < GOOD_START) {
                state.failed_starts = state.failed_starts.saturating_add(1);
            }
            // Without a volume the data are gone with the process.
            let known = shared.known.take().filter(|_| self.identity.persistent);
            shared.known = known
                .map(|known| history::ended(known, died, self.settings.probe_interval, logged));
            state.history = shared.known.as_ref().map(|known| known.history.clone());
            let old = std::mem::take(&mut state.redis);
            state.redis = RedisState {
                process: Process::Exited,
                role: old.role,
                version: old.version,
                replid: old.replid,
                replid2: old.replid2,
                second_offset: old.second_offset,
                offset: old.offset,
                min_replicas: old.min_replicas,
                max_lag_seconds: old.max_lag_seconds,
                fenced: true,
                ..RedisState::default()
            };
            state.configured = String::new();
            state.refused.clear();
            state.admits = Some(0);
        });
    }

    /// What redis printed last before it ended.
    pub fn ended_with(&self, line: Option<String>) {
        let line = clipped(line.unwrap_or_default(), LONGEST_NOTE);
        self.update(|state| {
            if state.failed_starts > 0 {
                state.failed_start_line = line;
            }
        });
    }

    /// How long redis may keep everybody waiting.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let known = self.shared().patience;
        if known.is_zero() { self.settings.patience } else { known }
    }

    /// The operator's word about it; zero when it said nothing.
    pub fn set_patience(&self, patience: Duration) {
        self.shared().patience = patience;
    }

    /// Where the data stands.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        self.shared().known.clone()
    }

    /// This is on the volume, or nothing, whatever was known.
    pub fn knows(&self, known: Option<Known>) {
        self.update(|state| {
            state.history = known.as_ref().map(|known| known.history.clone());
            self.shared().known = known;
        });
    }

    /// What was last written to the volume; held by whoever writes.
    pub fn written(&self) -> MutexGuard<'_, Option<(History, bool)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or clears a sentence about what this node lacks.
    pub fn set_note(&self, topic: &'static str, sentence: Option<String>) {
        let notes: Vec<String> = {
            let mut shared = self.shared();
            match sentence {
                Some(sentence) => shared.notes.insert(topic, clipped(sentence, LONGEST_NOTE)),
                None => shared.notes.remove(topic),
            };
            shared.notes.values().cloned().collect()
        };
        self.update(|state| state.notes = notes);
    }

    /// Asks the keeper of Redis to take its data away before the next start.
    pub fn ask_to_discard(&self, must_keep: bool) -> oneshot::Receiver<std::io::Result<()>> {
        let (done, answer) = oneshot::channel();
        *self.discard.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Discard { must_keep, done });
        self.discard_asked.notify_one();
        answer
    }

    /// Waits until the data are to be taken away.
    pub async fn asked_to_discard(&self) {
        loop {
            self.discard_asked.notified().await;
            // What was asked may have been done before anybody waited.
            if self.discard.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return;
            }
        }
    }

    /// What is to be taken away now.
    pub fn take_discard(&self) -> Option<Discard> {
        self.discard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts are counted anew.
    pub fn starts_anew(&self) {
        self.update(|state| {
            state.failed_starts = 0;
            state.failed_start_line.clear();
        });
    }

    /// Has Redis looked at without waiting for the next turn.
    pub fn look_now(&self) {
        self.look_now.notify_one();
    }

    /// Waits for [`Node::look_now`].
    pub async fn asked_to_look(&self) {
        self.look_now.notified().await;
    }

    /// When the look at Redis began that ended last.
    #[must_use]
    pub fn looks(&self) -> watch::Receiver<Instant> {
        self.looks.subscribe()
    }

    /// A look at Redis ended that was asked for at `asked`.
    pub fn looked(&self, asked: Instant) {
        self.looks.send_replace(asked);
    }

    /// The operator waits for what comes next: Redis is looked at all the time, for so long at most.
    pub fn hurry(&self, limit: Duration) {
        let since = Instant::now();
        self.shared().hurry = Some(Hurry { since, until: since + limit });
        self.look_now();
    }

    /// What comes next is not seen by looking.
    pub fn hurry_no_more(&self) {
        self.shared().hurry = None;
    }

    /// Somebody waits for what comes next.
    #[must_use]
    pub fn hurries(&self) -> bool {
        self.shared().hurry.as_ref().is_some_and(|hurry| Instant::now() < hurry.until)
    }

    /// Own mesh name, or the host name asked for as long as there is none.
    #[must_use]
    pub fn own_name(&self) -> String {
        let name = self.state.borrow().mesh.dns_name.clone();
        if name.is_empty() { self.identity.hostname.clone() } else { name }
    }
}
