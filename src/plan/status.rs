//! What is published about a cluster.

use super::builder::PlanBuilder;
use super::derived::{self, Stage};
use super::{
    archive, at_stake, backup, deletion, evidence, health, import_status, money, moves, paths,
    placement, restore, roles, settings, top_up, update_report, verify, versions, wallet, word,
};
use crate::api::conditions::{ConditionStatus, ConditionType, Phase, Reason};
use crate::api::status::{Condition, Cost, Endpoint, FailoverStatus, NodeStatus, Status, Waiting};
use crate::model::chain::DeploymentView;
use crate::model::change::{Change, FailoverReport, Switchover};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::money::{PricePerBlock, Uact};

/// The status as of this plan.
pub fn status(builder: &PlanBuilder<'_>) -> Status {
    let nodes = nodes(builder);
    let cost = cost(builder);
    let ready_nodes = nodes.iter().filter(|node| node.phase.is_serving()).count();
    let ready_nodes = u32::try_from(ready_nodes).unwrap_or(u32::MAX);
    Status {
        observed_generation: builder.input.cluster.metadata.generation.unwrap_or(0),
        conditions: conditions(builder, &nodes),
        epoch: builder.record.epoch,
        master: endpoint(builder),
        nodes,
        cost,
        waiting: builder
            .waits
            .iter()
            .map(|w| Waiting {
                what: w.what.clone(),
                deadline: w.deadline.map(|d| d.to_string()),
                then: w.then.clone(),
            })
            .collect(),
        last_failover: builder.record.last_failover.as_ref().map(failover),
        problems: reasons(builder),
        at_stake: at_stake::at_stake(builder),
        rollout: update_report::status(builder),
        ready_nodes,
        backup: backup::status(builder),
    }
}

/// Where writes go: only a confirmed master that takes them, or took them when it was last heard
/// and nobody else was chosen.
fn endpoint(builder: &PlanBuilder<'_>) -> Option<Endpoint> {
    let promotion = builder.record.master.as_ref().filter(|p| p.confirmed)?;
    let change = changing(builder);
    Some(Endpoint {
        changing: change.map(|change| change.epoch),
        successor: change.map(|change| change.target.0.clone()),
        ..place(builder, &promotion.incarnation, promotion.epoch)?
    })
}

/// Who was chosen after a failure and does not take writes yet, as far as anybody knows.
pub fn elected(builder: &PlanBuilder<'_>) -> Option<Endpoint> {
    let chosen = builder.record.master.as_ref().filter(|chosen| !chosen.confirmed)?;
    matches!(builder.record.change, Some(Change::Failover(_)))
        .then(|| place(builder, &chosen.incarnation, chosen.epoch))?
}

/// Where a node takes writes as master of this epoch.
pub fn place(builder: &PlanBuilder<'_>, node: &IncarnationName, epoch: u64) -> Option<Endpoint> {
    let mesh = &builder.view(node)?.state.mesh;
    Some(Endpoint {
        epoch,
        incarnation: node.0.clone(),
        name: mesh.dns_name.clone(),
        ip: mesh.ip.clone(),
        port: crate::model::ports::REDIS_PORT,
        ..Endpoint::default()
    })
}

/// A planned change for which writes stand still.
fn changing<'a>(builder: &'a PlanBuilder<'_>) -> Option<&'a Switchover> {
    match &builder.record.change {
        Some(Change::Switchover(change)) if !change.undo && !change.prepares() => Some(change),
        _ => None,
    }
}

fn nodes(builder: &PlanBuilder<'_>) -> Vec<NodeStatus> {
    let mut list: Vec<_> = builder.record.incarnations.iter().collect();
    list.sort_by_key(|(n, i)| (i.ordinal, i.reserved, (*n).clone()));
    list.into_iter().map(|(name, incarnation)| node(builder, name, incarnation)).collect()
}

fn node(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
) -> NodeStatus {
    let chain = builder.input.inventory.chain.value.as_ref();
    let provider = incarnation.lease.as_ref().map(|c| c.id.provider.clone());
    let registered = chain.zip(provider.as_ref()).and_then(|(c, p)| c.providers.get(p));
    let state = builder.view(name).map(|v| &v.state);
    let (phase, message) = phase(builder, name, incarnation);
    let (known_by, said) = evidence::known(builder, name);
    let message = [message, said, moves::said(builder, name), word::said(builder, name)]
        .into_iter()
        .flatten()
        .reduce(|all, more| format!("{all}; {more}"));
    NodeStatus {
        ordinal: incarnation.ordinal,
        incarnation: name.0.clone(),
        phase,
        dseq: incarnation.dseq,
        provider_host: registered.map(|p| host(&p.host_uri)),
        region: registered.and_then(placement::region).cloned(),
        price_per_month: incarnation
            .lease
            .as_ref()
            .map(|c| c.price.per_month(money::block_ms(builder.input.inventory)).to_string()),
        mesh_name: state.map(|s| s.mesh.dns_name.clone()).filter(|n| !n.is_empty()),
        mesh_ip: state.map(|s| s.mesh.ip.clone()).filter(|ip| !ip.is_empty()),
        version: update_report::version(builder, name),
        lag_bytes: lag(builder, name),
        lag_seconds: lag_seconds(builder, name),
        path: paths::to_master(builder, name),
        message,
        provider,
        known_by,
    }
}

fn host(uri: &str) -> String {
    uri.trim_start_matches("https://").split([':', '/']).next().unwrap_or_default().to_owned()
}

/// Bytes behind the master, when both speak of one history.
fn lag(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<i64> {
    let promotion = builder.record.master.as_ref()?;
    let (master, own) = (builder.connected(&promotion.incarnation)?, builder.connected(name)?);
    let same = master.redis.replid == own.redis.replid && &promotion.incarnation != name;
    same.then(|| (master.redis.offset - own.redis.offset).max(0))
}

/// Seconds since the oldest write of the master that it did not acknowledge.
fn lag_seconds(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<u64> {
    let promotion = builder.record.master.as_ref().filter(|p| &p.incarnation != name)?;
    let master = builder.connected(&promotion.incarnation)?;
    let own = roles::attachment(master, name, builder.connected(name))?;
    Some(own.behind_ms / 1000)
}

fn phase(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
) -> (Phase, Option<String>) {
    if let Some(condemned) = &incarnation.condemned {
        return (Phase::Leaving, Some(condemned.reason.clone()));
    }
    match derived::stage(builder, name) {
        Stage::Unknown => {
            (Phase::Unknown, Some("neither the chain nor the node answers".to_owned()))
        }
        Stage::Reserved => (Phase::Reserved, None),
        Stage::Bidding => (Phase::Bidding, None),
        Stage::Leased => (Phase::Leased, None),
        Stage::GatewayAway(why) => {
            (Phase::Starting, Some(format!("the provider's gateway does not answer: {why}")))
        }
        Stage::Delivered => (Phase::Starting, None),
        Stage::Unreachable => (Phase::Unreachable, silence(builder, name)),
        Stage::Lost(why) => (Phase::Lost, Some(why)),
        Stage::Connected => connected_phase(builder, name, incarnation),
    }
}

/// Whose fault it may be that a node is not heard.
fn silence(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let last = builder.view(name).map(|v| format!("last heard {}", v.heard));
    if builder.input.inventory.own_mesh.error.is_none() {
        return last;
    }
    Some(format!(
        "unknown: the operator itself is off the mesh{}",
        last.map(|last| format!("; {last}")).unwrap_or_default()
    ))
}

fn connected_phase(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
) -> (Phase, Option<String>) {
    let Some(state) = builder.connected(name) else { return (Phase::Unknown, None) };
    let stops = state.stopping.then(|| "its container is being stopped".to_owned());
    let note = stops.or_else(|| state.notes.first().cloned());
    if let Some(quarantine) = &incarnation.quarantined {
        let message = format!(
            "given up as master in epoch {}; the operator alone reaches it until its redis was demoted",
            quarantine.epoch
        );
        return (Phase::Quarantined, Some(message));
    }
    let master = builder.record.master.as_ref();
    if master.is_some_and(|p| &p.incarnation == name && p.confirmed) {
        return (Phase::Master, note);
    }
    if incarnation.is_candidate() && health::follows(builder, name, state) {
        return (Phase::Replica, note);
    }
    if incarnation.is_member() && state.redis.is_syncing() {
        return (Phase::Syncing, note);
    }
    (Phase::Joined, note)
}

/// Price of all active leases, what is in escrow, what was spent.
fn cost(builder: &PlanBuilder<'_>) -> Cost {
    let block_ms = money::block_ms(builder.input.inventory);
    let ours: Vec<&DeploymentView> =
        builder.input.inventory.chain.value.as_ref().map_or_else(Vec::new, |chain| {
            builder
                .record
                .incarnations
                .values()
                .filter_map(|i| chain.deployments.get(&i.dseq))
                .filter(|d| d.active)
                .collect()
        });
    // Closed ones too: by the record that the inventory was taken under, because what it had
    // forgotten by then is in the books.
    let chain = builder.input.inventory.chain.value.as_ref();
    let recorded = builder.input.record.incarnations.values();
    let known = recorded.filter_map(|i| chain?.deployments.get(&i.dseq));
    let spent: Uact = known.map(|d| d.escrow.spent).sum();
    let rate = PricePerBlock(
        ours.iter().filter_map(|d| derived::active_lease(d)).map(|l| l.price.0).sum(),
    );
    Cost {
        per_month: rate.per_month(block_ms).to_string(),
        max_per_month: money::ceiling(builder.input).to_string(),
        limited_by: money::limited_by(builder.input),
        in_escrow: ours.iter().map(|d| d.escrow.left).sum::<Uact>().to_string(),
        spent: (spent + builder.input.inventory.spent_before).to_string(),
        deposit: money::usual_deposit(builder.input).to_string(),
        runway: top_up::shortest(builder).map(top_up::for_people).unwrap_or_default(),
    }
}

fn failover(report: &FailoverReport) -> FailoverStatus {
    FailoverStatus {
        epoch: report.epoch,
        reason: report.reason.clone(),
        witnesses: report.witnesses.clone(),
        old: report.old.clone(),
        new: report.new.clone(),
        candidates: report.candidates.clone(),
        fence: report.fence.clone(),
        accepted_by: report.accepted_by.clone().unwrap_or_default(),
        steps: report.steps_ms.iter().map(|(what, ms)| format!("{what} after {ms} ms")).collect(),
        lost: match (report.lost_bytes, report.lost_gap_ms) {
            (Some(0), 0) => "nothing: the new master has all that the old one had".to_owned(),
            (Some(bytes), 0) => {
                format!("up to {bytes} bytes of history, kept as a snapshot on {}", report.old)
            }
            (Some(bytes), u64::MAX) => {
                format!(
                    "{bytes} bytes of history, and writes of an unknown time after its last report; kept as a snapshot on {}",
                    report.old
                )
            }
            (Some(bytes), gap) => {
                format!(
                    "up to {bytes} bytes of history, and what was written in the last {gap} ms; kept as a snapshot on {}",
                    report.old
                )
            }
            (None, _) => {
                "not known yet: the old master has not come back, or its history cannot be compared"
                    .to_owned()
            }
        },
    }
}

fn conditions(builder: &PlanBuilder<'_>, nodes: &[NodeStatus]) -> Vec<Condition> {
    let ready = health::ready(builder, nodes);
    let progressing = progressing(builder, nodes);
    let degraded = degraded(builder).unwrap_or((
        ConditionStatus::False,
        Reason::AsExpected,
        "no problem is known".to_owned(),
    ));
    [
        (ConditionType::Ready, ready),
        (ConditionType::Progressing, progressing),
        (ConditionType::Degraded, degraded),
        (ConditionType::Funded, funded(builder)),
        (ConditionType::DirectPaths, paths::condition(builder)),
        (ConditionType::SettingsApplied, settings::condition(builder)),
        (ConditionType::WalletRunway, wallet::condition(builder)),
        (ConditionType::VersionSkew, versions::condition(builder)),
    ]
    .into_iter()
    .chain(backup::condition(builder).map(|backup| (ConditionType::BackedUp, backup)))
    .chain(verify::condition(builder).map(|good| (ConditionType::BackupVerified, good)))
    .chain(archive::condition(builder).map(|log| (ConditionType::PointInTime, log)))
    .chain(restore::condition(builder).map(|restore| (ConditionType::Restored, restore)))
    .chain(import_status::condition(builder).map(|import| (ConditionType::Imported, import)))
    .chain(deletion::condition(builder).map(|deletion| (ConditionType::Deleting, deletion)))
    .map(|(kind, (status, reason, message))| condition(builder, kind, status, reason, message))
    .collect()
}

/// What is done or waited for. It is over only when as many nodes serve as are wanted: while some
/// are missing there is always something that is waited for.
fn progressing(
    builder: &PlanBuilder<'_>,
    nodes: &[NodeStatus],
) -> (ConditionStatus, Reason, String) {
    if builder.spec().paused && !deletion::begins(builder.input) {
        let name = &builder.input.cluster.metadata.name;
        let message = format!(
            "spec.paused is set: nothing is changed, and a master that dies is not replaced; `akash-redis resume {name}` ends it"
        );
        return (ConditionStatus::False, Reason::Paused, message);
    }
    if let Some(progress) = update_report::progress(builder)
        && builder.record.change.is_none()
    {
        return progress;
    }
    if let Some(step) = builder.steps.first() {
        let message = format!("{}: {}", step.effect.incarnation(), step.reason);
        return (ConditionStatus::True, Reason::Reconciling, message);
    }
    if let Some(wait) = builder.waits.first() {
        return (ConditionStatus::True, Reason::Waiting, format!("waits for {}", wait.what));
    }
    let wanted = builder.spec().nodes as usize;
    let serving = nodes.iter().filter(|n| n.phase.is_serving()).count();
    if serving >= wanted {
        let message = "nothing to do: the cluster is as the manifest wants it".to_owned();
        return (ConditionStatus::False, Reason::Reconciled, message);
    }
    let why = problems(builder).first().map_or(String::new(), |(_, why)| format!(": {why}"));
    let message = format!("waits for {} of {wanted} nodes to be in sync{why}", wanted - serving);
    (ConditionStatus::True, Reason::Waiting, message)
}

/// The operator's own blindness, then problems that keep writes away, then the cause of others: they
/// are named first.
const NAMED_FIRST: [Reason; 18] = [
    Reason::OperatorOffMesh,
    Reason::FencedByPerson,
    Reason::ConfirmedWritesAtRisk,
    Reason::DevicesMissing,
    Reason::NoMaster,
    Reason::DataMissing,
    Reason::HistoryUnclear,
    Reason::FailoverBlocked,
    Reason::MasterDownUnconfirmed,
    Reason::MasterUnreachable,
    Reason::MasterLost,
    Reason::FailoverPaused,
    Reason::RedisStuck,
    Reason::VolumeFull,
    Reason::MemoryFull,
    Reason::PersistenceFailing,
    Reason::WritesRefused,
    // What a node says of itself then follows from it.
    Reason::UpdateStalled,
];

/// All problems, the worst one first.
fn problems<'a>(builder: &'a PlanBuilder<'_>) -> Vec<&'a (Reason, String)> {
    let mut problems: Vec<_> = builder.problems.iter().collect();
    problems.sort_by_key(|(reason, _)| {
        NAMED_FIRST.iter().position(|r| r == reason).unwrap_or(NAMED_FIRST.len())
    });
    problems
}

/// Their reasons, each once.
fn reasons(builder: &PlanBuilder<'_>) -> Vec<Reason> {
    problems(builder).iter().fold(Vec::new(), |mut reasons, (reason, _)| {
        if !reasons.contains(reason) {
            reasons.push(*reason);
        }
        reasons
    })
}

/// All problems; the word of the worst one is the reason.
fn degraded(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    let problems = problems(builder);
    let (reason, _) = problems.first()?;
    let messages: Vec<&str> = problems.iter().map(|(_, message)| message.as_str()).collect();
    Some((ConditionStatus::True, *reason, messages.join("; also: ")))
}

/// Every escrow pays for at least a day more.
fn funded(builder: &PlanBuilder<'_>) -> (ConditionStatus, Reason, String) {
    if let Some((reason, message)) = builder.problems.iter().find(|(r, _)| {
        matches!(
            r,
            Reason::WalletBalanceLow
                | Reason::BudgetExhausted
                | Reason::BudgetBelowCost
                | Reason::FeeBalanceLow
        )
    }) {
        return (ConditionStatus::False, *reason, message.clone());
    }
    let Some(chain) = builder.input.inventory.chain.present() else {
        return (
            ConditionStatus::Unknown,
            Reason::ChainUnavailable,
            "the chain does not answer".to_owned(),
        );
    };
    let least = builder
        .record
        .incarnations
        .values()
        .filter(|i| i.condemned.is_none())
        .filter_map(|i| chain.deployments.get(&i.dseq).and_then(|d| d.escrow.blocks_left))
        .min();
    let Some(blocks) = least else {
        return (ConditionStatus::True, Reason::NoActiveLease, "no lease runs yet".to_owned());
    };
    let hours = blocks.saturating_mul(money::block_ms(builder.input.inventory)) / 3_600_000;
    if hours < 24 {
        return (
            ConditionStatus::False,
            Reason::EscrowLow,
            format!("an escrow pays for {hours} h more only"),
        );
    }
    (
        ConditionStatus::True,
        Reason::EscrowFunded,
        format!("every escrow pays for at least {} days more", hours / 24),
    )
}

/// The transition time stays while the status does.
fn condition(
    builder: &PlanBuilder<'_>,
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: String,
) -> Condition {
    let before = builder.input.cluster.status.as_ref().and_then(|s| s.condition(kind));
    let since = before.filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    Condition {
        kind,
        status,
        reason,
        message,
        last_transition_time: since.unwrap_or_else(|| builder.now().to_string()),
    }
}
