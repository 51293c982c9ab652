use super::*;
use crate::wire::akash::deployment::v1::deployment::State as DeploymentState;
use crate::wire::akash::deployment::v1beta4::MsgUpdateDeployment;
use crate::wire::akash::deployment::v1beta4::group::State as GroupState;
use crate::wire::akash::market::v1::lease::State as LeaseState;
use crate::wire::akash::market::v1beta5::order::State as OrderState;

#[test]
fn a_dseq_is_used_up_for_ever() {
    let mut market = Market::new(0);
    market.create(7, 1000, 5_000_000);
    let again = any(&market.create_msg(7, 1000, 5_000_000));
    assert_eq!(market.fails(&market.tenant(), std::slice::from_ref(&again)), ("deployment", 3));
    let close = market.close_msg(7);
    market.must(&market.tenant(), std::slice::from_ref(&close));
    assert_eq!(market.fails(&market.tenant(), &[again]), ("deployment", 3));
    assert_eq!(market.fails(&market.tenant(), &[close]), ("deployment", 5));
}

#[test]
fn a_lease_loses_only_the_first_of_the_other_bids() {
    let mut market = Market::new(4);
    market.create(7, 1000, 5_000_000);
    for at in 0..4 {
        market.bid(7, 1, at, 500);
    }
    let winner = market.bid_id(7, 1, 0).provider;
    let lease = market.lease_msg(7, 1, 0);
    market.must(&market.tenant(), &[lease]);
    let mut expected: Vec<_> =
        market.providers.iter().map(|provider| provider.address().to_owned()).collect();
    expected.sort();
    let lost_at = expected.iter().position(|address| *address != winner).unwrap();
    for (at, (address, state)) in expected.iter().zip(market.bid_states(7, 1)).enumerate() {
        let is_winner = *address == winner;
        let want = if is_winner {
            BidState::Active
        } else if at == lost_at {
            BidState::Lost
        } else {
            BidState::Open
        };
        assert_eq!(state, want, "{address}");
    }
    let left = (1..4).find(|at| market.bid_id(7, 1, *at).provider != expected[lost_at]).unwrap();
    let lost = (1..4).find(|at| market.bid_id(7, 1, *at).provider == expected[lost_at]).unwrap();
    assert_eq!(market.fails(&market.tenant(), &[market.lease_msg(7, 1, left)]), ("market", 13));
    assert_eq!(market.fails(&market.tenant(), &[market.lease_msg(7, 1, lost)]), ("market", 12));
    let close = market.close_msg(7);
    market.must(&market.tenant(), &[close]);
    assert!(
        market
            .bid_states(7, 1)
            .iter()
            .all(|state| matches!(state, BidState::Closed | BidState::Lost))
    );
}

#[test]
fn a_tenants_close_orders_again_and_leftovers_of_the_old_order_stay() {
    let mut market = Market::new(3);
    market.create(7, 1000, 5_000_000);
    for at in 0..3 {
        market.bid(7, 1, at, 500);
    }
    let (lease, close) = (market.lease_msg(7, 1, 0), market.close_lease_msg(7, 1, 0));
    market.must(&market.tenant(), &[lease]);
    market.must(&market.tenant(), &[close]);
    let lease = market.lease(7, 1, 0);
    assert_eq!((lease.state(), lease.reason), (LeaseState::Closed, 1));
    let orders: Vec<_> = market
        .ledger
        .view()
        .orders()
        .map(|order| (order.id.clone().unwrap().oseq, order.state()))
        .collect();
    assert_eq!(orders, [(1, OrderState::Closed), (2, OrderState::Open)]);
    let close = market.close_msg(7);
    market.must(&market.tenant(), &[close]);
    assert_eq!(market.bid_states(7, 1).iter().filter(|state| **state == BidState::Open).count(), 1);
}

#[test]
fn a_providers_close_pauses_the_group_until_it_is_started() {
    let mut market = Market::new(1);
    market.leased(7, 500, 5_000_000);
    let close = market.close_bid_msg(7, 1, 0, 10_000);
    market.must(&market.provider(0), &[close]);
    assert_eq!(market.group(7).state(), GroupState::Paused);
    assert_eq!(market.deployment(7).state(), DeploymentState::Active);
    assert_eq!(
        (market.lease(7, 1, 0).state(), market.lease(7, 1, 0).reason),
        (LeaseState::Closed, 10_000)
    );
    let start = market.start_msg(7);
    market.must(&market.tenant(), std::slice::from_ref(&start));
    assert_eq!(market.fails(&market.tenant(), std::slice::from_ref(&start)), ("deployment", 16));
    market.bid(7, 2, 0, 400);
    let lease = market.lease_msg(7, 2, 0);
    market.must(&market.tenant(), &[lease]);
    let close = market.close_msg(7);
    market.must(&market.tenant(), &[close]);
    assert_eq!(market.fails(&market.tenant(), &[start]), ("deployment", 15));
}

#[test]
fn only_so_many_bids_fit_on_an_order() {
    let mut market = Market::new(22);
    market.create(7, 1000, 5_000_000);
    for at in 0..21 {
        market.bid(7, 1, at, 500);
    }
    let record = market.send(&market.provider(21), &[market.bid_msg(7, 1, 21, 500)]);
    let error = record.error.clone().unwrap();
    assert_eq!((error.codespace, error.code), ("undefined", 1));
    assert!(
        String::from_utf8_lossy(&error.log).ends_with("invalid bid: too many existing bids (20)")
    );
}

#[test]
fn a_bid_must_fit_its_order() {
    let mut market = Market::new(2);
    market.create(7, 30, 5_000_000);
    assert_eq!(market.fails(&market.provider(0), &[market.bid_msg(7, 1, 0, 31)]), ("market", 4));
    market.bid(7, 1, 0, 30);
    assert_eq!(market.fails(&market.provider(0), &[market.bid_msg(7, 1, 0, 30)]), ("market", 21));
    let taken_back = market.close_bid_msg(7, 1, 0, 10_002);
    market.must(&market.provider(0), &[taken_back]);
    assert_eq!(market.fails(&market.provider(0), &[market.bid_msg(7, 1, 0, 30)]), ("market", 21));

    let mut elsewhere = market.create_msg(8, 30, 5_000_000);
    elsewhere.groups[0].requirements.as_mut().unwrap().attributes[0].value = "eu".into();
    market.must(&market.tenant(), &[any(&elsewhere)]);
    assert_eq!(market.fails(&market.provider(1), &[market.bid_msg(8, 1, 1, 30)]), ("market", 5));

    let mut other_class = market.create_msg(9, 30, 5_000_000);
    other_class.groups[0].resources[0].resource.as_mut().unwrap().storage[1].attributes[0].value =
        "beta2".into();
    market.must(&market.tenant(), &[any(&other_class)]);
    assert_eq!(market.fails(&market.provider(1), &[market.bid_msg(9, 1, 1, 30)]), ("market", 32));
}

#[test]
fn what_is_wrong_at_a_glance_is_not_taken() {
    let mut market = Market::new(1);
    market.create(7, 30, 5_000_000);
    let mut own = market.bid_id(7, 1, 0);
    own.provider.clone_from(&own.owner);
    let msg = MsgCreateBid {
        id: Some(own),
        price: Some(uact(1)),
        deposit: Some(deposit(UAKT, 500_000)),
        resources_offer: vec![],
        reclamation_window: None,
    };
    assert_eq!(market.refused(&market.tenant(), &[any(&msg)]), ("sdk", 36));
    market.bid(7, 1, 0, 30);
    assert_eq!(
        market.refused(&market.provider(0), &[market.close_bid_msg(7, 1, 0, 0)]),
        ("market", 33)
    );
    assert_eq!(
        market.refused(&market.tenant(), &[any(&market.create_msg(0, 30, 5_000_000))]),
        ("sdk", 3)
    );
    let mut no_gpu = market.create_msg(8, 30, 5_000_000);
    no_gpu.groups[0].resources[0].resource.as_mut().unwrap().gpu = None;
    let tx = market.sign(&market.tenant(), &[any(&no_gpu)]);
    assert_eq!(market.ledger.submit(&tx).unwrap_err().log, b"invalid unit GPU, cannot be nil");
}

#[test]
fn an_update_needs_another_hash() {
    let mut market = Market::new(0);
    market.create(7, 30, 5_000_000);
    let update = |hash: Vec<u8>, market: &Market| {
        any(&MsgUpdateDeployment { id: Some(market.dep_id(7)), hash })
    };
    let msg = update(vec![17; 32], &market);
    assert_eq!(market.fails(&market.tenant(), &[msg]), ("deployment", 10));
    assert_eq!(
        market.refused(&market.tenant(), &[update(vec![1; 31], &market)]),
        ("deployment", 10)
    );
    assert_eq!(market.refused(&market.tenant(), &[update(vec![], &market)]), ("deployment", 9));
    let msg = update(vec![18; 32], &market);
    market.must(&market.tenant(), &[msg]);
    assert_eq!(market.deployment(7).hash, vec![18; 32]);
}

#[test]
fn messages_of_one_transaction_happen_all_or_not_at_all() {
    let mut market = Market::new(0);
    market.create(7, 30, 5_000_000);
    let before = market.has(&market.tenant(), UACT);
    let both =
        [any(&market.create_msg(8, 30, 5_000_000)), any(&market.create_msg(7, 30, 5_000_000))];
    let record = market.send(&market.tenant(), &both);
    let error = record.error.clone().unwrap();
    assert_eq!(error.log, b"failed to execute message; message index: 1: Deployment exists");
    assert_eq!(market.has(&market.tenant(), UACT), before);
    assert!(market.ledger.view().query_deployment(&market.dep_id(8)).is_err());
}
