use super::*;
use crate::wire::akash::deployment::v1::deployment::State as DeploymentState;
use crate::wire::akash::deployment::v1beta4::group::State as GroupState;
use crate::wire::akash::escrow::types::v1::State as EscrowState;
use crate::wire::akash::market::v1::lease::State as LeaseState;

#[test]
fn a_lease_pays_its_rate_for_each_block_and_the_rest_comes_back() {
    let mut market = Market::new(1);
    let (tenant, provider) = (market.tenant(), market.provider(0));
    let before =
        (market.has(&tenant, UACT), market.has(&provider, UACT), market.has(&provider, UAKT));
    market.leased(7, 500, 5_000_000);
    market.blocks(6);
    assert_eq!(market.has(&provider, UACT), before.1, "nothing moves before somebody asks");
    let close = market.close_msg(7);
    market.must(&tenant, &[close]);
    assert_eq!(market.has(&provider, UACT), before.1 + 7 * 500);
    assert_eq!(market.has(&tenant, UACT), before.0 - 7 * 500);
    let fees = 75_000;
    assert_eq!(market.has(&provider, UAKT), before.2 - fees, "the deposit of the bid is back");
    assert_eq!(market.escrow(7).state(), EscrowState::Closed);
    assert_eq!(market.escrow(7).transferred[0], uact(3500));
}

#[test]
fn a_dry_account_ends_everything_once_it_is_touched() {
    let mut market = Market::new(1);
    market.leased(7, 100_000, 500_000);
    market.blocks(9);
    assert_eq!(
        market.deployment(7).state(),
        DeploymentState::Active,
        "the chain does not notice by itself"
    );
    let withdraw = market.withdraw_msg(7, 1, 0);
    market.must(&market.provider(0), &[withdraw]);
    assert_eq!(market.deployment(7).state(), DeploymentState::Closed);
    assert_eq!(market.group(7).state(), GroupState::InsufficientFunds);
    let lease = market.lease(7, 1, 0);
    assert_eq!((lease.state(), lease.reason), (LeaseState::InsufficientFunds, 20_000));
    let escrow = market.escrow(7);
    assert_eq!(
        (escrow.state(), escrow.funds[0].amount.as_str()),
        (EscrowState::Overdrawn, "-500000000000000000000000")
    );
    let payment = market
        .ledger
        .view()
        .query_lease(&market.lease_id(7, 1, 0))
        .unwrap()
        .escrow_payment
        .unwrap()
        .state
        .unwrap();
    assert_eq!(
        (payment.state(), payment.unsettled, payment.withdrawn.unwrap().amount.as_str()),
        (EscrowState::Overdrawn, Some(uact(500_000)), "500000")
    );
    // A late deposit pays the debt and brings nothing back to life.
    let before = market.has(&market.tenant(), UACT);
    let late = market.deposit_msg(7, &market.tenant(), UACT, 800_000);
    market.must(&market.tenant(), &[late]);
    assert_eq!(market.has(&market.tenant(), UACT), before - 500_000);
    assert_eq!(
        (market.escrow(7).state(), market.escrow(7).funds[0].amount.as_str()),
        (EscrowState::Closed, "0")
    );
    assert_eq!(market.deployment(7).state(), DeploymentState::Closed);
    // The group can be started all the same, which makes an order for nobody.
    let start = market.start_msg(7);
    market.must(&market.tenant(), &[start]);
}

#[test]
fn a_deposit_before_anybody_looks_saves_a_dry_deployment() {
    let mut market = Market::new(1);
    market.leased(7, 100_000, 500_000);
    market.blocks(9);
    let in_time = market.deposit_msg(7, &market.tenant(), UACT, 1_000_000);
    market.must(&market.tenant(), &[in_time]);
    assert_eq!(market.escrow(7).settled_at, market.lease(7, 1, 0).created_at);
    let withdraw = market.withdraw_msg(7, 1, 0);
    market.must(&market.provider(0), &[withdraw]);
    assert_eq!(market.deployment(7).state(), DeploymentState::Active);
    assert_eq!(market.escrow(7).transferred[0], uact(1_100_000));
}

#[test]
fn each_depositor_gets_its_own_rest() {
    let mut market = Market::new(2);
    market.leased(7, 100_000, 500_000);
    let other = market.provider(1);
    let before = (market.has(&market.tenant(), UACT), market.has(&other, UACT));
    let (foreign, reserve) =
        (market.deposit_msg(7, &other, UACT, 600_000), market.deposit_msg(7, &other, UAKT, 1_000));
    market.must(&other, &[foreign]);
    market.must(&other, &[reserve]);
    market.blocks(3);
    let close = market.close_msg(7);
    market.must(&market.tenant(), &[close]);
    assert_eq!(market.has(&market.tenant(), UACT), before.0, "six blocks took the first deposit");
    assert_eq!(market.has(&other, UACT), before.1 - 100_000);
}

#[test]
fn a_second_settlement_in_one_block_goes_wrong() {
    let mut market = Market::new(1);
    market.leased(7, 500, 5_000_000);
    market.blocks(3);
    for _ in 0..2 {
        let withdraw = market.withdraw_msg(7, 1, 0);
        let tx = market.sign(&market.provider(0), &[withdraw]);
        market.ledger.submit(&tx).unwrap();
    }
    let codes: Vec<_> = market
        .blocks(1)
        .iter()
        .map(|record| record.error.as_ref().map_or(0, |error| error.code))
        .collect();
    assert_eq!(codes, [0, 111_222]);
}

#[test]
fn closed_money_cannot_be_moved() {
    let mut market = Market::new(1);
    market.leased(7, 500, 5_000_000);
    let close = market.close_msg(7);
    market.must(&market.tenant(), &[close]);
    let deposit = market.deposit_msg(7, &market.tenant(), UACT, 5);
    assert_eq!(market.fails(&market.tenant(), &[deposit]), ("escrow", 2));
    let nowhere = market.deposit_msg(8, &market.tenant(), UACT, 5);
    assert_eq!(market.fails(&market.tenant(), &[nowhere]), ("escrow", 3));
    let withdraw = market.withdraw_msg(7, 1, 0);
    assert_eq!(market.fails(&market.provider(0), &[withdraw]), ("escrow", 7));
}

#[test]
fn a_tenants_close_of_a_dry_lease_does_not_order_again() {
    let mut market = Market::new(1);
    market.leased(7, 100_000, 500_000);
    market.blocks(9);
    let close = market.close_lease_msg(7, 1, 0);
    market.must(&market.tenant(), &[close]);
    assert_eq!(
        (market.deployment(7).state(), market.group(7).state()),
        (DeploymentState::Closed, GroupState::InsufficientFunds)
    );
    assert_eq!(
        (market.lease(7, 1, 0).state(), market.lease(7, 1, 0).reason),
        (LeaseState::Closed, 1)
    );
    assert_eq!(market.ledger.view().orders().count(), 1);
}

#[test]
fn deposits_too_low_or_not_there_are_refused() {
    let mut market = Market::new(0);
    let record = market.send(&market.tenant(), &[any(&market.create_msg(7, 30, 499_999))]);
    let log = b"failed to execute message; message index: 0: Deposit too low - 499999 < 500000uact: Deposit invalid".to_vec();
    assert_eq!(record.error.clone().unwrap().log, log);
    assert_eq!(
        market.fails(&market.tenant(), &[any(&market.create_msg(7, 30, RICH + 1))]),
        ("undefined", 1)
    );
    let mut mixed = market.create_msg(7, 30, 500_000);
    mixed.deposit = Some(deposit(UAKT, 500_000));
    assert_eq!(market.refused(&market.tenant(), &[any(&mixed)]), ("deployment", 20));
}
