//! From no claim to a started run, or to the report that none was started.

use super::decision::{Call, ClusterStep, Decision};
use super::follow::{observe, unread};
use super::{ready_reason, refused_writes, settle, stop, write};
use crate::api::conditions::{self, STARTED, Wait};
use crate::clock::later;
use crate::execution::claim::{Claim, TAKE_OVER};
use crate::execution::plan::backoff::{backoff, blocked_retry};
use crate::execution::plan::blocked::{
    blocked, in_doubt, is_taken, is_unresolved, refused, suspended, taken, troubled, unresolved,
};
use crate::execution::state::input::{self};
use crate::execution::state::ownership::{Standing, standing};
use crate::execution::state::{Observed, Referent, Remote, Sent, Target};
use crate::execution::status::{self, reason};
use crate::mistral::wire::{Execution, is_terminal};
use crate::platform::requeue::Requeue;
use crate::workspace::access::Connection;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How long a claim is trusted after its doubt has ended. An older claim may come from a backup, and the API may have
/// forgotten a run that ended long ago.
const CLAIM_GOES_STALE: SignedDuration = SignedDuration::from_hours(24);

/// There is no claim: makes one, or restores one that was lost.
pub(crate) fn begin(o: &Observed, connection: &Connection, now: Timestamp) -> Decision {
    if o.has_lost_a_claim() {
        return write(o, restored(o, connection, now), false);
    }
    if o.is_new_to_the_world() {
        return claim_and_send(o, connection, 1, now);
    }
    match &o.remote {
        Remote::NotAsked => Decision::Act(Call::GetRun.into()),
        Remote::Unknown(trouble) => troubled(o, trouble, now),
        Remote::Absent => claim_and_send(o, connection, 1, now),
        Remote::Found(_) if is_unresolved(o) => {
            unresolved(o, now).unwrap_or_else(|| settle(o, o.status.clone(), Requeue::OnChange))
        }
        Remote::Found(run) if is_taken(o, run) => taken(o, run.workflow_name.as_deref(), now),
        Remote::Found(_) => {
            let claim = o.claim(connection, 1, now);
            // A derived id contains the resource's UID, so nobody else can have started that run.
            let reading = o.spec.execution_id.is_some();
            write(o, Claim { reading, ..claim }, false)
        }
    }
}

/// Writes a claim whose call follows in this reconcile. Waits if another resource here has just claimed the same
/// explicit id: that run may not be visible yet, and once it has ended, the API would accept a second one.
pub(crate) fn claim_and_send(o: &Observed, connection: &Connection, attempt: u32, now: Timestamp) -> Decision {
    if let Some(decision) = stop::barred(o, now) {
        return decision;
    }
    if let Some(decision) = unresolved(o, now) {
        return decision;
    }
    // A claim that only records what has happened may have been refused in this very reconcile.
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

/// Rebuilds a lost claim: `kubectl replace` drops annotations but not the status. Another operator may have claimed
/// after the claim that this process remembers, so the rebuilt claim is as doubtful as a call made now.
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

/// The claim was written on an earlier resource of this name. Either a restore brought it back, or an exported manifest
/// replaced this resource's own claim at a moment when nothing else was left of that. Only the API knows.
pub(crate) fn of_which_life(o: &Observed, connection: &Connection, claim: &Claim, now: Timestamp) -> Decision {
    match &o.remote {
        Remote::NotAsked => Decision::Act(Call::GetRun.into()),
        Remote::Found(_) => write(o, Claim { since: None, ..o.claim(connection, 1, now) }, false),
        Remote::Unknown(trouble) => troubled(o, trouble, now),
        Remote::Absent if o.began < o.earlier_calls_end() => {
            let left = Duration::try_from(o.earlier_calls_end().duration_since(now)).unwrap_or_default();
            in_doubt(o, left, None, now)
        }
        Remote::Absent => write(o, claim.clone(), false),
    }
}

/// The claim is ours, and the status does not report a start yet.
pub(crate) fn resume(o: &Observed, connection: &Connection, claim: &Claim, now: Timestamp) -> Decision {
    match &o.sent {
        Sent::Nothing if o.fresh => return Decision::Act(Call::Start.into()),
        Sent::Nothing => {}
        Sent::TooLate if !claim.refused => return write(o, Claim { refused: true, ..claim.clone() }, false),
        Sent::TooLate => return settle(o, o.status.clone(), Requeue::After(Duration::ZERO)),
        Sent::Accepted(run) => {
            return match &o.remote {
                _ if !o.lingered && !is_terminal(run.status.as_deref()) => Decision::Act(ClusterStep::Linger.into()),
                Remote::Found(run) => observe(o, run, now),
                Remote::NotAsked | Remote::Absent | Remote::Unknown(_) => observe(o, run, now),
            };
        }
        // Our own earlier calls provably started nothing, so the run is somebody else's.
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
    // An earlier process reported why nothing was started. Whether that is final is known once the doubt has ended.
    if claim.refused && !o.is_refused(claim) && !o.doubt(claim).is_zero() && ready_reason(&o.status).is_some() {
        return settle(o, o.status.clone(), Requeue::After(o.doubt(claim)));
    }
    // One cheap request checks whether the missing workflow exists now, instead of another claim.
    if ready_reason(&o.status) == Some(reason::TARGET_NOT_FOUND)
        && o.is_refused(claim)
        && matches!(o.referent, Referent::NotNamed | Referent::Ready { .. })
    {
        match &o.target {
            Target::NotAsked => return Decision::Act(Call::GetTarget.into()),
            Target::Unknown(trouble) => return troubled(o, trouble, now),
            Target::Absent => return settle(o, o.status.clone(), blocked_retry(o)),
            Target::Exists => {}
        }
    }
    match &o.remote {
        Remote::NotAsked => Decision::Act(Call::GetRun.into()),
        // Somebody else started the run of this explicit id, before the claim or after its call was refused.
        Remote::Found(run) if o.spec.execution_id.is_some() && is_anothers(claim, run) => {
            write(o, Claim { reading: true, ..claim.clone() }, false)
        }
        Remote::Found(run) if is_taken(o, run) => taken(o, run.workflow_name.as_deref(), now),
        Remote::Found(run) => observe(o, run, now),
        Remote::Unknown(trouble) if claim.refused => troubled(o, trouble, now),
        // The run exists and cannot be read. Its id contains this resource's UID, so it is ours and is followed.
        Remote::Unknown(_) if o.memory.seen && o.memory.unanswered > 1 && o.spec.execution_id.is_none() => {
            settle(o, status::running(o, &unread(o), now), Requeue::OnChange)
        }
        Remote::Unknown(trouble) => in_doubt(o, o.doubt(claim), Some(trouble), now),
        Remote::Absent if !o.doubt(claim).is_zero() => match &o.sent {
            Sent::Unknown(trouble) => in_doubt(o, o.doubt(claim), Some(trouble), now),
            _ => in_doubt(o, o.doubt(claim), None, now),
        },
        // The API has reported this run before, so it has forgotten the run.
        Remote::Absent if o.memory.seen => settle(o, status::missing(o, now), Requeue::OnChange),
        Remote::Absent => start_again(o, connection, claim, now),
    }
}

/// Whether the run of a claimed explicit id was started by something other than the claim's call.
pub(crate) fn is_anothers(claim: &Claim, run: &Execution) -> bool {
    claim.refused || run.start_time.is_some_and(|start| claim.is_younger_than(start))
}

/// No run exists, and no call can be in flight: starts again unless something forbids it.
pub(crate) fn start_again(o: &Observed, connection: &Connection, claim: &Claim, now: Timestamp) -> Decision {
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

/// The claim on somebody else's run, if a person consents that this resource takes it over.
pub(crate) fn consented(o: &Observed) -> Option<&Claim> {
    match standing(o) {
        Standing::Reading(claim) | Standing::Foreign(claim) => Some(claim).filter(|claim| is_consent(o, claim)),
        Standing::Unclaimed | Standing::Ours(_) | Standing::Unreadable => None,
    }
}

pub(crate) fn is_consent(o: &Observed, claim: &Claim) -> bool {
    o.take_over.as_ref() == Some(&claim.execution_id)
}

/// A person has consented: the claim becomes this resource's, and keeps its doubt.
pub(crate) fn take_over(o: &Observed, claim: &Claim) -> Decision {
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
