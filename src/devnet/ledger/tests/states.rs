//! Every state in which a tenant may find its deployment can be brought about.

use super::*;
use crate::wire::akash::deployment::v1::deployment::State as DeploymentState;
use crate::wire::akash::deployment::v1beta4::group::State as GroupState;
use crate::wire::akash::escrow::types::v1::State as EscrowState;
use crate::wire::akash::market::v1::lease::State as LeaseState;
use crate::wire::akash::market::v1beta5::MsgLeaseStartReclaim;
use crate::wire::akash::market::v1beta5::order::State as OrderState;

type Row = (DeploymentState, GroupState, Option<(LeaseState, i32)>, EscrowState);

/// How deployment 7 and its newest lease stand.
fn row(market: &Market) -> Row {
    let leases =
        market.ledger.view().leases().filter(|l| l.id.as_ref().is_some_and(|id| id.dseq == 7));
    let lease = leases.last().map(|lease| (lease.state(), lease.reason));
    (market.deployment(7).state(), market.group(7).state(), lease, market.escrow(7).state())
}

fn open_orders(market: &Market) -> Vec<u32> {
    let open = market.ledger.view().orders().filter(|order| order.state() == OrderState::Open);
    open.filter_map(|order| Some(order.id.as_ref()?.oseq)).collect()
}

fn reclaim_msg(market: &Market, reason: i32) -> Any {
    any(&MsgLeaseStartReclaim { id: Some(market.lease_id(7, 1, 0)), reason })
}

/// Leased from a provider that promised a notice of an hour.
fn reclaimable() -> Market {
    let mut market = Market::new(1);
    market.create(7, 1000, 5_000_000);
    let bid = MsgCreateBid {
        id: Some(market.bid_id(7, 1, 0)),
        price: Some(uact(500)),
        deposit: Some(deposit(UAKT, 500_000)),
        resources_offer: vec![],
        reclamation_window: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
    };
    market.must(&market.provider(0), &[any(&bid)]);
    let lease = market.lease_msg(7, 1, 0);
    market.must(&market.tenant(), &[lease]);
    market
}

#[test]
fn an_order_waits_then_a_lease_runs() {
    let mut market = Market::new(1);
    market.create(7, 1000, 5_000_000);
    let open = (DeploymentState::Active, GroupState::Open, None, EscrowState::Open);
    assert_eq!((row(&market), open_orders(&market)), (open, vec![1]));
    market.bid(7, 1, 0, 500);
    let lease = market.lease_msg(7, 1, 0);
    market.must(&market.tenant(), &[lease]);
    let (.., lease, _) = row(&market);
    assert_eq!((lease, open_orders(&market)), (Some((LeaseState::Active, 0)), vec![]));
}

#[test]
fn a_group_is_paused_with_each_reason_of_a_provider() {
    for reason in 10_000..=10_003 {
        let mut market = Market::new(1);
        market.leased(7, 500, 5_000_000);
        let close = market.close_bid_msg(7, 1, 0, reason);
        market.must(&market.provider(0), &[close]);
        let lease = Some((LeaseState::Closed, reason));
        let paused = (DeploymentState::Active, GroupState::Paused, lease, EscrowState::Open);
        assert_eq!((row(&market), open_orders(&market)), (paused, vec![]));
    }
}

#[test]
fn a_reclaimed_lease_is_paid_until_its_deadline_and_closed_after_it() {
    let mut market = reclaimable();
    let close = market.close_bid_msg(7, 1, 0, 10_001);
    assert_eq!(market.fails(&market.provider(0), std::slice::from_ref(&close)), ("market", 37));
    let start = reclaim_msg(&market, 10_001);
    market.must(&market.provider(0), std::slice::from_ref(&start));
    let started = market.now();
    assert_eq!(market.fails(&market.provider(0), &[start]), ("market", 10));
    let lease = Some((LeaseState::Reclaiming, 0));
    let leaving = (DeploymentState::Active, GroupState::Open, lease, EscrowState::Open);
    assert_eq!(row(&market), leaving);
    let reclamation = market.lease(7, 1, 0).reclamation.unwrap();
    assert_eq!(reclamation.deadline, i64::try_from(started / 1_000_000_000).unwrap() + 3600);
    assert_eq!(market.fails(&market.provider(0), std::slice::from_ref(&close)), ("market", 38));
    let before = market.has(&market.provider(0), UACT);
    let (blocks, now) = (7200, market.now());
    market.ledger.skip(blocks, now + blocks * BLOCK_NS);
    market.must(&market.provider(0), &[close]);
    let lease = Some((LeaseState::Closed, 10_001));
    let paused = (DeploymentState::Active, GroupState::Paused, lease, EscrowState::Open);
    assert_eq!(row(&market), paused);
    assert!(market.has(&market.provider(0), UACT) > before + u128::from(blocks) * 500);
}

#[test]
fn a_tenant_may_leave_a_lease_that_is_being_reclaimed() {
    let mut market = reclaimable();
    let start = reclaim_msg(&market, 10_000);
    market.must(&market.provider(0), &[start]);
    let close = market.close_lease_msg(7, 1, 0);
    market.must(&market.tenant(), &[close]);
    let lease = Some((LeaseState::Closed, 1));
    let again = (DeploymentState::Active, GroupState::Open, lease, EscrowState::Open);
    assert_eq!((row(&market), open_orders(&market)), (again, vec![2]));
}

#[test]
fn a_deployment_ends_by_its_owner() {
    let mut market = Market::new(1);
    market.leased(7, 500, 5_000_000);
    let close = market.close_msg(7);
    market.must(&market.tenant(), &[close]);
    let lease = Some((LeaseState::Closed, 1));
    let done = (DeploymentState::Closed, GroupState::Closed, lease, EscrowState::Closed);
    assert_eq!(row(&market), done);
}

/// Whoever touches it first: the provider by taking its money, or the tenant by closing.
#[test]
fn a_deployment_without_funds_ends_when_it_is_touched() {
    let lease = Some((LeaseState::InsufficientFunds, 20_000));
    let dry = GroupState::InsufficientFunds;
    let dry = (DeploymentState::Closed, dry, lease, EscrowState::Overdrawn);
    for by_tenant in [false, true] {
        let mut market = Market::new(1);
        market.leased(7, 100_000, 500_000);
        market.blocks(9);
        let running = Some((LeaseState::Active, 0));
        assert_eq!(row(&market).2, running, "nobody has noticed");
        let (who, msg) = if by_tenant {
            (market.tenant(), market.close_msg(7))
        } else {
            (market.provider(0), market.withdraw_msg(7, 1, 0))
        };
        market.must(&who, &[msg]);
        assert_eq!(row(&market), dry);
        assert!(market.escrow(7).funds[0].amount.starts_with('-'), "its debt stays");
    }
}

#[test]
fn skipped_blocks_are_empty_blocks() {
    let lives = |skip: bool| {
        let mut market = Market::new(1);
        market.leased(7, 500, 5_000_000);
        let (blocks, now) = (40, market.now());
        if skip {
            market.ledger.skip(blocks, now + blocks * BLOCK_NS);
        } else {
            market.blocks(blocks);
        }
        let withdraw = market.withdraw_msg(7, 1, 0);
        market.must(&market.provider(0), &[withdraw]);
        let block = market.ledger.view().block();
        (block, market.has(&market.provider(0), UACT), market.escrow(7))
    };
    assert_eq!(lives(true), lives(false));
}

#[test]
fn reordered_transactions_get_ahead_of_each_other_and_none_is_lost() {
    let mut market = Market::new(0);
    for dseq in 1..=3 {
        let msg = any(&market.create_msg(dseq, 30, 5_000_000));
        let tx = market.sign(&market.tenant(), &[msg]);
        market.ledger.submit(&tx).unwrap();
    }
    let created = |market: &Market| {
        let all = market.ledger.view().deployments();
        all.map(|d| (d.id.as_ref().unwrap().dseq, d.created_at)).collect::<Vec<_>>()
    };
    let next = market.now() + BLOCK_NS;
    market.ledger.advance_reordered(next);
    assert_eq!((created(&market).len(), market.ledger.waiting()), (2, 1));
    market.ledger.advance_reordered(next + BLOCK_NS);
    let heights: Vec<_> = created(&market).into_iter().map(|(_, height)| height).collect();
    assert_eq!(heights.len(), 3);
    assert!(heights[0] > heights[1] && heights[1] == heights[2], "{heights:?}");
    // The order of before is the usual one again, and nothing is held back for ever.
    let msg = any(&market.create_msg(4, 30, 5_000_000));
    let tx = market.sign(&market.tenant(), &[msg]);
    market.ledger.submit(&tx).unwrap();
    market.ledger.advance_reordered(next + 2 * BLOCK_NS);
    market.blocks(1);
    assert_eq!(created(&market).len(), 4);
}

#[test]
fn governance_changes_what_is_asked_for() {
    let mut market = Market::new(0);
    let params = market.ledger.view().genesis().params.clone();
    market.ledger.set_params(super::super::Params { min_deposit: 900_000, ..params });
    let poor = any(&market.create_msg(1, 30, 500_000));
    assert_eq!(market.fails(&market.tenant(), &[poor]), ("deployment", 20));
    market.create(2, 30, 900_000);
}
