//! A node that answers what was recorded, or what a test tells it to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::model::time::UnixMs;
use akash_redis::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockResponse;
use prost::Message;
use prost_types::Timestamp;
use serde::Deserialize;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use super::{CHAIN_ID, PHRASE};

pub const LATEST: &str = "/cosmos.base.tendermint.v1beta1.Service/GetLatestBlock";
pub const GET_INFO: &str = "/akash.discovery.v1.Discovery/GetInfo";
pub const BY_HEIGHT: &str = "/cosmos.base.tendermint.v1beta1.Service/GetBlockByHeight";
pub const DEPLOYMENTS: &str = "/akash.deployment.v1beta4.Query/Deployments";
pub const DEPLOYMENT: &str = "/akash.deployment.v1beta4.Query/Deployment";
pub const ORDERS: &str = "/akash.market.v1beta5.Query/Orders";
pub const BIDS: &str = "/akash.market.v1beta5.Query/Bids";
pub const LEASES: &str = "/akash.market.v1beta5.Query/Leases";
pub const PROVIDER: &str = "/akash.provider.v1beta4.Query/Provider";
pub const CERTIFICATES: &str = "/akash.cert.v1.Query/Certificates";
pub const SPENDABLE: &str = "/cosmos.bank.v1beta1.Query/SpendableBalanceByDenom";
pub const SIMULATE: &str = "/cosmos.tx.v1beta1.Service/Simulate";
pub const BROADCAST: &str = "/cosmos.tx.v1beta1.Service/BroadcastTx";
pub const GET_TX: &str = "/cosmos.tx.v1beta1.Service/GetTx";

/// One recorded exchange.
#[derive(Deserialize)]
pub struct Case {
    #[serde(rename = "case")]
    pub name: String,
    pub method: String,
    pub request: String,
    response: Option<String>,
    grpc_code: Option<i32>,
    grpc_message: Option<String>,
}

impl Case {
    pub fn request(&self) -> Vec<u8> {
        hex::decode(&self.request).expect("hex")
    }

    pub fn answer(&self) -> Answer {
        match (&self.response, self.grpc_code) {
            (_, Some(code)) if code != 0 => {
                Err(Status::new(Code::from(code), self.grpc_message.clone().unwrap_or_default()))
            }
            (response, _) => Ok(hex::decode(response.as_deref().unwrap_or_default()).expect("hex")),
        }
    }
}

pub fn cases() -> Vec<Case> {
    let lines =
        include_str!("../../vectors/akash-wire.jsonl").lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).expect("a recorded exchange")).collect()
}

pub fn recorded(name: &str) -> Case {
    cases()
        .into_iter()
        .find(|case| case.name == name)
        .unwrap_or_else(|| panic!("{name} is not recorded"))
}

pub fn read<M: Message + Default>(name: &str) -> M {
    M::decode(recorded(name).answer().expect("an answer").as_slice()).expect("a message")
}

// ---- a node that says what it is told to say

pub type Answer = Result<Vec<u8>, Status>;

/// What the node answers, by method; the last answer of a method stays.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub answers: HashMap<&'static str, Vec<Answer>>,
    /// Requests that came, with the height they were pinned to.
    pub asked: Vec<(String, Option<i64>, Vec<u8>)>,
    /// Blocks since the recorded one, and the time between them; each question for the newest block
    /// makes one.
    pub blocks: i64,
    pub block_ms: i64,
    /// HTTP statuses of a proxy in front of the node, each with when to come back, before anything
    /// reaches it.
    pub http: Vec<(u16, &'static str)>,
}

impl Script {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panicked in here")
    }

    pub fn say(&self, method: &'static str, answer: Answer) -> &Self {
        self.lock().answers.entry(method).or_default().push(answer);
        self
    }

    /// The next answer is that of a recorded case.
    pub fn replay(&self, name: &str) -> &Self {
        let case = recorded(name);
        let methods = [
            LATEST, DEPLOYMENT, ORDERS, BIDS, LEASES, PROVIDER, SPENDABLE, SIMULATE, BROADCAST,
            GET_TX,
        ];
        let more =
            ["/akash.deployment.v1beta4.Query/Params", "/cosmos.auth.v1beta1.Query/AccountInfo"];
        let method = methods
            .into_iter()
            .chain(more)
            .find(|m| *m == case.method)
            .expect("a method the client uses");
        self.say(method, case.answer())
    }

    pub fn asked(&self, method: &str) -> Vec<(Option<i64>, Vec<u8>)> {
        self.lock()
            .asked
            .iter()
            .filter(|(m, ..)| m == method)
            .map(|(_, height, bytes)| (*height, bytes.clone()))
            .collect()
    }

    fn answer(&self, method: &str, height: Option<i64>, request: Vec<u8>) -> Answer {
        let mut state = self.lock();
        state.asked.push((method.to_owned(), height, request));
        if method == LATEST && !state.answers.contains_key(LATEST) {
            state.blocks += 1;
            return Ok(block(state.blocks, state.block_ms));
        }
        let Some(answers) = state.answers.get_mut(method) else {
            return Err(Status::unimplemented(format!("unknown method {method}")));
        };
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
    }

    /// Serves on a free port of the loopback until the runtime ends.
    pub async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let uri = format!("http://{}", listener.local_addr().expect("an address"));
        let script = self.clone();
        let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let script = script.clone();
            async move {
                let refused = {
                    let mut state = script.lock();
                    (!state.http.is_empty()).then(|| state.http.remove(0))
                };
                if let Some((status, after)) = refused {
                    let answer = http::Response::builder().status(status);
                    let answer = answer.header("retry-after", after);
                    return answer.body(tonic::body::Body::empty()).expect("an answer");
                }
                let method = request.uri().path().to_owned();
                let height = request
                    .headers()
                    .get("x-cosmos-block-height")
                    .map(|h| h.to_str().expect("text").parse().expect("a height"));
                let service = tower::service_fn(move |request: tonic::Request<Vec<u8>>| {
                    let answer = script
                        .answer(&method, height, request.into_inner())
                        .map(tonic::Response::new);
                    std::future::ready(answer)
                });
                tonic::server::Grpc::new(Raw).unary(service, request).await
            }
        });
        let server =
            tonic::transport::Server::builder().add_routes(tonic::service::Routes::from(router));
        tokio::spawn(
            server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
        );
        uri
    }

    pub async fn client(&self) -> ChainClient {
        client(vec![self.serve().await])
    }
}

pub fn client(grpc: Vec<String>) -> ChainClient {
    limited(grpc, FeeLimits::USUAL)
}

pub fn limited(grpc: Vec<String>, fee_limits: FeeLimits) -> ChainClient {
    let wallet = Wallet::from_phrase(&PHRASE.into(), 0).expect("a good phrase");
    let settings = ChainSettings {
        chain_id: CHAIN_ID.into(),
        grpc,
        gas_price: GasPrice::USUAL,
        fee_granter: None,
        treasury: None,
        fee_limits,
    };
    ChainClient::connect(settings, Arc::new(wallet)).expect("endpoints")
}

/// The recorded newest block, moved on.
pub fn block(blocks: i64, block_ms: i64) -> Vec<u8> {
    let mut answer: GetLatestBlockResponse = read("GetLatestBlock");
    let header = answer.sdk_block.as_mut().and_then(|b| b.header.as_mut()).expect("a header");
    header.height += blocks;
    let time = header.time.as_mut().expect("a time");
    let nanos = i64::from(time.nanos) + blocks * block_ms * 1_000_000;
    time.seconds += nanos.div_euclid(1_000_000_000);
    time.nanos = i32::try_from(nanos.rem_euclid(1_000_000_000)).expect("less than a second");
    answer.encode_to_vec()
}

pub fn block_time(blocks: i64, block_ms: i64) -> Timestamp {
    let answer =
        GetLatestBlockResponse::decode(block(blocks, block_ms).as_slice()).expect("a block");
    answer.sdk_block.and_then(|b| b.header).and_then(|h| h.time).expect("a time")
}

pub fn ms(time: Timestamp) -> UnixMs {
    UnixMs(
        u64::try_from(time.seconds).expect("after 1970") * 1000
            + u64::try_from(time.nanos / 1_000_000).expect("positive"),
    )
}

/// Messages as the bytes they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = prost::bytes::Buf::remaining(from);
        Ok(Some(prost::bytes::Buf::copy_to_bytes(from, length).to_vec()))
    }
}
