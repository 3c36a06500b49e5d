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
/// How far ahead turns are given. Most executions start before their turn and leave it unused; without this bound, unused
/// turns would hold up the next report for as long.
const AHEAD: Duration = Duration::from_secs(60);

/// The next free turn of each Workspace. One that is not in here, or whose turn has passed, is free now.
#[derive(Debug, Default)]
pub struct ReportTurns(Mutex<HashMap<WorkspaceKey, Instant>>);

impl ReportTurns {
    /// How long until the turn of an execution, which `mine` keeps from one reconcile to the next. An execution without
    /// a turn takes the next one of its Workspace, or is told when to ask again.
    pub fn wait(&self, workspace: &WorkspaceKey, mine: &mut Option<Instant>, now: Instant) -> Duration {
        *mine = mine.or_else(|| self.take(workspace, now));
        mine.map_or(AHEAD, |turn| turn.saturating_duration_since(now))
    }

    /// Forgets the Workspaces that are free.
    pub fn forget(&self, now: Instant) {
        self.lock().retain(|_, next| *next > now);
    }

    /// The next free turn; none if it is too far away.
    fn take(&self, workspace: &WorkspaceKey, now: Instant) -> Option<Instant> {
        let mut turns = self.lock();
        let next = turns.entry(workspace.clone()).or_insert(now);
        let turn = now.max(*next);
        if turn > now + AHEAD {
            return None;
        }
        *next = turn + EVERY;
        Some(turn)
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
        assert_eq!(turns.wait(&key("many"), &mut None, now), AHEAD, "it asks again");
    }

    #[test]
    fn turns_that_nobody_used_hold_up_the_next_report_for_a_minute_at_most() {
        let (turns, now) = (ReportTurns::default(), Instant::now());
        for _ in 0..10_000 {
            turns.wait(&key("many"), &mut None, now);
        }
        assert!(turns.wait(&key("many"), &mut None, now + EVERY) <= AHEAD);
        assert_eq!(turns.wait(&key("many"), &mut None, now + AHEAD + 2 * EVERY), Duration::ZERO);
    }

    #[test]
    fn of_five_thousand_rows_that_wait_each_asks_once_a_minute_and_ten_a_second_report() {
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
                if mine.is_some() {
                    // It is woken for another reason meanwhile, and keeps its turn.
                    assert_eq!(turns.wait(&key("many"), &mut mine, now + wait / 2), wait - wait / 2);
                }
                now += wait;
            }
            last = now - begun;
        }
        // The last one waits for 500 s.
        assert!(asked < 7 * 5000, "{asked}");
        assert_eq!(last, 4999 * EVERY);
        turns.forget(begun + last);
        assert!(!turns.lock().is_empty(), "its next turn has not come");
        turns.forget(begun + last + EVERY);
        assert!(turns.lock().is_empty());
    }
}
