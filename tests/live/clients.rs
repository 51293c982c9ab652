//! Real clients of Sentinel, each with its own retries, on a machine that reaches the tailnet as an
//! application in another lease does: they ride through all that moves a master, and nothing that
//! was acknowledged is lost.

use std::collections::HashSet;
use std::time::Duration;

use akash_redis::api::status::NodeStatus;
use akash_redis::devnet::sandbox::Sandbox;

use crate::application::{Client, SOME, all_write, programs};
use crate::machine::Machine;
use crate::sandboxed::sandboxed;
use crate::sentinel::{THROUGH, addresses, beside_a_cluster};
use crate::stage::{CLUSTER, PASSWORD, Stage, until};

const LIMIT: Duration = Duration::from_mins(9);
/// A machine that loses its power takes with it what it acknowledged in its last moment, and had not
/// yet handed to a replica.
const LAST_MOMENT: f64 = 1000.0;

/// Waits until all write, and says what each met since the last call.
async fn end(clients: &[Client], event: &str) {
    all_write(clients, event).await;
    for client in clients {
        let mut tally = client.tally();
        let (errors, gap) =
            (std::mem::take(&mut tally.errors), std::mem::take(&mut tally.longest_gap));
        println!(
            "{event}: {}: {errors:?}, longest gap {gap:.0} ms, first write after {:?}; last error of it so far: {}",
            client.name, tally.first, tally.last_error
        );
    }
}

/// Waits for a master that is not this one.
pub async fn moved(stage: &Stage, from: &NodeStatus) -> NodeStatus {
    let another = async || stage.master().await.incarnation != from.incarnation;
    until("another master", another).await;
    stage.master().await
}

/// What the master at this address has of a client's writes.
pub async fn written(machine: &Machine, master: &str, key: &str) -> HashSet<u64> {
    let asked = format!(
        "{THROUGH} redis-cli -h {master} --user app --pass {PASSWORD} --no-auth-warning SMEMBERS '{key}'"
    );
    machine.says(&asked).await.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn real_clients_ride_through_all_that_moves_a_master() {
    sandboxed(
        "clients::real_clients_ride_through_all_that_moves_a_master",
        LIMIT,
        async |sandbox: Sandbox| {
            let (mut stage, machine) = beside_a_cluster(&sandbox).await;
            stage.until_ready().await;
            let all = addresses(&stage).await;
            let first = stage.master().await;
            let first_address =
                all.iter().find(|(n, _)| *n == first.incarnation).unwrap().1.clone();
            // All ask the node first that will be lost.
            let mut nodes = vec![first_address.clone()];
            nodes.extend(all.iter().map(|(_, a)| a.clone()).filter(|a| *a != first_address));
            let programs = programs().await;
            let start = |suffix: &str, nodes: &[String]| -> Vec<Client> {
                programs.iter().map(|p| Client::start(&machine, p, suffix, nodes)).collect()
            };
            let clients = start("", &nodes);
            end(&clients, "start").await;

            stage.kill_redis(&first);
            let second = moved(&stage, &first).await;
            end(&clients, "failover").await;
            stage.until_ready().await;

            let ordinal = second.ordinal.to_string();
            let said = stage.cli(&["migrate", CLUSTER, &ordinal]).await;
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            let gone = |status: &akash_redis::api::status::Status| {
                status.nodes.iter().all(|node| node.incarnation != second.incarnation)
            };
            stage.until_status("the migration", gone).await;
            stage.until_ready().await;
            end(&clients, "migration").await;

            let before = stage.master().await;
            if before.incarnation != first.incarnation {
                let said = stage.cli(&["switchover", CLUSTER, "--to", &first.incarnation]).await;
                assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
                moved(&stage, &before).await;
            }
            end(&clients, "switchover").await;
            stage.until_ready().await;

            let (provider, lease) = stage.local.market.find(first.dseq).unwrap();
            let acked: Vec<_> = clients.iter().map(Client::acked).collect();
            assert!(stage.local.market.providers[provider].runner.power_off(&lease));
            let last = moved(&stage, &first).await;
            end(&clients, "node lost").await;

            stage.local.kill_operator().await;
            // The first node of their list is dead.
            let all = addresses(&stage).await;
            let living = all.iter().map(|(_, at)| at).filter(|at| **at != first_address);
            let first_dead: Vec<_> =
                std::iter::once(&first_address).chain(living).cloned().collect();
            let later = start("-later", &first_dead);
            end(&later, "start, operator away").await;
            end(&clients, "operator away").await;

            let master = all.iter().find(|(n, _)| *n == last.incarnation).unwrap().1.clone();
            for (client, acked) in
                clients.iter().zip(acked).chain(later.iter().zip(std::iter::repeat(0)))
            {
                let wrote = client.tally().acked.clone();
                let lost_at = wrote.get(acked).map_or(0.0, |(_, at)| *at);
                let doubtful = |at: f64| lost_at > 0.0 && (at - lost_at).abs() < LAST_MOMENT;
                // What a queue took is done a little later.
                let mut missing = Vec::new();
                until("all that was acknowledged", async || {
                    let has = written(&machine, &master, &client.key).await;
                    missing = wrote.iter().filter(|(n, _)| !has.contains(n)).copied().collect();
                    if !missing.is_empty() {
                        println!(
                            "{}: {missing:?} missing, the machine was lost at {lost_at}",
                            client.key
                        );
                    }
                    missing.iter().all(|(_, at)| doubtful(*at))
                })
                .await;
                assert!(wrote.len() > SOME, "{}", client.key);
            }
        },
    );
}
