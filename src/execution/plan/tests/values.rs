//! Input from ConfigMaps and Secrets, and results into them.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use secrecy::SecretSlice;

use super::*;
use crate::api::conditions::{RESULT_NOT_WRITTEN, STALLED};
use crate::api::values::{Kind, ResultRef};
use crate::execution::claim::digest;
use crate::execution::state::input::{Input, Source, Sources};
use crate::execution::state::result::{self, Stored, Whose};

const VALUE: &str = "t0psecret";

fn from_secret(more: Value) -> Observed {
    let from = json!([{ "secretKeyRef": { "name": "s", "key": "k" }, "path": "/token" }]);
    let mut spec = json!({ "inputFrom": from });
    merge(&mut spec, more);
    observed(json!({}), spec)
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
fn claimed_with_secret(more: Value, change: impl FnOnce(&mut Claim)) -> Observed {
    let mut o = from_secret(more);
    o.input = secret("1");
    let (mut claim, ..) = claim_of(step(&o, at(6)));
    claim = Claim { send_before: at(15), ..claim };
    change(&mut claim);
    o.memory.claim = Some(Box::new(Known { own: true, refused: claim.refused, ..o.known(&claim) }));
    o.input = Input::NotRead;
    o.note = Note::Claim(Box::new(claim));
    o.finalizer = true;
    o
}

fn ended_with_secret(run: Execution, more: Value) -> Observed {
    let mut o = claimed_with_secret(more, |_| {});
    o.remote = Remote::Found(Box::new(run));
    o
}

fn completed(result: Value) -> Execution {
    Execution { result: Some(Json::from(&result)).filter(|it| !it.is_null()), ..run("COMPLETED") }
}

fn message(status: &WorkflowExecutionStatus, type_: &str) -> String {
    find(&status.conditions, type_).unwrap().message.clone()
}

#[test]
fn the_input_is_read_before_the_claim_and_its_versions_are_in_it() {
    let mut o = from_secret(json!({}));
    assert_eq!(step(&o, at(1)), ClusterStep::ReadInput);
    o.input = secret("7");
    let (claim, _, send) = claim_of(step(&o, at(1)));
    assert!(send);
    let [input] = &claim.inputs[..] else { panic!("{:?}", claim.inputs) };
    assert_eq!((input.kind, input.name.as_str(), input.uid.as_str()), (Kind::Secret, "s", "s-1"));
    assert_eq!(input.resource_version, "7");
    assert!(!claim.to_annotation().contains(VALUE));
    // Without such inputs the annotation has no field for them.
    assert!(!claim_of(step(&new(), at(1))).0.to_annotation().contains("inputs"));
    assert_ne!(digest(&o.spec), digest(&new().spec));
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
        let mut o = from_secret(json!({}));
        o.input = input;
        let settled = settled(&o, at(6));
        assert_eq!(ready(&settled.status), reason);
        assert!(is_true(&settled.status.conditions, STALLED) && !is_true(&settled.status.conditions, FAILED));
        let Requeue::Retry(wait) = settled.requeue else { panic!("{:?}", settled.requeue) };
        assert!((27..=33).contains(&wait.as_secs()), "{wait:?}");
        o.memory.retries.in_a_row = 9;
        let Requeue::Retry(wait) = super::settled(&o, at(6)).requeue else { panic!("no retry") };
        assert!((270..=330).contains(&wait.as_secs()), "{wait:?}");
    }
    // The ConfigMap may follow the execution in the same manifest.
    let mut o = from_secret(json!({}));
    o.input = lacking(Source::Absent);
    let early = settled(&o, at(1));
    assert_eq!((early.status.conditions.len(), early.requeue), (0, Requeue::After(Duration::from_secs(1))));
}

#[test]
fn a_path_that_meets_the_specs_own_input_is_the_end_of_it() {
    let mut o = from_secret(json!({ "input": { "token": "mine" } }));
    let ended = settled(&o, at(1));
    assert_eq!(ready(&ended.status), reason::INPUT_CONFLICT);
    assert!(is_true(&ended.status.conditions, FAILED));
    assert!(message(&ended.status, FAILED).contains("/token"));
    // A run in progress under the explicit id is adopted anyway.
    o.spec.execution_id = Some("mine".into());
    assert_eq!(step(&o, at(1)), Call::GetRun);
    o.asked(Ok(run("RUNNING")));
    assert!(claim_of(step(&o, at(1))).0.reading);
}

#[test]
fn a_value_that_changed_between_two_attempts_starts_nothing_if_the_first_may_have_been_sent() {
    let takes_over = |o: &mut Observed| o.take_over = Some("run-u-1".into());
    let ignore = |_: &mut Observed| {};
    /// A name, changes to the claim, the Secret's current version, other changes, and whether the run is started.
    type Case = (&'static str, fn(&mut Claim), &'static str, fn(&mut Observed), bool);
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
        let mut o = claimed_with_secret(json!({}), claim);
        more(&mut o);
        o.asked(Err(not_found()));
        if starts && what.contains("refusal") {
            assert_eq!(step(&o, at(16)), ClusterStep::ReadInput, "{what}");
        } else {
            assert_eq!(ready(&settled(&o, at(89)).status), reason::OUTCOME_UNKNOWN, "{what}");
        }
        assert_eq!(step(&o, at(91)), ClusterStep::ReadInput, "{what}");
        o.input = secret(version);
        if starts {
            let (claim, _, send) = claim_of(step(&o, at(91)));
            assert!(send && claim.inputs[0].resource_version == version && claim.inputs[0].uid == "s-1", "{what}");
        } else {
            let settled = settled(&o, at(91));
            assert_eq!(ready(&settled.status), reason::INPUT_CHANGED, "{what}");
            assert!(message(&settled.status, READY).contains("Secret \"s\""), "{what}");
        }
    }
}

#[test]
fn a_claim_that_was_lost_is_put_back_with_the_versions_that_are_remembered() {
    let mut o = claimed_with_secret(json!({}), |_| {});
    let Note::Claim(claim) = std::mem::replace(&mut o.note, Note::Absent) else { panic!("no claim") };
    o.memory.claim = Some(Box::new(Known::of(claim.as_ref(), &o.derived_id())));
    let (restored, _, send) = claim_of(step(&o, at(20)));
    assert_eq!((restored.inputs, send), (claim.inputs, false));
}

#[test]
fn a_run_that_was_found_needs_no_input() {
    let mut o = claimed_with_secret(json!({}), |_| {});
    o.asked(Ok(run("RUNNING")));
    assert_eq!(ready(&settled(&o, at(20)).status), reason::RUNNING);
}

#[test]
fn values_of_secrets_are_left_out_of_results_and_failures() {
    let mut o = ended_with_secret(completed(json!({ "echo": VALUE, "n": 1 })), json!({}));
    assert_eq!(step(&o, at(20)), ClusterStep::ReadInput);
    o.input = secret("1");
    let status = settled(&o, at(20)).status;
    assert_eq!(status.result, Some(Json::from(&json!({ "echo": "[redacted]", "n": 1 }))));
    assert_eq!(status.result_bytes, Some(26));
    assert!(message(&status, READY).contains("[redacted]"));

    let mut o = ended_with_secret(run("FAILED"), json!({}));
    o.failure = FailureText::Read(Some(format!("token {VALUE} was refused")));
    assert_eq!(step(&o, at(20)), ClusterStep::ReadInput);
    o.input = secret("1");
    let status = settled(&o, at(20)).status;
    assert_eq!(status.failure.unwrap().message, "token [redacted] was refused");
    // Without a text from the API there is nothing to redact.
    o.input = Input::NotRead;
    o.failure = FailureText::Read(None);
    o.memory.failure_reads = 5;
    assert_eq!(ready(&settled(&o, at(20)).status), reason::WORKFLOW_FAILED);
    // Nor is there if only ConfigMaps were read.
    let from = json!([{ "configMapKeyRef": { "name": "c", "key": "k" }, "path": "/a" }]);
    let mut o = Observed { spec: observed(json!({}), json!({ "inputFrom": from })).spec, ..claimed() };
    o.remote = Remote::Found(Box::new(run("COMPLETED")));
    assert_eq!(settled(&o, at(20)).status.result, Some(Json::from(&json!({ "x": 1 }))));
}

#[test]
fn what_cannot_be_masked_is_withheld_and_the_run_has_ended_all_the_same() {
    let text = json!({ "echo": VALUE });
    let packed = json!({ "b64payload": "dDBwc2VjcmV0", "encoding_options": ["compressed"], "empty": false });
    let forget: fn(&mut Observed) = |o| {
        let Note::Claim(claim) = &mut o.note else { return };
        claim.inputs.clear();
    };
    let keep: fn(&mut Observed) = |_| {};
    for (result, input, change, words) in [
        (&text, secret("2"), keep, "was changed since the start"),
        (&text, lacking(Source::Absent), keep, "is gone since the start"),
        (&text, lacking(Source::Forbidden), keep, "may not read"),
        (&text, secret("1"), forget, "is not known"),
        (&packed, secret("1"), keep, "has encoded it"),
    ] {
        for to in [json!({}), json!({ "result": { "to": { "configMap": { "name": "r" } } } })] {
            let mut o = ended_with_secret(completed(result.clone()), to);
            o.input = input.clone();
            change(&mut o);
            let settled = settled(&o, at(20));
            assert!(is_true(&settled.status.conditions, COMPLETE), "{words}");
            assert_eq!((&settled.status.result, &settled.status.result_ref), (&None, &None));
            assert_eq!(find(&settled.status.conditions, RESULT_NOT_WRITTEN).unwrap().reason, reason::RESULT_WITHHELD);
            assert!(message(&settled.status, READY).contains(words), "{words}: {settled:#?}");
            assert!(settled.notices.iter().any(|notice| notice.type_ == "Warning"));
        }
    }
    let mut o = ended_with_secret(run("FAILED"), json!({}));
    o.failure = FailureText::Read(Some(VALUE.into()));
    o.input = secret("2");
    let failure = settled(&o, at(20)).status.failure.unwrap();
    assert!(failure.message.contains("withheld") && !failure.message.contains(VALUE), "{failure:?}");
}

#[test]
fn a_secret_takes_a_result_as_it_is() {
    let to = json!({ "result": { "to": { "secret": { "name": "r" } } } });
    let o = ended_with_secret(completed(json!({ "echo": VALUE })), to);
    assert_eq!(step(&o, at(20)), ClusterStep::WriteResult);
    let wanted = result::wanted(&o).unwrap();
    assert_eq!((wanted.kind, wanted.name.as_str()), (Kind::Secret, "r"));
    assert_eq!(wanted.text, format!(r#"{{"echo":"{VALUE}"}}"#));
    assert!(!format!("{wanted:?}").contains(VALUE));
}

#[test]
fn the_result_is_written_before_the_status_says_that_it_is_there() {
    let to = json!({ "result": { "to": { "configMap": { "name": "r" } }, "maxBytes": 0 } });
    let mut o = Observed { spec: observed(json!({}), to).spec, ..claimed() };
    o.remote = Remote::Found(Box::new(completed(json!({ "a": [1, null] }))));
    assert_eq!(step(&o, at(6)), ClusterStep::WriteResult);
    assert_eq!(result::wanted(&o).unwrap().text, r#"{"a":[1,null]}"#);
    o.stored = Stored::Written;
    let status = settled(&o, at(6)).status;
    assert!(is_true(&status.conditions, COMPLETE));
    assert_eq!(status.result_ref, Some(ResultRef { kind: Kind::ConfigMap, name: "r".into() }));
    assert_eq!((status.result, status.result_bytes), (None, Some(14)));

    // The object of a deleted resource with this name is about to go as well: that is waited for, but not for long.
    o.stored = Stored::Predecessors;
    let waiting = settled(&o, at(6));
    assert_eq!((is_true(&waiting.status.conditions, COMPLETE), waiting.status.end_time.is_some()), (false, false));
    assert_eq!(waiting.requeue, Requeue::After(Duration::from_secs(2)));
    for (stored, now) in [
        (Stored::Predecessors, 66),
        (Stored::Refused { reason: reason::RESULT_NOT_OURS, message: "not ours".into() }, 6),
        (Stored::Refused { reason: reason::RESULT_FORBIDDEN, message: "forbidden".into() }, 6),
    ] {
        o.stored = stored;
        let status = settled(&o, at(now)).status;
        assert!(is_true(&status.conditions, COMPLETE) && is_true(&status.conditions, READY));
        assert!(is_true(&status.conditions, RESULT_NOT_WRITTEN) && status.result_ref.is_none());
        assert!(message(&status, READY).contains("stays at the API"));
    }
    // If the API reports no end time, the wait for the predecessor's object is bounded as well.
    o.stored = Stored::Predecessors;
    o.remote = Remote::Found(Box::new(Execution { end_time: None, ..completed(json!({ "a": 1 })) }));
    assert!(is_true(&settled(&o, at(3600)).status.conditions, COMPLETE));
    // Nothing to write.
    o.stored = Stored::NotTried;
    for (run, written) in [(completed(Value::Null), None), (run("CANCELED"), None)] {
        o.remote = Remote::Found(Box::new(run));
        let status = settled(&o, at(6)).status;
        assert!(status.result_ref == written && status.end_time.is_some());
    }
    let size = 1 << 20;
    o.remote = Remote::Found(Box::new(completed(json!("x".repeat(size - 1)))));
    let status = settled(&o, at(6)).status;
    assert_eq!(find(&status.conditions, RESULT_NOT_WRITTEN).unwrap().reason, reason::RESULT_TOO_LARGE);
    assert_eq!((status.result, status.result_bytes), (None, Some(1 + (1 << 20))));
    o.remote = Remote::Found(Box::new(completed(json!("x".repeat(size - 2)))));
    assert_eq!(step(&o, at(6)), ClusterStep::WriteResult);
}

#[test]
fn a_result_that_cannot_be_written_now_is_tried_again_later_each_time_and_said() {
    let to = json!({ "result": { "to": { "configMap": { "name": "r" } } } });
    let mut o = Observed { spec: observed(json!({}), to).spec, ..claimed() };
    o.remote = Remote::Found(Box::new(completed(json!({ "a": 1 }))));
    o.stored = Stored::NotNow("etcdserver: request timed out".into());
    let mut waits = Vec::new();
    for retry in 0..9 {
        let now = 6 + retry * 200;
        let pass = settled(&o, at(now));
        assert!(!is_true(&pass.status.conditions, COMPLETE) && pass.status.end_time.is_none());
        let told = message(&pass.status, READY).contains("request timed out");
        assert_eq!(told, retry >= 3, "{retry}: {}", message(&pass.status, READY));
        assert_eq!(told && retry == 3, pass.notices.iter().any(|notice| notice.reason == reason::RESULT_PENDING));
        let Requeue::Retry(wait) = pass.requeue else { panic!("{:?}", pass.requeue) };
        waits.push(wait);
        o.settled(pass.requeue, at(now));
        o.status = pass.status;
        // The operator's own write wakes the resource: nothing is polled before it is due.
        let woken = Observed { remote: Remote::NotAsked, stored: Stored::NotTried, look: true, ..o.clone() };
        assert!(matches!(settled(&woken, at(now + 1)).requeue, Requeue::Hold(_)), "{retry}");
        // Another wording of the same trouble is not reported again.
        o.stored = Stored::NotNow(format!("request timed out: {retry}"));
    }
    assert!(waits.is_sorted() && waits[0] < Duration::from_secs(3) && waits[8] > Duration::from_secs(100), "{waits:?}");
}

#[test]
fn a_result_that_the_api_has_encoded_is_marked_and_not_decoded() {
    for (options, how) in [(json!(["encrypted", "offloaded"]), "encrypted,offloaded"), (json!([]), "base64")] {
        let result = json!({ "b64payload": "AAAA", "encoding_options": options, "empty": false });
        let mut o = claimed();
        o.remote = Remote::Found(Box::new(completed(result.clone())));
        let status = settled(&o, at(6)).status;
        assert!(message(&status, READY).contains(&format!("encoded it ({how})")));
        assert_eq!(status.result, Some(Json::from(&result)));
        o.spec = observed(json!({}), json!({ "result": { "to": { "secret": { "name": "r" } } } })).spec;
        assert_eq!(result::wanted(&o).unwrap().encoding.as_deref(), Some(how));
    }
    // An encrypted result shows no value of a Secret.
    let result = json!({ "b64payload": "AAAA", "encoding_options": ["encrypted"], "empty": false });
    let mut o = ended_with_secret(completed(result.clone()), json!({}));
    o.input = secret("1");
    assert_eq!(settled(&o, at(20)).status.result, Some(Json::from(&result)));
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
        (Some(vec![own.clone()]), Whose::Ours),
        (Some(vec![other(|it| it.controller = None)]), Whose::Others),
        (Some(vec![other(|it| it.uid = "u-0".into())]), Whose::Predecessors),
        (Some(vec![other(|it| (it.uid, it.name) = ("u-0".into(), "other".into()))]), Whose::Others),
        (Some(vec![other(|it| (it.uid, it.kind) = ("u-0".into(), "Workflow".into()))]), Whose::Others),
        (Some(vec![other(|it| (it.uid, it.api_version) = ("u-0".into(), "v1".into()))]), Whose::Others),
        (Some(Vec::new()), Whose::Others),
        (None, Whose::Others),
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
        let mut o = started();
        o.remote = Remote::Found(Box::new(Execution { result: Json::from_text(result.into()), ..run("COMPLETED") }));
        let status = settled(&o, at(20)).status;
        assert!(is_true(&status.conditions, COMPLETE));
        assert_eq!((status.result, status.result_bytes), (None, i64::try_from(result.len()).ok()));
        let said = find(&status.conditions, RESULT_NOT_WRITTEN).unwrap();
        assert_eq!(said.reason, reason::RESULT_NOT_KEEPABLE);
        assert!(said.message.contains(words), "{}", said.message);
        o.spec.result.to = serde_json::from_value(json!({ "configMap": { "name": "c" } })).unwrap();
        assert_eq!(plan(&o, at(20)), Decision::Act(ClusterStep::WriteResult.into()));
        assert_eq!(result::wanted(&o).unwrap().text, result);
    }
}

#[test]
fn numbers_arrive_as_they_are_spelled() {
    let spelled = r#"{"big":20000000000000000001,"e":1E2,"z":-0}"#;
    let mut o = started();
    let spec = json!({
        "workflowIdentifier": "w", "input": { "a": {} },
        "inputFrom": [{ "configMapKeyRef": { "name": "c", "key": "k" }, "path": "/a/b", "as": "Json" }],
    });
    o.spec = serde_json::from_value(spec).unwrap();
    let values = [("k".to_owned(), SecretSlice::from(spelled.as_bytes().to_vec()))].into();
    let source = Source::Found { uid: "u".into(), resource_version: "1".into(), values };
    o.input = Input::Read(Arc::new(Sources::from([((Kind::ConfigMap, "c".to_owned()), source)])));
    let sent = serde_json::to_string(&crate::execution::state::input::request(&o).unwrap()).unwrap();
    assert!(sent.contains(&format!(r#""input":{{"a":{{"b":{spelled}}}}}"#)), "{sent}");
}

#[test]
fn an_input_that_the_cache_leaves_out_is_read_before_the_claim() {
    let mut o = new();
    o.spec.left_out = Some(crate::api::execution::LeftOut { digest: "d".into() });
    assert_eq!(plan(&o, at(1)), Decision::Act(ClusterStep::ReadInput.into()));
    o.spec.left_out = None;
    assert!(matches!(plan(&o, at(1)), Decision::Act(Step::Cluster(ClusterStep::WriteClaim { send: true, .. }))));
}
