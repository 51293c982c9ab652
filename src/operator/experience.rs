//! What was lived through with providers, in memory and in the store. Plans are given it, and tell
//! what is new.

use std::sync::{Arc, Mutex};

use super::lock;
use super::ports::Ports;
use crate::model::experience::{self, Experiences, Note};
use crate::store::StoreError;

/// The experience with all providers.
pub struct Book {
    ports: Ports,
    known: Mutex<Arc<Experiences>>,
}

impl Book {
    /// Nothing was read yet.
    pub fn new(ports: Ports) -> Self {
        Self { ports, known: Mutex::default() }
    }

    /// Reads what earlier processes lived through.
    pub async fn read(&self) -> Result<(), StoreError> {
        let known = self.ports.store.experience().await?;
        *lock(&self.known) = Arc::new(known);
        Ok(())
    }

    /// All of it, as it is now.
    pub fn all(&self) -> Arc<Experiences> {
        lock(&self.known).clone()
    }

    /// Counts what a plan lived through, after its record was written: what is lost between the two
    /// is a count too low, and nothing else.
    pub async fn take(&self, notes: &[(String, Note)]) -> Result<(), StoreError> {
        if notes.is_empty() {
            return Ok(());
        }
        let now = (self.ports.now)();
        let changed: Experiences = {
            let mut known = lock(&self.known);
            let all = Arc::make_mut(&mut known);
            for (provider, note) in notes {
                all.entry(provider.clone()).or_default().take(note, now);
            }
            experience::bound(all);
            let of = |who: &String| all.get_key_value(who).map(|(k, v)| (k.clone(), v.clone()));
            notes.iter().filter_map(|(who, _)| of(who)).collect()
        };
        self.ports.store.put_experience(&changed).await
    }
}
