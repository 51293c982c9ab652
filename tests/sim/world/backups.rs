//! The object storage of a simulation: what nodes store there, and what the operator makes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::backup::storage::StorageError;
use akash_redis::model::archive::ArchiveTask;
use akash_redis::model::backup::{
    BackupManifest, BackupTask, Listing, RestoreTask, Snapshot, Survey, TaskPhase, VerifyTask,
};
use akash_redis::model::import::ImportTask;
use akash_redis::model::step::StorageRef;
use akash_redis::model::time::UnixMs;
use akash_redis::operator::Backups;
use akash_redis::wire::akash_redis::agent::v1 as wire;
use async_trait::async_trait;

use super::fuse::Fuse;
use super::imports::Shared;
use super::node::Node;
use super::nodes::State;

/// A node takes so long to store its data, and to get them back, virtual milliseconds.
const TAKES: u64 = 3_000;

/// A bucket.
#[derive(Default)]
pub struct Bucket {
    /// The writes that a backup has, and when they were stored, by cluster and id.
    pub data: BTreeMap<(String, String), (Vec<u64>, u64)>,
    /// What makes backups of them.
    pub manifests: BTreeMap<(String, String), BackupManifest>,
    /// How far the log of a cluster is archived, in writes, and the runs that began it anew.
    pub logs: BTreeMap<String, (usize, Vec<String>)>,
    /// Ids of backups whose data were damaged since.
    pub damaged: std::collections::BTreeSet<String>,
    /// It does not answer.
    pub away: bool,
    /// It does not take the operator's keys.
    pub refuses: bool,
    /// Nodes cannot read or write there.
    pub nodes_fail: bool,
    /// A Redis outside of the clusters.
    pub source: Shared,
}

impl Bucket {
    /// Ids of the backups of a cluster, oldest first.
    pub fn backups(&self, cluster: &str) -> Vec<String> {
        let mut own: Vec<_> = self.manifests.iter().filter(|((of, _), _)| of == cluster).collect();
        own.sort_by_key(|(_, manifest)| manifest.taken);
        own.into_iter().map(|((_, id), _)| id.clone()).collect()
    }
}

/// What a node is doing with backups.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    pub backup: BackupTask,
    pub restore: RestoreTask,
    pub archive: ArchiveTask,
    pub import: ImportTask,
    pub(super) source: Option<Shared>,
    pub verify: VerifyTask,
    verifies: Option<(String, String, u64)>,
    cluster: String,
    begun: Option<u64>,
    archived: Option<String>,
    anew: bool,
}

impl Node {
    /// The command to take a backup.
    pub(super) fn back_up(&mut self, command: &wire::Backup) -> Result<(), String> {
        if self.role != akash_redis::model::node::Role::Master && !self.link_up {
            return Err("redis is no replica in sync".to_owned());
        }
        if self.tasks.backup.id != command.id {
            self.tasks.backup = BackupTask {
                id: command.id.clone(),
                phase: TaskPhase::Running,
                ..BackupTask::default()
            };
            self.tasks.cluster = cluster_of(&command.object);
            self.tasks.begun = None;
        }
        Ok(())
    }

    /// The command to get the data of a backup.
    pub(super) fn restore(&mut self, command: &wire::Restore) -> Result<(), String> {
        if self.memory.promoted() || self.role == akash_redis::model::node::Role::Master {
            return Err("redis is master here".to_owned());
        }
        let task = &self.tasks.restore;
        let has = task.phase == TaskPhase::Done && task.run_id == self.run_id();
        if task.id != command.id || !(task.phase == TaskPhase::Running || has) {
            self.tasks.restore = RestoreTask {
                id: command.id.clone(),
                phase: TaskPhase::Running,
                total_bytes: command.rdb_bytes,
                ..RestoreTask::default()
            };
            self.tasks.cluster = cluster_of(&command.object);
            self.tasks.begun = None;
        }
        Ok(())
    }

    /// The command to archive the log, or no more.
    pub(super) fn archive(&mut self, command: &wire::Archive) {
        if self.tasks.archive.run == command.run && !command.run.is_empty() {
            return;
        }
        let log = command.log.clone().unwrap_or_default();
        self.tasks.archived = (!command.run.is_empty()).then_some(log.cluster);
        self.tasks.archive = ArchiveTask { run: command.run.clone(), ..ArchiveTask::default() };
        if !command.run.is_empty() {
            self.tasks.archive.phase = TaskPhase::Running;
            self.tasks.anew = command.anew;
        }
    }

    /// The command to restore a backup beside the own data.
    pub(super) fn verify(&mut self, command: &wire::Verify) -> Result<(), String> {
        if self.tasks.verify.run == command.run {
            return Ok(());
        }
        if self.tasks.verify.phase == TaskPhase::Running {
            return Err("another backup is still being verified here".to_owned());
        }
        self.tasks.verify = VerifyTask {
            run: command.run.clone(),
            phase: TaskPhase::Running,
            ..VerifyTask::default()
        };
        let cluster = cluster_of(&command.object);
        self.tasks.verifies = Some((cluster, command.id.clone(), 0));
        Ok(())
    }

    /// Its redis has the data of a backup, and is a replica of the agent.
    pub(super) fn is_restored(&self) -> bool {
        let task = &self.tasks.restore;
        task.phase == TaskPhase::Done
            && task.run_id == self.run_id()
            && self.role == akash_redis::model::node::Role::Replica
            && self.master_host == "127.0.0.1"
    }
}

impl Node {
    /// Archives what its redis has; a redis of another history, with less, has a gap.
    fn archives(&mut self, bucket: &mut Bucket, broken: bool, now: u64) {
        let Some(cluster) = self.tasks.archived.clone() else { return };
        let task = &mut self.tasks.archive;
        let serves = self.role == akash_redis::model::node::Role::Master || self.link_up;
        if task.phase != TaskPhase::Running || !serves {
            return;
        }
        if broken {
            let waits = i64::try_from(self.log.len()).unwrap() + 1 > task.stored;
            if waits && task.behind_since == UnixMs::default() {
                (task.behind_since, task.error) = (UnixMs(now), "the storage is away".into());
            }
            return;
        }
        (task.behind_since, task.error) = (UnixMs::default(), String::new());
        let known = bucket.logs.get(&cluster).map(|(end, _)| *end);
        let first = task.stored == 0;
        if first && known.is_none_or(|end| end > self.log.len()) {
            if known.is_some() && !self.tasks.anew {
                (task.phase, task.gap, task.error) = (TaskPhase::Failed, true, "a gap".into());
                return;
            }
            task.fresh = true;
            bucket.logs.entry(cluster.clone()).or_default().1.push(task.run.clone());
        }
        bucket.logs.entry(cluster).or_default().0 = self.log.len();
        task.stored = i64::try_from(self.log.len()).unwrap() + 1;
    }
}

impl Node {
    /// Restores a backup beside the own data, and counts what it has.
    fn verifies(&mut self, bucket: &Bucket, now: u64) {
        let Some((cluster, id, begun)) = &mut self.tasks.verifies else { return };
        let task = &mut self.tasks.verify;
        if task.phase != TaskPhase::Running {
            return;
        }
        if *begun == 0 {
            *begun = now;
        }
        if now < *begun + TAKES {
            return;
        }
        if bucket.away || bucket.nodes_fail {
            (task.phase, task.error) = (TaskPhase::Failed, "the storage is away".into());
            return;
        }
        match bucket.data.get(&(cluster.clone(), id.clone())) {
            Some(_) if bucket.damaged.contains(id) => {
                (task.phase, task.damaged) = (TaskPhase::Failed, true);
                task.error = "the data are not those of the manifest".into();
            }
            Some((log, _)) => {
                task.phase = TaskPhase::Done;
                (task.keys, task.took_ms) = (log.len() as u64, TAKES);
            }
            None => {
                (task.phase, task.damaged) = (TaskPhase::Failed, true);
                task.error = "there is no such object".into();
            }
        }
    }
}

fn cluster_of(object: &str) -> String {
    object.split('/').nth(1).unwrap_or_default().to_owned()
}

impl State {
    /// Nodes store their data, and get them back.
    pub(super) fn store_backups(&mut self, now: u64) {
        use akash_redis::model::node::Process;
        let bucket = self.bucket.clone();
        let mut bucket = bucket.lock().unwrap();
        let broken = bucket.away || bucket.nodes_fail;
        for node in self.nodes.values_mut().filter(|n| n.powered && n.process == Process::Running) {
            node.archives(&mut bucket, broken, now);
            node.verifies(&bucket, now);
            let begun = *node.tasks.begun.get_or_insert(now);
            if now < begun + TAKES {
                continue;
            }
            let (offset, keys, run_id) = (node.offset(), node.log.len() as u64, node.run_id());
            let (cluster, replid) = (node.tasks.cluster.clone(), node.replid.clone());
            let task = &mut node.tasks.backup;
            if task.phase == TaskPhase::Running && broken {
                (task.phase, task.error) = (TaskPhase::Failed, "the storage is away".into());
            } else if task.phase == TaskPhase::Running {
                bucket.data.insert((cluster.clone(), task.id.clone()), (node.log.clone(), now));
                task.phase = TaskPhase::Done;
                task.snapshot = Some(Snapshot {
                    redis: "7.0.15".into(),
                    replid,
                    offset,
                    keys,
                    stored_bytes: keys,
                    rdb_bytes: keys,
                    memory_bytes: 1 << 20,
                    exact_keys: true,
                    ..Snapshot::default()
                });
            }
            let task = &mut node.tasks.restore;
            if task.phase != TaskPhase::Running {
                continue;
            }
            match bucket.data.get(&(cluster, task.id.clone())).filter(|_| !broken) {
                None => (task.phase, task.error) = (TaskPhase::Failed, "no data".into()),
                Some((log, _)) => {
                    (task.phase, task.run_id) = (TaskPhase::Done, run_id);
                    node.log.clone_from(log);
                    node.link_up = true;
                }
            }
        }
    }
}

/// The operator's hand on the bucket.
pub struct SimBackups {
    pub bucket: Arc<Mutex<Bucket>>,
    pub fuse: Arc<Fuse>,
}

impl SimBackups {
    fn with<T>(&self, work: impl FnOnce(&mut Bucket) -> T) -> Result<T, StorageError> {
        let mut bucket = self.bucket.lock().unwrap();
        let (url, said) = ("s3://sim".to_owned(), "it is so".to_owned());
        if bucket.away {
            return Err(StorageError::Away { url, what: "read", said });
        }
        if bucket.refuses {
            return Err(StorageError::Refused { url, what: "read", said });
        }
        Ok(work(&mut bucket))
    }
}

#[async_trait]
impl Backups for SimBackups {
    async fn list(&self, at: &StorageRef, to: Option<UnixMs>) -> Result<Listing, StorageError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.with(|bucket| {
            let mut backups: Vec<_> = bucket.manifests.values().cloned().collect();
            backups.retain(|b| b.cluster == at.cluster);
            backups.sort_by_key(|b| b.taken);
            let unfinished = bucket.data.iter().filter(|((cluster, id), _)| {
                *cluster == at.cluster
                    && !bucket.manifests.contains_key(&(cluster.clone(), id.clone()))
            });
            let unfinished =
                unfinished.map(|((_, id), (_, at))| (id.clone(), UnixMs(*at))).collect();
            let survey = to.map(|to| Survey { to, found: None });
            Listing { backups, unfinished, survey, ..Listing::default() }
        })
    }

    async fn complete(
        &self,
        at: &StorageRef,
        manifest: &BackupManifest,
    ) -> Result<(), StorageError> {
        let call = format!("complete backup {}", manifest.id);
        self.fuse.before(&call).await;
        let done = self.with(|bucket| {
            let key = (at.cluster.clone(), manifest.id.clone());
            assert!(bucket.data.contains_key(&key), "a backup without data");
            bucket.manifests.insert(key, manifest.clone());
        });
        self.fuse.after(&call, &done).await;
        done
    }

    async fn delete(&self, at: &StorageRef, id: &str) -> Result<(), StorageError> {
        let call = format!("delete backup {id}");
        self.fuse.before(&call).await;
        let done = self.with(|bucket| {
            let key = (at.cluster.clone(), id.to_owned());
            bucket.manifests.remove(&key);
            bucket.data.remove(&key);
        });
        self.fuse.after(&call, &done).await;
        done
    }

    async fn delete_log(&self, _: &StorageRef, _: &str, _: UnixMs) -> Result<(), StorageError> {
        self.with(|_| ())
    }
}
