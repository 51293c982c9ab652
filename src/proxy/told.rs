//! What those who follow the master tell those who carry connections.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Target, Word};

/// What was heard of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Tells the cluster from others that had its name.
    pub uid: String,
    /// Where writes go.
    pub target: Target,
    /// As in [`Word`].
    pub changing: Option<u64>,
    /// The same.
    pub successor: Option<Target>,
    /// Who has the data besides.
    pub replicas: Vec<Reader>,
}

/// A node that serves reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// Where it is.
    pub target: Target,
    /// It had what the master had, but for what was under way.
    pub in_sync: bool,
    /// Bytes behind the master; `None` where nobody knows.
    pub lag_bytes: Option<i64>,
}

/// Where followers tell what they hear. Clones tell the same listeners.
#[derive(Clone, Debug)]
pub(super) struct Told {
    word: watch::Sender<Word>,
    readers: watch::Sender<Vec<Reader>>,
    trouble: watch::Sender<String>,
    lineage: Arc<Mutex<Lineage>>,
}

/// Epochs of a cluster that was made anew begin again. They are counted on from those of the one
/// before: of two words that are told the later one never has the lower epoch.
#[derive(Debug, Default)]
struct Lineage {
    uid: String,
    before: u64,
    highest: u64,
}

impl Lineage {
    /// What an epoch of this cluster is to add to.
    fn of(&mut self, uid: &str, epoch: u64) -> u64 {
        if self.uid != uid {
            self.before = if self.uid.is_empty() { 0 } else { self.highest + 1 };
            uid.clone_into(&mut self.uid);
        }
        self.highest = self.highest.max(self.before.saturating_add(epoch));
        self.before
    }
}

/// The other end.
#[derive(Clone, Debug)]
pub(super) struct Ears {
    /// The master, for those who carry connections to it.
    pub word: watch::Receiver<Word>,
    /// Everybody else.
    pub readers: watch::Receiver<Vec<Reader>>,
    /// Why nothing is heard, one sentence.
    pub trouble: watch::Receiver<String>,
}

impl Told {
    /// Nothing was heard yet.
    pub fn new() -> (Self, Ears) {
        let (word, heard) = watch::channel(Word::default());
        let (readers, heard_readers) = watch::channel(Vec::new());
        let (trouble, heard_trouble) = watch::channel("an answer".to_owned());
        let ears = Ears { word: heard, readers: heard_readers, trouble: heard_trouble };
        (Self { word, readers, trouble, lineage: Arc::default() }, ears)
    }

    /// Something was heard.
    pub fn hear(&self, heard: Heard) {
        let Heard { uid, mut target, changing, mut successor, replicas } = heard;
        let own_epoch = target.epoch;
        let before =
            self.lineage.lock().unwrap_or_else(PoisonError::into_inner).of(&uid, own_epoch);
        target.epoch = target.epoch.saturating_add(before);
        let changing = changing.map(|epoch| epoch.saturating_add(before));
        if let Some(successor) = &mut successor {
            successor.epoch = successor.epoch.saturating_add(before);
        }
        self.readers.send_if_modified(|known| {
            let is_news = *known != replicas;
            *known = replicas;
            is_news
        });
        self.word.send_if_modified(|word| {
            let is_new_master = word.target.as_ref() != Some(&target);
            if is_new_master {
                tracing::info!(epoch = own_epoch, master = target.incarnation, ip = %target.ip, "following the master");
            }
            let told = Word { target: Some(target), changing, successor };
            let is_news = *word != told;
            *word = told;
            is_news
        });
    }

    /// This one was chosen to be the next master, after a failure, and takes no writes yet.
    pub fn hear_elected(&self, uid: &str, mut chosen: Target) {
        let mut lineage = self.lineage.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.epoch = chosen.epoch.saturating_add(lineage.of(uid, chosen.epoch));
        drop(lineage);
        self.word.send_if_modified(|word| {
            let is_news = word.successor.as_ref() != Some(&chosen);
            word.successor = Some(chosen);
            is_news
        });
    }

    /// Nothing is heard, and why; true when the master is known all the same.
    pub fn miss(&self, why: String) -> bool {
        self.trouble.send_replace(why);
        self.word.borrow().target.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_a_cluster_that_was_made_anew_go_on_from_those_before() {
        let (told, ears) = Told::new();
        let mut last = 0;
        for (uid, epoch, changing) in
            [("a", 1, None), ("a", 5, Some(6)), ("b", 1, Some(2)), ("b", 2, None), ("c", 1, None)]
        {
            let target = Target {
                epoch,
                incarnation: format!("cache-0-{uid}{epoch}"),
                ip: [100, 64, 0, 1].into(),
                port: 6379,
            };
            let successor = changing.map(|epoch| Target { epoch, ..target.clone() });
            let (uid, replicas) = (uid.to_owned(), Vec::new());
            told.hear(Heard { uid: uid.clone(), target, changing, successor, replicas });
            let word = ears.word.borrow().clone();
            let now = word.target.unwrap().epoch;
            assert!(now > last, "{uid} {epoch}");
            assert_eq!(word.changing.map(|next| next - now), changing.map(|next| next - epoch));
            assert_eq!(word.successor.map(|successor| successor.epoch), word.changing);
            last = now;
        }
    }

    #[test]
    fn who_was_chosen_is_told_beside_the_last_master_until_there_is_another() {
        let (told, ears) = Told::new();
        let target = |epoch, node: u8| Target {
            epoch,
            incarnation: format!("cache-{node}-a"),
            ip: [100, 64, 0, node].into(),
            port: 6379,
        };
        let master = |uid: &str, target| {
            let (uid, replicas) = (uid.to_owned(), Vec::new());
            Heard { uid, target, changing: None, successor: None, replicas }
        };
        told.hear(master("a", target(5, 0)));
        // A cluster that was made anew.
        told.hear(master("b", target(1, 0)));
        let first = ears.word.borrow().target.clone().unwrap();
        told.hear_elected("b", target(2, 1));
        let word = ears.word.borrow().clone();
        assert_eq!(word.target, Some(first.clone()), "nobody else takes writes");
        let chosen = word.successor.clone().unwrap();
        assert_eq!((chosen.epoch, chosen.ip), (first.epoch + 1, target(2, 1).ip));
        assert_eq!(word.aim(false, None), Some(&chosen), "who waits goes there");
        assert_eq!(word.aim(true, Some(chosen.epoch)), Some(&first), "unless it was refused");
        told.hear(master("b", target(2, 1)));
        let word = ears.word.borrow().clone();
        assert_eq!((word.target, word.successor), (Some(chosen), None));
    }
}
