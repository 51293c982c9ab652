//! The sandbox is tried with this test program itself: outside as the command would be, and inside
//! as the local market.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

const ROLE: &str = "AKASH_REDIS_TEST_ROLE";
const REPORT: &str = "AKASH_REDIS_TEST_REPORT";
const PLAYER: &str = "devnet::sandbox::tests::player";
/// Nothing here takes this long unless it is broken.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "it is what the processes of the other tests run"]
fn player() {
    let role = env::var(ROLE).expect("a role");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let code = runtime.block_on(async {
        if inside() {
            play(&role, Path::new(&env::var_os(REPORT).unwrap())).await
        } else {
            contain(
                Users::Root,
                &["--ignored", "--exact", PLAYER, "--nocapture"].map(OsString::from),
            )
            .await
            .unwrap()
        }
    });
    // Not a panic: the status itself is under test.
    std::process::exit(code.into());
}

/// Inside the sandbox.
async fn play(role: &str, report: &Path) -> u8 {
    let sandbox = Sandbox::set_up().await.unwrap();
    if role == "look" {
        let seen = Command::new("ip").args(["-brief", "addr"]).output().await.unwrap();
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
        std::fs::write(sandbox.dir.join("mine"), "").unwrap();
        std::fs::write(
            report,
            format!(
                "{} {}\n{hosts}{}",
                std::process::id(),
                sandbox.dir.display(),
                String::from_utf8_lossy(&seen.stdout)
            ),
        )
        .unwrap();
        return 7;
    }
    let mut child = Command::new("sleep").arg(marker(report)).spawn().unwrap();
    std::fs::write(report, "ready").unwrap();
    tokio::select! {
        () = sandbox.stop.cancelled() => std::fs::write(report, "orderly").unwrap(),
        _ = child.wait() => {}
    }
    0
}

/// Seconds of sleep that tell this test's process from all others on the machine.
fn marker(report: &Path) -> String {
    let unique: u32 = report
        .to_string_lossy()
        .bytes()
        .fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("{}", 100_000 + unique % 100_000_000)
}

fn outer(role: &str, report: &Path) -> std::process::Child {
    let own = env::current_exe().unwrap();
    let mut command = std::process::Command::new(own);
    command
        .args(["--ignored", "--exact", PLAYER, "--nocapture"])
        .env(ROLE, role)
        .env(REPORT, report)
        .stdout(Stdio::null());
    command.spawn().unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn says(report: &Path, text: &str) -> bool {
    std::fs::read_to_string(report).is_ok_and(|seen| seen == text)
}

/// Whether the process inside is seen from outside.
fn runs(report: &Path) -> bool {
    let wanted = format!("sleep\0{}\0", marker(report));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .map(|process| std::fs::read(process.path().join("cmdline")))
        .any(|line| line.is_ok_and(|line| line == wanted.as_bytes()))
}

fn send(child: &std::process::Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn a_network_and_files_of_its_own_and_the_status_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let status = outer("look", &report).wait().unwrap();
    assert_eq!(status.code(), Some(7));
    let seen = std::fs::read_to_string(&report).unwrap();
    assert!(seen.starts_with("1 /dev/shm\n127.0.0.1 localhost\n::1 localhost\n"), "{seen}");
    assert!(seen.contains("10.97.0.1/24") && seen.contains("127.0.0.1/8"), "{seen}");
    assert!(!Path::new("/dev/shm/mine").exists(), "a private file is seen outside");
}

#[test]
fn a_killed_outer_process_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let mut outer = outer("stay", &report);
    until("the inside is ready", || says(&report, "ready") && runs(&report));
    send(&outer, Signal::KILL);
    outer.wait().unwrap();
    until("the inside is gone", || !runs(&report));
}

#[test]
fn a_terminated_outer_process_ends_the_inner_one_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let mut outer = outer("stay", &report);
    until("the inside is ready", || says(&report, "ready") && runs(&report));
    send(&outer, Signal::TERM);
    assert_eq!(outer.wait().unwrap().code(), Some(0));
    assert!(says(&report, "orderly") && !runs(&report));
}

#[test]
fn a_missing_tool_is_named_with_its_package() {
    let error = check_tools(std::ffi::OsStr::new("/nowhere")).unwrap_err();
    assert!(
        error.to_string().contains("`unshare`") && error.to_string().contains("util-linux"),
        "{error}"
    );
}
