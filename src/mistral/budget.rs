//! The budget of one API key: how many calls leave a second, how many are under way, and whose turn it is.
//!
//! One budget belongs to one origin and key, whoever uses it. A pass over a resource never waits for its turn: it
//! asks, ends, and is woken when the turn has come. Tasks wait. What decides is in `book.rs`; this is the shell.

mod book;
mod bucket;
mod queue;
#[cfg(test)]
mod tests;

use crate::sync;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::calls::{Calls, OneMore};
use book::{Asked, Book, Next};
pub use book::{Caller, Strain, TURNS};
pub use queue::Class;

/// Tells a caller that its turn has come; false if it is not there any more.
pub type Wake = Box<dyn Fn() -> bool + Send + Sync>;

/// The budget of one API key.
pub struct Budget {
    /// Another number for each budget.
    id: u64,
    state: Mutex<State>,
    changed: Notify,
    calls: Calls,
    strained: Box<dyn Fn() + Send + Sync>,
}

struct State {
    book: Book<Waiter>,
    /// Somebody gives out turns as they come.
    pumping: bool,
    /// What was told last of what keeps calls waiting.
    told: Option<Strain>,
}

struct Waiter {
    wake: Wake,
    _waits: OneMore,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Budget {
    /// So many calls a second, counted in `calls`. `strained` is called each time that something else keeps calls
    /// waiting than before.
    pub fn new(limit: u32, calls: Calls, strained: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let state = State { book: Book::new(f64::from(limit), Instant::now()), pumping: false, told: None };
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(state),
            changed: Notify::new(),
            calls,
            strained: Box::new(strained),
        })
    }

    /// Another number for each budget of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// From now on so many calls a second.
    pub fn set_limit(&self, limit: u32) {
        let mut state = self.lock();
        let limit = f64::from(limit);
        if (state.book.bucket().limit() - limit).abs() > f64::EPSILON {
            state.book.bucket().set_limit(limit, Instant::now());
            self.changed.notify_one();
        }
    }

    /// Asks for a turn: there is one now, or the caller stands in the queue and is woken when there is. It then has
    /// a few seconds to ask again.
    pub fn ask(self: &Arc<Self>, class: Class, caller: &Caller, wake: impl FnOnce() -> Wake) -> Option<Turn> {
        let mut state = self.lock();
        let waiter = || Waiter { wake: wake(), _waits: OneMore::of(&self.calls.waiting(class)) };
        let asked = state.book.ask(class, caller, Instant::now(), waiter);
        let Some(Asked { class, waited, .. }) = asked else {
            if !std::mem::replace(&mut state.pumping, true) {
                tokio::spawn(Arc::clone(self).pump());
            }
            drop(state);
            self.changed.notify_one();
            return None;
        };
        drop(state);
        self.calls.waited(class, waited);
        Some(Turn { budget: Arc::clone(self), class, unused: AtomicBool::new(true) })
    }

    /// The caller does not want to call any more, or not now.
    pub fn leave(&self, object: &str) {
        self.lock().book.leave(object, Instant::now());
        self.changed.notify_one();
    }

    /// Waits for a turn: for tasks.
    pub async fn take(self: &Arc<Self>, class: Class, lane: &str) -> Turn {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let object = format!("task {}", NEXT.fetch_add(1, Ordering::Relaxed));
        let caller = Caller { lane: lane.to_owned(), object };
        let here = Here { budget: self, object: &caller.object };
        let told = Arc::new(Notify::new());
        loop {
            let wake = || -> Wake {
                let told = Arc::clone(&told);
                Box::new(move || {
                    told.notify_one();
                    true
                })
            };
            if let Some(turn) = self.ask(class, &caller, wake) {
                drop(here);
                return turn;
            }
            told.notified().await;
        }
    }

    /// What keeps calls waiting, for how long it has, and how many wait; none if nothing does for long.
    pub fn strain(&self) -> Option<(Strain, Duration, usize)> {
        let (mut state, now) = (self.lock(), Instant::now());
        let strain = state.book.strain(now);
        if strain.is_none() {
            // The next time is news again.
            state.told = None;
        }
        let (strain, since) = strain?;
        Some((strain, now.duration_since(since), state.book.waiting()))
    }

    /// How much longer nothing may be sent, because the API has asked for that.
    pub fn pause_left(&self) -> Option<Duration> {
        self.lock().book.bucket().pause_left(Instant::now())
    }

    /// Gives out turns for as long as somebody waits.
    async fn pump(self: Arc<Self>) {
        loop {
            let (next, strained) = self.turn();
            if strained {
                (self.strained)();
            }
            match next {
                Next::Turn(_) => {}
                Next::At(at) => {
                    let at = at.max(Instant::now() + Duration::from_millis(1));
                    let _ = tokio::time::timeout_at(at.into(), self.changed.notified()).await;
                }
                Next::Full => self.changed.notified().await,
                Next::Idle => return,
            }
        }
    }

    /// Gives out at most one turn. Also returns whether something else keeps calls waiting than before.
    fn turn(&self) -> (Next, bool) {
        let mut state = self.lock();
        let now = Instant::now();
        let next = state.book.next(now);
        match &next {
            Next::Turn(object) => {
                if !state.book.waiter(object).is_some_and(|waiter| (waiter.wake)()) {
                    state.book.leave(object, now);
                }
            }
            Next::Idle => state.pumping = false,
            Next::At(_) | Next::Full => {}
        }
        (next, state.is_strained_otherwise(now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

impl State {
    fn is_strained_otherwise(&mut self, now: Instant) -> bool {
        let strain = self.book.strain(now).map(|(strain, _)| strain);
        std::mem::replace(&mut self.told, strain) != strain
    }
}

/// Whoever waits for a turn, also where the future is dropped on its way.
struct Here<'a> {
    budget: &'a Budget,
    object: &'a str,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.budget.leave(self.object);
    }
}

/// The right to call, until it is dropped. It comes with one token; further calls borrow theirs, and whoever comes
/// later waits for them: what has begun does not wait again.
#[derive(Debug)]
pub struct Turn {
    budget: Arc<Budget>,
    /// What it was asked for with.
    class: Class,
    unused: AtomicBool,
}

impl Turn {
    /// A call is about to be sent.
    ///
    /// # Errors
    /// When nothing may be sent now, because the API has asked for that; and for how much longer.
    pub(super) fn spend(&self) -> Result<(), Duration> {
        let (mut state, now) = (self.budget.lock(), Instant::now());
        if let Some(left) = state.book.bucket().pause_left(now) {
            return Err(left);
        }
        if !self.unused.swap(false, Ordering::Relaxed) {
            state.book.bucket().borrow(now);
        }
        Ok(())
    }

    /// The API has refused a call because there are too many.
    pub(crate) fn refused(&self, retry_after: Option<Duration>) {
        let (mut state, now) = (self.budget.lock(), Instant::now());
        state.book.refused(retry_after, now);
        let strained = state.is_strained_otherwise(now);
        drop(state);
        if strained {
            (self.budget.strained)();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let unused = self.unused.load(Ordering::Relaxed);
        self.budget.lock().book.ended(self.class, unused, Instant::now());
        self.budget.changed.notify_one();
    }
}

/// How the calls of a client come to their turns.
#[derive(Clone, Debug, Default)]
pub(super) enum Pace {
    /// They need none.
    #[default]
    Free,
    /// They are all of this one.
    In(Arc<Turn>),
    /// Each waits for one of its own.
    Waiting { budget: Arc<Budget>, class: Class, lane: String },
}

impl Pace {
    /// The turn of a call that is sent now.
    ///
    /// # Errors
    /// When nothing may be sent, and for how much longer.
    pub async fn turn(&self) -> Result<Option<Arc<Turn>>, Duration> {
        match self {
            Self::Free => Ok(None),
            Self::In(turn) => turn.spend().map(|()| Some(Arc::clone(turn))),
            Self::Waiting { budget, class, lane } => loop {
                let turn = budget.take(*class, lane).await;
                if turn.spend().is_ok() {
                    return Ok(Some(Arc::new(turn)));
                }
            },
        }
    }
}
