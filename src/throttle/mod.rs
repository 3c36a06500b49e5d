//! The budget of one API key: the rate of calls, the calls in flight, and who gets the next permit.
//!
//! All callers with the same origin and key share one budget. A reconcile never waits for a permit: it requests one,
//! ends, and is woken when the permit is granted. Tasks wait. `dispatcher.rs` decides; this file is the shell around it.

mod bucket;
mod dispatcher;
pub mod metrics;
mod queue;
#[cfg(test)]
mod tests;

use crate::sync;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use dispatcher::{Asked, Dispatcher, Next};
pub use dispatcher::{PERMITS, Place, Requester, Saturation};
use metrics::{InFlightGuard, Waits};
pub use queue::Priority;

/// Notifies a requester that it has been granted a permit. Returns false if the requester no longer exists.
pub type Wake = Box<dyn Fn() -> bool + Send + Sync>;

/// The budget of one API key.
pub struct Budget {
    /// Unique among all budgets.
    id: u64,
    state: Mutex<State>,
    changed: Notify,
    waits: Waits,
    saturation_changed: Box<dyn Fn() + Send + Sync>,
}

struct State {
    dispatcher: Dispatcher<Waiter>,
    /// A task is granting permits as they become free.
    granting: bool,
    /// The saturation that was last reported.
    reported: Option<Saturation>,
}

struct Waiter {
    wake: Wake,
    _waits: InFlightGuard,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Budget {
    /// Allows `limit` calls per second and counts them in `waits`. `saturation_changed` is called each time the reason
    /// why calls wait changes.
    pub fn new(limit: u32, waits: Waits, saturation_changed: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let state =
            State { dispatcher: Dispatcher::new(f64::from(limit), Instant::now()), granting: false, reported: None };
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(state),
            changed: Notify::new(),
            waits,
            saturation_changed: Box::new(saturation_changed),
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
        if (state.dispatcher.bucket().limit() - limit).abs() > f64::EPSILON {
            state.dispatcher.bucket().set_limit(limit, Instant::now());
            self.changed.notify_one();
        }
    }

    /// Requests a permit. If none is free, the caller is queued and woken when it is granted one. It then has a few
    /// seconds to call this again.
    pub fn ask(
        self: &Arc<Self>,
        priority: Priority,
        requester: &Requester,
        wake: impl FnOnce() -> Wake,
    ) -> Option<Permit> {
        let mut state = self.lock();
        let waiter = || Waiter { wake: wake(), _waits: InFlightGuard::of(&self.waits.waiting(priority)) };
        let asked = state.dispatcher.ask(priority, requester, Instant::now(), waiter);
        let Some(Asked { priority, waited, .. }) = asked else {
            if !std::mem::replace(&mut state.granting, true) {
                tokio::spawn(Arc::clone(self).grant_permits());
            }
            drop(state);
            self.changed.notify_one();
            return None;
        };
        drop(state);
        self.waits.waited(priority, waited);
        Some(Permit { budget: Arc::clone(self), priority, unused: AtomicBool::new(true) })
    }

    /// Withdraws the caller's request: it does not want to call any more, or not now.
    pub fn leave(&self, object: &str) {
        self.lock().dispatcher.leave(object, Instant::now());
        self.changed.notify_one();
    }

    /// Marks the queued caller of this object as busy, or as free again. A busy caller cannot take a permit, but keeps its
    /// place in the queue.
    pub fn set_busy(&self, object: &str, busy: bool) {
        self.lock().dispatcher.set_busy(object, busy, Instant::now());
        if !busy {
            self.changed.notify_one();
        }
    }

    /// How long this object has waited. None if it does not wait.
    pub fn waited(&self, object: &str) -> Option<Duration> {
        self.lock().dispatcher.waited(object, Instant::now())
    }

    /// Where this object stands in the queue. None if it does not wait.
    pub fn place(&self, object: &str) -> Option<Place> {
        self.lock().dispatcher.place(object, Instant::now())
    }

    /// The number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.lock().dispatcher.waiting()
    }

    /// Waits for a permit: for tasks.
    pub async fn take(self: &Arc<Self>, priority: Priority, flow: &str) -> Permit {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let object = format!("task {}", NEXT.fetch_add(1, Ordering::Relaxed));
        let requester = Requester { flow: flow.to_owned(), object };
        let here = Here { budget: self, object: &requester.object };
        let granted = Arc::new(Notify::new());
        loop {
            let wake = || -> Wake {
                let granted = Arc::clone(&granted);
                Box::new(move || {
                    granted.notify_one();
                    true
                })
            };
            if let Some(permit) = self.ask(priority, &requester, wake) {
                drop(here);
                return permit;
            }
            granted.notified().await;
        }
    }

    /// Why calls wait, for how long they have, and how many wait. `None` if nothing keeps calls waiting for long.
    pub fn saturation(&self) -> Option<(Saturation, Duration, usize)> {
        let (mut state, now) = (self.lock(), Instant::now());
        let saturation = state.dispatcher.saturation(now);
        if saturation.is_none() {
            // The next saturation is news again.
            state.reported = None;
        }
        let (saturation, since) = saturation?;
        Some((saturation, now.duration_since(since), state.dispatcher.waiting()))
    }

    /// The current rate, in calls per second.
    pub fn rate(&self) -> f64 {
        self.lock().dispatcher.bucket().rate(Instant::now())
    }

    /// How much longer nothing may be sent, because the API has asked for a pause.
    pub fn pause_left(&self) -> Option<Duration> {
        self.lock().dispatcher.bucket().pause_left(Instant::now())
    }

    /// Grants permits as long as requests are queued.
    async fn grant_permits(self: Arc<Self>) {
        loop {
            let (next, is_news) = self.permit();
            if is_news {
                (self.saturation_changed)();
            }
            match next {
                Next::Permit(_) => {}
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
    fn permit(&self) -> (Next, bool) {
        let mut state = self.lock();
        let now = Instant::now();
        let next = state.dispatcher.next(now);
        match &next {
            Next::Permit(object) => {
                if !state.dispatcher.waiter(object).is_some_and(|waiter| (waiter.wake)()) {
                    state.dispatcher.leave(object, now);
                }
            }
            Next::Idle => state.granting = false,
            Next::At(_) | Next::Full => {}
        }
        (next, state.saturation_has_changed(now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

impl State {
    fn saturation_has_changed(&mut self, now: Instant) -> bool {
        let saturation = self.dispatcher.saturation(now).map(|(saturation, _)| saturation);
        std::mem::replace(&mut self.reported, saturation) != saturation
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
pub struct Permit {
    budget: Arc<Budget>,
    /// The priority level that the permit was requested with.
    priority: Priority,
    unused: AtomicBool,
}

impl Permit {
    /// Accounts for a call that is about to be sent.
    ///
    /// # Errors
    /// If the API has asked for a pause, with the time that is left of it.
    pub(crate) fn spend(&self) -> Result<(), Duration> {
        let (mut state, now) = (self.budget.lock(), Instant::now());
        if let Some(left) = state.dispatcher.bucket().pause_left(now) {
            return Err(left);
        }
        if !self.unused.swap(false, Ordering::Relaxed) {
            state.dispatcher.bucket().borrow(now);
        }
        Ok(())
    }

    /// Records that the API refused a call because there were too many.
    pub(crate) fn refused(&self, retry_after: Option<Duration>) {
        let (mut state, now) = (self.budget.lock(), Instant::now());
        state.dispatcher.refused(retry_after, now);
        let is_news = state.saturation_has_changed(now);
        drop(state);
        if is_news {
            (self.budget.saturation_changed)();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let unused = self.unused.load(Ordering::Relaxed);
        self.budget.lock().dispatcher.ended(self.priority, unused, Instant::now());
        self.budget.changed.notify_one();
    }
}
