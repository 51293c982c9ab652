//! Traces of an operator that buys and runs a cluster, as a collector gets them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::http_client::unix_socket;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, PASSWORD, Stage, cluster, until};

const LIMIT: Duration = Duration::from_mins(3);
/// What a cluster's life cannot do without.
const NAMES: [&str; 13] = [
    "reconcile",
    "effect create_deployment",
    "effect create_lease",
    "effect deliver_manifest",
    "effect promote",
    "effect close_deployment",
    "chain read",
    "chain sign",
    "chain broadcast_and_confirm",
    "gateway put_manifest",
    "control read",
    "control mint",
    "agent command",
];

#[test]
fn a_collector_gets_each_step_and_no_secret() {
    sandboxed(
        "traced::a_collector_gets_each_step_and_no_secret",
        LIMIT,
        async |sandbox: Sandbox| {
            let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
            let keep = bodies.clone();
            let take = move |body: Bytes| {
                keep.lock().unwrap().push(body);
                std::future::ready(())
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                axum::serve(listener, Router::new().route("/v1/traces", post(take))).await
            });

            let mut stage = Stage::without_operator(&sandbox).await;
            let file = stage.local.config();
            let settings = std::fs::read_to_string(&file).unwrap();
            let settings = format!("{settings}\ntraces: {{ endpoint: \"{endpoint}\" }}\n");
            std::fs::write(&file, &settings).unwrap();
            stage.local.start_operator().await.unwrap();
            stage.client.apply(&cluster(3)).await.unwrap();
            stage.until_ready().await;
            stage.delete().await;

            until("each name", async || {
                let got: BTreeSet<_> = spans(&bodies).into_iter().map(|span| span.name).collect();
                NAMES.iter().all(|name| got.contains(*name))
            })
            .await;
            let all = spans(&bodies);
            let ids: BTreeSet<_> = all.iter().map(|span| span.span_id.clone()).collect();
            let passes = all.iter().filter(|span| span.name == "reconcile");
            assert!(
                passes.clone().all(|pass| attribute(pass, "cluster").as_deref() == Some(CLUSTER))
            );
            let bought = all.iter().find(|span| span.name == "effect create_deployment").unwrap();
            assert!(passes.clone().any(|pass| pass.span_id == bought.parent_span_id), "{bought:?}");
            assert_eq!(attribute(bought, "end").as_deref(), Some("ok"), "{bought:?}");
            let below = |name: &str, parent: &Span| {
                all.iter().any(|span| span.name == name && span.parent_span_id == parent.span_id)
            };
            assert!(below("chain sign", bought), "its transaction");
            assert!(ids.len() > 20, "{}", ids.len());

            let sent = bodies.lock().unwrap().concat();
            let has = |secret: &[u8]| sent.windows(secret.len()).any(|part| part == secret);
            assert!(has(b"reconcile"), "the search works");
            for secret in secrets(&settings) {
                assert!(!has(&secret), "a secret of {} bytes was sent", secret.len());
            }
            for word in ["tskey-", "hskey-", PASSWORD, "BEGIN PRIVATE KEY", "BEGIN CERTIFICATE"] {
                assert!(!has(word.as_bytes()), "{word} was sent");
            }

            let http = unix_socket(&stage.local.socket(), Some(Duration::from_secs(5))).unwrap();
            let metrics =
                http.get("http://operator/metrics").send().await.unwrap().text().await.unwrap();
            assert!(metrics.contains("akash_redis_spans_dropped_total 0"), "{metrics}");
        },
    );
}

fn spans(bodies: &Mutex<Vec<Bytes>>) -> Vec<Span> {
    let bodies = bodies.lock().unwrap().clone();
    let requests = bodies.into_iter().map(|body| ExportTraceServiceRequest::decode(body).unwrap());
    let scopes = requests.flat_map(|it| it.resource_spans).flat_map(|it| it.scope_spans);
    scopes.flat_map(|it| it.spans).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// What lies in the files that the settings name: whole, and as hex.
fn secrets(settings: &str) -> Vec<Vec<u8>> {
    let files =
        settings.split(['"', '\'', ' ', ',', '}', '\n']).filter(|word| word.starts_with('/'));
    let mut found = Vec::new();
    for file in files {
        let Ok(content) = std::fs::read(file) else { continue };
        let content = content.trim_ascii().to_vec();
        if content.len() < 8 {
            continue;
        }
        found.push(hex::encode(&content).into_bytes());
        found.push(content);
    }
    assert!(found.len() >= 6, "mnemonic, root secret and OAuth secret: {settings}");
    found
}
