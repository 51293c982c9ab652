//! What may become of a recorded node, and what may be reserved.

use super::Check;
use crate::model::chain::{DeploymentView, LeaseState};
use crate::model::change::Change;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Incarnation, Quarantine};
use crate::model::money::Uact;
use crate::model::node::Role;
use crate::plan::{money, roles};

impl Check<'_> {
    /// What happened to each incarnation that was recorded.
    pub(super) fn incarnations(&mut self) {
        let after = &self.plan.record;
        for (name, was) in &self.input.record.incarnations {
            match after.incarnations.get(name) {
                None => self.forgotten(name, was),
                Some(is) => self.changed(name, was, is),
            }
        }
    }

    /// Nothing is forgotten that the chain may still have.
    pub(super) fn forgotten(&mut self, name: &IncarnationName, was: &Incarnation) {
        self.expect(was.condemned.is_some(), || {
            format!("{name} is forgotten, and was not given up before")
        });
        let inventory = self.input.inventory;
        let closed = inventory.chain.present().is_some()
            && self.own(name, was).is_none_or(|d| !d.active)
            && !inventory.pending.contains(&was.dseq);
        self.expect(closed, || format!("{name} is forgotten, and its deployment may be open"));
        let deleted = |id: &str| inventory.deleted_devices.contains(id);
        let left = inventory.mesh.present().is_none()
            || !self.devices(name, was).is_empty()
            || !was.devices().all(deleted);
        self.expect(!left, || format!("{name} is forgotten, and its device may be there"));
    }

    pub(super) fn changed(&mut self, name: &IncarnationName, was: &Incarnation, is: &Incarnation) {
        let fixed = |i: &Incarnation| (i.ordinal, i.dseq, i.epoch_floor, i.max_price);
        self.expect(fixed(was) == fixed(is), || {
            format!("{name} gets another number, deployment, floor or price")
        });
        self.expect(was.condemned.is_none() || is.condemned.is_some(), || {
            format!("{name} was given up, and is not any more")
        });
        self.expect(is.has_joined() || !was.has_joined(), || {
            format!("{name} never joined any more")
        });
        if was.condemned.is_none() && is.condemned.is_some() {
            self.given_up(name, was);
        }
        if is.is_candidate() && !was.is_candidate() {
            self.new_candidate(name);
        }
        let over = self.plan.record.data_epoch == 0;
        self.expect(is.is_member() || !was.is_member() || is.condemned.is_some() || over, || {
            format!("{name} may be attached, and is no member any more")
        });
        match (&was.quarantined, &is.quarantined) {
            (None, Some(_)) => self.shut_off(name),
            (Some(quarantine), None) if is.condemned.is_none() => self.let_out(name, quarantine),
            _ => {}
        }
    }

    /// The last copy is never given up, unless it is lost already or nothing is to be kept.
    pub(super) fn given_up(&mut self, name: &IncarnationName, was: &Incarnation) {
        let leased = |d: &DeploymentView| {
            d.leases.iter().any(|l| matches!(l.state, LeaseState::Active | LeaseState::Reclaiming))
        };
        let chain = self.input.inventory.chain.present();
        let lost = chain.is_some_and(|c| c.deployments.contains_key(&was.dseq))
            && self.own(name, was).is_none_or(|d| !d.active || !leased(d));
        let another = self
            .plan
            .record
            .master
            .as_ref()
            .and_then(|m| self.plan.record.incarnations.get(&m.incarnation))
            .is_some_and(|i| i.condemned.is_none());
        self.expect(!was.is_candidate() || lost || another || self.deleting(), || {
            format!("{name} is given up, and nobody else is master of what it holds")
        });
    }

    /// Chosen, or in sync with the master of this epoch.
    pub(super) fn new_candidate(&mut self, name: &IncarnationName) {
        let master = self.plan.record.master.as_ref();
        let chosen = master.is_some_and(|m| &m.incarnation == name);
        let in_sync = master.zip(self.connected(name)).is_some_and(|(m, s)| {
            s.redis.role == Role::Replica && s.redis.is_linked() && s.redis.online_epoch == m.epoch
        });
        self.expect(chosen || in_sync, || format!("{name} may be promoted, and is not in sync"));
    }

    pub(super) fn shut_off(&mut self, name: &IncarnationName) {
        let changes = [&self.plan.record.change, &self.input.record.change];
        let given_up = changes.into_iter().any(
            |change| matches!(change, Some(Change::Failover(failover)) if &failover.old == name),
        );
        self.expect(given_up, || format!("{name} is shut off, and was not given up as master"));
    }

    /// Late writes reach the master they were meant for, or end at a replica whose data were kept.
    pub(super) fn let_out(&mut self, name: &IncarnationName, quarantine: &Quarantine) {
        let master = self.plan.record.master.as_ref();
        if master.is_some_and(|m| &m.incarnation == name) {
            return;
        }
        let harmless = self
            .connected(name)
            .filter(|s| s.redis.role == Role::Replica && s.highest.epoch >= quarantine.epoch);
        self.expect(harmless.is_some(), || {
            format!("{name} is let out of quarantine, and was not demoted")
        });
        let kept = harmless.zip(master.and_then(|m| self.connected(&m.incarnation))).is_some_and(
            |(state, master)| {
                !roles::beyond_promotion(state, master).may_be_lost()
                    || state.redis.keys == 0
                    || state.saved.contains(&format!("before-epoch-{}", quarantine.epoch))
            },
        );
        self.expect(kept, || format!("{name} is let out of quarantine before its data are kept"));
    }

    /// What is reserved anew has a name and a deployment of its own, and the budget allows it.
    pub(super) fn reservations(&mut self) {
        let (input, plan) = (self.input, self.plan);
        let new: Vec<_> = plan
            .record
            .incarnations
            .iter()
            .filter(|(n, _)| !input.record.incarnations.contains_key(*n))
            .collect();
        let (named, bought): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|(_, i)| i.condemned.is_some());
        for (name, incarnation) in named {
            let deployed = input.inventory.unrecorded.get(&incarnation.dseq) == Some(name);
            let (installation, mesh) = (&input.constants.installation, &input.inventory.mesh);
            let on_mesh = mesh.present().is_some_and(|mesh| {
                mesh.devices.iter().any(|d| d.hostname == name.hostname(installation))
                    || mesh.keys.iter().any(|k| k.description == name.key_description(installation))
            });
            self.expect(deployed || on_mesh, || {
                format!("{name} is to be closed, and nobody found it")
            });
        }
        for (name, incarnation) in &bought {
            self.reserved(name, incarnation);
        }
        if bought.is_empty() {
            return;
        }
        let Some(chain) = input.inventory.chain.present() else {
            self.broken.push("a node is reserved while the chain is away".to_owned());
            return;
        };
        self.expect(input.inventory.mesh.present().is_some(), || {
            "a node is reserved while nobody could join".to_owned()
        });
        let month = money::committed(input.inventory, &plan.record)
            .per_month(money::block_ms(input.inventory));
        let most = money::ceiling(input);
        self.expect(month <= most, || format!("{month} a month are promised of {most}"));
        let uncreated = plan
            .record
            .incarnations
            .values()
            .filter(|i| i.condemned.is_none() && !chain.deployments.contains_key(&i.dseq));
        let needed: Uact = uncreated.map(|i| money::deposit(input, i.ordinal, i.max_price)).sum();
        self.expect(needed <= chain.balance, || {
            format!("deposits of {needed} are promised of {}", chain.balance)
        });
    }

    pub(super) fn reserved(&mut self, name: &IncarnationName, incarnation: &Incarnation) {
        let (input, after) = (self.input, &self.plan.record);
        let dseq = name.dseq(&input.constants.installation);
        let chain = input.inventory.chain.value.as_ref();
        let taken = chain.is_some_and(|c| c.deployments.contains_key(&dseq));
        self.expect(incarnation.dseq == dseq && !taken, || {
            format!("{name} is reserved with deployment {}, which is not free", incarnation.dseq)
        });
        let cluster = &input.cluster.metadata.name;
        let place = name.cluster() == cluster && name.ordinal() == Some(incarnation.ordinal);
        self.expect(place, || format!("{name} is reserved for node {}", incarnation.ordinal));
        let floor = input.record.epoch..=after.epoch;
        self.expect(floor.contains(&incarnation.epoch_floor), || {
            format!("{name} is born with the floor {}", incarnation.epoch_floor)
        });
        self.expect(incarnation.max_price.0 > 0, || format!("{name} may cost nothing"));
    }

    /// A deposit is what the manifest says; else it pays for more than the low mark at the highest
    /// price, where others are known at least for some hours, and not for twice as long. The chain's
    /// least is the least in any case.
    pub(super) fn deposit(
        &mut self,
        name: &IncarnationName,
        incarnation: &Incarnation,
        deposit: Uact,
    ) {
        let input = self.input;
        let least = input.inventory.chain.present().map(|c| c.min_deposit).unwrap_or_default();
        let budget = &input.cluster.spec.budget;
        let low = budget.runway.unwrap_or(input.limits.runway).low.0;
        let pays = |time| money::cost(input.inventory, incarnation.max_price, time);
        let known = money::likely(input).is_some();
        let least_time = if known { low.min(money::SURELY) } else { low };
        let fits = match budget.deposit {
            Some(own) => deposit == own.0.max(least),
            None => deposit == least || (pays(least_time)..pays(low * 2)).contains(&deposit),
        };
        self.expect(fits && deposit >= least, || format!("{name} gets {deposit}"));
    }
}
