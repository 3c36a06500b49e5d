//! Detects drift: workflows that have changed at the API. One sweep of the lists serves all workflows of a Workspace.
//!
//! Each resync takes the cheaper of a sweep and a refresh of each workflow. A row is a hint: it wakes the resource,
//! whose reconcile gets the workflow.

#[cfg(test)]
mod tests;
mod tracked;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

pub use tracked::RefreshOutcome;

use tracked::{Due, Ref, SUSPECT_AFTER, TICK, Watched, spread};

use super::lists::{LastObserved, ListSnapshot, read};
use crate::api::WorkflowStatus;
use crate::mistral::Error;
use crate::sync::lock;
use crate::throttle::Priority;
use crate::workspace::connections::{Connection, Connections, WorkspaceKey};
use crate::workspace::findings::Drift;

/// How long after its start a process may not know yet that a Workspace has Workflows.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// What is known of all tracked workflows.
#[derive(Debug)]
pub struct DriftDetector {
    watched: Mutex<HashMap<WorkspaceKey, Watched>>,
    /// Objects that were woken for a refresh.
    refreshes: Mutex<HashSet<Ref>>,
    wake: UnboundedSender<Ref>,
    news: UnboundedSender<News>,
    begun: Instant,
}

/// The result of a sweep.
#[derive(Debug)]
pub struct News {
    /// The Workspace whose lists were read.
    pub key: WorkspaceKey,
    /// The connection that the sweep used.
    pub live: Connection,
    pub(super) swept: ListSnapshot,
}

impl DriftDetector {
    /// Tracks nothing yet. Wakes objects through `wake` and sends the result of each sweep through `news`.
    pub fn new(wake: UnboundedSender<Ref>, news: UnboundedSender<News>) -> Self {
        Self { watched: Mutex::default(), refreshes: Mutex::default(), wake, news, begun: Instant::now() }
    }

    /// A reconcile has ended with this status. `absent` is the name or UUID for which the API has no workflow.
    pub fn track(
        &self,
        key: &WorkspaceKey,
        object: &Ref,
        status: &WorkflowStatus,
        absent: Option<&str>,
        refresh: RefreshOutcome,
    ) {
        let seen = match absent {
            Some(identifier) => LastObserved::Absent(identifier.to_owned()),
            None => LastObserved::Found(Box::new(WorkflowStatus {
                // Not compared, and large.
                conditions: Vec::new(),
                definition: None,
                ..status.clone()
            })),
        };
        let mut watched = lock(&self.watched);
        // After a restart, what was known before is compared soon, but not for all Workspaces at once.
        let watched = watched.entry(key.clone()).or_insert_with(|| Watched::new(Instant::now() + spread(TICK * 5)));
        watched.track(object, seen, refresh);
    }

    /// The object is gone, or is to be left alone.
    pub fn untrack(&self, key: &WorkspaceKey, object: &Ref) {
        if let Some(watched) = lock(&self.watched).get_mut(key) {
            watched.workflows.remove(object);
        }
        lock(&self.refreshes).remove(object);
    }

    /// Whether changes made at Mistral are detected.
    pub fn drift(&self, key: &WorkspaceKey) -> Drift {
        match lock(&self.watched).get(key) {
            Some(watched) => watched.drift.clone(),
            // No workflow is tracked. Soon after the start, the Workflows may only be unknown yet.
            None if self.begun.elapsed() > UNKNOWN_FOR => Drift::Seen,
            None => Drift::Unknown,
        }
    }

    /// How many workflows the Mistral workspace has; none if its list has not been read to its end.
    pub fn count(&self, key: &WorkspaceKey) -> Option<usize> {
        lock(&self.watched).get(key)?.count
    }

    /// Whether the object was woken for a refresh. This is then forgotten.
    pub fn take_refresh(&self, object: &Ref) -> bool {
        lock(&self.refreshes).remove(object)
    }

    /// Wakes the object for another reason than a refresh. False if the receiver is gone.
    pub fn wake(&self, object: &Ref) -> bool {
        self.wake.send(object.clone()).is_ok()
    }

    /// The longest time since a workflow was refreshed or compared with a list; none if nothing is tracked.
    pub fn age(&self) -> Option<Duration> {
        let watched = lock(&self.watched);
        let ages = watched
            .values()
            .flat_map(|watched| watched.workflows.values().map(|entry| entry.at.max(watched.complete).elapsed()));
        ages.max()
    }

    /// The longest time for which a refresh of a workflow, or its comparison with a list, has been due by the
    /// `resyncInterval` of its Workspace.
    pub fn overdue(&self) -> Duration {
        let watched = lock(&self.watched);
        let late = |watched: &Watched| {
            // A resync comes at most a tenth of the interval late.
            let due_within = watched.resync + watched.resync / 10;
            let ages = watched.workflows.values().map(|entry| entry.at.max(watched.complete).elapsed());
            ages.max().unwrap_or_default().saturating_sub(due_within)
        };
        watched.values().map(late).max().unwrap_or_default()
    }

    /// Runs until `stop`, and drops objects that `exists` no longer knows. Always reads the lists of the Workspaces
    /// that `discovering` names.
    pub async fn run(
        self: Arc<Self>,
        connections: Arc<Connections>,
        exists: impl Fn(&Ref) -> bool + Send + Sync + 'static,
        discovering: impl Fn() -> Vec<WorkspaceKey> + Send + Sync + 'static,
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
            lock(&self.refreshes).retain(|object| exists(object));
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
                    Due::Refreshes(objects) => self.wake_all(objects),
                    // On a task of its own, so that an API that hangs delays only its own Workspace.
                    Due::Sweep => {
                        tokio::spawn(Arc::clone(&self).sweep_safely(key, live, Arc::clone(&connections)));
                    }
                }
            }
        }
    }

    fn wake_all(&self, objects: Vec<Ref>) {
        let mut refreshes = lock(&self.refreshes);
        for object in objects {
            refreshes.insert(object.clone());
            let _ = self.wake.send(object);
        }
    }

    /// A sweep that panics must not be the last one.
    async fn sweep_safely(self: Arc<Self>, key: WorkspaceKey, live: Connection, connections: Arc<Connections>) {
        let began = Instant::now();
        let client = live.waiting(Priority::Drift, &key);
        let outcome = tokio::spawn(async move { read(&client).await }).await;
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a sweep of the workflows panicked; this is a bug in the operator");
            Err(Error::Transient { retry_after: None, message: "the sweep panicked".into() })
        });
        let workspace = format_args!("{}/{}", key.namespace, key.name);
        let mut drift_is_news = false;
        let (changed, news) = match lock(&self.watched).get_mut(&key) {
            Some(watched) => match outcome {
                Ok(swept) => {
                    for gap in &swept.gaps {
                        tracing::warn!(kind = "Workspace", object = %workspace, "{gap}; the operator concludes nothing from missing rows");
                    }
                    drift_is_news = watched.sees();
                    (watched.compare(&swept, began), Some(swept))
                }
                Err(error) => {
                    tracing::warn!(kind = "Workspace", object = %workspace, %error, "the operator could not read the lists of workflows, and tries again");
                    watched.put_off(error.retry_after());
                    let (refused, lasting) =
                        (matches!(error, Error::Unauthorized(_)), watched.troubles >= SUSPECT_AFTER);
                    if lasting || refused {
                        connections.suspect(&key);
                    }
                    drift_is_news = !refused && watched.sees_nothing(&error);
                    // The Workspace's own check reports a refused key, and nothing reports brief trouble. But discovery
                    // must not stay silent for hours because one list fails.
                    let told = lasting && !refused;
                    (
                        Vec::new(),
                        told.then(|| ListSnapshot { without_rows: Some(error.to_string()), ..ListSnapshot::default() }),
                    )
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
