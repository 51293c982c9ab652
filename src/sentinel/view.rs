//! A cluster as Sentinel describes one: names, addresses and fields that clients look for.

use sha2::{Digest as _, Sha256};

use super::reply::Reply;
use crate::model::announcement::{Announcement, Place, Replica};
use crate::model::ports::SENTINEL_PORT;

/// What Sentinel calls `down-after-milliseconds` and the like is the operator's business: clients
/// print these numbers and decide nothing by them.
const NOT_OURS: i64 = 0;

/// Forty digits that stand for a node: clients tell nodes apart by them.
#[must_use]
pub fn run_id(incarnation: &str) -> String {
    hex::encode(&Sha256::digest(incarnation)[..20])
}

/// `SENTINEL get-master-addr-by-name`
pub fn address(said: &Announcement) -> Reply {
    let master = &said.master;
    Reply::Array(vec![Reply::text(said.host(master)), Reply::text(master.port.to_string())])
}

/// `SENTINEL master`
pub fn master(said: &Announcement) -> Reply {
    let mut fields = node(said, &said.master, said.cluster.clone(), "master");
    fields.extend([
        ("role-reported", Reply::text("master")),
        ("role-reported-time", number(NOT_OURS)),
        ("config-epoch", Reply::text(said.epoch.to_string())),
        ("num-slaves", Reply::text(said.replicas.len().to_string())),
        ("num-other-sentinels", Reply::text(said.replicas.len().to_string())),
        ("quorum", number(1)),
        ("failover-timeout", number(NOT_OURS)),
        ("parallel-syncs", number(1)),
    ]);
    Reply::Map(fields)
}

/// One of `SENTINEL replicas`
pub fn replica(said: &Announcement, replica: &Replica) -> Reply {
    let (master, place) = (&said.master, &replica.place);
    let label = format!("{}:{}", said.host(place), place.port);
    // A client reads from whoever is not down; one that was not in sync has old data.
    let flags = if replica.in_sync { "slave" } else { "slave,disconnected" };
    let mut fields = node(said, place, label, flags);
    fields.extend([
        ("master-link-down-time", number(NOT_OURS)),
        ("master-link-status", Reply::text(if replica.in_sync { "ok" } else { "err" })),
        ("master-host", Reply::text(said.host(master))),
        ("master-port", Reply::text(master.port.to_string())),
        ("slave-priority", number(100)),
        ("slave-repl-offset", number(NOT_OURS)),
        ("replica-announced", number(1)),
    ]);
    Reply::Map(fields)
}

/// `SENTINEL sentinels`: everybody but the one that is asked.
pub fn sentinels(said: &Announcement, own: &str) -> Reply {
    let others = places(said).filter(|place| place.incarnation != own).map(|place| {
        let place = Place { port: SENTINEL_PORT, ..place.clone() };
        let mut fields = node(said, &place, run_id(&place.incarnation), "sentinel");
        fields.extend([
            ("last-hello-message", number(NOT_OURS)),
            ("voted-leader", Reply::text("?")),
            ("voted-leader-epoch", number(0)),
        ]);
        Reply::Map(fields)
    });
    Reply::Array(others.collect())
}

/// All nodes of the cluster.
pub fn places(said: &Announcement) -> impl Iterator<Item = &Place> {
    std::iter::once(&said.master).chain(said.replicas.iter().map(|replica| &replica.place))
}

fn node(
    said: &Announcement,
    place: &Place,
    name: String,
    flags: &str,
) -> Vec<(&'static str, Reply)> {
    vec![
        ("name", Reply::text(name)),
        ("ip", Reply::text(said.host(place))),
        ("port", Reply::text(place.port.to_string())),
        ("runid", Reply::text(run_id(&place.incarnation))),
        ("flags", Reply::text(flags)),
        ("link-pending-commands", number(0)),
        ("link-refcount", number(1)),
        ("last-ping-sent", number(0)),
        ("last-ok-ping-reply", number(NOT_OURS)),
        ("last-ping-reply", number(NOT_OURS)),
        ("down-after-milliseconds", number(NOT_OURS)),
        ("info-refresh", number(NOT_OURS)),
    ]
}

/// Sentinel sends numbers of a node as text.
fn number(number: i64) -> Reply {
    Reply::text(number.to_string())
}

/// What subscribers are told when one word takes the place of another: channel and message.
#[must_use]
pub fn events(before: Option<&Announcement>, now: &Announcement) -> Vec<(&'static str, String)> {
    let Some(before) = before else { return Vec::new() };
    let mut events = Vec::new();
    let (old, new) = (&before.master, &now.master);
    if (before.host(old), old.port) != (now.host(new), new.port) {
        let message = format!(
            "{} {} {} {} {}",
            now.cluster,
            before.host(old),
            old.port,
            now.host(new),
            new.port
        );
        events.push(("+switch-master", message));
    }
    let about = |said: &Announcement, place: &Place| {
        let (host, master) = (said.host(place), said.host(&now.master));
        format!(
            "slave {host}:{port} {host} {port} @ {} {master} {}",
            now.cluster,
            now.master.port,
            port = place.port
        )
    };
    let replicas = |said: &Announcement| -> Vec<Place> {
        said.replicas.iter().map(|replica| replica.place.clone()).collect()
    };
    let (had, has) = (replicas(before), replicas(now));
    let is_in =
        |all: &[Place], place: &Place| all.iter().any(|p| p.incarnation == place.incarnation);
    for place in has.iter().filter(|place| !is_in(&had, place)) {
        events.push(("+slave", about(now, place)));
    }
    let stays = |place: &Place| places(now).any(|p| p.incarnation == place.incarnation);
    for place in places(before).filter(|place| !stays(place)) {
        events.push(("+sdown", about(before, place)));
    }
    events
}
