//! Builds a workflow's status: each function returns the whole status for one situation.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::fields::{self, Field};
use super::state::{Registrations, Remote, WorkflowState};
use super::versions::{Versions, as_written};
use crate::api::WorkflowStatus as Status;
use crate::api::conditions::{self, ACTIVE, AMBIGUOUS, CONTESTED, ConditionStatus, NEEDS_USER, Progress, Writer};
use crate::api::reasons::workflow as reason;
use crate::clock::moment_text;
use crate::mistral::wire::{MAX_DESCRIPTION, Workflow};

/// Names of deployments in a message, at most.
const MAX_DEPLOYMENTS: usize = 10;

/// The workflow matches the spec, or is only read.
pub fn ready(state: &WorkflowState, workflow: &Workflow, reason: &str, message: &str, now: Timestamp) -> Status {
    let mut status = seen(state, workflow, now);
    writer(state, now).ready(&mut status.conditions, reason, message);
    status
}

/// The workflow does not match the spec, or that is not known: why, and whether a person has to act.
pub fn unready(state: &WorkflowState, wait: Progress, reason: &str, message: &str, now: Timestamp) -> Status {
    let mut status = match &state.remote {
        Remote::Found(workflow) => seen(state, workflow, now),
        Remote::Absent => absent(state, now),
        Remote::NotFetched | Remote::Unknown(_) => base(state),
    };
    writer(state, now).unready(&mut status.conditions, wait, reason, message);
    status
}

/// Reports which fields are contested, or that none is. `next` is when the operator sets them again, if it waits for that.
pub fn contested(
    status: &mut Status,
    state: &WorkflowState,
    fields: &[Field],
    next: Option<Timestamp>,
    now: Timestamp,
) {
    status.contested_fields = fields.iter().map(|field| field.name().to_owned()).collect();
    if fields.is_empty() {
        conditions::remove(&mut status.conditions, CONTESTED);
        return;
    }
    let message = contested_message(state, fields, next);
    writer(state, now).set(&mut status.conditions, CONTESTED, ConditionStatus::True, reason::CONTESTED, &message);
}

/// Who may contest these fields, with which values, and what to do about it.
pub fn contested_message(state: &WorkflowState, fields: &[Field], next: Option<Timestamp>) -> String {
    let who = match state.others.as_slice() {
        [] => "perhaps a worker that registers, a person, or a Workflow resource of another cluster".to_owned(),
        others => format!("this cluster also has {}, which manages the same workflow", others.join(" and ")),
    };
    let back = |field: &Field| match contested_with(state, *field) {
        Some(theirs) => format!("{} to {}", field.name(), fields::brief(&theirs)),
        None => field.name().to_owned(),
    };
    let back: Vec<String> = fields.iter().map(back).collect();
    let when = match next {
        Some(next) => format!("again at {}, and then at most once an hour", moment_text(next)),
        None => "at most once an hour".to_owned(),
    };
    format!(
        "Somebody else has set back {} three times within an hour: {who}. Agree on one value, or leave the field out of one of the two. The operator sets the field {when}.",
        back.join(", ")
    )
}

/// The value that somebody else gives to a contested field; none if this process has not seen it.
fn contested_with(state: &WorkflowState, field: Field) -> Option<Value> {
    let at_the_api = match &state.remote {
        Remote::Found(workflow) => Some(field.at_the_api(workflow)),
        Remote::Absent | Remote::NotFetched | Remote::Unknown(_) => None,
    };
    at_the_api
        .filter(|value| field.wanted(&state.spec).is_some_and(|wanted| wanted != *value))
        .or_else(|| state.memory.contests.foreign(field).cloned())
}

/// The status with the workflow's state at the API.
fn seen(state: &WorkflowState, workflow: &Workflow, now: Timestamp) -> Status {
    let mut status = base(state);
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    status.workflow_id = Some(workflow.id.clone());
    status.name = Some(workflow.name.clone());
    status.type_ = text(&workflow.type_).or(status.type_);
    status.display_name = text(&workflow.display_name);
    status.description = text(&workflow.description).map(|text| text.chars().take(MAX_DESCRIPTION).collect());
    status.tags = workflow.tags.clone().filter(|tags| !tags.is_empty());
    status.available_in_chat_assistant = workflow.available_in_chat_assistant;
    status.archived = workflow.archived;
    status.active = workflow.active;
    status.technical = workflow.is_technical.filter(|technical| *technical);
    status.shared_namespace = text(&workflow.shared_namespace);
    if let Registrations::Read(Versions { newest, definition, deployments }) = &state.registrations {
        status.registrations.clone_from(newest);
        let written = status.definition.take();
        status.definition = definition.as_deref().map(|new| as_written(new.clone(), written.as_ref()));
        ambiguous(&mut status, state, deployments, now);
    }
    let (is, reason, message) = match workflow.active {
        Some(true) => (ConditionStatus::True, reason::WORKER_ALIVE, "A live worker serves the workflow."),
        Some(false) => (
            ConditionStatus::False,
            reason::NO_WORKER,
            "No live worker serves the workflow: an execution would wait for one; start its worker.",
        ),
        None => (
            ConditionStatus::Unknown,
            reason::NOT_TOLD,
            "The API does not say whether a live worker serves the workflow.",
        ),
    };
    writer(state, now).set(&mut status.conditions, ACTIVE, is, reason, message);
    if status.definition.as_ref().is_some_and(|definition| definition.on_behalf_of) {
        let message = "A run of this workflow acts on behalf of a user, and the Workspace's API key is not a user. Executions from the cluster may fail; start them where a user is signed in.";
        writer(state, now).set(
            &mut status.conditions,
            NEEDS_USER,
            ConditionStatus::True,
            reason::ON_BEHALF_OF,
            message,
        );
    } else {
        conditions::remove(&mut status.conditions, NEEDS_USER);
    }
    status
}

/// Reports this before an execution is refused because of it (409).
fn ambiguous(status: &mut Status, state: &WorkflowState, deployments: &BTreeSet<String>, now: Timestamp) {
    if deployments.len() < 2 {
        conditions::remove(&mut status.conditions, AMBIGUOUS);
        return;
    }
    let named: Vec<&str> = deployments.iter().take(MAX_DEPLOYMENTS).map(String::as_str).collect();
    let others = deployments.len() - named.len();
    let more = if others > 0 { format!(" and {others} more") } else { String::new() };
    let message = format!(
        "Several active deployments serve the workflow ({}{more}), so the API refuses an execution that names none: set spec.deploymentName in executions, or stop all but one.",
        named.join(", ")
    );
    writer(state, now).set(
        &mut status.conditions,
        AMBIGUOUS,
        ConditionStatus::True,
        reason::SEVERAL_DEPLOYMENTS,
        &message,
    );
}

/// What was known stays readable; no worker serves the workflow.
fn absent(state: &WorkflowState, now: Timestamp) -> Status {
    let mut status = base(state);
    status.active = Some(false);
    let message = "The API does not know the workflow.";
    writer(state, now).set(&mut status.conditions, ACTIVE, ConditionStatus::False, reason::WORKFLOW_NOT_FOUND, message);
    status
}

fn base(state: &WorkflowState) -> Status {
    let mut status = state.status.clone();
    if status.observed_generation != state.generation {
        // Somebody contested a value of the previous spec.
        status.contested_fields.clear();
        conditions::remove(&mut status.conditions, CONTESTED);
    }
    status.observed_generation = state.generation;
    // An edit that changes nothing here is recorded as seen, too.
    status.conditions.iter_mut().for_each(|condition| condition.observed_generation = state.generation);
    status
}

fn writer(state: &WorkflowState, now: Timestamp) -> Writer {
    Writer { generation: state.generation, now }
}
