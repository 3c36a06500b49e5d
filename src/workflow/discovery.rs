//! Creates Workflow resources for what a Mistral workspace has, and removes those whose workflow is gone.
//!
//! Each complete sweep of the lists is compared with the resources that exist. A resource goes only if it is still
//! exactly as it was created here, and only after the API has said of its very workflow that it does not exist.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};

use super::inventory::{Guarded, News};
use super::lists::Swept;
use crate::api::workspace::Discovery as Policy;
use crate::api::{ManagementPolicy, Workflow, WorkflowDeletionPolicy, WorkflowSpec, Workspace, WorkspaceRef};
use crate::mistral::budget::Class;
use crate::mistral::{self, wire};
use crate::operator::events::{Notice, Publisher};
use crate::operator::kubernetes::{self, Error, call};
use crate::operator::lease::Term;
use crate::workspace::connections::Key;

/// The label of resources that discovery made.
pub const DISCOVERED: &str = "workflows.mistral.ai/discovered";
/// The annotation that says in which Mistral workspace.
const FROM: &str = "workflows.mistral.ai/discovered-from";
/// The reason of the Event that tells of trouble.
const FAILED: &str = "DiscoveryFailed";
/// Characters of a workflow's name that a resource's name takes over.
const MAX_NAME: usize = 120;

/// What discovery works with.
pub struct Discovery {
    client: Client,
    workspaces: Store<DeserializeGuard<Workspace>>,
    workflows: Store<Guarded>,
    publisher: Arc<Publisher>,
    term: Term,
    busy: Mutex<HashSet<Key>>,
}

/// What a sweep asks for.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// No resource speaks of this workflow.
    Create(Box<Workflow>),
    /// The workflow of this resource is not listed any more.
    Remove(Arc<Workflow>),
}

impl Discovery {
    /// Works on what these stores hold, while the term lasts.
    pub fn new(
        client: Client,
        workspaces: Store<DeserializeGuard<Workspace>>,
        workflows: Store<Guarded>,
        publisher: Arc<Publisher>,
        term: Term,
    ) -> Self {
        Self { client, workspaces, workflows, publisher, term, busy: Mutex::default() }
    }

    /// The Workspaces whose workflows are to be discovered.
    pub fn wanted(&self) -> Vec<Key> {
        let wants = |object: &DeserializeGuard<Workspace>| {
            let workspace = object.0.as_ref().ok()?;
            (workspace.spec.discovery == Policy::Observe && workspace.metadata.deletion_timestamp.is_none())
                .then(|| key(workspace))
        };
        self.workspaces.state().iter().filter_map(|object| wants(object)).collect()
    }

    /// Takes up the sweep of one Workspace, on a task of its own; unless the last one is still being worked on.
    pub fn take_up(self: &Arc<Self>, news: News) {
        let at = ObjectRef::new(&news.key.name).within(&news.key.namespace);
        let Some(workspace) = self.workspaces.get(&at) else { return };
        let Ok(workspace) = workspace.0.clone() else { return };
        if workspace.spec.discovery != Policy::Observe || !self.lock().insert(news.key.clone()) {
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
            this.lock().remove(&key);
            if died {
                tracing::error!("discovery died; this is a bug in the operator");
            }
        });
    }

    async fn apply(&self, workspace: &Workspace, news: &News) {
        let namespace = news.key.namespace.clone();
        let existing: Vec<Arc<Workflow>> = self
            .workflows
            .state()
            .iter()
            .filter_map(|object| object.0.as_ref().ok())
            .filter(|workflow| workflow.namespace().as_deref() == Some(&namespace))
            .map(|workflow| Arc::new(workflow.clone()))
            .collect();
        let api: Api<Workflow> = Api::namespaced(self.client.clone(), &namespace);
        let mut created = 0_usize;
        for change in decide(&news.swept, &news.key.name, news.live.workspace_id.as_deref(), &existing) {
            if self.term.is_over() {
                return;
            }
            let done = match change {
                Change::Create(workflow) => match call(api.create(&PostParams::default(), &workflow)).await {
                    Ok(_) => {
                        created += 1;
                        Ok(())
                    }
                    // Made a moment ago, or something else is called so.
                    Err(error) if error.is_conflict() => Ok(()),
                    Err(error) => Err(("created", workflow.name_any(), error)),
                },
                Change::Remove(workflow) => remove(&api, &workflow, &news.live.waiting(Class::Drift, &news.key))
                    .await
                    .map_err(|error| ("deleted", workflow.name_any(), error)),
            };
            // One that fails will not be alone: the next sweep tries again.
            if let Err((what, name, error)) = done {
                let hint = if error.is_forbidden() {
                    " The operator's account may not do it; the chart's value discovery.enabled grants it."
                } else {
                    ""
                };
                let note =
                    format!("Workflow \"{name}\" could not be {what} by discovery.{hint} It is tried again: {error}");
                self.publisher.publish(&kubernetes::reference(workspace), vec![Notice::warning(FAILED, note)]);
                return;
            }
        }
        if created > 0 {
            let note = format!("Discovery has created {created} Workflows.");
            self.publisher.publish(&kubernetes::reference(workspace), vec![Notice::normal("Discovered", note)]);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes the resource of a workflow that the API says it does not have, if nobody has touched it meanwhile.
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

/// What the lists have that no resource speaks of, and the other way round.
fn decide(swept: &Swept, workspace: &str, from: Option<&str>, existing: &[Arc<Workflow>]) -> Vec<Change> {
    let Some(rows) = &swept.rows else { return Vec::new() };
    let of_workspace = || existing.iter().filter(|it| it.spec.workspace_ref.name == workspace);
    let mut spoken_of: HashSet<String> = HashSet::new();
    for workflow in of_workspace() {
        spoken_of.insert(workflow.spec.identifier.clone().unwrap_or_else(|| workflow.name_any()));
        spoken_of.extend(workflow.status.iter().filter_map(|status| status.workflow_id.clone()));
    }
    // A resource of that name is another's: of a Workspace that has the same workflows, or a person's.
    let names: HashSet<String> = existing.iter().map(|workflow| workflow.name_any()).collect();
    let missing = rows
        .values()
        .filter(|row| !row.is_internal() && !spoken_of.contains(&row.id) && !spoken_of.contains(&row.name));
    let missing = missing.map(|row| resource(row, workspace, from)).filter(|made| !names.contains(&made.name_any()));
    let mut changes: Vec<Change> = missing.map(|made| Change::Create(Box::new(made))).collect();
    // An order that does not change makes trouble easier to follow.
    changes.sort_by_key(|change| match change {
        Change::Create(workflow) => workflow.name_any(),
        Change::Remove(workflow) => workflow.name_any(),
    });
    let gone = of_workspace().filter(|workflow| {
        let identifier = workflow.spec.identifier.as_deref().unwrap_or_default();
        is_untouched(workflow, workspace, from) && !rows.contains_key(identifier)
    });
    changes.extend(gone.cloned().map(Change::Remove));
    changes
}

/// Whether discovery made this resource in this very Mistral workspace, and nobody has changed it since.
fn is_untouched(workflow: &Workflow, workspace: &str, from: Option<&str>) -> bool {
    let meta = &workflow.metadata;
    let Some(from) = from else { return false };
    let empty = |list: Option<usize>| list.unwrap_or_default() == 0;
    meta.generation == Some(1)
        && meta.deletion_timestamp.is_none()
        && meta.labels.as_ref() == Some(&labels())
        && meta.annotations.as_ref() == Some(&annotations(Some(from)))
        && empty(meta.finalizers.as_ref().map(Vec::len))
        && empty(meta.owner_references.as_ref().map(Vec::len))
        && workflow.spec.workspace_ref.name == workspace
}

fn resource(row: &wire::Workflow, workspace: &str, from: Option<&str>) -> Workflow {
    let spec = WorkflowSpec {
        workspace_ref: WorkspaceRef { name: workspace.to_owned() },
        identifier: Some(row.id.clone()),
        management_policy: ManagementPolicy::Observe,
        suspend: false,
        display_name: None,
        description: None,
        tags: None,
        available_in_chat_assistant: None,
        archived: None,
        deletion_policy: WorkflowDeletionPolicy::Retain,
    };
    let mut workflow = Workflow::new(&safe_name(&row.name, &row.id), spec);
    let meta = workflow.meta_mut();
    meta.labels = Some(labels());
    meta.annotations = Some(annotations(from));
    workflow
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), "mistral-workflows-operator".to_owned()),
        (DISCOVERED.to_owned(), "true".to_owned()),
    ])
}

fn annotations(from: Option<&str>) -> BTreeMap<String, String> {
    from.map(|from| (FROM.to_owned(), from.to_owned())).into_iter().collect()
}

/// A name that Kubernetes accepts and that no other workflow gets: the last eight hexadecimal digits of the UUID, which
/// are random where the first ones are a time.
pub(super) fn safe_name(name: &str, id: &str) -> String {
    let name: String = name.to_ascii_lowercase().chars().take(MAX_NAME).map(safe).collect();
    let digits: Vec<char> = id.chars().filter(char::is_ascii_hexdigit).collect();
    let last: String = digits[digits.len().saturating_sub(8)..].iter().collect::<String>().to_ascii_lowercase();
    match name.trim_matches('-') {
        "" => format!("workflow-{last}"),
        name => format!("{name}-{last}"),
    }
}

fn safe(character: char) -> char {
    if character.is_ascii_alphanumeric() { character } else { '-' }
}

fn key(workspace: &Workspace) -> Key {
    Key { namespace: workspace.namespace().unwrap_or_default(), name: workspace.name_any() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "019b2bd7-96e7-7219-8c0b-45a73da50088";

    fn rows(rows: &[Value]) -> Swept {
        let rows = rows.iter().map(|row| {
            let row: wire::Workflow = serde_json::from_value(row.clone()).unwrap();
            (row.id.clone(), row)
        });
        Swept { rows: Some(rows.collect::<HashMap<_, _>>()), ..Swept::default() }
    }

    fn existing(change: impl FnOnce(&mut Value)) -> Arc<Workflow> {
        let row = serde_json::from_value(json!({ "id": ID, "name": "invoices" })).unwrap();
        let mut object = json!(resource(&row, "default", Some("ws")));
        object["metadata"]["generation"] = json!(1);
        change(&mut object);
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn names_are_safe_and_tell_workflows_apart() {
        for (name, expected) in [
            ("invoices", "invoices-3da50088"),
            ("Send_Invoices", "send-invoices-3da50088"),
            ("__", "workflow-3da50088"),
            ("-a-", "a-3da50088"),
            (&"x".repeat(300), &format!("{}-3da50088", "x".repeat(120))),
        ] {
            assert_eq!(safe_name(name, ID), expected);
        }
    }

    #[test]
    fn each_workflow_that_no_resource_speaks_of_gets_one_and_only_then() {
        let swept = rows(&[
            json!({ "id": ID, "name": "invoices" }),
            json!({ "id": "other", "name": "other" }),
            json!({ "id": "sdk", "name": "__parallel_execution__" }),
        ]);
        let made = |existing: &[Arc<Workflow>]| -> Vec<String> {
            let of = |change| match change {
                Change::Create(workflow) => workflow.spec.identifier.unwrap(),
                Change::Remove(workflow) => panic!("removes {}", workflow.name_any()),
            };
            decide(&swept, "default", Some("ws"), existing).into_iter().map(of).collect()
        };
        assert_eq!(made(&[]), [ID, "other"]);
        assert_eq!(made(&[existing(|_| ())]), ["other"]);
        let by_name = existing(|it| {
            it["spec"]["identifier"] = json!("invoices");
            it["metadata"]["labels"] = json!(null);
        });
        assert_eq!(made(&[by_name]), ["other"], "a person's");
        let by_status = existing(|it| {
            it["spec"]["identifier"] = json!("old-name");
            it["status"] = json!({ "workflowId": ID });
            it["metadata"]["generation"] = json!(2);
        });
        assert_eq!(made(&[by_status]), ["other"]);
        let elsewhere = existing(|it| it["spec"]["workspaceRef"]["name"] = json!("team"));
        assert_eq!(made(&[elsewhere]), ["other"], "the name is taken by another Workspace's");
        let elsewhere = existing(|it| {
            it["spec"]["workspaceRef"]["name"] = json!("team");
            it["metadata"]["name"] = json!("theirs");
        });
        assert_eq!(made(&[elsewhere]), [ID, "other"], "another Workspace's");
    }

    #[test]
    fn only_what_discovery_made_there_and_nobody_touched_is_removed() {
        let gone = rows(&[]);
        let removed = |it: Arc<Workflow>, from: Option<&str>| !decide(&gone, "default", from, &[it]).is_empty();
        assert!(removed(existing(|_| ()), Some("ws")));
        assert!(!removed(existing(|_| ()), Some("another")), "the key leads elsewhere now");
        assert!(!removed(existing(|_| ()), None), "nobody knows where it leads");
        for (what, change) in [
            ("edited", (|it| it["metadata"]["generation"] = json!(2)) as fn(&mut Value)),
            ("labelled", |it| it["metadata"]["labels"]["team"] = json!("a")),
            ("annotated", |it| it["metadata"]["annotations"]["note"] = json!("a")),
            ("not ours", |it| it["metadata"]["labels"] = json!(null)),
            ("held", |it| it["metadata"]["finalizers"] = json!(["a/b"])),
            ("another's", |it| it["spec"]["workspaceRef"]["name"] = json!("team")),
        ] {
            assert!(!removed(existing(change), Some("ws")), "{what}");
        }
        let unknown = Swept { rows: None, ..Swept::default() };
        assert_eq!(decide(&unknown, "default", Some("ws"), &[existing(|_| ())]), [], "the list is not complete");
    }
}
