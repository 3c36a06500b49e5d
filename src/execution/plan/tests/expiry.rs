//! Tables for `ttlSecondsAfterFinished`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::api::conditions::EXPIRED;
use crate::execution::Guarded;
use crate::execution::cache::trim_for_cache;
use crate::execution::finished::left;
use crate::execution::finished::mark::Returns;
use crate::execution::state::Ended;
use crate::execution::state::refusals::Write;
use crate::platform::apiserver::status_patch;
use crate::platform::refused::{Cause, Refused};

/// Ended at second 5, reported at second 6, to be deleted an hour later. The finalizer is gone.
fn finished() -> ExecutionState {
    let mut state = ExecutionState { refresh: true, ..started() };
    state.fetched(Ok(run("COMPLETED")));
    let status = settled(&state, at(6)).status;
    let mut state = ExecutionState { status, finalizer: false, ..claimed() };
    state.spec.ttl_seconds_after_finished = Some(3600);
    state
}

fn seen(seconds: u64, witnessed: bool) -> Option<Ended> {
    Some(Ended { ago: Duration::from_secs(seconds), witnessed })
}

#[test]
fn a_resource_is_deleted_when_its_time_is_over_and_not_before() {
    let state = ExecutionState { ended: seen(0, false), ..finished() };
    assert_eq!(settled(&state, at(1006)).requeue, Requeue::AtLatest(Duration::from_secs(2600)));
    assert_eq!(step(&state, at(3606)), ClusterStep::Delete);
    let never = ExecutionState { spec: new().spec, ..state };
    assert_eq!(step(&never, at(1_000_000)), ClusterStep::Leave { returns: Returns::Never });
}

#[test]
fn who_saw_the_end_counts_by_a_clock_that_nobody_can_set() {
    let state = ExecutionState { ended: seen(100, true), ..finished() };
    for now in [at(-100_000), at(106), at(100_000)] {
        assert_eq!(settled(&state, now).requeue, Requeue::AtLatest(Duration::from_secs(3500)));
    }
    assert_eq!(step(&ExecutionState { ended: seen(3600, true), ..state }, at(-100_000)), ClusterStep::Delete);
}

#[test]
fn after_a_restart_an_end_in_the_future_does_not_keep_a_resource_for_longer_than_its_time() {
    let set_back = at(-1_000_000);
    let state = ExecutionState { ended: seen(0, false), ..finished() };
    assert_eq!(settled(&state, set_back).requeue, Requeue::AtLatest(Duration::from_secs(3600)));
    assert_eq!(step(&ExecutionState { ended: seen(3600, false), ..state }, set_back), ClusterStep::Delete);
}

#[test]
fn a_resource_that_came_to_its_end_while_no_operator_ran_is_deleted_at_once() {
    assert_eq!(step(&ExecutionState { ended: seen(0, false), ..finished() }, at(100_000)), ClusterStep::Delete);
}

#[test]
fn a_resource_that_would_be_created_again_is_kept_and_says_so_once() {
    let state = ExecutionState { tracked_by: Some("Argo CD".into()), ended: seen(0, false), ..finished() };
    let kept = settled(&state, at(4000));
    let expired = find(&kept.status.conditions, EXPIRED).unwrap();
    assert_eq!(expired.reason, reason::TRACKED);
    assert!(expired.message.contains("Argo CD"), "{}", expired.message);
    assert_eq!(kept.requeue, Requeue::OnChange);
    let again = ExecutionState { status: kept.status.clone(), ..state };
    assert_eq!(step(&again, at(5000)), ClusterStep::Leave { returns: Returns::WhenUntracked });
    // The TTL was removed from the spec.
    let spec = new().spec;
    let without = settled(&ExecutionState { spec, ..again }, at(5000)).status;
    assert_eq!(find(&without.conditions, EXPIRED), None);
}

#[test]
fn what_argo_flux_and_helm_keep_track_of_is_known_by_their_marks() {
    for (metadata, tool) in [
        (json!({}), None),
        (json!({ "labels": { "app.kubernetes.io/instance": "x" } }), None),
        (json!({ "managedFields": [{ "manager": "kubectl-create" }] }), None),
        (json!({ "annotations": { "argocd.argoproj.io/tracking-id": "x" } }), Some("Argo CD")),
        (json!({ "labels": { "argocd.argoproj.io/instance": "x" } }), Some("Argo CD")),
        (json!({ "managedFields": [{ "manager": "argocd-controller" }] }), Some("Argo CD")),
        (json!({ "labels": { "kustomize.toolkit.fluxcd.io/name": "x" } }), Some("Flux")),
        (json!({ "managedFields": [{ "manager": "kustomize-controller" }] }), Some("Flux")),
        (json!({ "labels": { "helm.toolkit.fluxcd.io/name": "x" } }), Some("Flux")),
        (json!({ "annotations": { "meta.helm.sh/release-name": "x" } }), Some("Helm")),
        (json!({ "labels": { "applyset.kubernetes.io/part-of": "x" } }), Some("an ApplySet")),
        (json!({ "labels": { "kro.run/owned": "true" } }), Some("kro")),
        (json!({ "labels": { "crossplane.io/composite": "x" } }), Some("Crossplane")),
    ] {
        assert_eq!(of_resource(metadata.clone(), json!({})).tracked_by.as_deref(), tool, "{metadata}");
    }
}

#[test]
fn what_a_controller_would_make_again_is_kept_and_what_a_job_has_made_is_not() {
    let owned = |api_version: &str, kind: &str, controller: bool| {
        let owner =
            json!({ "apiVersion": api_version, "kind": kind, "name": "x", "uid": "y", "controller": controller });
        of_resource(json!({ "ownerReferences": [owner] }), json!({})).tracked_by
    };
    assert_eq!(owned("example.org/v1", "XReport", true).as_deref(), Some("XReport \"x\""));
    assert_eq!(owned("example.org/v1", "Job", true).as_deref(), Some("Job \"x\""));
    for (api_version, kind, controller) in [
        ("example.org/v1", "XReport", false),
        ("batch/v1", "Job", true),
        ("batch/v1", "CronJob", true),
        ("v1", "Pod", true),
        ("argoproj.io/v1alpha1", "Workflow", true),
        ("tekton.dev/v1", "TaskRun", true),
    ] {
        assert_eq!(owned(api_version, kind, controller), None, "{api_version} {kind}");
    }
}

#[test]
fn the_last_change_of_a_resource_comes_after_the_doubt_of_its_claim() {
    // A claim stays in memory until the resource changes after the claim's doubt. No run is shorter than this one.
    let mut state = finished();
    state.status.end_time = Some(Time(at(0)));
    state.status.conditions.iter_mut().for_each(|condition| condition.last_transition_time = Time(at(0)));
    (state.finalizer, state.spec.ttl_seconds_after_finished) = (true, None);
    let ClaimAnnotation::Claim(claim) = &state.annotation else { panic!("not claimed") };
    let last = (6..)
        .map(at)
        .find(|now| matches!(plan(&state, *now), Decision::Act(Step::Cluster(ClusterStep::Leave { .. }))))
        .unwrap();
    assert!(claim.outcome_known_by() < last && last < at(130), "{last}");
}

#[test]
fn what_is_kept_although_its_time_is_over_leaves_all_the_same() {
    let mut state =
        ExecutionState { finalizer: true, tracked_by: Some("Flux".into()), ended: seen(1, true), ..finished() };
    state.spec.ttl_seconds_after_finished = Some(0);
    let kept = settled(&state, at(7));
    assert!(is_true(&kept.status.conditions, EXPIRED));
    assert!(matches!(kept.requeue, Requeue::AtLatest(wait) if wait <= Duration::from_secs(125)), "{:?}", kept.requeue);
    let kept = ExecutionState { status: kept.status, ..state };
    assert_eq!(step(&kept, at(200)), ClusterStep::Leave { returns: Returns::WhenUntracked });
}

#[test]
fn what_expires_soon_stays_in_the_watch_and_what_expires_later_says_when() {
    let with = |ttl: u32| {
        let mut state = ExecutionState { finalizer: true, ended: seen(200, true), ..finished() };
        state.spec.ttl_seconds_after_finished = Some(ttl);
        state
    };
    assert_eq!(step(&with(3000), at(200)), ClusterStep::SetFinalizer(false));
    let released = ExecutionState { finalizer: false, ..with(3000) };
    assert_eq!(settled(&released, at(200)).requeue, Requeue::AtLatest(Duration::from_secs(2800)));
    let later = ClusterStep::Leave { returns: Returns::At(at(90_000)) };
    assert_eq!(step(&with(90_000), at(200)), later);
    // It comes back to say why it is not deleted.
    assert_eq!(step(&ExecutionState { tracked_by: Some("Flux".into()), ..with(90_000) }, at(200)), later);
}

#[test]
fn what_came_back_stays_for_a_while_and_what_may_not_be_marked_loses_its_finalizer_alone() {
    let mut state = ExecutionState { finalizer: true, ended: seen(200, true), ..finished() };
    state.spec.ttl_seconds_after_finished = None;
    let mut back = state.clone();
    let known = left::Memory { had_run: true, end: None, stays: Duration::from_secs(90) };
    back.memory.left = Some(known);
    assert_eq!(settled(&back, at(200)).requeue, Requeue::AtLatest(Duration::from_secs(90)));
    back.memory.left = Some(left::Memory { stays: Duration::ZERO, ..known });
    assert_eq!(step(&back, at(200)), ClusterStep::Leave { returns: Returns::Never });

    let refused = Refused { cause: Cause::Rule, said: "no labels here".into() };
    state.refused(Write::Label, refused, at(200));
    assert_eq!(step(&state, at(200)), ClusterStep::SetFinalizer(false));
    state.finalizer_set(false);
    assert_eq!(settled(&state, at(200)).requeue, Requeue::OnChange);
}

#[test]
fn an_edit_is_acknowledged_before_the_resource_leaves() {
    let mut state = ExecutionState { finalizer: true, generation: Some(2), ..finished() };
    state.spec.ttl_seconds_after_finished = None;
    assert_eq!(step(&state, at(200)), ClusterStep::SetFinalizer(false));
    state.finalizer = false;
    let acknowledged = settled(&state, at(200));
    assert_eq!(acknowledged.status.observed_generation, Some(2));
    state.status = acknowledged.status;
    assert_eq!(step(&state, at(200)), ClusterStep::Leave { returns: Returns::Never });
}

/// What a reconcile of a finished resource writes into its status, if the cache holds the trimmed resource.
fn written(change: fn(&mut Value), tracked_by: Option<&str>, now: Timestamp) -> Vec<Value> {
    let status = finished().status;
    let mut object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": "run", "namespace": "n", "uid": "u-1", "generation": 1 },
        "spec": { "workflowIdentifier": "w" }, "status": status,
    });
    change(&mut object);
    let mut guarded: Guarded = serde_json::from_value(object).unwrap();
    trim_for_cache(&mut guarded);
    let kept = guarded.0.unwrap();
    let mut state = of_resource(json!({ "generation": kept.metadata.generation }), json!({}));
    state.spec.ttl_seconds_after_finished = kept.spec.ttl_seconds_after_finished;
    let old = kept.status.unwrap();
    let state = ExecutionState {
        status: old.clone(),
        tracked_by: tracked_by.map(str::to_owned),
        ended: seen(1, false),
        ..state
    };
    match plan(&state, now) {
        Decision::Settle(settled) => {
            let patch = json!(status_patch(Some(&old), &settled.status).unwrap());
            patch.as_array().unwrap().clone()
        }
        // There is nothing to be written into the status.
        Decision::Act(Step::Cluster(ClusterStep::Leave { .. })) => Vec::new(),
        Decision::Act(step) => panic!("{step:?}"),
    }
}

#[test]
fn conditions_are_written_again_with_all_their_words_or_not_at_all() {
    let edited: fn(&mut Value) = |object| object["metadata"]["generation"] = json!(2);
    let restored: fn(&mut Value) = |object| {
        let all = object["status"]["conditions"].as_array_mut().unwrap();
        all.iter_mut().for_each(|condition| drop(condition.as_object_mut().unwrap().remove("observedGeneration")));
    };
    let dying: fn(&mut Value) = |object| object["spec"]["ttlSecondsAfterFinished"] = json!(60);
    let no_longer: fn(&mut Value) = |object| {
        let all = object["status"]["conditions"].as_array_mut().unwrap();
        let expired = json!({ "type": "Expired", "message": "It stays." });
        all.push(all[0].clone());
        merge(all.last_mut().unwrap(), expired);
    };
    for (change, tracked_by, writes) in [
        (edited, None, true),
        (restored, None, true),
        (dying, Some("Helm"), true),
        (no_longer, None, true),
        (|_: &mut Value| (), None, false),
        (|_: &mut Value| (), Some("Helm"), false),
    ] {
        let operations = written(change, tracked_by, at(1000));
        let conditions = operations.iter().find(|operation| operation["path"] == "/status/conditions");
        assert_eq!((conditions.is_some(), !operations.is_empty()), (writes, writes), "{operations:?}");
        for condition in conditions.into_iter().flat_map(|it| it["value"].as_array().unwrap()) {
            assert_ne!(condition["message"], "", "{condition}");
        }
    }
}
