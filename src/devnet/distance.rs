//! How far apart the nodes of the local market are, and when a frame between two of them arrives.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::faults::Time;

/// Jitter is that of a path and not of a frame: it changes this often.
const MOOD: Duration = Duration::from_millis(50);

/// A share as people write it: `1%`, `0.5%`. Held in hundredths of a per cent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percent(u32);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text);
        match number.parse::<f64>() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Ok(share) if (0.0..100.0).contains(&share) => Ok(Self((share * 100.0).round() as u32)),
            _ => Err("a share is written like 1% or 0.5%, and is less than 100%".to_owned()),
        }
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

/// What a frame meets on its way from one node to another, and between a node and everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Distance {
    /// What a packet takes from one node to another, or between a node and the rest of the market,
    /// e.g. 75ms; a round trip takes twice as long.
    // Not required of a command that may do without any distance; one that has none of these flags
    // has none.
    #[arg(long, value_name = "TIME", required = false)]
    pub latency: Time,
    /// By so much it is sometimes more and sometimes less, e.g. 25ms.
    #[arg(long, value_name = "TIME", requires = "latency")]
    pub jitter: Option<Time>,
    /// Share of packets that are lost, e.g. 1%.
    #[arg(long, value_name = "SHARE", requires = "latency")]
    pub loss: Option<Percent>,
}

impl Distance {
    /// As flags of a command.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let jitter = self.jitter.map(|time| ["--jitter".to_owned(), time.to_string()]);
        let loss = self.loss.map(|share| ["--loss".to_owned(), share.to_string()]);
        let latency = ["--latency".to_owned(), self.latency.to_string()];
        latency.into_iter().chain(jitter.into_iter().chain(loss).flatten()).collect()
    }
}

impl std::fmt::Display for Distance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} one way", self.latency)?;
        if let Some(jitter) = self.jitter {
            write!(f, ", {jitter} more or less")?;
        }
        match self.loss {
            Some(loss) => write!(f, ", {loss} of packets lost"),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy)]
struct Path {
    /// Added to the latency, milliseconds.
    jitter: f64,
    since: Instant,
    /// When the last frame arrives: none overtakes another.
    last: Instant,
}

/// All paths between ports; what is random follows from the seed.
pub struct Paths {
    random: StdRng,
    paths: BTreeMap<(u8, u8), Path>,
}

impl Paths {
    /// No frame was sent yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), paths: BTreeMap::new() }
    }

    /// When a frame that is sent now arrives; `None` when it is lost.
    pub fn arrival(
        &mut self,
        distance: &Distance,
        from: u8,
        to: u8,
        now: Instant,
    ) -> Option<Instant> {
        if distance.loss.is_some_and(|Percent(loss)| self.random.gen_range(0..10_000) < loss) {
            return None;
        }
        let most = distance.jitter.map_or(0.0, |Time(jitter)| jitter.as_secs_f64());
        let random = &mut self.random;
        let mut draw = || if most > 0.0 { random.gen_range(-most..=most) } else { 0.0 };
        let path = self.paths.entry((from, to)).or_insert_with(|| Path {
            jitter: draw(),
            since: now,
            last: now,
        });
        if now.duration_since(path.since) >= MOOD {
            (path.jitter, path.since) = (draw(), now);
        }
        let takes = (distance.latency.0.as_secs_f64() + path.jitter).max(0.0);
        path.last = path.last.max(now + Duration::from_secs_f64(takes));
        Some(path.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Distance =
        Distance { latency: Time(Duration::from_millis(75)), jitter: None, loss: None };

    fn apart(jitter: &str, loss: &str) -> Distance {
        Distance { jitter: jitter.parse().ok(), loss: loss.parse().ok(), ..FAR }
    }

    #[test]
    fn without_jitter_and_loss_each_frame_takes_the_latency() {
        let mut paths = Paths::new(1);
        let now = Instant::now();
        for n in 0..1000 {
            let sent = now + Duration::from_micros(n);
            let arrives = paths.arrival(&FAR, 100, 101, sent);
            assert_eq!(arrives, Some(sent + Duration::from_millis(75)));
        }
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_no_frame_overtakes_another() {
        let distance = apart("25ms", "0%");
        let mut paths = Paths::new(2);
        let (now, mut last, mut seen) =
            (Instant::now(), Instant::now(), std::collections::BTreeSet::new());
        for n in 0..5000 {
            let sent = now + Duration::from_millis(n);
            let arrives = paths.arrival(&distance, 100, 1, sent).expect("nothing is lost");
            let took = arrives - sent;
            assert!(took >= Duration::from_millis(50), "{took:?}");
            assert!(took <= Duration::from_millis(100), "{took:?}");
            assert!(arrives >= last, "frame {n} overtook another");
            last = arrives;
            seen.insert(took.as_millis() / 10);
        }
        assert!(seen.len() > 3, "it varies: {seen:?}");
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_asked_for() {
        let distance = apart("0ms", "1%");
        let mut paths = Paths::new(3);
        let now = Instant::now();
        let lost =
            (0..100_000).filter(|_| paths.arrival(&distance, 100, 101, now).is_none()).count();
        assert!((800..1200).contains(&lost), "{lost} of 100,000");
    }

    #[test]
    fn the_same_seed_gives_the_same_paths() {
        let now = Instant::now();
        let run = || {
            let mut paths = Paths::new(4);
            (0..100u64)
                .map(|n| {
                    paths.arrival(
                        &apart("20ms", "5%"),
                        100,
                        101,
                        now + Duration::from_millis(20 * n),
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        distance: Option<Distance>,
    }

    #[test]
    fn a_distance_is_typed_whole_or_not_at_all() {
        use clap::Parser as _;
        let typed = |text: &str| Command::try_parse_from(text.split(' ')).map(|c| c.distance);
        assert_eq!(typed("up").expect("without"), None);
        assert_eq!(typed("up --latency 75ms").expect("good"), Some(FAR));
        let whole = apart("25ms", "1%");
        let flags = format!("up {}", whole.flags().join(" "));
        assert_eq!(typed(&flags).expect("as it prints itself"), Some(whole));
        assert!(typed("up --jitter 25ms").is_err(), "of what?");
    }

    #[test]
    fn shares_are_read_as_people_write_them() {
        for (text, read) in [("1%", "1%"), ("0.5%", "0.5%"), ("2", "2%"), ("0%", "0%")] {
            assert_eq!(text.parse::<Percent>().expect("good").to_string(), read);
        }
        for bad in ["", "%", "-1%", "100%", "lots"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad}");
        }
    }
}
