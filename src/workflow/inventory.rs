//! Finds out which workflows have changed at the API: one sweep of the lists for all of a Workspace.
//!
//! Per resync it takes the cheaper of a sweep and of questions about each. A row is a hint: it wakes
//! the resource, whose pass asks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::WorkflowStatus;
use crate::mistral::wire::{Page, Registration, Workflow};
use crate::mistral::{Client, Error, RegistrationFilter, WorkflowFilter};
use crate::workspace::connections::{Connections, Key, Live};

/// A workflow as it is watched: one that cannot be decoded must not hide the others.
pub type Guarded = DeserializeGuard<api::Workflow>;
type Ref = ObjectRef<Guarded>;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_secs(1);
/// Rows a page; what the API gives at most.
const PAGE_SIZE: u16 = 1000;
/// Registrations a page: each comes with its schemas.
const REGISTRATIONS_PAGE: u16 = 200;
/// Pages of one list that a sweep reads at most.
const MAX_PAGES: usize = 50;
/// Calls that a pass takes to look at one workflow: itself, its registrations, the active ones.
const CALLS_OF_A_LOOK: usize = 3;
/// Lists that a sweep reads: workflows, those with a worker, those in the chat assistant, registrations.
const LISTS: usize = 4;
/// After so many sweeps in a row without an answer, the Workspace is to be checked.
const SUSPECT_AFTER: u32 = 3;

/// What is known of a workflow, to be compared with the lists.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    /// As in the status.
    Found(Box<WorkflowStatus>),
    /// The API had no workflow of this name or UUID.
    Absent(String),
}

/// What is known of all workflows that are looked after.
#[derive(Debug)]
pub struct Inventory {
    watched: Mutex<HashMap<Key, Watched>>,
    /// Objects that were woken in order to ask.
    looks: Mutex<HashSet<Ref>>,
    wake: UnboundedSender<Ref>,
}

/// The workflows of one Workspace.
#[derive(Debug)]
struct Watched {
    workflows: HashMap<Ref, (Seen, Instant)>,
    /// When the next resync is due.
    next: Instant,
    /// Calls that the last sweep took.
    cost: usize,
    sweeping: bool,
    troubles: u32,
    /// When all lists were last read to their ends.
    complete: Option<Instant>,
}

/// What a Workspace needs now.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Ask about these.
    Questions(Vec<Ref>),
    Sweep,
}

/// What a sweep found.
#[derive(Debug, Default)]
struct Swept {
    rows: HashMap<String, Workflow>,
    names: HashSet<String>,
    active: HashSet<String>,
    in_chat: HashSet<String>,
    /// Active registrations by the workflow's UUID.
    registrations: HashMap<String, HashSet<String>>,
    calls: usize,
}

impl Inventory {
    /// Looks after nothing yet; wakes objects through `wake`.
    pub fn new(wake: UnboundedSender<Ref>) -> Self {
        Self { watched: Mutex::default(), looks: Mutex::default(), wake }
    }

    /// A pass has written this status. `absent`: the API has no workflow of that name or UUID.
    pub fn track(&self, key: &Key, object: &Ref, status: &WorkflowStatus, absent: Option<&str>) {
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
        watched.workflows.insert(object.clone(), (seen, Instant::now()));
    }

    /// The object is gone, or is to be left alone.
    pub fn untrack(&self, key: &Key, object: &Ref) {
        if let Some(watched) = lock(&self.watched).get_mut(key) {
            watched.workflows.remove(object);
        }
        lock(&self.looks).remove(object);
    }

    /// Whether the object was woken in order to ask.
    pub fn take_look(&self, object: &Ref) -> bool {
        lock(&self.looks).remove(object)
    }

    /// Seconds since the oldest of all Workspaces' last complete sweep or round of questions; none where
    /// nothing is looked after.
    pub fn age(&self) -> Option<Duration> {
        let watched = lock(&self.watched);
        let looked_after = watched.values().filter(|watched| !watched.workflows.is_empty());
        looked_after.filter_map(|watched| Some(watched.complete?.elapsed())).max()
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
            let connected = connections.ready_among(lock(&self.watched).keys());
            for (key, live) in connected {
                let due = match lock(&self.watched).get_mut(&key) {
                    Some(watched) => {
                        watched.workflows.retain(|object, _| exists(object));
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
        let outcome = tokio::spawn(async move { read(&live.client).await }).await;
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a sweep of the workflows died; this is a bug in the operator");
            Err(Error::Transient { retry_after: None, message: "the sweep died".into() })
        });
        let changed = match lock(&self.watched).get_mut(&key) {
            Some(watched) => match &outcome {
                Ok(swept) => watched.compare(swept, began),
                Err(error) => {
                    watched.put_off(error.retry_after());
                    if watched.troubles >= SUSPECT_AFTER || matches!(error, Error::Unauthorized(_)) {
                        connections.suspect(&key);
                    }
                    Vec::new()
                }
            },
            None => Vec::new(),
        };
        self.wake_all(changed);
    }
}

impl Watched {
    fn new(next: Instant) -> Self {
        Self { workflows: HashMap::new(), next, cost: LISTS, sweeping: false, troubles: 0, complete: None }
    }

    /// The cheaper of one sweep and a question about each.
    fn due(&mut self, now: Instant, resync: Duration) -> Due {
        // A shorter interval than before holds from now on.
        self.next = self.next.min(now + resync + resync / 10);
        if self.workflows.is_empty() || self.sweeping || now < self.next {
            return Due::Nothing;
        }
        self.next = now + resync - resync / 10 + spread(resync / 5);
        if self.workflows.len() * CALLS_OF_A_LOOK <= self.cost {
            self.complete = Some(now);
            return Due::Questions(self.workflows.keys().cloned().collect());
        }
        self.sweeping = true;
        Due::Sweep
    }

    /// The workflows that the lists have otherwise. What was seen after the sweep began is newer.
    fn compare(&mut self, swept: &Swept, began: Instant) -> Vec<Ref> {
        self.sweeping = false;
        self.troubles = 0;
        self.cost = swept.calls;
        self.complete = Some(began);
        let changed = self.workflows.iter().filter(|(_, (seen, at))| *at < began && swept.differs(seen));
        changed.map(|(object, _)| object.clone()).collect()
    }

    /// The sweep met with trouble: soon again, then less often.
    fn put_off(&mut self, retry_after: Option<Duration>) {
        self.sweeping = false;
        self.troubles = self.troubles.saturating_add(1);
        let wait = Duration::from_secs(1 << self.troubles.min(6)).min(Duration::from_secs(60));
        self.next = Instant::now() + wait.max(retry_after.unwrap_or_default());
    }
}

impl Swept {
    fn differs(&self, seen: &Seen) -> bool {
        let status = match seen {
            Seen::Absent(identifier) => return self.rows.contains_key(identifier) || self.names.contains(identifier),
            Seen::Found(status) => status,
        };
        let id = status.workflow_id.as_deref().unwrap_or_default();
        let Some(row) = self.rows.get(id) else { return true };
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let seen_active: HashSet<&str> = status
            .registrations
            .iter()
            .filter(|registration| registration.active)
            .map(|registration| registration.id.as_str())
            .collect();
        let none = HashSet::new();
        let active: HashSet<&str> = self.registrations.get(id).unwrap_or(&none).iter().map(String::as_str).collect();
        text(&row.display_name) != status.display_name
            || text(&row.description) != status.description
            || row.tags.clone().filter(|tags| !tags.is_empty()) != status.tags
            || row.archived.is_some_and(|archived| Some(archived) != status.archived)
            || status.active.is_some_and(|known| known != self.active.contains(id))
            || status.available_in_chat_assistant.is_some_and(|known| known != self.in_chat.contains(id))
            || seen_active != active
    }
}

/// Reads all lists to their ends.
async fn read(client: &Client) -> Result<Swept, Error> {
    let mut swept = Swept::default();
    let all = WorkflowFilter { limit: PAGE_SIZE, ..WorkflowFilter::default() };
    for row in read_list(client, &all, &mut swept.calls).await? {
        swept.names.insert(row.name.clone());
        swept.rows.insert(row.id.clone(), row);
    }
    let ids = |rows: Vec<Workflow>| rows.into_iter().map(|row| row.id).collect();
    let active = WorkflowFilter { active: Some(true), ..all.clone() };
    swept.active = ids(read_list(client, &active, &mut swept.calls).await?);
    let in_chat = WorkflowFilter { available_in_chat_assistant: Some(true), ..all };
    swept.in_chat = ids(read_list(client, &in_chat, &mut swept.calls).await?);

    let filter = RegistrationFilter { active_only: true, limit: REGISTRATIONS_PAGE, ..RegistrationFilter::default() };
    for registration in read_registrations(client, &filter, &mut swept.calls).await? {
        swept.registrations.entry(registration.workflow_id).or_default().insert(registration.id);
    }
    Ok(swept)
}

/// Reads a list of workflows to its end, counting the calls.
pub(super) async fn read_list(
    client: &Client,
    filter: &WorkflowFilter,
    calls: &mut usize,
) -> Result<Vec<Workflow>, Error> {
    let page = |cursor| {
        let filter = WorkflowFilter { cursor, ..filter.clone() };
        async move { client.list_workflows(&filter).await }
    };
    read_pages(calls, page).await
}

/// Reads a list of registrations to its end, counting the calls.
pub(super) async fn read_registrations(
    client: &Client,
    filter: &RegistrationFilter,
    calls: &mut usize,
) -> Result<Vec<Registration>, Error> {
    let page = |cursor| {
        let filter = RegistrationFilter { cursor, ..filter.clone() };
        async move { client.list_registrations(&filter).await }
    };
    read_pages(calls, page).await
}

/// Reads page after page to the end, which has to come within [`MAX_PAGES`].
async fn read_pages<T, F>(calls: &mut usize, page: impl Fn(Option<String>) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<Page<T>, Error>>,
{
    let (mut items, mut cursor) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = page(cursor.clone()).await?;
        *calls += 1;
        items.extend(page.items);
        match page.next {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(items),
        }
    }
    let message = format!("a list of the API has more than {MAX_PAGES} pages");
    Err(Error::Transient { retry_after: None, message })
}

/// Some part of `limit`: what is due at one time for all Workspaces is spread over it.
fn spread(limit: Duration) -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    limit.mul_f64(f64::from(nanos % 1_000_003) / 1_000_003.0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workflow(id: &str, fields: serde_json::Value) -> Workflow {
        let mut all = json!({ "id": id, "name": "w", "display_name": "W", "archived": false, "tags": ["a"] });
        all.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap_or_default());
        serde_json::from_value(all).unwrap()
    }

    fn seen() -> Seen {
        Seen::Found(Box::new(WorkflowStatus {
            workflow_id: Some("1".into()),
            display_name: Some("W".into()),
            tags: Some(vec!["a".into()]),
            archived: Some(false),
            active: Some(true),
            available_in_chat_assistant: Some(false),
            ..WorkflowStatus::default()
        }))
    }

    fn swept(row: Workflow) -> Swept {
        Swept {
            names: HashSet::from([row.name.clone()]),
            active: HashSet::from([row.id.clone()]),
            rows: HashMap::from([(row.id.clone(), row)]),
            calls: LISTS,
            ..Swept::default()
        }
    }

    #[test]
    fn a_workflow_as_it_was_seen_is_left_in_peace() {
        assert!(!swept(workflow("1", json!({}))).differs(&seen()));
        assert!(!swept(workflow("1", json!({ "description": "" }))).differs(&seen()));
    }

    #[test]
    fn every_field_that_a_list_tells_is_compared() {
        for fields in [
            json!({ "display_name": "X" }),
            json!({ "description": "new" }),
            json!({ "tags": ["a", "b"] }),
            json!({ "tags": null }),
            json!({ "archived": true }),
            json!({ "id": "2" }),
        ] {
            assert!(swept(workflow("1", fields.clone())).differs(&seen()), "{fields}");
        }
        let row = || workflow("1", json!({}));
        assert!(Swept { active: HashSet::new(), ..swept(row()) }.differs(&seen()));
        assert!(Swept { in_chat: HashSet::from(["1".into()]), ..swept(row()) }.differs(&seen()));
        let registrations = HashMap::from([("1".to_owned(), HashSet::from(["r".to_owned()]))]);
        assert!(Swept { registrations, ..swept(row()) }.differs(&seen()));
    }

    #[test]
    fn a_workflow_that_was_absent_is_looked_for_by_name_and_by_uuid() {
        let swept = swept(workflow("1", json!({})));
        for (identifier, there) in [("w", true), ("1", true), ("other", false)] {
            assert_eq!(swept.differs(&Seen::Absent(identifier.into())), there, "{identifier}");
        }
    }

    #[test]
    fn one_is_asked_about_and_many_are_swept() {
        let now = Instant::now();
        let watched = |count: usize| Watched {
            workflows: (0..count).map(|n| (Ref::new(&n.to_string()), (seen(), now))).collect(),
            ..Watched::new(now)
        };
        let resync = Duration::from_secs(300);
        assert_eq!(watched(0).due(now, resync), Due::Nothing);
        assert!(matches!(watched(1).due(now, resync), Due::Questions(objects) if objects.len() == 1));
        let mut many = watched(2);
        assert_eq!(many.due(now, resync), Due::Sweep);
        assert_eq!(many.due(now + resync * 2, resync), Due::Nothing, "one sweep at a time");
    }

    #[test]
    fn a_row_from_before_the_last_look_is_no_news() {
        let began = Instant::now();
        let mut watched = Watched {
            workflows: HashMap::from([(Ref::new("w"), (seen(), began + Duration::from_secs(1)))]),
            ..Watched::new(began)
        };
        let swept = swept(workflow("1", json!({ "display_name": "X" })));
        assert_eq!(watched.compare(&swept, began), []);
        assert_eq!(watched.compare(&swept, began + Duration::from_secs(2)), [Ref::new("w")]);
    }
}
