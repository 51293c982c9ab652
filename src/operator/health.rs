//! What is outside and every cluster needs: whether it is there is logged, shown and measured, also
//! while no cluster exists that could say so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use super::metrics::Metrics;
use super::settings::Settings;
use crate::announce::PublicKey;
use crate::api::quantity::Money;
use crate::api::report::{OperatorReport, Source, SourceState};
use crate::api::wallet::{GrantReport, WalletReport};
use crate::model::chain::ChainView;
use crate::model::funds::{Grant, WalletOutlook};
use crate::model::ids::IncarnationName;
use crate::model::money::{Uact, akt};
use crate::model::time::UnixMs;
use crate::server::StatusCache;

/// What is wrong in ever other words is logged so often at most.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// The last reading of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Why it could not be read.
    pub error: Option<String>,
    /// It is there and says no.
    pub refused: bool,
    /// What was seen, when it could.
    pub seen: String,
}

/// What the wallet holds: for deposits, and for fees in uakt.
pub type Balances = Option<(Uact, u64)>;

/// How the sources are.
pub struct Health {
    metrics: Metrics,
    status_cache: Arc<StatusCache>,
    state: Mutex<State>,
}

struct State {
    report: OperatorReport,
    /// When the log last spoke of each source.
    logged: [UnixMs; 3],
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The chain.
    Chain,
    /// The tailnet's control API.
    Tailnet,
    /// The operator's own way onto the mesh.
    Mesh,
}

impl Health {
    /// Nothing was read yet.
    pub fn new(settings: &Settings, metrics: Metrics, status_cache: Arc<StatusCache>) -> Self {
        let report = OperatorReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            installation: settings.constants.installation.to_string(),
            public_key: PublicKey::of_ca(&settings.root.ca_pem())
                .map(|key| key.to_string())
                .unwrap_or_default(),
            wallet: settings.constants.owner.clone(),
            budget_global: Some(Money(settings.budget_global)),
            budget_per_cluster: Some(Money(settings.budget_per_cluster)),
            ..OperatorReport::default()
        };
        status_cache.publish_operator(report.clone());
        metrics.money.global(settings.budget_global);
        let state = Mutex::new(State { report, logged: [UnixMs::default(); 3] });
        Self { metrics, status_cache, state }
    }

    /// What the wallet holds, when that was read.
    pub fn wallet(&self, balances: Balances) {
        let Some((balance, fees)) = balances else { return };
        let mut state = lock(&self.state);
        state.report.balance = Some(Money(balance));
        state.report.fee_balance = Some(fees);
        self.metrics.money.wallet(balance, fees);
        self.status_cache.publish_operator(state.report.clone());
    }

    /// What the wallet holds and pays, and until when that does.
    pub fn outlook(&self, chain: &ChainView, outlook: &WalletOutlook) {
        let address = lock(&self.state).report.wallet.clone();
        self.metrics.money.outlook(chain, outlook);
        self.metrics.chain.read(chain);
        self.status_cache.publish_wallet(wallet_report(address, chain, outlook));
    }

    /// Where what others read is published.
    pub fn status_cache(&self) -> &StatusCache {
        &self.status_cache
    }

    /// The clusters that run and of which the store knows nothing: while there is one, the operator
    /// changes nothing of it and begins no other.
    pub fn store(&self, lost: &BTreeMap<String, BTreeMap<u64, IncarnationName>>, now: UnixMs) {
        let mut state = lock(&self.state);
        let before = state.report.store_lost.take();
        if !lost.is_empty() {
            let told = |(name, all): (&String, &BTreeMap<u64, IncarnationName>)| {
                let dseqs: Vec<_> = all.keys().map(u64::to_string).collect();
                format!("{name} (dseq {})", dseqs.join(", "))
            };
            let clusters: Vec<_> = lost.iter().map(told).collect();
            state.report.store_lost = Some(format!(
                "it knows nothing of what the wallet pays for, as when it was lost: {}; read-only: nothing of these is bought, closed or deleted and no new cluster is begun. \
                 Bring a good copy of the store back, or look with `akash-redis recover` and take over with `akash-redis recover --confirm`, or give a cluster up with its data by `akash-redis orphans NAME --close`",
                clusters.join("; ")
            ));
        }
        match (&before, &state.report.store_lost) {
            (old, Some(new)) if old.as_ref() != Some(new) => tracing::warn!("store: {new}"),
            (Some(_), None) => tracing::warn!("store: it knows all clusters again, since {now}"),
            _ => {}
        }
        self.status_cache.publish_operator(state.report.clone());
    }

    /// A source was read, or could not be.
    pub fn took(&self, which: Which, read: &Read, now: UnixMs) {
        let mut state = lock(&self.state);
        let State { report, logged } = &mut *state;
        let (name, place, logged) = match which {
            Which::Chain => ("chain", &mut report.chain, &mut logged[0]),
            Which::Tailnet => ("tailnet", &mut report.tailnet, &mut logged[1]),
            Which::Mesh => ("mesh", &mut report.mesh, &mut logged[2]),
        };
        let new = match (&read.error, read.refused) {
            (None, _) => SourceState::Ok,
            (Some(_), true) => SourceState::Refused,
            (Some(_), false) => SourceState::Away,
        };
        let message = read.error.as_ref().unwrap_or(&read.seen).clone();
        let before = place.state;
        let other_words = new != SourceState::Ok && place.message != message;
        if before != new || (other_words && now.passed(*logged, LOG_EVERY)) {
            *logged = now;
            match (before, new) {
                (SourceState::Unknown, SourceState::Ok) => tracing::info!("{name}: {message}"),
                (_, SourceState::Ok) => tracing::warn!("{name}: it is back: {message}"),
                _ => tracing::warn!("{name}: {message}"),
            }
        }
        let since = if before == new { place.since.clone() } else { now.to_string() };
        *place = Source { state: new, since, message };
        self.metrics.source(name, new == SourceState::Ok);
        self.status_cache.publish_operator(report.clone());
    }
}

/// The wallet as it is shown.
fn wallet_report(address: String, chain: &ChainView, outlook: &WalletOutlook) -> WalletReport {
    let grant = |grant: &Grant, amount: fn(u64) -> String| GrantReport {
        granter: grant.granter.clone(),
        holds: amount(grant.holds),
        rest: grant.terms.as_ref().and_then(|terms| terms.limit).map(amount),
        expires: grant.expires().map(|at| at.to_string()),
        problem: grant.problem(chain.block_time),
    };
    let funds = &chain.funds;
    WalletReport {
        address,
        read: chain.block_time.to_string(),
        act: Some(Money(funds.own_act)),
        akt: akt(funds.own_uakt),
        in_escrow: Some(Money(outlook.in_escrow)),
        leases: u64::try_from(outlook.leases).unwrap_or(u64::MAX),
        per_month: Some(Money(outlook.per_month)),
        last_refill: outlook.refills_end.map(|at| at.to_string()),
        fees_end: outlook.fees_end.map(|at| at.to_string()),
        treasury: funds.treasury.as_ref().map(|it| grant(it, |uact| Uact(uact).to_string())),
        fee_grant: funds.fee_grant.as_ref().map(|it| grant(it, akt)),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn health() -> (Health, Arc<StatusCache>, Registry) {
        let (mut registry, cache) = (Registry::default(), Arc::new(StatusCache::default()));
        let metrics = Metrics::register(&mut registry);
        let state = State { report: OperatorReport::default(), logged: [UnixMs::default(); 3] };
        (Health { metrics, status_cache: cache.clone(), state: Mutex::new(state) }, cache, registry)
    }

    #[test]
    fn what_is_away_is_shown_and_measured_without_any_cluster() {
        let (health, cache, registry) = health();
        assert!(cache.operator().wrong().is_empty(), "nothing was asked yet");
        let read = |error: Option<&str>, refused| Read {
            error: error.map(str::to_owned),
            refused,
            seen: "height 5".into(),
        };
        health.took(Which::Chain, &read(Some("a node of another chain"), false), UnixMs(1000));
        health.took(Which::Tailnet, &read(Some("the secret is wrong"), true), UnixMs(1000));
        health.took(Which::Chain, &read(Some("a node of another chain"), false), UnixMs(9000));
        let report = cache.operator();
        assert_eq!(
            report.wrong(),
            ["chain: a node of another chain", "tailnet: the secret is wrong"]
        );
        assert_eq!(report.chain.since, UnixMs(1000).to_string(), "since it is so");
        assert_eq!(report.tailnet.state, SourceState::Refused);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        assert!(text().contains("akash_redis_source_up{source=\"chain\"} 0"), "{}", text());
        health.took(Which::Chain, &read(None, false), UnixMs(10_000));
        assert_eq!(cache.operator().wrong(), ["tailnet: the secret is wrong"]);
        assert!(text().contains("akash_redis_source_up{source=\"chain\"} 1"), "{}", text());
        health.wallet(Some((Uact(2_500_000), 500_000)));
        assert!(text().contains("akash_redis_wallet_balance_act 2.5"), "{}", text());
        assert!(text().contains("akash_redis_wallet_fee_balance_akt 0.5"), "{}", text());
    }

    #[test]
    fn a_change_is_logged_once() {
        let (health, ..) = health();
        let at = |health: &Health| lock(&health.state).logged[0];
        let read =
            |error: &str| Read { error: Some(error.into()), refused: false, seen: String::new() };
        health.took(Which::Chain, &read("x"), UnixMs(1000));
        assert_eq!(at(&health), UnixMs(1000));
        health.took(Which::Chain, &read("x"), UnixMs(500_000));
        health.took(Which::Chain, &read("y"), UnixMs(2000));
        assert_eq!(at(&health), UnixMs(1000), "the same, or too soon");
        health.took(Which::Chain, &read("z"), UnixMs(62_000));
        assert_eq!(at(&health), UnixMs(62_000));
    }
}
