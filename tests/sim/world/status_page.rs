//! Looks at every effect as it happens and at the record under which it happens: what must never be
//! done is written down, in every simulation, whatever it is about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use akash_redis::model::change::Change;
use akash_redis::model::ids::{IncarnationName, InstallationId};
use akash_redis::model::incarnation::Incarnation;
use akash_redis::model::money::Uact;
use akash_redis::store::Stored;

use super::home::Home;

/// What it saw.
pub struct Witness {
    home: Arc<dyn Home>,
    installation: InstallationId,
    /// Who was promoted in each epoch of each cluster.
    promoted: Mutex<BTreeMap<(String, u64), IncarnationName>>,
    broken: Mutex<Vec<String>>,
}

impl Witness {
    pub fn new(home: Arc<dyn Home>, installation: InstallationId) -> Arc<Self> {
        Arc::new(Self { home, installation, promoted: Mutex::default(), broken: Mutex::default() })
    }

    /// Promises that were broken, one sentence each.
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap().clone()
    }

    pub fn expect(&self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.broken.lock().unwrap().push(sentence());
        }
    }

    async fn find(
        &self,
        which: impl Fn(&IncarnationName, &Incarnation) -> bool,
    ) -> Option<(Stored, IncarnationName, Incarnation)> {
        let all = self.home.seen().list().await.unwrap();
        all.into_iter().find_map(|stored| {
            let found = stored
                .record
                .incarnations
                .iter()
                .find(|(name, incarnation)| which(name, incarnation));
            let (name, incarnation) = found.map(|(n, i)| (n.clone(), i.clone()))?;
            Some((stored, name, incarnation))
        })
    }

    /// A deployment that exists is about to be created or changed: it must stand in the record.
    pub async fn touches(&self, dseq: u64) {
        let known = self.find(|_, i| i.dseq == dseq).await.is_some();
        self.expect(known, || format!("deployment {dseq} is touched and is in no record"));
    }

    /// The escrow of a deployment is about to be filled: the record must say so, and want it still.
    pub async fn fills(&self, dseq: u64) {
        let announced = self
            .find(|_, i| i.dseq == dseq)
            .await
            .is_some_and(|(_, _, i)| i.condemned.is_none() && i.top_up.is_some());
        self.expect(announced, || format!("deployment {dseq} is filled, which was not announced"));
    }

    /// An active deployment is about to be closed: only a condemned one may be.
    pub async fn closes(&self, dseq: u64) {
        let condemned =
            self.find(|_, i| i.dseq == dseq).await.is_some_and(|(_, _, i)| i.condemned.is_some());
        self.expect(condemned, || format!("deployment {dseq} is closed and was not condemned"));
    }

    /// The deployments of a cluster and its budget, for the deployment that is about to be leased.
    pub async fn budget(&self, dseq: u64) -> Option<(Vec<u64>, Uact)> {
        let (stored, ..) = self.find(|_, i| i.dseq == dseq).await?;
        let budget = stored.cluster.spec.budget.max_per_month?.0;
        Some((stored.record.incarnations.values().map(|i| i.dseq).collect(), budget))
    }

    /// A device is about to be deleted: only that of a condemned incarnation may be.
    pub async fn deletes_device(&self, hostname: &str, id: &str) {
        let name = IncarnationName::from_hostname(hostname, &self.installation);
        let condemned = self
            .find(|n, i| Some(n) == name.as_ref() || i.device.as_deref() == Some(id))
            .await
            .is_some_and(|(_, _, i)| i.condemned.is_some());
        self.expect(condemned, || {
            format!("the device {hostname} is deleted and was not condemned")
        });
    }

    /// A device is about to be shut off: only that of a master that is being given up, or was, may
    /// be.
    pub async fn quarantines(&self, hostname: &str) {
        let name = IncarnationName::from_hostname(hostname, &self.installation);
        let found = self.find(|n, _| Some(n) == name.as_ref()).await;
        let may = found.is_some_and(|(stored, name, _)| {
            let failing =
                matches!(&stored.record.change, Some(Change::Failover(f)) if f.old == name);
            failing || stored.record.master.is_none_or(|p| p.incarnation != name)
        });
        self.expect(may, || format!("the device {hostname} of the only master is shut off"));
    }

    /// A usable key is about to be revoked: only that of a condemned incarnation may be, or of one
    /// that never joined.
    pub async fn revokes(&self, description: &str) {
        let name = IncarnationName::from_key_description(description, &self.installation);
        let found = self.find(|n, _| Some(n) == name.as_ref()).await;
        let may = found.is_some_and(|(_, _, i)| i.condemned.is_some() || !i.has_joined());
        self.expect(may, || {
            format!("the key `{description}` is revoked and its node may still need it")
        });
    }

    /// The cluster of an incarnation, as it is when a command sets out.
    pub async fn stored(&self, name: &IncarnationName) -> Option<Stored> {
        self.home.seen().get(name.cluster()).await.ok()
    }

    /// It is being deleted, or gone: whatever it wrote may go.
    pub async fn is_deleted(&self, cluster: &str) -> bool {
        let stored = self.home.seen().get(cluster).await;
        stored.map_or(true, |s| s.cluster.metadata.deletion_timestamp.is_some())
    }

    /// A node was promoted: its choice was durable before, and nobody else is ever promoted in that
    /// epoch.
    pub fn promoted(&self, name: &IncarnationName, epoch: u64, stored: Option<&Stored>) {
        let chosen = stored.and_then(|s| s.record.master.as_ref());
        let durable =
            chosen.is_some_and(|p| (&p.incarnation == name && p.epoch == epoch) || p.epoch > epoch);
        let delegated = match stored.and_then(|s| s.record.change.as_ref()) {
            Some(Change::Switchover(s)) => {
                &s.target == name && s.delegated.as_ref().is_some_and(|d| d.epoch == epoch)
                    || s.epoch > epoch
            }
            _ => false,
        };
        self.expect(durable || delegated, || {
            format!("{name} was promoted in epoch {epoch}, the record says {chosen:?}")
        });
        let first = self
            .promoted
            .lock()
            .unwrap()
            .entry((name.cluster().to_owned(), epoch))
            .or_insert_with(|| name.clone())
            .clone();
        self.expect(&first == name, || {
            format!("{first} and {name} were both promoted in epoch {epoch}")
        });
    }
}
