use super::*;
use crate::devnet::ledger::{TxError, hash_of};

fn terms(order: Order) -> TxTerms<'static> {
    TxTerms { chain_id: "akash-local", account_number: 0, order, gas: 400_000, fee: 10_000 }
}

fn code(result: Result<(), TxError>) -> (&'static str, u32, String) {
    let error = result.unwrap_err();
    (error.codespace, error.code, String::from_utf8_lossy(&error.log).into_owned())
}

#[test]
fn ordered_transactions_follow_each_other_in_one_block() {
    let mut market = Market::new(0);
    let tenant = market.tenant();
    for sequence in 0..3 {
        let msg = any(&market.create_msg(sequence + 1, 30, 500_000));
        let tx = tenant.sign_tx(vec![msg], &terms(Order::Sequence(sequence)));
        market.ledger.submit(&tx).unwrap();
    }
    let msg = any(&market.create_msg(9, 30, 500_000));
    let late = tenant.sign_tx(vec![msg.clone()], &terms(Order::Sequence(1)));
    let text = "account sequence mismatch, expected 3, got 1: incorrect account sequence";
    assert_eq!(code(market.ledger.submit(&late)), ("sdk", 32, text.into()));
    assert!(market.blocks(1).iter().all(|record| record.error.is_none()));
    let simulated = market
        .ledger
        .simulate(&tenant.sign_tx(vec![msg], &terms(Order::Sequence(9999))))
        .unwrap_err();
    assert!(
        String::from_utf8_lossy(&simulated.0.log)
            .starts_with("account sequence mismatch, expected 3, got 9999")
    );
}

#[test]
fn fee_signature_and_chain_must_be_right() {
    let mut market = Market::new(1);
    let tenant = market.tenant();
    let msg = any(&market.create_msg(9, 30, 500_000));
    let poor = tenant.sign_tx(vec![msg.clone()], &TxTerms { fee: 1, ..terms(Order::Sequence(0)) });
    let text = "insufficient fees; got: 1uakt required: 10000uakt: insufficient fee";
    assert_eq!(code(market.ledger.submit(&poor)), ("sdk", 13, text.into()));
    let foreign = tenant.sign_tx(
        vec![msg.clone()],
        &TxTerms { chain_id: "akashnet-2", ..terms(Order::Sequence(0)) },
    );
    let text = "signature verification failed; please verify account number (0) and chain-id (akash-local): (unable to verify single \
                signer signature): unauthorized";
    assert_eq!(code(market.ledger.submit(&foreign)), ("sdk", 4, text.into()));
    let not_owner = market.provider(0).sign_tx(vec![msg.clone()], &terms(Order::Sequence(0)));
    assert_eq!(code(market.ledger.submit(&not_owner)).1, 8);
    let short = tenant.sign_tx(vec![msg], &TxTerms { gas: 60_000, ..terms(Order::Sequence(0)) });
    market.ledger.submit(&short).unwrap();
    let before = market.has(&tenant, UAKT);
    let record = market.blocks(1).pop().unwrap();
    assert_eq!(record.error.as_ref().map(|error| error.code), Some(11));
    assert_eq!(market.has(&tenant, UAKT), before - 10_000, "the fee is taken all the same");
}

#[test]
fn unordered_transactions_need_a_fresh_time_ahead() {
    let mut market = Market::new(0);
    let tenant = market.tenant();
    let now = market.now();
    let sign = |market: &Market, dseq, until| {
        tenant
            .sign_tx(vec![any(&market.create_msg(dseq, 30, 500_000))], &terms(Order::Until(until)))
    };
    let first = sign(&market, 1, now + 30_000_000_000);
    market.ledger.submit(&first).unwrap();
    assert_eq!(code(market.ledger.submit(&first)), ("sdk", 19, String::new()));
    let used = format!(
        "failed to add unordered nonce: sender {} has already used timeout {}: invalid request",
        tenant.address(),
        now + 30_000_000_000
    );
    assert_eq!(
        code(market.ledger.submit(&sign(&market, 2, now + 30_000_000_000))),
        ("sdk", 18, used)
    );
    let past = "block time: 2026-11-24 10:44:40 +0000 UTC, timeout timestamp: 2026-11-24 10:44:39.5 +0000 UTC: tx timeout";
    assert_eq!(
        code(market.ledger.submit(&sign(&market, 2, now - 500_000_000))),
        ("sdk", 42, past.into())
    );
    let far = "unordered tx ttl exceeds 10m0s: invalid request";
    assert_eq!(
        code(market.ledger.submit(&sign(&market, 2, now + 601_000_000_000))),
        ("sdk", 18, far.into())
    );
    market.blocks(1);
    assert!(market.ledger.tx(&hash_of(&first)).is_some());
    assert_eq!(
        code(market.ledger.submit(&first)),
        ("sdk", 19, String::new()),
        "in a block is in the cache too"
    );
    assert_eq!(market.ledger.view().account_info(tenant.address()).unwrap().sequence, 0);
    assert!(market.ledger.view().account_info(tenant.address()).unwrap().pub_key.is_some());
}

#[test]
fn a_simulation_leaves_nothing_behind() {
    let mut market = Market::new(0);
    let tx = market.sign(&market.tenant(), &[any(&market.create_msg(1, 30, 500_000))]);
    let before = market.has(&market.tenant(), UAKT);
    let simulated = market.ledger.simulate(&tx).unwrap();
    assert_eq!(market.has(&market.tenant(), UAKT), before);
    market.ledger.submit(&tx).unwrap();
    assert_eq!(market.blocks(1)[0].gas_used - simulated.gas_used, 2_170, "the signature");
}

/// The figures of a real node: whoever simulates without the fee that is taken later gets a limit
/// that is too small.
#[test]
fn an_update_takes_the_gas_that_it_takes_on_a_real_node() {
    let mut market = Market::new(0);
    let tenant = market.tenant();
    market.create(1, 30, 500_000);
    let id = Some(market.dep_id(1));
    let msg = any(&crate::wire::akash::deployment::v1beta4::MsgUpdateDeployment {
        id,
        hash: vec![9; 32],
    });
    let number = market.ledger.view().account_info(tenant.address()).unwrap().account_number;
    let sign = |market: &Market, fee: u64, gas: u64| {
        let order = Order::Until(market.ledger.view().block().time_ns + 60_000_000_000 + fee);
        tenant.sign_tx(
            vec![msg.clone()],
            &TxTerms { chain_id: "akash-local", account_number: number, order, gas, fee },
        )
    };
    let free = market.ledger.simulate(&sign(&market, 0, 0)).unwrap().gas_used;
    let paid = market.ledger.simulate(&sign(&market, 1, 0)).unwrap().gas_used;
    assert_eq!((free, paid), (32_580, 50_430));
    let tx = sign(&market, 1_250, free * 3 / 2);
    market.ledger.submit(&tx).unwrap();
    let record = market.blocks(1).remove(0);
    assert_eq!(
        (record.gas_used, record.error.as_ref().map(|e| (e.codespace, e.code))),
        (52_600, Some(("sdk", 11)))
    );
    let tx = sign(&market, 1_900, paid * 3 / 2);
    market.ledger.submit(&tx).unwrap();
    assert!(market.blocks(1)[0].error.is_none());
}

#[test]
fn a_fee_granter_without_an_allowance_is_named_in_bare_bytes() {
    use prost::Message as _;

    use crate::devnet::account::address_bytes;
    use crate::wire::cosmos::tx::v1beta1::{AuthInfo, TxRaw};

    let mut market = Market::new(1);
    let (tenant, granter) = (market.tenant(), market.provider(0));
    let signed =
        tenant.sign_tx(vec![any(&market.create_msg(9, 30, 500_000))], &terms(Order::Sequence(0)));
    let mut raw = TxRaw::decode(signed.as_slice()).unwrap();
    let mut auth = AuthInfo::decode(raw.auth_info_bytes.as_slice()).unwrap();
    auth.fee.as_mut().unwrap().granter = granter.address().into();
    raw.auth_info_bytes = auth.encode_to_vec();
    let error = market.ledger.submit(&raw.encode_to_vec()).unwrap_err();
    assert_eq!((error.codespace, error.code), ("sdk", 38));
    assert!(error.log.starts_with(&address_bytes(granter.address()).unwrap()));
    assert!(error.log.ends_with(b"fee-grant not found: not found"));
}
