//! Tables for the deletion of a resource.

use super::*;

#[test]
fn a_run_of_another_workflow_is_not_stopped_by_a_deletion() {
    let mut o = Observed { deleted: Some(at(10)), ..with_claim(|claim| claim.stop_since = Some(at(10))) };
    let mut other = run("RUNNING");
    other.workflow_name = Some("other".into());
    o.asked(Ok(other));
    assert_eq!(step(&o, at(20)), Call::Stop(StopCall::Cancel), "a derived id is nobody else's");
    o.spec.execution_id = Some("run-u-1".into());
    assert_eq!(step(&o, at(20)), ClusterStep::Release { abandoned: false });
}

#[test]
fn a_deletion_after_the_claim_was_dropped_stops_the_run_all_the_same() {
    let o = Observed { note: Note::Absent, deleted: Some(at(50)), ..started() };
    assert_eq!(claim_of(step(&o, at(50))).0.execution_id, "run-u-1");
    let blind = Observed { stop_with: None, ..o };
    assert!(matches!(settled(&blind, at(60)).requeue, Requeue::After(_)));
    assert_eq!(step(&blind, at(360)), ClusterStep::Release { abandoned: true });
}

#[test]
fn the_finalizer_follows_the_deletion_policy_while_the_run_goes_on() {
    let mut o = started();
    o.spec.deletion_policy = DeletionPolicy::Orphan;
    assert_eq!(step(&o, at(50)), ClusterStep::SetFinalizer(false));
    o.finalizer = false;
    assert!(settled(&o, at(50)).notices.is_empty());
    o.spec.deletion_policy = DeletionPolicy::Terminate;
    assert_eq!(step(&o, at(50)), ClusterStep::SetFinalizer(true));
}

#[test]
fn a_deletion_records_the_stop_before_it_calls_and_then_cancels_and_terminates() {
    let mut o = Observed { deleted: Some(at(50)), ..started() };
    let (claim, finalizer, send) = claim_of(step(&o, at(50)));
    assert_eq!((claim.stop_since, finalizer, send), (Some(at(50)), true, false));
    o.claimed(claim, false);
    assert_eq!(step(&o, at(50)), Call::GetRun);
    o.asked(Ok(run("RUNNING")));
    assert_eq!(step(&o, at(50)), Call::Stop(StopCall::Cancel));
    o.stop_sent(StopCall::Cancel, Ok(()), at(50));
    assert_eq!(ready(&settled(&o, at(50)).status), reason::STOPPING);
    o.stopped = None;
    assert!(matches!(settled(&o, at(60)).requeue, Requeue::After(_)), "asked once is enough");
    assert_eq!(step(&o, at(81)), Call::Stop(StopCall::Terminate));
    o.asked(Ok(run("CANCELED")));
    assert_eq!(step(&o, at(60)), ClusterStep::Release { abandoned: false });
}

#[test]
fn a_deletion_lets_go_at_once_where_there_is_nothing_to_stop() {
    let deleted = |o: Observed| Observed { deleted: Some(at(50)), finalizer: true, ..o };
    let mut orphan = started();
    orphan.spec.deletion_policy = DeletionPolicy::Orphan;
    let mut finished = Observed { look: true, ..started() };
    finished.asked(Ok(run("COMPLETED")));
    let status = settled(&finished, at(6)).status;
    for (what, o) in [
        ("refused", with_claim(|claim| claim.refused = true)),
        ("read only", with_claim(|claim| claim.reading = true)),
        ("orphaned, without a credential", Observed { stop_with: None, ..orphan }),
        ("finished", Observed { status, ..claimed() }),
    ] {
        assert_eq!(step(&deleted(o), at(50)), ClusterStep::Release { abandoned: false }, "{what}");
    }
    let gone = Observed { finalizer: false, deleted: Some(at(50)), ..started() };
    assert_eq!(settled(&gone, at(50)).requeue, Requeue::OnChange);
}

#[test]
fn a_deletion_waits_out_a_start_that_may_be_under_way() {
    let mut o = Observed { deleted: Some(at(10)), ..with_claim(|claim| claim.stop_since = Some(at(10))) };
    o.asked(Err(not_found()));
    assert!(matches!(settled(&o, at(80)).requeue, Requeue::After(_)));
    assert_eq!(step(&o, at(91)), ClusterStep::Release { abandoned: false });
    // A run that was seen running and is unknown now has been forgotten by the API.
    let mut seen = Observed { deleted: Some(at(10)), status: started().status, ..o };
    seen.asked(Err(not_found()));
    assert_eq!(step(&seen, at(40)), ClusterStep::Release { abandoned: false });
}

#[test]
fn a_deletion_lets_go_after_five_minutes_whatever_is_wrong() {
    for o in [
        Observed { stop_with: None, workspace: Workspace::NotFound, ..started() },
        Observed { stop_with: Some(Connection { origin: "https://elsewhere".into(), ..connection() }), ..started() },
        {
            let mut o = with_claim(|claim| claim.stop_since = Some(at(10)));
            o.asked(Err(transient()));
            o
        },
    ] {
        let o = Observed { deleted: Some(at(10)), ..o };
        assert!(matches!(settled(&o, at(300)).requeue, Requeue::After(_)));
        assert_eq!(step(&o, at(311)), ClusterStep::Release { abandoned: true });
    }
}
