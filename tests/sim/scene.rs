//! One plan over a record and an inventory made by hand: what no world comes to by itself.

use std::collections::BTreeMap;

use akash_redis::api::conditions::{ConditionType, Reason};
use akash_redis::api::types::RedisCluster;
use akash_redis::model::ids::{IncarnationName, InstallationId};
use akash_redis::model::inventory::{Constants, Inventory};
use akash_redis::model::mesh::BackendState;
use akash_redis::model::money::{PricePerBlock, Uact};
use akash_redis::model::node::{
    Authority, NodeMesh, NodeState, NodeView, Process, RedisState, Role,
};
use akash_redis::model::record::{
    Change, Eligible, Failover, Fence, Incarnation, Membership, Promotion, Record,
};
use akash_redis::model::step::{Command, Effect, Quorum};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::{Input, Limits, Plan, Tags, Timing, plan};

use crate::lifecycle::THREE;

/// When the plan is made.
pub const NOW: u64 = 1_795_000_000_000;
/// Term of the operator that plans.
pub const TERM: u64 = 1;

/// The node of this number.
pub fn name(n: u32) -> IncarnationName {
    IncarnationName(format!("cache-{n}-aaaa"))
}

/// A cluster of three with one master, node 0, and two replicas in sync, epoch 1.
pub struct Scene {
    pub cluster: RedisCluster,
    pub record: Record,
    pub inventory: Inventory,
}

fn incarnation(ordinal: u32) -> Incarnation {
    let reserved = Incarnation::new(
        ordinal,
        100 + u64::from(ordinal),
        UnixMs(NOW - 3_600_000),
        0,
        PricePerBlock(1),
    );
    Incarnation { membership: Membership::Candidate, ..reserved }
}

/// A replica of node 0 that was in sync with it, and obeyed `epoch`.
pub fn replica(n: u32, epoch: u64, edit: impl FnOnce(&mut NodeState)) -> NodeView {
    let mut state = NodeState {
        incarnation: name(n).0,
        boot_id: format!("boot-{n}"),
        highest: Authority { term: TERM, epoch },
        mesh: NodeMesh {
            backend_state: BackendState::Running,
            dns_name: format!("{}.mesh", name(n)),
            ..NodeMesh::default()
        },
        redis: RedisState {
            process: Process::Running,
            role: Role::Replica,
            run_id: format!("run-{n}"),
            replid: "A".into(),
            offset: 100,
            keys: 100,
            master_host: format!("{}.mesh", name(0)),
            link_up: true,
            online_epoch: 1,
            fenced: true,
            ..RedisState::default()
        },
        ..NodeState::default()
    };
    edit(&mut state);
    NodeView { heard: UnixMs(NOW), connected: true, state }
}

/// A replica that was detached under epoch 2.
pub fn detached(n: u32, edit: impl FnOnce(&mut NodeState)) -> NodeView {
    replica(n, 2, |s| {
        s.redis.link_up = false;
        s.redis.master_host.clear();
        edit(s);
    })
}

impl Scene {
    pub fn three() -> Self {
        let record = Record {
            term: TERM,
            epoch: 1,
            incarnations: (0..3).map(|n| (name(n), incarnation(n))).collect(),
            master: Some(Promotion {
                epoch: 1,
                incarnation: name(0),
                run_id: "run-0".into(),
                boot_id: "boot-0".into(),
                confirmed: true,
                quorum: Some(Quorum { min_replicas: 1, max_lag_seconds: 8 }),
            }),
            data_epoch: 1,
            data_master: Some(name(0)),
            ..Record::default()
        };
        let mut nodes: BTreeMap<_, _> = (0..3).map(|n| (name(n), replica(n, 1, |_| {}))).collect();
        let master = &mut nodes.get_mut(&name(0)).unwrap().state;
        master.promoted = true;
        (master.redis.role, master.redis.fenced, master.redis.link_up) =
            (Role::Master, false, false);
        master.redis.master_host.clear();
        (master.redis.min_replicas, master.redis.max_lag_seconds) = (1, 8);
        let cluster = akash_redis::api::validate::parse(THREE).unwrap().remove(0);
        Self { cluster, record, inventory: Inventory { nodes, ..Inventory::default() } }
    }

    pub fn node(&mut self, n: u32, edit: impl FnOnce(&mut NodeView)) {
        edit(self.inventory.nodes.get_mut(&name(n)).unwrap());
    }

    /// Puts another report in the place of a node's last one.
    pub fn heard(&mut self, n: u32, view: NodeView) {
        self.inventory.nodes.insert(name(n), view);
    }

    /// A failover of epoch 2 goes on since `started`; nodes 1 and 2 were counted.
    pub fn failing(&mut self, started: u64) -> &mut Failover {
        let eligible =
            |n: u32| Eligible { incarnation: name(n), run_id: format!("run-{n}"), offset: 100 };
        self.record.epoch = 2;
        self.record.change = Some(Change::Failover(Failover {
            epoch: 2,
            old: name(0),
            old_epoch: 1,
            reason: "its redis no longer answers".into(),
            witnesses: vec![],
            started: UnixMs(started),
            eligible: vec![eligible(1), eligible(2)],
            unaccounted: vec![],
            detached_at: BTreeMap::new(),
            quorum: Quorum { min_replicas: 1, max_lag_seconds: 8 },
            boot_id: "boot-0".into(),
            loss_accepted: false,
            fence: None,
            stale_netmaps: vec![],
        }));
        match &mut self.record.change {
            Some(Change::Failover(failover)) => failover,
            _ => unreachable!(),
        }
    }

    /// The same, with a proof that the old master takes no writes.
    pub fn fenced(&mut self) {
        self.failing(NOW - 60_000).fence = Some(Fence { how: "x".into(), at: UnixMs(NOW) });
        self.node(0, |v| v.connected = false);
    }

    pub fn plan(&self, now: u64) -> Plan {
        self.plan_as(now, TERM, NOW - 3_600_000)
    }

    /// As an operator process of this term plans, which began at this moment.
    pub fn plan_as(&self, now: u64, term: u64, started: u64) -> Plan {
        let constants = Constants {
            installation: InstallationId("abcdef".into()),
            owner: "akash1me".into(),
            term,
            started: UnixMs(started),
        };
        let plan = plan(&Input {
            cluster: &self.cluster,
            record: &self.record,
            inventory: &self.inventory,
            constants: &constants,
            timing: &Timing::default(),
            limits: &Limits {
                per_cluster_default: Uact(30_000_000),
                global: Uact(30_000_000),
                others: Uact(0),
            },
            tags: Tags { cluster: "tag:a", quarantine: "tag:q" },
            now: UnixMs(now),
        });
        assert_eq!(plan.record.flaws(), Vec::<String>::new());
        plan
    }

    /// Plans on and on under the record that came of it, as long as it changes.
    pub fn settle(&mut self, now: u64) -> Plan {
        loop {
            let plan = self.plan(now);
            if plan.record == self.record {
                return plan;
            }
            self.record = plan.record;
        }
    }
}

/// Who is told to become master.
pub fn promoted(plan: &Plan) -> Vec<IncarnationName> {
    plan.steps
        .iter()
        .filter_map(|s| match &s.effect {
            Effect::Command { incarnation, command: Command::Promote { .. }, .. } => {
                Some(incarnation.clone())
            }
            _ => None,
        })
        .collect()
}

/// The word and the sentences of what is wrong.
pub fn degraded(plan: &Plan) -> (Reason, String) {
    let condition =
        plan.status.conditions.iter().find(|c| c.kind == ConditionType::Degraded).unwrap();
    (condition.reason, condition.message.clone())
}
