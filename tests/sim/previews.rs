//! What an apply would do is told without doing any of it.

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::validate;
use akash_redis::model::record::Record;
use akash_redis::server::appraiser::Appraisal;
use akash_redis::store::{Objects as _, Outbox as _, Stored};

use crate::lifecycle::THREE;
use crate::world::World;

fn object(yaml: &str, record: Record) -> Stored {
    let cluster = validate::parse(yaml).unwrap().remove(0);
    Stored { cluster, record, record_version: 0 }
}

async fn appraise(world: &Arc<World>, wanted: Vec<Stored>) -> Vec<Appraisal> {
    let appraiser = world.appraiser.lock().unwrap().clone().expect("an operator");
    appraiser.appraise(wanted).await
}

#[tokio::test(start_paused = true)]
async fn nothing_is_changed_or_bought_by_asking() {
    let world = World::new(61, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let before = (world.chain.creates(), world.chain.wallet(), world.stored("cache").await.record);

    let other = THREE.replace("name: cache", "name: other");
    let five = THREE.replace("nodes: 3", "nodes: 5");
    let stored = world.stored("cache").await;
    for _ in 0..20 {
        let more = Stored { record: stored.record.clone(), ..object(&five, Record::default()) };
        let told = appraise(&world, vec![object(&other, Record::default()), more]).await;
        let bills: Vec<_> = told.iter().map(|one| one.bill.clone().expect("a bill")).collect();
        assert_eq!((bills[0].new_nodes, bills[1].new_nodes), (3, 2), "{told:#?}");
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    assert_eq!(world.store.list().await.unwrap().len(), 1);
    assert!(world.store.kept_txs().await.unwrap().is_empty());
    let after = (world.chain.creates(), world.chain.wallet(), world.stored("cache").await.record);
    assert_eq!(after, before);
}

#[tokio::test(start_paused = true)]
async fn the_bill_is_what_is_paid_then() {
    let world = World::new(62, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let wallet = world.chain.wallet();
    let other = THREE.replace("name: cache", "name: other");
    let told = appraise(&world, vec![object(&other, Record::default())]).await.remove(0);
    let bill = told.bill.expect("a bill");
    let [low, high] = bill.observed.expect("nodes of this size run");
    assert!(low <= high && bill.observed_of >= 3, "{bill:?}");
    assert_eq!((told.offers.listed, told.offers.unknown), (5, None));
    assert_eq!(told.offers.matching, 5, "{:?}", told.offers.first);
    assert!(told.warnings[0].contains("other has no user"), "{:?}", told.warnings);

    world.apply(&other).await;
    world
        .until("the deposits to be paid", Duration::from_mins(2), async || {
            world.chain.active_deployments().len() == 6
        })
        .await;
    let deposits = u128::from(bill.deposits.expect("known").0.0);
    assert_eq!(wallet - world.chain.wallet(), deposits);
    world.until_ready("other").await;
    let status = world.stored("other").await.cluster.status.expect("a status");
    let per_month: akash_redis::api::quantity::Money = status.cost.per_month.parse().unwrap();
    assert!(per_month <= bill.at_most.expect("known"), "{per_month} of {:?}", bill.at_most);
}

#[tokio::test(start_paused = true)]
async fn manifests_of_one_apply_share_the_wallet_and_the_budget() {
    let world = World::new(63, 5);
    world.start_operator().await;
    world.apply(THREE).await;
    world.until_ready("cache").await;
    let names = ["a", "b"].map(|name| THREE.replace("name: cache", &format!("name: {name}")));
    let both: Vec<_> = names.iter().map(|yaml| object(yaml, Record::default())).collect();
    let told = appraise(&world, both).await;
    let balance = |at: usize| told[at].bill.as_ref().unwrap().balance.unwrap().0.0;
    let deposits = told[0].bill.as_ref().unwrap().deposits.unwrap().0.0;
    assert_eq!(balance(0) - balance(1), deposits);
}

#[tokio::test(start_paused = true)]
async fn while_the_chain_is_away_the_answer_says_so() {
    let world = World::new(64, 4);
    world.chain.fault(|faults| faults.away = true);
    world.start_operator().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let told = appraise(&world, vec![object(THREE, Record::default())]).await.remove(0);
    assert!(told.bill.is_none() && told.offers.unknown.is_some(), "{told:?}");
    assert!(told.warnings.iter().any(|one| one.contains("chain")), "{:?}", told.warnings);
    assert_eq!(world.chain.creates(), 0);
}
