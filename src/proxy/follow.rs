//! The operator's word about the master, asked for again and again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Target, Word};
use crate::api_client::Client;
use crate::error_chain::error_chain;
use crate::model::time::Backoff;

/// How long the operator may keep a question open.
const POLL: Duration = Duration::from_secs(30);
/// An operator that has nothing new and says so at once is not asked more often than this.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Between two questions to an operator that does not answer.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(2) };

/// Keeps `word` at the operator's newest endpoint; never ends. What was said last stays when the
/// operator is away.
pub(super) async fn follow(operator: Client, cluster: String, word: watch::Sender<Word>) {
    let mut failures = 0;
    loop {
        let known = word.borrow().clone();
        let epoch = known.target.as_ref().map(|target| target.epoch);
        let asked = Instant::now();
        match ask(&operator, &cluster, epoch, known.changing).await {
            Ok(answer) => {
                if std::mem::take(&mut failures) > 0 {
                    tracing::info!("the operator is back");
                }
                let news = answer.filter(|(target, changing)| {
                    epoch.is_none_or(|known| target.epoch > known)
                        || (epoch == Some(target.epoch) && *changing != known.changing)
                });
                if let Some((target, changing)) = news {
                    if epoch != Some(target.epoch) {
                        tracing::info!(epoch = target.epoch, master = target.incarnation, ip = %target.ip, "following the master");
                    }
                    word.send_replace(Word { target: Some(target), changing });
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

/// The endpoint of an epoch after `epoch`, or one that says of a planned change something else than
/// `changing`; `None` when there is none yet.
async fn ask(
    operator: &Client,
    cluster: &str,
    epoch: Option<u64>,
    changing: Option<u64>,
) -> Result<Option<(Target, Option<u64>)>, String> {
    let known = Some(changing.unwrap_or(0));
    let answer = operator.endpoint_or_change(cluster, epoch, known, POLL).await;
    let Some(endpoint) = answer.map_err(|error| error_chain(&error))? else { return Ok(None) };
    let ip = endpoint.ip.parse().map_err(|_| {
        format!("the operator sent an endpoint without an address: {:?}", endpoint.ip)
    })?;
    let (epoch, incarnation, port) = (endpoint.epoch, endpoint.incarnation, endpoint.port);
    Ok(Some((Target { epoch, incarnation, ip, port }, endpoint.changing)))
}
