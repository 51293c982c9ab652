use super::*;
use crate::model::books::{Payment, Scaled, Statement};

fn entry(dseq: u64, cluster: &str, at: UnixMs, deposit: u64) -> TxEntry {
    TxEntry {
        hash: format!("{cluster}{dseq}{}", at.0),
        dseq,
        cluster: cluster.into(),
        purpose: "a test".into(),
        height: i64::try_from(at.0 / 6000).unwrap(),
        at,
        ok: true,
        fee: 10,
        fee_payer: Payer::Own,
        deposit: Uact(deposit),
        deposit_payer: Payer::Own,
    }
}

/// Closed after it was leased from `from` to `until` and paid `paid`.
fn closed(dseq: u64, uid: &str, [from, until]: [UnixMs; 2], paid: i128) -> Account {
    let height = |at: UnixMs| i64::try_from(at.0 / 6000).unwrap();
    let blocks = i128::from(height(until) - height(from));
    let payment = Payment {
        provider: "akash1p".into(),
        rate: Scaled(paid * Scaled::ONE / blocks),
        earned: Scaled(paid * Scaled::ONE),
        from: height(from),
        ..Payment::default()
    };
    let statement = Statement {
        height: height(until),
        at: until,
        block_ms: 6000,
        settled_at: height(until),
        transferred: Scaled(paid * Scaled::ONE),
        payments: vec![payment],
        ..Statement::default()
    };
    Account { statement: Some(statement), ..Account::new(dseq, "cache", uid, "cache-0-a") }
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

#[test]
fn a_month_begins_and_ends_in_utc() {
    let at = |text: &str| {
        let Window { from, until } = month(text).window();
        [from.to_string(), until.to_string()]
    };
    assert_eq!(at("2026-11"), ["2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"]);
    assert_eq!(at("2027-12"), ["2027-12-01T00:00:00Z", "2028-01-01T00:00:00Z"]);
    assert_eq!(month("2026-02").to_string(), "2026-02");
    for bad in ["2026", "2026-13", "26-11", "2026-1", "2026-00", "november", "9999-12"] {
        assert!(bad.parse::<Month>().unwrap_err().contains("2026-11"), "{bad}");
    }
}

#[test]
fn a_lease_over_two_months_is_shared_by_time_and_says_so() {
    let change = month("2026-11").window().until;
    let day = 24 * 3600 * 1000;
    let span = [UnixMs(change.0 - day), UnixMs(change.0 + 3 * day)];
    let txs = [entry(7, "cache", span[0], 1_000), entry(7, "cache", span[1], 0)];
    let accounts = [closed(7, "u", span, 400)];
    let of = |month: Option<&str>| {
        let report = report(&accounts, &txs, None, None, month.map(self::month));
        let Amounts { deposited_uact, paid_uact, refunded_uact, in_escrow_uact, fees_uakt, .. } =
            report.total;
        let amounts = [deposited_uact, paid_uact, refunded_uact, in_escrow_uact, fees_uakt];
        (amounts, report.rows.iter().any(|row| row.estimated))
    };
    assert_eq!(of(None), ([1_000, 400, 600, 0, 20], false));
    assert_eq!(of(Some("2026-11")), ([1_000, 100, 0, 900, 10], true));
    assert_eq!(of(Some("2026-12")), ([0, 300, 600, 0, 10], true));
    assert_eq!(of(Some("2027-01")), ([0; 5], false));
}

#[test]
fn two_clusters_of_one_name_are_told_apart_and_others_left_out() {
    let span = [UnixMs(1_795_000_000_000 / 6000 * 6000), UnixMs(1_795_000_600_000 / 6000 * 6000)];
    let accounts = [closed(7, "first", span, 100), closed(8, "second", span, 200)];
    let txs = [
        entry(7, "cache", span[0], 1_000),
        entry(8, "cache", span[0], 1_000),
        entry(9, "other", span[0], 5_000),
    ];
    let all = report(&accounts, &txs, None, None, None);
    assert_eq!(all.clusters.len(), 3);
    let cache = report(&accounts, &txs, None, Some("cache"), None);
    let paid: Vec<_> =
        cache.clusters.iter().map(|c| (c.uid.as_str(), c.amounts.paid_uact)).collect();
    assert_eq!(paid, [("first", 100), ("second", 200)]);
    assert_eq!((cache.total.deposited_uact, cache.payers.len()), (2_000, 1));
}
