//! Carries out what [`plan()`] decides: each effect on a workflow is one arm of one match.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::Guarded;
use super::archiving::Archiving;
use super::drift::{DriftDetector, RefreshOutcome};
use super::fields;
use super::lists::{read_registrations, read_workflows};
use super::metrics::WorkflowMetrics;
use super::plan::{self, Call, ClusterStep, Decision, Settled, Step, plan};
use super::state::{Change, FINALIZER, Memory, Remote, WorkflowState};
use super::versions::{Gathering, Versions};
use crate::api::conditions::{self, READY};
use crate::api::reasons::workflow as reason;
use crate::api::{ManagementPolicy, Workflow, WorkflowStatus};
use crate::mistral::wire::{Id, Registration};
use crate::mistral::{self, Gap, RegistrationFilter, Trouble, TroubleKind, WorkflowFilter};
use crate::platform::apiserver::{self, Error, Written};
use crate::platform::reconcile::{self, CachedState, CachedStates, Flow, Reconcile};
use crate::platform::refused::Refused;
use crate::platform::requeue::{self, Refusal, Requeue};
use crate::platform::watch::reference;
use crate::throttle::{Priority, Wake};
use crate::workspace::access::{self, ConnectionInfo};
use crate::workspace::connections::{Connection, WorkspaceKey};
use crate::workspace::permit::{self, QueueTicket};
use crate::workspace::shared::Shared;

/// What reconciles of Workflows share.
pub struct Context {
    pub shared: Shared,
    /// Finds changes at the API.
    pub drift_detector: Arc<DriftDetector>,
    pub metrics: WorkflowMetrics,
    states: CachedStates<Memory>,
    archiving: Arc<Archiving>,
}

/// One reconcile of one workflow.
struct Reconciliation<'a> {
    context: &'a Context,
    object: &'a Workflow,
    key: WorkspaceKey,
    state: WorkflowState,
    /// For the next conditional write.
    resource_version: String,
    connection: Option<Connection>,
    /// Its permit to call, and its place in the queue.
    ticket: QueueTicket,
    written: Option<Written>,
    /// When this reconcile last got the workflow from the API, or asked the API to change it.
    asked: Option<Instant>,
}

impl Context {
    /// Nothing remembered yet.
    pub fn new(shared: Shared, drift_detector: Arc<DriftDetector>, metrics: WorkflowMetrics) -> Self {
        let archiving = Arc::new(Archiving::new(shared.term.clone()));
        Self { shared, drift_detector, metrics, states: CachedStates::default(), archiving }
    }

    /// Forgets all resources but those with these UIDs.
    pub fn forget_all_but(&self, exists: impl Fn(&str) -> bool) {
        self.states.forget_all_but(|uid, _| exists(uid));
    }
}

/// Reconciles one workflow.
///
/// # Errors
/// When the Kubernetes API cannot be used, or somebody else changed the object first.
pub async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    if context.shared.term.is_over() {
        return Ok(Action::await_change());
    }
    let object = match &object.0 {
        Ok(object) => object,
        Err(invalid) => {
            context.shared.publisher.undecodable(reason::UNDECODABLE, object.as_ref(), &invalid.error);
            return apiserver::let_go_of_undecodable::<Workflow>(&context.shared.client, &invalid.metadata, FINALIZER)
                .await;
        }
    };
    match context.states.of(object) {
        Ok(state) => reconcile::run(&mut Reconciliation::new(&context, object, state), &context.shared.term).await,
        Err(later) => Ok(later),
    }
}

impl Reconcile for Reconciliation<'_> {
    type Step = Step;
    type Settled = Settled;

    fn plan(&self, now: Timestamp) -> Decision {
        plan(&self.state, now)
    }

    async fn act(&mut self, step: Step) -> Result<Flow, Error> {
        tracing::debug!(?step, "step");
        match step {
            Step::Cluster(step) => return self.act_in_cluster(step).await,
            Step::Call(call) => return Ok(self.act_at_mistral(call).await),
            Step::SetArchived(id, archived) => self.set_archived(id, archived).await,
        }
        Ok(Flow::PlanAgain)
    }

    fn failed(&self) {
        // A refresh that was requested is still due.
        self.store_memory(self.state.refresh);
    }

    async fn settle(&mut self, settled: Settled) -> Result<Action, Error> {
        let Settled { status, done, news, requeue } = settled;
        for field in plan::drifted(&self.state) {
            self.context.metrics.drift_corrected(field);
        }
        let about = apiserver::reference(self.object);
        // What has been done at the API is done, whatever becomes of the status.
        self.context.shared.publisher.publish(&about, done);
        let old = self.object.status.as_ref();
        let held = self.state.memory.status_refused.as_ref();
        if let Some(left) = held.and_then(|refusal| refusal.left(&self.resource_version, Timestamp::now()))
            && status != self.state.status
        {
            return Ok(self.untold(requeue, left));
        }
        match self.context.shared.status_writer.write(self.object, &self.resource_version, old, &status).await {
            Ok(Some(version)) => {
                self.state.memory.status_refused = None;
                self.wrote(version);
                self.context.shared.publisher.publish(&about, news);
            }
            Ok(None) => {}
            Err(error) => {
                let Some(refused) = Refused::of(&error) else {
                    // A status that cannot be written each time must not make for a call each time.
                    let wait = requeue::backoff(self.state.memory.retries.in_a_row, &self.state.uid, 5, 300);
                    if !error.is_conflict() {
                        self.state.settled(Requeue::Retry(wait), Timestamp::now());
                    }
                    self.store_memory(error.is_conflict());
                    return Err(error);
                };
                let last = self.state.memory.status_refused.take();
                if last.is_none() {
                    let unsaid = conditions::find(&status.conditions, READY);
                    self.context.shared.publisher.publish(&about, vec![refused.status(reason::STATUS_REFUSED, unsaid)]);
                }
                let next = self.refused(last.as_deref(), refused);
                let left = next.left(&self.resource_version, Timestamp::now()).unwrap_or_default();
                self.state.memory.status_refused = Some(next);
                return Ok(self.untold(requeue, left));
            }
        }
        self.track(&status);
        self.state.settled(requeue, Timestamp::now());
        self.store_memory(false);
        Ok(requeue.action())
    }
}

impl<'a> Reconciliation<'a> {
    fn new(context: &'a Context, object: &'a Workflow, state: CachedState<Memory>) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let key = WorkspaceKey { namespace, name: object.spec.workspace_ref.name.clone() };
        let CachedState { memory, refresh, written } = state;
        let refresh = context.drift_detector.take_refresh(&reference(object)) || refresh;
        let (workspace, live) = access::resolve(&context.shared.workspaces, &context.shared.connections, &key);
        let stopper = context.shared.connections.for_stopping(&key);
        let mut state =
            WorkflowState::new(object, memory, workspace, stopper.as_ref().map(ConnectionInfo::from), refresh)
                .led_since(context.shared.term.since);
        if state.may_be_contested() {
            state.others = others(context.shared.workflows.state().iter().map(AsRef::as_ref), object);
        }
        let connection = live.or(stopper);
        let ticket = QueueTicket::new(connection.as_ref(), "Workflow", &key, &object.name_any());
        Self {
            context,
            object,
            key,
            state,
            resource_version: object.resource_version().unwrap_or_default(),
            connection,
            ticket,
            written,
            asked: None,
        }
    }

    /// Carries out a step that does not call Mistral's API.
    async fn act_in_cluster(&mut self, step: ClusterStep) -> Result<Flow, Error> {
        match step {
            ClusterStep::SetFinalizer(present) => {
                if self.set_finalizer(present).await? {
                    self.state.finalizer = present;
                }
                Ok(Flow::PlanAgain)
            }
            ClusterStep::Release { abandoned } => {
                if abandoned {
                    tracing::warn!(
                        "the workflow could not be archived within five minutes of the deletion; archive it in Mistral's console"
                    );
                }
                if !self.set_finalizer(false).await? {
                    return Ok(Flow::PlanAgain);
                }
                self.context.states.remove(&self.state.uid);
                self.context.drift_detector.untrack(&self.key, &reference(self.object));
                Ok(Flow::End(Action::await_change()))
            }
        }
    }

    /// Calls Mistral's API, if this reconcile has a permit and the process still leads.
    async fn act_at_mistral(&mut self, call: Call) -> Flow {
        let Some(client) = self.take_permit() else {
            // A Workflow that is queued for its first call needs no refresh besides: a refresh makes more calls.
            self.store_memory(self.state.refresh || self.asked.is_some());
            return Flow::End(Action::requeue(permit::RECHECK_AFTER));
        };
        if self.context.shared.term.is_over() {
            return Flow::End(Action::await_change());
        }
        self.call(&client, call).await;
        Flow::PlanAgain
    }

    /// Makes one call to the API, or reads one list, and folds its outcome into what is known.
    async fn call(&mut self, client: &mistral::Client, call: Call) {
        if matches!(call, Call::Get(_) | Call::Update(..)) {
            self.asked = Some(Instant::now());
        }
        match call {
            Call::Find(name) => self.state.found(find(client, &name).await),
            Call::Get(address) => self.state.fetched(client.get_workflow(&address).await),
            Call::ReadRegistrations(id) => {
                let has_worker = !matches!(&self.state.remote, Remote::Found(found) if found.active == Some(false));
                self.state.registrations_read(versions(client, &id, has_worker).await);
            }
            Call::Update(id, changed) => {
                let (now, update) = (Timestamp::now(), fields::update(&self.state.spec, &changed));
                let outcome = client.update_workflow(&id, &update).await;
                self.state.changed(changed, outcome, now);
            }
        }
        self.had_trouble();
    }

    /// Archives together with others, in one call that has a permit of its own.
    async fn set_archived(&mut self, id: String, archived: bool) {
        // The plan asks for a call only where there is a connection.
        let Some(live) = self.connection.clone() else { return };
        self.ticket.give_back();
        self.asked = Some(Instant::now());
        let priority = priority(&self.state);
        let outcome = self.context.archiving.set(&live, priority, &self.key.namespace, id, archived).await;
        self.state.changed(vec![fields::Field::Archived], outcome, Timestamp::now());
        self.had_trouble();
    }

    fn had_trouble(&self) {
        let trouble = match (&self.state.remote, &self.state.change) {
            (Remote::Unknown(trouble), _) | (_, Change::Failed { trouble, .. }) => Some(trouble),
            _ => None,
        };
        if matches!(trouble, Some(Trouble { kind: TroubleKind::Unauthorized, .. })) {
            self.context.shared.connections.suspect(&self.key);
        }
    }

    /// This reconcile's permit to call the API, which it keeps to its end. Without a permit the reconcile ends, and the
    /// workflow is woken once there is one.
    fn take_permit(&mut self) -> Option<mistral::Client> {
        // The plan asks for a call only where there is a connection.
        let live = self.connection.clone()?;
        let priority = priority(&self.state);
        self.ticket.take(&live, priority, || {
            let (drift_detector, connections) =
                (Arc::clone(&self.context.drift_detector), Arc::clone(&self.context.shared.connections));
            let (workflows, object) = (self.context.shared.workflows.clone(), reference(self.object));
            let (key, budget) = (self.key.clone(), live.budget.id());
            let wake = move || {
                workflows.get(&object).is_some() && connections.calls_from(&key, budget) && drift_detector.wake(&object)
            };
            Box::new(wake) as Wake
        })
    }

    /// Ends the reconcile without its status, which the API server refuses and which is tried again after `left`. Until
    /// then nothing is read or changed at the API.
    fn untold(&mut self, requeue: Requeue, left: Duration) -> Action {
        self.state.settled(Requeue::Retry(left), Timestamp::now());
        self.store_memory(false);
        requeue.within(left).action()
    }

    /// The detector compares the lists with the status. A workflow in trouble is left to its retries.
    fn track(&self, status: &WorkflowStatus) {
        let object = reference(self.object);
        let reason = conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str());
        let drift_detector = &self.context.drift_detector;
        let refresh = RefreshOutcome { asked: self.asked, changed: self.state.change != Change::None };
        if self.state.deleted.is_some() || self.state.spec.suspend {
            drift_detector.untrack(&self.key, &object);
        } else if reason == Some(reason::WORKFLOW_NOT_FOUND) {
            drift_detector.track(&self.key, &object, status, Some(&self.state.identifier), refresh);
        } else if status.workflow_id.is_some() {
            drift_detector.track(&self.key, &object, status, None, refresh);
        }
    }

    /// Patches the finalizers, provided that nobody has changed the object meanwhile. Returns whether the API server
    /// accepted the patch; a refusal is remembered.
    async fn set_finalizer(&mut self, present: bool) -> Result<bool, Error> {
        let finalizers = apiserver::finalizers(self.object.meta(), FINALIZER, present);
        let patch = json!({ "finalizers": finalizers, "resourceVersion": self.resource_version });
        let (client, namespace) = (&self.context.shared.client, &self.key.namespace);
        let patched = apiserver::patch_metadata::<Workflow>(client, namespace, &self.object.name_any(), patch).await;
        let error = match patched {
            Ok(patched) => {
                self.state.memory.finalizer_refused = None;
                self.wrote(patched.resource_version.unwrap_or_default());
                self.store_memory(self.state.refresh);
                return Ok(true);
            }
            Err(error) => error,
        };
        let refused = Refused::of(&error).ok_or(error)?;
        let last = self.state.memory.finalizer_refused.take();
        if last.is_none() {
            let so = if present {
                "deleting the resource would not archive its workflow."
            } else {
                "only a deletion waits for that."
            };
            self.context.shared.publisher.publish(
                &apiserver::reference(self.object),
                vec![refused.finalizer(reason::FINALIZER_REFUSED, present, so)],
            );
        }
        let next = self.refused(last.as_deref(), refused);
        self.state.memory.finalizer_refused = Some(next);
        self.store_memory(self.state.refresh);
        Ok(false)
    }

    fn refused(&self, last: Option<&Refusal>, refused: Refused) -> Box<Refusal> {
        let (version, uid) = (&self.resource_version, &self.state.uid);
        Box::new(Refusal::once_more(last, refused, version, uid, Timestamp::now()))
    }

    fn wrote(&mut self, version: String) {
        self.written = Some(Written::now(version.clone()));
        let memory = &mut self.state.memory;
        for refusal in [&mut memory.finalizer_refused, &mut memory.status_refused].into_iter().flatten() {
            refusal.follow(&self.resource_version, &version);
        }
        self.state.version.clone_from(&version);
        self.resource_version = version;
    }

    fn store_memory(&self, refresh: bool) {
        let memory = self.state.memory.clone();
        let state = CachedState { memory, refresh, written: self.written.clone() };
        self.context.states.store(&self.state.uid, state);
    }
}

/// The priority level of a reconcile's calls. The first call is a read, with the level of what it unblocks.
fn priority(state: &WorkflowState) -> Priority {
    let is_new = state.status.workflow_id.is_none() || state.status.observed_generation != state.generation;
    if state.deleted.is_some() {
        Priority::Stop
    } else if is_new {
        Priority::Start
    } else {
        Priority::Drift
    }
}

/// The other Workflows that manage the same workflow: three at most. Those of other namespaces have no name here, since
/// one tenant is not told what another one has.
fn others<'a>(all: impl Iterator<Item = &'a Guarded>, object: &Workflow) -> Vec<String> {
    let Some(id) = object.status.as_ref().and_then(|status| status.workflow_id.as_ref()) else { return Vec::new() };
    let is_other = |other: &&Workflow| {
        other.uid() != object.uid()
            && other.spec.management_policy == ManagementPolicy::Manage
            && other.status.as_ref().and_then(|status| status.workflow_id.as_ref()) == Some(id)
    };
    let name = |other: &Workflow| match other.namespace() {
        namespace if namespace == object.namespace() => format!("Workflow \"{}\"", other.name_any()),
        _ => "a Workflow of another namespace".to_owned(),
    };
    let mut names: Vec<String> = all.filter_map(|other| other.0.as_ref().ok()).filter(is_other).map(name).collect();
    names.sort();
    names.dedup();
    names.truncate(3);
    names
}

/// The UUID of the workflow with exactly this name. One of this Mistral workspace is preferred to a shared one.
async fn find(client: &mistral::Client, name: &str) -> Result<Option<String>, mistral::Error> {
    let filter = WorkflowFilter { search: Some(name.to_owned()), ..WorkflowFilter::default() };
    let mut rows: Vec<mistral::wire::Workflow> = Vec::new();
    let add = |row: mistral::wire::Workflow| rows.extend(Some(row).filter(|row| row.name == name));
    let gap = read_workflows(client, &format!("workflows like {name}"), &filter, &mut 0, add).await?;
    rows.sort_by_key(mistral::wire::Workflow::is_shared);
    match (rows.into_iter().next(), gap) {
        (Some(row), _) => Ok(Some(row.id)),
        (None, None) => Ok(None),
        (None, Some(gap)) => Err(unfinished("workflows", &gap)),
    }
}

/// The versions of a workflow, as far as a status shows them.
async fn versions(client: &mistral::Client, workflow_id: &str, has_worker: bool) -> Result<Versions, mistral::Error> {
    let all = RegistrationFilter { workflow_id: Some(workflow_id.to_owned()), ..RegistrationFilter::default() };
    let mut active = HashSet::new();
    // Only the list that a row is in shows whether the row is active. The active list is read first: then it is known
    // for each row of the other list whether its definition is wanted, and no other is kept.
    if has_worker {
        let filter = RegistrationFilter { active_only: true, ..all.clone() };
        let add = |row: Id| active.extend([row.id]);
        if let Some(gap) = read_registrations(client, &filter, &mut 0, add).await? {
            return Err(unfinished("active registrations", &gap));
        }
    }
    let mut gathering = Gathering::new(active);
    match read_registrations(client, &all, &mut 0, |row: Registration| gathering.add(row)).await? {
        Some(gap) => Err(unfinished("registrations", &gap)),
        None => Ok(gathering.versions()),
    }
}

/// A list that was not read to its end does not show what does not exist.
fn unfinished(list: &str, gap: &Gap) -> mistral::Error {
    let message = format!("the API's list of {list} {}", gap.why);
    if gap.is_new {
        tracing::warn!("{message}; the operator keeps the last known state, and tries again");
    }
    mistral::Error::Unreadable { too_long: false, message }
}

/// Whether a change of this Workspace concerns the workflow.
pub fn uses(object: &Guarded, key: &WorkspaceKey) -> bool {
    object.0.as_ref().is_ok_and(|workflow| {
        workflow.namespace().as_ref() == Some(&key.namespace) && workflow.spec.workspace_ref.name == key.name
    })
}
