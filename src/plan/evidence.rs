//! What is known of a node that does not speak to the operator: its signed page first, then its
//! provider's word.

use std::time::Duration;

use super::builder::PlanBuilder;
use crate::api::conditions::KnownBy;
use crate::model::ids::IncarnationName;
use crate::model::inventory::LeaseStatus;
use crate::model::node::{Process, Role};
use crate::model::status_page::PageView;
use crate::model::text::clipped;

/// A page counts for so long: a tick or two, and an ingress that takes its time.
const FRESH: Duration = Duration::from_secs(15);
/// A clock that is off by more is worth a word: logs mislead, and certificates are back-dated by a
/// day only.
const CLOCK_OFF: Duration = Duration::from_mins(2);

/// What a page says is kept in the record as a witness, bytes.
const SAID: usize = 600;

/// The page of a node that is silent, when it was asked for after the node was last heard.
pub fn page<'a>(builder: &PlanBuilder<'a>, name: &IncarnationName) -> Option<&'a PageView> {
    let page = builder.input.inventory.pages.get(name)?;
    let news = builder.view(name).is_none_or(|view| !view.connected && view.heard <= page.at);
    (news && !builder.now().passed(page.at, FRESH)).then_some(page)
}

/// What the very agent said on its page that was last heard over the mesh: its word counts for its
/// redis. Another start of the agent may be that of a second container, which knows nothing of the
/// first one's redis.
pub fn word<'a>(builder: &PlanBuilder<'a>, name: &IncarnationName) -> Option<&'a PageView> {
    let heard = &builder.view(name)?.state.boot_id;
    page(builder, name).filter(|page| !heard.is_empty() && &page.boot_id == heard)
}

/// The best way to know of a node now, and what is known by it when it is not the agent.
pub fn known(builder: &PlanBuilder<'_>, name: &IncarnationName) -> (KnownBy, Option<String>) {
    if builder.connected(name).is_some() {
        return (KnownBy::Agent, None);
    }
    if let Some(page) = page(builder, name) {
        return (KnownBy::StatusPage, Some(page_says(page)));
    }
    match lease(builder, name) {
        Some(LeaseStatus::Deployed { ready, .. }) => (
            KnownBy::LeaseStatus,
            Some(format!("its provider says that {ready} of 1 containers are ready")),
        ),
        Some(LeaseStatus::NoManifest) => {
            (KnownBy::LeaseStatus, Some("its provider has no manifest of it".to_owned()))
        }
        Some(LeaseStatus::Away(_)) | None => (KnownBy::Nothing, None),
    }
}

/// Its provider was asked since the node was last heard, and says that no container of it runs;
/// nobody's page says otherwise.
pub fn container_gone(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let asked = builder
        .incarnation(name)
        .and_then(|i| builder.input.inventory.leases_asked.get(&i.lease.as_ref()?.id));
    let since = builder.view(name).is_some_and(|view| {
        !view.connected
            && asked.is_some_and(|at| *at > view.heard && !builder.now().passed(*at, FRESH))
    });
    since
        && page(builder, name).is_none()
        && matches!(lease(builder, name), Some(LeaseStatus::Deployed { ready: 0, .. }))
}

fn lease<'a>(builder: &PlanBuilder<'a>, name: &IncarnationName) -> Option<&'a LeaseStatus> {
    let choice = builder.incarnation(name)?.lease.as_ref()?;
    builder.input.inventory.leases.get(&choice.id)
}

fn page_says(page: &PageView) -> String {
    let role = match page.role {
        Role::Master => " as master",
        Role::Replica => " as replica",
        Role::Unknown => "",
    };
    let redis = match page.process {
        Process::Running => format!(
            "redis runs{role}{}",
            if page.fenced { " and takes no writes" } else { " and takes writes" }
        ),
        Process::Starting => "redis starts".to_owned(),
        Process::Stuck => "redis does not answer".to_owned(),
        Process::Exited => "redis exited".to_owned(),
    };
    let mut said = vec![format!("its status page says: mesh {}, {redis}", page.mesh)];
    let ahead = i128::from(page.clock.0) - i128::from(page.at.0);
    if ahead.unsigned_abs() > CLOCK_OFF.as_millis() {
        let direction = if ahead > 0 { "ahead" } else { "behind" };
        said.push(format!("its clock is {} min {direction}", ahead.unsigned_abs() / 60_000));
    }
    said.extend(page.lacks.iter().chain(&page.health).cloned());
    clipped(said.join("; "), SAID)
}
