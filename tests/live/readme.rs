//! The README's "By hand", as it is printed: each line is typed into a shell, in its order.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::sandboxed::slot;
use crate::stage::{PROGRAM, until};

const LIMIT: Duration = Duration::from_mins(4);
/// Where the page has its market.
const PLACE: &str = "/tmp/akash-redis-devnet";

/// The blocks of the section, one for each terminal; the first is for all of them.
fn blocks() -> Vec<String> {
    let page = include_str!("../../README.md");
    let section =
        page.split("## By hand").nth(1).unwrap().split("Each command has").next().unwrap();
    let blocks =
        section.split("```sh\n").skip(1).map(|b| b.split("```").next().unwrap().to_owned());
    blocks.collect()
}

/// A shell in the directory of the repository, with what every terminal has.
fn shell(every: &str, line: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-euc", &format!("{every}\nexec 2>&1\n{line}")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("AKASH_REDIS_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Types a line and waits for its end.
async fn typed(every: &str, line: &str) -> String {
    let output = shell(every, line).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("$ {line}\n{said}");
    assert!(output.status.success(), "{line}: {said}");
    said
}

/// Types a line that goes on.
fn goes_on(every: &str, line: &str, stdout: Stdio) -> Child {
    println!("$ {line} &");
    shell(every, &format!("exec {line}")).stdout(stdout).spawn().unwrap()
}

fn lines(block: &str) -> Vec<&str> {
    block.lines().map(|line| line.split(" #").next().unwrap().trim()).collect()
}

#[test]
fn what_the_readme_prints_works_as_it_is_printed() {
    let dir = tempfile::Builder::new().prefix("by-hand").tempdir_in("/tmp").unwrap();
    let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let here = |text: &str| {
        text.replace(PLACE, &dir.path().display().to_string())
            .replace("$PWD/target/demo", &programs)
    };
    let blocks: Vec<String> = blocks().iter().map(|block| here(block)).collect();
    let [every, market, operator, first, proxy, rest] = blocks.as_slice() else {
        panic!("six blocks are expected: {blocks:#?}")
    };
    Runtime::new().unwrap().block_on(async {
        let _slot = slot().await;
        timeout(LIMIT, async {
            let mut market = goes_on(every, market.trim(), Stdio::piped());
            let mut said = BufReader::new(market.stdout.take().unwrap()).lines();
            while let Some(line) = said.next_line().await.unwrap() {
                println!("{line}");
                if line.contains("The market is up") {
                    break;
                }
            }
            let operator = lines(operator);
            let [checks @ .., operator] = operator.as_slice() else { panic!("no operator") };
            for check in checks {
                typed(every, check).await;
            }
            let operator = goes_on(every, operator, Stdio::null());
            until("the operator to answer", async || {
                shell(every, "akash-redis get").status().await.unwrap().success()
            })
            .await;
            for line in lines(first) {
                typed(every, line).await;
            }
            let proxy = goes_on(every, proxy.trim(), Stdio::null());
            until("the proxy to listen", async || dir.path().join("redis.sock").exists()).await;
            for line in lines(rest) {
                let said = typed(every, line).await;
                assert!(!line.starts_with("redis-cli") || said.contains("OK"), "{line}: {said}");
            }
            let left = typed(every, "akash-redis get").await;
            assert!(left.contains("no clusters found"), "{left}");
            drop((proxy, operator));
            market.kill().await.unwrap();
        })
        .await
        .expect("it ends in time");
    });
}
