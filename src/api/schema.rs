//! Schemas and rules that several fields have.

use schemars::{Schema, json_schema};

/// Schema of `status.conditions`: a list keyed by type, so that several writers can merge into it.
pub(super) fn conditions_schema(generator: &mut schemars::SchemaGenerator) -> Schema {
    let condition = generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>();
    json_schema!({
        "type": "array",
        "items": condition,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Schema of a JSON object with any content. Null counts as absent.
pub(super) fn object_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// Schema of any JSON value.
pub(super) fn any_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// A CEL rule under which an optional field may not change, appear or vanish. A null counts as an absent field. The
/// value compared must not have optional fields itself, because a null in them would count as a value.
pub(super) fn unchanged(field: &str) -> String {
    format!("has(self.{field}) ? has(oldSelf.{field}) && self.{field} == oldSelf.{field} : !has(oldSelf.{field})")
}
