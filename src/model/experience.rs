//! What the operator lived through with each provider: facts that the chain does not keep, in one
//! small piece for each. A provider that is new has none, and nothing is held against it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::money::{PricePerBlock, Uact};
use super::time::UnixMs;

/// By the provider's address.
pub type Experiences = BTreeMap<String, Experience>;

/// Providers that are remembered: more than the market has, and a bound for whoever registers many.
pub const PROVIDERS_KEPT: usize = 1000;
/// Prices remembered of one provider, each for other resources.
const PRICES_KEPT: usize = 8;
/// One trouble, in the thousandths in which it is counted.
const ONE: u32 = 1000;
/// Trouble counts half as much after this.
const HALF_LIFE: Duration = Duration::from_hours(14 * 24);
/// What a provider does to several nodes at one time is one trouble.
const ONE_OCCASION: Duration = Duration::from_hours(1);
/// Several troubles of late: three within some days.
const SEVERAL: u32 = 2500;
/// Each trouble of late makes an offer count as dearer by a quarter, four at most.
const DEARER_BY: u32 = 4;

/// What was lived through with one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Experience {
    /// When it was last heard of.
    pub seen: UnixMs,
    /// Bids on our orders that were still open when one was chosen or the order given up.
    pub bids: u32,
    /// Bids that were chosen.
    pub won: u32,
    /// Nodes that came up there.
    pub started: u32,
    /// Leases whose node never came up.
    pub failed_starts: u32,
    /// Nodes that ran there and were lost by it: it closed the lease, or they fell silent.
    pub incidents: u32,
    /// Failed starts and incidents in thousandths, as of `trouble_at`; it fades.
    pub trouble: u32,
    /// When trouble was last added.
    pub trouble_at: UnixMs,
    /// What it asked last, by the resources that were asked for.
    pub prices: BTreeMap<String, SeenPrice>,
}

/// A price that was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeenPrice {
    /// Per block.
    pub price: PricePerBlock,
    /// What that was per month by the block time of then.
    pub month: Uact,
    /// When.
    pub at: UnixMs,
}

/// One thing that was lived through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It bid on an order.
    Bid {
        /// For which resources.
        asked: String,
        /// What it asked.
        price: PricePerBlock,
        /// The same per month.
        month: Uact,
        /// The bid was chosen.
        won: bool,
    },
    /// A node came up.
    Started,
    /// A node never came up.
    FailedStart,
    /// It closed the lease of a node that ran, or such a node fell silent and was given up.
    Incident,
    /// An order that paid so much for these resources got no bid of it.
    NoBid {
        /// For which resources.
        asked: String,
        /// What it would have paid.
        at_most: PricePerBlock,
    },
}

impl Experience {
    /// One thing more was lived through.
    pub fn take(&mut self, note: &Note, now: UnixMs) {
        self.seen = self.seen.max(now);
        match note {
            Note::Bid { asked, price, month, won } => {
                self.bids = self.bids.saturating_add(1);
                self.won = self.won.saturating_add(u32::from(*won));
                let seen = SeenPrice { price: *price, month: *month, at: now };
                self.prices.insert(asked.clone(), seen);
                if self.prices.len() > PRICES_KEPT {
                    let oldest =
                        self.prices.iter().min_by_key(|(_, p)| p.at).map(|(k, _)| k.clone());
                    oldest.map(|oldest| self.prices.remove(&oldest));
                }
            }
            Note::Started => self.started = self.started.saturating_add(1),
            Note::FailedStart => {
                self.failed_starts = self.failed_starts.saturating_add(1);
                self.troubled(now);
            }
            Note::Incident => {
                self.incidents = self.incidents.saturating_add(1);
                self.troubled(now);
            }
            Note::NoBid { asked, at_most } => {
                if self.prices.get(asked).is_some_and(|seen| seen.price <= *at_most) {
                    self.prices.remove(asked);
                }
            }
        }
    }

    fn troubled(&mut self, now: UnixMs) {
        if self.trouble > 0 && !now.passed(self.trouble_at, ONE_OCCASION) {
            return;
        }
        (self.trouble, self.trouble_at) = (self.trouble_now(now).saturating_add(ONE), now);
    }

    /// Troubles of late, in thousandths: each counts half after two weeks, a quarter after four.
    #[must_use]
    pub fn trouble_now(&self, now: UnixMs) -> u32 {
        let (since, half) = (now.since(self.trouble_at).as_secs(), HALF_LIFE.as_secs());
        let halved = u32::try_from(since / half).ok().and_then(|n| self.trouble.checked_shr(n));
        let whole = halved.unwrap_or(0);
        // In a straight line from one half to the next.
        let faded = u64::from(whole / 2) * (since % half) / half;
        whole - u32::try_from(faded).unwrap_or(0)
    }

    /// There were several troubles of late: it is left, and taken when nobody else bids.
    #[must_use]
    pub fn is_avoided(&self, now: UnixMs) -> bool {
        self.trouble_now(now) >= SEVERAL
    }

    /// No trouble of late that would keep a node from moving there.
    #[must_use]
    pub fn is_good(&self, now: UnixMs) -> bool {
        self.trouble_now(now) < ONE
    }

    /// A price as it compares with others: trouble of late costs something too.
    #[must_use]
    pub fn weighed(&self, price: PricePerBlock, now: UnixMs) -> PricePerBlock {
        let trouble = u128::from(self.trouble_now(now).min(DEARER_BY * ONE));
        let more = (price.0 / u128::from(DEARER_BY * ONE)).saturating_mul(trouble);
        PricePerBlock(price.0.saturating_add(more))
    }
}

/// Forgets those that were not heard of for longest, where there are too many.
pub fn bound(all: &mut Experiences) {
    while all.len() > PROVIDERS_KEPT {
        let oldest = all.iter().min_by_key(|(_, e)| e.seen).map(|(who, _)| who.clone());
        let Some(oldest) = oldest else { return };
        all.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn after(incidents: &[u32]) -> Experience {
        let mut experience = Experience::default();
        for day in incidents {
            experience.take(&Note::Incident, NOW + DAY * *day);
        }
        experience
    }

    #[test]
    fn trouble_fades_and_several_within_days_are_several() {
        let rows: [(&[u32], u32, u32, bool); 6] = [
            (&[], 0, 0, false),
            (&[0], 0, 1000, false),
            (&[0], 14, 500, false),
            (&[0], 28, 250, false),
            (&[0, 1, 2], 2, 2895, true),
            (&[0, 14, 28], 28, 1750, false),
        ];
        for (incidents, day, trouble, avoided) in rows {
            let (experience, at) = (after(incidents), NOW + DAY * day);
            assert_eq!(experience.trouble_now(at), trouble, "{incidents:?} on day {day}");
            assert_eq!(experience.is_avoided(at), avoided, "{incidents:?} on day {day}");
        }
        assert_eq!(after(&[0, 1, 2]).trouble_now(NOW + DAY * 3650), 0);
        assert_eq!(after(&[5]).trouble_now(NOW), 1000, "a clock that was set back");
    }

    #[test]
    fn what_hits_many_nodes_at_once_is_one_trouble() {
        let mut experience = Experience::default();
        for minute in 0..20 {
            experience.take(&Note::Incident, NOW + Duration::from_mins(minute));
        }
        assert_eq!((experience.incidents, experience.trouble), (20, 1000));
        experience.take(&Note::FailedStart, NOW + Duration::from_hours(1));
        assert_eq!(experience.failed_starts, 1);
        assert!(experience.trouble > 1900);
    }

    #[test]
    fn a_new_provider_is_weighed_by_its_price_alone() {
        let price = PricePerBlock(4_000_000);
        assert_eq!(Experience::default().weighed(price, NOW), price);
        assert_eq!(after(&[0]).weighed(price, NOW).0, 5_000_000);
        let mut worst = Experience { trouble: 90_000, trouble_at: NOW, ..Experience::default() };
        assert_eq!(worst.weighed(price, NOW).0, 8_000_000, "twice the price at most");
        worst.trouble_at = UnixMs(0);
        assert_eq!(worst.weighed(price, NOW), price, "long ago");
    }

    #[test]
    fn prices_are_kept_by_what_was_asked_for_and_go_when_nobody_bids() {
        let bid = |asked: &str, price| Note::Bid {
            asked: asked.into(),
            price: PricePerBlock(price),
            month: Uact(1),
            won: false,
        };
        let mut experience = Experience::default();
        for n in 0..20 {
            experience.take(&bid(&format!("r{n}"), 5), NOW + DAY * n);
        }
        assert_eq!((experience.bids, experience.prices.len()), (20, PRICES_KEPT));
        assert!(experience.prices.contains_key("r19"));
        let none = |at_most| Note::NoBid { asked: "r19".into(), at_most: PricePerBlock(at_most) };
        experience.take(&none(4), NOW);
        assert!(experience.prices.contains_key("r19"), "it asks more than that anyway");
        experience.take(&none(5), NOW);
        assert!(!experience.prices.contains_key("r19"));
    }

    #[test]
    fn many_strangers_do_not_fill_the_memory() {
        let mut all: Experiences = (0..PROVIDERS_KEPT + 5)
            .map(|n| {
                let seen = UnixMs(n as u64);
                (format!("akash1{n}"), Experience { seen, ..Experience::default() })
            })
            .collect();
        bound(&mut all);
        assert_eq!(all.len(), PROVIDERS_KEPT);
        assert!(!all.contains_key("akash14") && all.contains_key("akash15"), "the oldest went");
    }

    #[test]
    fn an_experience_of_an_earlier_version_is_read() {
        let read: Experience = serde_json::from_str(r#"{"bids":3,"gone":1}"#).expect("read");
        assert_eq!(read.bids, 3);
    }
}
