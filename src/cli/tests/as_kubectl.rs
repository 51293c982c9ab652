//! What users of kubectl type.

use super::*;

#[tokio::test]
async fn clusters_are_written_in_the_forms_that_kubectl_knows() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    operator.publish(json!({"epoch": 4, "nodes": nodes()})).await;
    assert_eq!(operator.run("get -o name").await.unwrap(), "rediscluster/cache\n");
    assert_eq!(operator.run("get cache -o jsonpath={.status.epoch}").await.unwrap(), "4");
    let names = operator.run("get -o jsonpath={.items[*].metadata.name}").await.unwrap();
    assert_eq!(names, "cache");
    let missing = operator.run("get cache -o jsonpath={.status.nothing}").await.unwrap_err();
    assert!(missing.contains("there is no {.status.nothing}"), "{missing}");
    let none = operator.run("get -l team=a").await.unwrap();
    assert_eq!(none, "no clusters found with these labels\n");
    assert_eq!(operator.run("get -l !team -o name").await.unwrap(), "rediscluster/cache\n");

    let events: serde_json::Value =
        serde_json::from_str(&operator.run("events cache -o json").await.unwrap()).unwrap();
    assert!(events.is_array(), "{events}");
    let status = operator.run("status -o yaml").await.unwrap();
    assert!(serde_saphyr::from_str::<serde_json::Value>(&status).unwrap().is_object(), "{status}");
}

/// A word that is wrong is no `yes` to the loss of all data.
#[tokio::test]
async fn a_cluster_is_deleted_by_whoever_types_its_name() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    for says in ["yes", "", "other"] {
        let mut person = Somebody { says, asked: 0 };
        let error = operator.run_before(&mut person, "delete cache").await.unwrap_err();
        assert!(error.contains("nothing was deleted") && person.asked == 1, "{error}");
        let cluster = operator.store.get("cache").await.unwrap().cluster;
        assert_eq!(cluster.metadata.deletion_timestamp, None, "{says:?}");
    }
    let mut nobody_asked = Somebody { says: "", asked: 0 };
    let gone = operator.run_before(&mut nobody_asked, "delete other --yes").await.unwrap_err();
    assert!(gone.contains("no RedisCluster named other"), "{gone}");
    let mut person = Somebody { says: "cache", asked: 0 };
    operator.run_before(&mut person, "delete cache").await.unwrap();
    let cluster = operator.store.get("cache").await.unwrap().cluster;
    assert!(cluster.metadata.deletion_timestamp.is_some());
}

/// A script says no name by accident.
#[tokio::test]
async fn data_are_not_deleted_unless_the_cluster_is_named_twice() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    operator.publish(json!({"epoch": 4, "nodes": nodes()})).await;
    for (line, told) in [
        ("delete cache", "may hold data"),
        ("delete cache --yes --wait", "`akash-redis delete cache --yes-delete-data cache`"),
        ("delete cache --yes-delete-data other", "names other, and the cluster is cache"),
    ] {
        let error = operator.run(line).await.unwrap_err();
        assert!(error.contains("nothing was deleted") && error.contains(told), "{line}: {error}");
        let cluster = operator.store.get("cache").await.unwrap().cluster;
        assert_eq!(cluster.metadata.deletion_timestamp, None, "{line}");
    }
    let said = operator.run("delete cache --yes-delete-data cache").await.unwrap();
    assert!(said.contains("cache is being deleted"), "{said}");
    let cluster = operator.store.get("cache").await.unwrap().cluster;
    assert_eq!(cluster.metadata.annotations[YES_DELETE_DATA], "cache");
    assert!(cluster.metadata.deletion_timestamp.is_some());
}

/// Who types the name at a terminal has read of the last backup, and gets it.
#[tokio::test]
async fn the_policy_says_that_a_last_backup_is_taken_and_what_waits_can_be_changed() {
    let operator = Operator::start().await;
    let bucket = tempfile::tempdir().unwrap();
    let to = format!("file://{}", bucket.path().display());
    let spec =
        |nodes: u32| json!({"nodes": nodes, "backup": {"to": to}, "deletionPolicy": "Backup"});
    operator.apply(spec(3)).await.unwrap();
    operator.publish(json!({"epoch": 4, "nodes": nodes()})).await;
    let mut person = Somebody { says: "cache", asked: 0 };
    let said = operator.run_before(&mut person, "delete cache").await.unwrap();
    assert!(person.asked == 1 && said.contains("a last backup is taken"), "{said}");
    let cluster = operator.store.get("cache").await.unwrap().cluster;
    assert!(cluster.metadata.deletion_timestamp.is_some());
    assert!(!cluster.metadata.annotations.contains_key(YES_DELETE_DATA));
    let deleting = |status: &str| json!({"epoch": 4, "nodes": nodes(), "conditions": [{"type": "Deleting", "status": status}]});
    operator.publish(deleting("True")).await;
    assert!(operator.apply(spec(5)).await.unwrap_err().contains("is being deleted"));
    operator.publish(deleting("False")).await;
    operator.apply(spec(5)).await.unwrap();
}

#[tokio::test]
async fn a_switchover_is_waited_for_until_it_is_done_or_came_to_nothing() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    let master = |epoch: u64, incarnation: &str| {
        json!({"epoch": epoch, "nodes": nodes(),
            "master": {"epoch": epoch, "incarnation": incarnation, "ip": "100.64.0.1", "port": 6379}})
    };
    operator.publish(master(1, "cache-0-a")).await;
    let line = "switchover cache --to 1 --wait --timeout 30s";
    let (done, ()) = tokio::join!(operator.run(line), async {
        while operator.annotation(MASTER).await.is_none() {
            tokio::task::yield_now().await;
        }
        operator.publish(master(2, "cache-1-b")).await;
    });
    assert!(done.unwrap().ends_with("rediscluster/cache switched over\n"));
    let line = "switchover cache --to 2 --wait --timeout 30s";
    let (undone, ()) = tokio::join!(operator.run(line), async {
        while operator.annotation(MASTER).await.is_none_or(|said| !said.starts_with("cache-2-c")) {
            tokio::task::yield_now().await;
        }
        operator.publish(master(4, "cache-1-b")).await;
    });
    let error = undone.unwrap_err();
    assert!(error.contains("cache-1-b is master under a later epoch"), "{error}");
}

#[test]
fn every_shell_is_served_and_every_command_has_a_page() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let cli = Cli::try_parse_from(["akash-redis", "completion", shell]).unwrap();
        let Command::Completion(args) = cli.command else { panic!("{:?}", cli.command) };
        let mut script = Vec::new();
        completion::completion(&args, &mut script).unwrap();
        assert!(String::from_utf8(script).unwrap().contains("switchover"), "{shell}");
    }
    let args = completion::Man { dir: Some(dir.path().to_owned()) };
    completion::man(&args, &mut Vec::new()).unwrap();
    for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
        let page = dir.path().join(format!("akash-redis-{}.1", command.get_name()));
        assert!(page.exists(), "{}", page.display());
    }
}

/// Offline, and with everything that is wrong.
#[test]
fn manifests_are_checked_without_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let head = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\n";
    let write = |file: &str, rest: &str| {
        std::fs::write(dir.path().join(file), format!("{head}{rest}")).unwrap();
    };
    write("a.yaml", "metadata: { name: a }\nspec: { nodes: 3 }\n");
    let check = || {
        let args = validate::Validate { file: vec![dir.path().display().to_string()] };
        let mut out = Vec::new();
        validate::run(&args, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    assert_eq!(check().unwrap(), "rediscluster/a is valid\n");
    write("b.yaml", "metadata: { name: b }\nspec: { nodes: 12 }\n");
    let error = check().unwrap_err().to_string();
    assert!(error.contains("b.yaml:4: spec.nodes: 12 nodes"), "{error}");
}

#[tokio::test]
async fn a_report_is_whole_although_parts_are_missing_and_overwrites_nothing() {
    let operator = Operator::start().await;
    let user = json!({"name": "app", "passwordSha256": "ab".repeat(32)});
    operator.apply(json!({"nodes": 3, "redis": {"users": [user]}})).await.unwrap();
    let text = operator.run("report").await.unwrap();
    let report: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(report["clusters"][0]["cluster"]["metadata"]["name"], "cache");
    assert!(report["clusters"][0]["endpoint"].is_null(), "{text}");
    assert!(!text.contains("abab"), "{text}");
    let path = operator.dir.path().join("report.yaml").display().to_string();
    let told = operator.run(&format!("report cache --out {path}")).await.unwrap();
    assert!(told.contains("read it before you hand it on"), "{told}");
    let again = operator.run(&format!("report cache --out {path}")).await.unwrap_err();
    assert!(again.contains("cannot be written"), "{again}");
}
