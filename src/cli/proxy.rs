//! `akash-redis proxy`: a local port that is always the present master.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::proxy::{Listen, Proxy, ProxyError, ProxySettings};

/// Flags of `proxy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Cluster whose master is meant.
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// Where applications connect: an address with a port, or the path of a unix socket.
    #[arg(long, value_name = "PLACE", default_value = "127.0.0.1:6379")]
    pub listen: Listen,
    /// SOCKS5 address of this machine's tailscaled, when it runs without a network device.
    #[arg(long, value_name = "ADDRESS", env = "AKASH_REDIS_SOCKS5")]
    pub socks5: Option<SocketAddr>,
    /// How many seconds a new connection waits for a master that can be reached.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub master_wait: u64,
    /// Connections at a time; further ones are closed at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub max_connections: usize,
}

/// Runs until SIGTERM or SIGINT. `socket` is the operator's.
pub async fn run(args: Args, socket: &Path) -> Result<(), ProxyError> {
    let settings = ProxySettings {
        cluster: args.cluster,
        operator: socket.to_owned(),
        listen: args.listen,
        socks5: args.socks5,
        master_wait: Duration::from_secs(args.master_wait),
        max_connections: args.max_connections,
    };
    let proxy = Proxy::bind(settings).await?;
    tracing::info!(listen = %proxy.listen(), "listening");
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone()));
    proxy.run(stop).await;
    Ok(())
}

async fn cancel_on_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stop.cancel();
}
