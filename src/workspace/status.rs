//! The status of a Workspace: what it says of the key, of waiting calls, of discovery and of drift.

use k8s_openapi::jiff::Timestamp;

use super::call_limits::LimitOf;
use super::findings::{Discovered, Drift};
use super::problem::Problem;
use super::state::Accepted;
use crate::api::WorkspaceStatus;
use crate::api::conditions::{self, ConditionStatus, DISCOVERY_INCOMPLETE, DRIFT_UNSEEN, READY, THROTTLED, Writer};
use crate::clock::moment_text;
use crate::platform::events::Notice;
use crate::throttle::{PERMITS, Saturation};

use crate::api::reasons::workspace as reason;
/// Why the calls of a Workspace wait.
#[derive(Clone, Debug)]
pub struct Saturated {
    pub saturation: Saturation,
    pub since: Timestamp,
    /// When that was found out.
    pub now: Timestamp,
    /// How many calls wait now.
    pub waiting: usize,
    /// The present rate, in calls per second.
    pub rate: f64,
    /// The highest rate, in calls per second.
    pub limit: u32,
    /// The setting that limits the rate.
    pub limit_of: LimitOf,
}

impl Saturated {
    fn reason(&self) -> &'static str {
        match self.saturation {
            Saturation::Refused => reason::RATE_LIMITED,
            Saturation::Queued => reason::AT_LIMIT,
        }
    }

    fn message(&self) -> String {
        let Self { saturation, since, now, waiting, rate, limit, limit_of } = self;
        let (since, now) = (moment_text(*since), moment_text(*now));
        if *saturation == Saturation::Refused {
            return format!(
                "Since {since}, the API refuses calls with this key because there are too many (HTTP 429). The operator pauses for as long as the API asks, and then makes {rate:.1} calls a second, gradually more, up to {limit}. At {now}, {waiting} calls waited. Set spec.requestsPerSecond to what Mistral allows for the key, or ask Mistral for more."
            );
        }
        let what_to_do = match limit_of {
            LimitOf::Workspace => "raise spec.requestsPerSecond if Mistral allows more for the key",
            LimitOf::Other => "raise spec.requestsPerSecond of the other Workspace with the same key",
            LimitOf::Operator => "start the operator with a higher --max-requests-per-second",
        };
        format!(
            "Since {since}, calls with this key wait in the queue for more than 10 s. At {now}, {waiting} calls waited; the limits are {limit} calls a second and {PERMITS} at a time. Unless the API is slow to answer, {what_to_do}."
        )
    }
}

/// Status and reason of `Ready`, for the metrics. Unknown words are replaced.
pub fn state(status: Option<&WorkspaceStatus>) -> (&'static str, &'static str) {
    let Some(ready) = status.and_then(|status| conditions::find(&status.conditions, READY)) else {
        return ("Unknown", "None");
    };
    let is = ["True", "False"].into_iter().find(|is| *is == ready.status).unwrap_or("Unknown");
    (is, reason::ALL.into_iter().find(|known| *known == ready.reason).unwrap_or("Other"))
}

/// The status, and the notices to publish.
pub fn report(
    old: &WorkspaceStatus,
    generation: Option<i64>,
    outcome: &Result<Accepted, Problem>,
    saturated: Option<&Saturated>,
    discovered: &Discovered,
    drift: &Drift,
    now: Timestamp,
) -> (WorkspaceStatus, Vec<Notice>) {
    let mut status = old.clone();
    status.observed_generation = generation;
    let writer = Writer { generation, now };
    let notices = [
        report_move(old, outcome),
        report_connection(&mut status, writer, outcome),
        report_saturation(&mut status, writer, saturated),
        report_discovery(&mut status, writer, discovered),
        report_drift(&mut status, writer, drift),
    ];
    (status, notices.into_iter().flatten().collect())
}

/// Another key may open another Mistral workspace. What was started in the old one is then out of reach.
fn report_move(old: &WorkspaceStatus, outcome: &Result<Accepted, Problem>) -> Option<Notice> {
    let (before, now) = (old.workspace_id.as_ref()?, outcome.as_ref().ok()?.workspace_id.as_ref()?);
    (before != now).then(|| {
        let note = format!(
            "The key now opens the Mistral workspace {now}; before, it opened {before}. The operator starts executions in the new workspace, and no longer follows those that it started in the old one. To follow them again, restore the old key, and create another Workspace for the new key."
        );
        Notice::warning(reason::WORKSPACE_CHANGED, note)
    })
}

fn report_connection(
    status: &mut WorkspaceStatus,
    writer: Writer,
    outcome: &Result<Accepted, Problem>,
) -> Option<Notice> {
    let old = conditions::find(&status.conditions, READY).map(|ready| ready.reason.clone());
    let notice = match outcome {
        Ok(Accepted { workspace_id, customer_id }) => {
            status.workspace_id.clone_from(workspace_id);
            status.customer_id.clone_from(customer_id);
            let (reason, message) = (reason::CONNECTED, "The API accepts the key.");
            writer.ready(&mut status.conditions, reason, message);
            Notice::normal(reason, message)
        }
        Err(problem) => {
            writer.unready(&mut status.conditions, problem.wait(), problem.reason, &problem.message);
            Notice::warning(problem.reason, &problem.message)
        }
    };
    Some(notice).filter(|notice| old.as_ref() != Some(&notice.reason))
}

fn report_saturation(status: &mut WorkspaceStatus, writer: Writer, saturated: Option<&Saturated>) -> Option<Notice> {
    let Some(saturated) = saturated else {
        conditions::remove(&mut status.conditions, THROTTLED);
        return None;
    };
    let reason = saturated.reason();
    // The message has numbers that change all the time, so the first message stays.
    let message = first_message(status, THROTTLED, reason, || saturated.message());
    report_trouble(status, writer, THROTTLED, reason, &message)
}

fn report_discovery(status: &mut WorkspaceStatus, writer: Writer, discovered: &Discovered) -> Option<Notice> {
    match discovered {
        Discovered::Unknown => None,
        Discovered::Complete => {
            conditions::remove(&mut status.conditions, DISCOVERY_INCOMPLETE);
            None
        }
        Discovered::Incomplete { reason, message } => {
            report_trouble(status, writer, DISCOVERY_INCOMPLETE, reason, message)
        }
    }
}

fn report_drift(status: &mut WorkspaceStatus, writer: Writer, drift: &Drift) -> Option<Notice> {
    match drift {
        Drift::Unknown => None,
        Drift::Seen => {
            conditions::remove(&mut status.conditions, DRIFT_UNSEEN);
            None
        }
        Drift::Unseen { since, why } => {
            let reason = reason::LISTS_FAILED;
            // The API's error may change with each attempt, so the first message stays.
            let message = first_message(status, DRIFT_UNSEEN, reason, || unseen(*since, why));
            report_trouble(status, writer, DRIFT_UNSEEN, reason, &message)
        }
    }
}

/// The message that the condition has for this reason; a new one if it has none.
fn first_message(status: &WorkspaceStatus, type_: &str, reason: &str, new: impl FnOnce() -> String) -> String {
    let old = conditions::find(&status.conditions, type_).filter(|old| old.reason == reason);
    old.map_or_else(new, |old| old.message.clone())
}

/// Sets a condition whose mere presence means trouble. Returns a notice if that reason is new.
fn report_trouble(
    status: &mut WorkspaceStatus,
    writer: Writer,
    type_: &str,
    reason: &str,
    message: &str,
) -> Option<Notice> {
    let is_new = conditions::find(&status.conditions, type_).is_none_or(|old| old.reason != reason);
    writer.set(&mut status.conditions, type_, ConditionStatus::True, reason, message);
    is_new.then(|| Notice::warning(reason, message))
}

fn unseen(since: Timestamp, why: &str) -> String {
    format!(
        "The operator has not seen changes in Mistral since {}, because it cannot read the lists of workflows: {}. The operator tries again every minute, or when the API asks for it. If the lists keep failing, ask Mistral why.",
        since.strftime("%FT%TZ"),
        why.trim_end_matches('.')
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::clock::later;

    fn saturated(saturation: Saturation, waiting: usize, limit_of: LimitOf) -> Saturated {
        let (since, now) = (Timestamp::UNIX_EPOCH, later(Timestamp::UNIX_EPOCH, SignedDuration::from_secs(60)));
        Saturated { saturation, since, now, waiting, rate: 12.5, limit: 20, limit_of }
    }

    #[test]
    fn calls_that_wait_are_a_condition_of_a_workspace_that_stays_ready() {
        let (outcome, now) = (Ok(Accepted::default()), Timestamp::UNIX_EPOCH);
        let report = |old: &WorkspaceStatus, saturated: Option<&Saturated>| {
            report(old, Some(1), &outcome, saturated, &Discovered::Complete, &Drift::Seen, now)
        };
        let (calm, _) = report(&WorkspaceStatus::default(), None);
        let (first, news) = report(&calm, Some(&saturated(Saturation::Refused, 7, LimitOf::Operator)));
        assert!(conditions::is_true(&first.conditions, READY) && conditions::is_true(&first.conditions, THROTTLED));
        assert_eq!(news.iter().map(|notice| notice.reason.as_str()).collect::<Vec<_>>(), [reason::RATE_LIMITED]);
        // Different numbers are no reason to write.
        assert_eq!(
            report(&first, Some(&saturated(Saturation::Refused, 900, LimitOf::Operator))),
            (first.clone(), vec![])
        );
        let (second, news) = report(&first, Some(&saturated(Saturation::Queued, 900, LimitOf::Operator)));
        assert_eq!(news.iter().map(|notice| notice.reason.as_str()).collect::<Vec<_>>(), [reason::AT_LIMIT]);
        assert_eq!(report(&second, None), (calm, vec![]));
    }

    #[test]
    fn a_key_that_opens_another_mistral_workspace_is_told_once() {
        let report = |old: &WorkspaceStatus, id: Option<&str>| {
            let outcome = Ok(Accepted { workspace_id: id.map(str::to_owned), customer_id: None });
            let (status, news) =
                report(old, Some(1), &outcome, None, &Discovered::Complete, &Drift::Seen, Timestamp::UNIX_EPOCH);
            (status, news.into_iter().map(|notice| (notice.reason, notice.note)).collect::<Vec<_>>())
        };
        let reasons = |news: &[(String, String)]| news.iter().map(|(reason, _)| reason.clone()).collect::<Vec<_>>();
        let (first, news) = report(&WorkspaceStatus::default(), Some("one"));
        assert_eq!(reasons(&news), [reason::CONNECTED]);
        let (second, news) = report(&first, Some("two"));
        assert_eq!(reasons(&news), [reason::WORKSPACE_CHANGED]);
        assert!(news[0].1.contains("workspace two; before, it opened one"), "{}", news[0].1);
        assert_eq!(report(&second, Some("two")).1, []);
        assert_eq!(report(&second, None).1, [], "the API names none");
    }

    #[test]
    fn what_discovery_could_not_do_is_told_once_and_kept_current_until_it_is_done() {
        let outcome = Ok(Accepted::default());
        let report = |old: &WorkspaceStatus, discovered: &Discovered| {
            let now = Timestamp::UNIX_EPOCH;
            let (status, news) = report(old, Some(1), &outcome, None, discovered, &Drift::Seen, now);
            (status, news.into_iter().map(|notice| notice.reason).collect::<Vec<_>>())
        };
        let incomplete = |reason, message: &str| Discovered::Incomplete { reason, message: message.to_owned() };
        let (calm, _) = report(&WorkspaceStatus::default(), &Discovered::Complete);
        let (first, news) = report(&calm, &incomplete(reason::NAME_TAKEN, "two"));
        assert_eq!(news, [reason::NAME_TAKEN]);
        assert!(conditions::is_true(&first.conditions, READY), "the connection is well");
        assert_eq!(report(&first, &incomplete(reason::NAME_TAKEN, "two")), (first.clone(), vec![]));
        assert_eq!(report(&first, &Discovered::Unknown), (first.clone(), vec![]), "after a restart");
        let (fewer, news) = report(&first, &incomplete(reason::NAME_TAKEN, "one"));
        let said = conditions::find(&fewer.conditions, DISCOVERY_INCOMPLETE).unwrap();
        assert_eq!((said.message.as_str(), news), ("one", vec![]));
        let (_, news) = report(&first, &incomplete(reason::DISCOVERY_FAILED, "one"));
        assert_eq!(news, [reason::DISCOVERY_FAILED]);
        assert_eq!(report(&first, &Discovered::Complete), (calm, vec![]));
    }

    #[test]
    fn that_drift_is_not_seen_is_told_once_with_since_when_and_why_until_it_is_seen_again() {
        let outcome = Ok(Accepted::default());
        let report = |old: &WorkspaceStatus, drift: &Drift| {
            let now = Timestamp::UNIX_EPOCH;
            let (status, news) = report(old, Some(1), &outcome, None, &Discovered::Complete, drift, now);
            (status, news.into_iter().map(|notice| notice.reason).collect::<Vec<_>>())
        };
        let unseen = |why: &str| Drift::Unseen { since: Timestamp::UNIX_EPOCH, why: why.to_owned() };
        let (calm, _) = report(&WorkspaceStatus::default(), &Drift::Seen);
        let (first, news) = report(&calm, &unseen("An error occurred (HTTP 503)"));
        assert_eq!(news, [reason::LISTS_FAILED]);
        assert!(conditions::is_true(&first.conditions, READY), "the connection is well");
        let said = &conditions::find(&first.conditions, DRIFT_UNSEEN).unwrap().message;
        for words in ["since 1970-01-01T00:00:00Z", "An error occurred (HTTP 503)", "tries again every minute"] {
            assert!(said.contains(words), "{words} in: {said}");
        }
        // A different error is no reason to write.
        assert_eq!(report(&first, &unseen("timed out")), (first.clone(), vec![]));
        assert_eq!(report(&first, &Drift::Unknown), (first.clone(), vec![]), "after a restart");
        assert_eq!(report(&first, &Drift::Seen), (calm, vec![]));
    }

    #[test]
    fn the_condition_says_since_when_how_many_and_what_to_do() {
        for (saturation, limit_of, words) in [
            (Saturation::Refused, LimitOf::Operator, "Set spec.requestsPerSecond to what Mistral allows"),
            (Saturation::Queued, LimitOf::Workspace, "raise spec.requestsPerSecond if"),
            (Saturation::Queued, LimitOf::Other, "the other Workspace with the same key"),
            (Saturation::Queued, LimitOf::Operator, "a higher --max-requests-per-second"),
        ] {
            let message = saturated(saturation, 7, limit_of).message();
            for word in [words, "Since 1970-01-01T00:00:00Z,", "At 1970-01-01T00:01:00Z, 7 calls waited", "20"] {
                assert!(message.contains(word), "{word} in: {message}");
            }
            // What the operator made of a pause says nothing about the calls that it is allowed.
            let pauses = message.contains("pauses for as long as the API asks, and then makes 12.5 calls a second");
            assert_eq!(pauses, saturation == Saturation::Refused, "{message}");
        }
    }
}
