//! Carries out what [`plan`](crate::execution::plan) decides. Each effect of an execution is one arm of one match.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::platform::decoded::Decoded;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::finished::left::Left;
use super::undecodable;
use crate::answer_memory::Held;
use crate::api::conditions::Progress;
use crate::api::reasons::execution as reason;
use crate::api::{WorkflowExecution, WorkflowExecutionStatus};
use crate::execution::Guarded;
use crate::execution::claim::reservations::Reservations;
use crate::execution::claim::unlisted::UnlistedClaims;
use crate::execution::effects::orphan::OrphanedRun;
use crate::execution::metrics;
use crate::execution::phase::{is_finished, is_started};
use crate::execution::plan::priority::priority;
use crate::execution::plan::refused_writes;
use crate::execution::plan::{Call, Decision, Settled, Step, plan};
use crate::execution::report_turns::ReportTurns;
use crate::execution::run_durations::{PROMPT_STARTS, RunDurationHistory};
use crate::execution::state::refusals::Write;
use crate::execution::state::{Ended, ExecutionState, Instance, Memory, References, Remote, WorkflowRefState};
use crate::execution::tracker::{ApiAnswer, Tracker};
use crate::mistral::{self};
use crate::platform::apiserver::{self, Error, Written};
use crate::platform::events::Notice;
use crate::platform::reconcile::{self, CachedState, CachedStates, Flow, Reconcile};
use crate::platform::refused::Refused;
use crate::platform::requeue::Requeue;
use crate::platform::watch::reference;
use crate::throttle::{Priority, Wake};
use crate::workspace::access::{self, ConnectionInfo};
use crate::workspace::connections::{Connection, WorkspaceKey};
use crate::workspace::permit::{self, QueueTicket};
use crate::workspace::shared::Shared;

/// Writes per second to finished executions. After a long downtime there may be thousands, and nobody waits for them.
const HOUSEKEEPING: u32 = 50;

/// What reconciles of executions share.
pub struct Context {
    pub shared: Shared,
    pub tracker: Arc<Tracker>,
    pub settings: Settings,
    /// Tasks that stop orphaned runs. Their resources are gone, so nothing else knows of these runs.
    pub orphaned_runs: TaskTracker,
    states: CachedStates<Cached>,
    pub(super) reservations: Reservations,
    pub(super) run_durations: RunDurationHistory,
    pub(super) housekeeping: DefaultDirectRateLimiter,
    pub(super) report_turns: ReportTurns,
    pub(super) prompt_starts: DefaultDirectRateLimiter,
    /// Finished executions that have left the watch.
    pub left: Left,
}

/// What executions go by, for as long as this process leads.
pub struct Settings {
    /// UID of the namespace `kube-system`. It distinguishes the claims of different clusters.
    pub cluster: String,
    pub instance: Instance,
    /// Calls that may be in flight for claims on executions that are not listed yet.
    pub unlisted: UnlistedClaims,
    /// Whether only Secrets with a label may be inputs.
    pub labelled_inputs: bool,
    pub metrics: metrics::ExecutionMetrics,
}

/// What this process keeps of an execution between reconciles.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cached {
    memory: Memory,
    /// When this process first saw the resource finished, and whether it wrote the end itself.
    ended: Option<(Instant, bool)>,
    /// When it is the resource's turn to report why it waits.
    report_at: Option<Instant>,
}

/// One reconcile of one execution.
pub(super) struct Reconciliation<'a> {
    pub(super) context: &'a Context,
    pub(super) object: &'a WorkflowExecution,
    /// The object is a stand-in for one that cannot be decoded, so nothing is written over its status.
    pub(super) is_stand_in: bool,
    pub(super) key: WorkspaceKey,
    pub(super) state: ExecutionState,
    /// The version on which the next conditional write depends.
    pub(super) resource_version: String,
    pub(super) connection: Option<Connection>,
    /// The permit to call the API, held from before the claim to the last call; without one, the position in the queue.
    pub(super) ticket: QueueTicket,
    /// Until when the call of a claim made in this reconcile may be sent. On the monotonic clock, since the wall clock
    /// may be set meanwhile.
    pub(super) send_before: Option<Instant>,
    pub(super) written: Option<Written>,
    pub(super) ended: Option<(Instant, bool)>,
    /// When it is the resource's turn to report why it waits.
    pub(super) report_at: Option<Instant>,
    /// Memory reserved for a long input, until the reconcile ends.
    pub(super) held: Vec<Held>,
}

impl Context {
    /// A context that remembers nothing yet.
    pub fn new(shared: Shared, tracker: Arc<Tracker>, settings: Settings) -> Self {
        Self {
            shared,
            tracker,
            settings,
            orphaned_runs: TaskTracker::new(),
            states: CachedStates::default(),
            reservations: Reservations::default(),
            run_durations: RunDurationHistory::default(),
            housekeeping: per_second(HOUSEKEEPING),
            report_turns: ReportTurns::default(),
            prompt_starts: per_second(PROMPT_STARTS),
            left: Left::default(),
        }
    }

    /// The watch has delivered this resource, or shows that it is gone.
    pub fn watched(&self, object: &ObjectRef<Guarded>) {
        self.reservations.watched(object, self.shared.executions.get(object).as_deref());
    }

    /// Forgets all resources whose UID no longer exists.
    pub fn forget_all_but(&self, exists: impl Fn(&str) -> bool) {
        // A resource that is gone may come back: see `Memory::may_have_called`.
        self.states.forget_all_but(|uid, cached| exists(uid) || cached.memory.may_have_called());
        self.report_turns.forget(Instant::now());
        self.left.forget_all_but(|uid| exists(&uid.to_string()));
        self.reservations.forget();
    }

    fn workflow_ref(&self, object: &WorkflowExecution) -> WorkflowRefState {
        let Some(named) = &object.spec.workflow_ref else { return WorkflowRefState::NotNamed };
        let at = ObjectRef::new(&named.name).within(&object.namespace().unwrap_or_default());
        match self.shared.workflows.get(&at).as_deref() {
            Some(Decoded(Err(invalid))) => {
                let why = format!("it cannot be decoded ({})", invalid.error);
                WorkflowRefState::NotReady { why, wait: Progress::Stalled, workflow: None }
            }
            Some(Decoded(Ok(workflow))) => WorkflowRefState::read(Some(workflow), &object.spec.workspace_ref.name),
            None => WorkflowRefState::read(None, &object.spec.workspace_ref.name),
        }
    }
}

/// Reconciles one execution.
///
/// # Errors
/// When the Kubernetes API cannot be used, or somebody else changed the object first.
pub async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    if context.shared.term.is_over() {
        return Ok(Action::await_change());
    }
    let stand_in;
    let (object, is_stand_in) = match &object.0 {
        Ok(object) => (object, false),
        Err(invalid) => {
            context.shared.publisher.undecodable(reason::UNDECODABLE, object.as_ref(), &invalid.error);
            match undecodable::being_deleted(&invalid.metadata, &context.shared.connections) {
                Some(it) => stand_in = it,
                None => return Ok(Action::await_change()),
            }
            (&stand_in, true)
        }
    };
    match context.states.of(object) {
        Ok(state) => {
            reconcile::run(&mut Reconciliation::new(&context, object, is_stand_in, state), &context.shared.term).await
        }
        Err(later) => Ok(later),
    }
}

fn per_second(writes: u32) -> DefaultDirectRateLimiter {
    RateLimiter::direct(Quota::per_second(NonZeroU32::new(writes).unwrap_or(NonZeroU32::MIN)))
}

/// The outcome of a status write.
enum Outcome {
    /// The status says what it should. Holds its resource version if it had to be written.
    Written(Settled, Option<String>),
    /// The API server refuses the status.
    Refused(Settled),
}

impl Reconcile for Reconciliation<'_> {
    type Step = Step;
    type Settled = Settled;

    fn plan(&self, now: Timestamp) -> Decision {
        plan(&self.state, now)
    }

    async fn act(&mut self, step: Step) -> Result<Flow, Error> {
        tracing::debug!(step = step.name(), "step");
        match step {
            Step::Cluster(step) => self.act_in_cluster(step).await,
            Step::Call(call) => Ok(self.act_at_mistral(call).await),
        }
    }

    fn failed(&self) {
        // A refresh that was requested is still due.
        self.store_memory(self.state.refresh);
    }

    async fn settle(&mut self, settled: Settled) -> Result<Action, Error> {
        if self.is_stand_in {
            // What its status says is not known.
            self.store_memory(true);
            return Ok(settled.requeue.action());
        }
        // Nothing is called any more, and the API server may be slow.
        self.ticket.give_back();
        // Another process may lead by now.
        if self.context.shared.term.is_over() {
            return Ok(Action::await_change());
        }
        let now = Timestamp::now();
        let held = self.state.refusal(Write::Status, now).is_some();
        if held && settled.status != self.state.status {
            return Ok(self.untold(&settled, now));
        }
        let (settled, version) = match self.write(settled).await {
            Ok(Outcome::Written(settled, version)) => (settled, version),
            Ok(Outcome::Refused(settled)) => return Ok(self.untold(&settled, now)),
            Err(error) => {
                self.stop_run_if_orphaned(&error);
                // A refresh that was requested is still due.
                self.store_memory(true);
                return Err(error);
            }
        };
        let Settled { status, notices, requeue } = settled;
        if !held {
            self.state.told(&status);
        }
        if let Some(version) = version {
            self.report_at = None;
            self.wrote(version);
            metrics::settled(&self.context.settings.metrics, &self.state, &status);
            self.publish(notices);
        }
        self.track(&status);
        self.state.settled(requeue, Timestamp::now());
        let refresh = !matches!(requeue, Requeue::OnChange | Requeue::AtLatest(_));
        if is_finished(&status) {
            self.remember_end(&status);
        }
        self.store_memory(refresh && !is_finished(&status));
        Ok(requeue.action())
    }
}

impl<'a> Reconciliation<'a> {
    fn new(context: &'a Context, object: &'a WorkflowExecution, is_stand_in: bool, state: CachedState<Cached>) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let key = WorkspaceKey { namespace, name: object.spec.workspace_ref.name.clone() };
        let CachedState { memory: Cached { mut memory, mut ended, report_at }, mut refresh, written } = state;
        if let Some(left) = object.uid().and_then(|uid| context.left.returned(uid.parse().ok()?)) {
            memory.seen |= left.had_run;
            memory.left = Some(left);
            ended = ended.or(left.end);
        }
        if object.status.as_ref().is_some_and(is_finished) {
            ended = ended.or_else(|| Some((Instant::now(), false)));
        }
        if let Some(row) = context.tracker.take_refresh(&reference(object)) {
            refresh = true;
            memory.listed(row);
        }
        let (workspace, live) = access::resolve(&context.shared.workspaces, &context.shared.connections, &key);
        let stopper = context.shared.connections.for_stopping(&key);
        let mut state = ExecutionState::new(
            object,
            &context.settings.cluster,
            Instance { api_server_time: context.shared.term.api_server_time(), ..context.settings.instance.clone() },
            memory,
            References {
                workspace,
                stop_with: stopper.as_ref().map(ConnectionInfo::from),
                workflow_ref: context.workflow_ref(object),
            },
            refresh,
            Timestamp::now(),
        );
        state.ended = ended.map(|(since, witnessed)| Ended { ago: since.elapsed(), witnessed });
        let connection = live.or(stopper);
        let ticket = QueueTicket::new(connection.as_ref(), "WorkflowExecution", &key, &object.name_any());
        Self {
            context,
            object,
            is_stand_in,
            key,
            state,
            resource_version: object.resource_version().unwrap_or_default(),
            connection,
            ticket,
            send_before: None,
            written,
            ended,
            report_at,
            held: Vec::new(),
        }
    }

    /// Calls Mistral's API, if this reconcile has a permit and the process still leads.
    async fn act_at_mistral(&mut self, call: Call) -> Flow {
        match self.take_permit(priority(call, &self.state, Timestamp::now())) {
            Ok(_) if self.context.shared.term.is_over() => Flow::End(Action::await_change()),
            Ok(client) => {
                Box::pin(self.call(&client, call)).await;
                Flow::PlanAgain
            }
            Err(flow) => flow,
        }
    }

    /// Takes a permit to call the API, and keeps it until the reconcile settles. Without a permit the reconcile ends.
    /// The queue then wakes the execution, which is planned anew, since what was known before may no longer hold.
    pub(super) fn take_permit(&mut self, priority: Priority) -> Result<mistral::Client, Flow> {
        // The plan requests a call only if there is a connection.
        let Some(live) = self.connection.clone() else { return Err(Flow::End(Action::requeue(permit::RECHECK_AFTER))) };
        let client = self.ticket.take(&live, priority, || {
            let (tracker, connections) =
                (Arc::clone(&self.context.tracker), Arc::clone(&self.context.shared.connections));
            let (executions, object) = (self.context.shared.executions.clone(), reference(self.object));
            let (key, budget) = (self.key.clone(), live.budget.id());
            let wake = move || {
                executions.get(&object).is_some() && connections.calls_from(&key, budget) && tracker.wake(&object)
            };
            Box::new(wake) as Wake
        });
        client.ok_or_else(|| self.has_to_wait())
    }

    pub(super) fn publish(&self, notices: Vec<Notice>) {
        self.context.shared.publisher.publish(&apiserver::reference(self.object), notices);
    }

    /// Writes the status. If the API server refuses it, writes a smaller one that says the same.
    async fn write(&mut self, settled: Settled) -> Result<Outcome, Error> {
        let (old, version) = (self.object.status.as_ref(), &self.resource_version);
        let error = match self.context.shared.status_writer.write(self.object, version, old, &settled.status).await {
            Ok(version) => return Ok(Outcome::Written(settled, version)),
            Err(error) => error,
        };
        let now = Timestamp::now();
        let mut refused = Refused::of(&error).ok_or(error)?;
        if let Some(smaller) = refused_writes::smaller(&self.state, &settled, &refused, now) {
            match self.context.shared.status_writer.write(self.object, version, old, &smaller.status).await {
                Ok(version) => return Ok(Outcome::Written(smaller, version)),
                Err(error) => refused = Refused::of(&error).ok_or(error)?,
            }
        }
        self.state.refused(Write::Status, refused, now);
        Ok(Outcome::Refused(settled))
    }

    /// The status could not be written. If that is because the resource is gone, nothing else knows of its run.
    fn stop_run_if_orphaned(&self, error: &Error) {
        let (Some(orphaned_run), Some(live)) = (OrphanedRun::new(&self.state), &self.connection) else { return };
        let (client, object) = (live.waiting(Priority::Stop, &self.key), apiserver::reference(self.object));
        let known = error.is_not_found().then_some(true);
        let (kubernetes, term) = (self.context.shared.client.clone(), self.context.shared.term.clone());
        let stopping = orphaned_run.stop_if_gone(known, kubernetes, object, client, term);
        self.context.orphaned_runs.spawn(stopping.in_current_span());
    }

    /// The status says that the run has ended: keeps how long it took, and little else.
    fn remember_end(&mut self, status: &WorkflowExecutionStatus) {
        let length = status.duration_ms.and_then(|ms| u64::try_from(ms).ok());
        if let Some(length) = length.filter(|_| !is_finished(&self.state.status)) {
            let target = self.state.target();
            self.context.run_durations.took(&self.key, target.name(), Duration::from_millis(length));
        }
        self.ended = self.ended.or_else(|| Some((Instant::now(), true)));
        self.state.memory.ended();
    }

    /// Ends the reconcile without its status, which the API server refuses.
    fn untold(&mut self, settled: &Settled, now: Timestamp) -> Action {
        let notices = self.state.untold(settled, now);
        self.publish(notices);
        let left = self.state.refusal(Write::Status, now).map(|(_, left)| left);
        self.state.settled(settled.requeue, now);
        // A get of the run is still due.
        self.store_memory(true);
        left.map_or(settled.requeue, |left| settled.requeue.within(left)).action()
    }

    fn track(&self, status: &WorkflowExecutionStatus) {
        let object = reference(self.object);
        let deleted = self.state.deleted.is_some();
        let start = status.start_time.as_ref().map_or(self.state.created, |time| time.0);
        match &status.execution_id {
            Some(id) if is_started(status) && !is_finished(status) && !deleted => {
                let answer = match self.state.outcomes.remote {
                    Remote::Found(_) => ApiAnswer::Exists,
                    Remote::Absent => ApiAnswer::NotFound,
                    // The API has just accepted the run.
                    _ if !is_started(&self.state.status) => ApiAnswer::Exists,
                    Remote::NotFetched | Remote::Unknown(_) => ApiAnswer::None,
                };
                self.context.tracker.track(&self.key, &object, id, start, answer);
            }
            _ => self.context.tracker.untrack(&self.key, &object),
        }
    }

    pub(super) fn wrote(&mut self, version: String) {
        self.written = Some(Written::now(version.clone()));
        self.state.wrote(&version);
        self.resource_version = version;
    }

    pub(super) fn store_memory(&self, refresh: bool) {
        let memory = self.state.memory.clone();
        // The time of the end matters only if the resource is to be deleted some time after it.
        let ended = self.ended.filter(|_| self.state.spec.ttl_seconds_after_finished.is_some());
        let cached = Cached { memory, ended, report_at: self.report_at };
        let state = CachedState { memory: cached, refresh, written: self.written.clone() };
        self.context.states.store(&self.state.uid, state);
    }

    pub(super) fn forget(&self) {
        self.context.states.remove(&self.state.uid);
        self.context.tracker.untrack(&self.key, &reference(self.object));
    }
}

/// Whether a change of this Workspace concerns the execution: it has not finished, or is being deleted.
pub fn waits_for(object: &Guarded, key: &WorkspaceKey) -> bool {
    match &object.0 {
        Ok(execution) => {
            execution.namespace().as_ref() == Some(&key.namespace)
                && execution.spec.workspace_ref.name == key.name
                && (execution.meta().deletion_timestamp.is_some()
                    || !execution.status.as_ref().is_some_and(is_finished))
        }
        Err(_) => false,
    }
}

/// Whether a change of this Workflow resource concerns an execution that has not ended.
pub fn refers_to(object: &Guarded, namespace: &str, name: &str) -> bool {
    object.0.as_ref().is_ok_and(|execution| {
        execution.namespace().as_deref() == Some(namespace)
            && execution.spec.workflow_ref.as_ref().is_some_and(|named| named.name == name)
            && !execution.status.as_ref().is_some_and(is_finished)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconcile_that_waits_is_not_as_large_as_its_largest_call() {
        fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        // Without boxed calls it would be 15 KB.
        let bytes = size(reconcile);
        println!("a reconcile that waits takes {bytes} bytes");
        assert!(bytes < 8 * 1024, "{bytes} bytes");
    }
}
