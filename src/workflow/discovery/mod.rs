//! Creates Workflow resources for the workflows of a Mistral workspace, and removes those whose workflow is gone.
//!
//! Each complete sweep of the lists is compared with the existing resources. A resource is removed only if it is still
//! exactly as it was created here, and only after the API has said that its very workflow does not exist.

mod outcome;
mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

pub use plan::safe_name;

use outcome::{AGAIN, Refusals, Undone};
use plan::{Change, Here, Rows, Several, decide};

use super::drift::News;
use crate::api::reasons::workspace as reason;
use crate::api::workspace::Discovery as Policy;
use crate::api::{Workflow, Workspace};
use crate::mistral;
use crate::platform::apiserver::{self, Error, call};
use crate::platform::decoded::Decoded;
use crate::platform::events::Notice;
use crate::sync::lock;
use crate::text::counted;
use crate::throttle::Priority;
use crate::workspace::connections::WorkspaceKey;
use crate::workspace::findings::Discovered as Outcome;
use crate::workspace::shared::Shared;

pub struct Discovery {
    shared: Shared,
    busy: Mutex<HashSet<WorkspaceKey>>,
    /// The outcome of the last sweep of each.
    outcomes: Mutex<HashMap<WorkspaceKey, Outcome>>,
}

impl Discovery {
    /// Works with the objects in these stores, while the term lasts.
    pub fn new(shared: Shared) -> Self {
        Self { shared, busy: Mutex::default(), outcomes: Mutex::default() }
    }

    /// The Workspaces whose workflows are to be discovered. Forgets the outcomes of all others.
    pub fn wanted(&self) -> Vec<WorkspaceKey> {
        let objects = self.shared.workspaces.state();
        let wanted: HashSet<WorkspaceKey> =
            objects.iter().filter(|object| wants(object)).map(|object| key(object)).collect();
        lock(&self.outcomes).retain(|key, _| wanted.contains(key));
        wanted.into_iter().collect()
    }

    /// Processes the sweep of one Workspace on a task of its own, unless the last one is still being processed.
    pub fn take_up(self: &Arc<Self>, news: News) {
        let at = ObjectRef::new(&news.key.name).within(&news.key.namespace);
        let Some(workspace) = self.shared.workspaces.get(&at) else { return };
        let Ok(workspace) = workspace.0.clone() else { return };
        if !self.is_wanted(&news.key) || !lock(&self.busy).insert(news.key.clone()) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let key = news.key.clone();
            let apply = {
                let this = Arc::clone(&this);
                tokio::spawn(async move { this.apply(&workspace, &news).await })
            };
            let died = apply.await.is_err();
            lock(&this.busy).remove(&key);
            if died {
                tracing::error!("discovery panicked; this is a bug in the operator");
            }
        });
    }

    /// Makes the changes that a sweep asks for, and publishes what came of it.
    async fn apply(&self, workspace: &Workspace, news: &News) {
        let Some(rows) = &news.swept.rows else {
            let why = news.swept.without_rows.as_deref().unwrap_or_default().trim_end_matches('.');
            let message = format!("Mistral's list of workflows could not be read: {why}. {AGAIN}");
            return self.set_outcome(&news.key, Outcome::Incomplete { reason: reason::DISCOVERY_FAILED, message });
        };
        let (changes, taken) = self.changes(rows, news);
        let mut undone = Undone { taken, unlisted: news.swept.without_rows.clone(), ..Undone::default() };
        let Some(created) = self.make_changes(changes, news, &mut undone).await else { return };
        if created > 0 {
            let note = format!("Discovery has created {}.", counted(created, "Workflow"));
            self.shared
                .publisher
                .publish(&apiserver::reference(workspace), vec![Notice::normal(reason::DISCOVERED, note)]);
        }
        self.set_outcome(&news.key, undone.outcome());
    }

    /// The changes that a sweep asks for, and the workflows whose resource name is taken.
    fn changes(&self, rows: &Rows, news: &News) -> (Vec<Change>, Several) {
        let objects = self.shared.workflows.state();
        let here = Here::new(objects.iter().filter(|object| object.namespace().as_ref() == Some(&news.key.namespace)));
        let (mut changes, taken) = decide(rows, &news.key.name, news.live.workspace_id.as_deref(), &here);
        if !news.swept.is_complete() {
            // A workflow that is not in an incomplete list may exist.
            changes.retain(|change| matches!(change, Change::Create(_)));
        }
        (changes, taken)
    }

    /// Makes these changes until the API server refuses too many. Returns how many Workflows were created; none if
    /// discovery has to stop.
    async fn make_changes(&self, changes: Vec<Change>, news: &News, undone: &mut Undone) -> Option<usize> {
        let api: Api<Workflow> = Api::namespaced(self.shared.client.clone(), &news.key.namespace);
        let mistral = news.live.waiting(Priority::Drift, &news.key);
        let (all, mut created, mut refusals) = (changes.len(), 0, Refusals::default());
        for (number, change) in changes.into_iter().enumerate() {
            if self.shared.term.is_over() || !self.is_wanted(&news.key) {
                return None;
            }
            let outcome = match &change {
                Change::Create(workflow) => call(api.create(&PostParams::default(), workflow)).await.map(|_| 1),
                Change::Remove(workflow) => remove(&api, workflow, &mistral).await.map(|()| 0),
            };
            let goes_on = refusals.go_on(outcome.as_ref().err());
            match outcome {
                Ok(workflows) => created += workflows,
                // Probably created a moment ago; if not, the next sweep finds what has the name.
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    tracing::debug!(%error, "discovery could not make a change");
                    undone.failed(&change, &error);
                }
            }
            if !goes_on {
                undone.untried = all - number - 1;
                break;
            }
        }
        Some(created)
    }

    fn set_outcome(&self, key: &WorkspaceKey, outcome: Outcome) {
        let before = lock(&self.outcomes).insert(key.clone(), outcome.clone());
        if before.as_ref() != Some(&outcome) {
            self.shared.connections.look_again(key);
        }
    }

    /// The outcome of the last sweep of a Workspace that wants discovery.
    pub fn outcome(&self, key: &WorkspaceKey) -> Outcome {
        lock(&self.outcomes).get(key).cloned().unwrap_or(Outcome::Unknown)
    }

    fn is_wanted(&self, key: &WorkspaceKey) -> bool {
        let workspace = self.shared.workspaces.get(&ObjectRef::new(&key.name).within(&key.namespace));
        workspace.is_some_and(|workspace| wants(&workspace))
    }
}

fn wants(object: &Decoded<Workspace>) -> bool {
    object.0.as_ref().is_ok_and(|workspace| {
        workspace.spec.discovery == Policy::Observe && workspace.metadata.deletion_timestamp.is_none()
    })
}

/// Deletes the resource of a workflow that the API says does not exist, unless somebody has changed the resource
/// meanwhile.
async fn remove(api: &Api<Workflow>, workflow: &Workflow, mistral: &mistral::Client) -> Result<(), Error> {
    let identifier = workflow.spec.identifier.as_deref().unwrap_or_default();
    if !matches!(mistral.get_workflow(identifier).await, Err(mistral::Error::NotFound(_))) {
        return Ok(());
    }
    let preconditions = Preconditions { uid: workflow.uid(), resource_version: workflow.resource_version() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match call(api.delete(&workflow.name_any(), &parameters)).await {
        Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn key(workspace: &Decoded<Workspace>) -> WorkspaceKey {
    WorkspaceKey { namespace: workspace.namespace().unwrap_or_default(), name: workspace.name_any() }
}
