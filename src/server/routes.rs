//! Paths of the API and what answers on them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::actions::{self, Refusal};
use super::appraiser::Appraiser;
use super::dump::NodeDumps;
use super::logs::{self, NodeLogs};
use super::messages::{
    Applied, Close, ClusterList, Cutover, Message, Migrate, Outcome, Rejoin, Restart, Scale,
    Switchover, VerifyBackup,
};
use super::preview;
use super::status_cache::StatusCache;
use super::{Validate, journal, providers, recovery, wallet, words};
use crate::api::deletion::Deletion;
use crate::api::events::EventReason;
use crate::api::report::{OperatorReport, PlanReport};
use crate::api::types::RedisCluster;
use crate::model::time::UnixMs;
use crate::secrets::SEALED;
use crate::store::{Event, Store, StoreError, Stored};

/// No manifest is larger.
const MOST_BODY_BYTES: usize = 256 * 1024;
/// The longest that a request may wait for a new endpoint.
const LONGEST_WAIT_SECONDS: u64 = 60;
/// A change is repeated so often when the object moves under it: the operator publishes a status
/// now and then.
const TRIES: u32 = 10;
/// Before the second try; each further one waits longer by as much.
const PAUSE: Duration = Duration::from_millis(5);

/// What every request can reach.
#[derive(Clone)]
pub(super) struct App {
    pub(super) store: Arc<dyn Store>,
    pub(super) status_cache: Arc<StatusCache>,
    pub(super) registry: Arc<Registry>,
    pub(super) validate: Validate,
    pub(super) logs: Arc<dyn NodeLogs>,
    pub(super) dumps: Arc<dyn NodeDumps>,
    pub(super) appraiser: Arc<dyn Appraiser>,
    pub(super) shutdown: CancellationToken,
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1alpha1/operator", get(operator))
        .route("/v1alpha1/wallet", get(wallet::report))
        .route("/v1alpha1/wallet/mint", get(wallet::newest_mint).post(wallet::mint))
        .route("/v1alpha1/clusters", get(list))
        .route("/v1alpha1/clusters/{name}", get(read).put(put).delete(delete))
        .route("/v1alpha1/clusters/{name}/migrate", post(migrate))
        .route("/v1alpha1/clusters/{name}/switchover", post(switchover))
        .route("/v1alpha1/clusters/{name}/accept-loss", post(words::accept))
        .route("/v1alpha1/clusters/{name}/scale", post(scale))
        .route("/v1alpha1/clusters/{name}/pause", post(pause))
        .route("/v1alpha1/clusters/{name}/resume", post(resume))
        .route("/v1alpha1/clusters/{name}/close", post(close))
        .route("/v1alpha1/clusters/{name}/rejoin", post(rejoin))
        .route("/v1alpha1/clusters/{name}/plan", get(plan))
        .route("/v1alpha1/clusters/{name}/events", get(events))
        .route("/v1alpha1/clusters/{name}/logs", get(logs::logs))
        .route("/v1alpha1/clusters/{name}/endpoint", get(endpoint))
        .route("/v1alpha1/preview", post(preview::preview))
        .route("/v1alpha1/notifications/test", post(preview::test_notifications))
        .route("/v1alpha1/top", get(super::top::top))
        .route("/v1alpha1/spend", get(super::spend::spend))
        .route("/v1alpha1/providers", get(providers::providers))
        .route("/v1alpha1/recover", get(recovery::look).post(recovery::confirm))
        .route("/v1alpha1/orphans", get(recovery::orphans))
        .route("/v1alpha1/orphans/close", post(recovery::close))
        .route("/v1alpha1/clusters/{name}/restart", post(restart))
        .route("/v1alpha1/clusters/{name}/backup", post(backup))
        .route("/v1alpha1/clusters/{name}/cutover", post(cutover))
        .route("/v1alpha1/clusters/{name}/verify-backup", post(verify_backup))
        .route("/v1alpha1/clusters/{name}/dump", get(super::dump::dump))
        .route("/v1alpha1/clusters/{name}/fence", post(words::fence_node))
        .route("/v1alpha1/clusters/{name}/unfence", post(words::unfence_node))
        .fallback(|| async {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "there is nothing at this path; the API is below /v1alpha1/clusters",
            )
        })
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .with_state(app)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(Message { message: self.message })).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::NotFound { .. } => StatusCode::NOT_FOUND,
            StoreError::Conflict { .. } => StatusCode::CONFLICT,
            StoreError::Locked { .. }
            | StoreError::Superseded { .. }
            | StoreError::OfAnother { .. } => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

async fn metrics(State(app): State<App>) -> Result<Response, Refusal> {
    encode(&app.registry)
}

/// The metrics as text.
pub(super) fn encode(registry: &Registry) -> Result<Response, Refusal> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).map_err(|e| {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be written: {e}"),
        )
    })?;
    Ok((
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        text,
    )
        .into_response())
}

async fn list(State(app): State<App>) -> Answer<ClusterList> {
    let mut items: Vec<_> = app.store.list().await?.into_iter().map(|s| s.cluster).collect();
    for cluster in &mut items {
        app.status_cache.refresh(cluster);
    }
    Ok(Json(ClusterList { items }))
}

async fn read(State(app): State<App>, Path(name): Path<String>) -> Answer<RedisCluster> {
    let mut cluster = app.store.get(&name).await?.cluster;
    app.status_cache.refresh(&mut cluster);
    Ok(Json(cluster))
}

async fn put(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Applied>), Refusal> {
    let wanted: RedisCluster = parse(&body)?;
    if wanted.metadata.name != name {
        return Err(bad(format!("the manifest is named {} and not {name}", wanted.metadata.name)));
    }
    for attempt in 0..TRIES {
        sleep(PAUSE * attempt).await;
        let mut cluster = wanted.clone();
        let present = present(&app, &name).await?;
        admitted(&app, present.as_ref(), &mut cluster)?;
        match app.store.apply(cluster).await {
            Ok(stored) => {
                let old = present.as_ref().map(|old| &old.cluster);
                tell(&app, &name, journal::told(old, &stored.cluster)).await;
                return Ok(applied(old, stored.cluster));
            }
            Err(StoreError::Conflict { .. }) if wanted.metadata.resource_version.is_none() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(StoreError::Conflict { name }.into())
}

/// The object of this name, if there is one.
pub(super) async fn present(app: &App, name: &str) -> Result<Option<Stored>, Refusal> {
    match app.store.get(name).await {
        Ok(stored) => Ok(Some(stored)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Whether a manifest may take the place of what is there, and if so completed by it. The one way in
/// for those that are applied as for those that are only looked at.
pub(super) fn admitted(
    app: &App,
    present: Option<&Stored>,
    wanted: &mut RedisCluster,
) -> Result<(), Refusal> {
    if let Some(user) = wanted.spec.redis.users.iter().find(|u| u.is_to_be_read()) {
        let user = &user.name;
        return Err(bad(format!(
            "passwordFrom of user {user} is read by `akash-redis apply`; the API takes passwordSha256, passwords as sha256, or a secretKeyRef"
        )));
    }
    if let Some(backup) = &wanted.spec.backup
        && backup.credentials_from.as_ref().is_some_and(|from| from.secret().is_none())
    {
        return Err(bad(
            "spec.backup.credentialsFrom is read by `akash-redis apply`; the API takes credentials, as ACCESS_KEY_ID:SECRET_ACCESS_KEY".to_owned(),
        ));
    }
    if let Some(from) = wanted.spec.bootstrap.as_ref().and_then(|b| b.from_redis.as_ref())
        && from.password_from.as_ref().is_some_and(|from| from.secret().is_none())
    {
        return Err(bad(
            "spec.bootstrap.fromRedis.passwordFrom is read by `akash-redis apply`; the API takes password".to_owned(),
        ));
    }
    check(app, wanted)?;
    seal(app, wanted)?;
    seal_source(app, wanted)?;
    within_budget(app, wanted)?;
    if let Some(Stored { cluster: old, record, .. }) = present {
        actions::replace(old, record, wanted)?;
        if wanted.metadata.resource_version.is_none() {
            wanted.metadata.resource_version.clone_from(&old.metadata.resource_version);
        }
    }
    Ok(())
}

/// The keys to the object storage leave this function encrypted. Those of the cluster whose backup
/// this one begins with become its own.
fn seal(app: &App, wanted: &mut RedisCluster) -> Result<(), Refusal> {
    let name = wanted.metadata.name.clone();
    let from = wanted.spec.bootstrap.as_ref().and_then(|b| b.from_backup.as_ref());
    let of = from.and_then(|from| from.cluster.clone()).filter(|of| *of != name);
    let Some(backup) = &mut wanted.spec.backup else { return Ok(()) };
    if let (Some(of), Some(sealed)) = (of, &backup.credentials)
        && let Some(own) = app.appraiser.seal_again(&of, &name, sealed)
    {
        backup.credentials = Some(own);
    }
    if let Some(plain) = backup.credentials.take_if(|text| !text.starts_with(SEALED)) {
        let plain = SecretString::from(plain.trim_end_matches(['\r', '\n']));
        backup.credentials = app.appraiser.seal(&name, &plain);
        if backup.credentials.is_none() {
            return Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "spec.backup.credentialsFrom: only the operator can encrypt keys to object storage, and it was not asked; apply this at its own socket".to_owned(),
            ));
        }
    }
    Ok(())
}

/// The password of a Redis that is imported from leaves this function encrypted.
fn seal_source(app: &App, wanted: &mut RedisCluster) -> Result<(), Refusal> {
    let name = wanted.metadata.name.clone();
    let from = wanted.spec.bootstrap.as_mut().and_then(|b| b.from_redis.as_mut());
    let Some(from) = from else { return Ok(()) };
    if let Some(plain) = from.password.take_if(|text| !text.starts_with(SEALED)) {
        let plain = SecretString::from(plain.trim_end_matches(['\r', '\n']));
        from.password = app.appraiser.seal(&name, &plain);
        if from.password.is_none() {
            return Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "spec.bootstrap.fromRedis.passwordFrom: only the operator can encrypt a password, and it was not asked; apply this at its own socket".to_owned(),
            ));
        }
    }
    Ok(())
}

fn applied(before: Option<&RedisCluster>, cluster: RedisCluster) -> (StatusCode, Json<Applied>) {
    let outcome = match before {
        None => Outcome::Created,
        Some(old) if old.metadata == cluster.metadata => Outcome::Unchanged,
        Some(_) => Outcome::Configured,
    };
    let status = if outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(Applied { outcome, cluster }))
}

/// What a deletion comes with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteQuery {
    /// Name of the cluster whose data may be deleted.
    yes_delete_data: Option<String>,
}

async fn delete(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Result<(StatusCode, Json<Message>), Refusal> {
    let (before, becomes) = named(&app, &name, query.yes_delete_data.as_deref()).await?;
    app.store.mark_deleted(&name).await?;
    let waits = becomes == Deletion::AfterBackup;
    if before.metadata.deletion_timestamp.is_none() {
        let after = if waits { ", after a last backup" } else { "" };
        let message = format!("{name} is to be deleted, with its leases{after}");
        tell(&app, &name, vec![(EventReason::DeletionRequested, message)]).await;
    }
    let message = if waits {
        format!(
            "{name} is to be deleted: a last backup is taken, and the leases are closed once it is complete; what is written after it began is lost. `akash-redis describe {name}` says how far it is"
        )
    } else {
        format!(
            "{name} is being deleted: the leases in its record are going to be closed, and what is left in escrow comes back; `akash-redis events {name}` says what was closed"
        )
    };
    Ok((StatusCode::ACCEPTED, Json(Message { message })))
}

/// Leaves a person's word about the data on the object, before it is marked as deleted. Returns the
/// object as it was, and what becomes of it.
async fn named(
    app: &App,
    name: &str,
    word: Option<&str>,
) -> Result<(RedisCluster, Deletion), Refusal> {
    for attempt in 0..TRIES {
        sleep(PAUSE * attempt).await;
        let Stored { cluster: mut before, record, .. } = app.store.get(name).await?;
        app.status_cache.refresh(&mut before);
        let mut cluster = before.clone();
        let becomes = actions::delete(&mut cluster, &record, word)?;
        if cluster.metadata.annotations == before.metadata.annotations {
            return Ok((before, becomes));
        }
        match app.store.apply(cluster).await {
            Ok(_) => return Ok((before, becomes)),
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(StoreError::Conflict { name: name.to_owned() }.into())
}

async fn migrate(State(app): State<App>, Path(name): Path<String>, body: Bytes) -> Answer<Message> {
    let request: Migrate = parse(&body)?;
    change(&app, &name, |cluster| actions::migrate(cluster, &request)).await
}

async fn switchover(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Message> {
    let request: Switchover = if body.is_empty() { Switchover::default() } else { parse(&body)? };
    change(&app, &name, |cluster| actions::switchover(cluster, &request)).await
}

async fn close(State(app): State<App>, Path(name): Path<String>, body: Bytes) -> Answer<Message> {
    let request: Close = parse(&body)?;
    change(&app, &name, |cluster| actions::close(cluster, &request)).await
}

async fn rejoin(State(app): State<App>, Path(name): Path<String>, body: Bytes) -> Answer<Message> {
    let request: Rejoin = parse(&body)?;
    change(&app, &name, |cluster| actions::rejoin(cluster, &request)).await
}

async fn restart(State(app): State<App>, Path(name): Path<String>, body: Bytes) -> Answer<Message> {
    let request: Restart = parse(&body)?;
    change(&app, &name, |cluster| actions::restart(cluster, &request)).await
}

async fn backup(State(app): State<App>, Path(name): Path<String>) -> Answer<Message> {
    change(&app, &name, actions::backup).await
}

async fn cutover(State(app): State<App>, Path(name): Path<String>, body: Bytes) -> Answer<Message> {
    let request: Cutover = if body.is_empty() { Cutover::default() } else { parse(&body)? };
    change(&app, &name, |cluster| actions::cutover(cluster, request)).await
}

async fn verify_backup(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Message> {
    let request: VerifyBackup = parse(&body)?;
    change(&app, &name, |cluster| actions::verify_backup(cluster, &request)).await
}

async fn scale(State(app): State<App>, Path(name): Path<String>, body: Bytes) -> Answer<Message> {
    let Scale { nodes } = parse(&body)?;
    change(&app, &name, |cluster| actions::scale(cluster, nodes)).await
}

async fn pause(State(app): State<App>, Path(name): Path<String>) -> Answer<Message> {
    change(&app, &name, actions::pause).await
}

async fn resume(State(app): State<App>, Path(name): Path<String>) -> Answer<Message> {
    change(&app, &name, actions::resume).await
}

/// Reads, changes and writes an object; repeats when it moved meanwhile.
pub(super) async fn change(
    app: &App,
    name: &str,
    change: impl Fn(&mut RedisCluster) -> Result<String, Refusal>,
) -> Answer<Message> {
    for attempt in 0..TRIES {
        sleep(PAUSE * attempt).await;
        let mut before = app.store.get(name).await?.cluster;
        // Of replicas the one that lags least now is meant.
        app.status_cache.refresh(&mut before);
        let mut cluster = before.clone();
        let message = change(&mut cluster)?;
        check(app, &cluster)?;
        match app.store.apply(cluster).await {
            Ok(stored) => {
                tell(app, name, journal::told(Some(&before), &stored.cluster)).await;
                return Ok(Json(Message { message }));
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(StoreError::Conflict { name: name.to_owned() }.into())
}

/// Writes down what a person asked for. It was done already: a journal that cannot be written is no
/// reason to say that it was not.
pub(super) async fn tell(app: &App, cluster: &str, events: Vec<(EventReason, String)>) {
    let at = UnixMs::now();
    let event = |(reason, message): (EventReason, String)| {
        tracing::info!(cluster, %reason, "{message}");
        Event::new(at, cluster, reason.to_string(), message)
    };
    let events: Vec<_> = events.into_iter().map(event).collect();
    if let Err(error) = app.store.add_events(&events).await {
        tracing::warn!(cluster, %error, "events could not be written");
    }
}

async fn plan(State(app): State<App>, Path(name): Path<String>) -> Answer<PlanReport> {
    app.store.get(&name).await?;
    let unplanned = || {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the operator has not made a plan for {name} yet; ask again"),
        )
    };
    app.status_cache.plan(&name).map(Json).ok_or_else(unplanned)
}

#[derive(Deserialize)]
struct EventsQuery {
    after: Option<UnixMs>,
}

/// Events of a cluster that is gone are there for some time: no look at the object.
async fn events(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Answer<Vec<Event>> {
    let mut events = app.store.events(&name).await?;
    if events.is_empty() {
        app.store.get(&name).await?;
    }
    events.retain(|event| query.after.is_none_or(|after| event.at > after));
    Ok(Json(events))
}

#[derive(Deserialize)]
struct EndpointQuery {
    /// Of proxies that know no tags.
    after_epoch: Option<u64>,
    /// Tag of the answer that is known.
    known: Option<String>,
    #[serde(default)]
    wait_s: u64,
}

/// 204 when there is no (newer) endpoint within the time.
async fn endpoint(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<EndpointQuery>,
) -> Result<Response, Refusal> {
    app.store.get(&name).await?;
    let deadline = Instant::now() + Duration::from_secs(query.wait_s.min(LONGEST_WAIT_SECONDS));
    let cache = &app.status_cache;
    let news = async {
        match &query.known {
            Some(known) => cache.wait_news(&name, known, deadline).await,
            None => cache.wait_endpoint(&name, query.after_epoch, deadline).await,
        }
    };
    let found = tokio::select! {
        found = news => found,
        () = app.shutdown.cancelled() => None,
    };
    Ok(found.map_or_else(
        || StatusCode::NO_CONTENT.into_response(),
        |endpoint| Json(endpoint).into_response(),
    ))
}

fn check(app: &App, cluster: &RedisCluster) -> Result<(), Refusal> {
    let problems = (app.validate)(cluster);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, problems.join("\n")))
    }
}

/// A budget that no cluster can spend is refused: it would be cut down to the operator's in silence.
fn within_budget(app: &App, cluster: &RedisCluster) -> Result<(), Refusal> {
    let global = app.status_cache.operator().budget_global;
    match (cluster.spec.budget.max_per_month, global) {
        (Some(wanted), Some(global)) if wanted > global => Err(Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!(
                "spec.budget.maxPerMonth: {wanted} is more than the operator may spend for all clusters together ({global}, its budget.global); write {global} or less, or raise budget.global"
            ),
        )),
        _ => Ok(()),
    }
}

/// How the operator itself stands.
async fn operator(State(app): State<App>) -> Json<OperatorReport> {
    Json(app.status_cache.operator())
}

/// 503 with the reasons while something is away that every cluster needs.
async fn ready(State(app): State<App>) -> (StatusCode, String) {
    let wrong = app.status_cache.operator().wrong();
    if wrong.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n")
    }
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| bad(format!("the body is not understood: {e}")))
}

fn bad(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}
