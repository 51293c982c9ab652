//! Restores a backup into a redis-server of its own, beside the node's, to see that it can be
//! restored.
//!
//! That redis-server listens on a unix socket in a directory that only Redis' user may enter, writes
//! nothing, and may use so much memory and no more; where the container runs out of memory all the
//! same, it is the one that the system ends. It gets the data as a restore gives them (`restore.rs`)
//! and is ended once it has them, at the latest when this agent ends, or by the next one.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::convert::{BackupObject, VerifyObject};
use super::info::Info;
use super::master_link::{ATTACH, BEAT, stay};
use super::progress::{Progress, STILL};
use super::redis_config;
use super::redis_control::ANSWER;
use super::restore::{SendError, TELL, send};
use super::state::Node;
use super::users::{self, Owner};
use crate::backup::storage::{Storage, StorageError};
use crate::backup::stream::{Expected, StreamError};
use crate::error_chain::error_chain;
use crate::model::backup::{TaskPhase, VerifyTask};
use crate::model::memory::MIB;
use crate::process::{Child, Output, Program};

/// All of it takes no longer.
const LIMIT: Duration = Duration::from_hours(6);
/// What a redis-server maps without using it: its program, libraries and the stacks of its threads.
const MAPPED: u64 = 128 * MIB;
/// Its exit, or its last words, are seen within this of the end of its link.
const EXIT: Duration = Duration::from_secs(5);
/// Lines of its log that are kept.
const LINES: usize = 20;
/// Its directory, below the agent's.
const DIR: &str = "verify";

/// Begins; the state says how far it is. The same attempt again changes nothing.
pub fn start(node: &Arc<Node>, run_as: Option<Owner>, object: VerifyObject) -> Result<(), String> {
    let VerifyObject { run, object, expected, memory } = object;
    let mut verifying = node.verifying.lock().unwrap_or_else(PoisonError::into_inner);
    let task = node.peek().verify.unwrap_or_default();
    if task.run == run {
        return Ok(());
    }
    if task.phase == TaskPhase::Running {
        return Err("another backup is still being verified here".to_owned());
    }
    node.update(|state| {
        state.verify = Some(VerifyTask {
            run: run.clone(),
            phase: TaskPhase::Running,
            total_bytes: expected.bytes,
            ..VerifyTask::default()
        });
    });
    let node = node.clone();
    *verifying = Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let began = Instant::now();
        let id = object.id.clone();
        let work = timeout(LIMIT, restore(&node, &run, (run_as, memory), object, expected));
        let ended = work.await.unwrap_or_else(|_| {
            Err(Failure::here(format!("it took more than {} h", LIMIT.as_secs() / 3600)))
        });
        node.book.agent(&match &ended {
            Ok(found) => format!("the test restore of backup {id} passed: {} keys", found.keys),
            Err(failure) => format!("the test restore of backup {id} failed: {}", failure.why),
        });
        change(&node, &run, |task| match ended {
            Ok(found) => {
                task.phase = TaskPhase::Done;
                (task.keys, task.memory_bytes) = (found.keys, found.memory_bytes);
                task.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            }
            Err(failure) => {
                task.phase = TaskPhase::Failed;
                (task.error, task.damaged) = (failure.why, failure.damaged);
            }
        });
    })));
    Ok(())
}

/// Ends what runs: this node has something else to do.
pub fn end(node: &Node, why: &str) {
    *node.verifying.lock().unwrap_or_else(PoisonError::into_inner) = None;
    node.update(|state| {
        if let Some(task) = state.verify.as_mut().filter(|t| t.phase == TaskPhase::Running) {
            (task.phase, task.error) = (TaskPhase::Failed, why.to_owned());
        }
    });
}

/// Ends what an agent left behind that was killed itself.
pub async fn end_left_over(run_dir: &Path) {
    let dir = run_dir.join(DIR);
    if let Ok(mut left) = connect(&dir.join(SOCKET)).await {
        // It answers nothing to that, and is gone.
        let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").exec_async(&mut left).await;
    }
    let _ = fs::remove_dir_all(dir);
}

fn change(node: &Node, run: &str, edit: impl FnOnce(&mut VerifyTask)) {
    node.update(|state| {
        if let Some(task) = state.verify.as_mut().filter(|task| task.run == run) {
            edit(task);
        }
    });
}

/// What came of a restore.
struct Found {
    keys: u64,
    memory_bytes: u64,
}

/// Why one came to nothing.
#[derive(Debug)]
struct Failure {
    why: String,
    /// It is the backup that is no good.
    damaged: bool,
}

impl Failure {
    fn here(why: impl Into<String>) -> Self {
        Self { why: why.into(), damaged: false }
    }

    fn of(error: &SendError) -> Self {
        let damaged = match error {
            SendError::Data(StreamError::Data(_)) | SendError::Refused(_) => true,
            SendError::Data(StreamError::Storage(error)) => {
                matches!(error, StorageError::Missing { .. })
            }
            SendError::Data(StreamError::Dropped)
            | SendError::Silent(_)
            | SendError::Stalled
            | SendError::Volume(_)
            | SendError::VolumeStalled => false,
        };
        Self { why: error_chain(error), damaged }
    }
}

const SOCKET: &str = "redis.sock";

/// A redis-server that is nobody's. Dropping it kills it.
struct ThrowAway {
    child: Child,
    socket: PathBuf,
    said: Arc<Said>,
    /// MiB that the data may take.
    memory: u64,
}

/// What it said: its output, and to its master.
#[derive(Default)]
struct Said {
    /// It asked for the data.
    asked: AtomicBool,
    /// The last lines.
    lines: Mutex<VecDeque<String>>,
    /// It lacks memory.
    short: Notify,
}

impl Said {
    fn hear(&self, line: &str) {
        let words = line.to_ascii_lowercase();
        let short = ["out of memory", "failed allocating", "cannot allocate memory"];
        if short.iter().any(|short| words.contains(short)) {
            self.short.notify_one();
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// Its last warning, or else its last line, after a colon.
    fn last(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let last = lines.iter().rfind(|line| line.contains('#')).or(lines.back());
        last.map(|line| format!(": {line}")).unwrap_or_default()
    }
}

impl ThrowAway {
    /// Starts one that is to be a replica of a port on loopback.
    fn start(node: &Node, run_as: Option<Owner>, port: u16, memory: u64) -> std::io::Result<Self> {
        let dir = node.settings.run_dir.join(DIR);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        users::give(&dir, run_as)?;
        let (file, socket) = (dir.join("redis.conf"), dir.join(SOCKET));
        let text = redis_config::throw_away(&dir, &socket, port, &node.identity.startup);
        fs::write(&file, text)?;
        users::give_one(&file, run_as)?;
        let said: Arc<Said> = Arc::default();
        let heard = said.clone();
        let output: Output = Arc::new(move |line: &str| heard.hear(line));
        // A limit of memory is set by the process that it is for, or by one with a privilege that a
        // container does not give.
        let script = "ulimit -v \"$1\" && shift && exec nice -n 19 \"$@\"";
        let kib = ((memory + MAPPED) / 1024).to_string();
        let program = Program {
            program: "/bin/sh".into(),
            args: ["-c".into(), script.into(), "sh".into(), kib.into()]
                .into_iter()
                .chain([node.settings.redis_server.clone().into(), file.into()])
                .collect(),
            run_as,
            ..Program::default()
        };
        Ok(Self { child: program.start(&output)?, socket, said, memory: memory / MIB })
    }

    /// Waits until it lacks memory, or has ended, and says why. A Redis that lacks memory may let go of
    /// the data, exit, or stand still in the report of its crash: its word is enough.
    async fn failed(&mut self) -> Failure {
        let short = format!(
            "the data need more memory than the {} MiB that they may take on this node",
            self.memory
        );
        let exit = tokio::select! {
            () = self.said.short.notified() => return Failure::here(short),
            exit = self.child.wait() => exit,
        };
        self.child.last_output().await;
        let how = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = timeout(Duration::ZERO, self.said.short.notified()).await;
        // Whatever the system kills first when memory runs out.
        if said.is_ok() || how.contains("signal: 9") {
            return Failure::here(short);
        }
        let last = self.said.last();
        if !self.said.asked.load(Ordering::Relaxed) {
            return Failure::here(format!(
                "Redis ended before it asked for the data ({how}){last}"
            ));
        }
        Failure {
            why: format!("Redis ended while it loaded the data ({how}){last}"),
            damaged: true,
        }
    }
}

async fn connect(socket: &Path) -> Result<MultiplexedConnection, redis::RedisError> {
    let info = ConnectionAddr::Unix(socket.to_owned()).into_connection_info()?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER))
        .set_response_timeout(Some(ANSWER));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}

async fn restore(
    node: &Arc<Node>,
    run: &str,
    (run_as, memory): (Option<Owner>, u64),
    object: BackupObject,
    expected: Expected,
) -> Result<Found, Failure> {
    let here = |what: &str, error: &std::io::Error| Failure::here(format!("{what} ({error})"));
    let storage = Storage::open(&object.storage, object.keys.as_ref())
        .map_err(|error| Failure::here(error_chain(&error)))?;
    end_left_over(&node.settings.run_dir).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(|e| here("the agent cannot listen on loopback", &e))?;
    let port =
        listener.local_addr().map_err(|e| here("the agent cannot listen on loopback", &e))?;
    let mut server = ThrowAway::start(node, run_as, port.port(), memory)
        .map_err(|e| here("a redis-server beside the node's cannot be started", &e))?;
    let mut told = Instant::now();
    let progress = |done| {
        if done == expected.bytes || told.elapsed() >= TELL {
            told = Instant::now();
            change(node, run, |task| task.done_bytes = done);
        }
    };
    let (socket, said) = (server.socket.clone(), server.said.clone());
    let got = tokio::select! {
        got = get((&socket, &said), listener, storage, object, &expected, progress) => got,
        failure = server.failed() => return Err(failure),
    };
    match got {
        Ok(found) => Ok(found),
        // Its own words are better than what the end of its link looks like.
        Err(failure) if failure.is_its_link => {
            let words = timeout(EXIT, server.failed()).await;
            Err(words.unwrap_or(failure.failure))
        }
        Err(failure) => Err(failure.failure),
    }
}

/// A failure, and whether the link to the redis-server ended.
struct Interrupted {
    failure: Failure,
    is_its_link: bool,
}

/// Has the redis-server get the data, and looks at what it has then.
async fn get(
    (socket, said): (&Path, &Said),
    listener: TcpListener,
    storage: Storage,
    object: BackupObject,
    expected: &Expected,
    progress: impl FnMut(u64),
) -> Result<Found, Interrupted> {
    let link = |why: String| Interrupted { failure: Failure::here(why), is_its_link: true };
    let accepted = timeout(ATTACH, listener.accept()).await;
    let (stream, _) = accepted
        .map_err(|_| link("Redis did not ask for the data in time".to_owned()))?
        .map_err(|error| link(format!("Redis did not ask for the data ({error})")))?;
    said.asked.store(true, Ordering::Relaxed);
    // Nobody else is to get them.
    drop(listener);
    let sent = send(stream, (storage, object, expected), None, progress).await;
    let (mut requests, mut to) = sent.map_err(|error| Interrupted {
        is_its_link: !matches!(error, SendError::Data(_)),
        failure: Failure::of(&error),
    })?;
    let mut pings = 0;
    tokio::select! {
        found = loaded(|| ask(socket)) => {
            found.map_err(|failure| Interrupted { failure, is_its_link: false })
        }
        () = stay(&mut requests, &mut to, &mut pings) => Err(Interrupted {
            // It may lack memory: nobody said that the backup is no good.
            failure: Failure::here(format!(
                "Redis let go of the data before it had loaded them{}",
                said.last()
            )),
            is_its_link: true,
        }),
    }
}

/// What the redis-server says; none where it does not answer.
async fn ask(socket: &Path) -> Option<Info> {
    let mut connection = connect(socket).await.ok()?;
    let text = redis::cmd("INFO").query_async::<String>(&mut connection).await.ok()?;
    Some(Info::parse(&text, &std::collections::HashMap::new()))
}

/// Waits until the redis-server has all of the data, for as long as it goes on.
async fn loaded<F>(ask: impl Fn() -> F) -> Result<Found, Failure>
where
    F: Future<Output = Option<Info>>,
{
    let mut progress = Progress::begin();
    loop {
        let mut at = None;
        if let Some(info) = ask().await {
            let state = info.state();
            if state.is_linked() && !state.loading {
                return Ok(Found { keys: state.keys, memory_bytes: state.used_memory_bytes });
            }
            at = Some(info.number("loading_loaded_bytes"));
        }
        if progress.stands_still(at) {
            return Err(Failure::here(format!(
                "Redis has loaded nothing more of the data for {} s: it or its node hangs",
                STILL.as_secs()
            )));
        }
        sleep(BEAT / 4).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a redis-server that begins now says at each look: how much of it is loaded by then, none
    /// where it does not answer; all of it after so long. And how long that was looked at.
    async fn seen(
        at: impl Fn(Duration) -> Option<u64>,
        all: Duration,
    ) -> (Result<u64, String>, Duration) {
        let began = Instant::now();
        let ended = loaded(|| async {
            let text = if began.elapsed() >= all {
                "role:slave\r\nmaster_link_status:up\r\nloading:0\r\ndb0:keys=7,expires=0\r\n"
                    .to_owned()
            } else {
                let bytes = at(began.elapsed())?;
                format!(
                    "role:slave\r\nmaster_link_status:down\r\nloading:1\r\nloading_loaded_bytes:{bytes}\r\n"
                )
            };
            Some(Info::parse(&text, &std::collections::HashMap::new()))
        });
        let ended = ended.await;
        (ended.map(|found| found.keys).map_err(|failure| failure.why), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_is_slow_has_as_long_as_it_takes() {
        let all = Duration::from_hours(5);
        let (ended, took) = seen(|since| Some(since.as_secs() / 240), all).await;
        assert_eq!(ended, Ok(7));
        assert!(took >= all, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_stands_still_or_is_silent_is_given_up_within_minutes() {
        let never = Duration::MAX;
        for at in [|_| Some(9), |_| None] as [fn(Duration) -> Option<u64>; 2] {
            let (ended, took) = seen(at, never).await;
            assert!(ended.unwrap_err().contains("nothing more of the data"));
            assert!(took >= STILL && took < 2 * STILL, "{took:?}");
        }
    }
}
