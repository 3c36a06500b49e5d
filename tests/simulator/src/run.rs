//! One run of an execution.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::clock;
use crate::spec::{Behaviour, Outcome};
use crate::state::Hiding;

/// The API's status words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    Running,
    Completed,
    Failed,
    Canceled,
    Terminated,
    ContinuedAsNew,
    TimedOut,
}

impl Status {
    /// All status words of the API, including the one it no longer uses.
    pub(crate) const WORDS: &'static [&'static str] = &[
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "CANCELED",
        "TERMINATED",
        "CONTINUED_AS_NEW",
        "TIMED_OUT",
        "RETRYING_AFTER_ERROR",
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
            Self::Terminated => "TERMINATED",
            Self::ContinuedAsNew => "CONTINUED_AS_NEW",
            Self::TimedOut => "TIMED_OUT",
        }
    }
}

/// What a client asked for. All runs of a continue-as-new chain share it.
#[derive(Debug)]
pub(crate) struct Job {
    /// When the execute call arrived.
    pub(crate) arrived: Timestamp,
    pub(crate) execution_id: String,
    pub(crate) workflow_id: Uuid,
    pub(crate) workflow_name: String,
    pub(crate) display_name: String,
    pub(crate) input: Value,
    pub(crate) behaviour: Behaviour,
    pub(crate) timeout: Duration,
    /// The deployment that must serve the run, if the client named one.
    pub(crate) deployment: Option<String>,
    pub(crate) extensions: Value,
    pub(crate) custom_tracing_attributes: Value,
}

/// The deployment and registration that serve a run.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) deployment: String,
    pub(crate) registration_id: Uuid,
}

/// The next step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Complete,
    Fail,
    Cancel,
    Terminate,
    TimeOut,
    ContinueAsNew,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) enum Produced {
    Nothing,
    /// The run's own input.
    Echo,
    Value(Value),
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) at: Timestamp,
    pub(crate) status: Status,
    pub(crate) produced: Produced,
}

#[derive(Debug)]
pub(crate) struct Run {
    /// The id in the API's database, shown in run lists.
    pub(crate) id: Uuid,
    /// The workflow engine's id of the run, shown in events. It always differs from `id`.
    pub(crate) engine_id: Uuid,
    /// The engine's id of the first run of the chain.
    pub(crate) first_engine_id: Uuid,
    /// The engine's id of the run that this one continues.
    pub(crate) continues: Option<Uuid>,
    pub(crate) job: Arc<Job>,
    pub(crate) started: Timestamp,
    /// When the first run of the chain started.
    pub(crate) chain_started: Timestamp,
    /// Absent until a worker picks up the run.
    pub(crate) worker: Option<Worker>,
    pub(crate) cancel_requested: bool,
    pub(crate) due: Option<(Timestamp, Step)>,
    pub(crate) end: Option<End>,
    pub(crate) forgotten: bool,
}

impl Run {
    /// The first run of a start.
    pub(crate) fn first(job: Arc<Job>, now: Timestamp) -> Self {
        let engine_id = Uuid::now_v7();
        Self {
            id: Uuid::now_v7(),
            engine_id,
            first_engine_id: engine_id,
            continues: None,
            job,
            started: now,
            chain_started: now,
            worker: None,
            cancel_requested: false,
            due: None,
            end: None,
            forgotten: false,
        }
    }

    /// The run that continues this one.
    pub(crate) fn continuation(&self, at: Timestamp) -> Self {
        Self {
            first_engine_id: self.first_engine_id,
            continues: Some(self.engine_id),
            chain_started: self.chain_started,
            ..Self::first(Arc::clone(&self.job), at)
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.end.as_ref().map_or(Status::Running, |end| end.status)
    }

    pub(crate) fn ended(&self) -> Option<Timestamp> {
        self.end.as_ref().map(|end| end.at)
    }

    pub(crate) fn result(&self) -> &Value {
        match self.end.as_ref().map(|end| &end.produced) {
            Some(Produced::Echo) => &self.job.input,
            Some(Produced::Value(value)) => value,
            Some(Produced::Nothing) | None => &Value::Null,
        }
    }

    /// When the execution timeout ends the run. It covers the whole chain.
    pub(crate) fn deadline(&self) -> Timestamp {
        clock::after(self.chain_started, self.job.timeout)
    }

    /// The next step of a run that a worker begins at `begin`.
    pub(crate) fn next_step(&self, begin: Timestamp) -> (Timestamp, Step) {
        let behaviour = &self.job.behaviour;
        let own_step = match behaviour.outcome {
            Outcome::Complete => Some(Step::Complete),
            Outcome::Fail => Some(Step::Fail),
            Outcome::TimeOut => Some(Step::TimeOut),
            Outcome::Hang => None,
            Outcome::IgnoreCancel => behaviour.duration_ms.map(|_| Step::Complete),
            Outcome::ContinueAsNew if self.continues.is_none() => Some(Step::ContinueAsNew),
            Outcome::ContinueAsNew => Some(Step::Complete),
        };
        let duration = Duration::from_millis(behaviour.duration_ms.unwrap_or_default());
        let at = clock::after(begin, duration);
        match own_step {
            Some(step) if at < self.deadline() => (at, step),
            _ => (self.deadline(), Step::TimeOut),
        }
    }

    /// Whether readers see the run.
    pub(crate) fn is_visible(&self, now: Timestamp, hiding: Option<Hiding>) -> bool {
        let hidden = hiding.is_some_and(|hiding| hiding.covers(self.chain_started, now));
        !self.forgotten && !hidden
    }
}
