//! Figures of one process: its processor time, its memory, and how long plans took.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fleet::Fleet;

/// Of one size.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub clusters: usize,
    /// Processor time per cluster and second, microseconds.
    pub cpu_us: f64,
    pub reconciles_per_second: f64,
    /// Milliseconds; the upper end of the bucket of the histogram.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub rss_mib: f64,
}

/// The counters at one moment.
pub struct Sample {
    at: Instant,
    cpu_seconds: f64,
    /// Cumulative counts by upper end, seconds.
    buckets: Vec<(f64, f64)>,
}

impl Sample {
    pub fn take(fleet: &Fleet) -> Self {
        let text = fleet.metrics();
        let bucket = |line: &str| {
            let rest = line.strip_prefix("akash_redis_reconcile_seconds_bucket{le=\"")?;
            let (end, count) = rest.split_once("\"} ")?;
            Some((end.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        };
        Self {
            at: Instant::now(),
            cpu_seconds: cpu_seconds(),
            buckets: text.lines().filter_map(bucket).collect(),
        }
    }

    /// What happened until a later sample.
    pub fn until(&self, later: &Self, clusters: usize) -> Figures {
        let seconds = (later.at - self.at).as_secs_f64();
        let counts: Vec<_> =
            self.buckets.iter().zip(&later.buckets).map(|(a, b)| (b.0, b.1 - a.1)).collect();
        let all = counts.last().expect("a histogram of plans").1;
        let quantile = |share: f64| {
            let found = counts.iter().find(|(_, count)| *count >= all * share);
            found.map_or(f64::NAN, |(end, _)| end * 1000.0)
        };
        #[allow(clippy::cast_precision_loss)] // thousands
        let cluster_seconds = clusters as f64 * seconds;
        Figures {
            clusters,
            cpu_us: (later.cpu_seconds - self.cpu_seconds) * 1e6 / cluster_seconds,
            reconciles_per_second: all / seconds,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            rss_mib: rss_mib(),
        }
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields = stat.rsplit(") ").next().expect("fields").split(' ');
    let ticks: f64 = fields.skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1024.0
}

pub fn table(figures: &[Figures]) -> String {
    let head = format!(
        "{:>8} {:>16} {:>8} {:>8} {:>8} {:>8}",
        "CLUSTERS", "CPU us/cluster/s", "PLANS/s", "P50 ms", "P99 ms", "RSS MiB"
    );
    let row = |f: &Figures| {
        format!(
            "{:>8} {:>16.0} {:>8.0} {:>8.2} {:>8.2} {:>8.0}",
            f.clusters, f.cpu_us, f.reconciles_per_second, f.p50_ms, f.p99_ms, f.rss_mib
        )
    };
    std::iter::once(head).chain(figures.iter().map(row)).collect::<Vec<_>>().join("\n")
}

/// With the growth of what a cluster costs from the smallest to the largest size.
pub fn report(figures: &[Figures]) -> Value {
    let growth = figures.first().zip(figures.last()).map(|(few, many)| many.cpu_us / few.cpu_us);
    json!({ "sizes": figures, "cpu_growth": growth })
}
