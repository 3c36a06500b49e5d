//! Judges a Workspace's Secret and the API's response to a check. No I/O here.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::budgets::LimitOf;
use crate::api::conditions::{
    self, DISCOVERY_INCOMPLETE, DRIFT_UNSEEN, Is, READY, RECONCILING, STALLED, THROTTLED, Wait,
};
use crate::api::workspace::SecretKeyRef;
use crate::api::{WorkspaceSpec, WorkspaceStatus};
use crate::mistral::Error;
use crate::mistral::budget::{Strain, TURNS};
use crate::mistral::wire::WhoAmI;
use crate::platform::events::Notice;

pub use crate::api::reasons::workspace as reason;

/// How often the Secret is read while all is well.
pub const READ_EVERY: Duration = Duration::from_secs(50);
/// How often a good key is checked again.
const CHECK_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// How often a refused key is checked again: it may have been activated meanwhile.
const RECHECK_REFUSED: SignedDuration = SignedDuration::from_mins(1);
/// A suspicion that comes sooner than this after the last check has to wait.
const CHECK_AT_MOST: SignedDuration = SignedDuration::from_secs(5);

/// Why a Workspace cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One of [`reason`].
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// The problem may pass without intervention.
    pub passing: bool,
}

impl Problem {
    fn stalled(reason: &'static str, message: String) -> Self {
        Self { reason, message, passing: false }
    }

    /// Adapts the problem to the age of the Workspace: in one manifest, the Workspace may well come before its Secret.
    #[must_use]
    pub fn of_a_workspace_from(self, created: Timestamp, now: Timestamp) -> Self {
        let arrives = self.reason == reason::SECRET_NOT_FOUND && Wait::for_missing(created, now).0 == Wait::Working;
        Self { passing: self.passing || arrives, ..self }
    }

    /// Whether the problem may pass without intervention.
    pub fn wait(&self) -> Wait {
        if self.passing { Wait::Working } else { Wait::Stalled }
    }
}

/// A connection whose key was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The Mistral workspace, if the API reports it.
    pub workspace_id: Option<String>,
    /// The Mistral organization, if the API reports it.
    pub customer_id: Option<String>,
}

/// The last check of a key.
#[derive(Clone, Debug)]
pub struct Check {
    /// The address and key that were checked.
    pub of: (Url, SecretString),
    pub at: Timestamp,
    pub outcome: Result<Accepted, Problem>,
}

impl Check {
    /// Whether this address and key were checked.
    pub fn is_of(&self, of: &(Url, SecretString)) -> bool {
        self.of.0 == of.0 && self.of.1.expose_secret() == of.1.expose_secret()
    }
}

/// Why the calls of a Workspace wait.
#[derive(Clone, Debug)]
pub struct Strained {
    pub strain: Strain,
    pub since: Timestamp,
    /// How many calls wait now.
    pub waiting: usize,
    /// The highest rate, in calls per second.
    pub limit: u32,
    /// The setting that limits the rate.
    pub limit_of: LimitOf,
}

impl Strained {
    fn reason(&self) -> &'static str {
        match self.strain {
            Strain::Refused => reason::RATE_LIMITED,
            Strain::Queued => reason::AT_LIMIT,
        }
    }

    fn message(&self) -> String {
        let Self { strain, since, waiting, limit, limit_of } = self;
        let since = since.strftime("%FT%TZ");
        if *strain == Strain::Refused {
            return format!(
                "The API refuses calls with this key because there are too many (HTTP 429), since {since}; {waiting} waited when this was written. The operator makes fewer, and slowly more up to {limit} a second: set spec.requestsPerSecond to what Mistral allows for the key, or ask Mistral for more."
            );
        }
        let what_to_do = match limit_of {
            LimitOf::Workspace => "raise spec.requestsPerSecond if Mistral allows more for the key",
            LimitOf::Other => "raise spec.requestsPerSecond of the other Workspace with the same key",
            LimitOf::Operator => "have the operator started with a higher --max-requests-per-second",
        };
        format!(
            "Calls have waited for more than 10 s for their turn since {since}; {waiting} waited when this was written. More is to be done than {limit} calls a second, {TURNS} at a time: {what_to_do}, unless the API is slow to answer."
        )
    }
}

/// Whether changes to workflows that are made at Mistral are detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Not known yet since this process started: the status stays as it is.
    Unknown,
    /// They are detected, or there is nothing to watch.
    Seen,
    /// The lists cannot be read.
    Unseen {
        /// When the lists were last read, or first due if they were never read.
        since: Timestamp,
        /// The API's error.
        why: String,
    },
}

/// The outcome of discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovered {
    /// Not known yet since this process started: the status stays as it is.
    Unknown,
    /// Everything is done, or discovery is disabled.
    Complete,
    /// Something could not be done.
    Incomplete {
        /// One of [`reason`].
        reason: &'static str,
        /// How many are affected, why the first of them is, and what to do.
        message: String,
    },
}

/// The problem of a check that waits for a permit.
pub fn no_turn() -> Problem {
    let message = "The key has not been checked yet: its calls wait for their turn, as the condition Throttled tells if that takes long; it is tried again.".into();
    Problem { reason: reason::API_UNAVAILABLE, message, passing: true }
}

/// The address to call, if the operator may call it.
///
/// # Errors
/// When it is not an address or not on the list.
pub fn address(spec: &WorkspaceSpec, allowed: &[Url]) -> Result<Url, Problem> {
    let refuse = |why: &str| {
        let list: Vec<String> = allowed.iter().map(|url| url.origin().ascii_serialization()).collect();
        let message = format!(
            "spec.baseURL {} {why}; the operator may call {}: use one of these, or have the operator started with --allow-base-url.",
            spec.base_url,
            list.join(", ")
        );
        Problem::stalled(reason::BASE_URL_NOT_ALLOWED, message)
    };
    let url = parse_address(&spec.base_url).map_err(|why| refuse(&why))?;
    if allowed.iter().any(|allowed| allowed.origin() == url.origin()) {
        Ok(url)
    } else {
        Err(refuse("is not on the operator's list"))
    }
}

/// Reads an address of the API: scheme, host and port and nothing else.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence.
pub fn parse_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.path() == "/";
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err("is not an http or https address".into());
    }
    if bare { Ok(url) } else { Err("has a user, path, query or fragment".into()) }
}

/// The API key in the Secret, without white space around it.
///
/// # Errors
/// When there is no Secret, no such entry in it, or nothing in the entry that can be sent as a key.
pub fn api_key(secret: Option<&Secret>, at: &SecretKeyRef) -> Result<SecretString, Problem> {
    let SecretKeyRef { name, key } = at;
    let Some(secret) = secret else {
        let message =
            format!("There is no Secret \"{name}\" in this namespace; create it with the API key under \"{key}\".");
        return Err(Problem::stalled(reason::SECRET_NOT_FOUND, message));
    };
    let invalid = |why: &str| {
        Problem::stalled(reason::SECRET_INVALID, format!("Secret \"{name}\" {why}; put the API key there."))
    };
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Err(invalid(&format!("has no key \"{key}\"")));
    };
    let unusable = |why: &str| {
        let message = format!("What Secret \"{name}\" has under \"{key}\" is no API key: it {why}.");
        Problem::stalled(reason::SECRET_INVALID, message)
    };
    let text = std::str::from_utf8(&value.0).map_err(|_| {
        unusable(
            "is not UTF-8 text, as a file is not that was saved as UTF-16 or encoded twice; put the bare key there",
        )
    })?;
    bare_key(text).map(SecretString::from).map_err(unusable)
}

/// The API key in a text, without white space around it.
///
/// # Errors
/// The likely mistake, as the end of a sentence that never quotes the text. The API would only refuse the text as it
/// is.
pub fn bare_key(text: &str) -> Result<&str, &'static str> {
    const QUOTES: [char; 9] = ['"', '\'', '`', '“', '”', '„', '‘', '’', '«'];
    let text = text.trim();
    let begins = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if text.is_empty() {
        return Err("is empty; put the API key there");
    }
    if text.starts_with('\u{feff}') {
        return Err("begins with a byte order mark, as some editors write one; save it as UTF-8 without");
    }
    if begins("Bearer ") || begins("Bearer\t") || begins("Authorization:") {
        return Err(
            "begins with \"Bearer\" or \"Authorization\", which the operator adds itself; put the bare key there",
        );
    }
    if begins("MISTRAL_API_KEY=") || begins("export ") {
        return Err("begins with the name of a variable; put only there what stands behind the equals sign");
    }
    if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
        return Err("has quotation marks around it; put the key there without them");
    }
    if text.chars().any(char::is_whitespace) {
        return Err("has white space or a line break inside; put the key alone there, on one line");
    }
    if !text.is_ascii() {
        return Err(
            "has characters beyond ASCII, which may be invisible ones; copy the key anew from Mistral's console",
        );
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has control characters inside; copy the key anew from Mistral's console");
    }
    Ok(text)
}

/// Whether the key must be checked now; if not, how long to wait.
pub fn check_due(
    last: Option<&Check>,
    of: &(Url, SecretString),
    suspect: bool,
    retries: u32,
    now: Timestamp,
) -> Result<(), Duration> {
    let Some(last) = last else { return Ok(()) };
    if !last.is_of(of) {
        return Ok(());
    }
    let interval = match &last.outcome {
        _ if suspect => CHECK_AT_MOST,
        Ok(_) => CHECK_EVERY,
        Err(problem) if problem.passing => SignedDuration::from_secs(2 << retries.min(4)),
        Err(_) => RECHECK_REFUSED,
    };
    match Duration::try_from((last.at + interval).duration_since(now)) {
        // A wait longer than the interval comes from a clock that has been set back since.
        Ok(wait) if !wait.is_zero() && wait <= interval.unsigned_abs() => Err(wait),
        _ => Ok(()),
    }
}

/// What the API's response to the check means.
///
/// # Errors
/// When the key cannot be used.
pub fn judge(answer: Result<WhoAmI, Error>, secret: &str) -> Result<Accepted, Problem> {
    match answer {
        Ok(me) => {
            let (customer, workspace) = me
                .namespace
                .as_deref()
                .and_then(|namespace| namespace.split_once(':'))
                .map_or((None, None), |(customer, workspace)| (Some(customer), Some(workspace)));
            let kept = |id: Option<&str>| id.filter(|id| !id.is_empty()).map(str::to_owned);
            Ok(Accepted { workspace_id: kept(workspace), customer_id: kept(customer) })
        }
        Err(Error::Unauthorized(said)) => {
            let message = format!("The API refused the key in Secret \"{secret}\"; put a valid one there: {said}");
            Err(Problem::stalled(reason::CREDENTIAL_REFUSED, message))
        }
        Err(Error::NotFound(said) | Error::Conflict(said) | Error::Rejected(said)) => {
            let message = format!("The API refused to be used with the key in Secret \"{secret}\": {said}");
            Err(Problem::stalled(reason::REQUEST_REFUSED, message))
        }
        Err(error @ (Error::Transient { .. } | Error::UnknownOutcome { .. } | Error::Unreadable { .. })) => {
            let message = format!("The API cannot be used now; it is tried again: {error}");
            Err(Problem { reason: reason::API_UNAVAILABLE, message, passing: true })
        }
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
    strained: Option<&Strained>,
    discovered: &Discovered,
    drift: &Drift,
    now: Timestamp,
) -> (WorkspaceStatus, Vec<Notice>) {
    let mut status = old.clone();
    status.observed_generation = generation;
    let all = &mut status.conditions;
    let (is, reason, message, present) = match outcome {
        Ok(Accepted { workspace_id, customer_id }) => {
            status.workspace_id.clone_from(workspace_id);
            status.customer_id.clone_from(customer_id);
            (Is::True, reason::CONNECTED, "The API accepts the key.", None)
        }
        Err(Problem { reason, message, passing }) => {
            (Is::False, *reason, message.as_str(), Some(if *passing { RECONCILING } else { STALLED }))
        }
    };
    for type_ in [RECONCILING, STALLED] {
        if present == Some(type_) {
            conditions::set(all, type_, Is::True, reason, message, generation, now);
        } else {
            conditions::remove(all, type_);
        }
    }
    let changed = conditions::find(&old.conditions, READY).is_none_or(|ready| ready.reason != reason);
    conditions::set(all, READY, is, reason, message, generation, now);
    let notice = changed.then(|| match outcome {
        Ok(_) => Notice::normal(reason, message),
        Err(_) => Notice::warning(reason, message),
    });
    let mut notices: Vec<Notice> = notice.into_iter().collect();
    match strained.map(|strained| (strained.reason(), strained)) {
        Some((reason, strained)) => {
            // The message has numbers that change all the time, so the first message stays.
            let old = conditions::find(&old.conditions, THROTTLED).filter(|old| old.reason == reason);
            let message = old.map_or_else(|| strained.message(), |old| old.message.clone());
            if old.is_none() {
                notices.push(Notice::warning(reason, &message));
            }
            conditions::set(all, THROTTLED, Is::True, reason, message, generation, now);
        }
        None => conditions::remove(all, THROTTLED),
    }
    match discovered {
        Discovered::Unknown => {}
        Discovered::Complete => conditions::remove(all, DISCOVERY_INCOMPLETE),
        Discovered::Incomplete { reason, message } => {
            if conditions::find(&old.conditions, DISCOVERY_INCOMPLETE).is_none_or(|old| old.reason != *reason) {
                notices.push(Notice::warning(reason, message));
            }
            conditions::set(all, DISCOVERY_INCOMPLETE, Is::True, reason, message, generation, now);
        }
    }
    match drift {
        Drift::Unknown => {}
        Drift::Seen => conditions::remove(all, DRIFT_UNSEEN),
        Drift::Unseen { since, why } => {
            // The API's error may change with each attempt, so the first message stays.
            let old = conditions::find(&old.conditions, DRIFT_UNSEEN).map(|old| old.message.clone());
            let message = old.clone().unwrap_or_else(|| unseen(*since, why));
            if old.is_none() {
                notices.push(Notice::warning(reason::LISTS_FAILED, &message));
            }
            conditions::set(all, DRIFT_UNSEEN, Is::True, reason::LISTS_FAILED, message, generation, now);
        }
    }
    (status, notices)
}

fn unseen(since: Timestamp, why: &str) -> String {
    format!(
        "What is changed in Mistral is not seen since {}: the lists of workflows could not be read: {}. The operator tries again every minute, or when the API asks for it; if it goes on, ask Mistral why the lists fail.",
        since.strftime("%FT%TZ"),
        why.trim_end_matches('.')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strained(strain: Strain, waiting: usize, limit_of: LimitOf) -> Strained {
        Strained { strain, since: Timestamp::UNIX_EPOCH, waiting, limit: 20, limit_of }
    }

    #[test]
    fn what_cannot_be_a_key_is_said_in_words_that_do_not_quote_it() {
        let at = SecretKeyRef { name: "mistral".into(), key: "api-key".into() };
        let judged = |value: &[u8]| {
            let data = [("api-key".to_owned(), k8s_openapi::ByteString(value.to_vec()))];
            api_key(Some(&Secret { data: Some(data.into()), ..Secret::default() }), &at)
        };
        for (value, words) in [
            (&b"Bearer s3cret"[..], "begins with \"Bearer\""),
            (b"bearer\ts3cret", "begins with \"Bearer\""),
            (b"Authorization: Bearer s3cret", "begins with \"Bearer\" or \"Authorization\""),
            ("\u{feff}s3cret".as_bytes(), "begins with a byte order mark"),
            (b"\xff\xfes\x003\x00c\x00", "is not UTF-8 text"),
            (b"\"s3cret\"\n", "quotation marks around it"),
            (b"'s3cret'", "quotation marks around it"),
            ("“s3cret”".as_bytes(), "quotation marks around it"),
            (b"s3 cret", "white space or a line break inside"),
            (b"s3cret\n\nother", "white space or a line break inside"),
            ("s3\u{a0}cret".as_bytes(), "white space or a line break inside"),
            ("s3cr\u{200b}et".as_bytes(), "characters beyond ASCII"),
            (b"s3\x00cret", "control characters"),
            (b"MISTRAL_API_KEY=s3cret", "name of a variable"),
            (b" \n", "is empty"),
        ] {
            let problem = judged(value).unwrap_err();
            assert_eq!(problem.reason, reason::SECRET_INVALID);
            let message = problem.message;
            assert!(message.contains(words) && message.contains("\"api-key\""), "{words} in: {message}");
            assert!(!message.contains("s3") && message.ends_with('.'), "{message}");
        }
        assert_eq!(judged(b" s3cret-+/=_.~\r\n").unwrap().expose_secret(), "s3cret-+/=_.~");
    }

    #[test]
    fn calls_that_wait_are_a_condition_of_a_workspace_that_stays_ready() {
        let (outcome, now) = (Ok(Accepted::default()), Timestamp::UNIX_EPOCH);
        let report = |old: &WorkspaceStatus, strained: Option<&Strained>| {
            report(old, Some(1), &outcome, strained, &Discovered::Complete, &Drift::Seen, now)
        };
        let (calm, _) = report(&WorkspaceStatus::default(), None);
        let (first, news) = report(&calm, Some(&strained(Strain::Refused, 7, LimitOf::Operator)));
        assert!(conditions::is_true(&first.conditions, READY) && conditions::is_true(&first.conditions, THROTTLED));
        assert_eq!(news.iter().map(|notice| notice.reason.as_str()).collect::<Vec<_>>(), [reason::RATE_LIMITED]);
        // Different numbers are no reason to write.
        assert_eq!(report(&first, Some(&strained(Strain::Refused, 900, LimitOf::Operator))), (first.clone(), vec![]));
        let (second, news) = report(&first, Some(&strained(Strain::Queued, 900, LimitOf::Operator)));
        assert_eq!(news.iter().map(|notice| notice.reason.as_str()).collect::<Vec<_>>(), [reason::AT_LIMIT]);
        assert_eq!(report(&second, None), (calm, vec![]));
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
        for (strain, limit_of, words) in [
            (Strain::Refused, LimitOf::Operator, "set spec.requestsPerSecond to what Mistral allows"),
            (Strain::Queued, LimitOf::Workspace, "raise spec.requestsPerSecond if"),
            (Strain::Queued, LimitOf::Other, "the other Workspace with the same key"),
            (Strain::Queued, LimitOf::Operator, "a higher --max-requests-per-second"),
        ] {
            let message = strained(strain, 7, limit_of).message();
            for word in [words, "since 1970-01-01T00:00:00Z", "; 7 waited", "20"] {
                assert!(message.contains(word), "{word} in: {message}");
            }
        }
    }
}
