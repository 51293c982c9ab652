//! Has tailscaled look for the way to the others each second while one of them is not heard.
//!
//! By itself it trusts a direct path for 6.5 s, sends by the relay alone after that, and looks for
//! the direct one once in 5 s: where the relay is away too, a path that carries again is silent for
//! up to 6 s more. Both ends have to look: each sends by the way that it found itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::state::Node;
use crate::mesh::local::{LocalClient, LocalPeer, LocalStatus};
use crate::model::node::{Process, RedisState, Role};

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// Redis and its replicas speak to each other once a second.
const SILENT_MS: u64 = 2000;
/// Who is away for longer is not away because of its path.
const LONGEST: Duration = Duration::from_secs(30);
/// Peers that are looked for at a time.
const MOST: usize = 32;

/// Looks until `stop`.
pub async fn keep_looking(node: Arc<Node>, api: LocalClient, stop: CancellationToken) {
    let looking = async {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since = None;
        loop {
            ticks.tick().await;
            if !misses_somebody(&node.peek().redis) {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() < LONGEST {
                look(&api).await;
            }
        }
    };
    stop.run_until_cancelled(looking).await;
}

/// Whether the master is silent for this replica, or a replica for this master.
fn misses_somebody(redis: &RedisState) -> bool {
    match (redis.process, redis.role) {
        (Process::Running, Role::Replica) => {
            !redis.master_host.is_empty() && redis.silent_ms >= SILENT_MS
        }
        (Process::Running, Role::Master) => {
            redis.replicas.iter().any(|r| u64::from(r.lag_seconds) * 1000 >= SILENT_MS)
        }
        _ => false,
    }
}

/// Whoever was spoken to lately is looked for: the others, the operator, applications.
async fn look(api: &LocalClient) {
    let Some(status) = api.status().await.ok().filter(LocalStatus::running) else { return };
    let active = status.peer.iter().flat_map(BTreeMap::values).filter(|peer| peer.active);
    let looks = active.filter_map(LocalPeer::ip).take(MOST).map(|ip| timeout(EVERY, api.ping(ip)));
    join_all(looks).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::AttachedReplica;

    #[test]
    fn a_silent_master_and_a_silent_replica_are_missed() {
        let replica = |silent_ms| RedisState {
            process: Process::Running,
            role: Role::Replica,
            master_host: "cache-0.mesh.test".into(),
            silent_ms,
            ..RedisState::default()
        };
        assert!(misses_somebody(&replica(2000)));
        assert!(!misses_somebody(&replica(1999)));
        assert!(!misses_somebody(&RedisState { master_host: String::new(), ..replica(9000) }));
        assert!(!misses_somebody(&RedisState { process: Process::Exited, ..replica(9000) }));

        let attached = |lag_seconds| AttachedReplica { lag_seconds, ..AttachedReplica::default() };
        let master = |lags: [u32; 2]| RedisState {
            process: Process::Running,
            role: Role::Master,
            replicas: lags.map(attached).into(),
            ..RedisState::default()
        };
        assert!(misses_somebody(&master([0, 2])));
        assert!(!misses_somebody(&master([1, 0])));
    }
}
