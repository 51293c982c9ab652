//! Amounts on the wire: whole coins, and decimal ones with 18 places written as whole numbers.

use crate::wire::cosmos::base::v1beta1::{Coin, DecCoin};

/// The coin that leases are paid in.
pub const UACT: &str = "uact";
/// The coin of fees and of the deposits of bids.
pub const UAKT: &str = "uakt";
/// One whole unit of a decimal amount.
pub const ONE: i128 = 1_000_000_000_000_000_000;
/// More than exists of any coin; nothing above it is taken, so that sums of products stay far from
/// overflow.
const MOST: u128 = 1_000_000_000_000_000_000;

/// A whole coin as its denomination and amount, `None` when it is none.
pub(super) fn coin(coin: Option<&Coin>) -> Option<(&str, u128)> {
    let coin = coin?;
    let amount = coin.amount.parse().ok().filter(|amount| *amount <= MOST)?;
    (!coin.denom.is_empty()).then_some((coin.denom.as_str(), amount))
}

/// A decimal coin as its denomination and its amount times 10^18; `None` when it is none or below
/// zero.
pub(super) fn dec(coin: Option<&DecCoin>) -> Option<(&str, i128)> {
    let coin = coin?;
    let amount: i128 = coin.amount.parse().ok()?;
    (!coin.denom.is_empty() && (0..=ONE * 1_000_000_000_000).contains(&amount))
        .then_some((coin.denom.as_str(), amount))
}

/// The other way.
pub(super) fn to_coin(denom: &str, amount: u128) -> Coin {
    Coin { denom: denom.to_owned(), amount: amount.to_string() }
}

/// The other way.
pub(super) fn to_dec(denom: &str, amount: i128) -> DecCoin {
    DecCoin { denom: denom.to_owned(), amount: amount.to_string() }
}

/// Whole units times 10^18.
pub(super) fn scaled(whole: u128) -> i128 {
    i128::try_from(whole).unwrap_or(i128::MAX).saturating_mul(ONE)
}

/// Whole units in a decimal amount, the rest cut off; nothing below zero.
pub(super) fn whole(amount: i128) -> u128 {
    u128::try_from(amount / ONE).unwrap_or(0)
}
