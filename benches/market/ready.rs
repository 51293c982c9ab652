//! How long it takes until a cluster is Ready, and how many deployments get into one block, in the
//! simulated world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use akash_redis::model::money::Uact;
use akash_redis::plan::Timing;
use serde::Serialize;

use crate::world::many::in_a_world;
use crate::world::{Terms, World};

/// From a manifest to a node that logs in, in the simulated world.
const PROVIDER_START: Duration = Duration::from_secs(2);
/// Blocks that nobody can do without: for the deployment, the lease, and the manifest's hash.
const BLOCKS: u32 = 3;
/// Between two looks whether it is Ready.
const LOOK: Duration = Duration::from_millis(10);
/// Deployments that are wanted at once.
pub const WANTED: usize = 60;

/// Of one block time.
#[derive(Debug, Serialize)]
pub struct Ready {
    pub block_s: f64,
    pub floor_s: f64,
    #[serde(rename = "ready_s")]
    pub took_s: f64,
    pub ratio: f64,
}

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: {{ name: {name} }}
spec:
  nodes: 3
  resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}
  budget: {{ maxPerMonth: 2000act }}
"
    )
}

/// As `devnet up` sets it where blocks come fast; the defaults otherwise.
fn terms(block: Duration) -> Terms {
    let wealthy = Terms {
        wallet: Uact(900_000_000_000),
        budget_global: Uact(1_000_000_000_000),
        ..Terms::new(1, 4)
    };
    if block > Duration::from_secs(1) {
        return wealthy;
    }
    let timing = Timing { bid_window: Duration::from_millis(1500), ..Timing::default() };
    Terms { timing, tick: Duration::from_millis(500), ..wealthy }
}

pub fn apply_to_ready(block: Duration) -> (Ready, Arc<World>) {
    in_a_world(async {
        let world = World::on(terms(block));
        world.chain.fault(|f| {
            f.block = Some(block);
            f.block_ms = u64::try_from(block.as_millis()).ok();
        });
        world.start_operator().await;
        // Some blocks after the first one, as in an operator that runs.
        tokio::time::sleep(10 * block + block / 3).await;
        let began = world.clock.now();
        world.apply(&manifest("cache")).await;
        while !world.ready("cache").await {
            tokio::time::sleep(LOOK).await;
        }
        let ready = world.clock.now().since(began);
        let floor = BLOCKS * block + PROVIDER_START;
        let ready = Ready {
            block_s: block.as_secs_f64(),
            floor_s: floor.as_secs_f64(),
            took_s: ready.as_secs_f64(),
            ratio: ready.as_secs_f64() / floor.as_secs_f64(),
        };
        (ready, world)
    })
}

/// The most deployments that were created at one height when many clusters are applied at once.
pub fn deployments_in_a_block() -> usize {
    in_a_world(async {
        let world = World::on(terms(Duration::from_secs(6)));
        world.start_operator().await;
        for number in 0..WANTED / 3 {
            world.apply(&manifest(&format!("c{number}"))).await;
        }
        world
            .until("all deployments", Duration::from_hours(1), async || {
                world.chain.creates() >= WANTED
            })
            .await;
        let mut heights: BTreeMap<i64, usize> = BTreeMap::new();
        for (height, _) in world.chain.creations() {
            *heights.entry(height).or_default() += 1;
        }
        heights.into_values().max().unwrap_or_default()
    })
}
