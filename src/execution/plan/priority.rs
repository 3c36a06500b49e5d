//! The priority level of a reconcile's calls.

use k8s_openapi::jiff::Timestamp;

use crate::execution::plan::Step;
use crate::execution::plan::stop;
use crate::execution::state::Observed;
use crate::execution::status::is_started;
use crate::mistral::budget::Class;

/// The priority level of the reconcile's permit, by the step that needs it first. A read has the level of what it
/// unblocks.
pub(crate) fn class(step: &Step, o: &Observed, now: Timestamp) -> Class {
    match step {
        Step::Stop(_) | Step::Release { .. } => Class::Stop,
        Step::WriteClaim { .. }
        | Step::SetFinalizer(_)
        | Step::ReadInput
        | Step::WriteResult
        | Step::Linger
        | Step::Delete
        | Step::Probe
        | Step::Compare
        | Step::Start => Class::Start,
        Step::Ask | Step::ReadFailure if o.deleted.is_some() || stop::is_asked_for(o) || stop::is_due(o, now) => {
            Class::Stop
        }
        Step::Ask if !is_started(&o.status) => Class::Start,
        Step::Ask | Step::ReadFailure => Class::Watch,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::execution::state::{Instance, Memory, Referent, StopCall, Surroundings};
    use crate::workspace::access::Workspace;

    /// An execution that has started or not, and is being deleted or not.
    fn observed(started: bool, deleted: bool) -> Observed {
        let condition = json!({
            "type": "Started", "status": "True", "reason": "Started", "message": "", "lastTransitionTime": Timestamp::UNIX_EPOCH,
        });
        let object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": "run", "deletionTimestamp": deleted.then_some(Timestamp::UNIX_EPOCH) },
            "spec": { "workflowIdentifier": "w" },
            "status": { "conditions": if started { vec![condition] } else { Vec::new() } },
        });
        let surroundings =
            Surroundings { workspace: Workspace::Pending, stop_with: None, referent: Referent::NotNamed };
        let instance = Instance { name: "me".into(), since: Timestamp::UNIX_EPOCH, api_server_time: None };
        let object = serde_json::from_value(object).unwrap();
        Observed::new(&object, "cluster", instance, Memory::default(), surroundings, false, Timestamp::now())
    }

    #[test]
    fn a_question_has_the_class_of_what_it_unblocks() {
        for (started, deleted, step, expected) in [
            (false, false, Step::Ask, Class::Start),
            (false, false, Step::Probe, Class::Start),
            (false, false, Step::Start, Class::Start),
            (true, false, Step::Ask, Class::Watch),
            (true, false, Step::ReadFailure, Class::Watch),
            (true, false, Step::Stop(StopCall::Cancel), Class::Stop),
            (true, true, Step::Ask, Class::Stop),
            (false, true, Step::Ask, Class::Stop),
            (true, true, Step::Stop(StopCall::Terminate), Class::Stop),
        ] {
            assert_eq!(
                class(&step, &observed(started, deleted), Timestamp::UNIX_EPOCH),
                expected,
                "{started} {deleted} {step:?}"
            );
        }
    }
}
