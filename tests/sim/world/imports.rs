//! A Redis outside of the clusters, and nodes that import from it.

use std::sync::{Arc, Mutex};

use akash_redis::model::backup::TaskPhase;
use akash_redis::model::import::{CopyTask, ImportTask};
use akash_redis::model::node::{Process, Role};
use akash_redis::wire::akash_redis::agent::v1 as wire;

use super::node::Node;
use super::nodes::State;

/// What a node that imports follows.
const AGENT: &str = "the-agent";
/// History of the source.
const REPLID: &str = "replid-source";

/// The Redis outside.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// What was written to it, in order.
    pub log: Vec<u64>,
    /// It takes no writes.
    pub held: bool,
    /// Nobody reaches it.
    pub away: bool,
}

/// The source as nodes reach it.
pub type Shared = Arc<Mutex<Source>>;

impl Node {
    /// The command to import.
    pub(super) fn import(&mut self, command: &wire::Import) -> Result<(), String> {
        if self.role == Role::Master {
            return Err("redis is master here".to_owned());
        }
        if self.tasks.import.id != command.id {
            let id = command.id.clone();
            self.tasks.import =
                ImportTask { id, phase: TaskPhase::Running, ..ImportTask::default() };
            // Whomever it followed before.
            AGENT.clone_into(&mut self.master_host);
            (self.link_up, self.sync, self.online_epoch) = (false, None, 0);
            self.tasks.import.copy = command.copy.then(CopyTask::default);
        }
        if let Some(copy) = self.tasks.import.copy.as_mut().filter(|c| c.pass != command.last_pass)
        {
            (copy.pass, copy.done) = (command.last_pass.clone(), false);
            if let Some(source) = self.tasks.source.as_ref().filter(|_| copy.pass.is_empty()) {
                source.lock().unwrap().held = false;
            }
        }
        Ok(())
    }

    /// It has what the source had, when that was last looked at.
    pub(super) fn is_importing(&self) -> bool {
        self.tasks.import.phase == TaskPhase::Running
            && self.role == Role::Replica
            && self.master_host == AGENT
    }

    /// Nothing is written to the source any more, and all of it is here; or a sentence.
    pub(super) fn take_over(&mut self, import: &str, epoch: u64) -> Result<(), String> {
        if import.is_empty() || self.role == Role::Master {
            return Ok(());
        }
        let source = self.tasks.source.clone();
        let source = source.filter(|_| self.tasks.import.id == import && self.link_up);
        let Some(mut source) = source.as_ref().map(|source| source.lock().unwrap()) else {
            return Err("it does not import".to_owned());
        };
        if source.away {
            let task = &mut self.tasks.import;
            (task.refused_epoch, task.refused) = (epoch, "the source is away".to_owned());
            return Err(task.refused.clone());
        }
        let compares = self.tasks.import.copy.as_ref();
        if compares.is_some_and(|copy| !copy.done || !source.held || self.log != source.log) {
            let task = &mut self.tasks.import;
            (task.refused_epoch, task.refused) = (epoch, "it was not compared".to_owned());
            return Err(task.refused.clone());
        }
        source.held = true;
        self.log.clone_from(&source.log);
        self.tasks.import = ImportTask::default();
        Ok(())
    }

    fn copy(&mut self, source: &Shared) {
        if self.tasks.import.phase != TaskPhase::Running || self.role == Role::Master {
            return;
        }
        self.tasks.source = Some(source.clone());
        if self.master_host == "127.0.0.1" {
            AGENT.clone_into(&mut self.master_host);
        }
        if self.master_host != AGENT {
            // It was told otherwise.
            self.tasks.import = ImportTask::default();
            return;
        }
        let mut source = source.lock().unwrap();
        self.link_up = !source.away || self.tasks.import.copy.is_some();
        let task = &mut self.tasks.import;
        (task.answers, task.can_pause) = (!source.away, true);
        if source.away {
            "the source cannot be reached".clone_into(&mut task.error);
            return;
        }
        task.error.clear();
        match &mut task.copy {
            // What is written after its first pass is found by its last one.
            Some(copy) if copy.copied && (copy.pass.is_empty() || copy.done) => {}
            Some(copy) => {
                if copy.copied && !copy.pass.is_empty() {
                    (source.held, copy.done) = (true, true);
                }
                copy.copied = true;
                self.log.clone_from(&source.log);
            }
            None => self.log.clone_from(&source.log),
        }
        REPLID.clone_into(&mut self.replid);
        self.tasks.import.offset = self.offset();
        REPLID.clone_into(&mut self.tasks.import.replid);
    }
}

impl State {
    /// Nodes that import copy what is new.
    pub(super) fn import_from_source(&mut self) {
        let source = self.bucket.lock().unwrap().source.clone();
        for node in self.nodes.values_mut().filter(|n| n.powered && n.process == Process::Running) {
            node.copy(&source);
        }
    }
}
