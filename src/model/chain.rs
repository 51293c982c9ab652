//! What the chain says, and what we ask of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::books::Statement;
use super::funds::Funds;
use super::group::GroupSpec;
use super::ids::LeaseId;
use super::money::{PricePerBlock, Uact};
use super::time::UnixMs;

/// Block time while none was measured, and the longest that prices are reckoned with, milliseconds.
/// The public network takes 6.0 to 6.5 s for a block. Prices are per block and budgets per month:
/// too long a block time would allow too high a price, too short a one is safe.
pub const DEFAULT_BLOCK_MS: u64 = 6000;

/// One reading of the chain for one owner, complete (all pages) or not there at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainView {
    /// Height the reading is at least as new as.
    pub height: i64,
    /// Block time of that height.
    pub block_time: UnixMs,
    /// Measured median of the time between blocks, milliseconds.
    pub block_ms: u64,
    /// What deposits can be paid from: ACT of the wallet, or what its treasury's grant allows.
    pub balance: Uact,
    /// What fees can be paid from, in uakt: AKT of the wallet, or what its fee grant allows.
    pub fee_balance: u64,
    /// Whose coins these are.
    pub funds: Funds,
    /// Smallest deposit of a deployment.
    pub min_deposit: Uact,
    /// The owner's deployments by dseq: all active ones, and closed ones of the installation.
    pub deployments: BTreeMap<u64, DeploymentView>,
    /// Registered providers by address: those that bid or hold a lease of ours.
    pub providers: BTreeMap<String, ProviderView>,
    /// The money of the same deployments, for the books.
    pub statements: BTreeMap<u64, Statement>,
}

/// A deployment with everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentView {
    /// Its sequence number.
    pub dseq: u64,
    /// Height of the block that made it; 0 when that is not known.
    pub created_height: i64,
    /// Active, or closed for good.
    pub active: bool,
    /// Hash of the manifest that providers accept.
    pub hash: Vec<u8>,
    /// Name of its (first) group.
    pub group_name: String,
    /// State of that group.
    pub group: GroupState,
    /// Oseq of the open order, when there is one.
    pub open_order: Option<u32>,
    /// Height at which that order was made; `None` where it is not known.
    pub ordered_at: Option<i64>,
    /// Bids in state open; leasable only when their oseq is the open order's.
    pub bids: Vec<BidView>,
    /// Leases in any state, newest last.
    pub leases: Vec<LeaseView>,
    /// Its escrow account.
    pub escrow: EscrowView,
}

/// State of a group on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Bidding or leased.
    Open,
    /// The provider closed its lease.
    Paused,
    /// The escrow ran dry.
    InsufficientFunds,
    /// Closed for good.
    Closed,
}

/// An open bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BidView {
    /// The lease it would become.
    pub id: LeaseId,
    /// What the provider asks for per block.
    pub price: PricePerBlock,
    /// Whether the offered resources are at least those asked for; the chain does not compare them.
    pub fits: bool,
}

/// A lease of a deployment, running or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Deployment, order and provider.
    pub id: LeaseId,
    /// What it costs per block.
    pub price: PricePerBlock,
    /// State on the chain.
    pub state: LeaseState,
    /// The chain's reason number once closed, or announced with a reclamation; a hint only.
    pub reason: u32,
    /// Block time from which on the provider may close it, once it announced that it will.
    pub reclaim_by: Option<UnixMs>,
}

/// State of a lease on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseState {
    /// Running and paid.
    Active,
    /// Running and paid until an announced deadline.
    Reclaiming,
    /// Closed because the escrow ran dry.
    InsufficientFunds,
    /// Closed by either side.
    Closed,
}

/// An escrow account, computed to the height of the reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EscrowView {
    /// Open (neither closed nor overdrawn).
    pub open: bool,
    /// What is left after all that is owed at the height of the reading.
    pub left: Uact,
    /// Taken by providers so far, and theirs at the height of the reading: never more than was paid
    /// in.
    pub spent: Uact,
    /// Blocks that the rest still pays at the present rates; `None` when nothing is being paid.
    pub blocks_left: Option<u64>,
}

/// A provider as registered on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderView {
    /// Address of its account, by which bids and leases name it.
    pub address: String,
    /// Base URL of its gateway; untrusted.
    pub host_uri: String,
    /// Self-declared attributes.
    pub attributes: BTreeMap<String, String>,
}

/// A provider as it could be asked for an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderOffer {
    /// What it says of itself.
    pub view: ProviderView,
    /// What auditors signed of it, by auditor.
    pub audits: BTreeMap<String, BTreeMap<String, String>>,
}

/// A message of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainMsg {
    /// A deployment with one group and a deposit in uact.
    CreateDeployment {
        /// Chosen and recorded beforehand.
        dseq: u64,
        /// The one group.
        group: GroupSpec,
        /// SHA-256 of the canonical manifest.
        hash: [u8; 32],
        /// Paid into escrow.
        deposit: Uact,
    },
    /// Takes a bid.
    CreateLease(LeaseId),
    /// Stores a new manifest hash.
    UpdateDeployment {
        /// Which deployment.
        dseq: u64,
        /// SHA-256 of the new canonical manifest.
        hash: [u8; 32],
    },
    /// Pays into the escrow of a deployment. Code 0 proves nothing: what is paid into one that is
    /// overdrawn goes to its debts.
    Deposit {
        /// Which deployment.
        dseq: u64,
        /// Taken from the wallet.
        amount: Uact,
    },
    /// Closes it and everything below; what is left is refunded.
    CloseDeployment {
        /// Which deployment.
        dseq: u64,
    },
    /// Burns AKT of the wallet for ACT. Code 0 proves nothing: the ACT comes when an epoch of the
    /// chain ends, or the AKT comes back.
    MintAct {
        /// What is burnt, in uakt.
        burn: u64,
    },
}

/// What a message is about that is about no deployment: there is none of this number.
pub const NO_DEPLOYMENT: u64 = 0;

impl ChainMsg {
    /// The deployment it is about.
    #[must_use]
    pub fn dseq(&self) -> u64 {
        match self {
            Self::CreateDeployment { dseq, .. }
            | Self::UpdateDeployment { dseq, .. }
            | Self::Deposit { dseq, .. }
            | Self::CloseDeployment { dseq } => *dseq,
            Self::CreateLease(id) => id.dseq,
            Self::MintAct { .. } => NO_DEPLOYMENT,
        }
    }
}

/// A signed transaction that is kept before it is sent, and sent again as these very bytes only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTx {
    /// Deployment it is about.
    pub dseq: u64,
    /// What it does, for people.
    pub purpose: String,
    /// `TxRaw` as broadcast.
    pub bytes: Vec<u8>,
    /// Upper-case hex SHA-256 of the bytes.
    pub hash: String,
    /// Block time after which it can no longer land.
    pub timeout: UnixMs,
}

/// What a transaction cost in its block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Height of the block.
    pub height: i64,
    /// Time of the block; zero where the node does not say.
    pub time: UnixMs,
    /// The fee that was taken, in uakt.
    pub fee: u64,
    /// From whom; empty for the signer.
    pub fee_payer: String,
}

/// The end of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// In a block with code 0. This proves only that it ran: read the state.
    Landed {
        /// Height of the block.
        height: i64,
        /// What it cost there.
        receipt: Receipt,
    },
    /// Refused, or run and failed; it will not land any more.
    Failed {
        /// Codespace of the module.
        codespace: String,
        /// Code within it.
        code: u32,
        /// The chain's text, shortened, lossy UTF-8.
        log: String,
        /// What it cost, when it is in a block.
        receipt: Option<Receipt>,
    },
    /// Its time-out passed in block time without it landing.
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_about_the_deployment_that_it_names() {
        let lease = LeaseId {
            owner: "akash1me".into(),
            dseq: 9,
            gseq: 1,
            oseq: 1,
            provider: "akash1p".into(),
        };
        for msg in [
            ChainMsg::UpdateDeployment { dseq: 9, hash: [0; 32] },
            ChainMsg::Deposit { dseq: 9, amount: Uact(5) },
            ChainMsg::CloseDeployment { dseq: 9 },
            ChainMsg::CreateLease(lease),
        ] {
            assert_eq!(msg.dseq(), 9, "{msg:?}");
        }
    }
}
