//! What is found after the loss of a store, and what stands in no record, as text for people.

use std::fmt::Write as _;

pub use super::clean;
use super::{columns, section};
use crate::api::recover::{FoundCluster, Orphan, OrphanReport, RecoverReport};

/// What was found of the clusters that no record knows, and what can be done.
#[must_use]
pub fn recovery(report: &RecoverReport, confirmed: bool) -> String {
    let mut text = String::new();
    for note in &report.notes {
        let _ = writeln!(text, "{}", clean(note));
    }
    if report.clusters.is_empty() {
        let _ = writeln!(
            text,
            "the records know every deployment of installation {}: there is nothing to recover",
            clean(&report.installation)
        );
    }
    for found in &report.clusters {
        cluster(&mut text, found, confirmed);
    }
    text
}

fn cluster(text: &mut String, found: &FoundCluster, confirmed: bool) {
    let name = clean(&found.name);
    let or_none = |words: &str| if words.is_empty() { "none".to_owned() } else { clean(words) };
    let _ = writeln!(text, "Cluster {name}");
    let _ = writeln!(text, "  Manifest: {}", or_none(&found.manifest));
    let _ = writeln!(text, "  Master:   {}", or_none(found.master.as_deref().unwrap_or_default()));
    let _ = writeln!(text, "  Epoch:    {}, goes on with {}", found.epoch, found.next_epoch);
    let rows = found.nodes.iter().map(|n| {
        vec![
            n.ordinal.to_string(),
            n.incarnation.clone(),
            n.dseq.to_string(),
            n.provider.clone().unwrap_or_default(),
            n.device.clone().unwrap_or_default(),
            n.epoch.map(|e| e.to_string()).unwrap_or_default(),
            n.role.clone(),
            n.generation.map(|g| g.to_string()).unwrap_or_default(),
        ]
    });
    let header =
        ["NODE", "INCARNATION", "DSEQ", "PROVIDER", "DEVICE", "EPOCH", "ROLE", "KEEPS GENERATION"];
    section(text, "Nodes", &columns(&header, rows));
    let problems: Vec<_> = found.problems.iter().map(|p| format!("- {}", clean(p))).collect();
    section(text, "Missing or contradictory", &problems.join("\n"));
    let end = match (&found.refused, found.written) {
        (_, true) => format!(
            "{name} is taken over: its object and its record are written; `akash-redis describe {name}` shows what is done next"
        ),
        (Some(why), _) => format!("{name} cannot be taken over now: {}", clean(why)),
        (None, _) if confirmed => format!("{name} was not taken over"),
        (None, _) => format!(
            "Nothing was written. `akash-redis recover {name} --confirm` takes it over{}",
            if found.master.is_some() {
                ": the master stays the master".to_owned()
            } else {
                "; nobody takes writes, so the newest history is promoted then".to_owned()
            }
        ),
    };
    let _ = writeln!(text, "\n{end}\n");
}

/// What stands in no record, one line for each incarnation.
#[must_use]
pub fn orphans(report: &OrphanReport) -> String {
    let mut text = String::new();
    for unseen in &report.unseen {
        let _ = writeln!(text, "{}: there may be more than is listed", clean(unseen));
    }
    if report.orphans.is_empty() {
        text.push_str("nothing of this installation stands in no record\n");
        return text;
    }
    let header =
        ["CLUSTER", "INCARNATION", "DSEQ", "SINCE", "PRICE/MONTH", "IN-ESCROW", "DEVICES", "KEYS"];
    let money = |money: Option<crate::api::quantity::Money>| {
        money.map(|money| money.to_string()).unwrap_or_default()
    };
    let rows = report.orphans.iter().map(|o| {
        vec![
            o.cluster.clone(),
            o.incarnation.clone(),
            o.dseq.map(|dseq| dseq.to_string()).unwrap_or_default(),
            o.since.clone().unwrap_or_default(),
            money(o.price_per_month),
            money(o.escrow),
            o.devices.join(" "),
            o.keys.join(" "),
        ]
    });
    text.push_str(&columns(&header, rows));
    let mut lost: Vec<_> =
        report.orphans.iter().filter(|o| o.recoverable).map(|o| clean(&o.cluster)).collect();
    lost.dedup();
    if !lost.is_empty() {
        let _ = writeln!(
            text,
            "No record knows anything of {}: `akash-redis recover` may take it over. It is closed only when it is named.",
            lost.join(", ")
        );
    }
    text
}

/// One sentence about what is gone.
#[must_use]
pub fn closed(orphan: &Orphan) -> String {
    let mut what = Vec::new();
    if let Some(dseq) = orphan.dseq {
        what.push(format!("deployment {dseq} is closed and what was left in its escrow came back"));
    }
    if !orphan.devices.is_empty() {
        what.push(format!("device {} is deleted", orphan.devices.join(", ")));
    }
    if !orphan.keys.is_empty() {
        what.push(format!("key {} is revoked", orphan.keys.join(", ")));
    }
    clean(&format!("{}: {}", orphan.incarnation, what.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::quantity::Money;
    use crate::api::recover::FoundNode;
    use crate::model::money::Uact;

    fn found() -> FoundCluster {
        FoundCluster {
            name: "cache".into(),
            manifest: "generation 4, as cache-0-a keeps it".into(),
            master: Some("cache-0-a".into()),
            epoch: 7,
            next_epoch: 1_000_000,
            nodes: vec![FoundNode {
                incarnation: "cache-0-a".into(),
                dseq: 12,
                provider: Some("akash1p\u{1b}".into()),
                epoch: Some(7),
                role: "master".into(),
                ..FoundNode::default()
            }],
            ..FoundCluster::default()
        }
    }

    #[test]
    fn a_look_says_what_was_found_and_what_can_be_done() {
        let said = |found: FoundCluster, confirmed: bool| {
            let report = RecoverReport { clusters: vec![found], ..RecoverReport::default() };
            recovery(&report, confirmed)
        };
        let text = said(found(), false);
        for part in ["Cluster cache", "7, goes on with 1000000", "akash1p?", "Nothing was written."]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            text.contains("`akash-redis recover cache --confirm` takes it over: the master stays"),
            "{text}"
        );
        let nobody = said(FoundCluster { master: None, ..found() }, false);
        assert!(nobody.contains("the newest history is promoted then"), "{nobody}");
        let refused = said(FoundCluster { refused: Some("two masters".into()), ..found() }, true);
        assert!(refused.contains("cache cannot be taken over now: two masters"), "{refused}");
        let problems = vec!["cache-1-b does not answer".to_owned()];
        let written = said(FoundCluster { written: true, problems, ..found() }, true);
        assert!(
            written.contains("cache is taken over") && written.contains("- cache-1-b does not")
        );
        let none = recovery(
            &RecoverReport { installation: "abcdef".into(), ..RecoverReport::default() },
            false,
        );
        assert!(none.contains("nothing to recover"), "{none}");
    }

    #[test]
    fn an_orphan_is_one_line_and_its_end_one_sentence() {
        let orphan = Orphan {
            incarnation: "cache-0-a".into(),
            cluster: "cache".into(),
            recoverable: true,
            dseq: Some(12),
            price_per_month: Some(Money(Uact(3_000_000))),
            escrow: Some(Money(Uact(1_500_000))),
            devices: vec!["n1".into()],
            keys: vec!["k1".into()],
            ..Orphan::default()
        };
        let report = OrphanReport {
            orphans: vec![orphan.clone()],
            unseen: vec!["tailnet: silence".into()],
            ..OrphanReport::default()
        };
        let text = orphans(&report);
        for part in [
            "12",
            "3act",
            "1.5act",
            "n1",
            "k1",
            "tailnet: silence: there may be more",
            "only when it is named",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let end = closed(&orphan);
        assert!(
            end.contains("deployment 12 is closed") && end.contains("key k1 is revoked"),
            "{end}"
        );
        let device = closed(&Orphan { dseq: None, keys: vec![], ..orphan });
        assert_eq!(
            device, "cache-0-a: device n1 is deleted",
            "nothing is called closed that was not"
        );
        assert!(orphans(&OrphanReport::default()).contains("nothing of this installation"));
    }
}
