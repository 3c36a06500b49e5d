//! What an execution reports about trouble that is not its own: Flux and Argo CD fail a sync for a single stalled
//! resource.

use super::*;
use crate::api::conditions::{RECONCILING, STALLED};

fn is_stalled(state: &ExecutionState, now: Timestamp) -> bool {
    let conditions = settled(state, now).status.conditions;
    assert_ne!(is_true(&conditions, STALLED), is_true(&conditions, RECONCILING), "{conditions:?}");
    is_true(&conditions, STALLED)
}

#[test]
fn what_is_missing_needs_a_person_only_once_it_had_time_to_arrive() {
    let no_workspace = ExecutionState { workspace: Workspace::NotFound, ..new() };
    let no_workflow = ExecutionState { workflow_ref: WorkflowRefState::NotFound, ..new() };
    for state in [no_workspace, no_workflow] {
        assert!(!is_stalled(&state, at(10)));
        assert_eq!(settled(&state, at(10)).requeue, Requeue::After(Duration::from_secs(20)));
        assert!(is_stalled(&state, at(30)));
    }
}

#[test]
fn a_turn_in_the_queue_is_no_sign_that_all_was_there_before() {
    let queued = |reason: &str| {
        crate::execution::status::not_started(&new(), Progress::Working, reason, "calls are ahead".into(), at(4))
    };
    for state in [
        ExecutionState { workspace: Workspace::NotFound, ..new() },
        ExecutionState { workflow_ref: WorkflowRefState::NotFound, ..new() },
    ] {
        assert!(!is_stalled(&ExecutionState { status: queued(reason::QUEUED), ..state.clone() }, at(10)));
        assert!(is_stalled(&ExecutionState { status: queued(reason::INPUT_NOT_FOUND), ..state }, at(10)));
    }
}

#[test]
fn a_workspace_or_workflow_that_is_at_work_leaves_what_names_it_at_work() {
    for (wait, stalled) in [(Progress::Working, false), (Progress::Stalled, true)] {
        let workspace = ExecutionState { workspace: Workspace::NotReady("the API is down".into(), wait), ..new() };
        assert_eq!(is_stalled(&workspace, at(600)), stalled);
        let workflow_ref = WorkflowRefState::NotReady { why: "the API is down".into(), wait, workflow: None };
        assert_eq!(is_stalled(&ExecutionState { workflow_ref, ..new() }, at(600)), stalled);
    }
}

#[test]
fn what_was_there_and_is_deleted_needs_a_person_at_once() {
    let state = ExecutionState { workspace: Workspace::NotFound, ..started() };
    assert!(is_stalled(&state, at(10)));
    let waiting = with_claim(|claim| claim.refused = true);
    let status = crate::execution::status::not_started(
        &waiting,
        Progress::Working,
        reason::TARGET_NOT_FOUND,
        "no such workflow".into(),
        at(1),
    );
    let state = ExecutionState { workspace: Workspace::NotFound, status, ..waiting };
    let status = settled(&state, at(10)).status;
    // It stays stalled at the next reconcile, too.
    assert!(is_stalled(&ExecutionState { status, ..state }, at(11)));
}
