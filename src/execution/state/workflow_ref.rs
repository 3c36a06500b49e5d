//! The Workflow resource that an execution names.

use crate::api::Workflow;
use crate::api::conditions::{self, Progress, READY, STALLED};
use crate::api::reasons::workflow::WORKFLOW_NOT_FOUND;

/// The Workflow resource that `spec.workflowRef` names.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkflowRefState {
    /// The spec names none.
    NotNamed,
    /// There is no such resource.
    NotFound,
    /// Its workflow cannot be run now.
    NotReady {
        why: String,
        /// Whether the obstacle may go away without intervention.
        wait: Progress,
        /// The workflow, as far as it is known.
        workflow: Option<Named>,
    },
    /// Its workflow can be run.
    Ready {
        workflow: Named,
        /// Whether a live worker serves it. None if the API does not say.
        active: Option<bool>,
    },
}

/// A workflow at the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// UUID.
    pub id: String,
    pub name: String,
}

impl WorkflowRefState {
    /// Reads the resource, if there is one.
    pub fn read(resource: Option<&Workflow>, workspace: &str) -> Self {
        let Some(resource) = resource else { return Self::NotFound };
        let status = resource.status.clone().unwrap_or_default();
        let ready = conditions::find(&status.conditions, READY);
        let theirs = &resource.spec.workspace_ref.name;
        if theirs != workspace {
            let why = format!(
                "it belongs to Workspace \"{theirs}\", but this execution to \"{workspace}\"; name the same Workspace in both"
            );
            return Self::NotReady { why, wait: Progress::Stalled, workflow: None };
        }
        let workflow = status.workflow_id.zip(status.name).map(|(id, name)| Named { id, name });
        let is_archived = status.archived == Some(true);
        let why = match &workflow {
            _ if resource.metadata.deletion_timestamp.is_some() => "it is being deleted".to_owned(),
            Some(_) if is_archived => "it is archived; set archived to false in its spec".to_owned(),
            Some(workflow) if ready.is_none_or(|ready| ready.reason != WORKFLOW_NOT_FOUND) => {
                return Self::Ready { workflow: workflow.clone(), active: status.active };
            }
            _ => ready
                .map_or_else(|| "the operator has not read it from the API yet".to_owned(), |it| it.message.clone()),
        };
        let lasts = is_archived || conditions::is_true(&status.conditions, STALLED);
        Self::NotReady { why, wait: if lasts { Progress::Stalled } else { Progress::Working }, workflow }
    }

    /// The workflow, if it is known.
    pub fn workflow(&self) -> Option<&Named> {
        match self {
            Self::Ready { workflow, .. } => Some(workflow),
            Self::NotReady { workflow, .. } => workflow.as_ref(),
            Self::NotNamed | Self::NotFound => None,
        }
    }
}
