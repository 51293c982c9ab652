//! Traces of the operator, for whoever wants to see where a pass spends its time: OTLP over HTTP
//! (protobuf) to a collector.
//!
//! Nothing waits for the collector. Spans go through a queue of bounded length; what does not fit, or
//! cannot be sent within a time-out, is dropped and counted. Spans carry names of clusters, nodes and
//! calls, and never arguments, answers or sentences of errors.

mod cause;
mod counts;
mod queue;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

pub use cause::Cause;
pub use counts::Counts;

use crate::config;
use crate::error_chain::error_chain;
use crate::http_client;

/// Spans that wait to be sent: about half a minute of a thousand clusters. Some MiB at most.
const WAITING: usize = 8192;
/// One request takes no longer.
const TIME_OUT: Duration = Duration::from_secs(5);
/// For what is left at the end.
const LAST: Duration = Duration::from_secs(2);

/// Why no traces are sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "traces cannot be sent to {endpoint} ({reason}); write traces.endpoint like http://127.0.0.1:4318"
)]
pub struct TracesError {
    endpoint: String,
    reason: String,
}

/// Traces that are being sent.
pub struct Traces {
    provider: SdkTracerProvider,
    counts: Counts,
    stop: CancellationToken,
    sending: JoinHandle<()>,
}

impl Traces {
    /// Begins to send in the background; the collector may be away. To be called within a runtime of
    /// tokio.
    ///
    /// # Errors
    /// The endpoint is no URL, or no client can be made.
    pub fn start(settings: &config::Traces) -> Result<Self, TracesError> {
        let failed = |reason: String| TracesError { endpoint: settings.endpoint.clone(), reason };
        let url = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'));
        let url: reqwest::Url = url.parse().map_err(|error| failed(format!("{error}")))?;
        let http = http_client::web(TIME_OUT).map_err(|error| failed(error_chain(&error)))?;
        let counts = Counts::default();
        let resource = Resource::builder_empty()
            .with_service_name("akash-redis-operator")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let (spans, waiting) = mpsc::channel(WAITING);
        let queue = queue::Queue::new(spans, counts.clone());
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_resource(resource.clone())
            .with_sampler(sampler)
            .build();
        let stop = CancellationToken::new();
        let sender = queue::Sender::new(http, url, &resource, counts.clone());
        let sending = tokio::spawn(sender.run(waiting, stop.clone()));
        Ok(Self { provider, counts, stop, sending })
    }

    /// What turns the operator's own spans into traces; those of libraries are none.
    #[must_use]
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.provider.tracer("akash-redis");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_ours))
    }

    /// How many spans were sent, and how many were not.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Sends what waits, for two seconds at most.
    pub async fn end(self) {
        self.stop.cancel();
        // What it did not send by then is lost, and nobody waits for it.
        let _ = tokio::time::timeout(LAST, self.sending).await;
    }
}

/// Spans of this program. Its log has the events.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("akash_redis")
}
