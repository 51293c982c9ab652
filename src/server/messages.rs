//! Bodies of the API that are not objects themselves.

use serde::{Deserialize, Serialize};

use crate::api::preview::Preview;
use crate::api::recover::Orphan;
use crate::api::types::RedisCluster;

/// Answer of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterList {
    /// By name.
    pub items: Vec<RedisCluster>,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was not there before.
    Created,
    /// It was changed.
    Configured,
    /// It was like that already.
    Unchanged,
}

/// Answer of an apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// What was done.
    pub outcome: Outcome,
    /// The object as it is now.
    pub cluster: RedisCluster,
}

/// One sentence: what was done, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// For people.
    pub message: String,
}

/// Which node shall move; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Migrate {
    /// A node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u32>,
    /// What fills it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
}

/// Which backup shall be restored to see that it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerifyBackup {
    /// Its id; the newest when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The end of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Cutover {
    /// The applications of the source are stopped: for one that does not let its writes be held.
    pub writes_stopped: bool,
    /// It is made though some keys could not be copied.
    pub accept_difference: bool,
}

/// Who shall be master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switchover {
    /// An incarnation or an ordinal; the replica that is least behind when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// How many nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Wanted number.
    pub nodes: u32,
}

/// Which deployments that are in no record shall be closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// By dseq.
    #[serde(default)]
    pub dseqs: Vec<u64>,
    /// Those of which there is a device or a key and no deployment, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incarnations: Vec<String>,
}

/// Which node a person fences, or fences no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// An incarnation or an ordinal.
    pub node: String,
    /// Who says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What may be lost, by a person's word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcceptLoss {
    /// Who takes over: an incarnation or an ordinal; the best one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Who says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The epoch of what was shown before; refused when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// Which node shall join again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejoin {
    /// An incarnation or an ordinal.
    pub node: String,
}

/// Which container shall be started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// An incarnation or an ordinal; all nodes when there is none.
    #[serde(default)]
    pub node: Option<String>,
}

/// Manifests to look at as if they were applied, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Previewed {
    /// As an apply would send them.
    pub clusters: Vec<RedisCluster>,
}

/// What an apply of each would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Previews {
    /// In the order in which they were asked for.
    pub items: Vec<Preview>,
}

/// What came of a test message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// Who should have got it; no token is in it.
    pub target: String,
    /// It was taken.
    pub ok: bool,
    /// One sentence.
    pub message: String,
}

/// What came of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// In the order of the settings.
    pub items: Vec<Tested>,
}
/// Which cluster is taken over; all that can be when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recover {
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// What of an orphan report shall be given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloseOrphans {
    /// As they were listed: what differs from that is not touched.
    pub orphans: Vec<Orphan>,
    /// Clusters that no record knows, and that a person gives up by name.
    pub clusters: Vec<String>,
}

/// What came of the wish for one incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Its name.
    pub incarnation: String,
    /// It is going to be closed; else the message says why not.
    pub asked: bool,
    /// One sentence.
    pub message: String,
}
