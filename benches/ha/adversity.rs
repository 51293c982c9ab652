//! The same load through six phases of rising faults, ours and Sentinel: what is left of throughput and
//! of the slowest answers, and what was lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::RedisResult;
use tokio_util::sync::CancellationToken;

use super::application::{Finds, connect, lost};
use super::figure::Figure;
use super::ours::Ours;
use super::sentinel::Peer;

/// Connections that write as fast as they are answered.
const CLIENTS: usize = 8;
/// A phase, and one in which a silent master has to be given up.
const PHASE: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_secs(30);
/// A stall that nobody should fail over from, and the time between two.
const STALL: Duration = Duration::from_millis(500);
const BETWEEN: Duration = Duration::from_secs(3);
/// After an error.
const PAUSE: Duration = Duration::from_millis(1);

/// What goes wrong in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Calm,
    Stalls,
    ReplicaKilled,
    MasterKilled,
    NodeSilent,
    BothKilled,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Calm,
        Self::Stalls,
        Self::ReplicaKilled,
        Self::MasterKilled,
        Self::NodeSilent,
        Self::BothKilled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Stalls => "stalls of 0.5 s",
            Self::ReplicaKilled => "replica killed",
            Self::MasterKilled => "master killed",
            Self::NodeSilent => "master silent",
            Self::BothKilled => "master and replica killed",
        }
    }

    fn takes(self) -> Duration {
        if self == Self::NodeSilent { LONG } else { PHASE }
    }
}

/// Who lives through it.
pub enum Under<'a> {
    Ours(&'a Ours),
    Sentinel(&'a mut Peer),
}

impl Under<'_> {
    fn finds(&self) -> Finds {
        match self {
            Self::Ours(_) => Ours::finds(),
            Self::Sentinel(peer) => peer.finds(),
        }
    }

    async fn stall(&self) {
        match self {
            Self::Ours(ours) => ours.stall_master(STALL).await,
            Self::Sentinel(peer) => peer.stall_master(STALL).await,
        }
    }

    /// Until the end of the phase.
    async fn suffer(&mut self, phase: Phase) {
        let began = Instant::now();
        let mut cut = None;
        match (&mut *self, phase) {
            (_, Phase::Calm) => {}
            (_, Phase::Stalls) => {
                while began.elapsed() + BETWEEN < phase.takes() {
                    tokio::time::sleep(BETWEEN).await;
                    self.stall().await;
                }
            }
            (Self::Ours(ours), Phase::ReplicaKilled) => ours.kill_replica().await,
            (Self::Ours(ours), Phase::MasterKilled) => ours.kill_master().await,
            (Self::Ours(ours), Phase::NodeSilent) => cut = Some(ours.cut_master().await),
            (Self::Ours(ours), Phase::BothKilled) => {
                ours.kill_replica().await;
                ours.kill_master().await;
            }
            (Self::Sentinel(peer), Phase::ReplicaKilled) => peer.kill_replica().await,
            (Self::Sentinel(peer), Phase::MasterKilled) => peer.kill_master().await,
            (Self::Sentinel(peer), Phase::NodeSilent) => peer.freeze_master().await,
            (Self::Sentinel(peer), Phase::BothKilled) => {
                peer.kill_replica().await;
                peer.kill_master().await;
            }
        }
        tokio::time::sleep(phase.takes().saturating_sub(began.elapsed())).await;
        if let (Self::Ours(ours), Some(dseq)) = (&*self, cut) {
            ours.join(dseq).await;
        }
    }

    async fn repair(&mut self) {
        match self {
            Self::Ours(ours) => ours.ready().await,
            Self::Sentinel(peer) => peer.repair().await,
        }
    }
}

/// What the load noticed.
#[derive(Default)]
pub struct Lived {
    phase: &'static str,
    per_second: f64,
    p99: f64,
    errors: usize,
    lost: usize,
}

#[derive(Default)]
struct Tally {
    acknowledged: Vec<u64>,
    took: Vec<f64>,
    errors: usize,
}

/// All phases, one after the other.
pub async fn live(mut under: Under<'_>) -> Vec<Lived> {
    let mut all = Vec::new();
    for (number, phase) in Phase::ALL.into_iter().enumerate() {
        eprintln!("  {}", phase.name());
        under.repair().await;
        let (stop, tally) = (CancellationToken::new(), Arc::<Mutex<Tally>>::default());
        let finds = under.finds();
        for client in 0..CLIENTS {
            let first = ((number * CLIENTS + client) as u64 + 1) << 32;
            let writes = write(finds.clone(), tally.clone(), first);
            tokio::spawn(stop.clone().run_until_cancelled_owned(writes));
        }
        let began = Instant::now();
        under.suffer(phase).await;
        let seconds = began.elapsed().as_secs_f64();
        stop.cancel();
        let seen = std::mem::take(&mut *lock(&tally));
        under.repair().await;
        let lost = lost(&finds, &seen.acknowledged).await;
        #[allow(clippy::cast_precision_loss)]
        let per_second = seen.acknowledged.len() as f64 / seconds;
        let (p99, errors) = (p99(seen.took), seen.errors);
        all.push(Lived { phase: phase.name(), per_second, p99, errors, lost });
    }
    all
}

/// Writes as fast as it is answered; the time of one counts from when it was first tried.
async fn write(finds: Finds, tally: Arc<Mutex<Tally>>, first: u64) {
    let (mut next, mut since) = (first, Instant::now());
    loop {
        let Ok(mut connection) = connect(&finds).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        loop {
            let done: RedisResult<()> = redis::cmd("SET")
                .arg(format!("k{next}"))
                .arg(next)
                .query_async(&mut connection)
                .await;
            let mut tally = lock(&tally);
            if done.is_err() {
                tally.errors += 1;
                break;
            }
            tally.acknowledged.push(next);
            tally.took.push(since.elapsed().as_secs_f64() * 1000.0);
            (next, since) = (next + 1, Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

fn p99(mut took: Vec<f64>) -> f64 {
    took.sort_by(f64::total_cmp);
    took.get(took.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// One phase a row, the peer beside it where it lived through the same.
pub fn report(figures: &mut Vec<Figure>, ours: &[Lived], peer: &[Lived]) {
    for (at, lived) in ours.iter().enumerate() {
        let beside = peer.get(at);
        let mut row = |what: &str, unit, value: fn(&Lived) -> f64| {
            let name = format!("{}: {what}", lived.phase);
            figures.push(match beside {
                Some(beside) => Figure::new(&name, unit, value(lived), value(beside), 1),
                None => Figure::alone(&name, unit, value(lived), 1),
            });
        };
        row("writes", "1/s", |l| l.per_second);
        row("p99", "ms", |l| l.p99);
        #[allow(clippy::cast_precision_loss)]
        row("errors", "", |l| l.errors as f64);
        #[allow(clippy::cast_precision_loss)]
        row("lost", "", |l| l.lost as f64);
    }
}
