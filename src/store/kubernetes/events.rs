//! What happened, as events of Kubernetes: for `kubectl describe` and `kubectl get events`. The
//! store's own list is what counts; an event that cannot be written is missing there alone.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::Event;
use super::calls::{is_conflict, once, sentence};
use crate::api::types::{API_VERSION, KIND};
use crate::model::time::UnixMs;

/// Who says so.
const REPORTER: &str = "akash-redis.dev/operator";
/// The longest note that is taken, bytes.
const LONGEST: usize = 1024;

/// The object that events are about.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

/// Writes events, each once with a count.
pub(super) async fn publish(client: &Client, about: &About, events: &[Event]) {
    let api: Api<KubeEvent> = Api::namespaced(client.clone(), &about.namespace);
    for event in events {
        let new = event_of(about, event);
        let name = new.metadata.name.clone().unwrap_or_default();
        let made = once(api.create(&PostParams::default(), &new)).await;
        let end = match made {
            Err(error) if is_conflict(&error) => {
                let series = json!({"series": {
                    "count": i32::try_from(event.count).unwrap_or(i32::MAX).max(2),
                    "lastObservedTime": time(event.at),
                }});
                let params = PatchParams::default();
                once(api.patch(&name, &params, &Patch::Merge(&series))).await.map(drop)
            }
            end => end.map(drop),
        };
        if let Err(error) = end {
            // A namespace that is being deleted takes none.
            tracing::debug!(cluster = about.name, "an event was not written: {}", sentence(&error));
        }
    }
}

fn event_of(about: &About, event: &Event) -> KubeEvent {
    let mut hash = Sha256::new();
    for part in [&about.uid, &event.reason, &event.message] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let name = format!("{}.{}", about.name, hex::encode(&hash.finalize()[..8]));
    let mut note = event.message.clone();
    note.truncate(note.floor_char_boundary(LONGEST));
    KubeEvent {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(about.namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".to_owned()),
        event_time: Some(time(event.at)),
        note: Some(note),
        reason: Some(event.reason.clone()),
        regarding: Some(ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(KIND.to_owned()),
            name: Some(about.name.clone()),
            namespace: Some(about.namespace.clone()),
            uid: Some(about.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(REPORTER.to_owned()),
        type_: Some(kind(&event.reason).to_owned()),
        ..KubeEvent::default()
    }
}

/// An event of Kubernetes about a cluster, whoever wrote it.
pub(super) fn read(cluster: &str, event: &KubeEvent) -> Event {
    let unix = |at: &MicroTime| UnixMs(u64::try_from(at.0.as_millisecond()).unwrap_or(0));
    let first = event.event_time.as_ref().map_or(UnixMs(0), unix);
    let series = event.series.as_ref();
    let at = series.map_or(first, |series| unix(&series.last_observed_time));
    let count = series.map_or(1, |series| u64::try_from(series.count).unwrap_or(1));
    let (reason, note) = (event.reason.clone(), event.note.clone());
    let event = Event::new(at, cluster, reason.unwrap_or_default(), note.unwrap_or_default());
    Event { first, count, ..event }
}

/// Whether somebody should look.
fn kind(reason: &str) -> &'static str {
    let bad = ["Failed", "Lost", "Refused", "Unreachable", "Missing", "Stalled", "Down", "Blocked"];
    if bad.iter().any(|word| reason.contains(word)) { "Warning" } else { "Normal" }
}

fn time(at: UnixMs) -> MicroTime {
    MicroTime(Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default())
}
