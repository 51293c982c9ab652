//! A Redis that knows nothing of us, from which clusters are imported.

use std::process::Stdio;

use akash_redis::devnet::net::Net;
use akash_redis::devnet::sandbox::Sandbox;
use redis::aio::MultiplexedConnection;
use tokio::process::{Child, Command};

use crate::data::connected;

/// Where the source listens: for its own applications on loopback, for others with TLS.
pub const PLAIN: u16 = 6390;
pub const TLS: u16 = 6391;
/// What the guide has the source allow.
pub const RULES: &str = "+psync +replconf +ping +info +client|pause +client|unpause";
/// The same of one that lets nobody replicate.
pub const COPY_RULES: &str = "~* +@read +select +ping +info +client|pause +client|unpause";
pub const IMPORT_PASSWORD: &str = "of-the-importer";

/// A Redis with TLS that knows nothing of us, and the certificate that it has.
pub fn source(sandbox: &Sandbox, rules: &str) -> (Child, String) {
    let dir = sandbox.dir.join("source");
    std::fs::create_dir_all(&dir).unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["old.example.org".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let cert = file("cert.pem", issued.cert.pem());
    let key = file("key.pem", issued.signing_key.serialize_pem());
    let users = format!(
        "user importer on >{IMPORT_PASSWORD} {rules}\nuser default on nopass ~* &* +@all\n"
    );
    let users = file("users.acl", users);
    let child = Command::new("redis-server")
        .args(["--port", &PLAIN.to_string(), "--tls-port", &TLS.to_string()])
        .args(["--bind", "127.0.0.1", &Net::GATEWAY.to_string(), "--protected-mode", "no"])
        .args(["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert])
        .args(["--tls-auth-clients", "no", "--aclfile", &users, "--save", ""])
        .current_dir(&dir)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    (child, issued.cert.pem())
}

pub async fn of_the_source() -> MultiplexedConnection {
    connected(&format!("redis://127.0.0.1:{PLAIN}/")).await
}
