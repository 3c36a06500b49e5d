//! Watches the runs that go on: one sweep or a few questions per Workspace and interval, never a
//! timer per object.
//!
//! The tracker only ever wakes objects. What a run has come to, their own reconcile asks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::controller::Guarded;
use crate::clock::{earlier, later};
use crate::execution::run_durations::LINGER;
use crate::mistral::budget::Class;
use crate::mistral::wire::{Execution, TERMINAL};
use crate::mistral::{Client, Error, RunFilter};
use crate::sync::lock;
use crate::workspace::connections::{Connections, Key};

/// How often the tracker looks what is due.
const TICK: Duration = Duration::from_millis(250);
/// What is due within this time is due now, if one list serves it all; so long a list waits for others at most.
const AHEAD: Duration = Duration::from_secs(1);
/// When it looks at a new run for the first time.
const EARLY: Duration = Duration::from_millis(500);
/// Pages that one sweep reads at most: other people's runs are listed too.
const MAX_PAGES: usize = 5;
/// Rows a page; what the API gives at most.
const PAGE_SIZE: u16 = 1000;
/// How far a sweep reaches back behind the newest end it has seen: runs may show late.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
/// How often a run is asked about of which complete sweeps tell: a row may be missing for good.
const SEEN_BY_SWEEPS: Duration = Duration::from_mins(30);
/// After so many sweeps and questions in a row without an answer, the Workspace is to be checked.
const SUSPECT_AFTER: u32 = 3;

type Ref = ObjectRef<Guarded>;

/// The runs that go on.
#[derive(Debug)]
pub struct Tracker {
    watched: Mutex<HashMap<Key, Watched>>,
    /// Objects that were woken in order to ask, with the row if a sweep told of the end.
    looks: Mutex<HashMap<Ref, Option<Box<Execution>>>>,
    /// Passes that wait for that themselves.
    waiting: Mutex<HashMap<Ref, Arc<Notify>>>,
    wake: UnboundedSender<Ref>,
}

/// The runs of one Workspace.
#[derive(Debug, Default)]
struct Watched {
    runs: HashMap<Ref, Run>,
    /// When those that started of late were first seen, whether or not they have ended.
    starts: VecDeque<Instant>,
    /// No run that ended before this (less an overlap) is still waited for; by the API's clock.
    swept_until: Option<Timestamp>,
    /// Pages that the last sweep took.
    pages: usize,
    sweeping: bool,
    /// When the last sweep began.
    swept: Option<Instant>,
    troubles: u32,
    /// Those whose question met with trouble since one was answered: a single bad run does not hold up
    /// the others.
    troubled: HashSet<Ref>,
    paused_until: Option<Instant>,
}

/// What the API has just said of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It was not asked.
    None,
    /// It knows the run.
    Known,
    /// It does not know it.
    Unknown,
}

#[derive(Clone, Debug)]
struct Run {
    execution_id: String,
    started: Timestamp,
    /// When a sweep or a question is due.
    next_look: Instant,
    /// When the API was last asked about it, or is to answer.
    asked: Instant,
    /// When a complete sweep or an answer last told how it is.
    looked: Instant,
    /// Questions about it in a row without an answer.
    unanswered: u32,
    /// That sweeps do not tell of its end is no proof that it goes on: they have told of it, or it was not there when
    /// it was last asked about, or never asked about in this life.
    doubtful: bool,
}

/// What a Workspace needs now.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Ask about these.
    Questions(Vec<Ref>),
    /// Sweep, and ask about these all the same.
    Sweep(Vec<Ref>),
}

/// What a sweep found.
struct Swept {
    /// Those that ended, by execution id.
    ended: HashMap<String, Box<Execution>>,
    newest_end: Option<Timestamp>,
    pages: usize,
    /// The list was read to its end.
    complete: bool,
}

impl Tracker {
    /// Tracks nothing yet; wakes objects through `wake`.
    pub fn new(wake: UnboundedSender<Ref>) -> Self {
        Self { watched: Mutex::default(), looks: Mutex::default(), waiting: Mutex::default(), wake }
    }

    /// A run goes on, as far as is known.
    pub fn track(&self, key: &Key, object: &Ref, execution_id: &str, started: Timestamp, word: Word) {
        let mut watched = lock(&self.watched);
        let watched = watched.entry(key.clone()).or_default();
        let now = Instant::now();
        let age = age(started, Timestamp::now());
        if word != Word::None {
            watched.troubles = 0;
            watched.troubled.clear();
            let run = Run {
                execution_id: execution_id.to_owned(),
                started,
                next_look: now + look_interval(age),
                asked: now,
                looked: now,
                unanswered: 0,
                doubtful: word == Word::Unknown,
            };
            if watched.runs.insert(object.clone(), run).is_none() && age < LINGER {
                watched.forget_starts(now);
                watched.starts.push_back(now);
            }
        } else if !watched.runs.contains_key(object) {
            // Known from an earlier life: it may have ended at any time since it started.
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

    /// The run has ended, or its object is gone.
    pub fn untrack(&self, key: &Key, object: &Ref) {
        if let Some(watched) = lock(&self.watched).get_mut(key) {
            watched.runs.remove(object);
        }
        lock(&self.looks).remove(object);
    }

    /// Whether the object was woken in order to ask; if so, with the row of a sweep that told of the end.
    pub fn take_look(&self, object: &Ref) -> Option<Option<Box<Execution>>> {
        lock(&self.looks).remove(object)
    }

    /// Waits within a pass until there is a reason to ask, instead of being woken; the row, if a sweep told.
    pub async fn look(&self, object: &Ref) -> Option<Box<Execution>> {
        let waiting = Waiting::new(self, object);
        loop {
            if let Some(row) = self.take_look(object) {
                return row;
            }
            waiting.told.notified().await;
        }
    }

    /// Wakes the object for another reason than to ask. False if nobody listens any more.
    pub fn wake(&self, object: &Ref) -> bool {
        self.wake.send(object.clone()).is_ok()
    }

    /// A question about this run met with trouble. If it is not the only one, the API is left alone for
    /// a while. Returns whether the Workspace should be checked.
    pub fn had_trouble(&self, key: &Key, object: &Ref, retry_after: Option<Duration>) -> bool {
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

    /// The longest time for which a run that goes on was not looked at; none where no run goes on.
    pub fn longest_unseen(&self) -> Option<Duration> {
        let watched = lock(&self.watched);
        watched.values().flat_map(|watched| watched.runs.values()).map(|run| run.looked.elapsed()).max()
    }

    /// None but these Workspaces exist: what is known of others is dropped once nobody waits there.
    pub fn forget_all_but(&self, exists: impl Fn(&Key) -> bool) {
        lock(&self.watched).retain(|key, watched| exists(key) || watched.sweeping || !watched.runs.is_empty());
    }

    /// Runs until `stop`, dropping objects that `exists` does not know any more.
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
            lock(&self.looks).retain(|object, _| exists(object));
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
                        // On a task of its own: an API that hangs holds up its own Workspace only.
                        let client = live.waiting(Class::Watch, &key);
                        tokio::spawn(Arc::clone(&self).sweep_safely(key, client, Arc::clone(&connections)));
                    }
                }
            }
        }
    }

    fn wake_all(&self, objects: Vec<Ref>) {
        for object in objects {
            lock(&self.looks).entry(object.clone()).or_insert(None);
            self.tell(&object);
        }
    }

    /// There is a reason to ask.
    fn tell(&self, object: &Ref) {
        match lock(&self.waiting).get(object) {
            Some(pass) => pass.notify_one(),
            None => {
                let _ = self.wake.send(object.clone());
            }
        }
    }

    /// A sweep that dies must not be the last one.
    async fn sweep_safely(self: Arc<Self>, key: Key, client: Client, connections: Arc<Connections>) {
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

    async fn sweep(self: Arc<Self>, key: Key, client: Client, connections: Arc<Connections>) {
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
        // A row from the future must not hide what ends until then.
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
                lock(&self.looks).insert(object.clone(), Some(row.clone()));
                self.tell(object);
            }
        }
    }
}

/// A pass that waits for a reason to ask.
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
        // Told at the last moment: whoever comes next asks.
        if lock(&self.tracker.looks).contains_key(self.object) {
            let _ = self.tracker.wake.send(self.object.clone());
        }
    }
}

impl Run {
    /// Whether a question is due, whatever sweeps say.
    fn is_questionable(&self, now: Instant, wall: Timestamp) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        let told = if self.doubtful { self.asked } else { self.asked.max(self.looked) };
        since(told) >= spread(question_interval(age(self.started, wall)), &self.execution_id)
            || since(self.asked) >= spread(SEEN_BY_SWEEPS, &self.execution_id)
    }

    /// Whether a list from `since` on leaves no gap behind the last look: a sweep before this one may have
    /// been cut short, and what it did not read is not in this one either.
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
        // Questions that were under way together are one trouble.
        if self.paused_until.is_none_or(|until| until <= now) {
            self.troubles = self.troubles.saturating_add(1);
        }
        let pause = Duration::from_secs(1 << self.troubles.min(6)).min(Duration::from_secs(60));
        let until = now + pause.max(retry_after.unwrap_or_default());
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
        self.troubles >= SUSPECT_AFTER
    }

    /// How long after a sweep the next one may begin, which is also when young runs are due again. One page is one call
    /// for all of so many young ones: the more have started of late, the more often it is read, up to each tick, so that
    /// none of them costs a fifth of a call in its first three seconds. Those that have ended count as well, so that the
    /// last ones of many are not waited for longer than the others.
    fn sweeps_apart(&mut self, now: Instant) -> Duration {
        self.forget_starts(now);
        let young = if self.pages == 1 { u32::try_from(self.starts.len()).unwrap_or(u32::MAX) } else { 1 };
        // A sweep begins a little after its tick, and the next is to be due at a tick.
        (Duration::from_secs(25) / young.max(1)).clamp(TICK, AHEAD) - TICK / 2
    }

    fn forget_starts(&mut self, now: Instant) {
        while self.starts.pop_front_if(|start| now.saturating_duration_since(*start) >= LINGER).is_some() {}
    }

    /// The cheaper of one sweep and a question for each run that is due, or will be in a moment.
    fn due(&mut self, now: Instant, wall: Timestamp) -> Due {
        if self.runs.is_empty() || self.sweeping || self.paused_until.is_some_and(|until| now < until) {
            return Due::Nothing;
        }
        let questions: Vec<Ref> = due_runs(&self.runs, |run| run.is_questionable(now, wall));
        let looks: Vec<Ref> = due_runs(&self.runs, |run| run.next_look <= now);
        let soon = self.runs.values().filter(|run| run.next_look <= now + AHEAD).count();
        // Of a run that cannot be read a list may still tell the end.
        let unanswered = |object: &Ref| self.runs.get(object).is_some_and(|run| run.unanswered >= SUSPECT_AFTER);
        let sweep = !looks.is_empty() && (soon > self.pages.max(1) || looks.iter().any(unanswered));
        let apart = self.sweeps_apart(now);
        if sweep && self.swept.is_some_and(|swept| now < swept + apart) {
            return Due::Nothing;
        }
        let asked = if sweep && soon > self.pages.max(1) { questions } else { looks };
        for object in &asked {
            if let Some(run) = self.runs.get_mut(object) {
                // Until the answer sets it anew; a question that gets lost is asked again.
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

/// Slower with age: a run of an hour need not be noticed within the second. The first look is early: many runs are short.
fn look_interval(age: Duration) -> Duration {
    let shortest = if age < EARLY { EARLY } else { Duration::from_secs(1) };
    (age / 10).clamp(shortest, Duration::from_secs(30))
}

/// Sweeps may miss an end (beyond the pages that are read), so each run that they do not tell of is asked about as well.
fn question_interval(age: Duration) -> Duration {
    (age / 10).clamp(Duration::from_secs(60), Duration::from_secs(600))
}

/// Those that started together are not asked about together, but within half of the interval.
fn spread(interval: Duration, execution_id: &str) -> Duration {
    let share =
        execution_id.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 100;
    interval + interval * share / 200
}

fn age(started: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(started)).unwrap_or_default()
}

async fn read_pages(client: &Client, since: Option<Timestamp>, ours: &HashSet<String>) -> Result<Swept, Error> {
    let mut filter = RunFilter {
        statuses: TERMINAL.map(str::to_owned).to_vec(),
        end_time_after: since,
        page_size: PAGE_SIZE,
        ..RunFilter::default()
    };
    let mut swept = Swept { ended: HashMap::new(), newest_end: None, pages: 0, complete: false };
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
            // The newest run of an id comes first. Others' are many.
            if ours.contains(&row.execution_id) {
                swept.ended.entry(row.execution_id.clone()).or_insert_with(|| Box::new(row));
            }
        }
        match page.next {
            Some(token) if swept.pages < MAX_PAGES && filter.page_token.as_ref() != Some(&token) => {
                filter.page_token = Some(token);
            }
            next => return Ok(Swept { complete: next.is_none() && unreadable == 0, ..swept }),
        }
    }
}

#[cfg(test)]
mod tests;
