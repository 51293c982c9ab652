//! The threads that carry connections, one for each processor. A connection stays on the thread that
//! it was given to, with its client, its server and its timers: what comes for it wakes no other one.

use std::io;
use std::num::NonZero;
use std::thread::{self, available_parallelism};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// They end when this is dropped, and whatever runs on them with them.
pub(super) struct Threads {
    each: Vec<Handle>,
    _stop: DropGuard,
}

impl Threads {
    /// # Errors
    /// The system allows no further threads or file descriptors.
    pub fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let count = available_parallelism().map_or(1, NonZero::get);
        let each = (0..count).map(|_| start(stop.clone())).collect::<io::Result<_>>();
        let guard = stop.drop_guard();
        Ok(Self { each: each?, _stop: guard })
    }

    /// The one with the fewest tasks.
    pub fn least_loaded(&self) -> &Handle {
        let least = self.each.iter().min_by_key(|handle| handle.metrics().num_alive_tasks());
        least.expect("there is one for each processor")
    }
}

fn start(stop: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(stop.cancelled_owned());
    thread::Builder::new().name("connections".to_owned()).spawn(run)?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    /// Nothing here takes this long unless it is broken.
    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn connections_are_spread_over_all_threads_and_end_with_them() {
        let threads = Threads::start().unwrap();
        let (sender, mut at) = mpsc::unbounded_channel();
        for _ in &threads.each {
            let sender = sender.clone();
            threads.least_loaded().spawn(async move {
                sender.send(thread::current().id()).unwrap();
                std::future::pending::<()>().await;
            });
        }
        drop(sender);
        let mut used = HashSet::new();
        while used.len() < threads.each.len() {
            let one = timeout(LIMIT, at.recv()).await.expect("each has its own thread");
            used.insert(one.expect("it stays"));
        }
        drop(threads);
        assert_eq!(timeout(LIMIT, at.recv()).await.expect("they end"), None);
    }
}
