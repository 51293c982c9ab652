//! From a span that ended to the collector, without anybody waiting.

use std::time::Duration;

use http::header;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Counts;
use crate::error_chain::error_chain;

/// One request carries no more.
const BATCH: usize = 512;
/// A span waits so long for others to go with it.
const GATHER: Duration = Duration::from_secs(1);

/// Takes spans as they end.
#[derive(Debug)]
pub struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: Counts,
}

impl Queue {
    pub fn new(spans: mpsc::Sender<SpanData>, counts: Counts) -> Self {
        Self { spans, counts }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.counts.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends what is in the queue.
pub struct Sender {
    http: reqwest::Client,
    url: reqwest::Url,
    resource: ResourceAttributesWithSchema,
    counts: Counts,
    /// The last request failed, which was logged.
    away: bool,
}

impl Sender {
    pub fn new(
        http: reqwest::Client,
        url: reqwest::Url,
        resource: &Resource,
        counts: Counts,
    ) -> Self {
        Self { http, url, resource: resource.into(), counts, away: false }
    }

    /// Sends until `stop`, and then what is there.
    pub async fn run(mut self, mut spans: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            let last = tokio::select! {
                () = stop.cancelled() => true,
                there = spans.recv_many(&mut batch, BATCH) => there == 0,
            };
            if last {
                break;
            }
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH && !stop.is_cancelled() {
                let room = BATCH - batch.len();
                let more = spans.recv_many(&mut batch, room);
                let more = tokio::select! {
                    () = stop.cancelled() => break,
                    more = timeout_at(until, more) => more,
                };
                if !matches!(more, Ok(1..)) {
                    break;
                }
            }
            self.send(batch).await;
        }
        let mut rest = Vec::new();
        while let Ok(span) = spans.try_recv() {
            rest.push(span);
        }
        for batch in rest.chunks(BATCH) {
            self.send(batch.to_vec()).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let request = self.http.post(self.url.clone());
        let request = request.header(header::CONTENT_TYPE, "application/x-protobuf").body(body);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        match answer {
            Ok(_) => {
                self.counts.sent.inc_by(count);
                if std::mem::take(&mut self.away) {
                    tracing::info!("the collector of traces takes spans again");
                }
            }
            Err(error) => {
                self.counts.dropped.inc_by(count);
                if !std::mem::replace(&mut self.away, true) {
                    let why = error_chain(&error.without_url());
                    tracing::warn!(
                        "the collector of traces takes no spans ({why}); they are dropped until it does, and nothing else is affected: see traces.endpoint"
                    );
                }
            }
        }
    }
}
