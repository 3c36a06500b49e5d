//! A run that goes on, ends, or is forgotten.

use super::*;
use crate::execution::pass::orphan::Overtaken;
use crate::execution::state::Sent;
use crate::mistral::{Trouble, TroubleKind};

#[test]
fn a_running_one_is_asked_about_only_when_somebody_wants_to_look() {
    assert_eq!(settled(&started(), at(50)).requeue, Requeue::OnChange);
    let looking = Observed { look: true, ..started() };
    assert_eq!(step(&looking, at(50)), Call::GetRun);
    for status in ["RUNNING", "CONTINUED_AS_NEW", "RETRYING_AFTER_ERROR", "PONDERING"] {
        let mut o = looking.clone();
        let mut still = run("RUNNING");
        still.status = Some(status.into());
        o.asked(Ok(still));
        assert_eq!(ready(&settled(&o, at(50)).status), reason::RUNNING, "{status}");
    }
    let mut down = looking;
    down.asked(Err(transient()));
    assert_eq!(settled(&down, at(50)).status, started().status);
}

#[test]
fn every_end_has_a_condition_and_a_time() {
    for (status, expected) in [
        ("COMPLETED", reason::COMPLETED),
        ("FAILED", reason::WORKFLOW_FAILED),
        ("CANCELED", reason::CANCELED),
        ("TERMINATED", reason::TERMINATED),
        ("TIMED_OUT", reason::TIMED_OUT),
    ] {
        let mut o = Observed { look: true, ..started() };
        o.asked(Ok(run(status)));
        if status == "FAILED" {
            assert_eq!(step(&o, at(50)), Call::ReadFailure);
            o.failure = FailureText::Read(Some("no such customer".into()));
        }
        let settled = settled(&o, at(50));
        assert_eq!(ready(&settled.status), expected);
        let conditions = &settled.status.conditions;
        assert_eq!(is_true(conditions, COMPLETE), status == "COMPLETED");
        assert_eq!(is_true(conditions, FAILED), status != "COMPLETED");
        assert_eq!(settled.status.end_time.as_ref().unwrap().0, at(5));
        assert_eq!(settled.status.failure.is_some(), status != "COMPLETED");
    }
}

#[test]
fn events_may_lag_behind_a_failure_for_a_while() {
    let mut o = Observed { look: true, ..started() };
    o.asked(Ok(run("FAILED")));
    for _ in 0..4 {
        o.failure_read(Ok(Vec::new()));
        let waiting = settled(&o, at(6));
        // Lists keep reporting the end: being woken by them does not use up the attempts.
        assert_eq!(waiting.requeue, Requeue::Retry(Duration::from_secs(2)));
        let mut woken = o.clone();
        woken.settled(waiting.requeue, at(6));
        assert!(matches!(settled(&woken, at(7)).requeue, Requeue::Hold(_)));
        // Clients that wait for the end must not see it before its reason.
        assert_eq!((waiting.status.end_time, waiting.status.status.as_deref()), (None, Some("RUNNING")));
    }
    o.failure_read(Ok(Vec::new()));
    assert!(settled(&o, at(6)).status.failure.unwrap().message.contains("no text"));
}

#[test]
fn a_run_that_the_api_forgot_is_missing_and_lost_after_a_day_but_never_started_again() {
    let mut o = Observed { look: true, ..started() };
    o.asked(Err(not_found()));
    assert_eq!(settled(&o, at(20)).status, o.status, "new runs show late");
    let missing = settled(&o, at(40));
    assert!(is_true(&missing.status.conditions, MISSING));
    o.status = missing.status;
    assert_eq!(ready(&settled(&o, at(40 + 86_000)).status), reason::MISSING);
    let lost = settled(&o, at(41 + 86_400));
    assert_eq!((ready(&lost.status), lost.status.end_time.is_some()), (reason::LOST, true));
    o.asked(Ok(run("RUNNING")));
    assert!(find(&settled(&o, at(50)).status.conditions, MISSING).is_none());
}

#[test]
fn a_finished_one_costs_nothing_but_the_finalizer_that_goes_late() {
    let mut o = Observed { look: true, ..started() };
    o.asked(Ok(run("COMPLETED")));
    let status = settled(&o, at(6)).status;
    let finished = Observed { look: true, status, ..claimed() };
    assert!(matches!(settled(&finished, at(6)).requeue, Requeue::AtLatest(_)));
    assert_eq!(step(&finished, at(140)), ClusterStep::SetFinalizer(false));
    let released = Observed { finalizer: false, ..finished };
    assert_eq!(settled(&released, at(1000)).requeue, Requeue::OnChange);
}

#[test]
fn a_start_in_doubt_of_a_resource_that_is_gone_is_not_stopped_once_another_may_have_started_its_own() {
    let trouble = || Trouble { kind: TroubleKind::Unavailable, message: "lost".into(), retry_after: None };
    let overtaken = |explicit: bool, sent: Sent| {
        let mut o = claimed();
        o.spec.execution_id = explicit.then(|| "explicit".to_owned());
        o.sent = sent;
        Overtaken::new(&o).unwrap()
    };
    let Note::Claim(claim) = claimed().note else { panic!("not claimed") };
    let over = claim.doubt_ends();
    let unknown = overtaken(true, Sent::Unknown(trouble()));
    assert!(!unknown.may_be_anothers(at(1)) && unknown.may_be_anothers(over));
    // The last call is over before that.
    assert!(unknown.may_be_anothers(over.saturating_sub(SignedDuration::from_secs(30)).unwrap()));
    assert!(!overtaken(false, Sent::Unknown(trouble())).may_be_anothers(over));
    assert!(!overtaken(true, Sent::Accepted(Box::new(run("RUNNING")))).may_be_anothers(over));
}

/// A started run that was polled in vain, and its status in the list.
fn listed(status: &str, asked_in_vain: u32) -> Observed {
    let mut o = started();
    o.memory.unanswered = asked_in_vain;
    o.memory.listed(Some(Box::new(Execution { end_time: Some(at(10)), ..run(status) })));
    let message = "the API's answer cannot be understood".to_owned();
    o.remote = Remote::Unknown(Trouble { kind: TroubleKind::Unavailable, message, retry_after: None });
    o
}

#[test]
fn a_run_that_cannot_be_read_ends_as_the_list_says() {
    let completed = settled(&listed("COMPLETED", 5), at(20)).status;
    assert!(is_true(&completed.conditions, COMPLETE));
    let said = find(&completed.conditions, crate::api::conditions::RESULT_NOT_WRITTEN).unwrap();
    assert_eq!(said.reason, reason::RESULT_UNREADABLE);
    assert!(said.message.contains("cannot be understood"), "{}", said.message);
    assert_eq!(completed.end_time.map(|time| time.0), Some(at(10)));
    let canceled = settled(&listed("CANCELED", 5), at(20)).status;
    assert!(is_true(&canceled.conditions, FAILED));
    assert_eq!(plan(&listed("FAILED", 5), at(20)), Decision::Act(Call::ReadFailure.into()));
    // After brief trouble at a gateway, the run is polled again.
    assert!(!is_true(&settled(&listed("COMPLETED", 4), at(20)).status.conditions, COMPLETE));
    // A row that shows a running run is no end.
    assert!(!is_true(&settled(&listed("RUNNING", 9), at(20)).status.conditions, COMPLETE));
}

#[test]
fn the_deletion_of_a_run_that_cannot_be_read_does_not_wait_for_an_answer() {
    let deleting = |mut o: Observed| {
        o.deleted = Some(at(20));
        o.finalizer = true;
        if let Note::Claim(claim) = &mut o.note {
            claim.stop_since = Some(at(20));
        }
        o
    };
    assert_eq!(
        plan(&deleting(listed("COMPLETED", 5)), at(21)),
        Decision::Act(ClusterStep::Release { abandoned: false }.into())
    );
    let mut o = deleting(listed("RUNNING", 1));
    assert_eq!(plan(&o, at(21)), Decision::Act(Call::Stop(StopCall::Cancel).into()));
    o.memory.stop = Some((StopCall::Cancel, at(21)));
    assert!(matches!(plan(&o, at(22)), Decision::Settle(_)));
    // After the grace period.
    assert_eq!(plan(&o, at(60)), Decision::Act(Call::Stop(StopCall::Terminate).into()));
    o.memory.unanswered = 3;
    o.memory.stop = Some((StopCall::Terminate, at(60)));
    assert_eq!(plan(&o, at(61)), Decision::Act(ClusterStep::Release { abandoned: false }.into()));
    // The API says that the run is not running.
    let mut o = deleting(listed("RUNNING", 1));
    let said = ApiError {
        status: 409,
        code: Some("WF_1102".into()),
        detail: "not running".into(),
        deployments: Vec::new(),
        is_json: true,
    };
    o.stopped = Some(Err(Error::Conflict(said)));
    assert_eq!(plan(&o, at(21)), Decision::Act(ClusterStep::Release { abandoned: false }.into()));
}

#[test]
fn a_run_that_is_there_and_cannot_be_read_counts_as_started() {
    let mut o = started();
    o.status = WorkflowExecutionStatus::default();
    for _ in 0..2 {
        o.asked(Err(Error::Unreadable { too_long: false, message: "not JSON".into() }));
    }
    assert!(is_true(&settled(&o, at(20)).status.conditions, STARTED));
}
