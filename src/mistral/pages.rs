//! Reads lists page by page to their ends, in pages short enough to be read.
//!
//! If a page exceeds the longest response that is read, it is requested again with half as many rows. The page size
//! that fits is remembered for each list, and slowly forgotten: the long rows may be gone by then.

use crate::sync;
use crate::text::counted;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::error::Error;
use super::wire::Page;

/// The most rows that are read of one list, in pages of full size.
const MAX_FULL_PAGES: usize = 50;
/// The most calls for one list, however short its pages are.
const MAX_CALLS: usize = 200;
/// After this time, a page of twice as many rows is tried.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// The most lists that are remembered. Other lists begin with pages of full size each time.
const MAX_LISTS: usize = 1000;

/// The page size of each list. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pages(Arc<Mutex<HashMap<String, Known>>>);

/// What is remembered about a list.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Rows per page.
    size: u16,
    /// When `size` was determined.
    since: Instant,
    /// A gap in this list has been reported.
    told: bool,
}

/// Why a list was not read to its end. Nothing follows from the absence of a row in such a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The end of a sentence that begins with the name of the list.
    pub why: String,
    /// The previous read of the list had no gap.
    pub is_new: bool,
}

impl Pages {
    /// Reads a list to its end and passes each row to `each`. `list` names the list, including its filters. Pages have
    /// at most `full` rows. `ask` requests one page, by cursor and number of rows. `calls` counts the requests.
    ///
    /// # Errors
    /// The errors of `ask`, except for pages that are too long. Rows before an error have been passed on already.
    pub async fn read<T, F>(
        &self,
        list: &str,
        full: u16,
        calls: &mut usize,
        ask: impl Fn(Option<String>, u16) -> F,
        mut each: impl FnMut(T),
    ) -> Result<Option<Gap>, Error>
    where
        F: Future<Output = Result<Page<T>, Error>>,
    {
        let (mut size, mut fitted) = (self.size(list, full, Instant::now()), None);
        let (mut cursor, mut rows, mut unreadable, mut asked) = (None, 0, 0, 0);
        // Only hashes are kept: a cursor may be as long as a page.
        let (mut seen, hashes) = (HashSet::new(), RandomState::new());
        let gap = loop {
            if asked == MAX_CALLS || rows >= usize::from(full) * MAX_FULL_PAGES {
                break Some(format!("is read up to {rows} rows in {asked} pages, and has more"));
            }
            asked += 1;
            *calls += 1;
            let page: Page<T> = match ask(cursor.clone(), size).await {
                Err(Error::Unreadable { too_long: true, .. }) if size > 1 => {
                    size /= 2;
                    self.fits(list, size, Instant::now());
                    continue;
                }
                Err(Error::Unreadable { too_long: true, .. }) => {
                    // The cursor past this row would have come with it, so the list ends here. The page size returns to
                    // the largest that fitted.
                    self.fits(list, fitted.unwrap_or(size), Instant::now());
                    break Some(format!("is read up to {rows} rows, since the next one is too long"));
                }
                page => page?,
            };
            fitted = fitted.max(Some(size));
            rows += page.items.len() + page.unreadable;
            unreadable += page.unreadable;
            page.items.into_iter().for_each(&mut each);
            match page.next {
                None if unreadable == 0 => break None,
                None => break Some(format!("has {} that cannot be read", counted(unreadable, "row"))),
                next if !seen.insert(hashes.hash_one(&next)) => {
                    break Some(format!("repeats itself after {rows} rows"));
                }
                next => cursor = next,
            }
        };
        let is_new = self.told(list, full, gap.is_some());
        Ok(gap.map(|why| Gap { why, is_new }))
    }

    fn size(&self, list: &str, full: u16, now: Instant) -> u16 {
        let mut all = self.lock();
        let Some(known) = all.get_mut(list) else { return full };
        if now >= known.since + FORGET_AFTER {
            known.since = now;
            known.size = known.size.saturating_mul(2);
        }
        known.size = known.size.min(full);
        known.size
    }

    fn fits(&self, list: &str, size: u16, now: Instant) {
        self.remember(list, |known| (known.size, known.since) = (size, now));
    }

    /// Records whether the list has a gap, and returns whether the gap is new.
    fn told(&self, list: &str, full: u16, has_gap: bool) -> bool {
        let before = self.lock().get(list).is_some_and(|known| known.told);
        if has_gap != before {
            self.remember(list, |known| known.told = has_gap);
        }
        self.lock().retain(|_, known| known.told || known.size < full);
        has_gap && !before
    }

    fn remember(&self, list: &str, change: impl FnOnce(&mut Known)) {
        let mut all = self.lock();
        if all.len() < MAX_LISTS || all.contains_key(list) {
            change(all.entry(list.to_owned()).or_insert(Known { size: u16::MAX, since: Instant::now(), told: false }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        sync::lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A list of rows of these lengths. One response holds rows of at most `longest` in total.
    struct Api {
        rows: Vec<usize>,
        longest: usize,
        asked: RefCell<Vec<u16>>,
    }

    impl Api {
        fn new(rows: Vec<usize>, longest: usize) -> Self {
            Self { rows, longest, asked: RefCell::default() }
        }

        async fn page(&self, cursor: Option<String>, size: u16) -> Result<Page<usize>, Error> {
            self.asked.borrow_mut().push(size);
            let from = cursor.map_or(0, |cursor| cursor.parse().unwrap());
            let to = (from + usize::from(size)).min(self.rows.len());
            if self.rows[from..to].iter().sum::<usize>() > self.longest {
                return Err(Error::Unreadable { too_long: true, message: "too long".into() });
            }
            let next = (to < self.rows.len()).then(|| to.to_string());
            Ok(Page { items: (from..to).collect(), next, unreadable: 0 })
        }

        async fn read(&self, pages: &Pages, full: u16) -> (Vec<usize>, Option<Gap>, Vec<u16>) {
            let (mut rows, mut calls) = (Vec::new(), 0);
            let gap =
                pages.read("list", full, &mut calls, |cursor, size| self.page(cursor, size), |row| rows.push(row));
            let gap = gap.await.unwrap();
            (rows, gap, self.asked.take())
        }
    }

    #[tokio::test]
    async fn a_page_that_is_too_long_is_halved_and_the_next_reading_begins_there() {
        let (api, pages) = (Api::new(vec![10; 100], 300), Pages::default());
        let (rows, gap, asked) = api.read(&pages, 64).await;
        assert_eq!((rows, gap), ((0..100).collect(), None));
        assert_eq!(asked, [64, 32, 16, 16, 16, 16, 16, 16, 16]);
        let (rows, _, asked) = api.read(&pages, 64).await;
        assert_eq!((rows.len(), asked), (100, vec![16; 7]));
    }

    #[tokio::test]
    async fn what_was_too_long_is_tried_again_after_an_hour() {
        let pages = Pages::default();
        let begun = Instant::now();
        pages.fits("list", 16, begun);
        let mut sizes = Vec::new();
        for minutes in (0..=180).step_by(30) {
            sizes.push(pages.size("list", 64, begun + Duration::from_secs(minutes * 60)));
        }
        assert_eq!(sizes, [16, 16, 32, 32, 64, 64, 64]);
        assert_eq!(pages.size("another", 64, begun), 64);
        pages.told("list", 64, false);
        assert!(pages.lock().is_empty());
    }

    #[tokio::test]
    async fn a_row_that_is_too_long_by_itself_is_a_gap_that_is_told_once_and_does_not_make_all_pages_short() {
        let mut lengths = vec![1; 100];
        lengths[50] = 1000;
        let (api, pages) = (Api::new(lengths, 300), Pages::default());
        let (rows, gap, _) = api.read(&pages, 32).await;
        let gap = gap.unwrap();
        assert_eq!((rows.len(), gap.is_new), (50, true));
        assert!(gap.why.contains("up to 50 rows") && gap.why.contains("too long"), "{}", gap.why);
        let (rows, gap, asked) = api.read(&pages, 32).await;
        assert_eq!((rows.len(), gap.unwrap().is_new), (50, false));
        assert_eq!(asked, [32, 32, 16, 16, 8, 4, 2, 2, 1]);
        // The gap disappears and comes back.
        let whole = Api::new(vec![1; 100], 300);
        assert_eq!(whole.read(&pages, 32).await.1, None);
        assert!(api.read(&pages, 32).await.1.unwrap().is_new);
    }

    #[tokio::test]
    async fn unreadable_rows_a_cursor_that_comes_again_and_a_list_without_end_are_gaps() {
        let pages = Pages::default();
        let page = |items: usize, next: Option<&str>, unreadable| {
            Ok(Page { items: vec![0; items], next: next.map(str::to_owned), unreadable })
        };
        let read = async |list: &str, answer: &dyn Fn(Option<String>) -> Result<Page<usize>, Error>| {
            let (mut calls, mut rows) = (0, 0);
            let ask = |cursor, _| std::future::ready(answer(cursor));
            let gap = pages.read(list, 10, &mut calls, ask, |_| rows += 1).await;
            (gap.unwrap().unwrap().why, calls, rows)
        };
        let (why, calls, rows) = read("odd", &|cursor| match cursor {
            None => page(9, Some("a"), 1),
            Some(_) => page(3, None, 0),
        })
        .await;
        assert_eq!((why.as_str(), calls, rows), ("has 1 row that cannot be read", 2, 12));
        let (why, calls, _) = read("circle", &|_| page(10, Some("a"), 0)).await;
        assert!(why.contains("repeats itself") && calls == 2, "{why}");
        let (why, calls, _) = read("detour", &|cursor| match cursor.as_deref() {
            Some("a") => page(10, Some("b"), 0),
            _ => page(10, Some("a"), 0),
        })
        .await;
        assert!(why.contains("repeats itself") && calls == 3, "{why} after {calls}");
        let on = |cursor: Option<String>| Some(format!("{}x", cursor.unwrap_or_default()));
        let (why, calls, rows) = read("endless", &|cursor| page(10, on(cursor).as_deref(), 0)).await;
        assert_eq!((calls, rows), (50, 500), "{why}");
        let (_, calls, _) = read("empty", &|cursor| page(0, on(cursor).as_deref(), 0)).await;
        assert_eq!(calls, MAX_CALLS);
    }

    #[tokio::test]
    async fn what_is_remembered_of_lists_is_bounded() {
        let pages = Pages::default();
        (0..10 * MAX_LISTS).for_each(|n| pages.fits(&n.to_string(), 1, Instant::now()));
        assert_eq!(pages.lock().len(), MAX_LISTS);
    }
}
