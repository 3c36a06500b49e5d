//! Pagination by opaque tokens.
//!
//! A token holds the sort key of the last row sent, so rows that appear or disappear between two pages shift nothing.

use std::cmp::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// One page of rows and the token of the next one.
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) next: Option<String>,
}

/// Sorts `rows` by `key` and returns the page after `token`. Returns `None` if this pagination did not make the token. An
/// empty token is none.
pub(crate) fn page<T, K>(
    mut rows: Vec<T>,
    key: impl Fn(&T) -> K,
    order: Order,
    token: Option<&str>,
    limit: usize,
) -> Option<Page<T>>
where
    K: Ord + Serialize + DeserializeOwned,
{
    let compare = |left: &K, right: &K| match order {
        Order::Ascending => left.cmp(right),
        Order::Descending => right.cmp(left),
    };
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        let last: K = decode(token)?;
        rows.retain(|row| compare(&key(row), &last) == Ordering::Greater);
    }
    rows.sort_by(|left, right| compare(&key(left), &key(right)));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| encode(&key(row)));
    Some(Page { rows, next })
}

fn encode(key: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(key).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode<K: DeserializeOwned>(token: &str) -> Option<K> {
    let digits = token.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    serde_json::from_slice(&bytes?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    fn walk(order: Order) -> Vec<(String, u8)> {
        let rows: Vec<_> =
            [("b", 1), ("a", 2), ("c", 3), ("a", 1), ("d", 9)].map(|(name, id)| (name.to_owned(), id)).to_vec();
        let mut seen = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let part = page(rows.clone(), Clone::clone, order, token.as_deref(), 2).unwrap();
            seen.extend(part.rows);
            match part.next {
                Some(next) => token = Some(next),
                None => return seen,
            }
        }
    }

    #[test]
    fn pages_cover_each_row_once_in_order() {
        let ascending = walk(Order::Ascending);
        assert_eq!(ascending.len(), 5);
        assert!(ascending.is_sorted());
        let mut descending = walk(Order::Descending);
        descending.reverse();
        assert_eq!(ascending, descending);
    }

    #[test]
    fn a_last_page_that_is_full_has_no_token() {
        let part = page(vec![1, 2], |row| *row, Order::Ascending, None, 2).unwrap();
        assert!(part.next.is_none());
    }

    #[test]
    fn a_foreign_token_is_refused() {
        for token in ["zz", "1", "é", "7b7d"] {
            assert!(page(vec![1, 2], |row| *row, Order::Ascending, Some(token), 2).is_none());
        }
    }
}
