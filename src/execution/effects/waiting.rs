//! An execution that waits for its turn: when its status says so.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

use crate::execution::controller::Reconciliation;
use crate::execution::plan::{stop, waiting};
use crate::execution::state::Report;
use crate::platform::reconcile::Flow;
use crate::platform::requeue::jitter;
use crate::workspace::permit;

impl Reconciliation<'_> {
    /// The execution waits in the queue of its API key. If its row is still blank, the status says so.
    pub(crate) fn has_to_wait(&mut self) -> Flow {
        self.store_memory(true);
        let now = Timestamp::now();
        let deadline = stop::next_deadline(&self.state, &self.state.status, now);
        let recheck = deadline.unwrap_or(permit::RECHECK_AFTER).min(permit::RECHECK_AFTER);
        match waiting::blank_left(&self.state, now).filter(|_| !self.is_stand_in) {
            None => Flow::End(Action::requeue(recheck)),
            // The place is found by counting, so it is asked for last.
            Some(Duration::ZERO) => match self.may_report().then(|| self.ticket.place()).flatten() {
                Some(place) => {
                    self.state.outcomes.report = Report::Queued(place);
                    Flow::PlanAgain
                }
                None => Flow::End(Action::requeue(recheck.min(self.another_turn()))),
            },
            Some(left) => Flow::End(Action::requeue(recheck.min(left))),
        }
    }

    /// Whether one more status that only says why an execution waits may be written now.
    pub(crate) fn may_report(&self) -> bool {
        self.context.reports.check().is_ok()
    }

    /// When to try again to write such a status. Spread, since many may wait.
    pub(crate) fn another_turn(&self) -> Duration {
        Duration::from_millis(u64::from(1000 + jitter(&self.state.uid) % 4000))
    }
}
