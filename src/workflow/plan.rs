//! Decides the next step for a workflow from what is known. No I/O here.
//!
//! A reconcile calls [`plan`], carries out the step, folds its outcome into [`WorkflowState`] and calls [`plan`] again,
//! until it settles. A reconcile changes at most one thing at the API.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::contest;
use super::fields::{self, Field};
use super::state::{Address, Change, Registrations, Remote, WorkflowState};
use super::status::{self, reason};
use crate::api::conditions::{self, Progress, READY, STALLED};
use crate::api::{ManagementPolicy, WorkflowDeletionPolicy, WorkflowStatus as Status};
use crate::clock::later;
use crate::mistral::wire::Workflow;
use crate::mistral::{Trouble, TroubleKind};
use crate::platform::events::Notice;
use crate::platform::reconcile;
use crate::platform::requeue::{Requeue, backoff};
use crate::workspace::access::{ConnectionInfo, Workspace};

/// How long the resources of one manifest may take to arrive.
const APPLIED_TOGETHER: SignedDuration = SignedDuration::from_secs(5);
/// Reasons that a Workflow has while its Workspace may still arrive.
const ARRIVING: [&str; 3] = [reason::SUSPENDED, reason::WORKSPACE_NOT_FOUND, reason::WORKSPACE_NOT_READY];
/// How long a deletion waits for the workflow to be archived before it releases the resource.
const DELETION_LIMIT: SignedDuration = SignedDuration::from_mins(5);
/// Bytes of a value in an Event, at most.
const MAX_VALUE: usize = 80;

/// What a reconcile does next.
pub type Decision = reconcile::Decision<Step, Settled>;

/// One effect or request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Something in the cluster.
    Cluster(ClusterStep),
    /// A call to Mistral's API. It needs a permit.
    Call(Call),
    /// Archive the workflow with this UUID, or take it out of the archive: in one call with others, which has a permit of
    /// its own.
    SetArchived(String, bool),
}

/// A step that does not call Mistral's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterStep {
    /// Put the operator's finalizer on the resource, or take it off.
    SetFinalizer(bool),
    /// Take the operator's finalizer off a resource that is being deleted.
    Release {
        /// The workflow may not be archived, which is to be reported.
        abandoned: bool,
    },
}

/// A call to Mistral's API, or the reading of one list.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Find the UUID of the workflow with this name.
    Find(String),
    /// Get the workflow.
    Get(String),
    /// Read the versions of the workflow with this UUID.
    ReadRegistrations(String),
    /// Set these fields of the workflow with this UUID.
    Update(String, Vec<Field>),
}

impl From<ClusterStep> for Step {
    fn from(step: ClusterStep) -> Self {
        Self::Cluster(step)
    }
}

impl From<Call> for Step {
    fn from(call: Call) -> Self {
        Self::Call(call)
    }
}

/// The end of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Written if it differs from the current one.
    pub status: Status,
    /// What this reconcile has done: published whether or not the status can be written.
    pub done: Vec<Notice>,
    /// What is new in the status: published once the status is written.
    pub news: Vec<Notice>,
    pub requeue: Requeue,
}

/// The next step.
pub fn plan(state: &WorkflowState, now: Timestamp) -> Decision {
    let refused = state.memory.finalizer_refused.as_ref().and_then(|refusal| refusal.left(&state.version, now));
    match (decide(state, refused, now), refused) {
        (Decision::Settle(mut settled), Some(left)) => {
            settled.requeue = settled.requeue.within(left);
            Decision::Settle(settled)
        }
        (decision, _) => decision,
    }
}

/// `refused` is how long the finalizer, which the API server refuses, is not tried again.
fn decide(state: &WorkflowState, refused: Option<Duration>, now: Timestamp) -> Decision {
    if let Some(since) = state.deleted {
        return match refused {
            Some(left) => settle(state, state.status.clone(), Requeue::After(left)),
            None => delete(state, since, now),
        };
    }
    let wants = state.spec.deletion_policy == WorkflowDeletionPolicy::Archive;
    // Everything else goes on without the finalizer.
    if state.finalizer != wants && refused.is_none() {
        return Decision::Act(ClusterStep::SetFinalizer(wants).into());
    }
    if state.spec.suspend {
        let message = "spec.suspend is true, so the operator leaves the workflow alone; set it to false to resume.";
        return settle(
            state,
            status::unready(state, Progress::Working, reason::SUSPENDED, message, now),
            Requeue::OnChange,
        );
    }
    let connection = match &state.workspace {
        Workspace::Ready(connection) => connection,
        Workspace::Pending => return settle(state, state.status.clone(), Requeue::OnChange),
        // A manifest may list the Workflow before its Workspace.
        Workspace::NotFound if now < later(state.created, APPLIED_TOGETHER) => {
            return settle(state, state.status.clone(), Requeue::After(Duration::from_secs(1)));
        }
        Workspace::NotFound => {
            let message =
                format!("There is no Workspace \"{}\" in this namespace; create it.", state.spec.workspace_ref.name);
            // A Workflow that got further before had its Workspace, which has been deleted.
            let (wait, left) = match conditions::find(&state.status.conditions, READY) {
                // What was reported as stalled stays stalled.
                Some(_) if conditions::is_true(&state.status.conditions, conditions::STALLED) => {
                    (Progress::Stalled, None)
                }
                Some(ready) if !ARRIVING.contains(&ready.reason.as_str()) => (Progress::Stalled, None),
                Some(_) | None => Progress::for_missing(state.created, now),
            };
            let requeue = left.map_or(Requeue::OnChange, Requeue::After);
            return settle(state, status::unready(state, wait, reason::WORKSPACE_NOT_FOUND, &message, now), requeue);
        }
        Workspace::NotReady(why, wait) => {
            let message = format!("Workspace \"{}\" is not ready: {why}", state.spec.workspace_ref.name);
            let status = status::unready(state, *wait, reason::WORKSPACE_NOT_READY, &message, now);
            return settle(state, status, Requeue::OnChange);
        }
    };
    if !state.refresh {
        if let Some(wait) = state.memory.retries.held(state.generation, connection, now) {
            return settle(state, state.status.clone(), Requeue::Hold(wait));
        }
        if is_up_to_date(state) && state.change == Change::None && state.remote == Remote::NotFetched {
            return settle(state, state.status.clone(), Requeue::OnChange);
        }
    }
    observe(state, connection, now)
}

/// Whether the status is about this spec and nothing is wrong: then the inventory reports changes.
fn is_up_to_date(state: &WorkflowState) -> bool {
    state.status.observed_generation == state.generation
        && conditions::is_true(&state.status.conditions, READY)
        && state.status.contested_fields.is_empty()
        && !state.memory.incomplete
}

/// Reads until everything is known that the next decision needs.
fn observe(state: &WorkflowState, connection: &ConnectionInfo, now: Timestamp) -> Decision {
    if let Change::Failed { fields, trouble } = &state.change {
        return change_failed(state, fields, trouble, now);
    }
    match (&state.remote, &state.address) {
        (Remote::NotFetched, Address::NotFetched) => Decision::Act(Call::Find(state.identifier.clone()).into()),
        (Remote::NotFetched, Address::Absent) | (Remote::Absent, _) => not_found(state, now),
        (Remote::NotFetched, Address::Unknown(trouble)) | (Remote::Unknown(trouble), _) => {
            troubled(state, trouble, now)
        }
        (Remote::NotFetched, Address::Direct(address)) => Decision::Act(Call::Get(address.clone()).into()),
        (Remote::Found(workflow), _)
            if state.registrations == Registrations::NotFetched && state.lacks_registrations(workflow) =>
        {
            Decision::Act(Call::ReadRegistrations(workflow.id.clone()).into())
        }
        (Remote::Found(workflow), _) => compare(state, connection, workflow, now),
    }
}

/// Compares the workflow at the API with the spec.
fn compare(state: &WorkflowState, connection: &ConnectionInfo, workflow: &Workflow, now: Timestamp) -> Decision {
    let differing = fields::differing(&state.spec, workflow);
    if state.spec.management_policy == ManagementPolicy::Observe {
        let message = if differing.is_empty() {
            "The operator only reads the workflow (managementPolicy Observe).".to_owned()
        } else {
            format!(
                "The operator only reads the workflow (managementPolicy Observe), which differs from the spec in {}.",
                fields::names(&differing)
            )
        };
        return in_order(state, status::ready(state, workflow, reason::OBSERVED, &message, now), now);
    }
    if !differing.is_empty()
        && let Some((reason, message)) = not_ours(workflow, connection)
    {
        let message = format!("{message} It differs from the spec in {}.", fields::names(&differing));
        return blocked(
            state,
            reason,
            &message,
            Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 300, 3600)),
            now,
        );
    }
    let (held, free): (Vec<Field>, Vec<Field>) =
        differing.iter().partition(|field| held_until(state, **field, workflow, now).is_some());
    if !free.is_empty() {
        // A refresh may come at any time; a refused change is repeated only when that is due.
        if let Some(wait) = state.memory.retries.held(state.generation, connection, now)
            && let Some(refused) = was_refused(state)
        {
            let status = status::unready(state, Progress::Stalled, reason::CHANGE_REFUSED, refused, now);
            return settle(state, status, Requeue::Hold(wait));
        }
        // One change per reconcile; and the API may store another value than it was sent.
        return match &state.change {
            Change::None => Decision::Act(change(state, workflow, &free)),
            Change::Made { fields: set, .. } | Change::Failed { fields: set, .. } => {
                let message = format!("The operator is updating the workflow; still to set: {}.", fields::names(&free));
                let status = status::unready(state, Progress::Working, reason::UPDATING, &message, now);
                // A value that was just set may become visible later.
                let soon = Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 5, 60));
                let unmoved = free.iter().any(|field| set.contains(field));
                settle(state, status, if unmoved { soon } else { Requeue::After(Duration::ZERO) })
            }
        };
    }
    if held.is_empty() {
        let status = status::ready(state, workflow, reason::IN_SYNC, "The workflow matches the spec.", now);
        return in_order(state, status, now);
    }
    let message = status::contested_message(&held);
    let mut status = status::unready(state, Progress::Stalled, reason::CONTESTED, &message, now);
    status::contested(&mut status, state, &held, now);
    let due = held.iter().filter_map(|field| held_until(state, *field, workflow, now)).min();
    settle(state, status, Requeue::Retry(wait_until(due, now)))
}

/// The workflow matches the spec, perhaps only for a short time.
fn in_order(state: &WorkflowState, mut status: Status, now: Timestamp) -> Decision {
    let still = |field: &Field| {
        let wanted = field.wanted(&state.spec);
        wanted.is_some_and(|wanted| state.memory.contests.is_exhausted(*field, &wanted))
    };
    let contested: Vec<Field> = fields::ALL.into_iter().filter(still).collect();
    status::contested(&mut status, state, &contested, now);
    let unread = matches!(&state.registrations, Registrations::Unknown(it) if it.kind == TroubleKind::Unavailable);
    let requeue = match (contested.is_empty(), unread) {
        (true, false) => Requeue::OnChange,
        (false, _) => Requeue::Retry(Duration::from_secs(600)),
        (true, true) => Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 30, 300)),
    };
    settle(state, status, requeue)
}

/// Until when a field that somebody else keeps setting back is left alone.
fn held_until(state: &WorkflowState, field: Field, workflow: &Workflow, now: Timestamp) -> Option<Timestamp> {
    let wanted = field.wanted(&state.spec)?;
    let foreign = field.at_the_api(workflow);
    if let Some(until) = state.memory.contests.held_until(field, &wanted, &foreign, now) {
        return Some(until);
    }
    // The field was contested before this process began.
    let known = state.was_contested(field) && !state.memory.contests.is_exhausted(field, &wanted);
    let since = conditions::find(&state.status.conditions, conditions::CONTESTED)?.last_transition_time.0;
    contest::hold_ends(since, now).filter(|_| known)
}

/// Unarchives first and archives last: it is not documented whether an archived workflow can be changed.
fn change(state: &WorkflowState, workflow: &Workflow, free: &[Field]) -> Step {
    let id = workflow.id.clone();
    let rest: Vec<Field> = free.iter().copied().filter(|field| *field != Field::Archived).collect();
    match state.spec.archived.filter(|_| free.contains(&Field::Archived)) {
        Some(false) => Step::SetArchived(id, false),
        // A field that the API refuses must not keep the workflow out of the archive.
        Some(true) if rest.is_empty() || was_refused(state).is_some() => Step::SetArchived(id, true),
        Some(true) | None => Call::Update(id, rest).into(),
    }
}

/// The API's message when it last refused to set a field, if nothing else has happened since.
fn was_refused(state: &WorkflowState) -> Option<&str> {
    let ready = conditions::find(&state.status.conditions, READY)?;
    (ready.reason == reason::CHANGE_REFUSED).then_some(ready.message.as_str())
}

/// Why the operator must not change this workflow; none if it may.
fn not_ours(workflow: &Workflow, connection: &ConnectionInfo) -> Option<(&'static str, String)> {
    let namespace = workflow.shared_namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let elsewhere = match (&workflow.workspace_id, &connection.workspace_id) {
        (Some(theirs), Some(ours)) => !theirs.eq_ignore_ascii_case(ours),
        // The owner is not known: a shared workflow may belong to another workspace.
        (None, _) | (_, None) => namespace.is_some(),
    };
    if elsewhere {
        let name = namespace.map(|namespace| format!(" as \"{namespace}\"")).unwrap_or_default();
        let message = format!(
            "The workflow belongs to another Mistral workspace, which shares it{name}. Only that workspace can change it; use managementPolicy Observe."
        );
        return Some((reason::SHARED, message));
    }
    (workflow.is_technical == Some(true)).then(|| {
        let message = "Mistral's SDK registered the workflow for its own use, so the operator does not change it; use managementPolicy Observe.";
        (reason::TECHNICAL, message.to_owned())
    })
}

fn not_found(state: &WorkflowState, now: Timestamp) -> Decision {
    let message = format!(
        "The API does not know workflow \"{}\"; start the worker that registers it, or correct spec.identifier in a new resource.",
        state.identifier
    );
    let mut absent = state.clone();
    absent.remote = Remote::Absent;
    let status = status::unready(&absent, Progress::Stalled, reason::WORKFLOW_NOT_FOUND, &message, now);
    settle(state, status, Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 15, 3600)))
}

/// A call failed.
fn troubled(state: &WorkflowState, trouble: &Trouble, now: Timestamp) -> Decision {
    let Trouble { kind, message, retry_after } = trouble;
    let patience = Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 30, 300));
    match kind {
        TroubleKind::Unavailable => {
            let message = format!("The API cannot be used now; the operator tries again: {message}");
            let status = status::unready(state, Progress::Working, reason::API_UNAVAILABLE, &message, now);
            let wait = backoff(state.memory.retries.in_a_row, &state.uid, 2, 60).max(retry_after.unwrap_or_default());
            settle(state, status, Requeue::Retry(wait))
        }
        TroubleKind::Unauthorized => {
            let name = &state.spec.workspace_ref.name;
            let message = format!("The API refused the key of Workspace \"{name}\"; correct its Secret: {message}");
            blocked(state, reason::CREDENTIAL_REFUSED, &message, patience, now)
        }
        TroubleKind::Refused => {
            let message = format!("The API refused to show the workflow: {message}");
            blocked(state, reason::REQUEST_REFUSED, &message, patience, now)
        }
    }
}

fn change_failed(state: &WorkflowState, fields: &[Field], trouble: &Trouble, now: Timestamp) -> Decision {
    if trouble.kind != TroubleKind::Refused {
        return troubled(state, trouble, now);
    }
    let message = format!(
        "The API refused to set {}; correct the spec, or leave the field out: {}",
        fields::names(fields),
        trouble.message
    );
    blocked(
        state,
        reason::CHANGE_REFUSED,
        &message,
        Requeue::Retry(backoff(state.memory.retries.in_a_row, &state.uid, 30, 3600)),
        now,
    )
}

/// The resource is being deleted: archives the workflow if the spec asks for that, then releases the resource, in
/// bounded time.
fn delete(state: &WorkflowState, since: Timestamp, now: Timestamp) -> Decision {
    if !state.finalizer {
        return settle(state, state.status.clone(), Requeue::OnChange);
    }
    let free = Decision::Act(ClusterStep::Release { abandoned: false }.into());
    if state.spec.suspend || state.spec.deletion_policy == WorkflowDeletionPolicy::Retain {
        return free;
    }
    if now > later(since, DELETION_LIMIT) {
        return Decision::Act(ClusterStep::Release { abandoned: true }.into());
    }
    let Some(connection) = &state.stop_with else {
        return archiving(state, "its Workspace cannot be used", 10, now);
    };
    match (&state.change, &state.remote, &state.address) {
        // The last refresh showed enough: the workflow exists, and is ours to change.
        (Change::None, Remote::NotFetched, _) if state.knows_it_is_ours() => {
            let id = state.status.workflow_id.clone().unwrap_or_default();
            Decision::Act(Step::SetArchived(id, true))
        }
        (Change::Made { .. }, _, _) | (_, Remote::Absent, _) | (_, Remote::NotFetched, Address::Absent) => free,
        (Change::Failed { trouble, .. }, _, _)
        | (_, Remote::Unknown(trouble), _)
        | (_, Remote::NotFetched, Address::Unknown(trouble)) => archiving(state, &trouble.message, 10, now),
        (_, Remote::NotFetched, Address::NotFetched) => Decision::Act(Call::Find(state.identifier.clone()).into()),
        (_, Remote::NotFetched, Address::Direct(address)) => Decision::Act(Call::Get(address.clone()).into()),
        (_, Remote::Found(workflow), _)
            if workflow.archived == Some(true) || not_ours(workflow, connection).is_some() =>
        {
            free
        }
        (_, Remote::Found(workflow), _) => Decision::Act(Step::SetArchived(workflow.id.clone(), true)),
    }
}

fn archiving(state: &WorkflowState, why: &str, seconds: u64, now: Timestamp) -> Decision {
    let message = format!(
        "The resource is being deleted. The operator tries for five minutes to archive its workflow first: {why}"
    );
    let status = status::unready(state, Progress::Working, reason::ARCHIVING, &message, now);
    settle(state, status, Requeue::After(Duration::from_secs(seconds)))
}

fn blocked(state: &WorkflowState, reason: &str, message: &str, requeue: Requeue, now: Timestamp) -> Decision {
    settle(state, status::unready(state, Progress::Stalled, reason, message, now), requeue)
}

fn wait_until(due: Option<Timestamp>, now: Timestamp) -> Duration {
    due.and_then(|due| Duration::try_from(due.duration_since(now)).ok()).unwrap_or_default().max(Duration::from_secs(1))
}

/// Ends the reconcile. People are notified of what was changed, and of what changes in `Ready`.
fn settle(state: &WorkflowState, status: Status, requeue: Requeue) -> Decision {
    let mut news = Vec::new();
    let old = conditions::find(&state.status.conditions, READY);
    if let Some(new) = conditions::find(&status.conditions, READY)
        && old.is_none_or(|old| old.reason != new.reason)
        && new.reason != reason::UPDATING
        // This was reported already, when it was found.
        && !(new.reason == reason::CONTESTED && conditions::is_true(&state.status.conditions, conditions::CONTESTED))
    {
        let warning = conditions::is_true(&status.conditions, STALLED) || new.reason == reason::API_UNAVAILABLE;
        let notice = if warning { Notice::warning } else { Notice::normal };
        news.push(notice(&new.reason, &new.message));
    }
    for type_ in [conditions::NEEDS_USER, conditions::AMBIGUOUS, conditions::CONTESTED] {
        if let Some(new) = conditions::find(&status.conditions, type_)
            && conditions::find(&state.status.conditions, type_).is_none()
            && news.iter().all(|notice: &Notice| notice.reason != new.reason)
        {
            news.push(Notice::warning(&new.reason, &new.message));
        }
    }
    Decision::Settle(Box::new(Settled { status, done: done(state), news, requeue }))
}

/// What this reconcile has changed. Corrected drift is reported apart from new values of the spec.
fn done(state: &WorkflowState) -> Vec<Notice> {
    let Change::Made { fields, before } = &state.change else { return Vec::new() };
    let drifted = drifted(state);
    let (mut drift, mut updated) = (Vec::new(), Vec::new());
    for (field, held) in fields.iter().zip(before) {
        let Some(wanted) = field.wanted(&state.spec) else { continue };
        if drifted.contains(field) {
            drift.push((*field, format!("{} from {} to {}", field.name(), brief(held), brief(&wanted))));
        } else {
            updated.push((*field, format!("{} to {}", field.name(), brief(&wanted))));
        }
    }
    let mut notices = Vec::new();
    if !updated.is_empty() {
        notices.push(Notice::normal(reason::UPDATED, told("Set", &updated)));
    }
    if !drift.is_empty() {
        notices.push(Notice::normal(reason::DRIFT_CORRECTED, told("Set back after a change in Mistral:", &drift)));
    }
    notices
}

/// The names of all fields come first, because an Event is cut after 1 KiB.
fn told(what: &str, fields: &[(Field, String)]) -> String {
    let names: Vec<&str> = fields.iter().map(|(field, _)| field.name()).collect();
    let values: Vec<&str> = fields.iter().map(|(_, value)| value.as_str()).collect();
    format!("{what} {} ({}).", names.join(", "), values.join("; "))
}

/// A value, shortened for a sentence.
fn brief(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > MAX_VALUE {
        crate::text::truncate(&mut text, MAX_VALUE);
        text.push('…');
    }
    text
}

/// The fields that this reconcile has set back after somebody else had changed them.
pub fn drifted(state: &WorkflowState) -> Vec<Field> {
    let Change::Made { fields, .. } = &state.change else { return Vec::new() };
    fields.iter().copied().filter(|field| state.had_been_set(*field)).collect()
}
