//! The local market's tailnet: the control server of `tests/peers` and the operator's own
//! tailscaled.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::http;
use super::net::Net;

/// Names another directory with `control`, `tailscaled` and `tailscale`.
pub const PEERS_VARIABLE: &str = "AKASH_REDIS_PEERS";
/// OAuth client of the local control server.
pub const OAUTH_CLIENT_ID: &str = "devnet";
/// Its secret. Everybody may know it: whoever reaches the server is inside the sandbox already.
pub const OAUTH_SECRET: &str = "tskey-client-devnet";
/// Tag of the clusters' nodes.
pub const CLUSTER_TAG: &str = "tag:akash-redis";
/// Tag of the operator, which may hand out the cluster's tag.
pub const OPERATOR_TAG: &str = "tag:operator";
/// Tag under which a node is reached by the operator alone.
pub const QUARANTINE_TAG: &str = "tag:quarantine";

/// Tag of applications, which reach Redis of the nodes and ask them who is master.
pub const APPLICATION_TAG: &str = "tag:app";

const API_KEY: &str = "tskey-api-devnet";
const CONTROL_PORT: u16 = 8080;
const SOCKS5_PORT: u16 = 1055;
const PROGRAMS: [&str; 3] = ["control", "tailscaled", "tailscale"];
const HEALTHY: Duration = Duration::from_mins(1);
const CALL_TIME_OUT: Duration = Duration::from_secs(5);
const JOIN: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no tailnet.
#[derive(Debug, thiserror::Error)]
pub enum TailnetError {
    /// The programs have not been built.
    #[error(
        "no {missing} in {looked_in}, so there can be no tailnet; build it with `tests/peers/build.sh`, or set {PEERS_VARIABLE}"
    )]
    NoPeers {
        /// What was not found.
        missing: String,
        /// Where.
        looked_in: String,
    },
    /// A process could not be started.
    #[error("{program} cannot be started, so there is no tailnet")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A process ended or did not answer.
    #[error("{what} failed ({detail}), so there is no tailnet; see {log}")]
    Failed {
        /// What was done.
        what: &'static str,
        /// What was seen.
        detail: String,
        /// Where more is.
        log: PathBuf,
    },
}

/// Where `control`, `tailscaled` and `tailscale` are: `AKASH_REDIS_PEERS`, or the newest build of
/// `tests/peers/build.sh`.
pub fn peers_dir() -> Result<PathBuf, TailnetError> {
    if let Some(dir) = env::var_os(PEERS_VARIABLE) {
        return complete(PathBuf::from(dir));
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_default()
        .join("akash-redis");
    newest(&cache)
}

fn newest(cache: &Path) -> Result<PathBuf, TailnetError> {
    let builds = fs::read_dir(cache).into_iter().flatten().flatten();
    let builds = builds.filter(|entry| entry.file_name().to_string_lossy().starts_with("peers-"));
    let newest = builds
        .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok())
        .map(|entry| entry.path());
    let none = || TailnetError::NoPeers {
        missing: "build of the peers".to_owned(),
        looked_in: cache.display().to_string(),
    };
    complete(newest.ok_or_else(none)?)
}

fn complete(dir: PathBuf) -> Result<PathBuf, TailnetError> {
    match PROGRAMS.iter().find(|program| !dir.join(program).is_file()) {
        Some(missing) => Err(TailnetError::NoPeers {
            missing: (*missing).to_owned(),
            looked_in: dir.display().to_string(),
        }),
        None => Ok(dir),
    }
}

/// What every tailscaled in the sandbox needs in its environment: plain http for the relay, and
/// nothing of the world outside.
#[must_use]
pub const fn node_env() -> [(&'static str, &'static str); 3] {
    [
        ("TS_DEBUG_USE_DERP_HTTP", "true"),
        ("TS_DISABLE_PORTMAPPER", "1"),
        ("TS_PANIC_IF_HIT_MAIN_CONTROL", "1"),
    ]
}

/// Base URL of the control API, and the login server of every node. It names an address because
/// tailscaled, given a host name, turns to port 443 after the first lost connection and stays
/// there.
#[must_use]
pub fn login_server() -> String {
    format!("http://{}:{CONTROL_PORT}", Net::GATEWAY)
}

/// SOCKS5 address of the operator's tailscaled, inside the sandbox.
#[must_use]
pub const fn socks5() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), SOCKS5_PORT)
}

/// Who may reach whom. Members of a cluster see each other, the operator sees all, and nodes in
/// quarantine see the operator only.
fn policy() -> Value {
    let grant = |src: &str, dst: &[&str], ip: &[&str]| json!({"src": [src], "dst": dst, "ip": ip});
    json!({
        "tagOwners": {CLUSTER_TAG: [OPERATOR_TAG], QUARANTINE_TAG: [OPERATOR_TAG], OPERATOR_TAG: [], APPLICATION_TAG: [OPERATOR_TAG]},
        "grants": [
            grant(CLUSTER_TAG, &[CLUSTER_TAG], &["tcp:6379", "tcp:26379"]),
            grant(APPLICATION_TAG, &[CLUSTER_TAG], &["tcp:6379", "tcp:26379"]),
            grant(OPERATOR_TAG, &[CLUSTER_TAG], &["tcp:9700", "tcp:6379", "tcp:26379"]),
            grant(OPERATOR_TAG, &[QUARANTINE_TAG], &["tcp:9700"]),
        ],
        // As `akash-redis mesh policy` prints it.
        "nodeAttrs": [{"target": [CLUSTER_TAG, OPERATOR_TAG, APPLICATION_TAG], "attr": ["cache-network-maps"]}],
    })
}

/// A running tailnet; its processes end when it is dropped.
#[derive(Debug)]
pub struct Tailnet {
    peers: PathBuf,
    dir: PathBuf,
    http: reqwest::Client,
    control: Child,
    tailscaled: Child,
}

impl Tailnet {
    /// Starts the control server and the operator's tailscaled inside a sandbox that is set up, and
    /// joins the latter as `operator`.
    ///
    /// State, sockets and logs are in `dir` (a short path: it holds unix sockets). `control_flags`
    /// are further flags of the control server.
    pub async fn start(dir: &Path, control_flags: &[&str]) -> Result<Self, TailnetError> {
        let peers = peers_dir()?;
        let log = dir.join("control.log");
        let failed = |what, detail: String| TailnetError::Failed { what, detail, log: log.clone() };
        fs::create_dir_all(dir.join("operator"))
            .map_err(|error| failed("making its directory", error.to_string()))?;
        let http = http::plain(CALL_TIME_OUT)
            .build()
            .map_err(|error| failed("making an HTTP client", error.to_string()))?;

        let mut control = Command::new(peers.join("control"));
        control.args([
            "-listen",
            &format!("{}:{CONTROL_PORT}", Net::GATEWAY),
            "-suffix",
            "mesh.test",
            "-api-key",
            API_KEY,
        ]);
        control
            .args(["-client-secret", OAUTH_SECRET, "-client-tags", OPERATOR_TAG, "-state"])
            .arg(dir.join("control.json"));
        control.args(control_flags);
        let mut control = start(control, "control", &log)?;
        healthy(&http, &mut control)
            .await
            .map_err(|detail| failed("waiting for the control server", detail))?;
        call(&http, Method::POST, "tailnet/-/acl", Some(policy().to_string()))
            .await
            .map_err(|detail| failed("setting the policy", detail))?;

        let tailscaled = start_tailscaled(&peers, dir)?;
        let tailnet = Self { peers, dir: dir.to_owned(), http, control, tailscaled };
        let log = tailnet.dir.join("tailscaled.log");
        tailnet.join().await.map_err(|detail| TailnetError::Failed {
            what: "joining the tailnet",
            detail,
            log,
        })?;
        Ok(tailnet)
    }

    /// Socket of the operator's tailscaled.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    /// Where the programs are that it runs.
    #[must_use]
    pub fn peers(&self) -> &Path {
        &self.peers
    }

    /// Process of the control server, for faults (SIGSTOP takes it away without losing its state).
    #[must_use]
    pub fn control_pid(&self) -> Option<u32> {
        self.control.id()
    }

    /// Takes control server and API away, or brings them back. The relay goes on, as in a tailnet
    /// where it is another machine.
    ///
    /// # Errors
    /// The control server ended.
    pub fn set_away(&self, away: bool) -> io::Result<()> {
        let signal = if away { Signal::USR1 } else { Signal::USR2 };
        let pid = self.control.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        Ok(kill_process(pid.ok_or(io::ErrorKind::NotFound)?, signal)?)
    }

    /// The operator's tailscaled dies, and another one is started with its state.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_tailscaled(&mut self) -> Result<(), TailnetError> {
        // It is gone already when this fails.
        let _ = self.tailscaled.kill().await;
        self.tailscaled = start_tailscaled(&self.peers, &self.dir)?;
        Ok(())
    }

    /// Asks the control API something, below `/api/v2/`, with all rights; the answer's JSON, or
    /// null.
    pub async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, TailnetError> {
        let failed = |detail| TailnetError::Failed {
            what: "a call of the control API",
            detail,
            log: self.dir.join("control.log"),
        };
        call(&self.http, method, path, body.map(Value::to_string)).await.map_err(failed)
    }

    /// Puts another policy in force: JSON, with comments and trailing commas allowed.
    pub async fn set_policy(&self, text: &str) -> Result<(), TailnetError> {
        let failed = |detail| TailnetError::Failed {
            what: "setting the policy",
            detail,
            log: self.dir.join("control.log"),
        };
        call(&self.http, Method::POST, "tailnet/-/acl", Some(text.to_owned()))
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Mints a one-off, pre-authorized key with `tag`.
    pub async fn mint(&self, tag: &str) -> Result<String, TailnetError> {
        let create =
            json!({"reusable": false, "ephemeral": false, "preauthorized": true, "tags": [tag]});
        let body = json!({"capabilities": {"devices": {"create": create}}, "expirySeconds": 3600});
        let answer = self.api(Method::POST, "tailnet/-/keys", Some(&body)).await?;
        Ok(answer["key"].as_str().unwrap_or_default().to_owned())
    }

    /// Ends its processes and waits until they are gone.
    pub async fn stop(mut self) {
        for child in [&mut self.tailscaled, &mut self.control] {
            // It is gone already when this fails.
            let _ = child.kill().await;
        }
    }

    async fn join(&self) -> Result<(), String> {
        let key = self.mint(OPERATOR_TAG).await.map_err(|error| error.to_string())?;
        let file = self.dir.join("operator/key");
        let written =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file);
        written
            .and_then(|mut file| file.write_all(key.as_bytes()))
            .map_err(|error| error.to_string())?;
        let mut up = Command::new(self.peers.join("tailscale"));
        up.arg(format!("--socket={}", self.socket().display())).args([
            "up",
            "--hostname=operator",
            "--timeout=30s",
        ]);
        up.arg(format!("--login-server={}", login_server()))
            .arg(format!("--auth-key=file:{}", file.display()));
        let output = timeout(JOIN, up.stdin(Stdio::null()).kill_on_drop(true).output()).await;
        let _ = fs::remove_file(&file);
        match output {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(format!(
                "{}, {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no end in {} s", JOIN.as_secs())),
        }
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("tailscaled.sock")
}

fn start_tailscaled(peers: &Path, dir: &Path) -> Result<Child, TailnetError> {
    let state = dir.join("operator");
    let mut tailscaled = Command::new(peers.join("tailscaled"));
    tailscaled
        .args(["--tun=userspace-networking", "--no-logs-no-support"])
        .arg(format!("--socks5-server={}", socks5()));
    tailscaled
        .arg(format!("--statedir={}", state.display()))
        .arg(format!("--socket={}", socket(dir).display()));
    // Bulk transfers make it grow without end otherwise.
    tailscaled.envs(node_env()).env("TS_LOGS_DIR", &state).env("GOMEMLIMIT", "100MiB");
    start(tailscaled, "tailscaled", &dir.join("tailscaled.log"))
}

fn start(mut command: Command, program: &str, log: &Path) -> Result<Child, TailnetError> {
    let failed = |source| TailnetError::Start { program: program.to_owned(), source };
    let out = File::create(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true).spawn().map_err(failed)
}

async fn healthy(http: &reqwest::Client, control: &mut Child) -> Result<(), String> {
    let url = format!("{}/health", login_server());
    let deadline = Instant::now() + HEALTHY;
    loop {
        if let Ok(Some(status)) = control.try_wait() {
            return Err(format!("it ended, {status}"));
        }
        match http.get(&url).send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.to_string()),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn call(
    http: &reqwest::Client,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<Value, String> {
    let mut request =
        http.request(method, format!("{}/api/v2/{path}", login_server())).bearer_auth(API_KEY);
    if let Some(body) = body {
        request = request.body(body);
    }
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {}", text.trim()));
    }
    if text.trim().is_empty() {
        Ok(Value::Null)
    } else {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complete_build_is_taken_and_an_incomplete_one_is_named() {
        let cache = tempfile::tempdir().unwrap();
        assert!(newest(cache.path()).unwrap_err().to_string().contains("tests/peers/build.sh"));
        let (old, new) = (cache.path().join("peers-1-a"), cache.path().join("peers-1-b"));
        for (dir, at) in [(&old, 1), (&new, 2)] {
            fs::create_dir(dir).unwrap();
            for program in PROGRAMS {
                fs::write(dir.join(program), "").unwrap();
            }
            File::open(dir)
                .unwrap()
                .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(at))
                .unwrap();
        }
        assert_eq!(newest(cache.path()).unwrap(), new);
        fs::remove_file(new.join("control")).unwrap();
        File::open(&new)
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(3))
            .unwrap();
        assert!(newest(cache.path()).unwrap_err().to_string().starts_with("no control in"));
    }

    #[test]
    fn the_operator_may_hand_out_the_clusters_tag_and_nobody_reaches_quarantined_redis() {
        let policy = policy();
        assert_eq!(policy["tagOwners"][CLUSTER_TAG], json!([OPERATOR_TAG]));
        let grants = policy["grants"].as_array().unwrap();
        let to_quarantine: Vec<_> =
            grants.iter().filter(|grant| grant["dst"] == json!([QUARANTINE_TAG])).collect();
        assert_eq!(
            to_quarantine,
            [&json!({"src": [OPERATOR_TAG], "dst": [QUARANTINE_TAG], "ip": ["tcp:9700"]})]
        );
    }
}
