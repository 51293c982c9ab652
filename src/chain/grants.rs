//! What grants of other accounts allow, from the chain's answers: pure.

use prost::{Message as _, Name as _};
use prost_types::{Any, Timestamp};

use super::endpoint::nanos;
use super::view::coins;
use crate::model::funds::GrantTerms;
use crate::model::money::{UACT, UAKT};
use crate::model::time::UnixMs;
use crate::wire::akash::deployment::v1beta4 as deployment;
use crate::wire::akash::escrow::v1::deposit_authorization::Scope;
use crate::wire::akash::escrow::v1::{DepositAuthorization, MsgAccountDeposit};
use crate::wire::akash::market::v1beta5::MsgCreateLease;
use crate::wire::cosmos::authz::v1beta1::Grant;
use crate::wire::cosmos::base::v1beta1::Coin;
use crate::wire::cosmos::feegrant::v1beta1::{
    AllowedMsgAllowance, BasicAllowance, PeriodicAllowance,
};

/// An allowance within an allowance within an allowance is none of ours.
const DEEPEST: u32 = 3;

/// What a treasury's grants allow for deposits of deployments; none when none of them is for that.
pub(super) fn deposits(grants: &[Grant]) -> Result<Option<GrantTerms>, String> {
    for grant in grants {
        let Some(any) = grant.authorization.as_ref() else { continue };
        if any.type_url != DepositAuthorization::type_url() {
            continue;
        }
        let terms = DepositAuthorization::decode(any.value.as_slice())
            .map_err(|e| format!("a deposit authorization that cannot be read ({e})"))?;
        if terms.scopes.contains(&Scope::Deployment.into()) {
            return Ok(Some(GrantTerms {
                limit: Some(coins(&terms.spend_limits, UACT)?),
                expires: grant.expiration.and_then(at),
                refuses: Vec::new(),
            }));
        }
    }
    Ok(None)
}

/// What an allowance allows for fees, at this moment.
pub(super) fn fees(allowance: &Any, now: UnixMs) -> Result<GrantTerms, String> {
    within(allowance, now, DEEPEST)
}

fn within(any: &Any, now: UnixMs, depth: u32) -> Result<GrantTerms, String> {
    let bad = |e: prost::DecodeError| format!("a fee allowance that cannot be read ({e})");
    if any.type_url == BasicAllowance::type_url() {
        return basic(&BasicAllowance::decode(any.value.as_slice()).map_err(bad)?);
    }
    if any.type_url == PeriodicAllowance::type_url() {
        let periodic = PeriodicAllowance::decode(any.value.as_slice()).map_err(bad)?;
        let over = periodic.period_reset.and_then(at).is_some_and(|reset| reset <= now);
        let part = if over { &periodic.period_spend_limit } else { &periodic.period_can_spend };
        let (all, part) = (basic(&periodic.basic.unwrap_or_default())?, coins(part, UAKT)?);
        return Ok(GrantTerms { limit: Some(all.limit.map_or(part, |l| l.min(part))), ..all });
    }
    if any.type_url == AllowedMsgAllowance::type_url() && depth > 0 {
        let allowed = AllowedMsgAllowance::decode(any.value.as_slice()).map_err(bad)?;
        let inner = allowed.allowance.ok_or("a fee allowance without itself")?;
        let mut terms = within(&inner, now, depth - 1)?;
        let refused = ours().into_iter().filter(|url| !allowed.allowed_messages.contains(url));
        terms.refuses.extend(refused.filter_map(|url| Some(url.rsplit_once('.')?.1.to_owned())));
        return Ok(terms);
    }
    Err(format!("a fee allowance of the kind {}", super::codes::shorten(&any.type_url)))
}

/// What the operator sends, by type.
fn ours() -> [String; 5] {
    [
        deployment::MsgCreateDeployment::type_url(),
        MsgCreateLease::type_url(),
        deployment::MsgUpdateDeployment::type_url(),
        MsgAccountDeposit::type_url(),
        deployment::MsgCloseDeployment::type_url(),
    ]
}

/// Without a limit there is no list of coins; a list without uakt allows none.
fn basic(allowance: &BasicAllowance) -> Result<GrantTerms, String> {
    let limit: &[Coin] = &allowance.spend_limit;
    let limit = if limit.is_empty() { None } else { Some(coins(limit, UAKT)?) };
    Ok(GrantTerms { limit, expires: allowance.expiration.and_then(at), refuses: Vec::new() })
}

fn at(time: Timestamp) -> Option<UnixMs> {
    u64::try_from(nanos(time)? / 1_000_000).ok().map(UnixMs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any<M: prost::Name>(message: &M) -> Any {
        Any { type_url: M::type_url(), value: message.encode_to_vec() }
    }

    fn uakt(amount: u64) -> Vec<Coin> {
        vec![Coin { denom: UAKT.into(), amount: amount.to_string() }]
    }

    #[allow(clippy::unnecessary_wraps, reason = "what fills a field has its type")]
    fn second(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn an_allowance_is_read_whatever_it_is_wrapped_in() {
        let basic = BasicAllowance { spend_limit: uakt(900), expiration: second(7) };
        let read = |any: &Any, now| fees(any, UnixMs(now)).expect("an allowance");
        let terms = read(&any(&basic), 0);
        assert_eq!((terms.limit, terms.expires), (Some(900), Some(UnixMs(7000))));
        assert_eq!(read(&any(&BasicAllowance::default()), 0), GrantTerms::default());
        let periodic = PeriodicAllowance {
            basic: Some(basic),
            period: None,
            period_spend_limit: uakt(100),
            period_can_spend: uakt(3),
            period_reset: second(5),
        };
        assert_eq!(read(&any(&periodic), 4999).limit, Some(3));
        assert_eq!(read(&any(&periodic), 5000).limit, Some(100), "a new period");
        let some = AllowedMsgAllowance {
            allowance: Some(any(&periodic)),
            allowed_messages: ours()[..4].to_vec(),
        };
        let terms = read(&any(&some), 0);
        assert_eq!((terms.limit, terms.refuses), (Some(3), vec!["MsgCloseDeployment".to_owned()]));
        assert!(fees(&any(&DepositAuthorization::default()), UnixMs(0)).is_err());
    }

    #[test]
    fn only_a_grant_for_deployments_counts() {
        let grant = |scope: Scope, denom: &str| Grant {
            authorization: Some(any(&DepositAuthorization {
                spend_limit: None,
                scopes: vec![scope.into()],
                spend_limits: vec![Coin { denom: denom.into(), amount: "5".into() }],
            })),
            expiration: second(9),
        };
        let other =
            Grant { authorization: Some(any(&BasicAllowance::default())), expiration: None };
        assert_eq!(deposits(&[other.clone(), grant(Scope::Bid, UACT)]), Ok(None));
        let terms = |denom| deposits(&[other.clone(), grant(Scope::Deployment, denom)]);
        let found = terms(UACT).expect("readable").expect("a grant");
        assert_eq!((found.limit, found.expires), (Some(5), Some(UnixMs(9000))));
        assert_eq!(terms(UAKT).map(|t| t.and_then(|t| t.limit)), Ok(Some(0)), "of another coin");
    }
}
