//! Real containers, inside a sandbox that this test makes for itself: user, network, mount and
//! process namespaces.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::sdl::canonical::{Mount, Params};

const INSIDE: &str = "AKASH_REDIS_TEST_INSIDE";
const NAME: &str = "devnet::provider::runner::tests::workloads_are_contained_and_kept_running";

#[test]
fn workloads_are_contained_and_kept_running() {
    if std::env::var_os(INSIDE).is_none() {
        let sandbox = [
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ];
        let own = std::env::current_exe().unwrap();
        let status = Command::new("unshare")
            .args(sandbox)
            .arg(own)
            .args(["--exact", NAME, "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let end = runtime.block_on(async { timeout(Duration::from_mins(1), scenario()).await });
    end.expect("the scenario ends in time");
}

fn lease(dseq: u64) -> LeaseKey {
    LeaseKey { owner: "akash1owner".into(), dseq, gseq: 1, oseq: 1 }
}

fn service(script: &str) -> Service {
    let mount = Mount { mount: "/data".into(), name: "data".into(), read_only: false };
    Service {
        name: "redis".into(),
        image: "image".into(),
        command: Some(["sh", "-c", script].map(String::from).to_vec()),
        env: Some(vec!["GREETING=a=b".into()]),
        params: Some(Params { storage: Some(vec![mount]), ..Params::default() }),
        ..Service::default()
    }
}

/// Polls until it holds; the scenario as a whole has the deadline.
async fn until(what: impl AsyncFn() -> bool) {
    while !what().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn answers(node: Ipv4Addr) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect((node, 6379)).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.ok()?;
        (&answer == b"+PONG\r\n").then_some(())
    };
    matches!(timeout(Duration::from_millis(500), ping).await, Ok(Some(())))
}

async fn sandbox(dir: &TempDir) -> (Arc<Net>, Arc<Runner>) {
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    assert!(
        Command::new("mount")
            .arg("--bind")
            .arg(&hosts)
            .arg("/etc/hosts")
            .status()
            .unwrap()
            .success()
    );
    let net = Net::set_up("/etc/hosts".into()).await.unwrap();
    let ingress_at = net.add_address(10).await.unwrap();
    let mut settings = RunnerSettings::new(dir.path().join("leases"), "image".into()).unwrap();
    settings.pauses.0 = Duration::from_millis(50);
    let provider =
        ProviderName { address: "akash1provider".into(), hostname: "p.devnet.test".into() };
    (net.clone(), Runner::new(settings, provider, net, Arc::default(), ingress_at))
}

async fn scenario() {
    let dir = TempDir::new().unwrap();
    let (net, runner) = sandbox(&dir).await;
    let (one, two) = (lease(1), lease(2));
    let redis = "echo started >> /data/starts; echo $AKASH_DEPLOYMENT_SEQUENCE $GREETING; echo 127.0.1.1 peer >> /etc/hosts; touch /run/mine; \
                 exec redis-server --bind 0.0.0.0 --protected-mode no --dir /data";
    runner.deploy(&one, &service(redis), "one.p.devnet.test").await;
    let node = runner.address(&one).unwrap();
    until(async || answers(node).await).await;
    assert!(runner.ready(&one));
    assert!(runner.logs(&one, 1000).contains(&"1 a=b".to_owned()));
    let outer = fs::read_to_string("/etc/hosts").unwrap();
    assert!(outer.contains("10.97.0.10 one.p.devnet.test") && !outer.contains("peer"), "{outer}");
    assert!(!std::path::Path::new("/run/mine").exists());

    // It sees its own processes alone, may not touch its network, and reaches other nodes.
    let looks = format!(
        "redis-cli -h {node} ping > /data/ping; ls -d /proc/[0-9]* | wc -l > /data/processes; ip link set eth0 down || echo no > /data/net; \
         touch /data/looked; exec sleep infinity"
    );
    runner.deploy(&two, &service(&looks), "two.p.devnet.test").await;
    let data = dir.path().join("leases").join(two.label()).join("data/data");
    until(async || data.join("looked").exists()).await;
    let said = |name: &str| fs::read_to_string(data.join(name)).unwrap().trim().to_owned();
    assert_eq!((said("ping").as_str(), said("net").as_str()), ("PONG", "no"));
    assert!(said("processes").parse::<u32>().unwrap() < 10);

    // A process that dies is started again over the same data.
    let starts = dir.path().join("leases").join(one.label()).join("data/data/starts");
    let count = || fs::read_to_string(&starts).unwrap().lines().count();
    let [server] = runner.processes(&one, "redis-server")[..] else { panic!("one redis-server") };
    let pid = rustix::process::Pid::from_raw(i32::try_from(server).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(async || count() == 2 && answers(node).await).await;

    // Power off: nothing of it is left and nothing comes back until power on.
    let outermost = runner.pid(&one).unwrap();
    assert!(runner.power_off(&one));
    until(async || {
        !runner.ready(&one) && !std::path::Path::new(&format!("/proc/{outermost}")).exists()
    })
    .await;
    assert!(!answers(node).await);
    assert!(
        !Command::new("pgrep").args(["-x", "redis-server"]).status().unwrap().success(),
        "a process survived"
    );
    assert!(runner.power_on(&one));
    until(async || count() == 3 && answers(node).await).await;

    // Cut off: it runs on, out of reach.
    net.set_link(node, false).await.unwrap();
    assert!(!answers(node).await && runner.ready(&one));
    net.set_link(node, true).await.unwrap();
    until(async || answers(node).await).await;

    // A changed manifest takes the place of the old one; an equal one changes nothing.
    runner.deploy(&one, &service(redis), "one.p.devnet.test").await;
    runner.deploy(&one, &service(&redis.replace("$GREETING", "again")), "one.p.devnet.test").await;
    until(async || count() == 4 && answers(node).await).await;
    assert!(runner.logs(&one, 1000).contains(&"1 again".to_owned()));

    // The end of the lease wipes everything.
    runner.remove(&one).await;
    assert!(!dir.path().join("leases").join(one.label()).exists());
    assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("one.p.devnet.test"));
    assert_eq!(runner.leases(), [two]);
    runner.vanish().await;
    until(async || !Command::new("pgrep").args(["-x", "sleep"]).status().unwrap().success()).await;
    assert!(runner.leases().is_empty());
}
