//! What is left of those given up: the rules of `plan/cleanup.rs`.

use std::collections::BTreeMap;

use akash_redis::model::chain::{ChainView, DeploymentView, EscrowView, GroupState};
use akash_redis::model::inventory::Reading;
use akash_redis::model::mesh::MeshView;
use akash_redis::model::record::{Condemned, Membership};
use akash_redis::model::step::Effect;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, name};

/// A record that names the deployment of somebody else, however that came about.
#[test]
fn a_deployment_whose_group_is_another_clusters_is_never_closed() {
    for (group, closes) in [
        ("ar-abcdef-cache-2-aaaa", true),
        ("ar-abcdef-other-2-aaaa", false),
        ("ar-zzzzzz-cache-2-aaaa", false),
    ] {
        let mut scene = Scene::three();
        scene.record.incarnations.get_mut(&name(2)).unwrap().condemned =
            Some(Condemned { at: UnixMs(NOW - 1_000), reason: "x".into(), ..Condemned::default() });
        scene.incarnation(2).lower(Membership::Member);
        let deployment = DeploymentView {
            dseq: 102,
            active: true,
            hash: vec![],
            group_name: group.into(),
            group: GroupState::Open,
            open_order: None,
            bids: vec![],
            leases: vec![],
            escrow: EscrowView::default(),
        };
        let deployments = BTreeMap::from([(102, deployment)]);
        let view = ChainView {
            height: 5,
            block_time: UnixMs(NOW),
            block_ms: 6_000,
            deployments,
            ..ChainView::default()
        };
        scene.inventory.chain = Reading::fresh(view, UnixMs(NOW));
        scene.inventory.mesh = Reading::fresh(MeshView::default(), UnixMs(NOW));
        let plan = scene.plan(NOW);
        let closed = plan
            .steps
            .iter()
            .any(|s| matches!(s.effect, Effect::CloseDeployment { dseq: 102, .. }));
        assert_eq!(closed, closes, "{group}");
    }
}
