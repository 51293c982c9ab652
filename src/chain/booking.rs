//! From a transaction's bytes and the chain's word about it to its entry in the books: pure.

use prost::{Message as _, Name};

use crate::model::books::{Payer, TxEntry};
use crate::model::chain::{Receipt, SignedTx, TxOutcome};
use crate::model::money::{UACT, UAKT, Uact};
use crate::model::time::UnixMs;
use crate::wire::akash::base::deposit::v1::{Deposit, Source};
use crate::wire::akash::deployment::v1beta4::MsgCreateDeployment;
use crate::wire::akash::escrow::v1::MsgAccountDeposit;
use crate::wire::cosmos::tx::v1beta1::{AuthInfo, TxBody, TxRaw};
use crate::wire::tendermint::abci::Event;

/// The entry of a transaction of `owner` that came to this end; none for one that is in no block
/// and so cost nothing.
#[must_use]
pub fn entry(owner: &str, cluster: &str, tx: &SignedTx, outcome: &TxOutcome) -> Option<TxEntry> {
    let (receipt, ok) = match outcome {
        TxOutcome::Landed { receipt, .. } => (receipt, true),
        TxOutcome::Failed { receipt, .. } => (receipt.as_ref()?, false),
        TxOutcome::Expired => return None,
    };
    let (deposit, deposit_payer) = if ok { deposit(&tx.bytes) } else { Default::default() };
    let own = receipt.fee_payer.is_empty() || receipt.fee_payer == owner;
    Some(TxEntry {
        hash: tx.hash.clone(),
        dseq: tx.dseq,
        cluster: cluster.to_owned(),
        purpose: tx.purpose.clone(),
        height: receipt.height,
        at: if receipt.time == UnixMs(0) { tx.timeout } else { receipt.time },
        ok,
        fee: receipt.fee,
        fee_payer: if own { Payer::Own } else { Payer::Treasury },
        deposit,
        deposit_payer,
    })
}

/// What a node says of a transaction that is in a block.
///
/// The fee is what its events say was taken: nothing is taken for one that fails before its
/// messages are run. Where a node gives no events at all, a transaction that was carried out cost
/// what it offered.
#[must_use]
pub fn receipt(height: i64, timestamp: &str, ok: bool, events: &[Event], bytes: &[u8]) -> Receipt {
    let (fee, fee_payer) = match fee_taken(events) {
        Some(taken) => taken,
        None if ok => offered(bytes),
        None => (0, String::new()),
    };
    Receipt { height, time: time(timestamp), fee, fee_payer }
}

/// The fee in uakt and who paid it.
fn fee_taken(events: &[Event]) -> Option<(u64, String)> {
    let event = events.iter().find(|event| {
        event.r#type == "tx" && event.attributes.iter().any(|a| a.key == "fee_payer")
    })?;
    let value = |key: &str| {
        let found = event.attributes.iter().find(|a| a.key == key)?;
        String::from_utf8(found.value.clone()).ok()
    };
    let fee = value("fee").unwrap_or_default();
    let amounts = fee.split(',').filter_map(|coin| coin.strip_suffix(UAKT)?.parse::<u64>().ok());
    Some((amounts.sum(), value("fee_payer").unwrap_or_default()))
}

fn offered(bytes: &[u8]) -> (u64, String) {
    let auth =
        TxRaw::decode(bytes).and_then(|raw| AuthInfo::decode(raw.auth_info_bytes.as_slice()));
    let fee = auth.ok().and_then(|auth| auth.fee).unwrap_or_default();
    (super::view::coins(&fee.amount, UAKT).unwrap_or_default(), fee.granter)
}

/// RFC 3339; zero for what is none.
fn time(text: &str) -> UnixMs {
    let format = &time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::parse(text, format).ok();
    let ms = at.and_then(|at| u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok());
    UnixMs(ms.unwrap_or(0))
}

/// What a transaction pays into an escrow, and by whose money: a grant is drawn from first.
fn deposit(bytes: &[u8]) -> (Uact, Payer) {
    let body = TxRaw::decode(bytes).and_then(|raw| TxBody::decode(raw.body_bytes.as_slice()));
    let messages = body.map(|body| body.messages).unwrap_or_default();
    let found = messages.iter().find_map(|any| {
        if any.type_url == url::<MsgCreateDeployment>() {
            MsgCreateDeployment::decode(any.value.as_slice()).ok()?.deposit
        } else if any.type_url == url::<MsgAccountDeposit>() {
            MsgAccountDeposit::decode(any.value.as_slice()).ok()?.deposit
        } else {
            None
        }
    });
    let Some(Deposit { amount, sources }) = found else { return Default::default() };
    let granted = sources.first() == Some(&i32::from(Source::Grant));
    let amount = super::view::coins(amount.as_slice(), UACT).unwrap_or_default();
    (Uact(amount), if granted { Payer::Treasury } else { Payer::Own })
}

fn url<M: Name>() -> String {
    format!("/{}", M::full_name())
}
