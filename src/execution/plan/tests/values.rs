//! Input from ConfigMaps and Secrets, and results into them.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use secrecy::SecretSlice;

use super::*;
use crate::api::conditions::{RESULT_NOT_WRITTEN, STALLED};
use crate::api::values::{Kind, ResultRef};
use crate::execution::claim::digest;
use crate::execution::state::input::{Input, Source, Sources};
use crate::execution::state::outcomes::ResultWrite;
use crate::execution::state::result::{self, ObjectOwner};

const VALUE: &str = "t0psecret";

fn from_secret(more: Value) -> ExecutionState {
    let from = json!([{ "secretKeyRef": { "name": "s", "key": "k" }, "path": "/token" }]);
    let mut spec = json!({ "inputFrom": from });
    merge(&mut spec, more);
    of_resource(json!({}), spec)
}

fn secret(version: &str) -> Input {
    let values = [("k".to_owned(), SecretSlice::from(VALUE.as_bytes().to_vec()))].into();
    let found = Source::Found { uid: "s-1".into(), resource_version: version.into(), values };
    Input::Read(Arc::new(Sources::from([((Kind::Secret, "s".to_owned()), found)])))
}

fn lacking(source: Source) -> Input {
    Input::Read(Arc::new(Sources::from([((Kind::Secret, "s".to_owned()), source)])))
}

/// Claimed at second 0 with version 1 of the Secret, by a process of which no memory is left.
fn claimed_with_secret(more: Value, change: impl FnOnce(&mut Claim)) -> ExecutionState {
    let mut state = from_secret(more);
    state.outcomes.input = secret("1");
    let (mut claim, ..) = claim_of(step(&state, at(6)));
    claim = Claim { send_before: at(15), ..claim };
    change(&mut claim);
    state.memory.claim = Some(Box::new(ClaimBackup { own: true, refused: claim.refused, ..state.known(&claim) }));
    state.outcomes.input = Input::NotRead;
    state.annotation = ClaimAnnotation::Claim(Box::new(claim));
    state.finalizer = true;
    state
}

fn ended_with_secret(run: Execution, more: Value) -> ExecutionState {
    let mut state = claimed_with_secret(more, |_| {});
    state.outcomes.remote = Remote::Found(Box::new(run));
    state
}

fn completed(result: Value) -> Execution {
    Execution { result: Some(Json::from(&result)).filter(|it| !it.is_null()), ..run("COMPLETED") }
}

fn message(status: &WorkflowExecutionStatus, type_: &str) -> String {
    find(&status.conditions, type_).unwrap().message.clone()
}

#[test]
fn the_input_is_read_before_the_claim_and_its_versions_are_in_it() {
    let mut state = from_secret(json!({}));
    assert_eq!(step(&state, at(1)), ClusterStep::ReadInput);
    state.outcomes.input = secret("7");
    let (claim, _, send) = claim_of(step(&state, at(1)));
    assert!(send);
    let [input] = &claim.inputs[..] else { panic!("{:?}", claim.inputs) };
    assert_eq!((input.kind, input.name.as_str(), input.uid.as_str()), (Kind::Secret, "s", "s-1"));
    assert_eq!(input.resource_version, "7");
    assert!(!claim.to_annotation().contains(VALUE));
    // Without such inputs the annotation has no field for them.
    assert!(!claim_of(step(&new(), at(1))).0.to_annotation().contains("inputs"));
    assert_ne!(digest(&state.spec), digest(&new().spec));
}

#[test]
fn what_is_not_there_or_not_readable_is_waited_for_and_nothing_is_claimed() {
    for (input, reason) in [
        (lacking(Source::Absent), reason::INPUT_NOT_FOUND),
        (lacking(Source::Forbidden), reason::INPUT_FORBIDDEN),
        (
            lacking(Source::Found { uid: String::new(), resource_version: String::new(), values: [].into() }),
            reason::INPUT_NOT_FOUND,
        ),
    ] {
        let mut state = from_secret(json!({}));
        state.outcomes.input = input;
        let settled = settled(&state, at(6));
        assert_eq!(ready(&settled.status), reason);
        assert!(is_true(&settled.status.conditions, STALLED) && !is_true(&settled.status.conditions, FAILED));
        let Requeue::Retry(wait) = settled.requeue else { panic!("{:?}", settled.requeue) };
        assert!((27..=33).contains(&wait.as_secs()), "{wait:?}");
        state.memory.retries.in_a_row = 9;
        let Requeue::Retry(wait) = super::settled(&state, at(6)).requeue else { panic!("no retry") };
        assert!((270..=330).contains(&wait.as_secs()), "{wait:?}");
    }
    // The ConfigMap may follow the execution in the same manifest.
    let mut state = from_secret(json!({}));
    state.outcomes.input = lacking(Source::Absent);
    let early = settled(&state, at(1));
    assert_eq!((early.status.conditions.len(), early.requeue), (0, Requeue::After(Duration::from_secs(1))));
}

#[test]
fn a_path_that_meets_the_specs_own_input_is_the_end_of_it() {
    let mut state = from_secret(json!({ "input": { "token": "mine" } }));
    let ended = settled(&state, at(1));
    assert_eq!(ready(&ended.status), reason::INPUT_CONFLICT);
    assert!(is_true(&ended.status.conditions, FAILED));
    assert!(message(&ended.status, FAILED).contains("/token"));
    // A run in progress under the explicit id is adopted anyway.
    state.spec.execution_id = Some("mine".into());
    assert_eq!(step(&state, at(1)), Call::GetRun);
    state.fetched(Ok(run("RUNNING")));
    assert!(claim_of(step(&state, at(1))).0.read_only);
}

#[test]
fn a_value_that_changed_between_two_attempts_starts_nothing_if_the_first_may_have_been_sent() {
    let takes_over = |state: &mut ExecutionState| state.take_over = Some("run-u-1".into());
    let ignore = |_: &mut ExecutionState| {};
    /// A name, changes to the claim, the Secret's current version, other changes, and whether the run is started.
    type Case = (&'static str, fn(&mut Claim), &'static str, fn(&mut ExecutionState), bool);
    let cases: [Case; 8] = [
        ("the same", |_| {}, "1", ignore, true),
        ("changed", |_| {}, "2", ignore, false),
        ("made anew", |claim| claim.inputs[0].uid = "s-0".into(), "1", ignore, false),
        ("changed after a refusal", |claim| claim.refused = true, "2", ignore, true),
        ("changed, with consent", |_| {}, "2", takes_over, true),
        ("claimed by an operator that knew no inputs", |claim| claim.inputs.clear(), "2", ignore, true),
        ("another operator's claim, changed", |claim| claim.claimant = "other".into(), "2", ignore, false),
        ("a later attempt, changed", |claim| claim.attempt = 3, "2", ignore, false),
    ];
    for (what, claim, version, more, starts) in cases {
        let mut state = claimed_with_secret(json!({}), claim);
        more(&mut state);
        state.fetched(Err(not_found()));
        if starts && what.contains("refusal") {
            assert_eq!(step(&state, at(16)), ClusterStep::ReadInput, "{what}");
        } else {
            assert_eq!(ready(&settled(&state, at(89)).status), reason::OUTCOME_UNKNOWN, "{what}");
        }
        assert_eq!(step(&state, at(91)), ClusterStep::ReadInput, "{what}");
        state.outcomes.input = secret(version);
        if starts {
            let (claim, _, send) = claim_of(step(&state, at(91)));
            assert!(send && claim.inputs[0].resource_version == version && claim.inputs[0].uid == "s-1", "{what}");
        } else {
            let settled = settled(&state, at(91));
            assert_eq!(ready(&settled.status), reason::INPUT_CHANGED, "{what}");
            assert!(message(&settled.status, READY).contains("Secret \"s\""), "{what}");
        }
    }
}

#[test]
fn a_claim_that_was_lost_is_put_back_with_the_versions_that_are_remembered() {
    let mut state = claimed_with_secret(json!({}), |_| {});
    let ClaimAnnotation::Claim(claim) = std::mem::replace(&mut state.annotation, ClaimAnnotation::Absent) else {
        panic!("no claim")
    };
    state.memory.claim = Some(Box::new(ClaimBackup::of(claim.as_ref(), &state.derived_id())));
    let (restored, _, send) = claim_of(step(&state, at(20)));
    assert_eq!((restored.inputs, send), (claim.inputs, false));
}

#[test]
fn a_run_that_was_found_needs_no_input() {
    let mut state = claimed_with_secret(json!({}), |_| {});
    state.fetched(Ok(run("RUNNING")));
    assert_eq!(ready(&settled(&state, at(20)).status), reason::RUNNING);
}

#[test]
fn values_of_secrets_are_left_out_of_results_and_failures() {
    let mut state = ended_with_secret(completed(json!({ "echo": VALUE, "n": 1 })), json!({}));
    assert_eq!(step(&state, at(20)), ClusterStep::ReadInput);
    state.outcomes.input = secret("1");
    let status = settled(&state, at(20)).status;
    assert_eq!(status.result, Some(Json::from(&json!({ "echo": "[redacted]", "n": 1 }))));
    assert_eq!(status.result_bytes, Some(26));
    assert!(message(&status, READY).contains("[redacted]"));

    let mut state = ended_with_secret(run("FAILED"), json!({}));
    state.outcomes.failure = FailureText::Read(Some(format!("token {VALUE} was refused")));
    assert_eq!(step(&state, at(20)), ClusterStep::ReadInput);
    state.outcomes.input = secret("1");
    let status = settled(&state, at(20)).status;
    assert_eq!(status.failure.unwrap().message, "token [redacted] was refused");
    // Without a text from the API there is nothing to redact.
    state.outcomes.input = Input::NotRead;
    state.outcomes.failure = FailureText::Read(None);
    state.memory.failure_reads = 5;
    assert_eq!(ready(&settled(&state, at(20)).status), reason::WORKFLOW_FAILED);
    // Nor is there if only ConfigMaps were read.
    let from = json!([{ "configMapKeyRef": { "name": "c", "key": "k" }, "path": "/a" }]);
    let mut state = ExecutionState { spec: of_resource(json!({}), json!({ "inputFrom": from })).spec, ..claimed() };
    state.outcomes.remote = Remote::Found(Box::new(run("COMPLETED")));
    assert_eq!(settled(&state, at(20)).status.result, Some(Json::from(&json!({ "x": 1 }))));
}

#[test]
fn what_cannot_be_masked_is_withheld_and_the_run_has_ended_all_the_same() {
    let text = json!({ "echo": VALUE });
    let packed = json!({ "b64payload": "dDBwc2VjcmV0", "encoding_options": ["compressed"], "empty": false });
    let forget: fn(&mut ExecutionState) = |state| {
        let ClaimAnnotation::Claim(claim) = &mut state.annotation else { return };
        claim.inputs.clear();
    };
    let keep: fn(&mut ExecutionState) = |_| {};
    for (result, input, change, words) in [
        (&text, secret("2"), keep, "has changed since the start"),
        (&text, lacking(Source::Absent), keep, "no longer exists"),
        (&text, lacking(Source::Forbidden), keep, "may not read"),
        (&text, secret("1"), forget, "is not known"),
        (&packed, secret("1"), keep, "has encoded it"),
    ] {
        for to in [json!({}), json!({ "result": { "to": { "configMap": { "name": "r" } } } })] {
            let mut state = ended_with_secret(completed(result.clone()), to);
            state.outcomes.input = input.clone();
            change(&mut state);
            let settled = settled(&state, at(20));
            assert!(is_true(&settled.status.conditions, COMPLETE), "{words}");
            assert_eq!((&settled.status.result, &settled.status.result_ref), (&None, &None));
            assert_eq!(find(&settled.status.conditions, RESULT_NOT_WRITTEN).unwrap().reason, reason::RESULT_WITHHELD);
            assert!(message(&settled.status, READY).contains(words), "{words}: {settled:#?}");
            assert!(settled.notices.iter().any(|notice| notice.type_ == "Warning"));
        }
    }
    let mut state = ended_with_secret(run("FAILED"), json!({}));
    state.outcomes.failure = FailureText::Read(Some(VALUE.into()));
    state.outcomes.input = secret("2");
    let failure = settled(&state, at(20)).status.failure.unwrap();
    assert!(failure.message.contains("withheld") && !failure.message.contains(VALUE), "{failure:?}");
}

#[test]
fn a_secret_takes_a_result_as_it_is() {
    let to = json!({ "result": { "to": { "secret": { "name": "r" } } } });
    let state = ended_with_secret(completed(json!({ "echo": VALUE })), to);
    assert_eq!(step(&state, at(20)), ClusterStep::WriteResult);
    let wanted = result::wanted(&state).unwrap();
    assert_eq!((wanted.kind, wanted.name.as_str()), (Kind::Secret, "r"));
    assert_eq!(wanted.text, format!(r#"{{"echo":"{VALUE}"}}"#));
    assert!(!format!("{wanted:?}").contains(VALUE));
}

#[test]
fn the_result_is_written_before_the_status_says_that_it_is_there() {
    let to = json!({ "result": { "to": { "configMap": { "name": "r" } }, "maxBytes": 0 } });
    let mut state = ExecutionState { spec: of_resource(json!({}), to).spec, ..claimed() };
    state.outcomes.remote = Remote::Found(Box::new(completed(json!({ "a": [1, null] }))));
    assert_eq!(step(&state, at(6)), ClusterStep::WriteResult);
    assert_eq!(result::wanted(&state).unwrap().text, r#"{"a":[1,null]}"#);
    state.outcomes.stored = ResultWrite::Written;
    let status = settled(&state, at(6)).status;
    assert!(is_true(&status.conditions, COMPLETE));
    assert_eq!(status.result_ref, Some(ResultRef { kind: Kind::ConfigMap, name: "r".into() }));
    assert_eq!((status.result, status.result_bytes), (None, Some(14)));

    // The object of a deleted resource with this name is about to go as well: that is waited for, but not for long.
    state.outcomes.stored = ResultWrite::Predecessors;
    let waiting = settled(&state, at(6));
    assert_eq!((is_true(&waiting.status.conditions, COMPLETE), waiting.status.end_time.is_some()), (false, false));
    assert_eq!(waiting.requeue, Requeue::After(Duration::from_secs(2)));
    for (stored, now) in [
        (ResultWrite::Predecessors, 66),
        (ResultWrite::Refused { reason: reason::RESULT_NOT_OURS, message: "not ours".into() }, 6),
        (ResultWrite::Refused { reason: reason::RESULT_FORBIDDEN, message: "forbidden".into() }, 6),
    ] {
        state.outcomes.stored = stored;
        let status = settled(&state, at(now)).status;
        assert!(is_true(&status.conditions, COMPLETE) && is_true(&status.conditions, READY));
        assert!(is_true(&status.conditions, RESULT_NOT_WRITTEN) && status.result_ref.is_none());
        assert!(message(&status, READY).contains("stays at the API"));
    }
    // If the API reports no end time, the wait for the predecessor's object is bounded as well.
    state.outcomes.stored = ResultWrite::Predecessors;
    state.outcomes.remote = Remote::Found(Box::new(Execution { end_time: None, ..completed(json!({ "a": 1 })) }));
    assert!(is_true(&settled(&state, at(3600)).status.conditions, COMPLETE));
    // Nothing to write.
    state.outcomes.stored = ResultWrite::NotTried;
    for (run, written) in [(completed(Value::Null), None), (run("CANCELED"), None)] {
        state.outcomes.remote = Remote::Found(Box::new(run));
        let status = settled(&state, at(6)).status;
        assert!(status.result_ref == written && status.end_time.is_some());
    }
    let size = 1 << 20;
    state.outcomes.remote = Remote::Found(Box::new(completed(json!("x".repeat(size - 1)))));
    let status = settled(&state, at(6)).status;
    assert_eq!(find(&status.conditions, RESULT_NOT_WRITTEN).unwrap().reason, reason::RESULT_TOO_LARGE);
    assert_eq!((status.result, status.result_bytes), (None, Some(1 + (1 << 20))));
    state.outcomes.remote = Remote::Found(Box::new(completed(json!("x".repeat(size - 2)))));
    assert_eq!(step(&state, at(6)), ClusterStep::WriteResult);
}

#[test]
fn a_result_that_cannot_be_written_now_is_tried_again_later_each_time_and_said() {
    let to = json!({ "result": { "to": { "configMap": { "name": "r" } } } });
    let mut state = ExecutionState { spec: of_resource(json!({}), to).spec, ..claimed() };
    state.outcomes.remote = Remote::Found(Box::new(completed(json!({ "a": 1 }))));
    state.outcomes.stored = ResultWrite::NotNow("etcdserver: request timed out".into());
    let mut waits = Vec::new();
    for retry in 0..9 {
        let now = 6 + retry * 200;
        let pass = settled(&state, at(now));
        assert!(!is_true(&pass.status.conditions, COMPLETE) && pass.status.end_time.is_none());
        let told = message(&pass.status, READY).contains("request timed out");
        assert_eq!(told, retry >= 3, "{retry}: {}", message(&pass.status, READY));
        assert_eq!(told && retry == 3, pass.notices.iter().any(|notice| notice.reason == reason::RESULT_PENDING));
        let Requeue::Retry(wait) = pass.requeue else { panic!("{:?}", pass.requeue) };
        waits.push(wait);
        state.settled(pass.requeue, at(now));
        state.status = pass.status;
        // The operator's own write wakes the resource: nothing is polled before it is due.
        let woken = ExecutionState { outcomes: Outcomes::default(), refresh: true, ..state.clone() };
        assert!(matches!(settled(&woken, at(now + 1)).requeue, Requeue::Hold(_)), "{retry}");
        // Another wording of the same trouble is not reported again.
        state.outcomes.stored = ResultWrite::NotNow(format!("request timed out: {retry}"));
    }
    assert!(waits.is_sorted() && waits[0] < Duration::from_secs(3) && waits[8] > Duration::from_secs(100), "{waits:?}");
}

#[test]
fn a_result_that_the_api_has_encoded_is_marked_and_not_decoded() {
    for (options, how) in [(json!(["encrypted", "offloaded"]), "encrypted,offloaded"), (json!([]), "base64")] {
        let result = json!({ "b64payload": "AAAA", "encoding_options": options, "empty": false });
        let mut state = claimed();
        state.outcomes.remote = Remote::Found(Box::new(completed(result.clone())));
        let status = settled(&state, at(6)).status;
        assert!(message(&status, READY).contains(&format!("encoded it ({how})")));
        assert_eq!(status.result, Some(Json::from(&result)));
        state.spec = of_resource(json!({}), json!({ "result": { "to": { "secret": { "name": "r" } } } })).spec;
        assert_eq!(result::wanted(&state).unwrap().encoding.as_deref(), Some(how));
    }
    // An encrypted result shows no value of a Secret.
    let result = json!({ "b64payload": "AAAA", "encoding_options": ["encrypted"], "empty": false });
    let mut state = ended_with_secret(completed(result.clone()), json!({}));
    state.outcomes.input = secret("1");
    assert_eq!(settled(&state, at(20)).status.result, Some(Json::from(&result)));
}

#[test]
fn an_object_is_ours_only_by_the_uid_of_its_controller() {
    let own = result::owner("run", "u-1");
    let other = |change: fn(&mut OwnerReference)| {
        let mut owner = own.clone();
        change(&mut owner);
        owner
    };
    for (owners, expected) in [
        (Some(vec![own.clone()]), ObjectOwner::Ours),
        (Some(vec![other(|it| it.controller = None)]), ObjectOwner::Others),
        (Some(vec![other(|it| it.uid = "u-0".into())]), ObjectOwner::Predecessors),
        (Some(vec![other(|it| (it.uid, it.name) = ("u-0".into(), "other".into()))]), ObjectOwner::Others),
        (Some(vec![other(|it| (it.uid, it.kind) = ("u-0".into(), "Workflow".into()))]), ObjectOwner::Others),
        (Some(vec![other(|it| (it.uid, it.api_version) = ("u-0".into(), "v1".into()))]), ObjectOwner::Others),
        (Some(Vec::new()), ObjectOwner::Others),
        (None, ObjectOwner::Others),
    ] {
        let object = ObjectMeta { owner_references: owners, ..ObjectMeta::default() };
        assert_eq!(result::whose(&object, "run", "u-1"), expected, "{object:?}");
    }
}

#[test]
fn a_result_that_a_status_cannot_hold_is_left_out_and_said_and_an_object_takes_it_as_it_is() {
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    for (result, words) in [
        (deep.as_str(), "nested 1000 levels"),
        ("[1e400]", "such as 1e400"),
        (r#"{"a":"\udce9"}"#, "half of a character"),
    ] {
        let mut state = started();
        state.outcomes.remote =
            Remote::Found(Box::new(Execution { result: Json::from_text(result.into()), ..run("COMPLETED") }));
        let status = settled(&state, at(20)).status;
        assert!(is_true(&status.conditions, COMPLETE));
        assert_eq!((status.result, status.result_bytes), (None, i64::try_from(result.len()).ok()));
        let said = find(&status.conditions, RESULT_NOT_WRITTEN).unwrap();
        assert_eq!(said.reason, reason::RESULT_NOT_KEEPABLE);
        assert!(said.message.contains(words), "{}", said.message);
        state.spec.result.to = serde_json::from_value(json!({ "configMap": { "name": "c" } })).unwrap();
        assert_eq!(plan(&state, at(20)), Decision::Act(ClusterStep::WriteResult.into()));
        assert_eq!(result::wanted(&state).unwrap().text, result);
    }
}

#[test]
fn numbers_arrive_as_they_are_spelled() {
    let spelled = r#"{"big":20000000000000000001,"e":1E2,"z":-0}"#;
    let mut state = started();
    let spec = json!({
        "workflowIdentifier": "w", "input": { "a": {} },
        "inputFrom": [{ "configMapKeyRef": { "name": "c", "key": "k" }, "path": "/a/b", "as": "Json" }],
    });
    state.spec = serde_json::from_value(spec).unwrap();
    let values = [("k".to_owned(), SecretSlice::from(spelled.as_bytes().to_vec()))].into();
    let source = Source::Found { uid: "u".into(), resource_version: "1".into(), values };
    state.outcomes.input = Input::Read(Arc::new(Sources::from([((Kind::ConfigMap, "c".to_owned()), source)])));
    let sent = serde_json::to_string(&crate::execution::state::input::request(&state).unwrap()).unwrap();
    assert!(sent.contains(&format!(r#""input":{{"a":{{"b":{spelled}}}}}"#)), "{sent}");
}

#[test]
fn an_input_that_the_cache_leaves_out_is_read_before_the_claim() {
    let mut state = new();
    state.spec.left_out = Some(crate::api::execution::LeftOut { digest: "d".into() });
    assert_eq!(plan(&state, at(1)), Decision::Act(ClusterStep::ReadInput.into()));
    state.spec.left_out = None;
    assert!(matches!(plan(&state, at(1)), Decision::Act(Step::Cluster(ClusterStep::WriteClaim { send: true, .. }))));
}
