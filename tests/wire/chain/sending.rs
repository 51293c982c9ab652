//! How transactions are signed, sent, and come to their end.

use akash_redis::chain::client::GasPrice;
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::chain::{Chain, ChainError, tx};
use akash_redis::model::chain::{ChainMsg, SignedTx, TxOutcome};
use akash_redis::model::ids::LeaseId;
use akash_redis::wire::cosmos;
use akash_redis::wire::cosmos::tx::v1beta1::{SimulateRequest, TxBody, TxRaw};
use prost::Message;
use tonic::Status;

use super::node::*;
use super::{CHAIN_ID, DSEQ, OWNER, PHRASE};

fn lease() -> ChainMsg {
    let provider = "akash1nxm333kdfwk6mty4423xsefd4t7r64efg826jt".into();
    ChainMsg::CreateLease(LeaseId { owner: OWNER.into(), dseq: DSEQ, gseq: 1, oseq: 1, provider })
}

#[tokio::test]
async fn signing_simulates_without_a_signature_and_signs_what_was_simulated() {
    let script = Script::default();
    script.lock().block_ms = 500;
    script.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    let client = script.client().await;
    let first = client.sign(&lease()).await.expect("a transaction");
    let second = client.sign(&lease()).await.expect("a transaction");
    assert_ne!(first.bytes, second.bytes);
    assert_eq!(
        script.asked("/cosmos.auth.v1beta1.Query/AccountInfo").len(),
        1,
        "the account number is kept"
    );
    assert_eq!((first.dseq, &first.hash), (DSEQ, &tx::hash(&first.bytes)));

    let signed = TxRaw::decode(first.bytes.as_slice()).expect("a transaction");
    let auth = |raw: &TxRaw| {
        cosmos::tx::v1beta1::AuthInfo::decode(raw.auth_info_bytes.as_slice())
            .expect("a fee")
            .fee
            .expect("a fee")
    };
    let simulated =
        SimulateRequest::decode(&*script.asked(SIMULATE)[0].1).expect("a request").tx_bytes;
    let simulated = TxRaw::decode(simulated.as_slice()).expect("a transaction");
    assert_eq!(
        (&simulated.body_bytes, &simulated.signatures),
        (&signed.body_bytes, &vec![Vec::new()])
    );
    assert!(
        auth(&simulated).amount[0].amount.parse::<u64>().expect("a number") > 0,
        "a fee is taken, as when it is sent"
    );
    let gas_used = read::<cosmos::tx::v1beta1::SimulateResponse>(
        "Simulate create deployment (ordered, empty signature)",
    );
    let gas_used = gas_used.gas_info.expect("gas").gas_used;
    let fee = auth(&signed);
    assert_eq!(fee.gas_limit, (gas_used * 15).div_ceil(10));
    assert_eq!(fee.amount[0].amount, GasPrice::USUAL.fee(fee.gas_limit).to_string());
    let body = TxBody::decode(signed.body_bytes.as_slice()).expect("a body");
    let timeout = body.timeout_timestamp.expect("a time-out");
    assert!(body.unordered && ms(timeout) <= first.timeout && first.timeout.0 <= ms(timeout).0 + 1);
    let wallet = Wallet::from_phrase(&PHRASE.into(), 0).expect("a good phrase");
    let doc = tx::sign_doc(&signed.body_bytes, &signed.auth_info_bytes, CHAIN_ID, 0);
    assert_eq!(signed.signatures, [wallet.sign(&doc).to_vec()]);
}

#[tokio::test]
async fn a_refused_simulation_says_which_rule_was_broken() {
    let script = Script::default();
    script.replay("AccountInfo").replay("Simulate deposit too low");
    let error = script.client().await.sign(&lease()).await.expect_err("too low");
    let ChainError::Refused { codespace, code, log, .. } = &error else { panic!("{error}") };
    assert_eq!((codespace.as_str(), *code), ("deployment", 20));
    assert!(log.contains("499999 < 500000uact"), "{log}");
    let script = Script::default();
    script.replay("AccountInfo of an unknown account");
    let error = script.client().await.sign(&lease()).await.expect_err("no account");
    assert!(error.to_string().contains("send it AKT"), "{error}");
}

/// An endpoint's measure of gas is paid: one that lies is passed over, and never paid what it says.
#[tokio::test]
async fn no_endpoint_sets_the_fee() {
    let liar = Script::default();
    let mut lie: cosmos::tx::v1beta1::SimulateResponse =
        read("Simulate create deployment (ordered, empty signature)");
    lie.gas_info.as_mut().expect("gas").gas_used = 4_000_000_000;
    liar.replay("AccountInfo").say(SIMULATE, Ok(lie.encode_to_vec()));
    let error = liar.client().await.sign(&lease()).await.expect_err("too dear");
    assert!(matches!(&error, ChainError::NotSent { .. }), "{error}");
    assert!(
        error.to_string().contains("6000000000 gas") && error.to_string().contains("chain.maxFee"),
        "{error}"
    );
    let honest = Script::default();
    honest.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    let both = client(vec![liar.serve().await, honest.serve().await]);
    both.sign(&lease()).await.expect("the honest one is asked next");

    // What each transaction may cost, many together may not.
    let limits = FeeLimits { per_tx: 5_000, per_day: 12_000 };
    let client = limited(vec![honest.serve().await], limits);
    for _ in 0..2 {
        client.sign(&lease()).await.expect("4650uakt each");
    }
    let error = client.sign(&lease()).await.expect_err("13950uakt in a day");
    assert!(error.to_string().contains("chain.maxFeePerDay (12000uakt)"), "{error}");
    assert!(honest.asked(BROADCAST).is_empty());
}

/// A transaction that may have been sent before; it lives `blocks` blocks from the recorded one on.
fn sent(script: &Script, blocks: i64) -> SignedTx {
    let block_ms = script.lock().block_ms;
    let timeout = ms(block_time(blocks, block_ms));
    SignedTx {
        dseq: 1,
        purpose: "a test".into(),
        bytes: vec![1, 2, 3],
        hash: tx::hash(&[1, 2, 3]),
        timeout,
    }
}

/// Blocks of a fifth of a second: each look at the chain is one block later.
fn fast() -> Script {
    let script = Script::default();
    script.lock().block_ms = 200;
    script
}

#[tokio::test]
async fn accepted_and_found_is_landed() {
    let script = fast();
    script.replay("BroadcastTx create deployment, accepted");
    script.replay("GetTx before inclusion (not found)").replay("GetTx create deployment, included");
    let outcome =
        script.client().await.broadcast_and_confirm(&sent(&script, 60)).await.expect("an outcome");
    let height = read::<cosmos::tx::v1beta1::GetTxResponse>("GetTx create deployment, included")
        .tx_response
        .expect("an end")
        .height;
    let TxOutcome::Landed { height: at, receipt } = outcome else { panic!("{outcome:?}") };
    assert_eq!((at, receipt.height, receipt.fee), (height, height, 10_000));
    assert_eq!(receipt.fee_payer, "akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh");
    assert_eq!(receipt.time.to_string(), "2026-11-24T10:44:40Z");
}

#[tokio::test]
async fn a_lost_answer_or_a_repetition_is_looked_up() {
    for broadcast in [
        Err(Status::unavailable("connection reset")),
        // Cut off in the middle: an answer that cannot be read.
        Ok(vec![0x0a, 0x42, 0x12]),
        recorded("BroadcastTx same bytes again (already in cache)").answer(),
        recorded("BroadcastTx unordered, timestamp used before").answer(),
        recorded("BroadcastTx unordered, timestamp in the past").answer(),
    ] {
        let script = fast();
        script.say(BROADCAST, broadcast).replay("GetTx create deployment, included");
        let outcome = script
            .client()
            .await
            .broadcast_and_confirm(&sent(&script, 60))
            .await
            .expect("an outcome");
        assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
    }
}

/// A node that is away for a moment is asked again; one that says no is not.
#[tokio::test]
async fn a_look_is_repeated_while_the_node_is_away() {
    let script = fast();
    script.replay("BroadcastTx create deployment, accepted");
    script.say(GET_TX, Err(Status::unavailable("restarting")));
    script.replay("GetTx create deployment, included");
    let client = script.client().await;
    let outcome = client.broadcast_and_confirm(&sent(&script, 60)).await.expect("an outcome");
    assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");

    let script = fast();
    script.replay("BroadcastTx create deployment, accepted");
    // Code 5 of a module is not the code 5 by which a node says that it does not know it.
    script.say(GET_TX, Err(Status::unknown("codespace sdk code 5: insufficient funds")));
    let client = script.client().await;
    let error = client.broadcast_and_confirm(&sent(&script, 60)).await.expect_err("a refusal");
    assert!(
        matches!(&error, ChainError::Refused { codespace, .. } if codespace == "sdk"),
        "{error}"
    );
    assert_eq!(script.asked(GET_TX).len(), 1);
}

#[tokio::test]
async fn in_a_block_and_failed_is_failed() {
    for (case, codespace, code) in [
        ("GetTx failed tx (deployment exists)", "deployment", 3),
        ("GetTx create lease on a lost bid (failed)", "market", 12),
    ] {
        let script = fast();
        script.replay("BroadcastTx create lease").replay(case);
        let outcome = script
            .client()
            .await
            .broadcast_and_confirm(&sent(&script, 60))
            .await
            .expect("an outcome");
        assert!(
            matches!(&outcome, TxOutcome::Failed { codespace: c, code: n, .. } if c == codespace && *n == code),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn it_is_expired_only_when_it_can_no_longer_be_in_a_block() {
    let script = fast();
    script.replay("BroadcastTx unordered, accepted").replay("GetTx before inclusion (not found)");
    let tx = sent(&script, 6);
    assert_eq!(
        script.client().await.broadcast_and_confirm(&tx).await.expect("an outcome"),
        TxOutcome::Expired
    );
    assert!(script.lock().blocks > 6 + 2, "the time-out has passed, and a few blocks");

    // Its block was the last possible one, and the index of transactions was late.
    let script = fast();
    script.replay("BroadcastTx unordered, accepted");
    for _ in 0..8 {
        script.replay("GetTx before inclusion (not found)");
    }
    script.replay("GetTx create deployment, included");
    let outcome =
        script.client().await.broadcast_and_confirm(&sent(&script, 6)).await.expect("an outcome");
    assert!(matches!(outcome, TxOutcome::Landed { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_refusal_ends_it_only_when_nobody_took_it_before() {
    // These bytes may have been sent by an earlier process: another node may still hold them.
    let script = fast();
    script.replay("BroadcastTx bad signature").replay("GetTx before inclusion (not found)");
    let outcome =
        script.client().await.broadcast_and_confirm(&sent(&script, 6)).await.expect("an outcome");
    assert!(
        matches!(&outcome, TxOutcome::Failed { codespace, code: 4, .. } if codespace == "sdk"),
        "{outcome:?}"
    );
    assert!(script.lock().blocks > 6);
    // Signed a moment ago and never sent: nothing to wait for.
    let script = fast();
    script.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    script.replay("BroadcastTx fee too low").replay("GetTx before inclusion (not found)");
    let client = script.client().await;
    let tx = client.sign(&lease()).await.expect("a transaction");
    let outcome = client.broadcast_and_confirm(&tx).await.expect("an outcome");
    assert!(
        matches!(&outcome, TxOutcome::Failed { code: 13, log, .. } if log.contains("chain.gasPrice")),
        "{outcome:?}"
    );
    assert!(script.asked(GET_TX).is_empty());
}

#[tokio::test]
async fn a_text_that_is_no_text_does_not_hide_the_refusal() {
    let script = fast();
    script.replay("AccountInfo").replay("Simulate create deployment (ordered, empty signature)");
    script.replay("BroadcastTx fee granter without an allowance (raw_log is NOT valid UTF-8)");
    let client = script.client().await;
    let tx = client.sign(&lease()).await.expect("a transaction");
    let outcome = client.broadcast_and_confirm(&tx).await.expect("an outcome");
    assert!(
        matches!(&outcome, TxOutcome::Failed { code: 38, log, .. } if log.contains("wallet.feeGranter")),
        "{outcome:?}"
    );
}
