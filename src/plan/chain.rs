//! Before a planned change of master the other replicas are attached to the target, which passes on
//! the source's history: promoted, it has replicas that lack nothing, and the first write counts
//! (safety.md section 5, docs/decisions/0044-a-chain-before-the-fence.md).
//!
//! Whoever is attached to the target acknowledges nothing to the source, and is no candidate from
//! before that on; the source keeps as many replicas as a write needs, the target among them.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{derived, quarantine, roles, settings, stopping};
use crate::model::change::{Failover, Switchover};
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Role};
use crate::model::record::Promotion;
use crate::model::step::{Command, ReplicationGrant};

/// The replicas are attached within this, or the source is fenced without them.
const LIMIT: Duration = Duration::from_secs(10);
/// The same where the source's container is being stopped: its agent stays for 15 s. A node that is
/// dialled for the first time may take 5 s to answer, and that is better lived through while the source
/// takes writes.
const HURRIED: Duration = Duration::from_secs(6);

/// How long they have for it.
pub fn limit(builder: &PlanBuilder<'_>, source: &IncarnationName) -> Duration {
    if stopping::stops(builder, source) { HURRIED } else { LIMIT }
}

/// How far the preparation of a switchover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Replicas are on their way to the target.
    Under,
    /// All that answer are attached to it.
    Done,
    /// The target follows the source no more: what hangs on it has to go back.
    Broken,
}

/// Who is attached to the target first: those that the source does not need for a write, and nobody
/// where an agent does not know how.
///
/// Where writes are confirmed they confirm none to the source meanwhile, and are asked like everybody
/// else should it die: they have what they confirmed, and the target all that they have.
pub fn others(
    builder: &PlanBuilder<'_>,
    promotion: &Promotion,
    target: &IncarnationName,
) -> Vec<IncarnationName> {
    let (Some(source), Some(to)) =
        (builder.connected(&promotion.incarnation), builder.connected(target))
    else {
        return Vec::new();
    };
    if !roles::attached(source, target, to) || !can_admit(to) {
        return Vec::new();
    }
    let (known, wanted) = (settings::bound(builder, promotion), settings::quorum(builder));
    let needed = known.min_replicas.max(source.redis.min_replicas).max(wanted.min_replicas).max(1);
    let fits = |name: &IncarnationName| {
        builder.connected(name).is_some_and(|state| {
            state.admits.is_some()
                && !state.stopping
                && derived::running(&state.redis)
                && state.redis.replid == source.redis.replid
                && roles::attached(source, name, state)
                && !quarantine::isolated(builder, name)
        })
    };
    let mut others: Vec<_> = builder
        .live()
        .into_iter()
        .filter(|(n, i)| n != target && n != &promotion.incarnation && i.is_member())
        .filter_map(|(n, _)| fits(&n).then_some(n))
        .collect();
    others.truncate((others.len() + 1).saturating_sub(needed as usize));
    others
}

/// Whether an agent knows how to let others attach to its replica.
pub fn can_admit(state: &NodeState) -> bool {
    state.admits.is_some() && derived::fqdn(state).is_some()
}

/// One step further: the target admits them, each lets go of the source, and attaches to the target
/// as soon as that has all that it has; one that is ahead would be given everything anew.
pub fn advance(builder: &mut PlanBuilder<'_>, switchover: &Switchover) -> Progress {
    let Some(target) = builder.connected(&switchover.target).filter(|s| follows(s)) else {
        return Progress::Broken;
    };
    let Some(fqdn) = derived::fqdn(target) else { return Progress::Broken };
    if target.admits != Some(switchover.epoch) {
        let replicas = grants(builder, switchover);
        builder.command(
            &switchover.target,
            Command::Admit { replicas },
            format!("it takes over from {}, and others may attach to it", switchover.source),
        );
        return Progress::Under;
    }
    let mut progress = Progress::Done;
    for name in &switchover.chained {
        let Some(state) = builder.connected(name).filter(|s| derived::running(&s.redis)) else {
            // It comes back to whoever is master then.
            continue;
        };
        if is_attached(state, fqdn, switchover.epoch) {
            continue;
        }
        progress = Progress::Under;
        if state.highest.epoch < switchover.epoch {
            builder.command(
                name,
                Command::Detach { drain_ms: 0 },
                format!("it attaches to {} before that takes over", switchover.target),
            );
        } else if state.redis.master_host != fqdn {
            attach(builder, name, &switchover.target, switchover.epoch);
        }
    }
    progress
}

/// In a failover the others need not wait for the promotion: whom the chosen one does not let in yet
/// asks again at once. Until it is confirmed they stand for the data of the master before it.
pub fn attach_early(builder: &mut PlanBuilder<'_>, failover: &Failover, chosen: &IncarnationName) {
    for e in failover.eligible.iter().filter(|e| &e.incarnation != chosen) {
        let ready = builder.connected(&e.incarnation).is_some_and(|state| {
            state.admits.is_some()
                && derived::running(&state.redis)
                && state.redis.run_id == e.run_id
                && state.highest.epoch == failover.epoch
                && state.redis.role == Role::Replica
                && state.redis.master_host.is_empty()
        });
        if ready && failover.detached_at.contains_key(&e.incarnation) {
            attach(builder, &e.incarnation, chosen, failover.epoch);
        }
    }
}

/// Tells a replica that was detached to follow who is to be master, where that has all that it has.
fn attach(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    target: &IncarnationName,
    epoch: u64,
) {
    let (Some(own), Some(to)) = (builder.connected(name), builder.connected(target)) else {
        return;
    };
    let lacks_nothing = own.redis.replid == to.redis.replid && own.redis.offset <= to.redis.offset;
    let Some(fqdn) = derived::fqdn(to).filter(|_| lacks_nothing) else { return };
    let command = Command::Follow {
        master: target.clone(),
        master_name: fqdn.to_owned(),
        grant: ReplicationGrant { incarnation: name.clone(), epoch },
        save_first: false,
        data_epoch: builder.record.data_epoch,
    };
    builder.command(name, command, format!("{target} takes over"));
}

/// The target is a replica that gets what its master writes.
fn follows(target: &NodeState) -> bool {
    derived::running(&target.redis)
        && target.redis.role == Role::Replica
        && target.redis.is_linked()
}

fn is_attached(state: &NodeState, target: &str, epoch: u64) -> bool {
    state.redis.is_linked() && state.redis.master_host == target && state.highest.epoch >= epoch
}

/// Everybody who may replicate from the target once it is master.
pub fn grants(builder: &PlanBuilder<'_>, switchover: &Switchover) -> Vec<ReplicationGrant> {
    let members = builder.live().into_iter().filter(|(_, i)| i.is_member());
    let mut grants: Vec<_> = members
        .filter(|(n, _)| n != &switchover.target)
        .map(|(incarnation, _)| ReplicationGrant { incarnation, epoch: switchover.epoch })
        .collect();
    grants.sort();
    grants
}
