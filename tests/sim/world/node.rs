//! One simulated node: the agent's own decisions over a redis that is a list of writes.

use std::collections::BTreeMap;

use akash_redis::model::announcement::Announcement;
use akash_redis::model::archive::ArchiveTask;
use akash_redis::model::backup::{BackupTask, RestoreTask, VerifyTask};
use akash_redis::model::import::ImportTask;
use akash_redis::model::kept_copy::hash;
use akash_redis::model::mesh::BackendState;
use akash_redis::model::node::{
    AttachedReplica, Authority, History, Link, NodeMesh, NodeState, Process, RedisState,
    RefusedSetting, ReplicaState, Role,
};
use akash_redis::node::commands::{Intent, Memory, decide};
use akash_redis::node::nonces::Freshness;
use akash_redis::wire::akash_redis::agent::v1 as wire;
use tokio::time::Instant;

use super::backups::Tasks;

/// min-replicas-to-write of a fenced redis.
const FENCED: u32 = u32::MAX;

/// A setting that redis knows and does not take, as in builds without jemalloc.
pub const REFUSED: &str = "activedefrag";
/// After a planned change no replica is needed for a write for so long, milliseconds.
/// A handover is awaited for so long, milliseconds.
const AWAITED: u64 = 2_000;
const STAND_IN: u64 = 3_000;

/// A full sync under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Run id of the master that sends it.
    pub source: String,
    /// Virtual milliseconds of its end.
    pub until: u64,
}

/// A node's container with its volume.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub fqdn: String,
    pub ip: String,
    pub device: String,
    pub floor: u64,
    /// The container runs.
    pub powered: bool,
    /// The operator reaches it.
    pub reachable: bool,
    /// Other nodes reach it.
    pub meshed: bool,
    /// The control server reaches it.
    pub hears_control: bool,
    /// Its device is known to the control server.
    pub listed: bool,
    /// Its device has the cluster's tag: applications reach it.
    pub open: bool,
    /// FQDNs of the nodes it sees, as the control server last told it.
    pub netmap: Vec<String>,
    /// Their device ids.
    pub netmap_ids: Vec<String>,
    pub memory: Memory,
    pub boots: u32,
    pub runs: u32,
    pub process: Process,
    pub role: Role,
    /// Every write this redis holds, oldest first; the offset is the length.
    pub log: Vec<u64>,
    pub replid: String,
    pub replid2: String,
    pub second_offset: i64,
    pub history: Option<History>,
    pub configured: String,
    /// What it was given to keep.
    pub kept: Option<wire::KeptCopy>,
    /// The newest word about the master that it heard.
    pub announced: Option<Announcement>,
    /// When it first heard that a master of this epoch gives way.
    pub gives_way: BTreeMap<u64, Instant>,
    /// Somebody listens to it, as to a Sentinel.
    pub listened_to: bool,
    pub users: Vec<String>,
    /// Epoch of those that may attach before it is master.
    pub admits: u64,
    /// The promotion that it carries out by itself when its master hands over to it.
    awaits: Option<Awaited>,
    /// Of a fenced master: the word that it said behind its last write.
    said: Option<String>,
    /// Epoch of the master's data that it was told to follow.
    pub following: u64,
    pub min_replicas: u32,
    pub max_lag_s: u32,
    pub master_host: String,
    pub link_up: bool,
    pub sync: Option<Sync>,
    pub online_epoch: u64,
    /// Virtual milliseconds of the last exchange with its master.
    pub heard_master: u64,
    /// Of a master: when each replica last acknowledged, by fqdn.
    pub acks: Vec<(String, u64)>,
    /// Of a master: until then it needs no replica for a write.
    stands_in_until: u64,
    pub saved: Vec<String>,
    /// What its redis does not take of its settings.
    pub refused: Vec<RefusedSetting>,
    /// Its agent is of a version that refuses settings as a whole.
    pub outdated: bool,
    pub nonce: u64,
    /// Its redis ends at once whenever it is started.
    pub broken: bool,
    /// No volume: a start of redis is empty, and the agent forgets with its container.
    pub ephemeral: bool,
    /// Its own clock is so many milliseconds ahead.
    pub clock_ahead: i64,
    /// What its container was started with.
    pub revision: String,
    /// The backups that it takes and gets.
    pub tasks: Tasks,
}

/// A handover that a replica waits for.
#[derive(Clone, Debug)]
struct Awaited {
    promote: wire::Promote,
    authority: Authority,
    word: String,
    /// Virtual milliseconds.
    until: u64,
}

/// What of a node is news: all but counters that move by themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    boots: u32,
    runs: u32,
    process: Process,
    role: Role,
    memory: Memory,
    configured: String,
    min_replicas: u32,
    master_host: String,
    link_up: bool,
    sync: Option<Sync>,
    online_epoch: u64,
    admits: u64,
    awaits: Option<u64>,
    replicas: Vec<String>,
    saved: usize,
    tasks: (BackupTask, RestoreTask, ArchiveTask, ImportTask, VerifyTask),
    netmap: Vec<String>,
}

impl Node {
    pub fn face(&self) -> Face {
        Face {
            boots: self.boots,
            runs: self.runs,
            process: self.process,
            role: self.role,
            memory: self.memory.clone(),
            configured: self.configured.clone(),
            min_replicas: self.min_replicas,
            master_host: self.master_host.clone(),
            link_up: self.link_up,
            sync: self.sync.clone(),
            online_epoch: self.online_epoch,
            admits: self.admits,
            awaits: self.awaits.as_ref().map(|a| a.authority.epoch),
            replicas: self.acks.iter().map(|(name, _)| name.clone()).collect(),
            saved: self.saved.len(),
            tasks: {
                let Tasks { backup, restore, archive, import, verify, .. } = self.tasks.clone();
                (backup, restore, archive, import, verify)
            },
            netmap: self.netmap.clone(),
        }
    }

    pub fn new(name: &str, fqdn: &str, ip: &str, device: &str, floor: u64) -> Self {
        let mut node = Self {
            name: name.to_owned(),
            fqdn: fqdn.to_owned(),
            ip: ip.to_owned(),
            device: device.to_owned(),
            floor,
            powered: true,
            reachable: true,
            meshed: true,
            hears_control: true,
            listed: true,
            open: true,
            netmap: Vec::new(),
            netmap_ids: Vec::new(),
            memory: Memory::default(),
            boots: 0,
            runs: 0,
            process: Process::Running,
            role: Role::Replica,
            log: Vec::new(),
            replid: String::new(),
            replid2: String::new(),
            second_offset: -1,
            history: None,
            configured: String::new(),
            kept: None,
            announced: None,
            gives_way: BTreeMap::new(),
            listened_to: false,
            users: Vec::new(),
            admits: 0,
            awaits: None,
            said: None,
            following: 0,
            min_replicas: FENCED,
            max_lag_s: 8,
            master_host: String::new(),
            link_up: false,
            sync: None,
            online_epoch: 0,
            heard_master: 0,
            acks: Vec::new(),
            stands_in_until: 0,
            saved: Vec::new(),
            refused: Vec::new(),
            outdated: false,
            nonce: 0,
            broken: false,
            ephemeral: false,
            clock_ahead: 0,
            revision: String::new(),
            tasks: Tasks::default(),
        };
        node.boot_redis();
        node
    }

    /// A redis starts as a fenced replica of nobody, with the data of its volume.
    pub fn boot_redis(&mut self) {
        self.runs += 1;
        self.process = Process::Running;
        self.role = Role::Replica;
        self.replid = format!("replid-{}-{}", self.name, self.runs);
        self.replid2 = String::new();
        self.second_offset = -1;
        self.configured = String::new();
        self.users.clear();
        self.admits = 0;
        (self.awaits, self.said) = (None, None);
        self.min_replicas = FENCED;
        "127.0.0.1".clone_into(&mut self.master_host);
        (self.link_up, self.sync) = (false, None);
        self.online_epoch = 0;
        self.acks.clear();
        self.stands_in_until = 0;
        if self.ephemeral {
            self.log.clear();
            self.history = None;
        }
    }

    /// Its redis dies; the agent starts it again some moments later.
    pub fn kill_redis(&mut self) {
        self.process = Process::Exited;
        self.role = Role::Replica;
        (self.link_up, self.sync) = (false, None);
        self.acks.clear();
    }

    /// Its container is started anew, on its volume if it has one.
    pub fn restart_container(&mut self) {
        self.boots += 1;
        self.tasks = Tasks::default();
        if self.ephemeral {
            self.memory = Memory::default();
            self.kept = None;
            self.saved.clear();
        }
        self.boot_redis();
    }

    /// Its redis hangs, and cannot be killed.
    pub fn freeze_redis(&mut self) {
        self.process = Process::Stuck;
    }

    /// Its redis goes on where it stopped: as a master, if it was one.
    pub fn thaw_redis(&mut self) {
        self.process = Process::Running;
    }

    /// Whatever was wrong with it is not any more; what its redis holds stays.
    pub fn heal(&mut self) {
        (self.powered, self.reachable, self.meshed) = (true, true, true);
        (self.hears_control, self.broken, self.clock_ahead) = (true, false, 0);
        if self.process == Process::Stuck {
            self.thaw_redis();
        }
    }

    /// Identity of the redis process that runs now.
    pub fn run_id(&self) -> String {
        format!("run-{}-{}", self.name, self.runs)
    }

    pub fn offset(&self) -> i64 {
        i64::try_from(self.log.len()).unwrap()
    }

    /// It was told to replicate from another node.
    fn follows(&self) -> bool {
        self.role == Role::Replica && self.master_host != "127.0.0.1"
    }

    pub fn unfenced_master(&self) -> bool {
        self.powered
            && self.process == Process::Running
            && self.role == Role::Master
            && self.min_replicas != FENCED
    }

    /// A client that is connected to this master is answered, whether it takes writes or not.
    pub fn answers_clients(&self) -> bool {
        self.powered && self.open && self.process == Process::Running && self.role == Role::Master
    }

    /// Whether a write sent now is acknowledged.
    pub fn takes_writes(&self, now: u64) -> bool {
        let good = self
            .acks
            .iter()
            .filter(|(_, at)| now.saturating_sub(*at) <= u64::from(self.max_lag_s) * 1000)
            .count();
        let stands_in = usize::from(now < self.stands_in_until);
        self.unfenced_master() && good + stands_in >= self.min_replicas as usize
    }

    pub fn state(&self, now: u64) -> NodeState {
        NodeState {
            incarnation: self.name.clone(),
            boot_id: format!("boot-{}", self.boots),
            agent_version: "0.1.0".to_owned(),
            nonce: self.nonce.to_string(),
            highest: self.memory.highest,
            promoted: self.memory.promoted(),
            mesh: NodeMesh {
                backend_state: BackendState::Running,
                dns_name: self.fqdn.clone(),
                ip: self.ip.clone(),
                device_id: self.device.clone(),
                health: Vec::new(),
                visible_peers: self.netmap.clone(),
                visible_ids: self.netmap_ids.clone(),
                paths: Vec::new(),
            },
            redis: self.redis(now),
            history: self.history.clone(),
            configured: self.configured.clone(),
            notes: Vec::new(),
            saved: self.saved.clone(),
            refused: self.refused.clone(),
            kept_copy: (!self.outdated)
                .then(|| self.kept.as_ref().map(|k| hash(&k.content)).unwrap_or_default()),
            admits: (!self.outdated).then_some(self.admits),
            awaits: (!self.outdated).then(|| self.awaits.as_ref().map_or(0, |a| a.authority.epoch)),
            revision: self.revision.clone(),
            backup: (!self.outdated).then(|| self.tasks.backup.clone()),
            restore: (!self.outdated).then(|| self.tasks.restore.clone()),
            archive: (!self.outdated).then(|| self.tasks.archive.clone()),
            import: (!self.outdated).then(|| self.tasks.import.clone()),
            verify: (!self.outdated).then(|| self.tasks.verify.clone()),
            has_subscribers: (!self.outdated).then_some(self.listened_to),
            ..NodeState::default()
        }
    }

    fn redis(&self, now: u64) -> RedisState {
        RedisState {
            process: self.process,
            role: self.role,
            run_id: self.run_id(),
            version: "7.0.15".to_owned(),
            replid: self.replid.clone(),
            replid2: self.replid2.clone(),
            second_offset: self.second_offset,
            offset: self.offset(),
            keys: self.log.len() as u64,
            master_host: if self.follows() { self.master_host.clone() } else { String::new() },
            link: Link::of(self.link_up, self.sync.is_some()),
            silent_ms: if self.follows() { now.saturating_sub(self.heard_master) } else { 0 },
            online_epoch: self.online_epoch,
            replicas: self
                .acks
                .iter()
                .map(|(name, at)| AttachedReplica {
                    name: name.clone(),
                    state: ReplicaState::Online,
                    offset: 0,
                    lag_seconds: u32::try_from(now.saturating_sub(*at) / 1000).unwrap(),
                    behind_ms: 0,
                })
                .collect(),
            min_replicas: self.min_replicas,
            max_lag_seconds: self.max_lag_s,
            fenced: self.min_replicas == FENCED,
            ..RedisState::default()
        }
    }

    /// Obeys or refuses as the real agent decides.
    pub fn command(&mut self, request: wire::CommandRequest, now: u64) -> Result<(), String> {
        use wire::command_request::Command;
        let authority = request.authority.unwrap_or_default();
        let authority = Authority { term: authority.term, epoch: authority.epoch };
        let command = request.command.ok_or("no command")?;
        let intent = match &command {
            Command::Promote(_) | Command::AwaitHandover(_) | Command::Unfence(_) => Intent::Lead,
            Command::Follow(f) => {
                Intent::Follow { incarnation: &f.master_incarnation, name: &f.master_name }
            }
            _ => Intent::Other,
        };
        let fresh = if request.nonce == self.nonce.to_string() {
            Freshness::Fresh
        } else {
            Freshness::Stale
        };
        self.memory = decide(&self.memory, self.floor, fresh, authority, intent)
            .map_err(|e| e.to_string())?;
        if self.process != Process::Running {
            return Err("redis does not run".to_owned());
        }
        if !matches!(command, Command::Configure(_) | Command::Save(_)) {
            self.stands_in_until = 0;
        }
        let moves = matches!(
            command,
            Command::Promote(_)
                | Command::Follow(_)
                | Command::Detach(_)
                | Command::Fence(_)
                | Command::HandOver(_)
                | Command::Restart(_)
        );
        if moves {
            self.awaits = None;
        }
        if !matches!(command, Command::Configure(_) | Command::Save(_) | Command::HandOver(_)) {
            self.said = None;
        }
        match command {
            Command::Configure(c) => self.configure(c)?,
            Command::Promote(p) => {
                self.take_over(&p.import_id, authority.epoch)?;
                self.promote(p, authority.epoch, now);
            }
            Command::AwaitHandover(a) => {
                if self.role != Role::Replica || !self.link_up {
                    return Err("redis is no replica in sync".to_owned());
                }
                let (promote, word) = (a.promote.unwrap_or_default(), a.word);
                let until = now + AWAITED;
                self.awaits = Some(Awaited { promote, authority, word, until });
            }
            Command::HandOver(h) => {
                if self.role == Role::Master && self.min_replicas != FENCED {
                    self.said = Some(h.word);
                }
                self.min_replicas = FENCED;
            }
            Command::Follow(f) => {
                if f.save_first {
                    self.saved.push(format!("epoch-{}", authority.epoch));
                }
                let epoch = if f.data_epoch > 0 { f.data_epoch } else { authority.epoch };
                self.following = epoch;
                if self.role == Role::Replica && self.link_up && self.master_host == f.master_name {
                    // Redis is attached to it already: nothing but the epoch changes.
                    self.users.clear();
                    self.admits = 0;
                } else {
                    self.become_replica_of(&f.master_name);
                }
            }
            Command::Admit(a) => {
                if self.role != Role::Replica || !self.link_up {
                    return Err("redis is no replica in sync".to_owned());
                }
                self.users = a.replication_users.into_iter().map(|u| u.name).collect();
                self.admits = authority.epoch;
            }
            Command::Detach(_) => self.become_replica_of("127.0.0.1"),
            Command::Fence(_) => self.min_replicas = FENCED,
            Command::Unfence(u) => self.set_quorum(u.quorum),
            Command::Save(s) => self.saved.push(s.label),
            Command::Backup(b) => self.back_up(&b)?,
            Command::Restore(r) => self.restore(&r)?,
            Command::Import(i) => self.import(&i)?,
            Command::Archive(a) => self.archive(&a),
            Command::Verify(v) => self.verify(&v)?,
            Command::Discard(_) => return Err("redis runs here with its data".to_owned()),
            Command::Restart(_) => {
                self.boots += 1;
                self.boot_redis();
            }
        }
        Ok(())
    }

    fn configure(&mut self, c: wire::Configure) -> Result<(), String> {
        let refused = c.redis_config.get(REFUSED).map(|value| RefusedSetting {
            name: format!("config.{REFUSED}"),
            value: value.clone(),
            reason: "this build has no jemalloc".to_owned(),
        });
        if self.outdated && refused.is_some() {
            return Err(format!("it does not know {REFUSED}"));
        }
        self.refused = refused.into_iter().collect();
        // A replica lets in nobody but those that were admitted.
        if self.role == Role::Master || self.admits == 0 {
            self.users = c.replication_users.into_iter().map(|u| u.name).collect();
        }
        if self.role == Role::Master && self.min_replicas != FENCED {
            self.set_quorum(c.quorum);
        }
        self.configured = c.generation;
        self.kept = c.kept_copy.or(self.kept.take()).filter(|_| !self.outdated);
        Ok(())
    }

    fn promote(&mut self, promote: wire::Promote, epoch: u64, now: u64) {
        self.users = promote.replication_users.into_iter().map(|u| u.name).collect();
        if self.role != Role::Master {
            self.replid2 =
                std::mem::replace(&mut self.replid, format!("replid-{}-{epoch}", self.name));
            self.second_offset = self.offset() + 1;
            // Whoever hangs on it has to attach anew.
            self.acks.clear();
        }
        self.role = Role::Master;
        self.admits = 0;
        (self.link_up, self.sync) = (false, None);
        self.set_quorum(promote.quorum);
        if promote.planned && self.min_replicas == 1 {
            self.stands_in_until = now + STAND_IN;
        }
    }

    /// What it heard behind the last write of its master; whether it becomes master by it.
    pub fn hears(&mut self, said: Option<&str>, now: u64) -> bool {
        if self.awaits.as_ref().is_some_and(|awaited| now >= awaited.until) {
            self.awaits = None;
        }
        let Some(awaited) = self.awaits.take_if(|awaited| said == Some(&awaited.word)) else {
            return false;
        };
        let Ok(memory) =
            decide(&self.memory, self.floor, Freshness::Fresh, awaited.authority, Intent::Lead)
        else {
            return false;
        };
        self.memory = memory;
        self.promote(awaited.promote, awaited.authority.epoch, now);
        true
    }

    /// The word that it said behind its last write.
    pub fn says(&self) -> Option<String> {
        self.said.clone()
    }

    fn set_quorum(&mut self, quorum: Option<wire::Quorum>) {
        let quorum = quorum.unwrap_or_default();
        self.min_replicas = quorum.min_replicas;
        self.max_lag_s = quorum.max_lag_seconds;
    }

    fn become_replica_of(&mut self, host: &str) {
        self.role = Role::Replica;
        self.min_replicas = FENCED;
        self.acks.clear();
        self.users.clear();
        self.admits = 0;
        (self.link_up, self.sync) = (false, None);
        host.clone_into(&mut self.master_host);
    }
}
