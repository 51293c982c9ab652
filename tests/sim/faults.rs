//! Promises 5 and 7: a bad market, outages and too little money end in waiting or in a refusal with
//! a sentence, and leave nothing behind.

mod chain;
mod clocks;
mod devices;
mod market;
mod money;
mod outages;
mod providers;
mod quarantine;
mod settings;
mod syncs;
pub mod walk;

use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::annotations::MIGRATE;
use akash_redis::api::status::Condition;
use akash_redis::model::ids::IncarnationName;
use akash_redis::store::Objects as _;

use crate::lifecycle::THREE;
use crate::world::{Terms, World};

/// Longer than any retry of the operator.
const LONG: Duration = Duration::from_hours(2);

/// A cluster of three that is up and takes writes.
async fn running(terms: Terms) -> Arc<World> {
    running_as(terms, THREE).await
}

/// One of another manifest.
async fn running_as(terms: Terms, yaml: &str) -> Arc<World> {
    let world = World::on(terms);
    world.start_operator().await;
    world.apply(yaml).await;
    world.until_ready("cache").await;
    let before = world.written();
    world.until("writes", Duration::from_mins(1), async || world.written() > before + 20).await;
    world
}

/// A condition of the published status.
async fn condition(world: &World, name: &str, kind: &str) -> Condition {
    let status = world.stored(name).await.cluster.status.unwrap_or_default();
    status
        .conditions
        .into_iter()
        .find(|c| c.kind.to_string() == kind)
        .unwrap_or_else(|| panic!("no condition {kind}"))
}

/// Waits until a condition holds whose message contains all of `words`.
async fn told(world: &World, name: &str, kind: &str, status: &str, words: &[&str]) {
    let what = format!("{kind} {status} with {words:?}");
    world
        .until(&what, Duration::from_mins(30), async || {
            let Some(published) = world.stored(name).await.cluster.status else { return false };
            published.conditions.iter().any(|c| {
                c.kind.to_string() == kind
                    && c.status.to_string() == status
                    && words.iter().all(|w| c.message.contains(w))
            })
        })
        .await;
}

/// Waits until the status says that something is waited for.
async fn waits_for(world: &World, name: &str, words: &str) {
    world
        .until(&format!("waiting for {words}"), Duration::from_mins(10), async || {
            let Some(published) = world.stored(name).await.cluster.status else { return false };
            published.waiting.iter().any(|w| w.what.contains(words))
        })
        .await;
}

/// The cluster comes up, is deleted, and leaves nothing.
async fn comes_up_and_goes(world: &Arc<World>, name: &str) {
    world.until("Ready", LONG, async || world.ready(name).await).await;
    goes(world, name).await;
    world.assert_nothing_left();
}

async fn goes(world: &Arc<World>, name: &str) {
    world.delete(name).await;
    world.until("deletion", LONG, async || world.store.get(name).await.is_err()).await;
}

/// Incarnations that are not given up, the master first.
async fn live(world: &World) -> Vec<IncarnationName> {
    let record = world.stored("cache").await.record;
    let master = record.master.map(|p| p.incarnation);
    let mut live: Vec<_> = record
        .incarnations
        .into_iter()
        .filter(|(_, i)| i.condemned.is_none())
        .map(|(n, _)| n)
        .collect();
    live.sort_by_key(|n| Some(n) != master.as_ref());
    live
}

async fn dseq_of(world: &World, name: &IncarnationName) -> u64 {
    world.stored("cache").await.record.incarnations[name].dseq
}

async fn migrate(world: &World, name: &IncarnationName) {
    world
        .edit("cache", |c| {
            c.metadata.annotations.insert(MIGRATE.to_owned(), name.0.clone());
        })
        .await;
}
