//! Accounts that pay for others: deposits by an authorization, fees by an allowance.
#![allow(clippy::similar_names, reason = "granter and grantee are the chain's own words")]

use prost::Message as _;

use super::View;
use super::amount::{UACT, UAKT, coin, to_coin};
use super::auth::nanos;
use super::error::{TxError, sdk};
use super::handle::Ctx;
use super::state::{AuthAccount, Granted};
use crate::devnet::account::{any, timestamp};
use crate::wire::akash::base::deposit::v1::{Deposit, Source};
use crate::wire::akash::escrow::v1::DepositAuthorization;
use crate::wire::akash::escrow::v1::deposit_authorization::Scope;
use crate::wire::cosmos::authz::v1beta1 as authz;
use crate::wire::cosmos::base::v1beta1::Coin;
use crate::wire::cosmos::feegrant::v1beta1::{BasicAllowance, MsgGrantAllowance};

impl Ctx<'_> {
    /// Whose coins a deposit takes: the first source that has enough. A grant is used up by it.
    pub(super) fn draw(
        &mut self,
        signer: &str,
        deposit: Option<&Deposit>,
        (denom, amount): (&str, u128),
    ) -> Result<(String, Source), TxError> {
        for source in deposit.into_iter().flat_map(Deposit::sources) {
            match source {
                Source::Balance if self.state.auth.balance(signer, denom) >= amount => {
                    return Ok((signer.to_owned(), source));
                }
                Source::Grant if denom == UACT => {
                    let grants = self.state.deposit_grants.iter();
                    let fit = grants.filter(|((granter, grantee), granted)| {
                        grantee == signer
                            && granted.allows(amount, self.block)
                            && self.state.auth.balance(granter, denom) >= amount
                    });
                    let Some(pair) = fit.map(|(pair, _)| pair.clone()).next() else { continue };
                    let spend = |it: &mut Granted| it.left = it.left.map(|left| left - amount);
                    self.state.deposit_grants.change(&pair, spend);
                    return Ok((pair.0, source));
                }
                _ => {}
            }
        }
        Err(TxError::plain("deposit invalid: insufficient balance"))
    }

    /// What was not used of a deposit by a grant can be spent again.
    pub(super) fn give_back(&mut self, granter: &str, grantee: &str, amount: u128) {
        let pair = (granter.to_owned(), grantee.to_owned());
        let more = |it: &mut Granted| it.left = it.left.map(|left| left + amount);
        self.state.deposit_grants.change(&pair, more);
    }

    /// A new one replaces the old one.
    pub(super) fn grant_deposits(&mut self, msg: &authz::MsgGrant) -> Result<(), TxError> {
        let grant = msg.grant.clone().unwrap_or_default();
        let any = grant.authorization.unwrap_or_default();
        let terms = DepositAuthorization::decode(any.value.as_slice())
            .map_err(|error| sdk::TX_DECODE.because(error))?;
        // Out of use, and yet it has to be there.
        if terms.spend_limit.is_none() || !terms.scopes.contains(&Scope::Deployment.into()) {
            return Err(sdk::INVALID_COINS.because("spend limit is not valid"));
        }
        let granted = Granted {
            left: Some(of(&terms.spend_limits, UACT)),
            until_ns: grant.expiration.as_ref().and_then(nanos),
        };
        self.state.deposit_grants.put((msg.granter.clone(), msg.grantee.clone()), granted);
        Ok(())
    }

    /// One that is there has to be revoked first. An account that nobody knew is known by it.
    pub(super) fn grant_fees(&mut self, msg: &MsgGrantAllowance) -> Result<(), TxError> {
        let pair = (msg.granter.clone(), msg.grantee.clone());
        if self.state.auth.allowances.contains(&pair) {
            return Err(sdk::INVALID_REQUEST.because("fee allowance already exists"));
        }
        let any = msg.allowance.clone().unwrap_or_default();
        let terms = BasicAllowance::decode(any.value.as_slice())
            .map_err(|error| sdk::TX_DECODE.because(error))?;
        let limited = !terms.spend_limit.is_empty();
        let granted = Granted {
            left: limited.then(|| of(&terms.spend_limit, UAKT)),
            until_ns: terms.expiration.as_ref().and_then(nanos),
        };
        self.state.auth.allowances.put(pair, granted);
        if !self.state.auth.accounts.contains(&msg.grantee) {
            let number = self.state.auth.accounts.iter().count() as u64;
            let account = AuthAccount { number, ..AuthAccount::default() };
            self.state.auth.accounts.put(msg.grantee.clone(), account);
        }
        Ok(())
    }
}

fn of(coins: &[Coin], denom: &str) -> u128 {
    let amounts = coins.iter().filter_map(|it| coin(Some(it)));
    amounts.filter(|(name, _)| *name == denom).map(|(_, amount)| amount).sum()
}

impl View {
    /// Grants for deposits to an account, of one granter or (empty) of all; those that are over are
    /// gone.
    #[must_use]
    pub fn deposit_grants(&self, granter: &str, grantee: &str) -> Vec<authz::GrantAuthorization> {
        let fit = |((from, to), granted): &(&(String, String), &Granted)| {
            to == grantee
                && (granter.is_empty() || from == granter)
                && granted.allows(0, self.block)
        };
        let grants = self.state.deposit_grants.iter().filter(fit);
        grants
            .map(|((granter, grantee), granted)| authz::GrantAuthorization {
                granter: granter.clone(),
                grantee: grantee.clone(),
                authorization: Some(any(&DepositAuthorization {
                    spend_limit: Some(to_coin(UAKT, 0)),
                    scopes: vec![Scope::Deployment.into()],
                    // Nothing left is an empty list.
                    spend_limits: coins(UACT, granted.left.filter(|left| *left > 0)),
                })),
                expiration: granted.until_ns.map(timestamp),
            })
            .collect()
    }

    /// What one account pays of another one's fees.
    #[must_use]
    pub fn fee_allowance(&self, granter: &str, grantee: &str) -> Option<BasicAllowance> {
        let pair = (granter.to_owned(), grantee.to_owned());
        let granted = self.state.auth.allowances.get(&pair)?;
        granted.allows(0, self.block).then(|| BasicAllowance {
            spend_limit: coins(UAKT, granted.left),
            expiration: granted.until_ns.map(timestamp),
        })
    }
}

fn coins(denom: &str, amount: Option<u128>) -> Vec<Coin> {
    amount.map(|amount| to_coin(denom, amount)).into_iter().collect()
}
