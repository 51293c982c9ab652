//! Figures: a median each, beside that of the peer.

use serde_json::json;

pub struct Figure {
    name: String,
    unit: &'static str,
    ours: f64,
    peer: Option<f64>,
    /// The lowest and the highest ratio of the two in one round.
    rounds: Option<[f64; 2]>,
    n: usize,
}

impl Figure {
    pub fn new(name: &str, unit: &'static str, ours: f64, peer: f64, n: usize) -> Self {
        Self { name: name.to_owned(), unit, ours, peer: Some(peer), rounds: None, n }
    }

    /// Of rounds in which both were measured, one right after the other.
    #[allow(dead_code, reason = "not every program that uses this file has such rounds")]
    pub fn of_rounds(name: &str, unit: &'static str, ours: &[f64], peer: &[f64]) -> Self {
        let mut ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
        ratios.sort_by(f64::total_cmp);
        let rounds = ratios.first().zip(ratios.last()).map(|(low, high)| [*low, *high]);
        Self { rounds, ..Self::new(name, unit, median(ours), median(peer), ours.len()) }
    }

    /// One that has nothing beside it.
    pub fn alone(name: &str, unit: &'static str, ours: f64, n: usize) -> Self {
        Self { name: name.to_owned(), unit, ours, peer: None, rounds: None, n }
    }

    fn ratio(&self) -> Option<f64> {
        // Nothing beside nothing is no ratio.
        self.peer.map(|peer| self.ours / peer).filter(|ratio| ratio.is_finite())
    }
}

/// Of at least one value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

pub fn table(figures: &[Figure]) -> String {
    let shown =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let row = |name: &str, unit: &str, [ours, peer, ratio]: [String; 3], n: &str| {
        format!("{name:<46} {unit:<5} {ours:>9} {peer:>9} {ratio:>7} {n:>3}")
    };
    let head = row("FIGURE", "UNIT", ["OURS", "PEER", "RATIO"].map(str::to_owned), "N");
    let rows = figures.iter().map(|f| {
        row(&f.name, f.unit, [Some(f.ours), f.peer, f.ratio()].map(shown), &f.n.to_string())
    });
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

pub fn json(figures: &[Figure]) -> String {
    let entry = |f: &Figure| json!({"name": f.name, "unit": f.unit, "ours": f.ours, "peer": f.peer, "ratio": f.ratio(), "ratioOfRounds": f.rounds, "n": f.n});
    format!("{:#}\n", figures.iter().map(entry).collect::<serde_json::Value>())
}
