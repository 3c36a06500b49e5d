//! Puts the values of ConfigMaps and Secrets where their paths point in `spec.input`.

use serde_json::Value;

use super::sources::{InputError, MAX_INPUT, Sources, entries, invalid, value};
use crate::api::WorkflowExecutionSpec;
use crate::json::Json;
use crate::mistral::Redactor;

/// Maximum number of Secret values to search texts for: a search must not take long.
pub(super) const MAX_SECRET_VALUES: usize = 256;

/// Composes the whole input.
///
/// # Errors
/// What is missing or wrong, in words.
pub fn compose(spec: &WorkflowExecutionSpec, sources: &Sources) -> Result<Option<Json>, InputError> {
    let entries = entries(spec);
    if entries.is_empty() {
        return Ok(spec.input.clone());
    }
    let mut input = Part::of(spec.input.as_ref());
    let (mut secret_values, mut secret_bytes) = (0, 0);
    for entry in entries {
        let value = value(entry, sources)?;
        if entry.secret_key_ref.is_some() {
            value.leaves(|leaf| {
                if Redactor::covers(leaf) {
                    (secret_values, secret_bytes) = (secret_values + 1, secret_bytes + leaf.len());
                }
            });
        }
        insert(&mut input, &entry.path, value).map_err(invalid)?;
    }
    if secret_values > MAX_SECRET_VALUES {
        return Err(invalid(format!(
            "spec.inputFrom reads {secret_values} values from Secrets, and the operator can redact at most {MAX_SECRET_VALUES}; read the JSON as a String, or let the workflow read the Secret itself"
        )));
    }
    if secret_bytes > Redactor::MOST {
        return Err(invalid(format!(
            "spec.inputFrom reads {secret_bytes} bytes from Secrets, and the operator can redact at most {}; let the workflow read the Secret itself",
            Redactor::MOST
        )));
    }
    let input = input.json();
    let bytes = input.text().len();
    if bytes > MAX_INPUT {
        return Err(invalid(format!(
            "with the values of spec.inputFrom, the input has {bytes} bytes, and the API takes 2 MB; make it smaller"
        )));
    }
    Ok(Some(input))
}

/// Checks that each path fits into `spec.input`. Only another manifest can resolve a collision.
pub(crate) fn check_paths(spec: &WorkflowExecutionSpec) -> Result<(), String> {
    let mut input = Part::of(spec.input.as_ref());
    let null = Json::from(&Value::Null);
    entries(spec).iter().try_for_each(|entry| insert(&mut input, &entry.path, null.clone()))
}

/// A part of an input that is being composed. Only the paths where values are inserted are parsed. The rest stays text,
/// so numbers keep their spelling and no nesting is too deep.
enum Part {
    Text(Json),
    Object(Vec<(String, Part)>),
}

impl Part {
    /// An input to insert values into. A missing input is an empty object.
    fn of(input: Option<&Json>) -> Self {
        input.map_or_else(|| Self::Object(Vec::new()), |input| Self::Text(input.clone()))
    }

    /// Its fields. None if it is not an object.
    fn fields(&mut self) -> Option<&mut Vec<(String, Part)>> {
        if let Self::Text(json) = self {
            let fields = json.fields()?;
            *self = Self::Object(fields.into_iter().map(|(name, value)| (name, Self::Text(value))).collect());
        }
        match self {
            Self::Object(fields) => Some(fields),
            Self::Text(_) => None,
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Text(json) => text.push_str(json.text()),
            // Recurses as deep as the longest path, which the CRD limits.
            Self::Object(fields) => {
                text.push('{');
                for (n, (name, part)) in fields.iter().enumerate() {
                    text.push_str(if n == 0 { "" } else { "," });
                    text.push_str(&Value::from(name.as_str()).to_string());
                    text.push(':');
                    part.write(text);
                }
                text.push('}');
            }
        }
    }

    fn json(self) -> Json {
        let mut text = String::new();
        self.write(&mut text);
        // Composed of JSON, the text is JSON.
        Json::from_text(text).unwrap_or_else(|| Json::from(&Value::Null))
    }
}

/// Inserts a value where a JSON Pointer points, and creates the objects on the way.
fn insert(input: &mut Part, path: &str, value: Json) -> Result<(), String> {
    let names = path.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
    let names: Vec<String> = names.collect();
    let mut at = input;
    for (n, name) in names.iter().enumerate() {
        let Some(fields) = at.fields() else {
            return Err(format!("The path {path} of spec.inputFrom leads through a value that is not an object"));
        };
        let there = fields.iter().position(|(field, _)| field == name);
        let is_last = n + 1 == names.len();
        let index = match there {
            Some(_) if is_last => {
                return Err(format!("The path {path} of spec.inputFrom already has a value in spec.input"));
            }
            Some(index) => index,
            None if is_last => {
                fields.push((name.clone(), Part::Text(value)));
                return Ok(());
            }
            None => {
                fields.push((name.clone(), Part::Object(Vec::new())));
                fields.len() - 1
            }
        };
        at = &mut fields[index].1;
    }
    Ok(())
}
