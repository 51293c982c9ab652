//! The operator's word about the master, asked for again and again.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Target;
use crate::api::status::Endpoint;
use crate::http_client as http;
use crate::model::time::Backoff;

/// How long the operator may keep a question open.
const POLL: Duration = Duration::from_secs(30);
/// What is left for an answer under way.
const GRACE: Duration = Duration::from_secs(10);
/// An operator that has nothing new and says so at once is not asked more often than this.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Between two questions to an operator that does not answer.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(2) };
const MAX_BODY: usize = 64 * 1024;

pub(super) fn client(operator: &Path) -> Result<reqwest::Client, reqwest::Error> {
    http::unix_socket(operator, POLL + GRACE)
}

/// Keeps `word` at the operator's newest endpoint; never ends. What was said last stays when the
/// operator is away.
pub(super) async fn follow(
    operator: reqwest::Client,
    cluster: String,
    word: watch::Sender<Option<Target>>,
) {
    let mut failures = 0;
    loop {
        let epoch = word.borrow().as_ref().map(|target| target.epoch);
        let asked = Instant::now();
        match ask(&operator, &cluster, epoch).await {
            Ok(answer) => {
                if std::mem::take(&mut failures) > 0 {
                    tracing::info!("the operator is back");
                }
                let news = answer.filter(|target| epoch.is_none_or(|known| target.epoch > known));
                if let Some(target) = news {
                    tracing::info!(epoch = target.epoch, master = target.incarnation, ip = %target.ip, "following the master");
                    word.send_replace(Some(target));
                } else {
                    sleep(AT_LEAST.saturating_sub(asked.elapsed())).await;
                }
            }
            Err(error) => {
                if failures == 0 {
                    let goes_on = if epoch.is_some() {
                        "going on with the last known master"
                    } else {
                        "connections wait"
                    };
                    tracing::warn!(%error, "the operator cannot be asked for the master; {goes_on}");
                }
                sleep(PAUSES.delay(failures)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

/// The endpoint of an epoch after `epoch`; `None` when there is none yet.
async fn ask(
    operator: &reqwest::Client,
    cluster: &str,
    epoch: Option<u64>,
) -> Result<Option<Target>, String> {
    // The host is only for the Host header.
    let mut url = reqwest::Url::parse("http://operator/v1alpha1/clusters")
        .map_err(|error| error.to_string())?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend([cluster, "endpoint"]);
    }
    url.query_pairs_mut().append_pair("wait_s", &POLL.as_secs().to_string());
    if let Some(epoch) = epoch {
        url.query_pairs_mut().append_pair("after_epoch", &epoch.to_string());
    }
    let mut response = operator.get(url).send().await.map_err(|error| http::innermost(&error))?;
    let status = response.status();
    if status == reqwest::StatusCode::NO_CONTENT {
        return Ok(None);
    }
    let body = http::bounded(&mut response, MAX_BODY).await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!(
            "{status}: {}",
            String::from_utf8_lossy(&body).chars().take(200).collect::<String>()
        ));
    }
    let endpoint: Endpoint = serde_json::from_slice(&body)
        .map_err(|error| format!("the operator sent an invalid endpoint: {error}"))?;
    let ip = endpoint.ip.parse().map_err(|_| {
        format!("the operator sent an endpoint without an address: {:?}", endpoint.ip)
    })?;
    Ok(Some(Target {
        epoch: endpoint.epoch,
        incarnation: endpoint.incarnation,
        ip,
        port: endpoint.port,
    }))
}
