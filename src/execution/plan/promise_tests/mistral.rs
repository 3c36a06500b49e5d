//! The model of the Mistral API.

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::choices::Choices;
use super::events::{CANCEL_EFFECTS, CancelEffect};
use crate::execution::claim::VISIBILITY;
use crate::execution::state::StopCall;
use crate::mistral::wire::Execution;
use crate::mistral::{ApiError, Error};

/// The API: at most one run of its only id at a time, and a new run for each start after the end of one.
#[derive(Default)]
pub struct Mistral {
    id: String,
    pub starts: usize,
    /// Start and end of the last run.
    pub run: Option<(Timestamp, Timestamp)>,
    /// How the run ends, if it does not complete.
    pub stopped: Option<StopCall>,
    pub visible_from: Option<Timestamp>,
    /// Starts that have been sent and take effect later.
    pub in_flight: Vec<Timestamp>,
}

impl Mistral {
    pub fn new(id: String) -> Self {
        Self { id, ..Self::default() }
    }

    /// The starts that were in flight take effect, if their time has come.
    pub fn advance_to(&mut self, now: Timestamp, choices: &mut Choices) {
        self.in_flight.sort();
        while self.in_flight.first().is_some_and(|due| *due <= now) {
            let at = self.in_flight.remove(0);
            let _ = self.start(at, choices);
        }
    }

    /// Whether a start is in flight, or has a run that is not visible yet.
    pub fn is_in_doubt(&self, now: Timestamp) -> bool {
        !self.in_flight.is_empty() || self.visible_from.is_some_and(|from| now < from)
    }

    /// The effect of a start.
    pub fn start(&mut self, at: Timestamp, choices: &mut Choices) -> Result<Execution, Error> {
        if self.run.is_some_and(|(_, end)| end > at) {
            return Err(Error::Conflict(api_error(409, Some("WF_1101"))));
        }
        self.starts += 1;
        let runs_for = choices.at_most(200);
        self.run = Some((at, at + runs_for));
        self.visible_from = Some(at + choices.at_most(30).min(VISIBILITY));
        Ok(self.execution(at))
    }

    /// The effect of a stop. A workflow may ignore a cancel, or take its time.
    pub fn stop(&mut self, call: StopCall, now: Timestamp, choices: &mut Choices) -> Result<(), Error> {
        self.get(now)?;
        let (start, end) = self.run.unwrap();
        if end <= now {
            return Err(Error::Conflict(api_error(409, Some("WF_1102"))));
        }
        let new_end = match call {
            StopCall::Cancel => match choices.pick(&CANCEL_EFFECTS) {
                CancelEffect::Ignored => end,
                CancelEffect::Obeyed => end.min(now + choices.at_most(60)),
            },
            StopCall::Terminate => now,
        };
        if new_end != end {
            self.run = Some((start, new_end));
            self.stopped = Some(call);
        }
        Ok(())
    }

    fn execution(&self, now: Timestamp) -> Execution {
        let (start, end) = self.run.unwrap();
        let status = if now < end { "RUNNING" } else { final_status(self.stopped) };
        let end = (now >= end).then_some(end);
        let run = json!({
            "execution_id": self.id, "workflow_name": "w", "status": status, "result": 1,
            "start_time": start.to_string(), "end_time": end.map(|end| end.to_string()),
        });
        serde_json::from_value(run).unwrap()
    }

    pub fn get(&self, now: Timestamp) -> Result<Execution, Error> {
        match self.visible_from {
            Some(from) if from <= now => Ok(self.execution(now)),
            _ => Err(Error::NotFound(api_error(404, Some("WF_1100")))),
        }
    }
}

/// The status with which a run ends.
pub fn final_status(stopped: Option<StopCall>) -> &'static str {
    match stopped {
        None => "COMPLETED",
        Some(StopCall::Cancel) => "CANCELED",
        Some(StopCall::Terminate) => "TERMINATED",
    }
}

pub fn api_error(status: u16, code: Option<&str>) -> ApiError {
    ApiError { status, code: code.map(str::to_owned), detail: String::new(), deployments: Vec::new(), is_json: true }
}

/// A 404 that does not come from the API.
pub fn gateway_not_found() -> Error {
    Error::NotFound(api_error(404, None))
}

pub fn transient() -> Error {
    Error::Transient { retry_after: None, message: "broken".into() }
}

pub fn unknown_outcome() -> Error {
    Error::UnknownOutcome { message: "broken".into() }
}
