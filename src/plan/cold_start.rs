//! A cluster with data and without a master that could come back: the newest history that is known wins, or nobody.

use super::draft::Draft;
use super::facts;
use super::roles;
use crate::model::ids::IncarnationName;
use crate::model::node::History;

/// Chooses among all recorded nodes that may hold data (safety.md section 4, History); blocks when one that may be newer cannot be asked.
pub fn cold_start(draft: &mut Draft<'_>) {
    let joined: Vec<IncarnationName> = draft.live().into_iter().filter(|(_, i)| i.joined).map(|(n, _)| n).collect();
    let (mut histories, mut unknown) = (Vec::new(), Vec::new());
    for name in joined {
        match draft.connected(&name).filter(|s| facts::running(&s.redis)) {
            None => unknown.push(name),
            Some(state) => histories.extend(state.history.clone().filter(|h| h.epoch > 0).map(|h| (name, h))),
        }
    }
    if !unknown.is_empty() {
        block(draft, &format!("{} may hold newer data and cannot be asked", names(&unknown)), &unknown);
        return;
    }
    let Some((best, history)) = newest(&histories) else {
        if histories.is_empty() {
            draft.record.data_epoch = 0;
            draft.record.data_master = None;
            draft.event("DataLost", "no node that is left holds data; the cluster starts empty".to_owned());
        } else {
            let all: Vec<_> = histories.iter().map(|(n, _)| n.clone()).collect();
            block(draft, &format!("the histories of {} cannot be compared", names(&all)), &[]);
        }
        return;
    };
    draft.record.epoch += 1;
    roles::choose(draft, &best);
    draft.event(
        "ColdStart",
        format!(
            "{best} has the newest history that is left (epoch {}, offset {}) and is chosen for epoch {}; writes that only the lost master had are gone",
            history.epoch, history.offset, draft.record.epoch
        ),
    );
    roles::promote(draft);
}

/// Highest epoch, then highest offset; `None` when nobody has data or two lineages share the highest epoch.
fn newest(histories: &[(IncarnationName, History)]) -> Option<(IncarnationName, History)> {
    let best = histories.iter().max_by_key(|(name, h)| (h.epoch, h.offset, std::cmp::Reverse(name.clone())))?;
    let one_lineage = histories.iter().filter(|(_, h)| h.epoch == best.1.epoch).all(|(_, h)| h.replid == best.1.replid);
    one_lineage.then(|| best.clone())
}

fn block(draft: &mut Draft<'_>, why: &str, unknown: &[IncarnationName]) {
    draft.problem("HistoryUnclear", format!("the master is lost for good, and {why}; nobody is promoted: bring the nodes back"));
    if !unknown.is_empty() {
        draft.wait(format!("{} to be heard", names(unknown)), draft.now(), None, "the newest history is promoted");
    }
}

fn names(list: &[IncarnationName]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
