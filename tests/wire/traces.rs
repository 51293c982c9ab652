//! Traces, to a collector that takes them, hangs, or is away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::config;
use akash_redis::traces::{Cause, Traces};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use prost::Message as _;
use tokio::net::TcpListener;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, registry};

const LIMIT: Duration = Duration::from_secs(30);
/// Spans of this program are sent, and no others.
const OURS: &str = "akash_redis::tests";
/// More than may wait.
const MANY: u64 = 20_000;

/// A collector, and what it got.
async fn collector() -> (config::Traces, Arc<Mutex<Vec<Sent>>>) {
    let got: Arc<Mutex<Vec<Sent>>> = Arc::default();
    let keep = got.clone();
    let take = move |body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
        let scopes = request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
        keep.lock().unwrap().extend(scopes.flat_map(|it| it.spans));
        std::future::ready(())
    };
    let router = Router::new().route("/v1/traces", post(take));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (config::Traces { endpoint, sample: 1.0 }, got)
}

#[tokio::test]
async fn spans_of_ours_reach_the_collector_below_what_caused_them() {
    let (settings, got) = collector().await;
    let traces = Traces::start(&settings).unwrap();
    let counts = traces.counts();
    let subscriber = registry().with(traces.layer::<Registry>());
    tracing::subscriber::with_default(subscriber, || {
        let cause = {
            let _pass = info_span!(target: OURS, "reconcile", cluster = "cache").entered();
            tracing::info!(target: OURS, "a sentence for the log");
            info_span!(target: "hyper", "a library's").in_scope(|| {});
            Cause::here()
        };
        // The pass has ended.
        let effect = info_span!(target: OURS, parent: None, "effect", otel.name = "effect promote");
        cause.of(&effect);
        effect.in_scope(|| {});
    });
    tokio::time::timeout(LIMIT, traces.end()).await.expect("it ends");
    let got = got.lock().unwrap();
    let [pass, effect] = got.as_slice() else { panic!("two spans: {got:?}") };
    assert_eq!((pass.name.as_str(), effect.name.as_str()), ("reconcile", "effect promote"));
    assert_eq!((&effect.trace_id, &effect.parent_span_id), (&pass.trace_id, &pass.span_id));
    assert!(pass.attributes.iter().any(|attribute| attribute.key == "cluster"), "{pass:?}");
    assert!(pass.events.is_empty(), "the log has them: {pass:?}");
    assert_eq!((counts.sent(), counts.dropped()), (2, 0));
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away_or_hangs_and_what_is_lost_is_counted() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in [hangs.local_addr().unwrap(), gone] {
        let settings = config::Traces { endpoint: format!("http://{address}"), sample: 1.0 };
        let traces = Traces::start(&settings).unwrap();
        let counts = traces.counts();
        // Nothing of it yields to the task that sends.
        tracing::subscriber::with_default(registry().with(traces.layer::<Registry>()), || {
            for _ in 0..MANY {
                info_span!(target: OURS, "reconcile").in_scope(|| {});
            }
        });
        let dropped = counts.dropped();
        assert!((MANY / 2..MANY).contains(&dropped), "{dropped} of {MANY}");
        tokio::time::timeout(LIMIT, traces.end()).await.expect("it ends");
        assert_eq!(counts.sent(), 0);
    }
}

#[tokio::test]
async fn a_share_of_the_traces_is_sent_where_that_is_asked_for_and_a_wrong_endpoint_is_refused() {
    let (settings, got) = collector().await;
    let traces = Traces::start(&config::Traces { sample: 0.2, ..settings }).unwrap();
    tracing::subscriber::with_default(registry().with(traces.layer::<Registry>()), || {
        for _ in 0..1000 {
            info_span!(target: OURS, "reconcile").in_scope(|| {});
        }
    });
    traces.end().await;
    let share = got.lock().unwrap().len();
    assert!((100..300).contains(&share), "{share} of 1000");
    let wrong = config::Traces { endpoint: "collector".to_owned(), sample: 1.0 };
    let error = Traces::start(&wrong).err().expect("no URL").to_string();
    assert!(error.contains("traces.endpoint like http://127.0.0.1:4318"), "{error}");
}
