//! What a message does, and what it costs in gas.

use super::error::TxError;
use super::escrow_id;
use super::msg::Msg;
use super::state::{BidKey, Block, OrderKey, Params, State};
use crate::wire::akash::audit::v1::AuditedProvider;
use crate::wire::akash::market::v1beta5::Bid;
use crate::wire::akash::market::v1beta5::bid::State as BidState;
use crate::wire::akash::provider::v1beta4::Provider;
use crate::wire::tendermint::abci::Event;

/// Gas of a lost bid, and of an open one that closes with its deployment.
const GAS_OF_A_BID: u64 = 72_000;
/// Gas of each further group of a new deployment.
const GAS_OF_A_GROUP: u64 = 40_000;

/// What a message works on.
pub(super) struct Ctx<'a> {
    pub(super) state: &'a mut State,
    pub(super) params: &'a Params,
    pub(super) audited: &'a [AuditedProvider],
    pub(super) block: Block,
    pub(super) events: Vec<Event>,
}

impl Ctx<'_> {
    /// Carries a message out. After an error the state is half done: the caller rolls it back.
    pub(super) fn execute(&mut self, msg: &Msg) -> Result<(), TxError> {
        match msg {
            Msg::CreateDeployment(msg) => self.create_deployment(msg),
            Msg::UpdateDeployment(msg) => self.update_deployment(msg),
            Msg::CloseDeployment(msg) => self.close_deployment(&msg.id.clone().unwrap_or_default()),
            Msg::CloseGroup(msg) => self.close_group(&msg.id.clone().unwrap_or_default()),
            Msg::PauseGroup(msg) => self.pause_group(&msg.id.clone().unwrap_or_default()),
            Msg::StartGroup(msg) => self.start_group(&msg.id.clone().unwrap_or_default()),
            Msg::CreateBid(msg) => self.create_bid(msg),
            Msg::CloseBid(msg) => self.close_bid(msg),
            Msg::CreateLease(msg) => self.create_lease(msg),
            Msg::CloseLease(msg) => self.close_lease(&msg.id.clone().unwrap_or_default()),
            Msg::WithdrawLease(msg) => self.withdraw_lease(&msg.id.clone().unwrap_or_default()),
            Msg::StartReclaim(msg) => self.start_reclaim(msg),
            Msg::Deposit(msg) => {
                let key = escrow_id(msg.id.as_ref())?;
                let amount = msg.deposit.as_ref().and_then(|deposit| deposit.amount.as_ref());
                let (denom, amount) = super::amount::coin(amount).unwrap_or_default();
                if self.state.auth.balance(&msg.signer, denom) < amount {
                    return Err(TxError::plain("deposit invalid: insufficient balance"));
                }
                self.top_up(&key, &msg.signer, denom, amount)
            }
            Msg::CreateProvider(msg) => self.create_provider(Provider {
                owner: msg.owner.clone(),
                host_uri: msg.host_uri.clone(),
                attributes: msg.attributes.clone(),
                info: msg.info.clone(),
            }),
            Msg::UpdateProvider(msg) => self.update_provider(Provider {
                owner: msg.owner.clone(),
                host_uri: msg.host_uri.clone(),
                attributes: msg.attributes.clone(),
                info: msg.info.clone(),
            }),
            Msg::CreateCertificate(msg) => self.create_certificate(msg),
            Msg::RevokeCertificate(msg) => self.revoke_certificate(&msg.id.clone().unwrap_or_default()),
        }
    }
}

/// Gas of a message in this state, on top of what every transaction costs: close to what the real chain was seen to take.
pub(super) fn gas(msg: &Msg, state: &State) -> u64 {
    match msg {
        Msg::CreateDeployment(msg) => 92_000 + GAS_OF_A_GROUP * (msg.groups.len() as u64).saturating_sub(1),
        Msg::UpdateDeployment(_) => 14_000,
        Msg::CloseDeployment(msg) => {
            let id = msg.id.clone().unwrap_or_default();
            let from: BidKey = (id.owner.clone(), id.dseq, 0, 0, String::new());
            let of = |key: &BidKey| key.0 == id.owner && key.1 == id.dseq;
            let open = state.bids.range(from..).take_while(|(key, _)| of(key)).filter(|(_, bid)| is_open(bid)).count() as u64;
            69_000 + GAS_OF_A_BID * open
        }
        Msg::CloseGroup(_) | Msg::PauseGroup(_) | Msg::StartGroup(_) => 52_000,
        Msg::CreateBid(_) => 76_000,
        Msg::CloseBid(_) | Msg::CloseLease(_) => 197_000,
        Msg::CreateLease(msg) => {
            let id = msg.bid_id.clone().unwrap_or_default();
            let order: OrderKey = (id.owner, id.dseq, id.gseq, id.oseq);
            let bids = state.bids_on(&order);
            let open = bids.iter().filter(|bid| state.bids.get(bid).is_some_and(is_open)).count();
            118_000 + if open > 1 { GAS_OF_A_BID } else { 0 }
        }
        Msg::WithdrawLease(_) => 44_000,
        Msg::StartReclaim(_) | Msg::RevokeCertificate(_) => 20_000,
        Msg::Deposit(_) => 35_000,
        Msg::CreateProvider(_) | Msg::UpdateProvider(_) => 12_000,
        Msg::CreateCertificate(_) => 51_000,
    }
}

fn is_open(bid: &Bid) -> bool {
    bid.state() == BidState::Open
}
