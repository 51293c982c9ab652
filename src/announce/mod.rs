//! The signed word about a cluster's master: who may have said it, and the newest of all that was
//! heard.
//!
//! The key is that of the installation's CA, which every node has in its identity. Nobody believes an
//! older word, whoever brings it: a node that was away, or one that was given up, cannot lead
//! applications back to a master of an earlier epoch.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{DerSignature, VerifyingKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::announcement::{Announcement, LARGEST};

/// A word as it is handed on: JSON of an [`Announcement`], and the signature over it (ECDSA P-256
/// with SHA-256, DER).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// The JSON.
    pub content: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// A word as it is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptWord {
    /// JSON of the announcement; empty before the first.
    pub content: String,
    /// Hex.
    pub signature: String,
}

impl From<&Signed> for KeptWord {
    fn from(signed: &Signed) -> Self {
        let content = String::from_utf8_lossy(&signed.content).into_owned();
        Self { content, signature: hex::encode(&signed.signature) }
    }
}

impl From<KeptWord> for Signed {
    /// What is no signature proves nothing later.
    fn from(kept: KeptWord) -> Self {
        let signature = hex::decode(&kept.signature).unwrap_or_default();
        Self { content: kept.content.into_bytes(), signature }
    }
}

impl Signed {
    /// One line of text, for those who are told of each new word.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", hex::encode(&self.signature), String::from_utf8_lossy(&self.content))
    }

    /// What [`Self::line`] made; `None` when it is something else.
    #[must_use]
    pub fn from_line(line: &[u8]) -> Option<Self> {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let signature = hex::decode(&line[..at]).ok()?;
        Some(Self { content: line[at + 1..].to_vec(), signature })
    }
}

/// A word that was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says.
    pub said: Announcement,
    /// What it was read from.
    pub signed: Signed,
}

/// Why a word is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Somebody else said it, or it was changed on the way.
    #[error("its signature is not the one of this installation, so it is not believed")]
    NotOurs,
    /// It cannot be read.
    #[error("it cannot be read ({0}); whoever said it may be of a newer version")]
    Unreadable(String),
    /// It is about something else.
    #[error("it is about cluster {cluster} of installation {installation}")]
    AboutAnother {
        /// The installation that it names.
        installation: String,
        /// The cluster that it names.
        cluster: String,
    },
}

/// There is no key to prove words with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the CA in the node's identity is no certificate with a P-256 key; deliver the manifest anew"
)]
pub struct KeyError;

/// Text is no public key of an installation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no public key of an installation; `akash-redis public-key` on the operator's machine prints it: 66 hex digits"
)]
pub struct NoPublicKey(String);

/// Public part of the key that signs the words of an installation. As text it is the point in SEC 1's
/// compressed form, hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.to_encoded_point(true)))
    }
}

impl FromStr for PublicKey {
    type Err = NoPublicKey;

    fn from_str(text: &str) -> Result<Self, NoPublicKey> {
        let bytes = hex::decode(text.trim()).unwrap_or_default();
        VerifyingKey::from_sec1_bytes(&bytes).map(Self).map_err(|_| NoPublicKey(text.to_owned()))
    }
}

impl PublicKey {
    /// That of the CA of an installation.
    ///
    /// # Errors
    /// It is no certificate in PEM with a P-256 key.
    pub fn of_ca(pem: &str) -> Result<Self, KeyError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| KeyError)?;
        let point = &parsed.public_key().subject_public_key.data;
        VerifyingKey::from_sec1_bytes(point).map(Self).map_err(|_| KeyError)
    }

    /// Proves a word.
    ///
    /// # Errors
    /// It was not signed with this key, or is nothing that an operator says.
    pub fn read(&self, signed: Signed) -> Result<Word, Refused> {
        let signature =
            DerSignature::from_bytes(&signed.signature).map_err(|_| Refused::NotOurs)?;
        if signed.content.len() > LARGEST {
            return Err(Refused::Unreadable(format!("{} bytes", signed.content.len())));
        }
        self.0
            .verify(&Announcement::signed_bytes(&signed.content), &signature)
            .map_err(|_| Refused::NotOurs)?;
        let said = serde_json::from_slice(&signed.content);
        let said = said.map_err(|error| Refused::Unreadable(error.to_string()))?;
        Ok(Word { said, signed })
    }
}

/// The newest word about one cluster.
#[derive(Debug)]
pub struct Keeper {
    key: PublicKey,
    /// Whoever has the key alone need not know whose it is.
    installation: Option<String>,
    cluster: String,
    newest: watch::Sender<Option<Arc<Word>>>,
}

impl Keeper {
    /// Nothing was heard yet.
    #[must_use]
    pub fn new(key: PublicKey, installation: Option<String>, cluster: String) -> Self {
        Self { key, installation, cluster, newest: watch::Sender::new(None) }
    }

    /// Takes a word that is newer than the one that is kept: `keep` first, then everybody who follows
    /// learns of it. True when it was.
    ///
    /// # Errors
    /// It is not believed.
    pub fn offer(&self, signed: Signed, keep: impl FnOnce(&Signed)) -> Result<bool, Refused> {
        let word = self.key.read(signed)?;
        let said = &word.said;
        let is_ours = self.installation.as_ref().is_none_or(|own| *own == said.installation);
        if said.cluster != self.cluster || !is_ours {
            return Err(Refused::AboutAnother {
                installation: said.installation.clone(),
                cluster: said.cluster.clone(),
            });
        }
        // One after the other: the older of two must not be kept last.
        Ok(self.newest.send_if_modified(|newest| {
            let is_news = newest.as_ref().is_none_or(|known| word.said.is_newer_than(&known.said));
            if is_news {
                keep(&word.signed);
                *newest = Some(Arc::new(word));
            }
            is_news
        }))
    }

    /// The newest word.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Word>> {
        self.newest.borrow().clone()
    }

    /// Follows it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Word>>> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::announcement::Place;
    use crate::model::time::UnixMs;
    use crate::secrets::RootSecret;

    fn root(byte: u8) -> RootSecret {
        RootSecret::new(vec![byte; 32].into()).unwrap()
    }

    fn said(uid: &str, epoch: u64, version: u64) -> Announcement {
        Announcement {
            installation: root(1).installation_id().0,
            cluster: "cache".into(),
            uid: uid.into(),
            epoch,
            version,
            at: UnixMs(version),
            master: Place {
                incarnation: format!("cache-0-{epoch}"),
                name: "cache-0.mesh".into(),
                ip: "100.64.0.1".into(),
                port: 6379,
                region: None,
            },
            replicas: Vec::new(),
            names: false,
            changing: None,
            successor: None,
        }
    }

    fn signed(by: &RootSecret, said: &Announcement) -> Signed {
        let content = serde_json::to_vec(said).unwrap();
        Signed { signature: by.sign_announcement(&content), content }
    }

    fn keeper() -> Keeper {
        let key = PublicKey::of_ca(&root(1).ca_pem()).unwrap();
        Keeper::new(key, Some(root(1).installation_id().0), "cache".into())
    }

    #[test]
    fn a_key_and_a_word_survive_as_text() {
        let key = PublicKey::of_ca(&root(1).ca_pem()).unwrap();
        assert_eq!((key.to_string().len(), key.to_string().parse()), (66, Ok(key)));
        for bad in ["", "e9gjv3", &"0".repeat(66), &format!("{key}00")] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
        let word = signed(&root(1), &said("a", 1, 1));
        assert_eq!(Signed::from_line(word.line().as_bytes()), Some(word.clone()));
        assert_eq!(Signed::from(KeptWord::from(&word)), word);
        assert_eq!(Signed::from_line(b"cache 100.64.0.1 6379"), None);
        // Without the name of the installation the key says it.
        let keeper = Keeper::new(key, None, "cache".into());
        assert_eq!(keeper.offer(word, |_| {}), Ok(true));
        let other = signed(&root(2), &said("a", 2, 2));
        assert_eq!(keeper.offer(other, |_| {}), Err(Refused::NotOurs));
    }

    #[test]
    fn nobody_believes_an_older_word() {
        let keeper = keeper();
        let offer = |uid, epoch, version| {
            keeper.offer(signed(&root(1), &said(uid, epoch, version)), |_| {}).unwrap()
        };
        assert!(offer("a", 3, 100));
        assert!(!offer("a", 3, 100), "the same");
        assert!(!offer("a", 2, 900), "of an epoch before");
        assert!(!offer("a", 3, 99));
        assert!(offer("a", 3, 101));
        assert!(offer("a", 4, 50), "a later epoch, by an operator whose clock is behind");
        assert!(!offer("b", 9, 49), "of a cluster that had the name before");
        assert!(offer("b", 1, 200), "the cluster was deleted and made anew");
        assert!(!offer("a", 5, 150), "and the one before is gone");
        assert_eq!(keeper.newest().unwrap().said, said("b", 1, 200));
    }

    #[test]
    fn a_word_is_kept_before_it_is_told_and_only_when_it_is_news() {
        let keeper = keeper();
        let mut kept = Vec::new();
        for (epoch, version) in [(1, 1), (1, 1), (2, 2)] {
            let word = signed(&root(1), &said("a", epoch, version));
            keeper.offer(word, |signed| kept.push(signed.clone())).unwrap();
        }
        assert_eq!(kept.len(), 2);
    }

    #[test]
    fn a_word_that_was_changed_or_is_another_installations_is_refused() {
        let (keeper, none) = (keeper(), |_: &Signed| panic!("it was kept"));
        let good = signed(&root(1), &said("a", 1, 1));
        let mut changed = good.clone();
        *changed.content.last_mut().unwrap() = b' ';
        assert_eq!(keeper.offer(changed, none), Err(Refused::NotOurs));
        assert_eq!(keeper.offer(signed(&root(2), &said("a", 1, 1)), none), Err(Refused::NotOurs));
        // What the same key signs for another purpose is none either.
        let copy = Signed { signature: root(1).sign_copy(&good.content), ..good.clone() };
        assert_eq!(keeper.offer(copy, none), Err(Refused::NotOurs));
        let other = Announcement { cluster: "queue".into(), ..said("a", 1, 1) };
        assert!(matches!(
            keeper.offer(signed(&root(1), &other), none),
            Err(Refused::AboutAnother { .. })
        ));
        assert_eq!(keeper.newest(), None);
    }
}
