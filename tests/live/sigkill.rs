//! The operator is killed by SIGKILL at a moment of a bring-up or of a deletion, and started again:
//! the end state is always the same, nothing is bought twice, nothing is left over.

use std::fmt;
use std::time::{Duration, Instant};

use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::model::record::Record;
use akash_redis::wire::akash::deployment::v1::deployment;
use akash_redis::wire::akash::market::v1::lease;
use akash_redis::wire::akash::market::v1beta5::bid;
use comfy_table::Table;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::{Connection, OpenFlags};
use tokio::time::sleep;

use crate::outage::nft;
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Left, Stage, cluster, until};

/// Of the moments at random delays.
const SEED: u64 = 20_260_101;
const LIMIT: Duration = Duration::from_mins(4);

/// What there is of the cluster at one instant.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Incarnations in the record, and how many of them have a chosen bid.
    recorded: (usize, usize),
    /// What signed transactions are for whose end the operator does not know.
    kept: Vec<String>,
    /// Deployments and leases that are active, bids that are open.
    deployments: usize,
    leases: usize,
    bids: usize,
    keys: usize,
    devices: usize,
    /// Started containers.
    containers: usize,
    /// Nodes that were heard, and those that may be promoted.
    joined: usize,
    candidates: usize,
    master: bool,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("recorded", self.recorded.0),
            ("chosen", self.recorded.1),
            ("deployments", self.deployments),
            ("bids", self.bids),
            ("leases", self.leases),
            ("keys", self.keys),
            ("containers", self.containers),
            ("devices", self.devices),
            ("joined", self.joined),
            ("in sync", self.candidates),
        ];
        let mut words: Vec<String> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        words.extend(self.master.then(|| "a master".to_owned()));
        let signed = |purpose: &String| {
            format!(
                "signed: {}",
                purpose.split_terminator(|c: char| c.is_ascii_digit()).next().unwrap_or_default()
            )
        };
        words.extend(self.kept.iter().map(signed).map(|text| text.trim_end().to_owned()));
        f.write_str(&if words.is_empty() { "nothing".to_owned() } else { words.join(", ") })
    }
}

/// What becomes of the transaction that the operator had just signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Blocks are made all the time.
    Free,
    /// It lands while no operator runs.
    LandsAlone,
    /// It waits in the chain's memory until the operator is back.
    Waits,
    /// It never reached the chain.
    Lost,
}

enum When {
    /// As soon as the second is seen; from the first on blocks stand still, unless the
    /// transaction's fate is free.
    Seen(fn(&Seen) -> bool, fn(&Seen) -> bool),
    /// As above, after the deletion was asked for.
    Deleting(fn(&Seen) -> bool, fn(&Seen) -> bool),
    /// After a delay.
    Later(Duration),
}

struct Moment {
    what: String,
    nodes: u32,
    when: When,
    fate: Fate,
    /// It was killed before, with a lease and nothing delivered: the secret of the key is lost, and
    /// another one is minted.
    again: bool,
}

fn seen(what: &str, nodes: u32, now: fn(&Seen) -> bool) -> Moment {
    Moment {
        what: what.to_owned(),
        nodes,
        when: When::Seen(|_| true, now),
        fate: Fate::Free,
        again: false,
    }
}

fn signed(what: &str, fate: Fate, hold: fn(&Seen) -> bool, now: fn(&Seen) -> bool) -> Moment {
    Moment { what: what.to_owned(), nodes: 1, when: When::Seen(hold, now), fate, again: false }
}

/// A bring-up takes some five seconds.
fn later(random: &mut StdRng, nodes: u32) -> Moment {
    let delay = Duration::from_millis(random.gen_range(1000..5000));
    Moment {
        what: format!("{} ms after the apply", delay.as_millis()),
        nodes,
        when: When::Later(delay),
        fate: Fate::Free,
        again: false,
    }
}

fn kept(seen: &Seen, word: &str) -> bool {
    seen.kept.iter().any(|purpose| purpose.starts_with(word))
}

/// Moments until the lease exists.
fn early() -> Vec<Moment> {
    let creating = |seen: &Seen| kept(seen, "create");
    let mut random = StdRng::seed_from_u64(SEED);
    vec![
        seen("applied", 1, |_| true),
        seen("the node is reserved in the record", 1, |s| s.recorded.0 > 0),
        signed(
            "the create is signed; it lands while no operator runs",
            Fate::LandsAlone,
            |_| true,
            creating,
        ),
        signed(
            "the create is signed; it lands when the operator is back",
            Fate::Waits,
            |_| true,
            creating,
        ),
        signed("the create is signed; it never reached the chain", Fate::Lost, |_| true, creating),
        seen("the deployment exists", 1, |s| s.deployments > 0),
        seen("three bids are there, none is chosen", 1, |s| s.bids >= 3),
        signed(
            "the lease is signed; it lands while no operator runs",
            Fate::LandsAlone,
            |s| s.bids >= 3,
            |s| kept(s, "lease"),
        ),
        signed(
            "the lease is signed; it lands when the operator is back",
            Fate::Waits,
            |s| s.bids >= 3,
            |s| kept(s, "lease"),
        ),
        later(&mut random, 1),
        seen("the first of three leases exists", 3, |s| s.leases > 0),
        later(&mut random, 3),
    ]
}

/// Moments from the lease to the end.
fn late() -> Vec<Moment> {
    let storing = |seen: &Seen| kept(seen, "store");
    let mut random = StdRng::seed_from_u64(SEED + 1);
    let deleting = |what: &str, fate, hold, now| Moment {
        what: what.to_owned(),
        nodes: 1,
        when: When::Deleting(hold, now),
        fate,
        again: false,
    };
    let again = |what: &str, fate| Moment { again: true, ..signed(what, fate, |_| true, storing) };
    vec![
        seen("the lease exists, nothing is delivered", 1, |s| s.leases > 0),
        again(
            "another key is minted, the manifest's hash is signed; it lands alone",
            Fate::LandsAlone,
        ),
        again("another key is minted, the manifest's hash never reached the chain", Fate::Lost),
        seen("the container is started", 1, |s| s.containers > 0),
        seen("the node has a device on the mesh", 1, |s| s.devices > 0),
        seen("the node was heard", 1, |s| s.joined > 0),
        seen("the master takes writes", 1, |s| s.master),
        deleting(
            "deleting: the close is signed; it lands alone",
            Fate::LandsAlone,
            |_| true,
            |s| kept(s, "close"),
        ),
        deleting(
            "deleting: the close never reached the chain",
            Fate::Lost,
            |_| true,
            |s| kept(s, "close"),
        ),
        deleting(
            "deleting: the deployment is closed",
            Fate::Free,
            |_| true,
            |s| s.deployments == 0,
        ),
        seen("two of three nodes were heard", 3, |s| s.joined >= 2),
        later(&mut random, 3),
    ]
}

#[test]
fn an_operator_killed_before_the_lease_ends_in_the_same_state() {
    sandboxed(
        "sigkill::an_operator_killed_before_the_lease_ends_in_the_same_state",
        LIMIT,
        async |sandbox| play(sandbox, early()).await,
    );
}

#[test]
fn an_operator_killed_after_the_lease_ends_in_the_same_state() {
    sandboxed(
        "sigkill::an_operator_killed_after_the_lease_ends_in_the_same_state",
        LIMIT,
        async |sandbox| play(sandbox, late()).await,
    );
}

async fn play(sandbox: Sandbox, moments: Vec<Moment>) {
    let mut stage = Stage::start(&sandbox).await;
    let mut table = Table::new();
    table.set_header([
        "killed when",
        "nodes",
        "what was there",
        "bought",
        "end state",
        "after the deletion",
        "s",
    ]);
    for moment in moments {
        let begun = Instant::now();
        let round = round(&mut stage, &moment).await;
        let left = stage.left().await;
        let after = if left == Left::default() {
            "nothing left, all refunded".to_owned()
        } else {
            format!("{left:?}")
        };
        let took = format!("{:.1}", begun.elapsed().as_secs_f64());
        table.add_row([
            moment.what,
            moment.nodes.to_string(),
            round.there.to_string(),
            round.bought,
            round.end,
            after,
            took,
        ]);
    }
    println!("{table}");
}

struct Round {
    there: Seen,
    bought: String,
    end: String,
}

async fn round(stage: &mut Stage, moment: &Moment) -> Round {
    let before = stage.local.market.chain.view();
    let before = (before.deployments().count(), before.leases().count());
    stage.client.apply(&cluster(moment.nodes)).await.unwrap();
    if matches!(moment.when, When::Deleting(..)) {
        stage.until_ready().await;
        stage.client.delete(CLUSTER, true).await.unwrap();
    }
    if moment.again {
        nft(
            "add table inet away; add chain inet away input { type filter hook input priority 0; }",
        )
        .await;
        nft("add rule inet away input tcp dport 8443 reject with tcp reset").await;
        until("a lease", async || look(stage).await.leases > 0).await;
        stage.local.kill_operator().await;
        nft("delete table inet away").await;
        stage.local.start_operator().await.unwrap();
    }
    reach(stage, moment).await;
    stage.local.kill_operator().await;
    let there = look(stage).await;
    println!("killed when: {}; there was: {there}", moment.what);
    restart(stage, moment.fate).await;

    let end = if matches!(moment.when, When::Deleting(..)) {
        "gone".to_owned()
    } else {
        bring_to_ready(stage, moment).await
    };
    stage.until_deleted().await;
    stage.assert_nothing_left().await;
    let after = stage.local.market.chain.view();
    let nodes = moment.nodes as usize;
    let bought = (after.deployments().count() - before.0, after.leases().count() - before.1);
    assert_eq!(
        bought,
        (nodes, nodes),
        "deployments and leases made for {nodes} nodes, killed when {}",
        moment.what
    );
    Round { there, bought: format!("{} deployments, {} leases", bought.0, bought.1), end }
}

/// Waits for the moment.
async fn reach(stage: &Stage, moment: &Moment) {
    let faults = stage.local.market.chain.faults();
    let (hold, now) = match moment.when {
        When::Later(delay) => return sleep(delay).await,
        When::Seen(hold, now) | When::Deleting(hold, now) => (hold, now),
    };
    let mut halted = moment.fate == Fate::Free;
    until(&moment.what, async || {
        let sight = look(stage).await;
        if !halted && hold(&sight) {
            halted = true;
            faults.stop_blocks(true);
            if moment.fate == Fate::Lost {
                faults.lose_next_request();
            }
        }
        now(&sight)
    })
    .await;
}

/// Starts the operator again, with blocks going on before or after.
async fn restart(stage: &mut Stage, fate: Fate) {
    if fate == Fate::LandsAlone {
        let height = stage.local.market.chain.view().block().height;
        stage.local.market.chain.faults().stop_blocks(false);
        until("the next blocks", async || {
            stage.local.market.chain.view().block().height > height + 1
        })
        .await;
    }
    stage.local.start_operator().await.unwrap();
    stage.local.market.chain.faults().stop_blocks(false);
}

async fn bring_to_ready(stage: &Stage, moment: &Moment) -> String {
    let status = stage.until_ready().await;
    let nodes = moment.nodes as usize;
    assert_eq!(status.nodes.len(), nodes, "{status:#?}");
    let whole = Left { deployments: nodes, devices: nodes, workloads: nodes, keys: 0, escrow: 0 };
    until("exactly what the cluster needs", async || {
        Left { escrow: 0, ..stage.left().await } == whole
    })
    .await;
    stage.client.delete(CLUSTER, true).await.unwrap();
    format!("Ready: {nodes} deployments, {nodes} devices, 0 unused keys")
}

async fn look(stage: &Stage) -> Seen {
    let view = stage.local.market.chain.view();
    let (record, kept) = notebook(stage).unwrap_or_default();
    let entries = || record.incarnations.values();
    Seen {
        recorded: (entries().count(), entries().filter(|i| i.lease.is_some()).count()),
        kept,
        deployments: view
            .deployments()
            .filter(|d| d.state == i32::from(deployment::State::Active))
            .count(),
        leases: view.leases().filter(|l| l.state == i32::from(lease::State::Active)).count(),
        bids: view.bids().filter(|b| b.state == i32::from(bid::State::Open)).count(),
        keys: stage.keys().await,
        devices: stage.devices().await,
        containers: stage
            .local
            .market
            .providers
            .iter()
            .flat_map(|p| p.runner.leases().into_iter().filter_map(|l| p.runner.pid(&l)))
            .count(),
        joined: entries().filter(|i| i.has_joined()).count(),
        candidates: entries().filter(|i| i.is_candidate()).count(),
        master: record.master.is_some_and(|promotion| promotion.confirmed),
    }
}

/// The record and the kept transactions as they are on the disk; none while there is no cluster.
fn notebook(stage: &Stage) -> rusqlite::Result<(Record, Vec<String>)> {
    let store = Connection::open_with_flags(
        stage.local.config().with_file_name("store.db"),
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    )?;
    let record: String = store.query_row("SELECT record FROM object", [], |row| row.get(0))?;
    let mut txs = store.prepare("SELECT purpose FROM tx")?;
    let kept = txs.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok((serde_json::from_str(&record).unwrap_or_default(), kept))
}
