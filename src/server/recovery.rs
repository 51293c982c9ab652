//! `…/recover` and `…/orphans`: what an operator that lost its store finds in the outside world, and
//! a person's word about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::actions::Refusal;
use super::messages::{Close, CloseOrphans, Closing, Recover};
use super::routes::{App, parse, tell};
use super::{actions, journal};
use crate::api::events::EventReason;
use crate::api::recover::{Orphan, OrphanReport, RecoverReport};
use crate::api::types::{API_VERSION, KIND, RedisCluster};
use crate::store::StoreError;

/// Whoever can look at what no record knows. Errors are one sentence for people.
#[async_trait]
pub trait Recovery: Send + Sync {
    /// What is found of the clusters that no record knows, or of one of them. Writes nothing.
    async fn look(&self, cluster: Option<&str>) -> Result<RecoverReport, String>;

    /// Looks again, and writes object and record of those that can be taken over.
    async fn confirm(&self, cluster: Option<&str>) -> Result<RecoverReport, String>;

    /// What of this installation stands in no record, by fresh readings.
    async fn orphans(&self) -> Result<OrphanReport, String>;
}

#[derive(Deserialize)]
pub(super) struct Which {
    cluster: Option<String>,
}

fn recovery(app: &App) -> Result<Arc<dyn Recovery>, Refusal> {
    app.status_cache
        .recovery()
        .ok_or_else(|| unavailable("the operator is starting; ask again".into()))
}

fn unavailable(why: String) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)
}

pub(super) async fn look(
    State(app): State<App>,
    Query(which): Query<Which>,
) -> Result<Json<RecoverReport>, Refusal> {
    let found = recovery(&app)?.look(which.cluster.as_deref()).await;
    found.map(Json).map_err(unavailable)
}

pub(super) async fn confirm(
    State(app): State<App>,
    body: Bytes,
) -> Result<Json<RecoverReport>, Refusal> {
    let which: Recover = parse(&body)?;
    let written = recovery(&app)?.confirm(which.cluster.as_deref()).await;
    written.map(Json).map_err(unavailable)
}

pub(super) async fn orphans(State(app): State<App>) -> Result<Json<OrphanReport>, Refusal> {
    recovery(&app)?.orphans().await.map(Json).map_err(unavailable)
}

/// Gives up exactly what was listed, as far as it still stands in no record: by the word that
/// `close` leaves, on the cluster's object, or on one that exists for this alone and is being
/// deleted.
pub(super) async fn close(
    State(app): State<App>,
    body: Bytes,
) -> Result<Json<Vec<Closing>>, Refusal> {
    let request: CloseOrphans = parse(&body)?;
    let now = recovery(&app)?.orphans().await.map_err(unavailable)?;
    let mut answers = Vec::new();
    let mut by_cluster: BTreeMap<String, Vec<Orphan>> = BTreeMap::new();
    for asked in &request.orphans {
        match still(asked, &now, &request.clusters) {
            Ok(orphan) => by_cluster.entry(orphan.cluster.clone()).or_default().push(orphan),
            Err(why) => answers.push(Closing {
                incarnation: asked.incarnation.clone(),
                asked: false,
                message: why,
            }),
        }
    }
    for (cluster, orphans) in by_cluster {
        let (asked, message) = match Box::pin(note(&app, &cluster, &orphans)).await {
            Ok(message) => (true, message),
            Err(refusal) => (false, refusal.message),
        };
        answers.extend(orphans.into_iter().map(|orphan| Closing {
            incarnation: orphan.incarnation,
            asked,
            message: message.clone(),
        }));
    }
    Ok(Json(answers))
}

/// What was listed, when it is the same now; else why it is not touched.
fn still(asked: &Orphan, now: &OrphanReport, named: &[String]) -> Result<Orphan, String> {
    let found = now.orphans.iter().find(|o| o.incarnation == asked.incarnation);
    let Some(found) = found else {
        return Err(
            "nothing of it is left, or it stands in a record now: nothing is done".to_owned()
        );
    };
    let listed = |ids: &[String], listed: &[String]| ids.iter().all(|id| listed.contains(id));
    let same = found.dseq == asked.dseq
        && listed(&found.devices, &asked.devices)
        && listed(&found.keys, &asked.keys);
    if !same {
        return Err(
            "there is more of it than was listed: nothing is done, list it again".to_owned()
        );
    }
    if found.recoverable && !named.contains(&found.cluster) {
        let cluster = &found.cluster;
        return Err(format!(
            "it belongs to {cluster}, which no record knows and which may hold data: `akash-redis recover {cluster}` takes it over; to give it up with its data, name it: `akash-redis orphans {cluster} --close`"
        ));
    }
    Ok(found.clone())
}

/// Leaves the word.
async fn note(app: &App, cluster: &str, orphans: &[Orphan]) -> Result<String, Refusal> {
    let request = Close {
        dseqs: orphans.iter().filter_map(|o| o.dseq).collect(),
        incarnations: orphans
            .iter()
            .filter(|o| o.dseq.is_none())
            .map(|o| o.incarnation.clone())
            .collect(),
    };
    match app.store.get(cluster).await {
        Ok(_) => {
            let noted =
                super::routes::change(app, cluster, |c| actions::close(c, &request)).await?;
            Ok(noted.0.message)
        }
        Err(StoreError::NotFound { .. }) => {
            let tag = orphans.iter().find_map(|o| o.tag.clone());
            let mut stand_in = stand_in(cluster, tag)?;
            let message = actions::close_unpaused(&mut stand_in, &request)?;
            let stored = app.store.apply(stand_in.clone()).await?;
            app.store.mark_deleted(cluster).await?;
            let before = RedisCluster {
                metadata: crate::api::types::Metadata {
                    annotations: BTreeMap::new(),
                    ..stored.cluster.metadata.clone()
                },
                ..stored.cluster.clone()
            };
            let mut events = journal::told(Some(&before), &stored.cluster);
            let why = format!("{cluster} stands in no record: what is left of it is given up");
            events.push((EventReason::DeletionRequested, why));
            tell(app, cluster, events).await;
            Ok(message)
        }
        Err(error) => Err(error.into()),
    }
}

/// An object for the word about a cluster that has none. It is paused until it is marked as
/// deleted, whatever happens in between: nothing is ever bought for it.
fn stand_in(cluster: &str, tag: Option<String>) -> Result<RedisCluster, Refusal> {
    let object = serde_json::json!({
        "apiVersion": API_VERSION, "kind": KIND, "metadata": { "name": cluster },
        "spec": { "nodes": 1, "paused": true, "mesh": tag.map_or_else(|| serde_json::json!({}), |tag| serde_json::json!({ "tag": tag })) },
    });
    serde_json::from_value(object).map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{cluster}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use super::*;
    use crate::api::annotations::CLOSE;
    use crate::server::StatusCache;
    use crate::server::appraiser::fake::FakeAppraiser;
    use crate::server::logs::fake::FakeLogs;
    use crate::server::routes::router;
    use crate::store::sqlite::SqliteStore;

    fn orphan(incarnation: &str, dseq: Option<u64>) -> Orphan {
        Orphan {
            incarnation: incarnation.into(),
            cluster: "cache".into(),
            dseq,
            devices: vec!["d".into()],
            ..Orphan::default()
        }
    }

    #[test]
    fn exactly_what_was_listed_is_closed_while_it_stands_in_no_record() {
        let one = orphan("cache-0-a", Some(7));
        let now = |orphans: Vec<Orphan>| OrphanReport { orphans, ..OrphanReport::default() };
        assert_eq!(still(&one, &now(vec![one.clone()]), &[]), Ok(one.clone()));
        let refused = |now: &OrphanReport, named: &[String]| still(&one, now, named).unwrap_err();
        assert!(refused(&now(vec![]), &[]).contains("stands in a record now"));
        let more = Orphan { devices: vec!["d".into(), "e".into()], ..one.clone() };
        assert!(refused(&now(vec![more]), &[]).contains("more of it than was listed"));
        let other = Orphan { dseq: Some(8), ..one.clone() };
        assert!(refused(&now(vec![other]), &[]).contains("more of it than was listed"));
        let less = Orphan { devices: vec![], ..one.clone() };
        assert!(still(&one, &now(vec![less]), &[]).is_ok(), "its device went by itself");
        let lost = now(vec![Orphan { recoverable: true, ..one.clone() }]);
        assert!(refused(&lost, &["other".into()]).contains("akash-redis recover cache"));
        assert!(still(&one, &lost, &["cache".into()]).is_ok(), "a person named it");
    }

    /// Says that these are orphans.
    struct These(Vec<Orphan>);

    #[async_trait]
    impl Recovery for These {
        async fn look(&self, cluster: Option<&str>) -> Result<RecoverReport, String> {
            Err(format!("looked at {cluster:?}"))
        }

        async fn confirm(&self, cluster: Option<&str>) -> Result<RecoverReport, String> {
            Err(format!("confirmed {cluster:?}"))
        }

        async fn orphans(&self) -> Result<OrphanReport, String> {
            Ok(OrphanReport { orphans: self.0.clone(), ..OrphanReport::default() })
        }
    }

    fn app(orphans: Vec<Orphan>) -> App {
        let status_cache = Arc::new(StatusCache::default());
        status_cache.serve_recovery(Arc::new(These(orphans)));
        App {
            store: SqliteStore::open_in_memory().unwrap(),
            status_cache,
            registry: Arc::default(),
            validate: |_| Vec::new(),
            logs: Arc::new(FakeLogs::default()),
            dumps: Arc::new(crate::server::dump::fake::FakeDumps),
            appraiser: Arc::new(FakeAppraiser::default()),
            shutdown: CancellationToken::new(),
        }
    }

    async fn answer(app: &App, request: Request<Body>) -> (StatusCode, String) {
        let answer = router(app.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 100_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn closing(app: &App, request: &CloseOrphans) -> Vec<Closing> {
        let body = Body::from(serde_json::to_vec(request).unwrap());
        let (status, text) =
            answer(app, Request::post("/v1alpha1/orphans/close").body(body).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[tokio::test]
    async fn the_word_is_left_on_the_object_or_on_one_that_is_being_deleted() {
        let device = Orphan { tag: Some("tag:x".into()), ..orphan("cache-1-b", None) };
        let orphans = vec![orphan("cache-0-a", Some(7)), device];
        let app = app(orphans.clone());
        let request = CloseOrphans { orphans: orphans.clone(), clusters: vec![] };
        let answers = closing(&app, &request).await;
        assert!(answers.len() == 2 && answers.iter().all(|a| a.asked), "{answers:?}");
        let stand_in = app.store.get("cache").await.unwrap().cluster;
        assert_eq!(stand_in.metadata.annotations[CLOSE], "7,cache-1-b");
        assert!(stand_in.spec.paused && stand_in.metadata.deletion_timestamp.is_some());
        assert_eq!(stand_in.spec.mesh.tag.as_deref(), Some("tag:x"));

        let app = self::app(orphans.clone());
        let spec = serde_json::json!({"nodes": 3});
        let manifest = serde_json::json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "cache"}, "spec": spec
        });
        app.store.apply(serde_json::from_value(manifest).unwrap()).await.unwrap();
        let other = orphan("other-0-a", Some(9));
        let asked = vec![orphans[0].clone(), Orphan { cluster: "other".into(), ..other }];
        let answers = closing(&app, &CloseOrphans { orphans: asked, clusters: vec![] }).await;
        let of = |name: &str| answers.iter().find(|a| a.incarnation == name).unwrap();
        assert!(of("cache-0-a").asked && !of("other-0-a").asked, "{answers:?}");
        let cluster = app.store.get("cache").await.unwrap().cluster;
        assert_eq!(cluster.metadata.annotations[CLOSE], "7");
        assert_eq!(cluster.metadata.deletion_timestamp, None);
        assert!(app.store.get("other").await.is_err(), "nothing was made for what was refused");
    }

    #[tokio::test]
    async fn a_look_and_a_confirmation_reach_the_operator_that_runs() {
        let app = app(vec![]);
        let get = Request::get("/v1alpha1/recover?cluster=cache").body(Body::empty()).unwrap();
        assert!(answer(&app, get).await.1.contains("looked at Some(\\\"cache\\\")"));
        let post = Request::post("/v1alpha1/recover").body(Body::from("{}")).unwrap();
        let (status, text) = answer(&app, post).await;
        assert!(text.contains("confirmed None"), "{text}");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn an_object_that_exists_for_a_close_alone_buys_nothing() {
        let object = stand_in("cache", Some("tag:x".into())).unwrap();
        assert!(object.spec.paused);
        assert_eq!(object.spec.mesh.tag.as_deref(), Some("tag:x"));
        assert_eq!(stand_in("cache", None).unwrap().spec.mesh.tag, None);
    }
}
