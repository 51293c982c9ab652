//! One cluster: what is wanted, remembered and observed becomes a plan, and the plan's record is
//! committed before anything follows from it.

use super::settings::Settings;
use crate::model::inventory::Inventory;
use crate::model::money::PricePerBlock;
use crate::model::time::UnixMs;
use crate::plan::{self, Input, Limits, Plan, Tags};
use crate::store::{Event, Store, StoreError, Stored};

/// Plans one cluster; `others` is what all other clusters are committed to.
pub fn plan(
    settings: &Settings,
    stored: &Stored,
    inventory: &Inventory,
    others: PricePerBlock,
    now: UnixMs,
) -> Plan {
    with_input(settings, stored, inventory, others, now, plan::plan)
}

/// What a plan follows from, for a question about it.
pub fn with_input<T>(
    settings: &Settings,
    stored: &Stored,
    inventory: &Inventory,
    others: PricePerBlock,
    now: UnixMs,
    question: impl FnOnce(&Input<'_>) -> T,
) -> T {
    let limits = Limits {
        per_cluster_default: settings.budget_per_cluster,
        global: settings.budget_global,
        others: plan::per_month(inventory, others),
        runway: settings.runway,
        gas_price: settings.gas_price,
    };
    question(&Input {
        cluster: &stored.cluster,
        record: &stored.record,
        inventory,
        constants: &settings.constants,
        timing: &settings.timing,
        limits: &limits,
        tags: Tags {
            cluster: settings.tag_of(&stored.cluster),
            quarantine: &settings.quarantine_tag,
        },
        image: &settings.image,
        now,
    })
}

/// Writes the plan's record, with the events that tell of it, when it is another one than the stored;
/// true when it is. Both or neither: what was decided is told whenever the process dies.
///
/// # Errors
/// [`StoreError::Conflict`] and [`StoreError::NotFound`] when the object changed meanwhile: nothing
/// of the plan may be carried out, and it is to be planned again.
pub async fn commit(
    store: &dyn Store,
    stored: &Stored,
    plan: &Plan,
    events: &[Event],
) -> Result<bool, StoreError> {
    if plan.record == stored.record {
        return Ok(false);
    }
    let name = &stored.cluster.metadata.name;
    store.set_record_with_events(name, stored.record_version, &plan.record, events).await?;
    Ok(true)
}
