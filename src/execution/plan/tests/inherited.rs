//! What an execution reports about trouble that is not its own: Flux and Argo CD fail a sync for a single stalled
//! resource.

use super::*;
use crate::api::conditions::{RECONCILING, STALLED};

fn is_stalled(o: &Observed, now: Timestamp) -> bool {
    let conditions = settled(o, now).status.conditions;
    assert_ne!(is_true(&conditions, STALLED), is_true(&conditions, RECONCILING), "{conditions:?}");
    is_true(&conditions, STALLED)
}

#[test]
fn what_is_missing_needs_a_person_only_once_it_had_time_to_arrive() {
    let no_workspace = Observed { workspace: Workspace::NotFound, ..new() };
    let no_workflow = Observed { referent: Referent::NotFound, ..new() };
    for o in [no_workspace, no_workflow] {
        assert!(!is_stalled(&o, at(10)));
        assert_eq!(settled(&o, at(10)).requeue, Requeue::After(Duration::from_secs(20)));
        assert!(is_stalled(&o, at(30)));
    }
}

#[test]
fn a_workspace_or_workflow_that_is_at_work_leaves_what_names_it_at_work() {
    for (wait, stalled) in [(Wait::Working, false), (Wait::Stalled, true)] {
        let workspace = Observed { workspace: Workspace::NotReady("the API is down".into(), wait), ..new() };
        assert_eq!(is_stalled(&workspace, at(600)), stalled);
        let referent = Referent::NotReady { why: "the API is down".into(), wait, workflow: None };
        assert_eq!(is_stalled(&Observed { referent, ..new() }, at(600)), stalled);
    }
}

#[test]
fn what_was_there_and_is_deleted_needs_a_person_at_once() {
    let o = Observed { workspace: Workspace::NotFound, ..started() };
    assert!(is_stalled(&o, at(10)));
    let waiting = with_claim(|claim| claim.refused = true);
    let status = crate::execution::status::not_started(
        &waiting,
        Wait::Working,
        reason::TARGET_NOT_FOUND,
        "no such workflow".into(),
        at(1),
    );
    let o = Observed { workspace: Workspace::NotFound, status, ..waiting };
    let status = settled(&o, at(10)).status;
    // It stays stalled at the next reconcile, too.
    assert!(is_stalled(&Observed { status, ..o }, at(11)));
}
