//! Whether the master is dead, by whose word: safety.md section 3.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{candidates, derived, evidence, failover};
use crate::api::conditions::{KnownBy, Reason};
use crate::api::types::WhenMinority;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Process, Role};
use crate::model::record::{Promotion, Repeats};
use crate::model::status_page::PageView;
use crate::model::time::{Backoff, UnixMs};

/// A master that is given up.
pub struct Death {
    /// What was seen, one phrase.
    pub reason: String,
    /// Who saw it.
    pub witnesses: Vec<String>,
    /// Why it takes no writes any more, where that is known with the death.
    pub fenced: Option<String>,
    /// Its process lives, by somebody's word: it may hang, or nobody reaches it.
    pub alive: bool,
}

/// Between failovers from masters that live, as Sentinel's failover-timeout. A client that sends
/// the same long script again after each move would move the master for ever.
const PAUSES: Backoff = Backoff { first: Duration::from_mins(3), longest: Duration::from_mins(30) };
/// After so long without another one they count from the beginning.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// Who is silent for so long by everybody's word is not waited for until downAfter.
const AGREED: Duration = Duration::from_millis(2500);
/// A replica hears its master each second, so that it has lost it by then.
const LINK_LOST: Duration = Duration::from_secs(2);
/// An agent says that its redis does not answer when it has not for so long.
const NOTICED: Duration = Duration::from_secs(2);

enum Verdict {
    Alive,
    Suspect,
    Dead(Death),
}

/// Looks at the master; starts a failover when it is dead. True when it may not be counted on.
pub fn watch(builder: &mut PlanBuilder<'_>, promotion: &Promotion) -> bool {
    match verdict(builder, promotion) {
        Verdict::Alive => false,
        Verdict::Suspect => true,
        Verdict::Dead(death) => {
            if !death.alive {
                failover::start(builder, promotion, death);
            } else if !too_soon(builder, promotion, &death) {
                let epoch = builder.record.epoch;
                failover::start(builder, promotion, death);
                if builder.record.epoch > epoch {
                    count(builder);
                }
            }
            true
        }
    }
}

/// Another master that lived was replaced a short time ago: this one is waited for, unless a person
/// says otherwise.
fn too_soon(builder: &mut PlanBuilder<'_>, promotion: &Promotion, death: &Death) -> bool {
    let Some(repeats) = builder.record.repeats else { return false };
    let pause = PAUSES.delay(repeats.count.saturating_sub(1));
    if builder.loss_accepted() || builder.now().passed(repeats.last, pause) {
        return false;
    }
    let (name, until) = (&promotion.incarnation, repeats.last + pause);
    let command = builder.accept_loss_command();
    let message = format!(
        "{name} is not replaced before {until} ({}): {} masters that lived were replaced in a row, the last one at {}, and the cause may follow the applications: look for a long script or command (SLOWLOG GET); `{command}` does not wait",
        death.reason, repeats.count, repeats.last
    );
    builder.problem(Reason::FailoverPaused, message);
    builder.wait(format!("{name} to answer again"), repeats.last, Some(pause), "it is replaced");
    true
}

fn count(builder: &mut PlanBuilder<'_>) {
    let now = builder.now();
    let before = builder.record.repeats.filter(|r| !now.passed(r.last, FORGOTTEN));
    let count = before.map_or(0, |r| r.count).saturating_add(1);
    builder.record.repeats = Some(Repeats { count, last: now });
}

/// A redis that runs and answers nobody. What computes may come to an end, what does nothing counts
/// like silence; neither is waited for before it was confirmed, because nobody uses it yet.
fn stuck(
    builder: &mut PlanBuilder<'_>,
    promotion: &Promotion,
    busy: bool,
    since: UnixMs,
    witness: &str,
) -> Verdict {
    let name = &promotion.incarnation;
    let failover = &builder.spec().failover;
    let (limit, how) = if busy {
        (failover.stuck_after.0, "computes (a script, or a command over very many keys) and")
    } else {
        (failover.stuck_after.0.min(failover.down_after.0), "is frozen or starved and")
    };
    if promotion.confirmed && !builder.now().passed(since, limit) && !builder.loss_accepted() {
        builder.problem(
            Reason::RedisStuck,
            format!("redis of the master {name} {how} answers nobody since {since}"),
        );
        builder.wait(format!("redis of {name} to answer"), since, Some(limit), "it is replaced");
        return Verdict::Suspect;
    }
    Verdict::Dead(Death {
        reason: "its redis no longer answers".to_owned(),
        witnesses: vec![format!("{witness} of {name}")],
        fenced: None,
        alive: true,
    })
}

/// Since when a redis whose agent says that it answers nobody does not answer.
pub fn unanswered(builder: &PlanBuilder<'_>, name: &IncarnationName) -> UnixMs {
    let noticed = builder.incarnation(name).and_then(|i| i.redis_down).unwrap_or(builder.now());
    UnixMs(noticed.0.saturating_sub(u64::try_from(NOTICED.as_millis()).unwrap_or_default()))
}

fn verdict(builder: &mut PlanBuilder<'_>, promotion: &Promotion) -> Verdict {
    let name = &promotion.incarnation;
    let view = builder.view(name);
    // The last word of an agent that is gone: its redis had exited, and a start is fenced.
    if let Some(view) = view.filter(|v| v.connected || v.state.redis.process == Process::Exited) {
        if view.state.redis.process == Process::Stuck {
            let (since, busy) = (unanswered(builder, name), view.state.redis.health.busy);
            return stuck(builder, promotion, busy, since, "agent");
        }
        let verdict = by_agent(name, &view.state, promotion);
        return match verdict {
            Verdict::Alive => by_chain(builder, promotion),
            other => other,
        };
    }
    let heard = derived::last_heard(builder, name);
    let down_after = builder.spec().failover.down_after.0;
    let page = evidence::word(builder, name);
    if page.is_some_and(|page| page.process == Process::Stuck) {
        return stuck(builder, promotion, false, heard, "status page");
    }
    if let Some(dead) = page.and_then(|page| by_page(name, page, promotion)) {
        return dead;
    }
    let gone = evidence::container_gone(builder, name);
    let limit = if gone { down_after.min(AGREED) } else { down_after };
    if !builder.now().passed(heard, limit) {
        builder.wait(
            format!("the master {name} to be heard again"),
            heard,
            Some(limit),
            "its replicas are asked whether they hear it",
        );
        return Verdict::Suspect;
    }
    let seen = gone.then(|| by_all(builder, promotion, heard)).flatten();
    match seen {
        Some(dead) => dead,
        None if builder.now().passed(heard, down_after) => {
            by_silence(builder, promotion, heard, down_after)
        }
        None => {
            builder.wait(
                format!("the replicas of {name} to lose it, as its provider has"),
                heard,
                Some(down_after),
                "a majority of them is enough",
            );
            Verdict::Suspect
        }
    }
}

/// The agent's word is final: it watches its own redis. The word of another start of it is none
/// about the redis that was promoted: its provider may run a second container.
fn by_agent(name: &IncarnationName, state: &NodeState, promotion: &Promotion) -> Verdict {
    let redis = &state.redis;
    let its_own = promotion.boot_id.is_empty() || state.boot_id == promotion.boot_id;
    let died = |reason: &str, proof: Option<String>| {
        let fenced = proof.filter(|_| its_own);
        Verdict::Dead(Death {
            reason: reason.to_owned(),
            witnesses: vec![format!("agent of {name}")],
            fenced,
            alive: false,
        })
    };
    let started_again = |proof: String| died("its redis was started again", Some(proof));
    match redis.process {
        Process::Exited => {
            died("its redis exited", Some(format!("{name}'s agent says that its redis exited")))
        }
        Process::Starting | Process::Running
            if !promotion.confirmed && !another_process(state, promotion) =>
        {
            Verdict::Alive
        }
        Process::Starting => started_again(format!("{name}'s redis starts fenced")),
        Process::Running if redis.loading || redis.role == Role::Replica || redis.fenced => {
            started_again(format!("{name}'s redis is fenced, by its agent's word"))
        }
        // One that hangs was looked at before.
        Process::Running | Process::Stuck => Verdict::Alive,
    }
}

/// The process that was chosen is gone; where the choice named none, any will do.
pub fn another_process(state: &NodeState, promotion: &Promotion) -> bool {
    let (was, is) = (&promotion.run_id, &state.redis.run_id);
    !was.is_empty() && was != is && (!is.is_empty() || state.redis.process == Process::Starting)
}

/// A master whose lease is gone ends soon: who has its data takes over. While nobody has, it is the
/// best there is.
fn by_chain(builder: &PlanBuilder<'_>, promotion: &Promotion) -> Verdict {
    let name = &promotion.incarnation;
    let another = builder.live().iter().any(|(n, i)| n != name && i.is_candidate());
    match derived::stage(builder, name) {
        derived::Stage::Lost(why) if promotion.confirmed && another => Verdict::Dead(Death {
            reason: why,
            witnesses: vec!["the chain".to_owned()],
            fenced: None,
            alive: false,
        }),
        _ => Verdict::Alive,
    }
}

/// Its agent's word, by its signed page: the mesh is silent and its redis is dead as well. A page
/// that says that redis is well proves nothing about who reaches it.
fn by_page(name: &IncarnationName, page: &PageView, promotion: &Promotion) -> Option<Verdict> {
    let (reason, fenced) = match page.process {
        Process::Exited => ("its redis exited", true),
        Process::Starting | Process::Running if !promotion.confirmed => return None,
        Process::Starting => ("its redis was started again", true),
        Process::Running if page.role == Role::Replica || page.fenced => {
            ("its redis was started again", true)
        }
        // One that hangs was looked at before.
        Process::Running | Process::Stuck => return None,
    };
    let its_own = promotion.boot_id.is_empty() || page.boot_id == promotion.boot_id;
    let fenced =
        (fenced && its_own).then(|| format!("{name}'s signed status page says that {reason}"));
    Some(Verdict::Dead(Death {
        reason: reason.to_owned(),
        witnesses: vec![format!("status page of {name}")],
        fenced,
        alive: false,
    }))
}

/// Everybody who can tell says at once that the node is gone: its provider, that no container of it
/// runs; every replica that is on record, that it does not hear it. A path that stalls, a process
/// that is starved and a control server that is away give no such picture: a provider counts
/// containers beside them (docs/decisions/0048-agreed-death.md).
fn by_all(builder: &PlanBuilder<'_>, promotion: &Promotion, heard: UnixMs) -> Option<Verdict> {
    let name = &promotion.incarnation;
    let mut witnesses = vec![format!("operator (silent since {heard})")];
    for (replica, _) in builder.live().iter().filter(|(n, i)| n != name && i.is_member()) {
        let redis = &builder.connected(replica)?.redis;
        let lost =
            redis.master_host.is_empty() || u128::from(redis.silent_ms) >= LINK_LOST.as_millis();
        if !lost {
            return None;
        }
        witnesses.push(format!("{replica} (silent for {} ms)", redis.silent_ms));
    }
    if witnesses.len() == 1 {
        return None;
    }
    let (known_by, said) = evidence::known(builder, name);
    witnesses.push(format!("{known_by} of {name} ({})", said.unwrap_or_default()));
    let reason = "its container is gone by its provider's word, and nobody hears it".to_owned();
    Some(Verdict::Dead(Death { reason, witnesses, fenced: None, alive: false }))
}

/// Silence towards the operator counts only with a majority of the recorded replicas; one that
/// still hears the master vetoes.
fn by_silence(
    builder: &mut PlanBuilder<'_>,
    promotion: &Promotion,
    heard: UnixMs,
    down_after: Duration,
) -> Verdict {
    let name = &promotion.incarnation;
    let recorded: Vec<_> = builder
        .live()
        .into_iter()
        .filter(|(n, i)| n != name && i.is_member())
        .map(|(n, _)| n)
        .collect();
    let mut witnesses = vec![format!("operator (silent since {heard})")];
    let reason = format!("it has been silent for {} s", builder.now().since(heard).as_secs());
    if builder.record.untouched && candidates::members(builder, name).is_empty() {
        return Verdict::Dead(Death { reason, witnesses, fenced: None, alive: false });
    }
    let mut lost = 0usize;
    for replica in &recorded {
        let Some(state) = builder.connected(replica) else { continue };
        if follows_another(builder, name, state) {
            // In a switchover that came to nothing: what it hears says nothing about the master.
            lost += 1;
            witnesses.push(format!("{replica} (not attached to it)"));
            continue;
        }
        if state.redis.is_linked() && u128::from(state.redis.silent_ms) < down_after.as_millis() {
            builder.problem(
                Reason::MasterUnreachable,
                format!("the operator cannot reach {name}, but {replica} still hears it; nothing is changed"),
            );
            return Verdict::Suspect;
        }
        if u128::from(state.redis.silent_ms) >= down_after.as_millis() {
            lost += 1;
            witnesses.push(format!("{replica} (silent for {} ms)", state.redis.silent_ms));
        } else if state.redis.master_host.is_empty() {
            // Detached by an earlier attempt, or restarted: it cannot be what keeps the master
            // writable.
            lost += 1;
            witnesses.push(format!("{replica} (not attached to it)"));
        }
    }
    if let (known_by @ (KnownBy::StatusPage | KnownBy::LeaseStatus), Some(said)) =
        evidence::known(builder, name)
    {
        witnesses.push(format!("{known_by} of {name} ({said})"));
    }
    let majority = recorded.len() / 2 + 1;
    let minority_may = builder.loss_accepted()
        || (builder.spec().failover.when_minority == WhenMinority::Promote && lost > 0);
    // A lease that is gone is no silence that may end.
    let gone = matches!(derived::stage(builder, name), derived::Stage::Lost(_));
    if lost >= majority || minority_may || gone {
        let alive = !gone
            && evidence::word(builder, name).is_some_and(|page| page.process == Process::Running);
        return Verdict::Dead(Death { reason, witnesses, fenced: None, alive });
    }
    let command = builder.accept_loss_command();
    let message = if recorded.is_empty() {
        format!(
            "{name} is silent, and no other node has its data; bring it back, or, when it is known to be lost, `{command}`"
        )
    } else {
        format!(
            "{name} is silent, and only {lost} of {} replicas confirm it ({majority} are needed); nothing is changed: bring nodes back, set failover.whenMinority: promote, or, when {name} is known to be dead, `{command}`",
            recorded.len()
        )
    };
    builder.problem(Reason::MasterDownUnconfirmed, message);
    builder.wait(
        format!("{majority} replicas to say whether they hear {name}"),
        heard,
        None,
        format!("manual action required: `{command}`"),
    );
    Verdict::Suspect
}

/// It was told to follow another node than this one.
fn follows_another(builder: &PlanBuilder<'_>, name: &IncarnationName, state: &NodeState) -> bool {
    let host = &state.redis.master_host;
    let is = |n: &IncarnationName| builder.view(n).is_some_and(|v| v.state.mesh.dns_name == *host);
    !host.is_empty() && !is(name) && builder.record.incarnations.keys().any(|n| n != name && is(n))
}
