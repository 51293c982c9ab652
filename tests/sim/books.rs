//! The operator's books close to the last unit: against the ledger, whatever happens to escrows,
//! and whenever the operator dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::spend::report;
use akash_redis::chain::{Chain as _, booking};
use akash_redis::model::books::{Account, Head, TxEntry, Window, sums};
use akash_redis::model::chain::ChainMsg;
use akash_redis::model::money::{DEC_ONE, PricePerBlock, Uact};
use akash_redis::sdl;
use akash_redis::store::Books as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::lifecycle::THREE;
use crate::world::many::{in_many_worlds, setting};
use crate::world::{Terms, World};

/// A bookkeeper without an operator: it sends, reads and reckons.
struct Keeper {
    world: Arc<World>,
    accounts: BTreeMap<u64, Account>,
    txs: Vec<TxEntry>,
    head: Head,
    next: u64,
}

impl Keeper {
    fn new(world: Arc<World>) -> Self {
        Self { world, accounts: BTreeMap::new(), txs: Vec::new(), head: Head::default(), next: 1 }
    }

    /// Sends what can be signed, all of it before any of it is in a block.
    async fn send(&mut self, msgs: &[ChainMsg]) {
        let chain = self.world.chain.clone();
        let mut signed = Vec::new();
        for msg in msgs {
            // What the chain would refuse is not sent.
            signed.extend(chain.sign(msg).await.ok());
        }
        let ends = signed.iter().map(|tx| chain.broadcast_and_confirm(tx));
        for (tx, end) in signed.iter().zip(futures::future::join_all(ends).await) {
            let entry = booking::entry(chain.owner(), "cache", tx, &end.unwrap());
            // Whoever books it again changes nothing.
            self.txs.retain(|known| known.hash != tx.hash);
            self.txs.extend(entry);
        }
    }

    async fn create(&mut self, random: &mut StdRng) {
        let clusters = akash_redis::api::validate::parse(THREE).unwrap();
        let (dseq, price) = (self.next, PricePerBlock(1_000_000 * DEC_ONE));
        self.next += 1;
        let group = sdl::group(&clusters[0].spec, &format!("ar-test-cache-0-{dseq}"), price);
        let deposit = Uact(random.gen_range(500_000..2_000_000));
        self.accounts.insert(dseq, Account::new(dseq, "cache", "u", &format!("cache-0-{dseq}")));
        self.send(&[ChainMsg::CreateDeployment { dseq, group, hash: [7; 32], deposit }]).await;
    }

    async fn lease(&mut self, dseq: u64) {
        let view = self.read().await;
        let bids = view.deployments.get(&dseq).map(|d| d.bids.clone()).unwrap_or_default();
        let Some(bid) = bids.into_iter().min_by_key(|bid| bid.price) else { return };
        self.send(&[ChainMsg::CreateLease(bid.id)]).await;
    }

    /// Reads everything and takes its word.
    async fn read(&mut self) -> akash_redis::model::chain::ChainView {
        let known: BTreeSet<_> = self.accounts.keys().copied().collect();
        let view = self.world.chain.read(&known).await.unwrap();
        for (dseq, statement) in &view.statements {
            let txs = self.txs.iter().filter(|tx| tx.ok && tx.dseq == *dseq);
            let last = txs.map(|tx| tx.height).max().unwrap_or(0);
            let Some(account) = self.accounts.get_mut(dseq) else { continue };
            account.take(statement.clone(), last);
        }
        self.head = Head { height: view.height, at: view.block_time };
        view
    }

    /// Every deployment closes in itself, and all of them with the ledger.
    async fn audit(&mut self) {
        let view = self.read().await;
        for (dseq, account) in &self.accounts {
            let txs: Vec<_> = self.txs.iter().filter(|tx| tx.dseq == *dseq).cloned().collect();
            let sums = sums(Some(account), &txs, Some(self.head)).within(Window::ALL);
            let seed = self.world.seed;
            assert_eq!(
                sums.deposited,
                sums.paid + sums.refunded + sums.open,
                "seed {seed}: {dseq}"
            );
            let Some(shown) = view.deployments.get(dseq) else { continue };
            assert_eq!(sums.paid, shown.escrow.spent, "seed {seed}: {dseq} {account:?}");
            let left = if shown.escrow.open { shown.escrow.left } else { Uact(0) };
            assert_eq!(sums.open, left, "seed {seed}: {dseq} {account:?}");
        }
        let accounts: Vec<_> = self.accounts.values().cloned().collect();
        self.world.chain.audit(&accounts, &self.txs, self.head, self.world.seed);
    }
}

async fn deed(keeper: &mut Keeper, random: &mut StdRng) {
    let chain = keeper.world.chain.clone();
    let dseq = random.gen_range(1..keeper.next.max(2));
    let amount = Uact(random.gen_range(1..700_000));
    match random.gen_range(0..12) {
        0 | 1 => keeper.create(random).await,
        2..=4 => keeper.lease(dseq).await,
        5 | 6 => keeper.send(&[ChainMsg::Deposit { dseq, amount }]).await,
        // One of the two fails in its block, and costs its fee.
        7 => {
            keeper
                .send(&[ChainMsg::CloseDeployment { dseq }, ChainMsg::Deposit { dseq, amount }])
                .await;
        }
        8 if chain.leased(dseq) => chain.close_lease(dseq),
        9 => chain.withdraw(dseq),
        10 => {
            // Somebody else, out of what he earned; it is looked at while it is there.
            chain.deposit_of_another(dseq, amount.0 / 10);
            tokio::time::sleep(Duration::from_secs(7)).await;
            drop(keeper.read().await);
        }
        _ => drop(keeper.read().await),
    }
    tokio::time::sleep(Duration::from_secs(random.gen_range(0..200))).await;
}

/// `SIM_SEEDS=200` tries as many; `SIM_FIRST=17 SIM_SEEDS=1` the one that failed.
#[test]
fn the_sums_close_whatever_happens_to_escrows() {
    let (first, count) = (setting("SIM_FIRST", 1), setting("SIM_SEEDS", 20));
    in_many_worlds(first..=first + count - 1, 1, async |seed| {
        let world = World::on(Terms::new(seed, 4));
        let mut random = StdRng::seed_from_u64(seed);
        world.chain.every_provider(|p| p.price = random.gen_range(3_000..60_000));
        let mut keeper = Keeper::new(world);
        for _ in 0..60 {
            deed(&mut keeper, &mut random).await;
            if random.gen_bool(0.2) {
                keeper.audit().await;
            }
        }
        let dseqs: Vec<_> = keeper.accounts.keys().copied().collect();
        for dseq in dseqs {
            keeper.send(&[ChainMsg::CloseDeployment { dseq }]).await;
        }
        keeper.audit().await;
        let failed = keeper.txs.iter().filter(|tx| !tx.ok).count();
        let accounts: Vec<_> = keeper.accounts.values().cloned().collect();
        let total = report(&accounts, &keeper.txs, Some(keeper.head), None, None).total;
        assert_eq!(total.in_escrow_uact, 0, "seed {seed}");
        println!("seed {seed}: {} transactions, {failed} failed, {total:?}", keeper.txs.len());
    });
}

/// Each kind of write, just before and just after it is in the store.
#[test]
fn a_crash_between_landing_and_booking_counts_nothing_twice_and_forgets_nothing() {
    const WRITES: [&str; 5] =
        ["book create", "book lease", "drop a transaction", "put accounts", "book close"];
    let cases = u64::try_from(WRITES.len()).unwrap() * 2;
    in_many_worlds(0..=cases - 1, 1, async |case| {
        let world = World::new(7100 + case, 4);
        let watcher = world.restart_after_crashes();
        let (words, after) = (WRITES[usize::try_from(case / 2).unwrap()], case % 2 == 1);
        if words != "book close" {
            world.fuse.set_on(words, after);
        }
        world.start_operator().await;
        world.apply(THREE).await;
        world.until_ready("cache").await;
        if words == "book close" {
            world.fuse.set_on(words, after);
        }
        world.delete("cache").await;
        world.until_gone("cache").await;
        watcher.abort();
        world.kill_operator().await;
        assert_eq!(world.operator_starts(), 2, "case {case}: it died at `{words}`");
        world.assert_nothing_left();
        world.assert_books_close().await;
    });
}

/// What was promised of `spent`: it includes nodes that are gone, and is never above the deposits.
#[tokio::test(start_paused = true)]
async fn an_escrow_that_ran_dry_while_the_operator_was_away_cost_its_deposit_and_no_more() {
    let world = World::on(Terms { budget_global: Uact(20_000_000_000), ..Terms::new(7200, 8) });
    world.chain.every_provider(|p| p.price = 5_000);
    world.start_operator().await;
    let budget = "maxPerMonth: 9000act, deposit: 1act, runway: { low: 10m, target: 30m }";
    world.apply(&THREE.replace("maxPerMonth: 30act", budget)).await;
    world.until_ready("cache").await;
    let record = world.stored("cache").await.record;
    let master = record.master.unwrap().incarnation;
    let (dry, dseq) = record
        .incarnations
        .iter()
        .find(|(name, _)| **name != master)
        .map(|(name, i)| (name.clone(), i.dseq))
        .unwrap();
    world.kill_operator().await;
    // 200 blocks were paid when it was leased, some minutes ago.
    tokio::time::sleep(Duration::from_mins(20)).await;
    world.chain.withdraw(dseq);
    tokio::time::sleep(Duration::from_secs(7)).await;
    world.start_operator().await;
    world
        .until("the node is forgotten", Duration::from_mins(30), async || {
            !world.stored("cache").await.record.incarnations.contains_key(&dry)
        })
        .await;
    let (accounts, txs) =
        (world.store.accounts().await.unwrap(), world.store.booked_txs().await.unwrap());
    let account = accounts.iter().find(|account| account.dseq == dseq).unwrap();
    let own: Vec<_> = txs.iter().filter(|tx| tx.dseq == dseq).cloned().collect();
    let of = sums(Some(account), &own, None).within(Window::ALL);
    assert_eq!(of.deposited, of.paid, "all of it went to the provider");
    assert!(of.debt.0 > 0, "what it went on for is told apart");
    world.until_ready("cache").await;
    let spent = world.stored("cache").await.cluster.status.unwrap().cost.spent;
    let spent: akash_redis::api::quantity::Money = spent.parse().unwrap();
    let deposited: Uact = txs.iter().map(|tx| tx.deposit).sum();
    assert!(of.paid < spent.0 && spent.0 <= deposited, "{} of {deposited}", spent.0);
    world.delete("cache").await;
    world.until_gone("cache").await;
    world.kill_operator().await;
    world.assert_books_close().await;
}

/// The books of a deleted cluster stay, and a new one of its name is another one.
#[tokio::test(start_paused = true)]
async fn books_outlive_their_cluster() {
    let world = World::new(7300, 4);
    world.start_operator().await;
    for _ in 0..2 {
        world.apply(THREE).await;
        world.until_ready("cache").await;
        world.delete("cache").await;
        world.until_gone("cache").await;
    }
    world.kill_operator().await;
    world.assert_books_close().await;
    let (accounts, txs) =
        (world.store.accounts().await.unwrap(), world.store.booked_txs().await.unwrap());
    let spend = report(&accounts, &txs, None, Some("cache"), None);
    assert_eq!(spend.clusters.len(), 2, "{:?}", spend.clusters);
    assert!(spend.clusters.iter().all(|c| c.amounts.paid_uact > 0 && c.amounts.fees_uakt > 0));
}
