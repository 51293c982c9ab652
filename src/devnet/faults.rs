//! Everything that can go wrong with the local market, by name: one list for tests, for the command
//! line and for its socket.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::chain::ChainControl;
use super::distance::Distance;
use super::net::{Net, NetError};
use super::provider::certificate::ProviderCertificate;
use super::provider::client::ClientError;
use super::provider::faults::ProviderFault;
use super::provider::gateway::Identity;
use super::provider::market::MarketControl;
use super::provider::runner::Runner;
use crate::wire::akash::market::v1::{LeaseClosedReason, LeaseId};

/// A time as people write it: `500ms`, `6s`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let each = match &text[digits.len()..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => 0,
        };
        match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(each)) {
            Some(ms) if ms > 0 => Ok(Self(Duration::from_millis(ms))),
            _ => Err("a time is written like 500ms, 6s, 2m or 1h".to_owned()),
        }
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

/// Why a provider closes a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// The workload does not run well: 10000.
    Unstable,
    /// The provider ends its business: 10001.
    Decommission,
    /// It does not say: 10002.
    Unspecified,
    /// No manifest came in time: 10003.
    ManifestTimeout,
}

impl CloseReason {
    /// On the chain.
    #[must_use]
    pub fn on_chain(self) -> LeaseClosedReason {
        match self {
            Self::Unstable => LeaseClosedReason::Unstable,
            Self::Decommission => LeaseClosedReason::Decommission,
            Self::Unspecified => LeaseClosedReason::Unspecified,
            Self::ManifestTimeout => LeaseClosedReason::ManifestTimeout,
        }
    }
}

/// Something that goes wrong, once or until it is cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Fault {
    /// Chain: blocks come so slowly, e.g. 6s.
    SlowBlocks {
        /// Time between blocks.
        every: Time,
    },
    /// Chain: no further block is made.
    HaltChain,
    /// Chain: transactions get into blocks in another order than they came.
    ReorderTransactions,
    /// Chain: the next transactions take effect, and their answers are lost.
    LoseAnswers {
        /// How many.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Chain: the next transactions are lost on their way.
    LoseTransactions {
        /// How many.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Chain: the next calls are refused as one too many.
    RateLimit {
        /// How many.
        #[arg(default_value_t = 100)]
        count: u32,
    },
    /// Chain: its node takes calls and answers none.
    SilentNode,
    /// Chain: its node answers as of so many blocks ago.
    NodeBehind {
        /// How many, 49 at most.
        #[arg(value_parser = clap::value_parser!(u64).range(1..50))]
        blocks: u64,
    },
    /// Chain: governance asks for at least this deposit.
    MinDeposit {
        /// In uact; 500000 is usual.
        uact: u64,
    },
    /// Provider: it bids on nothing.
    NoBids {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Provider: it wins leases, takes manifests and starts nothing.
    NeverDeploys {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Provider: it starts nothing and says that everything is ready.
    LiesReady {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Provider: it says that nothing was deployed, whatever runs.
    LiesGone {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Provider: it serves another manifest than the one it was given: the former one, or in a new
    /// lease one without variables.
    OtherManifest {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Provider: what ran goes on when its lease ends.
    KeepsRunning {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Provider: its bids offer half of what is ordered.
    OffersLess {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Provider: its next bids are at so many per cent of its usual price.
    Price {
        /// Which, e.g. provider1.
        provider: String,
        /// 100 is usual.
        percent: u32,
    },
    /// Provider: its next bids promise a notice; only such a lease can be reclaimed, and it cannot be
    /// closed without.
    Reclaimable {
        /// Which, e.g. provider1.
        provider: String,
        /// The notice, 10s at least.
        #[arg(default_value = "1m")]
        notice: Time,
    },
    /// Provider: its gateway shows another certificate.
    ChangeCertificate {
        /// Which, e.g. provider1.
        provider: String,
        /// The chain is told of it, as when a provider renews its own.
        #[arg(long)]
        published: bool,
    },
    /// Provider: its gateway answers everything with an HTTP status, e.g. 503.
    GatewayStatus {
        /// Which, e.g. provider1.
        provider: String,
        /// The status.
        #[arg(value_parser = clap::value_parser!(u16).range(400..600))]
        status: u16,
    },
    /// Provider: its gateway takes calls and answers none.
    GatewaySilent {
        /// Which, e.g. provider1.
        provider: String,
    },
    /// Lease: its provider closes it.
    CloseLease {
        /// The deployment's sequence number, see `akash-redis get NAME -o yaml`.
        dseq: u64,
        /// What it gives as the reason.
        #[arg(long, value_enum, default_value_t = CloseReason::Unstable)]
        reason: CloseReason,
    },
    /// Lease: its provider announces that it will close it after the notice, and does.
    StartReclaim {
        /// The deployment's sequence number, see `akash-redis get NAME -o yaml`.
        dseq: u64,
        /// What it gives as the reason.
        #[arg(long, value_enum, default_value_t = CloseReason::Decommission)]
        reason: CloseReason,
    },
    /// Lease: its container dies and stays dead; the lease goes on.
    NodeOff {
        /// The deployment's sequence number, see `akash-redis get NAME -o yaml`.
        dseq: u64,
    },
    /// Path: nothing passes to or from a node for so long.
    Stall {
        /// The deployment's sequence number, see `akash-redis get NAME -o yaml`.
        dseq: u64,
        /// E.g. 3s.
        time: Time,
    },
    /// Path: nodes are so far apart from now on; the market was started with --latency.
    Distance(Distance),
    /// Lease: its container is stopped with SIGTERM and 30 s of grace, and started again, as when its
    /// machine is drained.
    RestartNode {
        /// The deployment's sequence number, see `akash-redis get NAME -o yaml`.
        dseq: u64,
    },
    /// Lease: the volumes of its node have no room left.
    DiskFull {
        /// The deployment's sequence number, see `akash-redis get NAME -o yaml`.
        dseq: u64,
    },
    /// Lease: its container is killed, and starts again on volumes that are read-only.
    DiskReadOnly {
        /// The deployment's sequence number, see `akash-redis get NAME -o yaml`.
        dseq: u64,
    },
}

impl Fault {
    /// As it is typed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// A fault cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// No such provider.
    #[error("there is no provider {name}; there are {known}")]
    NoProvider {
        /// As it was called.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The chain is not ours.
    #[error(
        "the chain of this market runs elsewhere, and nothing of it can be changed from here; faults of providers and leases can be made"
    )]
    ForeignChain,
    /// No such lease.
    #[error(
        "no provider here has a lease of deployment {0}; `akash-redis get NAME -o yaml` shows the dseq of each node"
    )]
    NoLease(u64),
    /// No container of it runs.
    #[error("no container of deployment {0} runs here that could be switched off")]
    NoNode(u64),
    /// No volume of it is mounted.
    #[error(
        "no node of deployment {0} with a volume of its own runs here, so nothing can be wrong with one"
    )]
    NoVolume(u64),
    /// No node of it is on the network.
    #[error("no node of deployment {0} runs here whose network could be changed")]
    NoPath(u64),
    /// Nodes are on one bridge.
    #[error("the nodes of this market are on one bridge; start it with --latency to move them")]
    NotApart,
    /// The sandbox's network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Not part of this market.
    #[error("{0} has no gateway here")]
    NoGateway(String),
    /// Nothing of that name.
    #[error("{0} is not in force; `akash-redis devnet fault list` shows what is")]
    NotInForce(String),
    /// The chain refused the provider.
    #[error(transparent)]
    Chain(#[from] ClientError),
    /// No certificate.
    #[error("another certificate cannot be made ({0})")]
    Certificate(String),
}

/// A provider for whoever makes it misbehave.
#[derive(Clone)]
pub struct ProviderControl {
    /// Its name.
    pub name: String,
    /// Its business on the chain.
    pub market: MarketControl,
    /// Its gateway, where it has one.
    pub gateway: Option<GatewayControl>,
    /// What runs its containers, where something does.
    pub runner: Option<Arc<Runner>>,
}

/// A gateway for whoever makes it misbehave.
#[derive(Clone)]
pub struct GatewayControl {
    /// What it shows.
    pub identity: Arc<Identity>,
    /// Its host name.
    pub hostname: String,
    /// What it showed first.
    pub usual: Arc<ProviderCertificate>,
}

/// The whole market for whoever makes it misbehave.
#[derive(Clone)]
pub struct MarketFaults {
    /// The chain, where it is ours.
    pub chain: Option<ChainControl>,
    /// The providers.
    pub providers: Vec<ProviderControl>,
    /// Least deposit without a fault, in uact.
    pub usual_deposit: u128,
    /// The nodes' network, where there is one.
    pub net: Option<Arc<Net>>,
}

impl MarketFaults {
    /// Makes it so; says what is so now.
    ///
    /// # Errors
    /// There is no such provider or lease, or the chain refuses what the provider would do.
    pub async fn inject(&self, fault: &Fault) -> Result<String, FaultError> {
        use Fault as F;
        if let Some(sentence) = self.of_provider(fault)? {
            return Ok(sentence);
        }
        match fault {
            F::ChangeCertificate { provider, published } => {
                let provider = self.provider(provider)?;
                provider.change_certificate(*published).await
            }
            F::CloseLease { dseq, reason } => {
                let (provider, lease) = self.lease(*dseq).await?;
                provider.market.close_lease(&lease, reason.on_chain()).await?;
                Ok(format!("{} closed its lease of deployment {dseq}", provider.name))
            }
            F::StartReclaim { dseq, reason } => {
                let (provider, lease) = self.lease(*dseq).await?;
                provider.market.start_reclaim(&lease, reason.on_chain()).await?;
                tokio::spawn(close_when_due(provider.clone(), lease, *reason));
                Ok(format!(
                    "{} reclaims deployment {dseq}, and closes its lease after the notice",
                    provider.name
                ))
            }
            F::NodeOff { dseq } => {
                let switched = self.nodes(*dseq).any(|(runner, lease)| runner.power_off(&lease));
                if switched {
                    Ok(format!("the container of deployment {dseq} is off"))
                } else {
                    Err(FaultError::NoNode(*dseq))
                }
            }
            F::Stall { dseq, time } => self.stall(*dseq, time.0).await,
            F::Distance(distance) => {
                let switch = self.net.as_ref().and_then(|net| net.switch());
                switch.ok_or(FaultError::NotApart)?.set_distance(*distance);
                Ok(format!("nodes are {distance} apart"))
            }
            F::RestartNode { dseq } => {
                if self.nodes(*dseq).any(|(runner, lease)| runner.restart(&lease)) {
                    Ok(format!("the container of deployment {dseq} is stopped, and started again"))
                } else {
                    Err(FaultError::NoNode(*dseq))
                }
            }
            F::DiskFull { dseq } => self.disk_full(*dseq),
            F::DiskReadOnly { dseq } => self.disk_read_only(*dseq).await,
            _ => self.of_chain(fault),
        }
    }

    /// The path is back by itself.
    async fn stall(&self, dseq: u64, time: Duration) -> Result<String, FaultError> {
        let node = self.nodes(dseq).find_map(|(runner, lease)| runner.address(&lease));
        let (Some(net), Some(node)) = (self.net.clone(), node) else {
            return Err(FaultError::NoPath(dseq));
        };
        net.set_link(node, false).await?;
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Err(error) = net.set_link(node, true).await {
                tracing::warn!(%error, dseq, "a path that stalled does not come back");
            }
        });
        Ok(format!(
            "nothing passes to or from the node of deployment {dseq} for {} ms",
            time.as_millis()
        ))
    }

    /// Faults of the chain.
    fn of_chain(&self, fault: &Fault) -> Result<String, FaultError> {
        use Fault as F;
        let chain = self.chain.as_ref().ok_or(FaultError::ForeignChain)?;
        let faults = chain.faults();
        Ok(match fault {
            F::SlowBlocks { every: Time(every) } => {
                faults.set_block_time(Some(*every));
                format!("a block every {} ms", every.as_millis())
            }
            F::HaltChain => {
                faults.stop_blocks(true);
                "the chain stands still".to_owned()
            }
            F::ReorderTransactions => {
                faults.reorder(true);
                "the newest transactions come first, the oldest a block later".to_owned()
            }
            F::LoseAnswers { count } => {
                faults.lose_answers(*count);
                format!("the answers to the next {count} transactions are lost")
            }
            F::LoseTransactions { count } => {
                faults.lose_requests(*count);
                format!("the next {count} transactions are lost")
            }
            F::RateLimit { count } => {
                faults.refuse_calls(*count);
                format!("the next {count} calls are refused")
            }
            F::SilentNode => {
                faults.set_silent(true);
                "the node answers nothing".to_owned()
            }
            F::NodeBehind { blocks } => {
                faults.set_lag(*blocks);
                format!("the node is {blocks} blocks behind")
            }
            F::MinDeposit { uact } => {
                let params = chain.params();
                chain
                    .set_params(super::ledger::Params { min_deposit: u128::from(*uact), ..params });
                format!("deposits under {uact}uact are refused from the next block on")
            }
            _ => unreachable!("the others are not of the chain"),
        })
    }

    /// Switches of a provider; `None` for other faults.
    fn of_provider(&self, fault: &Fault) -> Result<Option<String>, FaultError> {
        use Fault as F;
        let (name, switch) = match fault {
            F::NoBids { provider } => (provider, ProviderFault::NoBids),
            F::NeverDeploys { provider } => (provider, ProviderFault::NeverDeploys),
            F::LiesReady { provider } => (provider, ProviderFault::LiesReady),
            F::LiesGone { provider } => (provider, ProviderFault::LiesGone),
            F::OtherManifest { provider } => (provider, ProviderFault::OtherManifest),
            F::KeepsRunning { provider } => (provider, ProviderFault::KeepsRunning),
            F::OffersLess { provider } => (provider, ProviderFault::OffersLess),
            F::Price { provider, percent } => (provider, ProviderFault::Price(*percent)),
            F::Reclaimable { provider, notice } => (provider, ProviderFault::Reclaimable(notice.0)),
            F::GatewayStatus { provider, status } => {
                (provider, ProviderFault::GatewayStatus(*status))
            }
            F::GatewaySilent { provider } => (provider, ProviderFault::GatewaySilent),
            _ => return Ok(None),
        };
        let provider = self.provider(name)?;
        provider.market.faults.set(switch);
        Ok(Some(format!("{}: {}", provider.name, words(switch))))
    }

    /// What is wrong now, one line each.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let chain = self.chain.iter().flat_map(|chain| self.chain_list(chain));
        let providers = self.providers.iter().flat_map(|provider| {
            let changed = provider.gateway.as_ref().is_some_and(|g| g.identity.is_changed());
            let switches = provider.market.faults.present();
            let lines = switches.into_iter().map(|f| format!("{} {}", f.name(), said(provider, f)));
            let changed = changed
                .then(|| format!("change-certificate {}: another certificate", provider.name));
            lines.chain(changed).collect::<Vec<_>>()
        });
        let off = self.providers.iter().filter_map(|p| p.runner.as_ref()).flat_map(|runner| {
            let off = runner.leases().into_iter().filter(|lease| runner.is_off(lease));
            off.map(|lease| format!("node-off {}: its container is dead", lease.dseq))
                .collect::<Vec<_>>()
        });
        chain.chain(providers).chain(off).chain(self.disks()).collect()
    }

    fn chain_list(&self, chain: &ChainControl) -> Vec<String> {
        let faults = chain.faults();
        let [answers, requests, calls] = faults.outstanding();
        let deposit = chain.params().min_deposit;
        let every = faults.slow_blocks().map(|every| every.as_millis()).unwrap_or_default();
        let lines = [
            (every > 0, format!("slow-blocks: a block every {every} ms")),
            (faults.blocks_stopped(), "halt-chain: no block is made".to_owned()),
            (faults.reordered(), "reorder-transactions: the newest come first".to_owned()),
            (answers > 0, format!("lose-answers: of {answers} more transactions")),
            (requests > 0, format!("lose-transactions: {requests} more")),
            (calls > 0, format!("rate-limit: {calls} more calls are refused")),
            (faults.is_silent(), "silent-node: it answers nothing".to_owned()),
            (faults.lag() > 0, format!("node-behind: by {} blocks", faults.lag())),
            (deposit != self.usual_deposit, format!("min-deposit: {deposit}uact")),
        ];
        lines.into_iter().filter(|(wrong, _)| *wrong).map(|(_, line)| line).collect()
    }

    /// Ends a fault, wherever it is in force, or all of them.
    ///
    /// # Errors
    /// Nothing of that name is in force.
    pub fn clear(&self, name: Option<&str>) -> Result<String, FaultError> {
        let named =
            |line: &String| name.is_none_or(|name| line.split([' ', ':']).next() == Some(name));
        let ended: Vec<_> = self.list().into_iter().filter(named).collect();
        if let (Some(name), true) = (name, ended.is_empty()) {
            return Err(FaultError::NotInForce(name.to_owned()));
        }
        let hit = |fault: &str| name.is_none_or(|name| name == fault);
        if let Some(chain) = &self.chain {
            self.clear_chain(chain, &hit);
        }
        for provider in &self.providers {
            for fault in provider.market.faults.present() {
                if hit(fault.name()) {
                    provider.market.faults.clear(fault.name());
                }
            }
            if let Some(gateway) = provider.gateway.as_ref().filter(|_| hit("change-certificate"))
                && gateway.identity.is_changed()
                && let Err(error) = gateway.identity.restore(&gateway.usual)
            {
                return Err(FaultError::Certificate(error.to_string()));
            }
            if let Some(runner) = provider.runner.as_ref().filter(|_| hit("node-off")) {
                for lease in runner.leases() {
                    runner.power_on(&lease);
                }
            }
        }
        self.clear_disks(&hit);
        Ok(if ended.is_empty() {
            "nothing was wrong".to_owned()
        } else {
            format!("ended: {}", ended.join("; "))
        })
    }

    fn clear_chain(&self, chain: &ChainControl, hit: &dyn Fn(&str) -> bool) {
        let faults = chain.faults();
        let all: [(&str, &dyn Fn()); 9] = [
            ("slow-blocks", &|| faults.set_block_time(None)),
            ("halt-chain", &|| faults.stop_blocks(false)),
            ("reorder-transactions", &|| faults.reorder(false)),
            ("lose-answers", &|| faults.lose_answers(0)),
            ("lose-transactions", &|| faults.lose_requests(0)),
            ("rate-limit", &|| faults.refuse_calls(0)),
            ("silent-node", &|| faults.set_silent(false)),
            ("node-behind", &|| faults.set_lag(0)),
            ("min-deposit", &|| {
                let params = chain.params();
                let min_deposit = self.usual_deposit;
                chain.set_params(super::ledger::Params { min_deposit, ..params });
            }),
        ];
        all.iter().filter(|(name, _)| hit(name)).for_each(|(_, clear)| clear());
    }

    fn provider(&self, name: &str) -> Result<&ProviderControl, FaultError> {
        let found = self.providers.iter().find(|p| p.name == name || p.market.address() == name);
        found.ok_or_else(|| {
            let known: Vec<_> = self.providers.iter().map(|p| p.name.as_str()).collect();
            FaultError::NoProvider { name: name.to_owned(), known: known.join(", ") }
        })
    }

    async fn lease(&self, dseq: u64) -> Result<(&ProviderControl, LeaseId), FaultError> {
        for provider in &self.providers {
            let leases = provider.market.leases().await?;
            if let Some(lease) = leases.into_iter().find(|lease| lease.dseq == dseq) {
                return Ok((provider, lease));
            }
        }
        Err(FaultError::NoLease(dseq))
    }

    fn nodes(
        &self,
        dseq: u64,
    ) -> impl Iterator<Item = (Arc<Runner>, super::provider::host::LeaseKey)> {
        let runners = self.providers.iter().filter_map(|p| p.runner.clone());
        runners.flat_map(move |runner| {
            let leases = runner.leases().into_iter().filter(move |lease| lease.dseq == dseq);
            leases.map(move |lease| (runner.clone(), lease)).collect::<Vec<_>>()
        })
    }
}

impl ProviderControl {
    async fn change_certificate(&self, published: bool) -> Result<String, FaultError> {
        let Some(gateway) = &self.gateway else {
            return Err(FaultError::NoGateway(self.name.clone()));
        };
        let other =
            ProviderCertificate::make(self.market.address(), &gateway.hostname, SystemTime::now())
                .map_err(|error| FaultError::Certificate(error.to_string()))?;
        if published {
            let (cert, pubkey) = (other.cert_pem.clone(), other.pubkey_pem.clone());
            self.market.publish(cert.into_bytes(), pubkey.into_bytes()).await?;
        }
        gateway
            .identity
            .change(&other)
            .map_err(|error| FaultError::Certificate(error.to_string()))?;
        let known = if published { "the chain lists" } else { "the chain does not list" };
        Ok(format!("the gateway of {} shows another certificate, which {known}", self.name))
    }
}

/// As soon as the chain takes it.
async fn close_when_due(provider: ProviderControl, lease: LeaseId, reason: CloseReason) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Ok(leases) = provider.market.leases().await else { continue };
        // It may have ended otherwise.
        if !leases.contains(&lease)
            || provider.market.close_lease(&lease, reason.on_chain()).await.is_ok()
        {
            return;
        }
    }
}

fn said(provider: &ProviderControl, fault: ProviderFault) -> String {
    format!("{}: {}", provider.name, words(fault))
}

fn words(fault: ProviderFault) -> String {
    match fault {
        ProviderFault::NoBids => "it bids on nothing".to_owned(),
        ProviderFault::NeverDeploys => "it takes manifests and starts nothing".to_owned(),
        ProviderFault::LiesReady => "it starts nothing and says that all is ready".to_owned(),
        ProviderFault::LiesGone => "it says that nothing was deployed".to_owned(),
        ProviderFault::OtherManifest => "it serves another manifest than it was given".to_owned(),
        ProviderFault::KeepsRunning => "what ran goes on when its lease ends".to_owned(),
        ProviderFault::OffersLess => "its bids offer half of what is ordered".to_owned(),
        ProviderFault::Price(percent) => format!("its bids are at {percent} % of its usual price"),
        ProviderFault::Reclaimable(notice) => {
            format!("its bids promise a notice of {} s", notice.as_secs())
        }
        ProviderFault::GatewayStatus(status) => format!("its gateway answers {status}"),
        ProviderFault::GatewaySilent => "its gateway answers nothing".to_owned(),
    }
}

mod disks;

#[cfg(test)]
mod tests;
