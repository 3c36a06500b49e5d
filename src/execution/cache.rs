//! Trims watched executions to save memory: there may be tens of thousands, most of them finished.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::jiff::Timestamp;

use crate::api::WorkflowExecutionSpec;
use crate::api::conditions::{self, EXPIRED};
use crate::api::execution::LeftOut;
use crate::execution::Guarded;
use crate::execution::claim::{CLAIM, ClaimAnnotation, digest};
use crate::execution::phase::is_finished;
use crate::execution::state::tracked::{MANAGERS, MARKS};
use crate::json::Json;
use crate::platform::apiserver::written_by_us;
use crate::platform::watch;

/// Removes what no reconcile reads or writes back. Status and metadata are patched field by field, and only where a
/// reconcile changes them.
pub fn trim_for_cache(object: &mut Guarded) {
    let ended = object.0.as_ref().is_ok_and(|execution| execution.status.as_ref().is_some_and(is_finished));
    let keep = |entry: &ManagedFieldsEntry| {
        let name = entry.manager.as_deref()?;
        let kept = ManagedFieldsEntry { manager: Some(name.to_owned()), ..ManagedFieldsEntry::default() };
        // Who wrote the claim, and when, matters until the run has ended.
        if !ended && written_by_us([entry].into_iter(), CLAIM).is_some() {
            let (time, fields_v1) = (entry.time.clone(), entry.fields_v1.clone());
            return Some(ManagedFieldsEntry { time, fields_v1, ..kept });
        }
        MANAGERS.iter().any(|(manager, _)| name == *manager).then_some(kept)
    };
    watch::trim_for_cache(object, keep, |mark| MARKS.iter().any(|(name, _)| mark == *name));
    let Ok(execution) = &mut object.0 else { return };
    leave_out_what_is_long(&mut execution.spec);
    let Some(status) = execution.status.as_mut().filter(|status| is_finished(status)) else { return };
    // The cache only carries these fields from one reconcile to the next: none is needed to know that the run has
    // ended.
    status.result = None;
    status.failure = None;
    status.root_execution_id = None;
    status.run_id = None;
    status.workflow_name = None;
    status.duration = None;
    // Condition messages may be as long as everything else. But conditions are written together, so they stay where a
    // reconcile has to acknowledge an edit, or to report that the TTL has passed.
    let (spec, generation) = (&mut execution.spec, execution.metadata.generation);
    let acknowledged = status.conditions.iter().all(|condition| condition.observed_generation == generation);
    let may_expire =
        spec.ttl_seconds_after_finished.is_some() || conditions::find(&status.conditions, EXPIRED).is_some();
    if acknowledged && !may_expire {
        status.conditions.iter_mut().for_each(|condition| condition.message = String::new());
    }
    // The run has ended, so its definition is not needed any more.
    spec.workflow_ref = None;
    spec.workflow_identifier = None;
    spec.registration_id = None;
    spec.input = None;
    spec.input_from = None;
    spec.deployment_name = None;
    spec.custom_tracing_attributes = None;
    spec.extensions = None;
    // While its call may be in flight, the claim keeps other resources from the same explicit id.
    let annotations = &mut execution.metadata.annotations;
    if matches!(ClaimAnnotation::read(annotations.as_ref()), ClaimAnnotation::Claim(claim) if claim.outcome_known_by() < Timestamp::now())
    {
        *annotations = annotations.take().map(without_claim).filter(|left| !left.is_empty());
    }
}

/// Maximum bytes of input, extensions and tracing attributes kept of an unfinished execution. Executions that are held
/// back or waiting then take little memory, and most are started without reading them again.
const MAX_KEPT: usize = 4 << 10;

/// Removes long fields. Only a start needs them, and reads them again.
fn leave_out_what_is_long(spec: &mut WorkflowExecutionSpec) {
    let length = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.text().len());
    let attributes = spec.custom_tracing_attributes.iter().flatten().map(|(name, value)| name.len() + value.len());
    if length(&spec.input) + length(&spec.extensions) + attributes.sum::<usize>() > MAX_KEPT {
        spec.left_out = Some(LeftOut { digest: digest(spec) });
        spec.input = None;
        spec.extensions = None;
        spec.custom_tracing_attributes = None;
    }
}

fn without_claim(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations.remove(CLAIM);
    annotations
}

#[cfg(test)]
mod tests {
    use crate::platform::decoded::Decoded;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::WorkflowExecution;
    use crate::execution::state::tracked::tracked_by;
    use crate::platform::apiserver::status_patch;

    fn object(complete: &str) -> Value {
        json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": {
                "name": "run", "namespace": "team", "generation": 1, "finalizers": ["a"],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}", "workflows.mistral.ai/claim": "{}",
                },
                "managedFields": [
                    { "manager": "argocd-controller", "operation": "Update", "fieldsV1": { "f:spec": {} } },
                    { "manager": "kubectl", "operation": "Update", "fieldsV1": { "f:spec": {} } },
                ],
            },
            "spec": {
                "workspaceRef": { "name": "w" }, "workflowIdentifier": "echo", "input": { "a": 1 },
                "customTracingAttributes": { "order": "4711" }, "extensions": { "c": 3 },
            },
            "status": {
                "result": { "b": 2 }, "resultBytes": 7, "executionId": "x",
                "conditions": [{
                    "type": "Complete", "status": complete, "reason": "Completed", "message": "It did.",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
                }],
            },
        })
    }

    #[test]
    fn of_what_is_watched_only_what_passes_read_stays_in_memory() {
        let kept = |complete: &str| -> (Guarded, WorkflowExecution) {
            let mut object: Guarded = serde_json::from_value(object(complete)).unwrap();
            trim_for_cache(&mut object);
            let Decoded(Ok(execution)) = object.clone() else { panic!("not decoded") };
            (object, execution)
        };
        let (_, finished) = kept("True");
        let status = finished.status.clone().unwrap();
        assert_eq!((&finished.spec.input, &status.result), (&None, &None));
        assert_eq!((&finished.spec.custom_tracing_attributes, &finished.spec.extensions), (&None, &None));
        assert_eq!((&*status.conditions[0].reason, &*status.conditions[0].message), ("Completed", ""));
        assert_eq!((status.result_bytes, status.execution_id.as_deref()), (Some(7), Some("x")));
        let annotations = finished.metadata.annotations.clone().unwrap();
        assert_eq!(annotations["kubectl.kubernetes.io/last-applied-configuration"], "");
        assert_eq!(annotations["workflows.mistral.ai/claim"], "{}");
        assert_eq!(tracked_by(&finished.metadata).as_deref(), Some("Argo CD"));
        let fields = finished.metadata.managed_fields.unwrap();
        assert!(fields.len() == 1 && fields[0].fields_v1.is_none(), "{fields:?}");
        let (_, running) = kept("False");
        assert!(running.spec.input.is_some() && running.spec.extensions.is_some());
        let status = running.status.unwrap();
        assert!(status.result.is_some() && status.conditions[0].message == "It did.");
    }

    #[test]
    fn a_long_input_is_left_out_and_an_edit_of_it_is_noticed_all_the_same() {
        let slimmed = |input: Value| {
            let mut object = object("False");
            object["spec"]["input"] = input;
            let mut object: Guarded = serde_json::from_value(object).unwrap();
            let whole = digest(&object.0.as_ref().unwrap().spec);
            trim_for_cache(&mut object);
            (object.0.unwrap().spec, whole)
        };
        let (long, whole) = slimmed(json!({ "a": "x".repeat(5000) }));
        assert_eq!((&long.input, &long.extensions, &long.custom_tracing_attributes), (&None, &None, &None));
        assert_eq!(digest(&long), whole);
        assert_ne!(digest(&slimmed(json!({ "a": "y".repeat(5000) })).0), whole);
        let (short, whole) = slimmed(json!({ "a": "x".repeat(1000) }));
        assert!(short.input.is_some() && short.left_out.is_none());
        assert_eq!(digest(&short), whole);
    }

    #[test]
    fn conditions_that_may_be_written_again_keep_their_words() {
        let message = |change: fn(&mut Value)| {
            let mut object = object("True");
            change(&mut object);
            let mut object: Guarded = serde_json::from_value(object).unwrap();
            trim_for_cache(&mut object);
            object.0.unwrap().status.unwrap().conditions[0].message.clone()
        };
        // The condition that reports the passed TTL is written together with the others.
        assert_eq!(message(|object| object["spec"]["ttlSecondsAfterFinished"] = json!(60)), "It did.");
        // Each condition acknowledges an edit.
        assert_eq!(message(|object| object["metadata"]["generation"] = json!(2)), "It did.");
        assert_eq!(message(|object| object["status"]["conditions"][0]["type"] = json!("Failed")), "");
        let expired = |object: &mut Value| {
            let conditions = object["status"]["conditions"].as_array_mut().unwrap();
            let mut expired = conditions[0].clone();
            expired["type"] = json!("Expired");
            conditions.push(expired);
        };
        assert_eq!(message(expired), "It did.");
    }

    #[test]
    fn of_one_that_has_ended_the_claim_stays_for_as_long_as_its_call_may_be_under_way() {
        let left = |complete: &str, claimed: &str| {
            let claim = json!({
                "version": 1, "executionId": "x", "attempt": 1, "claimant": "operator", "sendBefore": claimed,
                "origin": "https://api.mistral.ai", "digest": "d",
                "owner": { "cluster": "c", "namespace": "team", "name": "run" },
            });
            let mut object = object(complete);
            object["metadata"]["annotations"] = json!({ CLAIM: claim.to_string() });
            let mut object: Guarded = serde_json::from_value(object).unwrap();
            assert!(matches!(
                ClaimAnnotation::read(object.0.as_ref().unwrap().metadata.annotations.as_ref()),
                ClaimAnnotation::Claim(_)
            ));
            trim_for_cache(&mut object);
            object.0.unwrap().metadata.annotations
        };
        let (now, before) = (Timestamp::now().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(left("True", before), None);
        assert!(left("True", &now).is_some_and(|left| left.contains_key(CLAIM)));
        assert!(left("False", before).is_some_and(|left| left.contains_key(CLAIM)));
    }

    #[test]
    fn what_is_not_in_memory_is_not_removed_from_the_cluster() {
        let mut object: Guarded = serde_json::from_value(object("True")).unwrap();
        trim_for_cache(&mut object);
        let old = object.0.unwrap().status.unwrap();
        let mut new = old.clone();
        new.observed_generation = Some(2);
        let patch = json!(status_patch(Some(&old), &new).unwrap());
        assert_eq!(patch, json!([{ "op": "add", "path": "/status/observedGeneration", "value": 2 }]));
    }
}
