//! Commands that say a person's word about who is master: `failover`, `fence`, `unfence`.

use std::fmt::Write as _;
use std::io::Write;

use super::ask::Person;
use super::cluster_name;
use super::error::CliError;
use crate::api::conditions::Reason;
use crate::api::status::AtStake;
use crate::api_client::Client;
use crate::server::messages;

/// Flags of `failover`.
#[derive(Debug, clap::Args)]
pub struct Failover {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The master to be, by number or incarnation; the one with most data when absent.
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// What only nodes hold that do not answer may be lost: a person's word, which the operator
    /// never gives itself.
    #[arg(long, required = true)]
    pub accept_loss: bool,
    /// Do not ask before it is said; scripts need it.
    #[arg(short, long)]
    pub yes: bool,
}

/// Flags of `fence` and `unfence`.
#[derive(Debug, clap::Args)]
pub struct Fence {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// The node, by number or by the name of the incarnation that fills it.
    #[arg(value_name = "NODE")]
    pub node: String,
}

/// Shows what may be lost, asks, and says it in the name of whoever is there.
pub(super) async fn failover(
    client: &Client,
    args: Failover,
    out: &mut (dyn Write + Send),
    person: &mut dyn Person,
) -> Result<(), CliError> {
    let status = client.get(&args.name).await?.status.unwrap_or_default();
    let stake = status.at_stake.clone();
    let text = match &stake {
        Some(stake) => Some(shown(&args.name, args.to.as_deref(), stake)),
        // An operator of an earlier version does not say.
        None if status.problems().any(Reason::ends_with_accepted_loss) => {
            Some(format!("{}: what may be lost is not known.\n", args.name))
        }
        None => None,
    };
    if let Some(text) = text {
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !args.yes {
            if !person.is_there() {
                return Err(CliError::NobodyToAccept);
            }
            if !person.agrees("Lose that and go on? Only `yes` does: ")? {
                return Err(CliError::LossDeclined);
            }
        }
    }
    let request = messages::AcceptLoss {
        to: args.to,
        by: Some(whoever()),
        epoch: stake.map(|stake| stake.epoch),
    };
    Ok(writeln!(out, "{}", client.accept_loss(&args.name, &request).await?.message)?)
}

pub(super) async fn fence(
    client: &Client,
    args: Fence,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let request = messages::Fence { node: args.node, by: Some(whoever()) };
    Ok(writeln!(out, "{}", client.fence(&args.name, &request).await?.message)?)
}

pub(super) async fn unfence(
    client: &Client,
    args: Fence,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let request = messages::Fence { node: args.node, by: Some(whoever()) };
    Ok(writeln!(out, "{}", client.unfence(&args.name, &request).await?.message)?)
}

/// What may be lost, for whoever decides.
fn shown(cluster: &str, to: Option<&str>, stake: &AtStake) -> String {
    let mut text = format!("{cluster}, epoch {}: what is lost may not come back.\n", stake.epoch);
    if !stake.missing.is_empty() {
        text += "These may hold what nobody else has, and cannot be asked:\n";
    }
    for missing in &stake.missing {
        let _ = writeln!(text, "  {}  {}", missing.incarnation, missing.why);
    }
    let Some(next) = &stake.takes_over else {
        text += "No node that answers could take over; the next one that does begins with what it has.\n";
        return text;
    };
    let lacks = match stake.lacks_bytes {
        Some(0) => "it has all that anybody was seen to have".to_owned(),
        Some(bytes) => format!("it lacks at least {bytes} bytes that others were seen to have"),
        None => "how much it lacks nobody can say".to_owned(),
    };
    let since = stake.since.as_ref().map_or(String::new(), |since| {
        format!(", and what was written after {since}, when it last heard the master")
    });
    let _ = match to {
        Some(to) => writeln!(
            text,
            "Node {to} would take over. Of those that answer {next} has most: {lacks}{since}."
        ),
        None => writeln!(text, "{next} would take over: {lacks}{since}."),
    };
    text
}

/// Who says it: the user and the machine.
fn whoever() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
    crate::api::word::person(&format!("{user}@{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::Missing;

    #[test]
    fn a_person_sees_what_may_be_lost() {
        let mut stake = AtStake {
            epoch: 4,
            takes_over: Some("cache-1-a".into()),
            lacks_bytes: Some(700),
            since: Some("2026-01-01T00:00:00Z".into()),
            missing: vec![Missing {
                incarnation: "cache-0-a".into(),
                why: "not heard since 2026-01-01T00:00:02Z".into(),
            }],
        };
        insta::assert_snapshot!(shown("cache", None, &stake), @r"
        cache, epoch 4: what is lost may not come back.
        These may hold what nobody else has, and cannot be asked:
          cache-0-a  not heard since 2026-01-01T00:00:02Z
        cache-1-a would take over: it lacks at least 700 bytes that others were seen to have, and what was written after 2026-01-01T00:00:00Z, when it last heard the master.
        ");
        assert!(shown("cache", Some("2"), &stake).contains("Node 2 would take over. Of those"));
        (stake.takes_over, stake.lacks_bytes) = (None, None);
        assert!(shown("cache", None, &stake).contains("No node that answers could take over"));
    }

    #[test]
    fn whoever_says_it_has_a_user_and_a_machine() {
        let (user, host) = whoever().split_once('@').map(|(u, h)| (u.len(), h.len())).unwrap();
        assert!(user > 0 && host > 0);
    }
}
