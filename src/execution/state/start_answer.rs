//! What the API's answer to the call that starts a run means: a run, certainly none, or possibly one.
//!
//! What follows from the answer is decided in [`start`](crate::execution::plan::start).

use crate::mistral::wire::Execution;
use crate::mistral::{ApiError, Error, Trouble};

/// The outcome of the call that starts the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sent {
    /// Nothing was sent in this reconcile.
    #[default]
    Nothing,
    /// The claim was too old to send its call.
    TooLate,
    /// The API accepted the call, and the run exists.
    Accepted(Box<Execution>),
    /// A run with this id exists and has not ended.
    AlreadyStarted,
    /// Nothing was started, and the same call will not succeed until something changes.
    Refused(Refusal),
    /// Nothing was started. A later attempt may succeed.
    NotStarted(Trouble),
    /// A run may have been started.
    Unknown(Trouble),
}

/// Why the API refused to start a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// No such workflow or registration.
    TargetNotFound(ApiError),
    /// Several deployments own the workflow.
    Ambiguous(ApiError),
    /// The input, or something else in the request, is permanently wrong (HTTP 422).
    Input(ApiError),
    /// Any other refusal.
    Other(ApiError),
}

impl From<Result<Execution, Error>> for Sent {
    /// Only a definite refusal, or an error before the call had any effect, means that nothing was started.
    fn from(answer: Result<Execution, Error>) -> Self {
        match answer {
            Ok(execution) => Self::Accepted(Box::new(execution)),
            Err(Error::Conflict(said)) if said.is_already_started() => Self::AlreadyStarted,
            Err(Error::Conflict(said)) if said.is_ambiguous_workflow() => Self::Refused(Refusal::Ambiguous(said)),
            Err(Error::NotFound(said)) => Self::Refused(Refusal::TargetNotFound(said)),
            Err(Error::Rejected(said)) if said.status == 422 => Self::Refused(Refusal::Input(said)),
            Err(Error::Rejected(said)) => Self::Refused(Refusal::Other(said)),
            // An unknown kind of conflict may mean that the run exists.
            Err(error @ (Error::Conflict(_) | Error::UnknownOutcome { .. } | Error::Unreadable { .. })) => {
                Self::Unknown(Trouble::from(error))
            }
            Err(error @ (Error::Transient { .. } | Error::Unauthorized(_))) => Self::NotStarted(Trouble::from(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, code: Option<&str>) -> ApiError {
        let code = code.map(str::to_owned);
        ApiError { status, code, detail: "said".into(), deployments: Vec::new(), is_json: true }
    }

    fn answer(error: Error) -> Sent {
        Sent::from(Err(error))
    }

    #[test]
    fn only_a_definite_answer_says_whether_a_run_was_started() {
        assert!(matches!(Sent::from(Ok(Execution::default())), Sent::Accepted(_)));
        assert_eq!(answer(Error::Conflict(said(409, Some("WF_1101")))), Sent::AlreadyStarted);

        let ambiguous = answer(Error::Conflict(said(409, Some("AMBIGUOUS_WORKFLOW"))));
        assert!(matches!(ambiguous, Sent::Refused(Refusal::Ambiguous(_))));
        assert!(matches!(answer(Error::NotFound(said(404, None))), Sent::Refused(Refusal::TargetNotFound(_))));
        assert!(matches!(answer(Error::Rejected(said(422, None))), Sent::Refused(Refusal::Input(_))));
        assert!(matches!(answer(Error::Rejected(said(403, None))), Sent::Refused(Refusal::Other(_))));

        let away = Error::Transient { retry_after: None, message: "away".into() };
        assert!(matches!(answer(away), Sent::NotStarted(_)));
        assert!(matches!(answer(Error::Unauthorized(said(401, None))), Sent::NotStarted(_)));

        let (lost, garbled) = ("timed out".to_owned(), "not JSON".to_owned());
        assert!(matches!(answer(Error::UnknownOutcome { message: lost }), Sent::Unknown(_)));
        assert!(matches!(answer(Error::Unreadable { too_long: false, message: garbled }), Sent::Unknown(_)));
        assert!(matches!(answer(Error::Conflict(said(409, None))), Sent::Unknown(_)), "a conflict of another kind");
    }
}
