//! Orders, bids and leases.

use super::amount::{UACT, UAKT, coin, dec};
use super::error::{TxError, market as says};
use super::event::{about, bid_json, order_json, price_json};
use super::handle::Ctx;
use super::matching;
use super::state::{
    BidKey, GroupKey, OrderKey, bid_escrow, bid_key, deployment_escrow, group_of, lease_key,
    lease_payment, order_of,
};
use crate::wire::akash::base::deposit::v1::Source;
use crate::wire::akash::deployment::v1beta4::group::State as GroupState;
use crate::wire::akash::market::v1::lease::State as LeaseState;
use crate::wire::akash::market::v1::{Lease, LeaseClosedReason, LeaseId, OrderId, Reclamation};
use crate::wire::akash::market::v1beta5::bid::State as BidState;
use crate::wire::akash::market::v1beta5::order::State as OrderState;
use crate::wire::akash::market::v1beta5::{
    Bid, MsgCloseBid, MsgCreateBid, MsgCreateLease, MsgLeaseStartReclaim, Order,
};

/// How a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseEnd {
    ByOwner,
    /// With the provider's reason.
    ByProvider(i32),
    RanDry,
}

impl Ctx<'_> {
    pub(super) fn create_order(&mut self, group: &GroupKey) -> Result<(), TxError> {
        let before = self.state.orders_of(group);
        let live = |key: &OrderKey| {
            self.state.orders.get(key).is_some_and(|order| order.state() != OrderState::Closed)
        };
        if before.iter().any(live) {
            return Err(says::ORDER_ACTIVE.because("create order: active order exists"));
        }
        let (owner, dseq, gseq) = group.clone();
        let oseq = u32::try_from(before.len()).unwrap_or(u32::MAX).saturating_add(1);
        let spec = self.state.groups.get(group).and_then(|group| group.group_spec.clone());
        let reclamation = self
            .state
            .deployments
            .get(&(owner.clone(), dseq))
            .and_then(|deployment| deployment.reclamation);
        let key: OrderKey = (owner.clone(), dseq, gseq, oseq);
        let order = Order {
            id: Some(OrderId { owner, dseq, gseq, oseq }),
            state: OrderState::Open.into(),
            spec,
            created_at: self.block.height_i64(),
            reclamation,
        };
        self.events.push(about("akash.market.v1.EventOrderCreated", order_json(&key), Vec::new()));
        self.state.orders.put(key, order);
        Ok(())
    }

    pub(super) fn create_bid(&mut self, msg: &MsgCreateBid) -> Result<(), TxError> {
        let id = msg.id.clone().unwrap_or_default();
        let key = bid_key(&id);
        let (denom, amount) =
            coin(msg.deposit.as_ref().and_then(|deposit| deposit.amount.as_ref()))
                .unwrap_or_default();
        if ![UAKT, UACT].contains(&denom) || amount < self.params.bid_min_deposit {
            return Err(says::DEPOSIT_INVALID.into());
        }
        let order_key = order_of(&key);
        let others = self.state.bids_on(&order_key);
        let most = self.params.order_max_bids;
        if u32::try_from(others.len()).unwrap_or(u32::MAX) > most {
            return Err(TxError::plain(format_args!(
                "invalid bid: too many existing bids ({most})"
            )));
        }
        let order = self.state.orders.get(&order_key).cloned().ok_or(says::ORDER_NOT_FOUND)?;
        match order.state() {
            OrderState::Open => {}
            OrderState::Active => return Err(says::ORDER_ACTIVE.into()),
            _ => return Err(says::ORDER_CLOSED.into()),
        }
        let spec = order.spec.clone().unwrap_or_default();
        let (price_denom, price) = dec(msg.price.as_ref()).unwrap_or_default();
        let (order_denom, limit) = matching::price_limit(&spec);
        if price_denom != order_denom {
            return Err(TxError::panic("invalid coin denominations"));
        }
        if price > limit {
            return Err(says::BID_OVER_ORDER.into());
        }
        self.check_offer(msg, &order, &id.provider)?;
        if self.state.bids.contains(&key) {
            return Err(says::BID_EXISTS.into());
        }
        if self.state.auth.balance(&id.provider, denom) < amount {
            return Err(TxError::plain("deposit invalid: insufficient balance"));
        }
        let bid = Bid {
            id: Some(id.clone()),
            state: BidState::Open.into(),
            price: msg.price.clone(),
            created_at: self.block.height_i64(),
            resources_offer: msg.resources_offer.clone(),
            reclamation_window: msg.reclamation_window,
        };
        self.state.bids.put(key.clone(), bid);
        let price = price_json(price_denom, price);
        self.events.push(about(
            "akash.market.v1.EventBidCreated",
            bid_json(&key),
            vec![("price", price)],
        ));
        let payer = (id.provider.as_str(), Source::Balance);
        self.open_escrow(&bid_escrow(&key), &id.provider, payer, (denom, amount))
    }

    /// Whether the provider may bid this. Sizes are not compared: the chain takes any.
    fn check_offer(
        &self,
        msg: &MsgCreateBid,
        order: &Order,
        provider: &str,
    ) -> Result<(), TxError> {
        let spec = order.spec.clone().unwrap_or_default();
        if !matching::same_units(&spec, &msg.resources_offer) {
            return Err(says::CAPABILITIES_MISMATCH.into());
        }
        let attributes = self
            .provider(provider)
            .map(|provider| provider.attributes.clone())
            .ok_or(says::UNKNOWN_PROVIDER)?;
        let audited: Vec<_> =
            self.audited.iter().filter(|audited| audited.owner == provider).collect();
        if !matching::meets_requirements(&spec, &attributes, &audited) {
            return Err(says::ATTRIBUTE_MISMATCH.into());
        }
        if !matching::has_storage(&spec, &attributes) {
            return Err(says::CAPABILITIES_MISMATCH.into());
        }
        let asked = order
            .reclamation
            .as_ref()
            .and_then(|reclamation| reclamation.min_window)
            .map_or(0, |window| window.seconds);
        let (least, most) = self.params.reclamation_window;
        match msg.reclamation_window.map(|window| window.seconds) {
            None | Some(0) if asked > 0 => Err(says::RECLAIM_REQUIRED.into()),
            None | Some(0) => Ok(()),
            Some(window) if window < asked => Err(says::RECLAIM_TOO_SHORT.into()),
            Some(window) if !(least..=most).contains(&window) => Err(says::RECLAIM_WINDOW.into()),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn create_lease(&mut self, msg: &MsgCreateLease) -> Result<(), TxError> {
        let id = msg.bid_id.clone().unwrap_or_default();
        let key = bid_key(&id);
        let bid = self.state.bids.get(&key).cloned().ok_or(says::BID_NOT_FOUND)?;
        if bid.state() != BidState::Open {
            return Err(says::BID_NOT_OPEN.into());
        }
        let order = order_of(&key);
        match self.state.orders.get(&order).map(Order::state) {
            Some(OrderState::Open) => {}
            Some(_) => return Err(says::ORDER_NOT_OPEN.into()),
            None => return Err(says::ORDER_NOT_FOUND.into()),
        }
        if self.group_state(&group_of(&order)) != Some(GroupState::Open) {
            return Err(says::GROUP_NOT_OPEN.into());
        }
        let (denom, rate) = dec(bid.price.as_ref()).unwrap_or_default();
        self.create_payment(
            &deployment_escrow(&id.owner, id.dseq),
            &lease_payment(&key),
            &id.provider,
            denom,
            rate,
        )?;
        let price = price_json(denom, rate);
        let window = bid.reclamation_window.filter(|window| window.seconds > 0);
        let lease = Lease {
            id: Some(LeaseId {
                owner: id.owner.clone(),
                dseq: id.dseq,
                gseq: id.gseq,
                oseq: id.oseq,
                provider: id.provider.clone(),
                bseq: 0,
            }),
            state: LeaseState::Active.into(),
            price: bid.price.clone(),
            created_at: self.block.height_i64(),
            reclamation: window
                .map(|window| Reclamation { window: Some(window), ..Reclamation::default() }),
            ..Lease::default()
        };
        self.state.leases.put(key.clone(), lease);
        self.events.push(about(
            "akash.market.v1.EventLeaseCreated",
            bid_json(&key),
            vec![("price", price)],
        ));
        self.state.orders.change(&order, |order| order.state = OrderState::Active.into());
        self.state.bids.change(&key, |bid| bid.state = BidState::Active.into());
        // The real chain stops after the first loser: the others stay open with their deposit.
        let loser = self
            .state
            .bids_on(&order)
            .into_iter()
            .find(|bid| self.bid_state(bid) == Some(BidState::Open));
        if let Some(loser) = loser {
            self.state.bids.change(&loser, |bid| bid.state = BidState::Lost.into());
            self.close_escrow(&bid_escrow(&loser))?;
        }
        Ok(())
    }

    fn bid_state(&self, key: &BidKey) -> Option<BidState> {
        self.state.bids.get(key).map(Bid::state)
    }

    fn live_lease(&self, key: &BidKey) -> bool {
        self.state.leases.get(key).is_some_and(|lease| {
            matches!(lease.state(), LeaseState::Active | LeaseState::Reclaiming)
        })
    }

    /// By the tenant: the order closes, and a new one opens at once while the group is open.
    pub(super) fn close_lease(&mut self, id: &LeaseId) -> Result<(), TxError> {
        let key = lease_key(id);
        let order = order_of(&key);
        let order_state =
            self.state.orders.get(&order).map(Order::state).ok_or(says::ORDER_NOT_FOUND)?;
        if order_state != OrderState::Active {
            return Err(says::ORDER_CLOSED.into());
        }
        let bid_state = self.bid_state(&key).ok_or(says::BID_NOT_FOUND)?;
        if bid_state != BidState::Active {
            return Err(says::BID_NOT_ACTIVE.into());
        }
        self.state.leases.get(&key).ok_or(says::LEASE_NOT_FOUND)?;
        if !self.live_lease(&key) {
            return Err(says::ORDER_CLOSED.into());
        }
        self.end_lease(&key, LeaseEnd::ByOwner);
        self.end_bid(&key);
        self.end_order(&order);
        self.close_payment(&deployment_escrow(&key.0, key.1), &lease_payment(&key))?;
        let group = group_of(&order);
        if self.group_state(&group) == Some(GroupState::Open) {
            self.create_order(&group)?;
        }
        Ok(())
    }

    /// By the provider: an open bid is taken back; a leased one ends its lease, and the group
    /// pauses.
    pub(super) fn close_bid(&mut self, msg: &MsgCloseBid) -> Result<(), TxError> {
        let key = bid_key(&msg.id.clone().unwrap_or_default());
        let bid_state = self.bid_state(&key).ok_or(says::UNKNOWN_BID)?;
        let order = order_of(&key);
        self.state.orders.get(&order).ok_or(says::UNKNOWN_ORDER_FOR_BID)?;
        if bid_state == BidState::Open {
            self.end_bid(&key);
            return Ok(());
        }
        let lease = self.state.leases.get(&key).cloned().ok_or(says::UNKNOWN_LEASE_FOR_BID)?;
        if !self.live_lease(&key) {
            return Err(says::LEASE_NOT_ACTIVE.into());
        }
        if bid_state != BidState::Active {
            return Err(says::BID_NOT_ACTIVE.into());
        }
        if let Some(reclamation) = &lease.reclamation {
            if lease.state() != LeaseState::Reclaiming {
                return Err(says::RECLAIM_NOT_STARTED.into());
            }
            if self.block.unix_seconds() < reclamation.deadline {
                return Err(says::RECLAIM_NOT_ELAPSED.into());
            }
        }
        let group = group_of(&order);
        if self.group_state(&group) == Some(GroupState::Open) {
            self.set_group(&group, GroupState::Paused);
        }
        self.end_lease(&key, LeaseEnd::ByProvider(msg.reason));
        self.end_bid(&key);
        self.end_order(&order);
        self.close_payment(&deployment_escrow(&key.0, key.1), &lease_payment(&key))
    }

    /// By the provider: announces that it will close the lease once the window has passed.
    pub(super) fn start_reclaim(&mut self, msg: &MsgLeaseStartReclaim) -> Result<(), TxError> {
        let key = lease_key(&msg.id.clone().unwrap_or_default());
        let lease = self.state.leases.get(&key).cloned().ok_or(says::LEASE_NOT_FOUND)?;
        if lease.state() != LeaseState::Active {
            return Err(says::LEASE_NOT_ACTIVE.into());
        }
        let window = lease
            .reclamation
            .and_then(|reclamation| reclamation.window)
            .ok_or(says::NOT_RECLAIMABLE)?;
        let reclamation = Reclamation {
            window: Some(window),
            started_at: self.block.height_i64(),
            deadline: self.block.unix_seconds().saturating_add(window.seconds),
            reason: msg.reason,
        };
        self.state.leases.change(&key, |lease| {
            lease.state = LeaseState::Reclaiming.into();
            lease.reclamation = Some(reclamation);
        });
        self.events.push(about(
            "akash.market.v1.EventLeaseReclaimStarted",
            bid_json(&key),
            Vec::new(),
        ));
        Ok(())
    }

    pub(super) fn withdraw_lease(&mut self, id: &LeaseId) -> Result<(), TxError> {
        let key = lease_key(id);
        self.state.leases.get(&key).ok_or(says::UNKNOWN_LEASE)?;
        self.withdraw_payment(&deployment_escrow(&id.owner, id.dseq), &lease_payment(&key))
    }

    /// Ends what a group has on the market. Orders that are closed already are left alone, with the
    /// bids that stayed open on them.
    pub(super) fn end_orders(&mut self, group: &GroupKey, end: LeaseEnd) {
        for order in self.state.orders_of(group) {
            if self.state.orders.get(&order).is_none_or(|order| order.state() == OrderState::Closed)
            {
                continue;
            }
            self.end_order(&order);
            for bid in self.state.bids_on(&order) {
                self.end_bid(&bid);
                if self.live_lease(&bid) {
                    self.end_lease(&bid, end);
                    // Refused when the account itself is closing, which pays its payments.
                    let _ =
                        self.close_payment(&deployment_escrow(&bid.0, bid.1), &lease_payment(&bid));
                }
            }
        }
    }

    fn end_order(&mut self, key: &OrderKey) {
        if self.state.orders.get(key).is_some_and(|order| order.state() != OrderState::Closed) {
            self.state.orders.change(key, |order| order.state = OrderState::Closed.into());
            self.events.push(about(
                "akash.market.v1.EventOrderClosed",
                order_json(key),
                Vec::new(),
            ));
        }
    }

    fn end_bid(&mut self, key: &BidKey) {
        if matches!(self.bid_state(key), Some(BidState::Open | BidState::Active)) {
            self.state.bids.change(key, |bid| bid.state = BidState::Closed.into());
            // Cannot be closed already: it closes with its bid.
            let _ = self.close_escrow(&bid_escrow(key));
            self.events.push(about("akash.market.v1.EventBidClosed", bid_json(key), Vec::new()));
        }
    }

    fn end_lease(&mut self, key: &BidKey, end: LeaseEnd) {
        if !self.live_lease(key) {
            return;
        }
        let (state, reason) = match end {
            LeaseEnd::ByOwner => (LeaseState::Closed, LeaseClosedReason::LeaseClosedOwner.into()),
            LeaseEnd::ByProvider(reason) => (LeaseState::Closed, reason),
            LeaseEnd::RanDry => {
                (LeaseState::InsufficientFunds, LeaseClosedReason::InsufficientFunds.into())
            }
        };
        let closed_on = self.block.height_i64();
        self.state.leases.change(key, |lease| {
            lease.state = state.into();
            lease.closed_on = closed_on;
            lease.reason = reason;
        });
        self.events.push(about(
            "akash.market.v1.EventLeaseClosed",
            bid_json(key),
            vec![("reason", reason.to_string())],
        ));
    }
}
