//! What follows from an account and its transactions. Every sum closes to the last unit: what was
//! paid in is what was paid out, came back, or lies there still.

use super::{Account, Head, Payer, Payment, Scaled, Statement, TxEntry};
use crate::model::money::Uact;
use crate::model::time::UnixMs;

/// Money paid into the escrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// Block time.
    pub at: UnixMs,
    /// Whose it was.
    pub payer: Payer,
    /// How much.
    pub amount: Uact,
}

/// Money that came back when the deployment was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Block time.
    pub at: UnixMs,
    /// To whom: whoever had paid it in.
    pub payer: Payer,
    /// How much.
    pub amount: Uact,
}

/// What a transaction cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fee {
    /// Block time.
    pub at: UnixMs,
    /// Whose it was.
    pub payer: Payer,
    /// In uakt.
    pub uakt: u64,
}

/// What one lease took from the escrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidTo {
    /// Account of the provider.
    pub provider: String,
    /// How much, to the last block that was read.
    pub amount: Uact,
    /// From then on.
    pub from: UnixMs,
    /// To then: the last block that it was paid for.
    pub until: UnixMs,
    /// A part of it is not settled on the chain yet and follows from the price of the lease.
    pub estimated: bool,
}

impl PaidTo {
    /// How much of it was paid before `at`: each block costs the same.
    fn before(&self, at: UnixMs) -> u64 {
        let span = u128::from(self.until.0.saturating_sub(self.from.0));
        let past = u128::from(at.0.saturating_sub(self.from.0));
        if past >= span {
            return if at > self.from { self.amount.0 } else { 0 };
        }
        u64::try_from(u128::from(self.amount.0) * past / span).unwrap_or(u64::MAX)
    }
}

/// Everything about one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// What was paid in.
    pub deposits: Vec<Deposit>,
    /// Who was paid out of it.
    pub paid: Vec<PaidTo>,
    /// What came back.
    pub refunds: Vec<Refund>,
    /// What transactions cost.
    pub fees: Vec<Fee>,
    /// What lies in escrow still.
    pub open: Uact,
    /// What providers are owed beyond all that was paid in. Nobody has to pay it.
    pub debt: Uact,
}

/// A span of time, its end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: UnixMs,
    /// Its end.
    pub until: UnixMs,
}

impl Window {
    /// All of it.
    pub const ALL: Self = Self { from: UnixMs(0), until: UnixMs(u64::MAX) };

    fn has(self, at: UnixMs) -> bool {
        self.from <= at && at < self.until
    }
}

/// Sums over a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Paid into escrow.
    pub deposited: Uact,
    /// Paid to providers.
    pub paid: Uact,
    /// Come back.
    pub refunded: Uact,
    /// In escrow at the end of it.
    pub open: Uact,
    /// Owed to providers at the end of it, beyond all that was paid in.
    pub debt: Uact,
    /// Fees, in uakt.
    pub fees: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.deposited = self.deposited + other.deposited;
        self.paid = self.paid + other.paid;
        self.refunded = self.refunded + other.refunded;
        self.open = self.open + other.open;
        self.debt = self.debt + other.debt;
        self.fees = self.fees.saturating_add(other.fees);
    }
}

impl Sums {
    /// What falls into `window`, and what is in escrow at its end.
    #[must_use]
    pub fn within(&self, window: Window) -> Totals {
        let deposited = |window: Window| {
            self.deposits.iter().filter(|d| window.has(d.at)).map(|d| d.amount).sum::<Uact>()
        };
        let refunded = |window: Window| {
            self.refunds.iter().filter(|r| window.has(r.at)).map(|r| r.amount).sum::<Uact>()
        };
        let paid = |window: Window| (0..self.paid.len()).map(|n| self.paid_to(n, window)).sum();
        let so_far = Window { from: UnixMs(0), ..window };
        let gone = paid(so_far) + refunded(so_far);
        Totals {
            deposited: deposited(window),
            paid: paid(window),
            refunded: refunded(window),
            open: deposited(so_far).saturating_sub(gone),
            debt: if window.until == UnixMs(u64::MAX) { self.debt } else { Uact(0) },
            fees: self.fees.iter().filter(|f| window.has(f.at)).map(|f| f.uakt).sum(),
        }
    }

    /// What falls into `window` of the payment with this number.
    #[must_use]
    pub fn paid_to(&self, number: usize, window: Window) -> Uact {
        let Some(payment) = self.paid.get(number) else { return Uact(0) };
        Uact(payment.before(window.until).saturating_sub(payment.before(window.from)))
    }
}

/// A deposit on its way through the sums.
struct Part {
    height: i64,
    deposit: Deposit,
    left: i128,
}

/// The sums of one deployment; `head` is how far the chain is, where that is known.
///
/// What the chain counts in parts of a uact is told in whole ones: a begun uact is paid.
#[must_use]
pub fn sums(account: Option<&Account>, txs: &[TxEntry], head: Option<Head>) -> Sums {
    let fees = txs.iter().filter(|tx| tx.fee > 0);
    let fees = fees.map(|tx| Fee { at: tx.at, payer: tx.fee_payer, uakt: tx.fee }).collect();
    let statement = account.and_then(|account| account.statement.as_ref());
    let clock = Times::new(statement, txs, head);
    let mut parts = deposits(account, txs, &clock);
    let Some(statement) = statement else {
        let deposits: Vec<_> = parts.iter().map(|part| part.deposit).collect();
        let open = deposits.iter().map(|d| d.amount).sum();
        return Sums { deposits, fees, open, ..Sums::default() };
    };
    let accrued = accrued(statement, txs, head);
    let gone = accrued.iter().map(|a| a.paid).sum::<i128>().saturating_add(statement.transferred.0);
    let known: i128 = parts.iter().map(|part| part.left).sum();
    if gone > known {
        // Somebody paid what was owed, or paid in and it was used up before anybody looked.
        let amount = Scaled(gone - known).ceil();
        let (height, left) = (statement.settled_at, gone - known);
        let deposit = Deposit { at: clock.of(height), payer: Payer::Other, amount };
        parts.push(Part { height, deposit, left });
    }
    // The chain takes the oldest first.
    parts.sort_by_key(|part| part.height);
    let mut to_take = gone;
    for part in &mut parts {
        let taken = part.left.min(to_take);
        part.left -= taken;
        to_take -= taken;
    }
    let deposits: Vec<_> = parts.iter().map(|part| part.deposit).collect();
    let deposited: Uact = deposits.iter().map(|d| d.amount).sum();
    let refunds: Vec<_> = parts
        .iter()
        .filter(|part| !statement.open && part.left >= Scaled::ONE)
        .map(|part| Refund {
            at: clock.of(statement.settled_at.max(part.height)),
            payer: part.deposit.payer,
            amount: Scaled(part.left).floor(),
        })
        .collect();
    let rest = Scaled(parts.iter().map(|part| part.left).sum()).floor();
    let open = if statement.open { rest } else { Uact(0) };
    let back: Uact = refunds.iter().map(|r| r.amount).sum();
    let paid = paid(statement, &accrued, deposited.saturating_sub(back + open), &clock);
    let owed = statement.payments.iter().map(|p| p.owed.0);
    let debt = owed.chain(accrued.iter().map(|a| a.unpaid)).sum();
    Sums { deposits, paid, refunds, fees, open, debt: Scaled(debt).ceil() }
}

/// What was paid in: by transactions of ours, and by whom else the chain showed.
fn deposits(account: Option<&Account>, txs: &[TxEntry], clock: &Times) -> Vec<Part> {
    let ours = txs.iter().filter(|tx| tx.ok && tx.deposit.0 > 0);
    let mut parts: Vec<_> = ours
        .map(|tx| Part {
            height: tx.height,
            deposit: Deposit { at: tx.at, payer: tx.deposit_payer, amount: tx.deposit },
            left: Scaled::whole(tx.deposit).0,
        })
        .collect();
    let Some(seen) = account.and_then(|account| account.seen.as_ref()) else { return parts };
    let explained: i128 = parts.iter().filter(|p| p.height <= seen.height).map(|p| p.left).sum();
    let more = seen.total.0 - explained;
    if more <= 0 {
        return parts;
    }
    // By hand, by an operator without books, or by somebody else.
    let others = |own: bool| {
        let known = |height: i64| txs.iter().any(|tx| tx.height == height && tx.deposit.0 > 0);
        let new = seen.depositors.iter().filter(move |(at, by)| *by == own && !known(*at));
        new.map(|(height, _)| *height).min()
    };
    let (height, payer) = match (others(false), others(true)) {
        (Some(height), _) => (height, Payer::Other),
        (None, Some(height)) => (height, Payer::Own),
        // All that we paid in is booked, from the first deposit on.
        (None, None) if parts.iter().any(|part| part.height <= first_height(account)) => {
            (seen.height, Payer::Other)
        }
        (None, None) => (0, Payer::Own),
    };
    let at = clock.of(if height == 0 { first_height(account) } else { height });
    let deposit = Deposit { at, payer, amount: Scaled(more).ceil() };
    parts.push(Part { height, deposit, left: more });
    parts
}

fn first_height(account: Option<&Account>) -> i64 {
    let statement = account.and_then(|account| account.statement.as_ref());
    let leases = statement.into_iter().flat_map(|s| s.payments.iter().map(|p| p.from));
    leases.min().or(statement.map(|s| s.settled_at)).unwrap_or_default()
}

/// What a payment came to since the last settlement.
struct Accrued {
    paid: i128,
    unpaid: i128,
}

/// What goes on since the last settlement, by the chain's own rule: nothing is settled block by
/// block, and a whole number of uact is.
fn accrued(statement: &Statement, txs: &[TxEntry], head: Option<Head>) -> Vec<Accrued> {
    let height = head.map_or(statement.height, |head| head.height.max(statement.height));
    let blocks = i128::from(height.saturating_sub(statement.settled_at).max(0));
    let later = txs.iter().filter(|tx| tx.ok && tx.height > statement.height);
    let later: i128 = later.map(|tx| Scaled::whole(tx.deposit).0).sum();
    let mut funds = statement.funds.0.max(0).saturating_add(later);
    let each = statement.payments.iter().map(|payment| {
        if !(statement.open && payment.open) {
            return Accrued { paid: 0, unpaid: 0 };
        }
        let owed = payment.rate.0.saturating_mul(blocks) / Scaled::ONE * Scaled::ONE;
        let paid = owed.min(funds);
        funds -= paid;
        Accrued { paid, unpaid: owed - paid }
    });
    each.collect()
}

/// Shares `total`, all that was paid, among the leases; a begun uact is the last one's.
fn paid(statement: &Statement, accrued: &[Accrued], total: Uact, clock: &Times) -> Vec<PaidTo> {
    let mut left = total;
    let count = statement.payments.len();
    let mut paid = Vec::with_capacity(count);
    for (number, (payment, accrued)) in statement.payments.iter().zip(accrued).enumerate() {
        let earned = Scaled(payment.earned.0.saturating_add(accrued.paid));
        let amount = if number + 1 == count { left } else { earned.floor().min(left) };
        left = left.saturating_sub(amount);
        paid.push(PaidTo {
            provider: payment.provider.clone(),
            amount,
            from: clock.of(payment.from),
            until: clock.of(last_block(payment, earned)),
            estimated: accrued.paid > 0,
        });
    }
    if count == 0 && left.0 > 0 {
        let at = clock.of(statement.settled_at);
        let provider = String::new();
        paid.push(PaidTo { provider, amount: left, from: at, until: at, estimated: false });
    }
    paid
}

/// Up to which height it is paid: each block costs the same.
fn last_block(payment: &Payment, earned: Scaled) -> i64 {
    let blocks = earned.0.checked_div(payment.rate.0).unwrap_or(0);
    payment.from.saturating_add(i64::try_from(blocks).unwrap_or(i64::MAX))
}

/// Times of blocks: known of those with transactions of ours and of the last reading, and reckoned
/// from the nearest of these for the others.
struct Times {
    known: Vec<(i64, UnixMs)>,
    block_ms: u64,
}

impl Times {
    fn new(statement: Option<&Statement>, txs: &[TxEntry], head: Option<Head>) -> Self {
        let read = statement.map(|s| (s.height, s.at));
        let head = head.map(|head| (head.height, head.at));
        let known = txs.iter().map(|tx| (tx.height, tx.at)).chain(read).chain(head).collect();
        Self { known, block_ms: statement.map_or(0, |s| s.block_ms) }
    }

    fn of(&self, height: i64) -> UnixMs {
        let nearest = self.known.iter().min_by_key(|(known, _)| known.abs_diff(height));
        let Some((known, at)) = nearest else { return UnixMs(0) };
        let span = known.abs_diff(height).saturating_mul(self.block_ms);
        UnixMs(if *known > height { at.0.saturating_sub(span) } else { at.0.saturating_add(span) })
    }
}

#[cfg(test)]
mod tests;
