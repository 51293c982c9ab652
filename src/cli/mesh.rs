//! `akash-redis mesh`: the policy that the tailnet needs, and what is wrong with the one it has.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::error::CliError;
use super::{failed, manifests};
use crate::api_client::Client;
use crate::config::{Config, MeshTags};
use crate::mesh::control::ControlClient;
use crate::mesh::policy::{Finding, Tags, evaluate, wanted};

/// The tailnet's policy.
#[derive(Debug, Subcommand)]
pub enum Mesh {
    /// Print the policy that the tailnet needs, to be pasted into the one it has.
    Policy {
        /// File with the operator's settings, of which only the tags are read; without it they are
        /// the usual ones.
        #[arg(long, env = "AKASH_REDIS_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Manifest whose tag is one of the nodes' too. May be given several times.
        #[arg(short, long = "filename", value_name = "FILE")]
        file: Vec<String>,
        /// Without the section `tests`: headscale refuses a policy whose tests begin at a tag that no
        /// device has, as nobody has that of the quarantine while nothing is wrong.
        #[arg(long)]
        no_tests: bool,
    },
    /// Read the tailnet's policy and say what is too open or missing; ends with 1 when something
    /// is.
    Check {
        /// File with the operator's settings.
        #[arg(
            long,
            env = "AKASH_REDIS_CONFIG",
            default_value = "/etc/akash-redis/operator.yaml",
            value_name = "FILE"
        )]
        config: PathBuf,
        /// Manifest whose tag is one of the nodes' too. May be given several times.
        #[arg(short, long = "filename", value_name = "FILE")]
        file: Vec<String>,
    },
}

/// Runs either of them. Tags of clusters come from the manifests named, and from the operator on
/// `socket` if one answers.
pub(super) async fn run(
    command: Mesh,
    socket: &Path,
    out: &mut (dyn Write + Send),
) -> Result<ExitCode, CliError> {
    match command {
        Mesh::Policy { config, file, no_tests } => {
            let tags =
                tags(Config::load_mesh_tags(config.as_deref()).map_err(failed)?, &file, socket)
                    .await?;
            let mut policy = wanted(&tags);
            if no_tests {
                policy.tests.clear();
            }
            write!(out, "{policy}")?;
            eprintln!(
                "Merge these sections into the tailnet's policy file, and delete any rule there that allows more (a new tailnet has one \
                 that allows everything). Applications need a grant of their own: from their tag to the nodes' tag on tcp:6379. Then run \
                 `akash-redis mesh check`."
            );
            Ok(ExitCode::SUCCESS)
        }
        Mesh::Check { config, file } => {
            let mesh = Config::load_mesh(&config).map_err(failed)?;
            let tags = tags(mesh.tags(), &file, socket).await?;
            let policy = ControlClient::new((&mesh).into())
                .map_err(failed)?
                .policy()
                .await
                .map_err(failed)?;
            report(&evaluate(&policy, &tags), out)
        }
    }
}

fn report(findings: &[Finding], out: &mut (dyn Write + Send)) -> Result<ExitCode, CliError> {
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    if findings.iter().any(Finding::is_wrong) {
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "nothing is too open and nothing is missing")?;
    Ok(ExitCode::SUCCESS)
}

async fn tags(settings: MeshTags, files: &[String], socket: &Path) -> Result<Tags, CliError> {
    let mut clusters = Vec::new();
    for file in files {
        clusters.extend(manifests::read(file)?);
    }
    // Before the first start there is no operator, and the policy is needed before.
    let running = Client::new(socket)?.list().await;
    let unknown = if running.is_ok() {
        ""
    } else {
        "; no operator answers, so tags of other manifests are not known"
    };
    clusters.extend(running.unwrap_or_default());
    let named: BTreeSet<String> =
        clusters.into_iter().filter_map(|cluster| cluster.spec.mesh.tag).collect();
    let tags = Tags::new(settings, named);
    let nodes: Vec<&str> = tags.nodes.iter().map(String::as_str).collect();
    eprintln!(
        "Nodes have {}; the operator has {}; in quarantine they have {}{unknown}.",
        nodes.join(" or "),
        tags.operator,
        tags.quarantine
    );
    Ok(tags)
}
