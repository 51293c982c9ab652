//! Carries commands out: each from its arrival to the state that it led to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::commands::{self, Memory};
use super::configure::{self, Place};
use super::convert::{self, Order};
use super::forwarder::Dialled;
use super::handover::{Awaited, Ready, channel};
use super::history;
use super::info::Info;
use super::life::InHand;
use super::probe::Following;
use super::psync::Introduced;
use super::redis_control::{
    ANSWER, Applied, ControlError, MasterAddress, ReplicationUser, Session, needs_stale_reads,
};
use super::redis_process::RedisInstance;
use super::snapshots::{self, AUTOMATIC};
use super::stand_in::{self, Seen, StandIn};
use super::state::{Node, Stand};
use super::state_file::{KeptCopy, StateFileError};
use super::{archive, backup, import, restore, verify};
use crate::error_chain::error_chain;
use crate::model::node::{Authority, NodeState, Process, RedisState, RefusedSetting, Role};
use crate::model::step::Quorum;
use crate::wire::akash_redis::agent::v1 as wire;

/// A command, less its snapshot, is carried out within this or fails.
const LIMIT: Duration = Duration::from_secs(20);
/// A command waits for the one before it for so long.
const QUEUE: Duration = Duration::from_secs(25);
/// A promotion waits for the first file of the data for so long.
const FILE_LIMIT: Duration = Duration::from_secs(2);
/// Time between two looks at a link that is about to end.
const LINK_LOOK: Duration = Duration::from_millis(10);
/// Time between two looks for it.
const FILE_LOOK: Duration = Duration::from_millis(20);
/// Longest time for which Redis is looked at all the time, after a command of a change of master.
const MOVING: Duration = Duration::from_secs(15);
/// The snapshot before the log of writes is switched off takes no longer; users and settings are in
/// force before.
const LOG_LIMIT: Duration = Duration::from_secs(15);
/// A killed process is gone within this.
const DEATH: Duration = Duration::from_secs(5);

mod await_handover;

/// Carries commands out.
pub struct CommandExecutor {
    node: Arc<Node>,
    instance: RedisInstance,
    saving: tokio::sync::Mutex<()>,
    /// Held while application users are shut out, and while users are set: what sets them would let
    /// them in.
    users: tokio::sync::Mutex<()>,
    /// Counts as the replica that a new master needs, until that is back.
    stand_in: Mutex<Option<StandIn>>,
    /// Becomes master by itself when its master hands over to it.
    awaited: Mutex<Option<Awaited>>,
}

impl CommandExecutor {
    /// For this node.
    #[must_use]
    pub fn new(node: Arc<Node>, instance: RedisInstance) -> Self {
        Self {
            node,
            instance,
            saving: tokio::sync::Mutex::default(),
            users: tokio::sync::Mutex::default(),
            stand_in: Mutex::default(),
            awaited: Mutex::default(),
        }
    }

    /// Decides on a command and carries it out. `FAILED_PRECONDITION` is a refusal: nothing was
    /// changed.
    pub async fn execute(
        self: &Arc<Self>,
        request: wire::CommandRequest,
    ) -> Result<NodeState, Status> {
        let order = Order::read(request.command).map_err(Status::invalid_argument)?;
        let authority = convert::authority(request.authority);
        self.obey(order, authority, &request.nonce, None).await?;
        Ok(self.node.issue())
    }

    /// Told by the operator now, or, where it is `ready` for it, carried out by itself as it was told
    /// before.
    async fn obey(
        self: &Arc<Self>,
        mut order: Order,
        authority: Authority,
        nonce: &str,
        ready: Option<Ready>,
    ) -> Result<(), Status> {
        let told = ready.is_none();
        let label = match &order {
            Order::Save(label) => Some(label.clone()),
            Order::Follow { save_first: true, .. } => {
                Some(format!("{AUTOMATIC}{}", authority.epoch))
            }
            _ => None,
        };
        let mut turn = self.turn().await?;
        let began = Instant::now();
        if matches!(order, Order::HandOver(_)) {
            self.node.looking.begin();
            self.node.telling.begin();
        }
        // In hand to the end of this function, however it is left.
        let (decided, ready) =
            tokio::join!(self.begin(&order, authority, nonce), self.look_for(&order, ready));
        let (memory, _in_hand) = decided?;
        if let Order::Configure { copy, .. } = &mut order
            && let Some(copy) = copy.take().and_then(KeptCopy::from_wire)
        {
            let node = self.node.clone();
            let _ = tokio::task::spawn_blocking(move || node.keep_copy(copy)).await;
        }
        if let Order::Configure { settings, .. } = &order {
            let (node, users) = (self.node.clone(), settings.users.clone());
            let _ = tokio::task::spawn_blocking(move || node.announced.set_users(&users)).await;
        }
        if let Some(label) = label {
            // A snapshot takes minutes, and a fence must not wait for it.
            drop(turn);
            self.save(&label, matches!(order, Order::Follow { .. })).await?;
            turn = self.turn().await?;
            if self.node.memory() != memory {
                return Err(Status::failed_precondition(
                    "a newer command arrived while the snapshot was written",
                ));
            }
        }
        let name = order.name();
        // A fence says where the data stands by itself.
        let looks = !matches!(order, Order::Fence | Order::HandOver(_));
        if begins_anew(&order) {
            self.stands_in(None);
            if told {
                self.awaits(0, None);
            }
        }
        let issued = self.node.nonce_issued(nonce);
        let result = match order {
            Order::AwaitHandover(promote, word) => {
                self.await_handover(*promote, &word, authority, nonce, issued).await
            }
            order => self.carry_out(order, &memory, issued, ready).await,
        };
        let outcome = result.as_ref().map_or_else(
            |status| status.message().to_owned(),
            |()| format!("done in {} ms", began.elapsed().as_millis()),
        );
        self.node.book.agent(&format!(
            "{name} under term {} epoch {}: {outcome}",
            authority.term, authority.epoch
        ));
        drop(turn);
        result?;
        if looks {
            self.look_again().await;
        }
        Ok(())
    }

    /// Decides, and has the decision on disk before anything is touched; but for what ends writes, which
    /// a volume that takes nothing does not keep from ending.
    async fn begin(
        &self,
        order: &Order,
        authority: Authority,
        nonce: &str,
    ) -> Result<(Memory, InHand<'_>), Status> {
        let freshness = self.node.check_nonce(nonce);
        let memory = commands::decide(
            &self.node.memory(),
            self.node.identity.epoch_floor,
            freshness,
            authority,
            order.intent(),
        )
        .map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        ready_for(order, &self.node.peek().redis).map_err(Status::failed_precondition)?;
        let in_hand = self.node.life.in_hand();
        if self.node.has_written(&memory) {
            return Ok((memory, in_hand));
        }
        let node = self.node.clone();
        let kept = memory.clone();
        let written = tokio::task::spawn_blocking(move || node.remember(kept))
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        match written {
            Err(error) if stops_writes(order) => {
                self.node.remember_unwritten(memory.clone(), &error);
            }
            Err(error) => return Err(Status::internal(error_chain(&error))),
            Ok(()) => {}
        }
        Ok((memory, in_hand))
    }

    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, bool>, Status> {
        let turn = timeout(QUEUE, self.node.accepting.lock())
            .await
            .map_err(|_| Status::unavailable("another command is still being carried out"))?;
        if *turn { Ok(turn) } else { Err(Status::unavailable("this agent is stopping")) }
    }

    /// This one in place of the one before.
    fn stands_in(&self, stand_in: Option<StandIn>) {
        *self.stand_in.lock().unwrap_or_else(PoisonError::into_inner) = stand_in;
    }

    /// `issued` is when the agent said what the order relies on.
    async fn carry_out(
        &self,
        order: Order,
        memory: &Memory,
        issued: Option<Instant>,
        ready: Option<Ready>,
    ) -> Result<(), Status> {
        match order {
            Order::Save(_) => return Ok(()),
            Order::Restart => {
                self.node.restart.cancel();
                return Ok(());
            }
            Order::Backup(object) => {
                return backup::start(&self.node, *object).map_err(Status::unavailable);
            }
            Order::Restore(object, expected, log) => {
                return restore::start(&self.node, &self.instance, (*object, expected, log))
                    .map_err(Status::failed_precondition);
            }
            Order::Import(source, last_pass) => {
                import::start(&self.node, *source, &last_pass)
                    .map_err(Status::failed_precondition)?;
                // Whomever it followed before.
                self.node.set_following(None);
                self.node.set_note("hosts", self.node.egress.close().await);
                return Ok(());
            }
            Order::Archive(object) => {
                archive::start(&self.node, object.map(|object| *object));
                return Ok(());
            }
            Order::Verify(object) => {
                return verify::start(&self.node, self.instance.run_as, *object)
                    .map_err(Status::unavailable);
            }
            _ => {}
        }
        let _users = match order {
            Order::Configure { .. } => Some(self.users.try_lock().map_err(|_| {
                Status::unavailable(
                    "a snapshot is written of a node without a master, and applications are shut out meanwhile; send it again",
                )
            })?),
            _ => None,
        };
        if let Order::Discard { must_keep } = order {
            return self.discard(must_keep).await;
        }
        let redis = self.node.peek().redis;
        let stops_writes = stops_writes(&order);
        if stops_writes && matches!(redis.process, Process::Exited | Process::Starting) {
            // Every start is fenced.
            return Ok(());
        }
        let done = timeout(LIMIT, self.act(order, &redis, memory, issued, ready)).await;
        match done {
            Ok(Ok(())) => Ok(()),
            // A process that does not answer cannot be asked to stop writing. It loses what it did
            // not replicate; it is given up.
            Ok(Err(_)) | Err(_)
                if stops_writes && self.node.peek().redis.process == Process::Stuck =>
            {
                self.kill().await
            }
            Ok(Err(error)) => Err(status(&error)),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "redis did not finish within {} s",
                LIMIT.as_secs()
            ))),
        }
    }

    async fn act(
        &self,
        order: Order,
        redis: &RedisState,
        memory: &Memory,
        issued: Option<Instant>,
        ready: Option<Ready>,
    ) -> Result<(), ControlError> {
        let node = &self.node;
        let ready = Ready::or_now(ready, &node.redis, &redis.run_id).await?;
        let Ready { mut session, info, stand_in } = ready;
        let leads = info.role() == Role::Master;
        let mut applied = node.applied();
        let moves = matches!(order, Order::Promote { .. } | Order::Follow { .. } | Order::Admit(_));
        let result = match order {
            Order::Configure { generation, settings, .. } => {
                let result = self.configure(&mut session, &settings, &mut applied).await;
                node.set_patience(settings.stuck_after);
                // Whoever may not replicate any more was told nothing of what comes after this.
                let offset = session.info().await.map(|info| info.offset());
                result.and_then(|refused| offset.map(|offset| (refused, offset))).map(
                    |(refused, offset)| {
                        node.set_note("redis", None);
                        node.update(|state| {
                            if state.redis.run_id == redis.run_id {
                                state.configured = generation;
                                state.refused = refused;
                                state.redis.offset = state.redis.offset.max(offset);
                            }
                        });
                    },
                )
            }
            Order::Promote { users, quorum, planned, import } => {
                // The memory is the master's.
                verify::end(node, "this node becomes master");
                let issued = issued.filter(|_| has_stand_in(planned, quorum));
                // A master has what the source had.
                let held = if import.is_empty() || leads {
                    None
                } else {
                    Some(self.take_over(&import, &mut session, memory).await?)
                };
                let own = (stand_in::is_prompt(issued), stand_in);
                let result = self.promote(&mut session, &users, quorum, own, &mut applied).await;
                match (held, &result) {
                    (Some(held), Ok(())) => held.keep(node),
                    (Some(held), Err(_)) => held.release().await,
                    (None, _) => {}
                }
                if result.is_ok() {
                    import::stop(node);
                }
                node.set_following(None);
                node.set_note("hosts", node.egress.close().await);
                result
            }
            Order::Follow { incarnation, master, user, password, data_epoch, .. } => {
                if incarnation == node.identity.incarnation {
                    return Err(ControlError::Refused(format!(
                        "{master} is this node itself: it cannot follow itself"
                    )));
                }
                import::stop(node);
                let epoch = if data_epoch > 0 { data_epoch } else { memory.highest.epoch };
                let address = self.route_to(&master, user, password, epoch).await?;
                if leads {
                    self.stand_aside(&mut session, &mut applied).await?;
                }
                // Of a chain the link ends when its head is promoted, and is made anew.
                node.egress.expect(&[master]);
                session.follow(&address, &mut applied).await
            }
            Order::Detach { drain } => {
                import::stop(node);
                // One of the others is the next master.
                node.egress.expect(&node.announced.others());
                if !leads {
                    link_ended(&mut session, drain).await?;
                }
                let result = self.stand_aside(&mut session, &mut applied).await;
                if result.is_ok() {
                    node.set_following(None);
                    node.set_note("hosts", node.egress.close().await);
                }
                result
            }
            // A replica takes no writes, and a pause would hold back its master's.
            Order::Fence | Order::HandOver(_) if !leads => Ok(()),
            Order::Fence => self.fence(&mut session, &mut applied, &info, None).await,
            Order::HandOver(word) => {
                self.fence(&mut session, &mut applied, &info, Some(&word)).await
            }
            Order::Unfence(quorum) => self.unfence(&mut session, quorum, &mut applied).await,
            Order::Admit(users) => session.admit(&users, memory.highest.epoch, &mut applied).await,
            Order::Save(_)
            | Order::AwaitHandover(..)
            | Order::Discard { .. }
            | Order::Restart
            | Order::Backup(_)
            | Order::Restore(..)
            | Order::Import(..)
            | Order::Archive(_)
            | Order::Verify(_) => Ok(()),
        };
        node.set_applied(applied, &redis.run_id);
        if moves {
            node.hurry(MOVING);
        }
        result
    }

    /// Nothing is written to the source of the import any more, and all of it is here.
    async fn take_over(
        &self,
        import: &str,
        session: &mut Session,
        memory: &Memory,
    ) -> Result<import::Held, ControlError> {
        import::take_over(&self.node, import, session).await.map_err(|why| {
            import::note_refusal(&self.node, import, memory.highest.epoch, &why);
            ControlError::Refused(why)
        })
    }

    /// A `prompt` promotion has a stand-in, which may be introduced already.
    async fn promote(
        &self,
        session: &mut Session,
        users: &[ReplicationUser],
        quorum: Quorum,
        (prompt, stand_in): (bool, Option<Introduced>),
        applied: &mut Applied,
    ) -> Result<(), ControlError> {
        if !prompt {
            let led = session.lead(users, quorum, applied).await?;
            let (asked, info) = self.have_a_file(session, led).await?;
            self.begins_at(&info, asked).await?;
            return self.let_writes_in(session, quorum, applied, &info).await;
        }
        // What can be done at once is: writes stand still.
        let introduced = async {
            if let Some(introduced) = stand_in {
                return Ok(introduced);
            }
            self.node.redis.stand_in().await
        };
        let (led, introduced) = tokio::join!(session.lead(users, quorum, applied), introduced);
        let (asked, info) = self.have_a_file(session, led?).await?;
        let seen = Seen { states: self.node.subscribe(), looks: self.node.looks() };
        let attached = async { StandIn::attach(introduced?, &info, seen).await };
        // Until it is attached Redis itself refuses writes.
        let opened = async {
            self.begins_at(&info, asked).await?;
            self.let_writes_in(session, quorum, applied, &info).await
        };
        let (attached, opened) = tokio::join!(attached, opened);
        opened?;
        match attached {
            Ok(stand_in) => {
                self.stands_in(Some(stand_in));
                // Clients wait for somebody to be told: before anything else, and before the next
                // look.
                self.node.opens(&info, quorum, stand_in::attached());
                // Who sends that would run on this thread, and not before this task rests.
                yield_now().await;
            }
            // It waits for its replicas.
            Err(error) => self.node.book.agent(&format!("no stand-in: {error}")),
        }
        Ok(())
    }

    /// Goes on as the master that it is.
    async fn unfence(
        &self,
        session: &mut Session,
        quorum: Quorum,
        applied: &mut Applied,
    ) -> Result<(), ControlError> {
        let asked = Instant::now();
        let info = session.info().await?;
        self.begins_at(&info, asked).await?;
        self.let_writes_in(session, quorum, applied, &info).await
    }

    /// Where the data stands is on disk before the first write is taken: a node that forgot it
    /// could never be told from an empty one.
    async fn begins_at(&self, info: &Info, asked: Instant) -> Result<(), ControlError> {
        if !self.node.stands(info, asked, Stand::Opening) {
            return Err(ControlError::Restarted);
        }
        self.write_history().await
    }

    async fn let_writes_in(
        &self,
        session: &mut Session,
        quorum: Quorum,
        applied: &mut Applied,
        info: &Info,
    ) -> Result<(), ControlError> {
        // A master that takes writes is never shown as fenced.
        applied.fenced = None;
        self.node.set_applied(applied.clone(), info.run_id());
        session.open_for_writes(info, quorum).await
    }

    async fn fence(
        &self,
        session: &mut Session,
        applied: &mut Applied,
        info: &Info,
        word: Option<&str>,
    ) -> Result<(), ControlError> {
        match word {
            Some(word) => session.hand_over(&channel(word), info).await?,
            None => session.fence().await?,
        }
        applied.fenced = applied.fenced.or(Some(Instant::now()));
        // Before it is read where the data stands: a later look must not take this for a master
        // that takes writes.
        self.node.set_applied(applied.clone(), info.run_id());
        self.node.looking.over().await;
        let asked = Instant::now();
        let info = session.info().await?;
        self.node.stands(&info, asked, Stand::Closed);
        // Nothing follows it, and the volume may be slow: writes stand still until this is answered.
        let node = self.node.clone();
        tokio::task::spawn_blocking(move || history::keep(&node));
        Ok(())
    }

    /// Stops replicating, or being a master; what a master wrote to the very end is on disk before
    /// anything else happens to it.
    async fn stand_aside(
        &self,
        session: &mut Session,
        applied: &mut Applied,
    ) -> Result<(), ControlError> {
        let master = self.node.known().is_some_and(|known| known.open)
            || session.info().await?.role() == Role::Master;
        session.detach(applied).await?;
        if master { self.stood(session).await } else { Ok(()) }
    }

    /// Reads where the data of a master stands that takes no more writes, and writes it down. That
    /// it does not take any matters more than that this is on disk: a volume that is full does not
    /// undo it.
    async fn stood(&self, session: &mut Session) -> Result<(), ControlError> {
        let asked = Instant::now();
        let info = session.info().await?;
        self.node.stands(&info, asked, Stand::Closed);
        if let Err(error) = self.write_history().await {
            self.node.set_note("history", Some(error_chain(&error)));
        }
        Ok(())
    }

    async fn write_history(&self) -> Result<(), ControlError> {
        let node = self.node.clone();
        let written = tokio::task::spawn_blocking(move || history::write(&node)).await;
        written
            .unwrap_or_else(|error| Err(StateFileError::ended(&error)))
            .map_err(ControlError::History)
    }

    /// The data of a new master is in a file from its first write on. Its first append-only file is
    /// written in the background, and until it is there a restart would find nothing: not that this
    /// node was master, and not the writes that it acknowledged.
    ///
    /// `last` is the last look at Redis, and when it was asked for; the newest of both comes back.
    async fn have_a_file(
        &self,
        session: &mut Session,
        last: (Instant, Info),
    ) -> Result<(Instant, Info), ControlError> {
        let there = |info: &Info| {
            let file = self.instance.has_append_only_file();
            file || (!info.flag("aof_enabled") && self.instance.dump().exists())
        };
        let mut last = last;
        if !self.node.identity.persistent {
            return Ok(last);
        }
        let work = async {
            while !there(&last.1) {
                if last.1.flag("aof_enabled") {
                    sleep(FILE_LOOK).await;
                } else {
                    snapshots::write_dump(session).await?;
                }
                last = (Instant::now(), session.info().await?);
            }
            Ok::<_, ControlError>(())
        };
        // Of a large data set the file takes minutes: a failover does not wait for it.
        timeout(FILE_LIMIT, work).await.unwrap_or(Ok(()))?;
        Ok(last)
    }

    async fn configure(
        &self,
        session: &mut Session,
        settings: &super::redis_control::WantedSettings,
        applied: &mut Applied,
    ) -> Result<Vec<RefusedSetting>, ControlError> {
        let place = Place {
            container_bytes: self.node.identity.memory_bytes,
            port: self.node.settings.redis_port,
        };
        let mut refused = session.configure(settings, place, applied).await?;
        let reason = match self.append_only(session, settings.append_only).await {
            Ok(()) => None,
            Err(error @ (ControlError::Unreachable(_) | ControlError::Restarted)) => {
                return Err(error);
            }
            Err(ControlError::Redis(error)) => Some(configure::words(&error)),
            Err(error) => Some(error_chain(&error)),
        };
        if let Some(reason) = reason {
            let value = if settings.append_only { "yes" } else { "no" };
            refused.setting("appendonly", value, reason);
        }
        Ok(refused.into_list())
    }

    async fn append_only(&self, session: &mut Session, wanted: bool) -> Result<(), ControlError> {
        if session.append_only(wanted, LOG_LIMIT).await? {
            // Left in place it would be loaded at the next start instead of the newer snapshot.
            let dir = self.instance.append_only_dir();
            std::fs::remove_dir_all(&dir)
                .map_err(|source| ControlError::Keep { path: dir, source })?;
        }
        Ok(())
    }

    async fn route_to(
        &self,
        master: &str,
        user: String,
        password: secrecy::SecretString,
        epoch: u64,
    ) -> Result<MasterAddress, ControlError> {
        let node = &self.node;
        if master == node.own_name() {
            return Err(ControlError::Refused(format!(
                "{master} is this node itself: it cannot follow itself"
            )));
        }
        let Dialled { host, lacks } = node
            .egress
            .route(master)
            .await
            .map_err(|error| ControlError::Refused(error_chain(&error)))?;
        node.set_note("hosts", lacks);
        node.set_following(Some(Following { name: master.to_owned(), host: host.clone(), epoch }));
        Ok(MasterAddress {
            host,
            port: node.settings.master_port,
            user,
            password,
            announce: node.own_name(),
        })
    }

    /// Keeps a snapshot. A master whose history is about to be given up is demoted before, so that
    /// nothing is added to it.
    async fn save(&self, label: &str, demote: bool) -> Result<(), Status> {
        let _alone = self
            .saving
            .try_lock()
            .map_err(|_| Status::unavailable("a snapshot is being written already"))?;
        let node = &self.node;
        if node.snapshots.labels().iter().any(|known| known == label) {
            return Ok(());
        }
        let work = async {
            let mut session = node.redis.open(ANSWER).await?;
            let run_id = node.peek().redis.run_id;
            let info = session.expect_process(&run_id).await?;
            let mut applied = node.applied();
            if demote && info.role() == Role::Master {
                let aside = self.stand_aside(&mut session, &mut applied).await;
                node.set_applied(applied.clone(), &run_id);
                aside?;
            }
            let info = session.info().await?;
            let users = if needs_stale_reads(&info) { Some(self.users.lock().await) } else { None };
            // What was set in the meantime counts.
            let applied = if users.is_some() { node.applied() } else { applied };
            let result = session
                .with_stale_reads(&info, &applied, async |session| {
                    node.snapshots.save(session, label).await
                })
                .await;
            if users.is_some()
                && matches!(result, Err(ControlError::Unreachable(_) | ControlError::Redis(_)))
            {
                // Users may be shut out still; the operator sets them anew.
                node.update(|state| state.configured = String::new());
            }
            result
        };
        let result = work.await.map_err(|error: ControlError| status(&error));
        node.update(|state| state.saved = node.snapshots.labels());
        result
    }

    /// Has the keeper of Redis take away what it does not start with, before the next start.
    async fn discard(&self, must_keep: bool) -> Result<(), Status> {
        match timeout(LIMIT, self.node.ask_to_discard(must_keep)).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(Status::internal(format!(
                "the data cannot be taken away ({error}): replace this node"
            ))),
            Ok(Err(_)) | Err(_) => {
                Err(Status::unavailable("redis did not end in time; send the command again"))
            }
        }
    }

    async fn kill(&self) -> Result<(), Status> {
        self.node.book.agent("redis does not answer and must stop taking writes: it is killed");
        let mut states = self.node.subscribe();
        let run_id = states.borrow().redis.run_id.clone();
        self.node.kill_redis.notify_one();
        let gone = states.wait_for(|state| state.redis.run_id != run_id);
        match timeout(DEATH, gone).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Status::internal(
                "redis does not answer and could not be killed: close the lease to be sure that it takes no writes",
            )),
        }
    }

    /// Waits until Redis was looked at after the command: the reply shows what came of it.
    async fn look_again(&self) {
        let ended = Instant::now();
        let mut looks = self.node.looks();
        self.node.look_now();
        // One that had begun before the command ended says nothing of it.
        let after = looks.wait_for(|asked| *asked >= ended);
        let _ = timeout(self.node.settings.stuck_after, after).await;
    }
}

/// Whether a connection of the agent's own counts as the replica that a master needs at first.
fn has_stand_in(planned: bool, quorum: Quorum) -> bool {
    planned && quorum.min_replicas == 1
}

/// Whoever stood in for replicas does not any more.
fn begins_anew(order: &Order) -> bool {
    let ends = stops_writes(order) || matches!(order, Order::Restart);
    ends || matches!(order, Order::Promote { .. } | Order::Follow { .. })
}

/// Waits until the link of a replica has ended, for `limit` at most: everything that was on its way
/// is applied by then.
async fn link_ended(session: &mut Session, limit: Duration) -> Result<(), ControlError> {
    let work = async {
        while session.info().await?.link_up() {
            sleep(LINK_LOOK).await;
        }
        Ok(())
    };
    if limit.is_zero() { Ok(()) } else { timeout(limit, work).await.unwrap_or(Ok(())) }
}

/// Somebody may use it, or it may be in sync: what starts, loads, or is a replica without a link
/// does not.
fn serves(redis: &RedisState) -> bool {
    let idle = redis.loading || (redis.role == Role::Replica && !redis.is_linked());
    redis.process == Process::Stuck || (redis.process == Process::Running && !idle)
}

/// Nobody's writes are taken here after it.
fn stops_writes(order: &Order) -> bool {
    matches!(order, Order::Detach { .. } | Order::Fence | Order::HandOver(_))
}

/// Whether Redis is in a state in which the order makes sense.
fn ready_for(order: &Order, redis: &RedisState) -> Result<(), &'static str> {
    if stops_writes(order) || matches!(order, Order::Restart | Order::Archive(None)) {
        return Ok(());
    }
    if matches!(order, Order::Discard { .. }) {
        return if serves(redis) {
            Err("redis runs here with its data: nothing is dropped")
        } else {
            Ok(())
        };
    }
    if redis.process != Process::Running {
        return Err("redis is not running here now; watch the state and send the command again");
    }
    if redis.loading {
        return Err("redis is still loading its data; watch the state and send the command again");
    }
    if matches!(order, Order::Admit(_)) && !redis.is_linked() {
        return Err("redis is no replica in sync, so nobody may attach to it");
    }
    if matches!(order, Order::AwaitHandover(..)) && !redis.is_linked() {
        return Err("redis is no replica in sync, so that it would not hear of the handover");
    }
    if matches!(order, Order::Promote { .. }) && redis.is_syncing() {
        return Err(
            "redis is in the middle of a full sync: promoted now, it would have half of the data",
        );
    }
    let source = redis.role == Role::Master || redis.is_linked();
    if matches!(order, Order::Backup(_)) && (!source || redis.is_syncing()) {
        return Err("redis is no replica in sync, so its data are not those of the cluster");
    }
    if matches!(order, Order::Restore(..)) && redis.role != Role::Replica {
        return Err("redis is master here: what it has is not overwritten");
    }
    if matches!(order, Order::Unfence(_)) && redis.role != Role::Master {
        return Err("redis is not master, there is nothing to unfence; promote it instead");
    }
    Ok(())
}

fn status(error: &ControlError) -> Status {
    match error {
        ControlError::Unreachable(_) | ControlError::Restarted => {
            Status::unavailable(error_chain(error))
        }
        ControlError::User(_) | ControlError::Refused(_) => {
            Status::invalid_argument(error_chain(error))
        }
        ControlError::Redis(_) | ControlError::Keep { .. } | ControlError::History(_) => {
            Status::internal(error_chain(error))
        }
    }
}
