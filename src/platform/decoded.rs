//! Objects from the API server: each decoded alone, with a stand-in if that fails.
//!
//! The API server accepts objects that are nested 10,000 levels deep, and mirrors the depth of each in its
//! `managedFields`. `serde_json` reads 127 levels, and reads a line of a watch or a page of a list either whole or not
//! at all. So an object is text first, which no depth can harm, and a bad object affects only itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;

use crate::json;
use crate::text::truncate;

/// The longest error text, in bytes: it may quote a value.
const MAX_ERROR: usize = 256;

/// The longest name of a field in an error text, in bytes: it may be nested deep.
const MAX_FIELD: usize = 100;

/// An object of the cluster, or a stand-in for one that this version cannot decode.
#[derive(Clone, Debug)]
pub struct Decoded<K>(pub Result<K, Undecodable>);

/// The stand-in for an object that this version cannot decode: enough to name it, and to let it be deleted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Undecodable {
    /// Why decoding failed, in at most 256 bytes.
    pub error: String,
    /// Without the fields that only the API server reads.
    pub metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned + Resource> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self::from_text(raw.get()))
    }
}

impl<K: DeserializeOwned + Resource> Decoded<K> {
    /// Decodes one object.
    pub fn from_text(text: &str) -> Self {
        if let Ok(object) = serde_json::from_str::<K>(text) {
            return Self(Ok(object));
        }
        // The `managedFields` are as deep as the object, and are of no use here.
        let lean = without_managed_fields(text);
        let lean = lean.as_deref().unwrap_or(text);
        let error = match serde_json::from_str::<K>(lean) {
            Ok(object) => return Self(Ok(object)),
            Err(error) => error,
        };
        let metadata = serde_json::from_str::<Metadata>(text).map_or_else(|_| ObjectMeta::default(), |it| it.metadata);
        // The position in the text moves with each write. Without it, the same error has the same text.
        let mut error = error.to_string();
        error.truncate(error.find(" at line ").unwrap_or(error.len()));
        if let Some(field) = field_at_fault::<K>(lean) {
            error = format!("{field}: {error}");
        }
        truncate(&mut error, MAX_ERROR);
        Self(Err(Undecodable { error, metadata }))
    }
}

/// The field that cannot be decoded, such as `spec.tags[1]`; none if that is the object as a whole.
fn field_at_fault<K: DeserializeOwned>(text: &str) -> Option<String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, K>(&mut deserializer).err()?;
    let mut field = error.path().iter().next().map(|_| error.path().to_string())?;
    truncate(&mut field, MAX_FIELD);
    Some(field)
}

/// Makes something that stands for an object of kind `K` a resource of this kind, with the metadata that is found there.
macro_rules! stands_for_an_object {
    ($type:ident, $meta:expr, $meta_mut:expr) => {
        impl<K: Resource> Resource for $type<K> {
            type DynamicType = K::DynamicType;
            type Scope = K::Scope;

            fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
                K::kind(dt)
            }

            fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
                K::group(dt)
            }

            fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
                K::version(dt)
            }

            fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
                K::plural(dt)
            }

            fn meta(&self) -> &ObjectMeta {
                let meta: fn(&Self) -> &ObjectMeta = $meta;
                meta(self)
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                let meta: fn(&mut Self) -> &mut ObjectMeta = $meta_mut;
                meta(self)
            }
        }
    };
}

stands_for_an_object!(Decoded, |it| it.0.as_ref().map_or_else(|undecodable| &undecodable.metadata, K::meta), |it| it
    .0
    .as_mut()
    .map_or_else(|undecodable| &mut undecodable.metadata, K::meta_mut));
stands_for_an_object!(MetadataOf, |it| &it.metadata, |it| &mut it.metadata);

/// The metadata of an object of any depth. `managedFields` keeps the managers' names, and of their fields only the
/// annotations.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// Without the fields that only the API server reads.
    #[serde(deserialize_with = "lean")]
    pub metadata: ObjectMeta,
}

/// The metadata of an object of a kind, however deep the object is.
#[derive(Clone, Debug)]
pub struct MetadataOf<K> {
    metadata: ObjectMeta,
    kind: PhantomData<fn() -> K>,
}

impl<'de, K> Deserialize<'de> for MetadataOf<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { metadata: Metadata::deserialize(deserializer)?.metadata, kind: PhantomData })
    }
}

/// A page of a list, of which only the metadata is decoded.
#[derive(Debug, Deserialize)]
pub struct MetadataList {
    /// The metadata of the list.
    pub metadata: kube::core::ListMeta,
    /// In the API server's order.
    #[serde(default, deserialize_with = "empty_for_null")]
    pub items: Vec<Metadata>,
}

/// The items of an empty list are null.
fn empty_for_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Metadata>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The text of an object with its `managedFields` reduced as in [`Metadata`].
fn without_managed_fields(text: &str) -> Option<String> {
    let Metadata { metadata } = serde_json::from_str(text).ok()?;
    let mut lean = String::with_capacity(text.len());
    for (name, value) in json::fields(text)? {
        lean.push(if lean.is_empty() { '{' } else { ',' });
        lean.push_str(&serde_json::to_string(&name).ok()?);
        lean.push(':');
        if name == "metadata" {
            lean.push_str(&serde_json::to_string(&metadata).ok()?);
        } else {
            lean.push_str(value.get());
        }
    }
    lean.push('}');
    Some(lean)
}

fn lean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    /// The fields that the operator reads. All others are skipped, without recursion.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lean {
        annotations: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        finalizers: Option<Vec<String>>,
        generate_name: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        #[serde(default)]
        managed_fields: Option<Vec<Manager>>,
        name: Option<String>,
        namespace: Option<String>,
        owner_references: Option<Vec<OwnerReference>>,
        resource_version: Option<String>,
        uid: Option<String>,
    }
    #[derive(Deserialize)]
    struct Manager {
        manager: Option<String>,
        operation: Option<String>,
        subresource: Option<String>,
        time: Option<Time>,
        #[serde(rename = "fieldsV1")]
        fields: Option<Box<RawValue>>,
    }
    let lean = Lean::deserialize(deserializer)?;
    let entry = |it: Manager| ManagedFieldsEntry {
        manager: it.manager,
        operation: it.operation,
        subresource: it.subresource,
        time: it.time,
        fields_v1: it.fields.as_deref().and_then(annotations_of),
        ..ManagedFieldsEntry::default()
    };
    Ok(ObjectMeta {
        annotations: lean.annotations,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        finalizers: lean.finalizers,
        generate_name: lean.generate_name,
        generation: lean.generation,
        labels: lean.labels,
        managed_fields: lean.managed_fields.map(|all| all.into_iter().map(entry).collect()),
        name: lean.name,
        namespace: lean.namespace,
        owner_references: lean.owner_references,
        resource_version: lean.resource_version,
        uid: lean.uid,
        ..ObjectMeta::default()
    })
}

/// The annotations among the fields of a manager, however deep these are; none if there are no annotations.
fn annotations_of(fields: &RawValue) -> Option<FieldsV1> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "f:metadata")]
        metadata: OfMetadata,
    }
    #[derive(Deserialize)]
    struct OfMetadata {
        #[serde(rename = "f:annotations")]
        annotations: BTreeMap<String, IgnoredAny>,
    }
    let Fields { metadata } = serde_json::from_str(fields.get()).ok()?;
    let names: serde_json::Map<_, _> = metadata.annotations.into_keys().map(|name| (name, json!({}))).collect();
    Some(FieldsV1(json!({ "f:metadata": { "f:annotations": names } })))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::json;

    use super::*;

    fn nested(levels: usize, inside: &str) -> String {
        format!("{}{inside}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
    }

    /// A ConfigMap with fields that no ConfigMap has, nested `spec` and `status` levels deep, and its managedFields nested
    /// `fields` levels deep.
    fn object(name: &str, spec: usize, fields: usize, status: usize) -> String {
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap",
            "metadata":{{"name":"{name}","namespace":"team","uid":"u","resourceVersion":"7","finalizers":["f"],
            "managedFields":[{{"manager":"kubectl","operation":"Update","fieldsV1":{}}}]}},
            "spec":{},"status":{},"data":{{"a":"b"}}}}"#,
            nested(fields, "{}"),
            nested(spec, "1"),
            nested(status, "1"),
        )
    }

    #[test]
    fn no_depth_of_an_object_keeps_it_or_another_one_from_being_read() {
        let deep = 100_000;
        for (spec, fields, status) in [(120, 120, 1), (deep, deep, 1), (deep, 1, deep), (1, deep, 1)] {
            let (line, next) = (object("deep", spec, fields, status), object("next", 1, 1, 1));
            let list = format!(
                r#"{{"apiVersion":"v1","kind":"List","metadata":{{"resourceVersion":"9"}},"items":[{line},{next}]}}"#
            );
            let list: ObjectList<Decoded<ConfigMap>> = serde_json::from_str(&list).unwrap();
            let [Decoded(Ok(read)), Decoded(Ok(next))] = &list.items[..] else { panic!("{:?}", list.items) };
            assert_eq!((read.name_any(), next.name_any()), ("deep".into(), "next".into()));
            assert_eq!(read.data.as_ref().unwrap()["a"], "b");
            let event = format!(r#"{{"type":"ADDED","object":{line}}}"#);
            let WatchEvent::Added(Decoded(Ok(read))) = serde_json::from_str(&event).unwrap() else { panic!("{spec}") };
            let read: ConfigMap = read;
            assert_eq!(read.finalizers(), ["f"]);
        }
    }

    #[test]
    fn what_cannot_be_decoded_has_a_stand_in_that_can_be_named_and_let_go() {
        let deep = nested(100_000, "1");
        for data in [r#"{"a":7}"#.to_owned(), format!(r#"{{"a":[{deep}]}}"#), format!("[{deep}]"), "7".into()] {
            let text = object("odd", 1, 5000, 1).replace(r#""data":{"a":"b"}"#, &format!(r#""data":{data}"#));
            let Decoded(Err(undecodable)) = Decoded::<ConfigMap>::from_text(&text) else { panic!("{data:.40}") };
            let metadata = &undecodable.metadata;
            assert_eq!((metadata.name.as_deref(), metadata.uid.as_deref()), (Some("odd"), Some("u")));
            assert_eq!(metadata.resource_version.as_deref(), Some("7"));
            assert_eq!(metadata.managed_fields.as_ref().unwrap()[0].manager.as_deref(), Some("kubectl"));
            assert!(undecodable.error.starts_with("data"), "{}", undecodable.error);
            assert!(undecodable.error.len() < 300, "{}", undecodable.error);
        }
        // Even the metadata is unreadable: the stand-in is empty, and the objects in the same response are not lost.
        let Decoded(Err(nothing)) = Decoded::<ConfigMap>::from_text("[]") else { panic!("decoded") };
        assert_eq!(nothing.metadata, ObjectMeta::default());
    }

    #[test]
    fn of_the_fields_of_a_manager_the_annotations_are_kept_however_deep_the_others_are() {
        let deep = nested(100_000, "{}");
        let fields = format!(r#"{{"f:metadata":{{"f:annotations":{{".":{{}},"f:x":{{}}}}}},"f:spec":{deep}}}"#);
        let text = object("deep", 1, 1, 1).replace(r#""fieldsV1":{"a":{}}"#, &format!(r#""fieldsV1":{fields}"#));
        let Metadata { metadata } = serde_json::from_str(&text).unwrap();
        let kept = metadata.managed_fields.unwrap().remove(0).fields_v1.unwrap().0;
        assert_eq!(kept, json!({ "f:metadata": { "f:annotations": { ".": {}, "f:x": {} } } }));
        // Malformed fields count as none.
        for odd in ["7", r#"{"f:metadata":7}"#, r#"{"f:metadata":{"f:annotations":[]}}"#, "null"] {
            let text = object("odd", 1, 1, 1).replace(r#"{"a":{}}}]"#, &format!("{odd}}}]"));
            let Metadata { metadata } = serde_json::from_str(&text).unwrap();
            assert_eq!(metadata.managed_fields.unwrap()[0].fields_v1, None, "{odd}");
        }
    }

    #[test]
    fn metadata_is_read_beside_what_is_too_deep() {
        let text = object("deep", 100_000, 100_000, 100_000);
        let list = format!(r#"{{"metadata":{{"continue":"c"}},"items":[{text},{text}]}}"#);
        let list: MetadataList = serde_json::from_str(&list).unwrap();
        assert_eq!(list.metadata.continue_.as_deref(), Some("c"));
        assert!(list.items.iter().all(|it| it.metadata.name.as_deref() == Some("deep")));
        let empty: MetadataList = serde_json::from_str(r#"{"metadata":{},"items":null}"#).unwrap();
        assert!(empty.items.is_empty());
    }

    #[test]
    fn the_lean_metadata_are_those_of_the_object() {
        let mut metadata = json!({
            "annotations": { "a": "b" }, "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"],
            "deletionTimestamp": "2026-01-02T00:00:00Z", "generateName": "g-", "generation": 3, "labels": { "l": "m" },
            "name": "n", "namespace": "team", "resourceVersion": "7", "uid": "u",
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "q", "controller": true }],
        });
        let whole: ObjectMeta = serde_json::from_value(metadata.clone()).unwrap();
        metadata["selfLink"] = json!([[[]]]);
        let lean: Metadata = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        assert_eq!(lean.metadata, whole);
    }
}
