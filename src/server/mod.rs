//! The operator's API on a unix socket: what the command line, the proxy and scripts speak to.
//!
//! Whoever can open the socket can spend the wallet's money, so it is for its owner alone, and
//! there is no TCP.

mod actions;
pub mod appraiser;
pub mod dump;
mod journal;
pub mod logs;
pub mod messages;
pub mod metrics_listener;
mod preview;
mod providers;
mod recovery;
mod routes;
mod spend;
pub mod status_cache;
#[cfg(test)]
mod tests;
mod top;
pub mod wallet;
mod words;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::api::types::RedisCluster;
use crate::store::Store;
pub use appraiser::Appraiser;
pub use dump::NodeDumps;
pub use logs::NodeLogs;
pub use recovery::Recovery;
pub use status_cache::StatusCache;

/// Says what is wrong with a manifest, one sentence each; nothing when it is good.
pub type Validate = fn(&RedisCluster) -> Vec<String>;

/// Requests still running at the end get so long to finish.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// A live operator accepts a connection at once; one that does not within this time is taken for
/// alive all the same.
const PROBE: Duration = Duration::from_secs(2);

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers on the socket.
    #[error(
        "another operator serves {path}; stop it, or give this one a socket of its own (api.socket)"
    )]
    InUse {
        /// The socket.
        path: String,
    },
    /// There is a file of another kind at that place.
    #[error(
        "{path} is there and is not a socket, so it was left alone; move it away or choose another api.socket"
    )]
    NotASocket {
        /// The file.
        path: String,
    },
    /// The system refused.
    #[error(
        "the API cannot be served on {path} ({source}); see that its directory exists and can be written"
    )]
    Io {
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What answers requests beside the store.
#[derive(Clone)]
pub struct Answerers {
    /// Reads what the processes of nodes print.
    pub logs: Arc<dyn NodeLogs>,
    /// Reads the data of nodes.
    pub dumps: Arc<dyn NodeDumps>,
    /// Tells what would be.
    pub appraiser: Arc<dyn Appraiser>,
}

/// Serves the API on `socket` until `shutdown`, and takes the socket away then.
///
/// A socket that nobody answers on is replaced; one that is answered is left alone and reported.
pub async fn serve(
    socket: &Path,
    store: Arc<dyn Store>,
    status_cache: Arc<StatusCache>,
    registry: Arc<Registry>,
    validate: Validate,
    answerers: Answerers,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let listener = bind(socket).await?;
    serve_on(listener, socket, store, status_cache, registry, validate, answerers, shutdown).await
}

/// The same, for whoever listens already; so that nobody asks too early.
#[allow(clippy::too_many_arguments, reason = "as many as `serve` has, and where it listens")]
pub async fn serve_on(
    listener: UnixListener,
    socket: &Path,
    store: Arc<dyn Store>,
    status_cache: Arc<StatusCache>,
    registry: Arc<Registry>,
    validate: Validate,
    answerers: Answerers,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let failed = |source| ServeError::Io { path: socket.display().to_string(), source };
    let router = routes::router(routes::App {
        store,
        status_cache,
        registry,
        validate,
        logs: answerers.logs,
        dumps: answerers.dumps,
        appraiser: answerers.appraiser,
        shutdown: shutdown.clone(),
    });
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let result = tokio::select! {
        result = serving.into_future() => result,
        () = async { shutdown.cancelled().await; tokio::time::sleep(LAST_REQUESTS).await } => Ok(()),
    };
    // The next operator would find out that nobody answers, but people look at the directory too.
    remove_socket(socket);
    result.map_err(failed)
}

/// Removes a socket; a file of another kind is somebody's.
fn remove_socket(path: &Path) {
    if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
}

/// Listens on a socket that only its owner can open, from its first moment: it gets its place once
/// it has its mode.
///
/// # Errors
/// Somebody answers on it, there is a file of another kind at that place, or the system refuses.
pub async fn bind(socket: &Path) -> Result<UnixListener, ServeError> {
    let path = || socket.display().to_string();
    let failed = |source| ServeError::Io { path: path(), source };
    match std::fs::symlink_metadata(socket) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(ServeError::NotASocket { path: path() });
        }
        Ok(_) => match tokio::time::timeout(PROBE, UnixStream::connect(socket)).await {
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Ok(Err(e)) => return Err(failed(e)),
            Ok(Ok(_)) | Err(_) => return Err(ServeError::InUse { path: path() }),
        },
        Err(_) => {}
    }
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let draft = socket.with_added_extension(format!("{}.new", std::process::id()));
    remove_socket(&draft);
    let listener = UnixListener::bind(&draft).map_err(failed)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&draft, socket).map_err(failed)?;
    Ok(listener)
}
