//! A person at a terminal in the directory of the repository: types lines, starts what goes on in
//! another terminal, and compares what is printed with what the page shows.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::page::Line;
use super::shape::missing;
use crate::stage::PROGRAM;

/// What is shown is printed within this, and what goes on is ready.
const STEP: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(200);
/// Where the pages have the market, and the program.
const PLACE: &str = "/tmp/akash-redis-devnet";
const PROGRAMS: &str = "$PWD/target/demo";
/// What goes on until Ctrl-C, and the words by which it says that it is ready; one that says nothing
/// is ready when the operator answers.
const GOES_ON: [(&str, Option<&str>); 5] = [
    ("devnet up", Some("The market is up")),
    (" proxy --", Some("listening on")),
    ("operator.yaml", None),
    ("--follow", Some("")),
    ("--watch", Some("")),
];
/// What changes nothing may be typed until it prints what is shown.
const READS: [&str; 9] =
    ["get", "describe", "events", "plan", "endpoint", "status", "spend", "list", "providers"];

/// A person.
pub struct Shell {
    dir: PathBuf,
    /// Where the market is.
    place: PathBuf,
    /// What was exported so far.
    exported: String,
    terminals: Vec<(String, Child)>,
}

impl Shell {
    /// In a directory with what a clone of the repository has.
    pub fn new(dir: &Path) -> Self {
        let (clone, place) = (dir.join("clone"), dir.join("market"));
        std::fs::create_dir_all(&clone).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        symlink(root.join("manifests"), clone.join("manifests")).unwrap();
        let exported = format!(
            "export PATH=\"{programs}:$PATH\" CACHE_APP_PASSWORD=secret REDISCLI_AUTH=secret EDITOR=true\n\
             export AKASH_REDIS_DEVNET_DIR={place} AKASH_REDIS_SOCKET={place}/operator.sock AKASH_REDIS_CONFIG={place}/operator.yaml\n",
            programs = Path::new(PROGRAM).parent().unwrap().display(),
            place = place.display(),
        );
        Self { dir: clone, place, exported, terminals: Vec::new() }
    }

    /// A line of a page, with the names that things have here.
    pub fn here(&self, line: &str, puts: &[(&str, &str)]) -> String {
        let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
        let place = self.place.display().to_string();
        let line = puts.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
        line.replace(PLACE, &place).replace(PROGRAMS, &programs)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euc", &format!("{}exec 2>&1\n{line}", self.exported)]);
        command.current_dir(&self.dir).stdin(Stdio::null());
        command.stdout(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Types a line, and waits for what the page shows of it, or for its good end.
    pub async fn types(&mut self, line: &Line) {
        let command = line.command.as_str();
        if command.starts_with("export ") {
            self.exported = format!("{}{command}\n", self.exported);
        } else if let Some((_, ready)) = GOES_ON.iter().find(|(words, _)| goes_on(command, words)) {
            self.starts(line, *ready).await;
        } else {
            self.runs(line).await;
        }
    }

    async fn starts(&mut self, line: &Line, ready: Option<&str>) {
        let command = line.command.as_str();
        if self.terminals.iter().any(|(there, _)| there == command) {
            println!("$ {command}   (goes on)");
            return;
        }
        println!("$ {command} &");
        let mut child = self.command(&format!("exec {command}")).spawn().unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        let shown = async {
            let ready_and_shown = |said: &str| {
                ready.is_none_or(|words| said.contains(words))
                    && missing(&line.shown, said).is_empty()
            };
            while !ready_and_shown(&said) {
                let next = printed.next_line().await.unwrap();
                said += &next.unwrap_or_else(|| panic!("`{command}` ended; it said:\n{said}"));
                said += "\n";
            }
        };
        let in_time = timeout(STEP, shown).await.is_ok();
        println!("{said}");
        assert!(in_time, "`{command}` does not print {:#?}", missing(&line.shown, &said));
        // Somebody has to read on, or it stops when the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = printed.next_line().await {} });
        self.terminals.push((command.to_owned(), child));
        if ready.is_none() {
            let answers = Line { command: "akash-redis get".to_owned(), shown: Vec::new() };
            self.runs(&answers).await;
        }
    }

    async fn runs(&self, line: &Line) {
        let (command, begun) = (line.command.as_str(), Instant::now());
        let words: Vec<&str> = command.split_whitespace().collect();
        let again =
            words.first() == Some(&"akash-redis") && READS.iter().any(|r| words.contains(r));
        loop {
            let Output { status, stdout, .. } = self.command(command).output().await.unwrap();
            let said = String::from_utf8_lossy(&stdout).into_owned();
            let missing = missing(&line.shown, &said);
            let refused = line.shown.iter().any(|shown| shown.starts_with("error: "));
            let taken = !command.starts_with("redis-cli") || said.contains("OK");
            if missing.is_empty() && taken && status.success() != refused {
                println!("$ {command}\n{said}");
                return;
            }
            let last = !again || begun.elapsed() > STEP;
            assert!(
                !last,
                "`{command}` ends with {status} and lacks {missing:#?}; it says:\n{said}"
            );
            sleep(POLL).await;
        }
    }

    /// Waits until nothing is done to the cluster any more, as a person does before the next change.
    pub async fn waits(&self) {
        let wait =
            "akash-redis wait cache && akash-redis wait cache --for=condition=Progressing=False";
        self.runs(&Line { command: wait.to_owned(), shown: Vec::new() }).await;
    }

    /// Ctrl-C in each terminal, the last one first.
    pub async fn ends(mut self) {
        while let Some((_, mut child)) = self.terminals.pop() {
            // It may have ended with the cluster.
            let _ = child.kill().await;
        }
    }
}

/// An operator that only checks ends.
fn goes_on(command: &str, words: &str) -> bool {
    let checks = ["--check", "mesh ", "-- ", "--help"].iter().any(|it| command.contains(it));
    command.contains(words)
        && (words != "operator.yaml" || (command.contains(" operator --config") && !checks))
}

#[test]
fn an_operator_that_only_checks_ends() {
    assert!(goes_on("akash-redis operator --config $D/operator.yaml", "operator.yaml"));
    assert!(!goes_on("akash-redis operator --config $D/operator.yaml --check", "operator.yaml"));
}
