#![allow(clippy::similar_names, reason = "granter and grantee are the chain's own words")]
use super::*;
use crate::devnet::account::timestamp;
use crate::wire::akash::bme::v1 as bme;
use crate::wire::akash::escrow::v1::DepositAuthorization;
use crate::wire::akash::escrow::v1::deposit_authorization::Scope;
use crate::wire::cosmos::authz::v1beta1::{Grant, MsgGrant};

fn grant(granter: &Account, grantee: &Account, uact: u128, until_ns: u64) -> Any {
    let authorization = DepositAuthorization {
        spend_limit: Some(Coin { denom: UAKT.into(), amount: "0".into() }),
        scopes: vec![Scope::Deployment.into()],
        spend_limits: vec![Coin { denom: UACT.into(), amount: uact.to_string() }],
    };
    any(&MsgGrant {
        granter: granter.address().into(),
        grantee: grantee.address().into(),
        grant: Some(Grant {
            authorization: Some(any(&authorization)),
            expiration: Some(timestamp(until_ns)),
        }),
    })
}

#[test]
fn a_deposit_by_a_grant_comes_back_to_who_paid_it() {
    let mut market = Market::new(1);
    let (tenant, treasury) = (market.tenant(), market.provider(0));
    let until = market.now() + 3_600_000_000_000;
    market.must(&treasury, &[grant(&treasury, &tenant, 2_000_000, until)]);
    let (own, theirs) = (market.has(&tenant, UACT), market.has(&treasury, UACT));
    let create = |dseq, amount| {
        any(&MsgCreateDeployment {
            id: Some(DeploymentId { owner: tenant.address().into(), dseq }),
            groups: vec![group(500)],
            hash: vec![1; 32],
            deposit: Some(Deposit { sources: vec![Source::Grant.into()], ..deposit(UACT, amount) }),
            reclamation: None,
        })
    };
    market.must(&tenant, &[create(7, 1_500_000)]);
    assert_eq!(market.has(&treasury, UACT), theirs - 1_500_000);
    let left = |market: &Market| {
        let grants = market.ledger.view().deposit_grants(treasury.address(), tenant.address());
        let any = grants[0].authorization.clone().unwrap();
        let terms: DepositAuthorization = prost::Message::decode(any.value.as_slice()).unwrap();
        terms.spend_limits[0].amount.clone()
    };
    assert_eq!(left(&market), "500000");
    // More than the limit is refused, although the tenant itself is rich.
    let tx = market.sign(&tenant, &[create(8, 600_000)]);
    assert!(market.ledger.simulate(&tx).is_err());
    let close = market.close_msg(7);
    market.must(&tenant, &[close]);
    assert_eq!(market.has(&treasury, UACT), theirs, "all of it is back");
    assert_eq!((left(&market).as_str(), market.has(&tenant, UACT)), ("2000000", own));
    // A grant that is over is none.
    market.ledger.advance(until);
    assert_eq!(market.ledger.view().deposit_grants("", tenant.address()), vec![]);
    let tx = market.sign(&tenant, &[create(9, 600_000)]);
    assert!(market.ledger.simulate(&tx).is_err());
}

#[test]
fn akt_becomes_act_at_the_end_of_an_epoch_or_comes_back() {
    let mut market = Market::new(1);
    let tenant = market.tenant();
    let mint = |uakt: u128| {
        any(&bme::MsgMintAct {
            owner: tenant.address().into(),
            to: tenant.address().into(),
            coins_to_burn: Some(Coin { denom: UAKT.into(), amount: uakt.to_string() }),
        })
    };
    let before = (market.has(&tenant, UACT), market.has(&tenant, UAKT));
    market.must(&tenant, &[mint(40_000_000)]);
    market.must(&tenant, &[mint(4_000_000)]);
    let fees = 2 * 75_000;
    assert_eq!(market.has(&tenant, UAKT), before.1 - 44_000_000 - fees, "it is taken at once");
    market.blocks(10);
    assert_eq!(market.has(&tenant, UACT), before.0 + 19_950_000);
    assert_eq!(market.has(&tenant, UAKT), before.1 - 40_000_000 - fees, "too little comes back");
    let entries = market.ledger.view().mints(tenant.address());
    let ends: Vec<_> = entries.iter().map(bme::QueryLedgerRecordEntry::status).collect();
    assert_eq!(ends, [bme::LedgerRecordStatus::Executed, bme::LedgerRecordStatus::Canceled]);
}
