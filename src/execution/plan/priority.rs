//! Which calls of an execution go first.

use k8s_openapi::jiff::Timestamp;

use crate::execution::plan::Call;
use crate::execution::plan::stop;
use crate::execution::state::Observed;
use crate::execution::status::is_started;
use crate::mistral::budget::Class;

/// The priority of a call. A question has the priority of what its answer unblocks.
pub(crate) fn class(call: Call, o: &Observed, now: Timestamp) -> Class {
    match call {
        Call::Stop(_) => Class::Stop,
        Call::GetTarget | Call::Compare | Call::Start => Class::Start,
        Call::GetRun | Call::ReadFailure if o.deleted.is_some() || stop::is_asked_for(o) || stop::is_due(o, now) => {
            Class::Stop
        }
        Call::GetRun if !is_started(&o.status) => Class::Start,
        Call::GetRun | Call::ReadFailure => Class::Watch,
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
        for (started, deleted, call, expected) in [
            (false, false, Call::GetRun, Class::Start),
            (false, false, Call::GetTarget, Class::Start),
            (false, false, Call::Start, Class::Start),
            (true, false, Call::GetRun, Class::Watch),
            (true, false, Call::ReadFailure, Class::Watch),
            (true, false, Call::Stop(StopCall::Cancel), Class::Stop),
            (true, true, Call::GetRun, Class::Stop),
            (false, true, Call::GetRun, Class::Stop),
            (true, true, Call::Stop(StopCall::Terminate), Class::Stop),
        ] {
            assert_eq!(
                class(call, &observed(started, deleted), Timestamp::UNIX_EPOCH),
                expected,
                "{started} {deleted} {call:?}"
            );
        }
    }
}
