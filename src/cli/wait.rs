//! `akash-redis wait`, and the waiting of other commands.

use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use strum::IntoEnumIterator as _;
use tokio::time::{Instant, sleep};

use super::error::CliError;
use super::output::Template;
use super::{cluster_name, progress, show};
use crate::api::conditions::{ConditionStatus, ConditionType, Reason};
use crate::api::quantity::Span;
use crate::api::status::{Endpoint, NodeStatus, Status};
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
    /// condition=Ready (or Ready alone, or condition=Degraded=False), delete, or
    /// jsonpath='{.status.epoch}'=3.
    #[arg(long = "for", default_value = "Ready", value_name = "WHAT")]
    pub goal: Goal,
    /// The longest to wait.
    #[arg(long, default_value = "10m", value_name = "TIME")]
    pub timeout: Span,
}

pub(super) async fn run(
    client: &Client,
    args: Wait,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    match &args.goal {
        Goal::Condition(kind, status) => {
            until_condition(client, &args.name, *kind, *status, args.timeout).await?;
            let not = if *status == ConditionStatus::True { "" } else { "not " };
            Ok(writeln!(out, "rediscluster/{} is {not}{kind}", args.name)?)
        }
        Goal::Deleted => {
            until_gone(client, &args.name, args.timeout).await?;
            Ok(writeln!(out, "rediscluster/{} deleted", args.name)?)
        }
        Goal::Value(template, wanted) => {
            until_value(client, &args.name, template, wanted.as_deref(), args.timeout).await?;
            Ok(writeln!(out, "rediscluster/{} condition met", args.name)?)
        }
    }
}

/// What is waited for, as `kubectl wait` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A condition has this status.
    Condition(ConditionType, ConditionStatus),
    /// The object is gone.
    Deleted,
    /// An expression has this value, or any.
    Value(Template, Option<String>),
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "delete" {
            return Ok(Self::Deleted);
        }
        if let Some(expression) = text.strip_prefix("jsonpath=") {
            // The equals sign behind the last brace, not one of a filter.
            let end = expression.rfind('}').map_or(0, |end| end + 1);
            let (template, value) = match expression[end..].split_once('=') {
                Some((rest, value)) => (&expression[..end + rest.len()], Some(value.to_owned())),
                None => (expression, None),
            };
            return Ok(Self::Value(template.parse()?, value));
        }
        let word = text.strip_prefix("condition=").unwrap_or(text);
        let (word, status) = word.split_once('=').unwrap_or((word, "True"));
        let kind = condition_type(word)?;
        let status = ConditionStatus::iter()
            .find(|known| known.to_string().eq_ignore_ascii_case(status))
            .ok_or_else(|| {
                format!("a condition is True, False or Unknown, and never {status:?}")
            })?;
        Ok(Self::Condition(kind, status))
    }
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

/// Waits until the condition has this status for the present spec.
async fn until_condition(
    client: &Client,
    name: &str,
    condition: ConditionType,
    status: ConditionStatus,
    timeout: Span,
) -> Result<(), CliError> {
    let goal: &str = condition.into();
    let has = |cluster: &RedisCluster| has_status(cluster, condition, status);
    until(client, name, timeout, goal, has).await
}

/// Waits until the expression has this value, or any.
async fn until_value(
    client: &Client,
    name: &str,
    template: &Template,
    wanted: Option<&str>,
    timeout: Span,
) -> Result<(), CliError> {
    let has = |cluster: &RedisCluster| {
        let value = template.render(cluster);
        value.is_ok_and(|value| wanted.is_none_or(|wanted| value == wanted))
    };
    until(client, name, timeout, "as was asked for", has).await
}

/// Waits until a planned change that was asked for under `before` is done.
pub(super) async fn until_switched(
    client: &Client,
    name: &str,
    before: &RedisCluster,
    timeout: Span,
) -> Result<(), CliError> {
    let master = |cluster: &RedisCluster| cluster.status.as_ref().and_then(|s| s.master.clone());
    let Some(old) = master(before) else { return Ok(()) };
    let later = |new: &Endpoint| new.epoch > old.epoch && new.changing.is_none();
    let has = |cluster: &RedisCluster| master(cluster).as_ref().is_some_and(later);
    until(client, name, timeout, "at its new master", has).await?;
    let now = master(&client.get(name).await?);
    match now.filter(|now| now.incarnation == old.incarnation) {
        Some(same) => {
            Err(CliError::NotSwitched { name: name.to_owned(), master: same.incarnation })
        }
        None => Ok(()),
    }
}

/// Waits until a node is filled by another incarnation that serves, and the one before is gone.
pub(super) async fn until_moved(
    client: &Client,
    name: &str,
    before: &RedisCluster,
    node: &str,
    timeout: Span,
) -> Result<(), CliError> {
    let nodes = |cluster: &RedisCluster| {
        cluster.status.as_ref().map(|status| status.nodes.clone()).unwrap_or_default()
    };
    let is_meant = |n: &NodeStatus| n.incarnation == node || node == n.ordinal.to_string();
    let Some(old) = nodes(before).into_iter().find(is_meant) else { return Ok(()) };
    let moved = |cluster: &RedisCluster| {
        let now = nodes(cluster);
        let serves = |n: &NodeStatus| n.ordinal == old.ordinal && n.phase.is_serving();
        now.iter().any(serves) && now.iter().all(|n| n.incarnation != old.incarnation)
    };
    until(client, name, timeout, "moved", moved).await
}

async fn until(
    client: &Client,
    name: &str,
    timeout: Span,
    goal: &str,
    has: impl Fn(&RedisCluster) -> bool,
) -> Result<(), CliError> {
    let mut progress = Progress::new(name, timeout);
    loop {
        let cluster = client.get(name).await?;
        if has(&cluster) {
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
    has_status(cluster, condition, ConditionStatus::True)
}

fn has_status(cluster: &RedisCluster, condition: ConditionType, wanted: ConditionStatus) -> bool {
    let Some(status) = &cluster.status else { return false };
    // A status of an older spec says nothing about the new one.
    cluster.metadata.generation.is_some_and(|generation| status.observed_generation >= generation)
        && status.condition(condition).is_some_and(|condition| condition.status == wanted)
}

/// Tells on standard error what the operator waits for, each time that changes, until the time is
/// up.
struct Progress<'a> {
    name: &'a str,
    timeout: Span,
    deadline: Instant,
    told: String,
    line: progress::Progress,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str, timeout: Span) -> Self {
        let (deadline, told) = (Instant::now() + timeout.0, String::new());
        let line = progress::Progress::of(&format!("{name}: waits"));
        Self { name, timeout, deadline, told, line }
    }

    async fn next(&mut self, cluster: &RedisCluster, goal: &str) -> Result<(), CliError> {
        let status = cluster.status.as_ref();
        let waiting = status.map(|s| s.waiting.as_slice()).unwrap_or_default();
        // Without the time that is left: it would change with every look.
        let lines: Vec<_> = waiting.iter().map(|w| show::waiting(w, None)).collect();
        let text = lines.join("\n");
        if text != self.told {
            let now = UnixMs::now();
            let first = waiting.first().map(|wait| show::waiting(wait, None));
            let first = first.unwrap_or_else(|| format!("waits to be {goal}"));
            if !self.line.tell(&format!("{}: {first}", self.name)) {
                for wait in waiting {
                    eprintln!("{}: {}", self.name, show::waiting(wait, Some(now)));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_written_as_kubectl_does() {
        let condition = |kind, status| Ok(Goal::Condition(kind, status));
        let value = |template: &str, value: Option<&str>| {
            Ok(Goal::Value(template.parse().unwrap(), value.map(str::to_owned)))
        };
        let filter = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        for (text, goal) in [
            ("Ready", condition(ConditionType::Ready, ConditionStatus::True)),
            ("condition=Ready", condition(ConditionType::Ready, ConditionStatus::True)),
            (
                "condition=Degraded=false",
                condition(ConditionType::Degraded, ConditionStatus::False),
            ),
            ("delete", Ok(Goal::Deleted)),
            ("jsonpath={.status.epoch}=3", value("{.status.epoch}", Some("3"))),
            ("jsonpath={.status.master}", value("{.status.master}", None)),
            (&format!("jsonpath={filter}=True"), value(filter, Some("True"))),
        ] {
            assert_eq!(text.parse::<Goal>(), goal, "{text}");
        }
        for (text, begins) in [
            ("condition=Red", "there is no such condition"),
            ("Other", "there is no such condition"),
            ("Ready=Perhaps", "a condition is True"),
            ("jsonpath={.a", "a brace"),
        ] {
            assert!(text.parse::<Goal>().unwrap_err().starts_with(begins), "{text}");
        }
    }
}
