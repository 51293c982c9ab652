//! The `akash-redis` command.

use std::process::ExitCode;

use akash_redis::cli;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    // TLS needs its provider before the first client is built, and there must be no doubt which one
    // it is.
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing ran before this that could have installed another");
    cli::run(cli::Cli::parse()).await
}
