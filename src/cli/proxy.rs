//! `akash-redis proxy`: a local port that is always the present master.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::connect;
use super::master_of::MasterOf;
use crate::api::quantity::{Bytes, Span};
use crate::proxy::{Confirm, Listen, Progress, Proxy, ProxySettings};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Flags of `proxy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Cluster whose master is meant.
    #[arg(value_name = "NAME", required_unless_present = "cluster")]
    pub name: Option<String>,
    /// The same.
    #[arg(long, value_name = "NAME", env = "AKASH_REDIS_CLUSTER")]
    pub cluster: Option<String>,
    /// Who is asked for the master.
    #[command(flatten)]
    pub master_of: MasterOf,
    /// Where applications connect: an address with a port, or the path of a unix socket.
    #[arg(long, value_name = "PLACE", default_value = "127.0.0.1:6379")]
    pub listen: Listen,
    /// Where applications connect that only read: connections are spread over the replicas that are
    /// in sync, and lead to the master while there is none.
    #[arg(long, value_name = "PLACE")]
    pub read_listen: Option<Listen>,
    /// How far a replica may be behind to be read from, e.g. 64Ki; it is looked at every few seconds.
    /// Any that is in sync when absent.
    #[arg(long, value_name = "BYTES", requires = "read_listen")]
    pub max_lag: Option<Bytes>,
    /// How long a new connection waits for a master that can be reached.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::seconds)]
    pub master_wait: Span,
    /// Connections at a time, on each port; further ones are told so and closed.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub max_connections: usize,
    /// Hold the reply to a write until so many replicas have it (without a number as many as the
    /// manifest says now); an UNCONFIRMED error takes its place when they do not in time. For
    /// `durability: confirmed`.
    #[arg(long, value_name = "REPLICAS", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = clap::value_parser!(u32).range(0..=8))]
    pub confirm: Option<u32>,
    /// How long `--confirm` waits for replicas, e.g. 500ms.
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "confirm")]
    pub confirm_timeout: Span,
    /// Program to start once the master is known, or after --master-wait; the proxy ends with it and
    /// as it does.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl Args {
    /// Which cluster is meant: one of them is there, and what is typed counts.
    pub(super) fn cluster(&self) -> String {
        self.name.clone().or(self.cluster.clone()).unwrap_or_default()
    }
}

/// Runs until SIGTERM or SIGINT, or until the program ends that it started: then with its exit code.
/// `socket` is the operator's.
pub async fn run(args: Args, socket: &Path) -> Result<ExitCode, BoxError> {
    let settings = ProxySettings {
        cluster: args.cluster(),
        operator: socket.to_owned(),
        nodes: args.master_of.nodes()?,
        listen: args.listen,
        read_listen: args.read_listen,
        max_lag: args.max_lag.map(|bytes| bytes.0),
        socks5: args.master_of.socks5,
        master_wait: args.master_wait.0,
        max_connections: args.max_connections,
        confirm: args.confirm.map(|replicas| Confirm { replicas, timeout: args.confirm_timeout.0 }),
    };
    let wait = settings.master_wait;
    let proxy = Proxy::bind(settings).await?;
    if let Some(replicas) = proxy.confirms() {
        tracing::info!(
            replicas,
            "replies to writes are held back until so many replicas have them"
        );
    }
    let reads = proxy.read_listen().map(|at| format!(", for reads on {at}")).unwrap_or_default();
    let listens = format!("listening on {}{reads}", proxy.listen());
    tokio::spawn(say(listens, proxy.progress(), wait));
    let (asked_to_stop, stop) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(cancel_on_signal(asked_to_stop.clone()));
    let Some((program, arguments)) = args.command.split_first() else {
        proxy.run(asked_to_stop).await?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut progress = proxy.progress();
    let beside = async {
        // What it waits for was said; the program may have other things to do meanwhile.
        let _ = progress.master(wait).await;
        let mut command = Command::new(program);
        let mut child = command.args(arguments).kill_on_drop(true).spawn().map_err(|error| {
            let program = program.to_string_lossy();
            format!("{program} does not start ({error}); the proxy ends, because nobody uses it")
        })?;
        tokio::select! {
            ended = child.wait() => return Ok::<_, BoxError>(connect::code(ended?)),
            () = asked_to_stop.cancelled() => {}
        }
        // The proxy serves it until it has ended in order.
        if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        Ok(connect::code(child.wait().await?))
    };
    tokio::select! {
        code = beside => code,
        ended = proxy.run(stop) => Ok(ended.map(|()| ExitCode::SUCCESS)?),
    }
}

/// Tells the person who started it where it listens and who the master is, or what that waits for.
async fn say(listens: String, mut progress: Progress, wait: Duration) {
    let line = match progress.master(wait).await {
        Ok(master) => return print(&format!("{listens}, the master is {master}")),
        Err(why) => format!("{listens}; the master is not known yet, waiting for {why}"),
    };
    print(&line);
    // As long as it takes: it ends with the process.
    loop {
        if let Ok(master) = progress.master(Duration::from_hours(24)).await {
            return print(&format!("the master is {master}"));
        }
    }
}

fn print(line: &str) {
    // Whoever closed standard output does not want to know.
    let _ = writeln!(std::io::stdout(), "{line}");
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
