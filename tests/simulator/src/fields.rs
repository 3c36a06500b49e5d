//! Checks of JSON bodies.

use serde_json::{Map, Value, json};

use crate::reply::ApiError;
use crate::validate::{Problem, boolean, unprocessable};

/// A field that may be absent, `null` or set.
pub(crate) enum Field<T> {
    Absent,
    Null,
    Value(T),
}

impl<T> Field<T> {
    /// For fields where `null` means absent.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }
}

/// The fields of a JSON body. Unknown ones are ignored.
pub(crate) struct Fields {
    object: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Fields {
    /// Parses a required body.
    pub(crate) fn parse(body: &[u8], content_type: Option<&str>) -> Result<Self, ApiError> {
        let refuse = |problem: Problem| unprocessable(vec![problem.inside("body")]);
        if body.is_empty() {
            return Err(refuse(Problem::new("missing", "Field required", &Value::Null)));
        }
        let is_json = content_type.is_none_or(|kind| kind.contains("json"));
        let parsed = if is_json { serde_json::from_slice(body) } else { Ok(String::from_utf8_lossy(body).into()) };
        match parsed {
            Ok(Value::Object(object)) => Ok(Self { object, problems: Vec::new() }),
            Ok(other) => Err(refuse(Problem::new(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
                &other,
            ))),
            Err(error) => Err(refuse(
                Problem::new("json_invalid", "JSON decode error", &json!({}))
                    .inside(error.column())
                    .with_context(json!({ "error": error.to_string() })),
            )),
        }
    }

    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(unprocessable(self.problems)) }
    }

    /// Checks a nullable field.
    pub(crate) fn take<T>(&mut self, name: &str, check: impl FnOnce(Value) -> Result<T, Problem>) -> Field<T> {
        match self.object.remove(name) {
            None => Field::Absent,
            Some(Value::Null) => Field::Null,
            Some(value) => match check(value) {
                Ok(value) => Field::Value(value),
                Err(problem) => {
                    self.report(name, problem);
                    Field::Absent
                }
            },
        }
    }

    /// Checks a field that has a default and may not be `null`.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        match self.object.remove(name) {
            None => false,
            Some(value) => boolean(value).unwrap_or_else(|problem| {
                self.report(name, problem);
                false
            }),
        }
    }

    /// Checks a required field. The result counts only if `finish` finds no problem.
    pub(crate) fn required<T: Default>(&mut self, name: &str, check: impl FnOnce(Value) -> Result<T, Problem>) -> T {
        let checked = match self.object.remove(name) {
            Some(value) => check(value),
            None => {
                let whole = Value::Object(self.object.clone());
                Err(Problem::new("missing", "Field required", &whole))
            }
        };
        checked.unwrap_or_else(|problem| {
            self.report(name, problem);
            T::default()
        })
    }

    pub(crate) fn report(&mut self, name: &str, problem: Problem) {
        self.problems.push(problem.inside(name).inside("body"));
    }
}
