//! Another image is rolled out over the leases that run, with real servers of two versions; one that
//! does not start stops at the first node, and going back makes it well.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use akash_redis::api::conditions::Reason;
use akash_redis::api::status::Status;
use akash_redis::api::types::{Image, RedisCluster};
use akash_redis::cli::demo::writer::Writer;
use akash_redis::cli::local::LocalOptions;
use akash_redis::devnet::sandbox::Sandbox;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, is_ready};
use crate::versions::cached;
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(8);

fn image(hex: &str) -> String {
    format!("devnet.test/node@sha256:{}", hex.repeat(32))
}

/// A directory with this redis-server.
fn programs(dir: &Path, name: &str, server: &Path) -> PathBuf {
    let programs = dir.join(name);
    std::fs::create_dir_all(&programs).unwrap();
    symlink(server, programs.join("redis-server")).unwrap();
    programs
}

/// A redis-server that says which version it is, and ends as soon as it is to serve.
fn broken(dir: &Path) -> PathBuf {
    let program = dir.join("broken");
    let text = "#!/bin/sh\n\
        [ \"$1\" = --version ] && echo 'Redis server v=8.2.3 sha=0:0' && exit 0\n\
        echo 'Fatal config file error: no such directive' >&2\n\
        exit 1\n";
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

async fn wants(stage: &Stage, image: Option<(&str, &str)>) {
    let mut manifest = cluster(3);
    manifest.spec.image =
        image.map(|(hex, redis)| Image { name: self::image(hex), redis: redis.to_owned() });
    stage.client.apply(&manifest).await.unwrap();
}

fn rolled_out(cluster: &RedisCluster, version: &str) -> bool {
    let status = cluster.status.clone().unwrap_or_default();
    let rollout = status.rollout.unwrap_or_default();
    is_ready(cluster)
        && (rollout.updated, rollout.nodes) == (3, 3)
        && status.nodes.len() == 3
        && status.nodes.iter().all(|n| n.version.as_deref() == Some(version))
}

fn leases(status: &Status) -> Vec<(String, u64)> {
    status.nodes.iter().map(|n| (n.incarnation.clone(), n.dseq)).collect()
}

#[test]
fn an_upgrade_is_rolled_out_and_a_bad_image_stops_at_the_first_node() {
    let test = "updates::an_upgrade_is_rolled_out_and_a_bad_image_stops_at_the_first_node";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let newer = programs(&sandbox.dir, "newer", &cached("redis-8.2.3"));
        let bad = programs(&sandbox.dir, "bad", &broken(&sandbox.dir));
        let options = LocalOptions {
            images: vec![(image("bb"), newer), (image("cc"), bad)],
            ..LocalOptions::default()
        };
        let stage = Stage::on(&sandbox, &options).await;
        wants(&stage, None).await;
        let before = stage.until("7.0.15", |c| rolled_out(c, "7.0.15")).await.status.unwrap();
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        // Not a node is touched by what is not supported, or by what cannot be.
        let mut old = cluster(3);
        old.spec.image = Some(Image { name: image("bb"), redis: "6.2.14".into() });
        let refused = stage.client.apply(&old).await.unwrap_err().to_string();
        assert!(refused.contains("Redis 6.2.14 is not supported"), "{refused}");

        let begun = std::time::Instant::now();
        wants(&stage, Some(("bb", "8.2.3"))).await;
        let after = stage.until("8.2.3", |c| rolled_out(c, "8.2.3")).await.status.unwrap();
        println!("three nodes were upgraded in {:?}", begun.elapsed());
        assert_eq!(leases(&after), leases(&before), "nothing was bought");
        assert_eq!(stage.keys().await, 0, "nor a key made");
        nothing_lost(&writer, "an upgrade").await;

        let mut back = cluster(3);
        back.spec.image = Some(Image { name: image("bb"), redis: "7.0.15".into() });
        let refused = stage.client.apply(&back).await.unwrap_err().to_string();
        assert!(refused.contains("there is no way back over this step"), "{refused}");

        wants(&stage, Some(("cc", "8.2.3"))).await;
        let stalled = stage
            .until_status("the update to stand still", |s| {
                s.problems.contains(&Reason::UpdateStalled)
            })
            .await;
        assert_eq!(leases(&stalled), leases(&before));
        let serving = stalled.nodes.iter().filter(|n| n.phase.is_serving()).count();
        assert_eq!(serving, 2, "{stalled:#?}");
        writes_go_on(&writer).await;
        let said = stage.cli(&["describe", "cache"]).await.stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("on 0 of 3 nodes, replicas first"), "{said}");
        assert!(said.contains("its redis does not start"), "{said}");

        wants(&stage, Some(("bb", "8.2.3"))).await;
        let well = stage.until("the node to be well", |c| rolled_out(c, "8.2.3")).await;
        assert_eq!(leases(&well.status.unwrap()), leases(&before), "in place");
        nothing_lost(&writer, "an image that does not start").await;
        stage.delete().await;
        stage.assert_nothing_left().await;
    });
}
