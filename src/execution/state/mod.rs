//! What is known about one execution during one pass, and how the outcome of a step adds to it.

pub mod comparison;
pub mod input;
pub mod result;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::conditions::{self, READY, STALLED, Wait};
use crate::api::{Workflow, WorkflowExecution, WorkflowExecutionSpec, WorkflowExecutionStatus};
use crate::execution::claim::{
    Claim, Claimant, DOUBT, FINALIZER, Known, Note, Owner, SENT_TO_SHOWN, TAKE_OVER, derived_id,
};
use crate::execution::plan::finish::{Ended, tracked_by};
use crate::execution::plan::refused_writes::Refusals;
use crate::execution::state::input::Input;
use crate::execution::state::result::Stored;
use crate::execution::status::is_finished;
use crate::mistral::wire::{Event, Execution};
use crate::mistral::{ApiError, Error, Trouble};
use crate::platform::clock::later;
use crate::platform::requeue::{Requeue, Retries};
use crate::workflow::report::reason::WORKFLOW_NOT_FOUND;
use crate::workspace::access::{Connection, Workspace};

/// A run that goes on this long after a stop that the API took may never have heard of it: asking again does no harm.
const STOP_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// Everything that [`plan`](crate::execution::plan::plan) may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What was asked for.
    pub spec: WorkflowExecutionSpec,
    /// The status as last written.
    pub status: WorkflowExecutionStatus,
    /// Which resource this is.
    pub owner: Owner,
    /// UID of the resource.
    pub uid: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// When the resource was created, by the API server's clock.
    pub created: Timestamp,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// The claim on it; or the one that the API server refuses to record, and that this process goes by all the same.
    pub note: Note,
    /// The claim that is on it.
    pub recorded: Note,
    /// The version of it that the next write refers to.
    pub version: String,
    /// The resource came with a claim that speaks of another one.
    pub copied: bool,
    /// The execution id for which a person lets this resource take over another's claim.
    pub take_over: Option<String>,
    /// What this process remembers of earlier passes.
    pub memory: Memory,
    /// When the pass began: each of its questions was sent later, however long the answer took.
    pub began: Timestamp,
    /// How long this process had known of the claim's call when the pass began, by the monotonic clock: the wall clock
    /// may be set, and the machine suspended, while the call is under way.
    pub known_for: Duration,
    /// This process.
    pub instance: Instance,
    /// The connection.
    pub workspace: Workspace,
    /// What the Workflow resource says that the spec names.
    pub referent: Referent,
    /// A connection that may still be used to stop the run, even if its Workspace or Secret is gone.
    pub stop_with: Option<Connection>,
    /// Whether to ask the API about a run that is not known to have ended.
    pub look: bool,
    /// What this process has seen of the run's end, if it has ended.
    pub ended: Option<Ended>,
    /// What keeps track of the resource and would create it again.
    pub tracked_by: Option<String>,

    /// Until when a call of another resource with the same explicit id may be under way.
    pub rival: Option<Timestamp>,
    /// The claim was written in this pass, so its call may be sent in it.
    pub fresh: bool,
    /// The answer to the call that starts the run.
    pub sent: Sent,
    /// It was waited for whether the run that was just accepted ends at once.
    pub lingered: bool,
    /// What the API knows of the run.
    pub remote: Remote,
    /// Whether what is to be run exists.
    pub target: Target,
    /// What the spec wants from ConfigMaps and Secrets.
    pub input: Input,
    /// The text of a failure.
    pub failure: FailureText,
    /// What became of the result that goes to an object.
    pub stored: Stored,
    /// The answer to a stop.
    pub stopped: Option<Result<(), Error>>,
    /// Whether the run that was found is what the spec asks for.
    pub comparison: Comparison,
}

/// What this process remembers of a resource. Losing it costs calls, never a promise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The newest claim that this process has written or seen: `kubectl replace` may have dropped it, and an older one
    /// come back.
    pub claim: Option<Box<Known>>,
    /// Its retries.
    pub retries: Retries<Connection>,
    /// The stop that the API has last taken, and when, to not ask twice.
    pub stop: Option<(StopCall, Timestamp)>,
    /// The API has said that the run exists, even if the status does not say so yet.
    pub seen: bool,
    /// Questions about the run in a row without an answer.
    pub unanswered: u32,
    /// How often the events of the failed run were read.
    pub failure_reads: u32,
    /// The API's database id of the run, which only the list of runs tells.
    pub run_id: Option<String>,
    /// What the list of runs says of the run's end, should the run itself not be readable.
    pub listed_end: Option<Box<Execution>>,
    /// What the API server refuses to write.
    pub refusals: Refusals,
}

impl Memory {
    /// The run has ended. What was claimed stays for as long as the resource is there: should the cluster's store be
    /// restored to a time before that, the run must not look new.
    pub fn ended(&mut self) {
        let refusals = Refusals { unrecorded: None, end: None, ..std::mem::take(&mut self.refusals) };
        *self = Self { claim: self.claim.take(), seen: self.seen, refusals, ..Self::default() };
    }

    /// The list of runs has told of the run, if it has: with the end in it, and the database id.
    pub fn listed(&mut self, row: Option<Box<Execution>>) {
        let Some(row) = row else { return };
        self.run_id = row.run_id.clone().or(self.run_id.take());
        self.listed_end = Some(row);
    }

    /// Whether the API has taken this stop, and not so long ago that it has to be repeated.
    pub fn has_stopped(&self, call: StopCall, now: Timestamp) -> bool {
        // One in the future was taken by a clock that has been set back since.
        self.stop.is_some_and(|(taken, at)| taken == call && at <= now && now < later(at, STOP_AGAIN))
    }
}

/// This operator process.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name in claims.
    pub name: String,
    /// Since when nobody but it works: what was created later, it has seen from its beginning. By the API server's
    /// clock where there is an election, else by its own.
    pub since: Timestamp,
}

/// The Workflow resource that `spec.workflowRef` names.
#[derive(Clone, Debug, PartialEq)]
pub enum Referent {
    /// The spec names none.
    NotNamed,
    /// There is no such resource.
    NotFound,
    /// Its workflow cannot be run now.
    NotReady {
        /// Why.
        why: String,
        /// Whether that may pass by itself.
        wait: Wait,
        /// Which one it is, as far as that is known.
        workflow: Option<Named>,
    },
    /// Its workflow can be run.
    Ready {
        /// Which one it is.
        workflow: Named,
        /// Whether a live worker serves it, when the API tells.
        active: Option<bool>,
    },
}

/// A workflow at the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// UUID.
    pub id: String,
    /// Name.
    pub name: String,
}

impl Referent {
    /// What the resource says, if there is one.
    pub fn read(resource: Option<&Workflow>, workspace: &str) -> Self {
        let Some(resource) = resource else { return Self::NotFound };
        let status = resource.status.clone().unwrap_or_default();
        let ready = conditions::find(&status.conditions, READY);
        let theirs = &resource.spec.workspace_ref.name;
        if theirs != workspace {
            let why = format!(
                "it belongs to Workspace \"{theirs}\" and this execution to \"{workspace}\"; name one of the two in both"
            );
            return Self::NotReady { why, wait: Wait::Stalled, workflow: None };
        }
        let workflow = status.workflow_id.zip(status.name).map(|(id, name)| Named { id, name });
        let is_archived = status.archived == Some(true);
        let why = match &workflow {
            _ if resource.metadata.deletion_timestamp.is_some() => "it is being deleted".to_owned(),
            Some(_) if is_archived => "it is archived; set archived to false there".to_owned(),
            Some(workflow) if ready.is_none_or(|ready| ready.reason != WORKFLOW_NOT_FOUND) => {
                return Self::Ready { workflow: workflow.clone(), active: status.active };
            }
            _ => ready.map_or_else(|| "the API has not been asked about it yet".to_owned(), |it| it.message.clone()),
        };
        let lasts = is_archived || conditions::is_true(&status.conditions, STALLED);
        Self::NotReady { why, wait: if lasts { Wait::Stalled } else { Wait::Working }, workflow }
    }

    /// The workflow, if it is known which one it is.
    pub fn workflow(&self) -> Option<&Named> {
        match self {
            Self::Ready { workflow, .. } => Some(workflow),
            Self::NotReady { workflow, .. } => workflow.as_ref(),
            Self::NotNamed | Self::NotFound => None,
        }
    }
}

/// What the API knows of the run: not known is not the same as not there.
#[derive(Clone, Debug, PartialEq)]
pub enum Remote {
    /// Not asked in this pass.
    NotAsked,
    /// It exists.
    Found(Box<Execution>),
    /// The API says that there is none.
    Absent,
    /// There was no answer that tells.
    Unknown(Trouble),
}

/// Whether a run that was found under an explicit id is what the spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// Not compared in this pass.
    NotTried,
    /// It is.
    Same,
    /// It is a run of this other workflow.
    OtherWorkflow(String),
    /// Its input differs, here.
    OtherInput(String),
    /// Its input is not known, and why.
    Unknown(String),
}

/// Whether the workflow or registration to be run exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Not asked in this pass.
    NotAsked,
    /// It exists.
    Exists,
    /// It does not.
    Absent,
    /// There was no answer that tells.
    Unknown(Trouble),
}

/// What became of the call that starts the run.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// Nothing was sent in this pass.
    Nothing,
    /// The claim had grown too old to send on it.
    TooLate,
    /// The run exists.
    Accepted(Box<Execution>),
    /// A run of this id exists and has not ended.
    AlreadyStarted,
    /// Nothing was started, and the same call will fare no better until something changes.
    Refused(Refusal),
    /// Nothing was started; later may be better.
    NotStarted(Trouble),
    /// Something may have been started.
    Unknown(Trouble),
}

/// Why the API refused to start a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// No such workflow or registration.
    TargetNotFound(ApiError),
    /// Several deployments own the workflow.
    Ambiguous(ApiError),
    /// The input, or something else in the request, is wrong for good (HTTP 422).
    Input(ApiError),
    /// Any other refusal.
    Other(ApiError),
}

/// The text of a failure.
#[derive(Clone, Debug, PartialEq)]
pub enum FailureText {
    /// Not asked in this pass.
    NotAsked,
    /// What the events say, if anything.
    Read(Option<String>),
}

/// How to stop a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCall {
    /// Ask it to.
    Cancel,
    /// End it.
    Terminate,
}

/// What the other resources here say that this one names.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The connection.
    pub workspace: Workspace,
    /// A connection that may still be used to stop the run.
    pub stop_with: Option<Connection>,
    /// The Workflow.
    pub referent: Referent,
}

impl Observed {
    /// What a resource says by itself, before any step.
    pub fn new(
        object: &WorkflowExecution,
        cluster: &str,
        instance: Instance,
        memory: Memory,
        surroundings: Surroundings,
        look: bool,
        now: Timestamp,
    ) -> Self {
        let Surroundings { workspace, stop_with, referent } = surroundings;
        let meta = &object.metadata;
        let recorded = Note::read(meta.annotations.as_ref());
        let owner = Owner {
            cluster: cluster.to_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        let mut observed = Self {
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
            owner,
            uid: object.uid().unwrap_or_default(),
            generation: meta.generation,
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            deleted: meta.deletion_timestamp.as_ref().map(|time| time.0),
            finalizer: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            copied: false,
            note: memory.refusals.note(&recorded),
            recorded,
            version: object.resource_version().unwrap_or_default(),
            take_over: object.annotations().get(TAKE_OVER).cloned(),
            memory,
            began: now,
            known_for: Duration::ZERO,
            instance,
            workspace,
            referent,
            stop_with,
            look,
            ended: None,
            tracked_by: tracked_by(meta),
            rival: None,
            fresh: false,
            sent: Sent::Nothing,
            lingered: false,
            remote: Remote::NotAsked,
            target: Target::NotAsked,
            input: Input::NotRead,
            failure: FailureText::NotAsked,
            stored: Stored::NotTried,
            stopped: None,
            comparison: Comparison::NotTried,
        };
        observed.copied = matches!(&observed.recorded, Note::Claim(claim) if observed.is_void(claim));
        observed.learn();
        observed.known_for = observed.memory.claim.as_ref().map_or(Duration::ZERO, |known| known.first.elapsed());
        observed
    }

    /// Remembers the claim on the resource: should an older one come back, this process knows of the newer.
    fn learn(&mut self) {
        if let Note::Claim(claim) = &self.note
            && claim.owner == self.owner
            && !self.is_of_another_life(claim)
            && !self.is_void(claim)
            // Of most that had ended before this process began, there is nothing to remember.
            && (self.memory.claim.is_some() || !is_finished(&self.status))
        {
            self.memory.claim = Some(Box::new(self.known(claim)));
        }
    }

    /// What is remembered of a claim. A call that is known already stays known since then.
    pub(crate) fn known(&self, claim: &Claim) -> Known {
        let known = Known::of(claim, &self.derived_id());
        let is_there = matches!(&self.note, Note::Claim(there) if there.send_before == claim.send_before);
        match &self.memory.claim {
            Some(before) if before.send_before == known.send_before => {
                Known { first: before.first, own: before.own, ..known }
            }
            Some(_) | None => Known { own: !is_there && claim.claimant == self.instance.name, ..known },
        }
    }

    /// Whether a claim says nothing of this resource's run: it speaks of another resource, as in a copied manifest, or
    /// is older than one that was written since, as in an exported one that was applied again.
    pub(crate) fn is_void(&self, claim: &Claim) -> bool {
        if claim.owner.name != self.owner.name {
            return true;
        }
        let other_run = self.spec.execution_id.is_none()
            && self.status.execution_id.as_ref().is_some_and(|id| *id != claim.execution_id);
        let known = self.memory.claim.as_deref();
        other_run
            || known.is_some_and(|known| {
                claim.revision < known.revision || claim.owner != self.owner || self.is_of_another_life(claim)
            })
    }

    /// Whether a claim was written on a resource of this name that is no more.
    pub(crate) fn is_of_another_life(&self, claim: &Claim) -> bool {
        claim.uid.as_ref().is_some_and(|uid| *uid != self.uid)
    }

    /// Whether the claim's call has definitely started nothing, and no other call has: the refused claim of an earlier
    /// process may have come back over a newer one, and the API may have said that there is a run.
    pub(crate) fn is_refused(&self, claim: &Claim) -> bool {
        let known = self.memory.claim.as_deref().filter(|_| !self.memory.seen);
        claim.refused && known.is_some_and(|known| known.own && known.send_before == claim.send_before)
    }

    /// How long a 404 still proves nothing: the claim's call may be under way, or the API may not show its run yet. The
    /// refused claim of an earlier process proves nothing either, since that process may have written a newer one.
    pub(crate) fn doubt(&self, claim: &Claim) -> Duration {
        if self.is_refused(claim) { Duration::ZERO } else { DOUBT.unsigned_abs().saturating_sub(self.known_for) }
    }

    /// From when on the API shows every run that was started before this process led.
    pub(crate) fn earlier_calls_end(&self) -> Timestamp {
        later(self.instance.since, SENT_TO_SHOWN)
    }

    /// The claim, if it speaks of this resource.
    pub(crate) fn claimed_by(&self) -> Option<&Claim> {
        match &self.note {
            Note::Claim(claim) => Some(claim.as_ref()).filter(|claim| !self.is_void(claim)),
            Note::Absent | Note::Unreadable => None,
        }
    }

    pub(crate) fn derived_id(&self) -> String {
        derived_id(&self.owner.name, &self.uid)
    }

    /// Whether the claim may be from an earlier life and have come over one of this life, of which nothing is left.
    pub(crate) fn is_elder(&self, claim: &Claim) -> bool {
        self.spec.execution_id.is_none()
            && self.status.execution_id.is_none()
            && self.memory.claim.is_none()
            && self.created < self.instance.since
            && self.is_of_another_life(claim)
    }

    /// Identity of the run: what the spec says, else the claim, else the status, else what this process remembers, else a
    /// derived one.
    pub fn execution_id(&self) -> String {
        let claimed = self.claimed_by().filter(|claim| !self.is_elder(claim)).map(|claim| &claim.execution_id);
        self.spec
            .execution_id
            .as_ref()
            .or(claimed)
            .or(self.status.execution_id.as_ref())
            .or(self.memory.claim.as_ref().and_then(|known| known.execution_id.as_ref()))
            .cloned()
            .unwrap_or_else(|| self.derived_id())
    }

    /// A claim by this process for the next attempt.
    pub fn claim(&self, connection: &Connection, attempt: u32, now: Timestamp) -> Claim {
        let by = Claimant {
            instance: &self.instance.name,
            origin: &connection.origin,
            workspace_id: connection.workspace_id.as_deref(),
        };
        let digest = crate::execution::claim::digest(&self.spec);
        Claim::new(self.execution_id(), attempt, by, self.owner.clone(), digest, now)
    }

    /// The pass ends: what it found out about when to come back is remembered.
    pub fn settled(&mut self, requeue: Requeue, now: Timestamp) {
        self.memory.retries.settled(requeue, self.workspace.connection(), self.generation, now);
    }

    /// A claim was written; `fresh` when its call is to be sent in this pass.
    pub fn claimed(&mut self, claim: Claim, fresh: bool) {
        if self.execution_id() != claim.execution_id {
            // The answer was about another run.
            self.remote = Remote::NotAsked;
        }
        let known = self.known(&claim);
        if self.memory.claim.as_ref().is_none_or(|before| before.first != known.first) {
            self.known_for = Duration::ZERO;
        }
        self.memory.claim = Some(Box::new(known));
        self.memory.retries.hold = None;
        (self.memory.refusals.claim, self.memory.refusals.unrecorded) = (None, None);
        self.recorded = Note::Claim(Box::new(claim.clone()));
        self.note = Note::Claim(Box::new(claim));
        self.fresh = fresh;
    }

    /// The call that starts the run was made.
    pub fn sent(&mut self, outcome: Result<Execution, Error>) {
        self.fresh = false;
        self.sent = match outcome {
            Ok(execution) => Sent::Accepted(Box::new(execution)),
            Err(Error::Conflict(said)) if said.is_already_started() => Sent::AlreadyStarted,
            Err(Error::Conflict(said)) if said.is_ambiguous_workflow() => Sent::Refused(Refusal::Ambiguous(said)),
            Err(Error::NotFound(said)) => Sent::Refused(Refusal::TargetNotFound(said)),
            Err(Error::Rejected(said)) if said.status == 422 => Sent::Refused(Refusal::Input(said)),
            Err(Error::Rejected(said)) => Sent::Refused(Refusal::Other(said)),
            // A conflict of a kind that is not known may be that the run exists.
            Err(error @ (Error::Conflict(_) | Error::UnknownOutcome { .. } | Error::Unreadable { .. })) => {
                Sent::Unknown(Trouble::from(error))
            }
            Err(error @ (Error::Transient { .. } | Error::Unauthorized(_))) => Sent::NotStarted(Trouble::from(error)),
        };
        self.memory.seen |= matches!(self.sent, Sent::Accepted(_) | Sent::AlreadyStarted);
    }

    /// It was waited for whether the run ends at once; if it seems to have, the API was asked.
    pub fn lingered(&mut self, outcome: Option<Result<Execution, Error>>) {
        self.lingered = true;
        // What the API said before the start is no longer so.
        self.remote = Remote::NotAsked;
        if let Some(outcome) = outcome {
            self.asked(outcome);
        }
    }

    /// The claim had grown too old to send on it.
    pub fn too_late(&mut self) {
        self.fresh = false;
        self.sent = Sent::TooLate;
    }

    /// The API was asked about the run.
    pub fn asked(&mut self, outcome: Result<Execution, Error>) {
        // What cannot be read is there.
        self.memory.seen |= matches!(outcome, Err(Error::Unreadable { .. }));
        self.remote = match outcome {
            Ok(execution) => Remote::Found(Box::new(execution)),
            Err(Error::NotFound(said)) if said.is_no_execution() => Remote::Absent,
            Err(Error::NotFound(said)) => Remote::Unknown(said.not_the_apis_own()),
            Err(error) => Remote::Unknown(Trouble::from(error)),
        };
        match self.remote {
            Remote::Unknown(_) => self.memory.unanswered = self.memory.unanswered.saturating_add(1),
            // A row is of use only where the run itself cannot be read.
            _ => (self.memory.unanswered, self.memory.listed_end) = (0, None),
        }
        self.memory.seen |= matches!(self.remote, Remote::Found(_));
    }

    /// The API was asked about the workflow or registration.
    pub fn probed(&mut self, outcome: Result<(), Error>) {
        self.target = match outcome {
            Ok(()) => Target::Exists,
            Err(Error::NotFound(_)) => Target::Absent,
            Err(error) => Target::Unknown(Trouble::from(error)),
        };
    }

    /// The events of a failed run were read; a text is a help, not a duty.
    pub fn failure_read(&mut self, outcome: Result<Vec<Event>, Error>) {
        self.memory.failure_reads = self.memory.failure_reads.saturating_add(1);
        self.failure = FailureText::Read(outcome.ok().and_then(|events| failure_text(&events)));
    }

    /// The API was asked to stop the run.
    pub fn stop_sent(&mut self, call: StopCall, outcome: Result<(), Error>, now: Timestamp) {
        if outcome.is_ok() {
            self.memory.stop = Some((call, now));
        }
        self.stopped = Some(outcome);
    }

    /// The run that was found was compared with what the spec asks for.
    pub fn compared(&mut self, comparison: Comparison) {
        self.comparison = comparison;
    }
}

/// The workflow's own words; where it only says that an activity failed, the activity's as well.
pub fn failure_text(events: &[Event]) -> Option<String> {
    let last = |event_type: &str| {
        events
            .iter()
            .filter(|event| event.event_type == event_type)
            .max_by_key(|event| event.event_timestamp)
            .and_then(|event| event.attributes.as_ref()?.failure.as_ref()?.message.as_deref())
            .filter(|text| !text.trim().is_empty())
    };
    match (last("WORKFLOW_EXECUTION_FAILED"), last("ACTIVITY_TASK_FAILED")) {
        (Some(workflow), Some(activity)) if !workflow.contains(activity) => Some(format!("{workflow}: {activity}")),
        (Some(text), _) | (None, Some(text)) => Some(text.to_owned()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(event_type: &str, at: i64, message: &str) -> Event {
        let event = json!({
            "event_type": event_type, "event_timestamp": at, "attributes": { "failure": { "message": message } },
        });
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_workflow_and_of_the_last_activity() {
        let events = [
            event("ACTIVITY_TASK_FAILED", 3, "card declined"),
            event("ACTIVITY_TASK_FAILED", 1, "first try"),
            event("WORKFLOW_EXECUTION_FAILED", 4, "Activity task failed"),
        ];
        assert_eq!(failure_text(&events).as_deref(), Some("Activity task failed: card declined"));
        assert_eq!(failure_text(&events[..1]).as_deref(), Some("card declined"));
        assert_eq!(failure_text(&[event("WORKFLOW_EXECUTION_FAILED", 4, " ")]), None);
        assert_eq!(failure_text(&[]), None);
    }
}
