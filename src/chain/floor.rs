//! Nothing is read from before our own last transaction: an endpoint that has not seen it yet would
//! show what is no more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For so long: a node that is further behind is not believed for its old blocks, and an endpoint
/// that named a height which never comes must not stop all others for good.
const HOLDS: Duration = Duration::from_mins(5);

/// Height of the last block with a transaction of ours.
#[derive(Debug, Default)]
pub(super) struct Floor(Mutex<Option<(i64, Instant)>>);

impl Floor {
    /// A transaction of ours landed there.
    pub fn raise(&self, height: i64) {
        let mut floor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = floor.filter(|(_, at)| at.elapsed() < HOLDS).map_or(0, |(height, _)| height);
        *floor = Some((height.max(before), Instant::now()));
    }

    /// By how many blocks a height is before it.
    pub fn above(&self, height: i64) -> Option<i64> {
        let floor = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (floor, _) = floor.filter(|(_, at)| at.elapsed() < HOLDS)?;
        Some(floor - height).filter(|behind| *behind > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rises_and_does_not_hold_for_ever() {
        let floor = Floor::default();
        assert_eq!(floor.above(1), None);
        floor.raise(10);
        floor.raise(7);
        assert_eq!((floor.above(8), floor.above(10), floor.above(11)), (Some(2), None, None));
        tokio::time::advance(HOLDS).await;
        assert_eq!(floor.above(1), None);
        floor.raise(3);
        assert_eq!(floor.above(2), Some(1));
    }
}
