//! The chain as one owner sees and moves it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prost_types::Timestamp;
use rand::Rng;

use super::block_time::BlockTime;
use super::broadcast::{self, Unsent};
use super::endpoint::{Block, Node, Nodes};
use super::fees::{self, FeeLimits, Fees};
use super::floor::Floor;
use super::offers;
use super::read::{self, Payers, Providers, Scope};
use super::tx::{self, FeeOffer, Payer};
use super::wallet::Wallet;
use super::{Chain, ChainError};
use crate::model::chain::{ChainMsg, ChainView, ProviderOffer, SignedTx, TxOutcome};
use crate::model::time::UnixMs;
use crate::retry::retry;
use crate::wire::cosmos::auth::v1beta1::QueryAccountInfoRequest;
use crate::wire::cosmos::tx::v1beta1::SimulateRequest;

/// Life of a transaction in block time. The chain allows ten minutes; what is short is soon
/// certain.
const LIFE_NANOS: u128 = 60_000_000_000;
const SECOND_NANOS: u128 = 1_000_000_000;
/// How long a node that is a block behind its neighbour may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How a node is that would show what is no more.
const BEHIND_OURS: &str = "blocks behind our own last transaction";

/// When the newest block of an endpoint is older, the others are looked at: ten blocks of the
/// public network.
const OLD: Duration = Duration::from_mins(1);

/// Price of gas in millionths of a uakt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GasPrice(pub u64);

impl GasPrice {
    /// What public nodes ask for: 0.025uakt.
    pub const USUAL: Self = Self(25_000);

    /// The fee for an amount of gas, rounded up to the next uakt.
    #[must_use]
    pub fn fee(self, gas: u64) -> u64 {
        u64::try_from((u128::from(self.0) * u128::from(gas)).div_ceil(1_000_000))
            .unwrap_or(u64::MAX)
    }
}

/// How the chain is reached.
#[derive(Clone, Debug)]
pub struct ChainSettings {
    /// Chain id that every endpoint must have; signatures are good for no other.
    pub chain_id: String,
    /// Endpoints, `http://` or `https://`; the next one is asked when one is away.
    pub grpc: Vec<String>,
    /// Price of gas.
    pub gas_price: GasPrice,
    /// Account that pays the fees instead of the wallet.
    pub fee_granter: Option<String>,
    /// Account that pays the deposits instead of the wallet.
    pub treasury: Option<String>,
    /// The most that fees may come to.
    pub fee_limits: FeeLimits,
}

/// [`Chain`] over gRPC.
pub struct ChainClient {
    settings: ChainSettings,
    wallet: Arc<Wallet>,
    nodes: Nodes,
    account: OnceLock<u64>,
    block_time: BlockTime,
    providers: Providers,
    unsent: Unsent,
    fees: Fees,
    /// No reading is older than our last transaction.
    floor: Floor,
    /// Time-out of the newest transaction, nanoseconds: the chain takes each only once per key.
    last_timeout: Mutex<u128>,
}

impl fmt::Debug for ChainClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainClient")
            .field("settings", &self.settings)
            .field("wallet", &self.wallet)
            .finish_non_exhaustive()
    }
}

impl ChainClient {
    /// Prepares the connections; none is made yet, so this succeeds while the chain is away. Fails
    /// on an endpoint that is not a URL. Must be called within a tokio runtime.
    pub fn connect(settings: ChainSettings, wallet: Arc<Wallet>) -> Result<Self, ChainError> {
        Ok(Self {
            nodes: Nodes::new(&settings.chain_id, &settings.grpc)?,
            settings,
            wallet,
            account: OnceLock::new(),
            block_time: BlockTime::default(),
            providers: Providers::default(),
            unsent: Unsent::default(),
            fees: Fees::default(),
            floor: Floor::default(),
            last_timeout: Mutex::new(0),
        })
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Whether an endpoint answers and is of the right chain. An endpoint of another chain is an
    /// error of its own, and never used.
    pub async fn check(&self) -> Result<(), ChainError> {
        self.nodes.ask(|node| async move { node.latest().await.map(|_| ()) }).await
    }

    /// The newest block of a node that has seen our last transaction, or soon has.
    async fn recent(&self, node: &Node) -> Result<Block, ChainError> {
        let once = || async {
            let block = node.latest().await?;
            match self.floor.above(block.height) {
                None => Ok(block),
                Some(blocks) => Err(node.away(format!("{blocks} {BEHIND_OURS}"))),
            }
        };
        retry(CATCH_UP, is_behind, once).await
    }

    /// The account number, asked for once: it never changes.
    async fn account_number(&self, node: &Node) -> Result<u64, ChainError> {
        if let Some(number) = self.account.get() {
            return Ok(*number);
        }
        let address = self.wallet.address().to_owned();
        let request = QueryAccountInfoRequest { address };
        let answer = node
            .call("the wallet's account", node.accounts().account_info(request))
            .await
            .map_err(|error| match error {
                ChainError::Refused { what, codespace, code: 5, .. } if codespace == "grpc" => {
                    let log = format!(
                        "the chain does not know the account {} yet: send it AKT for fees",
                        self.wallet.address()
                    );
                    ChainError::Refused { what, codespace, code: 5, log }
                }
                other => other,
            })?;
        let number = node.part(answer.info, "account")?.account_number;
        Ok(*self.account.get_or_init(|| number))
    }

    /// A time-out within the life of a transaction after `block` that no other transaction of this
    /// key has: later than all before it in this process, and at random within a second against
    /// those of other processes.
    fn next_timeout(&self, block_nanos: u128) -> u128 {
        let spread = u128::from(rand::thread_rng().gen_range(0..1_000_000_000u32));
        let wanted = block_nanos + LIFE_NANOS - SECOND_NANOS + spread;
        let mut last = self.last_timeout.lock().unwrap_or_else(PoisonError::into_inner);
        *last = wanted.max(*last + 1);
        *last
    }

    /// The gas that the message takes on this node's state, a fee being taken as when it is sent.
    async fn gas(&self, node: &Node, msg: &ChainMsg, body: &[u8]) -> Result<u64, ChainError> {
        let offer =
            fees::for_simulation(self.settings.gas_price, self.settings.fee_granter.clone());
        let tx_bytes =
            tx::raw(body.to_vec(), tx::auth_info(self.wallet.public_key(), &offer), Vec::new());
        let what = tx::purpose(msg);
        let answer = node.call(&what, node.txs().simulate(SimulateRequest { tx_bytes })).await?;
        Ok(node.part(answer.gas_info, "gas figure")?.gas_used)
    }

    /// The signed message and its fee in uakt. An endpoint that asks for more gas than a message
    /// may have is passed over.
    async fn prepare(
        &self,
        node: Node,
        msg: &ChainMsg,
        raises: u32,
    ) -> Result<(SignedTx, u64), ChainError> {
        let block = self.recent(&node).await?;
        self.block_time.see(block);
        let account = self.account_number(&node).await?;
        let timeout = self.next_timeout(block.nanos);
        let payer = if self.settings.treasury.is_some() { Payer::Grant } else { Payer::Wallet };
        let body = tx::body_paid_by(payer, self.wallet.address(), msg, timestamp(timeout));
        let gas = fees::limit(self.gas(&node, msg, &body).await?, msg, raises);
        let fee = FeeOffer {
            uakt: self.settings.gas_price.fee(gas),
            gas,
            granter: self.settings.fee_granter.clone(),
        };
        Fees::within(self.settings.fee_limits, &fee).map_err(|why| unsent(msg, why))?;
        let auth_info = tx::auth_info(self.wallet.public_key(), &fee);
        let signature =
            self.wallet.sign(&tx::sign_doc(&body, &auth_info, &self.settings.chain_id, account));
        let bytes = tx::raw(body, auth_info, signature.to_vec());
        // Rounded up: until then it may land.
        let timeout = UnixMs(u64::try_from(timeout.div_ceil(1_000_000)).unwrap_or(u64::MAX));
        Ok((
            SignedTx {
                dseq: msg.dseq(),
                purpose: tx::purpose(msg),
                hash: tx::hash(&bytes),
                bytes,
                timeout,
            },
            fee.uakt,
        ))
    }

    /// Everything within `scope`, from one node at one height.
    async fn view(&self, scope: Scope<'_>) -> Result<ChainView, ChainError> {
        let payers = &Payers {
            treasury: self.settings.treasury.clone(),
            fee_granter: self.settings.fee_granter.clone(),
        };
        let view = self
            .nodes
            .ask(|node| async move {
                let block = self.recent(&node).await?;
                self.block_time.measure(&node, block).await?;
                // On the heap: two dozen requests are under way at once.
                let once = || {
                    Box::pin(read::view(
                        &node,
                        (self.wallet.address(), payers),
                        scope,
                        block,
                        self.block_time.block_ms(),
                        &self.providers,
                    ))
                };
                retry(CATCH_UP, is_behind, once).await
            })
            .await?;
        if UnixMs::now().since(view.block_time) > OLD {
            // An endpoint that stands still answers as readily as any.
            self.nodes.prefer_newest().await;
        }
        Ok(view)
    }
}

#[async_trait]
impl Chain for ChainClient {
    fn owner(&self) -> &str {
        self.wallet.address()
    }

    #[tracing::instrument(name = "chain read", skip_all)]
    async fn read(&self, known: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        self.view(Scope::All { known }).await
    }

    #[tracing::instrument(name = "chain read_deployments", skip_all)]
    async fn read_deployments(&self, dseqs: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        self.view(Scope::Only(dseqs)).await
    }

    #[tracing::instrument(name = "chain sign", skip_all)]
    async fn sign(&self, msg: &ChainMsg) -> Result<SignedTx, ChainError> {
        let raises = self.fees.raises(msg).map_err(|why| unsent(msg, why))?;
        let (signed, fee) = retry(crate::retry::MAX_RETRY, broadcast::is_away, || {
            self.nodes.ask(|node| self.prepare(node, msg, raises))
        })
        .await?;
        self.fees
            .offer(self.settings.fee_limits, msg, &signed.hash, fee)
            .map_err(|why| unsent(msg, why))?;
        self.unsent.add(&signed.hash);
        Ok(signed)
    }

    #[tracing::instrument(name = "chain broadcast_and_confirm", skip_all)]
    async fn broadcast_and_confirm(&self, tx: &SignedTx) -> Result<TxOutcome, ChainError> {
        let (outcome, paid) =
            broadcast::broadcast_and_confirm(&self.nodes, &self.block_time, &self.unsent, tx)
                .await?;
        if let TxOutcome::Landed { height, .. } = &outcome {
            self.floor.raise(*height);
        }
        self.fees.ended(&tx.hash, &outcome, paid);
        Ok(outcome)
    }

    #[tracing::instrument(name = "chain providers", skip_all)]
    async fn providers(&self, audited: bool) -> Result<Vec<ProviderOffer>, ChainError> {
        self.nodes.ask(|node| async move { Box::pin(offers::offers(&node, audited)).await }).await
    }
}

/// The node named a block that its state has not reached yet, or has not seen what we did.
fn is_behind(error: &ChainError) -> bool {
    let behind = |text: &str| text.contains("height in the future") || text.contains(BEHIND_OURS);
    matches!(error, ChainError::Away { source, .. } if behind(&source.to_string()))
}

fn unsent(msg: &ChainMsg, why: String) -> ChainError {
    ChainError::NotSent { what: tx::purpose(msg), why }
}

fn timestamp(nanos: u128) -> Timestamp {
    let seconds = i64::try_from(nanos / SECOND_NANOS).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(nanos % SECOND_NANOS).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gas_is_paid_to_the_last_unit() {
        assert_eq!(GasPrice::USUAL.fee(200_000), 5000);
        assert_eq!(GasPrice::USUAL.fee(200_001), 5001);
    }

    #[tokio::test]
    async fn no_two_transactions_share_a_time_out() {
        let phrase = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let settings = ChainSettings {
            chain_id: "test".into(),
            grpc: vec!["http://127.0.0.1:1".into(), "https://localhost:1".into()],
            gas_price: GasPrice::USUAL,
            fee_granter: None,
            treasury: None,
            fee_limits: FeeLimits::USUAL,
        };
        let wallet = Wallet::from_phrase(&phrase.into(), 0).expect("a good phrase");
        let client =
            ChainClient::connect(settings, Arc::new(wallet)).expect("nothing is connected yet");
        let block = 1_795_521_600_000_000_000;
        let all: BTreeSet<_> = (0..1000).map(|_| client.next_timeout(block)).collect();
        assert_eq!(all.len(), 1000);
        assert!(
            all.iter().all(|t| *t > block + 58 * SECOND_NANOS && *t < block + LIFE_NANOS + 1000)
        );
    }
}
