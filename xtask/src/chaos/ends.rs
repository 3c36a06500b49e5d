//! Checks the end of a resource: it must match the run's end or, where nothing may run, have the right reason.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::ledger::Around;
use super::poison::Poison;
use super::record::Seen;
use super::told::{is_deep, is_long};
use super::values::{Kept, composed, result};
use super::workflows::{self, ERROR};

/// Times in the status have whole seconds. All clocks are this machine's.
const ROUNDING: i64 = 1;

/// The reason of the end.
pub fn reason(seen: &Seen) -> Option<&str> {
    let all = seen.status["conditions"].as_array()?;
    let end = all.iter().find(|it| (it["type"] == "Complete" || it["type"] == "Failed") && it["status"] == "True")?;
    end["reason"].as_str()
}

/// Whether the resource ended without a run, for a reason that the test requested.
pub fn is_without_run(seen: &Seen) -> bool {
    let asked = match reason(seen) {
        Some("Canceled") => seen.shutdowns.contains_key("Cancel"),
        Some("Terminated") => seen.shutdowns.contains_key("Terminate"),
        Some("StartingDeadlineExceeded") => seen.seconds("startingDeadlineSeconds").is_some(),
        // The API refuses inputs of this depth.
        Some("InputRejected") => seen.is_poison(Poison::TooDeep),
        _ => false,
    };
    asked && seen.status["status"].is_null() && !seen.started
}

/// What is wrong with the end of a resource that ran nothing.
pub fn without_run(seen: &Seen) -> Option<String> {
    let exceeded = reason(seen) == Some("StartingDeadlineExceeded");
    let deadline = seen.created.zip(seen.seconds("startingDeadlineSeconds"));
    let early = exceeded
        && deadline.is_some_and(|(created, seconds)| is_before(time(&seen.status["endTime"]), created, seconds));
    early.then(|| format!("its starting deadline had not passed; its status is {}", seen.status))
}

/// What is wrong with the end of a resource whose run is in the ledger.
pub fn with_run(entry: &Value, seen: &Seen, around: &Around) -> Option<String> {
    let status = &seen.status;
    let word = entry["status"].as_str().unwrap_or_default();
    let deadline = seen.seconds("activeDeadlineSeconds").is_some();
    let (condition, reason, message) = match word {
        "COMPLETED" => ("Complete", "Completed", None),
        "FAILED" => ("Failed", "WorkflowFailed", Some(ERROR)),
        "TIMED_OUT" => ("Failed", "TimedOut", None),
        "CANCELED" | "TERMINATED" if deadline => ("Failed", "DeadlineExceeded", None),
        "CANCELED" => ("Failed", "Canceled", None),
        "TERMINATED" => ("Failed", "Terminated", None),
        _ => return Some(format!("the resource says that it has ended, and the simulator has {word}")),
    };
    let name = seen.spec["result"]["to"]["configMap"]["name"].as_str();
    let odd = entry["workflow_name"].as_str().and_then(workflows::odd_result);
    let shown = odd.as_ref().map_or_else(|| composed(&seen.name, &seen.spec, true), |odd| result(odd));
    // Results that no status can hold or, with a ConfigMap, no object.
    let unwritten = word == "COMPLETED"
        && match name {
            None => odd.is_some() || is_deep(&shown),
            Some(_) => odd.as_ref().is_some_and(|odd| odd.contains("NaN")),
        };
    // After the API server refused a status, the operator may have written one without the result.
    let refused = seen.refused && seen.has_reason("ResultNotWritten", "ResultRefused");
    let left_out = unwritten || refused || is_long(&shown);
    let told = if word == "COMPLETED" && name.is_none() && !left_out { &shown } else { &Value::Null };
    let failure = &status["failure"];
    let is_so = status["status"] == word
        && seen.is_true(condition)
        && self::reason(seen) == Some(reason)
        && status["result"] == *told
        && seen.is_true("ResultNotWritten") == (unwritten || refused)
        && failure["reason"].as_str() == (condition == "Failed").then_some(reason)
        && message.is_none_or(|message| failure["message"] == message);
    if !is_so {
        return Some(format!("the simulator has {word} and the input {}; its status is {status}", entry["input"]));
    }
    if let Some(name) = name {
        let wanted =
            (word == "COMPLETED" && !left_out).then(|| Kept { owner: seen.uid.clone(), result: shown.clone() });
        let reference = wanted.as_ref().map_or(Value::Null, |_| json!({ "kind": "ConfigMap", "name": name }));
        let kept = around.results.get(name);
        if kept != wanted.as_ref() || status["resultRef"] != reference {
            return Some(format!(
                "the simulator has {word}, ConfigMap {name} has {kept:?}, and its status is {status}"
            ));
        }
    }
    stop(entry, seen).map(|wrong| format!("{wrong}; the ledger has {entry}, its status is {status}"))
}

/// What is wrong with the stop of a run: not as requested, or too early.
fn stop(entry: &Value, seen: &Seen) -> Option<&'static str> {
    let word = entry["status"].as_str().unwrap_or_default();
    let end = time(&entry["end_time"]);
    let grace = seen.seconds("terminationGracePeriodSeconds").unwrap_or(30);
    let cancel = seen.shutdowns.get("Cancel").copied();
    let terminate = seen.shutdowns.get("Terminate").copied();
    if seen.unwanted || !["CANCELED", "TERMINATED"].contains(&word) {
        return None;
    }
    if let Some((start, seconds)) = time(&entry["start_time"]).zip(seen.seconds("activeDeadlineSeconds")) {
        let least = if word == "TERMINATED" { seconds + grace } else { seconds };
        return is_before(end, start, least).then_some("its active deadline or the grace after it had not passed");
    }
    match (word, cancel, terminate) {
        ("CANCELED", None, Some(_)) => Some("it was to be terminated, and was canceled"),
        ("TERMINATED", Some(asked), None) if is_before(end, asked, grace) => Some("its grace had not passed"),
        (_, Some(asked), None) | (_, None, Some(asked)) if is_before(end, asked, 0) => {
            Some("nobody had asked to stop it")
        }
        _ => None,
    }
}

/// Whether `moment` lies less than this many seconds after `start`.
pub fn is_before(moment: Option<Timestamp>, start: Timestamp, seconds: i64) -> bool {
    moment.is_none_or(|moment| moment.duration_since(start) < SignedDuration::from_secs(seconds - ROUNDING))
}

/// A time in the format of both sides.
pub fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
