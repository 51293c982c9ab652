//! Has Redis replicate from a running Redis outside of the cluster: Redis follows a port of the agent
//! on loopback, and the agent carries the bytes there, over TLS or the mesh. Redis itself asks for
//! what it lacks, goes on after a broken link, and stays the replica without writes that it is until
//! it is promoted.
//!
//! A second connection to the source says how far that is, and holds its writes for the promotion
//! that ends the import.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::convert::Source;
use super::copy::{self, Copying};
use super::redis_control::{ANSWER, ControlError, Session};
pub use super::source_asking::Held;
use super::source_asking::{
    Asking, BEAT, HOLD_MS, PAUSES, connection, fits, hold, info, not_answered,
};
use super::source_link::{self, Refused};
use super::state::Node;
use crate::error_chain::error_chain;
use crate::model::backup::TaskPhase;
use crate::model::import::{CopyTask, ImportTask};
use crate::model::node::Role;

/// What the source wrote before has arrived within this.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Between two looks meanwhile.
const CATCH_UP_LOOK: Duration = Duration::from_millis(5);
/// A source whose writes cannot be held has stood still for so long, milliseconds.
const STILL_MS: u64 = 2000;

/// An import that goes on as long as this is kept.
pub struct Importing {
    source: Arc<Source>,
    asking: Asking,
    /// Key by key, where it is not by replication.
    copying: Option<Arc<Copying>>,
    _task: AbortOnDropHandle<()>,
}

/// Begins; the state says how far it is. The same import again changes nothing but the last pass of
/// a copy, which begins when it gets a name, and lets go of the source when it has none.
pub fn start(node: &Arc<Node>, source: Source, last_pass: &str) -> Result<(), String> {
    if node.peek().redis.role == Role::Master {
        return Err("redis is master here: what it has is not overwritten".to_owned());
    }
    let mut importing = node.importing.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = importing.as_ref().filter(|importing| importing.source.id == source.id) {
        if let Some(copying) = &same.copying {
            copying.last_pass(last_pass);
        }
        return Ok(());
    }
    let (id, source, asking) = (source.id.clone(), Arc::new(source), Asking::default());
    let copying = source.copy.then(|| Arc::new(Copying::new(last_pass)));
    let copy = source.copy.then(CopyTask::default);
    node.update(|state| {
        state.import =
            Some(ImportTask { id, phase: TaskPhase::Running, copy, ..ImportTask::default() });
    });
    let (node, own, asked, copies) =
        (node.clone(), source.clone(), asking.clone(), copying.clone());
    let task = tokio::spawn(async move {
        match copies {
            Some(copying) => copy::run(&node, &own, &asked, &copying).await,
            None => run(node, own, asked).await,
        }
    });
    let task = AbortOnDropHandle::new(task);
    *importing = Some(Importing { source, asking, copying, _task: task });
    Ok(())
}

/// Ends it, if there is one; Redis stays as it is.
pub fn stop(node: &Node) {
    let importing = node.importing.lock().unwrap_or_else(PoisonError::into_inner).take();
    if importing.is_some() {
        node.update(|state| state.import = Some(ImportTask::default()));
    }
}

pub(super) fn change(node: &Node, id: &str, edit: impl FnOnce(&mut ImportTask)) {
    node.update(|state| {
        if let Some(task) = state.import.as_mut().filter(|task| task.id == id) {
            edit(task);
        }
    });
}

async fn run(node: Arc<Node>, source: Arc<Source>, asking: Asking) {
    let listener = loop {
        match TcpListener::bind(("127.0.0.1", 0)).await {
            Ok(listener) => break listener,
            Err(error) => {
                let why = format!("the agent cannot listen on loopback ({error})");
                change(&node, &source.id, |task| task.error = why);
                sleep(PAUSES.longest).await;
            }
        }
    };
    let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
    let refused = Refused::default();
    let carry = source_link::carry(listener, node.clone(), source.clone(), refused.clone());
    let look = keep_looking(&node, &source, &asking, port, &refused);
    tokio::join!(carry, look);
}

/// What is known of the source from one look to the next.
#[derive(Default)]
struct Seen {
    /// Since when the node lacks what comes before an offset.
    behind: Option<(Instant, i64)>,
    /// Since when the source's offset stands still.
    still: Option<(Instant, i64)>,
    can_pause: Option<bool>,
}

async fn keep_looking(node: &Node, source: &Source, asking: &Asking, port: u16, refused: &Refused) {
    let (mut seen, mut failures) = (Seen::default(), 0);
    loop {
        let looked = look(node, source, asking, port, &mut seen).await;
        let error = match &looked {
            Ok((_, true)) => String::new(),
            Ok((_, false)) => refused.sentence().unwrap_or_default(),
            Err(why) => why.clone(),
        };
        if !error.is_empty() && node.peek().import.is_some_and(|task| task.error != error) {
            node.book.agent(&format!("import from {}: {error}", source.spec.address()));
        }
        change(node, &source.id, |task| {
            if let Ok((now, _)) = looked {
                let (refused_epoch, refused) =
                    (task.refused_epoch, std::mem::take(&mut task.refused));
                *task = ImportTask { refused_epoch, refused, ..now };
                failures = 0;
            } else {
                task.answers = false;
                failures += 1;
            }
            task.error = error;
        });
        if failures > 0 {
            *asking.lock().await = None;
            seen.can_pause = None;
            sleep(PAUSES.delay(failures - 1)).await;
        } else {
            sleep(BEAT).await;
        }
    }
}

/// One look at the source and at Redis, which is pointed to the agent where it is not; and whether
/// its link is up.
async fn look(
    node: &Node,
    source: &Source,
    asking: &Asking,
    port: u16,
    seen: &mut Seen,
) -> Result<(ImportTask, bool), String> {
    let mut connection = connection(node, source, asking).await?;
    let there = info(&mut connection).await.map_err(|error| not_answered(source, &error))?;
    fits(node, source, &there)?;
    let can_pause = match seen.can_pause {
        Some(known) => known,
        // It holds nothing, and shows whether it may.
        None => hold(&mut connection, 0).await.is_ok(),
    };
    seen.can_pause = Some(can_pause);
    let said = |error: ControlError| error_chain(&error);
    let mut session = node.redis.open(ANSWER).await.map_err(said)?;
    let here = session.info().await.map_err(said)?;
    if here.role() != Role::Replica {
        return Err("redis is master here: what it has is not overwritten".to_owned());
    }
    if here.number("master_port") != i64::from(port) {
        attach(&mut session, source, port).await.map_err(said)?;
    }
    let (now, offset, own) = (Instant::now(), there.offset(), here.offset());
    seen.behind = seen.behind.filter(|(_, known)| own < *known);
    if own < offset && seen.behind.is_none() {
        seen.behind = Some((now, offset));
    }
    seen.still = seen.still.filter(|(_, known)| *known == offset).or(Some((now, offset)));
    let age = |since: Option<(Instant, i64)>| {
        since.map_or(0, |(at, _)| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
    };
    let task = ImportTask {
        id: source.id.clone(),
        phase: TaskPhase::Running,
        error: String::new(),
        version: there.version(),
        answers: true,
        replid: there.replid().to_owned(),
        offset,
        keys: there.keys(),
        lag_ms: age(seen.behind),
        still_ms: age(seen.still),
        can_pause,
        ..ImportTask::default()
    };
    Ok((task, here.link_up()))
}

/// Points Redis at the agent.
async fn attach(session: &mut Session, source: &Source, port: u16) -> Result<(), ControlError> {
    let password = source.password.expose_secret().to_owned();
    let login = [("masteruser", source.spec.user.clone()), ("masterauth", password)];
    session.set(&login).await?;
    session.run(redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port)).await
}

/// Holds the writes of the source of the import `id`, and waits until this node has all of them.
///
/// # Errors
/// One sentence: the source goes on as before, and so does the import.
pub async fn take_over(node: &Node, id: &str, session: &mut Session) -> Result<Held, String> {
    let known = {
        let importing = node.importing.lock().unwrap_or_else(PoisonError::into_inner);
        importing.as_ref().map(|importing| {
            (importing.source.clone(), importing.asking.clone(), importing.copying.clone())
        })
    };
    let Some((source, asking, copying)) = known.filter(|(source, ..)| source.id == id) else {
        return Err("this agent does not import, and cannot know what the source has".to_owned());
    };
    if let Some(copying) = copying {
        return copy::take_over(node, &source, &asking, &copying).await;
    }
    let mut connection = connection(node, &source, &asking).await?;
    let paused = match hold(&mut connection, HOLD_MS).await {
        Ok(()) => true,
        // It is there, and does not let this user do it, or knows no such thing.
        Err(error) if error.code().is_some() => false,
        Err(error) => return Err(not_answered(&source, &error)),
    };
    let still = node.peek().import.is_some_and(|task| task.still_ms >= STILL_MS);
    let mut held = Held { connection, paused, address: source.spec.address() };
    let caught_up = if paused || still {
        catch_up(&mut held, session).await
    } else {
        Err("somebody writes to the source, which does not let its writes be held (CLIENT PAUSE); stop the applications first".to_owned())
    };
    match caught_up {
        Ok(()) => Ok(held),
        Err(why) => {
            held.release().await;
            Err(why)
        }
    }
}

async fn catch_up(held: &mut Held, session: &mut Session) -> Result<(), String> {
    let address = held.address.clone();
    let unknown = |error: redis::RedisError| {
        format!(
            "{address} does not say how far it is ({error}), so that nobody knows what is missing"
        )
    };
    let there = info(&mut held.connection).await.map_err(unknown)?;
    let began = Instant::now();
    loop {
        let here = session.info().await.map_err(|error| error_chain(&error))?;
        if !here.link_up() || here.replid() != there.replid() {
            return Err(format!("the link to {address} is down, and it has what is not here"));
        }
        if here.offset() >= there.offset() {
            break;
        }
        if began.elapsed() >= CATCH_UP {
            let missing = there.offset() - here.offset();
            return Err(format!(
                "{missing} bytes of {address} did not arrive within {} s; its writes are not held any longer",
                CATCH_UP.as_secs()
            ));
        }
        sleep(CATCH_UP_LOOK).await;
    }
    if !held.paused && info(&mut held.connection).await.map_err(unknown)?.offset() != there.offset()
    {
        return Err(format!("somebody wrote to {address} just now; stop the applications first"));
    }
    Ok(())
}

/// Notes why a promotion came to nothing.
pub fn note_refusal(node: &Node, id: &str, epoch: u64, why: &str) {
    change(node, id, |task| {
        task.refused_epoch = epoch;
        why.clone_into(&mut task.refused);
    });
}

/// Where an import is kept.
pub type Slot = Mutex<Option<Importing>>;
