//! When which execution may write a status that only says why it waits.
//!
//! Each Workspace has turns of its own, so that one with thousands of waiting executions delays the reports of no
//! other. An execution that has to wait for its turn is told when the turn comes, so that it need not ask again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::sync;
use crate::workspace::connections::WorkspaceKey;

/// Time between two such writes of a Workspace. A thousand executions that wait must not cost a thousand writes more.
const EVERY: Duration = Duration::from_millis(100);

/// The next free turn of each Workspace. One that is not in here, or whose turn has passed, is free now.
#[derive(Debug, Default)]
pub struct ReportTurns(Mutex<HashMap<WorkspaceKey, Instant>>);

impl ReportTurns {
    /// How long until the turn of an execution, which `mine` keeps from one reconcile to the next. An execution without
    /// a turn takes the next one of its Workspace.
    pub fn wait(&self, workspace: &WorkspaceKey, mine: &mut Option<Instant>, now: Instant) -> Duration {
        mine.get_or_insert_with(|| self.take(workspace, now)).saturating_duration_since(now)
    }

    /// Forgets the Workspaces that are free.
    pub fn forget(&self, now: Instant) {
        self.lock().retain(|_, next| *next > now);
    }

    fn take(&self, workspace: &WorkspaceKey, now: Instant) -> Instant {
        let mut turns = self.lock();
        let next = turns.entry(workspace.clone()).or_insert(now);
        let turn = now.max(*next);
        *next = turn + EVERY;
        turn
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceKey, Instant>> {
        sync::lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str) -> WorkspaceKey {
        WorkspaceKey { namespace: namespace.into(), name: "default".into() }
    }

    #[test]
    fn the_first_report_of_a_tenant_comes_at_once_beside_five_thousand_rows_of_another() {
        let (turns, now) = (ReportTurns::default(), Instant::now());
        for _ in 0..5000 {
            turns.wait(&key("many"), &mut None, now);
        }
        assert_eq!(turns.wait(&key("few"), &mut None, now), Duration::ZERO);
        assert_eq!(turns.wait(&key("many"), &mut None, now), 5000 * EVERY);
    }

    #[test]
    fn of_five_thousand_rows_that_wait_each_asks_twice_and_ten_a_second_report() {
        let (turns, begun) = (ReportTurns::default(), Instant::now());
        let (mut asked, mut last) = (0, Duration::ZERO);
        for _ in 0..5000 {
            let (mut mine, mut now) = (None, begun);
            loop {
                asked += 1;
                let wait = turns.wait(&key("many"), &mut mine, now);
                if wait.is_zero() {
                    break;
                }
                // It is woken for another reason meanwhile, and keeps its turn.
                assert_eq!(turns.wait(&key("many"), &mut mine, now + wait / 2), wait - wait / 2);
                now += wait;
            }
            last = now - begun;
        }
        assert!(asked < 2 * 5000, "{asked}");
        assert_eq!(last, 4999 * EVERY);
        turns.forget(begun + last);
        assert!(!turns.lock().is_empty(), "its next turn has not come");
        turns.forget(begun + last + EVERY);
        assert!(turns.lock().is_empty());
    }
}
