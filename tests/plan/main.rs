//! What the planner decides, plan by plan: from a record and an inventory made by hand to the
//! record, the steps and the sentences that follow. Nothing but `api`, `model` and `plan` is used,
//! so that `make mutants` can build this with the planner alone.
#![allow(
    clippy::type_complexity,
    clippy::too_many_lines,
    clippy::needless_for_each,
    reason = "a table has as many rows as there are rules, and a row is one expression"
)]
#![allow(clippy::unnecessary_wraps, reason = "what fills a field has its type")]

mod obey;
mod scene;
mod story;
mod truth;

mod archive;
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
mod death;
mod delegation;
mod deletion;
mod devices;
mod elect;
mod evidence;
mod failover;
mod fence;
mod give_up;
mod health;
mod import;
mod invariants;
mod lease_life;
mod leases;
mod money;
mod moves;
mod placement;
mod quarantine;
mod recover;
mod rejoin;
mod restart;
mod roles;
mod rollout;
mod scenarios;
mod settings;
mod status;
mod stopping;
mod switchover;
mod top_up;
mod unrecorded;
mod update;
mod verify;
mod versions;
mod wallet;
mod word;
