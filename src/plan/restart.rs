//! Containers that a person asked to have started anew: one at a time, replicas first, each only
//! while the whole cluster is well. So what does not come back stops the rest.

use super::builder::PlanBuilder;
use super::moves;
use crate::api::annotations::RESTART;
use crate::api::events::EventReason;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Restart;
use crate::model::step::Command;

/// A node that is to be started anew, and the word by which that was asked.
struct Asked {
    name: IncarnationName,
    word: String,
}

/// Those that were not started anew since.
fn pending(builder: &PlanBuilder<'_>) -> Vec<Asked> {
    let asked = builder.input.cluster.metadata.annotations.get(RESTART).map_or("", String::as_str);
    let entries = asked.split(',').filter_map(|entry| entry.trim().split_once('@'));
    let entries = entries.map(|(name, word)| Asked {
        name: IncarnationName(name.to_owned()),
        word: word.to_owned(),
    });
    entries.filter(|asked| !is_done(builder, asked)).collect()
}

/// It was told, and another start of its agent speaks; or it is none of ours any more.
fn is_done(builder: &PlanBuilder<'_>, asked: &Asked) -> bool {
    let Some(incarnation) = builder.incarnation(&asked.name).filter(|i| i.condemned.is_none())
    else {
        return true;
    };
    let told = incarnation.restart.as_ref().filter(|told| told.word == asked.word);
    let now = builder.view(&asked.name).map(|view| &view.state.boot_id);
    told.is_some_and(|told| now.is_some_and(|now| *now != told.boot_id))
}

/// Goes on with the one that was told, or tells the next one.
pub fn plan(builder: &mut PlanBuilder<'_>) {
    if builder.record.change.is_some() {
        return;
    }
    let pending = pending(builder);
    let told = pending.iter().find(|asked| {
        let told = builder.incarnation(&asked.name).and_then(|i| i.restart.as_ref());
        told.is_some_and(|told| told.word == asked.word)
    });
    if let Some(Asked { name, .. }) = told {
        if builder.connected(name).is_some_and(|state| !state.stopping) {
            builder.command(name, Command::Restart, "a restart was requested");
        }
        builder.wait(
            format!("{name} to be started again"),
            builder.now(),
            None,
            "the next one is restarted once all are in sync",
        );
        return;
    }
    let master = builder.record.master.as_ref().map(|p| p.incarnation.clone());
    let Some(Asked { name, word }) =
        pending.into_iter().min_by_key(|a| (Some(&a.name) == master.as_ref(), a.name.clone()))
    else {
        return;
    };
    if !moves::is_whole(builder) {
        builder.wait(
            format!("all nodes to be in sync before {name} is restarted"),
            builder.now(),
            None,
            "it is restarted",
        );
        return;
    }
    let Some(boot_id) = builder.connected(&name).map(|state| state.boot_id.clone()) else { return };
    builder.change(&name, |i| i.restart = Some(Restart { word, boot_id }));
    builder.event(EventReason::NodeRestarted, format!("{name} is restarted: that was requested"));
    builder.command(&name, Command::Restart, "a restart was requested");
}
