//! Compares the simulator's ledger with the API server's record of the resources.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::ends::{self, is_before, time};
use super::record::Seen;
use super::values::{Kept, composed};

/// How long after its resource has gone a run may still wait to be stopped. The start may be held as long as a mix of
/// faults lasts, the run may stay hidden for 20 seconds, and it may ignore the cancel for a grace period of 30 seconds.
const STOPPED_WITHIN: SignedDuration = SignedDuration::from_secs(90);

/// The differences, with the names of the resources.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub starts: u64,
    /// Starts beyond the first of an execution id.
    pub duplicates: u64,
    /// Runs that were requested but never started.
    pub losses: u64,
    /// Orphaned runs: the API server deleted their resources despite a finalizer that was added at that moment.
    pub overtaken: u64,
    /// Orphaned runs that continue, because the process that started them ended before it could stop them.
    pub unstopped: u64,
    /// The number of ends by reason, of resources that remained to the end or had a time to live.
    pub ends: BTreeMap<String, u64>,
    /// Descriptions of everything that is wrong.
    pub complaints: Vec<String>,
}

/// Additional facts for the final comparison.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The number of runs that were left alone after five minutes.
    pub abandoned: u64,
    /// The results in ConfigMaps, by the names of the ConfigMaps.
    pub results: BTreeMap<String, Kept>,
    /// When operators ended, by their names in claims.
    pub ends: BTreeMap<String, Timestamp>,
}

/// The final comparison. `present` are the resources that remained until the final deletion; `recorded` are all
/// resources that ever existed.
pub fn compare(ledger: &[Value], recorded: &[Seen], present: &[Seen], around: &Around) -> Findings {
    let overtaken = recorded.iter().filter(|seen| seen.overtaken).count();
    let mut findings = Findings { overtaken: overtaken as u64, ..Findings::default() };
    for entry in ledger {
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
        if !claimants.iter().any(|seen| seen.free) {
            findings.complain(format!("{id} ({names}) was started, and was at no time to be"));
        }
        if !claimants.iter().any(|seen| agrees(entry, seen)) {
            let (workflow, input) = (&entry["workflow_name"], &entry["input"]);
            findings.complain(format!("{id} ({names}) ran {workflow} with {input}, which nobody asked for"));
        }
    }
    let there: HashMap<&str, &Seen> = present.iter().map(|seen| (seen.uid.as_str(), seen)).collect();
    for seen in recorded {
        let is_present = there.contains_key(seen.uid.as_str());
        // The state before the final deletion.
        let seen = there.get(seen.uid.as_str()).copied().unwrap_or(seen);
        let entry = ledger.iter().find(|entry| seen.is_of(entry["execution_id"].as_str().unwrap_or_default()));
        let expires = seen.has_time_to_live() && !seen.unwanted;
        // A deleted resource must have run only if its status said so.
        let must =
            if is_present { !seen.is_held_back() && !ends::is_without_run(seen) } else { seen.started || expires };
        if must && entry.is_none() {
            findings.losses += 1;
            findings.complain(format!("{} was never started; its status is {}", seen.name, seen.status));
        }
        // The last status of a resource is unknown if it disappeared while the watch was interrupted.
        if (is_present || expires) && !seen.vanished {
            if let Some(reason) = ends::reason(seen) {
                *findings.ends.entry(reason.to_owned()).or_default() += 1;
            }
            if let Some(complaint) = end(entry, seen, around) {
                findings.complain(format!("{}: {complaint}", seen.name));
            }
        }
        if let Some(complaint) = deletion(entry, seen) {
            findings.complain(format!("{}: {complaint}; its status is {}", seen.name, seen.status));
        }
    }
    findings.check_stops(ledger, recorded, around);
    findings
}

impl Findings {
    fn complain(&mut self, text: String) {
        self.complaints.push(text);
    }

    /// Checks that every unwanted run was stopped and every other run was left alone.
    fn check_stops(&mut self, ledger: &[Value], recorded: &[Seen], around: &Around) {
        let mut running = Vec::new();
        for entry in ledger {
            let id = entry["execution_id"].as_str().unwrap_or_default();
            let claimants: Vec<&Seen> = recorded.iter().filter(|seen| seen.is_of(id)).collect();
            let names = names(&claimants);
            let orphan = claimants.iter().all(|seen| seen.spec["deletionPolicy"] == "Orphan");
            let asked = |seen: &&Seen| {
                seen.unwanted || !seen.shutdowns.is_empty() || !seen.spec["activeDeadlineSeconds"].is_null()
            };
            let status = entry["status"].as_str().unwrap_or_default();
            let is_stopped = entry["cancel_requested"] == json!(true) || ["CANCELED", "TERMINATED"].contains(&status);
            if is_stopped && (orphan || !claimants.iter().any(asked)) {
                self.complain(format!("{id} ({names}) was to be left alone, and was stopped: {status}"));
            } else if status == "RUNNING" && claimants.iter().any(|seen| lost_its_operator(seen, around)) {
                self.unstopped += 1;
            } else if !orphan && status == "RUNNING" {
                running.push(format!("{id} ({names})"));
            }
        }
        if running.len() as u64 > around.abandoned {
            let (which, number) = (running.join(", "), around.abandoned);
            self.complain(format!("still running, although only {number} were left alone after 5 minutes: {which}"));
        }
    }
}

/// Whether the resource was deleted despite its finalizer, and the process that wrote the claim ended before it had
/// time to stop the orphaned run. Only that process knew of the run.
fn lost_its_operator(seen: &Seen, around: &Around) -> bool {
    let (Some(gone), Some(ended)) = (seen.gone_at, around.ends.get(&seen.claimant)) else { return false };
    seen.overtaken && ended.duration_since(gone) < STOPPED_WITHIN
}

fn names(claimants: &[&Seen]) -> String {
    claimants.iter().map(|seen| seen.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether the run matches the spec. Each Workflow resource here has the name of its workflow.
fn agrees(entry: &Value, seen: &Seen) -> bool {
    let named = seen.spec["workflowIdentifier"].as_str().or(seen.spec["workflowRef"]["name"].as_str());
    entry["workflow_name"].as_str() == named && entry["input"] == composed(&seen.name, &seen.spec, false)
}

/// What is wrong with the end of a resource that was not deleted before it.
fn end(entry: Option<&Value>, seen: &Seen, around: &Around) -> Option<String> {
    if seen.is_held_back() {
        return entry.map(|_| "it was held back, and started all the same".to_owned());
    }
    if seen.refuses("status") {
        let is_over = entry.is_some_and(|entry| entry["status"] != "RUNNING");
        return (!is_over).then(|| "its run has not ended".to_owned());
    }
    if !seen.is_finished() {
        return Some(format!("it has not ended; its status is {}", seen.status));
    }
    match entry {
        // If the run is required, its absence is already counted as a loss.
        None => ends::without_run(seen),
        Some(entry) if entry["execution_id"] != seen.status["executionId"] => {
            Some(format!("its run is {}; its status is {}", entry["execution_id"], seen.status))
        }
        Some(entry) => ends::with_run(entry, seen, around),
    }
}

/// What is wrong with a deletion that nobody requested.
fn deletion(entry: Option<&Value>, seen: &Seen) -> Option<&'static str> {
    if seen.unwanted || !seen.has_time_to_live() {
        return (seen.gone && !seen.unwanted).then_some("it is gone, and nobody deleted it");
    }
    let (Some(gone), Some(ttl)) = (seen.gone_at, seen.seconds("ttlSecondsAfterFinished")) else {
        return Some("it has outlived its time");
    };
    let end = time(&entry?["end_time"]);
    let is_early = end.is_none_or(|end| is_before(Some(gone), end, ttl));
    is_early.then_some("it was deleted before its time")
}

#[cfg(test)]
mod tests {
    use super::super::poison::{LABEL, LATER};
    use super::super::refusals::{REFUSE, WHILE_STRICT};
    use super::super::values::{input_from, result_to};
    use super::*;

    fn seen() -> Seen {
        Seen {
            name: "run-1".into(),
            uid: "u1".into(),
            spec: json!({ "workflowIdentifier": "complete-0", "input": { "n": 1 } }),
            status: json!({
                "executionId": "run-1-u1", "status": "COMPLETED", "result": { "n": 1 },
                "conditions": [{ "type": "Complete", "status": "True", "reason": "Completed" }],
            }),
            claimed: true,
            started: true,
            free: true,
            ..Seen::default()
        }
    }

    fn entry() -> Value {
        json!({
            "execution_id": "run-1-u1", "workflow_name": "complete-0", "input": { "n": 1 }, "starts": 1,
            "status": "COMPLETED", "cancel_requested": false,
            "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:20Z",
        })
    }

    fn at(second: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
    }

    /// A resource with these spec fields that has failed.
    fn failed(spec: &[(&str, Value)], word: Option<&str>, reason: &str) -> Seen {
        let mut seen = seen();
        for (field, value) in spec {
            seen.spec[*field] = value.clone();
        }
        seen.status = json!({
            "executionId": "run-1-u1", "status": word, "failure": { "reason": reason }, "endTime": "2026-01-01T00:00:20Z",
            "conditions": [{ "type": "Failed", "status": "True", "reason": reason }],
        });
        (seen.started, seen.created) = (word.is_some(), Some(at(0)));
        seen
    }

    fn stopped(word: &str) -> Value {
        let mut entry = entry();
        (entry["status"], entry["cancel_requested"]) = (json!(word), json!(true));
        entry
    }

    fn complaints_around(ledger: &[Value], seen: &Seen, present: bool, around: &Around) -> String {
        let all = std::slice::from_ref(seen);
        compare(ledger, all, if present { all } else { &[] }, around).complaints.join("; ")
    }

    fn complaints(ledger: &[Value], seen: &Seen, present: bool) -> String {
        complaints_around(ledger, seen, present, &Around::default())
    }

    fn deleted() -> Seen {
        Seen { unwanted: true, gone: true, gone_at: Some(at(30)), ..seen() }
    }

    #[test]
    fn books_that_agree_are_accepted() {
        assert_eq!(complaints(&[entry()], &seen(), true), "");
        assert_eq!(complaints(&[entry()], &deleted(), false), "");
    }

    #[test]
    fn a_second_start_is_counted_and_named() {
        let mut entry = entry();
        entry["starts"] = json!(3);
        let found = compare(&[entry], &[seen()], &[seen()], &Around::default());
        assert_eq!((found.starts, found.duplicates), (3, 2));
        assert_eq!(found.complaints, ["run-1-u1 (run-1) was started 3 times"]);
    }

    #[test]
    fn a_run_that_never_happened_is_a_loss_unless_its_resource_went_before_it_started() {
        let found = compare(&[], &[seen()], &[seen()], &Around::default());
        assert_eq!(found.losses, 1);
        assert!(complaints(&[], &deleted(), false).starts_with("run-1 was never started"));
        assert_eq!(complaints(&[], &Seen { started: false, ..deleted() }, false), "");
        assert!(complaints(&[entry()], &Seen { unwanted: false, ..deleted() }, false).contains("nobody deleted it"));
    }

    #[test]
    fn a_start_without_a_claim_or_of_something_else_or_for_nobody_is_found() {
        let unclaimed = Seen { claimed: false, started: false, ..deleted() };
        assert!(complaints(&[entry()], &unclaimed, false).contains("no claim was ever recorded"));
        let other = Seen { spec: json!({ "workflowIdentifier": "complete-0", "input": { "n": 2 } }), ..deleted() };
        assert!(complaints(&[entry()], &other, false).contains("which nobody asked for"));
        assert!(complaints(&[entry()], &Seen { uid: "u2".into(), ..deleted() }, false).contains("no resource asked"));
    }

    #[test]
    fn one_that_is_held_back_must_not_start() {
        let mut held = Seen { claimed: false, started: false, free: false, status: json!({}), ..seen() };
        held.spec["suspend"] = json!(true);
        assert_eq!(complaints(&[], &held, true), "");
        let found = complaints(&[entry()], &held, true);
        assert!(found.contains("it was held back") && found.contains("at no time to be"), "{found}");
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
        let mut gone = Seen { status: json!({}), claimant: "one".into(), ..deleted() };
        assert!(complaints(&[running.clone()], &gone, false).starts_with("still running"));
        let abandoned = Around { abandoned: 1, ..Around::default() };
        assert_eq!(complaints_around(&[running.clone()], &gone, false, &abandoned), "");
        gone.overtaken = true;
        assert!(complaints(&[running.clone()], &gone, false).starts_with("still running"));
        let ended = |second| Around { ends: [("one".to_owned(), at(second))].into(), ..Around::default() };
        let late = complaints_around(&[running.clone()], &gone, false, &ended(121));
        assert!(late.starts_with("still running"), "{late}");
        let found = compare(&[running.clone()], &[gone.clone()], &[], &ended(119));
        assert_eq!((found.overtaken, found.unstopped, found.complaints.len()), (1, 1, 0));
        gone.overtaken = false;
        gone.spec["deletionPolicy"] = json!("Orphan");
        assert_eq!(complaints(&[running.clone()], &gone, false), "");
        running["cancel_requested"] = json!(true);
        assert!(complaints(&[running], &gone, false).contains("was to be left alone"));
        assert!(complaints(&[stopped("CANCELED")], &seen(), true).contains("was to be left alone"));
    }

    #[test]
    fn a_shutdown_ends_in_its_own_way_and_not_before_the_grace() {
        let asked = |how: &str, word, reason, second| {
            let grace = ("terminationGracePeriodSeconds", json!(10));
            let shutdowns = [(how.to_owned(), at(second))].into();
            Seen { shutdowns, ..failed(&[("shutdown", json!(how)), grace], word, reason) }
        };
        let canceled = asked("Cancel", Some("CANCELED"), "Canceled", 15);
        assert_eq!(complaints(&[stopped("CANCELED")], &canceled, true), "");
        let wrong = asked("Cancel", Some("CANCELED"), "DeadlineExceeded", 15);
        assert!(complaints(&[stopped("CANCELED")], &wrong, true).contains("the simulator has CANCELED"));
        let early = asked("Cancel", Some("TERMINATED"), "Terminated", 15);
        assert!(complaints(&[stopped("TERMINATED")], &early, true).contains("its grace had not passed"));
        let late = asked("Cancel", Some("TERMINATED"), "Terminated", 8);
        assert_eq!(complaints(&[stopped("TERMINATED")], &late, true), "");
        let terminated = asked("Terminate", Some("CANCELED"), "Canceled", 15);
        assert!(complaints(&[stopped("CANCELED")], &terminated, true).contains("it was to be terminated"));
        let before = asked("Terminate", Some("TERMINATED"), "Terminated", 25);
        assert!(complaints(&[stopped("TERMINATED")], &before, true).contains("nobody had asked to stop it"));
        // An execution that had not started never starts.
        let held = Seen { free: false, claimed: false, ..asked("Cancel", None, "Canceled", 15) };
        assert_eq!(complaints(&[], &held, true), "");
        assert!(complaints(&[stopped("CANCELED")], &held, true).contains("at no time to be"));
        let unasked = Seen { shutdowns: BTreeMap::new(), ..held };
        assert!(complaints(&[], &unasked, true).contains("was never started"));
    }

    #[test]
    fn deadlines_end_in_their_own_way_and_not_before_they_have_passed() {
        let active = |seconds, reason| failed(&[("activeDeadlineSeconds", json!(seconds))], Some("CANCELED"), reason);
        assert_eq!(complaints(&[stopped("CANCELED")], &active(20, "DeadlineExceeded"), true), "");
        assert!(complaints(&[stopped("CANCELED")], &active(20, "Canceled"), true).contains("has CANCELED"));
        let early = complaints(&[stopped("CANCELED")], &active(22, "DeadlineExceeded"), true);
        assert!(early.contains("had not passed"), "{early}");
        let starting =
            |seconds| failed(&[("startingDeadlineSeconds", json!(seconds))], None, "StartingDeadlineExceeded");
        assert_eq!(complaints(&[], &starting(20), true), "");
        assert!(complaints(&[], &starting(22), true).contains("its starting deadline had not passed"));
        assert!(complaints(&[entry()], &starting(20), true).contains("the simulator has COMPLETED"));
    }

    #[test]
    fn a_time_to_live_ends_with_the_resource_after_the_run() {
        let mut lives = Seen { gone: true, gone_at: Some(at(25)), ..seen() };
        lives.spec["ttlSecondsAfterFinished"] = json!(5);
        assert_eq!(complaints(&[entry()], &lives, false), "");
        assert!(complaints(&[], &lives, false).contains("was never started"));
        assert!(
            complaints(&[entry()], &Seen { gone_at: Some(at(22)), ..lives.clone() }, false).contains("before its time")
        );
        assert!(complaints(&[entry()], &Seen { status: json!({}), ..lives.clone() }, false).contains("has not ended"));
        assert!(complaints(&[entry()], &Seen { gone_at: None, ..lives }, true).contains("outlived"));
    }

    /// A resource with this label whose status could not be written.
    fn labelled(label: &str, value: &str) -> Seen {
        let labels = [(label.to_owned(), value.to_owned())].into();
        Seen { labels, status: Value::Null, started: false, ..seen() }
    }

    #[test]
    fn one_whose_claim_is_refused_to_the_end_must_not_start_and_one_whose_status_is_refused_must_once() {
        for what in ["claim", "all"] {
            let refused = Seen { claimed: false, ..labelled(REFUSE, what) };
            assert_eq!(complaints(&[], &refused, true), "");
            assert!(complaints(&[entry()], &refused, true).contains("held back, and started all the same"));
        }
        let silent = labelled(REFUSE, "status");
        assert_eq!(complaints(&[entry()], &silent, true), "");
        assert!(complaints(&[], &silent, true).contains("was never started"));
        let mut running = entry();
        running["status"] = json!("RUNNING");
        assert!(complaints(&[running], &silent, true).contains("its run has not ended"));
        // The refusal was only temporary.
        let mut strict = silent;
        strict.labels.insert(WHILE_STRICT.into(), String::new());
        assert!(complaints(&[entry()], &strict, true).contains("it has not ended"));
    }

    #[test]
    fn poison_must_not_start_where_nobody_can_know_what_it_asks_for() {
        let mut undecodable = Seen { claimed: false, ..labelled(LABEL, "undecodable") };
        undecodable.spec["deletionPolicy"] = json!(LATER);
        let odd_claim = Seen { claimed: false, ..labelled(LABEL, "odd-claim") };
        for poison in [undecodable, odd_claim] {
            assert_eq!(complaints(&[], &poison, true), "");
            assert!(complaints(&[entry()], &poison, true).contains("held back, and started all the same"));
        }
        let refused = failed(&[], None, "InputRejected");
        assert!(complaints(&[], &refused, true).contains("was never started"));
        let too_deep = Seen { labels: [(LABEL.to_owned(), "too-deep".to_owned())].into(), ..refused };
        assert_eq!(complaints(&[], &too_deep, true), "");
    }

    #[test]
    fn a_result_that_no_status_can_hold_is_left_out_and_that_is_said() {
        let (mut entry, mut seen) = (entry(), seen());
        entry["workflow_name"] = json!("odd-half");
        seen.spec["workflowIdentifier"] = json!("odd-half");
        assert!(complaints(&[entry.clone()], &seen, true).contains("the simulator has COMPLETED"));
        seen.status["result"] = Value::Null;
        assert!(complaints(&[entry.clone()], &seen, true).contains("the simulator has COMPLETED"));
        let left_out = json!({ "type": "ResultNotWritten", "status": "True", "reason": "ResultNotKeepable" });
        seen.status["conditions"].as_array_mut().unwrap().push(left_out);
        assert_eq!(complaints(&[entry], &seen, true), "");
    }

    #[test]
    fn the_input_is_put_together_and_the_result_is_where_it_belongs_without_the_secret() {
        let mut seen = seen();
        seen.spec["inputFrom"] = input_from("run-1");
        seen.spec["result"] = result_to("run-1");
        seen.status["result"] = Value::Null;
        seen.status["resultRef"] = json!({ "kind": "ConfigMap", "name": "result-run-1" });
        let mut entry = entry();
        entry["input"] = composed("run-1", &seen.spec, false);
        let around = |told, owner: &str| {
            let kept = Kept { owner: owner.into(), result: composed("run-1", &seen.spec, told) };
            Around { results: [("result-run-1".to_owned(), kept)].into(), ..Around::default() }
        };
        let found =
            |entry: &Value, around: &Around| complaints_around(std::slice::from_ref(entry), &seen, true, around);
        assert_eq!(found(&entry, &around(true, "u1")), "");
        assert!(found(&entry, &around(false, "u1")).contains("ConfigMap result-run-1 has"));
        assert!(found(&entry, &around(true, "u2")).contains("ConfigMap result-run-1 has"));
        assert!(found(&entry, &Around::default()).contains("ConfigMap result-run-1 has None"));
        entry["input"]["parts"]["map"] = json!({ "of": "run-2" });
        assert!(found(&entry, &around(true, "u1")).contains("which nobody asked for"));
    }
}
