//! The front page: every cluster, the wallet, what the operator needs outside.

use std::time::Duration;

use maud::{Markup, html};

use super::frame::{self, Mood, badge, or_dash, page, table, time};
use crate::api::conditions::{ConditionStatus, ConditionType};
use crate::api::quantity::Money;
use crate::api::report::{OperatorReport, SourceState};
use crate::api::status::{Status, Waiting};
use crate::api::types::RedisCluster;
use crate::api::wallet::WalletReport;
use crate::model::time::UnixMs;

/// What the front page shows.
pub(super) struct Overview {
    pub clusters: Vec<RedisCluster>,
    pub operator: OperatorReport,
    pub wallet: WalletReport,
    pub now: UnixMs,
}

pub(super) fn overview(shown: &Overview) -> Markup {
    let none = Status::default();
    let waiting: Vec<(&str, &[Waiting])> = shown
        .clusters
        .iter()
        .map(|c| (&*c.metadata.name, &*c.status.as_ref().unwrap_or(&none).waiting))
        .filter(|(_, waiting)| !waiting.is_empty())
        .collect();
    let main = html! {
        h1 { "Clusters" }
        @if let Some(lost) = &shown.operator.store_lost { p.alert role="alert" { (lost) } }
        @if shown.clusters.is_empty() {
            p { "None yet. " code { "akash-redis apply -f FILE" } " makes one." }
        } @else {
            (clusters(&shown.clusters, shown.now))
        }
        @if !waiting.is_empty() {
            h2 { "Waited for" }
            @for (name, waiting) in waiting {
                h3 { (name) }
                (frame::waits(waiting))
            }
        }
        h2 { "Wallet" }
        (wallet(&shown.wallet, &shown.operator))
        h2 { "Operator" }
        (operator(&shown.operator))
    };
    page("Clusters", shown.now, &main)
}

fn clusters(clusters: &[RedisCluster], now: UnixMs) -> Markup {
    let none = Status::default();
    let rows: Vec<_> = clusters
        .iter()
        .map(|cluster| {
            let (name, status) = (&cluster.metadata.name, cluster.status.as_ref().unwrap_or(&none));
            let serving = status.nodes.iter().filter(|n| n.phase.is_serving()).count();
            vec![
                html! { a href={ "/clusters/" (name) } { (name) } },
                ready(cluster, status),
                html! { (serving) " of " (cluster.spec.nodes) },
                or_dash(status.master.as_ref().map(|m| m.incarnation.as_str())),
                html! { (status.epoch) },
                or_dash(Some(&status.cost.per_month)),
                or_dash(Some(&status.cost.spent)),
                runway(&status.cost.runway, now),
            ]
        })
        .collect();
    let header =
        ["Name", "Ready", "Nodes", "Master", "Epoch", "Per month", "Spent", "Escrow lasts until"];
    table("Clusters", &header, &rows)
}

fn ready(cluster: &RedisCluster, status: &Status) -> Markup {
    if cluster.metadata.deletion_timestamp.is_some() {
        return badge("Deleting", Mood::Plain);
    }
    let ready = status.condition(ConditionType::Ready).map(|c| c.status).unwrap_or_default();
    let word: &str = ready.into();
    badge(word, Mood::of(ready, ConditionStatus::True))
}

/// `13 days` with its date.
pub(super) fn runway(text: &str, now: UnixMs) -> Markup {
    let Some(span) = span(text) else { return or_dash(Some(text)) };
    let date = (now + span).to_string();
    let day = date.split('T').next().unwrap_or_default().to_owned();
    html! { time datetime=(date) { (day) } " (" (text) ")" }
}

/// What `13 days`, `5 h` and `7 min` are.
fn span(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_once(' ')?;
    let seconds = match unit {
        "days" => 86_400,
        "h" => 3600,
        "min" => 60,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?))
}

fn wallet(wallet: &WalletReport, operator: &OperatorReport) -> Markup {
    let money = |money: Option<Money>| money.map(|money| money.to_string());
    let budget = money(operator.budget_global);
    if wallet.read.is_empty() {
        return html! { p { "The chain was not read yet." } };
    }
    let (act, escrow) = (money(wallet.act), money(wallet.in_escrow));
    let month = money(wallet.per_month);
    html! {
        dl {
            dt { "Address" } dd { code { (wallet.address) } }
            dt { "Holds" } dd { (or_dash(act.as_deref())) " and " (or_dash(Some(&wallet.akt))) " for fees" }
            dt { "In escrow" } dd { (or_dash(escrow.as_deref())) }
            dt { "Per month" }
            dd {
                (or_dash(month.as_deref())) " for " (wallet.leases) " leases"
                @if let Some(budget) = budget { ", at most " (budget) }
            }
            dt { "Fills escrows until" }
            dd {
                @match &wallet.last_refill {
                    Some(at) => (time(at)),
                    None => "years from now",
                }
            }
            dt { "Pays fees until" }
            dd {
                @match &wallet.fees_end {
                    Some(at) => (time(at)),
                    None => "years from now",
                }
            }
            dt { "As of" } dd { (time(&wallet.read)) }
        }
    }
}

fn operator(report: &OperatorReport) -> Markup {
    let mood = |state: SourceState| match state {
        SourceState::Ok => Mood::Good,
        SourceState::Away | SourceState::Refused => Mood::Bad,
        SourceState::Unknown => Mood::Plain,
    };
    let rows: Vec<_> = report
        .sources()
        .into_iter()
        .map(|(name, source)| {
            vec![
                html! { (name) },
                badge(&source.state.to_string(), mood(source.state)),
                html! { @if source.since.is_empty() { (or_dash(None)) } @else { (time(&source.since)) } },
                or_dash(Some(&source.message)),
            ]
        })
        .collect();
    html! {
        p { "Version " (report.version) ", installation " code { (report.installation) } "." }
        (table("What the operator needs", &["Source", "State", "Since", "What was seen"], &rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runway_has_its_date() {
        let now = UnixMs(1_800_000_000_000);
        let shown = runway("13 days", now).0;
        assert!(shown.contains(">2027-01-28</time> (13 days)"), "{shown}");
        assert!(runway("5 h", now).0.contains("2027-01-15T13:00:00Z"));
        assert!(runway("", now).0.contains("not known"));
    }
}
