//! Commands that show something.

use super::*;

#[tokio::test]
async fn get_lists_and_shows() {
    let operator = Operator::start().await;
    assert!(operator.run("get").await.unwrap().starts_with("no clusters found"));
    assert!(
        operator
            .run("get cache")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named cache")
    );
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.publish(json!({ "nodes": nodes(), "observedGeneration": 1, "epoch": 2 })).await;

    let table = operator.run("get").await.unwrap();
    assert!(table.starts_with("NAME   READY    NODES  MASTER  EPOCH  COST/MONTH  AGE\ncache  Unknown  3/3    -       2      -"), "{table}");
    let yaml: RedisCluster =
        serde_saphyr::from_str(&operator.run("get cache -o yaml").await.unwrap()).unwrap();
    let json: RedisCluster =
        serde_json::from_str(&operator.run("get cache -o json").await.unwrap()).unwrap();
    let stored = operator.store.get("cache").await.unwrap().cluster;
    assert_eq!((&yaml, &json), (&stored, &stored));
    assert!(operator.run("get -o json").await.unwrap().contains("\"items\""));
    assert!(operator.run("describe cache").await.unwrap().contains("cache-1-b"));
}

#[tokio::test]
async fn plan_events_and_endpoint_come_from_the_operator() {
    let operator = Operator::start().await;
    assert!(
        operator
            .run("plan cache")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named cache")
    );
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(
        operator
            .run("plan cache")
            .await
            .unwrap_err()
            .starts_with("the operator has not made a plan for cache yet")
    );
    assert!(
        operator
            .run("endpoint cache")
            .await
            .unwrap_err()
            .starts_with("cache has no master that takes writes now")
    );
    assert!(operator.run("events cache").await.unwrap().contains("  ClusterCreated  "));

    let step = PlannedStep {
        incarnation: "cache-0-a".into(),
        what: "promote".into(),
        reason: "there is no master".into(),
        ..PlannedStep::default()
    };
    let endpoint = Endpoint {
        epoch: 1,
        incarnation: "cache-0-a".into(),
        name: "a.ts.net".into(),
        ip: "100.64.0.1".into(),
        port: 6379,
        changing: None,
        successor: None,
    };
    let replica = |ordinal: u8, in_sync| ReplicaEndpoint {
        ip: format!("100.64.0.{}", ordinal + 1),
        port: 6379,
        in_sync,
        ..ReplicaEndpoint::default()
    };
    let endpoint = EndpointReport {
        cluster: "cache".into(),
        uid: "u".into(),
        users: vec!["app".into(), "x y".into()],
        replicas: vec![replica(1, true), replica(2, false)],
        ..endpoint.into()
    };
    operator.status_cache.publish(
        "cache",
        PlanReport { steps: vec![step], ..PlanReport::default() },
        Some(endpoint.clone()),
    );
    let event = Event::new(UnixMs(1000), "cache", "Promoted", "cache-0-a is master");
    operator.store.add_events(&[event]).await.unwrap();

    assert!(
        operator
            .run("plan cache")
            .await
            .unwrap()
            .contains("~ promote cache-0-a\n      there is no master")
    );
    endpoint_is_written_as_it_is_asked_for(&operator).await;
    let events = operator.run("events cache").await.unwrap();
    assert!(
        events.contains("\n1970-01-01T00:00:01Z  Promoted        cache-0-a is master\n"),
        "{events}"
    );

    let known = operator.client.endpoint("cache", None, Duration::ZERO).await.unwrap().unwrap();
    let master = Endpoint { epoch: 2, ..endpoint.master.clone() };
    let next = EndpointReport { master, ..endpoint.clone() }.tagged();
    let wait = Duration::from_secs(30);
    let (found, ()) = tokio::join!(operator.client.endpoint("cache", Some(&known), wait), async {
        operator.status_cache.publish("cache", PlanReport::default(), Some(next.clone()));
    });
    assert_eq!(found.unwrap(), Some(next.clone()));
    let again = operator.client.endpoint("cache", Some(&next), Duration::ZERO).await;
    assert_eq!(again.unwrap(), None);
    // A proxy of an older version goes by the epoch alone.
    let older = EndpointReport { tag: String::new(), ..next };
    let again = operator.client.endpoint("cache", Some(&older), Duration::ZERO).await;
    assert_eq!(again.unwrap(), None);
}

/// Of `app`, with two replicas of which one is in sync.
async fn endpoint_is_written_as_it_is_asked_for(operator: &Operator) {
    assert_eq!(operator.run("endpoint cache").await.unwrap(), "a.ts.net:6379\n");
    assert_eq!(
        operator.run("endpoint cache -o env").await.unwrap(),
        "REDIS_HOST=a.ts.net\nREDIS_PORT=6379\nREDIS_IP=100.64.0.1\n\
         REDIS_URL=redis://app@100.64.0.1:6379\nREDIS_USERNAME=app\n\
         REDIS_REPLICAS=redis://app@100.64.0.2:6379\n\
         REDIS_SENTINELS=100.64.0.1:26379,100.64.0.2:26379,100.64.0.3:26379\n\
         REDIS_SENTINEL_MASTER=cache\n"
    );
    assert_eq!(
        operator.run("endpoint cache -o url").await.unwrap(),
        "redis://app@100.64.0.1:6379\nredis://app@100.64.0.2:6379\n"
    );
    let other = operator.run("endpoint cache -o url --user x@y").await.unwrap();
    assert!(other.starts_with("redis://x%40y@100.64.0.1:6379\n"), "{other}");
    let json = operator.run("endpoint cache -o json").await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["name"], &json["uid"], &json["users"][0], &json["replicas"][0]["inSync"]),
        (&json!("a.ts.net"), &json!("u"), &json!("app"), &json!(true))
    );
}

#[tokio::test]
async fn redis_cli_needs_to_know_who_logs_in() {
    let operator = Operator::start().await;
    let connect = async |line: &str| {
        let words = ["akash-redis"].into_iter().chain(line.split(' '));
        let Command::Connect(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{line}")
        };
        connect::run(args, &operator.dir.path().join("operator.sock"))
            .await
            .unwrap_err()
            .to_string()
    };
    assert!(connect("connect cache").await.starts_with("there is no RedisCluster named cache"));
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(connect("connect cache").await.starts_with("cache has no users"));
    let hash = "0".repeat(64);
    let user = |name: &str| json!({ "name": name, "passwordSha256": hash });
    let users = json!({ "users": [user("app"), user("reader")] });
    operator.apply(json!({ "nodes": 3, "redis": users })).await.unwrap();
    let error = connect("connect cache").await;
    assert!(error.contains("several users (app, reader); name one with --user"), "{error}");
    let key = "00".repeat(33);
    let elsewhere = format!("connect cache --node 100.64.0.3 --public-key {key}");
    let error = connect(&elsewhere).await;
    assert!(error.contains("is no public key of an installation"), "{error}");
    let flags = "proxy --cluster cache --node 100.64.0.3";
    assert!(
        Cli::try_parse_from(["akash-redis"].into_iter().chain(flags.split(' '))).is_err(),
        "words of nodes are proved, or nobody is asked"
    );
    assert_eq!(
        operator.run("public-key").await.unwrap_err(),
        "the operator is of an older version and does not tell its key; upgrade it first"
    );
    let report = OperatorReport { public_key: "02ab".into(), ..OperatorReport::default() };
    operator.status_cache.publish_operator(report);
    assert_eq!(operator.run("public-key").await.unwrap(), "02ab\n");
}

#[tokio::test]
async fn logs_are_the_masters_unless_a_node_is_named() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(
        operator
            .run("logs cache")
            .await
            .unwrap_err()
            .starts_with("the operator has not looked at cache yet")
    );
    operator.publish(json!({ "nodes": nodes() })).await;

    let all = "agent | started\ntailscaled | two lines\nredis | colour?[2J\n";
    assert_eq!(
        operator.run("logs cache --process all").await.unwrap(),
        all,
        "nothing that a terminal would obey"
    );
    assert_eq!(operator.run("logs cache").await.unwrap(), "agent | started\nredis | colour?[2J\n");
    assert_eq!(
        operator.run("logs cache --process redis --since 10m --timestamps").await.unwrap(),
        "redis | colour?[2J\n"
    );
    let asked = operator.logs.asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!((asked.since, asked.timestamps), (Some(Duration::from_mins(10)), true));
    assert_eq!(
        operator.run("logs cache cache-0-a --tail 1").await.unwrap(),
        "redis | colour?[2J\n"
    );
    assert_eq!(operator.run("logs cache 0 --tail 0").await.unwrap(), "");
    assert_eq!(
        operator.run("logs cache 1").await.unwrap_err(),
        "the log of cache-1-b cannot be read (?[2J)"
    );
    assert!(operator.run("logs cache 7").await.unwrap_err().starts_with("cache has no node 7"));
    assert!(
        operator
            .run("logs other")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named other")
    );
}

/// A terminal that tells of each line as it is shown.
struct Screen(std::sync::mpsc::Sender<String>, Vec<u8>);

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let shown = String::from_utf8(std::mem::take(&mut self.1)).unwrap();
        self.0.send(shown).map_err(std::io::Error::other)
    }
}

#[tokio::test]
async fn followed_logs_are_shown_as_they_come() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.publish(json!({ "nodes": nodes() })).await;
    let (lines, to_come) = tokio::sync::mpsc::channel(8);
    *operator.logs.to_come.lock().unwrap() = Some(to_come);
    let (screen, shown) = std::sync::mpsc::channel();
    let cli =
        Cli::try_parse_from(["akash-redis", "logs", "cache", "--follow", "--tail", "0"]).unwrap();
    let (mut screen, mut person) = (Screen(screen, Vec::new()), Script);
    let (done, ()) = tokio::join!(
        execute(&operator.client, client_command(cli), &mut screen, &mut person),
        async {
            for line in ["redis | first", "redis | second"] {
                lines.send(line.to_owned()).await.unwrap();
                let seen = async {
                    while shown.try_recv().ok().is_none_or(|text| text != format!("{line}\n")) {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(20), seen)
                    .await
                    .expect("it is shown before there is another");
            }
            drop(lines);
        }
    );
    done.unwrap();
}

#[tokio::test]
async fn the_books_of_a_cluster_that_is_gone_are_shown() {
    use crate::model::books::{Account, Payer, TxEntry};
    use crate::model::money::Uact;
    let operator = Operator::start().await;
    let unknown = operator.run("spend cache").await.unwrap_err();
    assert!(unknown.contains("no RedisCluster named cache"), "{unknown}");
    assert_eq!(operator.run("spend").await.unwrap(), "nothing was spent\n");
    let entry = TxEntry {
        hash: "A".into(),
        dseq: 7,
        cluster: "cache".into(),
        purpose: "create".into(),
        height: 1,
        at: UnixMs(1_795_000_000_000),
        ok: true,
        fee: 5000,
        fee_payer: Payer::Own,
        deposit: Uact(2_000_000),
        deposit_payer: Payer::Own,
    };
    operator.store.book_tx(&entry).await.unwrap();
    operator.store.put_accounts(&[Account::new(7, "cache", "u", "cache-0-a")]).await.unwrap();
    let csv = operator.run("spend cache -o csv --month 2026-11").await.unwrap();
    assert!(csv.ends_with("\ncache,u,cache-0-a,7,,2000000,0,0,2000000,0,5000,false\n"), "{csv}");
    let json = operator.run("spend -o json").await.unwrap();
    assert!(json.contains("\"feesUakt\": 5000"), "{json}");
    let october = operator.run("spend --month 2026-10").await.unwrap();
    assert_eq!(october, "nothing was spent\n");
    let parsed = Cli::try_parse_from(["akash-redis", "spend", "--month", "november"]);
    assert!(parsed.unwrap_err().to_string().contains("write it as 2026-11"));
}
