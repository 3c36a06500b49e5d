//! The simulator's books against what the API server has recorded of the resources.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::record::Seen;
use super::workflows::ERROR;

/// What does not agree, each with the names that it is about.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Starts, in all.
    pub starts: u64,
    /// Starts beyond the first of an execution id.
    pub duplicates: u64,
    /// Runs that were asked for and never started.
    pub losses: u64,
    /// Runs that go on since the API server deleted their resources past a finalizer that came in that moment.
    pub overtaken: u64,
    /// What is wrong, in words.
    pub complaints: Vec<String>,
}

/// Compares, at the very end. `present` are the resources that nobody deleted before all was over, `recorded` all that
/// there ever were, and `abandoned` runs were left alone after five minutes.
pub fn compare(books: &[Value], recorded: &[Seen], present: &[Seen], abandoned: u64) -> Findings {
    let mut findings = Findings::default();
    for entry in books {
        let id = entry["execution_id"].as_str().unwrap_or_default();
        let starts = entry["starts"].as_u64().unwrap_or_default();
        findings.starts += starts;
        let claimants: Vec<&Seen> = recorded.iter().filter(|seen| seen.is_of(id)).collect();
        let names = names(&claimants);
        if claimants.is_empty() {
            findings.complain(format!("{id} was started, and no resource asked for it"));
            continue;
        }
        if starts > 1 {
            findings.duplicates += starts - 1;
            findings.complain(format!("{id} ({names}) was started {starts} times"));
        }
        if !claimants.iter().any(|seen| seen.claimed || seen.vanished) {
            findings.complain(format!("{id} ({names}) was started, and no claim was ever recorded"));
        }
        if !claimants.iter().any(|seen| agrees(entry, seen)) {
            let (workflow, input) = (&entry["workflow_name"], &entry["input"]);
            findings.complain(format!("{id} ({names}) ran {workflow} with {input}, which nobody asked for"));
        }
    }
    let started =
        |seen: &Seen| books.iter().any(|entry| seen.is_of(entry["execution_id"].as_str().unwrap_or_default()));
    let there: HashSet<&str> = present.iter().map(|seen| seen.uid.as_str()).collect();
    for seen in recorded {
        let is_present = there.contains(seen.uid.as_str());
        // One that is gone must have run only if its status said so.
        let must = if is_present { !seen.is_held_back() } else { seen.started };
        if must && !started(seen) {
            findings.losses += 1;
            findings.complain(format!("{} was never started; its status is {}", seen.name, seen.status));
        }
    }
    for seen in present {
        if let Some(complaint) = end(books, seen) {
            findings.complain(format!("{}: {complaint}", seen.name));
        }
    }
    findings.check_stops(books, recorded, abandoned);
    findings
}

impl Findings {
    fn complain(&mut self, text: String) {
        self.complaints.push(text);
    }

    /// What was to be stopped has stopped, and what was to be left alone was.
    fn check_stops(&mut self, books: &[Value], recorded: &[Seen], abandoned: u64) {
        let mut running = Vec::new();
        for entry in books {
            let id = entry["execution_id"].as_str().unwrap_or_default();
            let claimants: Vec<&Seen> = recorded.iter().filter(|seen| seen.is_of(id)).collect();
            let names = names(&claimants);
            let orphan = claimants.iter().all(|seen| seen.spec["deletionPolicy"] == "Orphan");
            let status = entry["status"].as_str().unwrap_or_default();
            let is_stopped = entry["cancel_requested"] == json!(true) || ["CANCELED", "TERMINATED"].contains(&status);
            if orphan && is_stopped {
                self.complain(format!("{id} ({names}) was to be left alone, and was stopped: {status}"));
            } else if status == "RUNNING" && claimants.iter().any(|seen| seen.overtaken) {
                self.overtaken += 1;
            } else if !orphan && status == "RUNNING" {
                running.push(format!("{id} ({names})"));
            }
        }
        if running.len() as u64 > abandoned {
            let which = running.join(", ");
            self.complain(format!("still running, although only {abandoned} were left alone after 5 minutes: {which}"));
        }
    }
}

fn names(claimants: &[&Seen]) -> String {
    claimants.iter().map(|seen| seen.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether the run is what the spec says. A Workflow resource has the name of its workflow here.
fn agrees(entry: &Value, seen: &Seen) -> bool {
    let named = seen.spec["workflowIdentifier"].as_str().or(seen.spec["workflowRef"]["name"].as_str());
    entry["workflow_name"].as_str() == named && entry["input"] == seen.spec["input"]
}

/// What is wrong about the end of a run whose resource is still there.
fn end(books: &[Value], seen: &Seen) -> Option<String> {
    let status = &seen.status;
    if seen.is_held_back() {
        let entry = books.iter().find(|entry| seen.is_of(entry["execution_id"].as_str().unwrap_or_default()));
        return entry.map(|_| "it was held back, and started all the same".to_owned());
    }
    if !seen.is_finished() {
        return Some(format!("it has not ended; its status is {status}"));
    }
    let entry = books.iter().find(|entry| entry["execution_id"] == status["executionId"])?;
    let word = entry["status"].as_str().unwrap_or_default();
    let (condition, reason, message) = match word {
        "COMPLETED" => ("Complete", None, None),
        "FAILED" => ("Failed", Some("WorkflowFailed"), Some(ERROR)),
        "TIMED_OUT" => ("Failed", Some("TimedOut"), None),
        "CANCELED" => ("Failed", Some("Canceled"), None),
        "TERMINATED" => ("Failed", Some("Terminated"), None),
        _ => return Some(format!("the resource says that it has ended, and the simulator has {word}")),
    };
    let result = if word == "COMPLETED" { &entry["input"] } else { &Value::Null };
    let failure = &status["failure"];
    let is_so = status["status"] == word
        && seen.is_true(condition)
        && status["result"] == *result
        && failure["reason"].as_str() == reason
        && message.is_none_or(|message| failure["message"] == message);
    (!is_so).then(|| format!("the simulator has {word} and the input {}; its status is {status}", entry["input"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            name: "run-1".into(),
            uid: "u1".into(),
            spec: json!({ "workflowIdentifier": "complete-0", "input": { "n": 1 } }),
            status: json!({
                "executionId": "run-1-u1", "status": "COMPLETED", "result": { "n": 1 },
                "conditions": [{ "type": "Complete", "status": "True" }],
            }),
            claimed: true,
            started: true,
            ..Seen::default()
        }
    }

    fn entry() -> Value {
        json!({
            "execution_id": "run-1-u1", "workflow_name": "complete-0", "input": { "n": 1 }, "starts": 1,
            "status": "COMPLETED", "cancel_requested": false,
        })
    }

    fn complaints(books: &[Value], seen: &Seen, present: bool) -> String {
        let all = std::slice::from_ref(seen);
        compare(books, all, if present { all } else { &[] }, 0).complaints.join("; ")
    }

    #[test]
    fn books_that_agree_are_accepted() {
        assert_eq!(complaints(&[entry()], &seen(), true), "");
        assert_eq!(complaints(&[entry()], &seen(), false), "");
    }

    #[test]
    fn a_second_start_is_counted_and_named() {
        let twice = json!({ "starts": 3 });
        let mut entry = entry();
        entry["starts"] = twice["starts"].clone();
        let found = compare(&[entry], &[seen()], &[seen()], 0);
        assert_eq!((found.starts, found.duplicates), (3, 2));
        assert_eq!(found.complaints, ["run-1-u1 (run-1) was started 3 times"]);
    }

    #[test]
    fn a_run_that_never_happened_is_a_loss_unless_its_resource_went_before_it_started() {
        let found = compare(&[], &[seen()], &[seen()], 0);
        assert_eq!(found.losses, 1);
        assert!(complaints(&[], &seen(), false).starts_with("run-1 was never started"));
        assert_eq!(complaints(&[], &Seen { started: false, ..seen() }, false), "");
    }

    #[test]
    fn a_start_without_a_claim_or_of_something_else_or_for_nobody_is_found() {
        let unclaimed = Seen { claimed: false, started: false, ..seen() };
        assert!(complaints(&[entry()], &unclaimed, false).contains("no claim was ever recorded"));
        let other = Seen { spec: json!({ "workflowIdentifier": "complete-0", "input": { "n": 2 } }), ..seen() };
        assert!(complaints(&[entry()], &other, false).contains("which nobody asked for"));
        assert!(complaints(&[entry()], &Seen { uid: "u2".into(), ..seen() }, false).contains("no resource asked"));
    }

    #[test]
    fn one_that_is_held_back_must_not_start() {
        let mut held = Seen { claimed: false, started: false, status: json!({}), ..seen() };
        held.spec["suspend"] = json!(true);
        assert_eq!(complaints(&[], &held, true), "");
        assert!(complaints(&[entry()], &held, true).contains("it was held back"));
    }

    #[test]
    fn an_end_that_is_not_the_simulators_is_found() {
        let with = |field: &str, value: Value| {
            let mut entry = entry();
            entry[field] = value;
            complaints(&[entry], &seen(), true)
        };
        assert!(with("status", json!("FAILED")).contains("the simulator has FAILED"));
        assert!(with("status", json!("RUNNING")).contains("still running"));
        let mut wrong = seen();
        wrong.status["result"] = json!({ "n": 2 });
        assert!(complaints(&[entry()], &wrong, true).contains("the simulator has COMPLETED"));
        assert!(complaints(&[entry()], &Seen { status: json!({}), ..seen() }, true).contains("has not ended"));
    }

    #[test]
    fn a_run_that_was_to_be_stopped_or_left_alone_is_looked_at() {
        let mut running = entry();
        running["status"] = json!("RUNNING");
        let deleted = Seen { status: json!({}), ..seen() };
        assert!(complaints(&[running.clone()], &deleted, false).starts_with("still running"));
        assert_eq!(compare(&[running.clone()], std::slice::from_ref(&deleted), &[], 1).complaints, [""; 0]);
        let overtaken = Seen { overtaken: true, ..deleted.clone() };
        let found = compare(std::slice::from_ref(&running), &[overtaken], &[], 0);
        assert_eq!((found.overtaken, found.complaints.len()), (1, 0));
        let mut orphan = deleted;
        orphan.spec["deletionPolicy"] = json!("Orphan");
        assert_eq!(complaints(&[running.clone()], &orphan, false), "");
        running["cancel_requested"] = json!(true);
        assert!(complaints(&[running], &orphan, false).contains("was to be left alone"));
    }
}
