//! Many simulations at once: each is a thread's own runtime with its own clock.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs one simulation for each number of `range`, as many at a time as there are processors. The
/// first that fails fails the test.
pub fn in_many_worlds<F, Fut>(range: std::ops::RangeInclusive<u64>, stride: u64, simulation: F)
where
    F: Fn(u64) -> Fut + Sync,
    Fut: Future<Output = ()>,
{
    let next = AtomicU64::new(*range.start());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(stride.max(1), Ordering::SeqCst);
                    if n > *range.end() {
                        return;
                    }
                    in_a_world(simulation(n));
                }
            });
        }
    });
}

/// Runs one simulation under a paused clock of its own.
pub fn in_a_world<T>(simulation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(simulation)
}

/// A number from the environment, for longer runs than usual.
pub fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is not a number"))
    })
}
