//! Lists of the chain, asked for page by page: all of a list, or an error.

use std::future::Future;

use super::ChainError;
use super::endpoint::Node;
use crate::wire::cosmos::base::query::v1beta1::{PageRequest, PageResponse};

/// Items of a page. The chain knows no upper bound and gives 100 unless asked for another number: ten
/// times that are one question for all nodes of some hundred clusters, and a megabyte at most.
const ITEMS: u64 = 1000;
/// A list of more pages is not one that this operator has a use for; a node may make them smaller
/// than they are asked for.
const MOST: usize = 200;

impl Node {
    /// Asks for page after page of `what` until there is none. A list that does not end is an
    /// error: what was cut off would count as not there.
    pub(super) async fn pages<T, Fut>(
        &self,
        what: &str,
        ask: impl Fn(Self, PageRequest) -> Fut,
    ) -> Result<Vec<T>, ChainError>
    where
        Fut: Future<Output = Result<(Vec<T>, Option<PageResponse>), ChainError>>,
    {
        let mut all = Vec::new();
        let mut key = Vec::new();
        for _ in 0..MOST {
            let request = PageRequest { key, limit: ITEMS, ..PageRequest::default() };
            let (items, page) = ask(self.clone(), request).await?;
            all.extend(items);
            key = page.map(|page| page.next_key).unwrap_or_default();
            if key.is_empty() {
                return Ok(all);
            }
        }
        Err(self.invalid(format!("{what} do not end after {MOST} pages")))
    }
}
