use super::*;
use crate::api::spend::{ClusterSpend, PayerSpend};
use crate::model::books::Payer;

fn report() -> SpendReport {
    let amounts = |deposited_uact,
                   paid_uact,
                   refunded_uact,
                   in_escrow_uact,
                   debt_uact,
                   fees_uakt| {
        Amounts { deposited_uact, paid_uact, refunded_uact, in_escrow_uact, debt_uact, fees_uakt }
    };
    let row = |node: &str, provider: &str, amounts, estimated| SpendRow {
        cluster: "cache".into(),
        uid: "0123456789abcdef".into(),
        node: node.into(),
        dseq: 7,
        provider: provider.into(),
        amounts,
        estimated,
    };
    let rows = vec![
        row("cache-0-a", "akash1p", amounts(2_000_000, 1_234_567, 0, 765_433, 0, 16_000), true),
        row("cache-1-b", "akash1q", amounts(2_000_000, 2_000_000, 0, 0, 3, 31_000), false),
        row("cache-2-c", "", amounts(2_000_000, 0, 2_000_000, 0, 0, 22_000), false),
    ];
    let mut total = Amounts::default();
    for row in &rows {
        total += row.amounts;
    }
    let cluster =
        ClusterSpend { cluster: "cache".into(), uid: "0123456789abcdef".into(), amounts: total };
    let treasury =
        PayerSpend { payer: Payer::Treasury, deposited_uact: 2_000_000, ..PayerSpend::default() };
    SpendReport {
        month: None,
        as_of: Some("2026-11-26T02:00:00Z".into()),
        rows,
        clusters: vec![cluster],
        total,
        payers: vec![treasury],
    }
}

#[test]
fn people_read_act_and_programs_the_smallest_units() {
    let text = table(&report());
    let line = |name: &str| {
        let line = text.lines().find(|line| line.contains(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line("cache-0-a"),
        "cache 01234567 cache-0-a akash1p 2act ~1.234567act - 0.765433act - 0.016akt"
    );
    assert_eq!(
        line("all nodes"),
        "cache 01234567 all nodes - 6act ~3.234567act 2act 0.765433act 0.000003act 0.069akt"
    );
    assert!(text.contains("as of 2026-11-26T02:00:00Z"), "{text}");
    assert!(text.contains("money of treasury accounts: 2act deposited"), "{text}");
    let csv = csv(&report());
    let last = "cache,0123456789abcdef,cache-1-b,7,akash1q,2000000,2000000,0,0,3,31000,false";
    assert!(csv.lines().count() == 4 && csv.contains(last), "{csv}");
    assert_eq!(table(&SpendReport::default()), "nothing was spent\n");
}
