//! The operator's books: what went into the escrow of each deployment and by whose money, who was
//! paid out of it, what came back, and what transactions cost.
//!
//! Nothing here is counted up. A transaction is one entry under its hash, and a deployment is one
//! account under its dseq with the chain's own last word about its escrow; sums follow from both
//! anew each time ([`sums`]). So neither a crash nor a second reading counts anything twice.

mod sums;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use sums::{Deposit, Fee, PaidTo, Refund, Sums, Totals, Window, sums};

use super::money::{DEC_ONE, Uact};
use super::time::UnixMs;

/// Whose money it was.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Payer {
    /// The wallet of the operator.
    #[default]
    Own,
    /// An account that lets the operator deposit, or pay fees, from its own.
    Treasury,
    /// Anybody else: an escrow takes money from everybody.
    Other,
}

impl fmt::Display for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Treasury => "treasury",
            Self::Other => "other",
        })
    }
}

/// An amount of uact as escrow accounts count: times 10^18, below zero when more was owed than
/// there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scaled(pub i128);

impl Scaled {
    /// Units of [`Scaled`] in one uact.
    pub const ONE: i128 = 1_000_000_000_000_000_000;

    /// A whole number of uact.
    #[must_use]
    pub fn whole(amount: Uact) -> Self {
        Self(i128::from(amount.0) * Self::ONE)
    }

    /// The whole uact in it; nothing below zero.
    #[must_use]
    pub fn floor(self) -> Uact {
        Uact(u64::try_from(self.0.max(0) / Self::ONE).unwrap_or(u64::MAX))
    }

    /// The whole uact in it, a begun one too; nothing below zero.
    #[must_use]
    pub fn ceil(self) -> Uact {
        Self(self.0.saturating_add(Self::ONE - 1)).floor()
    }
}

const _: () = assert!(Scaled::ONE.unsigned_abs() == DEC_ONE);

impl Serialize for Scaled {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Scaled {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A transaction of ours that is in a block, whether it did there what it should or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TxEntry {
    /// Its name on the chain: there is one entry for each.
    pub hash: String,
    /// Deployment that it is about.
    pub dseq: u64,
    /// Cluster that it was sent for.
    pub cluster: String,
    /// What it was to do, for people.
    pub purpose: String,
    /// Height of its block.
    pub height: i64,
    /// Time of its block.
    pub at: UnixMs,
    /// It did what it should; else it cost its fee alone.
    pub ok: bool,
    /// What was taken for it, in uakt.
    pub fee: u64,
    /// By whom that was paid.
    #[serde(default)]
    pub fee_payer: Payer,
    /// What it paid into the escrow; nothing when it failed.
    pub deposit: Uact,
    /// By whom that was paid.
    #[serde(default)]
    pub deposit_payer: Payer,
}

/// The account of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Account {
    /// The deployment.
    pub dseq: u64,
    /// Name of the cluster.
    pub cluster: String,
    /// Tells it from other clusters of that name, before and after.
    pub uid: String,
    /// The incarnation that it was made for.
    pub node: String,
    /// The chain's last word; none before the deployment was seen.
    pub statement: Option<Statement>,
    /// What the chain showed of its deposits while it still did.
    pub seen: Option<Seen>,
}

/// What the chain says of the escrow of a deployment: as it lies there, so as of the last
/// settlement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statement {
    /// Height of the reading.
    pub height: i64,
    /// Block time of that height.
    pub at: UnixMs,
    /// Time between blocks, milliseconds.
    pub block_ms: u64,
    /// Neither closed nor overdrawn: what is left in it is ours, and payments go on.
    pub open: bool,
    /// Height up to which everything is paid.
    pub settled_at: i64,
    /// What was left then; below zero what was missing.
    pub funds: Scaled,
    /// What had gone to payments by then.
    pub transferred: Scaled,
    /// The deposits of which something is left: height, and whether the wallet made it.
    pub depositors: Vec<(i64, bool)>,
    /// One for each lease there ever was, in the order of their orders.
    pub payments: Vec<Payment>,
}

/// What one lease was paid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Payment {
    /// Account of the provider.
    pub provider: String,
    /// Order that it came from.
    pub oseq: u32,
    /// For one block.
    pub rate: Scaled,
    /// What it got, whether it took that out or not.
    pub earned: Scaled,
    /// What it is owed since the escrow was overdrawn.
    pub owed: Scaled,
    /// It goes on.
    pub open: bool,
    /// Height of the lease.
    pub from: i64,
}

/// The deposits of an account by the chain's word, which says nothing of them once it is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// Height of the last reading in which it was open, or overdrawn.
    pub height: i64,
    /// All that had been paid in by then.
    pub total: Scaled,
    /// Every depositor of whom something was left in one of the readings: height, and whether it
    /// was the wallet.
    pub depositors: BTreeSet<(i64, bool)>,
}

/// How far the chain is: what running leases took since they were last paid follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Head {
    /// Height.
    pub height: i64,
    /// Block time.
    pub at: UnixMs,
}

impl Account {
    /// One of which the chain said nothing yet.
    #[must_use]
    pub fn new(dseq: u64, cluster: &str, uid: &str, node: &str) -> Self {
        let (cluster, uid, node) = (cluster.to_owned(), uid.to_owned(), node.to_owned());
        Self { dseq, cluster, uid, node, statement: None, seen: None }
    }

    /// Takes the word of a later reading. True when it says something new, or is needed to know
    /// that what is known is the last word: `last_tx` is the height of the last transaction.
    /// Payments that go on are nothing new.
    pub fn take(&mut self, statement: Statement, last_tx: i64) -> bool {
        if let Some(known) = &self.statement {
            let same = Statement {
                height: known.height,
                at: known.at,
                block_ms: known.block_ms,
                ..statement.clone()
            };
            let needed = known.height < last_tx && !statement.open;
            if statement.height <= known.height || (same == *known && !needed) {
                return false;
            }
        }
        // Whatever is paid into an overdrawn one goes to its debts at once.
        let overdrawn = !statement.open && statement.payments.iter().any(|p| p.owed.0 > 0);
        if statement.open || overdrawn {
            let mut depositors = self.seen.take().unwrap_or_default().depositors;
            depositors.extend(&statement.depositors);
            let left = if statement.open { statement.funds.0 } else { 0 };
            let total = Scaled(statement.transferred.0.saturating_add(left));
            self.seen = Some(Seen { height: statement.height, total, depositors });
        }
        self.statement = Some(statement);
        true
    }

    /// Nothing of it changes any more: its escrow is no longer open by a reading that is past all
    /// transactions.
    #[must_use]
    pub fn is_final(&self, last_tx: i64) -> bool {
        self.statement.as_ref().is_some_and(|s| !s.open && s.height >= last_tx)
    }
}
