//! Refusals of the chain, with the codespaces, codes and texts that clients meet.

/// A refusal that the chain has a number for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Module that refuses, e.g. `deployment`.
    pub codespace: &'static str,
    /// Code within it.
    pub code: u32,
    /// What the module says, without what it wraps around it.
    pub text: &'static str,
}

const fn known(codespace: &'static str, code: u32, text: &'static str) -> Known {
    Known { codespace, code, text }
}

/// Why a transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{codespace} code {code}: {}", String::from_utf8_lossy(log))]
pub struct TxError {
    /// Module that refuses, e.g. `deployment`.
    pub codespace: &'static str,
    /// Code within it, never 0.
    pub code: u32,
    /// Text; not always UTF-8, as on the real chain.
    pub log: Vec<u8>,
}

impl Known {
    /// This refusal with words before it.
    #[must_use]
    pub fn because(self, why: impl std::fmt::Display) -> TxError {
        TxError {
            codespace: self.codespace,
            code: self.code,
            log: format!("{why}: {}", self.text).into_bytes(),
        }
    }
}

impl From<Known> for TxError {
    fn from(known: Known) -> Self {
        Self { codespace: known.codespace, code: known.code, log: known.text.as_bytes().to_vec() }
    }
}

impl TxError {
    /// A refusal without a number of its own: a plain error of Go.
    #[must_use]
    pub fn plain(text: impl std::fmt::Display) -> Self {
        Self { codespace: "undefined", code: 1, log: text.to_string().into_bytes() }
    }

    /// A handler that fell over.
    #[must_use]
    pub fn panic(text: impl std::fmt::Display) -> Self {
        Self {
            codespace: "undefined",
            code: 111_222,
            log: format!("recovered: {text}\nstack:\ngoroutine 1 [running]: panic").into_bytes(),
        }
    }

    /// The same refusal, said by the message at `index` of its transaction.
    #[must_use]
    pub fn of_message(mut self, index: usize) -> Self {
        if self.code != 111_222 {
            let mut log =
                format!("failed to execute message; message index: {index}: ").into_bytes();
            log.append(&mut self.log);
            self.log = log;
        }
        self
    }
}

/// Of the framework.
pub(super) mod sdk {
    use super::{Known, known};
    pub(in super::super) const TX_DECODE: Known = known("sdk", 2, "tx parse error");
    pub(in super::super) const INVALID_SEQUENCE: Known = known("sdk", 3, "invalid sequence");
    pub(in super::super) const UNAUTHORIZED: Known = known("sdk", 4, "unauthorized");
    pub(in super::super) const INSUFFICIENT_FUNDS: Known = known("sdk", 5, "insufficient funds");
    pub(in super::super) const INVALID_ADDRESS: Known = known("sdk", 7, "invalid address");
    pub(in super::super) const INVALID_PUBKEY: Known = known("sdk", 8, "invalid pubkey");
    pub(in super::super) const UNKNOWN_ADDRESS: Known = known("sdk", 9, "unknown address");
    pub(in super::super) const INVALID_COINS: Known = known("sdk", 10, "invalid coins");
    pub(in super::super) const OUT_OF_GAS: Known = known("sdk", 11, "out of gas");
    pub(in super::super) const MEMO_TOO_LARGE: Known = known("sdk", 12, "memo too large");
    pub(in super::super) const INSUFFICIENT_FEE: Known = known("sdk", 13, "insufficient fee");
    pub(in super::super) const INVALID_REQUEST: Known = known("sdk", 18, "invalid request");
    pub(in super::super) const IN_CACHE: Known = known("sdk", 19, "");
    pub(in super::super) const TIMEOUT_HEIGHT: Known = known("sdk", 30, "tx timeout height");
    pub(in super::super) const WRONG_SEQUENCE: Known =
        known("sdk", 32, "incorrect account sequence");
    pub(in super::super) const CONFLICT: Known = known("sdk", 36, "conflict");
    pub(in super::super) const NOT_FOUND: Known = known("sdk", 38, "not found");
    pub(in super::super) const TIMEOUT: Known = known("sdk", 42, "tx timeout");
}

/// Of deployments and groups.
pub(super) mod deployment {
    use super::{Known, known};
    pub(in super::super) const EXISTS: Known = known("deployment", 3, "Deployment exists");
    pub(in super::super) const NOT_FOUND: Known = known("deployment", 4, "Deployment not found");
    pub(in super::super) const CLOSED: Known = known("deployment", 5, "Deployment closed");
    pub(in super::super) const INVALID_GROUPS: Known = known("deployment", 7, "Invalid groups");
    pub(in super::super) const EMPTY_HASH: Known = known("deployment", 9, "Invalid: empty hash");
    pub(in super::super) const INVALID_HASH: Known =
        known("deployment", 10, "Invalid: deployment hash");
    pub(in super::super) const GROUP_NOT_FOUND: Known = known("deployment", 14, "Group not found");
    pub(in super::super) const GROUP_CLOSED: Known =
        known("deployment", 15, "Group already closed");
    pub(in super::super) const GROUP_OPEN: Known = known("deployment", 16, "Group open");
    pub(in super::super) const GROUP_PAUSED: Known = known("deployment", 17, "Group paused");
    pub(in super::super) const GROUP_NOT_OPEN: Known = known("deployment", 18, "Group not open");
    pub(in super::super) const DEPOSIT_INVALID: Known = known("deployment", 20, "Deposit invalid");
    pub(in super::super) const DUPLICATE_GROUP: Known =
        known("deployment", 25, "duplicate group name");
    pub(in super::super) const INVALID_RECLAMATION: Known =
        known("deployment", 26, "invalid reclamation configuration");
}

/// Of orders, bids and leases.
pub(super) mod market {
    use super::{Known, known};
    pub(in super::super) const BID_OVER_ORDER: Known =
        known("market", 4, "bid price above max order price");
    pub(in super::super) const ATTRIBUTE_MISMATCH: Known = known("market", 5, "attribute mismatch");
    pub(in super::super) const UNKNOWN_BID: Known = known("market", 6, "unknown bid");
    pub(in super::super) const UNKNOWN_LEASE: Known = known("market", 7, "unknown lease");
    pub(in super::super) const UNKNOWN_LEASE_FOR_BID: Known =
        known("market", 8, "unknown lease for bid");
    pub(in super::super) const UNKNOWN_ORDER_FOR_BID: Known =
        known("market", 9, "unknown order for bid");
    pub(in super::super) const LEASE_NOT_ACTIVE: Known = known("market", 10, "lease not active");
    pub(in super::super) const BID_NOT_ACTIVE: Known = known("market", 11, "bid not active");
    pub(in super::super) const BID_NOT_OPEN: Known = known("market", 12, "bid not open");
    pub(in super::super) const ORDER_NOT_OPEN: Known = known("market", 13, "bid: order not open");
    pub(in super::super) const ORDER_NOT_FOUND: Known =
        known("market", 15, "invalid order: order not found");
    pub(in super::super) const GROUP_NOT_OPEN: Known = known("market", 17, "group not open");
    pub(in super::super) const BID_NOT_FOUND: Known =
        known("market", 18, "invalid bid: bid not found");
    pub(in super::super) const ZERO_PRICE: Known = known("market", 19, "invalid bid: zero price");
    pub(in super::super) const LEASE_NOT_FOUND: Known =
        known("market", 20, "invalid lease: lease not found");
    pub(in super::super) const BID_EXISTS: Known =
        known("market", 21, "invalid bid: bid exists from provider");
    pub(in super::super) const ORDER_ACTIVE: Known = known("market", 23, "order active");
    pub(in super::super) const ORDER_CLOSED: Known = known("market", 24, "order closed");
    pub(in super::super) const DEPOSIT_INVALID: Known = known("market", 28, "deposit invalid");
    pub(in super::super) const UNKNOWN_PROVIDER: Known = known("market", 30, "unknown provider");
    pub(in super::super) const CAPABILITIES_MISMATCH: Known =
        known("market", 32, "capabilities mismatch");
    pub(in super::super) const INVALID_REASON: Known =
        known("market", 33, "invalid lease closed reason");
    pub(in super::super) const NOT_RECLAIMABLE: Known =
        known("market", 35, "lease does not have reclamation configured");
    pub(in super::super) const RECLAIM_NOT_STARTED: Known =
        known("market", 37, "reclamation not started; call MsgLeaseStartReclaim first");
    pub(in super::super) const RECLAIM_NOT_ELAPSED: Known =
        known("market", 38, "reclamation window has not elapsed");
    pub(in super::super) const RECLAIM_WINDOW: Known =
        known("market", 39, "reclamation window outside governance bounds");
    pub(in super::super) const RECLAIM_REQUIRED: Known =
        known("market", 40, "order requires reclamation but bid does not offer it");
    pub(in super::super) const RECLAIM_TOO_SHORT: Known =
        known("market", 41, "reclamation window shorter than order minimum");
}

/// Of money held for deployments and bids.
pub(super) mod escrow {
    use super::{Known, known};
    pub(in super::super) const ACCOUNT_EXISTS: Known = known("escrow", 1, "account exists");
    pub(in super::super) const ACCOUNT_CLOSED: Known = known("escrow", 2, "account closed");
    pub(in super::super) const ACCOUNT_NOT_FOUND: Known = known("escrow", 3, "account not found");
    pub(in super::super) const ACCOUNT_OVERDRAWN: Known = known("escrow", 4, "account overdrawn");
    pub(in super::super) const INVALID_DENOM: Known = known("escrow", 5, "invalid denomination");
    pub(in super::super) const PAYMENT_EXISTS: Known = known("escrow", 6, "payment exists");
    pub(in super::super) const PAYMENT_CLOSED: Known = known("escrow", 7, "payment closed");
    pub(in super::super) const PAYMENT_NOT_FOUND: Known = known("escrow", 8, "payment not found");
    pub(in super::super) const RATE_ZERO: Known = known("escrow", 9, "payment rate zero");
    pub(in super::super) const INVALID_ID: Known = known("escrow", 12, "invalid ID");
}

/// Refusals of the certificate module.
pub(super) mod cert {
    use super::{Known, known};
    pub(in super::super) const NOT_FOUND: Known = known("cert", 1, "certificate not found");
    pub(in super::super) const EXISTS: Known = known("cert", 3, "certificate exists");
    pub(in super::super) const REVOKED: Known = known("cert", 4, "certificate already revoked");
    pub(in super::super) const INVALID_VALUE: Known = known("cert", 6, "invalid certificate value");
    pub(in super::super) const INVALID_PUBKEY: Known = known("cert", 7, "invalid pubkey value");
}

/// Of the register of providers.
pub(super) mod provider {
    use super::{Known, known};
    pub(in super::super) const INVALID_URI: Known =
        known("provider", 1, "invalid provider: invalid host uri");
    pub(in super::super) const NOT_FOUND: Known =
        known("provider", 3, "invalid provider: address not found");
    pub(in super::super) const EXISTS: Known =
        known("provider", 4, "invalid provider: already exists");
}
