//! The budget of one API key: the rate of its calls, the calls in flight, and who gets the next permit.
//!
//! All callers with the same origin and key share one budget. A reconcile never waits for a permit: it requests one,
//! ends, and is woken when the permit is granted. Tasks wait. `book.rs` decides; this file is the shell around it.

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

/// Notifies a requester that it has been granted a permit. Returns false if the requester no longer exists.
pub type Wake = Box<dyn Fn() -> bool + Send + Sync>;

/// The budget of one API key.
pub struct Budget {
    /// Unique among all budgets.
    id: u64,
    state: Mutex<State>,
    changed: Notify,
    calls: Calls,
    strained: Box<dyn Fn() + Send + Sync>,
}

struct State {
    book: Book<Waiter>,
    /// A task is granting permits as they become free.
    pumping: bool,
    /// The saturation that was last reported.
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
    /// Allows `limit` calls per second and counts them in `calls`. `strained` is called each time the reason why calls
    /// wait changes.
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

    /// Unique among the budgets of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Changes the limit, in calls per second.
    pub fn set_limit(&self, limit: u32) {
        let mut state = self.lock();
        let limit = f64::from(limit);
        if (state.book.bucket().limit() - limit).abs() > f64::EPSILON {
            state.book.bucket().set_limit(limit, Instant::now());
            self.changed.notify_one();
        }
    }

    /// Requests a permit. If none is free, the caller is queued and woken when it is granted one. It then has a few
    /// seconds to call this again.
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

    /// Withdraws the caller's request: it does not want to call any more, or not now.
    pub fn leave(&self, object: &str) {
        self.lock().book.leave(object, Instant::now());
        self.changed.notify_one();
    }

    /// Waits for a permit: for tasks.
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

    /// Why calls wait, for how long they have, and how many wait. `None` if nothing keeps calls waiting for long.
    pub fn strain(&self) -> Option<(Strain, Duration, usize)> {
        let (mut state, now) = (self.lock(), Instant::now());
        let strain = state.book.strain(now);
        if strain.is_none() {
            // The next saturation is news again.
            state.told = None;
        }
        let (strain, since) = strain?;
        Some((strain, now.duration_since(since), state.book.waiting()))
    }

    /// How much longer nothing may be sent, because the API has asked for a pause.
    pub fn pause_left(&self) -> Option<Duration> {
        self.lock().book.bucket().pause_left(Instant::now())
    }

    /// Grants permits as long as requests are queued.
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

    /// Grants at most one permit. Also returns whether the reason why calls wait has changed.
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

/// A task's request for a permit. Dropping this withdraws the request, also when the future is cancelled.
struct Here<'a> {
    budget: &'a Budget,
    object: &'a str,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.budget.leave(self.object);
    }
}

/// A permit to call, until it is dropped. It comes with one token. Further calls borrow tokens, and later requests wait
/// until these are repaid: work that has begun does not wait again.
#[derive(Debug)]
pub struct Turn {
    budget: Arc<Budget>,
    /// The priority level that the permit was requested with.
    class: Class,
    unused: AtomicBool,
}

impl Turn {
    /// Accounts for a call that is about to be sent.
    ///
    /// # Errors
    /// If the API has asked for a pause, with the time that is left of it.
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

    /// Records that the API refused a call because there were too many.
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

/// How the calls of a client get their permits.
#[derive(Clone, Debug, Default)]
pub(super) enum Pace {
    /// Calls need no permit.
    #[default]
    Free,
    /// All calls use this permit.
    In(Arc<Turn>),
    /// Each call waits for a permit of its own.
    Waiting { budget: Arc<Budget>, class: Class, lane: String },
}

impl Pace {
    /// The permit of a call that is about to be sent.
    ///
    /// # Errors
    /// If nothing may be sent, with the time that is left until then.
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
