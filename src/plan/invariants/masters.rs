//! Who is master, and what may follow from one plan to the next while that changes.

use super::{Check, granted, switching};
use crate::api::annotations::ACCEPT_LOSS;
use crate::api::events::EventReason;
use crate::model::change::{Change, Delegated, Failover, Switchover};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::node::{Process, Role};
use crate::model::record::Promotion;
use std::collections::BTreeSet;

impl<'a> Check<'a> {
    /// Term, epoch and the data's epoch.
    pub(super) fn epochs(&mut self) {
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
    pub(super) fn choice(&mut self) {
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
    pub(super) fn failover_choice(&mut self, failover: &Failover, chosen: &Promotion) {
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
    pub(super) fn confirmed_choice(&mut self, failover: &Failover, chosen: &Promotion) {
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
    pub(super) fn switchover_choice(&mut self, switchover: &Switchover, chosen: &Promotion) {
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
    pub(super) fn change(&mut self) {
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
    pub(super) fn delegation(&mut self) {
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
    pub(super) fn stopped(&self) -> bool {
        let Some(Change::Failover(f)) = &self.plan.record.change else { return false };
        self.input.inventory.nodes.get(&f.old).is_some_and(|view| {
            let its_own = f.boot_id.is_empty() || view.state.boot_id == f.boot_id;
            let demoted = view.connected
                && view.state.redis.role == Role::Replica
                && view.state.highest.epoch >= f.epoch;
            its_own && (view.state.redis.process == Process::Exited || demoted)
        })
    }

    pub(super) fn delegated(&self) -> Option<(&'a Switchover, &'a Delegated)> {
        let switchover = switching(&self.plan.record)?;
        switchover.delegated.as_ref().map(|delegated| (switchover, delegated))
    }
}
