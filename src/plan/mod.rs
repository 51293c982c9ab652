//! From what is wanted, remembered and observed to what shall be done. Pure: no I/O, no clock, no
//! randomness.
//!
//! [`plan`] returns the record to write first, the steps that are allowed under it, what is waited
//! for, and the status to publish. It is level-triggered: run again at any time, it goes on from
//! whatever is there.

mod archive;
mod at_stake;
mod backup;
mod bids;
mod bounds;
mod builder;
mod candidates;
mod chain;
mod cleanup;
mod clock;
mod confirmed;
mod control;
mod cutover;
mod death;
mod delegation;
mod deletion;
mod deposits;
mod derived;
mod devices;
mod elect;
mod evidence;
mod failing;
mod failover;
mod fees;
mod fence;
mod give_up;
mod handover;
mod health;
mod import;
mod import_status;
pub mod invariants;
mod kept_copy;
mod lag;
mod leases;
mod money;
mod moves;
mod no_bids;
mod outlook;
mod paths;
mod placement;
mod quarantine;
pub mod recover;
mod rejoin;
mod repair;
mod restart;
mod restore;
mod retention;
mod roles;
mod rollout;
mod settings;
mod status;
mod stopping;
pub mod suppliers;
mod surge;
mod switchover;
mod top_up;
mod unrecorded;
mod update;
mod update_report;
mod verify;
mod versions;
mod wallet;
mod word;

use std::time::Duration;

pub use cutover::CUTOVER_FAILED;
pub use delegation::Takeover;
pub use fees::GasPrice;
pub use outlook::outlook;

use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::api::status::{Endpoint, Status};
use crate::api::types::{RedisCluster, Runway};
use crate::model::chain::{ChainView, ProviderView};
use crate::model::experience::Note;
use crate::model::image::NodeImage;
use crate::model::interval::Interval;
use crate::model::inventory::{Constants, Inventory};
use crate::model::money::{PricePerBlock, Uact};
use crate::model::record::Record;
use crate::model::step::{Step, Wait};
use crate::model::time::UnixMs;

/// How long things may take; the operator's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Bids are collected for so long before one is chosen.
    pub bid_window: Duration,
    /// No acceptable bid by then: the deployment is closed and tried again later.
    pub bid_deadline: Duration,
    /// From the choice of a bid to a node that reports; then the incarnation is given up.
    pub join_deadline: Duration,
    /// A node that is silent for so long is replaced.
    pub replace_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            bid_window: Duration::from_secs(20),
            bid_deadline: Duration::from_mins(3),
            join_deadline: Duration::from_mins(5),
            replace_after: Duration::from_mins(5),
        }
    }
}

/// What may be spent, beside the manifest's own budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Per month, for a cluster whose manifest names no budget.
    pub per_cluster_default: Uact,
    /// Per month, for all clusters together.
    pub global: Uact,
    /// Per month, promised to the other clusters already.
    pub others: Uact,
    /// When escrows are filled, and for how long, for a cluster whose manifest does not say.
    pub runway: Runway,
    /// What gas costs, by which it is known what transactions take of the fee balance.
    pub gas_price: GasPrice,
}

/// What a device of ours may be tagged with: one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags<'a> {
    /// Its cluster's: nodes reach each other.
    pub cluster: &'a str,
    /// The operator alone reaches it.
    pub quarantine: &'a str,
}

/// Everything a plan follows from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What is wanted, with the status published last.
    pub cluster: &'a RedisCluster,
    /// What is remembered.
    pub record: &'a Record,
    /// What was observed.
    pub inventory: &'a Inventory,
    /// Who we are.
    pub constants: &'a Constants,
    /// How long things may take.
    pub timing: &'a Timing,
    /// What may be spent.
    pub limits: &'a Limits,
    /// What devices are tagged with.
    pub tags: Tags<'a>,
    /// What nodes run where the manifest names no image.
    pub image: &'a NodeImage,
    /// The present moment.
    pub now: UnixMs,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be written by compare-and-set before any step; equal to the input's when nothing changes.
    pub record: Record,
    /// To be carried out under that record; steps on different incarnations are independent.
    pub steps: Vec<Step>,
    /// What is waited for.
    pub waits: Vec<Wait>,
    /// To be published.
    pub status: Status,
    /// Who takes over after a failure: chosen, and not known to take writes yet.
    pub elected: Option<Endpoint>,
    /// Who takes over in a planned change, without being asked once more.
    pub takeover: Option<Takeover>,
    /// What was decided, for people: one word and one sentence each.
    pub events: Vec<(EventReason, String)>,
    /// What was lived through with providers, by address: to be counted once the record is written.
    pub noted: Vec<(String, Note)>,
    /// What came to its end with this plan, and how long it took: to be counted once the record is
    /// written.
    pub measured: Vec<(Interval, Duration)>,
    /// The cluster was to be deleted and nothing of it is left.
    pub finished: bool,
}

/// What a record is committed to per block, as far as the inventory shows.
#[must_use]
pub fn committed(inventory: &Inventory, record: &Record) -> PricePerBlock {
    money::committed(inventory, record)
}

/// Milliseconds from block to block, by the inventory and within bounds.
#[must_use]
pub fn block_ms(inventory: &Inventory) -> u64 {
    money::block_ms(inventory)
}

/// What a price costs per month, at the block time of the inventory.
#[must_use]
pub fn per_month(inventory: &Inventory, price: PricePerBlock) -> Uact {
    price.per_month(money::block_ms(inventory))
}

/// What is paid into the escrow of a node if the budget were shared among all nodes.
#[must_use]
pub fn deposit(input: &Input<'_>) -> Uact {
    money::usual_deposit(input)
}

/// What is paid into the escrows of the nodes that are reserved in `record` and were not before, and
/// how many these are.
#[must_use]
pub fn deposits(input: &Input<'_>, record: &Record) -> (Uact, u32) {
    let new = record.incarnations.iter().filter(|(name, incarnation)| {
        incarnation.condemned.is_none() && !input.record.incarnations.contains_key(*name)
    });
    new.fold((Uact(0), 0), |(sum, count), (_, i)| {
        (sum + money::deposit(input, i.ordinal, i.max_price), count + 1)
    })
}

/// The most the cluster may cost per month, and whose word that is.
#[must_use]
pub fn ceiling(input: &Input<'_>) -> (Uact, String) {
    (money::ceiling(input), money::limited_by(input))
}

/// Region of a provider by its own word.
#[must_use]
pub fn region(provider: &ProviderView) -> Option<&String> {
    placement::region(provider)
}

/// What a price costs per month, at the block time of a reading.
#[must_use]
pub fn per_month_at(chain: &ChainView, price: PricePerBlock) -> Uact {
    price.per_month(money::bounded(chain.block_ms))
}

/// Plans one cluster.
#[must_use]
pub fn plan(input: &Input<'_>) -> Plan {
    let mut builder = builder::PlanBuilder::new(input);
    clock::take_over(&mut builder);
    if let Some(error) = &input.inventory.own_mesh.error {
        builder.problem(
            Reason::OperatorOffMesh,
            format!(
                "the operator itself is off the mesh since {}: {error}",
                input.inventory.own_mesh.since
            ),
        );
    }
    control::report(&mut builder);
    let deleting = deletion::begins(input);
    if deleting || !input.cluster.spec.paused {
        unrecorded::close_at_word(&mut builder);
    }
    if deleting {
        rollout::tear_down(&mut builder);
    } else if !input.cluster.spec.paused {
        leases::give_up_lost(&mut builder);
        moves::decide(&mut builder);
        rollout::fill(&mut builder);
        leases::advance(&mut builder);
        rejoin::plan(&mut builder);
        quarantine::notice(&mut builder);
        roles::plan(&mut builder);
        quarantine::keep(&mut builder);
        devices::report(&mut builder);
        rollout::retire(&mut builder);
        restart::plan(&mut builder);
        update::plan(&mut builder);
        settings::configure(&mut builder);
        archive::plan(&mut builder);
        backup::plan(&mut builder);
        verify::plan(&mut builder);
    } else if deletion::awaits_backup(input) {
        // It changes nothing of the cluster.
        backup::plan(&mut builder);
    }
    if deleting || !input.cluster.spec.paused {
        cleanup::delete_former_devices(&mut builder);
        cleanup::clean(&mut builder);
    }
    // A paused cluster keeps its data too.
    if !deleting {
        top_up::fill(&mut builder);
        health::report(&mut builder);
        versions::report(&mut builder);
        backup::report(&mut builder);
        verify::report(&mut builder);
        archive::report(&mut builder);
        restore::report(&mut builder);
        import_status::report(&mut builder);
        update_report::report(&mut builder);
        wallet::report(&mut builder);
        deletion::report(&mut builder);
    }
    word::report(&mut builder);
    settings::report(&mut builder);
    failing::report(&mut builder);
    money::report(&mut builder);
    fees::report(&mut builder);
    paths::report(&mut builder);
    let finished =
        deleting && builder.record.incarnations.is_empty() && !unrecorded::left(&mut builder);
    let (status, elected) = (status::status(&builder), status::elected(&builder));
    let takeover = delegation::expected(&builder);
    let mut plan = Plan {
        record: builder.record,
        steps: builder.steps,
        waits: builder.waits,
        status,
        elected,
        takeover,
        events: builder.events,
        noted: builder.noted,
        measured: builder.measured,
        finished,
    };
    bounds::bound(&mut plan);
    if cfg!(debug_assertions) {
        invariants::hold(input, &plan);
    }
    plan
}
