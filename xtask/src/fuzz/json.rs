//! Readers of any JSON and any text: `src/json.rs`, `src/mistral/redactor.rs` and the header `Retry-After`.

use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use mistral_workflows_operator::json::{self, Json, MAX_DEPTH, Rows};
use mistral_workflows_operator::mistral::{Redactor, answer};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;

use super::mutate::SEPARATOR;
use super::{Target, from_texts};

pub const TARGETS: &[Target] = &[
    Target {
        name: "json",
        seeds: || {
            from_texts(&[
                r#"{"big":20000000000000000001,"e":1E2,"z":-0,"half":"a\udce9b","whole":"\ud83d\ude00","deep":[[[1]]]}"#,
                " { \"a b\" : [ 1E2 , -0 ,\n\"\\u00e9 \\\" \" ] , \"d\":true} ",
                r#"["plain","\\u0041 \\","",{"":null},1e400,0.1000000000000000055511151231257827]"#,
                r#"{"type":"object","properties":{"x":{"$ref":"x"}},"required":["x"],"maximum":1.0}"#,
            ])
        },
        check: json,
    },
    Target {
        name: "mask",
        seeds: || {
            [
                "sk-live-0123456789abcdef\u{1e}input_value='sk-live-01234...9abcdef', input_type=str sk-live-0123456789abcdef",
                "pass\"w'o\nrd\u{1e}schlüssel\u{1e}{\"a\":[\"pass\\\"w'o\\nrd!\",{\"schl\\u00fcssel\":1}]}",
                "1234567\u{1e}abcdef\u{1e}cdefgh\u{1e}[1234567,-12345678.5,\"abcdefgh\",\"…efghij\"]",
                " s3cret-two\n\u{1e}two: s3cret-two",
            ]
            .map(|text| text.as_bytes().to_vec())
            .to_vec()
        },
        check: mask,
    },
    Target {
        name: "retry-after",
        seeds: || {
            from_texts(&[
                "7",
                "0",
                " 600 ",
                "18446744073709551615",
                "18446744073709551616",
                "1.5",
                "Mon, 30 Nov 2026 08:30:00 GMT",
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "Fri, 31 Dec 9999 23:59:59 -2359",
                "Sunday, 06-Nov-94 08:49:37 GMT",
                "Sun Nov  6 08:49:37 1994",
            ])
        },
        check: wait,
    },
];

/// The levels of a JSON text, counted in another way than by the operator.
fn levels(text: &str) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !quoted => now -= 1,
            _ => {}
        }
    }
    most
}

fn leaves(json: &Json) -> Vec<String> {
    let mut leaves = Vec::new();
    json.leaves(|leaf| leaves.push(leaf.to_owned()));
    leaves
}

fn json(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    // Text that is not JSON must do no harm either.
    let (_, _, _) = (json::depth(&text), json::string(&text), json::fields(&text));
    let Some(json) = Json::from_text(text.clone().into_owned()) else { return false };
    assert_eq!(json.depth(), levels(&text), "the depth");

    let compact = json.compact();
    assert_eq!(compact.compact(), compact, "to compact a text twice");
    assert_eq!(leaves(&compact), leaves(&json), "the leaves of the compact text");
    let normal = json.normal();
    let again = Json::from_text(normal.clone()).expect("the normal text is JSON");
    assert_eq!(again.normal(), normal, "the normal text of the normal text");
    assert_eq!(compact.normal(), normal, "the normal text of the compact text");

    let value = serde_json::from_str::<Value>(&text);
    match json.is_keepable() {
        Ok(()) => {
            assert!(json.depth() <= MAX_DEPTH, "a text of {} levels is kept", json.depth());
            assert!(value.is_ok(), "a text is kept that serde_json refuses");
        }
        Err(why) => assert!(json.depth() > MAX_DEPTH || value.is_err(), "refused for nothing: {why}"),
    }

    assert_eq!(json.map_leaves(|_| None).text(), compact.text(), "no leaf was replaced");
    let mut seen = 0_usize;
    let replaced = json.map_leaves(|_| {
        seen += 1;
        Some("\"x\"".into())
    });
    assert_eq!(replaced.depth(), json.depth(), "the depth with other leaves");
    assert!(leaves(&replaced).iter().all(|leaf| leaf == "\"x\"") && seen >= leaves(&json).len(), "a leaf was left");

    let depth = json.depth();
    if let Some(fields) = json.fields() {
        for (name, field) in &fields {
            assert!(field.depth() < depth, "the depth of {name:.40}");
            assert!(Json::from_text(field.text().to_owned()).is_some(), "the field {name:.40} is no JSON");
        }
        let first = fields.first().map(|(name, _)| json.field(name).expect("the field"));
        assert_eq!(first.as_ref(), fields.first().map(|(_, field)| field), "the first field");
    }
    beside(&text);
    true
}

/// No value may harm what stands beside it.
fn beside(text: &str) {
    #[derive(Deserialize)]
    struct Beside {
        #[serde(default, deserialize_with = "json::lenient")]
        number: Option<f64>,
        #[serde(default, deserialize_with = "json::lenient")]
        list: Option<Rows<String>>,
        #[serde(default, deserialize_with = "json::lenient_string")]
        text: Option<String>,
        #[serde(default, deserialize_with = "json::any")]
        any: Option<Json>,
        id: u8,
    }
    let all = format!(r#"{{"number":{text},"list":{text},"text":{text},"any":{text},"unknown":{text},"id":7}}"#);
    let read: Beside = serde_json::from_str(&all).expect("what stands beside it is read");
    assert_eq!((read.id, read.any.is_none()), (7, text.trim() == "null"));
    assert!(read.number.is_none_or(f64::is_finite));
    assert_eq!(read.text.is_some(), text.trim_start().starts_with('"'), "a text is read as a text");
    if let Some(list) = read.list {
        let items: Vec<Json> = serde_json::from_str(text).expect("a list");
        assert_eq!(list.rows.len() + list.unreadable, items.len(), "the rows of a list");
    }
}

fn mask(bytes: &[u8]) -> bool {
    let parts: Vec<_> = bytes.split(|byte| *byte == SEPARATOR).map(String::from_utf8_lossy).collect();
    let Some((text, secrets)) = parts.split_last() else { return false };
    // More secrets would only be slow here, because each is searched for separately.
    let secrets = &secrets[..secrets.len().min(16)];
    let mask = Redactor::new(secrets.iter().map(AsRef::as_ref));
    let secrets: Vec<&str> = secrets.iter().map(AsRef::as_ref).filter(|secret| Redactor::covers(secret)).collect();
    // The mark in place of a secret may itself contain a part of a secret.
    let shows = |shown: &str| secrets.iter().any(|secret| shown.split("[redacted]").any(|rest| rest.contains(secret)));
    let shown = mask.text(text);
    assert!(!shows(&shown), "a secret is shown");
    if secrets.is_empty() {
        assert_eq!(shown, *text, "there is nothing to hide");
    }
    for secret in &secrets {
        let quoted = format!("before '{secret}' \"{}\" after", secret.trim());
        assert!(!shows(&mask.text(&quoted)), "a secret is shown between quotes");
        let escaped = Value::from(*secret).to_string();
        let bare = &escaped[1..escaped.len() - 1];
        assert!(!mask.text(&escaped).split("[redacted]").any(|rest| rest.contains(bare)), "a secret is shown as JSON");
        let beginning: String = secret.chars().take(20).collect();
        if beginning.chars().count() >= 6 && beginning.len() <= 256 {
            let shortened = mask.text(&format!("'{beginning}...'")).into_owned();
            let rest = shortened.rsplit("[redacted]").next().unwrap_or_default();
            assert!(!rest.contains(&beginning), "the beginning of a secret is shown");
        }
    }
    let Some(json) = Json::from_text(text.clone().into_owned()) else { return !secrets.is_empty() };
    let masked = mask.json(&json);
    assert_eq!(masked.depth(), json.depth(), "the depth of a masked text");
    assert!(!leaves(&masked).iter().any(|leaf| shows(leaf)), "a secret is shown in a leaf");
    for (name, _) in masked.fields().unwrap_or_default() {
        assert!(!shows(&name), "a secret is shown in the name of a field");
    }
    !secrets.is_empty()
}

fn wait(bytes: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return false };
    let number = value.to_str().ok().and_then(|text| u64::from_str(text.trim()).ok());
    let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
    let mut read = false;
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::now(), Timestamp::MAX] {
        let wait = answer::retry_after(&headers, now);
        assert!(wait.is_none_or(|wait| wait <= answer::MAX_RETRY_AFTER), "{wait:?}");
        if let Some(seconds) = number {
            assert_eq!(wait, Some(Duration::from_secs(seconds).min(answer::MAX_RETRY_AFTER)));
        }
        read |= wait.is_some();
    }
    read
}
