//! Nobody may take over: the rules of `plan/elect.rs`.

use akash_redis::api::conditions::{EventReason, Reason};
use akash_redis::api::types::ACCEPT_LOSS;
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::node::History;
use akash_redis::model::record::Membership;

use crate::scene::{NOW, Scene, degraded, detached, has_event, name, promoted};

#[test]
fn data_in_memory_count_in_a_cold_start() {
    let mut scene = Scene::three();
    scene.record.master = None;
    (scene.record.epoch, scene.record.data_epoch) = (2, 2);
    scene.record.data_master = Some(IncarnationName("cache-1-gone".into()));
    scene.record.incarnations.values_mut().for_each(|i| i.lower(Membership::Member));
    for n in 0..3 {
        let keys = if n == 2 { 100_000 } else { 0 };
        scene.heard(
            n,
            detached(n, |s| {
                s.redis.keys = keys;
                s.redis.online_epoch = 0;
                s.redis.offset = i64::try_from(keys).unwrap();
            }),
        );
    }
    let plan = scene.plan(NOW);
    assert!(!has_event(&plan, EventReason::DataLost), "{:?}", plan.events);
    assert_eq!(promoted(&plan), [name(2)]);
}

#[test]
fn two_histories_that_cannot_be_compared_block_and_name_a_command() {
    let mut scene = Scene::three();
    scene.record.master = None;
    scene.record.incarnations.values_mut().for_each(|i| i.lower(Membership::Member));
    for (n, replid) in [(0, "A"), (1, "B"), (2, "A")] {
        scene.heard(
            n,
            detached(n, |s| {
                s.history =
                    Some(History { replid: replid.into(), offset: 100, epoch: 1, gap_ms: 0 });
            }),
        );
    }
    let plan = scene.plan(NOW);
    assert!(promoted(&plan).is_empty());
    let (reason, message) = degraded(&plan);
    assert!(
        reason == Reason::HistoryUnclear
            && message.contains("akash-redis failover cache --accept-loss"),
        "{message}"
    );
    scene.cluster.metadata.annotations.insert(ACCEPT_LOSS.to_owned(), "1".into());
    assert_eq!(promoted(&scene.plan(NOW)).len(), 1, "a person decided");
}
