//! Tests the promise that a run happens exactly once, against a model of the world that fails in every way it can:
//! crashes at any step, lost answers, late effects, runs that become visible late, two operators with different clocks
//! and stale caches, edits that drop the claim or the status, and an API server that refuses writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use proptest::prelude::*;
use secrecy::SecretSlice;
use serde_json::{Value, json};

use crate::api::conditions::{self, Progress, STARTED};
use crate::api::values::Kind;
use crate::api::{Shutdown, WorkflowExecution, WorkflowExecutionSpec, WorkflowExecutionStatus};
use crate::execution::claim::{CLAIM, Claim, FINALIZER, Owner, SEND_WITHIN, VISIBILITY};
use crate::execution::plan::refused_writes::Write;
use crate::execution::plan::{Call, ClusterStep, Decision, Step, plan};
use crate::execution::state::input::{Input, Source, Sources};
use crate::execution::state::{
    Comparison, ExecutionState, Instance, Memory, Named, References, StopCall, WorkflowRefState,
};
use crate::execution::status::{is_finished, reason};
use crate::mistral::wire::Execution;
use crate::mistral::{ApiError, Error, REQUEST_TIMEOUT};
use crate::platform::names::FIELD_MANAGER;
use crate::platform::refused::{Cause, Refused};
use crate::platform::requeue::Requeue;
use crate::workspace::access::{ConnectionInfo, Workspace};

/// More steps than any reconcile needs.
const MAX_STEPS: usize = 16;

/// A finite source of choices: once it is empty, nothing fails any more.
struct Fate(std::vec::IntoIter<u8>);

impl Fate {
    /// One of `n`; the first once no choices are left.
    fn choose(&mut self, n: u8) -> u8 {
        self.0.next().map_or(0, |byte| byte % n)
    }

    /// Up to `worst` seconds; 0 and `worst` more often than any other.
    fn at_most(&mut self, worst: u8) -> SignedDuration {
        match self.choose(3) {
            0 => seconds(0),
            1 => seconds(worst),
            _ => seconds(self.choose(worst)),
        }
    }

    /// Rarely true.
    fn seldom(&mut self) -> bool {
        self.choose(8) == 7
    }

    fn is_over(&self) -> bool {
        self.0.len() == 0
    }
}

/// The API: at most one run of its only id at a time, and a new run for each start after the end of one.
#[derive(Default)]
struct Api {
    id: String,
    starts: usize,
    run: Option<(Timestamp, Timestamp)>,
    /// How the run ends, if it does not complete.
    stopped: Option<StopCall>,
    visible_from: Option<Timestamp>,
    /// Calls that have been sent and take effect later.
    under_way: Vec<Timestamp>,
}

struct World {
    now: Timestamp,
    api: Api,
    object: WorkflowExecution,
    /// Older versions, as a stale cache may still show them.
    history: Vec<WorkflowExecution>,
    operators: [Operator; 2],
    /// Whether people may ask to stop the run.
    may_stop: bool,
    /// How far the API server's clock is off; none if it is right and the operators' clocks may be set.
    api_server_skew: Option<SignedDuration>,
    /// Version of the Secret that the input may come from.
    secret: u32,
    /// Whether a policy refuses claims and finalizers, and whether one refuses the status.
    refuses: (bool, bool),
    /// What happened, to find out why a promise broke.
    story: Vec<String>,
}

struct Operator {
    memory: Memory,
    instance: Instance,
    /// How far its clock is off.
    skew: SignedDuration,
    /// How far the API server's clock was off when it began.
    api_server_skew: SignedDuration,
    /// How often it has crashed: each process has a name of its own.
    crashes: u32,
    /// The call that it knows of, by the time before which it is sent; and since when it knows of the call.
    knows: Option<(Timestamp, Timestamp)>,
}

impl Operator {
    /// How long it has known of the call that it knows of now.
    fn known_for(&mut self, now: Timestamp) -> Duration {
        let call = self.memory.claim.as_ref().map(|known| known.send_before);
        if self.knows.map(|(call, _)| call) != call {
            self.knows = call.map(|call| (call, now));
        }
        self.knows.map_or(Duration::ZERO, |(_, since)| now.duration_since(since).unsigned_abs())
    }
}

fn seconds(seconds: u8) -> SignedDuration {
    SignedDuration::from_secs(i64::from(seconds))
}

impl Api {
    fn pass_to(&mut self, now: Timestamp, fate: &mut Fate) {
        self.under_way.sort();
        while self.under_way.first().is_some_and(|due| *due <= now) {
            let at = self.under_way.remove(0);
            let _ = self.start(at, fate);
        }
    }

    /// The effect of a start.
    fn start(&mut self, at: Timestamp, fate: &mut Fate) -> Result<Execution, Error> {
        if self.run.is_some_and(|(_, end)| end > at) {
            return Err(Error::Conflict(said(409, Some("WF_1101"))));
        }
        self.starts += 1;
        let runs_for = fate.at_most(200);
        self.run = Some((at, at + runs_for));
        self.visible_from = Some(at + fate.at_most(30).min(VISIBILITY));
        Ok(self.execution(at))
    }

    /// The effect of a stop. A workflow may ignore a cancel, or take its time.
    fn stop(&mut self, call: StopCall, now: Timestamp, fate: &mut Fate) -> Result<(), Error> {
        self.get(now)?;
        let (start, end) = self.run.unwrap();
        if end <= now {
            return Err(Error::Conflict(said(409, Some("WF_1102"))));
        }
        match call {
            StopCall::Cancel if fate.choose(2) == 0 => {}
            StopCall::Cancel => self.run = Some((start, end.min(now + fate.at_most(60)))),
            StopCall::Terminate => self.run = Some((start, now)),
        }
        if self.run != Some((start, end)) {
            self.stopped = Some(call);
        }
        Ok(())
    }

    fn execution(&self, now: Timestamp) -> Execution {
        let (start, end) = self.run.unwrap();
        let status = match self.stopped {
            _ if now < end => "RUNNING",
            None => "COMPLETED",
            Some(StopCall::Cancel) => "CANCELED",
            Some(StopCall::Terminate) => "TERMINATED",
        };
        let end = (now >= end).then_some(end);
        let run = json!({
            "execution_id": self.id, "workflow_name": "w", "status": status, "result": 1,
            "start_time": start.to_string(), "end_time": end.map(|end| end.to_string()),
        });
        serde_json::from_value(run).unwrap()
    }

    fn get(&self, now: Timestamp) -> Result<Execution, Error> {
        match self.visible_from {
            Some(from) if from <= now => Ok(self.execution(now)),
            _ => Err(Error::NotFound(said(404, Some("WF_1100")))),
        }
    }
}

fn said(status: u16, code: Option<&str>) -> ApiError {
    ApiError { status, code: code.map(str::to_owned), detail: String::new(), deployments: Vec::new(), is_json: true }
}

/// A 404 that does not come from the API.
fn gateway() -> ApiError {
    ApiError { code: None, ..said(404, None) }
}

fn transient() -> Error {
    Error::Transient { retry_after: None, message: "broken".into() }
}

fn unknown() -> Error {
    Error::UnknownOutcome { message: "broken".into() }
}

impl World {
    fn new(spec: &Value, fate: &mut Fate) -> Self {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let object: WorkflowExecution = serde_json::from_value(json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": {
                "name": "run", "namespace": "n", "uid": "uid", "resourceVersion": "1", "generation": 1,
                "creationTimestamp": now.to_string(),
            },
            "spec": spec,
        }))
        .unwrap();
        let operator = |n: i64, fate: &mut Fate| Operator {
            memory: Memory::default(),
            instance: Instance { name: format!("operator-{n}"), since: now - seconds(5), api_server_time: None },
            skew: SignedDuration::from_secs(i64::from(fate.choose(15)) - 7),
            api_server_skew: seconds(0),
            crashes: 0,
            knows: None,
        };
        let operators = [operator(0, fate), operator(1, fate)];
        let history = Vec::new();
        Self {
            now,
            api: Api { id: object.spec.execution_id.clone().unwrap_or_else(|| "run-uid".into()), ..Api::default() },
            object,
            history,
            operators,
            may_stop: false,
            api_server_skew: (fate.choose(4) == 3).then_some(seconds(0)),
            secret: 1,
            refuses: (false, false),
            story: Vec::new(),
        }
    }

    fn advance(&mut self, by: SignedDuration, fate: &mut Fate) {
        self.now += by;
        self.api.pass_to(self.now, fate);
        self.check();
    }

    fn check(&self) {
        assert!(self.api.starts <= 1, "started {} times:\n{}", self.api.starts, self.story.join("\n"));
    }

    fn tell(&mut self, what: impl std::fmt::Display) {
        let at = self.now.duration_since(self.object.metadata.creation_timestamp.as_ref().unwrap().0).as_secs();
        self.story.push(format!("{at:>4} s: {what}"));
    }

    /// A conditional write; false if somebody else wrote first.
    fn write(&mut self, version: &mut String, change: impl FnOnce(&mut WorkflowExecution)) -> bool {
        if self.object.metadata.resource_version.as_ref() != Some(version) {
            return false;
        }
        self.history.push(self.object.clone());
        change(&mut self.object);
        *version = (self.history.len() + 1).to_string();
        self.object.metadata.resource_version = Some(version.clone());
        true
    }

    fn crash(&mut self, who: usize) {
        self.tell(format!("operator {who} crashes"));
        self.operators[who].memory = Memory::default();
        let operator = &mut self.operators[who];
        operator.knows = None;
        operator.crashes += 1;
        operator.api_server_skew = self.api_server_skew.unwrap_or_default();
        // `since` is by the API server's clock.
        operator.instance =
            Instance { name: format!("operator-{who}-{}", operator.crashes), since: self.now, api_server_time: None };
    }

    fn state(
        &self,
        who: usize,
        seen: &WorkflowExecution,
        workflow_ref: WorkflowRefState,
        refresh: bool,
    ) -> ExecutionState {
        let connection = ConnectionInfo { origin: "https://api".into(), workspace_id: None, epoch: 0 };
        let Operator { memory, instance, skew, api_server_skew, .. } = &self.operators[who];
        // The time is cut to whole seconds and was read a moment ago.
        let api_server_time = Some(self.now - seconds(1) + *api_server_skew);
        let instance = Instance { api_server_time, ..instance.clone() };
        let (workspace, stop_with) = (Workspace::Ready(connection.clone()), Some(connection));
        let references = References { workspace, stop_with, workflow_ref };
        ExecutionState::new(seen, "cluster", instance, memory.clone(), references, refresh, self.now + *skew)
    }

    /// One reconcile of one operator, in which anything may fail. Returns when the next one is due.
    fn pass(&mut self, who: usize, refresh: bool, fate: &mut Fate) -> Option<SignedDuration> {
        let stale = if fate.seldom() { usize::from(fate.choose(3)) } else { 0 };
        let seen = match stale {
            0 => self.object.clone(),
            back => self.history.iter().rev().nth(back - 1).unwrap_or(&self.object).clone(),
        };
        let mut version = seen.metadata.resource_version.clone().unwrap();
        let skew = self.operators[who].skew;
        let mut state = self.state(who, &seen, workflow_ref(&seen, fate), refresh);
        self.operators[who].memory = state.memory.clone();
        state.known_for = self.operators[who].known_for(self.now);
        let mut send_before = None;
        let mut remote_changes = 0;
        for _ in 0..MAX_STEPS {
            match plan(&state, self.now + skew) {
                Decision::Act(step) => {
                    self.tell(format!("operator {who}, seeing version {:?}: {step:?}", seen.metadata.resource_version));
                    if fate.seldom() {
                        self.crash(who);
                        return None;
                    }
                    match step {
                        Step::Cluster(ClusterStep::WriteClaim { claim, finalizer, send, consent }) => {
                            assert!(!consent, "nobody consented");
                            let now = self.now + skew;
                            let held = state.refusal(Write::Claim, now).is_some();
                            if held || self.refuses.0 {
                                if !held {
                                    state.refused(Write::Claim, refused(), now);
                                }
                                state.unclaimed(*claim, send);
                                self.operators[who].memory = state.memory.clone();
                                continue;
                            }
                            send_before = send.then_some(self.now + SEND_WITHIN);
                            let at = self.now + self.api_server_skew.unwrap_or_default();
                            if !self.write(&mut version, |object| annotate(object, &claim, finalizer, at)) {
                                return None;
                            }
                            state.wrote(&version);
                            state.finalizer = finalizer;
                            state.claimed(*claim, send);
                            self.operators[who].memory = state.memory.clone();
                            self.operators[who].known_for(self.now);
                            if fate.seldom() {
                                // Written, but the answer was lost.
                                return None;
                            }
                        }
                        Step::Call(Call::Start) => {
                            assert!(state.outcomes.claimed_this_reconcile, "sent without a claim of this pass");
                            remote_changes += 1;
                            assert_eq!(remote_changes, 1, "more than one change at the API in a pass");
                            // Up to the latest moment to send, or past it.
                            let delay = if fate.choose(4) == 3 { fate.at_most(14) } else { fate.at_most(40) };
                            self.advance(delay, fate);
                            if send_before.is_some_and(|before| self.now < before) {
                                match self.send(who, fate) {
                                    Some(outcome) => state.sent(outcome),
                                    None => return None,
                                }
                            } else {
                                state.too_late();
                            }
                        }
                        Step::Call(Call::GetRun) => {
                            let timeout = REQUEST_TIMEOUT.as_secs().try_into().unwrap();
                            let (there, back) = match fate.choose(4) {
                                2 => (fate.at_most(timeout), 0),
                                3 => (seconds(0), fate.choose(timeout)),
                                _ => (seconds(0), 0),
                            };
                            self.advance(there, fate);
                            let answer = match fate.choose(8) {
                                6 => Err(transient()),
                                7 => Err(Error::NotFound(gateway())),
                                _ => self.api.get(self.now),
                            };
                            self.advance(seconds(back), fate);
                            self.tell(format!("operator {who} asked: {answer:?}"));
                            state.fetched(answer);
                        }
                        Step::Cluster(ClusterStep::Linger) => {
                            self.advance(fate.at_most(2), fate);
                            let outcome = match fate.choose(4) {
                                2 => Some(self.api.get(self.now)),
                                3 => Some(Err(transient())),
                                _ => None,
                            };
                            state.lingered(outcome);
                        }
                        Step::Call(Call::Compare) => state.compared(Comparison::Same),
                        Step::Call(Call::GetTarget) => state.target_fetched(Ok(())),
                        Step::Call(Call::ReadFailure) => state.failure_read(Ok(Vec::new())),
                        Step::Cluster(ClusterStep::SetFinalizer(_)) if self.refuses.0 => {
                            state.refused(Write::Finalizer, refused(), self.now + skew);
                        }
                        Step::Cluster(ClusterStep::SetFinalizer(present)) => {
                            if !self.write(&mut version, |object| set_finalizer(object, present)) {
                                return None;
                            }
                            state.wrote(&version);
                            state.finalizer_set(present);
                        }
                        Step::Cluster(ClusterStep::ReadInput) => {
                            state.outcomes.input = Input::Read(Arc::new(self.sources(fate)))
                        }
                        Step::Cluster(ClusterStep::WriteResult) => panic!("nobody asked for it"),
                        Step::Call(Call::Stop(call)) => {
                            assert!(self.may_stop, "nobody asked to stop");
                            remote_changes += 1;
                            assert_eq!(remote_changes, 1, "more than one change at the API in a pass");
                            let outcome = match fate.choose(9) {
                                6 => Err(transient()),
                                8 => Err(Error::NotFound(gateway())),
                                7 => self.api.stop(call, self.now, fate).and(Err(unknown())),
                                _ => self.api.stop(call, self.now, fate),
                            };
                            self.tell(format!("operator {who} stops: {outcome:?}"));
                            state.stop_sent(call, outcome, self.now + skew);
                        }
                        Step::Cluster(ClusterStep::Release { .. }) | Step::Cluster(ClusterStep::Delete) => {
                            panic!("nobody asked to delete")
                        }
                    }
                }
                Decision::Settle(mut settled) => {
                    let now = self.now + skew;
                    let differs = state.status != settled.status;
                    let held = state.refusal(Write::Status, now).is_some();
                    let mut written = true;
                    if differs && (held || self.refuses.1) {
                        if !held {
                            state.refused(Write::Status, refused(), now);
                        }
                        self.tell(format!("operator {who} cannot write its status"));
                        state.untold(&settled, now);
                        if let Some((_, left)) = state.refusal(Write::Status, now) {
                            settled.requeue = settled.requeue.within(left);
                        }
                    } else {
                        if differs {
                            written = self.write(&mut version, |object| object.status = Some(settled.status.clone()));
                        }
                        if written && !held {
                            state.told(&settled.status);
                            state.wrote(&version);
                        }
                    }
                    state.settled(settled.requeue, now);
                    self.operators[who].memory = state.memory;
                    return match settled.requeue {
                        Requeue::AtLatest(wait) | Requeue::After(wait) | Requeue::Retry(wait) | Requeue::Hold(wait)
                            if written =>
                        {
                            Some(wait.try_into().unwrap())
                        }
                        _ => None,
                    };
                }
            }
        }
        panic!("the plan does not settle:\n{}", self.story.join("\n"));
    }

    /// The Secret that the input comes from. At times it is missing or forbidden.
    fn sources(&self, fate: &mut Fate) -> Sources {
        let found = Source::Found {
            uid: "secret".into(),
            resource_version: self.secret.to_string(),
            values: [("k".to_owned(), SecretSlice::from(b"value".to_vec()))].into(),
        };
        let source = match fate.choose(6) {
            1 => Source::Absent,
            2 => Source::Forbidden,
            _ => found,
        };
        Sources::from([((Kind::Secret, "s".to_owned()), source)])
    }

    /// The call that starts the run; none if the operator crashes before the answer.
    fn send(&mut self, who: usize, fate: &mut Fate) -> Option<Result<Execution, Error>> {
        let timeout = SignedDuration::try_from(REQUEST_TIMEOUT).unwrap();
        let outcome = match fate.choose(12) {
            0 | 1 => self.api.start(self.now, fate),
            2 => self.api.start(self.now, fate).and(Err(unknown())),
            3 => Err(unknown()),
            4 | 5 => {
                // In flight for as long as a call may take.
                let late = fate.at_most(30).min(timeout);
                self.api.under_way.push(self.now + late);
                self.tell(format!("operator {who} sent, effect in {late:?}"));
                if fate.choose(2) == 0 {
                    self.crash(who);
                    return None;
                }
                self.advance(timeout, fate);
                Err(unknown())
            }
            6 => Err(transient()),
            7 => Err(Error::Unauthorized(said(401, None))),
            8 => Err(Error::NotFound(said(404, None))),
            9 => Err(Error::Conflict(said(409, Some("AMBIGUOUS_WORKFLOW")))),
            10 => {
                let _ = self.api.start(self.now, fate);
                self.crash(who);
                return None;
            }
            _ => Err(Error::Rejected(said(403, None))),
        };
        self.tell(format!("operator {who} sent: {outcome:?}"));
        self.check();
        Some(outcome)
    }

    /// What people and tools do to a resource.
    fn meddle(&mut self, fate: &mut Fate) {
        let what = fate.choose(16);
        self.tell(format!("meddling {what}"));
        match what {
            // `kubectl replace` from a file: the status stays.
            1 => {
                self.apply(None, false);
            }
            // A restore: the status is dropped, the annotations stay. A resource that loses both has no record left.
            2 => {
                self.apply(self.object.metadata.annotations.clone(), true);
            }
            3 => {
                self.edit(|spec| spec.suspend = !spec.suspend);
            }
            4 | 5 if self.may_stop && fate.choose(3) == 2 => {
                let shutdown = if what == 4 { Shutdown::Cancel } else { Shutdown::Terminate };
                self.edit(|spec| spec.shutdown = Some(shutdown));
            }
            // This is too late once the stop is recorded.
            6 => {
                self.edit(|spec| spec.shutdown = None);
            }
            7 => self.secret += 1,
            8 => self.refuses.0 = !self.refuses.0,
            9 => self.refuses.1 = !self.refuses.1,
            // A clock is set wrong, and set right later.
            10 => {
                let who = usize::from(fate.choose(2));
                let hours = SignedDuration::from_hours(6);
                let skew = [seconds(0), hours, -hours][usize::from(fate.choose(3))];
                // One of the two clocks has to be right.
                match &mut self.api_server_skew {
                    Some(of_api_server) => *of_api_server = skew,
                    None => self.operators[who].skew = skew,
                }
            }
            // `kubectl apply` of an export: an older claim comes back, with or without the status.
            11 | 12 => {
                let back = usize::from(fate.choose(8));
                let is_claimed = |older: &&WorkflowExecution| older.annotations().contains_key(CLAIM);
                if let Some(older) = self.history.iter().rev().filter(is_claimed).nth(back) {
                    let annotations = older.metadata.annotations.clone();
                    self.apply(annotations, what == 12);
                }
            }
            // The claim of another resource, or of an earlier one of this name.
            13 | 14 => {
                let claim =
                    self.object.annotations().get(CLAIM).map(|text| serde_json::from_str::<Claim>(text).unwrap());
                if let Some(claim) = claim {
                    let owner = Owner { name: "other".into(), ..claim.owner.clone() };
                    let refused = fate.choose(2) == 0;
                    let execution_id = self.object.spec.execution_id.clone().unwrap_or_else(|| "earlier".into());
                    let claim = match what {
                        13 => Claim { owner, refused, ..claim },
                        _ => Claim { uid: Some("earlier".into()), execution_id, revision: 9, refused, ..claim },
                    };
                    let annotations = [(CLAIM.to_owned(), claim.to_annotation())].into();
                    let empties_status = fate.choose(2) == 0;
                    if self.apply(Some(annotations), empties_status) && what == 14 && empties_status {
                        (0..2).for_each(|who| self.crash(who));
                    }
                }
            }
            // A tool restores `managedFields` from a backup, as if the API server's clock were wrong.
            15 if self.api_server_skew.is_some() => {
                let created = self.object.metadata.creation_timestamp.clone();
                if let Some([ours]) = self.object.metadata.managed_fields.as_deref_mut() {
                    ours.time = created;
                }
            }
            _ => {}
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut WorkflowExecutionSpec)) {
        let mut version = self.object.metadata.resource_version.clone().unwrap();
        self.write(&mut version, |object| {
            change(&mut object.spec);
            object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
        });
    }

    /// Applies annotations, unless that would leave no record of the run. Returns whether it did.
    fn apply(&mut self, annotations: Option<BTreeMap<String, String>>, empties_status: bool) -> bool {
        let mut version = self.object.metadata.resource_version.clone().unwrap();
        let status = self.object.status.as_ref().filter(|_| !empties_status);
        if !has_own_claim(annotations.as_ref())
            && self.object.metadata.finalizers.is_none()
            && status.is_none_or(|status| status.execution_id.is_none())
        {
            return false;
        }
        // An operator that remembers a claim sees the present one before it is replaced. So the model leaves out one
        // case: of two simultaneous leaders, the claim of one is replaced before the other has seen it. The other would
        // then take its own last claim for the newest.
        for who in 0..2 {
            if self.operators[who].memory.claim.is_some() {
                self.operators[who].memory = self.state(who, &self.object, WorkflowRefState::NotNamed, false).memory;
            }
        }
        self.tell(format!("applied: {annotations:?}, status emptied: {empties_status}"));
        self.write(&mut version, |object| {
            // Writing what is there already changes no field manager.
            if object.metadata.annotations != annotations {
                object.metadata.managed_fields = None;
            }
            object.metadata.annotations = annotations;
            if empties_status {
                object.status = None;
            }
        })
    }
}

fn has_own_claim(annotations: Option<&BTreeMap<String, String>>) -> bool {
    let claim = annotations.and_then(|all| all.get(CLAIM)).map(|text| serde_json::from_str::<Claim>(text).unwrap());
    claim.is_some_and(|claim| claim.owner.name == "run" && claim.uid.as_deref() == Some("uid"))
}

fn refused() -> Refused {
    Refused { cause: Cause::Rule, said: "no".into() }
}

/// What the Workflow resource says, if the spec names one. At times it is missing or not ready.
fn workflow_ref(object: &WorkflowExecution, fate: &mut Fate) -> WorkflowRefState {
    let named = |id: &str| Named { id: id.into(), name: "w".into() };
    if object.spec.workflow_ref.is_none() {
        return WorkflowRefState::NotNamed;
    }
    match fate.choose(6) {
        1 => WorkflowRefState::NotFound,
        2 => WorkflowRefState::NotReady { why: "gone".into(), wait: Progress::Stalled, workflow: None },
        3 => WorkflowRefState::NotReady { why: "archived".into(), wait: Progress::Stalled, workflow: Some(named("1")) },
        4 => WorkflowRefState::Ready { workflow: named("2"), active: None },
        _ => WorkflowRefState::Ready { workflow: named("1"), active: Some(false) },
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

fn live(spec: &Value, choices: Vec<u8>) {
    let (world, status) = to_the_end(spec, choices, false);
    if has_changed_input(&status) {
        // Only a Secret that changed at the wrong time may lead here, and only if nothing has run.
        assert!(world.secret > 1 && world.object.spec.input_from.is_some(), "{}", world.story.join("\n"));
        assert_eq!(world.api.starts, 0, "{status:#?}\n{}", world.story.join("\n"));
        return;
    }
    assert_eq!(world.api.starts, 1, "{status:#?}\n{}", world.story.join("\n"));
    assert_eq!(status.status.as_deref(), Some("COMPLETED"));
    assert!(status.conditions.iter().any(|condition| condition.reason == reason::COMPLETED));
}

/// With stops, and deadlines in the spec: the final status says what happened, and no run goes on.
fn live_and_be_stopped(spec: &Value, choices: Vec<u8>) {
    let (world, status) = to_the_end(spec, choices, true);
    let story = world.story.join("\n");
    let started = conditions::is_true(&status.conditions, STARTED);
    assert_eq!(world.api.starts, usize::from(started), "{status:#?}\n{story}");
    let end = world.api.run.map(|(_, end)| end);
    assert!(end.is_none_or(|end| end <= world.now), "it goes on: {status:#?}\n{story}");
    let expected = world.api.run.map(|_| match world.api.stopped {
        None => "COMPLETED",
        Some(StopCall::Cancel) => "CANCELED",
        Some(StopCall::Terminate) => "TERMINATED",
    });
    assert_eq!(status.status.as_deref(), expected, "{story}");
}

fn to_the_end(spec: &Value, choices: Vec<u8>, may_stop: bool) -> (World, WorkflowExecutionStatus) {
    let mut fate = Fate(choices.into_iter());
    let mut world = World { may_stop, ..World::new(spec, &mut fate) };
    while !fate.is_over() {
        let who = usize::from(fate.choose(4) == 3);
        let refresh = fate.choose(2) == 0;
        let due = world.pass(who, refresh, &mut fate);
        world.meddle(&mut fate);
        let wait = match fate.choose(4) {
            0 => due.unwrap_or(seconds(1)),
            1 => seconds(0),
            2 => seconds(fate.choose(60)),
            _ => seconds(fate.choose(250)),
        };
        world.advance(wait, &mut fate);
    }
    // Nothing fails any more.
    world.object.spec.suspend = false;
    world.refuses = (false, false);
    world.operators.iter_mut().for_each(|operator| operator.skew = seconds(0));
    for _ in 0..100 {
        let due = world.pass(0, true, &mut fate);
        world.advance(due.unwrap_or(seconds(10)), &mut fate);
        // What the status says of a changed input may be from before the last start, whose run may not be visible yet.
        if world.object.status.as_ref().is_some_and(is_finished) {
            break;
        }
    }
    let status = world.object.status.clone().unwrap_or_default();
    let ended = is_finished(&status) || has_changed_input(&status);
    assert!(ended, "lost: {status:#?}\n{}", world.story.join("\n"));
    (world, status)
}

fn has_changed_input(status: &WorkflowExecutionStatus) -> bool {
    status.conditions.iter().any(|condition| condition.reason == reason::INPUT_CHANGED)
}

#[test]
fn a_start_after_a_status_about_a_changed_input_is_found_once_its_run_is_visible() {
    let choices = vec![
        4, 0, 0, 0, 0, 0, 56, 117, 0, 0, 0, 152, 1, 0, 0, 15, 0, 0, 0, 119, 0, 87, 78, 0, 0, 58, 0, 0, 0, 0, 23, 212,
        0, 0, 0, 0, 0, 34, 81, 0, 222, 0, 126, 226, 0, 0, 0, 0, 0, 44, 0, 34, 44, 0, 0, 39, 82, 0, 95, 211, 76, 12, 0,
        40, 0, 252, 16, 0, 7, 191, 22, 0, 0, 0, 24, 0, 126, 2, 0, 0, 89, 3, 88, 0, 0, 231, 0, 139, 49, 0, 28, 0, 0, 0,
        0, 167, 116, 38, 0, 0, 0, 0, 0, 91, 0, 0, 50, 143, 94, 0, 0, 0, 0, 228, 8, 0, 157, 7, 20, 0, 0, 24, 119, 31,
        24, 0, 0, 0, 104, 38, 21, 8, 0, 0, 31, 88, 0, 0, 0, 0, 0, 54, 70, 20, 0, 0, 0, 0, 20, 0, 0, 0, 249, 10, 142, 0,
        0, 0, 0, 132, 8, 0, 15, 15, 4, 0, 0, 56, 0, 68, 24, 23, 29, 0, 85, 0, 0, 0, 7, 0, 119, 4, 8, 0, 0, 0, 24, 7,
        84, 3, 90, 127, 0, 215, 203, 0, 8, 40, 0, 0, 57, 48, 0, 0, 8, 0, 44, 24, 0, 27, 8, 0, 0, 0, 42, 2,
    ];
    let from = json!([{ "secretKeyRef": { "name": "s", "key": "k" }, "path": "/token" }]);
    live(&json!({ "workflowIdentifier": "w", "inputFrom": from }), choices);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(4000), failure_persistence: None, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_run_happens_exactly_once_whatever_fails(choices in prop::collection::vec(any::<u8>(), 0..300)) {
        live(&json!({ "workflowIdentifier": "w" }), choices);
    }

    #[test]
    fn a_run_with_an_explicit_id_happens_exactly_once_whatever_fails(
        choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        live(&json!({ "workflowIdentifier": "w", "executionId": "run" }), choices);
    }

    #[test]
    fn what_is_stopped_or_past_its_deadline_ran_at_most_once_and_ends_as_the_status_says(
        starting in prop::option::of(1_u32..400),
        active in prop::option::of(1_u32..200),
        grace in 0_u32..60,
        choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        live_and_be_stopped(
            &json!({
                "workflowIdentifier": "w", "startingDeadlineSeconds": starting, "activeDeadlineSeconds": active,
                "terminationGracePeriodSeconds": grace,
            }),
            choices,
        );
    }

    #[test]
    fn a_run_through_a_workflow_resource_that_comes_and_goes_happens_exactly_once(
        explicit in any::<bool>(), choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let mut spec = json!({ "workflowRef": { "name": "w" } });
        if explicit {
            spec["executionId"] = json!("run");
        }
        live(&spec, choices);
    }
    #[test]
    fn a_run_whose_input_comes_from_a_secret_that_changes_happens_at_most_once_and_once_if_it_does_not(
        explicit in any::<bool>(), choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let from = json!([{ "secretKeyRef": { "name": "s", "key": "k" }, "path": "/token" }]);
        let mut spec = json!({ "workflowIdentifier": "w", "inputFrom": from });
        if explicit {
            spec["executionId"] = json!("run");
        }
        live(&spec, choices);
    }
}
