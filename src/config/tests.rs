use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Home {
    dir: TempDir,
    env: BTreeMap<String, String>,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: TempDir::new().unwrap(), env: BTreeMap::new() };
        home.secret("mnemonic", "word word\n", 0o600);
        home.secret("oauth", "tskey-client-x", 0o640);
        home.secret("root", &"r".repeat(32), 0o400);
        home
    }

    fn secret(&self, name: &str, content: &str, mode: u32) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn text(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "chain: {{ id: akashnet-2, grpc: ['https://one.example:443', 'http://two.example:9090'] }}
wallet: {{ mnemonicFile: {dir}/mnemonic }}
mesh: {{ oauthClientId: k123, oauthSecretFile: {dir}/oauth }}
node: {{ image: 'example.org/node@sha256:{DIGEST}' }}
budget: {{ global: 50act, perClusterDefault: 12act }}
rootSecretFile: {dir}/root
"
        )
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        Config::parse("operator.yaml", text, &|name| self.env.get(name).cloned())
    }

    fn error(&self, text: &str) -> String {
        let error = self.parse(text).unwrap_err().to_string();
        let place = error.strip_prefix("operator.yaml:").and_then(|rest| rest.split_once(' '));
        place.map_or(error.clone(), |(_, sentence)| sentence.to_owned())
    }
}

#[test]
fn the_smallest_file_is_enough_and_the_defaults_are_these() {
    let home = Home::new();
    let config = home.parse(&home.text()).unwrap();
    assert_eq!(config.chain.grpc, ["https://one.example:443", "http://two.example:9090"]);
    assert_eq!(config.chain.gas_price_micro, 25_000);
    assert_eq!(
        (config.chain.max_fee, config.chain.max_fee_per_day),
        (100_000, 3_000_000),
        "in uakt, as FeeLimits::USUAL"
    );
    assert_eq!(config.wallet.mnemonic.expose_secret(), "word word");
    assert_eq!(config.root_secret.expose_secret(), "r".repeat(32).as_bytes());
    assert_eq!((config.mesh.tailnet.as_str(), config.mesh.tag.as_str()), ("-", "tag:akash-redis"));
    assert_eq!(config.timing, Timing::default());
    assert_eq!((config.log.format, config.gateway.allow_private), (LogFormat::Text, false));
    let shown = format!("{config:?}");
    assert!(!shown.contains("word word") && !shown.contains("tskey"), "{shown}");
}

#[test]
fn a_variable_wins_over_the_file_for_every_field() {
    let mut home = Home::new();
    for (field, value) in [
        ("AKASH_REDIS_CHAIN_ID", "other-1"),
        ("AKASH_REDIS_CHAIN_GRPC", "http://a:1, http://b:2"),
        ("AKASH_REDIS_CHAIN_GAS_PRICE", "0.1"),
        ("AKASH_REDIS_BUDGET_PER_CLUSTER_DEFAULT", "1.5act"),
        ("AKASH_REDIS_TIMING_BID_WINDOW", "2s"),
        ("AKASH_REDIS_GATEWAY_ALLOW_PRIVATE", "true"),
        ("AKASH_REDIS_LOG_FORMAT", "json"),
        ("AKASH_REDIS_API_SOCKET", ""),
        ("AKASH_REDIS_API_METRICS", "127.0.0.1:9700"),
    ] {
        home.env.insert(field.into(), value.into());
    }
    let config = home.parse(&home.text()).unwrap();
    assert_eq!((config.chain.id.as_str(), config.chain.gas_price_micro), ("other-1", 100_000));
    assert_eq!(config.chain.grpc, ["http://a:1", "http://b:2"]);
    assert_eq!(config.budget.per_cluster_default.to_string(), "1.5act");
    assert_eq!(config.timing.bid_window, Duration::from_secs(2));
    assert!(config.gateway.allow_private && config.log.format == LogFormat::Json);
    assert_eq!(
        config.api.socket,
        Path::new("/run/akash-redis/operator.sock"),
        "an empty variable is not set"
    );
    assert_eq!(config.api.metrics, Some(([127, 0, 0, 1], 9700).into()));
    home.env.insert("AKASH_REDIS_API_METRICS".into(), "9700".into());
    let error = home.parse(&home.text()).unwrap_err().to_string();
    let begins = "AKASH_REDIS_API_METRICS: api.metrics cannot be used: `9700` is not an address";
    assert!(error.starts_with(begins), "{error}");
}

#[test]
fn an_authority_of_the_control_api_is_read_as_it_is() {
    let mut home = Home::new();
    let path = home.dir.path().join("ca.pem");
    home.env.insert("AKASH_REDIS_MESH_CA_FILE".into(), path.display().to_string());
    let error = home.parse(&home.text()).unwrap_err().to_string();
    assert!(error.contains("mesh.caFile cannot be used") && error.contains("cannot be read"));
    std::fs::write(&path, "words").unwrap();
    let error = home.parse(&home.text()).unwrap_err().to_string();
    assert!(error.contains("holds no certificate as PEM"), "{error}");
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    std::fs::write(&path, pem).unwrap();
    assert_eq!(home.parse(&home.text()).unwrap().mesh.ca, pem);
}

#[test]
fn the_page_is_on_loopback_alone() {
    let mut home = Home::new();
    assert_eq!(home.parse(&home.text()).unwrap().api.listen, None);
    home.env.insert("AKASH_REDIS_API_LISTEN".into(), "127.0.0.1:8790".into());
    let config = home.parse(&home.text()).unwrap();
    assert_eq!(config.api.listen, Some(([127, 0, 0, 1], 8790).into()));
    home.env.insert("AKASH_REDIS_API_LISTEN".into(), "0.0.0.0:8790".into());
    let error = home.parse(&home.text()).unwrap_err().to_string();
    assert!(error.contains("0.0.0.0:8790 is reached from elsewhere"), "{error}");
}

#[test]
fn the_environment_alone_is_enough() {
    let mut home = Home::new();
    home.env.insert("WORDS".into(), "some words".into());
    let dir = home.dir.path().display().to_string();
    for (name, value) in [
        ("CHAIN_ID", "x".to_owned()),
        ("CHAIN_GRPC", "http://a:1".into()),
        ("WALLET_MNEMONIC_ENV", "WORDS".into()),
        ("MESH_OAUTH_CLIENT_ID", "k".into()),
        ("MESH_OAUTH_SECRET_FILE", format!("{dir}/oauth")),
        ("NODE_IMAGE", format!("n@sha256:{DIGEST}")),
        ("BUDGET_GLOBAL", "5act".into()),
        ("BUDGET_PER_CLUSTER_DEFAULT", "5act".into()),
        ("ROOT_SECRET_FILE", format!("{dir}/root")),
    ] {
        home.env.insert(format!("AKASH_REDIS_{name}"), value);
    }
    assert_eq!(home.parse("").unwrap().wallet.mnemonic.expose_secret(), "some words");
}

#[test]
fn a_field_that_does_not_exist_is_refused_with_the_nearest_name() {
    let home = Home::new();
    let text = home.text();
    assert_eq!(
        home.error(&format!("{text}log: {{ levle: info }}")),
        "log.levle is not a setting; did you mean log.level?"
    );
    assert_eq!(
        home.error(&format!("{text}timming: {{ tick: 1s }}")),
        "timming is not a setting; did you mean timing?"
    );
    assert_eq!(home.error(&format!("{text}somethingElse: 1")), "somethingElse is not a setting");
    assert_eq!(
        home.error(&format!("{text}log: {{ level: {{ a: 1 }} }}")),
        "log.level cannot be used: it must be a single value"
    );
}

#[test]
fn what_is_missing_is_named_with_its_variable() {
    let home = Home::new();
    for (line, field, variable) in [
        ("chain:", "chain.grpc", "AKASH_REDIS_CHAIN_GRPC"),
        ("wallet:", "wallet.mnemonicFile", "AKASH_REDIS_WALLET_MNEMONIC_FILE"),
        ("mesh:", "mesh.oauthClientId", "AKASH_REDIS_MESH_OAUTH_CLIENT_ID"),
        ("node:", "node.image", "AKASH_REDIS_NODE_IMAGE"),
        ("budget:", "budget.global", "AKASH_REDIS_BUDGET_GLOBAL"),
        ("rootSecretFile:", "rootSecretFile", "AKASH_REDIS_ROOT_SECRET_FILE"),
    ] {
        let text = home.text();
        let without: Vec<_> = text.lines().filter(|l| !l.starts_with(line)).collect();
        let expected = format!("{field} is missing; set it in the file or in {variable}");
        assert_eq!(home.error(&without.join("\n")), expected);
    }
}

#[test]
fn values_that_cannot_be_used_are_refused_by_name() {
    let home = Home::new();
    for (from, to, says) in [
        ("@sha256:", ":latest#", "node.image cannot be used"),
        ("50act", "50", "budget.global cannot be used: `50` is not"),
        (
            "50act",
            "5act",
            "budget.perClusterDefault cannot be used: it is more than budget.global, 5act",
        ),
        (
            "perClusterDefault: 12act",
            "perClusterDefault: 12act, runway: { low: 3d, target: 4d }",
            "budget.runway.low cannot be used: a target of 4d does not fit a low mark of 3d",
        ),
        ("50act", "0act", "budget.global cannot be used: it must be above 0"),
        ("12act", "0act", "budget.perClusterDefault cannot be used: it must be above 0"),
        ("'http://two.example:9090'", "two", "chain.grpc cannot be used: `two` is not a URL"),
        ("id: akashnet-2", "id: a, gasPrice: 25", "chain.gasPrice cannot be used"),
        (
            "id: akashnet-2",
            "id: a, maxFee: 1act",
            "chain.maxFee cannot be used: `1act` must be above 0 and written like 0.1akt",
        ),
        ("id: akashnet-2", "id: a, maxFee: 0akt", "chain.maxFee cannot be used"),
        (
            "id: akashnet-2",
            "id: a, maxFee: 4akt",
            "chain.maxFeePerDay cannot be used: it is less than chain.maxFee",
        ),
        (
            "rootSecretFile:",
            "timing: { bidWindow: 5m }\nrootSecretFile:",
            "timing.bidWindow cannot be used",
        ),
        (
            "rootSecretFile:",
            "timing: { joinDeadline: 1h }\nrootSecretFile:",
            "timing.joinDeadline cannot be used: it must be shorter than 60 min: for so long a node's auth key can be used",
        ),
        (
            "rootSecretFile:",
            "timing: { tick: 0s }\nrootSecretFile:",
            "timing.tick cannot be used: it must be above 0",
        ),
        (
            "rootSecretFile:",
            "log: { format: xml }\nrootSecretFile:",
            "log.format cannot be used: `xml` is neither text nor json",
        ),
        ("oauthClientId", "tag: nodes, oauthClientId", "mesh.tag cannot be used"),
        ("oauthClientId", "socks5: '1055', oauthClientId", "mesh.socks5 cannot be used"),
        (
            "oauthClientId",
            "socks5: '127.0.0.1:1055', tailscaled: { stateDir: /d }, oauthClientId",
            "mesh.socks5 cannot be used: mesh.tailscaled",
        ),
        (
            "oauthClientId",
            "socket: /run/t.sock, tailscaled: { stateDir: /d }, oauthClientId",
            "mesh.socket cannot be used: mesh.tailscaled",
        ),
        (
            "oauthClientId",
            "socket: t.sock, oauthClientId",
            "mesh.socket cannot be used: `t.sock` is not an absolute path",
        ),
        (
            "oauthClientId",
            "tailscaled: { program: /t }, oauthClientId",
            "mesh.tailscaled.program cannot be used: mesh.tailscaled.stateDir is",
        ),
        (
            "oauthClientId",
            "tailscaled: { stateDir: d }, oauthClientId",
            "mesh.tailscaled.stateDir cannot be used: `d` must be an absolute",
        ),
        ("mnemonicFile", "mnemonicEnv: X, mnemonicFile", "wallet.mnemonicEnv cannot be used"),
    ] {
        let error = home.error(&home.text().replacen(from, to, 1));
        assert!(error.starts_with(says), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_namespace_makes_kubernetes_the_home() {
    let home = Home::new();
    assert_eq!(home.parse(&home.text()).unwrap().store.kubernetes, None);
    let with = |store: &str| format!("{}store: {store}\n", home.text());
    let text = with("{ kubernetes: { namespace: redis, selector: 'team=web' } }");
    let chosen = home.parse(&text).unwrap().store.kubernetes.unwrap();
    assert_eq!((chosen.namespace.as_str(), chosen.watch_namespace), ("redis", None));
    assert_eq!(chosen.selector.as_deref(), Some("team=web"));
    for (store, says) in [
        (
            "{ kubernetes: { selector: a } }",
            "store.kubernetes.selector cannot be used: store.kubernetes.namespace is missing",
        ),
        (
            "{ sqlite: /x, kubernetes: { namespace: a } }",
            "store.sqlite cannot be used: store.kubernetes.namespace is set as well",
        ),
        (
            "{ kubernetes: { namespace: A_b } }",
            "store.kubernetes.namespace cannot be used: `A_b` is not a namespace",
        ),
    ] {
        let error = home.error(&with(store));
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn a_tailscaled_of_the_operators_own_needs_only_a_directory() {
    let home = Home::new();
    let text = home.text().replacen(
        "oauthClientId",
        "tailscaled: { stateDir: /var/lib/akash-redis/tailscale }, oauthClientId",
        1,
    );
    let own = home.parse(&text).unwrap().mesh.tailscaled.unwrap();
    assert_eq!(
        (own.state_dir.as_path(), own.program.as_path()),
        (Path::new("/var/lib/akash-redis/tailscale"), Path::new("tailscaled"))
    );
    assert_eq!(home.parse(&home.text()).unwrap().mesh.tailscaled, None);
}

#[test]
fn a_secret_that_everybody_can_read_is_refused() {
    let home = Home::new();
    home.secret("mnemonic", "word word", 0o644);
    let error = home.error(&home.text());
    assert!(
        error.starts_with("wallet.mnemonicFile cannot be used: everybody on this machine can open"),
        "{error}"
    );
    assert!(!error.contains("word"), "{error}");
    home.secret("mnemonic", "", 0o600);
    assert!(home.error(&home.text()).ends_with("is empty"));
    home.secret("mnemonic", "word", 0o600);
    home.secret("root", "short", 0o600);
    assert!(home.error(&home.text()).contains("holds 5 bytes and at least 32 are needed"));
}

#[test]
fn a_file_that_is_not_yaml_or_not_there_says_so() {
    let home = Home::new();
    let error = home.error("chain: [");
    assert!(
        error.starts_with("the settings in operator.yaml are not understood: ")
            && !error.contains('\n'),
        "{error}"
    );
    assert!(home.error("- a\n").contains("it must be a map of sections"));
    let error = Config::load(Path::new("/nonexistent/operator.yaml")).unwrap_err().to_string();
    assert!(
        error.starts_with("the settings in /nonexistent/operator.yaml cannot be read"),
        "{error}"
    );
}

#[test]
fn decimals_are_exact() {
    let cases = [
        ("0.025", Some(25_000)),
        ("1", Some(1_000_000)),
        ("0.000001", Some(1)),
        ("0.0000001", None),
        ("-1", None),
        ("1.", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(fields::decimal_micro(text), expected, "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let mut home = Home::new();
    home.env.insert("AKASH_REDIS_TIMING_TICK".into(), "1ms".into());
    let text =
        home.text().replacen("50act", "fifty", 1) + "wallet2: { a: 1 }\nlog: { levle: info }\n";
    let text = text.replace(DIGEST, &"0".repeat(64));
    let error = home.parse(&text).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "5 settings cannot be used, and nothing was started:", "{error}");
    for (line, begins) in lines[1..].iter().zip([
        "  operator.yaml:8: log.levle is not a setting; did you mean log.level?",
        "  operator.yaml:7: wallet2 is not a setting; did you mean wallet?",
        "  AKASH_REDIS_TIMING_TICK: timing.tick cannot be used: it must be between 200ms and 2m",
        "  operator.yaml:4: node.image cannot be used: the digest of",
        "  operator.yaml:5: budget.global cannot be used: `fifty`",
    ]) {
        assert!(line.starts_with(begins), "{begins}: {error}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_refused_and_what_others_set_is_not() {
    let unknown = |name: &str| {
        let wrong = fields::unknown_variables(std::iter::once(name.to_owned()));
        wrong.first().map(ToString::to_string)
    };
    assert_eq!(
        unknown("AKASH_REDIS_BUDGET_GLOBLA").as_deref(),
        Some("AKASH_REDIS_BUDGET_GLOBLA is not a setting; did you mean AKASH_REDIS_BUDGET_GLOBAL?")
    );
    assert!(unknown("AKASH_REDIS_FOO").is_some());
    for name in [
        "PATH",
        "AKASH_REDIS_BUDGET_GLOBAL",
        "AKASH_REDIS_SOCKET",
        "AKASH_REDIS_NODE",
        "AKASH_REDIS_SERVICE_HOST",
        "AKASH_REDIS_PORT_9700_TCP_ADDR",
        "AKASH_REDIS_METRICS_SERVICE_PORT_METRICS",
    ] {
        assert_eq!(unknown(name), None, "{name}");
    }
}

#[test]
fn traces_are_sent_where_an_endpoint_is_named() {
    let home = Home::new();
    assert_eq!(home.parse(&home.text()).unwrap().traces, None);
    let with = |traces: &str| format!("{}traces: {{ {traces} }}\n", home.text());
    let endpoint = "endpoint: 'http://127.0.0.1:4318'";
    let traces = home.parse(&with(endpoint)).unwrap().traces.unwrap();
    assert_eq!(traces, Traces { endpoint: "http://127.0.0.1:4318".into(), sample: 1.0 });
    let traces = home.parse(&with(&format!("{endpoint}, sample: 0.1"))).unwrap().traces.unwrap();
    assert!((traces.sample - 0.1).abs() < 1e-9);
    for (wrong, words) in [
        ("endpoint: collector", "write it like http://127.0.0.1:4318"),
        (&*format!("{endpoint}, sample: 0"), "above 0 and at most 1"),
        (&*format!("{endpoint}, sample: 1.5"), "above 0 and at most 1"),
        ("sample: 0.5", "traces.endpoint is not set"),
    ] {
        let error = home.error(&with(wrong));
        assert!(error.contains(words), "{wrong}: {error}");
    }
}
