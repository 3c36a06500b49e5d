//! Conditions in the form that Kubernetes users know, and the one function that sets them.

use std::time::Duration;

use crate::clock::later;
use crate::text::{first_sentence, truncate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The resource is done, and all is well. `kubectl wait --for=condition=Ready` and kstatus read this condition.
pub const READY: &str = "Ready";
/// The operator is still working (kstatus: in progress).
pub const RECONCILING: &str = "Reconciling";
/// The operator cannot continue by itself (kstatus: failed).
pub const STALLED: &str = "Stalled";
/// The API has accepted the execution.
pub const STARTED: &str = "Started";
/// The run ended with `COMPLETED`, like `Complete` of a Job.
pub const COMPLETE: &str = "Complete";
/// The run ended in any other way, like `Failed` of a Job.
pub const FAILED: &str = "Failed";
/// The spec differs from the claim: the API server's rules let an edit through.
pub const EDITED: &str = "Edited";
/// `ttlSecondsAfterFinished` has passed, but the operator keeps the execution.
pub const EXPIRED: &str = "Expired";
/// The API no longer knows a run that had started.
pub const MISSING: &str = "Missing";
/// The run completed, but its result is not where the spec wants it.
pub const RESULT_NOT_WRITTEN: &str = "ResultNotWritten";

/// A live worker serves the workflow.
pub const ACTIVE: &str = "Active";
/// Somebody else keeps setting a field of the workflow back.
pub const CONTESTED: &str = "Contested";
/// Several active deployments serve the workflow, so an execution has to name one.
pub const AMBIGUOUS: &str = "Ambiguous";
/// A run of the workflow acts on behalf of a user.
pub const NEEDS_USER: &str = "NeedsUser";

/// Calls of the Workspace wait in the queue.
pub const THROTTLED: &str = "Throttled";
/// Discovery could not do everything for the Workspace.
pub const DISCOVERY_INCOMPLETE: &str = "DiscoveryIncomplete";
/// The operator does not see changes made in Mistral, because it cannot read the lists of workflows.
pub const DRIFT_UNSEEN: &str = "DriftUnseen";

/// The longest message the API server accepts in a condition.
const MAX_MESSAGE: usize = 32_768;
/// The longest short form of a message, in bytes.
const SHORT: usize = 200;

/// The order of the conditions in every status: the most useful ones first, those that appear only in trouble last.
const ORDER: [&str; 17] = [
    READY,
    RECONCILING,
    STALLED,
    STARTED,
    COMPLETE,
    FAILED,
    MISSING,
    EDITED,
    EXPIRED,
    RESULT_NOT_WRITTEN,
    ACTIVE,
    CONTESTED,
    AMBIGUOUS,
    NEEDS_USER,
    THROTTLED,
    DISCOVERY_INCOMPLETE,
    DRIFT_UNSEEN,
];

/// The place of a condition in the order; foreign ones come last.
fn rank(type_: &str) -> usize {
    ORDER.iter().position(|known| *known == type_).unwrap_or(ORDER.len())
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The operator cannot say yet.
    Unknown,
}

impl ConditionStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Whether the operator can continue by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The operator continues by itself.
    Working,
    /// A person has to act.
    Stalled,
}

/// How long a referenced resource may take to appear. Flux and Argo CD give up a whole sync for one resource that needs
/// a person.
const ARRIVES_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// How long the resources of one manifest may take to arrive.
const APPLIED_TOGETHER: SignedDuration = SignedDuration::from_secs(5);

/// Whether a resource is so young that what it refers to may come with the same manifest. Nothing is reported until then.
pub fn is_arriving(created: Timestamp, now: Timestamp) -> bool {
    now < later(created, APPLIED_TOGETHER)
}

impl Progress {
    /// The progress of a resource of this age that refers to something missing, and when to check again.
    pub fn for_missing(created: Timestamp, now: Timestamp) -> (Self, Option<Duration>) {
        let until = later(created, ARRIVES_WITHIN);
        match Duration::try_from(until.duration_since(now)) {
            // A creation time in the future means that a clock is wrong.
            Ok(left) if !left.is_zero() && left <= ARRIVES_WITHIN.unsigned_abs() => (Self::Working, Some(left)),
            _ => (Self::Stalled, None),
        }
    }
}

/// Writes conditions. It knows what all conditions of one write have in common.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    /// The generation of the spec that the conditions describe.
    pub generation: Option<i64>,
    /// The time of a transition.
    pub now: Timestamp,
}

impl Writer {
    /// Sets `type_`. `lastTransitionTime` changes only when the status flips.
    pub fn set(
        self,
        conditions: &mut Vec<Condition>,
        type_: &str,
        status: ConditionStatus,
        reason: &str,
        message: impl Into<String>,
    ) {
        let status = status.as_str();
        let mut message = message.into();
        truncate(&mut message, MAX_MESSAGE);
        let last_transition_time = match find(conditions, type_) {
            Some(old) if old.status == status => old.last_transition_time.clone(),
            _ => Time(self.now),
        };
        let new = Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            observed_generation: self.generation,
            last_transition_time,
        };
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(old) => *old = new,
            // The others stay where they are: a changed order would be a reason to write.
            None => {
                let after = conditions.iter().rposition(|other| rank(&other.type_) <= rank(type_));
                conditions.insert(after.map_or(0, |at| at + 1), new);
            }
        }
    }

    /// Sets `type_` with the short form of a message that `Ready` has in full.
    pub fn set_short(
        self,
        conditions: &mut Vec<Condition>,
        type_: &str,
        status: ConditionStatus,
        reason: &str,
        message: &str,
    ) {
        self.set(conditions, type_, status, reason, first_sentence(message, SHORT));
    }

    /// Sets `Ready` to true, and removes the other two conditions that kstatus reads.
    pub fn ready(self, all: &mut Vec<Condition>, reason: &str, message: &str) {
        self.set(all, READY, ConditionStatus::True, reason, message);
        remove(all, RECONCILING);
        remove(all, STALLED);
    }

    /// Sets `Ready` to false, and with it the other two conditions that kstatus reads. Only `Ready` has the whole
    /// message.
    pub fn unready(self, all: &mut Vec<Condition>, wait: Progress, reason: &str, message: &str) {
        self.set(all, READY, ConditionStatus::False, reason, message);
        let (present, absent) = match wait {
            Progress::Working => (RECONCILING, STALLED),
            Progress::Stalled => (STALLED, RECONCILING),
        };
        self.set_short(all, present, ConditionStatus::True, reason, message);
        remove(all, absent);
    }
}

/// Removes a condition, for those whose mere presence means trouble.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of that type is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut conditions = Vec::new();
        let time = |second| Timestamp::from_second(second).unwrap();
        let at = |second| Writer { generation: Some(1), now: time(second) };
        at(1).set(&mut conditions, READY, ConditionStatus::False, "Pending", "waiting");
        at(2).set(&mut conditions, READY, ConditionStatus::False, "Running", "runs");
        assert_eq!(conditions[0].last_transition_time.0, time(1));
        at(3).set(&mut conditions, READY, ConditionStatus::True, "Completed", "done");
        assert_eq!(conditions[0].last_transition_time.0, time(3));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn conditions_have_one_order_and_only_ready_has_the_whole_message() {
        let (mut conditions, writer) = (Vec::new(), Writer { generation: Some(1), now: Timestamp::UNIX_EPOCH });
        let types = |conditions: &[Condition]| -> Vec<String> {
            conditions.iter().map(|condition| condition.type_.clone()).collect()
        };
        writer.set(&mut conditions, "Foreign", ConditionStatus::True, "Any", "by somebody else");
        writer.set(&mut conditions, FAILED, ConditionStatus::True, "Canceled", "done");
        writer.set(&mut conditions, STARTED, ConditionStatus::True, "Started", "started");
        writer.unready(&mut conditions, Progress::Stalled, "Refused", "The API refuses it. Give the key the right.");
        assert_eq!(types(&conditions), [READY, STALLED, STARTED, FAILED, "Foreign"]);
        assert_eq!(conditions[0].message, "The API refuses it. Give the key the right.");
        assert_eq!(conditions[1].message, "The API refuses it.");
        writer.unready(&mut conditions, Progress::Working, "Running", "It runs.");
        assert_eq!(types(&conditions), [READY, RECONCILING, STARTED, FAILED, "Foreign"]);
    }
}
