//! What a transaction must pass before its messages count: form, time, fee, signature and order.

use k256::ecdsa::signature::Verifier as _;
use k256::ecdsa::{Signature, VerifyingKey};
use prost::Message as _;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::amount::{UAKT, coin};
use super::error::{TxError, sdk};
use super::msg::{self, Msg};
use super::state::{Auth, Block, FEE_POT, Genesis, Granted};
use crate::devnet::account::{address_bytes, address_of};
use crate::wire::cosmos::crypto::secp256k1::PubKey;
use crate::wire::cosmos::tx::v1beta1::{AuthInfo, Fee, SignDoc, Tx, TxBody, TxRaw};

// Gas as a real node (v2.1.0-rc12) took it. Seen there for one unordered MsgUpdateDeployment:
// 32,581 simulated without a fee, 50,431 simulated with one, 52,600 in a block. Nothing is rounded
// up: a limit that is too small there is too small here.

/// Gas of every transaction: what is left of a simulation without a fee when the message and
/// `UNORDERED_GAS` are taken off.
const BASE_GAS: u64 = 20_000;
/// Gas of taking its fee, whatever its amount: 50,431 - 32,581.
const FEE_GAS: u64 = 17_850;
/// Gas of its signature, which a simulation goes without: 52,600 - 50,431.
const SIGNATURE_GAS: u64 = 2_170;
/// Further gas of an unordered one: the same creation, simulated in both ways.
const UNORDERED_GAS: u64 = 4_800;
/// An unordered transaction may be valid for ten minutes at most.
const LONGEST_NS: u64 = 600 * 1_000_000_000;
const LONGEST_MEMO: usize = 256;

/// Why a transaction is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Before it is passed on to other nodes.
    Check,
    /// In a block.
    Deliver,
    /// To learn its gas; signatures are not looked at.
    Simulate,
}

/// A transaction taken apart.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    pub(super) raw: TxRaw,
    pub(super) body: TxBody,
    pub(super) auth: AuthInfo,
    pub(super) messages: Vec<Msg>,
}

impl Decoded {
    pub(super) fn new(bytes: &[u8]) -> Result<Self, TxError> {
        let raw = TxRaw::decode(bytes).map_err(|error| sdk::TX_DECODE.because(error))?;
        let body = TxBody::decode(raw.body_bytes.as_slice())
            .map_err(|error| sdk::TX_DECODE.because(error))?;
        let auth = AuthInfo::decode(raw.auth_info_bytes.as_slice())
            .map_err(|error| sdk::TX_DECODE.because(error))?;
        let messages = body.messages.iter().map(msg::decode).collect::<Result<Vec<_>, _>>()?;
        let tx = Self { raw, body, auth, messages };
        if tx.messages.is_empty() {
            return Err(sdk::INVALID_REQUEST.because("must contain at least one message"));
        }
        tx.messages.iter().try_for_each(Msg::validate)?;
        Ok(tx)
    }

    /// The same as one message.
    pub(super) fn tx(&self) -> Tx {
        Tx {
            body: Some(self.body.clone()),
            auth_info: Some(self.auth.clone()),
            signatures: self.raw.signatures.clone(),
        }
    }

    pub(super) fn gas_limit(&self) -> u64 {
        self.auth.fee.as_ref().map_or(0, |fee| fee.gas_limit)
    }

    /// Addresses that must have signed, the payer of the fee first.
    fn signers(&self) -> Vec<&str> {
        let mut signers = Vec::new();
        for msg in &self.messages {
            if !signers.contains(&msg.signer()) {
                signers.push(msg.signer());
            }
        }
        signers
    }
}

/// Name of a transaction: SHA-256 of its bytes in upper-case hex.
#[must_use]
pub fn hash_of(bytes: &[u8]) -> String {
    hex::encode_upper(Sha256::digest(bytes))
}

/// Refuses or takes a transaction: its fee is paid and its place in the order used up. Gives the
/// gas that this took. After an error the caller rolls back.
pub(super) fn admit(
    auth: &mut Auth,
    genesis: &Genesis,
    block: Block,
    tx: &Decoded,
    mode: Mode,
) -> Result<u64, TxError> {
    let memo = tx.body.memo.len();
    if memo > LONGEST_MEMO {
        let why = format_args!(
            "maximum number of characters is {LONGEST_MEMO} but received {memo} characters"
        );
        return Err(sdk::MEMO_TOO_LARGE.because(why));
    }
    in_time(&tx.body, block)?;
    let fee = tx.auth.fee.clone().unwrap_or_default();
    if mode == Mode::Check {
        enough_fee(&fee, genesis.params.min_gas_price_milli)?;
    }
    let mut gas = BASE_GAS + if tx.body.unordered { UNORDERED_GAS } else { 0 };
    let signers = tx.signers();
    if take_fee(auth, block, &fee, signers.first().copied().unwrap_or_default())? {
        gas += FEE_GAS;
    }
    if mode != Mode::Simulate {
        gas += SIGNATURE_GAS;
    }
    if mode != Mode::Simulate {
        within(gas, fee.gas_limit)?;
    }
    if tx.auth.signer_infos.len() != signers.len() || tx.raw.signatures.len() != signers.len() {
        let why = format_args!(
            "wrong number of signers; expected {}, got {}",
            signers.len(),
            tx.raw.signatures.len()
        );
        return Err(sdk::UNAUTHORIZED.because(why));
    }
    for (index, signer) in signers.iter().enumerate() {
        signed(auth, &genesis.chain_id, block, tx, (index, signer), mode)?;
    }
    Ok(gas)
}

/// Whether that much gas is below the limit.
pub(super) fn within(used: u64, limit: u64) -> Result<(), TxError> {
    if used <= limit {
        return Ok(());
    }
    let why =
        format_args!("out of gas in location: WritePerByte; gasWanted: {limit}, gasUsed: {used}");
    Err(sdk::OUT_OF_GAS.because(why))
}

pub(super) fn nanos(time: &Timestamp) -> Option<u64> {
    u64::try_from(time.seconds)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(time.nanos).ok()?)
}

/// A time as Go prints it.
fn go_time(nanos: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!(
        "{} {:02}:{:02}:{:02}{point}{fraction} +0000 UTC",
        time.date(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn in_time(body: &TxBody, block: Block) -> Result<(), TxError> {
    if body.timeout_height != 0 && block.height > body.timeout_height {
        let why =
            format_args!("block height: {}, timeout height: {}", block.height, body.timeout_height);
        return Err(sdk::TIMEOUT_HEIGHT.because(why));
    }
    let until = body.timeout_timestamp.as_ref().and_then(nanos);
    if let Some(until) = until.filter(|until| block.time_ns > *until) {
        let why = format_args!(
            "block time: {}, timeout timestamp: {}",
            go_time(block.time_ns),
            go_time(until)
        );
        return Err(sdk::TIMEOUT.because(why));
    }
    Ok(())
}

fn paid(fee: &Fee) -> u128 {
    fee.amount
        .iter()
        .filter_map(|amount| coin(Some(amount)))
        .filter(|(denom, _)| *denom == UAKT)
        .map(|(_, amount)| amount)
        .sum()
}

/// The fee of a transaction that was admitted, and who paid it; none where it is free.
pub(super) fn fee_taken(tx: &Decoded) -> Option<(u128, String)> {
    let fee = tx.auth.fee.clone().unwrap_or_default();
    let signer = tx.signers().first().map(|signer| (*signer).to_owned()).unwrap_or_default();
    let payer = if fee.granter.is_empty() { signer } else { fee.granter.clone() };
    Some((paid(&fee), payer)).filter(|(amount, _)| *amount > 0)
}

fn enough_fee(fee: &Fee, price_milli: u64) -> Result<(), TxError> {
    let required = (u128::from(fee.gas_limit) * u128::from(price_milli)).div_ceil(1000);
    if paid(fee) >= required {
        return Ok(());
    }
    let got: Vec<_> =
        fee.amount.iter().map(|amount| format!("{}{}", amount.amount, amount.denom)).collect();
    Err(sdk::INSUFFICIENT_FEE.because(format_args!(
        "insufficient fees; got: {} required: {required}{UAKT}",
        got.join(",")
    )))
}

/// Takes the fee from the signer or from whoever pays for it; gives whether there was one.
fn take_fee(auth: &mut Auth, block: Block, fee: &Fee, signer: &str) -> Result<bool, TxError> {
    let amount = paid(fee);
    let mut payer = signer;
    if !fee.granter.is_empty() && fee.granter != signer {
        let pair = (fee.granter.clone(), signer.to_owned());
        let allowance = auth.allowances.get(&pair).copied();
        let Some(granted) = allowance.filter(|it| it.allows(amount, block)) else {
            if allowance.is_some() {
                return Err(sdk::INVALID_REQUEST.because("fee limit exceeded"));
            }
            // The real chain puts the bare bytes of the addresses in its text.
            let mut log = address_bytes(&fee.granter).unwrap_or_default();
            log.extend(b" does not allow to pay fees for ");
            log.extend(address_bytes(signer).unwrap_or_default());
            log.extend(b": fee-grant not found: not found");
            return Err(TxError { codespace: "sdk", code: sdk::NOT_FOUND.code, log });
        };
        let left = granted.left.map(|left| left - amount);
        auth.allowances.put(pair, Granted { left, ..granted });
        payer = &fee.granter;
    }
    if !auth.accounts.contains(&payer.to_owned()) {
        return Err(
            sdk::UNKNOWN_ADDRESS.because(format_args!("fee payer address: {payer} does not exist"))
        );
    }
    auth.pay(payer, FEE_POT, UAKT, amount)?;
    Ok(amount > 0)
}

fn signed(
    auth: &mut Auth,
    chain_id: &str,
    block: Block,
    tx: &Decoded,
    (index, signer): (usize, &str),
    mode: Mode,
) -> Result<(), TxError> {
    let info = tx.auth.signer_infos.get(index).cloned().unwrap_or_default();
    let unknown = || sdk::UNKNOWN_ADDRESS.because(format_args!("account {signer} does not exist"));
    let mut account = auth.accounts.get(&signer.to_owned()).cloned().ok_or_else(unknown)?;
    let key = info
        .public_key
        .and_then(|any| PubKey::decode(any.value.as_slice()).ok())
        .map(|key| key.key);
    let key = key.filter(|key| !key.is_empty()).or_else(|| account.key.clone());
    if let Some(key) = &key {
        if address_of(key).as_deref() != Some(signer) {
            let why = format_args!(
                "pubKey does not match signer address {signer} with signer index: {index}"
            );
            return Err(sdk::INVALID_PUBKEY.because(why));
        }
    } else if mode != Mode::Simulate {
        return Err(sdk::INVALID_PUBKEY.because("account public key is not set"));
    }
    if tx.body.unordered {
        use_nonce(auth, block, &tx.body, info.sequence, signer)?;
    } else {
        let (expected, got) = (account.sequence, info.sequence);
        if got != expected {
            return Err(sdk::WRONG_SEQUENCE.because(format_args!(
                "account sequence mismatch, expected {expected}, got {got}"
            )));
        }
        account.sequence += 1;
    }
    if mode != Mode::Simulate {
        let doc = SignDoc {
            body_bytes: tx.raw.body_bytes.clone(),
            auth_info_bytes: tx.raw.auth_info_bytes.clone(),
            chain_id: chain_id.to_owned(),
            account_number: account.number,
        };
        let signature = tx.raw.signatures.get(index).map(Vec::as_slice).unwrap_or_default();
        if !verifies(key.as_deref().unwrap_or_default(), &doc.encode_to_vec(), signature) {
            let why = format_args!(
                "signature verification failed; please verify account number ({}) and chain-id ({chain_id}): (unable to verify single \
                 signer signature)",
                account.number
            );
            return Err(sdk::UNAUTHORIZED.because(why));
        }
    }
    account.key = key.or(account.key);
    auth.accounts.put(signer.to_owned(), account);
    Ok(())
}

fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) =
        (VerifyingKey::from_sec1_bytes(key), Signature::from_slice(signature))
    else {
        return false;
    };
    // Only the lower half of s counts: otherwise each transaction would have a twin.
    signature.normalize_s().is_none() && key.verify(message, &signature).is_ok()
}

fn use_nonce(
    auth: &mut Auth,
    block: Block,
    body: &TxBody,
    sequence: u64,
    signer: &str,
) -> Result<(), TxError> {
    if sequence != 0 {
        return Err(
            sdk::INVALID_REQUEST.because("sequence is not allowed for unordered transactions")
        );
    }
    let Some(until) = body.timeout_timestamp.as_ref().and_then(nanos).filter(|until| *until > 0)
    else {
        return Err(
            sdk::INVALID_REQUEST.because("unordered transaction must have timeout_timestamp set")
        );
    };
    if until > block.time_ns.saturating_add(LONGEST_NS) {
        return Err(sdk::INVALID_REQUEST.because("unordered tx ttl exceeds 10m0s"));
    }
    let nonce = (until, signer.to_owned());
    if auth.nonces.contains(&nonce) {
        let why = format_args!(
            "failed to add unordered nonce: sender {signer} has already used timeout {until}"
        );
        return Err(sdk::INVALID_REQUEST.because(why));
    }
    auth.nonces.put(nonce, ());
    Ok(())
}

/// Forgets the times that have passed.
pub(super) fn forget_nonces(auth: &mut Auth, block: Block) {
    let past: Vec<_> = auth
        .nonces
        .range(..(block.time_ns, String::new()))
        .map(|(nonce, ())| nonce.clone())
        .collect();
    for nonce in &past {
        auth.nonces.remove(nonce);
    }
}
