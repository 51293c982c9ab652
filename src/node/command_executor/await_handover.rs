//! What of a command's way is a handover's alone: the looks before it, the wait for the word, and the
//! promotion by it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::time::timeout;
use tonic::Status;

use super::super::convert::Order;
use super::super::handover::{Awaited, Ready, channel};
use super::super::psync::Introduced;
use super::super::stand_in;
use super::{CommandExecutor, MOVING, has_stand_in, status};
use crate::model::node::{Authority, Role};

/// A look that is taken before it is needed is not waited for any longer than this.
const AHEAD: Duration = Duration::from_millis(500);

impl CommandExecutor {
    /// What a handover has to know of Redis, while its decision is being written down: clients may be
    /// held for it already, and a look changes nothing.
    pub(super) async fn look_for(&self, order: &Order, ready: Option<Ready>) -> Option<Ready> {
        if !matches!(order, Order::HandOver(_)) {
            return ready;
        }
        let run_id = self.node.peek().redis.run_id;
        // What went wrong is said by the look that is taken instead.
        timeout(AHEAD, Ready::to(&self.node.redis, &run_id)).await.ok()?.ok()
    }

    /// Listens for the word of this node's master, and becomes master itself when it is said.
    pub(super) async fn await_handover(
        self: &Arc<Self>,
        promote: Order,
        word: &str,
        authority: Authority,
        nonce: &str,
        issued: Option<Instant>,
    ) -> Result<(), Status> {
        let Some(issued) = issued.filter(|issued| stand_in::is_prompt(Some(*issued))) else {
            return Err(Status::failed_precondition(
                "a handover is awaited on a state of the last 2 s alone; take the newest state and send it again",
            ));
        };
        let run_id = self.node.peek().redis.run_id;
        let redis = &self.node.redis;
        let ready = Ready::to(redis, &run_id).await.map_err(|e| status(&e))?;
        let words = redis.listen_for(&channel(word)).await.map_err(|e| status(&e))?;
        let stand_in = if stands_in_for(&promote) { self.introduced().await } else { None };
        let ready = Ready { stand_in, ..ready };
        let then = self.clone().take_over_as(promote, authority, nonce.to_owned(), ready);
        let node = self.node.clone();
        let end = move || {
            if node.peek().redis.role == Role::Replica {
                // How far it is matters again: it is promoted by command.
                node.hurry(MOVING);
            }
            node.update(|state| state.awaits = Some(0));
        };
        // It hears when it has everything. Looks would only keep Redis from the takeover.
        self.node.hurry_no_more();
        self.awaits(authority.epoch, Some(Awaited::new(words, issued, then, end)));
        Ok(())
    }

    /// Becomes the replica that counts until another one is back; `None` where Redis does not take it.
    async fn introduced(&self) -> Option<Introduced> {
        let introduced = self.node.redis.stand_in().await;
        introduced.inspect_err(|e| self.node.book.agent(&format!("no stand-in yet: {e}"))).ok()
    }

    /// Promotes what still is the redis process that is `ready`.
    fn take_over_as(
        self: Arc<Self>,
        promote: Order,
        authority: Authority,
        nonce: String,
        ready: Ready,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if self.node.peek().redis.run_id != ready.info.run_id() {
                return;
            }
            // It is shown as what it becomes without a look.
            self.node.looking.begin();
            if let Err(error) = self.obey(promote, authority, &nonce, Some(ready)).await {
                self.node.book.agent(&format!("no takeover: {}", error.message()));
            }
        })
    }

    /// This one in place of the one before.
    pub(super) fn awaits(&self, epoch: u64, awaited: Option<Awaited>) {
        let mut held = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        // The one before is gone before it could end what begins now.
        drop(held.take());
        self.node.update(|state| state.awaits = Some(epoch));
        *held = awaited;
    }
}

/// The same of an order.
fn stands_in_for(order: &Order) -> bool {
    matches!(order, Order::Promote { planned, quorum, .. } if has_stand_in(*planned, *quorum))
}
