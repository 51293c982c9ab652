//! `akash-redis completion` and `akash-redis man`: what a shell and `man` read about the commands.

use std::io::Write;
use std::path::PathBuf;

use clap_complete::Shell;

use super::error::CliError;
use super::examples::command;

/// Flags of `completion`.
#[derive(Debug, clap::Args)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Directory for a page of each command; it is made. Without it the page of the program is
    /// written to standard output.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

pub(super) fn completion(args: &Completion, out: &mut dyn Write) -> Result<(), CliError> {
    // Written at once: the generator ends the process where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "akash-redis", &mut script);
    Ok(out.write_all(&script)?)
}

pub(super) fn man(args: &Man, out: &mut dyn Write) -> Result<(), CliError> {
    let Some(dir) = &args.dir else {
        return Ok(clap_mangen::Man::new(command()).render(out)?);
    };
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command(), dir));
    written.map_err(|source| CliError::Unwritten { path: dir.clone(), source })
}
