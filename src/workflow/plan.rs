//! Decides the next step for a workflow from what is known. No I/O here.
//!
//! A reconcile calls [`plan`], carries out the step, folds its outcome into [`Observed`] and calls [`plan`] again,
//! until it settles. A reconcile changes at most one thing at the API.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::contest;
use super::fields::{self, Field};
use super::observed::{Address, Change, Observed, Registrations, Remote};
use super::report::{self, reason};
use crate::api::conditions::{self, READY, STALLED, Wait};
use crate::api::{ManagementPolicy, WorkflowDeletionPolicy, WorkflowStatus as Status};
use crate::clock::later;
use crate::mistral::wire::Workflow;
use crate::mistral::{Trouble, TroubleKind};
use crate::platform::events::Notice;
use crate::platform::reconcile;
use crate::platform::requeue::{Requeue, backoff};
use crate::workspace::access::{Connection, Workspace};

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
pub fn plan(o: &Observed, now: Timestamp) -> Decision {
    let refused = o.memory.finalizer_refused.as_ref().and_then(|refusal| refusal.left(&o.version, now));
    match (decide(o, refused, now), refused) {
        (Decision::Settle(mut settled), Some(left)) => {
            settled.requeue = settled.requeue.within(left);
            Decision::Settle(settled)
        }
        (decision, _) => decision,
    }
}

/// `refused` is how long the finalizer, which the API server refuses, is not tried again.
fn decide(o: &Observed, refused: Option<Duration>, now: Timestamp) -> Decision {
    if let Some(since) = o.deleted {
        return match refused {
            Some(left) => settle(o, o.status.clone(), Requeue::After(left)),
            None => delete(o, since, now),
        };
    }
    let wants = o.spec.deletion_policy == WorkflowDeletionPolicy::Archive;
    // Everything else goes on without the finalizer.
    if o.finalizer != wants && refused.is_none() {
        return Decision::Act(ClusterStep::SetFinalizer(wants).into());
    }
    if o.spec.suspend {
        let message = "spec.suspend has the operator leave the workflow alone; set it to false to go on.";
        return settle(o, report::unready(o, Wait::Working, reason::SUSPENDED, message, now), Requeue::OnChange);
    }
    let connection = match &o.workspace {
        Workspace::Ready(connection) => connection,
        Workspace::Pending => return settle(o, o.status.clone(), Requeue::OnChange),
        // A manifest may list the Workflow before its Workspace.
        Workspace::NotFound if now < later(o.created, APPLIED_TOGETHER) => {
            return settle(o, o.status.clone(), Requeue::After(Duration::from_secs(1)));
        }
        Workspace::NotFound => {
            let message =
                format!("There is no Workspace \"{}\" in this namespace; create it.", o.spec.workspace_ref.name);
            // A Workflow that got further before had its Workspace, which has been deleted.
            let (wait, left) = match conditions::find(&o.status.conditions, READY) {
                // What was reported as stalled stays stalled.
                Some(_) if conditions::is_true(&o.status.conditions, conditions::STALLED) => (Wait::Stalled, None),
                Some(ready) if !ARRIVING.contains(&ready.reason.as_str()) => (Wait::Stalled, None),
                Some(_) | None => Wait::for_missing(o.created, now),
            };
            let requeue = left.map_or(Requeue::OnChange, Requeue::After);
            return settle(o, report::unready(o, wait, reason::WORKSPACE_NOT_FOUND, &message, now), requeue);
        }
        Workspace::NotReady(why, wait) => {
            let message = format!("Workspace \"{}\" is not ready: {why}", o.spec.workspace_ref.name);
            let status = report::unready(o, *wait, reason::WORKSPACE_NOT_READY, &message, now);
            return settle(o, status, Requeue::OnChange);
        }
    };
    if !o.look {
        if let Some(wait) = o.memory.retries.held(o.generation, connection, now) {
            return settle(o, o.status.clone(), Requeue::Hold(wait));
        }
        if is_up_to_date(o) && o.change == Change::None && o.remote == Remote::NotAsked {
            return settle(o, o.status.clone(), Requeue::OnChange);
        }
    }
    observe(o, connection, now)
}

/// Whether the status is about this spec and nothing is wrong: then the inventory reports changes.
fn is_up_to_date(o: &Observed) -> bool {
    o.status.observed_generation == o.generation
        && conditions::is_true(&o.status.conditions, READY)
        && o.status.contested_fields.is_empty()
        && !o.memory.incomplete
}

/// Reads until everything is known that the next decision needs.
fn observe(o: &Observed, connection: &Connection, now: Timestamp) -> Decision {
    if let Change::Failed { fields, trouble } = &o.change {
        return change_failed(o, fields, trouble, now);
    }
    match (&o.remote, &o.address) {
        (Remote::NotAsked, Address::NotAsked) => Decision::Act(Call::Find(o.identifier.clone()).into()),
        (Remote::NotAsked, Address::Absent) | (Remote::Absent, _) => not_found(o, now),
        (Remote::NotAsked, Address::Unknown(trouble)) | (Remote::Unknown(trouble), _) => troubled(o, trouble, now),
        (Remote::NotAsked, Address::Direct(address)) => Decision::Act(Call::Get(address.clone()).into()),
        (Remote::Found(workflow), _)
            if o.registrations == Registrations::NotAsked && o.lacks_registrations(workflow) =>
        {
            Decision::Act(Call::ReadRegistrations(workflow.id.clone()).into())
        }
        (Remote::Found(workflow), _) => compare(o, connection, workflow, now),
    }
}

/// Compares the workflow at the API with the spec.
fn compare(o: &Observed, connection: &Connection, workflow: &Workflow, now: Timestamp) -> Decision {
    let differing = fields::differing(&o.spec, workflow);
    if o.spec.management_policy == ManagementPolicy::Observe {
        let message = if differing.is_empty() {
            "The workflow is only read (managementPolicy Observe).".to_owned()
        } else {
            format!(
                "The workflow is only read (managementPolicy Observe), and it differs from the spec in {}.",
                fields::names(&differing)
            )
        };
        return in_order(o, report::ready(o, workflow, reason::OBSERVED, &message, now), now);
    }
    if !differing.is_empty()
        && let Some((reason, message)) = not_ours(workflow, connection)
    {
        let message = format!("{message} It differs from the spec in {}.", fields::names(&differing));
        return blocked(
            o,
            reason,
            &message,
            Requeue::Retry(backoff(o.memory.retries.in_a_row, &o.uid, 300, 3600)),
            now,
        );
    }
    let (held, free): (Vec<Field>, Vec<Field>) =
        differing.iter().partition(|field| held_until(o, **field, workflow, now).is_some());
    if !free.is_empty() {
        // A refresh may come at any time; a refused change is repeated only when that is due.
        if let Some(wait) = o.memory.retries.held(o.generation, connection, now)
            && let Some(refused) = was_refused(o)
        {
            let status = report::unready(o, Wait::Stalled, reason::CHANGE_REFUSED, refused, now);
            return settle(o, status, Requeue::Hold(wait));
        }
        // One change per reconcile; and the API may store another value than it was sent.
        return match &o.change {
            Change::None => Decision::Act(change(o, workflow, &free)),
            Change::Made { fields: set, .. } | Change::Failed { fields: set, .. } => {
                let message = format!("The workflow is being updated: {} to go.", fields::names(&free));
                let status = report::unready(o, Wait::Working, reason::UPDATING, &message, now);
                // A value that was just set may become visible later.
                let soon = Requeue::Retry(backoff(o.memory.retries.in_a_row, &o.uid, 5, 60));
                let unmoved = free.iter().any(|field| set.contains(field));
                settle(o, status, if unmoved { soon } else { Requeue::After(Duration::ZERO) })
            }
        };
    }
    if held.is_empty() {
        let status = report::ready(o, workflow, reason::IN_SYNC, "The workflow looks as the spec says.", now);
        return in_order(o, status, now);
    }
    let message = report::contested_message(&held);
    let mut status = report::unready(o, Wait::Stalled, reason::CONTESTED, &message, now);
    report::contested(&mut status, o, &held, now);
    let due = held.iter().filter_map(|field| held_until(o, *field, workflow, now)).min();
    settle(o, status, Requeue::Retry(wait_until(due, now)))
}

/// The workflow matches the spec, perhaps only for a short time.
fn in_order(o: &Observed, mut status: Status, now: Timestamp) -> Decision {
    let still = |field: &Field| {
        let wanted = field.wanted(&o.spec);
        wanted.is_some_and(|wanted| o.memory.contests.is_exhausted(*field, &wanted))
    };
    let contested: Vec<Field> = fields::ALL.into_iter().filter(still).collect();
    report::contested(&mut status, o, &contested, now);
    let unread = matches!(&o.registrations, Registrations::Unknown(it) if it.kind == TroubleKind::Unavailable);
    let requeue = match (contested.is_empty(), unread) {
        (true, false) => Requeue::OnChange,
        (false, _) => Requeue::Retry(Duration::from_secs(600)),
        (true, true) => Requeue::Retry(backoff(o.memory.retries.in_a_row, &o.uid, 30, 300)),
    };
    settle(o, status, requeue)
}

/// Until when a field that somebody else keeps setting back is left alone.
fn held_until(o: &Observed, field: Field, workflow: &Workflow, now: Timestamp) -> Option<Timestamp> {
    let wanted = field.wanted(&o.spec)?;
    let foreign = field.at_the_api(workflow);
    if let Some(until) = o.memory.contests.held_until(field, &wanted, &foreign, now) {
        return Some(until);
    }
    // The field was contested before this process began.
    let known = o.was_contested(field) && !o.memory.contests.is_exhausted(field, &wanted);
    let since = conditions::find(&o.status.conditions, conditions::CONTESTED)?.last_transition_time.0;
    contest::hold_ends(since, now).filter(|_| known)
}

/// Unarchives first and archives last: it is not documented whether an archived workflow can be changed.
fn change(o: &Observed, workflow: &Workflow, free: &[Field]) -> Step {
    let id = workflow.id.clone();
    let rest: Vec<Field> = free.iter().copied().filter(|field| *field != Field::Archived).collect();
    match o.spec.archived.filter(|_| free.contains(&Field::Archived)) {
        Some(false) => Step::SetArchived(id, false),
        // A field that the API refuses must not keep the workflow out of the archive.
        Some(true) if rest.is_empty() || was_refused(o).is_some() => Step::SetArchived(id, true),
        Some(true) | None => Call::Update(id, rest).into(),
    }
}

/// The API's message when it last refused to set a field, if nothing else has happened since.
fn was_refused(o: &Observed) -> Option<&str> {
    let ready = conditions::find(&o.status.conditions, READY)?;
    (ready.reason == reason::CHANGE_REFUSED).then_some(ready.message.as_str())
}

/// Why the operator must not change this workflow; none if it may.
fn not_ours(workflow: &Workflow, connection: &Connection) -> Option<(&'static str, String)> {
    let namespace = workflow.shared_namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let elsewhere = match (&workflow.workspace_id, &connection.workspace_id) {
        (Some(theirs), Some(ours)) => !theirs.eq_ignore_ascii_case(ours),
        // The owner is not known: a shared workflow may belong to another workspace.
        (None, _) | (_, None) => namespace.is_some(),
    };
    if elsewhere {
        let name = namespace.map(|namespace| format!(" as \"{namespace}\"")).unwrap_or_default();
        let message = format!(
            "The workflow belongs to another Mistral workspace, which shares it{name} and alone can change it; use managementPolicy Observe."
        );
        return Some((reason::SHARED, message));
    }
    (workflow.is_technical == Some(true)).then(|| {
        let message = "The workflow is registered by Mistral's SDK for its own use and is not changed from here; use managementPolicy Observe.";
        (reason::TECHNICAL, message.to_owned())
    })
}

fn not_found(o: &Observed, now: Timestamp) -> Decision {
    let message = format!(
        "The API does not know workflow \"{}\"; start the worker that registers it, or correct spec.identifier in a new resource.",
        o.identifier
    );
    let mut absent = o.clone();
    absent.remote = Remote::Absent;
    let status = report::unready(&absent, Wait::Stalled, reason::WORKFLOW_NOT_FOUND, &message, now);
    settle(o, status, Requeue::Retry(backoff(o.memory.retries.in_a_row, &o.uid, 15, 3600)))
}

/// A call failed.
fn troubled(o: &Observed, trouble: &Trouble, now: Timestamp) -> Decision {
    let Trouble { kind, message, retry_after } = trouble;
    let patience = Requeue::Retry(backoff(o.memory.retries.in_a_row, &o.uid, 30, 300));
    match kind {
        TroubleKind::Unavailable => {
            let message = format!("The API cannot be used now; it is tried again: {message}");
            let status = report::unready(o, Wait::Working, reason::API_UNAVAILABLE, &message, now);
            let wait = backoff(o.memory.retries.in_a_row, &o.uid, 2, 60).max(retry_after.unwrap_or_default());
            settle(o, status, Requeue::Retry(wait))
        }
        TroubleKind::Unauthorized => {
            let name = &o.spec.workspace_ref.name;
            let message = format!("The API refused the key of Workspace \"{name}\"; correct its Secret: {message}");
            blocked(o, reason::CREDENTIAL_REFUSED, &message, patience, now)
        }
        TroubleKind::Refused => {
            let message = format!("The API refused to show the workflow: {message}");
            blocked(o, reason::REQUEST_REFUSED, &message, patience, now)
        }
    }
}

fn change_failed(o: &Observed, fields: &[Field], trouble: &Trouble, now: Timestamp) -> Decision {
    if trouble.kind != TroubleKind::Refused {
        return troubled(o, trouble, now);
    }
    let message = format!(
        "The API refused to set {}; correct the spec, or leave the field out: {}",
        fields::names(fields),
        trouble.message
    );
    blocked(
        o,
        reason::CHANGE_REFUSED,
        &message,
        Requeue::Retry(backoff(o.memory.retries.in_a_row, &o.uid, 30, 3600)),
        now,
    )
}

/// The resource is being deleted: archives the workflow if the spec asks for that, then releases the resource, in
/// bounded time.
fn delete(o: &Observed, since: Timestamp, now: Timestamp) -> Decision {
    if !o.finalizer {
        return settle(o, o.status.clone(), Requeue::OnChange);
    }
    let free = Decision::Act(ClusterStep::Release { abandoned: false }.into());
    if o.spec.suspend || o.spec.deletion_policy == WorkflowDeletionPolicy::Retain {
        return free;
    }
    if now > later(since, DELETION_LIMIT) {
        return Decision::Act(ClusterStep::Release { abandoned: true }.into());
    }
    let Some(connection) = &o.stop_with else {
        return archiving(o, "its Workspace cannot be used", 10, now);
    };
    match (&o.change, &o.remote, &o.address) {
        // The last refresh showed enough: the workflow exists, and is ours to change.
        (Change::None, Remote::NotAsked, _) if o.knows_it_is_ours() => {
            let id = o.status.workflow_id.clone().unwrap_or_default();
            Decision::Act(Step::SetArchived(id, true))
        }
        (Change::Made { .. }, _, _) | (_, Remote::Absent, _) | (_, Remote::NotAsked, Address::Absent) => free,
        (Change::Failed { trouble, .. }, _, _)
        | (_, Remote::Unknown(trouble), _)
        | (_, Remote::NotAsked, Address::Unknown(trouble)) => archiving(o, &trouble.message, 10, now),
        (_, Remote::NotAsked, Address::NotAsked) => Decision::Act(Call::Find(o.identifier.clone()).into()),
        (_, Remote::NotAsked, Address::Direct(address)) => Decision::Act(Call::Get(address.clone()).into()),
        (_, Remote::Found(workflow), _)
            if workflow.archived == Some(true) || not_ours(workflow, connection).is_some() =>
        {
            free
        }
        (_, Remote::Found(workflow), _) => Decision::Act(Step::SetArchived(workflow.id.clone(), true)),
    }
}

fn archiving(o: &Observed, why: &str, seconds: u64, now: Timestamp) -> Decision {
    let message = format!(
        "The resource is being deleted and its workflow is to be archived first, which is tried for five minutes: {why}"
    );
    let status = report::unready(o, Wait::Working, reason::ARCHIVING, &message, now);
    settle(o, status, Requeue::After(Duration::from_secs(seconds)))
}

fn blocked(o: &Observed, reason: &str, message: &str, requeue: Requeue, now: Timestamp) -> Decision {
    settle(o, report::unready(o, Wait::Stalled, reason, message, now), requeue)
}

fn wait_until(due: Option<Timestamp>, now: Timestamp) -> Duration {
    due.and_then(|due| Duration::try_from(due.duration_since(now)).ok()).unwrap_or_default().max(Duration::from_secs(1))
}

/// Ends the reconcile. People are notified of what was changed, and of what changes in `Ready`.
fn settle(o: &Observed, status: Status, requeue: Requeue) -> Decision {
    let mut news = Vec::new();
    let old = conditions::find(&o.status.conditions, READY);
    if let Some(new) = conditions::find(&status.conditions, READY)
        && old.is_none_or(|old| old.reason != new.reason)
        && new.reason != reason::UPDATING
        // This was reported already, when it was found.
        && !(new.reason == reason::CONTESTED && conditions::is_true(&o.status.conditions, conditions::CONTESTED))
    {
        let warning = conditions::is_true(&status.conditions, STALLED) || new.reason == reason::API_UNAVAILABLE;
        let notice = if warning { Notice::warning } else { Notice::normal };
        news.push(notice(&new.reason, &new.message));
    }
    for type_ in [conditions::NEEDS_USER, conditions::AMBIGUOUS, conditions::CONTESTED] {
        if let Some(new) = conditions::find(&status.conditions, type_)
            && conditions::find(&o.status.conditions, type_).is_none()
            && news.iter().all(|notice: &Notice| notice.reason != new.reason)
        {
            news.push(Notice::warning(&new.reason, &new.message));
        }
    }
    Decision::Settle(Box::new(Settled { status, done: done(o), news, requeue }))
}

/// What this reconcile has changed. Corrected drift is reported apart from new values of the spec.
fn done(o: &Observed) -> Vec<Notice> {
    let Change::Made { fields, before } = &o.change else { return Vec::new() };
    let drifted = drifted(o);
    let (mut drift, mut updated) = (Vec::new(), Vec::new());
    for (field, held) in fields.iter().zip(before) {
        let Some(wanted) = field.wanted(&o.spec) else { continue };
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
        notices
            .push(Notice::normal(reason::DRIFT_CORRECTED, told("Changed at the API, not here, and set back:", &drift)));
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
pub fn drifted(o: &Observed) -> Vec<Field> {
    let Change::Made { fields, .. } = &o.change else { return Vec::new() };
    fields.iter().copied().filter(|field| o.had_been_set(*field)).collect()
}
