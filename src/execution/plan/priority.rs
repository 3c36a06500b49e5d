//! Which calls of an execution go first.

use k8s_openapi::jiff::Timestamp;

use crate::execution::phase::is_started;
use crate::execution::plan::decision::Call;
use crate::execution::plan::stop;
use crate::execution::state::ExecutionState;
use crate::throttle::Priority;

/// The priority of a call. A read has the priority of the step that it unblocks.
pub(crate) fn priority(call: Call, state: &ExecutionState, now: Timestamp) -> Priority {
    match call {
        Call::Stop(_) => Priority::Stop,
        Call::GetTarget | Call::Compare | Call::Start => Priority::Start,
        Call::GetRun | Call::ReadFailure
            if state.deleted.is_some() || stop::is_asked_for(state) || stop::is_due(state, now) =>
        {
            Priority::Stop
        }
        Call::GetRun if !is_started(&state.status) => Priority::Start,
        Call::GetRun | Call::ReadFailure => Priority::Watch,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::execution::state::{Instance, Memory, References, StopCall, WorkflowRefState};
    use crate::workspace::access::Workspace;

    /// An execution that has started or not, and is being deleted or not.
    fn state(started: bool, deleted: bool) -> ExecutionState {
        let condition = json!({
            "type": "Started", "status": "True", "reason": "Started", "message": "", "lastTransitionTime": Timestamp::UNIX_EPOCH,
        });
        let object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": "run", "deletionTimestamp": deleted.then_some(Timestamp::UNIX_EPOCH) },
            "spec": { "workflowIdentifier": "w" },
            "status": { "conditions": if started { vec![condition] } else { Vec::new() } },
        });
        let references =
            References { workspace: Workspace::Pending, stop_with: None, workflow_ref: WorkflowRefState::NotNamed };
        let instance = Instance { name: "me".into(), since: Timestamp::UNIX_EPOCH, api_server_time: None };
        let object = serde_json::from_value(object).unwrap();
        ExecutionState::new(&object, "cluster", instance, Memory::default(), references, false, Timestamp::now())
    }

    #[test]
    fn a_question_has_the_class_of_what_it_unblocks() {
        for (started, deleted, call, expected) in [
            (false, false, Call::GetRun, Priority::Start),
            (false, false, Call::GetTarget, Priority::Start),
            (false, false, Call::Start, Priority::Start),
            (true, false, Call::GetRun, Priority::Watch),
            (true, false, Call::ReadFailure, Priority::Watch),
            (true, false, Call::Stop(StopCall::Cancel), Priority::Stop),
            (true, true, Call::GetRun, Priority::Stop),
            (false, true, Call::GetRun, Priority::Stop),
            (true, true, Call::Stop(StopCall::Terminate), Priority::Stop),
        ] {
            assert_eq!(
                priority(call, &state(started, deleted), Timestamp::UNIX_EPOCH),
                expected,
                "{started} {deleted} {call:?}"
            );
        }
    }
}
