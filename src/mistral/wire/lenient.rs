//! Readers of fields that take a value of an unexpected type for an absent one.

use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::json::{self, Json, Rows};

/// The live API sends booleans. Some of its published examples have strings instead.
pub fn lenient_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let flag = Json::deserialize(deserializer)?;
    Ok(match flag.string().as_deref().unwrap_or(flag.text()) {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    })
}

/// A list of strings. Items of other types are left out.
pub fn lenient_strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let items: Option<Vec<Json>> = json::lenient(deserializer)?;
    Ok(items.map(|items| items.iter().filter_map(Json::string).collect()))
}

/// Items of a list, each decoded on its own. Unreadable items are left out. Anything but a list counts as empty.
pub fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let items: Option<Rows<T>> = json::lenient(deserializer)?;
    Ok(items.map(|items| items.rows).unwrap_or_default())
}

/// RFC 3339, or what Python's `str()` makes of a time. Any other text counts as absent, so that the rest of the
/// response is not lost.
pub fn lenient_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(json::lenient_string(deserializer)?.and_then(|text| {
        text.parse().ok().or_else(|| {
            let local: DateTime = text.parse().ok()?;
            Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
        })
    }))
}

/// Nested `levels` deep, around a number and half of a character, both of which `serde_json` refuses.
#[cfg(test)]
pub fn odd(levels: usize) -> String {
    format!(r#"{}[1e400,"\udce9"]{}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels))
}
