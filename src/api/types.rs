//! The manifest, `akash-redis.dev/v1alpha1` `RedisCluster`. These types are the source of the JSON
//! schema and of the manifest reference.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup::{Backup, Bootstrap};
use super::quantity::{Bytes, Cpu, Money, Percent, Span};
use super::status::Status;
use super::window::Window;
pub use crate::model::identity::Egress;

/// The only version there is.
pub const API_VERSION: &str = "akash-redis.dev/v1alpha1";
/// The only kind there is.
pub const KIND: &str = "RedisCluster";

/// A highly available Redis on leases of independent providers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisCluster {
    /// `akash-redis.dev/v1alpha1`
    pub api_version: String,
    /// `RedisCluster`
    pub kind: String,
    /// Name and book-keeping.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
    /// What is; written by the operator alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Name and book-keeping of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// 1 to 20 characters of `a-z`, `0-9` and `-`, beginning with a letter and ending with a letter
    /// or digit.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Goes up with each change of the spec; written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Goes up with each change of the object; written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Tells it from every other object of that name, before and after; written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When the object was created; written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// When deletion was asked for; written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// How many nodes: one master, the rest replicas. 1 to 9.
    #[schemars(range(min = 1, max = 9))]
    pub nodes: u32,
    /// Settings of Redis itself.
    #[serde(default)]
    pub redis: Redis,
    /// The image that nodes run; the operator's `node.image` when absent. Another one is rolled out
    /// node by node, replicas first, and each node keeps its lease and its volume. One that does not
    /// start stops at the first node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// What each node gets.
    #[serde(default)]
    pub resources: Resources,
    /// Which providers may run a node.
    #[serde(default)]
    pub placement: Placement,
    /// What may be spent.
    #[serde(default)]
    pub budget: Budget,
    /// How nodes meet.
    #[serde(default)]
    pub mesh: Mesh,
    /// When and how the master is replaced.
    #[serde(default)]
    pub failover: Failover,
    /// What an acknowledged write promises.
    #[serde(default)]
    pub durability: Durability,
    /// Under `durability: confirmed`: how many replicas must have a write before it counts as
    /// confirmed; without so many the master takes none. Half of the replicas unless set (1 of the
    /// 2 replicas of three nodes), and at most nodes - 2, unless `allowWriteStops` is set. Set it
    /// where applications name a number: unset it goes with `nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmations: Option<u32>,
    /// Under `durability: confirmed`: `confirmations` may be nodes - 1, so that writes stop while a
    /// single replica is away.
    #[serde(default)]
    pub allow_write_stops: bool,
    /// The operator watches and reports, and changes nothing.
    #[serde(default)]
    pub paused: bool,
    /// When nodes may be moved that could stay where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Where backups of the data go, and when they are taken; none are without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// What a new cluster begins with; it begins empty without it. It counts until the cluster has
    /// its first master, and cannot be changed after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// What is done when a cluster that has had a master is to be deleted: its data go with its
    /// leases.
    #[serde(default, skip_serializing_if = "DeletionPolicy::is_default")]
    pub deletion_policy: DeletionPolicy,
}

/// What is done when a cluster that has had a master is to be deleted. One that never had any is
/// deleted at once, and so is one whose name was said: `--yes-delete-data NAME`, or the annotation
/// `akash-redis.dev/yes-delete-data: NAME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Nothing, before somebody says its name: the cluster goes on.
    #[default]
    Refuse,
    /// A last backup is taken; the leases are closed once it is complete. Needs `spec.backup`.
    Backup,
    /// The leases are closed at once.
    Delete,
}

impl DeletionPolicy {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When nodes may be moved that could stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Maintenance {
    /// The operator begins no move of its own outside of this window, in UTC: `Sun 02:00-05:00`,
    /// `Mon-Fri 22:00-04:00`, or `02:00-05:00` for every day. What began in it is ended after it.
    /// It holds up neither a failover, nor a node that is lost, nor one whose provider takes its
    /// lease back, nor what a person asks for.
    pub window: Window,
}

/// The image that nodes run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// By digest: `NAME@sha256:` and 64 hex digits. It holds the agent too.
    pub name: String,
    /// The version of Redis or Valkey in it, in full: `8.2.3`, `valkey 8.1.8`. What is not supported
    /// is refused before anything is bought, and so is what cannot read the data of the nodes that
    /// run. A node that says otherwise stops the rollout.
    pub redis: String,
}

/// Settings of Redis itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redis {
    /// redis.conf settings by name; those that the operator needs for itself are refused by name.
    /// What Redis takes at its start alone starts nodes anew, one after the other.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Users of the application. Redis' own user `default` is off, unless it is one of them.
    #[serde(default)]
    pub users: Vec<User>,
}

/// A user of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// Name, as given to AUTH.
    pub name: String,
    /// Redis ACL rules, e.g. `~app:* &* +@all -@admin -@dangerous +info`; rules that reach
    /// replication, configuration or the ACL are refused. `full`, `readonly` and `monitoring` stand
    /// for rules, and more may follow them.
    #[serde(default = "User::default_rules")]
    pub rules: String,
    /// Where the command line finds the password, which it leaves as a hash; or a Secret of
    /// Kubernetes, which the operator reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_from: Option<PasswordFrom>,
    /// Lower-case hex SHA-256 of the password, in place of `passwordFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_sha256: Option<String>,
    /// Several passwords, of which each is taken, in place of `passwordFrom`: an old one and a new
    /// one while applications change over. At most four.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passwords: Vec<Password>,
}

impl User {
    pub(crate) fn default_rules() -> String {
        "~* &* +@all -@admin -@dangerous +info +role +client|list".to_owned()
    }

    /// The hashes of the passwords that are known as such.
    #[must_use]
    pub fn hashes(&self) -> Vec<String> {
        let several = self.passwords.iter().filter_map(|password| match password {
            Password::Sha256(hash) => Some(hash),
            Password::SecretKeyRef(entry) => entry.sha256.as_ref(),
            Password::Env(_) | Password::File(_) => None,
        });
        let one = match &self.password_from {
            Some(PasswordFrom::SecretKeyRef(entry)) => entry.sha256.as_ref(),
            _ => None,
        };
        self.password_sha256.iter().chain(one).chain(several).cloned().collect()
    }

    /// A password is still to be read by the command line.
    #[must_use]
    pub fn is_to_be_read(&self) -> bool {
        let by_apply =
            |password: &Password| matches!(password, Password::Env(_) | Password::File(_));
        matches!(self.password_from, Some(PasswordFrom::Env(_) | PasswordFrom::File(_)))
            || self.passwords.iter().any(by_apply)
    }

    /// The entries of Secrets that its passwords are in.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretKeyRef> {
        let one = match &self.password_from {
            Some(PasswordFrom::SecretKeyRef(entry)) => Some(entry),
            _ => None,
        };
        let several = self.passwords.iter().filter_map(|password| match password {
            Password::SecretKeyRef(entry) => Some(entry),
            _ => None,
        });
        one.into_iter().chain(several)
    }

    /// The same, to be completed by what is found there.
    pub fn secrets_mut(&mut self) -> impl Iterator<Item = &mut SecretKeyRef> {
        let one = match &mut self.password_from {
            Some(PasswordFrom::SecretKeyRef(entry)) => Some(entry),
            _ => None,
        };
        let several = self.passwords.iter_mut().filter_map(|password| match password {
            Password::SecretKeyRef(entry) => Some(entry),
            _ => None,
        });
        one.into_iter().chain(several)
    }
}

/// One of several passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Password {
    /// In this environment variable of the command line, without a line end.
    Env(String),
    /// In this file, without a line end.
    File(String),
    /// Lower-case hex SHA-256 of the password.
    Sha256(String),
    /// In this entry of a Secret of Kubernetes. Only where the operator keeps its clusters there.
    SecretKeyRef(SecretKeyRef),
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PasswordFrom {
    /// In this environment variable of the command line, without a line end.
    Env(String),
    /// In this file, without a line end.
    File(String),
    /// In this entry of a Secret of Kubernetes. Only where the operator keeps its clusters there.
    SecretKeyRef(SecretKeyRef),
}

/// An entry of a Secret of Kubernetes, in the namespace of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Which entry of it. A line end behind the password is no part of it.
    pub key: String,
    /// Lower-case hex SHA-256 of what was found there. It is in no manifest: whoever writes the
    /// object back writes where the password is.
    #[serde(skip)]
    #[schemars(skip)]
    pub sha256: Option<String>,
    /// What was found there, encrypted for the cluster, where the operator itself has to use it: keys
    /// to a bucket, the password of a source. It is in no manifest either.
    #[serde(skip)]
    #[schemars(skip)]
    pub sealed: Option<String>,
}

impl PasswordFrom {
    /// The entry of a Secret, where it is one.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretKeyRef> {
        match self {
            Self::SecretKeyRef(entry) => Some(entry),
            Self::Env(_) | Self::File(_) => None,
        }
    }

    /// The same, to be completed by what is found there.
    pub fn secret_mut(&mut self) -> Option<&mut SecretKeyRef> {
        match self {
            Self::SecretKeyRef(entry) => Some(entry),
            Self::Env(_) | Self::File(_) => None,
        }
    }
}

/// What each node gets. A lease keeps it: where nodes run, other `cpu`, another `data.class` and a
/// larger `data.size` make them move one after the other to new leases, and the rest is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// CPU.
    #[serde(default = "Resources::default_cpu")]
    pub cpu: Cpu,
    /// Memory of the container; Redis gets (memory - 200 MiB) x 0.7 unless `maxmemory` is set.
    #[serde(default = "Resources::default_memory")]
    pub memory: Bytes,
    /// Ephemeral disk; by default enough for two snapshots. With a data volume, where snapshots are,
    /// 512Mi are enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Bytes>,
    /// The data volume; without one nothing survives a restart of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

impl Resources {
    fn default_cpu() -> Cpu {
        Cpu(500)
    }
    fn default_memory() -> Bytes {
        Bytes(1 << 30)
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: Self::default_cpu(),
            memory: Self::default_memory(),
            ephemeral: None,
            data: None,
        }
    }
}

/// A persistent volume. It lives as long as the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Data {
    /// Its size.
    pub size: Bytes,
    /// Storage class.
    #[serde(default)]
    pub class: StorageClass,
}

/// Storage classes of Akash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageClass {
    /// The provider's own default.
    Default,
    /// Hard disks.
    Beta1,
    /// SSD.
    Beta2,
    /// `NVMe`.
    #[default]
    Beta3,
}

impl StorageClass {
    /// Its word, in a manifest as on the chain.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Beta1 => "beta1",
            Self::Beta2 => "beta2",
            Self::Beta3 => "beta3",
        }
    }
}

/// Which providers may run a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// Attributes a provider must have, value by value.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Auditors that must have signed a provider's attributes.
    #[serde(default)]
    pub signed_by: SignedBy,
    /// Providers by address.
    #[serde(default)]
    pub providers: Providers,
    /// How nodes are kept apart. Two nodes never share a provider.
    #[serde(default)]
    pub spread: Spread,
    /// The most one node may cost per month of 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Money>,
    /// Nodes move by themselves to providers that are cheaper; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
}

/// Nodes move by themselves to providers that are cheaper, one at a time. Only prices that were
/// asked for the same resources within 30 days are known; where none is, nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rebalance {
    /// The new lease costs less than the present one by at least so much: no other is taken. 5% to
    /// 90%.
    #[serde(default = "Rebalance::default_when_cheaper_by")]
    pub when_cheaper_by: Percent,
    /// One node of the cluster moves so often at most; at least 1h.
    #[serde(default = "Rebalance::default_at_most_every")]
    pub at_most_every: Span,
    /// Such a move begins in this window only, in UTC; at any time when absent. Where there is a
    /// `maintenance.window`, both must be open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

impl Rebalance {
    fn default_when_cheaper_by() -> Percent {
        Percent(25)
    }
    fn default_at_most_every() -> Span {
        Span(Duration::from_hours(7 * 24))
    }
}

/// Auditors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedBy {
    /// All of these.
    #[serde(default)]
    pub all_of: Vec<String>,
    /// At least one of these.
    #[serde(default)]
    pub any_of: Vec<String>,
}

/// Providers by address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Providers {
    /// Only these, when there are any.
    #[serde(default)]
    pub allow: Vec<String>,
    /// None of these.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// How nodes are kept apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spread {
    /// What must differ between nodes.
    #[serde(default)]
    pub by: SpreadBy,
    /// Whether a bid that does not differ is refused or merely comes last.
    #[serde(default)]
    pub when: SpreadWhen,
}

/// What must differ between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpreadBy {
    /// The provider's address.
    #[default]
    Provider,
    /// Its `organization` attribute.
    Organization,
    /// Its `location-region` or `region` attribute.
    Region,
}

/// How strict a spread is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpreadWhen {
    /// A bid that does not differ is refused.
    Required,
    /// A bid that does not differ comes last.
    #[default]
    Preferred,
}

/// What may be spent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Budget {
    /// The most that all leases of the cluster together may cost per month of 30 days; the
    /// operator's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_month: Option<Money>,
    /// Paid into the escrow of each new node; what is left comes back. When absent the smallest that
    /// lasts, at the highest price that its order may take, for `runway.low` and a quarter more (for
    /// nodes with higher numbers up to a half more), and never less than the chain asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit: Option<Money>,
    /// When the escrow of a node is filled, and for how long; the operator's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runway: Option<Runway>,
}

/// How long an escrow pays. Filling it is not extra spending: what leases cost is bounded by the
/// budget, what escrows hold by the wallet, and what is not used comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runway {
    /// An escrow that pays for less than this is filled, e.g. `3d`.
    pub low: Span,
    /// It pays for about so long then, e.g. `14d`; nodes with higher numbers for some days more, so
    /// that they do not end together.
    pub target: Span,
}

impl Runway {
    /// Where neither manifest nor operator say.
    pub const DEFAULT: Self = Self {
        low: Span(Duration::from_hours(3 * 24)),
        target: Span(Duration::from_hours(14 * 24)),
    };
    /// The operator has to see it, and the chain to take it, several times over.
    const LEAST: Duration = Duration::from_mins(10);

    /// What is wrong with it, one sentence.
    #[must_use]
    pub fn problem(self) -> Option<String> {
        let Self { low, target } = self;
        if low.0 < Self::LEAST {
            return Some(format!(
                "{low} is too short to fill an escrow in time; write 10m or more"
            ));
        }
        let longest = Duration::from_hours(365 * 24);
        if target.0 < low.0.saturating_mul(2) || target.0 > longest {
            return Some(format!(
                "a target of {target} does not fit a low mark of {low}; write at least twice as much, and 365d at most"
            ));
        }
        None
    }
}

/// How nodes meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mesh {
    /// Tag of the nodes' devices; the operator's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// How Redis reaches its master.
    #[serde(default)]
    pub egress: Egress,
    /// How nodes are named to clients that ask them, as Sentinel, for the master.
    #[serde(default, skip_serializing_if = "Announce::is_default")]
    pub announce: Announce,
    /// Each node runs `tailscale serve --bg --tcp=6379 127.0.0.1:6379` once it has joined. Redis is
    /// reached without it too; with it a connection to a node whose Redis is down opens and ends at
    /// once, where it would have been refused.
    #[serde(default)]
    pub serve: bool,
    /// Each node offers itself as a host of the Tailscale Service `svc:NAME`, which has one name and one
    /// address however nodes move: port 6379 of it leads to the present master, by whichever node the
    /// tailnet chooses. The tailnet must know the service and approve its hosts; the nodes' notes say
    /// when it does not, and everything else works without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub service: bool,
}

/// How nodes are named to clients that ask them, as Sentinel, for the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Announce {
    /// By their 100.x addresses: clients need no name server.
    #[default]
    Addresses,
    /// By their mesh names. Clients must be able to look them up: by the tailnet's name server, or through the SOCKS5
    /// proxy of a tailscaled without a network device.
    Names,
}

impl Announce {
    /// Left out: what leases were made with stays the same text.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When and how the master is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failover {
    /// Silence of the master that counts as its death; at least 5 s. A master whose agent says that
    /// Redis died is replaced at once.
    #[serde(default = "Failover::default_down_after")]
    pub down_after: Span,
    /// What a minority of replicas may do.
    #[serde(default)]
    pub when_minority: WhenMinority,
    /// A master that answers nobody because it computes (a script, a command over very many keys)
    /// is replaced after so long; scripts that wrote nothing are ended at two thirds of it. One
    /// that does nothing at all is replaced after `downAfter`, if that is shorter. 5 s to 10 min.
    #[serde(default = "Failover::default_stuck_after")]
    pub stuck_after: Span,
    /// A replica that lacks more than this, and more than the writes of 5 s, is not in sync.
    #[serde(default = "Failover::default_max_lag")]
    pub max_lag: Bytes,
}

impl Failover {
    fn default_stuck_after() -> Span {
        Span(Duration::from_secs(30))
    }
    fn default_max_lag() -> Bytes {
        Bytes(1 << 20)
    }

    fn default_down_after() -> Span {
        Span(Duration::from_secs(10))
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            down_after: Self::default_down_after(),
            when_minority: WhenMinority::default(),
            stuck_after: Self::default_stuck_after(),
            max_lag: Self::default_max_lag(),
        }
    }
}

/// What a minority of replicas may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenMinority {
    /// Nothing: it waits for more nodes or for a person.
    #[default]
    Block,
    /// Promote all the same; the report says what may be lost.
    Promote,
}

/// What an acknowledged write promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on the master; a failover may lose the last moments before the master died.
    #[default]
    Async,
    /// A write that the client saw on `confirmations` replicas (`WAIT`, or `proxy --confirm`) is
    /// lost in no failover: nobody is promoted by itself unless one of those that answer has it.
    Confirmed,
}

impl Spec {
    /// Confirmed writes are promised.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.durability == Durability::Confirmed
    }

    /// How many replicas a write needs while a minimum is in force.
    #[must_use]
    pub fn write_replicas(&self) -> u32 {
        match self.durability {
            Durability::Async => 1,
            Durability::Confirmed => {
                self.confirmations.unwrap_or(self.nodes.saturating_sub(1) / 2).max(1)
            }
        }
    }
}
