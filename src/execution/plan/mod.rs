//! How a run proceeds: the next step, from what is known. No I/O here.
//!
//! A pass calls [`plan`], carries out the step, folds its outcome into [`Observed`] and calls it
//! again, until it settles. A pass changes at most one thing at the API. What keeps a run from
//! happening twice: nothing is sent without a claim written in the same pass; and unless this process
//! has seen the resource from its creation, the API is asked first, and believed that there is no run
//! only once no earlier call can still be under way.

pub mod backoff;
pub mod blocked;
pub mod delete;
pub mod finish;
pub mod priority;
pub mod refused_writes;
pub mod stop;

#[cfg(test)]
mod promise_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, MISSING, READY, RESULT_NOT_WRITTEN, STALLED, STARTED, Wait};
use crate::api::{DeletionPolicy, WorkflowExecutionStatus as Status};
use crate::execution::claim::{self, CLAIM, Claim, Note, TAKE_OVER, VISIBILITY};
use crate::execution::plan::backoff::{backoff, blocked_retry};
use crate::execution::plan::blocked::{
    APPLIED_TOGETHER, blocked, in_doubt, is_taken, is_unresolved, missing, refused, suspended, taken,
    taken_with_other_input, troubled, unresolved, waiting,
};
use crate::execution::plan::refused_writes::Write;
use crate::execution::state::input::{self, Hiding};
use crate::execution::state::result;
use crate::execution::state::{Comparison, FailureText, Observed, Referent, Remote, Sent, StopCall, Target};
use crate::execution::status::{self, is_finished, is_started, reason};
use crate::mistral::wire::{Execution, is_terminal};
use crate::mistral::{Trouble, TroubleKind};
use crate::platform::clock::later;
use crate::platform::events::Notice;
use crate::platform::requeue::Requeue;
use crate::workspace::access::{Connection, Workspace};

/// How often the events of a failed run are read until they have a text: they lag behind by seconds.
const READS_OF_A_FAILURE: u32 = 5;
/// How long after its doubt a claim is still this cluster's present: from then on it may come from a
/// backup, and the API may have forgotten a run that ended long ago.
const CLAIM_GOES_STALE: SignedDuration = SignedDuration::from_hours(24);
/// Questions in a row without an answer after which the status says so.
const SILENCE: u32 = 5;
/// How long a run stays missing before it is given up.
const LOST_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// What a pass does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Carry this out, fold the outcome into [`Observed`], and plan again.
    Act(Step),
    /// The pass ends.
    Settle(Box<Settled>),
}

/// One effect or question.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the claim and the finalizer, on condition that nobody changed the resource.
    WriteClaim {
        /// What to write.
        claim: Box<Claim>,
        /// Whether our finalizer shall be on the resource then.
        finalizer: bool,
        /// Whether the call of this claim follows in the same pass.
        send: bool,
        /// Whether a person's consent is used up with it.
        consent: bool,
    },
    /// Put our finalizer on the resource, or take it off.
    SetFinalizer(bool),
    /// Take our finalizer off a resource that is being deleted.
    Release {
        /// The run may go on: say so.
        abandoned: bool,
    },
    /// Ask the API whether what is to be run exists.
    Probe,
    /// Ask the API about the run.
    Ask,
    /// Read the ConfigMaps and Secrets that the input comes from.
    ReadInput,
    /// Find out whether the run that was found is what the spec asks for.
    Compare,
    /// Start the run. Only ever follows a claim with `send` in the same pass.
    Start,
    /// Wait for a moment whether the run that was just accepted ends at once: that saves a write.
    Linger,
    /// Read why the run failed.
    ReadFailure,
    /// Write the result into the object that the spec names.
    WriteResult,
    /// Stop the run.
    Stop(StopCall),
    /// Delete the resource, whose time is over.
    Delete,
}

/// The end of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// To be written if it differs from what is there.
    pub status: Status,
    /// To be published.
    pub notices: Vec<Notice>,
    /// When to come back.
    pub requeue: Requeue,
}

/// Whose claim it is.
pub(crate) enum Standing<'a> {
    /// None, or one that says nothing of this resource's run: see [`Observed::is_void`].
    Unclaimed,
    /// This resource's own.
    Ours(&'a Claim),
    /// The run is read only.
    Reading(&'a Claim),
    /// Another cluster's or namespace's: a restore or a clone.
    Foreign(&'a Claim),
    /// Nobody can tell.
    Unreadable,
}

/// The next step.
pub fn plan(o: &Observed, now: Timestamp) -> Decision {
    match decide(o, now) {
        Decision::Settle(mut settled) => {
            if let Some(left) = stop::next_deadline(o, &settled.status, now) {
                settled.requeue = settled.requeue.within(left);
            }
            if let Some(left) = refused_writes::next_retry(o, now) {
                settled.requeue = settled.requeue.within(left);
            }
            Decision::Settle(settled)
        }
        act @ Decision::Act(_) => act,
    }
}

fn decide(o: &Observed, now: Timestamp) -> Decision {
    if let Some(since) = o.deleted {
        return refused_writes::release_refused(o, now).unwrap_or_else(|| delete::delete(o, since, now));
    }
    if is_finished(&o.status) {
        return finish::finished(o, now);
    }
    if let Some(decision) = refused_writes::status_refused(o, now) {
        return decision;
    }
    if !o.may_have_started()
        && let Some(decision) = stop::barred(o, now)
    {
        return decision;
    }
    if o.spec.suspend && !o.may_have_started() {
        return suspended(o, now);
    }
    let connection = match (&o.workspace, &o.stop_with) {
        (Workspace::Ready(connection), _) => connection,
        // What has started is stopped with a key that was good not long ago.
        (_, Some(connection)) if is_started(&o.status) && stop::is_due(o, now) => connection,
        (workspace, _) => return without_workspace(o, workspace, now),
    };
    if let Some(claim) = consented(o) {
        return take_over(o, claim);
    }
    if let Some(wait) = o.memory.retries.held(o.generation, connection, now) {
        return settle(o, o.status.clone(), Requeue::Hold(wait));
    }
    match &o.note {
        Note::Claim(claim) if o.is_unrecorded() && o.refusal(Write::Claim, now).is_none() => {
            return write(o, Claim::clone(claim), false);
        }
        _ if refused_writes::waits_for_claim(o) => {
            if let Some(decision) = refused_writes::claim_refused(o, now) {
                return decision;
            }
        }
        _ => {}
    }
    if let Some(claim) = o.claimed_by().filter(|claim| o.is_elder(claim)) {
        return of_which_life(o, connection, claim, now);
    }
    match standing(o) {
        Standing::Unclaimed => begin(o, connection, now),
        Standing::Ours(claim) | Standing::Reading(claim) | Standing::Foreign(claim)
            if !claim.is_for(&connection.origin, connection.workspace_id.as_deref(), is_started(&o.status)) =>
        {
            let message = format!(
                "The run was claimed at {} in Mistral workspace {}, which is not where Workspace \"{}\" leads now; point it back, or create another WorkflowExecution for a new run.",
                claim.origin,
                claim.workspace_id.as_deref().unwrap_or("(not told)"),
                o.spec.workspace_ref.name,
            );
            blocked(o, reason::WORKSPACE_CHANGED, message, Requeue::OnChange, now)
        }
        Standing::Ours(_) if is_started(&o.status) => running(o, now),
        // As after a restore: from now on it is known when it was seen here.
        Standing::Ours(claim) if o.is_of_another_life(claim) && o.refusal(Write::Claim, now).is_none() => {
            write(o, claim.clone(), false)
        }
        Standing::Ours(claim) => resume(o, connection, claim, now),
        Standing::Reading(claim) => read(o, claim, false, now),
        Standing::Foreign(claim) => read(o, claim, true, now),
        Standing::Unreadable => {
            let message = format!(
                "The annotation {CLAIM} was written by a newer operator or by hand and cannot be read, so a run may exist; upgrade the operator, or remove the annotation once you are sure that there is none."
            );
            blocked(o, reason::CLAIM_UNREADABLE, message, Requeue::OnChange, now)
        }
    }
}

fn without_workspace(o: &Observed, workspace: &Workspace, now: Timestamp) -> Decision {
    let name = &o.spec.workspace_ref.name;
    match workspace {
        Workspace::Ready(_) | Workspace::Pending => settle(o, o.status.clone(), Requeue::OnChange),
        // A manifest may well have the execution before its Workspace.
        Workspace::NotFound if now < later(o.created, APPLIED_TOGETHER) => {
            settle(o, o.status.clone(), Requeue::After(Duration::from_secs(1)))
        }
        Workspace::NotFound => {
            let message = format!("There is no Workspace \"{name}\" in this namespace; create it.");
            missing(o, reason::WORKSPACE_NOT_FOUND, message, Requeue::OnChange, now)
        }
        Workspace::NotReady(why, wait) => {
            let message = format!("Workspace \"{name}\" is not ready: {why}");
            waiting(o, *wait, reason::WORKSPACE_NOT_READY, message, Requeue::OnChange, now)
        }
    }
}

pub(crate) fn standing(o: &Observed) -> Standing<'_> {
    match &o.note {
        Note::Absent => Standing::Unclaimed,
        Note::Unreadable => Standing::Unreadable,
        Note::Claim(claim) if o.is_void(claim) => Standing::Unclaimed,
        Note::Claim(claim) if claim.owner != o.owner => Standing::Foreign(claim),
        Note::Claim(claim) if claim.reading => Standing::Reading(claim),
        Note::Claim(claim) => Standing::Ours(claim),
    }
}

impl Observed {
    /// Whether a claim speaks of this resource, so that an execution id is settled.
    pub(crate) fn claim_exists(&self) -> bool {
        !matches!(standing(self), Standing::Unclaimed | Standing::Unreadable)
    }

    /// Whether the run belongs to someone else.
    pub(crate) fn is_reading(&self) -> bool {
        matches!(standing(self), Standing::Reading(_) | Standing::Foreign(_))
    }

    /// Whether the spec is not what was claimed.
    pub(crate) fn is_edited(&self) -> bool {
        matches!(standing(self), Standing::Ours(claim) if claim.digest != claim::digest(&self.spec))
    }

    /// Whether a run may exist, so that it must be looked after even while starts are held back.
    pub(crate) fn may_have_started(&self) -> bool {
        is_started(&self.status)
            || match standing(self) {
                Standing::Unclaimed => self.has_lost_a_claim(),
                Standing::Ours(claim) => !self.is_refused(claim),
                Standing::Reading(_) | Standing::Foreign(_) | Standing::Unreadable => true,
            }
    }

    /// Whether there was a claim once, if there is none now: `kubectl replace` drops annotations but not the status, and
    /// the finalizer comes with the first claim.
    pub(crate) fn has_lost_a_claim(&self) -> bool {
        self.memory.claim.is_some() || self.status.execution_id.is_some() || self.finalizer
    }

    /// Whether this process has seen the resource from its creation and never claimed it: then, and
    /// only then, no run can exist.
    fn is_new_to_the_world(&self) -> bool {
        self.spec.execution_id.is_none()
            && self.note == Note::Absent
            && self.status.execution_id.is_none()
            && self.memory.claim.is_none()
            && self.created >= self.instance.since
    }

    fn wants_finalizer(&self) -> bool {
        self.spec.deletion_policy != DeletionPolicy::Orphan
    }
}

/// No claim yet: make one, unless one was lost.
fn begin(o: &Observed, connection: &Connection, now: Timestamp) -> Decision {
    if o.has_lost_a_claim() {
        return write(o, restored(o, connection, now), false);
    }
    if o.is_new_to_the_world() {
        return claim_and_send(o, connection, 1, now);
    }
    match &o.remote {
        Remote::NotAsked => Decision::Act(Step::Ask),
        Remote::Unknown(trouble) => troubled(o, trouble, now),
        Remote::Absent => claim_and_send(o, connection, 1, now),
        Remote::Found(_) if is_unresolved(o) => {
            unresolved(o, now).unwrap_or_else(|| settle(o, o.status.clone(), Requeue::OnChange))
        }
        Remote::Found(run) if is_taken(o, run) => taken(o, run.workflow_name.as_deref(), now),
        Remote::Found(_) => {
            let claim = o.claim(connection, 1, now);
            // A derived id has the resource's UID in it: nobody else can have started that run.
            let reading = o.spec.execution_id.is_some();
            write(o, Claim { reading, ..claim }, false)
        }
    }
}

/// Claims, so that the call follows in this pass; unless another resource here has just claimed the same
/// explicit id: its run may not show yet, and once ended it would be no obstacle to a second one.
fn claim_and_send(o: &Observed, connection: &Connection, attempt: u32, now: Timestamp) -> Decision {
    if let Some(decision) = stop::barred(o, now) {
        return decision;
    }
    if let Some(decision) = unresolved(o, now) {
        return decision;
    }
    // One that only records what has happened may have been refused in this very pass.
    if let Some(decision) = refused_writes::claim_refused(o, now) {
        return decision;
    }
    if o.rival.is_some() {
        let message = format!(
            "Another WorkflowExecution may have claimed the execution id \"{}\" and started it; this one waits until the API would show that run, and reads it then.",
            o.execution_id()
        );
        let status = status::not_started(o, Wait::Working, reason::EXECUTION_ID_CLAIMED, message, now);
        return settle(o, status, Requeue::Retry(backoff(o, 2, 10)));
    }
    match input::ready(o, now) {
        Ok(inputs) => write(o, Claim { inputs, ..o.claim(connection, attempt, now) }, true),
        Err(decision) => *decision,
    }
}

/// The claim that was here once: `kubectl replace` drops annotations but not the status. Another
/// operator may have claimed after what this one remembers, so it is as doubtful as a call made now.
pub(crate) fn restored(o: &Observed, connection: &Connection, now: Timestamp) -> Claim {
    let adopted =
        conditions::find(&o.status.conditions, STARTED).is_some_and(|started| started.reason == reason::ADOPTED);
    match &o.memory.claim {
        Some(known) => Claim {
            reading: known.reading || adopted,
            since: known.since,
            digest: known.digest.clone(),
            inputs: known.inputs.clone(),
            // A stop that has reached the run cannot be taken back.
            stop_since: known.stop_since,
            stop_for: known.stop_for,
            ..o.claim(connection, known.attempt, now)
        },
        None => Claim { reading: adopted, since: None, ..o.claim(connection, 1, now) },
    }
}

/// A claim from an earlier life of this resource, as after a restore; or one that came over a claim of this life, as an
/// exported manifest does, in a moment when nothing else was left of it. Only the API knows.
pub(crate) fn of_which_life(o: &Observed, connection: &Connection, claim: &Claim, now: Timestamp) -> Decision {
    match &o.remote {
        Remote::NotAsked => Decision::Act(Step::Ask),
        Remote::Found(_) => write(o, Claim { since: None, ..o.claim(connection, 1, now) }, false),
        Remote::Unknown(trouble) => troubled(o, trouble, now),
        Remote::Absent if o.began < o.earlier_calls_end() => {
            let left = Duration::try_from(o.earlier_calls_end().duration_since(now)).unwrap_or_default();
            in_doubt(o, left, None, now)
        }
        Remote::Absent => write(o, claim.clone(), false),
    }
}

/// Our claim, and no word yet that the run started.
fn resume(o: &Observed, connection: &Connection, claim: &Claim, now: Timestamp) -> Decision {
    match &o.sent {
        Sent::Nothing if o.fresh => return Decision::Act(Step::Start),
        Sent::Nothing => {}
        Sent::TooLate if !claim.refused => return write(o, Claim { refused: true, ..claim.clone() }, false),
        Sent::TooLate => return settle(o, o.status.clone(), Requeue::After(Duration::ZERO)),
        Sent::Accepted(run) => {
            return match &o.remote {
                _ if !o.lingered && !is_terminal(run.status.as_deref()) => Decision::Act(Step::Linger),
                Remote::Found(run) => observe(o, run, now),
                Remote::NotAsked | Remote::Absent | Remote::Unknown(_) => observe(o, run, now),
            };
        }
        // Our own earlier calls are proven to have started nothing: it is somebody else's run.
        Sent::AlreadyStarted if o.spec.execution_id.is_some() => {
            return write(o, Claim { reading: true, ..claim.clone() }, false);
        }
        Sent::AlreadyStarted => {}
        Sent::Unknown(_) => {}
        Sent::Refused(_) | Sent::NotStarted(_) if !claim.refused => {
            return write(o, Claim { refused: true, ..claim.clone() }, false);
        }
        Sent::NotStarted(trouble) => return troubled(o, trouble, now),
        Sent::Refused(refusal) => return refused(o, refusal, now),
    }
    // An earlier process has said why nothing was started, and whether that is the last word shows later.
    if claim.refused && !o.is_refused(claim) && !o.doubt(claim).is_zero() && ready_reason(&o.status).is_some() {
        return settle(o, o.status.clone(), Requeue::After(o.doubt(claim)));
    }
    // A workflow that did not exist is looked for by one cheap question, not by claiming again.
    if ready_reason(&o.status) == Some(reason::TARGET_NOT_FOUND)
        && o.is_refused(claim)
        && matches!(o.referent, Referent::NotNamed | Referent::Ready { .. })
    {
        match &o.target {
            Target::NotAsked => return Decision::Act(Step::Probe),
            Target::Unknown(trouble) => return troubled(o, trouble, now),
            Target::Absent => return settle(o, o.status.clone(), blocked_retry(o)),
            Target::Exists => {}
        }
    }
    match &o.remote {
        Remote::NotAsked => Decision::Act(Step::Ask),
        // Under a refused claim of an explicit id somebody else has started it meanwhile, or before the claim.
        Remote::Found(run) if o.spec.execution_id.is_some() && is_anothers(claim, run) => {
            write(o, Claim { reading: true, ..claim.clone() }, false)
        }
        Remote::Found(run) if is_taken(o, run) => taken(o, run.workflow_name.as_deref(), now),
        Remote::Found(run) => observe(o, run, now),
        Remote::Unknown(trouble) if claim.refused => troubled(o, trouble, now),
        // The run is there and cannot be read. Its id has this resource's UID in it, so it is ours, and is looked after.
        Remote::Unknown(_) if o.memory.seen && o.memory.unanswered > 1 && o.spec.execution_id.is_none() => {
            settle(o, status::running(o, &unread(o), now), Requeue::OnChange)
        }
        Remote::Unknown(trouble) => in_doubt(o, o.doubt(claim), Some(trouble), now),
        Remote::Absent if !o.doubt(claim).is_zero() => match &o.sent {
            Sent::Unknown(trouble) => in_doubt(o, o.doubt(claim), Some(trouble), now),
            _ => in_doubt(o, o.doubt(claim), None, now),
        },
        // The API has said before that it exists: it is forgotten, not unknown.
        Remote::Absent if o.memory.seen => settle(o, status::missing(o, now), Requeue::OnChange),
        Remote::Absent => start_again(o, connection, claim, now),
    }
}

/// Whether a run under a claimed explicit id was not started by the claim's call.
fn is_anothers(claim: &Claim, run: &Execution) -> bool {
    claim.refused || run.start_time.is_some_and(|start| claim.is_younger_than(start))
}

/// No run exists, and no call can be under way: the start may be made anew, if nothing speaks against it.
fn start_again(o: &Observed, connection: &Connection, claim: &Claim, now: Timestamp) -> Decision {
    if let Some(decision) = stop::barred(o, now) {
        return decision;
    }
    if !claim.refused && now > later(claim.doubt_ends(), CLAIM_GOES_STALE) && !is_consent(o, claim) {
        let id = &claim.execution_id;
        let message = format!(
            "Run \"{id}\" was claimed on {} and the API does not know it: it may have ended long ago, as after a restore from a backup, so it is not started; to start it, annotate this resource with {TAKE_OVER}={id}.",
            claim.send_before.strftime("%F")
        );
        return blocked(o, reason::STALE_CLAIM, message, Requeue::OnChange, now);
    }
    if o.spec.suspend {
        return suspended(o, now);
    }
    if o.is_edited() {
        let message = "The spec was edited after the run was claimed and before it started, so it was not started; create another WorkflowExecution with what you want to run.".to_owned();
        return blocked(o, reason::INPUT_CHANGED, message, Requeue::OnChange, now);
    }
    claim_and_send(o, connection, claim.attempt.saturating_add(1), now)
}

/// The run is somebody else's: read it, touch nothing.
fn read(o: &Observed, claim: &Claim, foreign: bool, now: Timestamp) -> Decision {
    if is_started(&o.status) {
        return running(o, now);
    }
    match &o.remote {
        Remote::NotAsked => Decision::Act(Step::Ask),
        Remote::Found(_) if is_unresolved(o) => {
            unresolved(o, now).unwrap_or_else(|| settle(o, o.status.clone(), Requeue::OnChange))
        }
        Remote::Found(run) if is_taken(o, run) => taken(o, run.workflow_name.as_deref(), now),
        Remote::Found(run) if !foreign && o.spec.execution_id.is_some() => compared(o, run, now),
        Remote::Found(run) => observe(o, run, now),
        Remote::Unknown(trouble) => troubled(o, trouble, now),
        Remote::Absent => {
            if let Some(decision) = stop::barred(o, now) {
                return decision;
            }
            let id = &claim.execution_id;
            let whose = if foreign {
                format!("a resource of namespace \"{}\" in another place", claim.owner.namespace)
            } else {
                "someone else".to_owned()
            };
            let message = format!(
                "Run \"{id}\" is claimed by {whose}, and the API does not know it, so nothing is started; to start it from here, annotate this resource with {TAKE_OVER}={id}."
            );
            blocked(o, reason::FOREIGN_CLAIM, message, Requeue::Retry(backoff(o, 60, 300)), now)
        }
    }
}

/// A run was found under an explicit id. If the spec asks for something else, the status says so and shows no result.
fn compared(o: &Observed, run: &Execution, now: Timestamp) -> Decision {
    match &o.comparison {
        Comparison::NotTried => input::comparable(o).unwrap_or(Decision::Act(Step::Compare)),
        Comparison::Same | Comparison::Unknown(_) => observe(o, run, now),
        Comparison::OtherWorkflow(name) => taken(o, Some(name), now),
        Comparison::OtherInput(how) => taken_with_other_input(o, how, now),
    }
}

/// The claim on a run of someone else that a person lets this resource own.
fn consented(o: &Observed) -> Option<&Claim> {
    match standing(o) {
        Standing::Reading(claim) | Standing::Foreign(claim) => Some(claim).filter(|claim| is_consent(o, claim)),
        Standing::Unclaimed | Standing::Ours(_) | Standing::Unreadable => None,
    }
}

pub(crate) fn is_consent(o: &Observed, claim: &Claim) -> bool {
    o.take_over.as_ref() == Some(&claim.execution_id)
}

/// A person has consented: the claim becomes this resource's, with all doubts that it carries.
fn take_over(o: &Observed, claim: &Claim) -> Decision {
    let claim = Claim {
        owner: o.owner.clone(),
        since: None,
        reading: false,
        stop_since: None,
        stop_for: None,
        ..claim.clone()
    };
    write(o, claim, false)
}

/// The run has started.
fn running(o: &Observed, now: Timestamp) -> Decision {
    let wants = o.wants_finalizer() && !o.is_reading();
    if o.finalizer != wants && o.refusal(Write::Finalizer, now).is_none() {
        return Decision::Act(Step::SetFinalizer(wants));
    }
    match &o.remote {
        // What the status says may be out of date for another reason than the run's own progress.
        Remote::NotAsked if o.look || ready_reason(&o.status) != Some(reason::RUNNING) || stop::is_due(o, now) => {
            Decision::Act(Step::Ask)
        }
        Remote::NotAsked => settle(o, o.status.clone(), Requeue::OnChange),
        Remote::Found(run) => observe(o, run, now),
        Remote::Absent => gone(o, now),
        Remote::Unknown(trouble) if let Some(run) = unreadable_end(o, trouble) => observe(o, &run, now),
        // To stop a run takes no answer about it.
        Remote::Unknown(trouble)
            if trouble.kind != TroubleKind::Unauthorized
                && let Some(decision) = stop::stop(o, &unread(o), now) =>
        {
            decision
        }
        Remote::Unknown(trouble) => match trouble.kind {
            // The tracker asks again, and slower; a flapping API is the Workspace's condition to tell.
            TroubleKind::Unavailable if o.memory.unanswered < SILENCE => settle(o, o.status.clone(), Requeue::OnChange),
            TroubleKind::Unavailable => {
                let message = format!("The run has started, and its state cannot be read: {}", trouble.message);
                settle(o, status::blind(o, Wait::Working, reason::API_UNAVAILABLE, message, now), Requeue::OnChange)
            }
            TroubleKind::Unauthorized | TroubleKind::Refused => troubled(o, trouble, now),
        },
    }
}

/// The end of a run that the list of runs tells of, while the API gives no answer of use about the run itself: a result
/// may be such that nobody can read it, and whoever waits for the end is not to wait for ever.
pub(crate) fn unreadable_end(o: &Observed, trouble: &Trouble) -> Option<Execution> {
    let enough = trouble.kind != TroubleKind::Unauthorized && o.memory.unanswered >= SILENCE;
    let row = o.memory.listed_end.as_deref().filter(|row| enough && is_terminal(row.status.as_deref()))?;
    (!is_taken(o, row)).then(|| Execution { result_unread: Some(trouble.message.clone()), ..row.clone() })
}

/// What the API says of the run goes into the status.
fn observe(o: &Observed, run: &Execution, now: Timestamp) -> Decision {
    if !is_terminal(run.status.as_deref()) {
        return stop::stop(o, run, now).unwrap_or_else(|| settle(o, status::running(o, run, now), Requeue::OnChange));
    }
    if let Some(decision) = result::next(o, run, now) {
        return decision;
    }
    if run.status.as_deref() != Some("FAILED") {
        return settle(o, status::ended(o, run, None, now), Requeue::OnChange);
    }
    match &o.failure {
        FailureText::NotAsked => Decision::Act(Step::ReadFailure),
        FailureText::Read(None) if o.memory.failure_reads < READS_OF_A_FAILURE => {
            // Not before, whoever wakes it: lists go on telling that it has ended.
            settle(o, status::ending(o, run, now), Requeue::Retry(Duration::from_secs(2)))
        }
        FailureText::Read(text) => {
            let text = match (text, input::hiding(o)) {
                (Some(_), Hiding::NotRead) => return Decision::Act(Step::ReadInput),
                (Some(text), Hiding::These(mask)) => Some(mask.text(text).into_owned()),
                (Some(_), Hiding::Unknown(why)) => Some(status::withheld_failure(&why)),
                (text, _) => text.clone(),
            };
            settle(o, status::ended(o, run, text.as_deref(), now), Requeue::OnChange)
        }
    }
}

/// The API does not know a run that had started.
fn gone(o: &Observed, now: Timestamp) -> Decision {
    let started = o.status.start_time.as_ref().map_or(o.created, |time| time.0);
    if o.began < later(started, VISIBILITY) {
        return settle(o, o.status.clone(), Requeue::OnChange);
    }
    match conditions::find(&o.status.conditions, MISSING) {
        Some(since) if later(since.last_transition_time.0, LOST_AFTER) < now => {
            let message =
                "The API has not known this run for a day, so its outcome cannot be told. It was not started again.";
            settle(o, status::ended_without_run(o, reason::LOST, message, now), Requeue::OnChange)
        }
        _ => settle(o, status::missing(o, now), Requeue::OnChange),
    }
}

/// The run, of which the API tells nothing.
fn unread(o: &Observed) -> Execution {
    Execution { execution_id: o.execution_id(), ..Execution::default() }
}

pub(crate) fn write(o: &Observed, claim: Claim, send: bool) -> Decision {
    let finalizer = o.deleted.is_some() || (o.wants_finalizer() && !claim.reading);
    // Whatever was written before is older, and so is what was written on another resource of this name.
    let there = match &o.note {
        Note::Claim(claim) if !o.is_of_another_life(claim) => claim.revision,
        Note::Claim(_) | Note::Absent | Note::Unreadable => 0,
    };
    let revision = o.memory.claim.as_ref().map_or(there, |known| known.revision.max(there)).saturating_add(1);
    let consent = is_consent(o, &claim) && !claim.reading && !claim.refused;
    let claim = Claim { revision, uid: Some(o.uid.clone()), ..claim };
    Decision::Act(Step::WriteClaim { claim: Box::new(claim), finalizer, send, consent })
}

/// Ends the pass. What a person should hear of is what changes in `Ready`.
pub(crate) fn settle(o: &Observed, mut status: Status, requeue: Requeue) -> Decision {
    // An edit that changes nothing here has been seen all the same: who waits for that looks at these.
    if !status.conditions.is_empty() && o.deleted.is_none() {
        status.observed_generation = o.generation;
        status.conditions.iter_mut().for_each(|condition| condition.observed_generation = o.generation);
    }
    let mut notices = Vec::new();
    if o.copied && o.claim_exists() {
        let note = format!(
            "The annotation {CLAIM} spoke of another resource, or was older than what was written since, as in a copied or exported manifest; it was replaced."
        );
        notices.push(Notice::warning(reason::CLAIM_IGNORED, note));
    }
    if is_started(&status)
        && !is_started(&o.status)
        && let Some(started) = conditions::find(&status.conditions, STARTED)
    {
        notices.push(Notice::normal(&started.reason, &started.message));
    }
    let old = conditions::find(&o.status.conditions, READY);
    if let Some(new) = conditions::find(&status.conditions, READY)
        && old.is_none_or(|old| old.reason != new.reason)
        && new.reason != reason::RUNNING
    {
        let warning = conditions::is_true(&status.conditions, STALLED)
            || conditions::is_true(&status.conditions, RESULT_NOT_WRITTEN)
            || matches!(
                new.reason.as_str(),
                reason::API_UNAVAILABLE | reason::OUTCOME_UNKNOWN | reason::MISSING | reason::RESULT_PENDING
            );
        let notice = if warning { Notice::warning } else { Notice::normal };
        notices.push(notice(&new.reason, &new.message));
    }
    Decision::Settle(Box::new(Settled { status, notices, requeue }))
}

pub(crate) fn ready_reason(status: &Status) -> Option<&str> {
    conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str())
}
