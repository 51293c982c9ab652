//! Logs of a node that is not there, for tests of the API and of its clients.

use std::sync::Mutex;

use futures::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

/// The node whose log can be read.
pub(crate) const CONNECTED: &str = "cache-0-a";

/// `CONNECTED` printed three lines; what it prints next is the test's to say.
#[derive(Default)]
pub(crate) struct FakeLogs {
    /// What was asked for.
    pub(crate) asked: Mutex<Vec<(u32, bool)>>,
    /// For the next reader who follows.
    pub(crate) to_come: Mutex<Option<mpsc::Receiver<String>>>,
}

#[async_trait]
impl NodeLogs for FakeLogs {
    async fn logs(
        &self,
        incarnation: &IncarnationName,
        tail: u32,
        follow: bool,
    ) -> Result<LogLines, String> {
        if incarnation.0 != CONNECTED {
            return Err(format!("the log of {incarnation} cannot be read (\u{1b}[2J)"));
        }
        self.asked.lock().unwrap().push((tail, follow));
        let all = ["agent | started", "tailscaled | two\nlines", "redis | colour\u{1b}[2J"];
        let skipped = all.len().saturating_sub(usize::try_from(tail).unwrap());
        let kept = stream::iter(all.into_iter().skip(skipped).map(str::to_owned));
        let to_come = self.to_come.lock().unwrap().take().filter(|_| follow);
        Ok(kept.chain(stream::iter(to_come.map(ReceiverStream::new)).flatten()).boxed())
    }
}
