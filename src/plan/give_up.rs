//! Who may be given up although he may hold data: one rule for every reason. One node at a time,
//! the others whole, the last copy never.

use super::builder::{Blame, PlanBuilder};
use super::{derived, roles};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::node::Process;

/// Gives a node up that joined, or says what that waits for.
pub fn ask(builder: &mut PlanBuilder<'_>, name: &IncarnationName, reason: &str, blame: Blame) {
    match obstacle(builder, name) {
        None => builder.condemn(name, reason, blame),
        Some(why) => {
            builder.wait(
                format!("{name} to be replaced ({reason})"),
                derived::last_heard(builder, name),
                None,
                format!("it stays while {why}"),
            );
        }
    }
}

/// Why a node stays for now.
pub fn obstacle(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    if builder.record.change.is_some() {
        return Some("the master changes".to_owned());
    }
    let well =
        builder.record.master.as_ref().filter(|p| &p.incarnation != name && p.confirmed).filter(
            |p| {
                let state = builder.connected(&p.incarnation);
                state.is_some_and(|s| roles::is_master_of(s, p.epoch))
            },
        );
    if well.is_none() {
        return Some("no other node is a healthy master, so its data may be needed".to_owned());
    }
    let own = builder.incarnation(name)?;
    let rank = (own.is_candidate(), own.ordinal);
    let ordinal = own.ordinal;
    let live = builder.live();
    for other in (0..builder.spec().nodes).filter(|o| *o != ordinal) {
        let mut here = live.iter().filter(|(_, i)| i.ordinal == other).peekable();
        if here.peek().is_none() {
            return Some(format!("node {other} is being filled"));
        }
        let whole = |(n, i): &(IncarnationName, Incarnation)| {
            i.is_candidate() && builder.connected(n).is_some_and(|s| derived::running(&s.redis))
        };
        if here.clone().any(whole) {
            continue;
        }
        // Several are in the same case: first those that were not in sync, then by number.
        let gone = |n: &IncarnationName| {
            let runs = builder.connected(n).is_some_and(|s| s.redis.process == Process::Running);
            !runs && builder.incarnation(n).is_some_and(Incarnation::has_joined)
        };
        if here.clone().all(|(n, i)| gone(n) && (i.is_candidate(), i.ordinal) > rank) {
            continue;
        }
        let who: Vec<_> = here.map(|(n, _)| n.to_string()).collect();
        return Some(format!("{} is not in sync", who.join(", ")));
    }
    None
}
