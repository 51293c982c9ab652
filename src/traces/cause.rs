//! What a span follows from.

use opentelemetry::Context;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The present span, as a parent of later ones: it may have ended by then, and is not held open.
#[derive(Clone, Debug)]
pub struct Cause(Context);

impl Cause {
    /// The span that is entered now; without traces there is none.
    #[must_use]
    pub fn here() -> Self {
        Self(Span::current().context())
    }

    /// `span` is shown below it. `span` must not have been entered yet.
    pub fn of(&self, span: &Span) {
        // Without traces there is nothing to show.
        let _ = span.set_parent(self.0.clone());
    }
}
