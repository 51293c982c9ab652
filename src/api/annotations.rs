//! Annotations of a cluster: what a person asks of it once, beside the manifest.

/// Annotation: incarnations, separated by commas, that shall leave for another provider.
pub const MIGRATE: &str = "akash-redis.dev/migrate";
/// Annotation: the incarnation that shall be master, and the epoch in which that was asked:
/// `cache-1-x7k2@5`. It lapses with the epoch; without `@` it holds for ever.
pub const MASTER: &str = "akash-redis.dev/master";
/// Annotation by which a person accepts the loss of what no node that answers holds: the epoch that
/// the cluster was in. It lapses with that epoch.
pub const ACCEPT_LOSS: &str = "akash-redis.dev/accept-loss";

/// Annotation: incarnations, separated by commas, whose device is gone from the tailnet and that
/// shall join again with a new key.
pub const REJOIN: &str = "akash-redis.dev/rejoin";
/// Annotation: deployments, by dseq and separated by commas, that are in no record and shall be
/// closed.
pub const CLOSE: &str = "akash-redis.dev/close";
/// Annotation: nodes, by number or incarnation, with commas, that take no writes and become no
/// master until they are named no more.
pub const FENCE: &str = "akash-redis.dev/fence";

/// Annotation: incarnations whose containers shall be started anew, separated by commas, each with the
/// word by which that was asked: `cache-1-x7k2@17`. Each word is done once.
pub const RESTART: &str = "akash-redis.dev/restart";

/// Annotation: a backup shall be taken; each word is done once.
pub const BACKUP: &str = "akash-redis.dev/backup";
/// Annotation: a backup shall be restored into a throw-away redis-server, to see that it can be; each
/// word is done once. The newest, or the one whose id follows after a space.
pub const VERIFY: &str = "akash-redis.dev/verify-backup";

/// Annotation: the node that imports from a running Redis shall become master; each word is done
/// once.
pub const CUTOVER: &str = "akash-redis.dev/cutover";
/// In the word of [`CUTOVER`]: the applications of the source are stopped, for one that does not let
/// its writes be held.
pub const WRITES_STOPPED: &str = "writes-stopped";
/// In the word of [`CUTOVER`]: it is made though some keys could not be copied.
pub const ACCEPT_DIFFERENCE: &str = "accept-difference";

/// Annotation: the cluster's name, by which a person says that its data may be deleted with it,
/// whatever `spec.deletionPolicy` says.
pub const YES_DELETE_DATA: &str = "akash-redis.dev/yes-delete-data";
