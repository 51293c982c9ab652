//! Events of the chain's modules. They carry ids as JSON, in the order of the wire's fields.

use crate::wire::tendermint::abci::{Event, EventAttribute};

use super::state::{BidKey, DeploymentKey, GroupKey, OrderKey};

fn attribute(key: &str, value: String) -> EventAttribute {
    EventAttribute { key: key.to_owned(), value: value.into_bytes(), index: true }
}

/// An event about the thing with this id.
pub(super) fn about(kind: &str, id: String, more: Vec<(&str, String)>) -> Event {
    let mut attributes = vec![attribute("id", id)];
    attributes.extend(more.into_iter().map(|(key, value)| attribute(key, value)));
    Event { r#type: kind.to_owned(), attributes }
}

/// The event that opens each message of a transaction.
pub(super) fn action(type_url: &str, sender: &str) -> Event {
    let module = type_url.split('.').nth(1).unwrap_or_default();
    let attributes = vec![
        attribute("action", type_url.to_owned()),
        attribute("sender", sender.to_owned()),
        attribute("module", module.to_owned()),
    ];
    Event { r#type: "message".into(), attributes }
}

/// The event of a fee that was taken.
pub(super) fn fee(uakt: u128, payer: &str) -> Event {
    let attributes = vec![
        attribute("fee", format!("{uakt}{}", super::amount::UAKT)),
        attribute("fee_payer", payer.to_owned()),
    ];
    Event { r#type: "tx".into(), attributes }
}

/// Adds which message of its transaction an event is of.
pub(super) fn of_message(mut event: Event, index: usize) -> Event {
    event.attributes.push(attribute("msg_index", index.to_string()));
    event
}

pub(super) fn deployment_json((owner, dseq): &DeploymentKey) -> String {
    format!(r#"{{"owner":"{owner}","dseq":"{dseq}"}}"#)
}

pub(super) fn group_json((owner, dseq, gseq): &GroupKey) -> String {
    format!(r#"{{"owner":"{owner}","dseq":"{dseq}","gseq":{gseq}}}"#)
}

pub(super) fn order_json((owner, dseq, gseq, oseq): &OrderKey) -> String {
    format!(r#"{{"owner":"{owner}","dseq":"{dseq}","gseq":{gseq},"oseq":{oseq}}}"#)
}

pub(super) fn bid_json((owner, dseq, gseq, oseq, provider): &BidKey) -> String {
    format!(
        r#"{{"owner":"{owner}","dseq":"{dseq}","gseq":{gseq},"oseq":{oseq},"provider":"{provider}","bseq":0}}"#
    )
}

/// A decimal price as JSON says it.
pub(super) fn price_json(denom: &str, amount: i128) -> String {
    let one = super::amount::ONE;
    format!(r#"{{"denom":"{denom}","amount":"{}.{:018}"}}"#, amount / one, amount % one)
}
