//! A world in which every step of a plan succeeds at once: what is seen after it.

use akash_redis::model::chain::{DeploymentView, LeaseState, LeaseView};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::inventory::{Delivered, LeaseStatus};
use akash_redis::model::mesh::{BackendState, Device};
use akash_redis::model::node::{
    AttachedReplica, Authority, History, Link, NodeMesh, NodeState, NodeView, Process, RedisState,
    ReplicaState, Role,
};
use akash_redis::model::step::{Command, Effect};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::scene::{Scene, TERM, deployment, device as device_of_node, installation, key};

/// Carries out all steps of a plan.
pub fn obey(scene: &mut Scene, plan: &Plan, now: UnixMs) {
    for step in &plan.steps {
        carry_out(scene, &step.effect, now);
    }
    attach(scene);
}

fn carry_out(scene: &mut Scene, effect: &Effect, now: UnixMs) {
    let name = effect.incarnation().clone();
    match effect {
        Effect::CreateDeployment { deposit, .. } => {
            let dseq = scene.record.incarnations[&name].dseq;
            let chain = scene.chain();
            chain.balance = chain.balance.saturating_sub(*deposit);
            chain.deployments.insert(dseq, deployment(&name, dseq));
            scene.mesh().keys.push(key(&name));
            scene.inventory.held.insert(name, [7; 32]);
        }
        Effect::CreateLease { lease, .. } => {
            let deployment: &mut DeploymentView =
                scene.chain().deployments.get_mut(&lease.dseq).unwrap();
            let price = deployment.bids.iter().find(|b| &b.id == lease).unwrap().price;
            let (id, state) = (lease.clone(), LeaseState::Active);
            deployment.leases.push(LeaseView { id, price, state, reason: 0, reclaim_by: None });
            deployment.bids.clear();
            (deployment.open_order, deployment.escrow.blocks_left) = (None, Some(1_000_000));
            scene.inventory.leases.insert(lease.clone(), LeaseStatus::NoManifest);
        }
        Effect::DeliverManifest { lease, .. } => {
            let deployed = LeaseStatus::Deployed { ready: 1, uris: vec![] };
            scene.inventory.leases.insert(lease.clone(), deployed);
            scene.inventory.delivered.insert(name, Delivered { at: now, times: 1 });
        }
        Effect::TopUp { dseq, amount, .. } => {
            let chain = scene.chain();
            chain.balance = chain.balance.saturating_sub(*amount);
            let escrow = &mut chain.deployments.get_mut(dseq).unwrap().escrow;
            (escrow.left, escrow.blocks_left) = (escrow.left + *amount, Some(1_000_000));
        }
        Effect::CloseDeployment { dseq, .. } => {
            scene.chain().deployments.get_mut(dseq).unwrap().active = false;
        }
        Effect::DeleteDevice { device, .. } => {
            scene.mesh().devices.retain(|d| &d.id != device);
            scene.inventory.deleted_devices.insert(device.clone());
        }
        Effect::SetTags { device, tags, .. } => {
            let devices = &mut scene.mesh().devices;
            devices.iter_mut().find(|d| &d.id == device).unwrap().tags.clone_from(tags);
        }
        Effect::RevokeKey { key, .. } => {
            scene.mesh().keys.iter_mut().find(|k| &k.id == key).unwrap().invalid = true;
        }
        // What lies in the storage is set by the tests of backups.
        Effect::CompleteBackup { .. } | Effect::DeleteBackup { .. } | Effect::DeleteLog { .. } => {}
        Effect::Command { authority, command, .. } => {
            let view = scene.inventory.nodes.get_mut(&name).unwrap();
            // What does not answer obeys nothing.
            if view.connected && view.state.redis.process == Process::Running {
                command_node(&mut view.state, *authority, command);
            }
        }
    }
}

fn command_node(state: &mut NodeState, authority: Authority, command: &Command) {
    state.highest = authority;
    let redis = &mut state.redis;
    match command {
        Command::Configure(settings) => {
            state.configured.clone_from(&settings.generation);
            redis.min_replicas = settings.quorum.min_replicas;
            redis.max_lag_seconds = settings.quorum.max_lag_seconds;
        }
        Command::Promote { quorum, .. } => {
            state.promoted = true;
            (redis.role, redis.fenced, redis.link) = (Role::Master, false, Link::Down);
            (redis.replid2, redis.second_offset) = (redis.replid.clone(), redis.offset + 1);
            redis.replid = format!("epoch-{}", authority.epoch);
            redis.master_host.clear();
            state.admits = state.admits.map(|_| 0);
            redis.min_replicas = quorum.min_replicas;
            redis.max_lag_seconds = quorum.max_lag_seconds;
        }
        Command::Follow { master_name, data_epoch, .. } => {
            (redis.role, redis.fenced, redis.link) = (Role::Replica, true, Link::Up);
            let epoch = if *data_epoch > 0 { *data_epoch } else { authority.epoch };
            (redis.online_epoch, redis.silent_ms) = (epoch, 0);
            redis.master_host.clone_from(master_name);
            state.admits = state.admits.map(|_| 0);
        }
        Command::Admit { .. } => state.admits = Some(authority.epoch),
        Command::Save { label } => state.saved.push(label.clone()),
        Command::Discard { .. } => state.failed_starts = 0,
        Command::Restart => state.stopping = true,
        Command::Detach { .. } => {
            (redis.role, redis.fenced, redis.link) = (Role::Replica, true, Link::Down);
            redis.master_host.clear();
            state.promoted = false;
        }
        Command::Backup { .. }
        | Command::Restore { .. }
        | Command::Import { .. }
        | Command::Archive { .. }
        | Command::Verify { .. }
        | Command::StopArchive => {}
        Command::Fence | Command::HandOver { .. } => redis.fenced = true,
        Command::AwaitHandover { .. } => {
            (state.awaits, state.promoted) = (Some(authority.epoch), true);
        }
        Command::Unfence { quorum } => {
            redis.fenced = false;
            redis.min_replicas = quorum.min_replicas;
            redis.max_lag_seconds = quorum.max_lag_seconds;
        }
    }
}

/// Each master counts the replicas that are linked to it, and they have all that it has. Who is
/// attached to somebody, or master, writes down where its data stand.
fn attach(scene: &mut Scene) {
    let nodes = &mut scene.inventory.nodes;
    let masters: Vec<_> = nodes
        .values()
        .filter(|v| v.state.promoted)
        .map(|v| (v.state.mesh.dns_name.clone(), v.state.redis.clone()))
        .collect();
    for view in nodes.values_mut().filter(|v| v.connected) {
        let (own, promoted) = (&mut view.state.redis, view.state.promoted);
        let of = masters.iter().find(|(name, _)| own.is_linked() && &own.master_host == name);
        if let Some((_, master)) = of.filter(|(_, master)| !master.fenced) {
            (own.replid, own.offset) = (master.replid.clone(), master.offset);
        }
        if own.process == Process::Running && (promoted || own.is_linked()) {
            let epoch = if promoted { view.state.highest.epoch } else { own.online_epoch };
            let (replid, offset) = (own.replid.clone(), own.offset);
            view.state.history = Some(History { replid, offset, epoch, gap_ms: 0 });
        }
    }
    let linked: Vec<_> = nodes
        .values()
        .filter(|v| v.connected && v.state.redis.is_linked())
        .map(|v| (v.state.redis.master_host.clone(), v.state.mesh.dns_name.clone()))
        .collect();
    for view in nodes.values_mut() {
        let own = linked.iter().filter(|(host, _)| host == &view.state.mesh.dns_name);
        view.state.redis.replicas = own
            .map(|(_, replica)| AttachedReplica {
                name: replica.clone(),
                state: ReplicaState::Online,
                offset: view.state.redis.offset,
                lag_seconds: 0,
                behind_ms: 0,
            })
            .collect();
    }
}

/// The container of an incarnation starts, spends its key as this device, and its agent reports an
/// empty redis.
pub fn start(scene: &mut Scene, own: &IncarnationName, device: &str, now: UnixMs) {
    for key in scene.mesh().keys.iter_mut().filter(|k| k.description.ends_with(&own.0)) {
        key.invalid = true;
    }
    let like = device_of_node(0);
    scene.mesh().devices.push(Device {
        id: device.to_owned(),
        hostname: own.hostname(&installation()),
        name: format!("{own}.mesh"),
        ..like
    });
    let state = NodeState {
        incarnation: own.0.clone(),
        boot_id: format!("boot of {own}"),
        highest: Authority { term: TERM, epoch: 0 },
        mesh: NodeMesh {
            backend_state: BackendState::Running,
            dns_name: format!("{own}.mesh"),
            device_id: device.to_owned(),
            ..NodeMesh::default()
        },
        redis: RedisState {
            process: Process::Running,
            role: Role::Replica,
            run_id: format!("run of {own}"),
            replid: "empty".into(),
            fenced: true,
            ..RedisState::default()
        },
        ..NodeState::default()
    };
    scene.inventory.nodes.insert(own.clone(), NodeView { heard: now, connected: true, state });
}
