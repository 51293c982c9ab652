//! The tailscaled on this machine, asked over its unix socket.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Response;
use reqwest::header::{ETAG, IF_MATCH};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::outside;
use crate::http_client as http;

const TIME_OUT: Duration = Duration::from_secs(3);
const MAX_BODY: usize = 16 * 1024 * 1024;
/// tailscaled answers to this name only, so that no web page can reach it.
const STATUS_URL: &str = "http://local-tailscaled.sock/localapi/v0/status";
const SERVE_URL: &str = "http://local-tailscaled.sock/localapi/v0/serve-config";
const PREFS_URL: &str = "http://local-tailscaled.sock/localapi/v0/prefs";
const PING_URL: &str = "http://local-tailscaled.sock/localapi/v0/ping";

/// Why tailscaled did not tell.
#[derive(Debug, thiserror::Error)]
#[error(
    "tailscaled at {socket} does not answer ({detail}); nodes cannot be reached over the mesh from here; is it running, and may we use its socket?"
)]
pub struct LocalError {
    /// Its socket.
    pub socket: String,
    /// What was seen.
    pub detail: String,
}

/// What tailscaled says about itself and its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LocalStatus {
    /// `NoState`, `NeedsLogin`, `NeedsMachineAuth`, `Stopped`, `Starting` or `Running`.
    pub backend_state: String,
    /// Whether it has registered before and kept its state.
    pub have_node_key: bool,
    /// Where the control server sends a person to log in; empty when it asks for nothing. It is not
    /// shown to anybody.
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    /// This node; `None` before it has joined.
    #[serde(rename = "Self")]
    pub own: Option<LocalPeer>,
    /// Complaints, in people's words.
    pub health: Option<Vec<String>>,
    /// Peers in the network map, by node key.
    pub peer: Option<BTreeMap<String, LocalPeer>>,
}

/// A node as tailscaled sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LocalPeer {
    /// The control API's `nodeId`.
    #[serde(rename = "ID")]
    pub id: String,
    /// Host name it asked for.
    pub host_name: String,
    /// MagicDNS name; use [`LocalPeer::fqdn`].
    #[serde(rename = "DNSName")]
    pub dns_name: String,
    /// Its addresses on the mesh.
    #[serde(rename = "TailscaleIPs")]
    pub tailscale_ips: Option<Vec<IpAddr>>,
    /// Connected to the control server, which does not mean reachable.
    pub online: bool,
    /// Something was sent to it in the last 45 s.
    pub active: bool,
    /// Direct address in use; empty when traffic is relayed or there is none.
    pub cur_addr: String,
    /// Code of its home DERP region, whether it is used or not.
    pub relay: String,
    /// Peer relay in use; empty when there is none.
    pub peer_relay: String,
    /// What the control server gives it beside its addresses, of itself alone.
    pub cap_map: Option<Gifts>,
    /// Bytes from it since tailscaled started.
    pub rx_bytes: u64,
    /// Bytes to it since then.
    pub tx_bytes: u64,
}

/// What the control server gives a device beside its addresses, as far as it is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Gifts {
    /// Addresses of the services of which it is a host, by their names, as the control server wrote
    /// them; use [`LocalPeer::service`].
    #[serde(rename = "service-host")]
    services: Option<Value>,
}

/// What came back of a ping.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pong {
    /// Why nothing came back; empty when something did.
    #[serde(rename = "Err")]
    pub error: String,
    /// Round trip, seconds.
    #[serde(rename = "LatencySeconds")]
    pub seconds: f64,
    /// Address it came from; empty when it was relayed.
    #[serde(rename = "Endpoint")]
    pub endpoint: String,
    /// Peer relay it came through.
    #[serde(rename = "PeerRelay")]
    pub peer_relay: String,
    /// Code of the DERP region it came through.
    #[serde(rename = "DERPRegionCode")]
    pub derp_region: String,
}

impl Pong {
    fn cleaned(mut self) -> Self {
        for text in
            [&mut self.error, &mut self.endpoint, &mut self.peer_relay, &mut self.derp_region]
        {
            *text = outside::sentence(text);
        }
        self
    }
}

impl LocalPeer {
    /// The control server wrote names and addresses, and the peer its host name.
    fn cleaned(mut self) -> Self {
        for name in [&mut self.host_name, &mut self.dns_name] {
            *name = outside::dns_name(name).unwrap_or_default();
        }
        for text in [&mut self.cur_addr, &mut self.relay, &mut self.peer_relay] {
            *text = outside::sentence(text);
        }
        if !outside::is_word(&self.id) {
            self.id.clear();
        }
        self.tailscale_ips.iter_mut().for_each(|ips| ips.retain(outside::may_be_a_device));
        self
    }

    /// MagicDNS name without the trailing dot.
    #[must_use]
    pub fn fqdn(&self) -> &str {
        self.dns_name.trim_end_matches('.')
    }

    /// Address of this service of the tailnet, where the device is a host of it.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<IpAddr> {
        let lists = self.cap_map.as_ref()?.services.as_ref()?.as_array()?;
        let mut all = lists.iter().filter_map(|list| list.get(name)?.as_array()).flatten();
        all.find_map(|ip| outside::device_ip(ip.as_str()?))
    }

    /// Its IPv4 address, by which it is dialled.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let ips = self.tailscale_ips.as_deref().unwrap_or_default();
        ips.iter().find(|ip| ip.is_ipv4()).or(ips.first()).copied()
    }
}

/// Complaints of tailscaled that are passed on.
const MOST_COMPLAINTS: usize = 16;

impl LocalStatus {
    fn cleaned(mut self) -> Self {
        self.backend_state = outside::sentence(&self.backend_state);
        // With a network map from its disk it goes on as it was, though the control server does not
        // know it any more.
        if !self.auth_url.is_empty() && ["Starting", "Running"].contains(&&*self.backend_state) {
            "NeedsLogin".clone_into(&mut self.backend_state);
        }
        self.auth_url.clear();
        self.own = self.own.map(LocalPeer::cleaned);
        self.health = self.health.map(|texts| {
            texts.iter().take(MOST_COMPLAINTS).map(|text| outside::sentence(text)).collect()
        });
        self.peer = self
            .peer
            .map(|peers| peers.into_iter().map(|(key, peer)| (key, peer.cleaned())).collect());
        self
    }

    /// Joined and able to carry traffic.
    #[must_use]
    pub fn running(&self) -> bool {
        self.backend_state == "Running"
    }

    /// The peer with this MagicDNS name, with or without the trailing dot.
    #[must_use]
    pub fn peer_named(&self, fqdn: &str) -> Option<&LocalPeer> {
        let fqdn = fqdn.trim_end_matches('.');
        self.peer.as_ref()?.values().find(|peer| peer.fqdn().eq_ignore_ascii_case(fqdn))
    }
}

/// Client of tailscaled's local API.
#[derive(Clone, Debug)]
pub struct LocalClient {
    socket: PathBuf,
    http: reqwest::Client,
}

impl LocalClient {
    /// A client for the tailscaled that listens on `socket`, e.g.
    /// `/var/run/tailscale/tailscaled.sock`.
    pub fn new(socket: &Path) -> Result<Self, LocalError> {
        let http = http::unix_socket(socket, Some(TIME_OUT)).map_err(|error| LocalError {
            socket: socket.display().to_string(),
            detail: http::innermost(&error),
        })?;
        Ok(Self { socket: socket.to_owned(), http })
    }

    /// The present status; waits 3 s at most. Names in it are DNS names or empty, addresses are a
    /// device's, texts are short.
    pub async fn status(&self) -> Result<LocalStatus, LocalError> {
        self.ask::<LocalStatus>(self.http.get(STATUS_URL)).await.map(LocalStatus::cleaned)
    }

    /// Has tailscaled send a peer something through the tunnel: the handshake of a tunnel that was
    /// not used for minutes is made now, and not with the first connection. Waits 3 s at most.
    pub async fn warm(&self, ip: IpAddr) -> Result<(), LocalError> {
        let ip = ip.to_string();
        let ping = self.http.post(PING_URL).query(&[("ip", ip.as_str()), ("type", "TSMP")]);
        self.ask::<Pong>(ping).await.map(drop)
    }

    /// Has tailscaled look for the way to a peer and measure it; waits 3 s at most for the peer's
    /// answer. The peer's tailscaled answers by itself, nothing reaches its programs. Only who may
    /// command tailscaled may ask this.
    pub async fn ping(&self, ip: IpAddr) -> Result<Pong, LocalError> {
        let ip = ip.to_string();
        let pong = self
            .ask::<Pong>(self.http.post(PING_URL).query(&[("ip", ip.as_str()), ("type", "disco")]))
            .await;
        pong.map(Pong::cleaned)
    }

    /// What it serves, and the word for that: what is changed must name it.
    pub async fn serve_config(&self) -> Result<(Value, String), LocalError> {
        let response = self.send(self.http.get(SERVE_URL)).await?;
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        Ok((self.read(response).await?, tag))
    }

    /// Has it serve this, if what it serves is what `tag` stands for.
    pub async fn set_serve_config(&self, config: &Value, tag: &str) -> Result<(), LocalError> {
        let post = self.http.post(SERVE_URL).header(IF_MATCH, tag).body(config.to_string());
        self.send(post).await.map(drop)
    }

    /// Services of the tailnet of which it offers to be a host.
    pub async fn advertised_services(&self) -> Result<Vec<String>, LocalError> {
        let prefs: Value = self.ask(self.http.get(PREFS_URL)).await?;
        let all = prefs["AdvertiseServices"].as_array().into_iter().flatten();
        Ok(all.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Has it offer to be a host of these, and of no others.
    pub async fn advertise_services(&self, all: &[String]) -> Result<(), LocalError> {
        let change = json!({"AdvertiseServices": all, "AdvertiseServicesSet": true});
        self.send(self.http.patch(PREFS_URL).body(change.to_string())).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, LocalError> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    fn failed(&self, detail: String) -> LocalError {
        LocalError { socket: self.socket.display().to_string(), detail }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, LocalError> {
        let failed = |detail| self.failed(detail);
        let response = request.send().await.map_err(|error| failed(http::innermost(&error)))?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(failed(format!("status {status}"))) }
    }

    async fn read<T: DeserializeOwned>(&self, mut response: Response) -> Result<T, LocalError> {
        let failed = |detail| self.failed(detail);
        let body = http::bounded(&mut response, MAX_BODY)
            .await
            .map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&body)
            .map_err(|error| failed(format!("an answer that is not understood: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;

    fn recorded() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/vectors/headscale/localapi-status.json"))
            .unwrap()
    }

    fn serve(dir: &Path) -> PathBuf {
        let socket = dir.join("tailscaled.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        // tailscaled refuses any other host name.
        let status = |headers: HeaderMap| async move {
            if headers.get("host").is_some_and(|host| host == "local-tailscaled.sock") {
                (StatusCode::OK, recorded().to_string())
            } else {
                (StatusCode::FORBIDDEN, String::new())
            }
        };
        let app = Router::new().route("/localapi/v0/status", get(status));
        tokio::spawn(async move { axum::serve(listener, app).await });
        socket
    }

    #[tokio::test]
    async fn a_recorded_status_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let status = LocalClient::new(&serve(dir.path())).unwrap().status().await.unwrap();
        assert!(status.running() && status.have_node_key);
        let own = status.own.as_ref().unwrap();
        assert_eq!(
            (own.id.as_str(), own.fqdn(), own.ip()),
            ("2", "redis-1.mesh.test", "100.64.0.2".parse().ok())
        );
        let peer = status.peer_named("redis-0.mesh.test").unwrap();
        assert_eq!(peer.ip(), "100.64.0.42".parse().ok());
        assert_eq!(status.peer_named("redis-9.mesh.test"), None);
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let error = LocalClient::new(Path::new("/nowhere/tailscaled.sock"))
            .unwrap()
            .status()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/tailscaled.sock"), "{error}");
    }

    /// It calls itself running as long as it has the network map of its disk, and has to log in.
    #[test]
    fn a_device_that_the_control_server_has_forgotten_does_not_run() {
        let status = |url: &str, state: &str| {
            let said =
                format!(r#"{{"BackendState":"{state}","HaveNodeKey":true,"AuthURL":"{url}"}}"#);
            serde_json::from_str::<LocalStatus>(&said).unwrap().cleaned()
        };
        for state in ["Running", "Starting"] {
            let forgotten = status("https://control.test/login/1", state);
            assert!(!forgotten.running() && forgotten.auth_url.is_empty());
            assert_eq!(forgotten.backend_state, "NeedsLogin");
            assert_eq!(status("", state).backend_state, state);
        }
        assert_eq!(status("https://control.test/login/1", "Stopped").backend_state, "Stopped");
    }

    #[test]
    fn a_node_that_never_joined_has_no_name() {
        let status: LocalStatus =
            serde_json::from_str(r#"{"BackendState":"NeedsLogin","Self":{"DNSName":"","TailscaleIPs":null},"Peer":null}"#).unwrap();
        assert!(!status.running() && status.own.unwrap().ip().is_none());
    }
}
