//! Paging of lists, as the chain does it.

use super::query::QueryError;
use super::state::{BidKey, DeploymentKey, OrderKey};
use crate::wire::cosmos::base::query::v1beta1::{PageRequest, PageResponse};

/// Rows of a page when the request names no limit.
const DEFAULT_LIMIT: u64 = 100;

/// A row's key in its list, as clients are given it to go on from.
pub(super) trait RowKey {
    fn row_key(&self) -> Vec<u8>;
}

impl RowKey for DeploymentKey {
    fn row_key(&self) -> Vec<u8> {
        format!("{}/{}", self.0, self.1).into_bytes()
    }
}

impl RowKey for OrderKey {
    fn row_key(&self) -> Vec<u8> {
        format!("{}/{}/{}/{}", self.0, self.1, self.2, self.3).into_bytes()
    }
}

impl RowKey for BidKey {
    fn row_key(&self) -> Vec<u8> {
        format!("{}/{}/{}/{}/{}", self.0, self.1, self.2, self.3, self.4).into_bytes()
    }
}

impl RowKey for String {
    fn row_key(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
}

impl RowKey for Vec<u8> {
    fn row_key(&self) -> Vec<u8> {
        self.clone()
    }
}

impl RowKey for (String, String) {
    fn row_key(&self) -> Vec<u8> {
        format!("{}/{}", self.0, self.1).into_bytes()
    }
}

/// The rows of a page, and where the next one begins.
type Page<'a, K, V> = (Vec<(&'a K, &'a V)>, Option<PageResponse>);

/// One page of the rows, which are in the list's order. `total` counts the page, not the list.
pub(super) fn page<'a, K: RowKey + 'a, V: 'a>(
    rows: impl DoubleEndedIterator<Item = (&'a K, &'a V)>,
    request: Option<&PageRequest>,
) -> Result<Page<'a, K, V>, QueryError> {
    let request = request.cloned().unwrap_or_default();
    if !request.key.is_empty() && request.offset > 0 {
        return Err(QueryError::invalid(
            "invalid request, either offset or key is expected, got both",
        ));
    }
    let mut rows: Vec<_> = if request.reverse { rows.rev().collect() } else { rows.collect() };
    let skip = if request.key.is_empty() {
        usize::try_from(request.offset).unwrap_or(usize::MAX)
    } else {
        let at = rows.iter().position(|(key, _)| key.row_key() == request.key);
        at.ok_or_else(|| QueryError::invalid("invalid pagination key"))?
    };
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit };
    let mut taken = rows.split_off(skip.min(rows.len()));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let next_key = taken.get(limit).map(|(key, _)| key.row_key()).unwrap_or_default();
    taken.truncate(limit);
    let total = taken.len() as u64;
    Ok((taken, Some(PageResponse { next_key, total })))
}
