//! The model of the world around the plan: a resource with its history, two operators, and the clocks.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::choices::{Choices, seconds};
use super::mistral::Mistral;
use crate::api::{WorkflowExecution, WorkflowExecutionSpec};
use crate::execution::claim::{CLAIM, Claim};
use crate::execution::state::{ExecutionState, Instance, Memory, References, WorkflowRefState};
use crate::workspace::access::{ConnectionInfo, Workspace};

pub struct World {
    pub now: Timestamp,
    pub mistral: Mistral,
    pub object: WorkflowExecution,
    /// Older versions, as a stale cache may still show them.
    pub history: Vec<WorkflowExecution>,
    pub operators: [Operator; 2],
    /// Whether people may ask to stop the run.
    pub may_stop: bool,
    /// How far the API server's clock is off; none if it is right and the operators' clocks may be set.
    pub api_server_skew: Option<SignedDuration>,
    /// Version of the Secret that the input may come from.
    pub secret: u32,
    /// Whether a policy refuses claims and finalizers.
    pub refuses_claims: bool,
    /// Whether a policy refuses the status.
    pub refuses_status: bool,
    /// No operator crashes before this time. After a restore, the claim is known only from the leader's memory, and its call
    /// may still be in flight.
    pub leads_until: Timestamp,
    /// What happened, to find out why a promise broke.
    pub story: Vec<String>,
}

pub struct Operator {
    pub memory: Memory,
    instance: Instance,
    /// How far its clock is off.
    pub skew: SignedDuration,
    /// How far the API server's clock was off when it began.
    api_server_skew: SignedDuration,
    /// How often it has crashed: each process has a name of its own.
    crashes: u32,
    /// The call that it knows of, by the time before which it is sent; and since when it knows of the call.
    knows: Option<(Timestamp, Timestamp)>,
}

impl Operator {
    fn new(number: usize, now: Timestamp, choices: &mut Choices) -> Self {
        Self {
            memory: Memory::default(),
            instance: Instance { name: format!("operator-{number}"), since: now - seconds(5), api_server_time: None },
            skew: SignedDuration::from_secs(i64::from(choices.below(15)) - 7),
            api_server_skew: seconds(0),
            crashes: 0,
            knows: None,
        }
    }

    /// How long it has known of the call that it knows of now.
    pub fn known_for(&mut self, now: Timestamp) -> Duration {
        let call = self.memory.claim.as_ref().map(|known| known.send_before);
        if self.knows.map(|(call, _)| call) != call {
            self.knows = call.map(|call| (call, now));
        }
        self.knows.map_or(Duration::ZERO, |(_, since)| now.duration_since(since).unsigned_abs())
    }
}

impl World {
    pub fn new(spec: &Value, may_stop: bool, choices: &mut Choices) -> Self {
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
        let id = object.spec.execution_id.clone().unwrap_or_else(|| "run-uid".into());
        let operators = [Operator::new(0, now, choices), Operator::new(1, now, choices)];
        let is_api_server_wrong = choices.pick(&[false, false, false, true]);
        Self {
            now,
            mistral: Mistral::new(id),
            object,
            history: Vec::new(),
            operators,
            may_stop,
            api_server_skew: is_api_server_wrong.then_some(seconds(0)),
            secret: 1,
            refuses_claims: false,
            refuses_status: false,
            leads_until: now,
            story: Vec::new(),
        }
    }

    pub fn advance(&mut self, by: SignedDuration, choices: &mut Choices) {
        self.now += by;
        self.mistral.advance_to(self.now, choices);
        self.assert_at_most_one_start();
    }

    pub fn assert_at_most_one_start(&self) {
        assert!(self.mistral.starts <= 1, "started {} times:\n{}", self.mistral.starts, self.story());
    }

    pub fn tell(&mut self, what: impl std::fmt::Display) {
        let at = self.now.duration_since(self.object.metadata.creation_timestamp.as_ref().unwrap().0).as_secs();
        self.story.push(format!("{at:>4} s: {what}"));
    }

    pub fn story(&self) -> String {
        self.story.join("\n")
    }

    /// A conditional write; false if somebody else wrote first.
    pub fn write(&mut self, version: &mut String, change: impl FnOnce(&mut WorkflowExecution)) -> bool {
        if self.object.metadata.resource_version.as_ref() != Some(version) {
            return false;
        }
        self.history.push(self.object.clone());
        change(&mut self.object);
        *version = (self.history.len() + 1).to_string();
        self.object.metadata.resource_version = Some(version.clone());
        true
    }

    /// The operator crashes, and another process takes its place.
    pub fn crash(&mut self, who: usize) {
        if self.now < self.leads_until {
            return;
        }
        self.tell(format!("operator {who} crashes"));
        let operator = &mut self.operators[who];
        operator.memory = Memory::default();
        operator.knows = None;
        operator.crashes += 1;
        operator.api_server_skew = self.api_server_skew.unwrap_or_default();
        // `since` is by the API server's clock.
        operator.instance =
            Instance { name: format!("operator-{who}-{}", operator.crashes), since: self.now, api_server_time: None };
    }

    /// What an operator knows as a reconcile begins.
    pub fn state(
        &self,
        who: usize,
        seen: &WorkflowExecution,
        workflow_ref: WorkflowRefState,
        refresh: bool,
    ) -> ExecutionState {
        let connection =
            ConnectionInfo { origin: "https://api".into(), workspace_id: None, epoch: 0, secret: "mistral".into() };
        let Operator { memory, instance, skew, api_server_skew, .. } = &self.operators[who];
        // The time is cut to whole seconds and was read a moment ago.
        let api_server_time = Some(self.now - seconds(1) + *api_server_skew);
        let instance = Instance { api_server_time, ..instance.clone() };
        let (workspace, stop_with) = (Workspace::Ready(connection.clone()), Some(connection));
        let references = References { workspace, stop_with, workflow_ref };
        ExecutionState::new(seen, "cluster", instance, memory.clone(), references, refresh, self.now + *skew)
    }

    /// A person edits the spec.
    pub fn edit(&mut self, change: impl FnOnce(&mut WorkflowExecutionSpec)) {
        let mut version = self.object.metadata.resource_version.clone().unwrap();
        self.write(&mut version, |object| {
            change(&mut object.spec);
            object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
        });
    }

    /// Applies annotations, unless that would leave no record of the run. Returns whether it did.
    pub fn apply(&mut self, annotations: Option<BTreeMap<String, String>>, empties_status: bool) -> bool {
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

/// The claim in these annotations.
pub fn claim_in(annotations: &BTreeMap<String, String>) -> Option<Claim> {
    annotations.get(CLAIM).map(|text| serde_json::from_str(text).unwrap())
}

fn has_own_claim(annotations: Option<&BTreeMap<String, String>>) -> bool {
    let claim = annotations.and_then(claim_in);
    claim.is_some_and(|claim| claim.owner.name == "run" && claim.uid.as_deref() == Some("uid"))
}
