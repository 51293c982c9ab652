//! Clients that have nothing set but the address of a proxy: by themselves they ask to be told of
//! planned changes, are told, and see no error.

use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;

use crate::application::{Client, all_write, programs};
use crate::client_table::proxy;
use crate::clients::moved;
use crate::sandboxed::sandboxed;
use crate::sentinel::{addresses, beside_a_cluster};
use crate::stage::{CLUSTER, until};

const LIMIT: Duration = Duration::from_mins(5);

#[test]
fn clients_in_their_default_settings_are_told_of_a_planned_change() {
    let test = "notified::clients_in_their_default_settings_are_told_of_a_planned_change";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let (stage, machine) = beside_a_cluster(&sandbox).await;
        stage.until_ready().await;
        let nodes: Vec<_> = addresses(&stage).await.into_iter().map(|(_, at)| at).collect();
        let _proxy = proxy(&stage, &machine, &nodes).await;
        let asks = ["redis-py", "go-redis"];
        let all = programs().await;
        let all = all.iter().filter(|program| asks.contains(&&*program.name));
        let clients: Vec<_> = all
            .map(|program| program.behind("127.0.0.1:6379"))
            .map(|program| Client::start(&machine, &program, "", &nodes))
            .collect();
        assert_eq!(clients.len(), asks.len());
        all_write(&clients, "start").await;
        for _ in 0..2 {
            let before = stage.master().await;
            let said = stage.cli(&["switchover", CLUSTER]).await;
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            moved(&stage, &before).await;
            stage.until_ready().await;
            all_write(&clients, "switchover").await;
        }
        for client in &clients {
            until("both words", async || {
                let tally = client.tally();
                ["FailingOver", "FailedOver"]
                    .iter()
                    .all(|word| tally.told.get(*word).is_some_and(|times| *times >= 2))
            })
            .await;
            let tally = client.tally();
            println!(
                "{}: told {:?}, longest gap {:.0} ms",
                client.name, tally.told, tally.longest_gap
            );
            assert!(tally.errors.is_empty(), "{}: {}", client.name, tally.last_error);
        }
    });
}
