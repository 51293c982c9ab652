//! Clusters side by side on one market, clients that write all the time, and faults one after the
//! other in each of them, from a printed seed. Nothing that a client was told is done is lost, no two
//! nodes take writes at the same time, and every cluster comes back by itself.
//!
//! `SOAK_WRITES`, `SOAK_FAULTS`, `SOAK_MINUTES` and `SOAK_SEED` make it another one; `make soak` is
//! the long one.

mod arena;
mod clients;
pub mod faults;
pub mod masters;

use std::time::Duration;

use akash_redis::api::status::Status;
use akash_redis::devnet::sandbox::Sandbox;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::sandboxed::sandboxed;
use crate::stage::until;
use arena::{Arena, Journal, Subject, master};
use faults::{Blow, Kind, Mark, lasting, shuffled};

/// The user that asks who takes writes.
const PROBE: &str = "probe";
/// By how much a node's clock is wrong, in its container.
const CLOCK: &str = "/run/clock";
/// What fills a redis.
const VALUE: usize = 1 << 20;
const VALUES: usize = 80;

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// Confirmed writes, all clusters together.
    writes: u64,
    faults: u64,
    /// They are to be reached within.
    limit: Duration,
    seed: u64,
    short: bool,
}

impl Terms {
    fn asked() -> Self {
        let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let minutes: Option<u64> = asked("SOAK_MINUTES");
        Self {
            writes: asked("SOAK_WRITES").unwrap_or(5_000),
            faults: asked("SOAK_FAULTS").unwrap_or(12),
            limit: Duration::from_mins(minutes.unwrap_or(6)),
            seed: asked("SOAK_SEED").unwrap_or_else(|| rand::thread_rng().gen_range(1..100_000)),
            short: minutes.is_none(),
        }
    }
}

#[test]
fn clusters_outlive_faults_and_lose_nothing_that_was_confirmed() {
    let test = "soak::clusters_outlive_faults_and_lose_nothing_that_was_confirmed";
    let terms = Terms::asked();
    sandboxed(test, terms.limit + Duration::from_mins(8), async |sandbox: Sandbox| {
        let journal = Journal::new(!terms.short);
        println!("{terms:?}");
        soak(&sandbox, terms, &journal).await;
    });
}

async fn soak(sandbox: &Sandbox, terms: Terms, journal: &std::sync::Arc<Journal>) {
    let arena = Arena::set(sandbox, journal.clone()).await;
    let clusters: &[(&str, bool)] = if terms.short {
        &[("cache-a", true), ("cache-b", false)]
    } else {
        &[("cache-a", true), ("cache-b", true), ("cache-c", false)]
    };
    for (name, confirmed) in clusters {
        arena.apply(name, *confirmed).await;
    }
    let mut subjects = Vec::new();
    let mut tasks = Vec::new();
    for (number, (name, confirmed)) in (0..).zip(clusters) {
        let subject = arena.subject(name, *confirmed, number).await;
        let watch = subject.masters.clone().watch(arena.stage.clone(), (*name).to_owned());
        tasks.push(tokio::spawn(watch));
        tasks.extend(subject.clients.start());
        subjects.push(subject);
    }
    journal.say("all clusters are Ready, and clients write");

    let run = Run { arena: &arena, subjects: &subjects, terms };
    let clusters = (0u64..).zip(&subjects).map(|(number, subject)| run.trouble(subject, number));
    futures::join!(join_all(clusters), run.trouble_all());

    for subject in &subjects {
        arena.whole(&subject.name, "all faults").await;
        arena.writes_go_on(subject, "all faults").await;
        subject.clients.stop();
    }
    for subject in &subjects {
        run.look(subject, true, &arena.whole(&subject.name, "all faults").await, Kind::Switchover)
            .await;
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    run.totals();
    for subject in &subjects {
        arena.stage.client.delete(&subject.name, true).await.unwrap();
    }
    until("all clusters to be gone", async || {
        arena.stage.client.list().await.is_ok_and(|left| left.is_empty())
    })
    .await;
    arena.stage.assert_nothing_left().await;
}

struct Run<'a> {
    arena: &'a Arena,
    subjects: &'a [Subject],
    terms: Terms,
}

impl Run<'_> {
    fn confirmed(&self) -> u64 {
        self.subjects.iter().filter(|s| s.confirmed).map(|s| s.clients.told()).sum()
    }

    fn faults(&self) -> u64 {
        let planned = ["switchover", "migrate", "restart", "scale"];
        let counts = self.arena.counts.lock().unwrap();
        counts.iter().filter(|(kind, _)| !planned.contains(kind)).map(|(_, n)| n).sum()
    }

    /// Enough was done, or there is no more time.
    fn is_over(&self) -> bool {
        let done = self.confirmed() >= self.terms.writes && self.faults() >= self.terms.faults;
        done || self.arena.journal.elapsed() > self.terms.limit
    }

    fn totals(&self) {
        let (elapsed, counts) = (self.arena.journal.elapsed(), self.arena.counts.lock().unwrap());
        println!("seed {}: {} s", self.terms.seed, elapsed.as_secs());
        counts.iter().for_each(|(kind, times)| println!("  {kind}: {times}"));
        drop(counts);
        for subject in self.subjects {
            let (taken, after) = subject.masters.counts();
            println!(
                "  {}: {} writes done, {} reigns, {taken} probing writes taken, {after} of them just after a freeze",
                subject.name,
                subject.clients.told(),
                subject.masters.reigns()
            );
        }
        println!("  {} faults, {} confirmed writes", self.faults(), self.confirmed());
        assert!(
            self.confirmed() >= self.terms.writes && self.faults() >= self.terms.faults,
            "seed {}: not enough within {:?}",
            self.terms.seed,
            self.terms.limit
        );
    }

    /// One thing after the other happens to one cluster.
    async fn trouble(&self, subject: &Subject, number: u64) {
        let mut random = StdRng::seed_from_u64(self.terms.seed * 1000 + number);
        let mut deck = Vec::new();
        while !self.is_over() {
            let kind = deck.pop().unwrap_or_else(|| {
                deck = shuffled(&mut random, self.terms.short);
                deck.pop().expect("a deck is not empty")
            });
            self.one(subject, kind, &mut random).await;
        }
    }

    async fn one(&self, subject: &Subject, kind: Kind, random: &mut StdRng) {
        let (arena, name) = (self.arena, &subject.name);
        let before = arena.whole(name, "the fault before").await;
        arena.writes_go_on(subject, "the fault before").await;
        let old = master(&before).expect("a whole cluster has a master").clone();
        // The master is the one that matters most.
        let on_master = random.gen_bool(0.6);
        let others: Vec<_> = before.nodes.iter().filter(|n| n.dseq != old.dseq).collect();
        let node = if on_master { &old } else { others[random.gen_range(0..others.len())] };
        let lasts = lasting(kind, random);
        let whom = if on_master { "master" } else { "replica" };
        let text = format!("{name}: {} {whom} {} {lasts:?}", kind.name(), node.incarnation);
        arena.journal.say(&text);
        let mark = Mark::of(&arena.stage, kind, &before, node);
        let said = match kind {
            Kind::MemoryFull => self.fill(subject).await,
            Kind::Scale => self.scale(subject).await,
            _ => {
                let masters = &subject.masters;
                let stage = &arena.stage;
                Blow { stage, cluster: name, node, masters, kind, lasts, random }.strike().await
            }
        };
        if said.is_empty() {
            arena.count(kind.name());
            arena.past(name, &mark, &text).await;
        } else {
            arena.journal.say(&format!("{text}: {}", said.trim()));
        }
        arena.writes_go_on(subject, &text).await;
        let after = arena.whole(name, &text).await;
        let moved = if after.epoch == before.epoch {
            String::new()
        } else {
            format!(", epoch {} to {}", before.epoch, after.epoch)
        };
        arena.journal.say(&format!("{name}: whole after {}{moved}", kind.name()));
        self.look(subject, false, &before, kind).await;
    }

    /// Nothing is missing that clients were told is done, and there was one master at any time.
    async fn look(&self, subject: &Subject, all: bool, before: &Status, kind: Kind) {
        let mut missing = subject.clients.look(all).await;
        for _ in 0..50 {
            if missing.is_ok() {
                break;
            }
            // The operator, or what carries the connection, is just away.
            sleep(Duration::from_millis(500)).await;
            missing = subject.clients.look(all).await;
        }
        let missing = missing.expect("a cluster that is Ready answers");
        let (seed, name) = (self.terms.seed, &subject.name);
        let found = subject.masters.found();
        assert!(found.is_empty(), "seed {seed}: two masters of {name} took writes: {found:#?}");
        if missing.writes == 0 {
            return;
        }
        let status = self.arena.seen(name).await.and_then(|cluster| cluster.status);
        let report = status.and_then(|status| status.last_failover);
        let told =
            format!("seed {seed}: {name} lost {missing:?} after {}: {report:#?}", kind.name());
        self.arena.journal.say(&told);
        let report = report.filter(|report| report.epoch > before.epoch);
        assert!(!subject.confirmed, "{told}");
        assert!(!kind.is_planned() || report.is_some(), "{told}");
        let report = report.unwrap_or_else(|| panic!("no failover, and yet {told}"));
        // Of two failovers in a row the status has the second one's report.
        if let (Some(bytes), true) = (bytes(&report.lost), report.epoch == before.epoch + 1) {
            assert!(missing.bytes <= bytes, "more than the report says: {told}");
        }
        assert!(!report.lost.starts_with("nothing"), "{told}");
    }

    /// Values until redis takes no more; then they go again.
    async fn fill(&self, subject: &Subject) -> String {
        let Ok(mut connection) = subject.clients.connect().await else {
            return "no connection to fill it by".to_owned();
        };
        let value = vec![b'x'; VALUE];
        let mut refused = String::from("it took all of it");
        for n in 0..VALUES {
            let mut set = redis::cmd("SET");
            set.arg(format!("fill:{n}")).arg(&value);
            if let Err(error) = set.query_async::<()>(&mut connection).await {
                refused = error.to_string();
                break;
            }
        }
        sleep(Duration::from_secs(2)).await;
        let keys: Vec<String> = (0..VALUES).map(|n| format!("fill:{n}")).collect();
        for _ in 0..50 {
            if let Ok(mut open) = subject.clients.connect().await
                && redis::cmd("UNLINK").arg(&keys).query_async::<u64>(&mut open).await.is_ok()
            {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        if refused.contains("OOM") { String::new() } else { refused }
    }

    /// One node more, and then one less.
    async fn scale(&self, subject: &Subject) -> String {
        for nodes in ["4", "3"] {
            let said =
                faults::asked(&self.arena.stage, &["scale", &subject.name, "--nodes", nodes]).await;
            if !said.is_empty() {
                return said;
            }
            self.arena.whole(&subject.name, "scale").await;
        }
        String::new()
    }

    /// What all clusters need goes away now and then.
    async fn trouble_all(&self) {
        let mut random = StdRng::seed_from_u64(self.terms.seed * 1000 + 999);
        let (arena, stage) = (self.arena, &self.arena.stage);
        let pause = if self.terms.short { 4..8 } else { 10..40 };
        while !self.is_over() {
            sleep(Duration::from_secs(random.gen_range(pause.clone()))).await;
            let away = Duration::from_millis(random.gen_range(200..12_000));
            let kinds = ["operator-killed", "operator-stopped", "control-stopped", "chain-silent"];
            let kind = kinds[random.gen_range(0..if self.terms.short { 2 } else { 4 })];
            let away = if self.terms.short { away / 4 } else { away };
            arena.journal.say(&format!("{kind} {away:?}"));
            let pid = match kind {
                "control-stopped" => stage.local.tailnet.control_pid(),
                _ => arena.operator_pid().await,
            };
            let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
            match kind {
                "operator-killed" => {
                    arena.kill_operator().await;
                    sleep(away).await;
                    arena.start_operator().await;
                }
                "chain-silent" => {
                    stage.local.market.chain.faults().set_silent(true);
                    sleep(away).await;
                    stage.local.market.chain.faults().set_silent(false);
                }
                _ => {
                    kill_process(pid, Signal::STOP).unwrap();
                    sleep(away).await;
                    kill_process(pid, Signal::CONT).unwrap();
                }
            }
            arena.count(kind);
            arena.journal.say(&format!("{kind} is over"));
        }
    }
}

/// How many bytes a report says may be lost, where that is all.
fn bytes(lost: &str) -> Option<u64> {
    let rest = lost.strip_prefix("up to ")?;
    let (bytes, rest) = rest.split_once(" bytes of history")?;
    rest.starts_with(", kept").then(|| bytes.parse().ok())?
}
