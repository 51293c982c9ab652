//! The nodes of a cluster as a picture: the master, and below it each replica with the link that its
//! data comes by. All of it stands in the table below too.

use maud::{Markup, html};

use super::cluster::bytes;
use crate::api::conditions::Phase;
use crate::api::status::{NodeStatus, Status};

const WIDTH: usize = 360;
const BOX: usize = 46;
/// From one replica to the next, with the line of its link above it.
const ROW: usize = 82;
/// Where replicas begin, so that the line to them is seen.
const LEFT: usize = 44;
/// Letters of the size of the picture that fit into the narrower box.
const LETTERS: usize = 39;

/// The picture of what there is.
pub(super) fn topology(name: &str, status: &Status) -> Markup {
    let master = status.nodes.iter().find(|n| n.phase == Phase::Master);
    let mut others: Vec<_> = status.nodes.iter().filter(|n| n.phase != Phase::Master).collect();
    others.sort_by_key(|n| (n.region.clone(), n.ordinal));
    if status.nodes.is_empty() {
        return html! { p { "No node yet." } };
    }
    let height = BOX + 8 + others.len() * ROW;
    let describes = format!(
        "{}; {} other nodes",
        master.map_or("no master".to_owned(), |m| format!("master {}", m.incarnation)),
        others.len()
    );
    let end = (others.len() * ROW + BOX).saturating_sub(BOX / 2 + 4);
    html! {
        svg.topology role="img" aria-label={ "Topology of " (name) ": " (describes) }
            viewBox={ "0 0 " (WIDTH) " " (height) } xmlns="http://www.w3.org/2000/svg" {
            @match master {
                Some(node) => (placed(node, 2, 2)),
                None => text x="2" y="28" class="lost" { "no master takes writes" },
            }
            @if !others.is_empty() && master.is_some() {
                line.link x1="22" y1=(BOX + 2) x2="22" y2=(end + 4) {}
            }
            @for (at, node) in others.iter().enumerate() {
                @let top = BOX + 4 + at * ROW + (ROW - BOX - 4);
                @let middle = top + BOX / 2;
                @if master.is_some() {
                    line class={ "link " (if node.phase.is_serving() { "" } else { "down" }) }
                        x1="22" y1=(middle) x2=(LEFT) y2=(middle) {}
                }
                text.label x=(LEFT) y=(top - 8) { (clipped(&link(node))) }
                (placed(node, LEFT, top))
            }
        }
    }
}

/// A node as a box.
fn placed(node: &NodeStatus, x: usize, y: usize) -> Markup {
    let class = match node.phase {
        Phase::Master => "node master",
        Phase::Replica => "node",
        Phase::Unreachable | Phase::Lost | Phase::Quarantined => "node lost",
        _ => "node coming",
    };
    let place = node.provider_host.as_deref().or(node.provider.as_deref()).unwrap_or("no provider");
    let region = node.region.as_deref().unwrap_or("no region told");
    html! {
        rect class=(class) x=(x) y=(y) width=(WIDTH - x - 2) height=(BOX) rx="6" {}
        text.name x=(x + 10) y=(y + 19) { (clipped(&format!("{} {}", node.phase, node.incarnation))) }
        text.place x=(x + 10) y=(y + 37) { (clipped(&format!("{region}: {place}"))) }
    }
}

/// By which way its data comes, and how far it is behind.
fn link(node: &NodeStatus) -> String {
    let behind = node.lag_bytes.map(|lag| format!("{} behind", bytes(lag)));
    let seconds = node.lag_seconds.filter(|s| *s > 0).map(|s| format!("for {s} s"));
    let parts: Vec<_> = [behind, seconds, node.path.clone()].into_iter().flatten().collect();
    if parts.is_empty() { "no link".to_owned() } else { parts.join(", ") }
}

fn clipped(text: &str) -> String {
    if text.chars().count() <= LETTERS {
        return text.to_owned();
    }
    text.chars().take(LETTERS - 1).chain(['…']).collect()
}
