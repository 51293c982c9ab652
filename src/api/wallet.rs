//! The wallet as it is shown: what it holds, what it pays, and until when that does; and AKT that
//! becomes ACT.

use serde::{Deserialize, Serialize};
use strum::Display;

use super::quantity::Money;

/// The wallet of all clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WalletReport {
    /// Its account.
    pub address: String,
    /// When it was read; empty while it was not.
    pub read: String,
    /// Its own ACT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Money>,
    /// Its own AKT, e.g. `1.25akt`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub akt: String,
    /// What is left in the escrows of all clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_escrow: Option<Money>,
    /// Leases that run.
    pub leases: u64,
    /// What they cost per month of 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_month: Option<Money>,
    /// After this moment no escrow can be filled; absent when that is years away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_refill: Option<String>,
    /// After this moment no fee can be paid; absent when that is years away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fees_end: Option<String>,
    /// Who pays deposits in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub treasury: Option<GrantReport>,
    /// Who pays fees in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fee_grant: Option<GrantReport>,
}

/// A grant of another account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantReport {
    /// The account that pays.
    pub granter: String,
    /// What it holds of the coin.
    pub holds: String,
    /// What the grant leaves; absent when it has no limit, or when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest: Option<String>,
    /// When it ends; absent when never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Why nothing can be spent by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Asks for ACT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MintRequest {
    /// What shall come into the wallet.
    pub act: Money,
    /// The most that may be burnt for it, in uakt.
    pub most_uakt: u64,
    /// Only say what would be burnt.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is burnt for it, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MintAnswer {
    /// In uakt.
    pub burn_uakt: u64,
    /// One sentence.
    pub message: String,
}

/// The newest burn of the wallet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MintReport {
    /// How far it has come.
    pub state: MintState,
    /// One sentence.
    pub message: String,
}

/// How far a burn of AKT for ACT has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Display)]
pub enum MintState {
    /// Nothing was ever burnt.
    Never,
    /// Its transaction may still land.
    Sent,
    /// It is in a block and waits for the end of the chain's epoch.
    Pending,
    /// The ACT is in the wallet.
    Minted,
    /// The AKT is back in the wallet, or was never taken.
    Failed,
    /// A state of another version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl MintState {
    /// Nothing more comes of it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Never | Self::Minted | Self::Failed)
    }
}
