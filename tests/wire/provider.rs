//! Recorded exchanges with a real gateway, and a provider to replay them against.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use akash_redis::devnet::provider::chain::{Account, Chain, Deployment};
use akash_redis::devnet::provider::host::{LeaseKey, ProviderHost, ProviderName, Workloads};
use akash_redis::sdl::canonical::Service;
use akash_redis::wire::akash::base::resources::v1beta4 as res;
use akash_redis::wire::akash::deployment::v1beta4::{GroupSpec, ResourceUnit};
use async_trait::async_trait;
use cosmrs::crypto::secp256k1::SigningKey;
use serde_json::Value;

pub const OWNER: &str = "akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh";
pub const PROVIDER: &str = "akash1nxm333kdfwk6mty4423xsefd4t7r64efg826jt";
pub const DSEQ: u64 = 1_795_520_007;
/// Public test phrase of the recordings.
const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch improve setup \
                      stuff frost spirit smart alien";

/// The recorded exchanges by name.
pub fn records() -> BTreeMap<String, Value> {
    let text = include_str!("../vectors/gateway-wire.jsonl");
    let parsed = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    parsed.map(|record| (record["name"].as_str().unwrap().to_owned(), record)).collect()
}

pub fn key(index: u32) -> SigningKey {
    let seed = bip39::Mnemonic::parse(PHRASE).unwrap().to_seed("");
    SigningKey::derive_from_path(seed, &format!("m/44'/118'/0'/0/{index}").parse().unwrap())
        .unwrap()
}

/// A chain and a cluster as the recordings had them.
#[derive(Default)]
pub struct World {
    pub accounts: Mutex<BTreeMap<String, Account>>,
    pub deployments: Mutex<BTreeMap<(String, u64), Deployment>>,
    pub leases: Mutex<BTreeMap<(String, u64), (u32, u32)>>,
    pub deployed: Mutex<Vec<LeaseKey>>,
    pub ready: AtomicBool,
    /// Look-ups that do not see the leases yet.
    pub hidden: AtomicUsize,
}

impl World {
    /// Knows the accounts of the test phrase.
    pub fn new() -> Arc<Self> {
        let world = Self::default();
        for index in 0..6 {
            let public = key(index).public_key();
            let address = public.account_id("akash").unwrap().to_string();
            world.accounts.lock().unwrap().insert(address, Account::Key(public.to_bytes()));
        }
        Arc::new(world)
    }

    pub fn deploy(
        &self,
        owner: &str,
        dseq: u64,
        hash: [u8; 32],
        groups: Vec<GroupSpec>,
        leased: bool,
    ) {
        self.deployments
            .lock()
            .unwrap()
            .insert((owner.into(), dseq), Deployment { hash: hash.to_vec(), groups });
        if leased {
            self.leases.lock().unwrap().insert((owner.into(), dseq), (1, 1));
        }
    }

    pub fn host(self: &Arc<Self>) -> Arc<ProviderHost> {
        let name = ProviderName {
            address: PROVIDER.into(),
            hostname: "ingress.provider.localtest".into(),
        };
        ProviderHost::new(name, self.clone(), self.clone())
    }
}

#[async_trait]
impl Chain for World {
    async fn account(&self, address: &str) -> Result<Account, String> {
        Ok(self.accounts.lock().unwrap().get(address).cloned().unwrap_or(Account::Unknown))
    }
    async fn deployment(&self, owner: &str, dseq: u64) -> Result<Option<Deployment>, String> {
        Ok(self.deployments.lock().unwrap().get(&(owner.into(), dseq)).cloned())
    }
    async fn leases(&self, owner: &str, dseq: u64, _: &str) -> Result<Vec<(u32, u32)>, String> {
        if self
            .hidden
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            return Ok(Vec::new());
        }
        Ok(self.leases.lock().unwrap().get(&(owner.into(), dseq)).copied().into_iter().collect())
    }
}

#[async_trait]
impl Workloads for World {
    async fn deploy(&self, lease: &LeaseKey, _: &Service, _: &str) {
        self.deployed.lock().unwrap().push(lease.clone());
    }
    async fn remove(&self, lease: &LeaseKey) {
        self.deployed.lock().unwrap().retain(|one| one != lease);
    }
    fn ready(&self, _: &LeaseKey) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// The group that the recordings' deployments had.
pub fn group(cpu: u32) -> GroupSpec {
    let value = |digits: String| Some(res::ResourceValue { val: digits.into_bytes() });
    let storage = res::Storage {
        name: "default".into(),
        quantity: value("1073741824".into()),
        attributes: vec![],
    };
    let resources = res::Resources {
        id: 1,
        cpu: Some(res::Cpu { units: value(cpu.to_string()), attributes: vec![] }),
        memory: Some(res::Memory { quantity: value("536870912".into()), attributes: vec![] }),
        storage: vec![storage],
        gpu: Some(res::Gpu { units: value("0".into()), attributes: vec![] }),
        endpoints: vec![res::Endpoint { kind: 0, sequence_number: 0 }],
    };
    let unit = ResourceUnit { resource: Some(resources), count: 1, price: None };
    GroupSpec { name: "dc1".into(), requirements: None, resources: vec![unit] }
}
