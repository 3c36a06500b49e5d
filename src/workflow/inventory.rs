//! Finds out which workflows have changed at the API: one sweep of the lists for all of a Workspace.
//!
//! Per resync it takes the cheaper of a sweep and of questions about each. A row is a hint: it wakes
//! the resource, whose pass asks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::platform::object::Decoded;
use crate::sync::lock;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::lists::{LISTS, Seen, Swept, read};
use crate::api;
use crate::api::WorkflowStatus;
use crate::mistral::Error;
use crate::mistral::budget::Class;
use crate::workspace::connections::{Connections, Key, Live};
use crate::workspace::plan::Drift;

/// A workflow as it is watched: one that cannot be decoded must not hide the others.
pub type Guarded = Decoded<api::Workflow>;
type Ref = ObjectRef<Guarded>;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_secs(1);
/// Calls that a pass takes to look at one workflow: itself, its registrations, the active ones.
const CALLS_OF_A_LOOK: usize = 3;
/// After so many sweeps in a row without an answer, the Workspace is to be checked.
const SUSPECT_AFTER: u32 = 3;
/// For how long after its begin a process may not know yet that a Workspace has Workflows.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// One workflow that is looked after.
#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// When the API was last asked about it; when it was first tracked, if it has not been.
    at: Instant,
    /// The row that last had it looked at, if the look found nothing new: lists may leave out what a
    /// question tells.
    in_vain: Option<u64>,
    /// The row that it was woken for.
    woken_for: Option<u64>,
}

/// What a pass has found out for the inventory.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When the API was asked; none if the pass asked nothing.
    pub asked: Option<Instant>,
    /// The pass has changed the workflow.
    pub changed: bool,
}

/// What is known of all workflows that are looked after.
#[derive(Debug)]
pub struct Inventory {
    watched: Mutex<HashMap<Key, Watched>>,
    /// Objects that were woken in order to ask.
    looks: Mutex<HashSet<Ref>>,
    wake: UnboundedSender<Ref>,
    news: UnboundedSender<News>,
    begun: Instant,
}

/// What a sweep has found.
#[derive(Debug)]
pub struct News {
    /// Whose lists they were.
    pub key: Key,
    /// By which connection.
    pub live: Live,
    /// The lists.
    pub(super) swept: Swept,
}

/// The workflows of one Workspace.
#[derive(Debug)]
struct Watched {
    workflows: HashMap<Ref, Entry>,
    /// When the next resync is due.
    next: Instant,
    /// How often one is due.
    resync: Duration,
    /// Until when the API is left alone after trouble.
    paused_until: Option<Instant>,
    /// Calls that the last sweep took.
    cost: usize,
    sweeping: bool,
    troubles: u32,
    /// When the lists were last read; at first when this began.
    complete: Instant,
    /// The same by the wall clock, for people.
    seen_until: Timestamp,
    /// What is known of the sweeps of this process.
    drift: Drift,
    /// The Mistral workspace that the lists were of.
    workspace_id: Option<String>,
    /// The lists are to be read whether or not a workflow is looked after.
    discovers: bool,
    /// Workflows in the list when it was last read.
    count: Option<usize>,
}

/// What a Workspace needs now.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Ask about these.
    Questions(Vec<Ref>),
    Sweep,
}

impl Inventory {
    /// Looks after nothing yet; wakes objects through `wake` and tells of each sweep through `news`.
    pub fn new(wake: UnboundedSender<Ref>, news: UnboundedSender<News>) -> Self {
        Self { watched: Mutex::default(), looks: Mutex::default(), wake, news, begun: Instant::now() }
    }

    /// A pass has ended with this status. `absent`: the API has no workflow of that name or UUID.
    pub fn track(&self, key: &Key, object: &Ref, status: &WorkflowStatus, absent: Option<&str>, look: Look) {
        let seen = match absent {
            Some(identifier) => Seen::Absent(identifier.to_owned()),
            None => Seen::Found(Box::new(WorkflowStatus {
                // Not compared, and large.
                conditions: Vec::new(),
                definition: None,
                ..status.clone()
            })),
        };
        let mut watched = lock(&self.watched);
        // What was known before a restart is compared soon, and not for all Workspaces at once.
        let watched = watched.entry(key.clone()).or_insert_with(|| Watched::new(Instant::now() + spread(TICK * 5)));
        watched.track(object, seen, look);
    }

    /// The object is gone, or is to be left alone.
    pub fn untrack(&self, key: &Key, object: &Ref) {
        if let Some(watched) = lock(&self.watched).get_mut(key) {
            watched.workflows.remove(object);
        }
        lock(&self.looks).remove(object);
    }

    /// Whether changes that are made at Mistral are seen.
    pub fn drift(&self, key: &Key) -> Drift {
        match lock(&self.watched).get(key) {
            Some(watched) => watched.drift.clone(),
            // Nothing is looked after. At first it may only not be known yet.
            None if self.begun.elapsed() > UNKNOWN_FOR => Drift::Seen,
            None => Drift::Unknown,
        }
    }

    /// How many workflows the Mistral workspace has; none if its list has not been read to its end.
    pub fn count(&self, key: &Key) -> Option<usize> {
        lock(&self.watched).get(key)?.count
    }

    /// Whether the object was woken in order to ask.
    pub fn take_look(&self, object: &Ref) -> bool {
        lock(&self.looks).remove(object)
    }

    /// Wakes the object for another reason than to ask. False if nobody listens any more.
    pub fn wake(&self, object: &Ref) -> bool {
        self.wake.send(object.clone()).is_ok()
    }

    /// The longest time for which a workflow was neither asked about nor compared with a list; none where
    /// nothing is looked after.
    pub fn age(&self) -> Option<Duration> {
        let watched = lock(&self.watched);
        let ages = watched
            .values()
            .flat_map(|watched| watched.workflows.values().map(|entry| entry.at.max(watched.complete).elapsed()));
        ages.max()
    }

    /// The longest time for which a workflow has been due to be asked about or compared with a list, by the
    /// `resyncInterval` of its Workspace.
    pub fn overdue(&self) -> Duration {
        let watched = lock(&self.watched);
        let late = |watched: &Watched| {
            // No resync comes later than a tenth after its interval.
            let due_within = watched.resync + watched.resync / 10;
            let ages = watched.workflows.values().map(|entry| entry.at.max(watched.complete).elapsed());
            ages.max().unwrap_or_default().saturating_sub(due_within)
        };
        watched.values().map(late).max().unwrap_or_default()
    }

    /// Runs until `stop`, dropping objects that `exists` does not know any more. The lists of the Workspaces that
    /// `discovering` names are read in any case.
    pub async fn run(
        self: Arc<Self>,
        connections: Arc<Connections>,
        exists: impl Fn(&Ref) -> bool + Send + Sync + 'static,
        discovering: impl Fn() -> Vec<Key> + Send + Sync + 'static,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let discovering = discovering();
            lock(&self.watched).retain(|key, watched| {
                watched.workflows.retain(|object, _| exists(object));
                watched.discovers = discovering.contains(key);
                watched.sweeping || watched.discovers || !watched.workflows.is_empty()
            });
            for key in discovering {
                let soon = || Watched::new(Instant::now() + spread(TICK * 5));
                lock(&self.watched).entry(key).or_insert_with(soon).discovers = true;
            }
            lock(&self.looks).retain(|object| exists(object));
            let connected = connections.ready_among(lock(&self.watched).keys());
            for (key, live) in connected {
                let due = match lock(&self.watched).get_mut(&key) {
                    Some(watched) => {
                        watched.is_of(live.workspace_id.as_deref());
                        watched.due(Instant::now(), live.resync)
                    }
                    None => continue,
                };
                match due {
                    Due::Nothing => {}
                    Due::Questions(objects) => self.wake_all(objects),
                    // On a task of its own: an API that hangs holds up its own Workspace only.
                    Due::Sweep => {
                        tokio::spawn(Arc::clone(&self).sweep_safely(key, live, Arc::clone(&connections)));
                    }
                }
            }
        }
    }

    fn wake_all(&self, objects: Vec<Ref>) {
        let mut looks = lock(&self.looks);
        for object in objects {
            looks.insert(object.clone());
            let _ = self.wake.send(object);
        }
    }

    /// A sweep that dies must not be the last one.
    async fn sweep_safely(self: Arc<Self>, key: Key, live: Live, connections: Arc<Connections>) {
        let began = Instant::now();
        let client = live.waiting(Class::Drift, &key);
        let outcome = tokio::spawn(async move { read(&client).await }).await;
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a sweep of the workflows died; this is a bug in the operator");
            Err(Error::Transient { retry_after: None, message: "the sweep died".into() })
        });
        let workspace = format_args!("{}/{}", key.namespace, key.name);
        let mut drift_is_news = false;
        let (changed, news) = match lock(&self.watched).get_mut(&key) {
            Some(watched) => match outcome {
                Ok(swept) => {
                    for gap in &swept.gaps {
                        tracing::warn!(kind = "Workspace", object = %workspace, "{gap}; nothing is concluded from what it does not have");
                    }
                    drift_is_news = watched.sees();
                    (watched.compare(&swept, began), Some(swept))
                }
                Err(error) => {
                    tracing::warn!(kind = "Workspace", object = %workspace, %error, "the lists of workflows could not be read; it is tried again");
                    watched.put_off(error.retry_after());
                    let (refused, lasting) =
                        (matches!(error, Error::Unauthorized(_)), watched.troubles >= SUSPECT_AFTER);
                    if lasting || refused {
                        connections.suspect(&key);
                    }
                    drift_is_news = !refused && watched.sees_nothing(&error);
                    // That is the key's trouble, which the Workspace's own check tells. What a moment brings is told by
                    // nobody, but discovery is not to be silent for hours because one list fails.
                    let told = lasting && !refused;
                    (Vec::new(), told.then(|| Swept { without_rows: Some(error.to_string()), ..Swept::default() }))
                }
            },
            None => (Vec::new(), None),
        };
        self.wake_all(changed);
        if drift_is_news {
            connections.look_again(&key);
        }
        if let Some(swept) = news {
            let _ = self.news.send(News { key, live, swept });
        }
    }
}

impl Watched {
    fn new(next: Instant) -> Self {
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

    /// With another key the lists may be those of another Mistral workspace, where nothing is as it was.
    fn is_of(&mut self, workspace_id: Option<&str>) {
        if self.workspace_id.as_deref() != workspace_id {
            if self.workspace_id.is_some() {
                self.next = self.next.min(Instant::now() + spread(TICK * 5));
            }
            self.workspace_id = workspace_id.map(str::to_owned);
        }
    }

    fn track(&mut self, object: &Ref, seen: Seen, look: Look) {
        match self.workflows.get_mut(object) {
            // What was known stays known until somebody asks.
            Some(_) if look.asked.is_none() => {}
            Some(entry) => {
                entry.at = look.asked.unwrap_or(entry.at);
                let woken_for = entry.woken_for.take();
                entry.in_vain = woken_for.or(entry.in_vain).filter(|_| entry.seen == seen && !look.changed);
                entry.seen = seen;
            }
            None => {
                let at = look.asked.unwrap_or_else(Instant::now);
                self.workflows.insert(object.clone(), Entry { seen, at, in_vain: None, woken_for: None });
            }
        }
    }

    /// The cheaper of one sweep and a question about each.
    fn due(&mut self, now: Instant, resync: Duration) -> Due {
        self.resync = resync;
        // A shorter interval than before holds from now on.
        self.next = self.next.min(now + resync + resync / 10);
        let paused = self.paused_until.is_some_and(|until| now < until);
        let idle = self.workflows.is_empty() && !self.discovers;
        if idle || self.sweeping || paused || now < self.next {
            return Due::Nothing;
        }
        self.next = now + resync - resync / 10 + spread(resync / 5);
        if !self.discovers && self.workflows.len() * CALLS_OF_A_LOOK <= self.cost {
            // Each tells by itself whether it is seen.
            self.drift = Drift::Seen;
            return Due::Questions(self.workflows.keys().cloned().collect());
        }
        self.sweeping = true;
        Due::Sweep
    }

    /// The workflows that the lists have otherwise. What was seen after the sweep began is newer.
    fn compare(&mut self, swept: &Swept, began: Instant) -> Vec<Ref> {
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
                // Also where others are not known.
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

    /// A sweep has come to its end. Whether that is news.
    fn sees(&mut self) -> bool {
        self.troubles = 0;
        let before = std::mem::replace(&mut self.drift, Drift::Seen);
        before != Drift::Seen
    }

    /// A sweep met with trouble. Whether it is news that changes are not seen.
    fn sees_nothing(&mut self, error: &Error) -> bool {
        let is_news = self.troubles >= SUSPECT_AFTER && !matches!(self.drift, Drift::Unseen { .. });
        if is_news {
            self.drift = Drift::Unseen { since: self.seen_until, why: error.to_string() };
        }
        is_news
    }

    /// The sweep met with trouble: soon again, then less often.
    fn put_off(&mut self, retry_after: Option<Duration>) {
        self.sweeping = false;
        self.troubles = self.troubles.saturating_add(1);
        let wait = Duration::from_secs(1 << self.troubles.min(6)).min(Duration::from_secs(60));
        self.next = Instant::now();
        self.paused_until = Some(self.next + wait.max(retry_after.unwrap_or_default()));
    }
}

/// Some part of `limit`: what is due at one time for all Workspaces is spread over it.
fn spread(limit: Duration) -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    limit.mul_f64(f64::from(nanos % 1_000_003) / 1_000_003.0)
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
