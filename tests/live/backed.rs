//! The tests' cluster with backups in a real S3 server.

use std::net::SocketAddr;
use std::path::PathBuf;

use akash_redis::api::types::RedisCluster;
use akash_redis::devnet::net::Net;
use akash_redis::devnet::sandbox::Sandbox;
use sha2::{Digest as _, Sha256};

use crate::s3::{BUCKET, KEYS, S3};
use crate::stage::{CLUSTER, PASSWORD, Stage, condition};

/// Market, operator, and a storage that the nodes reach.
pub struct Backed {
    pub stage: Stage,
    pub s3: S3,
    dir: PathBuf,
}

impl Backed {
    pub async fn start(sandbox: &Sandbox) -> Self {
        let stage = Stage::start(sandbox).await;
        let address = SocketAddr::from((Net::GATEWAY, 9000));
        let s3 = S3::start(&sandbox.dir.join("s3"), address, true).await;
        let dir = sandbox.dir.clone();
        std::fs::write(dir.join("keys"), format!("{KEYS}\n")).unwrap();
        Self { stage, s3, dir }
    }

    /// The cluster, and more of its spec after `backup`.
    pub fn manifest(&self, more: &str) -> String {
        let hash = hex::encode(Sha256::digest(PASSWORD));
        let ca = self.s3.ca.lines().fold(String::new(), |all, line| all + "      " + line + "\n");
        format!(
            "apiVersion: akash-redis.dev/v1alpha1\n\
             kind: RedisCluster\n\
             metadata: {{ name: {CLUSTER} }}\n\
             spec:\n  \
               nodes: 3\n  \
               redis: {{ users: [{{ name: app, passwordSha256: {hash} }}] }}\n  \
               resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}\n  \
               budget: {{ maxPerMonth: 16act }}\n  \
               backup:\n    \
                 to: s3://{BUCKET}/some/prefix\n    \
                 endpoint: https://{}\n    \
                 credentialsFrom: {{ file: {} }}\n    \
                 ca: |\n{ca}{more}",
            self.s3.address,
            self.dir.join("keys").display(),
        )
    }

    pub async fn apply(&self, more: &str) {
        let file = self.dir.join("cluster.yaml");
        std::fs::write(&file, self.manifest(more)).unwrap();
        self.stage.says(&["apply", "-f", &file.display().to_string()]).await;
    }

    /// Takes one; its id.
    pub async fn back_up(&self) -> String {
        let said = self.stage.says(&["backup", CLUSTER, "--wait", "--timeout", "1m"]).await;
        let id = said.lines().find_map(|line| line.strip_prefix("backup ")?.split(' ').next());
        let id = id.unwrap_or_else(|| panic!("{said}")).to_owned();
        assert!(said.contains("is complete"), "{said}");
        id
    }

    /// The object in the storage that has this of a backup: `rdb` or `manifest`.
    pub fn object(&self, id: &str, part: &str) -> PathBuf {
        let all = std::fs::read_dir(self.s3.dir.join("some/prefix")).unwrap();
        let installation = all.flatten().next().expect("an installation").path();
        installation.join(CLUSTER).join(format!("{id}.{part}"))
    }
}

/// A condition has this reason.
pub fn has(cluster: &RedisCluster, kind: &str, reason: &str) -> bool {
    cluster.status.as_ref().is_some_and(|status| condition(status, kind).1 == reason)
}

/// What a condition says; printed for whoever reads the test's output.
pub fn message(cluster: &RedisCluster, kind: &str) -> String {
    let message = condition(cluster.status.as_ref().unwrap(), kind).2.to_owned();
    println!("{kind}: {message}");
    message
}

/// One byte in the middle of a file is another one.
pub fn touch(file: &std::path::Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}
