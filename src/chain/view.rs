//! From the chain's answers to the model: pure. A wrong answer is named, never guessed around.

use std::collections::BTreeMap;

use crate::model::chain::{BidView, DeploymentView, EscrowView, GroupState, LeaseState, LeaseView};
use crate::model::ids::LeaseId;
use crate::model::money::{DEC_ONE, PricePerBlock, UACT, Uact};
use crate::model::time::UnixMs;
use crate::wire::akash::base::attributes::v1::Attribute;
use crate::wire::akash::base::resources::v1beta4::{ResourceValue, Resources, Storage};
use crate::wire::akash::deployment::v1::deployment::State as DeploymentStatus;
use crate::wire::akash::deployment::v1beta4::group::State as GroupStatus;
use crate::wire::akash::deployment::v1beta4::{GroupSpec, QueryDeploymentResponse, ResourceUnit};
use crate::wire::akash::escrow::types::v1::{Account, State as EscrowStatus};
use crate::wire::akash::market::v1::lease::State as LeaseStatus;
use crate::wire::akash::market::v1beta5::{Bid, Order, QueryLeaseResponse, ResourceOffer};
use crate::wire::cosmos::base::v1beta1::{Coin, DecCoin};

/// Everything that hangs on one deployment, as the chain answered it.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Itself, with its group and its escrow.
    pub deployment: QueryDeploymentResponse,
    /// Its open orders.
    pub orders: Vec<Order>,
    /// Its open bids.
    pub bids: Vec<Bid>,
    /// Its leases in any state, with what they are paid.
    pub leases: Vec<QueryLeaseResponse>,
}

/// Puts a deployment together as it stands at `height`.
pub fn deployment(parts: Parts, height: i64) -> Result<DeploymentView, String> {
    let Parts { deployment, orders, bids, mut leases } = parts;
    let main = deployment.deployment.ok_or("a deployment without itself")?;
    let dseq = main.id.ok_or("a deployment without an id")?.dseq;
    let group = deployment
        .groups
        .into_iter()
        .next()
        .ok_or_else(|| format!("deployment {dseq} without a group"))?;
    let state = match GroupStatus::try_from(group.state) {
        Ok(GroupStatus::Open) => GroupState::Open,
        Ok(GroupStatus::Paused) => GroupState::Paused,
        Ok(GroupStatus::InsufficientFunds) => GroupState::InsufficientFunds,
        Ok(GroupStatus::Closed) => GroupState::Closed,
        _ => return Err(format!("the group of deployment {dseq} in state {}", group.state)),
    };
    let spec = group
        .group_spec
        .ok_or_else(|| format!("the group of deployment {dseq} without its spec"))?;
    let escrow = escrow(deployment.escrow_account, &leases, height)
        .map_err(|flaw| format!("deployment {dseq}: {flaw}"))?;
    leases
        .sort_by_key(|l| l.lease.as_ref().map(|l| (l.created_at, l.id.as_ref().map(|id| id.oseq))));
    let open = orders.iter().filter_map(|o| Some((o.id.as_ref()?.oseq, o.created_at))).max();
    Ok(DeploymentView {
        dseq,
        created_height: main.created_at,
        active: main.state == i32::from(DeploymentStatus::Active),
        hash: main.hash,
        open_order: open.as_ref().map(|(oseq, _)| *oseq),
        ordered_at: open.map(|(_, height)| height).filter(|height| *height > 0),
        bids: bids.into_iter().filter_map(|b| bid(b, &spec)).collect(),
        leases: leases.into_iter().map(lease).collect::<Result<_, _>>()?,
        group_name: spec.name,
        group: state,
        escrow,
    })
}

/// A bid; one that cannot be read is left out, because a single provider must not blind us. It
/// could not be leased anyway.
fn bid(bid: Bid, spec: &GroupSpec) -> Option<BidView> {
    let id = bid.id?;
    let price = price(bid.price.as_ref())?;
    let fits = fits(&spec.resources, &bid.resources_offer);
    Some(BidView {
        id: LeaseId {
            owner: id.owner,
            dseq: id.dseq,
            gseq: id.gseq,
            oseq: id.oseq,
            provider: id.provider,
        },
        price,
        fits,
    })
}

fn lease(answer: QueryLeaseResponse) -> Result<LeaseView, String> {
    let lease = answer.lease.ok_or("a lease without itself")?;
    let id = lease.id.ok_or("a lease without an id")?;
    let state = match LeaseStatus::try_from(lease.state) {
        Ok(LeaseStatus::Active) => LeaseState::Active,
        Ok(LeaseStatus::Reclaiming) => LeaseState::Reclaiming,
        Ok(LeaseStatus::InsufficientFunds) => LeaseState::InsufficientFunds,
        Ok(LeaseStatus::Closed) => LeaseState::Closed,
        _ => return Err(format!("a lease of deployment {} in state {}", id.dseq, lease.state)),
    };
    // While reclaiming, the announced reason stands with the announcement. A lease may be
    // reclaimed that was not asked to be: its bid alone decides.
    let announced = lease.reclamation.filter(|r| r.deadline > 0);
    let reason =
        if lease.reason == 0 { announced.as_ref().map_or(0, |r| r.reason) } else { lease.reason };
    let reclaim_by = announced
        .filter(|_| state == LeaseState::Reclaiming)
        .and_then(|r| u64::try_from(r.deadline).ok())
        .map(|seconds| UnixMs(seconds.saturating_mul(1000)));
    Ok(LeaseView {
        price: price(lease.price.as_ref())
            .ok_or_else(|| format!("a lease of deployment {} without a price", id.dseq))?,
        id: LeaseId {
            owner: id.owner,
            dseq: id.dseq,
            gseq: id.gseq,
            oseq: id.oseq,
            provider: id.provider,
        },
        state,
        reason: u32::try_from(reason).unwrap_or_default(),
        reclaim_by,
    })
}

/// A price per block in uact. The chain accepts no other coin.
fn price(coin: Option<&DecCoin>) -> Option<PricePerBlock> {
    coin.filter(|c| c.denom == UACT).and_then(|c| c.amount.parse().ok()).map(PricePerBlock)
}

/// The account at `height`: the chain settles only when something touches it, so what was used up
/// since then is worked out here.
fn escrow(
    account: Option<Account>,
    leases: &[QueryLeaseResponse],
    height: i64,
) -> Result<EscrowView, String> {
    let state = account.and_then(|a| a.state).ok_or("no escrow account")?;
    let open_payments = leases.iter().filter_map(|l| l.escrow_payment.as_ref()?.state.as_ref());
    let open_payments = open_payments.filter(|p| p.state == i32::from(EscrowStatus::Open));
    let rates =
        sum(open_payments.filter_map(|p| p.rate.as_ref()).map(|r| (&*r.denom, &*r.amount)))?;
    let open = state.state == i32::from(EscrowStatus::Open);
    let blocks = if open { height.saturating_sub(state.settled_at).max(0) } else { 0 };
    let owed = rates.saturating_mul(i128::from(blocks));
    let funds = sum(state.funds.iter().map(|b| (&*b.denom, &*b.amount)))?;
    let transferred = sum(state.transferred.iter().map(|c| (&*c.denom, &*c.amount)))?;
    let left = funds.saturating_sub(owed).max(0);
    // What is owed beyond the funds is a debt, which nobody pays.
    let used = owed.min(funds.max(0));
    let one = i128::try_from(DEC_ONE).unwrap_or(i128::MAX);
    let whole = |n: i128| Uact(u64::try_from(n).unwrap_or(u64::MAX));
    Ok(EscrowView {
        open,
        left: whole(left / one),
        // A part of a unit that is spent cannot be spent again: rounded up.
        spent: whole(transferred.saturating_add(used).max(0).saturating_add(one - 1) / one),
        blocks_left: (rates > 0).then(|| u64::try_from(left / rates).unwrap_or(u64::MAX)),
    })
}

/// Sum of the uact among scaled amounts; amounts of funds may be negative.
pub(super) fn sum<'a>(coins: impl Iterator<Item = (&'a str, &'a str)>) -> Result<i128, String> {
    coins.filter(|(denom, _)| *denom == UACT).try_fold(0i128, |sum, (_, amount)| {
        let amount: i128 =
            amount.parse().map_err(|_| format!("the amount {}", super::codes::shorten(amount)))?;
        Ok(sum.saturating_add(amount))
    })
}

/// The whole amount of one coin; zero when it is not there.
pub(super) fn coins(coins: &[Coin], denom: &str) -> Result<u64, String> {
    let Some(coin) = coins.iter().find(|coin| coin.denom == denom) else { return Ok(0) };
    // More than 2^64 units of a coin are more than anybody needs, and still a number.
    coin.amount
        .parse::<u128>()
        .map(|n| u64::try_from(n).unwrap_or(u64::MAX))
        .map_err(|_| format!("{denom}: the amount {}", coin.amount))
}

/// Whether the offer is at least what the group asks for. A bid without an offer promises nothing,
/// although the chain takes it: it does not fit.
fn fits(asked: &[ResourceUnit], offered: &[ResourceOffer]) -> bool {
    asked.len() == offered.len()
        && asked.iter().all(|unit| offered.iter().any(|offer| covers(unit, offer)))
}

fn covers(unit: &ResourceUnit, offer: &ResourceOffer) -> bool {
    let (Some(want), Some(have)) = (unit.resource.as_ref(), offer.resources.as_ref()) else {
        return false;
    };
    let cpu = |r: &Resources| number(r.cpu.as_ref().and_then(|c| c.units.as_ref()));
    let memory = |r: &Resources| number(r.memory.as_ref().and_then(|m| m.quantity.as_ref()));
    want.id == have.id
        && offer.count >= unit.count
        && cpu(have) >= cpu(want)
        && memory(have) >= memory(want)
        && want.storage.iter().all(|volume| have.storage.iter().any(|other| holds(volume, other)))
}

fn holds(want: &Storage, have: &Storage) -> bool {
    want.name == have.name
        && number(have.quantity.as_ref()) >= number(want.quantity.as_ref())
        && want.attributes.iter().all(|attribute| have.attributes.contains(attribute))
}

/// Resource amounts are decimal digits; what is not a number, or not there, is nothing.
fn number(value: Option<&ResourceValue>) -> u128 {
    value
        .and_then(|v| std::str::from_utf8(&v.val).ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Attributes as a map; of a key that comes twice the last value counts.
pub(super) fn attributes(pairs: Vec<Attribute>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::akash::base::resources::v1beta4::{Cpu, Memory};
    use crate::wire::akash::escrow::types::v1::{AccountState, Balance, Payment, PaymentState};

    fn scaled(n: i128) -> String {
        (n * 1_000_000_000_000_000_000).to_string()
    }

    fn account(funds: i128, transferred: i128, settled_at: i64) -> Account {
        let state = AccountState {
            state: EscrowStatus::Open.into(),
            settled_at,
            funds: vec![
                Balance { denom: UACT.into(), amount: scaled(funds) },
                Balance { denom: "uakt".into(), amount: scaled(9) },
            ],
            transferred: vec![DecCoin { denom: UACT.into(), amount: scaled(transferred) }],
            ..AccountState::default()
        };
        Account { id: None, state: Some(state) }
    }

    fn paid(rate: i128, state: EscrowStatus) -> QueryLeaseResponse {
        let rate = Some(DecCoin { denom: UACT.into(), amount: scaled(rate) });
        let state = Some(PaymentState { state: state.into(), rate, ..PaymentState::default() });
        QueryLeaseResponse { lease: None, escrow_payment: Some(Payment { id: None, state }) }
    }

    #[test]
    fn what_was_used_since_the_last_settlement_is_gone() {
        let leases = [paid(500, EscrowStatus::Open), paid(900, EscrowStatus::Closed)];
        let view = escrow(Some(account(10_000, 70, 100)), &leases, 107).expect("an account");
        assert_eq!(
            view,
            EscrowView { open: true, left: Uact(6500), spent: Uact(3570), blocks_left: Some(13) }
        );
    }

    #[test]
    fn an_account_that_ran_dry_has_nothing_left() {
        let view = escrow(Some(account(-3, 500, 100)), &[paid(500, EscrowStatus::Open)], 200)
            .expect("an account");
        assert_eq!((view.left, view.blocks_left, view.spent), (Uact(0), Some(0), Uact(500)));
    }

    #[test]
    fn nothing_is_being_paid_without_a_lease() {
        let view = escrow(Some(account(5, 0, 100)), &[], 200).expect("an account");
        assert_eq!(
            view,
            EscrowView { open: true, left: Uact(5), spent: Uact(0), blocks_left: None }
        );
    }

    #[test]
    fn a_lease_that_is_taken_back_says_until_when() {
        use crate::wire::akash::market::v1::{Lease, LeaseId as WireId, Reclamation};
        let read = |state: LeaseStatus, deadline| {
            let reclamation = Reclamation { deadline, reason: 10_001, ..Reclamation::default() };
            let read = lease(QueryLeaseResponse {
                lease: Some(Lease {
                    id: Some(WireId::default()),
                    state: state.into(),
                    price: Some(DecCoin { denom: UACT.into(), amount: scaled(3) }),
                    reclamation: Some(reclamation),
                    ..Lease::default()
                }),
                escrow_payment: None,
            });
            let read = read.expect("a lease");
            (read.state, read.reason, read.reclaim_by)
        };
        assert_eq!(
            read(LeaseStatus::Reclaiming, 1_795_000_000),
            (LeaseState::Reclaiming, 10_001, Some(UnixMs(1_795_000_000_000)))
        );
        // One that could be taken back, and is not: no word of the manifest is needed for it.
        assert_eq!(read(LeaseStatus::Active, 0), (LeaseState::Active, 0, None));
        assert_eq!(read(LeaseStatus::Reclaiming, 0), (LeaseState::Reclaiming, 0, None));
        let over = read(LeaseStatus::Closed, 1_795_000_000);
        assert_eq!(over, (LeaseState::Closed, 10_001, None));
    }

    proptest! {
        #[test]
        fn no_amount_is_made_or_lost(funds in 0i128..1_000_000_000, rate in 1i128..10_000, blocks in 0i64..10_000) {
            let view = escrow(Some(account(funds, 0, 50)), &[paid(rate, EscrowStatus::Open)], 50 + blocks).expect("an account");
            let used = rate * i128::from(blocks);
            prop_assert_eq!(i128::from(view.left.0), (funds - used).max(0));
            prop_assert_eq!(i128::from(view.spent.0), used.min(funds), "never above what was paid in");
            prop_assert!(i128::from(view.blocks_left.expect("paid")) * rate <= i128::from(view.left.0));
        }
    }

    fn resources(cpu: &str, memory: &str, data: &str) -> Resources {
        let value = |text: &str| Some(ResourceValue { val: text.as_bytes().to_vec() });
        let class = Attribute { key: "class".into(), value: "beta3".into() };
        Resources {
            id: 1,
            cpu: Some(Cpu { units: value(cpu), attributes: Vec::new() }),
            memory: Some(Memory { quantity: value(memory), attributes: Vec::new() }),
            storage: vec![Storage {
                name: "data".into(),
                quantity: value(data),
                attributes: vec![class],
            }],
            ..Resources::default()
        }
    }

    fn fit(offer: Option<Resources>) -> bool {
        let asked = ResourceUnit {
            resource: Some(resources("500", "1024", "4096")),
            count: 1,
            price: None,
        };
        fits(&[asked], &[ResourceOffer { resources: offer, count: 1, prices: None }])
    }

    #[test]
    fn an_offer_fits_when_nothing_in_it_is_less() {
        assert!(fit(Some(resources("500", "1024", "4096"))));
        assert!(fit(Some(resources("1000", "2048", "4097"))));
        for less in [
            resources("10", "1024", "4096"),
            resources("500", "1", "4096"),
            resources("500", "1024", "x"),
        ] {
            assert!(!fit(Some(less)));
        }
        assert!(!fit(Some(Resources { storage: Vec::new(), ..resources("500", "1024", "0") })));
        assert!(!fit(None));
        let asked = ResourceUnit {
            resource: Some(resources("500", "1024", "4096")),
            count: 1,
            price: None,
        };
        assert!(!fits(&[asked], &[]), "no offer at all");
    }
}
