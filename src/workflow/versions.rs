//! The versions of one workflow: there may be thousands, each with its schemas; only what a status shows is kept.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::api::workflow::{Definition, RegistrationStatus};
use crate::json::Json;
use crate::mistral::wire::{self, Registration};

/// Registrations that a status holds at most.
pub const MAX_REGISTRATIONS: usize = 20;
/// Names of signals, queries or updates that a status holds at most.
const MAX_HANDLERS: usize = 100;
/// Bytes of such a name at most.
const MAX_HANDLER: usize = 256;
/// Bytes of schemas that a status holds at most.
const MAX_SCHEMAS: usize = 32 << 10;

/// What a status shows of the versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Versions {
    /// Newest first.
    pub newest: Vec<RegistrationStatus>,
    /// The definition of the newest active registration; of the newest of all if none is active.
    pub definition: Option<Box<Definition>>,
    /// The deployments that serve the workflow now.
    pub deployments: BTreeSet<String>,
}

/// Collects registrations one by one, in any order.
#[derive(Debug, Default)]
pub struct Gathering {
    active: HashSet<String>,
    /// By id: UUIDs of version 7 begin with the time, so this is the order of age.
    newest: BTreeMap<String, RegistrationStatus>,
    deployments: BTreeSet<String>,
    shown: Option<(bool, Registration)>,
}

impl Gathering {
    /// Starts empty. A live worker serves the registrations with these ids.
    pub fn new(active: HashSet<String>) -> Self {
        Self { active, ..Self::default() }
    }

    pub fn add(&mut self, row: Registration) {
        let active = self.active.contains(&row.id);
        let deployment = row.deployment_name.clone();
        if active {
            self.deployments.extend(deployment.clone());
        }
        self.newest.insert(row.id.clone(), RegistrationStatus { id: row.id.clone(), deployment, active });
        if self.newest.len() > MAX_REGISTRATIONS {
            self.newest.pop_first();
        }
        if self.shown.as_ref().is_none_or(|(is_active, shown)| (*is_active, &shown.id) < (active, &row.id)) {
            self.shown = Some((active, row));
        }
    }

    /// The result, once all rows have been added.
    pub fn versions(self) -> Versions {
        Versions {
            newest: self.newest.into_values().rev().collect(),
            definition: self.shown.map(|(_, row)| Box::new(definition(row))),
            deployments: self.deployments,
        }
    }
}

fn definition(registration: Registration) -> Definition {
    let wire::Definition { input_schema, output_schema, signals, queries, updates, execution_timeout, on_behalf_of } =
        registration.definition.unwrap_or_default();
    let mut left_out = Vec::new();
    let mut schema = |what: &str, schema: Option<Json>| -> Option<Json> {
        let schema = schema?.compact();
        match schema.is_keepable() {
            Ok(()) => Some(schema),
            Err(why) => {
                left_out.push(format!("The {what} schema {why}."));
                None
            }
        }
    };
    let (mut input, mut output) = (schema("input", input_schema), schema("output", output_schema));
    let bytes: usize = [&input, &output].into_iter().flatten().map(|schema| schema.text().len()).sum();
    if bytes > MAX_SCHEMAS {
        (input, output) = (None, None);
        left_out.push(format!("The schemas have {bytes} bytes, and the status holds at most {MAX_SCHEMAS}."));
    }
    let mut names = |what: &str, names: Vec<String>| -> Vec<String> {
        let all = names.len();
        let names: Vec<String> =
            names.into_iter().filter(|name| name.len() <= MAX_HANDLER).take(MAX_HANDLERS).collect();
        if names.len() < all {
            left_out.push(format!(
                "{} of {all} {what} are left out: at most {MAX_HANDLERS} are shown, with names of at most {MAX_HANDLER} bytes.",
                all - names.len()
            ));
        }
        names
    };
    let (signals, queries, updates) = (names("signals", signals), names("queries", queries), names("updates", updates));
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond i64 saturates, which is as good as any")]
    Definition {
        registration_id: registration.id,
        input_schema: input,
        output_schema: output,
        schemas_omitted: (!left_out.is_empty()).then(|| left_out.join(" ")),
        signals,
        queries,
        updates,
        execution_timeout_seconds: execution_timeout.map(|seconds| seconds as i64),
        on_behalf_of: on_behalf_of == Some(true),
    }
}

/// The definition, spelled as in the status where that holds the same: the API server orders the fields of objects and
/// spells numbers and texts in its own way, and another spelling is no reason to write.
pub fn as_written(definition: Definition, old: Option<&Definition>) -> Definition {
    let Some(old) = old else { return definition };
    let same = |new: Option<Json>, old: &Option<Json>| match (new, old) {
        (Some(new), Some(old)) if is_same(&new, old) => Some(old.clone()),
        (new, _) => new,
    };
    Definition {
        input_schema: same(definition.input_schema, &old.input_schema),
        output_schema: same(definition.output_schema, &old.output_schema),
        ..definition
    }
}

fn is_same(a: &Json, b: &Json) -> bool {
    use serde_json::Value;
    // The recursion is bounded: both values are shallow.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
            }
            (a, b) => a == b,
        }
    }
    let value = |json: &Json| {
        json.is_keepable().ok()?;
        serde_json::from_str::<Value>(json.text()).ok()
    };
    a == b || value(a).zip(value(b)).is_some_and(|(a, b)| same(&a, &b))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json::MAX_DEPTH;

    fn registration(id: &str, definition: &str) -> Registration {
        let text = format!(r#"{{"id":"{id}","workflow_id":"w","deployment_name":"d-{id}","definition":{definition}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn shown(definition: &str) -> Definition {
        let mut gathering = Gathering::default();
        gathering.add(registration("r", definition));
        *gathering.versions().definition.unwrap()
    }

    #[test]
    fn of_thousands_in_any_order_only_the_newest_and_one_definition_are_kept() {
        let id = |n: usize| format!("{n:05}");
        let active = HashSet::from([id(7), id(4000)]);
        let mut gathering = Gathering::new(active);
        for n in (0..5000).map(|n| (n * 1237) % 5000) {
            gathering.add(registration(&id(n), &format!(r#"{{"input_schema":{{"title":"{n}"}}}}"#)));
            assert!(gathering.newest.len() <= MAX_REGISTRATIONS);
        }
        let versions = gathering.versions();
        let ids: Vec<&str> = versions.newest.iter().map(|row| row.id.as_str()).collect();
        let expected: Vec<String> = (4980..5000).rev().map(id).collect();
        assert_eq!(ids, expected);
        assert_eq!(versions.deployments, BTreeSet::from(["d-00007".to_owned(), "d-04000".to_owned()]));
        let definition = versions.definition.unwrap();
        assert_eq!(definition.registration_id, "04000");
        assert_eq!(definition.input_schema.unwrap().text(), r#"{"title":"4000"}"#);
    }

    #[test]
    fn a_schema_that_kubernetes_cannot_hold_is_left_out_and_that_is_said() {
        let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        for (schema, words) in [
            (deep(MAX_DEPTH + 1), "nested 65 levels deep"),
            (deep(119), "nested 119 levels deep"),
            (deep(100_000), "nested 100000 levels deep"),
            (r#"{"maximum":1e400}"#.to_owned(), "1e400"),
            (r#"{"title":"\udce9"}"#.to_owned(), "half of a character"),
        ] {
            let it = shown(&format!(r#"{{"input_schema":{schema},"output_schema":{{"type":"object"}}}}"#));
            assert_eq!((it.input_schema, it.output_schema.unwrap().text()), (None, r#"{"type":"object"}"#));
            let said = it.schemas_omitted.unwrap();
            assert!(said.starts_with("The input schema ") && said.contains(words), "{said}");
        }
        let whole = shown(&format!(r#"{{"input_schema":{}}}"#, deep(MAX_DEPTH)));
        assert!(whole.input_schema.is_some() && whole.schemas_omitted.is_none());
    }

    #[test]
    fn what_is_too_much_for_a_status_is_left_out_and_that_is_said() {
        let large = json!({ "input_schema": { "description": "x".repeat(40_000) }, "output_schema": {} });
        let it = shown(&large.to_string());
        assert_eq!((it.input_schema, it.output_schema), (None, None));
        assert!(it.schemas_omitted.unwrap().contains("bytes, and the status holds at most 32768"));
        let signals: Vec<Value> = (0..150).map(|n| json!({ "name": format!("s{n}") })).collect();
        let it = shown(
            &json!({ "signals": signals, "queries": [{ "name": "q".repeat(1000) }, { "name": "q" }] }).to_string(),
        );
        assert_eq!((it.signals.len(), it.queries.as_slice()), (100, ["q".to_owned()].as_slice()));
        let said = it.schemas_omitted.unwrap();
        assert!(
            said.contains("50 of 150 signals are left out") && said.contains("1 of 2 queries are left out"),
            "{said}"
        );
    }

    #[test]
    fn another_spelling_of_the_same_schema_is_no_news() {
        let written = shown(r#"{"input_schema":{"a":1,"b":{"c":"<é>","d":[1,2]}}}"#);
        let again = shown(r#"{"input_schema":{"b":{"d":[1.0,2e0],"c":"\u003c\u00e9>"},"a":1}}"#);
        assert_ne!(written, again);
        assert_eq!(as_written(again, Some(&written)), written);
        for other in [r#"{"a":1,"b":{"c":"<é>","d":[2,1]}}"#, r#"{"a":1}"#, r#"{"a":1,"b":null}"#] {
            let other = shown(&format!(r#"{{"input_schema":{other}}}"#));
            assert_eq!(as_written(other.clone(), Some(&written)), other);
        }
        // A schema that an older operator wrote is replaced.
        let deep = Json::from_text(format!("{}{}", "[".repeat(1000), "]".repeat(1000)));
        let old = Definition { input_schema: deep, ..written.clone() };
        assert_eq!(as_written(written.clone(), Some(&old)), written);
    }
}
