//! Who may take over from a dying master, and who may still be attached to it: counted before
//! anything is touched (safety.md section 4, step 2).

use std::collections::BTreeMap;
use std::time::Duration;

use super::builder::PlanBuilder;
use super::{derived, settings, stopping, versions, word};
use crate::model::change::{Eligible, Failover};
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeView, Process, RedisState, Role};
use crate::model::record::Promotion;
use crate::model::time::UnixMs;

/// Nobody writes faster for long: what a replica claims beyond what others saw of the master is
/// believed up to this, bytes per second.
const FASTEST: u64 = 16 << 20;

/// Everybody but the dying master.
#[derive(Debug, Default)]
pub struct Count {
    /// They hold what was acknowledged, as far as anybody knows.
    pub eligible: Vec<Eligible>,
    /// Members whose agents do not answer: they cannot be detached.
    pub away: Vec<IncarnationName>,
    /// Who answers and may not take over, and why.
    pub refused: Vec<(IncarnationName, String)>,
}

impl Count {
    /// This one is eligible.
    pub fn has(&self, name: &IncarnationName) -> bool {
        self.eligible.iter().any(|e| &e.incarnation == name)
    }

    /// The refused ones in words, with a leading semicolon; nothing when there are none.
    pub fn in_words(&self) -> String {
        self.refused.iter().fold(String::new(), |all, (name, why)| {
            all + "; " + &name.0 + " may not take over: " + why
        })
    }
}

/// What somebody knows of the dying master's history.
struct KnownOffset {
    who: IncarnationName,
    replid: String,
    offset: i64,
    /// Until when it was told by the master.
    until: UnixMs,
}

/// Counts everybody but `old`, the master that is given up.
pub fn count(builder: &PlanBuilder<'_>, promotion: &Promotion) -> Count {
    let old = &promotion.incarnation;
    let mut count = Count::default();
    let saw = witnesses(builder, promotion);
    let max_lag =
        Duration::from_secs(u64::from(settings::bound(builder, promotion).max_lag_seconds));
    for (name, incarnation) in builder.live().into_iter().filter(|(n, _)| n != old) {
        let Some(view) =
            builder.view(&name).filter(|v| v.connected && derived::running(&v.state.redis))
        else {
            continue;
        };
        let redis = &view.state.redis;
        let eligible = || Eligible {
            incarnation: name.clone(),
            run_id: redis.run_id.clone(),
            offset: redis.offset,
        };
        // A master that fenced itself for a switchover to `old` holds everything that was
        // acknowledged.
        let former = builder.record.data_master.as_ref() == Some(&name)
            && redis.role == Role::Master
            && redis.fenced;
        let online = online(builder, redis);
        if let Some(said) = word::said(builder, &name) {
            if former || incarnation.is_member() {
                count.refused.push((name, format!("it is {said}")));
            }
        } else if former {
            count.eligible.push(eligible());
        } else if incarnation.is_member() {
            let why = if !online {
                Some("its redis was not in sync with the master since it started".to_owned())
            } else if !incarnation.is_candidate() {
                Some("the master went on without it".to_owned())
            } else {
                stale(&name, view, &saw, max_lag)
            };
            match why {
                Some(why) => count.refused.push((name, why)),
                None => count.eligible.push(eligible()),
            }
        }
    }
    let attached = |n: &IncarnationName| builder.connected(n).is_none();
    count.away = members(builder, old).into_iter().filter(attached).collect();
    one_lineage(builder, promotion, &mut count);
    count
}

/// It was online with the process that is master: under the data's epoch, or under an earlier one of
/// the same reign.
pub fn online(builder: &PlanBuilder<'_>, redis: &RedisState) -> bool {
    let record = &builder.record;
    let reign = record.master.as_ref().filter(|p| p.confirmed && p.epoch == record.data_epoch);
    let since = reign.map_or(record.data_epoch, |p| settings::granted(record, p));
    redis.role == Role::Replica
        && record.data_epoch > 0
        && (since..=record.data_epoch).contains(&redis.online_epoch)
}

/// Everybody who may be attached to `old`, those included that were given up: they may live.
pub fn members(builder: &PlanBuilder<'_>, old: &IncarnationName) -> Vec<IncarnationName> {
    builder
        .record
        .incarnations
        .iter()
        .filter(|(n, i)| *n != old && i.is_member())
        .map(|(n, _)| n.clone())
        .collect()
}

/// Until when a node heard its master, by the operator's clock. One that was detached since does
/// not say.
fn heard_master(view: &NodeView) -> Option<UnixMs> {
    let redis = &view.state.redis;
    (!redis.master_host.is_empty()).then(|| UnixMs(view.heard.0.saturating_sub(redis.silent_ms)))
}

/// What the master itself last said, and what each replica had of it: those that do not answer any
/// more included.
fn witnesses(builder: &PlanBuilder<'_>, promotion: &Promotion) -> Vec<KnownOffset> {
    let old = &promotion.incarnation;
    let own =
        builder.view(old).filter(|_| builder.record.data_epoch == promotion.epoch).and_then(|v| {
            let redis = &v.state.redis;
            if redis.process == Process::Running && redis.role == Role::Master {
                return Some(KnownOffset {
                    who: old.clone(),
                    replid: redis.replid.clone(),
                    offset: redis.offset,
                    until: v.heard,
                });
            }
            // Once its redis is gone, its history is the last word.
            let history = v.state.history.as_ref().filter(|h| h.epoch == promotion.epoch)?;
            Some(KnownOffset {
                who: old.clone(),
                replid: history.replid.clone(),
                offset: history.offset,
                until: v.heard,
            })
        });
    let replicas = builder.record.incarnations.keys().filter(|n| *n != old).filter_map(|name| {
        let view = builder.view(name)?;
        let redis = &view.state.redis;
        let online = online(builder, redis);
        let until = heard_master(view).filter(|_| online)?;
        Some(KnownOffset {
            who: name.clone(),
            replid: redis.replid.clone(),
            offset: redis.offset,
            until,
        })
    });
    own.into_iter().chain(replicas).collect()
}

/// Why a replica was not online until the master was lost; `None` when it was, or is known to lack
/// nothing.
fn stale(
    name: &IncarnationName,
    view: &NodeView,
    saw: &[KnownOffset],
    max_lag: Duration,
) -> Option<String> {
    let redis = &view.state.redis;
    let others = || saw.iter().filter(|s| &s.who != name && s.replid == redis.replid);
    let ahead = others().map(|s| s.offset).max().filter(|offset| *offset > redis.offset);
    let Some(lost) = heard_master(view) else {
        // Detached by an attempt that came to nothing: what others had since then is all there is
        // to go by.
        return ahead.map(|offset| {
            format!(
                "it was detached at offset {}, and {offset} was reached after that",
                redis.offset
            )
        });
    };
    let end = saw
        .iter()
        .filter(|s| &s.who != name)
        .map(|s| s.until)
        .max()
        .filter(|end| end.since(lost) > max_lag)?;
    let gap = end.since(lost).as_secs();
    if let Some(offset) = ahead {
        return Some(format!(
            "it lost the master {gap} s before the others, at offset {} of {offset}",
            redis.offset
        ));
    }
    // Somebody who heard the master later had nothing more than it has.
    let nothing_more = others().any(|s| s.until > lost && s.offset <= redis.offset);
    (!nothing_more).then(|| format!("it lost the master {gap} s before it was given up, and nobody can say what was written since"))
}

/// Two lineages cannot be compared: the master's own decides which is right. Where nobody knows
/// that, nobody is eligible.
fn one_lineage(builder: &PlanBuilder<'_>, promotion: &Promotion, count: &mut Count) {
    let replid = |name: &IncarnationName| {
        builder.connected(name).map(|s| s.redis.replid.clone()).unwrap_or_default()
    };
    let by_lineage = count.eligible.iter().fold(BTreeMap::<String, u32>::new(), |mut all, e| {
        *all.entry(replid(&e.incarnation)).or_default() += 1;
        all
    });
    if by_lineage.len() < 2 {
        return;
    }
    let masters = witnesses(builder, promotion)
        .into_iter()
        .find(|s| s.who == promotion.incarnation)
        .map(|s| s.replid);
    let (kept, other): (Vec<_>, Vec<_>) =
        count.eligible.drain(..).partition(|e| Some(replid(&e.incarnation)) == masters);
    count.eligible = kept;
    count.refused.extend(
        other.into_iter().map(|e| (e.incarnation, "its history is not the master's".to_owned())),
    );
}

/// The candidate with the highest believable offset, the lower name on a tie; and those whose offset
/// is far above what anybody else saw of the master, with a sentence: they are refused.
pub fn best<'f>(
    builder: &PlanBuilder<'_>,
    failover: &'f Failover,
) -> (Option<&'f Eligible>, Vec<(IncarnationName, String)>) {
    let mut refused = Vec::new();
    let mut best: Option<&Eligible> = None;
    for e in &failover.eligible {
        if let Some(most) = believable(builder, failover, e).filter(|most| e.offset > *most) {
            let sentence = format!(
                "{} reports offset {}, but no other node saw more than {most} of {}; it is not promoted, check that node",
                e.incarnation, e.offset, failover.old
            );
            refused.push((e.incarnation.clone(), sentence));
        } else if best.is_none_or(|b| is_better(builder, e, b)) {
            best = Some(e);
        }
    }
    (best, refused)
}

/// It has more, or as much and everybody can follow it, or it does not go at once.
fn is_better(builder: &PlanBuilder<'_>, e: &Eligible, best: &Eligible) -> bool {
    let rank = |e: &Eligible| {
        let leads = versions::left_behind(builder, &e.incarnation).is_empty();
        (e.offset, leads, !stopping::stops(builder, &e.incarnation))
    };
    rank(e) > rank(best)
}

/// The highest offset that a node can hold whose process is another one since it heard the master:
/// what others hold, and what anybody can have written since it was reserved. `None` when nobody
/// else holds anything.
pub fn most_held(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    others: impl Iterator<Item = i64>,
) -> Option<i64> {
    let age = builder.now().since(builder.incarnation(name)?.reserved);
    let room = FASTEST.saturating_mul(age.as_secs() + 1);
    others.max().map(|most| most.saturating_add_unsigned(room))
}

/// The highest offset that `e` can have by the word of the others; `None` when nobody else knows
/// anything.
fn believable(builder: &PlanBuilder<'_>, failover: &Failover, e: &Eligible) -> Option<i64> {
    let promotion = Promotion {
        epoch: failover.old_epoch,
        incarnation: failover.old.clone(),
        run_id: String::new(),
        boot_id: String::new(),
        confirmed: true,
        since: UnixMs::default(),
        quorum: None,
    };
    let own = builder.view(&e.incarnation)?;
    let lost = heard_master(own).unwrap_or(failover.started).min(failover.started);
    let replid = &own.state.redis.replid;
    let mut known: Vec<_> = witnesses(builder, &promotion)
        .into_iter()
        .filter(|s| s.who != e.incarnation && &s.replid == replid)
        .map(|s| (s.offset, s.until))
        .collect();
    // Those that were detached do not say any more when they heard the master; they were counted at
    // the beginning.
    let others = failover.eligible.iter().filter(|o| o.incarnation != e.incarnation);
    known.extend(others.map(|o| (o.offset, failover.started)));
    let most = |(offset, until): (i64, UnixMs)| {
        let room = FASTEST.saturating_mul(lost.since(until).as_secs() + 1);
        offset.saturating_add_unsigned(room)
    };
    known.into_iter().map(most).max()
}
