//! `akash-redis proxy`: a local port that is always the present master.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::quantity::Span;
use crate::proxy::{Confirm, Listen, Proxy, ProxyError, ProxySettings};

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
    /// Hold the reply to a write until so many replicas have it (without a number as many as the
    /// manifest says now); an UNCONFIRMED error takes its place when they do not in time. For
    /// `durability: confirmed`.
    #[arg(long, value_name = "REPLICAS", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = clap::value_parser!(u32).range(0..=8))]
    pub confirm: Option<u32>,
    /// How long `--confirm` waits for replicas, e.g. 500ms.
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "confirm")]
    pub confirm_timeout: Span,
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
        confirm: args.confirm.map(|replicas| Confirm { replicas, timeout: args.confirm_timeout.0 }),
    };
    let proxy = Proxy::bind(settings).await?;
    if let Some(replicas) = proxy.confirms() {
        tracing::info!(
            replicas,
            "replies to writes are held back until so many replicas have them"
        );
    }
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
