//! Effects that fail again and again are a problem that a person should know of, not only a line
//! among the events.

use super::builder::PlanBuilder;
use crate::api::conditions::Reason;

/// Failures in a row before it is told: less than that passes by itself. With the pauses in between
/// these take a few seconds at least.
const SEVERAL: u32 = 5;
/// Characters of an error that are passed on: a provider or the chain may have written parts of it.
const LONGEST: usize = 500;

/// Tells of every effect that is wanted now and failed several times in a row.
pub fn report(builder: &mut PlanBuilder<'_>) {
    for failing in builder.input.inventory.failing.iter().filter(|failing| failing.times >= SEVERAL)
    {
        let (kind, name) = (std::mem::discriminant(&failing.effect), failing.effect.incarnation());
        let wanted = builder
            .steps
            .iter()
            .any(|s| std::mem::discriminant(&s.effect) == kind && s.effect.incarnation() == name);
        if wanted {
            let error: String = failing.error.chars().take(LONGEST).collect();
            builder.problem(
                Reason::EffectFailing,
                format!(
                    "{name}: {error} (failed {} times in a row; retried with growing pauses)",
                    failing.times
                ),
            );
        }
    }
}
