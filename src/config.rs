//! The operator's own settings: one YAML file, each value also as an environment variable.
//!
//! `chain.gasPrice` is `AKASH_REDIS_CHAIN_GAS_PRICE`, and so on for every field; a variable that is
//! set wins over the file, an empty one counts as not set. Secrets are never in the file: it names
//! the files (or, for the mnemonic, the variable) that hold them.

mod fields;
mod kubernetes;
mod notify;
mod parts;
mod problems;
mod secret;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{SecretSlice, SecretString};

use crate::api::quantity::{Money, Span};
use crate::api::types::Runway;
use crate::model::image::{self, NodeImage};
use crate::model::mesh::KEY_LIFE;
use crate::model::money::Uact;
use fields::Fields;
pub use kubernetes::KubernetesHome;
pub use notify::{NotifyFormat, NotifyTarget};
pub use parts::MeshTags;
use problems::Problems;

/// Why the settings cannot be used. Each names the field.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings in {path} cannot be read ({source}); name another file with --config")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML, or not a map of sections.
    #[error("the settings in {path} are not understood: {message}")]
    Yaml {
        /// The file.
        path: String,
        /// Where and why.
        message: String,
    },
    /// A field that does not exist.
    #[error("{field} is not a setting{}", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// As it was written.
        field: String,
        /// The setting with the most similar name.
        nearest: Option<&'static str>,
    },
    /// A variable of this program's that does not exist.
    #[error("{name} is not a setting{}", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownVariable {
        /// As it is called.
        name: String,
        /// The variable with the most similar name.
        nearest: Option<String>,
    },
    /// All that is wrong, each with its place.
    #[error("{}", problems(.0))]
    Problems(Vec<String>),
    /// A required field is not there.
    #[error("{field} is missing; set it in the file or in {variable}")]
    Missing {
        /// Which.
        field: &'static str,
        /// Its environment variable.
        variable: String,
    },
    /// A value that cannot be used.
    #[error("{field} cannot be used: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it, and how it is written right.
        reason: String,
    },
}

/// Chain and tailnet take no more questions, and what happens there is not seen later.
const TICKS: RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_mins(2);
/// Paths of unix sockets have 107 bytes at most, and the name of the socket is a part of them.
const LONGEST_DIR: usize = 80;

/// The settings of an operator, with the secrets they point to.
#[derive(Debug)]
pub struct Config {
    /// How the chain is reached, and what fees may come to.
    pub chain: Chain,
    /// The wallet that pays deposits and fees.
    pub wallet: Wallet,
    /// The tailnet, its control API, and how the operator gets onto it.
    pub mesh: Mesh,
    /// What runs on a lease.
    pub node: Node,
    /// The most that may be spent.
    pub budget: Budget,
    /// Where objects and records are kept.
    pub store: Store,
    /// Everything else is derived from it; at least 32 bytes, as they are in the file.
    pub root_secret: SecretSlice<u8>,
    /// The operator's API.
    pub api: Api,
    /// What it tells while it runs.
    pub log: Log,
    /// How provider gateways are reached.
    pub gateway: Gateway,
    /// How long things may take.
    pub timing: Timing,
    /// Who is told outside.
    pub notify: Vec<NotifyTarget>,
    /// Where traces are sent, when they are.
    pub traces: Option<Traces>,
}

/// How the chain is reached, and what fees may come to.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Chain id, e.g. `akashnet-2`.
    pub id: String,
    /// gRPC endpoints, `http://` or `https://`, the preferred one first; at least one.
    pub grpc: Vec<String>,
    /// Price of a unit of gas in millionths of a uakt.
    pub gas_price_micro: u64,
    /// The most that the fee of one transaction may be, in uakt.
    pub max_fee: u64,
    /// The most that all fees of a day may come to, in uakt.
    pub max_fee_per_day: u64,
}

/// The wallet that pays deposits and fees.
#[derive(Debug)]
pub struct Wallet {
    /// BIP-39 words, 12 to 24 of them.
    pub mnemonic: SecretString,
    /// Account that pays the fees by a grant.
    pub fee_granter: Option<String>,
    /// Account that pays the deposits by a grant, and the fees where no other one is named.
    pub treasury: Option<String>,
}

/// The tailnet, its control API, and how the operator gets onto it.
#[derive(Debug)]
pub struct Mesh {
    /// Base URL of the control API.
    pub api: String,
    /// PEM of an authority that `api` is trusted by beside the public web's; empty when there is none.
    pub ca: String,
    /// Control server of the nodes, when it is not Tailscale's own.
    pub login_server: Option<String>,
    /// Name of the tailnet; `-` is the credential's own.
    pub tailnet: String,
    /// Id of the OAuth client that mints keys and reads devices.
    pub oauth_client_id: String,
    /// Secret of that OAuth client.
    pub oauth_secret: SecretString,
    /// Tag of the nodes' devices unless a manifest names another.
    pub tag: String,
    /// Tag of the operator's own device.
    pub operator_tag: String,
    /// Tag under which a node is reached by the operator alone.
    pub quarantine_tag: String,
    /// SOCKS5 listener (`host:port`) of a tailscaled that somebody else runs, through which the
    /// operator reaches nodes.
    pub socks5: Option<String>,
    /// LocalAPI socket of that tailscaled, or of the machine's own.
    pub socket: Option<PathBuf>,
    /// The tailscaled that the operator runs itself. Without it and without `socks5` nodes are
    /// dialled directly.
    pub tailscaled: Option<OwnTailscaled>,
}

/// A tailscaled that the operator runs itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTailscaled {
    /// Where it keeps its state and its socket.
    pub state_dir: PathBuf,
    /// The program; `tailscale` is looked for beside it.
    pub program: PathBuf,
}

/// What runs on a lease.
#[derive(Clone, Debug)]
pub struct Node {
    /// By digest, with the version of Redis in it where that is set.
    pub image: NodeImage,
}

/// The most that may be spent, per month of 30 days.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// By all clusters together.
    pub global: Money,
    /// By a cluster whose manifest does not say.
    pub per_cluster_default: Money,
    /// When escrows are filled, and for how long, for a cluster whose manifest does not say.
    pub runway: Runway,
}

/// Where objects and records are kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// The `SQLite` file.
    pub sqlite: PathBuf,
    /// Kubernetes in place of that file.
    pub kubernetes: Option<KubernetesHome>,
}

/// The operator's API.
#[derive(Clone, Debug)]
pub struct Api {
    /// Its unix socket.
    pub socket: PathBuf,
    /// Where the metrics, and nothing else, are served on TCP too.
    pub metrics: Option<SocketAddr>,
    /// Where the page for people is served, on loopback.
    pub listen: Option<SocketAddr>,
}

/// What it tells while it runs.
#[derive(Clone, Debug)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// Filter, e.g. `info` or `info,akash_redis::plan=debug`.
    pub level: String,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Base URL of a collector that speaks OTLP over HTTP; `/v1/traces` is added.
    pub endpoint: String,
    /// Of all traces this share is sent: above 0, at most 1.
    pub sample: f64,
}

/// How provider gateways are reached.
#[derive(Clone, Copy, Debug)]
pub struct Gateway {
    /// Gateways at private and loopback addresses are dialled as well: for a market on one's own
    /// machine only.
    pub allow_private: bool,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Bids are collected for so long before one is chosen.
    pub bid_window: Duration,
    /// No usable bid by then: the attempt is given up.
    pub bid_deadline: Duration,
    /// A leased node that has not joined by then is given up.
    pub join_deadline: Duration,
    /// A node that has been silent for so long is replaced.
    pub replace_after: Duration,
    /// Chain and mesh are read so often.
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            bid_window: Duration::from_secs(20),
            bid_deadline: Duration::from_mins(3),
            join_deadline: Duration::from_mins(5),
            replace_after: Duration::from_mins(5),
            tick: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Reads the file, the environment over it, and the secrets that they name.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (name, text) = parts::read(path)?;
        let mut wrong = Problems::new(&name, &text, &parts::environment);
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for error in &fields::unknown_variables(names) {
            wrong.push(error);
        }
        Self::read(&name, &text, &parts::environment, wrong)
    }

    /// As [`Self::load`], with the text of the file and the environment given.
    pub fn parse(
        path: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::read(path, text, env, Problems::new(path, text, env))
    }

    fn read(
        path: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
        mut wrong: Problems<'_>,
    ) -> Result<Self, ConfigError> {
        let (fields, unknown) = Fields::read_all(path, text, env)?;
        for error in &unknown {
            wrong.push(error);
        }
        let flag = fields.flag("gateway.allowPrivate");
        let gateway = wrong.keep(flag.map(|allow_private| Gateway { allow_private }));
        let (api, log, timing) =
            (wrong.keep(api(&fields)), wrong.keep(log(&fields)), wrong.keep(timing(&fields)));
        let chain = wrong.keep(chain(&fields));
        let wallet = wrong.keep(wallet(&fields, env));
        let mesh = wrong.keep(mesh(&fields));
        let node = wrong.keep(image(&fields).map(|image| Node { image }));
        let budget = wrong.keep(budget(&fields));
        let home = wrong.keep(kubernetes::home(&fields));
        let root_secret = wrong.keep(root_secret(&fields));
        let notify = wrong.keep(notify::targets(&fields));
        let traces = wrong.keep(traces(&fields));
        let (Some(chain), Some(wallet), Some(mesh)) = (chain, wallet, mesh) else {
            return Err(wrong.into_error());
        };
        let (Some(node), Some(budget), Some(kubernetes)) = (node, budget, home) else {
            return Err(wrong.into_error());
        };
        let (Some(root_secret), Some(api), Some(log)) = (root_secret, api, log) else {
            return Err(wrong.into_error());
        };
        let (Some(gateway), Some(timing), Some(notify), Some(traces)) =
            (gateway, timing, notify, traces)
        else {
            return Err(wrong.into_error());
        };
        if wrong.are_there() {
            return Err(wrong.into_error());
        }
        let sqlite = fields.or("store.sqlite", "/var/lib/akash-redis/store.db").into();
        let store = Store { sqlite, kubernetes };
        Ok(Self {
            chain,
            wallet,
            mesh,
            node,
            budget,
            store,
            root_secret,
            api,
            log,
            gateway,
            timing,
            notify,
            traces,
        })
    }
}

fn problems(all: &[String]) -> String {
    match all {
        [one] => one.clone(),
        all => format!(
            "{} settings cannot be used, and nothing was started:\n  {}",
            all.len(),
            all.join("\n  ")
        ),
    }
}

fn chain(fields: &Fields) -> Result<Chain, ConfigError> {
    let grpc = fields.list("chain.grpc")?;
    if let Some(bad) = grpc.iter().find(|url| !is_url(url)) {
        return Err(invalid(
            "chain.grpc",
            format!("`{bad}` is not a URL; write it like https://grpc.example.org:443"),
        ));
    }
    // A mistyped price would be paid: ten uakt for a unit of gas is four hundred times the usual
    // price.
    let gas_price_micro =
        fields::decimal_micro(fields.or("chain.gasPrice", "0.025uakt").trim_end_matches("uakt"))
            .filter(|price| (1..=10_000_000).contains(price))
            .ok_or_else(|| {
                invalid(
                    "chain.gasPrice",
                    "it must be above 0 and at most 10uakt, written like 0.025uakt",
                )
            })?;
    let (max_fee, max_fee_per_day) =
        (akt(fields, "chain.maxFee", "0.1akt")?, akt(fields, "chain.maxFeePerDay", "3akt")?);
    if max_fee > max_fee_per_day {
        return Err(invalid(
            "chain.maxFeePerDay",
            "it is less than chain.maxFee, what one transaction may cost; raise it or lower the other",
        ));
    }
    Ok(Chain { id: fields.required("chain.id")?, grpc, gas_price_micro, max_fee, max_fee_per_day })
}

fn api(fields: &Fields) -> Result<Api, ConfigError> {
    let address = |field: &'static str, example: &str| {
        let read = |text: &str| {
            text.parse::<SocketAddr>().map_err(|_| {
                invalid(field, format!("`{text}` is not an address; write it like {example}"))
            })
        };
        fields.get(field).map(read).transpose()
    };
    let listen = address("api.listen", "127.0.0.1:8790")?;
    if let Some(open) = listen.filter(|listen| !listen.ip().is_loopback()) {
        return Err(invalid(
            "api.listen",
            format!(
                "{open} is reached from elsewhere, and whoever reaches the page reads names, prices and the wallet without a password; listen on 127.0.0.1 and forward it (ssh -L, kubectl port-forward)"
            ),
        ));
    }
    Ok(Api {
        socket: fields.or("api.socket", "/run/akash-redis/operator.sock").into(),
        metrics: address("api.metrics", "127.0.0.1:9700")?,
        listen,
    })
}

/// An amount of AKT in uakt.
fn akt(fields: &Fields, field: &'static str, default: &str) -> Result<u64, ConfigError> {
    let text = fields.or(field, default);
    let amount = text.strip_suffix("akt").and_then(fields::decimal_micro).filter(|uakt| *uakt > 0);
    amount.ok_or_else(|| {
        invalid(field, format!("`{text}` must be above 0 and written like {default}"))
    })
}

fn wallet(fields: &Fields, env: &dyn Fn(&str) -> Option<String>) -> Result<Wallet, ConfigError> {
    let mnemonic = match (fields.get("wallet.mnemonicFile"), fields.get("wallet.mnemonicEnv")) {
        (Some(path), None) => secret::text("wallet.mnemonicFile", path)?,
        (None, Some(variable)) => env(variable)
            .filter(|words| !words.trim().is_empty())
            .map(SecretString::from)
            .ok_or_else(|| {
                invalid(
                    "wallet.mnemonicEnv",
                    format!("the environment variable {variable} is not set"),
                )
            })?,
        (Some(_), Some(_)) => {
            return Err(invalid(
                "wallet.mnemonicEnv",
                "wallet.mnemonicFile is set as well; keep one of them",
            ));
        }
        (None, None) => return Err(fields::missing("wallet.mnemonicFile")),
    };
    let treasury = account(fields, "wallet.treasury")?;
    let fee_granter = account(fields, "wallet.feeGranter")?.or_else(|| treasury.clone());
    Ok(Wallet { mnemonic, fee_granter, treasury })
}

/// An address of the chain.
fn account(fields: &Fields, field: &'static str) -> Result<Option<String>, ConfigError> {
    let Some(text) = fields.optional(field) else { return Ok(None) };
    if text.parse::<cosmrs::AccountId>().is_ok_and(|id| id.prefix() == "akash") {
        return Ok(Some(text));
    }
    Err(invalid(
        field,
        format!("`{text}` is not an account; write its address, which begins with akash1"),
    ))
}

fn mesh(fields: &Fields) -> Result<Mesh, ConfigError> {
    let api = fields.or("mesh.api", "https://api.tailscale.com");
    if !is_url(&api) {
        return Err(invalid(
            "mesh.api",
            format!("`{api}` is not a URL; write it like https://api.tailscale.com"),
        ));
    }
    let login_server = fields.optional("mesh.loginServer");
    if let Some(url) = login_server.as_ref().filter(|url| !is_url(url)) {
        return Err(invalid(
            "mesh.loginServer",
            format!("`{url}` is not a URL; write it like https://headscale.example.org"),
        ));
    }
    let ca = ca(fields)?;
    let tags = parts::mesh_tags(fields)?;
    let socks5 = fields.optional("mesh.socks5");
    if let Some(address) = socks5.as_ref().filter(|a| {
        a.rsplit_once(':').is_none_or(|(h, p)| h.is_empty() || p.parse::<u16>().is_err())
    }) {
        return Err(invalid(
            "mesh.socks5",
            format!("`{address}` is not an address; write it like 127.0.0.1:1055"),
        ));
    }
    let tailscaled = own_tailscaled(fields)?;
    if socks5.is_some() && tailscaled.is_some() {
        return Err(invalid(
            "mesh.socks5",
            "mesh.tailscaled.stateDir is set as well; keep the first for a tailscaled that runs already, the second for one that the operator shall run",
        ));
    }
    let socket = fields.optional("mesh.socket").map(PathBuf::from);
    if socket.is_some() && tailscaled.is_some() {
        return Err(invalid(
            "mesh.socket",
            "mesh.tailscaled.stateDir is set as well, and the operator knows the socket of a tailscaled that it runs; remove the first",
        ));
    }
    if let Some(path) = socket.as_ref().filter(|path| !path.is_absolute()) {
        return Err(invalid(
            "mesh.socket",
            format!(
                "`{}` is not an absolute path; write it like /var/run/tailscale/tailscaled.sock",
                path.display()
            ),
        ));
    }
    Ok(Mesh {
        api,
        ca,
        login_server,
        tailnet: fields.or("mesh.tailnet", "-"),
        oauth_client_id: fields.required("mesh.oauthClientId")?,
        oauth_secret: secret::text(
            "mesh.oauthSecretFile",
            &fields.required("mesh.oauthSecretFile")?,
        )?,
        tag: tags.nodes,
        operator_tag: tags.operator,
        quarantine_tag: tags.quarantine,
        socks5,
        socket,
        tailscaled,
    })
}

/// The authority of `mesh.api`: no secret, so that anybody may read it.
fn ca(fields: &Fields) -> Result<String, ConfigError> {
    const FIELD: &str = "mesh.caFile";
    let Some(path) = fields.get(FIELD) else { return Ok(String::new()) };
    let text = secret::read_bounded(Path::new(path))
        .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
        .map_err(|error| invalid(FIELD, format!("{path} cannot be read ({error})")))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(invalid(FIELD, format!("{path} holds no certificate as PEM")));
    }
    Ok(text)
}

fn own_tailscaled(fields: &Fields) -> Result<Option<OwnTailscaled>, ConfigError> {
    const DIR: &str = "mesh.tailscaled.stateDir";
    const PROGRAM: &str = "mesh.tailscaled.program";
    let Some(dir) = fields.get(DIR) else {
        return match fields.get(PROGRAM) {
            Some(_) => Err(invalid(
                PROGRAM,
                format!(
                    "{DIR} is missing: name the directory where this tailscaled shall keep its state"
                ),
            )),
            None => Ok(None),
        };
    };
    if !Path::new(dir).is_absolute() || dir.len() > LONGEST_DIR {
        return Err(invalid(
            DIR,
            format!(
                "`{dir}` must be an absolute path of at most {LONGEST_DIR} characters: a socket lies in it"
            ),
        ));
    }
    Ok(Some(OwnTailscaled {
        state_dir: dir.into(),
        program: fields.or(PROGRAM, "tailscaled").into(),
    }))
}

/// The image of the nodes, and what is said of it.
fn image(fields: &Fields) -> Result<NodeImage, ConfigError> {
    let name = fields.required("node.image")?;
    if let Some(reason) = image::name_problem(&name) {
        return Err(invalid("node.image", reason));
    }
    if name.ends_with(&"0".repeat(64)) {
        let reason = format!(
            "the digest of `{name}` stands in for a real one; push the image, and write the digest that the registry says"
        );
        return Err(invalid("node.image", reason));
    }
    let redis = fields.optional("node.redis").map(|text| image::version(&text)).transpose();
    let redis = redis.map_err(|reason| invalid("node.redis", reason))?;
    Ok(NodeImage { name, redis })
}

fn budget(fields: &Fields) -> Result<Budget, ConfigError> {
    let money =
        |field| fields.required(field)?.parse::<Money>().map_err(|e| invalid(field, e.to_string()));
    let budget = Budget {
        global: money("budget.global")?,
        per_cluster_default: money("budget.perClusterDefault")?,
        runway: Runway {
            low: Span(fields.span("budget.runway.low", Runway::DEFAULT.low.0)?),
            target: Span(fields.span("budget.runway.target", Runway::DEFAULT.target.0)?),
        },
    };
    if let Some(reason) = budget.runway.problem() {
        return Err(invalid("budget.runway.low", reason));
    }
    if budget.global == Money(Uact(0)) {
        return Err(invalid("budget.global", "it must be above 0: nothing could be bought"));
    }
    if budget.per_cluster_default == Money(Uact(0)) {
        return Err(invalid(
            "budget.perClusterDefault",
            "it must be above 0: no cluster could be bought",
        ));
    }
    if budget.per_cluster_default > budget.global {
        return Err(invalid(
            "budget.perClusterDefault",
            format!("it is more than budget.global, {}", budget.global),
        ));
    }
    Ok(budget)
}

fn root_secret(fields: &Fields) -> Result<SecretSlice<u8>, ConfigError> {
    const FIELD: &str = "rootSecretFile";
    let path = fields.required(FIELD)?;
    let bytes = secret::bytes(FIELD, &path)?;
    if bytes.len() < 32 {
        let reason = format!(
            "{path} holds {} bytes and at least 32 are needed; make one with `head -c 32 /dev/urandom`",
            bytes.len()
        );
        return Err(invalid(FIELD, reason));
    }
    Ok(bytes.into())
}

fn log(fields: &Fields) -> Result<Log, ConfigError> {
    let format = match fields.or("log.format", "text").as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => return Err(invalid("log.format", format!("`{other}` is neither text nor json"))),
    };
    let level = fields.or("log.level", "info");
    match tracing_subscriber::EnvFilter::try_new(&level) {
        Ok(_) => Ok(Log { format, level }),
        Err(e) => Err(invalid(
            "log.level",
            format!("{e}; write it like info or info,akash_redis::plan=debug"),
        )),
    }
}

fn traces(fields: &Fields) -> Result<Option<Traces>, ConfigError> {
    let Some(endpoint) = fields.optional("traces.endpoint") else {
        return match fields.get("traces.sample") {
            Some(_) => Err(invalid(
                "traces.sample",
                "traces.endpoint is not set, so that no traces are sent; set it, or remove this",
            )),
            None => Ok(None),
        };
    };
    if !is_url(&endpoint) {
        return Err(invalid(
            "traces.endpoint",
            format!("`{endpoint}` is not a URL; write it like http://127.0.0.1:4318"),
        ));
    }
    let text = fields.or("traces.sample", "1");
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    let sample = share.ok_or_else(|| {
        invalid("traces.sample", format!("`{text}` must be above 0 and at most 1, such as 0.1"))
    })?;
    Ok(Some(Traces { endpoint, sample }))
}

fn timing(fields: &Fields) -> Result<Timing, ConfigError> {
    let default = Timing::default();
    let timing = Timing {
        bid_window: fields.span("timing.bidWindow", default.bid_window)?,
        bid_deadline: fields.span("timing.bidDeadline", default.bid_deadline)?,
        join_deadline: fields.span("timing.joinDeadline", default.join_deadline)?,
        replace_after: fields.span("timing.replaceAfter", default.replace_after)?,
        tick: fields.span("timing.tick", default.tick)?,
    };
    if !TICKS.contains(&timing.tick) {
        let (least, most) = (Span(*TICKS.start()), Span(*TICKS.end()));
        return Err(invalid(
            "timing.tick",
            format!("it must be between {least} and {most}: so often chain and tailnet are read"),
        ));
    }
    if timing.bid_window >= timing.bid_deadline {
        return Err(invalid(
            "timing.bidWindow",
            "it must be shorter than timing.bidDeadline, or no bid is ever chosen",
        ));
    }
    if timing.join_deadline >= KEY_LIFE {
        let reason = format!(
            "it must be shorter than {} min: for so long a node's auth key can be used",
            KEY_LIFE.as_secs() / 60
        );
        return Err(invalid("timing.joinDeadline", reason));
    }
    Ok(timing)
}

fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

fn invalid(field: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { field, reason: reason.into() }
}
