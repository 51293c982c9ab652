//! A client that cannot be served is told so in Redis' words, before its connection ends.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// What Redis says itself.
pub(super) const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// A client that does not go by itself is let go after this.
const LIMIT: Duration = Duration::from_secs(1);
/// What it asked meanwhile is read, or the system would take its answer away from it.
const MOST_READ: u64 = 64 << 10;

/// Tells `client` why it is not served, by an error as Redis writes it, and ends the connection.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut client: S, error: &[u8]) {
    let told = async {
        client.write_all(error).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(MOST_READ), &mut tokio::io::sink()).await
    };
    // It may be gone already.
    let _ = timeout(LIMIT, told).await;
}
