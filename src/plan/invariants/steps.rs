//! What may be done to a node, and what must stand in the record before.

use super::Check;
use crate::model::backup::BackupManifest;
use crate::model::chain::LeaseState;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::money::Uact;
use crate::model::step::{Command, Effect};
use crate::plan::deletion;

impl<'a> Check<'a> {
    /// No step without its record.
    pub(super) fn steps(&mut self) {
        let plan = self.plan;
        let promotions = plan
            .steps
            .iter()
            .filter(|s| {
                matches!(s.effect, Effect::Command { command: Command::Promote { .. }, .. })
            })
            .count();
        self.expect(promotions < 2, || format!("{promotions} promotions in one plan"));
        for (n, step) in plan.steps.iter().enumerate() {
            let name = step.effect.incarnation();
            self.expect(!step.reason.is_empty(), || format!("a step on {name} without a reason"));
            self.expect(!plan.steps[..n].contains(step), || format!("a step on {name} twice"));
            match plan.record.incarnations.get(name) {
                None => self.broken.push(format!("a step on {name}, which is not recorded")),
                Some(incarnation) => self.step(name, incarnation, &step.effect),
            }
        }
        let top_ups = plan.steps.iter().filter_map(|s| match &s.effect {
            Effect::TopUp { amount, .. } => Some(*amount),
            _ => None,
        });
        let paid: Uact = top_ups.sum();
        let wallet = self.input.inventory.chain.present().map(|c| c.balance).unwrap_or_default();
        self.expect(paid <= wallet, || format!("{paid} is paid into escrows out of {wallet}"));
        // Escrows are filled all the same.
        let only_filled = plan.steps.iter().all(|s| matches!(s.effect, Effect::TopUp { .. }));
        let still = only_filled && plan.record.epoch == self.input.record.epoch;
        // A last backup is taken of a paused cluster too.
        let ends = self.deleting() || deletion::awaits_backup(self.input);
        let paused = self.input.cluster.spec.paused && !ends;
        self.expect(still || !paused, || "a paused cluster is changed".to_owned());
    }

    pub(super) fn step(
        &mut self,
        name: &IncarnationName,
        incarnation: &Incarnation,
        effect: &Effect,
    ) {
        let inventory = self.input.inventory;
        let condemned = incarnation.condemned.is_some();
        match effect {
            Effect::CreateDeployment { deposit, .. } => {
                let on_chain = inventory.chain.present().map(|c| &c.deployments);
                let free = on_chain.is_some_and(|d| !d.contains_key(&incarnation.dseq))
                    && !inventory.pending.contains(&incarnation.dseq);
                self.expect(!condemned && free, || {
                    format!("{name} is created, and is given up, there already, or on its way")
                });
                self.deposit(name, incarnation, *deposit);
            }
            Effect::CreateLease { lease, .. } => {
                let choice = incarnation.lease.as_ref().filter(|c| &c.id == lease);
                let fits = choice.is_some_and(|c| c.price <= incarnation.max_price);
                self.expect(fits, || {
                    format!("{name} takes a bid that is not recorded, or asks too much")
                });
                let own = self.own(name, incarnation).filter(|d| d.active);
                let open = own.is_some_and(|d| {
                    d.open_order == Some(lease.oseq)
                        && d.bids.iter().any(|b| &b.id == lease && b.fits)
                });
                self.expect(!condemned && open, || {
                    format!("{name} takes a bid that is not open, or is given up")
                });
            }
            Effect::DeliverManifest { lease, .. } => {
                let leases = self.own(name, incarnation).map(|d| d.leases.as_slice());
                let active = leases.unwrap_or_default().iter().any(|l| {
                    &l.id == lease && matches!(l.state, LeaseState::Active | LeaseState::Reclaiming)
                });
                self.expect(!condemned && active, || {
                    format!("the manifest of {name} goes to a provider without its lease")
                });
            }
            Effect::TopUp { dseq, amount, .. } => {
                let own = self.own(name, incarnation).is_some_and(|d| d.active && d.escrow.open);
                let announced = incarnation
                    .top_up
                    .as_ref()
                    .is_some_and(|t| t.amount == *amount && t.at == self.input.now);
                let free = *dseq == incarnation.dseq && !inventory.pending.contains(dseq);
                self.expect(!condemned && own && free && announced, || {
                    format!("{name} is filled with {amount}, and is given up, not announced, not its own, or being filled")
                });
            }
            Effect::CloseDeployment { dseq, .. } => {
                let own = self.own(name, incarnation).is_some_and(|d| d.active);
                self.expect(condemned && own && *dseq == incarnation.dseq, || {
                    format!("deployment {dseq} is closed, and is not that of a given-up {name}")
                });
            }
            Effect::DeleteDevice { device, .. } => {
                let former = incarnation.former_devices.contains(device);
                let own = incarnation.devices().any(|id| id == device)
                    || self.devices(name, incarnation).iter().any(|d| &d.id == device);
                self.expect(former || (condemned && own), || {
                    format!("device {device} is deleted, and is not that of a given-up {name}")
                });
            }
            Effect::SetTags { device, tags, .. } => self.tags(name, incarnation, device, tags),
            Effect::RevokeKey { key, .. } => {
                let description = name.key_description(&self.input.constants.installation);
                let keys = inventory.mesh.present().map(|m| m.keys.as_slice()).unwrap_or_default();
                let own = keys.iter().any(|k| &k.id == key && k.description == description);
                let useless = condemned || !inventory.held.contains_key(name);
                self.expect(own && useless, || {
                    format!("key {key} is revoked, and is in use or not {name}'s")
                });
            }
            Effect::CompleteBackup { manifest, .. } => self.completion(name, &manifest.id),
            Effect::DeleteBackup { id, .. } => self.deletion(id),
            Effect::DeleteLog { before, .. } => {
                let newest = self.newest_backup().is_some_and(|newest| newest.taken > *before);
                self.expect(newest, || {
                    format!("the log before {before} is deleted, and no backup goes on after that")
                });
            }
            Effect::Command { authority, command, .. } => {
                let (term, epoch) = (self.input.constants.term, self.plan.record.epoch);
                self.expect((authority.term, authority.epoch) == (term, epoch), || {
                    format!("{name} is sent a command of another term or epoch: {authority:?}")
                });
                self.expect(authority.epoch >= incarnation.epoch_floor, || {
                    format!("{name} is sent a command below its epoch {}", incarnation.epoch_floor)
                });
                let detach = matches!(command, Command::Detach { .. });
                self.expect(!condemned || detach, || format!("{name}, given up, is commanded"));
                self.command(name, incarnation, command);
            }
        }
    }

    pub(super) fn completion(&mut self, name: &IncarnationName, id: &str) {
        let run = self.plan.record.backup.as_ref().and_then(|b| b.run.as_ref());
        let under_way = run.is_some_and(|r| r.id == id && &r.incarnation == name);
        self.expect(under_way, || format!("backup {id} is completed, and is not under way"));
    }

    pub(super) fn deletion(&mut self, id: &str) {
        let run = self.plan.record.backup.as_ref().and_then(|b| b.run.as_ref());
        let restore = self.plan.record.restore.as_ref().filter(|r| r.done.is_none());
        let needed = run.is_some_and(|r| r.id == id)
            || restore.is_some_and(|r| r.manifest.id == id)
            || self.newest_backup().is_some_and(|newest| newest.id == id);
        self.expect(!needed, || {
            format!("backup {id} is deleted, and is under way, needed or the newest")
        });
    }

    pub(super) fn tags(
        &mut self,
        name: &IncarnationName,
        own: &Incarnation,
        device: &str,
        tags: &[String],
    ) {
        let shut_off = own.quarantined.is_some();
        let known = self.input.tags;
        let wanted = if shut_off { known.quarantine } else { known.cluster };
        let theirs = self.devices(name, own).iter().any(|d| d.id == device);
        self.expect(own.condemned.is_none() && theirs && tags == [wanted], || {
            format!("device {device} of {name} gets {tags:?}")
        });
    }

    /// The newest backup of this very cluster.
    pub(super) fn newest_backup(&self) -> Option<&'a BackupManifest> {
        let metadata = &self.input.cluster.metadata;
        let listing = self.input.inventory.backups.get(&metadata.name)?.value.as_ref()?;
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let own = listing.backups.iter().filter(|b| b.uid == uid);
        own.max_by(|a, b| (a.taken, &a.id).cmp(&(b.taken, &b.id)))
    }
}
