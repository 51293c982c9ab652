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
    pub(crate) asked: Mutex<Vec<LogQuery>>,
    /// For the next reader who follows.
    pub(crate) to_come: Mutex<Option<mpsc::Receiver<String>>>,
}

#[async_trait]
impl NodeLogs for FakeLogs {
    async fn logs(
        &self,
        incarnation: &IncarnationName,
        query: &LogQuery,
    ) -> Result<LogLines, String> {
        if incarnation.0 != CONNECTED {
            return Err(format!("the log of {incarnation} cannot be read (\u{1b}[2J)"));
        }
        self.asked.lock().unwrap().push(query.clone());
        let all = ["agent | started", "tailscaled | two\nlines", "redis | colour\u{1b}[2J"];
        let source = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        let meant: Vec<_> = all.into_iter().filter(|line| query.means(&source(line))).collect();
        let skipped = meant.len().saturating_sub(usize::try_from(query.tail).unwrap());
        let kept = stream::iter(meant.into_iter().skip(skipped).map(str::to_owned));
        let to_come = self.to_come.lock().unwrap().take().filter(|_| query.follow);
        Ok(kept.chain(stream::iter(to_come.map(ReceiverStream::new)).flatten()).boxed())
    }
}
