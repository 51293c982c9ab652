//! What each node keeps of its cluster for an operator that lost its store: the manifest, and of the
//! record what nobody can observe.
//!
//! There is no secret in it: users are in it as hashes, as in the manifest. A node cannot forge it,
//! because the operator signs it; it may hand back an older one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::annotations::{ACCEPT_LOSS, CLOSE, MASTER, MIGRATE, REJOIN};
use super::types::RedisCluster;
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::incarnation::{Deployed, Incarnation, Membership};
use crate::model::money::PricePerBlock;
use crate::model::record::Record;

/// The only form there is.
const VERSION: u32 = 1;

/// One cluster as it was at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptCopy {
    /// Of this form.
    pub version: u32,
    /// Whose cluster it is.
    pub installation: InstallationId,
    /// The manifest with its name and generation, without what commands asked for: whoever goes on
    /// from a copy asks again.
    pub manifest: RedisCluster,
    /// Of the record.
    pub epoch: u64,
    /// Epoch of the data; 0 when nothing was ever written.
    pub data_epoch: u64,
    /// Who was master then.
    pub data_master: Option<IncarnationName>,
    /// What filled its nodes.
    pub nodes: BTreeMap<IncarnationName, KeptNode>,
}

/// One incarnation as it was in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptNode {
    /// Its deployment.
    pub dseq: u64,
    /// It promotes nothing below this epoch.
    pub epoch_floor: u64,
    /// The most it may cost per block.
    pub max_price: PricePerBlock,
    /// What it was to the master.
    pub membership: Membership,
    /// The incarnation it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<IncarnationName>,
    /// Why it was given up, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
    /// The terms that its lease was made with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lease_terms: String,
    /// The resources that its lease was made with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resources: String,
    /// What it was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Deployed>,
}

impl KeptCopy {
    /// Of a cluster and its record. The same two give the same copy.
    #[must_use]
    pub fn of(cluster: &RedisCluster, record: &Record, installation: &InstallationId) -> Self {
        let mut manifest = RedisCluster { status: None, ..cluster.clone() };
        let metadata = &mut manifest.metadata;
        metadata.resource_version = None;
        for command in [MIGRATE, MASTER, ACCEPT_LOSS, REJOIN, CLOSE] {
            metadata.annotations.remove(command);
        }
        let node = |(name, i): (&IncarnationName, &Incarnation)| {
            let node = KeptNode {
                dseq: i.dseq,
                epoch_floor: i.epoch_floor,
                max_price: i.max_price,
                membership: i.membership,
                replaces: i.replaces.clone(),
                given_up: i.condemned.as_ref().map(|c| c.reason.clone()),
                lease_terms: i.lease_terms.clone(),
                resources: i.resources.clone(),
                deployed: i.deployed.clone(),
            };
            (name.clone(), node)
        };
        Self {
            version: VERSION,
            installation: installation.clone(),
            manifest,
            epoch: record.epoch,
            data_epoch: record.data_epoch,
            data_master: record.data_master.clone(),
            nodes: record.incarnations.iter().map(node).collect(),
        }
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        // Our own types, with text for keys: there is nothing in them that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a text back; the error is a phrase.
    ///
    /// # Errors
    /// It is of another form, as a later version may write.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let copy: Self = serde_json::from_slice(text).map_err(|error| {
            format!("cannot be read, a later version may have made it: {error}")
        })?;
        if copy.version != VERSION {
            return Err(format!("is of form {}, and this version knows {VERSION}", copy.version));
        }
        Ok(copy)
    }

    /// Of two copies the one that knows more has the higher: each change of master raises the
    /// epoch, each change of the manifest the generation.
    #[must_use]
    pub fn age(&self) -> (u64, u64) {
        (self.epoch, self.manifest.metadata.generation.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::UnixMs;

    #[test]
    fn a_copy_says_what_cannot_be_observed_and_no_command() {
        let mut cluster: RedisCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster",
            "metadata": {"name": "cache", "generation": 4, "resourceVersion": "9", "annotations": {"team": "a"}},
            "spec": {"nodes": 3}
        }))
        .unwrap();
        cluster.metadata.annotations.insert(MASTER.into(), "cache-1-b@3".into());
        let mut record = Record { epoch: 7, data_epoch: 6, ..Record::default() };
        let name = IncarnationName("cache-0-a".into());
        let incarnation = Incarnation::new(0, 5, UnixMs(1), 2, PricePerBlock(9));
        record.incarnations.insert(name.clone(), incarnation);
        let copy = KeptCopy::of(&cluster, &record, &InstallationId("abcdef".into()));
        assert_eq!(KeptCopy::read(copy.text().as_bytes()), Ok(copy.clone()));
        assert_eq!(copy.age(), (7, 4));
        let metadata = &copy.manifest.metadata;
        assert_eq!(metadata.annotations.keys().collect::<Vec<_>>(), ["team"]);
        assert_eq!((&metadata.resource_version, copy.nodes[&name].dseq), (&None, 5));
        // What moves by itself is not in it: a node is not told of it.
        record.incarnations.get_mut(&name).unwrap().redis_down = Some(UnixMs(3));
        record.term = 9;
        assert_eq!(KeptCopy::of(&cluster, &record, &copy.installation), copy);
        assert!(
            KeptCopy::read(copy.text().replace("\"version\":1", "\"version\":2").as_bytes())
                .is_err()
        );
    }
}
