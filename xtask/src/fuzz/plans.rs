//! What reconciles make of an object and the API's answers about it, up to the status.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use mistral_workflows_operator::api::values::Kind;
use mistral_workflows_operator::api::{Workflow, WorkflowExecution, WorkflowExecutionStatus};
use mistral_workflows_operator::execution::plan::{Call, ClusterStep, Decision, Step, plan};
use mistral_workflows_operator::execution::state;
use mistral_workflows_operator::execution::state::input::{Input, Source, Sources, wanted};
use mistral_workflows_operator::execution::state::outcomes::ResultWrite;
use mistral_workflows_operator::execution::state::result;
use mistral_workflows_operator::execution::state::{
    Comparison, ExecutionState, Instance, Memory, References, Report, WorkflowRefState,
};
use mistral_workflows_operator::mistral::wire::{Event, Execution, Registration};
use mistral_workflows_operator::mistral::{ApiError, Error, answer};
use mistral_workflows_operator::platform::apiserver::status_patch;
use mistral_workflows_operator::platform::decoded::Decoded;
use mistral_workflows_operator::workflow;
use mistral_workflows_operator::workflow::fields::Field;
use mistral_workflows_operator::workflow::versions::Gathering;
use mistral_workflows_operator::workspace::access::{ConnectionInfo, Workspace};
use secrecy::SecretSlice;

use super::mutate::SEPARATOR;
use super::{SECRET, Target, objects, shows};

pub const TARGETS: &[Target] = &[
    Target {
        name: "plan-execution",
        seeds: || {
            let mut seeds = Vec::new();
            for object in objects::EXECUTIONS {
                for run in RUNS {
                    seeds.push(format!("{object}\u{1e}{run}\u{1e}{EVENTS}").into_bytes());
                }
            }
            seeds
        },
        check: execution,
    },
    Target {
        name: "plan-workflow",
        seeds: || {
            let seed = |object: &&str| format!("{object}\u{1e}{WORKFLOW}\u{1e}{REGISTRATIONS}").into_bytes();
            objects::WORKFLOWS.iter().map(seed).collect()
        },
        check: workflows,
    },
];

/// Runs that reveal what they were started with.
const RUNS: &[&str] = &[
    r#"{"execution_id":"run-u-1","workflow_name":"echo","status":"COMPLETED","start_time":"2026-11-30T08:00:01Z","end_time":"2026-11-30T08:00:05Z","total_duration_ms":4000.5,"result":{"echo":"s3cret-value-0123","s3cret-value-0123":[1E2]}}"#,
    r#"{"execution_id":"run-u-1","status":"FAILED","start_time":"9999-12-30T22:00:00Z","end_time":"-009999-01-02T01:59:59Z","total_duration_ms":1e300}"#,
    r#"{"execution_id":"run-u-1","status":"RUNNING","start_time":"2026-11-30T08:00:01Z"}"#,
];
const EVENTS: &str = r#"{"events":[{"event_type":"WORKFLOW_EXECUTION_FAILED","event_timestamp":2,"attributes":{"failure":{"message":"refused: s3cret-value-0123"}}}],"next_cursor":null}"#;
const WORKFLOW: &str = r#"{"workflow":{"id":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a","name":"invoices","display_name":"Invoices","description":"d","type":"code","workspace_id":"ws","tags":["finance"],"archived":true,"active":true,"available_in_chat_assistant":true}}"#;
const REGISTRATIONS: &str = r#"{"workflow_registrations":[{"id":"r","workflow_id":"w","deployment_name":"blue","definition":{"input_schema":{"maximum":1E2,"title":"\u00e9"},"signals":[{"name":"stop"}],"execution_timeout":3600.0}}],"next_cursor":null}"#;

/// The maximum number of steps in one reconcile. A reconcile that takes more is in a loop.
const STEPS: usize = 40;

fn connection() -> ConnectionInfo {
    ConnectionInfo {
        origin: "https://api.mistral.ai".into(),
        workspace_id: Some("ws".into()),
        epoch: 1,
        secret: "mistral".into(),
    }
}

fn not_found() -> Error {
    let code = Some("WF_1100".into());
    Error::NotFound(ApiError { status: 404, code, detail: "none".into(), deployments: Vec::new(), is_json: true })
}

fn parts(bytes: &[u8]) -> [&[u8]; 3] {
    let mut parts = bytes.splitn(3, |byte| *byte == SEPARATOR);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The API's data about an execution.
struct Remote {
    run: Result<Execution, Error>,
    events: Vec<Event>,
}

fn execution(bytes: &[u8]) -> bool {
    let [object, run, events] = parts(bytes);
    let text = String::from_utf8_lossy(object);
    let Ok(object) = Decoded::<WorkflowExecution>::from_text(&text).0 else { return false };
    let remote = Remote {
        run: answer::read::<Execution>(run),
        events: answer::events(events).map(|page| page.items).unwrap_or_default(),
    };
    // The second time is that of a machine whose clock was never set.
    for now in ["2026-11-30T08:30:00Z", "1970-01-01T00:00:00Z"] {
        let now: Timestamp = now.parse().expect("a time");
        let references = References {
            workspace: Workspace::Ready(connection()),
            stop_with: Some(connection()),
            workflow_ref: WorkflowRefState::NotNamed,
        };
        let instance = Instance { name: "operator".into(), since: Timestamp::UNIX_EPOCH, api_server_time: None };
        let state = ExecutionState::new(&object, "cluster", instance, Memory::default(), references, true, now);
        let quotes = text.contains(SECRET);
        if let Some(status) = pass(state, &remote, now, quotes) {
            is_sound(&object, &status, quotes);
        }
    }
    remote.run.is_ok()
}

/// Runs one reconcile. Returns the status that it settles with.
fn pass(mut state: ExecutionState, remote: &Remote, now: Timestamp, quotes: bool) -> Option<WorkflowExecutionStatus> {
    let absent = || Err(not_found());
    // A run exists once it is started, or earlier if the resource says so.
    let mut exists = state.status.execution_id.is_some();
    let mut last = String::new();
    for _ in 0..STEPS {
        let step = match plan(&state, now) {
            Decision::Settle(settled) => return Some(settled.status),
            Decision::Act(step) => step,
        };
        last = format!("{step:.200?}");
        match step {
            Step::Cluster(ClusterStep::WriteClaim { claim, finalizer, send, consent: _ }) => {
                state.finalizer = finalizer;
                state.claimed(*claim, send);
            }
            Step::Cluster(ClusterStep::SetFinalizer(present)) => state.finalizer = present,
            Step::Cluster(ClusterStep::Leave { .. } | ClusterStep::Release { .. } | ClusterStep::Delete) => {
                return None;
            }
            Step::Call(Call::GetTarget) => state.target_fetched(Ok(state::Target::Exists)),
            Step::Call(Call::Compare) => state.compared(Comparison::Same),
            Step::Call(Call::GetRun) if exists => state.fetched(remote.run.clone()),
            Step::Call(Call::GetRun) => state.fetched(absent()),
            Step::Cluster(ClusterStep::ReadInput) => {
                state.spec.left_out = None;
                state.outcomes.input = Input::Read(Arc::new(sources(&state)));
            }
            Step::Call(Call::Start) => {
                exists = true;
                state.sent(remote.run.clone());
            }
            Step::Cluster(ClusterStep::Linger) => state.lingered(None),
            Step::Cluster(ClusterStep::MayReport) => state.outcomes.report = Report::Allowed,
            Step::Call(Call::ReadFailure) => state.failure_read(Ok(remote.events.clone())),
            Step::Cluster(ClusterStep::WriteResult) => {
                let wanted = result::wanted(&state).expect("a result that is to be written");
                let shown = wanted.kind == Kind::ConfigMap && has_secrets(&state) && !quotes;
                assert!(!shown || !shows(&wanted.text, SECRET), "a result in a ConfigMap shows a Secret");
                state.outcomes.stored = ResultWrite::Written;
            }
            Step::Call(Call::Stop(call)) => state.stop_sent(call, Ok(()), now),
        }
    }
    panic!("a pass at {now} goes on after {STEPS} steps: {last}");
}

fn has_secrets(state: &ExecutionState) -> bool {
    wanted(&state.spec).keys().any(|(kind, _)| *kind == Kind::Secret)
}

/// Every key of every object that the spec names holds the secret.
fn sources(state: &ExecutionState) -> Sources {
    let source = |keys: Vec<String>| Source::Found {
        uid: "u".into(),
        resource_version: "7".into(),
        values: keys.into_iter().map(|key| (key, SecretSlice::from(format!("\"{SECRET}\"").into_bytes()))).collect(),
    };
    wanted(&state.spec).into_iter().map(|(object, keys)| (object, source(keys))).collect()
}

/// Asserts that the API server accepts the status and that everyone may read it. `quotes`: the resource itself contains
/// the secret.
fn is_sound(object: &WorkflowExecution, status: &WorkflowExecutionStatus, quotes: bool) {
    status_patch(object.status.as_ref(), status).expect("a status is written");
    let before = object.status.as_ref().and_then(|status| status.result.as_ref());
    if let Some(result) = status.result.as_ref().filter(|result| Some(*result) != before) {
        assert_eq!(result.is_keepable(), Ok(()), "a result that Kubernetes cannot hold");
        assert!(result.text().len() <= object.spec.result.max_bytes as usize, "a result that is too long");
    }
    for condition in &status.conditions {
        assert!(condition.message.len() <= 32_768, "a message of {} bytes", condition.message.len());
    }
    let from_secrets = object.spec.input_from.iter().flatten().any(|entry| entry.secret_key_ref.is_some());
    if from_secrets && !quotes {
        let result = status.result.as_ref().map(|result| result.text());
        let failure = status.failure.as_ref().map(|failure| failure.message.as_str());
        let messages = status.conditions.iter().map(|condition| condition.message.as_str());
        for text in messages.chain(result).chain(failure) {
            assert!(!shows(text, SECRET), "a status shows a Secret: {text:.300}");
        }
    }
}

fn workflows(bytes: &[u8]) -> bool {
    use workflow::plan::{Call, ClusterStep, Decision, Step, plan};
    use workflow::state::{Memory, WorkflowState};

    let [object, answer, registrations] = parts(bytes);
    let Ok(mut object) = Decoded::<Workflow>::from_text(&String::from_utf8_lossy(object)).0 else { return false };
    let remote = answer::workflow(answer);
    let rows = answer::registrations::<Registration>(registrations).map(|page| page.items).unwrap_or_default();
    let versions = || {
        let mut gathering = Gathering::new(rows.iter().map(|row| row.id.clone()).collect());
        rows.iter().cloned().for_each(|row| gathering.add(row));
        gathering.versions()
    };
    let now: Timestamp = "2026-11-30T08:30:00Z".parse().expect("a time");
    let mut memory = Memory::default();
    // For any input, reconciles come to an end, and then nothing is left to write.
    for round in 0..4 {
        let ready = Workspace::Ready(connection());
        let mut state = WorkflowState::new(&object, memory, ready, Some(connection()), true);
        let mut steps = 0;
        let settled = loop {
            steps += 1;
            assert!(steps < STEPS, "a pass goes on after {STEPS} steps");
            match plan(&state, now) {
                Decision::Settle(settled) => break settled,
                Decision::Act(Step::Cluster(ClusterStep::SetFinalizer(present))) => state.finalizer = present,
                Decision::Act(Step::Cluster(ClusterStep::Release { .. })) => return remote.is_ok(),
                Decision::Act(Step::Call(Call::Find(_))) => {
                    state.found(Ok(remote.as_ref().ok().map(|workflow| workflow.id.clone())))
                }
                Decision::Act(Step::Call(Call::Get(_))) => state.fetched(remote.clone()),
                Decision::Act(Step::Call(Call::ReadRegistrations(_))) => state.registrations_read(Ok(versions())),
                Decision::Act(Step::Call(Call::Update(_, fields))) => {
                    state.changed(fields, remote.clone().map(Some), now)
                }
                Decision::Act(Step::SetArchived(..)) => {
                    state.changed(vec![Field::Archived], remote.clone().map(Some), now);
                }
            }
        };
        let operations = status_patch(object.status.as_ref(), &settled.status).expect("a status is written");
        if round == 3 && remote.is_ok() && settled.requeue.within(Duration::MAX) == settled.requeue {
            assert!(operations.is_empty(), "the same answers are written again and again: {operations:.600?}");
        }
        // As the API server returns it.
        let stored = serde_json::to_value(&settled.status).ok();
        object.status = stored.and_then(|value| serde_json::from_value(value).ok()).or(Some(settled.status));
        object.metadata.finalizers =
            Some(if state.finalizer { vec![workflow::state::FINALIZER.to_owned()] } else { Vec::new() });
        memory = state.memory;
    }
    remote.is_ok()
}
