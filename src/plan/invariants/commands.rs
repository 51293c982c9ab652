//! What an agent may be told.

use super::{Check, granted};
use crate::model::change::Change;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::step::{Command, Quorum, ReplicationGrant};

impl Check<'_> {
    #[allow(clippy::too_many_lines, reason = "a table has as many rows as there are commands")]
    pub(super) fn command(&mut self, name: &IncarnationName, own: &Incarnation, command: &Command) {
        let after = &self.plan.record;
        let master = after.master.as_ref();
        let is_master = master.is_some_and(|m| &m.incarnation == name);
        match command {
            Command::Promote { replicas, quorum, planned, .. } => {
                let ends =
                    matches!(&after.change, Some(Change::Switchover(s)) if &s.target == name);
                let waits = self.input.cluster.spec.is_confirmed();
                let ends = ends || self.imports(name) || self.stopped();
                self.expect(!planned || (ends && !waits), || {
                    format!("{name} is to take writes without replicas, and nobody stopped for it")
                });
                let redis = self.connected(name).map(|s| s.redis.run_id.as_str());
                let chosen = master.filter(|m| is_master && m.epoch == after.epoch && !m.confirmed);
                // One that has not said yet which process it is may be the right one.
                let chosen = chosen.zip(redis).is_some_and(|(m, redis)| {
                    m.run_id.is_empty() || redis.is_empty() || redis == m.run_id
                });
                self.expect(chosen, || format!("{name} is promoted, and was not chosen"));
                self.grants(name, replicas);
                self.no_weaker(name, *quorum);
            }
            Command::Unfence { quorum } => {
                let undone = matches!(&after.change, Some(Change::Switchover(s)) if s.undo && s.delegated.is_none() && &s.source == name);
                self.expect(undone && is_master, || {
                    format!("{name} takes writes again, and no switchover from it is undone")
                });
                self.no_weaker(name, *quorum);
            }
            Command::Configure(settings) if is_master => {
                self.grants(name, &settings.replicas);
                self.no_weaker(name, settings.quorum);
            }
            Command::Configure(settings) => {
                self.expect(settings.replicas.is_empty(), || {
                    format!("others may replicate from {name}, which is not master")
                });
            }
            Command::Follow { master: followed, grant, data_epoch, .. } => {
                let confirmed = master.is_some_and(|m| {
                    m.confirmed
                        && &m.incarnation == followed
                        && grant.epoch == granted(after, m)
                        && *data_epoch == 0
                });
                let chained = self.is_chained(name, followed, grant.epoch, *data_epoch);
                let settled = confirmed && after.change.is_none();
                let imported = self.imports(followed)
                    && master.is_none()
                    && grant.epoch == after.epoch
                    && *data_epoch == 0;
                self.expect((settled || chained || imported) && !is_master, || {
                    format!("{name} follows {followed}, which is not the confirmed master")
                });
                let member =
                    own.is_member() && own.quarantined.is_none() && &grant.incarnation == name;
                self.expect(member, || format!("{name} follows, and may not be attached"));
            }
            Command::Discard { .. } => {
                let spared = !is_master && !own.is_candidate() && own.rebuilt.is_some();
                self.expect(spared, || format!("{name} loses its data, and may be needed"));
            }
            Command::Detach { .. } | Command::Fence => {
                // A change that began and ended in one plan leaves no trace but its epoch.
                let settled = after.change.is_none() && is_master;
                let confirmed = master.is_some_and(|m| m.confirmed);
                let held = after.held.as_ref() == Some(name) && *command == Command::Fence;
                self.expect(!(settled && confirmed) || held, || {
                    format!("{name} is the master, and is told to stop")
                });
            }
            Command::Restart => {
                let asked = own.restart.is_some() && after.change.is_none();
                self.expect(asked, || format!("{name} is restarted, and nobody asked for it"));
            }
            Command::Admit { replicas } => {
                let target = matches!(&after.change, Some(Change::Switchover(s)) if s.prepares() && &s.target == name);
                let target = target || self.imports(name);
                self.expect(target && !is_master, || {
                    format!("others may attach to {name}, which is to be no master")
                });
                self.members(name, replicas, Some(after.epoch));
            }
            Command::AwaitHandover { replicas, quorum, planned } => {
                let told = self.delegated().filter(|(s, d)| {
                    &s.target == name && !s.undo && s.prepares() && d.epoch == after.epoch
                });
                self.expect(told.is_some() && !is_master, || {
                    format!("{name} is to take over by itself, and that is not recorded")
                });
                self.expect(!planned || !self.input.cluster.spec.is_confirmed(), || {
                    format!("{name} is to take writes without replicas, and they are confirmed")
                });
                self.expect(told.is_none_or(|(_, d)| d.quorum == *quorum), || {
                    format!("{name} is told another quorum than is recorded")
                });
                self.members(name, replicas, Some(after.epoch));
            }
            Command::HandOver { to } => {
                let awaited = self.delegated().is_some_and(|(s, d)| {
                    (&s.source, &s.target) == (name, to)
                        && !s.undo
                        && !s.prepares()
                        && self.connected(to).is_some_and(|t| t.awaits == Some(d.epoch))
                });
                self.expect(awaited, || format!("{name} hands over to {to}, which awaits nothing"));
            }
            Command::Backup { id, .. } => {
                let run = after.backup.as_ref().and_then(|b| b.run.as_ref());
                let recorded = run.is_some_and(|r| &r.id == id && &r.incarnation == name);
                self.expect(recorded, || {
                    format!("{name} takes backup {id}, which is not recorded")
                });
                let alone =
                    after.incarnations.values().filter(|i| i.condemned.is_none()).count() == 1;
                self.expect(
                    !is_master || alone || self.input.record.backup == after.backup,
                    || format!("the master {name} is backed up, and is not alone"),
                );
            }
            Command::Restore { id, .. } => {
                let restore = after.restore.as_ref().filter(|r| r.done.is_none());
                let run = restore.filter(|r| &r.manifest.id == id).and_then(|r| r.run.as_ref());
                let fresh = after.data_epoch == 0 && master.is_none();
                self.expect(fresh && run.is_some_and(|r| &r.incarnation == name), || {
                    format!("{name} gets the data of backup {id}, and there may be others")
                });
            }
            Command::Import { .. } => {
                let fresh = after.data_epoch == 0 && master.is_none_or(|m| !m.confirmed);
                self.expect(fresh && self.imports(name), || {
                    format!("{name} imports, and there may be other data")
                });
            }
            Command::Archive { run, .. } => self.archives(name, is_master, run),
            Command::Verify { run, .. } => self.verifies(name, is_master, run),
            Command::Save { .. } | Command::StopArchive => {}
        }
    }

    /// It is the node that imports, and is to be master.
    pub(super) fn imports(&self, name: &IncarnationName) -> bool {
        let import = self.plan.record.import.as_ref().filter(|import| import.done.is_none());
        self.plan.record.data_epoch == 0
            && import.is_some_and(|import| import.node.as_ref() == Some(name))
    }

    pub(super) fn archives(&mut self, name: &IncarnationName, is_master: bool, run: &str) {
        let after = &self.plan.record;
        let known = after.archive.as_ref().and_then(|archive| archive.run.as_ref());
        let recorded = known.is_some_and(|r| r.id == run && &r.incarnation == name);
        self.expect(recorded, || {
            format!("{name} archives the log in run {run}, which is not recorded")
        });
        let alone = self.input.cluster.spec.nodes == 1;
        let began = self.input.record.archive != after.archive;
        self.expect(!is_master || alone || !began, || {
            format!("the master {name} archives the log, and its writes need replicas")
        });
    }

    pub(super) fn verifies(&mut self, name: &IncarnationName, is_master: bool, run: &str) {
        let after = &self.plan.record;
        let known = after.backup.as_ref().and_then(|backup| backup.verify.run.as_ref());
        let recorded = known.is_some_and(|r| r.run == run && &r.incarnation == name);
        self.expect(recorded, || {
            format!("{name} verifies a backup in attempt {run}, which is not recorded")
        });
        let alone = after.incarnations.values().filter(|i| i.condemned.is_none()).count() == 1;
        let began = self.input.record.backup != after.backup;
        self.expect(!is_master || alone || !began, || {
            format!("the master {name} verifies a backup, and is not alone")
        });
    }

    /// It attaches to the target of a switchover that has all that it has.
    pub(super) fn is_chained(
        &self,
        name: &IncarnationName,
        followed: &IncarnationName,
        epoch: u64,
        data_epoch: u64,
    ) -> bool {
        let after = &self.plan.record;
        let lacks_nothing =
            self.connected(followed).zip(self.connected(name)).is_some_and(|(target, own)| {
                target.redis.replid == own.redis.replid && own.redis.offset <= target.redis.offset
            });
        let master = after.master.as_ref().map(|m| (&m.incarnation, m.epoch));
        let change = match &after.change {
            Some(Change::Switchover(s)) if !s.undo && s.chained.contains(name) => {
                (&s.target == followed).then_some(s.epoch)
            }
            Some(Change::Failover(f)) if f.detached_at.contains_key(name) => {
                (master == Some((followed, f.epoch))).then_some(f.epoch)
            }
            _ => None,
        };
        lacks_nothing && change == Some(epoch) && data_epoch == after.data_epoch
    }

    /// Whoever may replicate is recorded as one who may be attached.
    pub(super) fn grants(&mut self, name: &IncarnationName, grants: &[ReplicationGrant]) {
        let after = &self.plan.record;
        let epoch = after.master.as_ref().map(|m| granted(after, m));
        self.members(name, grants, epoch);
    }

    pub(super) fn members(
        &mut self,
        name: &IncarnationName,
        grants: &[ReplicationGrant],
        epoch: Option<u64>,
    ) {
        let after = &self.plan.record;
        for grant in grants {
            let member = after.incarnations.get(&grant.incarnation).is_some_and(|i| {
                i.is_member() && i.condemned.is_none() && &grant.incarnation != name
            });
            self.expect(member && Some(grant.epoch) == epoch, || {
                format!(
                    "{} may replicate from {name}, and the record does not say so",
                    grant.incarnation
                )
            });
        }
    }

    /// The record says beforehand that so few replicas, or so long a lag, may be in force.
    pub(super) fn no_weaker(&mut self, name: &IncarnationName, sent: Quorum) {
        let known = self.plan.record.master.as_ref().and_then(|m| m.quorum);
        self.expect(known.is_none_or(|known| known.weakest(sent) == known), || {
            format!("{name} is told {sent:?}, and the record says {known:?}")
        });
    }
}
