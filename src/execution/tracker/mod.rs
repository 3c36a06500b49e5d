//! Polls the runs in progress: per Workspace and interval one sweep or a few gets, never a timer per object. A sweep
//! reads the list of runs that have ended.
//!
//! The tracker only wakes objects. Their own reconcile gets the state of the run.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::clock::{earlier, later};
use crate::execution::Guarded;
use crate::execution::run_durations::LINGER;
use crate::mistral::wire::{Execution, TERMINAL};
use crate::mistral::{Client, Error, RunFilter};
use crate::sync::lock;
use crate::throttle::Priority;
use crate::workspace::connections::{Connections, WorkspaceKey};

/// How often the tracker checks what is due.
const TICK: Duration = Duration::from_millis(250);
/// Runs due within this time count as due now, if one list serves them all. A list waits for other runs at most this
/// long.
const AHEAD: Duration = Duration::from_secs(1);
/// Age at which a new run is polled for the first time.
const EARLY: Duration = Duration::from_millis(500);
/// Maximum pages per sweep: other people's runs are listed too.
const MAX_PAGES: usize = 5;
/// Rows per page: the maximum of the API.
const PAGE_SIZE: u16 = 1000;
/// How far a sweep reaches back before the newest end that it has seen: runs may appear late.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
/// How often a run is fetched even if complete sweeps cover it: its row may be permanently missing.
const SEEN_BY_SWEEPS: Duration = Duration::from_mins(30);
/// After this many consecutive sweeps or gets without an answer, the Workspace is checked.
const SUSPECT_AFTER: u32 = 3;

type Ref = ObjectRef<Guarded>;

/// The runs in progress, by Workspace.
#[derive(Debug)]
pub struct Tracker {
    watched: Mutex<HashMap<WorkspaceKey, Watched>>,
    /// Objects that were woken to get their run, with the row if a sweep found the end.
    refreshes: Mutex<HashMap<Ref, Option<Box<Execution>>>>,
    /// Reconciles that wait for this themselves.
    waiting: Mutex<HashMap<Ref, Arc<Notify>>>,
    wake: UnboundedSender<Ref>,
}

/// The runs of one Workspace.
#[derive(Debug, Default)]
struct Watched {
    runs: HashMap<Ref, Run>,
    /// When the recently started runs were first seen, including those that have ended.
    starts: VecDeque<Instant>,
    /// No run that is still tracked ended before this, less an overlap. By the clock of the API.
    swept_until: Option<Timestamp>,
    /// Pages that the last sweep read.
    pages: usize,
    sweeping: bool,
    /// When the last sweep began.
    swept: Option<Instant>,
    troubles: u32,
    /// Objects whose get has failed since the last one that was answered: a single bad run does not hold up the others.
    troubled: HashSet<Ref>,
    paused_until: Option<Instant>,
}

/// What the API has just said about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiAnswer {
    /// The run was not fetched.
    None,
    /// The API knows the run.
    Exists,
    /// The API does not know the run.
    NotFound,
}

#[derive(Clone, Debug)]
struct Run {
    execution_id: String,
    started: Timestamp,
    /// When a sweep or a get is due.
    next_look: Instant,
    /// When the run was last fetched, or a get was last requested.
    asked: Instant,
    /// When a complete sweep or a get last showed the state of the run.
    looked: Instant,
    /// Consecutive gets of the run without an answer.
    unanswered: u32,
    /// A sweep without the end of this run is no proof that it goes on: a sweep has reported the end, the last get
    /// failed or did not find the run, or this process has never fetched it.
    doubtful: bool,
}

/// What is due in a Workspace.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Get the runs of these objects.
    Questions(Vec<Ref>),
    /// Sweep, and also get the runs of these objects.
    Sweep(Vec<Ref>),
}

/// What a sweep found.
struct ListSnapshot {
    /// The tracked runs that ended, by execution id.
    ended: HashMap<String, Box<Execution>>,
    newest_end: Option<Timestamp>,
    pages: usize,
    /// The list was read to its end, and all rows could be read.
    complete: bool,
}

impl Tracker {
    /// A tracker without runs. It wakes objects through `wake`.
    pub fn new(wake: UnboundedSender<Ref>) -> Self {
        Self { watched: Mutex::default(), refreshes: Mutex::default(), waiting: Mutex::default(), wake }
    }

    /// Tracks a run that is in progress as far as is known.
    pub fn track(&self, key: &WorkspaceKey, object: &Ref, execution_id: &str, started: Timestamp, word: ApiAnswer) {
        let mut watched = lock(&self.watched);
        let watched = watched.entry(key.clone()).or_default();
        let now = Instant::now();
        let age = age(started, Timestamp::now());
        if word != ApiAnswer::None {
            watched.troubles = 0;
            watched.troubled.clear();
            let run = Run {
                execution_id: execution_id.to_owned(),
                started,
                next_look: now + look_interval(age),
                asked: now,
                looked: now,
                unanswered: 0,
                doubtful: word == ApiAnswer::NotFound,
            };
            if watched.runs.insert(object.clone(), run).is_none() && age < LINGER {
                watched.forget_starts(now);
                watched.starts.push_back(now);
            }
        } else if !watched.runs.contains_key(object) {
            // An earlier process started the run, which may have ended at any time since.
            watched.swept_until = Some(watched.swept_until.map_or(started, |until| until.min(started)));
            let run = Run {
                execution_id: execution_id.to_owned(),
                started,
                next_look: now,
                asked: now,
                looked: now,
                unanswered: 0,
                doubtful: true,
            };
            watched.runs.insert(object.clone(), run);
        }
    }

    /// Stops tracking a run that has ended, or whose object is gone.
    pub fn untrack(&self, key: &WorkspaceKey, object: &Ref) {
        if let Some(watched) = lock(&self.watched).get_mut(key) {
            watched.runs.remove(object);
        }
        lock(&self.refreshes).remove(object);
    }

    /// Whether the object was woken to get its run; if so, with the row if a sweep found the end.
    pub fn take_refresh(&self, object: &Ref) -> Option<Option<Box<Execution>>> {
        lock(&self.refreshes).remove(object)
    }

    /// Waits within a reconcile for a reason to get the run, instead of being woken. Returns the row if a sweep found
    /// the end.
    pub async fn refresh(&self, object: &Ref) -> Option<Box<Execution>> {
        let waiting = Waiting::new(self, object);
        loop {
            if let Some(row) = self.take_refresh(object) {
                return row;
            }
            waiting.told.notified().await;
        }
    }

    /// Wakes the object for another reason than to get its run. False if nothing listens any more.
    pub fn wake(&self, object: &Ref) -> bool {
        self.wake.send(object.clone()).is_ok()
    }

    /// A get of this run failed. The API is then left alone for a while, unless this is the only failing one of several
    /// runs and the API did not ask to wait. Returns whether the Workspace should be checked.
    pub fn had_trouble(&self, key: &WorkspaceKey, object: &Ref, retry_after: Option<Duration>) -> bool {
        let mut watched = lock(&self.watched);
        let watched = watched.entry(key.clone()).or_default();
        watched.troubled.insert(object.clone());
        if let Some(run) = watched.runs.get_mut(object) {
            run.doubtful = true;
            run.unanswered = run.unanswered.saturating_add(1);
        }
        let alone = watched.troubled.len() == 1 && watched.runs.len() > 1;
        if alone && retry_after.is_none() {
            return false;
        }
        watched.pause(retry_after)
    }

    /// The longest time since the state of a run in progress was seen. None if no run is in progress.
    pub fn longest_unseen(&self) -> Option<Duration> {
        let watched = lock(&self.watched);
        watched.values().flat_map(|watched| watched.runs.values()).map(|run| run.looked.elapsed()).max()
    }

    /// Drops Workspaces that no longer exist, once no run is tracked there.
    pub fn forget_all_but(&self, exists: impl Fn(&WorkspaceKey) -> bool) {
        lock(&self.watched).retain(|key, watched| exists(key) || watched.sweeping || !watched.runs.is_empty());
    }

    /// Runs until `stop`, and drops objects that `exists` no longer knows.
    pub async fn run(
        self: Arc<Self>,
        connections: Arc<Connections>,
        exists: impl Fn(&Ref) -> bool + Send + Sync + 'static,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            lock(&self.watched).values_mut().for_each(|watched| watched.runs.retain(|object, _| exists(object)));
            lock(&self.refreshes).retain(|object, _| exists(object));
            let connected = connections.ready_among(lock(&self.watched).keys());
            for (key, live) in connected {
                let due = match lock(&self.watched).get_mut(&key) {
                    Some(watched) => watched.due(Instant::now(), Timestamp::now()),
                    None => continue,
                };
                match due {
                    Due::Nothing => {}
                    Due::Questions(objects) => self.wake_all(objects),
                    Due::Sweep(objects) => {
                        self.wake_all(objects);
                        // A separate task, so that an API that hangs holds up only its own Workspace.
                        let client = live.waiting(Priority::Watch, &key);
                        tokio::spawn(Arc::clone(&self).sweep_safely(key, client, Arc::clone(&connections)));
                    }
                }
            }
        }
    }

    fn wake_all(&self, objects: Vec<Ref>) {
        for object in objects {
            lock(&self.refreshes).entry(object.clone()).or_insert(None);
            self.tell(&object);
        }
    }

    /// Notifies the reconcile that waits for this object, or wakes the object.
    fn tell(&self, object: &Ref) {
        match lock(&self.waiting).get(object) {
            Some(pass) => pass.notify_one(),
            None => {
                let _ = self.wake.send(object.clone());
            }
        }
    }

    /// A sweep that panics must not be the last one.
    async fn sweep_safely(self: Arc<Self>, key: WorkspaceKey, client: Client, connections: Arc<Connections>) {
        let sweep = tokio::spawn(Arc::clone(&self).sweep(key.clone(), client, connections));
        if let Err(error) = sweep.await {
            let object = format_args!("{}/{}", key.namespace, key.name);
            tracing::error!(kind = "Workspace", %object, %error, "a sweep died; this is a bug in the operator");
            if let Some(watched) = lock(&self.watched).get_mut(&key) {
                watched.sweeping = false;
                watched.pause(None);
            }
        }
    }

    async fn sweep(self: Arc<Self>, key: WorkspaceKey, client: Client, connections: Arc<Connections>) {
        let (since, ours) = match lock(&self.watched).get(&key) {
            Some(watched) => (watched.swept_until, watched.runs.values().map(|run| run.execution_id.clone()).collect()),
            None => (None, HashSet::new()),
        };
        let begun = Instant::now();
        let outcome = read_pages(&client, since.map(|since| later(since, -OVERLAP)), &ours).await;
        if let Err(error) = &outcome {
            let lasting = lock(&self.watched).entry(key.clone()).or_default().pause(error.retry_after());
            if lasting || matches!(error, Error::Unauthorized(_)) {
                connections.suspect(&key);
            }
        }
        let mut watched = lock(&self.watched);
        let Some(watched) = watched.get_mut(&key) else { return };
        watched.sweeping = false;
        let Ok(swept) = outcome else { return };
        watched.troubles = 0;
        watched.pages = swept.pages;
        let wall = Timestamp::now();
        // A row with an end in the future must not hide runs that end before that.
        watched.swept_until = watched.swept_until.max(swept.newest_end.map(|end| end.min(wall)));
        let apart = watched.sweeps_apart(Instant::now());
        for (object, run) in &mut watched.runs {
            let age = age(run.started, wall);
            run.next_look = begun + if age < LINGER { apart } else { look_interval(age) };
            let ended = swept.ended.get(&run.execution_id);
            if ended.is_none() && swept.complete && run.is_covered(since, wall) {
                run.looked = run.looked.max(begun);
            }
            if let Some(row) = ended {
                run.doubtful = true;
                lock(&self.refreshes).insert(object.clone(), Some(row.clone()));
                self.tell(object);
            }
        }
    }
}

/// A reconcile that waits for a reason to get its run.
struct Waiting<'a> {
    tracker: &'a Tracker,
    object: &'a Ref,
    told: Arc<Notify>,
}

impl<'a> Waiting<'a> {
    fn new(tracker: &'a Tracker, object: &'a Ref) -> Self {
        let told = Arc::new(Notify::new());
        lock(&tracker.waiting).insert(object.clone(), Arc::clone(&told));
        Self { tracker, object, told }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.tracker.waiting).remove(self.object);
        // Notified at the last moment: the next reconcile gets the run.
        if lock(&self.tracker.refreshes).contains_key(self.object) {
            let _ = self.tracker.wake.send(self.object.clone());
        }
    }
}

impl Run {
    /// Whether a get is due, whatever sweeps report.
    fn is_questionable(&self, now: Instant, wall: Timestamp) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        let told = if self.doubtful { self.asked } else { self.asked.max(self.looked) };
        since(told) >= spread(question_interval(age(self.started, wall)), &self.execution_id)
            || since(self.asked) >= spread(SEEN_BY_SWEEPS, &self.execution_id)
    }

    /// Whether a list from `since` on leaves no gap after the run's state was last seen. An earlier sweep may have been
    /// cut short, and this one does not contain what that one did not read.
    fn is_covered(&self, since: Option<Timestamp>, wall: Timestamp) -> bool {
        let unseen = SignedDuration::try_from(self.looked.elapsed()).unwrap_or(SignedDuration::MAX);
        let looked = earlier(wall, unseen);
        since.is_none_or(|since| later(since, -OVERLAP) <= looked)
    }
}

impl Watched {
    /// Leaves the API alone for a while, longer each time. Returns whether this has gone on for long.
    fn pause(&mut self, retry_after: Option<Duration>) -> bool {
        let now = Instant::now();
        // Gets that were in flight together count as one failure.
        if self.paused_until.is_none_or(|until| until <= now) {
            self.troubles = self.troubles.saturating_add(1);
        }
        let pause = Duration::from_secs(1 << self.troubles.min(6)).min(Duration::from_secs(60));
        let until = now + pause.max(retry_after.unwrap_or_default());
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
        self.troubles >= SUSPECT_AFTER
    }

    /// How long after a sweep the next one may begin, which is also when young runs are due again.
    ///
    /// If the list has one page, one call serves all young runs. The more have started recently, the more often it is
    /// read, at most once per tick. So none of many runs costs a fifth of a call in its first three seconds. Runs that
    /// have ended count as well, so that the last ones of many do not wait longer than the others.
    fn sweeps_apart(&mut self, now: Instant) -> Duration {
        self.forget_starts(now);
        let young = if self.pages == 1 { u32::try_from(self.starts.len()).unwrap_or(u32::MAX) } else { 1 };
        // A sweep begins a little after its tick, and the next one has to be due at a tick.
        (Duration::from_secs(25) / young.max(1)).clamp(TICK, AHEAD) - TICK / 2
    }

    fn forget_starts(&mut self, now: Instant) {
        while self.starts.pop_front_if(|start| now.saturating_duration_since(*start) >= LINGER).is_some() {}
    }

    /// The cheaper of one sweep and a get for each run that is due, or will be in a moment.
    fn due(&mut self, now: Instant, wall: Timestamp) -> Due {
        if self.runs.is_empty() || self.sweeping || self.paused_until.is_some_and(|until| now < until) {
            return Due::Nothing;
        }
        let questions: Vec<Ref> = due_runs(&self.runs, |run| run.is_questionable(now, wall));
        let refreshes: Vec<Ref> = due_runs(&self.runs, |run| run.next_look <= now);
        let soon = self.runs.values().filter(|run| run.next_look <= now + AHEAD).count();
        // A list may still show the end of a run that cannot be read on its own.
        let unanswered = |object: &Ref| self.runs.get(object).is_some_and(|run| run.unanswered >= SUSPECT_AFTER);
        let sweep = !refreshes.is_empty() && (soon > self.pages.max(1) || refreshes.iter().any(unanswered));
        let apart = self.sweeps_apart(now);
        if sweep && self.swept.is_some_and(|swept| now < swept + apart) {
            return Due::Nothing;
        }
        let asked = if sweep && soon > self.pages.max(1) { questions } else { refreshes };
        for object in &asked {
            if let Some(run) = self.runs.get_mut(object) {
                // Valid until the answer sets the next time. A get that is lost is repeated.
                let age = age(run.started, wall);
                run.next_look = now + look_interval(age).max(Duration::from_secs(5));
                run.asked = now;
            }
        }
        if sweep {
            self.sweeping = true;
            self.swept = Some(now);
            if self.swept_until.is_none() {
                self.swept_until = self.runs.values().map(|run| run.started).min();
            }
            return Due::Sweep(asked);
        }
        if asked.is_empty() { Due::Nothing } else { Due::Questions(asked) }
    }
}

fn due_runs(runs: &HashMap<Ref, Run>, is_due: impl Fn(&Run) -> bool) -> Vec<Ref> {
    runs.iter().filter(|(_, run)| is_due(run)).map(|(object, _)| object.clone()).collect()
}

/// Polls slow down with age: the end of an hour-long run need not be noticed within a second. The first poll is early,
/// since many runs are short.
fn look_interval(age: Duration) -> Duration {
    let shortest = if age < EARLY { EARLY } else { Duration::from_secs(1) };
    (age / 10).clamp(shortest, Duration::from_secs(30))
}

/// Sweeps may miss an end beyond the pages that they read, so runs they do not cover are also fetched individually.
fn question_interval(age: Duration) -> Duration {
    (age / 10).clamp(Duration::from_secs(60), Duration::from_secs(600))
}

/// Runs that started together are not fetched together, but spread over half of the interval.
fn spread(interval: Duration, execution_id: &str) -> Duration {
    let share =
        execution_id.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 100;
    interval + interval * share / 200
}

fn age(started: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(started)).unwrap_or_default()
}

async fn read_pages(client: &Client, since: Option<Timestamp>, ours: &HashSet<String>) -> Result<ListSnapshot, Error> {
    let mut filter = RunFilter {
        statuses: TERMINAL.map(str::to_owned).to_vec(),
        end_time_after: since,
        page_size: PAGE_SIZE,
        ..RunFilter::default()
    };
    let mut swept = ListSnapshot { ended: HashMap::new(), newest_end: None, pages: 0, complete: false };
    let mut unreadable = 0;
    loop {
        let page = match client.list_runs(&filter).await {
            Err(Error::Unreadable { too_long: true, .. }) if filter.page_size > 1 => {
                filter.page_size /= 2;
                continue;
            }
            page => page?,
        };
        swept.pages += 1;
        unreadable += page.unreadable;
        for row in page.items {
            swept.newest_end = swept.newest_end.max(row.end_time);
            // The newest run with an id comes first. Other people's runs are skipped, since there are many.
            if ours.contains(&row.execution_id) {
                swept.ended.entry(row.execution_id.clone()).or_insert_with(|| Box::new(row));
            }
        }
        match page.next {
            Some(token) if swept.pages < MAX_PAGES && filter.page_token.as_ref() != Some(&token) => {
                filter.page_token = Some(token);
            }
            next => return Ok(ListSnapshot { complete: next.is_none() && unreadable == 0, ..swept }),
        }
    }
}

#[cfg(test)]
mod tests;
