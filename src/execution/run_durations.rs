//! Which workflows have long runs. Their starts are reported at once. For other workflows, the reconcile first waits
//! briefly for the run to end, which saves the write that only reports the start.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::sync;
use crate::workspace::connections::WorkspaceKey;

/// How long to wait after a start for the run to end. This catches runs of two seconds, as the list of ended runs is
/// read once a second.
pub const LINGER: Duration = Duration::from_secs(3);
/// Starts per second that are reported at once although the runs of their workflow are short, so that whoever starts one
/// run sees it running.
pub const PROMPT_STARTS: u32 = 2;
/// Maximum number of remembered workflows. Beyond it all are forgotten, which costs each of them one wait.
const MOST: usize = 10_000;

/// What is known of the workflows. Losing it costs a wait, but breaks no guarantee.
#[derive(Debug, Default)]
pub struct RunDurationHistory {
    /// Workflows whose last observed run took longer than the wait.
    long: Mutex<HashSet<(WorkspaceKey, String)>>,
}

impl RunDurationHistory {
    /// How long to wait for a run of this workflow.
    pub fn linger(&self, workspace: &WorkspaceKey, workflow: &str) -> Duration {
        let is_long = self.lock().contains(&(workspace.clone(), workflow.to_owned()));
        if is_long { Duration::ZERO } else { LINGER }
    }

    /// A run of this workflow has taken this long.
    pub fn took(&self, workspace: &WorkspaceKey, workflow: &str, length: Duration) {
        let workflow = (workspace.clone(), workflow.to_owned());
        let mut long = self.lock();
        if length < LINGER {
            long.remove(&workflow);
            return;
        }
        if long.len() >= MOST {
            long.clear();
        }
        long.insert(workflow);
    }

    /// A run of this workflow goes on after a wait of this length. A wait that was cut short says nothing about the run.
    pub fn goes_on_after(&self, workspace: &WorkspaceKey, workflow: &str, waited: Duration) {
        if waited >= LINGER {
            self.took(workspace, workflow, waited);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(WorkspaceKey, String)>> {
        sync::lock(&self.long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_told_late_only_where_runs_are_short_as_far_as_anybody_knows() {
        let key = |name: &str| WorkspaceKey { namespace: "team".into(), name: name.into() };
        let run_durations = RunDurationHistory::default();
        assert_eq!(run_durations.linger(&key("a"), "report"), LINGER);
        run_durations.took(&key("a"), "report", Duration::from_secs(60));
        assert_eq!(run_durations.linger(&key("a"), "report"), Duration::ZERO);
        assert_eq!(run_durations.linger(&key("b"), "report"), LINGER);
        assert_eq!(run_durations.linger(&key("a"), "other"), LINGER);
        run_durations.took(&key("a"), "report", Duration::from_secs(1));
        assert_eq!(run_durations.linger(&key("a"), "report"), LINGER);
    }

    #[test]
    fn a_wait_that_was_cut_short_says_nothing_about_how_long_runs_take() {
        let key = WorkspaceKey { namespace: "team".into(), name: "a".into() };
        let run_durations = RunDurationHistory::default();
        run_durations.took(&key, "report", Duration::from_secs(60));
        run_durations.goes_on_after(&key, "report", LINGER / 2);
        assert_eq!(run_durations.linger(&key, "report"), Duration::ZERO, "its runs are as long as before");
        run_durations.goes_on_after(&key, "other", LINGER / 2);
        assert_eq!(run_durations.linger(&key, "other"), LINGER);
        run_durations.goes_on_after(&key, "other", LINGER);
        assert_eq!(run_durations.linger(&key, "other"), Duration::ZERO);
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let (key, run_durations) =
            (WorkspaceKey { namespace: "team".into(), name: "a".into() }, RunDurationHistory::default());
        for n in 0..=MOST {
            run_durations.took(&key, &n.to_string(), LINGER);
        }
        assert_eq!(run_durations.lock().len(), 1);
    }
}
