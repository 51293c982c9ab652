//! How a watch is made: how long one lasts, and what one that failed waits before the next.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher;

use crate::model::time;

/// The apiserver ends a watch after this time, in seconds; it goes on where it was. That no watch is
/// silent for longer lets a connection that died without a word be told from a quiet one.
const LASTS: u32 = 8;
/// A connection on which an answer is awaited, and nothing comes for so long, has died.
pub(super) const SILENT: Duration = Duration::from_secs(10);

/// A watch of the operator, which has [`SILENT`] as the limit of its connections.
pub(super) fn watched() -> watcher::Config {
    watcher::Config::default().timeout(LASTS)
}

/// The longest one is the time for which an apiserver that is back may go unnoticed: the library's
/// own pauses grow to a minute.
const BETWEEN: time::Backoff =
    time::Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(5) };

/// The pauses of one watch: from 1 s to 5 s, and from 1 s again after each word that it brought.
#[derive(Default)]
pub(super) struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = BETWEEN.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use kube::runtime::WatchStreamExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_apiserver_that_is_back_after_hours_is_noticed_within_seconds() {
        let begun = Instant::now();
        // It is away for long, is there for one word, and away again.
        let watch = stream::iter((0..2000).map(|n| if n == 1000 { Ok(n) } else { Err(n) }));
        let tried: Vec<_> =
            watch.backoff(Pauses::default()).map(|_| begun.elapsed()).collect().await;
        let pauses: Vec<_> = tried
            .windows(2)
            .map(|two| two[1].saturating_sub(two[0]).as_secs_f64().round())
            .collect();
        assert_eq!(pauses[..4], [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(pauses[998..1004], [5.0, 5.0, 0.0, 1.0, 2.0, 4.0]);
        assert!(pauses.iter().all(|pause| *pause <= 5.0), "{pauses:?}");
    }
}
