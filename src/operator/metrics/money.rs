//! What it costs, for how long it is paid, and what may be spent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::super::lock;
use super::Cluster;
use crate::api::quantity::Money as Amount;
use crate::api::status::Cost;
use crate::model::books::Totals;
use crate::model::chain::ChainView;
use crate::model::funds::WalletOutlook;
use crate::model::ids::IncarnationName;
use crate::model::inventory::Inventory;
use crate::model::money::Uact;
use crate::model::record::Record;
use crate::model::time::UnixMs;

/// Millionths in a whole.
const MILLION: f64 = 1e6;

/// Names a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Node {
    cluster: String,
    node: String,
}

/// Names what a grant pays for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pays {
    pays: String,
}

type Number = Gauge<f64, AtomicU64>;

/// Amounts in ACT, times in seconds.
#[derive(Clone, Debug, Default)]
pub struct Money {
    cost: Family<Cluster, Number>,
    budget: Family<Cluster, Number>,
    spent: Family<Cluster, Number>,
    balance: Family<Node, Number>,
    runway: Family<Node, Number>,
    /// Escrows that are shown, by cluster: what is closed must not look as if it were paid.
    shown: Arc<Mutex<BTreeMap<String, BTreeSet<Node>>>>,
    wallet: Number,
    fees: Number,
    global: Number,
    escrows: Number,
    cost_of_all: Number,
    refills: Number,
    fees_last: Number,
    /// What grants of other accounts leave, by what they pay for.
    grants: Family<Pays, Number>,
    deposited: Number,
    paid: Number,
    refunded: Number,
    open: Number,
    debt: Number,
    burnt: Number,
}

impl Money {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "cluster_cost_act",
            "What the leases of a cluster cost per month of 30 days",
            self.cost.clone(),
        );
        ours.register(
            "cluster_budget_act",
            "The most that they may cost per month of 30 days, by all limits together",
            self.budget.clone(),
        );
        ours.register(
            "cluster_spent_act",
            "What providers got for a cluster so far, by all leases that it ever had",
            self.spent.clone(),
        );
        ours.register(
            "escrow_balance_act",
            "What is left in the escrow of a node",
            self.balance.clone(),
        );
        ours.register(
            "escrow_runway_seconds",
            "For how long the escrow of a node still pays, at its present price",
            self.runway.clone(),
        );
        ours.register(
            "wallet_balance_act",
            "What the wallet holds for deposits",
            self.wallet.clone(),
        );
        ours.register(
            "wallet_fee_balance_akt",
            "What the wallet holds for fees",
            self.fees.clone(),
        );
        ours.register(
            "budget_act",
            "The most that all clusters together may cost per month of 30 days",
            self.global.clone(),
        );
        ours.register(
            "wallet_escrow_act",
            "What is left in the escrows of all clusters",
            self.escrows.clone(),
        );
        ours.register(
            "wallet_cost_act",
            "What the leases of all clusters cost per month of 30 days",
            self.cost_of_all.clone(),
        );
        ours.register(
            "wallet_runway_seconds",
            "For how long the wallet can fill escrows; infinite when for years",
            self.refills.clone(),
        );
        ours.register(
            "wallet_fees_runway_seconds",
            "For how long the wallet can pay the fees of that; infinite when for years",
            self.fees_last.clone(),
        );
        ours.register(
            "wallet_grant_balance",
            "What grants of other accounts leave: ACT for deposits, AKT for fees",
            self.grants.clone(),
        );
        for (name, what, gauge) in [
            ("books_deposited_act", "Paid into escrow since the books were begun", &self.deposited),
            ("books_paid_act", "Paid to providers since the books were begun", &self.paid),
            (
                "books_refunded_act",
                "Come back from escrow since the books were begun",
                &self.refunded,
            ),
            ("books_in_escrow_act", "In escrow by the books", &self.open),
            ("books_debt_act", "Owed to providers beyond what was paid into escrow", &self.debt),
            ("books_fees_akt", "Fees since the books were begun", &self.burnt),
        ] {
            ours.register(name, what, gauge.clone());
        }
    }

    /// What the wallet pays, and until when that does.
    pub fn outlook(&self, chain: &ChainView, outlook: &WalletOutlook) {
        self.escrows.set(act(outlook.in_escrow));
        self.cost_of_all.set(act(outlook.per_month));
        let left = |end: Option<UnixMs>| {
            end.map_or(f64::INFINITY, |end| end.since(chain.block_time).as_secs_f64())
        };
        self.refills.set(left(outlook.refills_end));
        self.fees_last.set(left(outlook.fees_end));
        let grants = [("deposits", &chain.funds.treasury), ("fees", &chain.funds.fee_grant)];
        for (pays, grant) in grants {
            let Some(grant) = grant else { continue };
            let labels = Pays { pays: pays.to_owned() };
            let rest = grant.available(chain.block_time);
            self.grants.get_or_create(&labels).set(act(Uact(rest)));
        }
    }

    /// What the books come to since they were begun, of all clusters there ever were.
    pub fn books(&self, totals: Totals) {
        self.deposited.set(act(totals.deposited));
        self.paid.set(act(totals.paid));
        self.refunded.set(act(totals.refunded));
        self.open.set(act(totals.open));
        self.debt.set(act(totals.debt));
        self.burnt.set(act(Uact(totals.fees)));
    }

    /// What the operator may spend for all clusters.
    pub fn global(&self, budget: Uact) {
        self.global.set(act(budget));
    }

    /// What the wallet holds.
    pub fn wallet(&self, balance: Uact, fees_uakt: u64) {
        self.wallet.set(act(balance));
        self.fees.set(act(Uact(fees_uakt)));
    }

    /// What was published about a cluster, and the escrows of its nodes.
    pub fn cluster(&self, cluster: &str, cost: &Cost, record: &Record, inventory: &Inventory) {
        let labels = Cluster { cluster: cluster.to_owned() };
        let amount = |text: &str| text.parse::<Amount>().map(|m| act(m.0)).unwrap_or_default();
        self.cost.get_or_create(&labels).set(amount(&cost.per_month));
        self.budget.get_or_create(&labels).set(amount(&cost.max_per_month));
        self.spent.get_or_create(&labels).set(amount(&cost.spent));
        let Some(chain) = &inventory.chain.value else { return };
        let mut seen = BTreeSet::new();
        for (IncarnationName(node), incarnation) in &record.incarnations {
            let deployment = chain.deployments.get(&incarnation.dseq).filter(|d| d.active);
            let Some(deployment) = deployment else { continue };
            let labels = Node { cluster: cluster.to_owned(), node: node.clone() };
            self.balance.get_or_create(&labels).set(act(deployment.escrow.left));
            match deployment.escrow.blocks_left {
                Some(blocks) => {
                    let ms = blocks.saturating_mul(crate::plan::block_ms(inventory));
                    let runway = std::time::Duration::from_millis(ms).as_secs_f64();
                    self.runway.get_or_create(&labels).set(runway);
                }
                None => drop(self.runway.remove(&labels)),
            }
            seen.insert(labels);
        }
        self.keep(cluster, seen);
    }

    /// A cluster is gone.
    pub(super) fn forget(&self, cluster: &str) {
        let labels = Cluster { cluster: cluster.to_owned() };
        self.cost.remove(&labels);
        self.budget.remove(&labels);
        self.spent.remove(&labels);
        self.keep(cluster, BTreeSet::new());
    }

    fn keep(&self, cluster: &str, seen: BTreeSet<Node>) {
        let mut shown = lock(&self.shown);
        let before = shown.remove(cluster).unwrap_or_default();
        for gone in before.difference(&seen) {
            self.balance.remove(gone);
            self.runway.remove(gone);
        }
        if !seen.is_empty() {
            shown.insert(cluster.to_owned(), seen);
        }
    }
}

/// Whole coins. Twelve digits and more are told to six places of the first: a gauge is no ledger.
#[allow(clippy::cast_precision_loss)]
fn act(amount: Uact) -> f64 {
    amount.0 as f64 / MILLION
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::{DeploymentView, EscrowView, GroupState};
    use crate::model::incarnation::Incarnation;
    use crate::model::inventory::Reading;
    use crate::model::money::PricePerBlock;

    #[test]
    fn cost_budget_and_runway_can_be_read_and_go_with_the_node_and_the_cluster() {
        let mut registry = Registry::default();
        let money = Money::default();
        money.register(registry.sub_registry_with_prefix("akash_redis"));
        let deployment = DeploymentView {
            dseq: 7,
            created_height: 0,
            active: true,
            hash: Vec::new(),
            group_name: String::new(),
            group: GroupState::Open,
            open_order: None,
            ordered_at: None,
            bids: Vec::new(),
            leases: Vec::new(),
            escrow: EscrowView {
                open: true,
                left: Uact(1_500_000),
                spent: Uact(0),
                blocks_left: Some(100),
            },
        };
        let chain = ChainView {
            height: 1,
            block_time: UnixMs(1),
            block_ms: 6000,
            balance: Uact(0),
            fee_balance: 0,
            funds: crate::model::funds::Funds::default(),
            min_deposit: Uact(0),
            deployments: BTreeMap::from([(7, deployment)]),
            providers: BTreeMap::new(),
            statements: BTreeMap::new(),
        };
        let inventory =
            Inventory { chain: Reading::fresh(chain, UnixMs(1)), ..Inventory::default() };
        let mut record = Record::default();
        let incarnation = Incarnation::new(0, 7, UnixMs(0), 0, PricePerBlock(1));
        record.incarnations.insert(IncarnationName("cache-0-a".into()), incarnation);
        let cost = Cost {
            per_month: "9act".into(),
            max_per_month: "12.5act".into(),
            spent: "0.25act".into(),
            ..Cost::default()
        };
        money.cluster("cache", &cost, &record, &inventory);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        for line in [
            "akash_redis_cluster_cost_act{cluster=\"cache\"} 9.0",
            "akash_redis_cluster_budget_act{cluster=\"cache\"} 12.5",
            "akash_redis_cluster_spent_act{cluster=\"cache\"} 0.25",
            "akash_redis_escrow_balance_act{cluster=\"cache\",node=\"cache-0-a\"} 1.5",
            "akash_redis_escrow_runway_seconds{cluster=\"cache\",node=\"cache-0-a\"} 600.0",
        ] {
            assert!(text().contains(line), "{line} in {}", text());
        }
        record.incarnations.clear();
        money.cluster("cache", &cost, &record, &inventory);
        assert!(!text().contains("cache-0-a"), "{}", text());
        money.forget("cache");
        assert!(!text().contains("cache"), "{}", text());
    }
}
