//! The chain of a simulation: the local market's ledger under the virtual clock, with a block every
//! six seconds. Every change goes through signed bytes, ours as those of the providers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use akash_redis::chain::booking;
use akash_redis::chain::client::GasPrice;
use akash_redis::chain::fees;
use akash_redis::chain::statement::statement;
use akash_redis::chain::tx::{self, FeeOffer};
use akash_redis::chain::view::{self, Parts};
use akash_redis::chain::wallet::Wallet;
use akash_redis::chain::{Chain, ChainError};
use akash_redis::devnet::account::timestamp;
use akash_redis::devnet::ledger::{
    ESCROW_POT, Genesis, Ledger, ONE, Params, TxError, UACT, UAKT, View,
};
use akash_redis::model::books::{Account, Head, Payer, TxEntry, sums};
use akash_redis::model::chain::{
    ChainMsg, ChainView, ProviderOffer, ProviderView, Receipt, SignedTx, TxOutcome,
};
use akash_redis::model::money::Uact;
use akash_redis::model::time::UnixMs;
use akash_redis::wire::akash::deployment::v1::DeploymentId;
use akash_redis::wire::akash::deployment::v1beta4 as deployment;
use akash_redis::wire::akash::market::v1::lease::State as LeaseState;
use akash_redis::wire::akash::market::v1::{Lease, LeaseClosedReason, LeaseFilters};
use akash_redis::wire::akash::market::v1beta5 as market;
use akash_redis::wire::akash::provider::v1beta4::Provider as Registered;
use async_trait::async_trait;

use super::Terms;
use super::clock::{BEGIN, Clock};
use super::fuse::Fuse;
use super::providers::{self, ALL, Provider};
use super::status_page::Witness;

/// Time between blocks, as on the public network.
const BLOCK: Duration = Duration::from_secs(6);
/// Blocks of 30 days.
pub const BLOCKS_A_MONTH: u128 = 30 * 24 * 3600 / 6;
/// One call to the chain.
const CALL: Duration = Duration::from_millis(50);
/// How long a client tries while the chain is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that were not found are sent again after this time.
const SEND_AGAIN: Duration = Duration::from_secs(10);
/// No transaction is waited for any longer while the endpoint shows no new block.
const STANDS_STILL: Duration = Duration::from_mins(3);
/// Blocks that an endpoint can be behind by.
pub const REMEMBERED: usize = 20;
/// Life of a transaction in block time, nanoseconds.
const LIFE_NANOS: u64 = 60_000_000_000;
/// Everybody's uakt: more than all fees of any run.
const RICH: u128 = 1_000_000_000_000;
/// Public test data of the network's own software development kit.
const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch improve \
                      setup stuff frost spirit smart alien";

static WALLET: LazyLock<Arc<Wallet>> =
    LazyLock::new(|| Arc::new(Wallet::from_phrase(&PHRASE.into(), 0).unwrap()));

/// What the wallet holds where money is no matter.
pub const USUAL: Uact = Uact(100_000_000);
static MARKET: LazyLock<Ledger> = LazyLock::new(|| market(USUAL));

/// A chain on which all providers are registered already.
fn market(wallet: Uact) -> Ledger {
    let accounts = std::iter::once((WALLET.address().to_owned(), RICH, u128::from(wallet.0)));
    let accounts = accounts.chain(ALL.iter().map(|p| (p.address().to_owned(), RICH, 0)));
    let mut ledger =
        Ledger::new(Genesis::with_accounts(accounts.collect(), (BEGIN - 6000) * 1_000_000));
    for index in 0..ALL.len() {
        let index = u32::try_from(index).unwrap();
        ledger.submit(&providers::registration(ledger.view(), &Provider::new(index))).unwrap();
    }
    let registered = ledger.advance(BEGIN * 1_000_000);
    assert!(registered.iter().all(|record| record.error.is_none()), "{registered:?}");
    ledger
}

/// Everything behind the chain's endpoint.
struct State {
    ledger: Ledger,
    /// The blocks before the last, the youngest first, for endpoints that are behind.
    before: VecDeque<View>,
    /// An endpoint that stopped following the chain.
    stuck: Option<View>,
    providers: Vec<Provider>,
    /// Signatures so far, so that no two of a key share a time-out.
    signed: u64,
    /// Transactions of ours that were taken at least once.
    taken: BTreeSet<String>,
}

/// What the trace has of a reading of everything.
pub const WHOLE_CHAIN: &str = "read the whole chain";

/// The chain with the providers that bid on it.
pub struct SimChain {
    clock: Clock,
    fuse: Arc<Fuse>,
    witness: Arc<Witness>,
    state: Mutex<State>,
    faults: Mutex<Faults>,
    wallet_before: u128,
}

/// What goes wrong with the chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Its endpoint does not answer; blocks go on.
    pub away: bool,
    /// The endpoint is so many blocks behind, of at most [`REMEMBERED`].
    pub behind: usize,
    /// So many bids are taken back in the moment in which they are to become a lease.
    pub vanishing: u32,
    /// What readings say of the time between blocks, milliseconds, in place of the truth.
    pub block_ms: Option<u64>,
    /// The client sends nothing: its day's fees are spent.
    pub fees_spent: bool,
    /// So many transactions are taken, and their senders hear nothing.
    pub lost_answers: u32,
    /// Transactions get into blocks in another order than they came.
    pub reordered: bool,
    /// No block is made.
    pub halted: bool,
    /// Time between blocks in place of the usual one.
    pub block: Option<Duration>,
}

impl State {
    /// The chain as its endpoint shows it.
    fn shown(&self, behind: usize) -> &View {
        let late = behind.checked_sub(1).and_then(|n| self.before.get(n).or(self.before.back()));
        self.stuck.as_ref().or(late).unwrap_or(self.ledger.view())
    }
}

impl SimChain {
    /// A market on these terms.
    pub fn new(clock: Clock, fuse: Arc<Fuse>, witness: Arc<Witness>, terms: Terms) -> Arc<Self> {
        let Terms { providers, wallet, .. } = terms;
        let providers: Vec<_> = (0..providers).map(Provider::new).collect();
        let ledger = if wallet == USUAL { MARKET.clone() } else { market(wallet) };
        let state = State {
            before: VecDeque::new(),
            stuck: None,
            ledger,
            providers,
            signed: 0,
            taken: BTreeSet::new(),
        };
        Arc::new(Self {
            clock,
            fuse,
            witness,
            state: Mutex::new(state),
            faults: Mutex::default(),
            wallet_before: u128::from(wallet.0),
        })
    }

    /// Makes blocks for ever; before each one the providers bid.
    pub async fn run(self: Arc<Self>) {
        loop {
            let faults = self.faults();
            tokio::time::sleep(faults.block.unwrap_or(BLOCK)).await;
            if self.faults().halted {
                continue;
            }
            let now = self.clock.now().0 * 1_000_000;
            let state = &mut *self.state.lock().unwrap();
            for provider in &state.providers {
                if let Some(tx) = provider.bids(state.ledger.view(), &mut state.signed) {
                    // A second transaction of the same moment is refused: the bid comes a block
                    // later.
                    let _ = state.ledger.submit(&tx);
                }
            }
            state.before.push_front(state.ledger.view().clone());
            state.before.truncate(REMEMBERED);
            for tx in providers::close_reclaimed(state.ledger.view(), &mut state.signed) {
                // It may have ended otherwise.
                let _ = state.ledger.submit(&tx);
            }
            if self.faults().reordered {
                state.ledger.advance_reordered(now);
            } else {
                state.ledger.advance(now);
            }
        }
    }

    /// The provider of a deployment announces that it will close its lease, and does after the
    /// notice.
    pub fn start_reclaim(&self, dseq: u64) {
        let state = &mut *self.state.lock().unwrap();
        let tx = providers::start_reclaim(state.ledger.view(), dseq, &mut state.signed)
            .expect("a running lease");
        state.ledger.submit(&tx).unwrap();
    }

    /// Governance asks for at least this deposit.
    pub fn set_min_deposit(&self, uact: u128) {
        let ledger = &mut self.state.lock().unwrap().ledger;
        let params = ledger.view().genesis().params.clone();
        ledger.set_params(Params { min_deposit: uact, ..params });
    }

    /// So much time passes with blocks in which nothing happens; providers take what they earned
    /// before, where `withdraws` says so.
    pub fn skip(&self, time: Duration, withdraws: bool) {
        let state = &mut *self.state.lock().unwrap();
        if withdraws {
            for tx in providers::withdrawals(state.ledger.view(), &mut state.signed) {
                let _ = state.ledger.submit(&tx);
            }
        }
        let now = u128::from(self.clock.now().0) * 1_000_000 + time.as_nanos();
        let blocks = (time.as_secs() / BLOCK.as_secs()).max(1);
        state.before.clear();
        state.ledger.skip(blocks, u64::try_from(now).unwrap());
    }

    /// Leases of each deployment that ever was, by the name of its group, oldest first.
    pub fn leases_by_group(&self) -> Vec<(String, u64, Vec<LeaseState>)> {
        self.see(|v| {
            let leases = |dseq| {
                v.leases()
                    .filter(|l| l.id.as_ref().is_some_and(|id| id.dseq == dseq))
                    .map(Lease::state)
                    .collect()
            };
            v.groups()
                .filter_map(|g| {
                    let dseq = g.id.as_ref()?.dseq;
                    Some((g.group_spec.as_ref()?.name.clone(), dseq, leases(dseq)))
                })
                .collect()
        })
    }

    /// What lies in the escrow of a deployment, settled to now, in whole uact.
    pub fn escrow_of(&self, dseq: u64) -> u64 {
        let known = BTreeSet::from([dseq]);
        self.see(|v| read(v, WALLET.address(), &known).deployments[&dseq].escrow.left.0)
    }

    /// The endpoint shows this moment from now on, or follows again.
    pub fn stick(&self, view: Option<View>) {
        self.state.lock().unwrap().stuck = view;
    }

    /// The state as it is.
    pub fn snapshot(&self) -> View {
        self.state.lock().unwrap().ledger.view().clone()
    }

    /// Changes what goes wrong.
    pub fn fault(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap());
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    fn see<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(self.state.lock().unwrap().ledger.view())
    }

    /// Changes a provider as its owner would.
    pub fn provider(&self, index: usize, change: impl FnOnce(&mut Provider)) {
        change(&mut self.state.lock().unwrap().providers[index]);
    }

    /// Changes all providers.
    pub fn every_provider(&self, change: impl FnMut(&mut Provider)) {
        self.state.lock().unwrap().providers.iter_mut().for_each(change);
    }

    /// The provider closes the active lease of a deployment because it is unstable; it is so in the
    /// next block.
    pub fn close_lease(&self, dseq: u64) {
        let state = &mut *self.state.lock().unwrap();
        let tx = providers::end_lease(state.ledger.view(), dseq, &mut state.signed)
            .expect("an active lease");
        state.ledger.submit(&tx).unwrap();
    }

    /// The provider of a deployment takes out what it earned, in the next block.
    pub fn withdraw(&self, dseq: u64) {
        let state = &mut *self.state.lock().unwrap();
        if let Some(tx) = providers::withdraw(state.ledger.view(), dseq, &mut state.signed) {
            // A second transaction of the same moment is refused.
            let _ = state.ledger.submit(&tx);
        }
    }

    /// Somebody who has that much pays into the escrow of a deployment, in the next block.
    pub fn deposit_of_another(&self, dseq: u64, uact: u64) {
        let state = &mut *self.state.lock().unwrap();
        let (view, signed) = (state.ledger.view(), &mut state.signed);
        if let Some(tx) = providers::deposit(view, WALLET.address(), dseq, uact, signed) {
            let _ = state.ledger.submit(&tx);
        }
    }

    /// The books are what the ledger shows, to the last unit: of the wallet in both coins, and of
    /// what providers got, which they may have paid into other escrows.
    pub fn audit(&self, accounts: &[Account], txs: &[TxEntry], head: Head, seed: u64) {
        let (mut own, mut fees, mut others, mut paid) = (0i128, 0u128, 0i128, 0i128);
        let mut open = 0i128;
        for account in accounts {
            let of: Vec<_> = txs.iter().filter(|tx| tx.dseq == account.dseq).cloned().collect();
            let sums = sums(Some(account), &of, Some(head));
            for deposit in &sums.deposits {
                let sum = if deposit.payer == Payer::Own { &mut own } else { &mut others };
                *sum += i128::from(deposit.amount.0);
            }
            for refund in &sums.refunds {
                let sum = if refund.payer == Payer::Own { &mut own } else { &mut others };
                *sum -= i128::from(refund.amount.0);
            }
            paid += sums.paid.iter().map(|to| i128::from(to.amount.0)).sum::<i128>();
            open += i128::from(sums.open.0);
            fees += sums.fees.iter().map(|fee| u128::from(fee.uakt)).sum::<u128>();
        }
        let signed = |n: u128| i128::try_from(n).unwrap();
        assert_eq!(
            signed(self.wallet_before) - signed(self.wallet()),
            own,
            "seed {seed}: what the wallet lacks is what it paid in and did not get back"
        );
        let burnt = self.see(|v| RICH - v.balance(WALLET.address(), UAKT));
        assert_eq!(burnt, fees, "seed {seed}: fees");
        let earned: u128 = self.see(|v| ALL.iter().map(|p| v.balance(p.address(), UACT)).sum());
        // What a lease earned lies in the pot until its provider takes it.
        assert_eq!(
            signed(earned) + signed(self.in_escrow()) + others,
            paid + open,
            "seed {seed}: what was paid and what is left"
        );
    }

    /// Heights at which deployments were made and leased.
    pub fn leased_at(&self) -> Vec<(i64, i64)> {
        self.see(|v| {
            let made = |dseq| {
                v.deployments()
                    .find(|d| d.id.as_ref().is_some_and(|id| id.dseq == dseq))
                    .map(|d| d.created_at)
            };
            let leases = v.leases();
            leases.filter_map(|l| Some((made(l.id.as_ref()?.dseq)?, l.created_at))).collect()
        })
    }

    pub fn leased(&self, dseq: u64) -> bool {
        self.see(|v| {
            v.leases()
                .any(|l| providers::runs(l) && l.id.as_ref().is_some_and(|id| id.dseq == dseq))
        })
    }

    /// The provider of a deployment's newest lease.
    pub fn lessor(&self, dseq: u64) -> Option<String> {
        self.see(|v| {
            let of = |l: &&Lease| l.id.as_ref().is_some_and(|id| id.dseq == dseq);
            v.leases().filter(of).last().and_then(|l| Some(l.id.as_ref()?.provider.clone()))
        })
    }

    /// Its owner closed the lease of a deployment.
    pub fn closed_by_owner(&self, dseq: u64) -> bool {
        self.see(|v| {
            v.leases().any(|l| {
                l.reason() == LeaseClosedReason::LeaseClosedOwner
                    && l.id.as_ref().is_some_and(|id| id.dseq == dseq)
            })
        })
    }

    pub fn hash_of(&self, dseq: u64) -> Option<[u8; 32]> {
        let id = DeploymentId { owner: WALLET.address().to_owned(), dseq };
        self.see(|v| v.query_deployment(&id).ok()?.deployment?.hash.try_into().ok())
    }

    pub fn active_deployments(&self) -> BTreeSet<u64> {
        use akash_redis::wire::akash::deployment::v1::deployment::State;
        self.see(|v| {
            v.deployments()
                .filter(|d| d.state() == State::Active)
                .filter_map(|d| Some(d.id.as_ref()?.dseq))
                .collect()
        })
    }

    pub fn providers_in_use(&self) -> BTreeSet<String> {
        self.see(|v| {
            v.leases()
                .filter(|l| providers::runs(l))
                .filter_map(|l| Some(l.id.as_ref()?.provider.clone()))
                .collect()
        })
    }

    /// What all active leases together cost, in whole uact.
    pub fn rate_per_block(&self) -> u128 {
        self.rate_of(|_| true)
    }

    fn rate_of(&self, dseq: impl Fn(u64) -> bool) -> u128 {
        let price = |amount: &str| amount.parse::<u128>().unwrap() / ONE.unsigned_abs();
        self.see(|v| {
            let active = v
                .leases()
                .filter(|l| providers::runs(l) && l.id.as_ref().is_some_and(|id| dseq(id.dseq)));
            active.filter_map(|l| Some(price(&l.price.as_ref()?.amount))).sum()
        })
    }

    /// Promises 7: only what stands in the record is touched, only what is condemned is closed, no
    /// lease goes above the budget.
    async fn judge(&self, msg: &ChainMsg) {
        match msg {
            ChainMsg::CloseDeployment { dseq } => self.witness.closes(*dseq).await,
            ChainMsg::CreateDeployment { dseq, .. } | ChainMsg::UpdateDeployment { dseq, .. } => {
                self.witness.touches(*dseq).await;
            }
            ChainMsg::Deposit { dseq, .. } => self.witness.fills(*dseq).await,
            ChainMsg::MintAct { .. } => {
                self.witness.expect(false, || "AKT is burnt though nobody asked".to_owned());
            }
            ChainMsg::CreateLease(lease) => {
                self.witness.touches(lease.dseq).await;
                let Some((own, budget)) = self.witness.budget(lease.dseq).await else { return };
                let bid = self.see(|v| providers::price_of(v, lease)) / ONE.unsigned_abs();
                let month = (self.rate_of(|dseq| own.contains(&dseq)) + bid) * BLOCKS_A_MONTH;
                self.witness.expect(month <= u128::from(budget.0), || {
                    format!("{month}uact a month are leased, the budget is {budget}")
                });
            }
        }
    }

    /// Heights at which deployments were created, oldest first, by the name of their group.
    pub fn creations(&self) -> Vec<(i64, String)> {
        self.see(|v| {
            let name = |dseq| {
                let group = v.groups().find(|g| g.id.as_ref().is_some_and(|id| id.dseq == dseq));
                group.and_then(|g| Some(g.group_spec.as_ref()?.name.clone())).unwrap_or_default()
            };
            let mut all: Vec<_> = v
                .deployments()
                .map(|d| (d.created_at, name(d.id.as_ref().map_or(0, |id| id.dseq))))
                .collect();
            all.sort();
            all
        })
    }

    /// Deployments that were ever created.
    pub fn creates(&self) -> usize {
        self.see(|v| v.deployments().count())
    }

    /// What lies in escrow for our deployments and for what providers have not taken yet, in uact,
    /// a started unit as a whole one.
    pub fn in_escrow(&self) -> u128 {
        self.see(|v| v.balance(ESCROW_POT, UACT))
    }

    pub fn wallet(&self) -> u128 {
        self.see(|v| v.balance(WALLET.address(), UACT))
    }

    /// Every coin is somewhere: what the wallet lacks, providers have earned or escrow holds.
    pub fn assert_coins_are_conserved(&self, seed: u64) {
        let earned: u128 = self.see(|v| ALL.iter().map(|p| v.balance(p.address(), UACT)).sum());
        assert_eq!(
            self.wallet_before - self.wallet(),
            earned + self.in_escrow(),
            "seed {seed}: coins were made or lost"
        );
        self.see(|v| {
            let own_word = v.held_in_escrow(UACT);
            let pot =
                i128::try_from(v.balance(ESCROW_POT, UACT)).unwrap() * 1_000_000_000_000_000_000;
            assert_eq!(own_word, pot, "seed {seed}: escrow accounts do not add up to the pot");
            assert_eq!(
                v.supply(UAKT),
                RICH * (1 + ALL.len() as u128),
                "seed {seed}: fees were made or lost"
            );
        });
    }

    fn away(&self) -> Result<(), ChainError> {
        if self.faults().away {
            return Err(away("connection refused"));
        }
        Ok(())
    }

    /// As [`Self::away`], after the time for which a client tries again.
    async fn patiently_away(&self) -> Result<(), ChainError> {
        if self.away().is_err() {
            tokio::time::sleep(PATIENCE).await;
        }
        self.away()
    }

    fn sign_now(&self, msg: &ChainMsg) -> Result<SignedTx, TxError> {
        let behind = self.faults().behind;
        let state = &mut *self.state.lock().unwrap();
        state.signed += 1;
        let block = state.shown(behind).block();
        let timeout = block.time_ns + LIFE_NANOS - 1_000_000_000 + state.signed;
        let body = tx::body(WALLET.address(), msg, timestamp(timeout));
        let offer = fees::for_simulation(GasPrice::USUAL, None);
        let draft = tx::raw(body.clone(), tx::auth_info(WALLET.public_key(), &offer), Vec::new());
        let gas = fees::limit(
            state.ledger.simulate(&draft).map_err(|(error, _)| error)?.gas_used,
            msg,
            0,
        );
        let fee = FeeOffer { uakt: GasPrice::USUAL.fee(gas), gas, granter: None };
        let auth = tx::auth_info(WALLET.public_key(), &fee);
        let number = state.ledger.view().account_info(WALLET.address()).unwrap().account_number;
        let signature = WALLET.sign(&tx::sign_doc(
            &body,
            &auth,
            &state.ledger.view().genesis().chain_id,
            number,
        ));
        let bytes = tx::raw(body, auth, signature.to_vec());
        let timeout = UnixMs(timeout.div_ceil(1_000_000));
        Ok(SignedTx {
            dseq: msg.dseq(),
            purpose: tx::purpose(msg),
            hash: tx::hash(&bytes),
            bytes,
            timeout,
        })
    }

    /// The provider of a bid that is about to be leased changes its mind just before.
    fn vanish(&self, msg: &ChainMsg) {
        let ChainMsg::CreateLease(lease) = msg else { return };
        let mut faults = self.faults.lock().unwrap();
        if faults.vanishing > 0 {
            faults.vanishing -= 1;
            let state = &mut *self.state.lock().unwrap();
            let tx = providers::take_back(state.ledger.view(), lease, &mut state.signed);
            state.ledger.submit(&tx).unwrap();
        }
    }

    /// Sends the bytes. A refusal is the end of those that were never taken; of others only a
    /// look-up tells.
    fn submit(&self, tx: &SignedTx) -> Option<TxOutcome> {
        let state = &mut *self.state.lock().unwrap();
        match state.ledger.submit(&tx.bytes) {
            Ok(()) => {
                state.taken.insert(tx.hash.clone());
                None
            }
            Err(_) if state.taken.contains(&tx.hash) => None,
            Err(error) => Some(failed(&error, None)),
        }
    }

    /// Whether this answer is one of those that are lost.
    fn loses_answer(&self) -> bool {
        let mut faults = self.faults.lock().unwrap();
        let lost = faults.lost_answers > 0;
        faults.lost_answers = faults.lost_answers.saturating_sub(1);
        lost
    }

    /// Its end, when it has one; else the block time up to which it was looked for.
    fn look(&self, tx: &SignedTx) -> Result<TxOutcome, UnixMs> {
        let behind = self.faults().behind;
        let state = self.state.lock().unwrap();
        let block = state.shown(behind).block();
        match state.ledger.tx(&tx.hash).filter(|record| record.block.height <= block.height) {
            None => Err(UnixMs(block.time_ns / 1_000_000)),
            Some(record) => {
                let (height, ok) =
                    (i64::try_from(record.block.height).unwrap(), record.error.is_none());
                let at = UnixMs(record.block.time_ns / 1_000_000).to_string();
                let receipt = booking::receipt(height, &at, ok, &record.events, &tx.bytes);
                Ok(match &record.error {
                    None => TxOutcome::Landed { height, receipt },
                    Some(error) => failed(error, Some(receipt)),
                })
            }
        }
    }
}

fn away(why: &'static str) -> ChainError {
    ChainError::Away { endpoint: "http://chain.test".to_owned(), source: why.into() }
}

fn failed(error: &TxError, receipt: Option<Receipt>) -> TxOutcome {
    let codespace = error.codespace.to_owned();
    TxOutcome::Failed { codespace, code: error.code, log: text(error), receipt }
}

fn text(error: &TxError) -> String {
    String::from_utf8_lossy(&error.log).into_owned()
}

/// All answers about one owner, as the client asks for them.
fn parts(v: &View, owner: &str, known: &BTreeSet<u64>) -> BTreeMap<u64, Parts> {
    let owner = owner.to_owned();
    let ids = v
        .deployments()
        .filter_map(|d| Some((d.id.as_ref()?.dseq, d.state().as_str_name() == "active")));
    let wanted = ids.filter(|(dseq, active)| *active || known.contains(dseq)).map(|(dseq, _)| dseq);
    let orders =
        market::OrderFilters { owner: owner.clone(), state: "open".into(), ..Default::default() };
    let orders = v
        .query_orders(&market::QueryOrdersRequest { filters: Some(orders), pagination: None })
        .unwrap()
        .orders;
    let bids =
        market::BidFilters { owner: owner.clone(), state: "open".into(), ..Default::default() };
    let bids = v
        .query_bids(&market::QueryBidsRequest { filters: Some(bids), pagination: None })
        .unwrap()
        .bids;
    wanted
        .map(|dseq| {
            let deployment =
                v.query_deployment(&DeploymentId { owner: owner.clone(), dseq }).unwrap();
            let filters = LeaseFilters { owner: owner.clone(), dseq, ..Default::default() };
            let leases = v
                .query_leases(&market::QueryLeasesRequest {
                    filters: Some(filters),
                    pagination: None,
                })
                .unwrap()
                .leases;
            let orders = orders
                .iter()
                .filter(|o| o.id.as_ref().is_some_and(|id| id.dseq == dseq))
                .cloned()
                .collect();
            let bids = bids
                .iter()
                .filter_map(|b| b.bid.clone())
                .filter(|b| b.id.as_ref().is_some_and(|id| id.dseq == dseq))
                .collect();
            (dseq, Parts { deployment, orders, bids, leases })
        })
        .collect()
}

fn read(v: &View, owner: &str, known: &BTreeSet<u64>) -> ChainView {
    let height = i64::try_from(v.block().height).unwrap();
    let (at, parts) = (UnixMs(v.block().time_ns / 1_000_000), parts(v, owner, known));
    let block_ms = u64::try_from(BLOCK.as_millis()).unwrap();
    let statements = parts
        .iter()
        .map(|(dseq, parts)| (*dseq, statement(parts, height, at, block_ms).unwrap()))
        .collect();
    let deployments = parts
        .into_iter()
        .map(|(dseq, parts)| (dseq, view::deployment(parts, height).unwrap()))
        .collect();
    let providers = v.providers().map(|p| {
        let attributes = p.attributes.iter().map(|a| (a.key.clone(), a.value.clone())).collect();
        (
            p.owner.clone(),
            ProviderView { address: p.owner.clone(), host_uri: p.host_uri.clone(), attributes },
        )
    });
    let least = |params: deployment::Params| {
        params.min_deposits.iter().find(|c| c.denom == UACT).map(|c| c.amount.parse().unwrap())
    };
    ChainView {
        height,
        block_time: at,
        block_ms,
        balance: Uact(u64::try_from(v.balance(owner, UACT)).unwrap()),
        fee_balance: u64::try_from(v.balance(owner, UAKT)).unwrap(),
        funds: akash_redis::model::funds::Funds::default(),
        min_deposit: Uact(least(v.deployment_params()).unwrap_or_default()),
        providers: providers.collect(),
        deployments,
        statements,
    }
}

impl SimChain {
    /// Between two looks for a transaction: four in a block, as the client does.
    fn look_every(&self) -> Duration {
        let block = self.faults().block.unwrap_or(BLOCK);
        (block / 4).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }

    async fn look_at(&self, known: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        tokio::time::sleep(CALL).await;
        self.patiently_away().await?;
        let behind = self.faults().behind;
        let mut view = read(self.state.lock().unwrap().shown(behind), WALLET.address(), known);
        view.block_ms = self.faults().block_ms.unwrap_or(view.block_ms);
        Ok(view)
    }
}

#[async_trait]
impl Chain for SimChain {
    fn owner(&self) -> &str {
        WALLET.address()
    }

    async fn read(&self, known: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        self.fuse.trace.add(WHOLE_CHAIN);
        self.look_at(known).await
    }

    async fn read_deployments(&self, dseqs: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        let mut view = self.look_at(dseqs).await?;
        view.deployments.retain(|dseq, _| dseqs.contains(dseq));
        view.statements.retain(|dseq, _| dseqs.contains(dseq));
        Ok(view)
    }

    async fn sign(&self, msg: &ChainMsg) -> Result<SignedTx, ChainError> {
        let call = format!("sign {} {}", tx::purpose(msg), msg.dseq());
        self.fuse.before(&call).await;
        tokio::time::sleep(CALL).await;
        self.patiently_away().await?;
        if self.faults().fees_spent {
            let why =
                "the fees of the last 24 hours would be more than chain.maxFeePerDay".to_owned();
            return Err(ChainError::NotSent { what: tx::purpose(msg), why });
        }
        let signed = self.sign_now(msg).map_err(|error| ChainError::Refused {
            what: tx::purpose(msg),
            codespace: error.codespace.to_owned(),
            code: error.code,
            log: text(&error),
        });
        if signed.is_ok() {
            self.judge(msg).await;
        }
        self.vanish(msg);
        self.fuse.after(&call, signed.as_ref().map(|tx| tx.timeout)).await;
        signed
    }

    async fn broadcast_and_confirm(&self, tx: &SignedTx) -> Result<TxOutcome, ChainError> {
        let call = format!("broadcast {} {}", tx.purpose, tx.dseq);
        self.fuse.before(&call).await;
        let began = tokio::time::Instant::now();
        let mut send_at = began;
        let outcome = loop {
            self.patiently_away().await?;
            if tokio::time::Instant::now() >= send_at {
                send_at += SEND_AGAIN;
                let refused = self.submit(tx);
                if self.loses_answer() {
                    return Err(away("the connection was reset"));
                }
                self.fuse.after(&call, &refused).await;
                if let Some(outcome) = refused {
                    return Ok(outcome);
                }
            }
            match self.look(tx) {
                Ok(outcome) => break outcome,
                Err(block_time) if block_time > tx.timeout + 3 * BLOCK => break TxOutcome::Expired,
                Err(_) if began.elapsed() > STANDS_STILL => {
                    return Err(away("the blocks stand still"));
                }
                Err(_) => tokio::time::sleep(self.look_every()).await,
            }
        };
        self.fuse.after(&call, &outcome).await;
        Ok(outcome)
    }

    async fn providers(&self, _: bool) -> Result<Vec<ProviderOffer>, ChainError> {
        self.patiently_away().await?;
        let state = self.state.lock().unwrap();
        let offer = |provider: &Registered| ProviderOffer {
            view: ProviderView {
                address: provider.owner.clone(),
                host_uri: provider.host_uri.clone(),
                attributes: provider
                    .attributes
                    .iter()
                    .map(|a| (a.key.clone(), a.value.clone()))
                    .collect(),
            },
            audits: BTreeMap::new(),
        };
        // All accounts are registered; only those of this market are there.
        let here = |one: &&Registered| state.providers.iter().any(|p| p.address() == one.owner);
        Ok(state.ledger.view().providers().filter(here).map(offer).collect())
    }
}
