//! Readers of ConfigMaps and Secrets: the API key, and values for inputs.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use mistral_workflows_operator::api::WorkflowExecutionSpec;
use mistral_workflows_operator::api::values::Kind;
use mistral_workflows_operator::api::workspace::SecretKeyRef;
use mistral_workflows_operator::execution::effects::input_objects::Holder;
use mistral_workflows_operator::execution::state::input::{Source, Sources, compose, redactor};
use mistral_workflows_operator::json::Json;
use mistral_workflows_operator::mistral::Redactor;
use mistral_workflows_operator::workspace::credentials::api_key;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::json;

use super::mutate::SEPARATOR;
use super::{Target, from_texts, shows};

pub const TARGETS: &[Target] = &[
    Target {
        name: "api-key",
        seeds: || {
            from_texts(&[
                "sk-live-0123456789abcdef",
                " sk-live-0123456789abcdef\r\n",
                "\u{feff}sk-live-0123456789abcdef",
                "sk live é",
                r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"m","uid":"u","resourceVersion":"7"},"data":{"key":"c2stbGl2ZS0wMTIzNDU2Nzg5YWJjZGVm"},"type":"Opaque"}"#,
                r#"{"metadata":{},"data":null,"stringData":{"key":"x"}}"#,
            ])
        },
        check: key,
    },
    Target {
        name: "values",
        seeds: || {
            from_texts(&[
                "s3cret-one\n\u{1e} {\"x\": [1, null, 7654321, \"s3cret-two\"], \"s3cret-key\": 1E2}",
                "pass\"w'o\rrd\u{1e}[[[\"caf\\udce9\",1e400]]]",
                "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"s\",\"uid\":\"u\",\"resourceVersion\":\"7\",\"managedFields\":[{\"fieldsV1\":{\"f:data\":{}}}]},\"data\":{\"k\":\"czNjcmV0LW9uZQo=\",\"other\":\"AA==\"},\"binaryData\":{\"b\":\"/w==\"}}\u{1e}7",
                "{\"metadata\":{\"uid\":\"u\",\"resourceVersion\":\"7\"},\"data\":{\"k\":\"caf\\udce9\"},\"binaryData\":{\"k\":\"not base64\"}}\u{1e}\"x\"",
            ])
        },
        check: values,
    },
];

fn key(bytes: &[u8]) -> bool {
    let at = SecretKeyRef { name: "mistral".into(), key: "key".into() };
    let raw =
        Secret { data: Some(BTreeMap::from([("key".to_owned(), ByteString(bytes.to_vec()))])), ..Secret::default() };
    let whole = serde_json::from_slice::<Secret>(bytes).ok();
    let mut read = false;
    for secret in [Some(raw), whole].into_iter().flatten() {
        let value = secret.data.as_ref().and_then(|data| data.get("key")).map(|value| value.0.clone());
        match api_key(Some(&secret), &at) {
            Ok(key) => {
                let key = key.expose_secret();
                let value = value.expect("a key comes from the Secret");
                assert_eq!(Ok(key), str::from_utf8(&value).map(str::trim), "the key is what the Secret holds");
                assert!(!key.is_empty() && HeaderValue::from_str(&format!("Bearer {key}")).is_ok());
                read = true;
            }
            Err(problem) => {
                let value = value.unwrap_or_default();
                let text = String::from_utf8_lossy(&value);
                // Short values, and words of the message itself, match by chance.
                if text.chars().count() > 60 {
                    assert!(!problem.message.contains(&*text), "a message quotes the Secret");
                }
                assert!(problem.message.len() < 300 && !problem.passing);
            }
        }
    }
    read
}

/// A spec that names each format, of a Secret and of a ConfigMap.
fn spec() -> WorkflowExecutionSpec {
    let entry = |of: &str, name: &str, key: &str, path: &str, format: &str| json!({ of: { "name": name, "key": key }, "path": path, "as": format });
    let spec = json!({ "workflowIdentifier": "w", "input": { "own": { "a": 1 } }, "inputFrom": [
        entry("secretKeyRef", "s", "text", "/secret", "String"),
        entry("secretKeyRef", "s", "json", "/own/json", "Json"),
        entry("configMapKeyRef", "c", "text", "/deep/er/text", "String"),
        entry("configMapKeyRef", "c", "json", "/deep/a~1b~0c", "Json"),
    ] });
    serde_json::from_value(spec).expect("a spec")
}

fn values(bytes: &[u8]) -> bool {
    let holder = bytes.split(|byte| *byte == SEPARATOR).next().unwrap_or_default();
    for kind in [Kind::ConfigMap, Kind::Secret] {
        if let Ok(holder) = serde_json::from_slice::<Holder>(holder) {
            let keys = ["k".to_owned(), "b".to_owned()];
            let Source::Found { values, .. } = holder.source(kind, &keys) else { panic!("it is there") };
            assert!(values.keys().all(|key| keys.contains(key)), "another key was read");
        }
    }
    let mut parts = bytes.splitn(2, |byte| *byte == SEPARATOR);
    let (text, json) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let source = || Source::Found {
        uid: "u".into(),
        resource_version: "7".into(),
        values: [("text", text), ("json", json)]
            .map(|(key, value)| (key.to_owned(), SecretSlice::from(value.to_vec())))
            .into(),
    };
    let sources =
        Sources::from([((Kind::Secret, "s".to_owned()), source()), ((Kind::ConfigMap, "c".to_owned()), source())]);
    let spec = spec();
    let mask = redactor(&spec, &sources);
    let valid = str::from_utf8(text).ok().zip(str::from_utf8(json).ok());
    let valid = valid.and_then(|(text, json)| Some((text, Json::from_text(json.to_owned())?)));
    match compose(&spec, &sources) {
        Ok(input) => {
            let input = input.expect("an input");
            assert!(Json::from_text(input.text().to_owned()).is_some(), "the input is no JSON");
            let (text, json) = valid.expect("only valid values become an input");
            let at = |path: &[&str]| path.iter().try_fold(input.clone(), |at, name| at.field(name)).expect("a value");
            assert_eq!(at(&["secret"]).string().as_deref(), Some(text), "a text");
            assert_eq!(at(&["deep", "er", "text"]).string().as_deref(), Some(text), "a text");
            assert_eq!(at(&["own", "json"]).text(), json.text().trim(), "a JSON value");
            assert_eq!(at(&["deep", "a/b~c"]).text(), json.text().trim(), "a JSON value");
            assert_eq!(at(&["own", "a"]).text(), "1", "what the spec says itself");
            // The mask must redact every sent value from the answers.
            let echo = mask.text(text);
            assert!(!Redactor::covers(text) || !shows(&echo, text.trim()), "a value of a Secret is shown");
            json.leaves(|leaf| {
                if Redactor::covers(leaf) {
                    assert!(!shows(&mask.text(leaf), leaf.trim()), "a value of a Secret is shown");
                }
            });
            true
        }
        Err(lacking) => {
            for value in [text, json] {
                let value = String::from_utf8_lossy(value);
                if value.chars().count() > 60 {
                    assert!(!lacking.message.contains(&*value), "a message quotes a value");
                }
            }
            assert!(lacking.message.len() < 400);
            false
        }
    }
}
