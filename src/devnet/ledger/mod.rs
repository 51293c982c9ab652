//! The local chain's ledger: accounts, market and escrow, as the real chain keeps them. It is pure:
//! no clock, no input or output, no chance. The same transactions in the same blocks give the same
//! state.
//!
//! [`Ledger::submit`] is what a node does with a broadcast transaction, [`Ledger::advance`] makes
//! the next block, [`Ledger::view`] reads.

mod amount;
mod auth;
mod deployment;
mod error;
mod escrow;
mod event;
mod grants;
mod handle;
mod market;
mod matching;
mod mint;
mod msg;
mod page;
mod query;
mod registry;
mod state;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost_types::Any;

use crate::wire::akash::escrow::id::v1::{Account as EscrowId, Scope};
use crate::wire::cosmos::tx::v1beta1::Tx;
use crate::wire::tendermint::abci::Event;

pub use amount::{ONE, UACT, UAKT};
pub use auth::hash_of;
pub use error::{Known, TxError};
pub use query::QueryError;
pub use state::{Block, ESCROW_POT, FEE_POT, Genesis, GenesisAccount, MINT_POT, Params};

use auth::{Decoded, Mode};
use handle::Ctx;
use state::{Auth, State};

/// Gas that a message burns before it fails: 48,000 to 60,000 were seen with what every transaction
/// costs.
const FAILED_GAS: u64 = 10_000;
/// Gas of a transaction that is turned away by its signature's checks: the figure of a recorded
/// answer.
const TURNED_AWAY_GAS: u64 = 34_734;

/// The chain at one height: everything that can be asked.
#[derive(Clone, Debug)]
pub struct View {
    genesis: Arc<Genesis>,
    state: State,
    block: Block,
}

/// What became of a transaction in a block.
#[derive(Clone, Debug)]
pub struct TxRecord {
    /// Its name.
    pub hash: String,
    /// Block it is in.
    pub block: Block,
    /// `None` when all its messages were carried out.
    pub error: Option<TxError>,
    /// Limit it was signed with.
    pub gas_wanted: u64,
    /// Gas it took.
    pub gas_used: u64,
    /// What it changed.
    pub events: Vec<Event>,
    /// Its answers, in protobuf.
    pub data: Vec<u8>,
    /// The transaction, when it could be read.
    pub tx: Option<Tx>,
}

/// What a simulation says.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// Gas it took.
    pub gas_used: u64,
    /// What it would change.
    pub events: Vec<Event>,
    /// Answers of its messages.
    pub responses: Vec<Any>,
}

/// A chain with the transactions that wait for its next block.
#[derive(Clone, Debug)]
pub struct Ledger {
    view: View,
    /// Money and signatures as they will be when the waiting transactions are in.
    checked: Auth,
    waiting: Vec<Vec<u8>>,
    /// One that a reordered block left for the next.
    held: Option<Vec<u8>>,
    /// Names of all that was ever taken.
    seen: BTreeSet<String>,
    done: BTreeMap<String, Arc<TxRecord>>,
}

impl Ledger {
    /// The chain at its first block.
    #[must_use]
    pub fn new(genesis: Genesis) -> Self {
        let state = genesis.state();
        let block = genesis.block;
        let checked = state.auth.clone();
        let view = View { genesis: Arc::new(genesis), state, block };
        Self {
            view,
            checked,
            waiting: Vec::new(),
            held: None,
            seen: BTreeSet::new(),
            done: BTreeMap::new(),
        }
    }

    /// Reads the latest height.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether a node would take this transaction now, besides those that wait.
    pub fn check(&self, tx: &[u8]) -> Result<(), TxError> {
        let mut auth = self.checked.clone();
        self.view.check(&mut auth, tx)
    }

    /// Takes a transaction for the next block, or refuses it. Its name is [`hash_of`] it.
    pub fn submit(&mut self, tx: &[u8]) -> Result<(), TxError> {
        let hash = hash_of(tx);
        if self.seen.contains(&hash) {
            return Err(error::sdk::IN_CACHE.into());
        }
        match self.view.check(&mut self.checked, tx) {
            Ok(()) => {
                self.checked.commit();
                self.seen.insert(hash);
                self.waiting.push(tx.to_vec());
                Ok(())
            }
            Err(error) => {
                self.checked.rollback();
                Err(error)
            }
        }
    }

    /// What this transaction would do on the latest state. Nothing stays of it.
    pub fn simulate(&mut self, tx: &[u8]) -> Result<Simulated, (TxError, u64)> {
        let Run { error, gas_used, events, decoded, .. } = self.view.run(tx, Mode::Simulate);
        self.view.state.rollback();
        match (error, decoded) {
            (None, Some(decoded)) => {
                Ok(Simulated { gas_used, events, responses: responses(&decoded) })
            }
            (error, _) => Err((error.unwrap_or_else(|| error::sdk::TX_DECODE.into()), gas_used)),
        }
    }

    /// Makes the next block at this time (nanoseconds since 1970; never before the last block's)
    /// out of what waits.
    pub fn advance(&mut self, time_ns: u64) -> Vec<Arc<TxRecord>> {
        let waiting = self.held.take().into_iter().chain(std::mem::take(&mut self.waiting));
        let waiting: Vec<_> = waiting.collect();
        self.make_block(1, time_ns, &waiting)
    }

    /// Makes the next block out of what waits, the newest transaction first. The oldest waits for
    /// one block more: those that came after it get ahead of it.
    pub fn advance_reordered(&mut self, time_ns: u64) -> Vec<Arc<TxRecord>> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.reverse();
        let oldest = waiting.pop();
        waiting.extend(std::mem::replace(&mut self.held, oldest));
        self.make_block(1, time_ns, &waiting)
    }

    /// Makes so many blocks, the last at this time: what waits is in the first, the others are
    /// empty. Nothing is settled by a block, so this takes no longer than one.
    pub fn skip(&mut self, blocks: u64, time_ns: u64) -> Vec<Arc<TxRecord>> {
        let begun = self.view.block.time_ns;
        let each = time_ns.saturating_sub(begun) / blocks.max(1);
        let records = self.advance(begun + each);
        if blocks > 1 {
            self.make_block(blocks - 1, time_ns, &[]);
        }
        records
    }

    /// What governance votes on changes with the next block.
    pub fn set_params(&mut self, params: Params) {
        let genesis = Genesis { params, ..(*self.view.genesis).clone() };
        self.view.genesis = Arc::new(genesis);
    }

    fn make_block(
        &mut self,
        heights: u64,
        time_ns: u64,
        waiting: &[Vec<u8>],
    ) -> Vec<Arc<TxRecord>> {
        let block = Block {
            height: self.view.block.height + heights,
            time_ns: time_ns.max(self.view.block.time_ns + 1),
        };
        self.view.block = block;
        auth::forget_nonces(&mut self.view.state.auth, block);
        self.view.end_epoch();
        self.view.state.commit();
        let records = waiting.iter().map(|tx| self.apply(tx)).collect();
        self.checked = self.view.state.auth.clone();
        records
    }

    /// Applies one transaction in the present block: all of it, or its fee alone.
    pub fn apply(&mut self, tx: &[u8]) -> Arc<TxRecord> {
        let run = self.view.run(tx, Mode::Deliver);
        let data = match (&run.error, &run.decoded) {
            (None, Some(decoded)) => encode_data(&responses(decoded)),
            _ => Vec::new(),
        };
        let hash = hash_of(tx);
        let record = Arc::new(TxRecord {
            hash: hash.clone(),
            block: self.view.block,
            error: run.error,
            gas_wanted: run.decoded.as_ref().map_or(0, Decoded::gas_limit),
            gas_used: run.gas_used,
            events: run.events,
            data,
            tx: run.decoded.as_ref().map(Decoded::tx),
        });
        self.seen.insert(hash.clone());
        self.done.insert(hash, Arc::clone(&record));
        record
    }

    /// What became of a transaction, once it is in a block.
    #[must_use]
    pub fn tx(&self, hash: &str) -> Option<&Arc<TxRecord>> {
        self.done.get(hash)
    }

    /// How many transactions wait for the next block.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.held.is_some())
    }
}

/// What running a transaction came to.
struct Run {
    error: Option<TxError>,
    gas_used: u64,
    events: Vec<Event>,
    decoded: Option<Decoded>,
}

impl View {
    fn check(&self, auth: &mut Auth, tx: &[u8]) -> Result<(), TxError> {
        let tx = Decoded::new(tx)?;
        auth::admit(auth, &self.genesis, self.block, &tx, Mode::Check).map(|_| ())
    }

    /// Runs a transaction. In a block its fee stays when its messages fail; a simulation commits
    /// nothing.
    fn run(&mut self, tx: &[u8], mode: Mode) -> Run {
        let decoded = match Decoded::new(tx) {
            Ok(decoded) => decoded,
            Err(error) => {
                return Run { error: Some(error), gas_used: 0, events: Vec::new(), decoded: None };
            }
        };
        let base =
            match auth::admit(&mut self.state.auth, &self.genesis, self.block, &decoded, mode) {
                Ok(gas) => gas,
                Err(error) => {
                    self.state.rollback();
                    return Run {
                        error: Some(error),
                        gas_used: TURNED_AWAY_GAS,
                        events: Vec::new(),
                        decoded: Some(decoded),
                    };
                }
            };
        if mode == Mode::Deliver {
            self.state.commit();
        }
        let limit = if mode == Mode::Deliver { decoded.gas_limit() } else { u64::MAX };
        let fee = auth::fee_taken(&decoded).map(|(amount, payer)| event::fee(amount, &payer));
        let mut events: Vec<_> = fee.into_iter().collect();
        match self.run_messages(&decoded, base, limit) {
            Ok((gas_used, added)) => {
                events.extend(added);
                if mode == Mode::Deliver {
                    self.state.commit();
                }
                Run { error: None, gas_used, events, decoded: Some(decoded) }
            }
            Err((error, gas_used)) => {
                self.state.rollback();
                Run { error: Some(error), gas_used, events, decoded: Some(decoded) }
            }
        }
    }

    fn run_messages(
        &mut self,
        tx: &Decoded,
        base: u64,
        limit: u64,
    ) -> Result<(u64, Vec<Event>), (TxError, u64)> {
        let mut gas = base;
        let mut events = Vec::new();
        for (index, msg) in tx.messages.iter().enumerate() {
            let cost = handle::gas(msg, &self.state);
            let mut ctx = Ctx {
                state: &mut self.state,
                params: &self.genesis.params,
                audited: &self.genesis.audited,
                block: self.block,
                events: Vec::new(),
            };
            ctx.execute(msg).map_err(|error| (error.of_message(index), gas + FAILED_GAS))?;
            let type_url =
                tx.body.messages.get(index).map(|any| any.type_url.as_str()).unwrap_or_default();
            events.push(event::of_message(event::action(type_url, msg.signer()), index));
            events.extend(ctx.events.into_iter().map(|event| event::of_message(event, index)));
            gas += cost;
            auth::within(gas, limit).map_err(|error| (error, gas))?;
        }
        Ok((gas, events))
    }
}

/// Answers of a transaction's messages; all are empty.
fn responses(tx: &Decoded) -> Vec<Any> {
    tx.body
        .messages
        .iter()
        .map(|any| Any { type_url: format!("{}Response", any.type_url), value: Vec::new() })
        .collect()
}

/// The answers as a transaction's data carries them: field 2, repeated.
fn encode_data(responses: &[Any]) -> Vec<u8> {
    let mut data = Vec::new();
    for response in responses {
        prost::encoding::message::encode(2, response, &mut data);
    }
    data
}

/// Key of an escrow account by its id on the wire.
fn escrow_id(id: Option<&EscrowId>) -> Result<String, TxError> {
    let id = id.ok_or(error::escrow::INVALID_ID)?;
    let scope = match id.scope() {
        Scope::Deployment => "deployment",
        Scope::Bid => "bid",
        Scope::Invalid => return Err(error::escrow::INVALID_ID.into()),
    };
    Ok(format!("{scope}/{}", id.xid))
}
