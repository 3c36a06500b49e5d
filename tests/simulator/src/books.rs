//! The ledger of a workspace: every run in the order of the starts, and the events of all runs.
//!
//! There is no timer. A run carries the time and kind of its next step. The first access settles all steps that are
//! due, in the order of their times. End times are therefore exact, and readers see one consistent history.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::clock;
use crate::events::{Event, EventKind};
use crate::run::{End, Job, Produced, Run, Status, Step, Worker};
use crate::spec::Outcome;

/// The failure message of a workflow whose activity failed.
const ACTIVITY_FAILED: &str = "Activity task failed";

/// An execution id and its runs.
#[derive(Debug, Default)]
pub(crate) struct Execution {
    /// Indices of the runs, oldest first.
    pub(crate) runs: Vec<usize>,
    /// How many times a client started it.
    pub(crate) starts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    runs: Vec<Run>,
    executions: HashMap<String, Execution>,
    by_run_id: HashMap<Uuid, usize>,
    due: BTreeSet<(Timestamp, usize)>,
    events: Vec<Event>,
}

impl Books {
    /// Settles all steps up to `now`.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        while let Some((at, index)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, index));
            if let Some((_, step)) = self.runs.get_mut(index).and_then(|run| run.due.take()) {
                self.take_step(index, step, at);
            }
        }
    }

    pub(crate) fn run(&self, index: usize) -> Option<&Run> {
        self.runs.get(index)
    }

    /// All runs, oldest first.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// When the next step is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(crate) fn executions(&self) -> impl Iterator<Item = (&String, &Execution)> {
        self.executions.iter()
    }

    pub(crate) fn by_run_id(&self, id: Uuid) -> Option<&Run> {
        self.run(*self.by_run_id.get(&id)?)
    }

    /// The newest run of an execution that `shows` accepts.
    pub(crate) fn newest(&self, execution_id: &str, shows: impl Fn(&Run) -> bool) -> Option<(usize, &Run)> {
        let runs = &self.executions.get(execution_id)?.runs;
        let mut newest_first = runs.iter().rev();
        newest_first.find_map(|index| self.run(*index).filter(|run| shows(run)).map(|run| (*index, run)))
    }

    /// Whether an execution has a run that has not ended.
    pub(crate) fn is_running(&self, execution_id: &str) -> bool {
        self.newest(execution_id, |run| !run.forgotten).is_some_and(|(_, run)| run.end.is_none())
    }

    /// Whether an execution has a run that is not forgotten.
    pub(crate) fn is_known(&self, execution_id: &str) -> bool {
        self.newest(execution_id, |run| !run.forgotten).is_some()
    }

    /// Starts a run. Without a worker, the run waits until one appears or the execution timeout ends it.
    pub(crate) fn start(&mut self, job: Job, worker: Option<Worker>, now: Timestamp) -> usize {
        self.executions.entry(job.execution_id.clone()).or_default().starts += 1;
        self.add(Run::first(Arc::new(job), now), worker, now)
    }

    /// Assigns a waiting run to a worker.
    pub(crate) fn pick_up(&mut self, index: usize, worker: Worker, now: Timestamp) {
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        run.worker = Some(worker);
        let cancel = run.cancel_requested && run.job.behaviour.outcome != Outcome::IgnoreCancel;
        let (at, step) = run.next_step(now);
        self.record(index, now, EventKind::Started);
        self.schedule(index, at, step);
        if cancel {
            self.schedule_cancel(index, now);
        }
    }

    /// Requests that a run end; the workflow decides what follows. Returns whether this was the first request.
    pub(crate) fn request_cancel(&mut self, index: usize, now: Timestamp) -> bool {
        let Some(run) = self.runs.get_mut(index).filter(|run| run.end.is_none()) else {
            return false;
        };
        let news = !std::mem::replace(&mut run.cancel_requested, true);
        let honoured = run.worker.is_some() && run.job.behaviour.outcome != Outcome::IgnoreCancel;
        if news && honoured {
            self.schedule_cancel(index, now);
        }
        news
    }

    /// Ends a running run at once; its workflow publishes nothing.
    pub(crate) fn terminate(&mut self, index: usize, now: Timestamp) {
        self.unschedule(index);
        self.end(index, now, Status::Terminated, Produced::Nothing);
    }

    /// Ends a running run in the given way, with the given result or error message.
    pub(crate) fn finish(&mut self, index: usize, step: Step, words: Words, now: Timestamp) {
        self.unschedule(index);
        match step {
            Step::Complete => self.complete(index, now, words.result),
            Step::Fail => self.fail(index, now, words.error),
            other => self.take_step(index, other, now),
        }
    }

    /// Forgets an execution, as if its retention had passed. Returns whether it existed.
    pub(crate) fn forget(&mut self, execution_id: &str) -> bool {
        if !self.is_known(execution_id) {
            return false;
        }
        let runs = self.executions.get(execution_id).map(|it| it.runs.clone());
        for index in runs.unwrap_or_default() {
            self.unschedule(index);
            if let Some(run) = self.runs.get_mut(index) {
                run.forgotten = true;
            }
        }
        true
    }

    fn add(&mut self, run: Run, worker: Option<Worker>, now: Timestamp) -> usize {
        let index = self.runs.len();
        self.by_run_id.insert(run.id, index);
        self.executions.entry(run.job.execution_id.clone()).or_default().runs.push(index);
        let deadline = run.deadline();
        self.runs.push(run);
        match worker {
            Some(worker) => self.pick_up(index, worker, now),
            None => self.schedule(index, deadline, Step::TimeOut),
        }
        index
    }

    fn schedule(&mut self, index: usize, at: Timestamp, step: Step) {
        self.unschedule(index);
        if let Some(run) = self.runs.get_mut(index) {
            run.due = Some((at, step));
            self.due.insert((at, index));
        }
    }

    fn unschedule(&mut self, index: usize) {
        if let Some((at, _)) = self.runs.get_mut(index).and_then(|run| run.due.take()) {
            self.due.remove(&(at, index));
        }
    }

    fn schedule_cancel(&mut self, index: usize, now: Timestamp) {
        let Some(run) = self.run(index) else { return };
        let delay = Duration::from_millis(run.job.behaviour.cancel_delay_ms);
        let at = clock::after(now, delay);
        if run.due.is_none_or(|(due, _)| at <= due) {
            self.schedule(index, at, Step::Cancel);
        }
    }

    fn take_step(&mut self, index: usize, step: Step, at: Timestamp) {
        match step {
            Step::Complete => self.complete(index, at, None),
            Step::Fail => self.fail(index, at, None),
            Step::ContinueAsNew => self.continue_as_new(index, at),
            // No event reports a run that timed out or was terminated.
            Step::TimeOut => self.end(index, at, Status::TimedOut, Produced::Nothing),
            Step::Terminate => self.end(index, at, Status::Terminated, Produced::Nothing),
            Step::Cancel => {
                self.record(index, at, EventKind::Canceled);
                self.end(index, at, Status::Canceled, Produced::Nothing);
            }
        }
    }

    fn complete(&mut self, index: usize, at: Timestamp, result: Option<Value>) {
        let Some(run) = self.run(index) else { return };
        let result = result.or_else(|| run.job.behaviour.result.clone());
        self.record(index, at, EventKind::Completed);
        let produced = result.map_or(Produced::Echo, Produced::Value);
        self.end(index, at, Status::Completed, produced);
    }

    fn fail(&mut self, index: usize, at: Timestamp, error: Option<String>) {
        let Some(run) = self.run(index) else { return };
        let behaviour = &run.job.behaviour;
        let cause = behaviour.activity_error.clone().filter(|_| error.is_none());
        let own = match &cause {
            Some(_) => Some(ACTIVITY_FAILED.to_owned()),
            None => error.or_else(|| behaviour.error.clone()),
        };
        let message = own.unwrap_or_else(|| "Workflow failed".to_owned());
        if let Some(message) = cause {
            self.record(index, at, EventKind::ActivityFailed { message });
        }
        self.record(index, at, EventKind::Failed { message });
        self.end(index, at, Status::Failed, Produced::Nothing);
    }

    /// Ends the run and starts the next one of the same execution on the same worker.
    fn continue_as_new(&mut self, index: usize, at: Timestamp) {
        self.end(index, at, Status::ContinuedAsNew, Produced::Nothing);
        let Some(run) = self.run(index) else { return };
        let (next, worker) = (run.continuation(at), run.worker.clone());
        self.add(next, worker, at);
    }

    fn end(&mut self, index: usize, at: Timestamp, status: Status, produced: Produced) {
        if let Some(run) = self.runs.get_mut(index) {
            run.end = Some(End { at, status, produced });
        }
    }

    fn record(&mut self, run: usize, at: Timestamp, kind: EventKind) {
        self.events.push(Event { id: Uuid::now_v7(), at, run, kind });
    }
}

/// The result or error message of a run that a test ends.
#[derive(Debug, Default)]
pub(crate) struct Words {
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<String>,
}
