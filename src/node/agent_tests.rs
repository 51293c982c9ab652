//! The whole agent over its sockets: real redis-server, certificates made here, a tailscaled that
//! exits at once.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use p256::ecdsa::signature::Verifier as _;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::agent::{AgentError, run};
use super::settings::Settings;
use super::status_page::{SIGNATURE_HEADER, StatusPage, signing_key};
use super::tests::{free_port, identity, settings};
use crate::model::identity::NodeIdentity;
use crate::model::node::Process;
use crate::wire::akash_redis::agent::v1 as wire;
use crate::wire::akash_redis::agent::v1::agent_client::AgentClient;
use wire::command_request::Command;

const PATIENCE: Duration = Duration::from_mins(1);

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key.
    fn leaf(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A tailscaled of this version that says so and exits, whatever it is asked for.
fn tailscaled(dir: &Path, version: &str) -> PathBuf {
    let path = dir.join(format!("tailscaled-{version}"));
    // Written by another process: a file that this one has open for writing cannot be run, and a
    // fork of another test may hold it open. Put there whole: the one before it may run.
    let write = r#"printf '#!/bin/sh\necho %s\n' "$2" > "$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#;
    let written = std::process::Command::new("sh")
        .args(["-c", write, "sh"])
        .arg(&path)
        .arg(version)
        .status()
        .unwrap();
    assert!(written.success());
    path
}

struct Running {
    settings: Settings,
    identity: NodeIdentity,
    ca: Ca,
    stop: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
    dir: Arc<tempfile::TempDir>,
}

fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    start_in(Arc::new(dir), "run", Settings::from_env().volume_wait)
}

/// One more agent, with scratch of its own.
fn start_in(dir: Arc<tempfile::TempDir>, scratch: &str, volume_wait: Duration) -> Running {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings {
        run_dir: dir.path().join(scratch),
        service_port: free_port(),
        status_port: free_port(),
        sentinel_port: free_port(),
        socks_port: free_port(),
        tailscaled: tailscaled(dir.path(), "1.102.5"),
        tailscale: "/bin/true".into(),
        volume_wait,
        ..settings(dir.path(), 6379)
    };
    let ca = Ca::new();
    let (certificate, key) = ca.leaf("node", ExtendedKeyUsagePurpose::ServerAuth);
    let identity = NodeIdentity { ca: ca.pem.clone(), certificate, key, ..identity() };
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(identity.clone(), settings.clone(), stop.clone()));
    Running { settings, identity, ca, stop, task, dir }
}

impl Running {
    async fn dial(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<AgentClient<Channel>, tonic::transport::Error> {
        let (certificate, key) = self.ca.leaf(name, usage);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca.pem))
            .identity(Identity::from_pem(certificate, key))
            .domain_name("node");
        let endpoint =
            Channel::from_shared(format!("https://127.0.0.1:{}", self.settings.service_port))
                .unwrap()
                .tls_config(tls)
                .unwrap();
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.settings.service_port))
                .await
                .is_err()
            {
                assert!(!self.task.is_finished(), "the agent ended");
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, listening).await.expect("the agent listens");
        Ok(AgentClient::new(endpoint.connect().await?))
    }

    async fn page(&self) -> Option<StatusPage> {
        let answer =
            reqwest::get(format!("http://127.0.0.1:{}", self.settings.status_port)).await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    /// Its page, once it is as wanted.
    async fn page_that(&self, wanted: impl Fn(&StatusPage) -> bool) -> StatusPage {
        let seen = async {
            loop {
                match self.page().await {
                    Some(page) if wanted(&page) => return page,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(PATIENCE, seen).await.expect("the page says what is wanted")
    }

    async fn end(self) -> Result<(), AgentError> {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_watches_commands_and_sees_the_end() {
    let agent = start();
    let mut operator = agent.dial("operator", ExtendedKeyUsagePurpose::ClientAuth).await.unwrap();
    let mut states = operator.watch(wire::WatchRequest {}).await.unwrap().into_inner();
    let mut nonces = std::collections::BTreeSet::new();
    let running = loop {
        let state = timeout(PATIENCE, states.message()).await.unwrap().unwrap().unwrap();
        assert!(nonces.insert(state.nonce.clone()), "a new nonce in every state");
        if state.redis.as_ref().is_some_and(|r| r.process() == wire::Process::Running) {
            break state;
        }
    };
    let promote = Command::Promote(wire::Promote {
        replication_users: vec![],
        quorum: Some(wire::Quorum { min_replicas: 0, max_lag_seconds: 8 }),
        ..wire::Promote::default()
    });
    let authority = Some(wire::Authority { term: 1, epoch: 1 });
    let request = wire::CommandRequest { authority, nonce: running.nonce, command: Some(promote) };
    let reply = operator.command(request.clone()).await.unwrap().into_inner().state.unwrap();
    assert_eq!(reply.redis.unwrap().role(), wire::Role::Master);
    let stale = operator
        .command(wire::CommandRequest { nonce: String::new(), ..request })
        .await
        .unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    for (asked, others) in [(vec![], true), (vec!["redis".to_owned()], false)] {
        let request = wire::LogsRequest { tail: 2000, sources: asked, ..Default::default() };
        let mut lines = operator.logs(request).await.unwrap().into_inner();
        let mut sources = std::collections::BTreeSet::new();
        while let Some(line) = lines.message().await.unwrap() {
            assert!(!line.text.contains("tskey-secret"));
            assert!(line.at_ms > 0, "each has its time");
            sources.insert(line.source);
        }
        assert!(sources.contains("redis"));
        assert_eq!(sources.contains("agent"), others);
    }
    agent.stop.cancel();
    assert!(reply.highest.is_some());
    let mut last = None;
    while let Ok(Some(state)) = timeout(PATIENCE, states.message()).await.unwrap() {
        last = Some(state);
    }
    let last = last.unwrap();
    let (redis, history) = (last.redis.unwrap(), last.history.unwrap());
    assert_eq!(
        (redis.process(), redis.role()),
        (wire::Process::Exited, wire::Role::Master),
        "the last word says that redis is gone"
    );
    assert_eq!(
        (history.epoch, history.gap_ms),
        (1, Some(0)),
        "and that nothing came after its history"
    );
    timeout(PATIENCE, agent.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_operator_is_let_in() {
    let agent = start();
    let mut other = agent.dial("somebody", ExtendedKeyUsagePurpose::ClientAuth).await.unwrap();
    assert_eq!(
        other.watch(wire::WatchRequest {}).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        other.command(wire::CommandRequest::default()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        other.logs(wire::LogsRequest::default()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    // A node's own certificate is good for servers only.
    let refused = match agent.dial("operator", ExtendedKeyUsagePurpose::ServerAuth).await {
        Ok(mut client) => client.watch(wire::WatchRequest {}).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    agent.stop.cancel();
    timeout(PATIENCE, agent.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_page_is_signed_bounded_and_alone() {
    let agent = start();
    drop(agent.dial("operator", ExtendedKeyUsagePurpose::ClientAuth).await.unwrap());
    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{}", agent.settings.status_port);
    let answer = client.get(format!("{url}/?nonce=abc")).send().await.unwrap();
    let signature = base64::engine::general_purpose::STANDARD
        .decode(answer.headers()[SIGNATURE_HEADER].as_bytes())
        .unwrap();
    let body = answer.bytes().await.unwrap();
    let key = signing_key(&agent.identity.key).unwrap();
    key.verifying_key()
        .verify(&body, &p256::ecdsa::Signature::from_der(&signature).unwrap())
        .unwrap();
    let page: StatusPage = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (page.nonce.as_str(), page.incarnation.as_str(), page.fenced),
        ("abc", "cache-0-x7k2", true)
    );
    for (path, status) in [
        ("/other", 404),
        ("/?nonce=%0a", 400),
        (format!("/?nonce={}", "x".repeat(65)).as_str(), 400),
    ] {
        assert_eq!(
            client.get(format!("{url}{path}")).send().await.unwrap().status(),
            status,
            "{path}"
        );
    }
    assert_eq!(client.post(&url).send().await.unwrap().status(), 405);
    agent.stop.cancel();
    timeout(PATIENCE, agent.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_is_missing_or_taken_is_said_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let good = settings(dir.path(), 6379);
    let good = Settings {
        tailscaled: tailscaled(dir.path(), "1.102.5"),
        tailscale: "/bin/true".into(),
        socks_port: free_port(),
        ..good
    };
    let key = KeyPair::generate().unwrap().serialize_pem();
    let identity = NodeIdentity { key, ..identity() };
    let missing = Settings { redis_server: "/nowhere/redis-server".into(), ..good.clone() };
    let error = run(identity.clone(), missing, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/redis-server is not there"), "{error}");
    let gone = Settings { tailscaled: "/nowhere/tailscaled".into(), ..good.clone() };
    let error = run(identity.clone(), gone, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/tailscaled is not there"), "{error}");
    let old = Settings { tailscaled: tailscaled(dir.path(), "1.96.4"), ..good.clone() };
    let error = run(identity.clone(), old, CancellationToken::new()).await.unwrap_err();
    assert!(
        error.to_string().contains("is of version 1.96.4, and a node needs 1.98 or newer"),
        "{error}"
    );
    let holder = std::net::TcpListener::bind(("127.0.0.1", good.redis_port)).unwrap();
    let error = run(identity, good, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, AgentError::Port { .. }), "{error}");
    drop(holder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_a_volume_waits_says_so_and_takes_over_or_gives_way() {
    let first = start();
    first.page_that(|page| page.process == Process::Running).await;
    let impatient = start_in(first.dir.clone(), "run-2", Duration::ZERO);
    let error = timeout(PATIENCE, impatient.task).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().starts_with("another agent uses this volume"), "{error}");
    let second = start_in(first.dir.clone(), "run-3", 2 * PATIENCE);
    let waiting = second.page_that(|page| !page.lacks.is_empty()).await;
    assert!(waiting.lacks[0].starts_with("another agent uses this volume"), "{waiting:?}");
    assert_eq!(
        (waiting.process, waiting.mesh.as_str(), waiting.fenced),
        (Process::Exited, "Down", true),
        "nothing runs there yet"
    );
    first.end().await.unwrap();
    let page = second.page_that(|page| page.process == Process::Running).await;
    assert!(page.lacks.iter().all(|sentence| !sentence.starts_with("another agent")), "{page:?}");
    second.end().await.unwrap();
}
