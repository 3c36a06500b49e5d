//! The input is composed as its paths say, errors name no value, and values of Secrets are redacted.

use std::sync::Arc;

use secrecy::SecretSlice;
use serde_json::{Value, json};

use super::compose::{MAX_SECRET_VALUES, check_paths};
use super::*;
use crate::api::WorkflowExecutionSpec;
use crate::api::reasons::execution as reason;
use crate::api::values::Kind;
use crate::mistral::Redactor;

/// Kind, name and contents.
type Object<'a> = (Kind, &'a str, &'a [(&'a str, &'a [u8])]);

fn spec(input: Value, from: Value) -> WorkflowExecutionSpec {
    serde_json::from_value(json!({ "workflowIdentifier": "w", "input": input, "inputFrom": from })).unwrap()
}

fn sources(objects: &[Object<'_>]) -> Sources {
    let source = |(kind, name, values): &Object<'_>| {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), SecretSlice::from(value.to_vec())));
        let source =
            Source::Found { uid: format!("uid-{name}"), resource_version: "1".into(), values: values.collect() };
        ((*kind, (*name).to_owned()), source)
    };
    objects.iter().map(source).collect()
}

fn config(path: &str, key: &str, format: &str) -> Value {
    json!({ "configMapKeyRef": { "name": "c", "key": key }, "path": path, "as": format })
}

fn secret(path: &str, key: &str, format: &str) -> Value {
    json!({ "secretKeyRef": { "name": "s", "key": key }, "path": path, "as": format })
}

#[test]
fn each_value_goes_where_its_path_points_and_objects_on_the_way_are_made() {
    let sources = sources(&[
        (Kind::ConfigMap, "c", &[("text", b"a\nb"), ("json", b" {\"x\": [1, null]} ")]),
        (Kind::Secret, "s", &[("token", b"t0ken"), ("number", b"7")]),
    ]);
    let from = json!([
        config("/text", "text", "String"),
        config("/deep/er/json", "json", "Json"),
        secret("/deep/a~1b~0c", "token", "String"),
        secret("/kept/n", "number", "Json"),
        secret("/kept/0", "number", "String"),
    ]);
    let composed = compose(&spec(json!({ "kept": { "m": null } }), from), &sources).unwrap();
    let expected = json!({
        "text": "a\nb", "deep": { "er": { "json": { "x": [1, null] } }, "a/b~c": "t0ken" },
        "kept": { "m": null, "n": 7, "0": "7" },
    });
    assert_eq!(serde_json::from_str::<Value>(composed.unwrap().text()).unwrap(), expected);
    let none = spec(json!(null), json!(null));
    assert_eq!(compose(&none, &Sources::new()).unwrap(), None);
}

#[test]
fn a_path_that_meets_a_value_of_the_spec_is_refused() {
    for (input, path, words) in [
        (json!({ "a": 1 }), "/a", "already has a value in spec.input"),
        (json!({ "a": null }), "/a", "already has a value in spec.input"),
        (json!({ "a": { "b": {} } }), "/a/b", "already has a value in spec.input"),
        (json!({ "a": 1 }), "/a/b", "leads through a value that is not an object"),
        (json!({ "a": [{}] }), "/a/0", "leads through a value that is not an object"),
        (json!({ "a": null }), "/a/b", "leads through a value that is not an object"),
    ] {
        let refused = check_paths(&spec(input, json!([config(path, "k", "String")]))).unwrap_err();
        assert!(refused.contains(path) && refused.contains(words), "{path}: {refused}");
    }
    assert_eq!(check_paths(&spec(json!({ "a": {} }), json!([config("/a/b", "k", "Json")]))), Ok(()));
}

#[test]
fn what_is_missing_or_wrong_is_named_and_no_value_is() {
    let there = sources(&[(
        Kind::Secret,
        "s",
        &[("bytes", &[0xff, 0xfe]), ("words", b"pa55word"), ("long", &[b'x'; Redactor::MOST + 1])],
    )]);
    let large = sources(&[(Kind::ConfigMap, "c", &[("long", &[b'x'; MAX_INPUT])])]);
    let forbidden = Sources::from([((Kind::Secret, "s".to_owned()), Source::Forbidden)]);
    for (from, sources, reason, words) in [
        (config("/a", "k", "String"), &there, reason::INPUT_NOT_FOUND, "There is no ConfigMap \"c\""),
        (secret("/a", "k", "String"), &there, reason::INPUT_NOT_FOUND, "Secret \"s\" has no key \"k\""),
        (secret("/a", "k", "String"), &forbidden, reason::INPUT_FORBIDDEN, "may not get Secret \"s\""),
        (secret("/a", "bytes", "String"), &there, reason::INPUT_INVALID, "is not UTF-8"),
        (secret("/a", "words", "Json"), &there, reason::INPUT_INVALID, "is not JSON (line 1, column 1)"),
        (secret("/a", "long", "String"), &there, reason::INPUT_INVALID, "redact at most 65536"),
        (config("/a", "long", "String"), &large, reason::INPUT_INVALID, "the API takes 2 MB"),
    ] {
        let lacking = compose(&spec(json!(null), json!([from])), sources).unwrap_err();
        assert_eq!(lacking.reason, reason);
        assert!(lacking.message.contains(words) && !lacking.message.contains("pa55"), "{}", lacking.message);
    }
}

#[test]
fn values_of_secrets_are_redacted_one_by_one_and_those_of_config_maps_are_not() {
    let sources = sources(&[
        (Kind::ConfigMap, "c", &[("k", b"config-value")]),
        (Kind::Secret, "s", &[("k", b"s3cret-one\n"), ("j", br#"{"a":["s3cret-two",7654321,true],"s3cret-key":1}"#)]),
    ]);
    let from = json!([config("/a", "k", "String"), secret("/b", "k", "String"), secret("/c", "j", "Json")]);
    let spec = spec(json!(null), from);
    let text = "config-value s3cret-one s3cret-two 7654321 true";
    assert_eq!(redactor(&spec, &sources).text(text), "config-value [redacted] [redacted] [redacted] true");
    assert!(!format!("{:?}", Input::Read(Arc::new(sources))).contains("115"), "the bytes of a value");
}

#[test]
fn more_values_of_secrets_than_can_be_redacted_are_refused() {
    let many: Vec<String> = (0..=MAX_SECRET_VALUES).map(|n| format!("value-{n}")).collect();
    let json = json!(many).to_string();
    let there =
        sources(&[(Kind::Secret, "s", &[("k", json.as_bytes())]), (Kind::ConfigMap, "c", &[("k", json.as_bytes())])]);
    let of = |entry: Value| compose(&spec(json!(null), json!([entry])), &there);
    assert!(of(secret("/a", "k", "Json")).unwrap_err().message.contains("257 values"));
    assert!(of(secret("/a", "k", "String")).is_ok());
    assert!(of(config("/a", "k", "Json")).is_ok());
}
