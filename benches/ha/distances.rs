//! How long writes stand still where nodes are far apart, beside the aims: `make bench-distances`.
//!
//! At each distance so many planned changes and so many killed Redis as `HA_ROUNDS` says (5), with an
//! application that writes all the time through the proxy. The round trip is measured as that
//! application has it. A distance that fails or takes too long is said to have, and the next one is
//! measured; all of them together end within [`LIMIT`]. The figures are in
//! `target/bench/distances.json`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::application::{Application, Noticed, connect};
use super::figure::median;
use super::ours::Ours;
use super::{distance, setting};

/// Milliseconds one way, with jitter and loss: 60, 150 and 250 ms of round trip, and 150 ± 50 with
/// 1 % of packets lost.
const DISTANCES: &str = "30,75,125,75~25/1%";
/// All of it takes no longer, and one distance its share.
const LIMIT: Duration = Duration::from_mins(25);
/// Writes that show that all goes on: at a distance each takes a round trip.
const FEW: usize = 10;
/// Questions of which the median is the round trip.
const ASKED: usize = 21;

/// What one distance was like.
struct Measured {
    round_trip: f64,
    planned: Vec<Noticed>,
    killed: Vec<Noticed>,
}

/// Measures all distances; whether each came to its end.
pub async fn run(dir: &Path) -> bool {
    let rounds = setting("HA_ROUNDS", "5").parse().expect("HA_ROUNDS is a number");
    let distances = setting("HA_DISTANCES", DISTANCES);
    let all: Vec<&str> = distances.split(',').map(str::trim).collect();
    let until = Instant::now() + LIMIT;
    let mut rows = Vec::new();
    for (done, apart) in all.iter().enumerate() {
        eprintln!("{apart} ms one way");
        let left = u32::try_from(all.len() - done).unwrap_or(1);
        let share = until.saturating_duration_since(Instant::now()) / left;
        let work = measure(dir.join(format!("d{done}")), (*apart).to_owned(), rounds);
        // Whatever it started ends with it.
        let work = AbortOnDropHandle::new(tokio::spawn(work));
        let row = match timeout(share, work).await {
            Ok(Ok(measured)) => row(apart, &measured),
            Ok(Err(error)) => failed(apart, &error.to_string()),
            Err(_) => failed(apart, &format!("it was not done in {} s", share.as_secs())),
        };
        rows.push(row);
        // What is measured stays, whatever becomes of the rest.
        save(&rows);
    }
    println!("{}", table(&rows));
    println!("written to {}", save(&rows).display());
    rows.iter().all(|row| row["failed"].is_null())
}

async fn measure(dir: PathBuf, apart: String, rounds: usize) -> Measured {
    let ours = Ours::start(&dir, distance(&apart)).await;
    let round_trip = round_trip().await;
    let application = Application::start(Ours::finds());
    let (mut planned, mut killed) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("  round {round} of {rounds}");
        settle(&application).await;
        ours.switchover().await;
        ours.ready().await;
        planned.push(application.noticed(FEW).await);
        settle(&application).await;
        ours.kill_master().await;
        killed.push(application.noticed(FEW).await);
        ours.ready().await;
    }
    drop(application);
    ours.stop().await;
    Measured { round_trip, planned, killed }
}

async fn settle(application: &Application) {
    application.noticed(FEW).await;
    application.begin();
}

/// Milliseconds from a question to its answer, as the application has them.
async fn round_trip() -> f64 {
    let mut connection = loop {
        if let Ok(connection) = connect(&Ours::finds()).await {
            break connection;
        }
    };
    let mut took = Vec::new();
    while took.len() < ASKED {
        let asked = Instant::now();
        let answer: redis::RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
        if answer.is_ok() {
            took.push(asked.elapsed().as_secs_f64() * 1000.0);
        }
    }
    median(&took)
}

fn row(apart: &str, measured: &Measured) -> Value {
    let Measured { round_trip, planned, killed } = measured;
    json!({
        "oneWayMs": apart,
        "roundTripMs": round_trip,
        "planned": kind(planned, 5.0 * round_trip + 20.0, "5 round trips + 20 ms"),
        "killed": kind(killed, 4.0 * round_trip + 100.0, "4 round trips + 100 ms"),
    })
}

fn kind(seen: &[Noticed], aim: f64, aim_is: &str) -> Value {
    let gaps: Vec<f64> = seen.iter().map(|noticed| noticed.gap).collect();
    let middle = median(&gaps);
    json!({
        "n": seen.len(),
        "gapMs": {
            "median": middle,
            "shortest": gaps.iter().copied().fold(f64::INFINITY, f64::min),
            "longest": gaps.iter().copied().fold(0.0, f64::max),
            "all": gaps,
        },
        "errors": seen.iter().map(|noticed| noticed.errors).sum::<usize>(),
        "lost": seen.iter().map(|noticed| noticed.lost).sum::<usize>(),
        "aim": aim_is,
        "aimMs": aim,
        "reached": middle <= aim,
    })
}

fn failed(apart: &str, why: &str) -> Value {
    eprintln!("  {why}");
    json!({ "oneWayMs": apart, "failed": why })
}

fn table(rows: &[Value]) -> String {
    let line = |cells: [String; 8]| {
        let [apart, trip, what, n, middle, range, aim, reached] = cells;
        format!(
            "{apart:<10} {trip:>10} {what:<8} {n:>3} {middle:>9} {range:>16} {aim:>8} {reached:<7}"
        )
    };
    let head = ["ONE WAY", "ROUND TRIP", "WHAT", "N", "MEDIAN", "RANGE", "AIM", "REACHED"];
    let mut lines = vec![line(head.map(str::to_owned))];
    let ms = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
    for row in rows {
        let apart = row["oneWayMs"].as_str().unwrap_or_default();
        if let Some(why) = row["failed"].as_str() {
            lines.push(format!("{apart:<10} failed: {why}"));
            continue;
        }
        for what in ["planned", "killed"] {
            let (seen, gap) = (&row[what], &row[what]["gapMs"]);
            let reached = if seen["reached"] == true { "yes" } else { "no" };
            lines.push(line([
                apart.to_owned(),
                ms(&row["roundTripMs"]),
                what.to_owned(),
                seen["n"].to_string(),
                ms(&gap["median"]),
                format!("{} to {}", ms(&gap["shortest"]), ms(&gap["longest"])),
                ms(&seen["aimMs"]),
                reached.to_owned(),
            ]));
        }
    }
    lines.join("\n")
}

fn save(rows: &[Value]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/distances.json");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory of figures");
    let text = format!("{:#}\n", Value::Array(rows.to_vec()));
    std::fs::write(&path, text).expect("the file of figures");
    path
}
