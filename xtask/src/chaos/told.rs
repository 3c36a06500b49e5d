//! Reads data from the API server and the simulator, of any depth and length.
//!
//! A field that `serde_json` cannot read, or that is long, becomes a text that only the same value has. A single odd
//! object therefore cannot spoil the record or the ledger.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{ApiResource, DynamicObject};
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::demo::Result;

/// The deepest value that the operator writes into a status.
const MAX_DEPTH: usize = 64;
/// The longest result that the operator writes into a status by default.
const MAX_BYTES: usize = 32_768;
/// The prefix of a text that replaces a deep value.
const DEEP: &str = "something deep: ";
/// The prefix of a text that replaces a long value.
const LONG: &str = "something long: ";

/// An object of the API server.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Told(DynamicObject);

impl Deref for Told {
    type Target = DynamicObject;

    fn deref(&self) -> &DynamicObject {
        &self.0
    }
}

impl DerefMut for Told {
    fn deref_mut(&mut self) -> &mut DynamicObject {
        &mut self.0
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut fields = BTreeMap::<String, Box<RawValue>>::deserialize(deserializer)?;
        let metadata = fields.remove("metadata").unwrap_or_default();
        let mut object = Value::Object(fields.into_iter().map(|(name, value)| (name, shallow(&value, 1))).collect());
        // `managedFields` is as deep as the object, and not needed here.
        let metadata: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(metadata.get()).map_err(serde::de::Error::custom)?;
        for (name, value) in metadata.iter().filter(|(name, _)| *name != "managedFields") {
            object["metadata"][name] = serde_json::from_str(value.get()).map_err(serde::de::Error::custom)?;
        }
        serde_json::from_value(object).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Resource for Told {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(dt)
    }

    fn group(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(dt)
    }

    fn version(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(dt)
    }

    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// The ledger of the simulator at this address: one entry per execution id.
pub async fn ledger(url: &str) -> Result<Vec<Value>> {
    #[derive(Deserialize)]
    struct Ledger {
        executions: Vec<Box<RawValue>>,
    }
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let answer = http.get(format!("{url}/__sim/executions")).send().await?.error_for_status()?.text().await?;
    let ledger: Ledger =
        serde_json::from_str(&answer).map_err(|error| format!("the simulator does not show its ledger: {error}."))?;
    Ok(ledger.executions.iter().map(|entry| shallow(entry, 1)).collect())
}

/// Whether this text replaces a value that is too deep for a status.
pub fn is_deep(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with(DEEP))
}

/// Whether this text replaces a value that is too long for a status.
pub fn is_long(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with(LONG))
}

/// Replaces deep and long fields, down to this level, by marks.
fn shallow(raw: &RawValue, levels: usize) -> Value {
    if levels > 0
        && let Ok(fields) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(raw.get())
    {
        let fields = fields.into_iter().map(|(name, value)| (name, shallow(&value, levels - 1)));
        return Value::Object(fields.collect::<Map<_, _>>());
    }
    let (text, depth) = (raw.get(), depth(raw.get()));
    let mark = if depth > MAX_DEPTH { DEEP } else { LONG };
    let short = depth <= MAX_DEPTH && text.len() <= MAX_BYTES;
    short.then(|| serde_json::from_str(text).ok()).flatten().unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        json!(format!("{mark}{depth} levels, {} bytes, {:x}", text.len(), hasher.finish()))
    })
}

/// The nesting depth of objects and arrays.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::core::ObjectList;

    use super::super::poison::nested;
    use super::*;

    #[test]
    fn what_is_deep_or_long_has_a_mark_that_only_the_same_value_has() {
        let object = |name: &str, input: &str| {
            let long = "x".repeat(MAX_BYTES);
            format!(
                r#"{{"apiVersion":"v1","kind":"A","metadata":{{"name":"{name}","annotations":{{"a":"{long}"}},"managedFields":[{input}]}},
                "spec":{{"n":1,"input":{input}}}}}"#
            )
        };
        let read = |input: &str| -> Value {
            let list = format!(
                r#"{{"apiVersion":"v1","kind":"List","metadata":{{}},"items":[{},{}]}}"#,
                object("deep", input),
                object("next", "{}")
            );
            let list: ObjectList<Told> = serde_json::from_str(&list).unwrap();
            assert_eq!((list.items[0].name_any(), list.items[1].name_any()), ("deep".into(), "next".into()));
            assert_eq!(list.items[0].data["spec"]["n"], 1);
            assert_eq!(list.items[0].annotations()["a"].len(), MAX_BYTES);
            list.items[0].data["spec"]["input"].clone()
        };
        let long = |letter: &str| format!(r#"{{"a":"{}"}}"#, letter.repeat(MAX_BYTES));
        let inputs = [nested(65, "1"), nested(65, "2"), nested(66, "1"), nested(9000, "1"), long("x"), long("y")];
        let marks: Vec<Value> = inputs.iter().map(|input| read(input)).collect();
        for (index, mark) in marks.iter().enumerate() {
            assert!((is_deep(mark) || is_long(mark)) && !marks[..index].contains(mark), "{mark}");
        }
        let kept = read(&nested(64, "1"));
        assert!(kept.is_object());
    }

    #[test]
    fn brackets_in_texts_are_no_levels() {
        assert_eq!(depth(r#"{"a":["{[\"{[", {}]}"#), 3);
    }
}
