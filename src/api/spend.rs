//! The operator's books as they are shown: who was paid, by cluster, node and provider.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime, Time};

use crate::model::books::{Account, Head, Payer, Sums, Totals, TxEntry, Window, sums};
use crate::model::money::Uact;
use crate::model::time::UnixMs;

/// A calendar month in UTC, spelled `2026-11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    year: i32,
    month: time::Month,
}

impl Month {
    /// From its first moment to the first of the next one.
    #[must_use]
    pub fn window(self) -> Window {
        let (year, month) = match self.month {
            time::Month::December => (self.year + 1, time::Month::January),
            month => (self.year, month.next()),
        };
        Window { from: first_moment(self.year, self.month), until: first_moment(year, month) }
    }
}

fn first_moment(year: i32, month: time::Month) -> UnixMs {
    let day = Date::from_calendar_date(year, month, 1).unwrap_or(Date::MIN);
    let at = OffsetDateTime::new_utc(day, Time::MIDNIGHT).unix_timestamp();
    UnixMs(u64::try_from(at).unwrap_or(0).saturating_mul(1000))
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('-').filter(|(y, m)| y.len() == 4 && m.len() == 2);
        let parsed = parsed.and_then(|(y, m)| {
            let month = time::Month::try_from(m.parse::<u8>().ok()?).ok()?;
            Some(Self { year: y.parse().ok().filter(|y| (1970..=9998).contains(y))?, month })
        });
        parsed.ok_or_else(|| format!("{text} is no month; write it as 2026-11"))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, u8::from(self.month))
    }
}

/// What was paid, over a month or over all time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpendReport {
    /// The month, when it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub month: Option<String>,
    /// Block time up to which running leases are reckoned; none while the chain was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// One for each node that was ever tried and each provider that it had.
    pub rows: Vec<SpendRow>,
    /// One for each cluster there ever was.
    pub clusters: Vec<ClusterSpend>,
    /// All of it.
    pub total: Amounts,
    /// What of that was whose money.
    pub payers: Vec<PayerSpend>,
}

/// One node of a cluster, by provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpendRow {
    /// Name of the cluster.
    pub cluster: String,
    /// Tells it from other clusters of that name.
    pub uid: String,
    /// Incarnation.
    pub node: String,
    /// Its deployment.
    pub dseq: u64,
    /// Account of the provider; empty where there was no lease.
    pub provider: String,
    /// What of the deployment is not a provider's stands in its first row alone.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// `paid` is reckoned by the price of the lease: for what is not settled on the chain yet, or
    /// because the month begins or ends within the lease.
    pub estimated: bool,
}

/// One cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpend {
    /// Its name.
    pub cluster: String,
    /// Tells it from other clusters of that name.
    pub uid: String,
    /// All of it.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// The money of one payer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PayerSpend {
    /// Whose.
    pub payer: Payer,
    /// Paid into escrow, uact.
    pub deposited_uact: u64,
    /// Come back from it, uact.
    pub refunded_uact: u64,
    /// Fees, uakt.
    pub fees_uakt: u64,
}

/// Amounts in the smallest units. `deposited = paid + refunded + in escrow`, for everything that was
/// begun within the time that is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Amounts {
    /// Paid into escrow.
    pub deposited_uact: u64,
    /// Paid to the provider.
    pub paid_uact: u64,
    /// Come back from escrow.
    pub refunded_uact: u64,
    /// In escrow at the end of the time that is shown.
    pub in_escrow_uact: u64,
    /// Owed to the provider beyond all that was paid in. Nobody has to pay it.
    pub debt_uact: u64,
    /// Fees of transactions, those that failed too.
    pub fees_uakt: u64,
}

impl From<Totals> for Amounts {
    fn from(totals: Totals) -> Self {
        Self {
            deposited_uact: totals.deposited.0,
            paid_uact: totals.paid.0,
            refunded_uact: totals.refunded.0,
            in_escrow_uact: totals.open.0,
            debt_uact: totals.debt.0,
            fees_uakt: totals.fees,
        }
    }
}

impl std::ops::AddAssign for Amounts {
    fn add_assign(&mut self, other: Self) {
        let Self { deposited_uact, paid_uact, refunded_uact, in_escrow_uact, debt_uact, fees_uakt } =
            self;
        for (sum, more) in [
            (deposited_uact, other.deposited_uact),
            (paid_uact, other.paid_uact),
            (refunded_uact, other.refunded_uact),
            (in_escrow_uact, other.in_escrow_uact),
            (debt_uact, other.debt_uact),
            (fees_uakt, other.fees_uakt),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The books of `cluster` (of all when absent) over `month` (over all time when absent).
#[must_use]
pub fn report(
    accounts: &[Account],
    txs: &[TxEntry],
    head: Option<Head>,
    cluster: Option<&str>,
    month: Option<Month>,
) -> SpendReport {
    let window = month.map_or(Window::ALL, Month::window);
    let mut by_dseq: BTreeMap<u64, (Option<&Account>, Vec<TxEntry>)> = BTreeMap::new();
    for account in accounts {
        by_dseq.entry(account.dseq).or_default().0 = Some(account);
    }
    for tx in txs {
        by_dseq.entry(tx.dseq).or_default().1.push(tx.clone());
    }
    let mut report = SpendReport {
        month: month.map(|month| month.to_string()),
        as_of: head.map(|head| head.at.to_string()),
        ..SpendReport::default()
    };
    let mut payers: BTreeMap<Payer, PayerSpend> = BTreeMap::new();
    for (dseq, (account, txs)) in by_dseq {
        let name = account.map(|a| &a.cluster).or(txs.first().map(|tx| &tx.cluster));
        let Some(name) = name.filter(|name| cluster.is_none_or(|wanted| wanted == *name)) else {
            continue;
        };
        let sums = sums(account, &txs, head);
        let row = SpendRow {
            cluster: name.clone(),
            uid: account.map(|a| a.uid.clone()).unwrap_or_default(),
            node: account.map(|a| a.node.clone()).unwrap_or_default(),
            dseq,
            ..SpendRow::default()
        };
        report.rows.extend(rows(&row, &sums, window));
        by_payer(&mut payers, &sums, window);
    }
    report.rows.sort_by(|a, b| (&a.cluster, &a.uid, &a.node).cmp(&(&b.cluster, &b.uid, &b.node)));
    let mut clusters: BTreeMap<(String, String), Amounts> = BTreeMap::new();
    for row in &report.rows {
        *clusters.entry((row.cluster.clone(), row.uid.clone())).or_default() += row.amounts;
        report.total += row.amounts;
    }
    let spend = |((cluster, uid), amounts)| ClusterSpend { cluster, uid, amounts };
    report.clusters = clusters.into_iter().map(spend).collect();
    report.payers = payers.into_values().filter(|p| *p != PayerSpend::of(p.payer)).collect();
    report
}

/// One row for each provider; the first one has what is no provider's. Rows without anything in the
/// window are left out.
fn rows(like: &SpendRow, sums: &Sums, window: Window) -> Vec<SpendRow> {
    let all = Amounts { paid_uact: 0, ..sums.within(window).into() };
    let mut rows: Vec<SpendRow> = Vec::new();
    for (number, payment) in sums.paid.iter().enumerate() {
        let Uact(paid_uact) = sums.paid_to(number, window);
        let cut = payment.from < window.from || payment.until > window.until;
        let estimated = paid_uact > 0 && (cut || payment.estimated);
        if let Some(known) = rows.iter_mut().find(|row| row.provider == payment.provider) {
            known.amounts.paid_uact += paid_uact;
            known.estimated |= estimated;
            continue;
        }
        let amounts = Amounts { paid_uact, ..Amounts::default() };
        let provider = payment.provider.clone();
        rows.push(SpendRow { provider, amounts, estimated, ..like.clone() });
    }
    if rows.is_empty() {
        rows.push(like.clone());
    }
    rows[0].amounts += all;
    rows.retain(|row| row.amounts != Amounts::default());
    rows
}

impl PayerSpend {
    fn of(payer: Payer) -> Self {
        Self { payer, ..Self::default() }
    }
}

fn by_payer(payers: &mut BTreeMap<Payer, PayerSpend>, sums: &Sums, window: Window) {
    let within = |at: UnixMs| window.from <= at && at < window.until;
    let mut of = |payer: Payer, add: &dyn Fn(&mut PayerSpend)| {
        add(payers.entry(payer).or_insert_with(|| PayerSpend::of(payer)));
    };
    for deposit in sums.deposits.iter().filter(|deposit| within(deposit.at)) {
        of(deposit.payer, &|spend| spend.deposited_uact += deposit.amount.0);
    }
    for refund in sums.refunds.iter().filter(|refund| within(refund.at)) {
        of(refund.payer, &|spend| spend.refunded_uact += refund.amount.0);
    }
    for fee in sums.fees.iter().filter(|fee| within(fee.at)) {
        of(fee.payer, &|spend| spend.fees_uakt += fee.uakt);
    }
}

#[cfg(test)]
mod tests;
