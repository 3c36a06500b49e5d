//! The API's objects as sent. Unset fields are `null`, not absent, as in the live API.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::catalog::{Registration, Workflow};
use crate::clock;
use crate::run::{Run, Status};
use crate::state::Workspace;
use crate::switches::Switches;

/// The workspace that owns shared workflows.
const OWNER_OF_SHARED: Uuid = Uuid::from_u128(0x7777_7777_7777_4777_8777_7777_7777_7777);

/// A boolean that the API may spell as a string.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Flag {
    Boolean(bool),
    Text(&'static str),
}

fn archived(workflow: &Workflow, switches: &Switches) -> Flag {
    match (switches.archived_as_string, workflow.archived) {
        (false, archived) => Flag::Boolean(archived),
        (true, true) => Flag::Text("true"),
        (true, false) => Flag::Text("false"),
    }
}

/// `WorkflowBasicDefinition`: a row of the workflow list.
#[derive(Serialize)]
pub(crate) struct WorkflowRow<'a> {
    id: Uuid,
    name: &'a str,
    display_name: &'a str,
    description: &'a str,
    metadata: Metadata<'a>,
    archived: Flag,
    tags: &'a [String],
}

#[derive(Serialize)]
struct Metadata<'a> {
    shared_namespace: Option<&'a str>,
}

impl<'a> WorkflowRow<'a> {
    pub(crate) fn new(workflow: &'a Workflow, switches: &Switches) -> Self {
        Self {
            id: workflow.id,
            name: &workflow.name,
            display_name: &workflow.display_name,
            description: &workflow.description,
            metadata: Metadata { shared_namespace: workflow.shared_namespace.as_deref() },
            archived: archived(workflow, switches),
            tags: &workflow.tags,
        }
    }
}

/// `Workflow`; with `active`, `WorkflowWithWorkerStatus`.
#[derive(Serialize)]
pub(crate) struct WorkflowObject<'a> {
    id: Uuid,
    name: &'a str,
    display_name: &'a str,
    r#type: &'static str,
    description: &'a str,
    customer_id: Uuid,
    workspace_id: Uuid,
    shared_namespace: Option<&'a str>,
    available_in_chat_assistant: bool,
    is_technical: bool,
    archived: Flag,
    tags: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
}

impl<'a> WorkflowObject<'a> {
    pub(crate) fn new(workflow: &'a Workflow, workspace: &Workspace, switches: &Switches) -> Self {
        Self {
            id: workflow.id,
            name: &workflow.name,
            display_name: &workflow.display_name,
            r#type: "code",
            description: &workflow.description,
            customer_id: workspace.customer_id,
            workspace_id: if workflow.shared_namespace.is_some() { OWNER_OF_SHARED } else { workspace.id },
            shared_namespace: workflow.shared_namespace.as_deref(),
            available_in_chat_assistant: workflow.available_in_chat_assistant,
            is_technical: workflow.is_technical,
            archived: archived(workflow, switches),
            tags: &workflow.tags,
            active: None,
        }
    }

    pub(crate) fn with_worker_status(self, active: bool) -> Self {
        Self { active: Some(active), ..self }
    }
}

/// `WorkflowCodeDefinition`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Definition {
    /// Kept as text: a worker's schema may be nested too deep for a `Value`.
    pub(crate) input_schema: Box<RawValue>,
    pub(crate) output_schema: Value,
    pub(crate) signals: Vec<Value>,
    pub(crate) queries: Vec<Value>,
    pub(crate) updates: Vec<Value>,
    enforce_determinism: bool,
    pub(crate) on_behalf_of: bool,
    /// In seconds.
    pub(crate) execution_timeout: f64,
    plugin_metadata: (),
}

/// `WorkflowRegistration`; with `active`, `WorkflowRegistrationWithWorkerStatus`.
#[derive(Serialize)]
pub(crate) struct RegistrationObject<'a> {
    id: Uuid,
    workflow_id: Uuid,
    definition: &'a Definition,
    deployment_name: &'a str,
    workflow: Option<WorkflowObject<'a>>,
    compatible_with_chat_assistant: bool,
    deployment_id: (),
    task_queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
}

impl<'a> RegistrationObject<'a> {
    pub(crate) fn new(
        workflow: &'a Workflow,
        registration: &'a Registration,
        object: Option<WorkflowObject<'a>>,
    ) -> Self {
        Self {
            id: registration.id,
            workflow_id: workflow.id,
            definition: &workflow.definition,
            deployment_name: &registration.deployment,
            workflow: object,
            compatible_with_chat_assistant: false,
            deployment_id: (),
            // The engine's queue is named after the deployment.
            task_queue: &registration.deployment,
            active: None,
        }
    }

    pub(crate) fn with_worker_status(self, active: bool) -> Self {
        Self { active: Some(active), ..self }
    }
}

/// A page of registrations. `workflow_versions` is the deprecated name of `workflow_registrations`.
#[derive(Serialize)]
pub(crate) struct RegistrationPage<'a> {
    pub(crate) workflow_registrations: &'a [Row<RegistrationObject<'a>>],
    pub(crate) next_cursor: Option<String>,
    pub(crate) workflow_versions: &'a [Row<RegistrationObject<'a>>],
}

/// One registration, under its current and its deprecated name.
#[derive(Serialize)]
pub(crate) struct OneRegistration<'a> {
    pub(crate) workflow_registration: &'a RegistrationObject<'a>,
    pub(crate) workflow_version: &'a RegistrationObject<'a>,
}

/// A row of a list, or a malformed row that a switch inserts.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Row<T> {
    Promised(T),
    Odd(Value),
}

/// `WorkflowExecutionWithoutResult`: a row of the run list.
#[derive(Serialize)]
pub(crate) struct RunRow<'a> {
    workflow_name: &'a str,
    workflow_id: Option<Uuid>,
    deployment_name: Option<&'a str>,
    execution_id: &'a str,
    parent_execution_id: (),
    root_execution_id: &'a str,
    run_id: Option<Uuid>,
    user_id: Option<Uuid>,
    status: Option<&'a str>,
    start_time: String,
    end_time: Option<String>,
    total_duration_ms: Option<u128>,
}

impl<'a> RunRow<'a> {
    /// The known fields of a run. Until a worker picks up the run, the API does not know the workflow's id, the
    /// deployment and the user.
    pub(crate) fn new(run: &'a Run, workspace: &Workspace, switches: &'a Switches) -> Self {
        let known = run.worker.is_some();
        Self {
            workflow_id: known.then_some(run.job.workflow_id),
            deployment_name: run.worker.as_ref().map(|it| it.deployment.as_str()),
            run_id: Some(run.id),
            user_id: known.then_some(workspace.user_id),
            ..Self::started(run, switches)
        }
    }

    /// A run that has just been started and has no worker yet.
    fn started(run: &'a Run, switches: &'a Switches) -> Self {
        let status = match run.status() {
            Status::Running => switches.running_status.as_deref(),
            ended => Some(ended.word()),
        };
        let duration = |end: Timestamp| clock::between(run.started, end).as_millis();
        Self {
            workflow_name: &run.job.workflow_name,
            workflow_id: None,
            deployment_name: None,
            execution_id: &run.job.execution_id,
            parent_execution_id: (),
            root_execution_id: &run.job.execution_id,
            run_id: None,
            user_id: None,
            status,
            start_time: clock::render(run.started),
            end_time: run.ended().map(clock::render),
            total_duration_ms: run.ended().map(duration),
        }
    }
}

/// `WorkflowExecutionResponse`.
#[derive(Serialize)]
pub(crate) struct ExecutionObject<'a> {
    #[serde(flatten)]
    row: RunRow<'a>,
    result: &'a Value,
    search_keys: (),
}

impl<'a> ExecutionObject<'a> {
    /// The answer to an execute call.
    pub(crate) fn started(run: &'a Run, switches: &'a Switches) -> Self {
        Self::of_row(RunRow::started(run, switches), run, switches)
    }

    pub(crate) fn of_run(run: &'a Run, workspace: &Workspace, switches: &'a Switches) -> Self {
        Self::of_row(RunRow::new(run, workspace, switches), run, switches)
    }

    /// The newest run of an execution. Like the live API, it omits the run's id.
    pub(crate) fn latest(run: &'a Run, workspace: &Workspace, switches: &'a Switches) -> Self {
        let row = RunRow { run_id: None, ..RunRow::new(run, workspace, switches) };
        Self::of_row(row, run, switches)
    }

    fn of_row(row: RunRow<'a>, run: &'a Run, switches: &'a Switches) -> Self {
        let result = match run.status() {
            Status::Failed => &switches.failed_result,
            _ => run.result(),
        };
        Self { row, result, search_keys: () }
    }
}

/// `WorkflowExecutionSyncResponse`.
#[derive(Serialize)]
pub(crate) struct SyncResult<'a> {
    pub(crate) workflow_name: &'a str,
    pub(crate) execution_id: &'a str,
    pub(crate) result: &'a Value,
}
