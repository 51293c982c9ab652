//! What an agent leaves undone for a moment while clients wait for a handover: nobody waits for it,
//! and it would keep the processor, and the mesh, from those who carry the handover out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// No rest is longer. On machines that are near each other the handover is over by then.
pub const REST: Duration = Duration::from_millis(20);

/// Something that may rest.
#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<Instant>>);

impl Rest {
    /// It rests from now on, for [`REST`].
    pub fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }

    /// Returns as soon as it does not rest.
    pub async fn over(&self) {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rest_ends_by_itself() {
        let (rest, begun) = (Rest::default(), Instant::now());
        rest.over().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        rest.begin();
        rest.over().await;
        assert_eq!(begun.elapsed(), REST);
        rest.over().await;
        assert_eq!(begun.elapsed(), REST);
    }
}
