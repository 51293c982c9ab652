//! The newest word about the master that this node has heard, and the users of the manifest: what it
//! answers with as Sentinel, also while redis, the operator or the agent itself was away.

use std::sync::Arc;

use tokio::sync::watch;

use super::state_file::StateFile;
use crate::announce::{Keeper, PublicKey, Refused, Signed, Word};
use crate::model::announcement::Announcement;
use crate::model::identity::NodeIdentity;
use crate::model::ids::IncarnationName;
use crate::model::step::SettingsUser;
use crate::sentinel::{Desk, Subscribers};

/// A word is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// It is not believed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The identity is of no use.
    #[error(
        "this node cannot prove a word about the master: the CA in its identity is no certificate with a P-256 key; deliver the manifest anew"
    )]
    NoKey,
}

/// See above.
pub struct Announced {
    keeper: Option<Keeper>,
    users: watch::Sender<Arc<Vec<SettingsUser>>>,
    files: StateFile,
    cluster: String,
    own: String,
    subscribers: Subscribers,
}

impl Announced {
    /// Takes up what is on disk; what cannot be read or proved is as good as nothing.
    #[must_use]
    pub fn new(identity: &NodeIdentity, files: StateFile) -> Self {
        let own = identity.incarnation.clone();
        let cluster = IncarnationName(own.clone()).cluster().to_owned();
        let key = PublicKey::of_ca(&identity.ca).ok();
        let keeper =
            key.map(|key| Keeper::new(key, Some(identity.installation.clone()), cluster.clone()));
        if let (Some(keeper), Ok(Some(kept))) = (&keeper, files.word()) {
            let _ = keeper.offer(kept.into(), |_| {});
        }
        let users = files.users().ok().flatten().unwrap_or_default();
        let (users, subscribers) = (watch::Sender::new(Arc::new(users)), Subscribers::default());
        Self { keeper, users, files, cluster, own, subscribers }
    }

    /// Takes a word that is newer than the present one; what is newest then. It is on disk before
    /// anybody is told, or on a full volume in mind alone, which is better than nowhere.
    ///
    /// Waits for the disk.
    ///
    /// # Errors
    /// It is not believed, and the one before stays.
    pub fn offer(&self, signed: Signed) -> Result<Option<Announcement>, OfferError> {
        let keeper = self.keeper.as_ref().ok_or(OfferError::NoKey)?;
        keeper.offer(signed, |signed| {
            let _ = self.files.keep_word(&signed.into());
        })?;
        Ok(self.newest().map(|word| word.said.clone()))
    }

    /// Mesh names of the other nodes by the newest word.
    #[must_use]
    pub fn others(&self) -> Vec<String> {
        let Some(word) = self.newest() else { return Vec::new() };
        let places = word.said.replicas.iter().map(|replica| &replica.place);
        std::iter::once(&word.said.master)
            .chain(places)
            .filter(|place| place.incarnation != self.own)
            .map(|place| place.name.clone())
            .collect()
    }

    /// The cluster it is about.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The newest word.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Word>> {
        self.keeper.as_ref().and_then(Keeper::newest)
    }

    /// The users of the manifest are these from now on.
    ///
    /// Waits for the disk.
    pub fn set_users(&self, users: &[SettingsUser]) {
        if self.users.borrow().as_slice() != users {
            // As above.
            let _ = self.files.keep_users(users);
            self.users.send_replace(Arc::new(users.to_vec()));
        }
    }

    /// How many clients of Sentinel listen, now and whenever it is another number.
    #[must_use]
    pub fn subscribers(&self) -> watch::Receiver<usize> {
        self.subscribers.number()
    }

    /// What Sentinel answers with; `None` where no word can be proved.
    #[must_use]
    pub fn desk(&self) -> Option<Desk> {
        Some(Desk {
            word: self.keeper.as_ref()?.subscribe(),
            users: self.users.subscribe(),
            cluster: self.cluster.clone(),
            own: self.own.clone(),
            subscribers: self.subscribers.clone(),
        })
    }
}
