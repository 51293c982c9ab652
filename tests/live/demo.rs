//! `akash-redis demo`, from outside of its sandbox.

use std::process::Stdio;
use std::time::Duration;

use rand::RngCore as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::family::Family;
use crate::pages::shape::missing;
use crate::sandboxed::slot;
use crate::stage::{PROGRAM, until};

const LIMIT: Duration = Duration::from_mins(3);

/// A demo that runs, and all that belongs to it.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    family: Family,
    seen: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let value = format!("{:016x}", rand::thread_rng().next_u64());
        let mut command = Command::new(PROGRAM);
        command
            .arg("demo")
            .env("AKASH_REDIS_TEST_MARKER", &value)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            family: Family::new(&format!("AKASH_REDIS_TEST_MARKER={value}")),
            seen: Vec::new(),
        }
    }

    /// Reads on until a line with `words`, and looks at the family with every line.
    async fn until_line(&mut self, words: &str) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.family.look();
            self.seen.push(line);
            if self.seen.last().is_some_and(|line| line.contains(words)) {
                return;
            }
        }
        panic!("the demo ended without saying {words:?}; it said:\n{}", self.seen.join("\n"));
    }

    async fn nothing_is_left(&self) {
        until("every process and namespace to be gone", async || {
            let left = self.family.left();
            if !left.is_empty() {
                println!("still there: {}", left.join(", "));
            }
            left.is_empty()
        })
        .await;
    }
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn in_time(scenario: impl Future<Output = ()>) {
    Runtime::new().unwrap().block_on(async {
        let _slot = slot().await;
        timeout(LIMIT, scenario).await.expect("the demo ends in time");
    });
}

#[test]
fn it_shows_failovers_a_move_and_the_refund_and_leaves_nothing() {
    in_time(async {
        let before = mounts();
        let mut demo = Demo::start();
        demo.until_line("every deposit is refunded, every device and key is gone").await;
        assert!(demo.family.namespaces() >= 4, "a sandbox has namespaces of its own");
        assert!(demo.child.wait().await.unwrap().success());
        demo.nothing_is_left().await;
        assert_eq!(mounts(), before);

        let said = demo.seen.join("\n");
        println!("{said}");
        for words in [
            "the cluster is ready",
            "seen by ",
            "fence: ",
            "the lost node was replaced by a new one",
            "0 deployments, 0 devices",
        ] {
            assert!(said.contains(words), "{words:?} is not in:\n{said}");
        }
        let reports = demo
            .seen
            .iter()
            .filter(|line| line.trim_start().starts_with("epoch ") && line.contains(" -> "))
            .count();
        assert_eq!(reports, 2, "one report for each failover:\n{said}");
        let measured: Vec<&String> =
            demo.seen.iter().filter(|line| line.ends_with("of them lost")).collect();
        assert_eq!(measured.len(), 3, "{said}");
        let lacks = missing(&readme(), &said);
        assert!(lacks.is_empty(), "the README shows {lacks:#?}, and the demo says:\n{said}");
        assert!(
            measured[2].contains("node 1 moved") && measured[2].ends_with(", 0 of them lost"),
            "a move loses nothing:\n{said}"
        );
    });
}

/// What the README shows of a demo.
fn readme() -> Vec<String> {
    let block = include_str!("../../README.md").split("```text\n").nth(1).unwrap();
    block.split("```").next().unwrap().lines().map(str::to_owned).collect()
}

fn killed_at(words: &'static str) {
    in_time(async move {
        let before = mounts();
        let mut demo = Demo::start();
        demo.until_line(words).await;
        assert!(demo.family.look() > 1, "there is something to leave behind");
        demo.child.kill().await.unwrap();
        demo.nothing_is_left().await;
        assert_eq!(mounts(), before);
    });
}

#[test]
fn killed_while_it_starts_it_leaves_nothing() {
    killed_at("starting a local market");
}

#[test]
fn killed_while_it_buys_it_leaves_nothing() {
    killed_at("applying manifests/quickstart.yaml");
}

#[test]
fn killed_under_load_it_leaves_nothing() {
    killed_at("writes through");
}

#[test]
fn interrupted_it_says_so_and_leaves_nothing() {
    in_time(async {
        let mut demo = Demo::start();
        demo.until_line("is Bidding").await;
        let pid = demo.child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let output = demo.child.wait().await.unwrap();
        assert_eq!(output.code(), Some(1), "what was asked for was not done");
        demo.nothing_is_left().await;
    });
}
