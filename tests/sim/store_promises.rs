//! What `store` promises, whatever home it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akash_redis::api::status::Status;
use akash_redis::api::types::RedisCluster;
use akash_redis::changes::Change;
use akash_redis::model::books::{Account, Payer, Payment, Scaled, Seen, Statement, TxEntry};
use akash_redis::model::chain::SignedTx;
use akash_redis::model::experience::{Experience, Experiences, PROVIDERS_KEPT};
use akash_redis::model::money::Uact;
use akash_redis::model::record::Record;
use akash_redis::model::time::UnixMs;
use akash_redis::store::{Event, Store, StoreError, TellRule};

/// Hands every promise to `each`, a macro that makes something of their names.
macro_rules! promises {
    ($each:ident) => {
        $each! {
            generation_follows_the_spec_and_the_version_follows_every_change,
            a_change_of_what_is_wanted_is_announced_by_name_and_nothing_else_is,
            a_change_of_something_that_moved_meanwhile_is_a_conflict,
            what_is_not_there_cannot_be_changed,
            an_operator_that_was_superseded_writes_nothing,
            deletion_is_marked_once_and_carried_out_by_the_operator,
            transactions_are_kept_once_until_they_are_dropped,
            the_newest_events_are_kept_and_outlive_their_cluster_until_its_name_is_used_again,
            events_that_are_alike_are_one_with_a_count,
            what_fails_on_and_on_does_not_push_out_the_rest,
            an_event_is_queued_once_for_each_target_in_its_order,
            a_record_and_what_it_tells_are_written_together_or_not_at_all,
            a_queue_stays_within_its_bounds_and_others_are_left_alone,
            books_hold_each_entry_once_and_outlive_their_cluster,
            experience_with_providers_is_kept_by_the_operator_in_charge,
            an_object_keeps_its_uid_and_the_next_of_its_name_has_another,
        }
    };
}
pub(crate) use promises;

fn cluster(name: &str, nodes: u32) -> RedisCluster {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": name}, "spec": {"nodes": nodes}
    }))
    .unwrap()
}

fn signed(hash: &str, timeout: u64) -> SignedTx {
    SignedTx {
        dseq: 7,
        purpose: "create".into(),
        bytes: vec![0, 255, 1],
        hash: hash.into(),
        timeout: UnixMs(timeout),
    }
}

/// A store that nobody used yet.
pub struct Fresh {
    /// The same one as two operator processes see it.
    pub pair: [Arc<dyn Store>; 2],
    /// So many events of a cluster it keeps.
    pub events: u64,
    /// So many of one reason.
    pub of_a_reason: usize,
}

fn event(n: u64) -> Event {
    Event::new(UnixMs(n), "cache", format!("Tested{}", n % 5), format!("number {n}"))
}

fn epoch(epoch: u64) -> Record {
    Record { epoch, ..Record::default() }
}

pub async fn generation_follows_the_spec_and_the_version_follows_every_change(home: Fresh) {
    let [store, _] = home.pair;
    let made = store.apply(cluster("cache", 3)).await.unwrap().cluster.metadata;
    assert_eq!(made.generation, Some(1));

    let same = store.apply(cluster("cache", 3)).await.unwrap().cluster.metadata;
    assert_eq!(same, made, "nothing changed, so nothing moved");

    let mut labelled = cluster("cache", 3);
    labelled.metadata.labels = BTreeMap::from([("team".into(), "red".into())]);
    let metadata = store.apply(labelled).await.unwrap().cluster.metadata;
    assert_eq!(metadata.generation, Some(1));
    assert_ne!(metadata.resource_version, made.resource_version);
    let labelled = metadata.resource_version;

    store.set_status("cache", &Status { epoch: 4, ..Status::default() }).await.unwrap();
    let grown = store.apply(cluster("cache", 5)).await.unwrap().cluster;
    let metadata = &grown.metadata;
    assert_eq!(metadata.generation, Some(2));
    assert_ne!(metadata.resource_version, labelled);
    assert_eq!(grown.status.unwrap().epoch, 4, "an apply leaves the status alone");
    assert_eq!(metadata.creation_timestamp, made.creation_timestamp);
}

pub async fn a_change_of_what_is_wanted_is_announced_by_name_and_nothing_else_is(home: Fresh) {
    let [store, another] = home.pair;
    let mut changes = store.changes();
    for name in ["cache", "cache", "other"] {
        store.apply(cluster(name, 3)).await.unwrap();
    }
    store.set_status("cache", &Status { epoch: 4, ..Status::default() }).await.unwrap();
    store.set_record("cache", 0, &Record::default()).await.unwrap();
    store.mark_deleted("cache").await.unwrap();
    store.remove("cache").await.unwrap();
    drop((store, another));
    let mut heard = Vec::new();
    while let Some(change) = changes.next().await {
        heard.push(change);
    }
    let names = ["cache", "other", "cache", "cache"].map(|name| Change::Key(name.to_owned()));
    assert_eq!(heard, names, "made, made, marked, removed");
}

pub async fn a_change_of_something_that_moved_meanwhile_is_a_conflict(home: Fresh) {
    let [store, _] = home.pair;
    let mut stale = store.apply(cluster("cache", 3)).await.unwrap().cluster;
    store.apply(cluster("cache", 4)).await.unwrap();
    stale.spec.nodes = 5;
    assert!(matches!(store.apply(stale).await, Err(StoreError::Conflict { .. })));

    assert_eq!(store.set_record("cache", 0, &epoch(1)).await.unwrap(), 1);
    let again = store.set_record("cache", 0, &Record::default()).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    let stored = store.get("cache").await.unwrap();
    assert_eq!((stored.record, stored.record_version, stored.cluster.spec.nodes), (epoch(1), 1, 4));
}

pub async fn what_is_not_there_cannot_be_changed(home: Fresh) {
    let [store, _] = home.pair;
    let mut ghost = cluster("cache", 3);
    ghost.metadata.resource_version = Some("9".into());
    assert!(matches!(store.apply(ghost).await, Err(StoreError::Conflict { .. })));
    let ends = [
        store.get("cache").await.map(drop),
        store.mark_deleted("cache").await,
        store.set_record("cache", 0, &Record::default()).await.map(drop),
        store.set_status("cache", &Status::default()).await,
        store.remove("cache").await,
    ];
    for end in ends {
        assert!(matches!(end, Err(StoreError::NotFound { .. })), "{end:?}");
    }
}

pub async fn an_operator_that_was_superseded_writes_nothing(home: Fresh) {
    let [old, new] = home.pair;
    old.apply(cluster("cache", 3)).await.unwrap();
    let first = old.take_over().await.unwrap();
    old.set_record("cache", 0, &Record::default()).await.unwrap();
    let second = new.take_over().await.unwrap();
    assert!(second > first);
    let ends = [
        old.set_record("cache", 1, &epoch(9)).await.map(drop),
        old.set_status("cache", &Status::default()).await,
        old.keep_tx("cache", &signed("A", 5)).await,
        old.drop_tx("A").await,
        old.add_events(&[event(1)]).await,
        old.remove("cache").await,
    ];
    for end in ends {
        assert!(
            matches!(end, Err(StoreError::Superseded { ours, theirs }) if (ours, theirs) == (first, second)),
            "{end:?}"
        );
    }
    let seen = new.get("cache").await.unwrap();
    assert_eq!((seen.record.epoch, seen.cluster.status), (0, None));
    assert_eq!(
        (new.kept_txs().await.unwrap(), new.events("cache").await.unwrap()),
        (vec![], vec![])
    );
    new.set_record("cache", 1, &Record::default()).await.unwrap();
}

pub async fn deletion_is_marked_once_and_carried_out_by_the_operator(home: Fresh) {
    let [store, _] = home.pair;
    store.apply(cluster("cache", 3)).await.unwrap();
    store.mark_deleted("cache").await.unwrap();
    let marked = store.get("cache").await.unwrap().cluster.metadata;
    assert!(marked.deletion_timestamp.is_some());
    store.mark_deleted("cache").await.unwrap();
    assert_eq!(store.get("cache").await.unwrap().cluster.metadata, marked);
    let again = store.apply(cluster("cache", 5)).await.unwrap().cluster.metadata;
    assert_eq!(
        again.deletion_timestamp, marked.deletion_timestamp,
        "an apply does not take a deletion back"
    );
    store.remove("cache").await.unwrap();
    assert!(store.list().await.unwrap().is_empty());
}

pub async fn transactions_are_kept_once_until_they_are_dropped(home: Fresh) {
    let [store, _] = home.pair;
    store.apply(cluster("cache", 3)).await.unwrap();
    for tx in [signed("A", 7), signed("B", 5), signed("A", 7)] {
        store.keep_tx("cache", &tx).await.unwrap();
    }
    store.remove("cache").await.unwrap();
    let kept = [signed("B", 5), signed("A", 7)].map(|tx| ("cache".to_owned(), tx));
    assert_eq!(store.kept_txs().await.unwrap(), kept, "they may land after their cluster");
    store.drop_tx("B").await.unwrap();
    assert_eq!(store.kept_txs().await.unwrap(), kept[1..]);
}

pub async fn the_newest_events_are_kept_and_outlive_their_cluster_until_its_name_is_used_again(
    home: Fresh,
) {
    let ([store, _], most) = (home.pair, home.events);
    let now = store.apply(cluster("cache", 3)).await.unwrap();
    assert_eq!(now.record_version, 0);
    let events: Vec<_> =
        (0..most + 3).map(|n| Event { at: UnixMs(u64::MAX >> 12), ..event(n) }).collect();
    store.add_events(&events).await.unwrap();
    store.add_events(&[]).await.unwrap();
    assert_eq!(store.events("cache").await.unwrap(), events[3..], "oldest first");
    store.remove("cache").await.unwrap();
    assert_eq!(
        store.events("cache").await.unwrap().len(),
        events.len() - 3,
        "how it ended can be read"
    );
    store.apply(cluster("cache", 1)).await.unwrap();
    assert_eq!(store.events("cache").await.unwrap(), []);
}

pub async fn events_that_are_alike_are_one_with_a_count(home: Fresh) {
    let [store, _] = home.pair;
    store.apply(cluster("cache", 3)).await.unwrap();
    store.apply(cluster("other", 3)).await.unwrap();
    let failed = |at, message: &str| Event::new(UnixMs(at), "cache", "EffectFailed", message);
    let master = Event::new(UnixMs(1), "cache", "MasterPromoted", "cache-0-a is master");
    let elsewhere = Event { cluster: "other".into(), ..failed(3, "x") };
    let all = [master.clone(), failed(2, "x"), elsewhere.clone(), failed(4, "y"), failed(9, "x")];
    store.add_events(&all).await.unwrap();
    let twice = Event { first: UnixMs(2), count: 2, ..failed(9, "x") };
    assert_eq!(store.events("cache").await.unwrap(), [master, failed(4, "y"), twice]);
    assert_eq!(store.events("other").await.unwrap(), [elsewhere]);
}

pub async fn what_fails_on_and_on_does_not_push_out_the_rest(home: Fresh) {
    let ([store, _], most) = (home.pair, home.of_a_reason);
    store.apply(cluster("cache", 3)).await.unwrap();
    let master = Event::new(UnixMs(1), "cache", "MasterPromoted", "cache-0-a is master");
    store.add_events(std::slice::from_ref(&master)).await.unwrap();
    let failures: Vec<_> = (0..2000)
        .map(|n| Event::new(UnixMs(n), "cache", "EffectFailed", format!("try {n}")))
        .collect();
    store.add_events(&failures).await.unwrap();
    let kept = store.events("cache").await.unwrap();
    assert_eq!(kept[0], master);
    assert_eq!(kept[1..], failures[failures.len() - most..]);
}

/// Everybody is told of what begins with `Told`, each target by itself.
fn rule() -> TellRule {
    Arc::new(|event: &Event| {
        let told = event.reason.starts_with("Told");
        if told { vec!["a".to_owned(), "b".to_owned()] } else { Vec::new() }
    })
}

fn told(at: u64, message: &str) -> Event {
    Event::new(UnixMs(at), "cache", "Told", message)
}

async fn waiting(store: &Arc<dyn Store>, target: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(notice) = store.next_notice(target).await.unwrap() {
        store.drop_notice(notice.number).await.unwrap();
        seen.push(notice.event.message);
    }
    seen
}

pub async fn an_event_is_queued_once_for_each_target_in_its_order(home: Fresh) {
    let [store, _] = home.pair;
    store.add_events(&[told(1, "before anybody asked")]).await.unwrap();
    store.tell(rule());
    let mut news = store.notices();
    let events = [told(1000, "one"), event(7), told(1001, "two"), told(1002, "one")];
    store.add_events(&events).await.unwrap();
    for target in ["a", "b"] {
        assert_eq!(news.next().await, Some(Change::Key(target.to_owned())));
    }
    let [a, b] = ["a", "b"].map(|target| store.next_notice(target));
    let (a, b) = (a.await.unwrap().unwrap(), b.await.unwrap().unwrap());
    assert_eq!((&a.id, &a.event), (&b.id, &b.event), "it is the same one");
    assert_eq!(waiting(&store, "a").await, ["one", "two"]);
    assert_eq!(waiting(&store, "b").await, ["one", "two"]);
    // Within the hour it is the same again, after it another one.
    store.add_events(&[told(3_600_000, "one")]).await.unwrap();
    assert!(waiting(&store, "a").await.is_empty());
    store.add_events(&[told(7_300_000, "one")]).await.unwrap();
    let again = store.next_notice("a").await.unwrap().unwrap();
    assert_eq!((again.event.message.as_str(), again.id == a.id), ("one", false));
}

pub async fn a_record_and_what_it_tells_are_written_together_or_not_at_all(home: Fresh) {
    let [store, another] = home.pair;
    store.tell(rule());
    store.apply(cluster("cache", 3)).await.unwrap();
    store.take_over().await.unwrap();
    let version =
        store.set_record_with_events("cache", 0, &epoch(1), &[told(1000, "one")]).await.unwrap();
    assert_eq!(version, 1);
    let late = store.set_record_with_events("cache", 0, &epoch(2), &[told(1000, "two")]).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    assert_eq!(store.get("cache").await.unwrap().record, epoch(1));
    assert_eq!(store.events("cache").await.unwrap(), [told(1000, "one")]);
    assert_eq!(waiting(&store, "b").await, ["one"]);

    let reasons = BTreeSet::from(["NodeUnreachable".to_owned()]);
    store.set_told("cache", &reasons, &[told(1000, "three")]).await.unwrap();
    assert_eq!(store.told("cache").await.unwrap(), reasons);
    another.take_over().await.unwrap();
    let superseded = store.set_told("cache", &BTreeSet::new(), &[told(1000, "four")]).await;
    assert!(matches!(superseded, Err(StoreError::Superseded { .. })), "{superseded:?}");
    assert!(store.next_notice("a").await.is_err(), "whoever is not in charge tells nobody");
    assert_eq!(another.told("cache").await.unwrap(), reasons);
    assert_eq!(waiting(&another, "a").await, ["one", "three"]);
    another.remove("cache").await.unwrap();
    assert!(another.told("cache").await.unwrap().is_empty(), "it went with its cluster");
}

pub async fn a_queue_stays_within_its_bounds_and_others_are_left_alone(home: Fresh) {
    let [store, _] = home.pair;
    store.tell(rule());
    let events: Vec<_> = (0..10).map(|n| told(1000 + n, &format!("{n}"))).collect();
    store.add_events(&events).await.unwrap();
    let trimmed = store.trim_notices("a", UnixMs(1002), 5).await.unwrap();
    let dropped: Vec<_> = trimmed.dropped.iter().map(|n| n.event.message.as_str()).collect();
    assert_eq!((dropped, trimmed.left), (vec!["0", "1", "2", "3", "4"], 5));
    let trimmed = store.trim_notices("a", UnixMs(1007), 5).await.unwrap();
    assert_eq!((trimmed.dropped.len(), trimmed.left), (2, 3));
    assert_eq!(store.keep_targets(&["a".to_owned()]).await.unwrap(), 10);
    assert!(waiting(&store, "b").await.is_empty());
    assert_eq!(waiting(&store, "a").await, ["7", "8", "9"]);
}

fn booked(hash: &str, height: i64) -> TxEntry {
    TxEntry {
        hash: hash.into(),
        dseq: 7,
        cluster: "cache".into(),
        purpose: "create".into(),
        height,
        at: UnixMs(5),
        ok: true,
        fee: 5000,
        fee_payer: Payer::Treasury,
        deposit: Uact(2),
        deposit_payer: Payer::Own,
    }
}

pub async fn books_hold_each_entry_once_and_outlive_their_cluster(home: Fresh) {
    let [store, another] = home.pair;
    store.take_over().await.unwrap();
    store.apply(cluster("cache", 3)).await.unwrap();
    for entry in [booked("B", 9), booked("A", 9), booked("C", 3), booked("B", 9)] {
        store.book_tx(&entry).await.unwrap();
    }
    let mut account = Account::new(7, "cache", "u", "cache-0-a");
    store.put_accounts(&[account.clone(), Account::new(3, "cache", "u", "x")]).await.unwrap();
    let payment = Payment { rate: Scaled(i128::MAX), owed: Scaled(-1), ..Payment::default() };
    account.statement =
        Some(Statement { funds: Scaled(-7), payments: vec![payment], ..Statement::default() });
    account.seen = Some(Seen { depositors: [(5, true)].into(), ..Seen::default() });
    store.put_accounts(std::slice::from_ref(&account)).await.unwrap();
    store.put_accounts(&[]).await.unwrap();
    store.remove("cache").await.unwrap();
    let hashes = [booked("C", 3), booked("A", 9), booked("B", 9)];
    assert_eq!(store.booked_txs().await.unwrap(), hashes, "in the order of their blocks");
    let accounts = [Account::new(3, "cache", "u", "x"), account];
    assert_eq!(store.accounts().await.unwrap(), accounts);
    another.take_over().await.unwrap();
    assert!(store.book_tx(&booked("D", 1)).await.is_err(), "a later operator keeps them");
    assert!(store.put_accounts(&accounts).await.is_err());
}

pub async fn an_object_keeps_its_uid_and_the_next_of_its_name_has_another(home: Fresh) {
    let [store, _] = home.pair;
    let uid = async |nodes| {
        store.apply(cluster("cache", nodes)).await.unwrap().cluster.metadata.uid.unwrap()
    };
    let first = uid(3).await;
    assert!(!first.is_empty());
    assert_eq!(uid(5).await, first);
    store.remove("cache").await.unwrap();
    assert_ne!(uid(3).await, first);
}

pub async fn experience_with_providers_is_kept_by_the_operator_in_charge(home: Fresh) {
    let [store, another] = home.pair;
    store.take_over().await.unwrap();
    let one = |bids, seen| Experience { bids, seen: UnixMs(seen), ..Experience::default() };
    store.put_experience(&Experiences::from([("a".into(), one(1, 1))])).await.unwrap();
    store.put_experience(&Experiences::from([("a".into(), one(2, 2))])).await.unwrap();
    another.take_over().await.unwrap();
    let late = store.put_experience(&Experiences::from([("a".into(), one(3, 3))])).await;
    assert!(matches!(late, Err(StoreError::Superseded { .. })), "{late:?}");
    let many = (0..PROVIDERS_KEPT as u64).map(|n| (format!("p{n}"), one(1, 10 + n))).collect();
    assert_eq!(another.experience().await.unwrap()["a"], one(2, 2));
    another.put_experience(&many).await.unwrap();
    let known = another.experience().await.unwrap();
    assert_eq!((known.len(), known.contains_key("a")), (PROVIDERS_KEPT, false), "the oldest went");
}
