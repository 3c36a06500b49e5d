//! A queue that serves namespaces in turn: a thousand waiters of one namespace hold up only each other.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::platform::fair_queue::FairQueue;
use crate::sync;

/// Releases one waiter at a time, with a rest between two.
#[derive(Debug)]
pub struct Line {
    rest: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    turns: FairQueue<oneshot::Sender<()>>,
    /// A task releases the waiters.
    is_moving: bool,
    /// When the next waiter may be released.
    next: Option<Instant>,
}

impl Line {
    /// An empty queue.
    pub fn new(rest: Duration) -> Self {
        Self { rest, waiting: Mutex::default() }
    }

    /// Waits for the next release of a waiter of this namespace. Dropping the future leaves the queue.
    pub async fn wait(self: &Arc<Self>, namespace: &str) {
        let (go, permit) = oneshot::channel();
        {
            let mut waiting = self.lock();
            waiting.turns.push(namespace, go);
            if !std::mem::replace(&mut waiting.is_moving, true) {
                tokio::spawn(Arc::clone(self).let_go());
            }
        }
        // If nobody releases waiters any more, the process is ending.
        let _ = permit.await;
    }

    async fn let_go(self: Arc<Self>) {
        loop {
            let next = self.lock().next;
            if let Some(next) = next {
                tokio::time::sleep_until(next).await;
            }
            let mut waiting = self.lock();
            let Some(go) = waiting.turns.pop() else {
                waiting.is_moving = false;
                return;
            };
            // Waiters that have left cost the others no time.
            if go.send(()).is_ok() {
                waiting.next = Some(Instant::now() + self.rest);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        sync::lock(&self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const REST: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_thousand_of_one_namespace_hold_up_only_each_other() {
        let line = Arc::new(Line::new(REST));
        let begun = Instant::now();
        let waits = |namespace: &'static str, number: usize| {
            let line = Arc::clone(&line);
            join_all((0..number).map(move |_| {
                let line = Arc::clone(&line);
                async move {
                    line.wait(namespace).await;
                    begun.elapsed()
                }
            }))
        };
        // The crowd comes first.
        let crowd = tokio::spawn(waits("crowd", 1000));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (others, more) = tokio::join!(waits("a", 1), waits("b", 2));
        for waited in others.into_iter().chain(more) {
            assert!(waited <= Duration::from_millis(100) + 6 * REST, "{waited:?}");
        }
        let last = crowd.await.unwrap().into_iter().max().unwrap();
        assert!((REST * 1000..REST * 1005).contains(&last), "{last:?}");
        assert_eq!(line.lock().turns.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_costs_nobody_time() {
        let line = Arc::new(Line::new(REST));
        line.wait("a").await;
        let begun = Instant::now();
        for _ in 0..1000 {
            assert!(tokio::time::timeout(Duration::ZERO, line.wait("a")).await.is_err());
        }
        line.wait("a").await;
        assert!(begun.elapsed() <= 2 * REST, "{:?}", begun.elapsed());
    }
}
