//! How executions fare in a namespace without poison and refusals.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::ends::time;
use super::environment::APART;
use super::record::Seen;

/// How long before a run's end a disturbance may still delay the report: a takeover, and the first sweeps after it.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(20);
/// How long the report of a run's end may take while no process is disturbed. The API hides a run for 20 seconds, and
/// then leaves some requests unanswered.
const TOLD_WITHIN: SignedDuration = SignedDuration::from_secs(120);

/// How long reports of ends took.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Ended runs whose executions reported the end.
    pub ended: u64,
    /// The longest delay, in milliseconds.
    pub longest: u64,
    /// The longest delay while no process was disturbed, in milliseconds.
    pub longest_quiet: u64,
    /// The execution with the longest delay while no process was disturbed.
    slowest: String,
}

impl Served {
    /// Computes the delays from the ledger and the record. `disturbed` says when something happened to a process.
    pub fn of(ledger: &[Value], recorded: &[Seen], disturbed: &[Timestamp]) -> Self {
        let mut served = Self::default();
        let by_id: HashMap<&str, &Value> =
            ledger.iter().filter_map(|entry| Some((entry["execution_id"].as_str()?, entry))).collect();
        for seen in recorded.iter().filter(|seen| seen.namespace == APART && !seen.unwanted) {
            let entry = seen.status["executionId"].as_str().and_then(|id| by_id.get(id));
            let end = entry.and_then(|entry| time(&entry["end_time"]));
            let Some((end, told)) = end.zip(seen.finished_at) else { continue };
            let wait = u64::try_from(told.duration_since(end).as_millis()).unwrap_or_default();
            served.ended += 1;
            served.longest = served.longest.max(wait);
            let is_quiet = !disturbed.iter().any(|at| *at >= end - AFTERMATH && *at <= told);
            if is_quiet && wait > served.longest_quiet {
                served.longest_quiet = wait;
                served.slowest.clone_from(&seen.name);
            }
        }
        served
    }

    /// The complaint about a delay that is too long.
    pub fn complaint(&self) -> Option<String> {
        let Self { longest_quiet, slowest, .. } = self;
        let late = i128::from(*longest_quiet) > TOLD_WITHIN.as_millis();
        late.then(|| format!("the end of {slowest} was told after {longest_quiet} ms, and no process was disturbed"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_wait_is_told_and_the_longest_that_no_disturbance_explains() {
        let at = |second: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second);
        let seen = |id: &str, namespace: &str, told| Seen {
            name: id.into(),
            namespace: namespace.into(),
            status: json!({ "executionId": id }),
            finished_at: Some(at(told)),
            ..Seen::default()
        };
        let ids = [("a", 100), ("b", 100), ("c", 400), ("d", 100)];
        let ledger: Vec<Value> =
            ids.map(|(id, end)| json!({ "execution_id": id, "end_time": at(end).to_string() })).into();
        let mut recorded =
            vec![seen("a", APART, 130), seen("b", APART, 103), seen("c", APART, 406), seen("d", "default", 300)];
        let served = Served::of(&ledger, &recorded, &[at(120), at(500)]);
        assert_eq!((served.ended, served.longest, served.longest_quiet), (3, 30_000, 6000));
        assert_eq!(served.complaint(), None);
        recorded.push(Seen { name: "late".into(), ..seen("c", APART, 530) });
        let complaint = Served::of(&ledger, &recorded, &[]).complaint().unwrap();
        assert!(complaint.starts_with("the end of late was told after 130000 ms"), "{complaint}");
    }
}
