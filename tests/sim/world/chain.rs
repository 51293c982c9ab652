//! TEMPORARY stand-in until the ledger lands.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::chain::{Chain, ChainError};
use akash_redis::model::chain::*;
use akash_redis::model::ids::LeaseId;
use akash_redis::model::money::{PricePerBlock, Uact, DEC_ONE};
use async_trait::async_trait;

use super::clock::Clock;
use super::fuse::Fuse;

#[derive(Default)]
struct State {
    deployments: BTreeMap<u64, DeploymentView>,
    mempool: Vec<String>,
    done: BTreeMap<String, Result<(), String>>,
    known: BTreeMap<String, ChainMsg>,
    creates: usize,
    signed: u64,
}

pub struct SimChain {
    clock: Clock,
    fuse: Arc<Fuse>,
    providers: u32,
    state: Mutex<State>,
    pub away: Mutex<bool>,
}

impl SimChain {
    pub fn new(clock: Clock, fuse: Arc<Fuse>, providers: u32) -> Arc<Self> {
        Arc::new(Self { clock, fuse, providers, state: Mutex::default(), away: Mutex::new(false) })
    }
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(6)).await;
            let mut s = self.state.lock().unwrap();
            let pool = std::mem::take(&mut s.mempool);
            for hash in pool {
                let msg = s.known[&hash].clone();
                let r = self.apply(&mut s, msg);
                s.done.insert(hash, r);
            }
            for d in s.deployments.values_mut() {
                if let (true, Some(oseq), true) = (d.active, d.open_order, d.bids.is_empty()) {
                    for p in 0..self.providers {
                        d.bids.push(BidView {
                            id: LeaseId { owner: "akash1owner".into(), dseq: d.dseq, gseq: 1, oseq, provider: format!("akash1provider{p}") },
                            price: PricePerBlock(u128::from(3 + p) * DEC_ONE),
                            fits: true,
                        });
                    }
                }
            }
        }
    }
    fn apply(&self, s: &mut State, msg: ChainMsg) -> Result<(), String> {
        match msg {
            ChainMsg::CreateDeployment { dseq, group, hash, deposit } => {
                if s.deployments.contains_key(&dseq) {
                    return Err("exists".into());
                }
                s.creates += 1;
                s.deployments.insert(dseq, DeploymentView {
                    dseq, active: true, hash: hash.to_vec(), created_at: 1, group_name: group.name, group: GroupState::Open,
                    open_order: Some(1), bids: vec![], leases: vec![],
                    escrow: EscrowView { open: true, left: deposit, spent: Uact(0), blocks_left: None },
                });
                Ok(())
            }
            ChainMsg::CreateLease(id) => {
                let d = s.deployments.get_mut(&id.dseq).ok_or("none")?;
                let bid = d.bids.iter().find(|b| b.id == id).ok_or("no bid")?.clone();
                if !d.active || d.open_order != Some(id.oseq) { return Err("order not open".into()); }
                d.open_order = None;
                d.bids.clear();
                d.leases.push(LeaseView { id, price: bid.price, state: LeaseState::Active, reason: 0 });
                Ok(())
            }
            ChainMsg::UpdateDeployment { dseq, hash } => {
                let d = s.deployments.get_mut(&dseq).ok_or("none")?;
                if !d.active || d.hash == hash { return Err("bad".into()); }
                d.hash = hash.to_vec();
                Ok(())
            }
            ChainMsg::CloseDeployment { dseq } => {
                let d = s.deployments.get_mut(&dseq).ok_or("none")?;
                if !d.active { return Err("closed".into()); }
                d.active = false;
                d.open_order = None;
                d.escrow.open = false;
                d.escrow.left = Uact(0);
                for l in &mut d.leases { l.state = LeaseState::Closed; }
                Ok(())
            }
        }
    }
    pub fn owner_address(&self) -> String { "akash1owner".into() }
    pub fn leased(&self, dseq: u64) -> bool {
        self.state.lock().unwrap().deployments.get(&dseq).is_some_and(|d| d.active && d.leases.iter().any(|l| l.state == LeaseState::Active))
    }
    pub fn hash_of(&self, dseq: u64) -> Option<[u8; 32]> {
        self.state.lock().unwrap().deployments.get(&dseq).and_then(|d| d.hash.clone().try_into().ok())
    }
    pub fn active_deployments(&self) -> BTreeSet<u64> {
        self.state.lock().unwrap().deployments.values().filter(|d| d.active).map(|d| d.dseq).collect()
    }
    pub fn providers_in_use(&self) -> BTreeSet<String> {
        self.state.lock().unwrap().deployments.values().filter(|d| d.active).flat_map(|d| d.leases.iter().map(|l| l.id.provider.clone())).collect()
    }
    pub fn creates(&self) -> usize { self.state.lock().unwrap().creates }
    pub fn in_escrow(&self) -> u64 { self.state.lock().unwrap().deployments.values().map(|d| d.escrow.left.0).sum() }
}

#[async_trait]
impl Chain for SimChain {
    fn owner(&self) -> &str { "akash1owner" }
    async fn read(&self, _known: &BTreeSet<u64>) -> Result<ChainView, ChainError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let s = self.state.lock().unwrap();
        Ok(ChainView {
            height: 1, block_time: self.clock.now(), block_ms: 6000, balance: Uact(100_000_000), fee_balance: 1_000_000, min_deposit: Uact(500_000),
            deployments: s.deployments.clone(),
            providers: (0..self.providers).map(|p| { let address = format!("akash1provider{p}"); (address.clone(), ProviderView { address, host_uri: "https://x:8443".into(), attributes: BTreeMap::new(), audited_by: vec![] }) }).collect(),
        })
    }
    async fn sign(&self, msg: &ChainMsg) -> Result<SignedTx, ChainError> {
        self.fuse.before().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut s = self.state.lock().unwrap();
        s.signed += 1;
        let hash = format!("tx{}", s.signed);
        s.known.insert(hash.clone(), msg.clone());
        Ok(SignedTx { dseq: msg.dseq(), purpose: format!("{msg:?}").chars().take(30).collect(), bytes: vec![], hash, timeout: self.clock.now() + Duration::from_secs(60) })
    }
    async fn settle(&self, tx: &SignedTx) -> Result<TxOutcome, ChainError> {
        self.fuse.before().await;
        { let mut s = self.state.lock().unwrap(); if !s.done.contains_key(&tx.hash) && !s.mempool.contains(&tx.hash) { s.mempool.push(tx.hash.clone()); } }
        self.fuse.after().await;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let r = self.state.lock().unwrap().done.get(&tx.hash).cloned();
            if let Some(r) = r {
                self.fuse.after().await;
                return Ok(match r { Ok(()) => TxOutcome::Landed { height: 1 }, Err(log) => TxOutcome::Failed { codespace: "sim".into(), code: 1, log } });
            }
        }
    }
}
