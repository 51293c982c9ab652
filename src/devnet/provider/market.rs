//! What a provider does on the chain: it registers, bids on orders, follows its leases, takes its
//! money, and takes back bids that nobody wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::LeaseHost;
use super::client::{ChainClient, ClientError};
use super::faults::{ProviderFault, ProviderFaults};
use super::price;
use crate::devnet::account::{Account, any};
use crate::wire::akash::base::attributes::v1::Attribute;
use crate::wire::akash::base::deposit::v1::{Deposit, Source};
use crate::wire::akash::cert::v1::MsgCreateCertificate;
use crate::wire::akash::deployment::v1beta4::GroupSpec;
use crate::wire::akash::market::v1::{BidId, LeaseClosedReason, LeaseId, OrderId};
use crate::wire::akash::market::v1beta5::{
    MsgCloseBid, MsgCreateBid, MsgLeaseStartReclaim, MsgWithdrawLease,
};
use crate::wire::akash::provider::v1beta4::{MsgCreateProvider, MsgUpdateProvider};
use crate::wire::cosmos::base::v1beta1::{Coin, DecCoin};

/// Deposit that each bid puts up, in `uakt`.
const BID_DEPOSIT: &str = "500000";

/// A provider.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Its name, for people.
    pub name: String,
    /// Who signs and is paid; it needs `uakt`.
    pub account: Account,
    /// Where its gateway answers: `https://host:8443`.
    pub host_uri: String,
    /// Where it says to be.
    pub region: String,
    /// Who it says to be run by.
    pub organization: String,
    /// Further attributes by key.
    pub attributes: Vec<(String, String)>,
    /// Certificate of its gateway and that one's public key, both in PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// Its price: thousandths of the usual one.
    pub price_permille: u32,
    /// Time between blocks, which turns months into blocks.
    pub block_ms: u64,
    /// Time between looks at the chain.
    pub round: Duration,
    /// An open bid is taken back after this time.
    pub bid_timeout: Duration,
    /// Time between withdrawals.
    pub withdraw_every: Duration,
    /// Notice that it offers to give before it closes a lease.
    pub reclamation_window: Option<Duration>,
    /// What goes wrong with it.
    pub faults: Arc<ProviderFaults>,
}

impl ProviderConfig {
    /// A provider with the usual price and times.
    #[must_use]
    pub fn new(name: &str, account: Account, host_uri: &str, region: &str) -> Self {
        Self {
            name: name.to_owned(),
            account,
            host_uri: host_uri.to_owned(),
            region: region.to_owned(),
            organization: name.to_owned(),
            attributes: Vec::new(),
            certificate: None,
            price_permille: 1000,
            block_ms: 500,
            round: Duration::from_millis(500),
            bid_timeout: Duration::from_mins(5),
            withdraw_every: Duration::from_mins(1),
            reclamation_window: None,
            faults: Arc::default(),
        }
    }

    /// What the register says of it.
    fn attributes(&self) -> Vec<Attribute> {
        let own = [
            ("region", self.region.as_str()),
            ("organization", &self.organization),
            ("location-region", &self.region),
            ("host", &self.name),
            ("capabilities/storage/1/class", "beta3"),
            ("capabilities/storage/1/persistent", "true"),
        ];
        let more = self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        own.into_iter()
            .chain(more)
            .map(|(key, value)| Attribute { key: key.to_owned(), value: value.to_owned() })
            .collect()
    }
}

/// A running provider. Dropping the handle does not stop it.
#[derive(Debug)]
pub struct ProviderHandle {
    client: Arc<ChainClient>,
    faults: Arc<ProviderFaults>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ProviderHandle {
    /// Its account's address.
    #[must_use]
    pub fn address(&self) -> &str {
        self.client.account().address()
    }

    /// While set, it bids on nothing; its leases go on.
    pub fn set_silent(&self, silent: bool) {
        if silent {
            self.faults.set(ProviderFault::NoBids);
        } else {
            self.faults.clear(ProviderFault::NoBids.name());
        }
    }

    /// What goes wrong with it.
    #[must_use]
    pub fn faults(&self) -> &Arc<ProviderFaults> {
        &self.faults
    }

    /// Its business for whoever makes it misbehave.
    #[must_use]
    pub fn control(&self) -> MarketControl {
        MarketControl { client: self.client.clone(), faults: self.faults.clone() }
    }

    /// Stops all it does on the chain, at once and for good. What its host runs is the host's to
    /// stop.
    pub async fn vanish(self) {
        self.stop.cancel();
        // A task that panicked has stopped too.
        let _ = self.task.await;
    }

    /// Closes one of its leases; `reason` is one of the provider's.
    pub async fn close_lease(
        &self,
        lease: &LeaseId,
        reason: LeaseClosedReason,
    ) -> Result<(), ClientError> {
        self.control().close_lease(lease, reason).await
    }

    /// Announces that it will close a lease once the notice has passed.
    pub async fn start_reclaim(
        &self,
        lease: &LeaseId,
        reason: LeaseClosedReason,
    ) -> Result<(), ClientError> {
        self.control().start_reclaim(lease, reason).await
    }

    /// Its leases that are going on.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, ClientError> {
        self.control().leases().await
    }
}

/// What can be done to a provider's business from beside it.
#[derive(Clone, Debug)]
pub struct MarketControl {
    client: Arc<ChainClient>,
    /// What goes wrong with it.
    pub faults: Arc<ProviderFaults>,
}

impl MarketControl {
    /// Its account's address.
    #[must_use]
    pub fn address(&self) -> &str {
        self.client.account().address()
    }

    /// Closes one of its leases; `reason` is one of the provider's.
    pub async fn close_lease(
        &self,
        lease: &LeaseId,
        reason: LeaseClosedReason,
    ) -> Result<(), ClientError> {
        let msg = MsgCloseBid { id: Some(bid_of(lease)), reason: reason.into() };
        self.client.send(vec![any(&msg)]).await
    }

    /// Announces that it will close a lease once the notice has passed.
    pub async fn start_reclaim(
        &self,
        lease: &LeaseId,
        reason: LeaseClosedReason,
    ) -> Result<(), ClientError> {
        let msg = MsgLeaseStartReclaim { id: Some(lease.clone()), reason: reason.into() };
        self.client.send(vec![any(&msg)]).await
    }

    /// Its leases that are going on.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, ClientError> {
        self.client.live_leases().await
    }

    /// Publishes another certificate of its gateway; both in PEM.
    pub async fn publish(&self, cert: Vec<u8>, pubkey: Vec<u8>) -> Result<(), ClientError> {
        let owner = self.address().to_owned();
        self.client.send(vec![any(&MsgCreateCertificate { owner, cert, pubkey })]).await
    }
}

fn bid_of(lease: &LeaseId) -> BidId {
    let LeaseId { owner, dseq, gseq, oseq, provider, bseq } = lease.clone();
    BidId { owner, dseq, gseq, oseq, provider, bseq }
}

/// Registers a provider and lets it do business until `shutdown`. Its account must exist.
///
/// # Errors
/// The chain does not answer, or refuses to register it.
pub async fn start(
    config: ProviderConfig,
    channel: Channel,
    host: Arc<dyn LeaseHost>,
    shutdown: &CancellationToken,
) -> Result<ProviderHandle, ClientError> {
    let client = Arc::new(ChainClient::connect(channel, config.account.clone()).await?);
    register(&client, &config).await?;
    let faults = config.faults.clone();
    let stop = shutdown.child_token();
    let business = Business {
        config,
        client: Arc::clone(&client),
        host,
        faults: Arc::clone(&faults),
        bids: BTreeMap::new(),
        leases: BTreeSet::new(),
        withdrawn: Instant::now(),
    };
    let task = tokio::spawn({
        let stop = stop.clone();
        async move {
            stop.run_until_cancelled(business.run()).await;
        }
    });
    Ok(ProviderHandle { client, faults, stop, task })
}

async fn register(client: &ChainClient, config: &ProviderConfig) -> Result<(), ClientError> {
    let (owner, host_uri, attributes) =
        (config.account.address().to_owned(), config.host_uri.clone(), config.attributes());
    let messages = match client.registered().await? {
        None => {
            vec![any(&MsgCreateProvider { owner: owner.clone(), host_uri, attributes, info: None })]
        }
        Some(there) if there.host_uri == host_uri && there.attributes == attributes => Vec::new(),
        Some(_) => {
            vec![any(&MsgUpdateProvider { owner: owner.clone(), host_uri, attributes, info: None })]
        }
    };
    if !messages.is_empty() {
        client.send(messages).await?;
    }
    let Some((cert, pubkey)) = config.certificate.clone() else { return Ok(()) };
    match client.send(vec![any(&MsgCreateCertificate { owner, cert, pubkey })]).await {
        // It was published before: a provider that came back.
        Err(ClientError::Refused { codespace, code: 3, .. }) if codespace == "cert" => Ok(()),
        sent => sent,
    }
}

/// Names of an order in the provider's books.
type OrderKey = (String, u64, u32, u32);

fn order_key(id: &OrderId) -> OrderKey {
    (id.owner.clone(), id.dseq, id.gseq, id.oseq)
}

struct Business {
    config: ProviderConfig,
    client: Arc<ChainClient>,
    host: Arc<dyn LeaseHost>,
    faults: Arc<ProviderFaults>,
    /// Orders that were bid on, and when.
    bids: BTreeMap<OrderKey, Instant>,
    leases: BTreeSet<OrderKey>,
    withdrawn: Instant,
}

impl Business {
    async fn run(mut self) {
        let mut rounds = tokio::time::interval(self.config.round);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            rounds.tick().await;
            if let Err(error) = self.round().await {
                tracing::debug!(provider = self.config.name, %error, "round broken off");
            }
        }
    }

    async fn round(&mut self) -> Result<(), ClientError> {
        let leases = self.client.live_leases().await?;
        self.follow(&leases).await;
        if !self.faults.has(ProviderFault::NoBids) {
            self.bid_on_orders().await?;
        }
        self.take_back_bids().await?;
        if self.withdrawn.elapsed() >= self.config.withdraw_every {
            self.withdrawn = Instant::now();
            self.withdraw(leases).await?;
        }
        Ok(())
    }

    /// Tells the host what came and went.
    async fn follow(&mut self, leases: &[LeaseId]) {
        let key = |id: &LeaseId| (id.owner.clone(), id.dseq, id.gseq, id.oseq);
        let now: BTreeSet<_> = leases.iter().map(key).collect();
        for (owner, dseq, gseq, oseq) in self.leases.difference(&now) {
            self.host.lease_closed(owner, *dseq, *gseq, *oseq).await;
        }
        for (owner, dseq, gseq, oseq) in now.difference(&self.leases) {
            self.host.lease_won(owner, *dseq, *gseq, *oseq).await;
        }
        self.leases = now;
    }

    /// Whether the order is one for this provider; auditors it has none.
    fn wants(&self, spec: &GroupSpec) -> bool {
        let own = self.config.attributes();
        let asked = spec
            .requirements
            .as_ref()
            .map(|requirements| requirements.attributes.as_slice())
            .unwrap_or_default();
        asked.iter().all(|attribute| own.contains(attribute))
    }

    async fn bid_on_orders(&mut self) -> Result<(), ClientError> {
        let mut orders = self.client.open_orders().await?;
        orders.retain(|(id, spec)| !self.bids.contains_key(&order_key(id)) && self.wants(spec));
        let sent = orders.into_iter().map(|(id, spec)| {
            let (key, msg) = (order_key(&id), self.bid(id, &spec));
            let client = &self.client;
            async move { (key, client.send(vec![any(&msg)]).await) }
        });
        for (key, sent) in join_all(sent).await {
            match sent {
                Ok(()) => {}
                // It was too late, or does not fit: another try would not help.
                Err(error @ ClientError::Refused { .. }) => {
                    tracing::debug!(provider = self.config.name, %error, "no bid");
                }
                Err(error) => return Err(error),
            }
            self.bids.insert(key, Instant::now());
        }
        Ok(())
    }

    fn bid(&self, order: OrderId, spec: &GroupSpec) -> MsgCreateBid {
        let OrderId { owner, dseq, gseq, oseq } = order;
        let provider = self.config.account.address().to_owned();
        let permille = self.faults.price(self.config.price_permille);
        let price = price::per_block(spec, permille, self.config.block_ms);
        let seconds = self
            .faults
            .notice(self.config.reclamation_window)
            .map(|window| i64::try_from(window.as_secs()).unwrap_or(i64::MAX));
        MsgCreateBid {
            id: Some(BidId { owner, dseq, gseq, oseq, provider, bseq: 0 }),
            price: Some(DecCoin { denom: "uact".into(), amount: price.to_string() }),
            deposit: Some(Deposit {
                amount: Some(Coin { denom: "uakt".into(), amount: BID_DEPOSIT.into() }),
                sources: vec![Source::Balance.into()],
            }),
            resources_offer: if self.faults.has(ProviderFault::OffersLess) {
                price::smaller_offer(spec)
            } else {
                price::offer(spec)
            },
            reclamation_window: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        }
    }

    /// Takes back bids that are open for too long, those from before a restart included.
    async fn take_back_bids(&mut self) -> Result<(), ClientError> {
        for bid in self.client.bids("open").await? {
            let Some(id) = bid.id else { continue };
            let key = (id.owner.clone(), id.dseq, id.gseq, id.oseq);
            let since = *self.bids.entry(key).or_insert_with(Instant::now);
            if since.elapsed() >= self.config.bid_timeout {
                let msg =
                    MsgCloseBid { id: Some(id), reason: LeaseClosedReason::Unspecified.into() };
                self.client.send(vec![any(&msg)]).await?;
            }
        }
        Ok(())
    }

    /// Takes what was earned; this is when the chain notices that a deployment has run dry.
    async fn withdraw(&self, leases: Vec<LeaseId>) -> Result<(), ClientError> {
        let sent = leases
            .into_iter()
            .map(|lease| self.client.send(vec![any(&MsgWithdrawLease { id: Some(lease) })]));
        for sent in join_all(sent).await {
            match sent {
                Err(error @ ClientError::Refused { .. }) => {
                    tracing::debug!(provider = self.config.name, %error, "no withdrawal");
                }
                sent => sent?,
            }
        }
        Ok(())
    }
}
