//! The operator's word about the master, asked for again and again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::told::{Heard, Reader, Told};
use super::{ProxyError, Socks5, Target};
use crate::api::endpoint::{EndpointReport, ReplicaEndpoint};
use crate::api_client::{Client, ClientError};
use crate::error_chain::error_chain;
use crate::model::time::Backoff;

/// How long the operator may keep a question open.
const POLL: Duration = Duration::from_secs(30);
/// The same where somebody goes by how far replicas are behind, which alone is no news.
const POLL_FOR_LAG: Duration = Duration::from_secs(5);
/// An operator that has nothing new and says so at once is not asked more often than this.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Between two questions to an operator that does not answer.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(2) };

/// Tells the operator's newest endpoint. What was said last stays when the operator is away. Ends
/// with an error when it has no such cluster, unless it had it before.
pub(super) async fn follow(
    operator: Client,
    cluster: String,
    socks5: Socks5,
    goes_by_lag: bool,
    told: Told,
) -> ProxyError {
    let mut failures = 0;
    let mut known: Option<EndpointReport> = None;
    let mut asks_for_lag = false;
    loop {
        let poll = if goes_by_lag { POLL_FOR_LAG } else { POLL };
        let (asked, wait) = (Instant::now(), if asks_for_lag { Duration::ZERO } else { poll });
        let after = known.as_ref().filter(|_| !asks_for_lag);
        let answer = operator.endpoint(&cluster, after, wait).await;
        if answer.is_ok() && std::mem::take(&mut failures) > 0 {
            tracing::info!("the operator is back");
        }
        let missed = match answer {
            Ok(None) => {
                told.miss(format!("a master of {cluster}, which has none that takes writes now"));
                asks_for_lag = goes_by_lag && known.is_some();
                sleep(AT_LEAST.saturating_sub(asked.elapsed())).await;
                continue;
            }
            Ok(Some(answer)) => match heard(&answer, &socks5) {
                Ok(heard) => {
                    asks_for_lag = false;
                    if is_older(&answer, known.as_ref()) {
                        sleep(AT_LEAST).await;
                        continue;
                    }
                    if answer.elected {
                        told.hear_elected(&heard.uid, heard.target);
                    } else {
                        told.hear(heard);
                    }
                    known = Some(answer);
                    continue;
                }
                Err(why) => why,
            },
            Err(ClientError::NotFound(why)) if known.is_none() => {
                return ProxyError::NoCluster(why);
            }
            Err(error) => error_chain(&error),
        };
        let goes_on = told.miss(format!("the operator ({missed})"));
        if failures == 0 {
            let goes_on =
                if goes_on { "going on with the last known master" } else { "connections wait" };
            tracing::warn!(error = missed, "the operator does not name the master; {goes_on}");
        }
        sleep(PAUSES.delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Of one cluster the later epoch counts, and a cluster that was made anew always.
fn is_older(answer: &EndpointReport, known: Option<&EndpointReport>) -> bool {
    known.is_some_and(|known| known.uid == answer.uid && known.master.epoch > answer.master.epoch)
}

fn heard(answer: &EndpointReport, socks5: &Socks5) -> Result<Heard, String> {
    let (master, epoch) = (&answer.master, answer.master.epoch);
    socks5.found(answer.socks5.as_deref());
    let target = |incarnation: &str, ip: &str, port: u16| {
        let ip = ip.parse().ok()?;
        Some(Target { epoch, incarnation: incarnation.to_owned(), ip, port })
    };
    let successor = master.changing.zip(master.successor.as_ref()).and_then(|(epoch, name)| {
        let replica = answer.replicas.iter().find(|replica| replica.incarnation == *name)?;
        let place = target(name, &replica.ip, replica.port)?;
        Some(Target { epoch, ..place })
    });
    let reader = |replica: &ReplicaEndpoint| {
        Some(Reader {
            target: target(&replica.incarnation, &replica.ip, replica.port)?,
            in_sync: replica.in_sync,
            lag_bytes: replica.lag_bytes,
        })
    };
    let target = target(&master.incarnation, &master.ip, master.port).ok_or_else(|| {
        format!("the operator sent an endpoint without an address: {:?}", master.ip)
    })?;
    let replicas = answer.replicas.iter().filter_map(reader).collect();
    Ok(Heard { uid: answer.uid.clone(), target, changing: master.changing, successor, replicas })
}
