//! What nodes keep for an operator that lost its store, and whether they have the newest.

use super::builder::PlanBuilder;
use crate::api::kept_copy::KeptCopy;
use crate::model::kept_copy::{LARGEST, hash};
use crate::model::node::NodeState;

/// The copy of this plan's record.
#[derive(Default)]
pub struct Copy {
    /// As it is sent; none where no node keeps one, or it would be too large.
    pub content: Option<String>,
    hash: String,
}

/// Made only where somebody keeps one.
pub fn of(builder: &PlanBuilder<'_>) -> Copy {
    let keeps = |state: &NodeState| state.kept_copy.is_some();
    if !builder.live().iter().any(|(name, _)| builder.connected(name).is_some_and(keeps)) {
        return Copy::default();
    }
    let input = builder.input;
    let content =
        KeptCopy::of(input.cluster, &builder.record, &input.constants.installation).text();
    if content.len() > LARGEST {
        return Copy::default();
    }
    Copy { hash: hash(content.as_bytes()), content: Some(content) }
}

impl Copy {
    /// A node keeps another one.
    pub fn is_newer_than(&self, state: &NodeState) -> bool {
        self.content.is_some() && state.kept_copy.as_ref().is_some_and(|kept| *kept != self.hash)
    }
}
