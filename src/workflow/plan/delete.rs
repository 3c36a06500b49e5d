//! The resource is being deleted.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::compare::not_ours;
use super::decision::{Call, ClusterStep, Decision, Step};
use super::notices::settle;
use crate::api::WorkflowDeletionPolicy;
use crate::api::conditions::Progress;
use crate::api::reasons::workflow as reason;
use crate::clock::later;
use crate::platform::requeue::Requeue;
use crate::text::without_stop;
use crate::workflow::state::{Address, Change, Remote, WorkflowState};
use crate::workflow::status;

/// How long a deletion waits for the workflow to be archived before it releases the resource.
const DELETION_LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// The resource is being deleted: archives the workflow if the spec asks for that, then releases the resource, in
/// bounded time.
pub(super) fn delete(state: &WorkflowState, since: Timestamp, now: Timestamp) -> Decision {
    if !state.finalizer {
        return settle(state, state.status.clone(), Requeue::OnChange);
    }
    let free = Decision::Act(ClusterStep::Release { abandoned: false }.into());
    if state.spec.suspend || state.spec.deletion_policy == WorkflowDeletionPolicy::Retain {
        return free;
    }
    if now > later(since, DELETION_LIMIT) {
        return Decision::Act(ClusterStep::Release { abandoned: true }.into());
    }
    let Some(connection) = &state.stop_with else {
        return archiving(state, "its Workspace cannot be used", 10, now);
    };
    match (&state.change, &state.remote, &state.address) {
        // The last refresh showed enough: the workflow exists, and is ours to change.
        (Change::None, Remote::NotFetched, _) if state.knows_it_is_ours() => {
            let id = state.status.workflow_id.clone().unwrap_or_default();
            Decision::Act(Step::SetArchived(id, true))
        }
        (Change::Made { .. }, _, _) | (_, Remote::Absent, _) | (_, Remote::NotFetched, Address::Absent) => free,
        (Change::Failed { trouble, .. }, _, _)
        | (_, Remote::Unknown(trouble), _)
        | (_, Remote::NotFetched, Address::Unknown(trouble)) => archiving(state, &trouble.message, 10, now),
        (_, Remote::NotFetched, Address::NotFetched) => Decision::Act(Call::Find(state.identifier.clone()).into()),
        (_, Remote::NotFetched, Address::Direct(address)) => Decision::Act(Call::Get(address.clone()).into()),
        (_, Remote::Found(workflow), _)
            if workflow.archived == Some(true) || not_ours(workflow, connection).is_some() =>
        {
            free
        }
        (_, Remote::Found(workflow), _) => Decision::Act(Step::SetArchived(workflow.id.clone(), true)),
    }
}

fn archiving(state: &WorkflowState, why: &str, seconds: u64, now: Timestamp) -> Decision {
    let message = format!(
        "The resource is being deleted, and its workflow is not archived yet: {}. The operator tries for five minutes; then the resource goes without it.",
        without_stop(why)
    );
    let status = status::unready(state, Progress::Working, reason::ARCHIVING, &message, now);
    settle(state, status, Requeue::After(Duration::from_secs(seconds)))
}
