//! The loop of a reconcile, the same for every kind: plan, act, and plan again, until the plan settles.
//!
//! A kind brings its state, a pure plan, and a shell that carries out one step. The loop brings what no kind may
//! forget: it does nothing once the term is over, and a plan that never settles cannot spin.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::controller::Action;

use crate::platform::apiserver::{Error, Written};
use crate::platform::leader::term::Term;
use crate::sync::lock;

/// More steps than any reconcile needs.
const MAX_STEPS: usize = 16;
/// When an object is reconciled again whose plan did not settle.
const AFTER_A_BUG: Duration = Duration::from_secs(60);
/// How soon an object is reconciled again if the watch has not yet delivered the operator's own last write.
const UNTIL_WATCHED: Duration = Duration::from_secs(1);

/// What a plan returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<Step, Settled> {
    /// Carry out this step, fold its outcome into the state, and plan again.
    Act(Step),
    /// End the reconcile.
    Settle(Box<Settled>),
}

/// Lets a step of one sort stand where a step of any sort is expected.
macro_rules! sorts_of_steps {
    ($step:ident { $($variant:ident($sort:ident)),+ }) => {
        $(impl From<$sort> for $step {
            fn from(step: $sort) -> Self {
                Self::$variant(step)
            }
        })+
    };
}
pub(crate) use sorts_of_steps;

/// How a reconcile goes on after a step.
#[derive(Debug)]
pub enum Flow {
    /// With the next step.
    PlanAgain,
    /// Not at all: nothing is left to do, or to be said.
    End(Action),
}

/// One reconcile of one object.
pub trait Reconcile: Sized + Send {
    /// One effect or question.
    type Step: Send;
    /// How the plan ends.
    type Settled: Send;

    /// The next step, from the state alone.
    fn plan(&self, now: Timestamp) -> Decision<Self::Step, Self::Settled>;

    /// Carries out one step and folds its outcome into the state.
    ///
    /// # Errors
    /// When the Kubernetes API cannot be used, or somebody else changed the object first.
    fn act(&mut self, step: Self::Step) -> impl Future<Output = Result<Flow, Error>> + Send;

    /// A step failed: keeps what the next reconcile has to know, if anything.
    fn failed(&self) {}

    /// Writes the status if it differs, and says when to come back.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    fn settle(&mut self, settled: Self::Settled) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// Runs one reconcile to its end, or until the term is over. Borrows the reconcile: an async function that took it by
/// value would store it twice in its future.
///
/// # Errors
/// Those of its steps.
pub async fn run<R: Reconcile>(reconcile: &mut R, term: &Term) -> Result<Action, Error> {
    for _ in 0..MAX_STEPS {
        let decision = reconcile.plan(Timestamp::now());
        if term.is_over() {
            return Ok(Action::await_change());
        }
        match decision {
            Decision::Act(step) => match reconcile.act(step).await {
                Ok(Flow::PlanAgain) => {}
                Ok(Flow::End(action)) => return Ok(action),
                Err(error) => {
                    reconcile.failed();
                    return Err(error);
                }
            },
            // Boxed: thousands of reconciles may wait at a time, each as large as the largest call that it may make.
            Decision::Settle(settled) => return Box::pin(reconcile.settle(*settled)).await,
        }
    }
    tracing::error!("the plan does not settle; this is a bug in the operator");
    Ok(Action::requeue(AFTER_A_BUG))
}

/// What this process keeps of one object between reconciles. Losing it costs calls, never a promise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CachedState<M> {
    /// What the kind remembers.
    pub memory: M,
    /// The next reconcile is to ask the remote API, also where nothing seems to have changed.
    pub refresh: bool,
    /// The operator's last write to the object.
    pub written: Option<Written>,
}

/// What this process keeps of all objects of a kind, by UID.
#[derive(Debug)]
pub struct CachedStates<M>(Mutex<HashMap<String, CachedState<M>>>);

impl<M> Default for CachedStates<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Clone + Default + PartialEq> CachedStates<M> {
    /// The state of this object.
    ///
    /// # Errors
    /// When to reconcile instead: the watch has not delivered the operator's own last write yet, so the object is older
    /// than what is known.
    pub fn of<K: Resource>(&self, object: &K) -> Result<CachedState<M>, Action> {
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        let state = lock(&self.0).get(uid).cloned().unwrap_or_default();
        match &state.written {
            Some(written) if written.is_ahead_of(object) => Err(Action::requeue(UNTIL_WATCHED)),
            _ => Ok(state),
        }
    }

    /// Keeps the state of the object with this UID. An empty one takes no room.
    pub fn store(&self, uid: &str, state: CachedState<M>) {
        if state == CachedState::default() {
            self.remove(uid);
        } else {
            lock(&self.0).insert(uid.to_owned(), state);
        }
    }

    /// Forgets the object with this UID.
    pub fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Forgets all objects but these, by their UID and by what is remembered of them.
    pub fn forget_all_but(&self, is_needed: impl Fn(&str, &M) -> bool) {
        lock(&self.0).retain(|uid, state| is_needed(uid, &state.memory));
    }
}

/// Keeps a panic in a reconcile from ending the process: a new process would only meet the same object again.
///
/// # Errors
/// Those of the reconcile, and [`Error::Panicked`].
pub async fn contained(reconcile: impl Future<Output = Result<Action, Error>>) -> Result<Action, Error> {
    AssertUnwindSafe(reconcile).catch_unwind().await.unwrap_or(Err(Error::Panicked))
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Plans as many steps as it is told to, and then settles.
    struct Counting<'a> {
        steps: usize,
        fails: bool,
        seen: &'a Mutex<Vec<&'static str>>,
    }

    impl Reconcile for Counting<'_> {
        type Step = ();
        type Settled = ();

        fn plan(&self, _: Timestamp) -> Decision<(), ()> {
            if self.steps > 0 { Decision::Act(()) } else { Decision::Settle(Box::new(())) }
        }

        async fn act(&mut self, (): ()) -> Result<Flow, Error> {
            lock(self.seen).push("step");
            self.steps -= 1;
            if self.fails { Err(Error::Panicked) } else { Ok(Flow::PlanAgain) }
        }

        fn failed(&self) {
            lock(self.seen).push("failed");
        }

        async fn settle(&mut self, (): ()) -> Result<Action, Error> {
            lock(self.seen).push("settled");
            Ok(Action::await_change())
        }
    }

    async fn seen(stopped: bool, steps: usize, fails: bool) -> Vec<&'static str> {
        let (stop, seen) = (CancellationToken::new(), Mutex::default());
        let term = Term::unlimited(stop, Timestamp::now());
        if stopped {
            term.end();
        }
        let _ = run(&mut Counting { steps, fails, seen: &seen }, &term).await;
        seen.into_inner().unwrap()
    }

    #[tokio::test]
    async fn a_reconcile_acts_until_its_plan_settles_and_does_nothing_once_the_term_is_over() {
        assert_eq!(seen(false, 2, false).await, ["step", "step", "settled"]);
        assert_eq!(seen(false, 2, true).await, ["step", "failed"]);
        assert_eq!(seen(true, 2, false).await, Vec::<&str>::new());
        assert_eq!(seen(false, 1000, false).await.len(), MAX_STEPS, "a plan that does not settle spins");
    }

    #[test]
    fn what_is_remembered_of_a_resource_that_is_gone_is_kept_as_long_as_it_is_needed() {
        let states = CachedStates::<u8>::default();
        for (uid, memory) in [("there", 1), ("gone", 2), ("needed", 3)] {
            states.store(uid, CachedState { memory, ..CachedState::default() });
        }
        states.forget_all_but(|uid, memory| uid == "there" || *memory == 3);
        let mut left: Vec<_> = lock(&states.0).keys().cloned().collect();
        left.sort();
        assert_eq!(left, ["needed", "there"]);
    }

    #[tokio::test]
    async fn a_reconcile_that_panics_is_repeated_later_and_ends_nothing_else() {
        let outcome = contained(async { panic!("a bug") }).await;
        assert!(matches!(outcome, Err(Error::Panicked)));
    }
}
