//! What the API asks of the operator itself, beside the store.

use async_trait::async_trait;
use secrecy::SecretString;

use super::messages::Tested;
use crate::api::preview::{Bill, Offers};
use crate::store::Stored;

/// What an object would cost, and who could run it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Appraisal {
    /// What would be bought; `None` while the chain was not read.
    pub bill: Option<Bill>,
    /// Who could run a node.
    pub offers: Offers,
    /// What should be known before, one sentence each.
    pub warnings: Vec<String>,
}

/// The operator, asked.
#[async_trait]
pub trait Appraiser: Send + Sync {
    /// What these objects would cost if they were applied in this order; one answer for each.
    /// Nothing is changed and nothing is sent.
    async fn appraise(&self, wanted: Vec<Stored>) -> Vec<Appraisal>;

    /// Encrypts the keys to a cluster's object storage, as its object has them; `None` where the root
    /// secret is not known.
    fn seal(&self, cluster: &str, keys: &SecretString) -> Option<String>;

    /// The same keys as they are encrypted for one cluster, encrypted for another; `None` where they
    /// were not encrypted for the first.
    fn seal_again(&self, from: &str, to: &str, sealed: &str) -> Option<String>;

    /// Sends a test message to everybody who is told outside, and says what came of each.
    async fn test_notifications(&self) -> Vec<Tested>;
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// An operator that says what it was told to say.
    #[derive(Default)]
    pub struct FakeAppraiser {
        pub appraisal: std::sync::Mutex<Appraisal>,
        pub tested: Vec<Tested>,
    }

    #[async_trait]
    impl Appraiser for FakeAppraiser {
        async fn appraise(&self, wanted: Vec<Stored>) -> Vec<Appraisal> {
            let appraisal = self.appraisal.lock().unwrap().clone();
            vec![appraisal; wanted.len()]
        }

        fn seal(&self, cluster: &str, _: &SecretString) -> Option<String> {
            Some(format!("sealed:of-{cluster}"))
        }

        fn seal_again(&self, from: &str, to: &str, sealed: &str) -> Option<String> {
            (sealed == format!("sealed:of-{from}")).then(|| format!("sealed:of-{to}"))
        }

        async fn test_notifications(&self) -> Vec<Tested> {
            self.tested.clone()
        }
    }
}
