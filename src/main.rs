//! The `akash-redis` command.

use std::process::ExitCode;

use akash_redis::cli;
use clap::FromArgMatches as _;

#[tokio::main]
async fn main() -> ExitCode {
    // TLS needs its provider before the first client is built, and there must be no doubt which one
    // it is.
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing ran before this that could have installed another");
    let matches = cli::examples::command().get_matches();
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli::run(cli).await
}
