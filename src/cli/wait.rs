//! `akash-redis wait`, and the waiting of other commands.

use std::io::Write;
use std::time::Duration;

use strum::IntoEnumIterator as _;
use tokio::time::{Instant, sleep};

use super::error::CliError;
use super::{cluster_name, show};
use crate::api::conditions::{ConditionType, Reason};
use crate::api::quantity::Span;
use crate::api::status::Status;
use crate::api::types::RedisCluster;
use crate::api_client::{Client, ClientError};
use crate::model::time::UnixMs;

/// The object is looked at so often.
const POLL: Duration = Duration::from_millis(500);

/// Flags of `wait`.
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The condition, e.g. Ready or Funded.
    #[arg(long = "for", default_value_t = ConditionType::Ready, value_name = "CONDITION", value_parser = condition_type)]
    pub condition: ConditionType,
    /// The longest to wait.
    #[arg(long, default_value = "10m", value_name = "TIME")]
    pub timeout: Span,
}

pub(super) async fn run(
    client: &Client,
    args: Wait,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    until_condition(client, &args.name, args.condition, args.timeout).await?;
    Ok(writeln!(out, "rediscluster/{} is {}", args.name, args.condition)?)
}

fn condition_type(word: &str) -> Result<ConditionType, String> {
    word.parse().ok().filter(|kind| *kind != ConditionType::Other).ok_or_else(|| {
        let known: Vec<&str> = ConditionType::iter()
            .filter(|kind| *kind != ConditionType::Other)
            .map(Into::into)
            .collect();
        format!("there is no such condition; conditions are {}", known.join(", "))
    })
}

/// Waits until the condition is true of the present spec.
pub(super) async fn until_condition(
    client: &Client,
    name: &str,
    condition: ConditionType,
    timeout: Span,
) -> Result<(), CliError> {
    let mut progress = Progress::new(name, timeout);
    let goal: &str = condition.into();
    loop {
        let cluster = client.get(name).await?;
        if holds(&cluster, condition) {
            return Ok(());
        }
        progress.next(&cluster, goal).await?;
    }
}

/// Waits until what was applied is in force: every node has the present settings and users, was
/// started with what the manifest says, and the cluster is ready. It ends at once when redis refuses a
/// setting or a rollout stands still, for that does not pass by itself.
pub(super) async fn until_in_force(
    client: &Client,
    name: &str,
    timeout: Span,
) -> Result<(), CliError> {
    let mut progress = Progress::new(name, timeout);
    loop {
        let cluster = client.get(name).await?;
        if let Some(problem) = refused(&cluster) {
            return Err(CliError::SettingsRefused { name: name.to_owned(), problem });
        }
        if let Some(problem) = stands_still(&cluster) {
            return Err(CliError::RolloutStalled { name: name.to_owned(), problem });
        }
        let applied = holds(&cluster, ConditionType::SettingsApplied);
        let rolled_out = is_rolled_out(&cluster);
        if applied && rolled_out && holds(&cluster, ConditionType::Ready) {
            return Ok(());
        }
        let goal = match (applied, rolled_out) {
            (false, _) => ConditionType::SettingsApplied.into(),
            (true, false) => "rolled out to all nodes",
            (true, true) => ConditionType::Ready.into(),
        };
        progress.next(&cluster, goal).await?;
    }
}

/// What redis refused of the present spec.
fn refused(cluster: &RedisCluster) -> Option<String> {
    let status = cluster.status.as_ref()?;
    let present = status.observed_generation >= cluster.metadata.generation?;
    let condition = status.condition(ConditionType::SettingsApplied)?;
    let refused = present && condition.reason == Reason::SettingsRefused;
    refused.then(|| show::clean(&condition.message))
}

/// Every node was started with what the manifest says. An operator of before does not say.
fn is_rolled_out(cluster: &RedisCluster) -> bool {
    let rollout = cluster.status.as_ref().and_then(|status| status.rollout.as_ref());
    rollout.is_none_or(|rollout| rollout.updated >= rollout.nodes)
}

/// Why a rollout of the present spec does not go on.
fn stands_still(cluster: &RedisCluster) -> Option<String> {
    const ENDS: [Reason; 3] =
        [Reason::UpdateStalled, Reason::UpdateRefused, Reason::ImageVersionWrong];
    let status = cluster.status.as_ref()?;
    let present = status.observed_generation >= cluster.metadata.generation?;
    let stands = present && status.problems().any(|reason| ENDS.contains(&reason));
    let degraded = status.condition(ConditionType::Degraded).filter(|_| stands)?;
    Some(show::clean(&degraded.message))
}

/// Waits until the object is gone.
pub(super) async fn until_gone(client: &Client, name: &str, timeout: Span) -> Result<(), CliError> {
    let mut progress = Progress::new(name, timeout);
    loop {
        match client.get(name).await {
            Ok(cluster) => progress.next(&cluster, "gone").await?,
            Err(ClientError::NotFound(_)) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn holds(cluster: &RedisCluster, condition: ConditionType) -> bool {
    let Some(status) = &cluster.status else { return false };
    // A status of an older spec says nothing about the new one.
    cluster.metadata.generation.is_some_and(|generation| status.observed_generation >= generation)
        && status.is_true(condition)
}

/// Tells on standard error what the operator waits for, each time that changes, until the time is
/// up.
struct Progress<'a> {
    name: &'a str,
    timeout: Span,
    deadline: Instant,
    told: String,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str, timeout: Span) -> Self {
        Self { name, timeout, deadline: Instant::now() + timeout.0, told: String::new() }
    }

    async fn next(&mut self, cluster: &RedisCluster, goal: &str) -> Result<(), CliError> {
        let status = cluster.status.as_ref();
        let waiting = status.map(|s| s.waiting.as_slice()).unwrap_or_default();
        // Without the time that is left: it would change with every look.
        let lines: Vec<_> = waiting.iter().map(|w| show::waiting(w, None)).collect();
        let text = lines.join("\n");
        if text != self.told {
            let now = UnixMs::now();
            for wait in waiting {
                eprintln!("{}: {}", self.name, show::waiting(wait, Some(now)));
            }
            self.told = text;
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what: Vec<_> = waiting.iter().map(|w| show::clean(&w.what)).collect();
            return Err(CliError::TimedOut {
                name: self.name.to_owned(),
                goal: goal.to_owned(),
                timeout: self.timeout.to_string(),
                waiting: if what.is_empty() { lacks(status, goal) } else { what.join("; ") },
            });
        }
        sleep(POLL.min(left)).await;
        Ok(())
    }
}

/// What the condition that is waited for says; else the operator has not looked yet.
fn lacks(status: Option<&Status>, goal: &str) -> String {
    let condition = goal.parse().ok().and_then(|kind| status?.condition(kind));
    condition.map_or_else(
        || "the operator's next reconciliation".to_owned(),
        |condition| show::clean(&condition.message),
    )
}
