//! What an apply would do, as text for people. Pure.

use std::fmt::Write as _;

use super::show::{self, clean};
use crate::api::preview::{Bill, Consequence, Offers, Preview, PreviewChange};
use crate::api::quantity::Money;
use crate::api::report::StepCount;
use crate::model::money::Uact;

/// All of them, one after the other, and what they come to.
pub(super) fn all(previews: &[Preview]) -> String {
    let each = previews.iter().map(one).collect::<Vec<_>>().join("\n");
    let taken: Vec<_> = previews.iter().filter(|preview| !preview.is_refused()).collect();
    if taken.is_empty() {
        return each;
    }
    let count =
        taken.iter().map(|preview| preview.count()).fold(StepCount::default(), |a, b| StepCount {
            create: a.create + b.create,
            change: a.change + b.change,
            close: a.close + b.close,
        });
    let sum = |of: fn(&Bill) -> Option<Money>| {
        let each = taken.iter().map(|preview| of(preview.bill.as_ref()?).map(|Money(uact)| uact));
        let sum = each.sum::<Option<Uact>>();
        sum.map(|sum| sum.to_string())
    };
    let now = sum(|bill| bill.now).unwrap_or_default();
    let then = sum(|bill| bill.at_most);
    format!("{each}\n{}\n", show::summary(count, &now, then.as_deref()))
}

fn one(preview: &Preview) -> String {
    let mut text = String::new();
    let verb = match preview {
        Preview { problems, .. } if !problems.is_empty() => "would be refused",
        Preview { is_new: true, .. } => "would be created",
        Preview { changes, .. } if changes.is_empty() => "would stay as it is",
        _ => "would be configured",
    };
    let _ = writeln!(text, "rediscluster/{} {verb}", clean(&preview.name));
    for change in &preview.changes {
        let _ = writeln!(text, "  {} {}", mark(change.consequence), changed(change));
    }
    if let Some(bill) = preview.bill.as_ref().filter(|bill| bill.new_nodes > 0) {
        let s = if bill.new_nodes == 1 { "" } else { "s" };
        let _ = writeln!(text, "  + {} node{s}", bill.new_nodes);
    }
    if preview.is_refused() {
        return text;
    }
    if let Some(bill) = &preview.bill {
        text.push_str(&money(bill));
    }
    text.push_str(&providers(&preview.offers));
    for warning in &preview.warnings {
        let _ = writeln!(text, "  warning:    {}", clean(warning));
    }
    text
}

/// As terraform writes it.
fn mark(consequence: Consequence) -> &'static str {
    match consequence {
        Consequence::Buys => "+",
        Consequence::Leaves => "-",
        Consequence::BuysAnew | Consequence::Moves => "-/+",
        Consequence::Refused => "!",
        Consequence::Live | Consequence::Rolls | Consequence::NextOrder | Consequence::Other => "~",
    }
}

fn changed(change: &PreviewChange) -> String {
    let follows = match change.consequence {
        Consequence::Live => "live: in force within seconds, no restart",
        Consequence::Rolls => "nodes are started anew one at a time, leases and volumes stay",
        Consequence::Buys => "nodes are bought",
        Consequence::Leaves => "nodes leave one at a time, their leases are closed",
        Consequence::NextOrder => "counts from the next order on",
        Consequence::Moves => "nodes move one at a time to leases that are made with it",
        Consequence::BuysAnew => "nothing of it ran yet: it is refunded and bought anew",
        Consequence::Refused => "refused: a lease keeps it as it was made",
        Consequence::Other => "see the operator's release notes",
    };
    format!("{} ({follows})", clean(&change.to_string()))
}

/// Nodes with higher numbers get more, so that not all escrows end together.
fn each(bill: &Bill) -> &'static str {
    let same = |one: Money, all: Money| one.0.0.saturating_mul(bill.new_nodes.into()) == all.0.0;
    match (bill.deposit, bill.deposits) {
        (Some(one), Some(all)) if !same(one, all) => "or up to a half more each",
        _ => "each",
    }
}

fn money(bill: &Bill) -> String {
    let amount = |money: Option<Money>| money.map_or("unknown".to_owned(), |m| m.to_string());
    let mut text = String::new();
    if bill.new_nodes > 0 {
        let _ = writeln!(
            text,
            "  deposits:   {} now, for {} nodes with {} {}, of {} in the wallet; what is not used comes back",
            amount(bill.deposits),
            bill.new_nodes,
            amount(bill.deposit),
            each(bill),
            amount(bill.balance),
        );
    } else {
        text.push_str("  deposits:   none, no node is bought\n");
    }
    let _ = writeln!(
        text,
        "  per month:  {} now, at most {} then; {} are allowed ({})",
        amount(bill.now),
        amount(bill.at_most),
        amount(bill.allowed),
        clean(&bill.allowed_by),
    );
    let _ = match bill.observed {
        Some([low, high]) => writeln!(
            text,
            "  of late:    {low} to {high} per month for a node of this size ({} leases and bids)",
            bill.observed_of
        ),
        None => writeln!(
            text,
            "  of late:    unknown, no lease or bid of ours is for a node of this size"
        ),
    };
    text
}

fn providers(offers: &Offers) -> String {
    let mut text = String::new();
    if let Some(why) = &offers.unknown {
        let _ = writeln!(text, "  providers:  unknown: {}", clean(why));
        return text;
    }
    let more = offers.matching.saturating_sub(u32::try_from(offers.first.len()).unwrap_or(0));
    let mut named = offers.first.iter().map(|one| clean(one)).collect::<Vec<_>>().join(", ");
    if more > 0 {
        let _ = write!(named, " and {more} more");
    }
    let colon = if named.is_empty() { "" } else { ": " };
    let _ = writeln!(
        text,
        "  providers:  {} of {} on the chain's list match{colon}{named}",
        offers.matching, offers.listed
    );
    for (why, count) in &offers.others {
        let _ = writeln!(text, "              {count} {}", clean(why));
    }
    text.push_str("              which of them are up and have room, only their bids tell\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::validate::Problem;

    fn money(act: u64) -> Money {
        Money(Uact(act * 1_000_000))
    }

    #[test]
    fn deposits_that_are_not_the_same_are_not_said_to_be() {
        let of = |all| Bill {
            new_nodes: 3,
            deposit: Some(money(2)),
            deposits: Some(money(all)),
            ..Bill::default()
        };
        assert_eq!(each(&of(6)), "each");
        assert_eq!(each(&of(7)), "or up to a half more each");
    }

    #[test]
    fn a_cluster_to_be_bought() {
        let bill = Bill {
            new_nodes: 3,
            deposit: Some(money(2)),
            deposits: Some(money(6)),
            balance: Some(money(994)),
            now: Some(money(0)),
            at_most: Some(money(12)),
            allowed: Some(money(12)),
            allowed_by: "spec.budget.maxPerMonth".into(),
            observed: None,
            observed_of: 0,
        };
        let offers = Offers {
            listed: 4,
            matching: 3,
            first: vec!["p1.example (us-west, akash1a)".into()],
            others: vec![("without the attributes of placement.attributes".into(), 1)],
            unknown: None,
        };
        let new = Preview {
            name: "cache".into(),
            is_new: true,
            bill: Some(bill.clone()),
            offers,
            warnings: vec!["cache has no user".into()],
            ..Preview::default()
        };
        let change = PreviewChange {
            path: "spec.nodes".into(),
            what: "3 -> 2".into(),
            consequence: Consequence::Leaves,
        };
        let fewer = Preview {
            name: "other".into(),
            changes: vec![change.clone()],
            nodes_closed: 1,
            bill: Some(Bill { new_nodes: 0, observed: Some([bill.now.unwrap(); 2]), ..bill }),
            offers: Offers { unknown: Some("the chain is away".into()), ..Offers::default() },
            ..Preview::default()
        };
        let wrong = Problem { path: "spec.nodes".into(), message: "no".into() };
        let refused = Preview {
            name: "third".into(),
            changes: vec![PreviewChange { consequence: Consequence::Refused, ..change }],
            problems: vec![wrong],
            ..Preview::default()
        };
        insta::assert_snapshot!(all(&[new, fewer, refused]));
    }
}
