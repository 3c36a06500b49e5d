//! Whether a run found under an explicit id is the one that the spec asks for.

use crate::execution::Guarded;
use crate::execution::claim::{self, ClaimAnnotation};
use crate::execution::state::{Comparison, ExecutionState};
use crate::json::{Json, MAX_DEPTH};

/// Maximum characters of the path to a difference in a message.
const MAX_PLACE: usize = 200;

/// Whether another resource in this cluster has claimed the same run with the same digest.
pub(crate) fn is_claimed_alike(state: &ExecutionState, other: &Guarded) -> bool {
    let (ClaimAnnotation::Claim(ours), Ok(other)) = (&state.annotation, &other.0) else { return false };
    if other.metadata.uid.as_ref() == Some(&state.uid) {
        return false;
    }
    match ClaimAnnotation::read(other.metadata.annotations.as_ref()) {
        ClaimAnnotation::Claim(theirs) => {
            (&theirs.execution_id, &theirs.origin, &theirs.workspace_id)
                == (&ours.execution_id, &ours.origin, &ours.workspace_id)
                && !theirs.read_only
                && theirs.digest == claim::digest(&state.spec)
        }
        ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => false,
    }
}

/// Compares the input that the spec asks for with the arguments in the first event of the run.
///
/// A worker may add fields that have defaults, so only fields that the spec asks for have to be there.
pub(crate) fn with_arguments(asked: Option<&Json>, arguments: Option<&Json>) -> Comparison {
    let unknown = |why: &str| Comparison::Unknown(why.to_owned());
    let Some(arguments) = arguments else { return unknown("no event shows the input") };
    let Ok(list) = serde_json::from_str::<Vec<Json>>(arguments.text()) else {
        return unknown("the worker encodes the input");
    };
    let empty = Json::from(&serde_json::json!({}));
    let there = match list.as_slice() {
        [] => &empty,
        [one] => one,
        _ => return unknown("the workflow takes several arguments"),
    };
    let there = if there.is_null() { &empty } else { there };
    let asked = asked.filter(|asked| !asked.is_null()).unwrap_or(&empty);
    if asked.depth().max(there.depth()) > MAX_DEPTH {
        return unknown("the input is nested too deep");
    }
    match difference(asked, there, &mut String::new()) {
        None => Comparison::Same,
        Some(place) => {
            let place: String = place.chars().take(MAX_PLACE).collect();
            Comparison::OtherInput(if place.is_empty() { "as a whole".to_owned() } else { format!("at {place}") })
        }
    }
}

/// The path of the first difference; none if the arguments contain all that is asked for. Recurses as deep as the
/// shallower of the two.
fn difference(asked: &Json, there: &Json, place: &mut String) -> Option<String> {
    if let (Some(asked), Some(there)) = (asked.fields(), there.fields()) {
        return asked.iter().find_map(|(name, asked)| {
            let there = there.iter().find(|(field, _)| field == name).map(|(_, there)| there);
            within(place, name, |place| match there {
                Some(there) => difference(asked, there, place),
                None if asked.is_null() => None,
                None => Some(place.clone()),
            })
        });
    }
    let list = |json: &Json| serde_json::from_str::<Vec<Json>>(json.text()).ok();
    if let (Some(asked), Some(there)) = (list(asked), list(there)) {
        if asked.len() != there.len() {
            return Some(place.clone());
        }
        return asked
            .iter()
            .zip(&there)
            .enumerate()
            .find_map(|(n, (asked, there))| within(place, &n.to_string(), |place| difference(asked, there, place)));
    }
    let same = match (number(asked), number(there)) {
        (Some(asked), Some(there)) => is_same_number(asked, there),
        _ => asked.normal() == there.normal(),
    };
    (!same).then(|| place.clone())
}

fn within(place: &mut String, name: &str, of: impl FnOnce(&mut String) -> Option<String>) -> Option<String> {
    let length = place.len();
    place.push('/');
    place.push_str(&name.replace('~', "~0").replace('/', "~1"));
    let found = of(place);
    place.truncate(length);
    found
}

fn number(json: &Json) -> Option<&str> {
    Some(json.text()).filter(|text| text.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
}

/// A worker may write a number differently: 1E2 as 100.0. Two long integers are compared by their spelling.
fn is_same_number(asked: &str, there: &str) -> bool {
    let is_float = |text: &str| text.contains(['.', 'e', 'E']);
    let value = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
    asked == there || ((is_float(asked) || is_float(there)) && value(asked).is_some() && value(asked) == value(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(asked: &str, arguments: &str) -> Comparison {
        let json = |text: &str| Json::from_text(text.to_owned()).unwrap();
        with_arguments(Some(&json(asked)), Some(&json(arguments)))
    }

    #[test]
    fn an_input_is_the_same_however_a_worker_writes_it_and_whatever_it_adds() {
        for (asked, arguments) in [
            (r#"{"a":1}"#, r#"[{"a":1}]"#),
            (r#"{"a":1,"n":null}"#, r#"[{"b":[2],"a":1.0}]"#),
            (r#"{"a":"\u00fc","e":1E2}"#, r#"[{"e":100.0,"a":"ü"}]"#),
            (r#"{"a":[1,{"b":true}]}"#, r#"[{"a":[1,{"b":true,"c":0}]}]"#),
            ("{}", "[]"),
            ("null", "[null]"),
            (r#"{"big":20000000000000000001}"#, r#"[{"big":20000000000000000001}]"#),
        ] {
            assert_eq!(compared(asked, arguments), Comparison::Same, "{asked} {arguments}");
        }
    }

    #[test]
    fn another_input_is_told_by_its_place_and_never_by_its_value() {
        for (asked, arguments, place) in [
            (r#"{"a":1}"#, r#"[{"a":2}]"#, "at /a"),
            (r#"{"a":1}"#, "[{}]", "at /a"),
            (r#"{"a":{"b/c":["x","y"]}}"#, r#"[{"a":{"b/c":["x","z"]}}]"#, "at /a/b~1c/1"),
            (r#"{"a":[1]}"#, r#"[{"a":[1,2]}]"#, "at /a"),
            (r#"{"a":1}"#, r#"[{"a":"1"}]"#, "at /a"),
            (r#"{"a":20000000000000000001}"#, r#"[{"a":20000000000000000002}]"#, "at /a"),
            (r#"{"a":1}"#, r#"["text"]"#, "as a whole"),
        ] {
            assert_eq!(compared(asked, arguments), Comparison::OtherInput(place.into()), "{asked} {arguments}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_not_taken_for_another_input() {
        let deep = format!("[{}1{}]", "[".repeat(200), "]".repeat(200));
        for arguments in [r#""b2s=""#, "[1,2]", &deep] {
            assert!(matches!(compared("{}", arguments), Comparison::Unknown(_)), "{arguments}");
        }
        assert!(matches!(with_arguments(None, None), Comparison::Unknown(_)));
    }
}
