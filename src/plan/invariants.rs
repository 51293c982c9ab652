//! What no plan may do, whatever it was made from. [`super::plan`] holds every plan to it in debug
//! builds, so that each test that plans anything looks for it; nothing here decides.
//!
//! The rules are written a second time on purpose, from what the input and the plan say: a mistake
//! of the planner is not repeated here by calling it. Only sums of money and the comparison of two
//! histories are shared.

use std::collections::BTreeSet;

use super::{Input, Plan, deletion, money, roles};
use crate::api::conditions::EventReason;
use crate::api::types::ACCEPT_LOSS;
use crate::model::backup::BackupManifest;
use crate::model::chain::{DeploymentView, LeaseState};
use crate::model::ids::IncarnationName;
use crate::model::mesh::Device;
use crate::model::money::Uact;
use crate::model::node::{NodeState, Process, Role};
use crate::model::record::{
    Change, Delegated, Failover, Incarnation, Promotion, Quarantine, Record, Switchover,
};
use crate::model::step::{Command, Effect, Quorum, ReplicationGrant};

/// Every rule that the plan breaks, one sentence each.
#[must_use]
pub fn violations(input: &Input<'_>, plan: &Plan) -> Vec<String> {
    let mut check = Check { input, plan, broken: plan.record.flaws() };
    check.epochs();
    check.choice();
    check.change();
    check.incarnations();
    check.reservations();
    check.steps();
    check.rest();
    check.broken
}

/// Epoch of the leave to replicate from the master of this choice.
fn granted(record: &Record, master: &Promotion) -> u64 {
    if record.granted == 0 { master.epoch } else { record.granted }
}

fn switching(record: &Record) -> Option<&Switchover> {
    match &record.change {
        Some(Change::Switchover(switchover)) => Some(switchover),
        _ => None,
    }
}

/// Ends the program when a plan breaks a rule: a fault of the planner that no test may pass over.
pub(super) fn hold(input: &Input<'_>, plan: &Plan) {
    let broken = violations(input, plan);
    assert!(
        broken.is_empty(),
        "a plan breaks its rules: {}\nrecord before: {:#?}\nrecord after: {:#?}\nsteps: {:#?}",
        broken.join("; "),
        input.record,
        plan.record,
        plan.steps
    );
}

struct Check<'a> {
    input: &'a Input<'a>,
    plan: &'a Plan,
    broken: Vec<String>,
}

impl<'a> Check<'a> {
    fn expect(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(sentence());
        }
    }

    fn connected(&self, name: &IncarnationName) -> Option<&'a NodeState> {
        self.input.inventory.nodes.get(name).filter(|v| v.connected).map(|v| &v.state)
    }

    /// The deployment of an incarnation, when the chain shows one that carries its name.
    fn own(&self, name: &IncarnationName, incarnation: &Incarnation) -> Option<&'a DeploymentView> {
        let chain = self.input.inventory.chain.value.as_ref()?;
        let group = name.group_name(&self.input.constants.installation);
        chain.deployments.get(&incarnation.dseq).filter(|d| d.group_name == group)
    }

    fn devices(&self, name: &IncarnationName, incarnation: &Incarnation) -> Vec<&'a Device> {
        let Some(mesh) = self.input.inventory.mesh.present() else { return Vec::new() };
        let hostname = name.hostname(&self.input.constants.installation);
        let tags = [self.input.tags.cluster, self.input.tags.quarantine];
        mesh.devices_of(&hostname, incarnation.device.as_deref(), tags)
    }

    fn deleting(&self) -> bool {
        deletion::begins(self.input)
    }

    /// Term, epoch and the data's epoch.
    fn epochs(&mut self) {
        let (before, after) = (self.input.record, &self.plan.record);
        let term = self.input.constants.term;
        self.expect(after.term == term, || {
            format!("the record is of term {}, and this process has {term}", after.term)
        });
        self.expect(after.epoch >= before.epoch, || {
            format!("the epoch goes down from {} to {}", before.epoch, after.epoch)
        });
        self.expect(after.data_epoch <= after.epoch, || {
            format!("the data are of epoch {}, ahead of {}", after.data_epoch, after.epoch)
        });
        self.expect(after.data_epoch >= before.data_epoch || after.data_epoch == 0, || {
            format!("the data go back from epoch {} to {}", before.data_epoch, after.data_epoch)
        });
        let newly = after.data_epoch > before.data_epoch;
        let confirmed = after.master.as_ref().is_some_and(|m| m.confirmed);
        self.expect(!newly || confirmed, || {
            format!("data of epoch {} without a master that confirmed it", after.data_epoch)
        });
        self.expect(!after.untouched || before.untouched || before.data_epoch == 0, || {
            "data exist, and no write is said to have been acknowledged".to_owned()
        });
    }

    /// One choice per epoch, and no choice is taken back within it.
    fn choice(&mut self) {
        let (before, after) = (self.input.record, &self.plan.record);
        let Some(now) = &after.master else { return };
        let same = |then: &Promotion| {
            then.epoch == now.epoch
                && then.incarnation == now.incarnation
                && then.run_id == now.run_id
                && then.boot_id == now.boot_id
        };
        match &before.master {
            Some(then) if same(then) => {
                self.expect(now.confirmed || !then.confirmed, || {
                    format!(
                        "the promotion of {} was confirmed, and is not any more",
                        now.incarnation
                    )
                });
                return;
            }
            Some(then) => self.expect(now.epoch > then.epoch, || {
                format!(
                    "{} is chosen for epoch {}, and {} was for {}",
                    now.incarnation, now.epoch, then.incarnation, then.epoch
                )
            }),
            // Who imports begins its epoch, and is the only one that is ever chosen in it.
            None => self.expect(now.epoch > before.epoch || self.imports(&now.incarnation), || {
                format!("{} is chosen for epoch {}, which had begun", now.incarnation, now.epoch)
            }),
        }
        let reigns = before.master.as_ref().is_some_and(|then| {
            (&then.incarnation, &then.run_id) == (&now.incarnation, &now.run_id)
                && after.granted == granted(before, then)
        });
        self.expect(after.granted == 0 || reigns, || {
            format!("{} is chosen anew, and old leave to replicate stays in use", now.incarnation)
        });
        let state = self.connected(&now.incarnation);
        // Whoever was told to take over by itself was chosen then.
        let delegated = switching(before).is_some_and(|s| {
            s.target == now.incarnation
                && s.delegated
                    .as_ref()
                    .is_some_and(|d| (d.epoch, &d.run_id) == (now.epoch, &now.run_id))
        });
        let is_there = state.is_some_and(|s| s.redis.run_id == now.run_id);
        self.expect(delegated || is_there, || {
            format!("{} is chosen, and its redis {} is not there", now.incarnation, now.run_id)
        });
        let source = switching(before).and_then(|s| self.connected(&s.source));
        let stands = source.is_some_and(|s| {
            s.redis.process != Process::Running || s.redis.role == Role::Replica || s.redis.fenced
        });
        let accepted = self.input.cluster.metadata.annotations.contains_key(ACCEPT_LOSS);
        self.expect(is_there || stands || accepted, || {
            format!("{} counts as master, and its source may take writes", now.incarnation)
        });
        match &after.change {
            Some(Change::Failover(f)) if f.epoch == now.epoch => self.failover_choice(f, now),
            Some(Change::Switchover(s)) if s.epoch == now.epoch => self.switchover_choice(s, now),
            _ => {}
        }
    }

    /// Counted, detached and fenced before anybody was chosen.
    fn failover_choice(&mut self, failover: &Failover, chosen: &Promotion) {
        let (old, name) = (&failover.old, &chosen.incarnation);
        self.expect(failover.fence.is_some(), || {
            format!("{name} is chosen before {old} is fenced")
        });
        let counted = failover.eligible.iter().find(|e| &e.incarnation == name);
        self.expect(counted.is_some_and(|e| e.run_id == chosen.run_id), || {
            format!("{name} is chosen, and was not counted with this redis")
        });
        self.expect(failover.detached_at.contains_key(name), || {
            format!("{name} is chosen before its offset stands still")
        });
        self.confirmed_choice(failover, chosen);
        let most = failover.eligible.iter().filter(|e| self.connected(&e.incarnation).is_some());
        let ahead = most.map(|e| e.offset).max();
        let refused =
            self.plan.events.iter().any(|(reason, _)| *reason == EventReason::OffsetImplausible);
        let named = failover.to.as_ref() == Some(name);
        self.expect(refused || named || counted.map(|e| e.offset) == ahead, || {
            format!("{name} is chosen, and another candidate has more")
        });
    }

    /// Fewer than had to confirm a write are not asked for it.
    fn confirmed_choice(&mut self, failover: &Failover, chosen: &Promotion) {
        if !self.input.cluster.spec.is_confirmed() || failover.loss_accepted {
            return;
        }
        let asked = |name: &IncarnationName| {
            let counted = failover.eligible.iter().find(|e| &e.incarnation == name);
            let state = self.connected(name);
            counted.is_some_and(|e| state.is_some_and(|s| s.redis.run_id == e.run_id))
        };
        let never_in_sync = |name: &IncarnationName| {
            let incarnation = &self.input.record.incarnations[name];
            let run = self.connected(name).map(|s| &s.redis.run_id);
            failover.detached_at.contains_key(name)
                && !incarnation.is_candidate()
                && incarnation.admitted.as_ref().is_some_and(|a| Some(&a.run_id) == run)
        };
        let most = failover.eligible.iter().map(|e| e.offset).max();
        let before = self.input.record;
        let reign = before.master.as_ref().map_or(failover.old_epoch, |m| granted(before, m));
        let has_no_more = |name: &IncarnationName| {
            let redis = self.connected(name).map(|s| &s.redis);
            failover.detached_at.contains_key(name)
                && redis.is_some_and(|r| (reign..=failover.old_epoch).contains(&r.online_epoch))
                && redis.map(|r| r.offset) <= most
        };
        let known = |n: &IncarnationName| asked(n) || never_in_sync(n) || has_no_more(n);
        let missing = failover.confirmers.iter().filter(|n| !known(n)).count();
        let needed = self.input.cluster.spec.write_replicas();
        let none_counted = failover.confirmers.is_empty();
        self.expect(!none_counted && (missing as u64) < u64::from(needed), || {
            format!(
                "{} is chosen, and {missing} replicas that may have confirmed a write alone are not asked",
                chosen.incarnation
            )
        });
    }

    /// The source fenced itself, and the target has all that it wrote.
    fn switchover_choice(&mut self, switchover: &Switchover, chosen: &Promotion) {
        let (source, target) = (&switchover.source, &switchover.target);
        self.expect(&chosen.incarnation == target && !switchover.undo, || {
            format!("{} is chosen in a switchover to {target}", chosen.incarnation)
        });
        let fenced = self
            .connected(source)
            .filter(|s| s.redis.fenced && s.highest.epoch >= switchover.epoch);
        let caught_up = fenced.zip(self.connected(target)).is_some_and(|(source, target)| {
            target.redis.replid == source.redis.replid && target.redis.offset >= source.redis.offset
        });
        let took_over = switching(self.input.record)
            .filter(|s| s.delegated.is_some() && s.epoch <= switchover.epoch)
            .zip(self.connected(target))
            .is_some_and(|(_, target)| target.redis.role == Role::Master);
        self.expect(caught_up || took_over, || {
            format!("{target} is chosen before {source} is fenced and all that it wrote is there")
        });
    }

    /// What was found out in a change is not forgotten while it lasts.
    fn change(&mut self) {
        let (before, after) = (self.input.record, &self.plan.record);
        if let (Some(Change::Failover(then)), Some(Change::Failover(now))) =
            (&before.change, &after.change)
            && then.epoch == now.epoch
        {
            self.expect(then.old == now.old, || format!("{} is given up no more", then.old));
            self.expect(then.fence.is_none() || then.fence == now.fence, || {
                format!("the fence of {} is taken back", now.old)
            });
            self.expect(then.detached_at.keys().all(|n| now.detached_at.contains_key(n)), || {
                "who was detached is forgotten".to_owned()
            });
            let counted: BTreeSet<_> = then.eligible.iter().map(|e| &e.incarnation).collect();
            self.expect(now.eligible.iter().all(|e| counted.contains(&e.incarnation)), || {
                "somebody becomes a candidate after the count".to_owned()
            });
            self.expect(now.loss_accepted || !then.loss_accepted, || {
                "the word that a loss is accepted is taken back".to_owned()
            });
        }
        self.delegation();
        if let Some(Change::Failover(f)) = &after.change {
            self.expect(before.change.is_some() || f.epoch > before.epoch, || {
                format!("a failover begins in epoch {}, which had begun", f.epoch)
            });
        }
        if let Some(Change::Switchover(s)) = &after.change {
            let candidate = |n: &IncarnationName| {
                after.incarnations.get(n).is_some_and(Incarnation::is_candidate)
            };
            self.expect(!s.chained.iter().any(candidate), || {
                "a replica that hangs on the target of a switchover is a candidate".to_owned()
            });
            let known =
                matches!(&before.change, Some(Change::Switchover(then)) if then.epoch == s.epoch);
            self.expect(known || s.epoch > before.epoch, || {
                format!("a switchover begins, or is undone, in epoch {}, which had begun", s.epoch)
            });
        }
    }

    /// Who may take over by itself counts as the master until it has acknowledged a higher epoch.
    fn delegation(&mut self) {
        let then = switching(self.input.record).and_then(|s| s.delegated.as_ref().map(|d| (s, d)));
        let Some((switchover, delegated)) = then else { return };
        let after = &self.plan.record;
        let stays = self.delegated().is_some_and(|(_, now)| {
            (now.epoch, &now.run_id) == (delegated.epoch, &delegated.run_id)
        });
        let target = &switchover.target;
        let master = after
            .master
            .as_ref()
            .is_some_and(|m| &m.incarnation == target && m.epoch >= delegated.epoch);
        let ended = self
            .connected(target)
            .is_some_and(|t| t.highest.epoch > delegated.epoch && t.redis.role == Role::Replica);
        // The source says the word when it is fenced, and was not told before.
        let never = switchover.prepares();
        self.expect(stays || master || ended || never, || {
            format!("{target} may have taken over in epoch {}, which is forgotten", delegated.epoch)
        });
    }

    /// The master that is given up takes no writes by its own agent's word.
    fn stopped(&self) -> bool {
        let Some(Change::Failover(f)) = &self.plan.record.change else { return false };
        self.input.inventory.nodes.get(&f.old).is_some_and(|view| {
            let its_own = f.boot_id.is_empty() || view.state.boot_id == f.boot_id;
            let demoted = view.connected
                && view.state.redis.role == Role::Replica
                && view.state.highest.epoch >= f.epoch;
            its_own && (view.state.redis.process == Process::Exited || demoted)
        })
    }

    fn delegated(&self) -> Option<(&'a Switchover, &'a Delegated)> {
        let switchover = switching(&self.plan.record)?;
        switchover.delegated.as_ref().map(|delegated| (switchover, delegated))
    }

    /// What happened to each incarnation that was recorded.
    fn incarnations(&mut self) {
        let after = &self.plan.record;
        for (name, was) in &self.input.record.incarnations {
            match after.incarnations.get(name) {
                None => self.forgotten(name, was),
                Some(is) => self.changed(name, was, is),
            }
        }
    }

    /// Nothing is forgotten that the chain may still have.
    fn forgotten(&mut self, name: &IncarnationName, was: &Incarnation) {
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

    fn changed(&mut self, name: &IncarnationName, was: &Incarnation, is: &Incarnation) {
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
    fn given_up(&mut self, name: &IncarnationName, was: &Incarnation) {
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
    fn new_candidate(&mut self, name: &IncarnationName) {
        let master = self.plan.record.master.as_ref();
        let chosen = master.is_some_and(|m| &m.incarnation == name);
        let in_sync = master.zip(self.connected(name)).is_some_and(|(m, s)| {
            s.redis.role == Role::Replica && s.redis.is_linked() && s.redis.online_epoch == m.epoch
        });
        self.expect(chosen || in_sync, || format!("{name} may be promoted, and is not in sync"));
    }

    fn shut_off(&mut self, name: &IncarnationName) {
        let changes = [&self.plan.record.change, &self.input.record.change];
        let given_up = changes.into_iter().any(
            |change| matches!(change, Some(Change::Failover(failover)) if &failover.old == name),
        );
        self.expect(given_up, || format!("{name} is shut off, and was not given up as master"));
    }

    /// Late writes reach the master they were meant for, or end at a replica whose data were kept.
    fn let_out(&mut self, name: &IncarnationName, quarantine: &Quarantine) {
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
    fn reservations(&mut self) {
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

    fn reserved(&mut self, name: &IncarnationName, incarnation: &Incarnation) {
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
    fn deposit(&mut self, name: &IncarnationName, incarnation: &Incarnation, deposit: Uact) {
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

    /// No step without its record.
    fn steps(&mut self) {
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

    fn step(&mut self, name: &IncarnationName, incarnation: &Incarnation, effect: &Effect) {
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

    fn completion(&mut self, name: &IncarnationName, id: &str) {
        let run = self.plan.record.backup.as_ref().and_then(|b| b.run.as_ref());
        let under_way = run.is_some_and(|r| r.id == id && &r.incarnation == name);
        self.expect(under_way, || format!("backup {id} is completed, and is not under way"));
    }

    fn deletion(&mut self, id: &str) {
        let run = self.plan.record.backup.as_ref().and_then(|b| b.run.as_ref());
        let restore = self.plan.record.restore.as_ref().filter(|r| r.done.is_none());
        let needed = run.is_some_and(|r| r.id == id)
            || restore.is_some_and(|r| r.manifest.id == id)
            || self.newest_backup().is_some_and(|newest| newest.id == id);
        self.expect(!needed, || {
            format!("backup {id} is deleted, and is under way, needed or the newest")
        });
    }

    fn tags(&mut self, name: &IncarnationName, own: &Incarnation, device: &str, tags: &[String]) {
        let shut_off = own.quarantined.is_some();
        let known = self.input.tags;
        let wanted = if shut_off { known.quarantine } else { known.cluster };
        let theirs = self.devices(name, own).iter().any(|d| d.id == device);
        self.expect(own.condemned.is_none() && theirs && tags == [wanted], || {
            format!("device {device} of {name} gets {tags:?}")
        });
    }

    #[allow(clippy::too_many_lines, reason = "a table has as many rows as there are commands")]
    fn command(&mut self, name: &IncarnationName, own: &Incarnation, command: &Command) {
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
    fn imports(&self, name: &IncarnationName) -> bool {
        let import = self.plan.record.import.as_ref().filter(|import| import.done.is_none());
        self.plan.record.data_epoch == 0
            && import.is_some_and(|import| import.node.as_ref() == Some(name))
    }

    fn archives(&mut self, name: &IncarnationName, is_master: bool, run: &str) {
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

    fn verifies(&mut self, name: &IncarnationName, is_master: bool, run: &str) {
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

    /// The newest backup of this very cluster.
    fn newest_backup(&self) -> Option<&'a BackupManifest> {
        let metadata = &self.input.cluster.metadata;
        let listing = self.input.inventory.backups.get(&metadata.name)?.value.as_ref()?;
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let own = listing.backups.iter().filter(|b| b.uid == uid);
        own.max_by(|a, b| (a.taken, &a.id).cmp(&(b.taken, &b.id)))
    }

    /// It attaches to the target of a switchover that has all that it has.
    fn is_chained(
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
    fn grants(&mut self, name: &IncarnationName, grants: &[ReplicationGrant]) {
        let after = &self.plan.record;
        let epoch = after.master.as_ref().map(|m| granted(after, m));
        self.members(name, grants, epoch);
    }

    fn members(&mut self, name: &IncarnationName, grants: &[ReplicationGrant], epoch: Option<u64>) {
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
    fn no_weaker(&mut self, name: &IncarnationName, sent: Quorum) {
        let known = self.plan.record.master.as_ref().and_then(|m| m.quorum);
        self.expect(known.is_none_or(|known| known.weakest(sent) == known), || {
            format!("{name} is told {sent:?}, and the record says {known:?}")
        });
    }

    /// Waits and the end.
    fn rest(&mut self) {
        let plan = self.plan;
        for wait in &plan.waits {
            self.expect(!wait.what.is_empty() && !wait.then.is_empty(), || {
                format!("a wait that says not what for, or what then: {wait:?}")
            });
            self.expect(wait.deadline.is_none_or(|end| end >= wait.since), || {
                format!("a wait that ended before it began: {wait:?}")
            });
        }
        let nothing_left = plan.record.incarnations.is_empty() && plan.steps.is_empty();
        self.expect(!plan.finished || (self.deleting() && nothing_left), || {
            "the cluster is forgotten, and something of it is left".to_owned()
        });
        let endpoint = plan.status.master.as_ref().map(|m| (m.epoch, m.incarnation.as_str()));
        let master = plan.record.master.as_ref().filter(|m| m.confirmed);
        let known = master.map(|m| (m.epoch, m.incarnation.0.as_str()));
        self.expect(endpoint.is_none() || endpoint == known, || {
            "writes are sent to one that is not the confirmed master".to_owned()
        });
    }
}
