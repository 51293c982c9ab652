//! A record and an inventory made by hand, and the plan that follows from them.

use std::collections::BTreeMap;
use std::time::Duration;

use akash_redis::api::annotations::YES_DELETE_DATA;
use akash_redis::api::conditions::{ConditionType, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::api::template::Template;
use akash_redis::api::types::{RedisCluster, Runway};
use akash_redis::model::chain::{
    BidView, ChainView, DeploymentView, EscrowView, GroupState, LeaseState, LeaseView, ProviderView,
};
use akash_redis::model::change::{Change, Eligible, Failover, Fence, Switchover};
use akash_redis::model::funds::Funds;
use akash_redis::model::ids::{IncarnationName, InstallationId, LeaseId};
use akash_redis::model::image::NodeImage;
use akash_redis::model::incarnation::{Choice, Condemned, Deployed, Incarnation, Membership};
use akash_redis::model::inventory::{Constants, IdPool, Inventory, Reading};
use akash_redis::model::mesh::{AuthKey, BackendState, Device, MeshView};
use akash_redis::model::money::{PricePerBlock, Uact};
use akash_redis::model::node::{
    AttachedReplica, Authority, History, Link, NodeMesh, NodeState, NodeView, Process, RedisState,
    ReplicaState, Role,
};
use akash_redis::model::record::{Promotion, Record};
use akash_redis::model::status_page::PageView;
use akash_redis::model::step::{Command, Effect, NodeSettings, Quorum};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::invariants::violations;
use akash_redis::plan::{GasPrice, Input, Limits, Plan, Tags, Timing, plan};

/// When the plan is made.
pub const NOW: u64 = 1_795_000_000_000;
/// Term of the operator that plans.
pub const TERM: u64 = 1;
/// Tag of the nodes.
pub const TAG: &str = "tag:a";
/// Tag of a node that the operator alone reaches.
pub const QUARANTINE: &str = "tag:q";
/// A block takes so long here.
pub const BLOCK_MS: u64 = 6_000;

/// Three nodes with a data volume.
pub const THREE: &str = "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: cache }
spec:
  nodes: 3
  resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }
  budget: { maxPerMonth: 30act }
";

/// The node of this number.
pub fn name(n: u32) -> IncarnationName {
    IncarnationName(format!("cache-{n}-aaaa"))
}

/// This many seconds before the plan is made.
pub fn ago(seconds: u64) -> UnixMs {
    UnixMs(NOW - seconds * 1000)
}

/// What everything here belongs to.
pub fn installation() -> InstallationId {
    InstallationId("abcdef".into())
}

/// The price per block of which a month costs this much.
pub fn price(act_per_month: u64) -> PricePerBlock {
    PricePerBlock::from_month(Uact(act_per_month * 1_000_000), BLOCK_MS)
}

/// One plan and what it is made from.
#[derive(Clone)]
pub struct Scene {
    pub cluster: RedisCluster,
    pub record: Record,
    pub inventory: Inventory,
    pub limits: Limits,
    pub timing: Timing,
    pub term: u64,
    pub started: UnixMs,
    /// What nodes run where the manifest names no image.
    pub image: NodeImage,
    /// The quarantine tag is the nodes' own: there is none.
    pub one_tag: bool,
}

/// An image whose digest is made of this.
pub fn image(hex: &str) -> NodeImage {
    NodeImage { name: format!("registry.example.org/node@sha256:{}", hex.repeat(32)), redis: None }
}

/// What nodes of a plain manifest are started with.
pub fn revision(image: &NodeImage) -> Deployed {
    let cluster = akash_redis::api::validate::parse(THREE).unwrap().remove(0);
    Template::of(&cluster.spec, image).deployed()
}

fn incarnation(ordinal: u32) -> Incarnation {
    let reserved =
        Incarnation::new(ordinal, 100 + u64::from(ordinal), ago(3600), 0, PricePerBlock(1));
    let deployed = Some(revision(&image("aa")));
    Incarnation { membership: Membership::Candidate, deployed, ..reserved }
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
            link: Link::Up,
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
        s.redis.link = Link::Down;
        s.redis.master_host.clear();
        edit(s);
    })
}

/// The lease of a deployment with the provider of this number.
pub fn lease_id(dseq: u64, provider: u32) -> LeaseId {
    LeaseId {
        owner: "akash1me".into(),
        dseq,
        gseq: 1,
        oseq: 1,
        provider: format!("akash1p{provider}"),
    }
}

/// A provider as the chain knows it.
pub fn provider(n: u32) -> ProviderView {
    ProviderView {
        address: format!("akash1p{n}"),
        host_uri: format!("https://p{n}.example.com:8443"),
        attributes: BTreeMap::from([("region".into(), format!("region-{n}"))]),
    }
}

/// An open deployment that nobody has bid on yet.
pub fn deployment(name: &IncarnationName, dseq: u64) -> DeploymentView {
    DeploymentView {
        dseq,
        created_height: 0,
        active: true,
        hash: Vec::new(),
        group_name: name.group_name(&installation()),
        group: GroupState::Open,
        open_order: Some(1),
        ordered_at: None,
        bids: Vec::new(),
        leases: Vec::new(),
        escrow: EscrowView { open: true, left: Uact(2_000_000), spent: Uact(0), blocks_left: None },
    }
}

/// A bid that offers what was asked for.
pub fn bid(dseq: u64, provider: u32, act_per_month: u64) -> BidView {
    BidView { id: lease_id(dseq, provider), price: price(act_per_month), fits: true }
}

/// The device of a node.
pub fn device(n: u32) -> Device {
    Device {
        id: format!("device-{n}"),
        hostname: name(n).hostname(&installation()),
        name: format!("{}.mesh", name(n)),
        ip: format!("100.64.0.{n}"),
        tags: vec![TAG.into()],
        created: None,
        multiple_connections: false,
        unsigned: false,
    }
}

/// A key that was minted for a node and was not used yet.
pub fn key(name: &IncarnationName) -> AuthKey {
    AuthKey {
        id: format!("key-{name}"),
        description: name.key_description(&installation()),
        invalid: false,
    }
}

/// The page of node `n`, of the very agent that was last heard, asked for now.
pub fn page(n: u32, edit: impl FnOnce(&mut PageView)) -> PageView {
    let mut page = PageView {
        at: UnixMs(NOW),
        boot_id: format!("boot-{n}"),
        clock: UnixMs(NOW),
        mesh: "Running".into(),
        health: vec![],
        process: Process::Running,
        role: Role::Replica,
        fenced: true,
        epoch: 1,
        lacks: vec![],
    };
    edit(&mut page);
    page
}

/// Given up for this many seconds.
pub fn condemned(seconds: u64) -> Option<Condemned> {
    Some(Condemned { at: ago(seconds), reason: "it was too old".into(), closed: None })
}

/// What a node wrote down of its data.
pub fn history(replid: &str, offset: i64, epoch: u64, gap_ms: u64) -> Option<History> {
    Some(History { replid: replid.into(), offset, epoch, gap_ms })
}

impl Scene {
    fn of(cluster: &str, record: Record, inventory: Inventory) -> Self {
        Self {
            cluster: akash_redis::api::validate::parse(cluster).unwrap().remove(0),
            record,
            inventory,
            limits: Limits {
                per_cluster_default: Uact(30_000_000),
                global: Uact(30_000_000),
                others: Uact(0),
                runway: Runway::DEFAULT,
                gas_price: GasPrice(25_000),
            },
            timing: Timing::default(),
            term: TERM,
            started: ago(3600),
            image: image("aa"),
            one_tag: false,
        }
    }

    /// A cluster of three with one master, node 0, and two replicas in sync, epoch 1. Chain and
    /// tailnet were not read.
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
                since: UnixMs::default(),
                quorum: Some(Quorum { min_replicas: 1, max_lag_seconds: 8 }),
            }),
            data_epoch: 1,
            data_master: Some(name(0)),
            ..Record::default()
        };
        let mut nodes: BTreeMap<_, _> = (0..3).map(|n| (name(n), replica(n, 1, |_| {}))).collect();
        let master = &mut nodes.get_mut(&name(0)).unwrap().state;
        master.promoted = true;
        (master.redis.role, master.redis.fenced, master.redis.link) =
            (Role::Master, false, Link::Down);
        master.redis.master_host.clear();
        (master.redis.min_replicas, master.redis.max_lag_seconds) = (1, 8);
        Self::of(THREE, record, Inventory { nodes, ..Inventory::default() })
    }

    /// The same, with leases, devices, settings and attached replicas: nothing is left to do.
    pub fn whole() -> Self {
        let mut scene = Self::three();
        scene.read();
        for n in 0..3 {
            scene.lease(n, n);
            scene.join(n);
            scene.node(n, |v| v.state.history = history("A", 100, 1, 0));
        }
        scene.attach(&[1, 2]);
        scene.configure();
        let plan = scene.plan(NOW);
        assert_eq!((plan.steps, plan.waits), (vec![], vec![]), "nothing is left to do");
        assert_eq!(plan.record, scene.record);
        scene
    }

    /// A manifest that was just applied: chain and tailnet are read and empty.
    pub fn new(cluster: &str) -> Self {
        let mut scene = Self::of(cluster, Record::default(), Inventory::default());
        scene.read();
        let suffixes = ["aaaa", "aaaa", "aaaa", "bbbb", "bbbb", "bbbb"].map(Into::into).into();
        scene.inventory.id_pool = IdPool { suffixes };
        scene
    }

    fn read(&mut self) {
        let view = ChainView {
            height: 5,
            block_time: UnixMs(NOW),
            block_ms: BLOCK_MS,
            balance: Uact(50_000_000),
            fee_balance: 1_000_000,
            funds: Funds::default(),
            min_deposit: Uact(500_000),
            deployments: BTreeMap::new(),
            providers: (0..6).map(|n| (format!("akash1p{n}"), provider(n))).collect(),
            statements: BTreeMap::new(),
        };
        self.inventory.chain = Reading::fresh(view, UnixMs(NOW));
        let mesh = MeshView { all_keys: true, ..MeshView::default() };
        self.inventory.mesh = Reading::fresh(mesh, UnixMs(NOW));
    }

    pub fn chain(&mut self) -> &mut ChainView {
        self.inventory.chain.value.as_mut().expect("the chain was read")
    }

    pub fn mesh(&mut self) -> &mut MeshView {
        self.inventory.mesh.value.as_mut().expect("the tailnet was read")
    }

    pub fn deployment(&mut self, n: u32) -> &mut DeploymentView {
        let dseq = self.record.incarnations[&name(n)].dseq;
        self.chain().deployments.get_mut(&dseq).expect("it is on the chain")
    }

    pub fn incarnation(&mut self, n: u32) -> &mut Incarnation {
        self.record.incarnations.get_mut(&name(n)).expect("it is recorded")
    }

    pub fn master(&mut self) -> &mut Promotion {
        self.record.master.as_mut().expect("there is a master")
    }

    /// Node `n` is leased from this provider.
    pub fn lease(&mut self, n: u32, provider: u32) {
        let (id, price) = (lease_id(self.record.incarnations[&name(n)].dseq, provider), price(3));
        let leased = DeploymentView {
            open_order: None,
            ordered_at: None,
            leases: vec![LeaseView {
                id: id.clone(),
                price,
                state: LeaseState::Active,
                reason: 0,
                reclaim_by: None,
            }],
            escrow: EscrowView {
                open: true,
                left: Uact(1_500_000),
                spent: Uact(500_000),
                blocks_left: Some(1_000_000),
            },
            ..deployment(&name(n), id.dseq)
        };
        self.chain().deployments.insert(id.dseq, leased);
        let own = self.incarnation(n);
        (own.lease, own.max_price) = (Some(Choice { id, price, at: ago(3500) }), price);
    }

    /// The lease of node `n` is closed for this reason.
    pub fn close_lease(&mut self, n: u32, reason: u32) {
        let lease = self.deployment(n).leases.last_mut().expect("it is leased");
        (lease.state, lease.reason) = (LeaseState::Closed, reason);
    }

    /// Node `n` is on the tailnet.
    pub fn join(&mut self, n: u32) {
        self.mesh().devices.push(device(n));
        self.incarnation(n).device = Some(device(n).id);
        if let Some(view) = self.inventory.nodes.get_mut(&name(n)) {
            view.state.mesh.device_id = device(n).id;
            view.state.mesh.visible_ids =
                (0..3).filter(|o| *o != n).map(|o| device(o).id).collect();
        }
    }

    /// The master counts these replicas.
    pub fn attach(&mut self, replicas: &[u32]) {
        let attached = replicas.iter().map(|n| AttachedReplica {
            name: format!("{}.mesh", name(*n)),
            state: ReplicaState::Online,
            offset: 100,
            lag_seconds: 0,
            behind_ms: 0,
        });
        let attached = attached.collect();
        let master = self.record.master.as_ref().expect("a master").incarnation.clone();
        self.inventory.nodes.get_mut(&master).unwrap().state.redis.replicas = attached;
    }

    /// Every node took the settings that it is to be sent.
    pub fn configure(&mut self) {
        for (name, settings) in configured(&self.plan(NOW)) {
            let state = &mut self.inventory.nodes.get_mut(&name).unwrap().state;
            state.configured = settings.generation;
            if state.redis.role == Role::Master {
                state.redis.min_replicas = settings.quorum.min_replicas;
                state.redis.max_lag_seconds = settings.quorum.max_lag_seconds;
            }
        }
    }

    pub fn node(&mut self, n: u32, edit: impl FnOnce(&mut NodeView)) {
        edit(self.inventory.nodes.get_mut(&name(n)).unwrap());
    }

    /// Node `n` has not been heard for this many seconds.
    pub fn silent(&mut self, n: u32, seconds: u64) {
        self.node(n, |v| (v.connected, v.heard) = (false, ago(seconds)));
    }

    /// Redis of node `n` runs and has answered nobody for this many seconds, and two more.
    pub fn hangs(&mut self, n: u32, seconds: u64) {
        self.node(n, |v| v.state.redis.process = Process::Stuck);
        self.incarnation(n).redis_down = Some(ago(seconds));
    }

    /// Puts another report in the place of a node's last one.
    pub fn heard(&mut self, n: u32, view: NodeView) {
        self.inventory.nodes.insert(name(n), view);
    }

    /// A person's word.
    pub fn annotate(&mut self, annotation: &str, value: impl Into<String>) {
        self.cluster.metadata.annotations.insert(annotation.to_owned(), value.into());
    }

    /// The cluster is to be deleted, with its data.
    pub fn delete(&mut self) {
        self.cluster.metadata.deletion_timestamp = Some(UnixMs(NOW).to_string());
        self.annotate(YES_DELETE_DATA, "cache");
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
            confirmers: vec![],
            loss_accepted: false,
            accepted_by: None,
            to: None,
            fence: None,
            stale_netmaps: vec![],
        }));
        self.failover()
    }

    pub fn failover(&mut self) -> &mut Failover {
        match &mut self.record.change {
            Some(Change::Failover(failover)) => failover,
            other => panic!("no failover goes on: {other:?}"),
        }
    }

    /// The same, with a proof that the old master takes no writes.
    pub fn fenced(&mut self) {
        self.failing(NOW - 60_000).fence = Some(Fence { how: "x".into(), at: UnixMs(NOW) });
        self.node(0, |v| v.connected = false);
    }

    /// A switchover of epoch 2 from node 0 to node 1 goes on since this many seconds.
    pub fn switching(&mut self, seconds: u64) {
        self.record.epoch = 2;
        self.record.change = Some(Change::Switchover(Switchover {
            epoch: 2,
            source: name(0),
            target: name(1),
            started: ago(seconds),
            deadline: ago(seconds) + Duration::from_secs(10),
            undo: false,
            chained: vec![],
            fenced: Some(ago(seconds)),
            chosen: None,
            delegated: None,
        }));
    }

    /// The cluster is to have so many nodes, and has no others.
    pub fn only(&mut self, nodes: u32) {
        self.cluster.spec.nodes = nodes;
        for n in nodes..3 {
            self.record.incarnations.remove(&name(n));
            self.inventory.nodes.remove(&name(n));
        }
        self.attach(&(1..nodes).collect::<Vec<_>>());
        self.configure();
    }

    /// Node `n` was given up so many seconds ago.
    pub fn give_up(&mut self, n: u32, seconds: u64) {
        self.incarnation(n).condemned = condemned(seconds);
        self.incarnation(n).lower(Membership::Member);
    }

    /// Node `n` is the confirmed master of epoch 2, and nobody follows it yet.
    pub fn take_over(&mut self, n: u32) {
        (self.record.epoch, self.record.data_epoch) = (2, 2);
        self.record.data_master = Some(name(n));
        let (run_id, boot_id) = (format!("run-{n}"), format!("boot-{n}"));
        let before = self.master().clone();
        self.record.master =
            Some(Promotion { epoch: 2, incarnation: name(n), run_id, boot_id, ..before });
        for (other, incarnation) in &mut self.record.incarnations {
            incarnation.membership =
                if *other == name(n) { Membership::Candidate } else { Membership::Member };
        }
        for view in self.inventory.nodes.values_mut() {
            view.state.promoted = false;
            (view.state.redis.role, view.state.redis.fenced) = (Role::Replica, true);
            view.state.redis.replicas.clear();
        }
        self.node(n, |v| {
            v.state.promoted = true;
            v.state.highest.epoch = 2;
            let redis = &mut v.state.redis;
            (redis.role, redis.fenced, redis.link) = (Role::Master, false, Link::Down);
            (redis.replid2, redis.second_offset) = (redis.replid.clone(), 101);
            redis.replid = "B".into();
            redis.master_host.clear();
            (redis.min_replicas, redis.max_lag_seconds) = (1, 8);
        });
    }

    pub fn plan(&self, now: u64) -> Plan {
        self.plan_as(now, self.term, self.started.0)
    }

    /// As an operator process of this term plans, which began at this moment.
    pub fn plan_as(&self, now: u64, term: u64, started: u64) -> Plan {
        let plan = self.with_input(now, term, started, plan);
        // The benchmark that shares this file has other things to measure.
        #[cfg(test)]
        super::truth::holds(&self.cluster, &plan);
        plan
    }

    /// Every rule that this plan breaks, had it been made here.
    pub fn violations(&self, plan: &Plan) -> Vec<String> {
        self.with_input(NOW, self.term, self.started.0, |input| violations(input, plan))
    }

    fn with_input<T>(
        &self,
        now: u64,
        term: u64,
        started: u64,
        make: impl FnOnce(&Input<'_>) -> T,
    ) -> T {
        let constants = Constants {
            installation: installation(),
            owner: "akash1me".into(),
            term,
            started: UnixMs(started),
        };
        make(&Input {
            cluster: &self.cluster,
            record: &self.record,
            inventory: &self.inventory,
            constants: &constants,
            timing: &self.timing,
            limits: &self.limits,
            tags: Tags { cluster: TAG, quarantine: if self.one_tag { TAG } else { QUARANTINE } },
            image: &self.image,
            now: UnixMs(now),
        })
    }

    /// Plans on and on under the record that came of it, as long as it changes.
    pub fn settle(&mut self, now: u64) -> Plan {
        for _ in 0..20 {
            let plan = self.plan(now);
            if plan.record == self.record {
                return plan;
            }
            self.record = plan.record;
        }
        panic!("the record never comes to rest");
    }
}

/// The commands of a plan, each with the node it goes to.
pub fn commands(plan: &Plan) -> Vec<(IncarnationName, Command)> {
    plan.steps
        .iter()
        .filter_map(|s| match &s.effect {
            Effect::Command { incarnation, command, .. } => {
                Some((incarnation.clone(), command.clone()))
            }
            _ => None,
        })
        .collect()
}

/// Who is told to become master.
pub fn promoted(plan: &Plan) -> Vec<IncarnationName> {
    let promotes = |(name, command)| matches!(command, Command::Promote { .. }).then_some(name);
    commands(plan).into_iter().filter_map(promotes).collect()
}

/// Who is told to let go of its master.
pub fn detaches(plan: &Plan) -> Vec<IncarnationName> {
    let detaches = |(name, command)| matches!(command, Command::Detach { .. }).then_some(name);
    commands(plan).into_iter().filter_map(detaches).collect()
}

/// Who is told to follow the master.
pub fn follows(plan: &Plan) -> Vec<IncarnationName> {
    let follows = |(name, command)| matches!(command, Command::Follow { .. }).then_some(name);
    commands(plan).into_iter().filter_map(follows).collect()
}

/// Who gets which settings.
pub fn configured(plan: &Plan) -> Vec<(IncarnationName, NodeSettings)> {
    let configures = |(name, command)| match command {
        Command::Configure(settings) => Some((name, settings)),
        _ => None,
    };
    commands(plan).into_iter().filter_map(configures).collect()
}

/// Who is given up, and was not before.
pub fn given_up(scene: &Scene, plan: &Plan) -> Vec<IncarnationName> {
    let before = |n: &IncarnationName| {
        scene.record.incarnations.get(n).is_some_and(|i| i.condemned.is_some())
    };
    let after = plan.record.incarnations.iter().filter(|(_, i)| i.condemned.is_some());
    after.map(|(n, _)| n.clone()).filter(|n| !before(n)).collect()
}

/// The failover that a plan goes on with.
pub fn failing_over(plan: &Plan) -> Option<&Failover> {
    match &plan.record.change {
        Some(Change::Failover(failover)) => Some(failover),
        _ => None,
    }
}

/// The word and the sentences of what is wrong.
pub fn degraded(plan: &Plan) -> (Reason, String) {
    let mut conditions = plan.status.conditions.iter();
    let condition = conditions.find(|c| c.kind == ConditionType::Degraded).unwrap();
    (condition.reason, condition.message.clone())
}

/// Whether an event of this kind is told.
pub fn has_event(plan: &Plan, reason: EventReason) -> bool {
    plan.events.iter().any(|(r, _)| *r == reason)
}

/// The wait for something, with its deadline in seconds after `NOW` and what follows then.
pub fn wait_for(plan: &Plan, what: &str) -> Option<(Option<i64>, String)> {
    let seconds = |at: UnixMs| (at.0.cast_signed() - NOW.cast_signed()) / 1000;
    let wait = plan.waits.iter().find(|w| w.what.contains(what))?;
    Some((wait.deadline.map(seconds), wait.then.clone()))
}
