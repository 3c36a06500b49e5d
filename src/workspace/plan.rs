//! What to do about a Workspace: read its Secret, check its key, or neither. No I/O here.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use url::Url;

use super::problem::Problem;
use super::state::{Accepted, ApiKey, Check, Checked, State};
use crate::api::reasons::workspace as reason;
use crate::mistral::Error;
use crate::mistral::wire::WhoAmI;
use crate::platform::reconcile;
use crate::text::without_stop;

/// How often the Secret is read while all is well.
pub const READ_EVERY: Duration = Duration::from_secs(50);
/// How often the Secret is read while its key does not work.
const READ_OFTEN: Duration = Duration::from_secs(15);
/// How often a good key is checked again.
const CHECK_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// How often a refused key is checked again: it may have been activated meanwhile.
const RECHECK_REFUSED: SignedDuration = SignedDuration::from_mins(1);
/// A suspicion that comes sooner than this after the last check has to wait.
const CHECK_AT_MOST: SignedDuration = SignedDuration::from_secs(5);
/// When a check that got no permit is tried again.
const NEXT_PERMIT: Duration = Duration::from_secs(15);

/// What a reconcile does next.
pub type Decision = reconcile::Decision<Step, Settled>;

/// One effect or question.
#[derive(Clone, Debug)]
pub enum Step {
    /// Read the API key from its Secret.
    ReadSecret(Url),
    /// Ask the API at this address whether it accepts this key.
    Check(Url, SecretString),
}

/// The end of a reconcile.
#[derive(Clone, Debug)]
pub struct Settled {
    pub outcome: Result<Accepted, Problem>,
    /// When to reconcile again.
    pub wait: Duration,
}

/// The next step.
pub fn plan(state: &State, now: Timestamp) -> Decision {
    let address = match &state.address {
        Ok(address) => address,
        Err(problem) => return settle(Err(problem.clone()), READ_EVERY),
    };
    let token = match &state.api_key {
        ApiKey::NotRead => return Decision::Act(Step::ReadSecret(address.clone())),
        ApiKey::Read(Ok(token)) => token,
        ApiKey::Read(Err(problem)) => return settle(Err(problem.clone()), soon(state.retries)),
    };
    let of = (address.clone(), token.clone());
    match (&state.checked, &state.check) {
        (Checked::NotTried, check) => {
            match (check_due(check.as_ref(), &of, state.suspect, state.retries, now), check) {
                (Err(wait), Some(check)) => {
                    let read = if check.outcome.is_ok() { READ_EVERY } else { READ_OFTEN };
                    settle(check.outcome.clone(), wait.min(read))
                }
                (Ok(()), _) | (Err(_), None) => Decision::Act(Step::Check(of.0, of.1)),
            }
        }
        // That the API has no time now says nothing about a key that was checked before.
        (Checked::PutOff(problem), check) => {
            let known = check.as_ref().filter(|check| check.is_of(&of));
            settle(known.map_or_else(|| Err(problem.clone()), |check| check.outcome.clone()), NEXT_PERMIT)
        }
        (Checked::Done, Some(Check { outcome: Ok(accepted), .. })) => settle(Ok(accepted.clone()), READ_EVERY),
        (Checked::Done, Some(Check { outcome: Err(problem), .. })) => {
            settle(Err(problem.clone()), soon(state.retries).max(Duration::from_secs(2)))
        }
        (Checked::Done, None) => Decision::Act(Step::Check(of.0, of.1)),
    }
}

fn settle(outcome: Result<Accepted, Problem>, wait: Duration) -> Decision {
    Decision::Settle(Box::new(Settled { outcome, wait }))
}

/// Soon after the first problem, then less often: somebody is probably correcting it.
fn soon(retries: u32) -> Duration {
    Duration::from_secs(1 << retries.saturating_sub(1).min(4)).min(READ_OFTEN)
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
            let message = format!(
                "The API refuses the key in Secret \"{secret}\": {said}. Put a valid key there. The operator reads the Secret every 15 s, and tries the same key again every minute."
            );
            Err(Problem::stalled(reason::CREDENTIAL_REFUSED, message))
        }
        Err(Error::NotFound(said) | Error::Conflict(said) | Error::Rejected(said)) => {
            let remedy = match said.status {
                403 => " Give the key the right to list workflows in Mistral's console, or put another key there.",
                _ => "",
            };
            let message = format!(
                "The API refuses the check of the key in Secret \"{secret}\": {said}.{remedy} The operator tries again every minute."
            );
            Err(Problem::stalled(reason::REQUEST_REFUSED, message))
        }
        Err(error @ (Error::Transient { .. } | Error::UnknownOutcome { .. } | Error::Unreadable { .. })) => {
            let message = format!(
                "The API cannot be used now: {}. The operator tries again within a minute.",
                without_stop(&error.to_string())
            );
            Err(Problem { reason: reason::API_UNAVAILABLE, message, passing: true })
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::ToSpan;
    use serde_json::json;

    use super::*;
    use crate::api::Workspace;
    use crate::mistral::ApiError;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(seconds: i64) -> Timestamp {
        START + seconds.seconds()
    }

    fn workspace(base_url: &str) -> State {
        let object: Workspace = serde_json::from_value(json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workspace",
            "metadata": { "name": "w", "creationTimestamp": START },
            "spec": { "baseURL": base_url, "auth": { "apiKeySecretRef": { "name": "mistral", "key": "key" } } },
        }))
        .unwrap();
        State::new(&object, &["https://api.mistral.ai".parse().unwrap()], None, 0, false)
    }

    #[test]
    fn only_a_403_is_told_as_a_missing_right() {
        let told = |status| {
            let said = ApiError { status, code: None, detail: "no".into(), deployments: Vec::new(), is_json: true };
            judge(Err(Error::Rejected(said)), "mistral").unwrap_err().message
        };
        assert!(told(403).contains("Give the key the right to list workflows"), "{}", told(403));
        assert!(told(400).contains("HTTP 400") && !told(400).contains("right"), "{}", told(400));
    }

    fn with_key(key: &str) -> State {
        let mut state = workspace("https://api.mistral.ai");
        state.api_key_read(Ok(SecretString::from(key)), at(0));
        state
    }

    fn of(key: &str) -> (Url, SecretString) {
        ("https://api.mistral.ai".parse().unwrap(), SecretString::from(key))
    }

    fn settled(state: &State, now: Timestamp) -> Settled {
        match plan(state, now) {
            Decision::Settle(settled) => *settled,
            Decision::Act(step) => panic!("acts: {step:?}"),
        }
    }

    fn refused(passing: bool) -> Problem {
        Problem { reason: reason::API_UNAVAILABLE, message: "no".into(), passing }
    }

    /// The next reconcile, which knows what this one has found.
    fn later(state: &State, key: &str) -> State {
        let mut next =
            State { check: state.check.clone(), retries: state.retries, ..workspace("https://api.mistral.ai") };
        next.api_key_read(Ok(SecretString::from(key)), at(0));
        next
    }

    #[test]
    fn an_address_that_is_not_allowed_is_never_called_and_its_secret_not_read() {
        let settled = settled(&workspace("https://elsewhere.example"), at(0));
        assert_eq!(settled.outcome.unwrap_err().reason, reason::BASE_URL_NOT_ALLOWED);
    }

    #[test]
    fn a_key_is_checked_once_and_again_only_when_it_is_due_suspect_or_another_one() {
        assert!(matches!(plan(&workspace("https://api.mistral.ai"), at(0)), Decision::Act(Step::ReadSecret(_))));
        let mut state = with_key("a");
        assert!(matches!(plan(&state, at(0)), Decision::Act(Step::Check(..))));
        state.checked(of("a"), Ok(Accepted::default()), false, at(0));
        assert_eq!(settled(&state, at(0)).wait, READ_EVERY);
        assert!(settled(&later(&state, "a"), at(60)).outcome.is_ok());
        assert!(matches!(plan(&later(&state, "b"), at(60)), Decision::Act(Step::Check(..))), "another key");
        assert!(matches!(plan(&later(&state, "a"), at(301)), Decision::Act(Step::Check(..))), "five minutes later");
        let suspect = State { suspect: true, ..later(&state, "a") };
        assert!(matches!(plan(&suspect, at(4)), Decision::Settle(_)), "not at once");
        assert!(matches!(plan(&suspect, at(6)), Decision::Act(Step::Check(..))));
    }

    #[test]
    fn an_api_that_has_no_time_for_a_check_says_nothing_about_the_key() {
        let mut first = with_key("a");
        first.not_permitted();
        assert_eq!(settled(&first, at(0)).outcome.unwrap_err().reason, reason::API_UNAVAILABLE);
        let mut good = with_key("a");
        good.checked(of("a"), Ok(Accepted::default()), false, at(0));
        let mut busy = later(&good, "a");
        busy.checked(of("a"), Err(refused(true)), true, at(301));
        assert!(settled(&busy, at(301)).outcome.is_ok(), "what was known stays");
        let mut other = later(&good, "b");
        other.checked(of("b"), Err(refused(true)), true, at(301));
        assert!(settled(&other, at(301)).outcome.is_err(), "nothing is known of this key");
    }

    #[test]
    fn problems_are_looked_at_again_soon_and_then_less_often() {
        let mut state = with_key("a");
        let mut waits = Vec::new();
        for _ in 0..6 {
            state.checked(of("a"), Err(refused(false)), false, at(0));
            waits.push(settled(&state, at(0)).wait.as_secs());
        }
        assert_eq!(waits, [2, 2, 4, 8, 15, 15]);
    }
}
