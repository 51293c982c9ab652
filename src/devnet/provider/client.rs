//! A provider's own client of the chain: it signs unordered transactions and waits until they are
//! in a block.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Any;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::devnet::account::{Account, Order, TxTerms};
use crate::wire::akash::deployment::v1beta4::GroupSpec;
use crate::wire::akash::market::v1::{LeaseFilters, OrderId};
use crate::wire::akash::market::v1beta5 as market;
use crate::wire::akash::provider::v1beta4 as provider;
use crate::wire::cosmos::auth::v1beta1 as auth;
use crate::wire::cosmos::base::query::v1beta1::{PageRequest, PageResponse};
use crate::wire::cosmos::base::tendermint::v1beta1 as tendermint;
use crate::wire::cosmos::tx::v1beta1 as tx;

/// Gas limit of all a provider sends: twice the dearest.
const GAS: u64 = 600_000;
/// At the least price of 0.025 `uakt`.
const FEE: u64 = 15_000;
/// A transaction that is in no block by then never will be.
const LIFE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// Why the chain did not do as a provider wished.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It did not answer, or refused a question.
    #[error("the chain gave no answer ({0}); the provider tries again with its next round")]
    Call(#[from] Status),
    /// It refused the transaction.
    #[error("the chain refused a transaction of the provider: {codespace} code {code}, {log}")]
    Refused {
        /// Module of the chain that the code is of.
        codespace: String,
        /// Number of the refusal within the codespace.
        code: u32,
        /// Its words.
        log: String,
    },
    /// It took the transaction, but no block did in time.
    #[error(
        "a transaction of the provider came into no block; it is void now and the next round sends another"
    )]
    Lost,
    /// Its answer lacks something.
    #[error("the chain left out {0} of its answer; is it a node of Akash?")]
    InvalidResponse(&'static str),
}

/// A signer on a channel.
#[derive(Debug)]
pub struct ChainClient {
    channel: Channel,
    account: Account,
    chain_id: String,
    account_number: u64,
    last_until: AtomicU64,
}

impl ChainClient {
    /// Asks the chain for its id and for the account's number.
    pub async fn connect(channel: Channel, account: Account) -> Result<Self, ClientError> {
        let mut blocks = tendermint::service_client::ServiceClient::new(channel.clone());
        let latest =
            blocks.get_latest_block(tendermint::GetLatestBlockRequest {}).await?.into_inner();
        let header = latest
            .sdk_block
            .and_then(|block| block.header)
            .ok_or(ClientError::InvalidResponse("the header"))?;
        let mut accounts = auth::query_client::QueryClient::new(channel.clone());
        let request = auth::QueryAccountInfoRequest { address: account.address().to_owned() };
        let info = accounts
            .account_info(request)
            .await?
            .into_inner()
            .info
            .ok_or(ClientError::InvalidResponse("the account"))?;
        let last_until = AtomicU64::new(0);
        Ok(Self {
            channel,
            account,
            chain_id: header.chain_id,
            account_number: info.account_number,
            last_until,
        })
    }

    /// Who signs.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Sends messages as one transaction, and waits until it did its work.
    pub async fn send(&self, messages: Vec<Any>) -> Result<(), ClientError> {
        let order = Order::Until(self.fresh_until());
        let terms = TxTerms {
            chain_id: &self.chain_id,
            account_number: self.account_number,
            order,
            gas: GAS,
            fee: FEE,
        };
        let tx_bytes = self.account.sign_tx(messages, &terms);
        let mut service = tx::service_client::ServiceClient::new(self.channel.clone());
        let request = tx::BroadcastTxRequest { tx_bytes, mode: tx::BroadcastMode::Sync.into() };
        let answer = service
            .broadcast_tx(request)
            .await?
            .into_inner()
            .tx_response
            .ok_or(ClientError::InvalidResponse("the result"))?;
        let hash = answer.txhash.clone();
        accepted(answer.codespace, answer.code, &answer.raw_log)?;
        let deadline = Instant::now() + LIFE;
        while Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            match service.get_tx(tx::GetTxRequest { hash: hash.clone() }).await {
                Ok(found) => {
                    let result = found
                        .into_inner()
                        .tx_response
                        .ok_or(ClientError::InvalidResponse("the result"))?;
                    return accepted(result.codespace, result.code, &result.raw_log);
                }
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status.into()),
            }
        }
        Err(ClientError::Lost)
    }

    /// A time ahead that this key has not used.
    fn fresh_until(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + LIFE;
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let next = |last: u64| Some(now.max(last + 1));
        let last =
            self.last_until.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).unwrap_or(now);
        now.max(last + 1)
    }

    /// The register's entry of this account.
    pub async fn registered(&self) -> Result<Option<provider::Provider>, ClientError> {
        let mut client = provider::query_client::QueryClient::new(self.channel.clone());
        let request = provider::QueryProviderRequest { owner: self.account.address().to_owned() };
        match client.provider(request).await {
            Ok(answer) => Ok(answer.into_inner().provider),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// All open orders.
    pub async fn open_orders(&self) -> Result<Vec<(OrderId, GroupSpec)>, ClientError> {
        let mut client = market::query_client::QueryClient::new(self.channel.clone());
        let mut orders = Vec::new();
        let mut key = Vec::new();
        loop {
            let filters = Some(market::OrderFilters {
                state: "open".into(),
                ..market::OrderFilters::default()
            });
            let answer = client
                .orders(market::QueryOrdersRequest { filters, pagination: Some(page(key)) })
                .await?
                .into_inner();
            orders.extend(
                answer.orders.into_iter().filter_map(|order| Some((order.id?, order.spec?))),
            );
            key = next(answer.pagination);
            if key.is_empty() {
                return Ok(orders);
            }
        }
    }

    /// This provider's bids in a state, or in all.
    pub async fn bids(&self, state: &str) -> Result<Vec<market::Bid>, ClientError> {
        let mut client = market::query_client::QueryClient::new(self.channel.clone());
        let mut bids = Vec::new();
        let mut key = Vec::new();
        loop {
            let provider = self.account.address().to_owned();
            let filters = Some(market::BidFilters {
                provider,
                state: state.to_owned(),
                ..market::BidFilters::default()
            });
            let answer = client
                .bids(market::QueryBidsRequest { filters, pagination: Some(page(key)) })
                .await?
                .into_inner();
            bids.extend(answer.bids.into_iter().filter_map(|bid| bid.bid));
            key = next(answer.pagination);
            if key.is_empty() {
                return Ok(bids);
            }
        }
    }

    /// This provider's leases that are going on, those it reclaims included.
    pub async fn live_leases(
        &self,
    ) -> Result<Vec<crate::wire::akash::market::v1::LeaseId>, ClientError> {
        let mut client = market::query_client::QueryClient::new(self.channel.clone());
        let mut leases = Vec::new();
        for state in ["active", "reclaiming"] {
            let mut key = Vec::new();
            loop {
                let provider = self.account.address().to_owned();
                let filters = Some(LeaseFilters {
                    provider,
                    state: state.to_owned(),
                    ..LeaseFilters::default()
                });
                let answer = client
                    .leases(market::QueryLeasesRequest { filters, pagination: Some(page(key)) })
                    .await?
                    .into_inner();
                leases.extend(answer.leases.into_iter().filter_map(|lease| lease.lease?.id));
                key = next(answer.pagination);
                if key.is_empty() {
                    break;
                }
            }
        }
        Ok(leases)
    }
}

fn page(key: Vec<u8>) -> PageRequest {
    PageRequest { key, ..PageRequest::default() }
}

fn next(pagination: Option<PageResponse>) -> Vec<u8> {
    pagination.map(|page| page.next_key).unwrap_or_default()
}

fn accepted(codespace: String, code: u32, log: &[u8]) -> Result<(), ClientError> {
    if code == 0 {
        return Ok(());
    }
    let log = String::from_utf8_lossy(log).chars().take(300).collect();
    Err(ClientError::Refused { codespace, code, log })
}
