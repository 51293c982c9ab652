//! Figures of one process: its processor time, its memory, and how long plans took.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::home::Kind;

/// Of one size.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub home: Kind,
    pub clusters: usize,
    /// Processor time per cluster and second, microseconds.
    pub cpu_us: f64,
    pub reconciles_per_second: f64,
    /// Milliseconds; the upper end of the bucket of the histogram.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub rss_mib: f64,
    /// Requests to the apiserver each second; none where there is no apiserver.
    pub readings_per_second: Option<f64>,
    pub writes_per_second: Option<f64>,
    /// From a change of an object to the plan that follows from it, milliseconds.
    pub change_p50_ms: f64,
    pub change_max_ms: f64,
    /// From the start of the next operator until it planned every cluster, seconds.
    pub first_pass_s: f64,
}

impl Figures {
    /// How long changes took.
    pub fn changes_take(&mut self, took: &[Duration]) {
        let mut took: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1000.0).collect();
        took.sort_by(f64::total_cmp);
        self.change_p50_ms = took.get(took.len() / 2).copied().unwrap_or(f64::NAN);
        self.change_max_ms = took.last().copied().unwrap_or(f64::NAN);
    }
}

/// The counters at one moment.
pub struct Sample {
    at: Instant,
    cpu_seconds: f64,
    /// Cumulative counts by upper end, seconds.
    buckets: Vec<(f64, f64)>,
    /// Readings and writes at the apiserver.
    requests: Option<(f64, f64)>,
}

impl Sample {
    pub async fn take(fleet: &Fleet) -> Self {
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
            requests: fleet.home().requests().await,
        }
    }

    /// What happened until a later sample.
    pub fn until(&self, later: &Self, clusters: usize, home: Kind) -> Figures {
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
        let requests = self.requests.zip(later.requests);
        Figures {
            home,
            clusters,
            cpu_us: (later.cpu_seconds - self.cpu_seconds) * 1e6 / cluster_seconds,
            reconciles_per_second: all / seconds,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            rss_mib: rss_mib(),
            readings_per_second: requests.map(|(a, b)| (b.0 - a.0) / seconds),
            writes_per_second: requests.map(|(a, b)| (b.1 - a.1) / seconds),
            change_p50_ms: f64::NAN,
            change_max_ms: f64::NAN,
            first_pass_s: f64::NAN,
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
        "{:>10} {:>8} {:>16} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10} {:>9}",
        "HOME",
        "CLUSTERS",
        "CPU us/cluster/s",
        "PLANS/s",
        "P50 ms",
        "P99 ms",
        "RSS MiB",
        "READS/s",
        "WRITES/s",
        "CHANGE ms",
        "AT MOST ms",
        "RESTART s"
    );
    let row = |f: &Figures| {
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.2}"));
        format!(
            "{:>10} {:>8} {:>16.0} {:>8.0} {:>8.2} {:>8.2} {:>8.0} {:>8} {:>8} {:>10.1} {:>10.1} {:>9.1}",
            format!("{:?}", f.home),
            f.clusters,
            f.cpu_us,
            f.reconciles_per_second,
            f.p50_ms,
            f.p99_ms,
            f.rss_mib,
            rate(f.readings_per_second),
            rate(f.writes_per_second),
            f.change_p50_ms,
            f.change_max_ms,
            f.first_pass_s
        )
    };
    std::iter::once(head).chain(figures.iter().map(row)).collect::<Vec<_>>().join("\n")
}

/// With the growth of what a cluster costs from the smallest to the largest size of each home, and
/// with which profile it was built.
pub fn report(figures: &[Figures]) -> Value {
    let of = |home| figures.iter().filter(move |f| f.home == home);
    let growth = |home| Some(of(home).next_back()?.cpu_us / of(home).next()?.cpu_us);
    let growth = json!({
        "sqlite": growth(Kind::Sqlite), "kubernetes": growth(Kind::Kubernetes),
    });
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    json!({ "sizes": figures, "cpu_growth": growth, "profile": profile })
}
