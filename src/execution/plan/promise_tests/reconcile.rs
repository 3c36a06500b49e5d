//! One reconcile of one operator, in which anything may fail.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use secrecy::SecretSlice;
use serde_json::json;

use super::choices::{Choices, seconds};
use super::events::{
    GET_OUTCOMES, GetOutcome, LINGER_OUTCOMES, LingerOutcome, NAMED_WORKFLOWS, NamedWorkflow, SECRET_READS,
    SLOW_HALVES, START_OUTCOMES, STOP_OUTCOMES, SecretRead, SlowHalf, StartOutcome, StopOutcome,
};
use super::mistral::{api_error, gateway_not_found, transient, unknown_outcome};
use super::world::World;
use crate::api::WorkflowExecution;
use crate::api::conditions::Progress;
use crate::api::values::Kind;
use crate::execution::claim::{CLAIM, Claim, FINALIZER, SEND_WITHIN};
use crate::execution::finished::left;
use crate::execution::phase::is_started;
use crate::execution::plan::waiting;
use crate::execution::plan::{Call, ClusterStep, Decision, Settled, Step, plan};
use crate::execution::state::input::{Input, Source, Sources};
use crate::execution::state::refusals::Write;
use crate::execution::state::{Comparison, ExecutionState, Memory, Named, Report, StopCall, Target, WorkflowRefState};
use crate::mistral::wire::Execution;
use crate::mistral::{Error, REQUEST_TIMEOUT};
use crate::platform::names::FIELD_MANAGER;
use crate::platform::refused::{Cause, Refused};
use crate::platform::requeue::Requeue;
use crate::throttle::Place;

/// More steps than any reconcile needs.
const MAX_STEPS: usize = 16;

impl World {
    /// Returns when the next reconcile is due.
    pub fn reconcile(&mut self, who: usize, refresh: bool, choices: &mut Choices) -> Option<SignedDuration> {
        let mut reconcile = Reconcile::begin(self, who, refresh, choices);
        for _ in 0..MAX_STEPS {
            match plan(&reconcile.state, reconcile.clock()) {
                Decision::Act(step) => reconcile.act(step)?,
                Decision::Settle(settled) => return reconcile.settle(*settled),
            }
        }
        panic!("the plan does not settle:\n{}", self.story());
    }
}

/// A reconcile that goes on. Its steps return `None` where it ends early: at a crash, or as a write meets a conflict.
struct Reconcile<'a> {
    world: &'a mut World,
    choices: &'a mut Choices,
    who: usize,
    /// The version that the operator sees.
    seen: Option<String>,
    /// The same, or the one that it has written since.
    version: String,
    state: ExecutionState,
    /// Until when the claim of this reconcile allows to send the call.
    send_before: Option<Timestamp>,
    has_changed_api: bool,
}

impl<'a> Reconcile<'a> {
    fn begin(world: &'a mut World, who: usize, refresh: bool, choices: &'a mut Choices) -> Self {
        let stale = if choices.rarely() { usize::from(choices.below(3)) } else { 0 };
        let seen = match stale {
            0 => world.object.clone(),
            back => world.history.iter().rev().nth(back - 1).unwrap_or(&world.object).clone(),
        };
        let mut state = world.state(who, &seen, workflow_ref(&seen, choices), refresh);
        let operator = &mut world.operators[who];
        operator.memory = state.memory.clone();
        state.known_for = operator.known_for(world.now);
        let seen = seen.metadata.resource_version;
        let version = seen.clone().unwrap();
        Self { world, choices, who, seen, version, state, send_before: None, has_changed_api: false }
    }

    /// The operator's own time.
    fn clock(&self) -> Timestamp {
        self.world.now + self.world.operators[self.who].skew
    }

    fn advance(&mut self, by: SignedDuration) {
        self.world.advance(by, self.choices);
    }

    fn tell(&mut self, what: impl std::fmt::Display) {
        self.world.tell(format!("operator {}{what}", self.who));
    }

    fn remember(&mut self) {
        self.world.operators[self.who].memory = self.state.memory.clone();
    }

    fn act(&mut self, step: Step) -> Option<()> {
        self.tell(format!(", seeing version {:?}: {step:?}", self.seen));
        if self.choices.rarely() {
            self.world.crash(self.who);
            return None;
        }
        match step {
            Step::Cluster(step) => self.act_in_cluster(step),
            Step::Call(call) => self.call(call),
        }
    }

    fn act_in_cluster(&mut self, step: ClusterStep) -> Option<()> {
        match step {
            ClusterStep::WriteClaim { claim, finalizer, send, consent } => {
                assert!(!consent, "nobody consented");
                return self.write_claim(*claim, finalizer, send);
            }
            ClusterStep::SetFinalizer(present) => return self.set_finalizer(present),
            ClusterStep::Leave { .. } => return self.leave(),
            ClusterStep::Linger => self.linger(),
            ClusterStep::MayReport => self.state.outcomes.report = Report::Allowed,
            ClusterStep::ReadInput => self.state.outcomes.input = Input::Read(Arc::new(self.read_sources())),
            ClusterStep::WriteResult => panic!("nobody asked for it"),
            ClusterStep::Release { .. } | ClusterStep::Delete => panic!("nobody asked to delete"),
        }
        Some(())
    }

    fn call(&mut self, call: Call) -> Option<()> {
        match call {
            Call::Start => return self.start(),
            Call::Stop(call) => self.stop(call),
            Call::GetRun => self.get_run(),
            Call::Compare => self.state.compared(Comparison::Same),
            Call::GetTarget => self.state.target_fetched(Ok(Target::Exists)),
            Call::ReadFailure => self.state.failure_read(Ok(Vec::new())),
        }
        Some(())
    }

    fn write_claim(&mut self, claim: Claim, finalizer: bool, send: bool) -> Option<()> {
        let now = self.clock();
        if send && waiting::blank_left(&self.state, now).is_some() && self.choices.rarely() {
            // No permit is free.
            self.state.outcomes.report = Report::Queued(Place { ahead: 9, limit: 1.0, rate: 1.0 });
            return Some(());
        }
        let held = self.state.refusal(Write::Claim, now).is_some();
        if held || self.world.refuses_claims {
            if !held {
                self.state.refused(Write::Claim, refused(), now);
            }
            self.state.unclaimed(claim, send);
            self.remember();
            return Some(());
        }
        self.send_before = send.then_some(self.world.now + SEND_WITHIN);
        let at = self.world.now + self.world.api_server_skew.unwrap_or_default();
        if !self.world.write(&mut self.version, |object| annotate(object, &claim, finalizer, at)) {
            return None;
        }
        self.state.wrote(&self.version);
        self.state.finalizer = finalizer;
        self.state.claimed(claim, send);
        self.remember();
        self.world.operators[self.who].known_for(self.world.now);
        let is_answer_lost = self.choices.rarely();
        (!is_answer_lost).then_some(())
    }

    fn set_finalizer(&mut self, present: bool) -> Option<()> {
        if self.world.refuses_claims {
            self.state.refused(Write::Finalizer, refused(), self.clock());
            return Some(());
        }
        if !self.world.write(&mut self.version, |object| set_finalizer(object, present)) {
            return None;
        }
        self.state.wrote(&self.version);
        self.state.finalizer_set(present);
        Some(())
    }

    /// The resource leaves the watch, and the operator forgets all but that it has. What people do to the resource from
    /// then on brings it back.
    fn leave(&mut self) -> Option<()> {
        let seen = is_started(&self.state.status);
        self.set_finalizer(false)?;
        if self.state.finalizer {
            return Some(());
        }
        let left = left::Memory { had_run: seen, end: None, stays: Duration::ZERO };
        self.state.memory = Memory { left: Some(left), seen, ..Memory::default() };
        self.remember();
        None
    }

    fn linger(&mut self) {
        let lasts = self.choices.at_most(2);
        self.advance(lasts);
        let outcome = match self.choices.pick(&LINGER_OUTCOMES) {
            LingerOutcome::NotPolled => None,
            LingerOutcome::Answered => Some(self.world.mistral.get(self.world.now)),
            LingerOutcome::Transient => Some(Err(transient())),
        };
        self.state.lingered(outcome);
    }

    /// The Secret that the input comes from.
    fn read_sources(&mut self) -> Sources {
        let source = match self.choices.pick(&SECRET_READS) {
            SecretRead::Found => Source::Found {
                uid: "secret".into(),
                resource_version: self.world.secret.to_string(),
                values: [("k".to_owned(), SecretSlice::from(b"value".to_vec()))].into(),
            },
            SecretRead::Absent => Source::Absent,
            SecretRead::Forbidden => Source::Forbidden,
        };
        Sources::from([((Kind::Secret, "s".to_owned()), source)])
    }

    fn assert_only_change(&mut self) {
        assert!(!self.has_changed_api, "more than one change at the API in a reconcile");
        self.has_changed_api = true;
    }

    fn start(&mut self) -> Option<()> {
        assert!(self.state.outcomes.claimed_this_reconcile, "sent without a claim of this reconcile");
        self.assert_only_change();
        // Up to the latest moment to send, or past it.
        let longest = self.choices.pick(&[40, 40, 40, 14]);
        let delay = self.choices.at_most(longest);
        self.advance(delay);
        if self.send_before.is_some_and(|before| self.world.now < before) {
            let outcome = self.send()?;
            self.state.sent(outcome);
        } else {
            self.state.too_late();
        }
        Some(())
    }

    /// The call that starts the run; none if the operator crashes before the answer.
    fn send(&mut self) -> Option<Result<Execution, Error>> {
        let World { mistral, now, .. } = &mut *self.world;
        let outcome = match self.choices.pick(&START_OUTCOMES) {
            StartOutcome::Answered => mistral.start(*now, self.choices),
            StartOutcome::AnswerLost => mistral.start(*now, self.choices).and(Err(unknown_outcome())),
            StartOutcome::RequestLost => Err(unknown_outcome()),
            StartOutcome::Delayed => {
                self.send_delayed()?;
                Err(unknown_outcome())
            }
            StartOutcome::Transient => Err(transient()),
            StartOutcome::KeyRefused => Err(Error::Unauthorized(api_error(401, None))),
            StartOutcome::WorkflowNotFound => Err(Error::NotFound(api_error(404, None))),
            StartOutcome::DeploymentAmbiguous => Err(Error::Conflict(api_error(409, Some("AMBIGUOUS_WORKFLOW")))),
            StartOutcome::CrashAfterEffect => {
                let _ = mistral.start(*now, self.choices);
                self.world.crash(self.who);
                return None;
            }
            StartOutcome::Rejected => Err(Error::Rejected(api_error(403, None))),
        };
        self.tell(format!(" sent: {outcome:?}"));
        self.world.assert_at_most_one_start();
        Some(outcome)
    }

    /// In flight for as long as a call may take. The operator gives it up, or crashes before.
    fn send_delayed(&mut self) -> Option<()> {
        let timeout = SignedDuration::try_from(REQUEST_TIMEOUT).unwrap();
        let late = self.choices.at_most(30).min(timeout);
        self.world.mistral.in_flight.push(self.world.now + late);
        self.tell(format!(" sent, effect in {late:?}"));
        let crashes = self.choices.pick(&[true, false]);
        if crashes {
            self.world.crash(self.who);
            return None;
        }
        self.advance(timeout);
        Some(())
    }

    fn get_run(&mut self) {
        let timeout = REQUEST_TIMEOUT.as_secs().try_into().unwrap();
        let (until_read, until_answered) = match self.choices.pick(&SLOW_HALVES) {
            SlowHalf::Neither => (seconds(0), seconds(0)),
            SlowHalf::Request => (self.choices.at_most(timeout), seconds(0)),
            SlowHalf::Answer => (seconds(0), seconds(self.choices.below(timeout))),
        };
        self.advance(until_read);
        let answer = match self.choices.pick(&GET_OUTCOMES) {
            GetOutcome::Answered => self.world.mistral.get(self.world.now),
            GetOutcome::Transient => Err(transient()),
            GetOutcome::GatewayNotFound => Err(gateway_not_found()),
        };
        self.advance(until_answered);
        self.tell(format!(" asked: {answer:?}"));
        self.state.fetched(answer);
    }

    fn stop(&mut self, call: StopCall) {
        assert!(self.world.may_stop, "nobody asked to stop");
        self.assert_only_change();
        let World { mistral, now, .. } = &mut *self.world;
        let outcome = match self.choices.pick(&STOP_OUTCOMES) {
            StopOutcome::Answered => mistral.stop(call, *now, self.choices),
            StopOutcome::Transient => Err(transient()),
            StopOutcome::AnswerLost => mistral.stop(call, *now, self.choices).and(Err(unknown_outcome())),
            StopOutcome::GatewayNotFound => Err(gateway_not_found()),
        };
        self.tell(format!(" stops: {outcome:?}"));
        self.state.stop_sent(call, outcome, self.clock());
    }

    /// The reconcile ends, and writes the status if it differs.
    fn settle(mut self, mut settled: Settled) -> Option<SignedDuration> {
        let now = self.clock();
        let differs = self.state.status != settled.status;
        let held = self.state.refusal(Write::Status, now).is_some();
        let mut written = true;
        if differs && (held || self.world.refuses_status) {
            if !held {
                self.state.refused(Write::Status, refused(), now);
            }
            self.tell(" cannot write its status");
            self.state.untold(&settled, now);
            if let Some((_, left)) = self.state.refusal(Write::Status, now) {
                settled.requeue = settled.requeue.within(left);
            }
        } else {
            if differs {
                let status = settled.status.clone();
                written = self.world.write(&mut self.version, |object| object.status = Some(status));
            }
            if written && !held {
                self.state.told(&settled.status);
                self.state.wrote(&self.version);
            }
        }
        self.state.settled(settled.requeue, now);
        self.remember();
        match settled.requeue {
            Requeue::AtLatest(wait) | Requeue::After(wait) | Requeue::Retry(wait) | Requeue::Hold(wait) if written => {
                Some(wait.try_into().unwrap())
            }
            _ => None,
        }
    }
}

/// What the Workflow resource says, if the spec names one.
fn workflow_ref(object: &WorkflowExecution, choices: &mut Choices) -> WorkflowRefState {
    let named = |id: &str| Named { id: id.into(), name: "w".into() };
    let not_ready =
        |why: &str, workflow| WorkflowRefState::NotReady { why: why.into(), wait: Progress::Stalled, workflow };
    if object.spec.workflow_ref.is_none() {
        return WorkflowRefState::NotNamed;
    }
    match choices.pick(&NAMED_WORKFLOWS) {
        NamedWorkflow::Ready => WorkflowRefState::Ready { workflow: named("1"), active: Some(false) },
        NamedWorkflow::NotFound => WorkflowRefState::NotFound,
        NamedWorkflow::Unregistered => not_ready("gone", None),
        NamedWorkflow::Archived => not_ready("archived", Some(named("1"))),
        NamedWorkflow::Replaced => WorkflowRefState::Ready { workflow: named("2"), active: None },
    }
}

fn annotate(object: &mut WorkflowExecution, claim: &Claim, finalizer: bool, at: Timestamp) {
    object.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.to_owned()),
        time: Some(Time(at)),
        fields_v1: Some(FieldsV1(json!({ "f:metadata": { "f:annotations": { format!("f:{CLAIM}"): {} } } }))),
        ..ManagedFieldsEntry::default()
    }]);
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(CLAIM.into(), claim.to_annotation());
    set_finalizer(object, finalizer);
}

fn set_finalizer(object: &mut WorkflowExecution, present: bool) {
    object.metadata.finalizers = present.then(|| vec![FINALIZER.to_owned()]);
}

fn refused() -> Refused {
    Refused { cause: Cause::Rule, said: "no".into() }
}
