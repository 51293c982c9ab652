//! AKT into ACT by the chain's burn-mint module: on what terms, and what became of it.

use async_trait::async_trait;

use super::client::ChainClient;
use super::endpoint::Node;
use super::view::coins;
use super::{Chain, ChainError, codes};
use crate::model::money::{DEC_ONE, UACT, UAKT, Uact};
use crate::wire::akash::bme::v1 as bme;
use crate::wire::akash::oracle::v2::QueryAggregatedPriceRequest;

/// What the oracle calls an AKT.
const AKT: &str = "akt";
/// Records of one account that are looked at: the oldest come first, and nobody mints so often.
const MOST_RECORDS: u64 = 1000;
/// Ten-thousandths in a whole.
const BPS: u128 = 10_000;

/// On what terms AKT is burnt for ACT now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintTerms {
    /// Less is taken, and given back later.
    pub least: Uact,
    /// Taken off what is minted, in ten-thousandths.
    pub spread_bps: u32,
    /// ACT for one AKT, times 10^18.
    pub price: u128,
    /// An epoch has so many blocks at least; what was burnt waits for its end.
    pub epoch_blocks: u64,
    /// The collateral is low, and epochs are longer.
    pub slow: bool,
}

impl MintTerms {
    /// What has to be burnt for so much, in uakt.
    #[must_use]
    pub fn burn_for(&self, act: Uact) -> u64 {
        let kept = BPS.saturating_sub(u128::from(self.spread_bps)).max(1);
        let minted = (u128::from(act.0) * BPS).div_ceil(kept);
        let burn = minted.saturating_mul(DEC_ONE).div_ceil(self.price.max(1));
        u64::try_from(burn).unwrap_or(u64::MAX)
    }
}

/// AKT that was given to be burnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintRecord {
    /// Block of the transaction.
    pub height: i64,
    /// In uakt.
    pub burned: u64,
    /// What became of it.
    pub end: MintEnd,
}

/// What became of AKT that was given to be burnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintEnd {
    /// The epoch has not ended yet.
    Pending,
    /// So much came into the wallet.
    Minted(Uact),
    /// The AKT came back, for this reason.
    Cancelled(String),
}

/// The burn-mint module, seen by one owner.
#[async_trait]
pub trait Mints: Send + Sync {
    /// The present terms; an error that says why, where nothing is minted now.
    async fn terms(&self) -> Result<MintTerms, ChainError>;

    /// All that the owner ever gave to be burnt, oldest first.
    async fn records(&self) -> Result<Vec<MintRecord>, ChainError>;
}

#[async_trait]
impl Mints for ChainClient {
    async fn terms(&self) -> Result<MintTerms, ChainError> {
        self.nodes().ask(terms).await
    }

    async fn records(&self) -> Result<Vec<MintRecord>, ChainError> {
        let owner = self.owner().to_owned();
        self.nodes().ask(|node| records(node, owner.clone())).await
    }
}

async fn terms(node: Node) -> Result<MintTerms, ChainError> {
    let asked = bme::QueryParamsRequest {};
    let params = node.call("the mint's parameters", node.bme().params(asked)).await?;
    let params = node.part(params.params, "parameters of the mint")?;
    let asked = bme::QueryStatusRequest {};
    let status = node.call("the mint's status", node.bme().status(asked)).await.map_err(stalled)?;
    if !status.mints_allowed {
        let ratio = decimal(&status.collateral_ratio).unwrap_or_default();
        let why = match status.status() {
            bme::MintStatus::HaltCr => format!(
                "the collateral of all ACT is too low ({}.{:02} of it is covered)",
                ratio / DEC_ONE,
                ratio % DEC_ONE * 100 / DEC_ONE
            ),
            bme::MintStatus::HaltOracle => "the oracle's price of AKT is stale".to_owned(),
            other => format!("its state is {}", other.as_str_name()),
        };
        return Err(closed(&why));
    }
    let request = QueryAggregatedPriceRequest { denom: AKT.into() };
    let answer = node.call("the price of AKT", node.oracle().aggregated_price(request)).await;
    let answer = answer.map_err(stalled)?;
    let health = answer.price_health.unwrap_or_default();
    if !health.is_healthy {
        let why = codes::shorten(&health.failure_reason.join(", "));
        return Err(closed(&format!("the oracle's price of AKT is not healthy ({why})")));
    }
    let price = node.part(answer.aggregated_price, "price of AKT")?;
    let price = decimal(&price.twap).filter(|price| *price > 0);
    Ok(MintTerms {
        least: Uact(coins(&params.min_mint, UACT).map_err(|flaw| node.invalid(flaw))?),
        spread_bps: params.mint_spread_bps,
        price: node.part(price, "price of AKT that is a number")?,
        epoch_blocks: u64::try_from(params.min_epoch_blocks).unwrap_or_default(),
        slow: status.status() == bme::MintStatus::Warning,
    })
}

/// Without a fresh price the module does not even tell its state.
fn stalled(error: ChainError) -> ChainError {
    match error {
        ChainError::Refused { codespace, log, .. } if codespace.starts_with("oracle") => {
            closed(&format!("the oracle's price of AKT is stale ({log})"))
        }
        other => other,
    }
}

fn closed(why: &str) -> ChainError {
    let what = "a burn of AKT for ACT".to_owned();
    ChainError::NotSent {
        what,
        why: format!(
            "the chain mints nothing now: {why}; leases are not touched by it; try again later"
        ),
    }
}

async fn records(node: Node, owner: String) -> Result<Vec<MintRecord>, ChainError> {
    let request = bme::QueryLedgerRecordsRequest {
        filters: Some(bme::LedgerRecordFilters {
            source: owner,
            denom: UAKT.into(),
            to_denom: UACT.into(),
            status: String::new(),
        }),
        pagination: Some(crate::wire::cosmos::base::query::v1beta1::PageRequest {
            limit: MOST_RECORDS,
            ..Default::default()
        }),
    };
    let answer = node.call("the mint's ledger", node.bme().ledger_records(request)).await?;
    let mut records: Vec<_> = answer.records.into_iter().filter_map(record).collect();
    records.sort_by_key(|record| record.height);
    Ok(records)
}

/// A record; one that cannot be read is left out.
fn record(entry: bme::QueryLedgerRecordEntry) -> Option<MintRecord> {
    use bme::query_ledger_record_entry::Record;
    let height = entry.id?.height;
    let uakt = |coin: Option<crate::wire::cosmos::base::v1beta1::Coin>| {
        coins(coin.as_slice(), UAKT).unwrap_or_default()
    };
    let coin = |price: Option<bme::CoinPrice>| price.and_then(|p| p.coin);
    Some(match entry.record? {
        Record::PendingRecord(it) => {
            MintRecord { height, burned: uakt(it.coins_to_burn), end: MintEnd::Pending }
        }
        Record::ExecutedRecord(it) => {
            let minted = coins(coin(it.minted).as_slice(), UACT).ok()?;
            let spread = coins(it.spread.as_slice(), UACT).ok()?;
            // Of AKT that is kept for a later way back nothing is burnt.
            let burned = uakt(coin(it.burned)) + uakt(coin(it.remint_credit_accrued));
            MintRecord { height, burned, end: MintEnd::Minted(Uact(minted.saturating_sub(spread))) }
        }
        Record::CanceledRecord(it) => {
            let reason = it.cancel_reason().as_str_name().to_owned();
            MintRecord { height, burned: uakt(it.coins_to_burn), end: MintEnd::Cancelled(reason) }
        }
    })
}

/// A decimal number with 18 places: on the wire as a whole number.
fn decimal(text: &str) -> Option<u128> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cosmos::base::v1beta1::Coin;

    #[allow(clippy::unnecessary_wraps, reason = "what fills a field has its type")]
    fn coin(denom: &str, amount: u64) -> Option<Coin> {
        Some(Coin { denom: denom.into(), amount: amount.to_string() })
    }

    #[test]
    fn enough_is_burnt_and_not_a_unit_more() {
        for (price, spread_bps, act, burn) in [
            // Half an ACT for an AKT, 25 ten-thousandths kept: seen on a real node.
            (DEC_ONE / 2, 25, 19_950_000, 40_000_000),
            (DEC_ONE / 2, 25, 19_950_001, 40_000_004),
            (DEC_ONE, 0, 20_000_000, 20_000_000),
            (3 * DEC_ONE, 0, 10, 4),
        ] {
            let terms =
                MintTerms { least: Uact(0), spread_bps, price, epoch_blocks: 10, slow: false };
            assert_eq!(terms.burn_for(Uact(act)), burn, "{act} at {price}");
        }
    }

    #[test]
    fn a_record_says_what_came_of_the_coins() {
        use bme::query_ledger_record_entry::Record;
        let id = || Some(bme::LedgerRecordId { height: 56, ..Default::default() });
        let read = |of| {
            record(bme::QueryLedgerRecordEntry { id: id(), status: 0, record: Some(of) }).unwrap()
        };
        let price = |coin| Some(bme::CoinPrice { coin, price: String::new() });
        // As a real node told it.
        let minted = read(Record::ExecutedRecord(bme::LedgerRecord {
            minted: price(coin("uact", 20_000_000)),
            spread: coin("uact", 50_000),
            remint_credit_accrued: price(coin("uakt", 40_000_000)),
            ..Default::default()
        }));
        assert_eq!(minted.end, MintEnd::Minted(Uact(19_950_000)));
        assert_eq!((minted.height, minted.burned), (56, 40_000_000));
        let back = read(Record::CanceledRecord(bme::LedgerCanceledRecord {
            cancel_reason: 6,
            coins_to_burn: coin("uakt", 4_000_000),
            ..Default::default()
        }));
        assert_eq!(back.end, MintEnd::Cancelled("minimum_mint".into()));
        let waits = read(Record::PendingRecord(bme::LedgerPendingRecord {
            coins_to_burn: coin("uakt", 7),
            ..Default::default()
        }));
        assert_eq!((waits.burned, waits.end), (7, MintEnd::Pending));
    }
}
