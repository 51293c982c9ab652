//! `akash-redis validate`: manifests on this machine, without an operator.

use std::io::Write;

use super::error::CliError;
use super::manifests;

/// Flags of `validate`.
#[derive(Debug, clap::Args)]
pub struct Validate {
    /// File or directory with manifests; `-` is standard input. May be given several times.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub file: Vec<String>,
}

/// Everything that is wrong with any of them is told, each with its line. Passwords are not looked
/// for.
pub(super) fn run(args: &Validate, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    for cluster in manifests::check(&args.file)? {
        writeln!(out, "rediscluster/{} is valid", cluster.metadata.name)?;
    }
    Ok(())
}
