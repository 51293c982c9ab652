//! How a live test gets a sandbox of its own: the test program runs itself again, for this one
//! test, inside new namespaces.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use akash_redis::devnet::sandbox::{Sandbox, Users, enter_with, inside};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// A market with its nodes keeps a core busy while it starts: more of them at once only make each
/// other late.
static SLOTS: Semaphore = Semaphore::const_new(2);
/// For what is before and after the scenario.
const MARGIN: Duration = Duration::from_secs(20);
/// Lines of each log that are shown when a scenario fails.
const TAIL: usize = 60;

/// Leave to run a local market; at most two are given at a time, however many threads run tests.
pub async fn slot() -> SemaphorePermit<'static> {
    SLOTS.acquire().await.expect("the semaphore is never closed")
}

/// Runs `scenario` inside a new sandbox; it fails when it has not ended by `limit`. `test` is the
/// calling test's own name, with its module.
pub fn sandboxed(test: &str, limit: Duration, scenario: impl AsyncFnOnce(Sandbox)) {
    sandboxed_with(Users::Root, test, limit, scenario);
}

/// [`sandboxed`], in a sandbox with these users.
pub fn sandboxed_with(
    users: Users,
    test: &str,
    limit: Duration,
    scenario: impl AsyncFnOnce(Sandbox),
) {
    Runtime::new().unwrap().block_on(async {
        if inside() {
            // As `main` does. Each inside has a process of its own, so nobody was earlier.
            rustls::crypto::ring::default_provider().install_default().unwrap();
            let sandbox = Sandbox::set_up().await.unwrap();
            let _shown = ShownOnFailure(sandbox.dir.join("operator.log"));
            timeout(limit, scenario(sandbox))
                .await
                .unwrap_or_else(|_| panic!("{test} did not end within {} s", limit.as_secs()));
        } else {
            exists(test);
            let _slot = slot().await;
            let arguments =
                ["--exact", test, "--nocapture", "--include-ignored"].map(OsString::from);
            let ended = timeout(limit + MARGIN, enter_with(users, &arguments))
                .await
                .expect("the scenario ends itself in time");
            assert_eq!(
                ended.unwrap(),
                ExitCode::SUCCESS,
                "{test} failed inside its sandbox; what it said is above"
            );
        }
    });
}

/// A wrong name would run no test at all inside, with success.
fn exists(test: &str) {
    let own = std::env::current_exe().unwrap();
    let listed = Command::new(own).args(["--list", "--exact", test]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(
        listed.lines().any(|line| line == format!("{test}: test")),
        "{test} is not the name of a test"
    );
}

/// The private directory is gone with the sandbox, and with it the log that says why.
struct ShownOnFailure(PathBuf);

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = std::fs::read_to_string(&self.0).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        // What it panicked about says more than its last words.
        let panicked = lines.iter().position(|line| line.contains("panicked at"));
        let from = panicked.unwrap_or(lines.len().saturating_sub(TAIL));
        let shown = lines[from..].iter().take(TAIL).copied().collect::<Vec<_>>().join("\n");
        eprintln!("of {}:\n{shown}", self.0.display());
    }
}
