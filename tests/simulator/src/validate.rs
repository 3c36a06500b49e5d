//! Checks of values. Problems are reported as a FastAPI server does: a `422` with one entry per problem.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::reply::ApiError;

/// One problem of a value.
pub(crate) struct Problem {
    /// The path inside the checked value, outermost first.
    at: Vec<Value>,
    entry: Value,
}

impl Problem {
    pub(crate) fn new(kind: &str, message: impl Into<String>, input: &Value) -> Self {
        let message = message.into();
        Self { at: Vec::new(), entry: json!({ "type": kind, "msg": message, "input": input }) }
    }

    pub(crate) fn with_context(mut self, context: Value) -> Self {
        self.entry["ctx"] = context;
        self
    }

    /// Moves the problem into an enclosing value.
    pub(crate) fn inside(mut self, at: impl Into<Value>) -> Self {
        self.at.insert(0, at.into());
        self
    }

    fn into_json(mut self) -> Value {
        self.entry["loc"] = self.at.into();
        self.entry
    }
}

/// The answer to a request with problems.
pub(crate) fn unprocessable(problems: Vec<Problem>) -> ApiError {
    let detail: Vec<Value> = problems.into_iter().map(Problem::into_json).collect();
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, json!({ "detail": detail }))
}

/// A UUID in the path.
pub(crate) fn path_uuid(name: &str, text: &str) -> Result<Uuid, ApiError> {
    uuid(&Value::from(text)).map_err(|problem| unprocessable(vec![problem.inside(name).inside("path")]))
}

pub(crate) fn uuid(value: &Value) -> Result<Uuid, Problem> {
    value
        .as_str()
        .and_then(|text| Uuid::parse_str(text).ok())
        .ok_or_else(|| Problem::new("uuid_parsing", "Input should be a valid UUID", value))
}

pub(crate) fn boolean(value: Value) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| Problem::new("bool_type", "Input should be a valid boolean", &value))
}

pub(crate) fn number(value: Value) -> Result<f64, Problem> {
    value.as_f64().ok_or_else(|| Problem::new("float_type", "Input should be a valid number", &value))
}

pub(crate) fn text(value: Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Problem::new("string_type", "Input should be a valid string", &other)),
    }
}

/// A string of at most `max` characters.
pub(crate) fn short_text(value: Value, max: usize) -> Result<String, Problem> {
    let text = text(value)?;
    if text.chars().count() <= max {
        return Ok(text);
    }
    let message = format!("String should have at most {max} characters");
    Err(Problem::new("string_too_long", message, &text.into()).with_context(json!({ "max_length": max })))
}

pub(crate) fn object(value: Value) -> Result<Value, Problem> {
    if value.is_object() {
        return Ok(value);
    }
    Err(Problem::new("dict_type", "Input should be a valid dictionary", &value))
}

/// An object whose values are strings.
pub(crate) fn string_map(value: Value) -> Result<Value, Problem> {
    let map = object(value)?;
    for (key, value) in map.as_object().into_iter().flatten() {
        if !value.is_string() {
            let problem = Problem::new("string_type", "Input should be a valid string", value);
            return Err(problem.inside(key.as_str()));
        }
    }
    Ok(map)
}

/// A list of at most `max` items that each pass `check`.
pub(crate) fn list<T>(
    value: Value,
    max: Option<usize>,
    check: impl Fn(Value) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let Value::Array(items) = value else {
        let message = "Input should be a valid list";
        return Err(Problem::new("list_type", message, &value));
    };
    if let Some(max) = max.filter(|max| items.len() > *max) {
        let length = items.len();
        return Err(too_long(&Value::Array(items), length, max));
    }
    let checked = items.into_iter().enumerate();
    checked.map(|(index, item)| check(item).map_err(|problem| problem.inside(index))).collect()
}

/// A list of 1 to `max` items that each pass `check`.
pub(crate) fn filled_list<T>(
    value: Value,
    max: usize,
    check: impl Fn(Value) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    if value.as_array().is_some_and(Vec::is_empty) {
        let message = "List should have at least 1 item after validation, not 0";
        let context = json!({ "field_type": "List", "min_length": 1, "actual_length": 0 });
        return Err(Problem::new("too_short", message, &value).with_context(context));
    }
    list(value, Some(max), check)
}

pub(crate) fn too_long(input: &Value, length: usize, max: usize) -> Problem {
    let message = format!("List should have at most {max} items after validation, not {length}");
    Problem::new("too_long", message, input).with_context(json!({
        "field_type": "List", "max_length": max, "actual_length": length,
    }))
}
