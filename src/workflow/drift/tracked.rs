//! Decides when the workflows of one Workspace are compared with the API, and which of them differ. No I/O here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use crate::mistral::Error;
use crate::workflow::Guarded;
use crate::workflow::lists::{LISTS, LastObserved, ListSnapshot};
use crate::workspace::findings::Drift;

pub(super) type Ref = ObjectRef<Guarded>;

/// How often the detector checks what is due.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// Calls that a reconcile makes to refresh one workflow: for the workflow, its registrations, and the active ones.
const CALLS_PER_REFRESH: usize = 3;
/// Consecutive failed sweeps after which the Workspace is checked.
pub(super) const SUSPECT_AFTER: u32 = 3;

/// One tracked workflow.
#[derive(Debug)]
pub(super) struct Entry {
    seen: LastObserved,
    /// When the workflow was last refreshed, or found unchanged by a sweep; if never, when it was first tracked.
    pub(super) at: Instant,
    /// The row that last triggered a refresh, if that found nothing new: a list may leave out what a `GET` shows.
    in_vain: Option<u64>,
    /// The row that the workflow was woken for.
    woken_for: Option<u64>,
}

/// What a reconcile reports to the detector.
#[derive(Clone, Copy, Debug)]
pub struct RefreshOutcome {
    /// When the reconcile called the API; none if it did not.
    pub asked: Option<Instant>,
    /// The reconcile has changed the workflow.
    pub changed: bool,
}

/// The tracked workflows of one Workspace.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) workflows: HashMap<Ref, Entry>,
    /// When the next resync is due.
    next: Instant,
    /// The resync interval.
    pub(super) resync: Duration,
    /// Until when there is no resync after trouble.
    paused_until: Option<Instant>,
    /// Calls that the last sweep took.
    cost: usize,
    pub(super) sweeping: bool,
    pub(super) troubles: u32,
    /// When the list of workflows was last read to its end; at first, when tracking began.
    pub(super) complete: Instant,
    /// The same by the wall clock, for messages.
    pub(super) seen_until: Timestamp,
    /// Whether the sweeps of this process detect drift.
    pub(super) drift: Drift,
    /// The Mistral workspace that the lists came from.
    workspace_id: Option<String>,
    /// Discovery needs the lists, whether or not a workflow is tracked.
    pub(super) discovers: bool,
    /// Workflows in the list when it was last read to its end.
    pub(super) count: Option<usize>,
}

/// What a Workspace needs now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Refresh each of these.
    Refreshes(Vec<Ref>),
    Sweep,
}

impl Watched {
    pub(super) fn new(next: Instant) -> Self {
        Self {
            workflows: HashMap::new(),
            next,
            resync: Duration::ZERO,
            paused_until: None,
            cost: LISTS,
            sweeping: false,
            troubles: 0,
            complete: Instant::now(),
            seen_until: Timestamp::now(),
            drift: Drift::Unknown,
            workspace_id: None,
            discovers: false,
            count: None,
        }
    }

    /// Another key may lead to another Mistral workspace, where nothing that is known holds.
    pub(super) fn is_of(&mut self, workspace_id: Option<&str>) {
        if self.workspace_id.as_deref() != workspace_id {
            if self.workspace_id.is_some() {
                self.next = self.next.min(Instant::now() + spread(TICK * 5));
            }
            self.workspace_id = workspace_id.map(str::to_owned);
        }
    }

    pub(super) fn track(&mut self, object: &Ref, seen: LastObserved, refresh: RefreshOutcome) {
        match self.workflows.get_mut(object) {
            // What is known stays until a reconcile calls the API.
            Some(_) if refresh.asked.is_none() => {}
            Some(entry) => {
                entry.at = refresh.asked.unwrap_or(entry.at);
                let woken_for = entry.woken_for.take();
                entry.in_vain = woken_for.or(entry.in_vain).filter(|_| entry.seen == seen && !refresh.changed);
                entry.seen = seen;
            }
            None => {
                let at = refresh.asked.unwrap_or_else(Instant::now);
                self.workflows.insert(object.clone(), Entry { seen, at, in_vain: None, woken_for: None });
            }
        }
    }

    /// What is due: the cheaper of one sweep and a refresh of each workflow.
    pub(super) fn due(&mut self, now: Instant, resync: Duration) -> Due {
        self.resync = resync;
        // A shortened interval takes effect at once.
        self.next = self.next.min(now + resync + resync / 10);
        let paused = self.paused_until.is_some_and(|until| now < until);
        let idle = self.workflows.is_empty() && !self.discovers;
        if idle || self.sweeping || paused || now < self.next {
            return Due::Nothing;
        }
        self.next = now + resync - resync / 10 + spread(resync / 5);
        if !self.discovers && self.workflows.len() * CALLS_PER_REFRESH <= self.cost {
            // Each Workflow reports by itself whether its refresh works.
            self.drift = Drift::Seen;
            return Due::Refreshes(self.workflows.keys().cloned().collect());
        }
        self.sweeping = true;
        Due::Sweep
    }

    /// The workflows that differ from the lists. What was seen after the sweep began is newer.
    pub(super) fn compare(&mut self, swept: &ListSnapshot, began: Instant) -> Vec<Ref> {
        self.sweeping = false;
        self.troubles = 0;
        self.paused_until = None;
        self.cost = swept.calls;
        if swept.is_complete() {
            self.count = swept.rows.as_ref().map(HashMap::len);
            self.complete = began;
            self.seen_until = Timestamp::now();
        }
        let mut changed = Vec::new();
        for (object, entry) in self.workflows.iter_mut().filter(|(_, entry)| entry.at < began) {
            if !swept.differs(&entry.seen) {
                entry.in_vain = None;
                // The entry counts as compared even if other rows are not known.
                entry.at = began;
                continue;
            }
            let row = swept.fingerprint(&entry.seen);
            if row.is_some() && row == entry.in_vain {
                continue;
            }
            entry.woken_for = row;
            changed.push(object.clone());
        }
        changed
    }

    /// A sweep has succeeded. Returns whether drift detection was not known to work before.
    pub(super) fn sees(&mut self) -> bool {
        self.troubles = 0;
        let before = std::mem::replace(&mut self.drift, Drift::Seen);
        before != Drift::Seen
    }

    /// A sweep has failed. Returns whether drift detection counts as failed from now on.
    pub(super) fn sees_nothing(&mut self, error: &Error) -> bool {
        let is_news = self.troubles >= SUSPECT_AFTER && !matches!(self.drift, Drift::Unseen { .. });
        if is_news {
            self.drift = Drift::Unseen { since: self.seen_until, why: error.to_string() };
        }
        is_news
    }

    /// A sweep has failed: the next one comes soon, later ones less often.
    pub(super) fn put_off(&mut self, retry_after: Option<Duration>) {
        self.sweeping = false;
        self.troubles = self.troubles.saturating_add(1);
        let wait = Duration::from_secs(1 << self.troubles.min(6)).min(Duration::from_secs(60));
        self.next = Instant::now();
        self.paused_until = Some(self.next + wait.max(retry_after.unwrap_or_default()));
    }
}

/// An arbitrary part of `limit`, to spread what would be due for all Workspaces at once.
pub(super) fn spread(limit: Duration) -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    limit.mul_f64(f64::from(nanos % 1_000_003) / 1_000_003.0)
}
