//! A real kube-apiserver over a real etcd. No controller runs: nothing is collected by owner
//! references, and a namespace that is being deleted stays.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akash_redis::config::KubernetesHome;
use akash_redis::store::kubernetes::{self, KubernetesStore};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// A single wait takes no longer unless something is broken.
pub const STEP: Duration = Duration::from_mins(1);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);
const PEERS_VARIABLE: &str = "AKASH_REDIS_KUBE_PEERS";

/// What is written down of calls: those of service accounts, without their content.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
  "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]}"#;

/// The directory of the programs that `tests/kube-peers/build.sh` made.
pub fn peers() -> PathBuf {
    if let Some(dir) = std::env::var_os(PEERS_VARIABLE) {
        return dir.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"),
        PathBuf::from,
    );
    let found = std::fs::read_dir(cache.join("akash-redis")).into_iter().flatten().flatten();
    let built = found.filter(|e| e.file_name().to_string_lossy().starts_with("kube-peers-"));
    let newest = built.max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok());
    newest.expect("the Kubernetes of the tests is built by `make kube-peers`").path()
}

/// Waits until something holds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < STEP, "waited in vain for {what}");
        sleep(POLL).await;
    }
}

/// An apiserver with its store.
pub struct Cluster {
    dir: PathBuf,
    ports: [u16; 3],
    etcd: Option<Child>,
    apiserver: Option<Child>,
    pub client: Client,
}

impl Cluster {
    /// Boots, with the definition of our objects.
    pub async fn start(dir: &Path) -> Self {
        let cluster = Self::bare(dir).await;
        cluster.define(&akash_redis::api::crd::definition()).await;
        cluster
    }

    /// Boots.
    pub async fn bare(dir: &Path) -> Self {
        let dir = dir.join("kube");
        std::fs::create_dir_all(&dir).unwrap();
        let ports = free();
        write_files(&dir, ports[0]);
        let client = kubernetes::connect(&home_at(&dir, "default")).await.unwrap();
        let mut cluster = Self { dir, ports, etcd: None, apiserver: None, client };
        cluster.start_etcd();
        cluster.start_apiserver();
        cluster.ready().await;
        cluster
    }

    pub fn start_etcd(&mut self) {
        let [_, clients, peers] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = self.program("etcd");
        command.args(["--name", "one", "--unsafe-no-fsync", "--log-level", "warn"]);
        command.arg("--data-dir").arg(self.dir.join("data"));
        for (flag, url) in [
            ("--listen-client-urls", &clients),
            ("--advertise-client-urls", &clients),
            ("--listen-peer-urls", &peers),
            ("--initial-advertise-peer-urls", &peers),
        ] {
            command.args([flag, url]);
        }
        command.args(["--initial-cluster", &format!("one={peers}")]);
        self.etcd = Some(command.spawn().unwrap());
    }

    pub fn start_apiserver(&mut self) {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut command = self.program("kube-apiserver");
        command.args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports[1]),
            format!("--secure-port={}", self.ports[0]),
            format!("--cert-dir={}", self.dir.display()),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ]);
        command.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--disable-admission-plugins=ServiceAccount",
            "--authorization-mode=RBAC",
            "--profiling=false",
        ]);
        command.args([
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", self.audit().display()),
            "--audit-log-mode=blocking".to_owned(),
        ]);
        self.apiserver = Some(command.spawn().unwrap());
    }

    /// The process dies at once.
    pub async fn kill_apiserver(&mut self) {
        self.apiserver.take().expect("it runs").kill().await.unwrap();
    }

    /// The process dies at once.
    pub async fn kill_etcd(&mut self) {
        self.etcd.take().expect("it runs").kill().await.unwrap();
    }

    /// It says that it is ready, and has the namespace that every test uses.
    pub async fn ready(&mut self) {
        let spaces: Api<Namespace> = Api::all(self.client.clone());
        let begun = Instant::now();
        while spaces.get("default").await.is_err() {
            let dead = |child: &mut Option<Child>| child.as_mut().unwrap().try_wait().unwrap();
            let ends = [dead(&mut self.etcd), dead(&mut self.apiserver)];
            let log = std::fs::read_to_string(self.dir.join("kube-apiserver.log"));
            let late = begun.elapsed() > STEP;
            assert!(!late && ends == [None, None], "{ends:?}: {}", log.unwrap_or_default());
            sleep(POLL).await;
        }
    }

    fn program(&self, name: &str) -> Command {
        let path = self.dir.join(format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(peers().join(name));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.kill_on_drop(true);
        command
    }

    /// `kubectl` as an administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(peers().join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        command.env("HOME", &self.dir).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What `kubectl` says when it works.
    pub async fn says(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// What service accounts did: an event in each line.
    pub fn audit(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// Makes a definition known, and waits until it is served.
    pub async fn define(&self, definition: &Value) {
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        let name = definition["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        started(async || api.patch(name, &params, &Patch::Apply(definition)).await).await;
        self.served(name).await;
    }

    /// Waits until a definition is served.
    pub async fn served(&self, name: &str) {
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        until("the definition to be served", async || {
            let found = started(async || api.get(name).await).await;
            let conditions = found.data["status"]["conditions"].clone();
            let is = |kind: &str| {
                let mut all = conditions.as_array()?.iter();
                all.find(|c| c["type"] == kind).map(|c| c["status"] == "True")
            };
            assert_ne!(is("NonStructuralSchema"), Some(true), "{conditions}");
            (is("Established") == Some(true)).then_some(())
        })
        .await;
        let objects = self.objects("default");
        until("objects to be listed", async || {
            objects.list(&kube::api::ListParams::default()).await.ok()
        })
        .await;
    }

    pub async fn namespace(&self, name: &str) {
        let spaces: Api<Namespace> = Api::all(self.client.clone());
        let space = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        started(async || spaces.create(&PostParams::default(), &space).await).await;
    }

    /// Our objects in a namespace.
    pub fn objects(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("akash-redis.dev", "v1alpha1", "RedisCluster");
        let resource = ApiResource::from_gvk_with_plural(&kind, "redisclusters");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// Creates one of our objects as `kubectl create` would.
    pub async fn create(&self, namespace: &str, manifest: &Value) -> Result<DynamicObject, String> {
        let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
        let made = self.objects(namespace).create(&PostParams::default(), &object).await;
        made.map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        })
    }

    /// The settings of an operator in a namespace.
    pub fn home(&self, namespace: &str) -> KubernetesHome {
        home_at(&self.dir, namespace)
    }

    /// The store as an operator of that namespace opens it, for objects of that namespace.
    pub async fn store(&self, namespace: &str) -> Arc<KubernetesStore> {
        let home = self.home(namespace);
        let home = KubernetesHome { watch_namespace: Some(namespace.to_owned()), ..home };
        self.store_at(home).await
    }

    pub async fn store_at(&self, home: KubernetesHome) -> Arc<KubernetesStore> {
        let client = kubernetes::connect(&home).await.unwrap();
        KubernetesStore::open(client, home).await.unwrap()
    }

    /// A call of etcd's own API.
    pub async fn etcd(&self, call: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}/v3/kv/{call}", self.ports[1]);
        let answer = reqwest::Client::new().post(url).json(body).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    }
}

fn home_at(dir: &Path, namespace: &str) -> KubernetesHome {
    KubernetesHome {
        namespace: namespace.to_owned(),
        watch_namespace: None,
        selector: None,
        kubeconfig: Some(dir.join("kubeconfig")),
    }
}

/// Three ports that nobody listens on.
fn free() -> [u16; 3] {
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// What an apiserver answers that may be starting still.
async fn started<T>(ask: impl AsyncFn() -> kube::Result<T>) -> T {
    until("the apiserver to be started", async || match ask().await {
        Err(kube::Error::Api(status)) if [429, 503].contains(&status.code) => None,
        answer => Some(answer.unwrap()),
    })
    .await
}

/// A certificate that vouches for itself, keys for service accounts, and the token of an
/// administrator.
fn write_files(dir: &Path, port: u16) {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let names = ["localhost", "kubernetes", "127.0.0.1"].map(str::to_owned);
    let server = key();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&server).unwrap();
    let accounts = key();
    let token = hex::encode(rand::random::<[u8; 16]>());
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": BASE64_STANDARD.encode(certificate.pem()),
        }}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    for (name, text) in [
        ("server.crt", certificate.pem()),
        ("server.key", server.serialize_pem()),
        ("sa.key", accounts.serialize_pem()),
        ("sa.pub", accounts.public_key_pem()),
        ("audit-policy.yaml", AUDIT.to_owned()),
        ("tokens.csv", format!("{token},admin,admin,system:masters\n")),
        ("kubeconfig", kubeconfig.to_string()),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}
