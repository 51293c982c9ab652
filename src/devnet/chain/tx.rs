//! Sending and finding transactions.

use prost::{Message as _, Name as _};
use prost_types::Any;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::{Request, Response, Status};

use super::{Api, lock};
use crate::devnet::ledger::{TxRecord, hash_of};
use crate::wire::cosmos::base::abci::v1beta1::{GasInfo, Result as TxResult, TxResponse};
use crate::wire::cosmos::tx::v1beta1::service_server::Service;
use crate::wire::cosmos::tx::v1beta1::{
    BroadcastMode, BroadcastTxRequest, BroadcastTxResponse, GetTxRequest, GetTxResponse,
    SimulateRequest, SimulateResponse, Tx,
};

#[tonic::async_trait]
impl Service for Api {
    async fn simulate(
        &self,
        request: Request<SimulateRequest>,
    ) -> Result<Response<SimulateResponse>, Status> {
        self.speak().await?;
        let result = lock(&self.0.ledger).simulate(&request.get_ref().tx_bytes);
        let simulated = result.map_err(|(error, gas)| {
            let text = String::from_utf8_lossy(&error.log).into_owned();
            Status::unknown(format!("{text} [devnet/ledger:1] with gas used: '{gas}'"))
        })?;
        let result = TxResult {
            events: simulated.events,
            msg_responses: simulated.responses,
            ..TxResult::default()
        };
        let gas_info =
            GasInfo { gas_wanted: u64::MAX, gas_used: self.0.faults.told_gas(simulated.gas_used) };
        Ok(Response::new(SimulateResponse { gas_info: Some(gas_info), result: Some(result) }))
    }

    async fn get_tx(
        &self,
        request: Request<GetTxRequest>,
    ) -> Result<Response<GetTxResponse>, Status> {
        self.speak().await?;
        let hash = &request.get_ref().hash;
        if hash.is_empty() || hex::decode(hash).is_err() {
            return Err(Status::unknown("encoding/hex: invalid byte"));
        }
        let hash = hash.to_ascii_uppercase();
        // A node that is behind knows nothing of later blocks.
        let shown = self.0.view(request.metadata())?.block().height;
        let record = lock(&self.0.ledger).tx(&hash).cloned();
        let record = record.filter(|record| record.block.height <= shown);
        let record = record.ok_or_else(|| Status::not_found(format!("tx not found: {hash}")))?;
        Ok(Response::new(GetTxResponse {
            tx: record.tx.clone(),
            tx_response: Some(included(&record)),
        }))
    }

    async fn broadcast_tx(
        &self,
        request: Request<BroadcastTxRequest>,
    ) -> Result<Response<BroadcastTxResponse>, Status> {
        self.speak().await?;
        let lost = || Status::unavailable("connection reset by peer");
        if self.0.faults.take_lost_request() {
            return Err(lost());
        }
        let request = request.get_ref();
        let mode = request.mode();
        if !matches!(mode, BroadcastMode::Sync | BroadcastMode::Async) {
            return Err(Status::unknown(
                "unsupported return type unspecified; supported types: sync, async",
            ));
        }
        let taken = lock(&self.0.ledger).submit(&request.tx_bytes);
        if self.0.faults.take_lost_answer() {
            return Err(lost());
        }
        let mut answer = TxResponse { txhash: hash_of(&request.tx_bytes), ..TxResponse::default() };
        if let (Err(error), BroadcastMode::Sync) = (taken, mode) {
            error.codespace.clone_into(&mut answer.codespace);
            answer.code = error.code;
            answer.raw_log = error.log;
        }
        Ok(Response::new(BroadcastTxResponse { tx_response: Some(answer) }))
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What `GetTx` says of a transaction in a block.
fn included(record: &TxRecord) -> TxResponse {
    let seconds = signed(record.block.time_ns / 1_000_000_000);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut answer = TxResponse {
        height: signed(record.block.height),
        txhash: record.hash.clone(),
        data: hex::encode_upper(&record.data),
        gas_wanted: signed(record.gas_wanted),
        gas_used: signed(record.gas_used),
        tx: record
            .tx
            .as_ref()
            .map(|tx| Any { type_url: Tx::type_url(), value: tx.encode_to_vec() }),
        timestamp: time.format(&Rfc3339).unwrap_or_default(),
        events: record.events.clone(),
        ..TxResponse::default()
    };
    if let Some(error) = &record.error {
        error.codespace.clone_into(&mut answer.codespace);
        answer.code = error.code;
        answer.raw_log.clone_from(&error.log);
    }
    answer
}
