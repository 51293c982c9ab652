//! `…/wallet`: what the wallet holds and pays, and ACT for AKT.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;

use super::actions::Refusal;
use super::routes::{self, App};
use crate::api::wallet::{MintAnswer, MintReport, MintRequest, WalletReport};

/// Whoever can burn AKT of the wallet. An error is one sentence for people.
#[async_trait]
pub trait Minter: Send + Sync + fmt::Debug {
    /// Burns AKT for so much ACT, once: the transaction is kept before it is sent, and no second one
    /// is begun while something may still come of the first. Returns when it is kept.
    async fn mint(&self, request: &MintRequest) -> Result<MintAnswer, String>;

    /// How far the newest burn has come.
    async fn newest(&self) -> Result<MintReport, String>;
}

pub(super) async fn report(State(app): State<App>) -> Json<WalletReport> {
    let mut report = app.status_cache.wallet();
    if report.address.is_empty() {
        report.address = app.status_cache.operator().wallet;
    }
    Json(report)
}

pub(super) async fn mint(
    State(app): State<App>,
    body: Bytes,
) -> Result<(StatusCode, Json<MintAnswer>), Refusal> {
    let request: MintRequest = routes::parse(&body)?;
    let answer = minter(&app)?.mint(&request).await.map_err(refused)?;
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

pub(super) async fn newest_mint(State(app): State<App>) -> Result<Json<MintReport>, Refusal> {
    minter(&app)?.newest().await.map(Json).map_err(refused)
}

fn minter(app: &App) -> Result<Arc<dyn Minter>, Refusal> {
    app.status_cache.minter().ok_or_else(|| {
        let why = "the operator is not ready to send transactions yet; ask again";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)
    })
}

fn refused(why: String) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, why)
}
