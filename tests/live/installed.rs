//! The page `install.md`, typed from top to bottom into a bare Debian. The local market stands for the
//! chain, the providers and the tailnet; what systemd would do is done here, and the unit is judged by
//! systemd's own tools.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use akash_redis::devnet::sandbox::{Sandbox, Users, inside};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::sandboxed::sandboxed_with;
use crate::stage::{Stage, program, until};

const LIMIT: Duration = Duration::from_mins(10);
const PAGE: &str = include_str!("../../docs/guide/install.md");
const SETTINGS: &str = include_str!("../../docs/reference/settings.md");
const UNIT: &str = "etc/systemd/system/akash-redis.service";
/// Systemd's own judgement of the unit, in tenths: above 50 it is called exposed.
const EXPOSURE: &str = "25";

/// The first block of this language in a section of the page.
fn block(page: &str, heading: &str, language: &str) -> String {
    let section = page.split(&format!("{heading}\n")).nth(1).unwrap_or_else(|| panic!("{heading}"));
    let section = section.split("\n## ").next().unwrap();
    let block = section.split(&format!("```{language}\n")).nth(1);
    block
        .unwrap_or_else(|| panic!("{heading} has no {language}"))
        .split("```")
        .next()
        .unwrap()
        .into()
}

/// Runs a program to its end, which is a good one.
async fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    println!("{command:?}\n{said}");
    assert!(status.success(), "{command:?}: {said}");
    said
}

/// The directory of a bare Debian as a tar file; it is made once, outside of a sandbox.
async fn base() -> PathBuf {
    let mut script = Command::new("tests/image/base.sh");
    let said = run(script.current_dir(env!("CARGO_MANIFEST_DIR"))).await;
    Path::new(said.trim()).join("base.tar")
}

/// A machine with nothing on it.
struct Machine {
    root: PathBuf,
}

impl Machine {
    async fn new(dir: &Path) -> Self {
        let root = dir.join("machine");
        fs::create_dir(&root).unwrap();
        let mut tar = Command::new("tar");
        run(tar.args(["--numeric-owner", "-xf"]).arg(base().await).arg("-C").arg(&root)).await;
        for there in ["proc", "dev"] {
            let mut mount = Command::new("mount");
            run(mount.arg("--rbind").arg(Path::new("/").join(there)).arg(root.join(there))).await;
        }
        fs::copy("/etc/hosts", root.join("etc/hosts")).unwrap();
        Self { root }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    fn command(&self, user: &str, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(format!("--userspec={user}")).arg(&self.root).args(words).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Types lines as root.
    async fn types(&self, lines: &str) -> String {
        run(&mut self.command("root:root", &["bash", "-euc", lines])).await
    }

    /// Types a line, what it asks for, and Ctrl-D.
    async fn types_into(&self, line: &str, input: &[u8]) {
        let mut command = self.command("root:root", &["bash", "-euc", line]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).await.unwrap();
        assert!(child.wait().await.unwrap().success(), "{line}");
    }
}

/// The settings of the page's example, on the local market.
fn settings(market: &str) -> String {
    let example = SETTINGS.split("An example:\n\n```yaml\n").nth(1).unwrap();
    let mut example: Value = serde_saphyr::from_str(example.split("```").next().unwrap()).unwrap();
    let market: Value = serde_saphyr::from_str(market).unwrap();
    for whole in ["chain", "node", "gateway", "timing"] {
        example[whole] = market[whole].clone();
    }
    for of_mesh in
        ["api", "loginServer", "oauthClientId", "tag", "operatorTag", "quarantineTag", "socks5"]
    {
        example["mesh"][of_mesh] = market["mesh"][of_mesh].clone();
    }
    json!(example).to_string()
}

/// What the unit says, by key; of several the last.
fn unit(machine: &Machine) -> BTreeMap<String, String> {
    let text = fs::read_to_string(machine.path(UNIT)).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What `make` does on the page, with the program under test in place of a release of it. A person
/// types it at a prompt, so it is told nothing of a `make` that these tests run under.
async fn make(what: &str, dir: &Path, machine: &Machine) -> String {
    let mut make = Command::new("make");
    for of_another_make in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        make.env_remove(of_another_make);
    }
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg(what).arg(format!("PROGRAM={}", program()));
    make.arg(format!("DIST={}", dir.join("dist").display()));
    run(make.arg(format!("DESTDIR={}", machine.root.display()))).await
}

async fn the_unit_is_sound(machine: &Machine) {
    // The targets that it names are systemd's.
    let mut copy = Command::new("cp");
    run(copy.args(["-r", "/lib/systemd/system"]).arg(machine.path("usr/lib/systemd"))).await;
    let root = format!("--root={}", machine.root.display());
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=one", &root, "akash-redis.service"]);
    assert_eq!(run(&mut verify).await, "", "a key that is not known is told and does not fail");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--no-pager", &root]);
    run(security.arg(format!("--threshold={EXPOSURE}")).arg("akash-redis.service")).await;
}

async fn the_tarball_is_whole(dir: &Path, machine: &Machine) {
    let said = make("dist", dir, machine).await;
    let name = said.lines().last().unwrap().split_whitespace().last().unwrap().to_owned();
    let dist = dir.join("dist");
    let mut sum = Command::new("sha256sum");
    run(sum.current_dir(&dist).arg("--check").arg(format!("{name}.sha256"))).await;
    let mut list = Command::new("tar");
    let files = run(list.arg("-tzf").arg(dist.join(&name))).await;
    let root = name.trim_end_matches(".tar.gz");
    for part in ["bin/akash-redis", "akash-redis.service", "LICENSE", "man/akash-redis.1"] {
        let file = format!("{root}/{part}");
        assert!(files.lines().any(|line| line == file), "{file} is not in {files}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(files.contains(&format!("completions/akash-redis.{shell}")), "{files}");
    }
}

#[test]
fn the_page_is_typed_into_a_bare_debian_from_top_to_bottom() {
    let test = "installed::the_page_is_typed_into_a_bare_debian_from_top_to_bottom";
    if !inside() {
        // Inside nobody may unpack packages with their owners.
        tokio::runtime::Runtime::new().unwrap().block_on(base());
    }
    sandboxed_with(Users::Many, test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::without_operator(&sandbox).await;
        let machine = Machine::new(&sandbox.dir).await;

        assert!(block(PAGE, "## 1. Build", "sh").starts_with("make install "));
        make("install", &sandbox.dir, &machine).await;
        the_tarball_is_whole(&sandbox.dir, &machine).await;
        let version = machine.types("akash-redis --version; kubectl-akash_redis --version").await;
        assert_eq!(version.matches(env!("CARGO_PKG_VERSION")).count(), 2, "{version}");
        the_unit_is_sound(&machine).await;

        machine.types(&block(PAGE, "## 2. A place for the files", "sh")).await;
        let typed = |file: &str| fs::read(sandbox.dir.join(file)).unwrap();
        machine.types_into(&block(PAGE, "## 3. The wallet", "sh"), &typed("mnemonic")).await;
        machine.types_into(&block(PAGE, "## 4. The tailnet", "sh"), &typed("oauth.secret")).await;
        let file = machine.path("etc/akash-redis/operator.yaml");
        fs::write(file, settings(&fs::read_to_string(stage.local.config()).unwrap())).unwrap();

        let page = block(PAGE, "## 7. Settings and a check", "console");
        let mut lines = page.lines();
        let said = machine.types(lines.next().unwrap().strip_prefix("$ ").unwrap()).await;
        for line in lines {
            let label = format!("{}:", line.split(':').next().unwrap());
            assert!(said.lines().any(|it| it.starts_with(&label)), "no `{label}` in {said}");
        }
        assert!(!said.contains("FAILED"), "{said}");

        let run = block(PAGE, "## 8. Run it", "sh");
        let by_systemd =
            |line: &&str| line.starts_with("systemctl") || line.starts_with("journalctl");
        let typed: Vec<_> = run.lines().filter(|line| !by_systemd(line)).collect();
        machine.types(&typed.join("\n")).await;
        let unit = unit(&machine);
        let user = format!("{}:{}", unit["User"], unit["Group"]);
        let (mode, runtime) = (&unit["RuntimeDirectoryMode"], &unit["RuntimeDirectory"]);
        let owner = format!("-o {} -g {}", unit["User"], unit["Group"]);
        machine.types(&format!("install -d {owner} -m {mode} /run/{runtime}")).await;
        let start: Vec<_> = unit["ExecStart"].split(' ').collect();
        let log = fs::File::create(sandbox.dir.join("operator.log")).unwrap();
        let mut operator = machine.command(&user, &start);
        let _operator = operator.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        until("the operator to answer", async || {
            let mut get = machine.command("root:root", &["akash-redis", "get"]);
            get.output().await.unwrap().status.success()
        })
        .await;
        let store = machine.types("stat -c '%U %a' /var/lib/akash-redis/store.db").await;
        assert_eq!(store.trim(), format!("{} 600", unit["User"]), "its store is its own");

        fs::create_dir(machine.path("manifests")).unwrap();
        fs::copy("manifests/quickstart.yaml", machine.path("manifests/quickstart.yaml")).unwrap();
        until("the operator to have read the chain", async || {
            let plan = "CACHE_APP_PASSWORD=secret akash-redis plan -f manifests/quickstart.yaml";
            let plan = machine.command("root:root", &["bash", "-euc", plan]).output().await;
            String::from_utf8_lossy(&plan.unwrap().stdout).contains("3 to create")
        })
        .await;
        let first = block(PAGE, "## 9. The first cluster", "sh").replace("=...", "=secret");
        let said = machine.types(&first).await;
        assert!(said.contains("Plan: 3 to create") && said.contains("cache created"), "{said}");
        assert!(said.contains("1 master and 2 replicas in sync"), "{said}");
    });
}
