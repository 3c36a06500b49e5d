//! A run that goes on, ends, or is forgotten.

use super::*;
use crate::execution::observed::Sent;
use crate::execution::overtaken::Overtaken;
use crate::mistral::{Trouble, TroubleKind};

#[test]
fn a_running_one_is_asked_about_only_when_somebody_wants_to_look() {
    assert_eq!(settled(&started(), at(50)).requeue, Requeue::OnChange);
    let looking = Observed { look: true, ..started() };
    assert_eq!(step(&looking, at(50)), Step::Ask);
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
            assert_eq!(step(&o, at(50)), Step::ReadFailure);
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
        // Lists go on telling of the end: what wakes the resource meanwhile does not use up what is tried.
        assert_eq!(waiting.requeue, Requeue::Retry(Duration::from_secs(2)));
        let mut woken = o.clone();
        woken.settled(waiting.requeue, at(6));
        assert!(matches!(settled(&woken, at(7)).requeue, Requeue::Hold(_)));
        // Nobody who waits for the end is to see it before its reason.
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
    assert_eq!(step(&finished, at(140)), Step::SetFinalizer(false));
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
