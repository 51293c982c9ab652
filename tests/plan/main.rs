//! What the planner decides, plan by plan: from a record and an inventory made by hand to the
//! record, the steps and the sentences that follow. Nothing but `api`, `model` and `plan` is used,
//! so that `make mutants` can build this with the planner alone.

mod obey;
mod scene;
mod story;

mod bounds;
mod builder;
mod candidates;
mod cleanup;
mod clock;
mod control;
mod death;
mod devices;
mod elect;
mod evidence;
mod failover;
mod fence;
mod give_up;
mod invariants;
mod leases;
mod quarantine;
mod roles;
mod rollout;
mod scenarios;
mod settings;
mod switchover;
