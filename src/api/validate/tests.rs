use super::*;

const GOOD: &str = "
apiVersion: akash-redis.dev/v1alpha1
kind: RedisCluster
metadata: { name: cache }
spec:
  nodes: 3
  redis:
    config: { maxmemory-policy: allkeys-lru, timeout: 300, appendonly: yes, save: \"\" }
    users:
      - name: app
        passwordSha256: 2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90
  resources: { cpu: 500m, memory: 1Gi, data: { size: 4Gi, class: beta3 } }
  budget: { maxPerMonth: 12act }
";

/// The good manifest with one thing replaced: what is said about it.
fn said(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    parse(&GOOD.replacen(from, to, 1))
        .err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Adds lines at the end of `spec`.
fn added(lines: &str) -> Vec<String> {
    said(
        "  budget: { maxPerMonth: 12act }",
        &format!("  budget: {{ maxPerMonth: 12act }}\n{lines}"),
    )
}

fn refused(said: &[String], path: &str, words: &str) {
    assert!(
        said.iter().any(|one| one.starts_with(&format!("{path}: ")) && one.contains(words)),
        "{path} / {words} not in {said:#?}"
    );
}

#[test]
fn a_good_manifest_is_read_with_its_defaults() {
    let clusters = parse(GOOD).expect("good");
    let spec = &clusters[0].spec;
    assert_eq!(spec.budget.deposit, None, "it follows from price and runway");
    assert_eq!(spec.redis.config["timeout"], "300");
    assert_eq!(spec.redis.config["appendonly"], "yes");
    assert_eq!(spec.redis.config["save"], "");
    assert_eq!(
        spec.redis.users[0].rules,
        "~* &* +@all -@admin -@dangerous +info +role +client|list"
    );
}

#[test]
fn json_and_several_documents_are_read() {
    let json = serde_json::to_string(&parse(GOOD).expect("good")[0]).expect("json");
    assert_eq!(parse(&json).expect("json is yaml"), parse(GOOD).expect("good"));
    let two = format!("{GOOD}---\n{}", GOOD.replace("name: cache", "name: other"));
    assert_eq!(parse(&two).expect("two").len(), 2);
    let twice = format!("{GOOD}---{GOOD}");
    assert_eq!(
        parse(&twice).expect_err("twice")[0].to_string(),
        "document 2: metadata.name: `cache` is given twice in this manifest"
    );
}

#[test]
fn text_that_is_no_manifest_is_refused_whole() {
    for text in [
        "",
        "# nothing\n",
        "{{{",
        "hello",
        "- 1",
        "a: &a [*a]",
        "spec: !!binary x",
        &"x".repeat(TEXT_LIMIT + 1),
    ] {
        assert!(parse(text).is_err(), "{text:.20}");
    }
    let duplicate = GOOD.replace("  nodes: 3", "  nodes: 3\n  nodes: 5");
    assert!(parse(&duplicate).expect_err("duplicate key")[0].message.contains("duplicate"));
}

#[test]
fn unknown_fields_are_told_with_the_nearest() {
    refused(
        &said("nodes: 3", "node: 3"),
        "spec.node",
        "unknown field `node`, did you mean `nodes`?",
    );
    refused(&said("nodes: 3", "node: 3"), "spec.nodes", "is missing");
    refused(&said("nodes: 3", "replicas: 3"), "spec.replicas", "did you mean `nodes`?");
    refused(&added("  memory: 1Gi"), "spec.memory", "it belongs in `spec.resources`");
    refused(
        &said("name: app", "name: app\n        pasword: x"),
        "spec.redis.users[0].pasword",
        "did you mean",
    );
    refused(
        &added("  placement: { spread: { bye: region } }"),
        "spec.placement.spread.bye",
        "did you mean `by`?",
    );
}

#[test]
fn wrong_kinds_of_value_are_told() {
    refused(&said("v1alpha1", "v2"), "apiVersion", "akash-redis.dev/v1alpha1");
    refused(&said("kind: RedisCluster", "kind: Pod"), "kind", "write RedisCluster");
    refused(&said("memory: 1Gi", "memory: 1GB"), "spec.resources.memory", "write it like 512Mi");
    refused(&said("cpu: 500m", "cpu: 0.5m"), "spec.resources.cpu", "write it like 500m");
    refused(&said("nodes: 3", "nodes: three"), "spec.nodes", "a whole number");
    refused(&said("nodes: 3", "nodes: -1"), "spec.nodes", "a whole number");
    refused(&said("12act", "12"), "spec.budget.maxPerMonth", "write it like 12act");
    refused(&said("redis:", "redis: 1\n  mesh:"), "spec.redis", "in place of fields");
    refused(&added("  mesh:"), "spec.mesh", "is empty");
    refused(&added("  paused: maybe"), "spec.paused", "true or false");
    refused(
        &said("passwordSha256: ", "passwordFrom: { vault: x }\n        passwordSha256: "),
        "spec.redis.users[0].passwordFrom.vault",
        "known here: env, file",
    );
}

#[test]
fn what_is_not_supported_is_told_with_what_is() {
    refused(
        &added("  durability: strong"),
        "spec.durability",
        "`strong` is not supported; supported now: async, confirmed",
    );
    refused(
        &added("  mesh: { egress: tor }"),
        "spec.mesh.egress",
        "supported now: forwarder, proxychains",
    );
    refused(
        &said("class: beta3", "class: ram"),
        "spec.resources.data.class",
        "default, beta1, beta2, beta3",
    );
}

#[test]
fn names_are_names_on_the_mesh() {
    for name in ["Cache", "-a", "a-", "1a", "a_b", "a.b", "abcdefghijklmnopqrstu", "\"\"", "ä"] {
        refused(&said("name: cache", &format!("name: {name}")), "metadata.name", "1 to 20");
    }
    assert!(said("name: cache", "name: abcdefghijklmnopqr-9").is_empty());
}

#[test]
fn sizes_are_within_what_is_sold_and_what_redis_needs() {
    refused(&said("nodes: 3", "nodes: 0"), "spec.nodes", "1 to 9");
    refused(&said("nodes: 3", "nodes: 10"), "spec.nodes", "1 to 9");
    refused(&said("cpu: 500m", "cpu: 9m"), "spec.resources.cpu", "10m to 384");
    refused(&said("cpu: 500m", "cpu: 385"), "spec.resources.cpu", "10m to 384");
    refused(&said("memory: 1Gi", "memory: 1023Ki"), "spec.resources.memory", "1Mi to 2Ti");
    refused(&said("memory: 1Gi", "memory: 3Ti"), "spec.resources.memory", "1Mi to 2Ti");
    refused(&said("memory: 1Gi", "memory: 291Mi"), "spec.resources.memory", "at least 292Mi");
    assert!(said("memory: 1Gi", "memory: 292Mi").is_empty());
    refused(&said("size: 4Gi", "size: 33Ti"), "spec.resources.data.size", "5Mi to 32Ti");
    refused(&said("size: 4Gi", "size: 1Gi"), "spec.resources.data.size", "write at least 2308Mi");
    assert!(said("size: 4Gi", "size: 2308Mi").is_empty());
    refused(
        &said("cpu: 500m", "ephemeral: 511Mi, cpu: 500m"),
        "spec.resources.ephemeral",
        "write at least 512Mi",
    );
    assert!(said("cpu: 500m", "ephemeral: 512Mi, cpu: 500m").is_empty());
    refused(
        &said("cpu: 500m", "ephemeral: 33Ti, cpu: 500m"),
        "spec.resources.ephemeral",
        "5Mi to 32Ti",
    );
    refused(
        &said("timeout: 300", "maxmemory: 900mb"),
        "spec.redis.config.maxmemory",
        "is more than the 824Mi",
    );
    refused(
        &said("timeout: 300", "maxmemory: 1mb"),
        "spec.redis.config.maxmemory",
        "less than 64Mi",
    );
    refused(&said("timeout: 300", "maxmemory: 1Gi"), "spec.redis.config.maxmemory", "512mb or 1gb");
    refused(
        &said(", data: { size: 4Gi, class: beta3 }", ""),
        "spec.redis.config.appendonly",
        "nothing survives",
    );
}

#[test]
fn settings_that_are_ours_are_refused_by_name() {
    let ours = "bind port unixsocket unixsocketperm replicaof replica-priority repl-timeout repl-backlog-ttl min-replicas-to-write \
                min-slaves-max-lag masterauth masteruser slaveof aclfile user requirepass dir dbfilename appendfilename appenddirname include \
                loadmodule rename-command enable-debug-command enable-protected-configs tls-port cluster-enabled protected-mode daemonize \
                shutdown-timeout databases io-threads-do-reads supervised logfile cluster-enabled";
    for key in ours.split_whitespace() {
        refused(
            &said("timeout: 300", &format!("{key}: x")),
            &format!("spec.redis.config.{key}"),
            "cannot be set: ",
        );
    }
    refused(&said("timeout", "BIND"), "spec.redis.config.BIND", "cannot be set");
    refused(&said("timeout", "Timeout"), "spec.redis.config.Timeout", "`timeout`");
    refused(
        &said("maxmemory-policy", "maxmemory-polcy"),
        "spec.redis.config.maxmemory-polcy",
        "did you mean `maxmemory-policy`?",
    );
    refused(&said("save: \"\"", "save: \"1 1\\nport 1\""), "spec.redis.config.save", "one line");
    refused(
        &said("timeout: 300", "client-output-buffer-limit: replica 0 0 0"),
        "spec.redis.config.client-output-buffer-limit",
        "the hard limit of replicas is 16mb to 247mb here",
    );
}

/// What is said about one setting of Redis; nothing when it is taken.
fn of_setting(key: &str, value: &str) -> String {
    let config = "{ maxmemory-policy: allkeys-lru, timeout: 300, appendonly: yes, save: \"\" }";
    let all = said(config, &format!("{{ {key}: \"{value}\" }}"));
    assert!(all.len() <= 1, "{all:?}");
    let path = format!("spec.redis.config.{key}: ");
    all.first().map(|one| one.strip_prefix(&path).expect(one).to_owned()).unwrap_or_default()
}

#[test]
fn values_of_settings_are_those_that_redis_takes() {
    let rows = [
        ("activerehashing", "maybe", "neither yes nor no"),
        ("appendfsync", "sometimes", "not one of always, everysec, no"),
        ("hz", "9999", "write 1 to 500"),
        ("hz", "0", "write 1 to 500"),
        ("timeout", "abc", "`abc` is not a whole number; write 0 or more"),
        ("timeout", "05", "not a whole number"),
        ("timeout", "-1", "out of bounds"),
        ("save", "abc", "3600 1 300 100"),
        ("save", "60", "pairs of seconds"),
        ("save", "0 1", "pairs of seconds"),
        ("notify-keyspace-events", "Q", "`Q` is no class of events"),
        ("notify-keyspace-events", "gx", "tells nothing: add K"),
        ("maxmemory-clients", "101%", "0% to 100%"),
        ("maxmemory-clients", "lots", "neither a size nor a share"),
        ("maxmemory", "0", "`0` is no limit"),
        ("maxclients", "10", "write 64 to 1000000"),
        ("proto-max-bulk-len", "1kb", "write at least 1mb"),
        ("client-output-buffer-limit", "normal 0 0", "a class, two sizes and seconds"),
        ("client-output-buffer-limit", "admin 0 0 0", "`admin` is no class of clients"),
        ("client-output-buffer-limit", "normal 1kb 0 0", "a single large reply"),
        ("client-output-buffer-limit", "replica 64mb 8mb 60", "write 0 for it"),
        ("client-output-buffer-limit", "replica 1gb 0 0", "16mb to 247mb"),
        ("repl-backlog-size", "1gb", "write at most 144mb"),
        ("repl-backlog-size", "16kb", "at least 1mb"),
        ("latency-tracking-info-percentiles", "101", "from 0 to 100"),
        ("set-max-listpack-entries", "5", "a setting of Redis 7.2, and the nodes run 7.0"),
        ("databases", "32", "Redis cannot change it while it runs; it is `16`"),
        ("port", "6380", "it is `6379`"),
    ];
    for (key, value, words) in rows {
        let sentence = of_setting(key, value);
        assert!(sentence.contains(words), "{key} {value}: {sentence}");
    }
    for (key, value) in [
        ("databases", "16"),
        ("port", "6379"),
        ("logfile", ""),
        ("replica-read-only", "YES"),
        ("hz", "100"),
        ("save", "900 1 300 10"),
        ("notify-keyspace-events", "Ex"),
        ("client-output-buffer-limit", "normal 0 0 0 slave 256mb 64mb 60 pubsub 32mb 8mb 60"),
        ("client-output-buffer-limit", "replica 128mb 0 0"),
        ("repl-backlog-size", "64mb"),
        ("maxmemory-clients", "10%"),
    ] {
        assert_eq!(of_setting(key, value), "", "{key} {value}");
    }
    let policy = said("allkeys-lru", "lru");
    refused(&policy, "spec.redis.config.maxmemory-policy", "did you mean `allkeys-lru`?");
    let policy = said("allkeys-lru", "allkeyslru");
    refused(&policy, "spec.redis.config.maxmemory-policy", "did you mean `allkeys-lru`?");
    refused(
        &said("timeout: 300", "lua-time-limit: 5, busy-reply-threshold: 6"),
        "spec.redis.config.lua-time-limit",
        "older name of `busy-reply-threshold`",
    );
}

#[test]
fn a_user_has_one_password_or_several() {
    let hash = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90";
    let with = |passwords: &str| {
        said(&format!("passwordSha256: {hash}"), &format!("passwords: [{passwords}]"))
    };
    let two = format!("{{ sha256: {hash} }}, {{ env: NEW }}");
    assert_eq!(with(&two), Vec::<String>::new());
    let path = "spec.redis.users[0].passwords";
    refused(&with("{ sha256: abc }"), &format!("{path}[0]"), "64 digits");
    refused(&with("{ env: A }, { env: A }"), &format!("{path}[1]"), "given twice");
    refused(&with("{ file: \"\" }"), &format!("{path}[0]"), "names nothing");
    refused(
        &with("{ env: A }, { env: B }, { env: C }, { env: D }, { env: E }"),
        path,
        "more than 4",
    );
    refused(&with("{ vault: A }"), &format!("{path}[0].vault"), "known here");
    refused(
        &said("name: app", "name: app\n        passwords: [{ env: A }]"),
        path,
        "is given beside passwordSha256",
    );
    assert_eq!(said("name: app", "name: default"), Vec::<String>::new());
    assert_eq!(said("name: app", "name: app\n        rules: full"), Vec::<String>::new());
    assert_eq!(said("name: app", "name: app\n        rules: readonly ~x"), Vec::<String>::new());
}

#[test]
fn users_are_the_applications_own() {
    for name in ["repl-1", "_x", "\"a b\"", "\"\"", "a/b"] {
        let all = said("name: app", &format!("name: {name}"));
        assert!(
            all.iter().any(|one| one.starts_with("spec.redis.users[0].name: ")),
            "{name}: {all:?}"
        );
    }
    let hash = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90";
    refused(
        &said(hash, &hash.to_uppercase()),
        "spec.redis.users[0].passwordSha256",
        "lower-case hex",
    );
    refused(&said(hash, "abc"), "spec.redis.users[0].passwordSha256", "64 digits");
    refused(
        &said(&format!("passwordSha256: {hash}"), "rules: \"+get\""),
        "spec.redis.users[0]",
        "has no password",
    );
    refused(
        &said("name: app", "name: app\n        passwordFrom: { env: P }"),
        "spec.redis.users[0].passwordSha256",
        "one of them",
    );
    refused(
        &said("name: app", "name: app\n        passwordSha256: x\n      - name: app"),
        "spec.redis.users[1].name",
        "is given twice",
    );
    refused(
        &said("name: app", "name: app\n        rules: +@all"),
        "spec.redis.users[0].rules",
        "only the operator may use",
    );
}

#[test]
fn placement_names_what_exists() {
    let good = "akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63";
    let other = "akash18qa2a2ltfyvkyj0ggj3hkvuj6twzyumuaru9s4";
    assert_eq!(
        added(&format!(
            "  placement: {{ signedBy: {{ anyOf: [{good}] }}, providers: {{ deny: [{other}] }} }}"
        )),
        Vec::<String>::new()
    );
    let wrong = [
        "akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx64",
        "cosmos1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqnrql8a",
        "x",
    ];
    for address in wrong {
        refused(
            &added(&format!("  placement: {{ providers: {{ deny: [{address}] }} }}")),
            "spec.placement.providers.deny[0]",
            "is not an address",
        );
    }
    refused(
        &added(&format!("  placement: {{ providers: {{ allow: [{good}] }} }}")),
        "spec.placement.providers.allow",
        "fewer providers (1) than there are nodes (3)",
    );
    let both = format!("  placement: {{ providers: {{ allow: [{good}], deny: [{good}] }} }}");
    refused(&added(&both), "spec.placement.providers.deny", "keep one of them");
    for key in ["a", "1ab", "\"a b\"", "ab*c"] {
        let all = added(&format!("  placement: {{ attributes: {{ {key}: x }} }}"));
        assert!(
            all.iter().any(|one| one.contains("is not a key that the chain takes")),
            "{key}: {all:?}"
        );
    }
    assert!(
        added("  placement: { attributes: { capabilities/storage/2/class: beta3, loc-1.x*: y } }")
            .is_empty()
    );
    refused(
        &added("  placement: { attributes: { region: \"\" } }"),
        "spec.placement.attributes.region",
        "one line of text",
    );
    refused(&added("  placement: { maxPrice: 0act }"), "spec.placement.maxPrice", "more than 0act");
}

#[test]
fn attribute_keys_have_the_length_of_the_chain() {
    assert!(is_attribute_key(&format!("a{}", "b".repeat(127))));
    assert!(!is_attribute_key(&format!("a{}", "b".repeat(128))));
    assert!(is_attribute_key(&format!("a{}", "-".repeat(126))));
    assert!(!is_attribute_key(&format!("a{}", "-".repeat(127))));
    assert!(is_attribute_key(&format!("a{}*", "-".repeat(126))));
    assert!(!is_attribute_key("a*"));
}

#[test]
fn money_time_and_tags_have_their_limits() {
    refused(
        &said("maxPerMonth: 12act", "deposit: 0.499999act"),
        "spec.budget.deposit",
        "at least 0.5act",
    );
    assert!(said("maxPerMonth: 12act", "deposit: 0.5act").is_empty());
    refused(&said("12act", "0act"), "spec.budget.maxPerMonth", "more than 0act");
    let runway = |low: &str, target: &str| {
        let runway = format!("maxPerMonth: 12act, runway: {{ low: {low}, target: {target} }}");
        said("maxPerMonth: 12act", &runway)
    };
    refused(&runway("9m", "14d"), "spec.budget.runway", "write 10m or more");
    for (low, target) in [("3d", "5d"), ("3d", "366d"), ("3d", "1h")] {
        refused(&runway(low, target), "spec.budget.runway", "at least twice as much");
    }
    for (low, target) in [("10m", "20m"), ("3d", "6d"), ("72h", "365d")] {
        assert!(runway(low, target).is_empty(), "{low} {target}");
    }
    for span in ["4s", "4999ms", "601s", "600500ms", "5500ms", "11m"] {
        let all = added(&format!("  failover: {{ downAfter: {span} }}"));
        assert!(all.iter().any(|one| one.starts_with("spec.failover.downAfter: ")), "{span}");
    }
    assert!(added("  failover: { downAfter: 10m }").is_empty());
    for tag in ["redis", "tag:", "tag:Redis", "tag:1", "tag:a_b"] {
        refused(&added(&format!("  mesh: {{ tag: \"{tag}\" }}")), "spec.mesh.tag", "tag:redis");
    }
    assert!(added("  mesh: { tag: \"tag:redis-2\" }").is_empty());
}

#[test]
fn moves_by_itself_are_bounded_and_their_windows_meet() {
    let moves = |rebalance: &str, more: &str| {
        added(&format!("  placement: {{ rebalance: {{ {rebalance} }} }}\n{more}"))
    };
    let sunday = "  maintenance: { window: \"Sun 02:00-05:00\" }";
    for good in ["", "whenCheaperBy: 5%", "whenCheaperBy: 90%, atMostEvery: 1h"] {
        assert!(moves(good, sunday).is_empty(), "{good}: {:?}", moves(good, sunday));
    }
    assert!(moves("window: \"Sat-Mon 04:00-06:00\"", sunday).is_empty());
    let path = "spec.placement.rebalance.whenCheaperBy";
    for (percent, says) in
        [("4%", "write 5% to 90%"), ("91%", "write 5% to 90%"), ("0.25", "write it like 25%")]
    {
        refused(&moves(&format!("whenCheaperBy: {percent}"), ""), path, says);
    }
    let path = "spec.placement.rebalance.atMostEvery";
    refused(&moves("atMostEvery: 59m", ""), path, "write 1h or more");
    let path = "spec.placement.rebalance.window";
    refused(&moves("window: \"Sun 05:00-06:00\"", sunday), path, "let them overlap");
    let bad = added("  maintenance: { window: \"Sunday night\" }");
    refused(&bad, "spec.maintenance.window", "write it like `Sun 02:00-05:00`");
    refused(&added("  maintenance: {}"), "spec.maintenance.window", "");
}

#[test]
fn all_problems_are_told_at_once() {
    let all = said("nodes: 3", "nodes: 0\n  failover: { downAfter: 1s }\n  mesh: { tag: x }");
    assert_eq!(all.len(), 3, "{all:?}");
}

#[test]
fn confirmed_writes_leave_a_replica_that_may_be_away() {
    let good = |lines: &str| assert_eq!(added(lines), Vec::<String>::new(), "{lines}");
    good("  durability: confirmed");
    good("  durability: confirmed\n  confirmations: 1");
    good("  durability: confirmed\n  confirmations: 2\n  allowWriteStops: true");
    let bad = |lines: &str, path: &str, message: &str| refused(&added(lines), path, message);
    bad(
        "  durability: confirmed\n  confirmations: 2",
        "spec.confirmations",
        "writes stop whenever one replica is away",
    );
    bad(
        "  durability: confirmed\n  confirmations: 3\n  allowWriteStops: true",
        "spec.confirmations",
        "write at most 1",
    );
    bad("  durability: confirmed\n  confirmations: 0", "spec.confirmations", "write at least 1");
    bad("  confirmations: 1", "spec.confirmations", "`durability: confirmed` only");
    bad("  allowWriteStops: true", "spec.allowWriteStops", "`durability: confirmed` only");
    bad(
        "  durability: confirmed\n  failover: { whenMinority: promote }",
        "spec.failover.whenMinority",
        "write block",
    );
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen("  nodes: 3", "  durability: confirmed\n  nodes: 3", 1);
        parse(&text.replacen(from, to, 1))
    };
    let told = |from: &str, to: &str| -> Vec<String> {
        with(from, to).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    };
    refused(
        &told("appendonly: yes", "appendonly: no"),
        "spec.redis.config.appendonly",
        "takes up its old place",
    );
    refused(&told("nodes: 3", "nodes: 1"), "spec.durability", "needs replicas");
    refused(&told("nodes: 3", "nodes: 2"), "spec.durability", "allowWriteStops");
    let default =
        |n: u32| with("nodes: 3", &format!("nodes: {n}")).expect("good")[0].spec.write_replicas();
    assert_eq!([3, 4, 5, 7, 9].map(default), [1, 1, 2, 3, 4]);
}
