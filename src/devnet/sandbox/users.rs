//! More users than root inside a sandbox. A process may map nobody but itself into its new user
//! namespace; root of this machine, from outside, may map all.

use std::fs;
use std::io;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, sleep};

/// Arguments of `unshare` before those of the other namespaces: they are made by a second one, once
/// this one's users are there. Root of an unmapped namespace is nobody, and nobody may not mount.
pub const MAPPED_FROM_OUTSIDE: [&str; 7] = ["--user", "--", "sh", "-c", WAIT, "sandbox", "unshare"];
/// It does not wait for ever: who maps may have been killed.
const WAIT: &str = r#"
left=1000
until read -r _ </proc/self/uid_map && read -r _ </proc/self/gid_map; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || exit 1
  sleep 0.01
done
exec "$@""#;
/// As many as a container has, each by its own number.
const ALL: &str = "0 0 65536\n";
/// Its namespace is the first thing that the process makes.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Maps the users of this machine into the user namespace that `child` is about to make.
pub async fn map(child: &Child) -> io::Result<()> {
    let gone = || io::Error::other("its first process ended");
    let pid = child.id().ok_or_else(gone)?;
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/user"));
    let (own, deadline) = (namespace("self")?, Instant::now() + LIMIT);
    while namespace(&pid.to_string()).map_err(|_| gone())? == own {
        if Instant::now() > deadline {
            return Err(io::Error::other("no user namespace appeared"));
        }
        sleep(PAUSE).await;
    }
    ["uid_map", "gid_map"]
        .into_iter()
        .try_for_each(|map| fs::write(format!("/proc/{pid}/{map}"), ALL))
}
