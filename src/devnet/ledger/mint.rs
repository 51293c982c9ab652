//! AKT into ACT: what is given is taken at once, and what becomes of it is decided when an epoch
//! ends. Seen on a real node: 40 AKT at half an ACT became 20 ACT less a spread of 0.05, and 4 AKT
//! came back, because 2 ACT are less than the minimum.

use super::View;
use super::amount::{ONE, UACT, UAKT, coin, to_coin};
use super::error::TxError;
use super::handle::Ctx;
use super::state::{MINT_POT, Mint, MintEnd};
use crate::wire::akash::bme::v1 as bme;
use crate::wire::akash::oracle::v2 as oracle;

/// Blocks of an epoch.
const EPOCH: u64 = 10;
/// Less is given back, in uact.
const LEAST: u128 = 10_000_000;
/// Taken off, in ten-thousandths.
const SPREAD: u128 = 25;

impl Ctx<'_> {
    pub(super) fn give_for_act(&mut self, msg: &bme::MsgMintAct) -> Result<(), TxError> {
        let (_, burn) = coin(msg.coins_to_burn.as_ref()).unwrap_or_default();
        self.state.auth.pay(&msg.owner, MINT_POT, UAKT, burn)?;
        let height = self.block.height;
        let before = self.state.mints.range((height, 0)..=(height, u64::MAX)).count() as u64;
        let mint = Mint { owner: msg.owner.clone(), burn, end: MintEnd::Pending };
        self.state.mints.put((height, before + 1), mint);
        Ok(())
    }
}

impl View {
    /// With every tenth block what waits is minted or given back; without a price it goes on waiting.
    pub(super) fn end_epoch(&mut self) {
        let Some(price) = self.genesis.params.akt_price_milli else { return };
        if !self.block.height.is_multiple_of(EPOCH) {
            return;
        }
        let waiting = self.state.mints.iter().filter(|(_, mint)| mint.end == MintEnd::Pending);
        let waiting: Vec<_> = waiting.map(|(key, mint)| (*key, mint.clone())).collect();
        for (key, Mint { owner, burn, .. }) in waiting {
            let uact = burn * u128::from(price) / 1000;
            let end = if uact < LEAST {
                // What was taken is there.
                let _ = self.state.auth.pay(MINT_POT, &owner, UAKT, burn);
                MintEnd::TooLittle
            } else {
                let spread = uact * SPREAD / 10_000;
                let has = self.state.auth.balance(&owner, UACT);
                self.state.auth.balances.put((owner, UACT.to_owned()), has + uact - spread);
                MintEnd::Minted { uact, spread }
            };
            self.state.mints.change(&key, |mint| mint.end = end);
        }
    }

    /// Governance values of the mint.
    #[must_use]
    pub fn mint_params(&self) -> bme::Params {
        bme::Params {
            circuit_breaker_warn_threshold: 9500,
            circuit_breaker_halt_threshold: 9000,
            min_epoch_blocks: i64::try_from(EPOCH).unwrap_or(i64::MAX),
            epoch_blocks_backoff_percent: 10,
            mint_spread_bps: u32::try_from(SPREAD).unwrap_or(u32::MAX),
            settle_spread_bps: 0,
            max_endblocker_records: 50,
            min_mint: vec![to_coin(UACT, LEAST)],
            max_pending_attempts: 3,
        }
    }

    /// What the oracle says of an AKT; none while nobody feeds it.
    #[must_use]
    pub fn akt_price(&self) -> Option<oracle::QueryAggregatedPriceResponse> {
        let price = self.genesis.params.akt_price_milli?;
        let text = (i128::from(price) * ONE / 1000).to_string();
        Some(oracle::QueryAggregatedPriceResponse {
            aggregated_price: Some(oracle::AggregatedPrice {
                denom: "akt".into(),
                twap: text.clone(),
                median_price: text.clone(),
                min_price: text.clone(),
                max_price: text,
                timestamp: Some(crate::devnet::account::timestamp(self.block.time_ns)),
                num_sources: 1,
                deviation_bps: 0,
            }),
            price_health: Some(oracle::PriceHealth {
                denom: "akt".into(),
                is_healthy: true,
                has_min_sources: true,
                deviation_ok: true,
                total_sources: 1,
                total_healthy_sources: 1,
                failure_reason: Vec::new(),
            }),
        })
    }

    /// What was given for ACT, by one account or (empty) by all.
    #[must_use]
    pub fn mints(&self, source: &str) -> Vec<bme::QueryLedgerRecordEntry> {
        let of = self.state.mints.iter();
        let of = of.filter(|(_, mint)| source.is_empty() || mint.owner == source);
        of.map(|((height, sequence), mint)| entry(*height, *sequence, mint)).collect()
    }
}

fn entry(height: u64, sequence: u64, mint: &Mint) -> bme::QueryLedgerRecordEntry {
    use bme::query_ledger_record_entry::Record;
    let burn = || Some(to_coin(UAKT, mint.burn));
    let (owner, to) = (mint.owner.clone(), mint.owner.clone());
    let (status, record) = match mint.end {
        MintEnd::Pending => (
            bme::LedgerRecordStatus::Pending,
            Record::PendingRecord(bme::LedgerPendingRecord {
                owner,
                to,
                coins_to_burn: burn(),
                denom_to_mint: UACT.into(),
                attempts: 0,
            }),
        ),
        MintEnd::Minted { uact, spread } => (
            bme::LedgerRecordStatus::Executed,
            Record::ExecutedRecord(bme::LedgerRecord {
                burned_from: owner,
                minted_to: to,
                burner: "bme".into(),
                minter: "bme".into(),
                burned: None,
                minted: Some(bme::CoinPrice {
                    coin: Some(to_coin(UACT, uact)),
                    price: ONE.to_string(),
                }),
                spread: Some(to_coin(UACT, spread)),
                remint_credit_issued: None,
                remint_credit_accrued: Some(bme::CoinPrice { coin: burn(), price: String::new() }),
            }),
        ),
        MintEnd::TooLittle => (
            bme::LedgerRecordStatus::Canceled,
            Record::CanceledRecord(bme::LedgerCanceledRecord {
                owner,
                cancel_reason: bme::ledger_canceled_record::BmCancelReason::MinimumMint.into(),
                to,
                coins_to_burn: burn(),
                denom_to_mint: UACT.into(),
            }),
        ),
    };
    bme::QueryLedgerRecordEntry {
        id: Some(bme::LedgerRecordId {
            denom: UAKT.into(),
            to_denom: UACT.into(),
            source: mint.owner.clone(),
            height: i64::try_from(height).unwrap_or(i64::MAX),
            sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
        }),
        status: status.into(),
        record: Some(record),
    }
}
