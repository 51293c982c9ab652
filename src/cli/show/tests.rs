use serde_json::json;

use super::*;
use crate::api::report::{PlannedStep, StepKind};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn at(seconds_from_now: i64) -> String {
    UnixMs(NOW.0.saturating_add_signed(seconds_from_now * 1000)).to_string()
}

fn waits_of() -> Vec<Waiting> {
    vec![
        Waiting {
            what: "bids on cache-2-m4pq".into(),
            deadline: Some(at(95)),
            then: "the best one is taken".into(),
        },
        Waiting {
            what: "a word on the lost master".into(),
            deadline: None,
            then: "the cluster goes on as told".into(),
        },
    ]
}

fn cost_of() -> Cost {
    Cost {
        per_month: "5.4act".into(),
        max_per_month: "12act".into(),
        limited_by: "spec.budget.maxPerMonth".into(),
        in_escrow: "3.91act".into(),
        spent: "0.09act".into(),
        deposit: "0.5act".into(),
        runway: "13 days".into(),
    }
}

fn nodes_of() -> serde_json::Value {
    json!([
        { "ordinal": 0, "incarnation": "cache-0-x7k2", "phase": "Master", "dseq": 11, "provider": "akash1aaa", "providerHost": "provider.one.example", "region": "us-west", "pricePerMonth": "2.7act", "meshName": "cache-0-x7k2-ab12cd.tail1.ts.net" },
        { "ordinal": 1, "incarnation": "cache-1-b9ww", "phase": "Replica", "dseq": 12, "provider": "akash1bbb", "pricePerMonth": "2.7act", "meshName": "cache-1-b9ww-ab12cd.tail1.ts.net", "lagBytes": 1_700_000, "path": "DERP(fra), 38.0 ms" },
        { "ordinal": 2, "incarnation": "cache-2-m4pq", "phase": "Bidding", "dseq": 13, "message": "nobody bid\u{1b}[2J yet" },
    ])
}

fn running() -> RedisCluster {
    serde_json::from_value(json!({
        "apiVersion": "akash-redis.dev/v1alpha1",
        "kind": "RedisCluster",
        "metadata": { "name": "cache", "generation": 2, "creationTimestamp": at(-9000) },
        "spec": { "nodes": 3 },
        "status": {
            "observedGeneration": 2,
            "epoch": 4,
            "master": { "epoch": 4, "incarnation": "cache-0-x7k2", "name": "cache-0-x7k2-ab12cd.tail1.ts.net", "ip": "100.64.0.1", "port": 6379 },
            "conditions": [
                { "type": "Ready", "status": "False", "reason": "NodesNotReady", "message": "2 of 3 nodes are up", "lastTransitionTime": at(-60) },
                { "type": "Funded", "status": "True", "reason": "EscrowFunded", "message": "the escrow pays for 40 days", "lastTransitionTime": at(-8000) },
            ],
            "nodes": nodes_of(),
            "cost": cost_of(),
            "waiting": waits_of(),
            "lastFailover": {
                "epoch": 4, "reason": "redis exited", "witnesses": ["cache-1-b9ww"], "old": "cache-2-aaaa", "new": "cache-0-x7k2",
                "candidates": ["cache-0-x7k2: 1200", "cache-1-b9ww: 1180"], "fence": "its agent confirmed", "steps": ["detached 40", "promoted 210"], "lost": "",
            },
        },
    }))
    .unwrap()
}

fn unseen() -> RedisCluster {
    let mut cluster = running();
    cluster.metadata.name = "young".into();
    cluster.metadata.creation_timestamp = Some(at(-5));
    cluster.status = None;
    cluster
}

fn history() -> Vec<Event> {
    let event = |ago: u64, reason: &str, message: &str| {
        Event::new(UnixMs(NOW.0 - ago * 1000), "cache", reason, message)
    };
    let failed = event(70, "EffectFailed", "send the manifest to cache-2-m4pq: no answer");
    vec![
        Event { first: UnixMs(NOW.0 - 400_000), count: 12, ..failed },
        event(120, "LeaseCreated", "cache-1-b9ww runs at provider.two.example"),
        event(60, "Promoted", "cache-0-x7k2 is master of epoch 4"),
    ]
}

#[test]
fn the_list() {
    insta::assert_snapshot!(table(&[running(), unseen()], NOW, false));
}

#[test]
fn the_wide_list() {
    insta::assert_snapshot!(table(&[running(), unseen()], NOW, true));
}

#[test]
fn the_topology() {
    insta::assert_snapshot!(topology(&running()));
}

#[test]
fn the_description() {
    insta::assert_snapshot!(describe(&running(), &history(), NOW));
}

#[test]
fn the_description_of_what_was_not_looked_at() {
    insta::assert_snapshot!(describe(&unseen(), &[], NOW));
}

#[test]
fn the_plan() {
    let step = |incarnation: &str, what: &str, reason: &str| PlannedStep {
        incarnation: incarnation.into(),
        what: what.into(),
        reason: reason.into(),
        kind: StepKind::Change,
    };
    let create = PlannedStep {
        kind: StepKind::Create,
        ..step("cache-2-m4pq", "create a deployment with 2act for", "node 2 is empty")
    };
    let close = PlannedStep {
        kind: StepKind::Close,
        ..step("cache-2-aaaa", "close deployment 13 of", "it was lost")
    };
    let device = step("cache-2-aaaa", "delete the mesh device of", "it was lost");
    let steps =
        vec![create, device, close, step("cache-1-b9ww", "configure", "it has old settings")];
    let then_per_month = "8.1act".to_owned();
    let report = PlanReport { steps, waiting: waits_of(), cost: cost_of(), then_per_month };
    insta::assert_snapshot!(plan("cache", &report, NOW));
}

#[test]
fn a_plan_with_nothing_to_do() {
    insta::assert_snapshot!(plan(
        "cache",
        &PlanReport { cost: cost_of(), ..PlanReport::default() },
        NOW
    ));
}

#[test]
fn nothing_that_a_terminal_obeys_is_printed() {
    for text in [
        describe(&running(), &history(), NOW),
        topology(&running()),
        table(&[running()], NOW, true),
    ] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}

#[test]
fn spans_and_sizes_are_short() {
    let spans = [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (3600, "1h"),
        (12_000, "3h20m"),
        (90_000, "1d1h"),
        (900_000, "10d"),
    ];
    for (seconds, text) in spans {
        assert_eq!(short(seconds), text);
    }
    for (bytes, text) in
        [(-3, "-3B"), (0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (5 << 30, "5.0GiB")]
    {
        assert_eq!(size(bytes), text);
    }
}

#[test]
fn the_wallet_is_shown_with_its_dates_and_its_grants() {
    use crate::api::wallet::{GrantReport, WalletReport};
    let grant = GrantReport {
        granter: "akash1treasury".into(),
        holds: "80act".into(),
        rest: Some("50act".into()),
        expires: Some("2027-02-24T02:00:29Z".into()),
        problem: None,
    };
    let gone = GrantReport { problem: Some("has made no such grant".into()), ..grant.clone() };
    let report = WalletReport {
        address: "akash1me".into(),
        read: "2026-11-26T02:00:29Z".into(),
        act: Some("12.5act".parse().unwrap()),
        akt: "1.25akt".into(),
        in_escrow: Some("6act".parse().unwrap()),
        leases: 3,
        per_month: Some("9act".parse().unwrap()),
        last_refill: Some("2027-01-03T10:00:00Z".into()),
        fees_end: None,
        treasury: Some(grant),
        fee_grant: Some(gone),
    };
    let text = wallet(&report);
    for line in [
        "Per month:   9act for 3 leases",
        "Last refill: 2027-01-03T10:00:00Z",
        "Fees end:    none within five years",
        "Treasury:    akash1treasury holds 80act; its grant: 50act left, until 2027-02-24T02:00:29Z",
        "Fee grant:   akash1treasury has made no such grant",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let unread = wallet(&WalletReport { address: "akash1me".into(), ..WalletReport::default() });
    assert!(unread.contains("was not read yet"), "{unread}");
}
