//! A real S3 server: versitygw over a directory, with or without TLS, and a proxy in front of it that
//! makes faults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use akash_redis::model::backup::{StorageKeys, StorageSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Duration, sleep};

use crate::stage::until;

/// The one bucket.
pub const BUCKET: &str = "backups";
/// Its keys.
pub const KEYS: &str = "AKIATESTTESTTEST:not-a-secret-of-anybody";

/// A server.
pub struct S3 {
    pub address: SocketAddr,
    /// What it keeps, object by object.
    pub dir: PathBuf,
    /// The certificate to trust; empty without TLS.
    pub ca: String,
    _child: Child,
}

/// Where `tests/s3/build.sh` puts it.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3/build.sh");
    let built = Program::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "tests/s3/build.sh failed");
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim()).join("versitygw")
}

impl S3 {
    /// One that keeps its objects below `dir`.
    pub async fn start(dir: &Path, address: SocketAddr, tls: bool) -> Self {
        let (objects, meta) = (dir.join("objects"), dir.join("meta"));
        for dir in [&objects.join(BUCKET), &meta] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let mut command = Command::new(program());
        let (id, secret) = KEYS.split_once(':').unwrap();
        command.args(["--access", id, "--secret", secret, "--port", &address.to_string()]);
        command.args(["--region", "us-east-1", "--quiet"]);
        let mut ca = String::new();
        if tls {
            let made = rcgen::generate_simple_self_signed(vec![address.ip().to_string()]).unwrap();
            ca = made.cert.pem();
            let (cert, key) = (dir.join("s3.crt"), dir.join("s3.key"));
            std::fs::write(&cert, &ca).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            command.arg("--cert").arg(cert).arg("--key").arg(key);
        }
        command.args(["posix", "--sidecar"]).arg(&meta).arg(&objects);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().unwrap();
        until("the S3 server to listen", async || TcpStream::connect(address).await.is_ok()).await;
        Self { address, dir: objects.join(BUCKET), ca, _child: child }
    }

    /// How it is reached, or the proxy in front of it.
    pub fn spec(&self, through: Option<SocketAddr>) -> StorageSpec {
        let scheme = if self.ca.is_empty() { "http" } else { "https" };
        StorageSpec {
            url: format!("s3://{BUCKET}/some/prefix"),
            endpoint: format!("{scheme}://{}", through.unwrap_or(self.address)),
            region: String::new(),
            ca: self.ca.clone(),
        }
    }

    pub fn keys() -> StorageKeys {
        StorageKeys::read(KEYS).unwrap()
    }
}

/// What the proxy does to a connection.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Answers 503 in the server's place.
    Unavailable,
    /// Ends it after so many bytes to the server.
    CutUp(usize),
    /// Ends it after so many bytes from the server.
    CutDown(usize),
    /// Lets every piece wait.
    Slow,
}

/// A proxy that does this to so many connections, and nothing to those after.
pub async fn faulty(to: SocketAddr, fault: Fault, times: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicUsize::new(times));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let left = left.clone();
            tokio::spawn(async move {
                let less = |n: usize| n.checked_sub(1);
                let fault = left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                    .is_ok()
                    .then_some(fault);
                carry(client, to, fault).await;
            });
        }
    });
    address
}

async fn carry(mut client: TcpStream, to: SocketAddr, fault: Option<Fault>) {
    if let Some(Fault::Unavailable) = fault {
        let mut request = [0; 4096];
        let _ = client.read(&mut request).await;
        let answer = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let _ = client.write_all(answer.as_bytes()).await;
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let slow = matches!(fault, Some(Fault::Slow));
    let limit = |up: bool| match fault {
        Some(Fault::CutUp(bytes)) if up => bytes,
        Some(Fault::CutDown(bytes)) if !up => bytes,
        _ => usize::MAX,
    };
    tokio::select! {
        () = pump(&mut from_client, &mut to_server, limit(true), slow) => {}
        () = pump(&mut from_server, &mut to_client, limit(false), slow) => {}
    }
}

async fn pump(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut limit: usize,
    slow: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while limit > 0 {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        let read = read.min(limit);
        limit -= read;
        if slow {
            sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
