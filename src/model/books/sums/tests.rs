use super::super::Seen;
use super::*;

const MINUTE: u64 = 60_000;

fn scaled(uact: i128) -> Scaled {
    Scaled(uact * Scaled::ONE)
}

/// Blocks of six seconds from a beginning.
fn time(height: i64) -> UnixMs {
    UnixMs(1_795_000_000_000 + u64::try_from(height).unwrap() * 6_000)
}

fn tx(height: i64, deposit: u64) -> TxEntry {
    TxEntry {
        hash: format!("H{height}"),
        dseq: 7,
        cluster: "cache".into(),
        purpose: "a test".into(),
        height,
        at: time(height),
        ok: true,
        fee: 5000,
        fee_payer: Payer::Own,
        deposit: Uact(deposit),
        deposit_payer: Payer::Own,
    }
}

/// As it stands at `height`: leased at 10 for 100 a block, settled at `settled`.
fn statement(height: i64, settled: i64, funds: i128, transferred: i128) -> Statement {
    Statement {
        height,
        at: time(height),
        block_ms: 6000,
        open: true,
        settled_at: settled,
        funds: scaled(funds),
        transferred: scaled(transferred),
        depositors: vec![(5, true)],
        payments: vec![Payment {
            provider: "akash1p".into(),
            oseq: 1,
            rate: scaled(100),
            earned: scaled(transferred),
            owed: Scaled(0),
            open: true,
            from: 10,
        }],
    }
}

fn account(statement: Statement) -> Account {
    let mut account = Account::new(7, "cache", "u", "cache-0-a");
    assert!(account.take(statement, 0));
    account
}

fn closed(height: i64, transferred: i128) -> Statement {
    let mut statement = statement(height, height, 0, transferred);
    statement.open = false;
    statement.payments[0].open = false;
    statement
}

/// Deposited, paid, refunded, in escrow, debt; and what always holds.
fn told(sums: &Sums) -> [u64; 5] {
    let Totals { deposited, paid, refunded, open, debt, .. } = sums.within(Window::ALL);
    assert_eq!(deposited, paid + refunded + open, "{sums:?}");
    [deposited, paid, refunded, open, debt].map(|amount| amount.0)
}

#[test]
fn a_running_lease_is_reckoned_to_the_block_that_was_read_last() {
    let account = account(statement(20, 10, 10_000, 0));
    assert_eq!(told(&sums(Some(&account), &[tx(5, 10_000)], None)), [10_000, 1_000, 0, 9_000, 0]);
    let head = Some(Head { height: 30, at: time(30) });
    let later = sums(Some(&account), &[tx(5, 10_000)], head);
    assert_eq!(told(&later), [10_000, 2_000, 0, 8_000, 0]);
    assert!(later.paid[0].estimated && later.paid[0].until == time(30), "{later:?}");
    let empty = Some(Head { height: 1000, at: time(1000) });
    assert_eq!(
        told(&sums(Some(&account), &[tx(5, 10_000)], empty)),
        [10_000, 10_000, 0, 0, 89_000],
        "what is owed beyond the deposit is a debt, and not spent"
    );
}

#[test]
fn what_was_not_used_comes_back_when_it_is_closed() {
    let account = account(closed(50, 4_000));
    let sums = sums(Some(&account), &[tx(5, 10_000), tx(50, 0)], None);
    assert_eq!(told(&sums), [10_000, 4_000, 6_000, 0, 0]);
    assert_eq!((sums.refunds[0].at, sums.paid[0].estimated), (time(50), false));
    assert_eq!(sums.within(Window::ALL).fees, 10_000);
}

#[test]
fn a_deposit_after_the_overdraft_goes_to_the_debt_and_its_rest_comes_back() {
    let mut overdrawn = statement(120, 120, -1_000, 10_000);
    overdrawn.open = false;
    overdrawn.payments[0].open = false;
    overdrawn.payments[0].owed = scaled(1_000);
    let dry = account(overdrawn);
    assert_eq!(told(&sums(Some(&dry), &[tx(5, 10_000)], None)), [10_000, 10_000, 0, 0, 1_000]);
    let paid = account(closed(130, 11_000));
    let txs = [tx(5, 10_000), tx(125, 1_500)];
    assert_eq!(told(&sums(Some(&paid), &txs, None)), [11_500, 11_000, 500, 0, 0]);
}

#[test]
fn a_failed_transaction_costs_its_fee_alone() {
    let failed = TxEntry { ok: false, deposit: Uact(0), ..tx(6, 0) };
    let sums = sums(None, &[failed], None);
    assert_eq!((told(&sums), sums.within(Window::ALL).fees), ([0; 5], 5000));
}

#[test]
fn what_others_paid_in_is_theirs_and_goes_back_to_them() {
    let mut open = statement(20, 10, 13_000, 0);
    open.depositors = vec![(5, true), (15, false)];
    let mut account = account(open);
    assert!(account.take(closed(60, 5_000), 0));
    let sums = sums(Some(&account), &[tx(5, 10_000)], None);
    assert_eq!(told(&sums), [13_000, 5_000, 8_000, 0, 0]);
    let of = |payer| sums.refunds.iter().filter(|r| r.payer == payer).map(|r| r.amount.0).sum();
    let refunds: [u64; 2] = [Payer::Own, Payer::Other].map(of);
    assert_eq!(refunds, [5_000, 3_000], "the oldest deposit is used first");
}

#[test]
fn a_debt_that_somebody_else_paid_is_not_ours() {
    let account = account(closed(60, 12_000));
    let sums = sums(Some(&account), &[tx(5, 10_000)], None);
    assert_eq!(told(&sums), [12_000, 12_000, 0, 0, 0]);
    assert_eq!(sums.deposits[1].payer, Payer::Other);
}

#[test]
fn what_an_operator_without_books_paid_in_is_known_from_the_chain_while_it_is_open() {
    let mut account = account(statement(20, 10, 10_000, 500));
    let carried = sums(Some(&account), &[], None);
    assert_eq!(told(&carried), [10_500, 1_500, 0, 9_000, 0]);
    assert_eq!(carried.deposits[0].payer, Payer::Own);
    assert!(account.take(closed(60, 5_000), 0));
    assert_eq!(told(&sums(Some(&account), &[tx(60, 0)], None)), [10_500, 5_000, 5_500, 0, 0]);
}

#[test]
fn a_deposit_that_is_booked_late_is_not_counted_twice() {
    let mut account = account(statement(20, 10, 10_000, 0));
    account.seen = Some(Seen { height: 20, total: scaled(12_000), ..Seen::default() });
    account.statement.as_mut().unwrap().funds = scaled(12_000);
    let before = sums(Some(&account), &[tx(5, 10_000)], None);
    let after = sums(Some(&account), &[tx(5, 10_000), tx(18, 2_000)], None);
    assert_eq!(told(&before), told(&after));
}

#[test]
fn a_reading_says_something_new_or_is_the_last_word() {
    let mut account = account(statement(20, 10, 10_000, 0));
    assert!(!account.take(statement(21, 10, 10_000, 0), 0), "a block is no news");
    assert!(!account.take(closed(19, 4_000), 0), "never back in height");
    assert!(account.take(closed(50, 4_000), 50));
    assert!(account.is_final(50) && !account.is_final(51));
    assert!(
        !account.take(Statement { settled_at: 50, ..closed(51, 4_000) }, 50),
        "a block is none"
    );
    assert!(account.take(Statement { settled_at: 50, ..closed(52, 4_000) }, 51), "past the last");
    assert!(account.is_final(51));
}

#[test]
fn months_add_up_to_the_whole() {
    let account = account(closed(1_000, 99_000));
    let sums = sums(Some(&account), &[tx(5, 100_000), tx(1_000, 0)], None);
    let mut all = Totals::default();
    let mut from = UnixMs(0);
    for n in 0..200 {
        let until = if n == 199 { UnixMs(u64::MAX) } else { UnixMs(time(0).0 + n * 37 * MINUTE) };
        let part = sums.within(Window { from, until });
        let before = all.open;
        all += Totals { open: Uact(0), ..part };
        all.open = part.open;
        assert_eq!(before + part.deposited, part.paid + part.refunded + part.open);
        from = until;
    }
    assert_eq!(all, sums.within(Window::ALL));
}

#[test]
fn what_somebody_else_paid_of_a_debt_before_we_did_is_not_ours() {
    let overdrawn = |height: i64, transferred: i128, owed: i128| {
        let mut statement = statement(height, 120, -owed, transferred);
        statement.open = false;
        statement.payments[0].open = false;
        statement.payments[0].owed = scaled(owed);
        statement
    };
    let mut account = account(overdrawn(120, 10_000, 1_000));
    assert!(account.take(overdrawn(125, 10_400, 600), 0));
    assert!(account.take(closed(130, 11_000), 0));
    let sums = sums(Some(&account), &[tx(5, 10_000), tx(128, 1_500)], None);
    assert_eq!(told(&sums), [11_900, 11_000, 900, 0, 0]);
    assert_eq!((sums.deposits[1].payer, sums.refunds[0].payer), (Payer::Other, Payer::Own));
}
