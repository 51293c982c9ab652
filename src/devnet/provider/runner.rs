//! Runs workloads as containers of the poor: each a process tree in own network, mount and process
//! namespaces, started again when it ends, its data kept until the lease ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::container::{self, Container, ImageRoot};
use super::host::{LeaseKey, ProviderName, Workloads};
use super::ingress::Ingress;
use super::logs::Log;
use super::manifest;
use super::volumes;
use crate::devnet::net::Net;
use crate::sdl::canonical::Service;

/// A workload that ran for so long is healthy: the next pause is the first again.
const HEALTHY: Duration = Duration::from_secs(20);
/// Given to a workload between the polite and the final signal, as Kubernetes does.
const GRACE: Duration = Duration::from_secs(30);

/// How workloads are run.
#[derive(Clone, Debug)]
pub struct RunnerSettings {
    /// Below it each lease has a directory.
    pub dir: PathBuf,
    /// The usual image reference that can be run.
    pub image: String,
    /// Others, and where the nodes of each find redis-server, tailscaled and the rest.
    pub images: BTreeMap<String, OsString>,
    /// Others that are unpacked, of applications for one.
    pub roots: BTreeMap<String, ImageRoot>,
    /// The unpacked image. Without one the nodes see this machine's files, and run `program` with
    /// `path`.
    pub root: Option<ImageRoot>,
    /// The program that this image holds.
    pub program: PathBuf,
    /// Where a node finds redis-server, tailscaled and the rest.
    pub path: OsString,
    /// Variables of every workload beside those of its manifest.
    pub env: Vec<(String, String)>,
    /// First and longest pause before a workload that ended is started again.
    pub pauses: (Duration, Duration),
}

impl RunnerSettings {
    /// Runs the present program for `image`, with the present PATH and the pauses of a patient
    /// local market.
    pub fn new(dir: PathBuf, image: String) -> std::io::Result<Self> {
        let program = std::env::current_exe()?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(Self {
            dir,
            image,
            images: BTreeMap::new(),
            roots: BTreeMap::new(),
            root: None,
            program,
            path,
            env: Vec::new(),
            pauses: (Duration::from_millis(500), Duration::from_secs(10)),
        })
    }
}

/// What a workload shall be.
#[derive(Clone, Debug)]
enum Want {
    Run(Arc<Service>),
    /// Stopped at once, and not started again until it is switched on.
    Off(Arc<Service>),
    /// The lease ended.
    Gone,
}

struct Workload {
    node: Ipv4Addr,
    host: String,
    dir: PathBuf,
    log: Arc<Log>,
    want: watch::Sender<Want>,
    /// Outermost process of the running container, 0 while there is none.
    pid: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

/// The workloads of one provider.
pub struct Runner {
    settings: RunnerSettings,
    provider: ProviderName,
    net: Arc<Net>,
    ingress: Arc<Ingress>,
    /// Where the ingress listens, for names.
    ingress_at: Ipv4Addr,
    workloads: Mutex<BTreeMap<LeaseKey, Workload>>,
}

impl Runner {
    /// A runner without workloads. `ingress_at` is the address of the provider's ingress.
    #[must_use]
    pub fn new(
        settings: RunnerSettings,
        provider: ProviderName,
        net: Arc<Net>,
        ingress: Arc<Ingress>,
        ingress_at: Ipv4Addr,
    ) -> Arc<Self> {
        Arc::new(Self { settings, provider, net, ingress, ingress_at, workloads: Mutex::default() })
    }

    /// Leases that have a workload here.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseKey> {
        self.lock().keys().cloned().collect()
    }

    /// Pulls the plug of a node: every process of it dies at once and none comes back. Its data
    /// stays. `false` when there is no such node.
    pub fn power_off(&self, lease: &LeaseKey) -> bool {
        self.change(lease, |want| match want {
            Want::Run(service) => Some(Want::Off(service.clone())),
            Want::Off(_) | Want::Gone => None,
        })
    }

    /// Starts a node again that was powered off.
    pub fn power_on(&self, lease: &LeaseKey) -> bool {
        self.change(lease, |want| match want {
            Want::Off(service) => Some(Want::Run(service.clone())),
            Want::Run(_) | Want::Gone => None,
        })
    }

    /// Stops a node's container with SIGTERM and starts it again, as when its machine is drained.
    pub fn restart(&self, lease: &LeaseKey) -> bool {
        self.change(lease, |want| match want {
            Want::Run(service) => Some(Want::Run(service.clone())),
            Want::Off(_) | Want::Gone => None,
        })
    }

    /// Whether a node was powered off.
    #[must_use]
    pub fn is_off(&self, lease: &LeaseKey) -> bool {
        let workloads = self.lock();
        workloads.get(lease).is_some_and(|workload| matches!(*workload.want.borrow(), Want::Off(_)))
    }

    /// Leaves the volumes of a node no more room than they take, or gives it back. `false` when there
    /// is no such node, or it has no volume of its own.
    pub fn set_full(&self, lease: &LeaseKey, full: bool) -> bool {
        let dir = self.lock().get(lease).map(|workload| workload.dir.join("data"));
        dir.is_some_and(|dir| volumes::set_full(&dir, full))
    }

    /// Whether the volumes of a node were left without room.
    #[must_use]
    pub fn is_full(&self, lease: &LeaseKey) -> bool {
        let dir = self.lock().get(lease).map(|workload| workload.dir.join("data"));
        dir.is_some_and(|dir| volumes::is_full(&dir))
    }

    /// Has the volumes of a node take no more writes, or take them again; nothing becomes read-only that
    /// somebody writes to. `false` where it was not done.
    pub fn set_read_only(&self, lease: &LeaseKey, read_only: bool) -> bool {
        let dir = self.lock().get(lease).map(|workload| workload.dir.join("data"));
        dir.is_some_and(|dir| volumes::set_read_only(&dir, read_only))
    }

    /// Whether the volumes of a node take no writes.
    #[must_use]
    pub fn is_read_only(&self, lease: &LeaseKey) -> bool {
        let dir = self.lock().get(lease).map(|workload| workload.dir.join("data"));
        dir.is_some_and(|dir| volumes::is_read_only(&dir))
    }

    fn change(&self, lease: &LeaseKey, to: impl Fn(&Want) -> Option<Want>) -> bool {
        let workloads = self.lock();
        let Some(workload) = workloads.get(lease) else { return false };
        workload.want.send_if_modified(|want| to(want).map(|new| *want = new).is_some())
    }

    /// Address of a node on the bridge.
    #[must_use]
    pub fn address(&self, lease: &LeaseKey) -> Option<Ipv4Addr> {
        self.lock().get(lease).map(|workload| workload.node)
    }

    /// Outermost process of a node; its namespaces are `/proc/<pid>/ns/net` and
    /// `/proc/<pid>/ns/mnt`.
    #[must_use]
    pub fn pid(&self, lease: &LeaseKey) -> Option<u32> {
        self.lock()
            .get(lease)
            .map(|workload| workload.pid.load(Ordering::Relaxed))
            .filter(|pid| *pid != 0)
    }

    /// Processes of a node with this name, by their ids in this sandbox.
    #[must_use]
    pub fn processes(&self, lease: &LeaseKey, name: &str) -> Vec<u32> {
        self.pid(lease).map(|pid| container::processes(pid, name)).unwrap_or_default()
    }

    /// The last lines that a node printed, oldest first.
    #[must_use]
    pub fn logs(&self, lease: &LeaseKey, lines: usize) -> Vec<String> {
        self.lock().get(lease).map(|workload| workload.log.tail(lines)).unwrap_or_default()
    }

    /// Ends all workloads at once and keeps their data: the provider is gone.
    pub async fn vanish(&self) {
        let all = std::mem::take(&mut *self.lock());
        for workload in all.into_values() {
            workload.task.abort();
            let _ = workload.task.await;
            self.net.unplug(workload.node).await;
            self.ingress.withdraw(&workload.host);
        }
    }

    fn start(
        &self,
        lease: &LeaseKey,
        service: &Service,
        host: &str,
    ) -> Result<Workload, Box<dyn std::error::Error + Send + Sync>> {
        let dir = self.settings.dir.join(lease.label());
        fs::create_dir_all(dir.join("data"))?;
        fs::create_dir_all(dir.join("root"))?;
        let log = Arc::new(Log::open(&dir.join("log"))?);
        let node = self.net.take()?;
        self.net.publish(host, self.ingress_at)?;
        if let Some(port) = service
            .expose
            .iter()
            .flatten()
            .find(|expose| manifest::is_http(expose))
            .and_then(|expose| u16::try_from(expose.port).ok())
        {
            self.ingress.publish(host, SocketAddr::from((node, port)));
        }
        let (want, wanted) = watch::channel(Want::Run(Arc::new(service.clone())));
        let pid = Arc::new(AtomicU32::new(0));
        let supervisor = Supervisor {
            settings: self.settings.clone(),
            env: self.akash_env(lease),
            net: self.net.clone(),
            node,
            dir: dir.clone(),
            log: log.clone(),
            pid: pid.clone(),
        };
        let task = tokio::spawn(supervisor.run_until_gone(wanted));
        Ok(Workload { node, host: host.to_owned(), dir, log, want, pid, task })
    }

    /// Variables that every container of this market gets.
    fn akash_env(&self, lease: &LeaseKey) -> Vec<(String, String)> {
        [
            ("AKASH_GROUP_SEQUENCE", lease.gseq.to_string()),
            ("AKASH_DEPLOYMENT_SEQUENCE", lease.dseq.to_string()),
            ("AKASH_ORDER_SEQUENCE", lease.oseq.to_string()),
            ("AKASH_OWNER", lease.owner.clone()),
            ("AKASH_PROVIDER", self.provider.address.clone()),
            ("AKASH_CLUSTER_PUBLIC_HOSTNAME", self.provider.hostname.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LeaseKey, Workload>> {
        self.workloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Workloads for Runner {
    async fn deploy(&self, lease: &LeaseKey, service: &Service, host: &str) {
        let mut workloads = self.lock();
        if let Some(workload) = workloads.get(lease) {
            workload.want.send_if_modified(|want| match want {
                Want::Run(old) if **old != *service => {
                    *want = Want::Run(Arc::new(service.clone()));
                    true
                }
                Want::Off(old) if **old != *service => {
                    *want = Want::Off(Arc::new(service.clone()));
                    true
                }
                _ => false,
            });
            return;
        }
        match self.start(lease, service, host) {
            Ok(workload) => {
                workloads.insert(lease.clone(), workload);
            }
            Err(error) => {
                tracing::warn!(dseq = lease.dseq, %error, "a workload cannot be started; its lease stays without a container");
            }
        }
    }

    async fn remove(&self, lease: &LeaseKey) {
        let Some(workload) = self.lock().remove(lease) else { return };
        workload.want.send_replace(Want::Gone);
        let _ = workload.task.await;
        self.ingress.withdraw(&workload.host);
        if let Err(error) = self.net.withdraw(&workload.host) {
            tracing::warn!(%error, "the name of a closed lease still resolves");
        }
        self.net.free(workload.node);
        volumes::unmount(&workload.dir.join("data")).await;
        if let Err(error) = fs::remove_dir_all(&workload.dir) {
            tracing::warn!(dir = %workload.dir.display(), %error, "the data of a closed lease was not wiped");
        }
    }

    fn ready(&self, lease: &LeaseKey) -> bool {
        self.pid(lease).is_some()
    }
}

/// Keeps one workload running in the form in which it is wanted.
struct Supervisor {
    settings: RunnerSettings,
    env: Vec<(String, String)>,
    net: Arc<Net>,
    node: Ipv4Addr,
    dir: PathBuf,
    log: Arc<Log>,
    pid: Arc<AtomicU32>,
}

impl Supervisor {
    async fn run_until_gone(self, mut wanted: watch::Receiver<Want>) {
        let (first, longest) = self.settings.pauses;
        let mut pause = first;
        let at_first = wanted.borrow().clone();
        if let Want::Run(service) | Want::Off(service) = at_first {
            volumes::mount(&self.dir.join("data"), &service, &self.log).await;
        }
        loop {
            if wanted.has_changed().is_err() {
                return;
            }
            let want = wanted.borrow_and_update().clone();
            let service = match want {
                Want::Gone => return,
                Want::Off(_) => {
                    if wanted.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Want::Run(service) => service,
            };
            let started = Instant::now();
            let changed = self.run(&service, &mut wanted).await;
            self.pid.store(0, Ordering::Relaxed);
            self.net.unplug(self.node).await;
            if changed {
                pause = first;
                continue;
            }
            if started.elapsed() >= HEALTHY {
                pause = first;
            }
            self.log.add(&format!("container | ended; starts again in {} ms", pause.as_millis()));
            // A change of what is wanted ends the pause.
            let _ = timeout(pause, wanted.changed()).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Runs the container until it ends by itself (`false`) or is no longer wanted in this form
    /// (`true`).
    async fn run(&self, service: &Service, wanted: &mut watch::Receiver<Want>) -> bool {
        let mut container = match self.start(service).await {
            Ok(container) => container,
            Err(error) => {
                self.log.add(&format!("container | {error}"));
                return false;
            }
        };
        self.pid.store(container.pid(), Ordering::Relaxed);
        tokio::select! {
            ended = container.ended() => {
                self.log.add(&format!("container | {ended}"));
                return false;
            }
            _ = wanted.changed() => {}
        }
        let polite = !matches!(*wanted.borrow(), Want::Off(_));
        // The receiver must still show this change to the loop.
        wanted.mark_changed();
        if polite {
            container.ask_to_stop();
            let _ = timeout(GRACE, container.ended()).await;
        }
        container.kill().await;
        true
    }

    async fn start(
        &self,
        service: &Service,
    ) -> Result<Container, Box<dyn std::error::Error + Send + Sync>> {
        if service.image != self.settings.image
            && !self.settings.images.contains_key(&service.image)
            && !self.settings.roots.contains_key(&service.image)
        {
            return Err(format!(
                "the image {} cannot be pulled: this market has {} and what it was started with",
                service.image, self.settings.image
            )
            .into());
        }
        fs::write(
            self.dir.join("hosts"),
            format!("127.0.0.1 localhost\n{} {}\n", self.node, service.name),
        )?;
        let plan = container::Plan {
            dir: &self.dir,
            image: self.root(service).map(|root| root.dir.as_path()),
            volumes: volumes::list(service)?,
            node: self.node,
            command: self.command(service),
            env: self.variables(service),
        };
        let container = Container::start(plan, &self.net, &self.log).await?;
        Ok(container)
    }

    /// The files of the service's image, where it is unpacked.
    fn root(&self, service: &Service) -> Option<&ImageRoot> {
        self.settings.roots.get(&service.image).or(self.settings.root.as_ref())
    }

    /// The image's entry point, unless the manifest has another.
    fn command(&self, service: &Service) -> Vec<OsString> {
        let mut command: Vec<OsString> = match &service.command {
            Some(command) if !command.is_empty() => command.iter().map(OsString::from).collect(),
            _ => match self.root(service) {
                Some(root) => root.entry_point.clone(),
                None => vec![self.settings.program.clone().into_os_string(), "node".into()],
            },
        };
        command.extend(service.args.iter().flatten().map(OsString::from));
        command
    }

    fn variables(&self, service: &Service) -> Vec<(OsString, OsString)> {
        let own =
            service.env.iter().flatten().map(|line| line.split_once('=').unwrap_or((line, "")));
        let common = self
            .settings
            .env
            .iter()
            .chain(&self.env)
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut all = if let Some(root) = self.root(service) {
            [vec![("HOME".into(), "/root".into())], root.env.clone()].concat()
        } else {
            let path = self.settings.images.get(&service.image).unwrap_or(&self.settings.path);
            vec![("PATH".into(), path.clone()), ("HOME".into(), "/run".into())]
        };
        all.extend(own.chain(common).map(|(key, value)| (key.into(), value.into())));
        all
    }
}

#[cfg(test)]
mod tests;
