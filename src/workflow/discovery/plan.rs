//! Decides which Workflows discovery creates and deletes. No I/O here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kube::{Resource, ResourceExt};

use crate::api::{ManagementPolicy, Workflow, WorkflowDeletionPolicy, WorkflowSpec, WorkspaceRef, labels};
use crate::mistral::wire::WorkflowRow;
use crate::platform::names::PROGRAM;
use crate::platform::watch;
use crate::workflow::Guarded;

/// The label of resources that discovery made.
const DISCOVERED: &str = "workflows.mistral.ai/discovered";
/// The annotation with the Mistral workspace of a discovered workflow.
const FROM: &str = "workflows.mistral.ai/discovered-from";
/// Characters of a workflow's name in a resource's name, at most.
const MAX_NAME: usize = 120;

/// All rows of the list of workflows, by UUID.
pub type Rows = HashMap<String, WorkflowRow>;

/// A change that a sweep asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// No resource refers to this workflow.
    Create(Box<Workflow>),
    /// The workflow of this resource is no longer listed.
    Remove(Box<Workflow>),
}

/// Several cases of one kind, of which the first is reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Several {
    pub number: usize,
    pub first: String,
}

impl Several {
    pub fn add(&mut self, what: impl FnOnce() -> String) {
        if self.number == 0 {
            self.first = what();
        }
        self.number += 1;
    }
}

/// The resources of one namespace.
pub struct Here<'a> {
    workflows: Vec<&'a Workflow>,
    /// Including those of resources that cannot be decoded.
    names: HashSet<String>,
}

impl<'a> Here<'a> {
    pub fn new(objects: impl Iterator<Item = &'a Arc<Guarded>>) -> Self {
        let (mut workflows, mut names) = (Vec::new(), HashSet::new());
        for object in objects {
            names.insert(object.name_any());
            workflows.extend(object.0.as_ref().ok());
        }
        Self { workflows, names }
    }
}

/// Workflows in the list that no resource refers to, and resources whose workflow is not listed. Also workflows whose
/// resource name is taken, by a resource of another Workspace with the same workflows or by a person's.
pub fn decide(rows: &Rows, workspace: &str, from: Option<&str>, here: &Here<'_>) -> (Vec<Change>, Several) {
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
                format!("\"{workflow}\" (\"{name}\"); create a Workflow of another name with spec.identifier {id}")
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
        && meta.labels.as_ref().is_some_and(|labels| is_labelled_by_us(labels, workflow))
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
    meta.labels = Some(labelled(Some(&row.name), workspace));
    meta.annotations = Some(annotations(from));
    workflow
}

fn labelled(workflow: Option<&str>, workspace: &str) -> BTreeMap<String, String> {
    let mut labels = labels::of(workflow, workspace);
    labels.insert(watch::MANAGED_BY.to_owned(), PROGRAM.to_owned());
    labels.insert(DISCOVERED.to_owned(), "true".to_owned());
    labels
}

/// Whether these are the labels that discovery gave this resource. The workflow is gone from the list, so its name is
/// known only from the label, and the resource's own name confirms it.
fn is_labelled_by_us(found: &BTreeMap<String, String>, workflow: &Workflow) -> bool {
    let (spec, name) = (&workflow.spec, found.get(labels::WORKFLOW));
    let id = spec.identifier.as_deref().unwrap_or_default();
    let is_its_name = name.is_none_or(|name| safe_name(name, id) == workflow.name_any());
    // Discovery once set two labels only.
    let former: BTreeMap<String, String> = [(watch::MANAGED_BY, PROGRAM), (DISCOVERED, "true")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    is_its_name && (*found == labelled(name.map(String::as_str), &spec.workspace_ref.name) || *found == former)
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
        let former = existing(|it| {
            it["metadata"]["labels"] = json!({ DISCOVERED: "true", "app.kubernetes.io/managed-by": PROGRAM });
        });
        assert!(removed(former, Some("ws")), "made before the labels for workflow and Workspace");
        assert!(!removed(existing(|_| ()), Some("another")), "the key leads elsewhere now");
        assert!(!removed(existing(|_| ()), None), "nobody knows where it leads");
        for (what, change) in [
            ("edited", (|it| it["metadata"]["generation"] = json!(2)) as fn(&mut Value)),
            ("labelled", |it| it["metadata"]["labels"]["team"] = json!("a")),
            ("relabelled", |it| it["metadata"]["labels"][labels::WORKFLOW] = json!("other")),
            ("relabelled", |it| it["metadata"]["labels"][labels::WORKSPACE] = json!("other")),
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
