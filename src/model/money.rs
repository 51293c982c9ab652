//! Amounts of the chain's coins, exact to the last unit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Denomination of prices and deposits.
pub const UACT: &str = "uact";
/// Denomination of fees.
pub const UAKT: &str = "uakt";
/// Units of `DecAmount` in one whole unit of a denomination: the chain's decimal coins carry 18
/// places.
pub const DEC_ONE: u128 = 1_000_000_000_000_000_000;
/// The month of prices and budgets: 30 days.
const MONTH_MS: u64 = 30 * 24 * 3600 * 1000;

/// A whole number of `uact`, a millionth of an ACT.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Uact(pub u64);

impl Uact {
    /// `self - other`, or zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Add for Uact {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl std::iter::Sum for Uact {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), std::ops::Add::add)
    }
}

impl fmt::Display for Uact {
    /// In ACT without trailing zeros, e.g. `12.5act`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(f, "{whole}act");
        }
        let digits = format!("{rest:06}");
        write!(f, "{whole}.{}act", digits.trim_end_matches('0'))
    }
}

/// An amount of `uakt` in AKT without trailing zeros, e.g. `0.031akt`.
#[must_use]
pub fn akt(uakt: u64) -> String {
    Uact(uakt).to_string().replace("act", "akt")
}

/// A price in `uact` per block, scaled by 10^18 as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PricePerBlock(pub u128);

impl PricePerBlock {
    /// What a month of 30 days costs at this price, rounded up to the next uact; `block_ms` is the
    /// measured block time.
    ///
    /// # Panics
    /// Never: a block time of zero counts as one millisecond.
    #[must_use]
    pub fn per_month(self, block_ms: u64) -> Uact {
        self.of_blocks(MONTH_MS.div_ceil(block_ms.max(1)))
    }

    /// What so many blocks cost at this price, rounded up to the next uact.
    #[must_use]
    pub fn of_blocks(self, blocks: u64) -> Uact {
        let total = self.0.saturating_mul(u128::from(blocks)).div_ceil(DEC_ONE);
        Uact(u64::try_from(total).unwrap_or(u64::MAX))
    }

    /// The highest price per block whose month does not cost more than `month`.
    #[must_use]
    pub fn from_month(month: Uact, block_ms: u64) -> Self {
        let blocks = u128::from(MONTH_MS.div_ceil(block_ms.max(1)));
        Self(u128::from(month.0).saturating_mul(DEC_ONE) / blocks)
    }
}

impl Serialize for PricePerBlock {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for PricePerBlock {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_thirty_days_of_blocks() {
        let one = PricePerBlock(DEC_ONE);
        assert_eq!(one.per_month(6_000), Uact(432_000));
        assert_eq!(PricePerBlock::from_month(Uact(432_000), 6_000), one);
        assert_eq!(one.of_blocks(7), Uact(7));
        assert_eq!(PricePerBlock(DEC_ONE + 1).of_blocks(7), Uact(8), "a part is a whole");
    }
}
