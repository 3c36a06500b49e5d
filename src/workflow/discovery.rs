//! Creates Workflow resources for the workflows of a Mistral workspace, and removes those whose workflow is gone.
//!
//! Each complete sweep of the lists is compared with the existing resources. A resource is removed only if it is still
//! exactly as it was created here, and only after the API has said that its very workflow does not exist.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::platform::decoded::Decoded;
use crate::platform::watch;
use crate::sync::lock;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};

use super::inventory::{Guarded, News};
use crate::api::workspace::Discovery as Policy;
use crate::api::{ManagementPolicy, Workflow, WorkflowDeletionPolicy, WorkflowSpec, Workspace, WorkspaceRef};
use crate::mistral;
use crate::mistral::wire::WorkflowRow;
use crate::platform::apiserver::{self, Error, call};
use crate::platform::events::Notice;
use crate::platform::names::PROGRAM;
use crate::throttle::Priority;
use crate::workspace::connections::WorkspaceKey;
use crate::workspace::findings::Discovered as Outcome;
use crate::workspace::shared::Shared;
use crate::workspace::status::reason;

/// Consecutive refusals that end a sweep: they concern the operator, not one resource.
const REFUSED_IN_A_ROW: u32 = 20;

/// Says when an incomplete discovery is tried again.
const AGAIN: &str = "The operator tries again at each resync.";

/// The label of resources that discovery made.
pub const DISCOVERED: &str = "workflows.mistral.ai/discovered";
/// The annotation with the Mistral workspace of a discovered workflow.
const FROM: &str = "workflows.mistral.ai/discovered-from";
/// Characters of a workflow's name in a resource's name, at most.
const MAX_NAME: usize = 120;

pub struct Discovery {
    shared: Shared,
    busy: Mutex<HashSet<WorkspaceKey>>,
    /// The outcome of the last sweep of each.
    outcomes: Mutex<HashMap<WorkspaceKey, Outcome>>,
}

/// All rows of the list of workflows, by UUID.
type Rows = HashMap<String, WorkflowRow>;

/// A change that a sweep asks for.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// No resource refers to this workflow.
    Create(Box<Workflow>),
    /// The workflow of this resource is no longer listed.
    Remove(Box<Workflow>),
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

    async fn apply(&self, workspace: &Workspace, news: &News) {
        let Some(rows) = &news.swept.rows else {
            let why = news.swept.without_rows.as_deref().unwrap_or_default().trim_end_matches('.');
            let message = format!("Mistral's list of workflows could not be read: {why}. {AGAIN}");
            return self.set_outcome(&news.key, Outcome::Incomplete { reason: reason::DISCOVERY_FAILED, message });
        };
        let namespace = news.key.namespace.clone();
        let objects = self.shared.workflows.state();
        let here = Here::new(objects.iter().filter(|object| object.namespace().as_deref() == Some(&namespace)));
        let api: Api<Workflow> = Api::namespaced(self.shared.client.clone(), &namespace);
        let (mut changes, taken) = decide(rows, &news.key.name, news.live.workspace_id.as_deref(), &here);
        if !news.swept.is_complete() {
            // A workflow that is not in an incomplete list may exist.
            changes.retain(|change| matches!(change, Change::Create(_)));
        }
        let unlisted = news.swept.without_rows.clone();
        let (mut created, mut undone) = (0_usize, Undone { taken, unlisted, ..Undone::default() });
        let (all, mut in_a_row) = (changes.len(), 0_u32);
        for (number, change) in changes.into_iter().enumerate() {
            if self.shared.term.is_over() || !self.is_wanted(&news.key) {
                return;
            }
            let error = match change {
                Change::Create(workflow) => match call(api.create(&PostParams::default(), &workflow)).await {
                    Ok(_) => {
                        created += 1;
                        in_a_row = 0;
                        continue;
                    }
                    // Probably created a moment ago; if not, the next sweep finds what has the name.
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => {
                        undone.created.add(|| refused(&workflow.name_any(), &error));
                        error
                    }
                },
                Change::Remove(workflow) => {
                    match remove(&api, &workflow, &news.live.waiting(Priority::Drift, &news.key)).await {
                        Ok(()) => {
                            in_a_row = 0;
                            continue;
                        }
                        Err(error) => {
                            undone.deleted.add(|| refused(&workflow.name_any(), &error));
                            error
                        }
                    }
                }
            };
            tracing::debug!(%error, "discovery could not make a change");
            // One refusal says nothing about other resources. Many consecutive ones do, for example if the operator
            // lacks the permission, and so does an API server that does not answer.
            in_a_row += 1;
            let is_refusal = error.refusal().is_some_and(|said| (400..500).contains(&said.code) && said.code != 429);
            if !is_refusal || in_a_row >= REFUSED_IN_A_ROW {
                undone.untried = all - number - 1;
                break;
            }
        }
        if created > 0 {
            let note = format!("Discovery has created {created} Workflows.");
            self.shared
                .publisher
                .publish(&apiserver::reference(workspace), vec![Notice::normal(reason::DISCOVERED, note)]);
        }
        self.set_outcome(&news.key, undone.outcome());
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

/// The resources of one namespace.
struct Here<'a> {
    workflows: Vec<&'a Workflow>,
    /// Including those of resources that cannot be decoded.
    names: HashSet<String>,
}

impl<'a> Here<'a> {
    fn new(objects: impl Iterator<Item = &'a Arc<Guarded>>) -> Self {
        let (mut workflows, mut names) = (Vec::new(), HashSet::new());
        for object in objects {
            names.insert(object.name_any());
            workflows.extend(object.0.as_ref().ok());
        }
        Self { workflows, names }
    }
}

/// Several cases of one kind, of which the first is reported.
#[derive(Clone, Debug, Default, PartialEq)]
struct Several {
    number: usize,
    first: String,
}

impl Several {
    fn add(&mut self, what: impl FnOnce() -> String) {
        if self.number == 0 {
            self.first = what();
        }
        self.number += 1;
    }
}

/// What a sweep asked for and did not get.
#[derive(Clone, Debug, Default)]
struct Undone {
    created: Several,
    deleted: Several,
    taken: Several,
    /// Changes given up after the API server did not answer, or refused too many.
    untried: usize,
    /// Why the list of workflows is not known to its end.
    unlisted: Option<String>,
}

impl Undone {
    fn outcome(&self) -> Outcome {
        let Self { created, deleted, taken, untried, unlisted } = self;
        let mut sentences = Vec::new();
        if let Some(why) = unlisted {
            sentences.push(format!(
                "Mistral's list of workflows could not be read to its end: {}. Other workflows may be missing, so the operator deletes no resource.",
                why.trim_end_matches('.')
            ));
        }
        let mut say = |several: &Several, what: &str| {
            if several.number > 0 {
                sentences.push(format!(
                    "{what}: {}. The first: {}.",
                    several.number,
                    several.first.trim_end_matches('.')
                ));
            }
        };
        say(created, "Workflows that could not be created");
        say(deleted, "Workflows that could not be deleted although their workflow is gone");
        say(taken, "Workflows that were not created because another Workflow has the name");
        if *untried > 0 {
            sentences.push(format!("{untried} more were not tried."));
        }
        let failed = created.number + deleted.number + usize::from(unlisted.is_some());
        let reason = match (failed, taken.number) {
            (0, 0) => return Outcome::Complete,
            (0, _) => reason::NAME_TAKEN,
            _ => reason::DISCOVERY_FAILED,
        };
        sentences.push(AGAIN.into());
        Outcome::Incomplete { reason, message: sentences.join(" ") }
    }
}

/// The API server's message about one resource, and what to do.
fn refused(name: &str, error: &Error) -> String {
    let said = error.refusal().map_or_else(|| error.to_string(), |said| said.message.clone());
    // A quota or a policy may forbid this as well.
    let hint = if ["cannot create resource", "cannot delete resource"].iter().any(|words| said.contains(words)) {
        "; the chart's value discovery.enabled grants the operator the right"
    } else {
        ""
    };
    format!("\"{name}\", {said}{hint}")
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

/// Workflows in the list that no resource refers to, and resources whose workflow is not listed. Also workflows whose
/// resource name is taken, by a resource of another Workspace with the same workflows or by a person's.
fn decide(rows: &Rows, workspace: &str, from: Option<&str>, here: &Here<'_>) -> (Vec<Change>, Several) {
    let of_workspace = || here.workflows.iter().filter(|it| it.spec.workspace_ref.name == workspace);
    let mut spoken_of: HashSet<String> = HashSet::new();
    for workflow in of_workspace() {
        spoken_of.insert(workflow.spec.identifier.clone().unwrap_or_else(|| workflow.name_any()));
        spoken_of.extend(workflow.status.iter().filter_map(|status| status.workflow_id.clone()));
    }
    let mut missing: Vec<&WorkflowRow> = rows
        .values()
        .filter(|row| !row.is_internal() && !spoken_of.contains(&row.id) && !spoken_of.contains(&row.name))
        .collect();
    // The first one in trouble is reported, and has to be the same one each time.
    missing.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let (mut changes, mut taken) = (Vec::new(), Several::default());
    for row in missing {
        let made = resource(row, workspace, from);
        if here.names.contains(&made.name_any()) {
            taken.add(|| {
                let (name, workflow, id) = (made.name_any(), &row.name, &row.id);
                format!(
                    "\"{name}\" for the workflow \"{workflow}\"; create a Workflow of another name with spec.identifier {id}"
                )
            });
        } else {
            changes.push(Change::Create(Box::new(made)));
        }
    }
    let gone = of_workspace().filter(|workflow| {
        let identifier = workflow.spec.identifier.as_deref().unwrap_or_default();
        is_untouched(workflow, workspace, from) && !rows.contains_key(identifier)
    });
    changes.extend(gone.map(|workflow| Change::Remove(Box::new((*workflow).clone()))));
    (changes, taken)
}

/// Whether discovery made this resource for this very Mistral workspace, and nobody has changed it since.
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

fn resource(row: &WorkflowRow, workspace: &str, from: Option<&str>) -> Workflow {
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
    BTreeMap::from([(watch::MANAGED_BY.to_owned(), PROGRAM.to_owned()), (DISCOVERED.to_owned(), "true".to_owned())])
}

fn annotations(from: Option<&str>) -> BTreeMap<String, String> {
    from.map(|from| (FROM.to_owned(), from.to_owned())).into_iter().collect()
}

/// A name that Kubernetes accepts and that no other workflow gets. It ends with the last eight hexadecimal digits of
/// the UUID, which are random, while the first ones are a time.
pub fn safe_name(name: &str, id: &str) -> String {
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

fn key(workspace: &Decoded<Workspace>) -> WorkspaceKey {
    WorkspaceKey { namespace: workspace.namespace().unwrap_or_default(), name: workspace.name_any() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "019b2bd7-96e7-7219-8c0b-45a73da50088";

    fn rows(rows: &[Value]) -> Rows {
        let rows = rows.iter().map(|row| {
            let row: WorkflowRow = serde_json::from_value(row.clone()).unwrap();
            (row.id.clone(), row)
        });
        rows.collect()
    }

    fn existing(change: impl FnOnce(&mut Value)) -> Arc<Guarded> {
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
        let made = |existing: &[Arc<Guarded>]| -> (Vec<String>, Several) {
            let of = |change| match change {
                Change::Create(workflow) => workflow.spec.identifier.unwrap(),
                Change::Remove(workflow) => panic!("removes {}", workflow.name_any()),
            };
            let (changes, taken) = decide(&swept, "default", Some("ws"), &Here::new(existing.iter()));
            (changes.into_iter().map(of).collect(), taken)
        };
        let all_of = |ids: &[&str]| (ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>(), Several::default());
        assert_eq!(made(&[]), all_of(&[ID, "other"]));
        assert_eq!(made(&[existing(|_| ())]), all_of(&["other"]));
        let by_name = existing(|it| {
            it["spec"]["identifier"] = json!("invoices");
            it["metadata"]["labels"] = json!(null);
        });
        assert_eq!(made(&[by_name]), all_of(&["other"]), "a person's");
        let by_status = existing(|it| {
            it["spec"]["identifier"] = json!("old-name");
            it["status"] = json!({ "workflowId": ID });
            it["metadata"]["generation"] = json!(2);
        });
        assert_eq!(made(&[by_status]), all_of(&["other"]));
        let elsewhere = existing(|it| {
            it["spec"]["workspaceRef"]["name"] = json!("team");
            it["metadata"]["name"] = json!("theirs");
        });
        assert_eq!(made(&[elsewhere]), all_of(&[ID, "other"]), "another Workspace's");
        for (what, change) in [
            ("another Workspace's", (|it| it["spec"]["workspaceRef"]["name"] = json!("team")) as fn(&mut Value)),
            ("a person's", |it| {
                it["spec"]["identifier"] = json!("payments");
                it["metadata"]["labels"] = json!(null);
            }),
            ("not to be decoded", |it| it["spec"]["tags"] = json!("no list")),
        ] {
            let (made, taken) = made(&[existing(change)]);
            assert_eq!((made, taken.number), (vec!["other".to_owned()], 1), "{what}");
            assert!(taken.first.contains("\"invoices-3da50088\"") && taken.first.contains(ID), "{}", taken.first);
        }
    }

    #[test]
    fn what_could_not_be_done_is_told_in_numbers_with_the_first_and_its_reason() {
        let several = |number, first: &str| Several { number, first: first.into() };
        assert_eq!(Undone::default().outcome(), Outcome::Complete);
        let taken = Undone { taken: several(2, "\"a\" for the workflow \"A\""), ..Undone::default() };
        let refused = Undone { created: several(3, "\"b\", exceeded quota"), untried: 7, ..taken.clone() };
        let kept = Undone { deleted: several(1, "\"c\", no right."), ..Undone::default() };
        for (undone, expected, words) in [
            (&taken, reason::NAME_TAKEN, &["the name: 2. The first: \"a\" for the workflow \"A\"."] as &[&str]),
            (
                &refused,
                reason::DISCOVERY_FAILED,
                &["created: 3. The first: \"b\", exceeded quota.", "name: 2.", "7 more"],
            ),
            (&kept, reason::DISCOVERY_FAILED, &["gone: 1. The first: \"c\", no right. The operator tries again"]),
        ] {
            let Outcome::Incomplete { reason, message } = undone.outcome() else { panic!("{undone:?}") };
            assert_eq!(reason, expected, "{message}");
            words.iter().for_each(|word| assert!(message.contains(word), "{word} in: {message}"));
        }
    }

    #[test]
    fn only_what_discovery_made_there_and_nobody_touched_is_removed() {
        let gone = rows(&[]);
        let removed = |it: Arc<Guarded>, from: Option<&str>| {
            // As the cache keeps it.
            let mut it = Arc::unwrap_or_clone(it);
            watch::trim_for_cache(&mut it, |_| None, |_| false);
            let it = Arc::new(it);
            !decide(&gone, "default", from, &Here::new([it].iter())).0.is_empty()
        };
        assert!(removed(existing(|_| ()), Some("ws")));
        assert!(!removed(existing(|_| ()), Some("another")), "the key leads elsewhere now");
        assert!(!removed(existing(|_| ()), None), "nobody knows where it leads");
        for (what, change) in [
            ("edited", (|it| it["metadata"]["generation"] = json!(2)) as fn(&mut Value)),
            ("labelled", |it| it["metadata"]["labels"]["team"] = json!("a")),
            ("annotated", |it| it["metadata"]["annotations"]["note"] = json!("a")),
            ("applied", |it| {
                it["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!("{}");
            }),
            ("not ours", |it| it["metadata"]["labels"] = json!(null)),
            ("held", |it| it["metadata"]["finalizers"] = json!(["a/b"])),
            ("another's", |it| it["spec"]["workspaceRef"]["name"] = json!("team")),
        ] {
            assert!(!removed(existing(change), Some("ws")), "{what}");
        }
    }
}
