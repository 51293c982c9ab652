//! The client of the operator's API, for the command line and the proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::endpoint::EndpointReport;
use crate::api::preview::Preview;
use crate::api::providers::ProviderList;
use crate::api::recover::{OrphanReport, RecoverReport};
use crate::api::report::{OperatorReport, PlanReport};
use crate::api::spend::{Month, SpendReport};
use crate::api::top::TopReport;
use crate::api::types::RedisCluster;
use crate::api::wallet::{MintAnswer, MintReport, MintRequest, WalletReport};
use crate::error_chain::causes;
use crate::http_client;
use crate::server::messages::{
    AcceptLoss, Applied, Close, CloseOrphans, Closing, ClusterList, Cutover, Fence, Message,
    Migrate, Previewed, Previews, Recover, Rejoin, Restart, Scale, Switchover, Tested, Tests,
    VerifyBackup,
};
use crate::store::Event;

/// The operator answers from its own memory and disk; one that takes longer is stuck.
const ANSWER: Duration = Duration::from_secs(20);
/// It reads chain and tailnet, and waits for the nodes of each cluster that it does not know.
const LOOKS: Duration = Duration::from_mins(3);

/// Why the operator did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error(
        "no operator answers on {} ({why}); start one with `akash-redis operator --config FILE`, or name its socket with --socket",
        socket.display()
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        why: String,
    },
    /// No client can be made for it.
    #[error("the socket {} cannot be used", socket.display())]
    Unusable {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        source: reqwest::Error,
    },
    /// The socket is somebody else's.
    #[error(
        "permission denied on {}: only the user that the operator runs as and root may ask it; run the command as one of them, e.g. with sudo",
        socket.display()
    )]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// The operator was reached and its answer was lost or not understood.
    #[error("the connection to the operator was lost; check with `akash-redis get` what was done")]
    Lost {
        /// What was seen.
        source: reqwest::Error,
    },
    /// The operator was reached and says nothing.
    #[error("the operator on {} does not answer within {} s, so it may be stuck; see its own log", socket.display(), ANSWER.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
    /// The operator said no.
    #[error("{0}")]
    Refused(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
}

/// A client of one operator.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// A client for the operator on `socket`; nothing is sent yet.
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let http = http_client::unix_socket(socket, None);
        let http =
            http.map_err(|source| ClientError::Unusable { socket: socket.to_owned(), source })?;
        Ok(Self { http, socket: socket.to_owned() })
    }

    /// All clusters, by name.
    pub async fn list(&self) -> Result<Vec<RedisCluster>, ClientError> {
        Ok(self.ask::<ClusterList>("").await?.items)
    }

    /// One cluster.
    pub async fn get(&self, name: &str) -> Result<RedisCluster, ClientError> {
        self.ask(&format!("/{name}")).await
    }

    /// Creates or changes a cluster.
    pub async fn apply(&self, cluster: &RedisCluster) -> Result<Applied, ClientError> {
        self.send(Method::PUT, &format!("/{}", cluster.metadata.name), Some(cluster)).await
    }

    /// Asks for a cluster to be deleted, and says with `with_data` that its data may be, too.
    pub async fn delete(&self, name: &str, with_data: bool) -> Result<Message, ClientError> {
        let word = if with_data { format!("?yesDeleteData={name}") } else { String::new() };
        self.send(Method::DELETE, &format!("/{name}{word}"), None::<&()>).await
    }

    /// Asks for a node to move.
    pub async fn migrate(&self, name: &str, request: &Migrate) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/migrate"), Some(request)).await
    }

    /// Asks for another master.
    pub async fn switchover(
        &self,
        name: &str,
        request: &Switchover,
    ) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/switchover"), Some(request)).await
    }

    /// Accepts the loss of what no node that answers holds.
    pub async fn accept_loss(
        &self,
        name: &str,
        request: &AcceptLoss,
    ) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/accept-loss"), Some(request)).await
    }

    /// Fences a node.
    pub async fn fence(&self, name: &str, request: &Fence) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/fence"), Some(request)).await
    }

    /// Takes a fence back.
    pub async fn unfence(&self, name: &str, request: &Fence) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/unfence"), Some(request)).await
    }

    /// Asks for another number of nodes.
    pub async fn scale(&self, name: &str, nodes: u32) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/scale"), Some(&Scale { nodes })).await
    }

    /// Asks for nothing to be changed any more.
    pub async fn pause(&self, name: &str) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/pause"), None::<&()>).await
    }

    /// Ends a pause.
    pub async fn resume(&self, name: &str) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/resume"), None::<&()>).await
    }

    /// Asks for containers to be started anew.
    pub async fn restart(&self, name: &str, request: &Restart) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/restart"), Some(request)).await
    }

    /// Asks for the end of an import.
    pub async fn cutover(&self, name: &str, request: Cutover) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/cutover"), Some(&request)).await
    }

    /// Asks for a backup.
    pub async fn backup(&self, name: &str) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/backup"), None::<&()>).await
    }

    /// Asks for a backup to be restored to see that it can be.
    pub async fn verify_backup(
        &self,
        name: &str,
        request: &VerifyBackup,
    ) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/verify-backup"), Some(request)).await
    }

    /// Asks for a node to join the mesh again.
    pub async fn rejoin(&self, name: &str, request: &Rejoin) -> Result<Message, ClientError> {
        self.send(Method::POST, &format!("/{name}/rejoin"), Some(request)).await
    }

    /// Asks for deployments that are in no record to be closed.
    pub async fn close(&self, name: &str, dseqs: Vec<u64>) -> Result<Message, ClientError> {
        self.send(
            Method::POST,
            &format!("/{name}/close"),
            Some(&Close { dseqs, incarnations: Vec::new() }),
        )
        .await
    }

    /// What is found of the clusters that no record knows, or of one; with `confirm` those that can
    /// be are taken over. Nodes are waited for.
    pub async fn recover(
        &self,
        cluster: Option<&str>,
        confirm: bool,
    ) -> Result<RecoverReport, ClientError> {
        let url = "http://operator/v1alpha1/recover";
        let request = if confirm {
            self.http.post(url).json(&Recover { cluster: cluster.map(str::to_owned) })
        } else {
            let query = cluster.map(|name| format!("?cluster={name}")).unwrap_or_default();
            self.http.get(format!("{url}{query}"))
        };
        self.json(request.timeout(LOOKS)).await
    }

    /// What of this installation stands in no record.
    pub async fn orphans(&self) -> Result<OrphanReport, ClientError> {
        self.json(self.http.get("http://operator/v1alpha1/orphans").timeout(LOOKS)).await
    }

    /// Asks for what was listed to be given up.
    pub async fn close_orphans(&self, request: &CloseOrphans) -> Result<Vec<Closing>, ClientError> {
        let url = "http://operator/v1alpha1/orphans/close";
        self.json(self.http.post(url).json(request).timeout(LOOKS)).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        self.success(request).await?.json().await.map_err(|source| ClientError::Lost { source })
    }

    /// How the operator itself stands.
    pub async fn operator(&self) -> Result<OperatorReport, ClientError> {
        let request = self.http.get("http://operator/v1alpha1/operator").timeout(ANSWER);
        let answer = self.success(request).await?;
        answer.json().await.map_err(|source| ClientError::Lost { source })
    }

    /// The providers that the operator met.
    pub async fn providers(&self) -> Result<ProviderList, ClientError> {
        let request = self.http.get("http://operator/v1alpha1/providers").timeout(ANSWER);
        let answer = self.success(request).await?;
        answer.json().await.map_err(|source| ClientError::Lost { source })
    }

    /// What each node has to do at this moment.
    pub async fn top(&self) -> Result<TopReport, ClientError> {
        self.json(self.http.get("http://operator/v1alpha1/top").timeout(ANSWER)).await
    }

    /// What an apply of these would do, in this order; nothing is changed.
    pub async fn preview(&self, clusters: Vec<RedisCluster>) -> Result<Vec<Preview>, ClientError> {
        let request = self.http.post("http://operator/v1alpha1/preview").timeout(ANSWER);
        let answer = self.success(request.json(&Previewed { clusters })).await?;
        let previews: Previews =
            answer.json().await.map_err(|source| ClientError::Lost { source })?;
        Ok(previews.items)
    }

    /// Has a test message sent to everybody who is told outside.
    pub async fn test_notifications(&self) -> Result<Vec<Tested>, ClientError> {
        let request = self.http.post("http://operator/v1alpha1/notifications/test").timeout(ANSWER);
        let answer = self.success(request).await?;
        let tests: Tests = answer.json().await.map_err(|source| ClientError::Lost { source })?;
        Ok(tests.items)
    }

    /// What the wallet holds and pays.
    pub async fn wallet(&self) -> Result<WalletReport, ClientError> {
        self.of_wallet(self.http.get("http://operator/v1alpha1/wallet")).await
    }

    /// Burns AKT for ACT, or says what would be burnt.
    pub async fn mint(&self, request: &MintRequest) -> Result<MintAnswer, ClientError> {
        let post = self.http.post("http://operator/v1alpha1/wallet/mint").json(request);
        self.of_wallet(post).await
    }

    /// How far the newest burn has come.
    pub async fn newest_mint(&self) -> Result<MintReport, ClientError> {
        self.of_wallet(self.http.get("http://operator/v1alpha1/wallet/mint")).await
    }

    async fn of_wallet<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let answer = self.success(request.timeout(ANSWER)).await?;
        answer.json().await.map_err(|source| ClientError::Lost { source })
    }

    /// What was paid: for one cluster or all, in one month or ever.
    pub async fn spend(
        &self,
        cluster: Option<&str>,
        month: Option<Month>,
    ) -> Result<SpendReport, ClientError> {
        let cluster = cluster.map(|name| format!("cluster={name}"));
        let query = cluster.into_iter().chain(month.map(|month| format!("month={month}")));
        let query = query.collect::<Vec<_>>().join("&");
        let url = format!("http://operator/v1alpha1/spend?{query}");
        let answer = self.success(self.http.get(url).timeout(ANSWER)).await?;
        answer.json().await.map_err(|source| ClientError::Lost { source })
    }

    /// The present plan.
    pub async fn plan(&self, name: &str) -> Result<PlanReport, ClientError> {
        self.ask(&format!("/{name}/plan")).await
    }

    /// What happened, oldest first.
    pub async fn events(&self, name: &str) -> Result<Vec<Event>, ClientError> {
        self.ask(&format!("/{name}/events")).await
    }

    /// The master that takes writes, as soon as the answer is another than `known` (any when `None`);
    /// `None` when there is none after `wait` (whole seconds, at most 60).
    pub async fn endpoint(
        &self,
        name: &str,
        known: Option<&EndpointReport>,
        wait: Duration,
    ) -> Result<Option<EndpointReport>, ClientError> {
        // An older operator gives no tag, and goes by the epoch.
        let after = known.map(|known| {
            let tag = Some(&known.tag).filter(|tag| !tag.is_empty());
            let tag = tag.map(|tag| format!("&known={tag}")).unwrap_or_default();
            format!("&after_epoch={}{tag}", known.master.epoch)
        });
        let after = after.unwrap_or_default();
        let path = format!("/{name}/endpoint?wait_s={}{after}", wait.as_secs());
        let answer = self.request(Method::GET, &path, None::<&()>, ANSWER + wait).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        answer.json().await.map(Some).map_err(|source| ClientError::Lost { source })
    }

    /// What a node's processes print: an answer whose body is text and grows for as long as it is
    /// read. `query` has no character that a URL would need spelled otherwise.
    pub async fn logs(&self, name: &str, query: &str) -> Result<reqwest::Response, ClientError> {
        let path = format!("/{name}/logs?{query}");
        // The limit is for the beginning of the answer only.
        self.in_time(self.success(self.at(Method::GET, &path))).await?
    }

    /// The data of a cluster as an RDB file, of now, as it comes.
    ///
    /// # Errors
    /// It does not begin. An answer that breaks off is an error of its reader.
    pub async fn dump(&self, name: &str) -> Result<reqwest::Response, ClientError> {
        self.in_time(self.success(self.at(Method::GET, &format!("/{name}/dump")))).await?
    }

    /// Waits for something that the operator has to say, no longer than for any other answer.
    pub async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, ClientError> {
        tokio::time::timeout(ANSWER, answer)
            .await
            .map_err(|_| ClientError::Silent { socket: self.socket.clone() })
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.request(method, path, body, ANSWER)
            .await?
            .json()
            .await
            .map_err(|source| ClientError::Lost { source })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self.at(method, path).timeout(timeout);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.success(request).await
    }

    fn at(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        // The host is there for the form: the connection is the socket's.
        self.http.request(method, format!("http://operator/v1alpha1/clusters{path}"))
    }

    /// An answer that is a success; everything else is the operator's sentence as an error.
    async fn success(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        let answer = request.send().await.map_err(|e| self.unreached(e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.map_err(|source| ClientError::Lost { source })?;
        let message = serde_json::from_str(&text).map_or_else(
            |_| format!("the operator answered {status}: {text}"),
            |m: Message| m.message,
        );
        Err(if status == StatusCode::NOT_FOUND {
            ClientError::NotFound(message)
        } else {
            ClientError::Refused(message)
        })
    }

    fn unreached(&self, source: reqwest::Error) -> ClientError {
        let socket = self.socket.clone();
        // The URL is no address that anybody could look at.
        let source = source.without_url();
        if !source.is_connect() {
            return ClientError::Lost { source };
        }
        let system = causes(&source).find_map(|cause| cause.downcast_ref::<std::io::Error>());
        match system.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::PermissionDenied) => ClientError::Forbidden { socket },
            Some(std::io::ErrorKind::NotFound) => {
                ClientError::NotRunning { socket, why: "there is no such socket".to_owned() }
            }
            _ => {
                let why = system.map_or_else(|| source.to_string(), ToString::to_string);
                ClientError::NotRunning { socket, why }
            }
        }
    }
}
