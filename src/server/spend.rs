//! The operator's books.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::actions::Refusal;
use super::routes::{Answer, App};
use crate::api::spend::{Month, SpendReport, report};

#[derive(Deserialize)]
pub(super) struct SpendQuery {
    cluster: Option<String>,
    month: Option<String>,
}

/// The books of a cluster that is gone are there for ever: no look at the object, unless there are
/// none.
pub(super) async fn spend(
    State(app): State<App>,
    Query(query): Query<SpendQuery>,
) -> Answer<SpendReport> {
    let month: Option<Month> = query
        .month
        .map(|month| month.parse())
        .transpose()
        .map_err(|why: String| Refusal::new(StatusCode::BAD_REQUEST, why))?;
    let (accounts, txs) = (app.store.accounts().await?, app.store.booked_txs().await?);
    let cluster = query.cluster.as_deref();
    if let Some(name) = cluster
        && !accounts.iter().any(|account| account.cluster == name)
    {
        app.store.get(name).await?;
    }
    Ok(Json(report(&accounts, &txs, app.status_cache.head(), cluster, month)))
}
