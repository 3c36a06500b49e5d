//! An execution that waits for its turn: when its status says so.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

use crate::execution::controller::Reconciliation;
use crate::execution::plan::{stop, waiting};
use crate::execution::state::Report;
use crate::platform::reconcile::Flow;
use crate::workspace::permit;

/// When to look again at an execution that has just left the queue.
const LEFT_THE_QUEUE: Duration = Duration::from_secs(1);

impl Reconciliation<'_> {
    /// The execution waits in the queue of its API key. If its row is blank, or says something that no longer holds,
    /// the status says so.
    pub(crate) fn has_to_wait(&mut self) -> Flow {
        let now = Timestamp::now();
        let deadline = stop::next_deadline(&self.state, &self.state.status, now);
        let recheck = deadline.unwrap_or(permit::RECHECK_AFTER).min(permit::RECHECK_AFTER);
        let waited = self.ticket.waited().unwrap_or_default();
        let left = waiting::report_due(&self.state, waited, now).filter(|_| !self.is_stand_in);
        let left = left.map(|left| if left.is_zero() { self.report_turn() } else { left });
        self.store_memory(true);
        match left {
            None => Flow::End(Action::requeue(recheck)),
            // The place is found by counting, so it is asked for last.
            Some(Duration::ZERO) => match self.ticket.place() {
                Some(place) => {
                    self.state.outcomes.report = Report::Queued(place);
                    Flow::PlanAgain
                }
                None => Flow::End(Action::requeue(recheck.min(LEFT_THE_QUEUE))),
            },
            Some(left) => Flow::End(Action::requeue(recheck.min(left))),
        }
    }

    /// How long until this execution may write a status that only says why it waits.
    pub(crate) fn report_turn(&mut self) -> Duration {
        self.context.report_turns.wait(&self.key, &mut self.report_at, Instant::now())
    }
}
