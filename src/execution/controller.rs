//! Carries out what [`plan`](crate::execution::plan) decides. Each effect of an execution is one arm of one match.

mod calls;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::platform::object::Decoded;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::ends::Ends;
use super::undecodable;
use crate::api::conditions::Wait;
use crate::api::{self, WorkflowExecution};
use crate::execution::claim::reservations::Reservations;
use crate::execution::claim::unlisted::UnlistedClaims;
use crate::execution::claim::{CLAIM, Claim, FINALIZER, Note, SEND_WITHIN, TAKE_OVER};
use crate::execution::metrics;
use crate::execution::pass::objects;
use crate::execution::pass::orphan::Overtaken;
use crate::execution::plan::finish::Ended;
use crate::execution::plan::priority::class;
use crate::execution::plan::refused_writes::{self, Write};
use crate::execution::plan::stop;
use crate::execution::plan::{Call, ClusterStep, Decision, Settled, Step, plan};
use crate::execution::run_durations::{LINGER, Lengths};
use crate::execution::state::input::{self, Admission, Input};
use crate::execution::state::result::{self, Stored};
use crate::execution::state::{Instance, Memory, Observed, Referent, Remote, Sent, StopCall, Surroundings, Target};
use crate::execution::status::{is_finished, is_started};
use crate::execution::tracker::{Tracker, Word};
use crate::mistral::budget::{Class, Wake};
use crate::mistral::wire::{Event, is_terminal};
use crate::mistral::{self, ExecuteTarget, Trouble, TroubleKind};
use crate::platform::apiserver::{self, Error, Written, call, write_status};
use crate::platform::events::Notice;
use crate::platform::failpoint;
use crate::platform::leader::lease::Term;
use crate::platform::reconcile::{self, CachedState, CachedStates, Flow, Reconcile};
use crate::platform::refused::Refused;
use crate::platform::requeue::{Requeue, jitter};
use crate::platform::watch::reference;
use crate::room::{Held, Room};
use crate::workspace::access::{self, Connection};
use crate::workspace::connections::{Key, Live};
use crate::workspace::shared::Shared;
use crate::workspace::turn::{self, Place};

/// An execution from the watch. One that cannot be decoded must not block the others.
pub type Guarded = Decoded<WorkflowExecution>;

/// Writes per second to finished executions. After a long downtime there may be thousands, and nobody waits for them.
const HOUSEKEEPING: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// What reconciles of executions share.
pub struct Context {
    pub shared: Shared,
    pub tracker: Arc<Tracker>,
    pub settings: Settings,
    /// Tasks that stop orphaned runs. Their resources are gone, so nothing else knows of these runs.
    pub leftovers: TaskTracker,
    states: CachedStates<Cached>,
    reservations: Reservations,
    lengths: Lengths,
    ends: Ends,
    housekeeping: DefaultDirectRateLimiter,
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
}

/// What this process keeps of an execution between reconciles.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cached {
    memory: Memory,
    /// When this process first saw the resource finished, and whether it wrote the end itself.
    ended: Option<(Instant, bool)>,
}

/// One reconcile of one execution.
struct Pass<'a> {
    context: &'a Context,
    object: &'a WorkflowExecution,
    /// The object is a stand-in for one that cannot be decoded, so nothing is written over its status.
    is_stand_in: bool,
    key: Key,
    observed: Observed,
    /// The version on which the next conditional write depends.
    resource_version: String,
    connection: Option<Live>,
    /// The permit to call the API, held from before the claim to the last call; without one, the position in the queue.
    place: Place,
    /// Until when the call of a claim made in this reconcile may be sent. On the monotonic clock, since the wall clock
    /// may be set meanwhile.
    send_before: Option<Instant>,
    written: Option<Written>,
    ended: Option<(Instant, bool)>,
    /// Memory reserved for a long input, until the reconcile ends.
    held: Vec<Held>,
}

impl Context {
    /// A context that remembers nothing yet.
    pub fn new(shared: Shared, tracker: Arc<Tracker>, settings: Settings) -> Self {
        Self {
            shared,
            tracker,
            settings,
            leftovers: TaskTracker::new(),
            states: CachedStates::default(),
            reservations: Reservations::default(),
            lengths: Lengths::default(),
            ends: Ends::default(),
            housekeeping: RateLimiter::direct(Quota::per_second(HOUSEKEEPING)),
        }
    }

    /// Forgets all resources whose UID no longer exists.
    pub fn forget_all_but(&self, exists: impl Fn(&str) -> bool) {
        self.states.forget_all_but(exists);
        self.reservations.forget();
    }

    fn referent(&self, object: &WorkflowExecution) -> Referent {
        let Some(named) = &object.spec.workflow_ref else { return Referent::NotNamed };
        let at = ObjectRef::new(&named.name).within(&object.namespace().unwrap_or_default());
        match self.shared.workflows.get(&at).as_deref() {
            Some(Decoded(Err(invalid))) => {
                let why = format!("it cannot be decoded ({})", invalid.error);
                Referent::NotReady { why, wait: Wait::Stalled, workflow: None }
            }
            Some(Decoded(Ok(workflow))) => Referent::read(Some(workflow), &object.spec.workspace_ref.name),
            None => Referent::read(None, &object.spec.workspace_ref.name),
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
            context.shared.publisher.undecodable(object.as_ref(), &invalid.error);
            match undecodable::being_deleted(&invalid.metadata, &context.shared.connections) {
                Some(it) => stand_in = it,
                None => return Ok(Action::await_change()),
            }
            (&stand_in, true)
        }
    };
    match context.states.of(object) {
        Ok(state) => reconcile::run(Pass { is_stand_in, ..Pass::new(&context, object, state) }).await,
        Err(later) => Ok(later),
    }
}

/// The outcome of a status write.
enum Outcome {
    /// The status says what it should. Holds its resource version if it had to be written.
    Written(Settled, Option<String>),
    /// The API server refuses the status.
    Refused(Settled),
}

impl Reconcile for Pass<'_> {
    type Step = Step;
    type Settled = Settled;

    fn term(&self) -> &Term {
        &self.context.shared.term
    }

    fn plan(&self, now: Timestamp) -> Decision {
        plan(&self.observed, now)
    }

    async fn act(&mut self, step: Step) -> Result<Flow, Error> {
        tracing::debug!(step = step_name(&step), "step");
        match step {
            Step::Cluster(step) => self.act_in_cluster(step).await,
            Step::Call(call) => Ok(self.act_at_mistral(call).await),
        }
    }

    fn failed(&self) {
        // Who wanted to look still does.
        self.keep(self.observed.look);
    }

    async fn settle(mut self, settled: Settled) -> Result<Action, Error> {
        if self.is_stand_in {
            // What its status says is not known.
            self.keep(true);
            return Ok(settled.requeue.action());
        }
        // Nothing is called any more, and the API server may be slow.
        self.place.give_back();
        let old = self.object.status.as_ref();
        let ends = is_finished(&settled.status) && !old.is_some_and(is_finished);
        let _turn = if ends { self.context.ends.give_way().await } else { None };
        // Another may lead since.
        if self.context.shared.term.is_over() {
            return Ok(Action::await_change());
        }
        let now = Timestamp::now();
        let held = self.observed.refusal(Write::Status, now).is_some();
        if held && settled.status != self.observed.status {
            return Ok(self.untold(&settled, now));
        }
        let (settled, version) = match self.write(settled).await {
            Ok(Outcome::Written(settled, version)) => (settled, version),
            Ok(Outcome::Refused(settled)) => return Ok(self.untold(&settled, now)),
            Err(error) => {
                if let (Some(overtaken), Some(live)) = (Overtaken::new(&self.observed), &self.connection) {
                    let (client, object) = (live.waiting(Class::Stop, &self.key), apiserver::reference(self.object));
                    let known = error.is_not_found().then_some(true);
                    let (kubernetes, term) = (self.context.shared.client.clone(), self.context.shared.term.clone());
                    self.context
                        .leftovers
                        .spawn(overtaken.stop_if_gone(known, kubernetes, object, client, term).in_current_span());
                }
                // What was asked for is still to be looked at.
                self.keep(true);
                return Err(error);
            }
        };
        let Settled { status, notices, requeue } = settled;
        if !held {
            self.observed.told(&status);
        }
        if let Some(version) = version {
            self.wrote(version);
            metrics::settled(&self.context.shared.metrics, &self.observed, &status);
            self.publish(notices);
        }
        self.track(&status);
        self.observed.settled(requeue, Timestamp::now());
        let look = !matches!(requeue, Requeue::OnChange | Requeue::AtLatest(_));
        if is_finished(&status) {
            let length = status.duration_ms.and_then(|ms| u64::try_from(ms).ok());
            if let Some(length) = length.filter(|_| !is_finished(&self.observed.status)) {
                self.context.lengths.took(
                    &self.key,
                    calls::target(&self.observed).name(),
                    Duration::from_millis(length),
                );
            }
            self.ended = self.ended.or_else(|| Some((Instant::now(), true)));
            self.observed.memory.ended();
        }
        self.keep(look && !is_finished(&status));
        Ok(requeue.action())
    }
}

impl<'a> Pass<'a> {
    fn new(context: &'a Context, object: &'a WorkflowExecution, state: CachedState<Cached>) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let key = Key { namespace, name: object.spec.workspace_ref.name.clone() };
        let CachedState { memory: Cached { mut memory, mut ended }, refresh: mut look, written } = state;
        if object.status.as_ref().is_some_and(is_finished) {
            ended = ended.or_else(|| Some((Instant::now(), false)));
        }
        if let Some(row) = context.tracker.take_look(&reference(object)) {
            look = true;
            memory.listed(row);
        }
        let (workspace, live) = access::look(&context.shared.workspaces, &context.shared.connections, &key);
        let stopper = context.shared.connections.for_stopping(&key);
        let mut observed = Observed::new(
            object,
            &context.settings.cluster,
            Instance { api_server_time: context.shared.term.api_server_time(), ..context.settings.instance.clone() },
            memory,
            Surroundings {
                workspace,
                stop_with: stopper.as_ref().map(Connection::from),
                referent: context.referent(object),
            },
            look,
            Timestamp::now(),
        );
        observed.ended = ended.map(|(since, witnessed)| Ended { ago: since.elapsed(), witnessed });
        let connection = live.or(stopper);
        let place = Place::new(connection.as_ref(), "WorkflowExecution", &key, &object.name_any());
        Self {
            context,
            object,
            is_stand_in: false,
            key,
            observed,
            resource_version: object.resource_version().unwrap_or_default(),
            connection,
            place,
            send_before: None,
            written,
            ended,
            held: Vec::new(),
        }
    }

    /// Carries out a step that does not call Mistral's API.
    async fn act_in_cluster(&mut self, step: ClusterStep) -> Result<Flow, Error> {
        match step {
            ClusterStep::WriteClaim { claim, finalizer, send, consent } => {
                return Box::pin(self.write_claim(*claim, finalizer, send, consent)).await;
            }
            ClusterStep::SetFinalizer(_) | ClusterStep::Delete
                if is_finished(&self.observed.status) && self.context.housekeeping.check().is_err() =>
            {
                self.keep(false);
                let later = Duration::from_secs(1 + u64::from(jitter(&self.observed.uid) % 60));
                return Ok(Flow::End(Action::requeue(later)));
            }
            ClusterStep::Delete => {
                let Err(error) = Box::pin(self.delete()).await else {
                    self.keep(false);
                    return Ok(Flow::End(Action::await_change()));
                };
                let refused = Refused::of(&error).ok_or(error)?;
                self.observed.refused(Write::Deletion, refused, Timestamp::now());
            }
            ClusterStep::SetFinalizer(present) => {
                if Box::pin(self.set_finalizer(present)).await? {
                    self.observed.finalizer_set(present);
                }
            }
            ClusterStep::Release { abandoned } => {
                if abandoned {
                    tracing::warn!(
                        execution_id = self.observed.execution_id(),
                        "the run could not be stopped within five minutes of the deletion and is left alone; look after it in Mistral's console"
                    );
                }
                if Box::pin(self.set_finalizer(false)).await? {
                    self.forget();
                    return Ok(Flow::End(Action::await_change()));
                }
            }
            ClusterStep::ReadInput => return Box::pin(self.read_input()).await,
            ClusterStep::WriteResult => return Box::pin(self.write_result()).await,
            ClusterStep::Linger => self.linger().await,
        }
        Ok(Flow::PlanAgain)
    }

    /// Calls Mistral's API, if this reconcile has a permit and the process still leads.
    async fn act_at_mistral(&mut self, call: Call) -> Flow {
        match self.take_turn(class(call, &self.observed, Timestamp::now())) {
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
    fn take_turn(&mut self, class: Class) -> Result<mistral::Client, Flow> {
        // The plan requests a call only if there is a connection.
        let Some(live) = self.connection.clone() else { return Err(Flow::End(Action::requeue(turn::LOOK_AGAIN))) };
        let client = self.place.take(&live, class, || {
            let (tracker, connections) =
                (Arc::clone(&self.context.tracker), Arc::clone(&self.context.shared.connections));
            let (executions, object) = (self.context.shared.executions.clone(), reference(self.object));
            let (key, budget) = (self.key.clone(), live.budget.id());
            let wake = move || {
                executions.get(&object).is_some() && connections.calls_from(&key, budget) && tracker.wake(&object)
            };
            Box::new(wake) as Wake
        });
        client.ok_or_else(|| {
            self.keep(true);
            let deadline = stop::next_deadline(&self.observed, &self.observed.status, Timestamp::now());
            Flow::End(Action::requeue(deadline.unwrap_or(turn::LOOK_AGAIN).min(turn::LOOK_AGAIN)))
        })
    }

    async fn write_claim(&mut self, claim: Claim, finalizer: bool, send: bool, consent: bool) -> Result<Flow, Error> {
        if self.observed.refusal(Write::Claim, Timestamp::now()).is_some() {
            self.observed.unclaimed(claim, send);
            return Ok(Flow::PlanAgain);
        }
        if send {
            if self.context.shared.term.stop.is_cancelled() {
                // The next process starts the run.
                return Ok(Flow::End(Action::await_change()));
            }
            if !self.place.has_turn() {
                // Planning again makes a new claim with the current time.
                return Ok(self.take_turn(Class::Start).err().unwrap_or(Flow::PlanAgain));
            }
            if self.observed.spec.execution_id.is_some()
                && let Err(until) = self.context.reservations.reserve(
                    &self.observed.uid,
                    &claim,
                    &self.context.shared.executions,
                    self.context.settings.unlisted.until(),
                    self.observed.began,
                )
            {
                self.observed.rival = Some(until);
                return Ok(Flow::PlanAgain);
            }
            self.send_before = Some(Instant::now() + SEND_WITHIN.unsigned_abs());
        }
        let mut annotations = BTreeMap::from([(CLAIM, Some(claim.to_annotation()))]);
        if consent {
            // The consent counts once. If a backup restores the resource as it is now, a person has to consent again.
            annotations.insert(TAKE_OVER, None);
        }
        let metadata = json!({ "annotations": annotations, "finalizers": self.finalizers(finalizer) });
        if let Err(error) = self.patch(metadata).await {
            let refused = Refused::of(&error).ok_or(error)?;
            self.claim_refused(claim, send, refused);
            return Ok(Flow::PlanAgain);
        }
        tracing::debug!(execution_id = claim.execution_id, attempt = claim.attempt, send, "claimed");
        metrics::claimed(&self.context.shared.metrics, &self.observed.note, &claim, send);
        if claim.refused {
            self.context.reservations.release(&self.observed.uid, &claim);
        }
        self.observed.finalizer = finalizer;
        self.observed.take_over = self.observed.take_over.take().filter(|_| !consent);
        self.observed.claimed(claim, send);
        // The claim is remembered from now on, even if the rest of the reconcile fails.
        self.keep(false);
        Ok(Flow::PlanAgain)
    }

    /// The API server refuses this claim, so it is not on the resource.
    fn claim_refused(&mut self, claim: Claim, send: bool, refused: Refused) {
        self.send_before = None;
        if send {
            self.context.reservations.release(&self.observed.uid, &claim);
        }
        // If a condition reports the refusal, that condition has its own Event.
        let untold = !send && (is_started(&self.observed.status) || !claim.reading);
        if untold && self.observed.memory.refusals.claim.is_none() {
            self.publish(vec![refused_writes::unrecorded(&refused)]);
        }
        self.observed.refused(Write::Claim, refused, Timestamp::now());
        self.observed.unclaimed(claim, send);
        self.keep(self.observed.look);
    }

    /// Sets or removes the finalizer. Returns whether the API server accepted that; a refusal is remembered.
    async fn set_finalizer(&mut self, present: bool) -> Result<bool, Error> {
        let Err(error) = self.patch(json!({ "finalizers": self.finalizers(present) })).await else { return Ok(true) };
        let refused = Refused::of(&error).ok_or(error)?;
        let deleted = self.observed.deleted.is_some();
        // If a condition reports the refusal, that condition has its own Event.
        let untold = !deleted || is_finished(&self.observed.status);
        if untold && self.observed.memory.refusals.finalizer.is_none() {
            let so = match (present, deleted) {
                (true, _) => "deleting the resource would leave its run alone.",
                (false, true) => "the resource is being deleted and waits only for that.",
                (false, false) => "nothing else waits for that.",
            };
            self.publish(vec![refused.finalizer(present, so)]);
        }
        self.observed.refused(Write::Finalizer, refused, Timestamp::now());
        self.keep(self.observed.look);
        Ok(false)
    }

    fn publish(&self, notices: Vec<Notice>) {
        self.context.shared.publisher.publish(&apiserver::reference(self.object), notices);
    }

    /// Reads the parts of the input that are not known yet: fields that the cache leaves out, ConfigMaps and Secrets.
    async fn read_input(&mut self) -> Result<Flow, Error> {
        let client = &self.context.shared.client;
        let room = self.connection.as_ref().map_or_else(Room::default, |live| live.room().clone());
        if self.observed.spec.left_out.is_some() && !is_started(&self.observed.status) {
            let Some((spec, room)) = objects::read_spec(client, &room, self.object).await? else {
                // The resource is gone, or another one has its name and is woken by its own change.
                return Ok(Flow::End(Action::await_change()));
            };
            self.observed.spec = spec;
            self.held.push(room);
        }
        let admission = self.admission();
        let (sources, room) =
            objects::read(client, &room, &self.key.namespace, &self.observed.spec, &admission).await?;
        self.held.extend(room);
        self.observed.input = Input::Read(Arc::new(sources));
        Ok(Flow::PlanAgain)
    }

    /// Which Secrets may be sent. Once the run has started, its Secrets are read again only to redact texts.
    fn admission(&self) -> Admission {
        if is_started(&self.observed.status) {
            return Admission::default();
        }
        let api_keys = access::api_key_secrets(&self.context.shared.workspaces, &self.key.namespace);
        Admission { api_keys, labelled_only: self.context.settings.labelled_inputs }
    }

    /// Writes the result into the object that the spec names.
    async fn write_result(&mut self) -> Result<Flow, Error> {
        // The plan requests this step only if there is a result.
        let Some(wanted) = result::wanted(&self.observed) else {
            return Ok(Flow::End(Action::requeue(turn::LOOK_AGAIN)));
        };
        self.observed.stored =
            objects::write(&self.context.shared.client, self.object, &wanted, &self.context.shared.term).await;
        failpoint::reach!("failpoint-result-written");
        // Nothing was tried only if the term of this process is over.
        let tried = self.observed.stored != Stored::NotTried;
        Ok(if tried { Flow::PlanAgain } else { Flow::End(Action::await_change()) })
    }

    /// Writes the status. If the API server refuses it, writes a smaller one that says the same.
    async fn write(&mut self, settled: Settled) -> Result<Outcome, Error> {
        let (old, version) = (self.object.status.as_ref(), &self.resource_version);
        let error = match write_status(&self.context.shared.client, self.object, version, old, &settled.status).await {
            Ok(version) => return Ok(Outcome::Written(settled, version)),
            Err(error) => error,
        };
        let now = Timestamp::now();
        let mut refused = Refused::of(&error).ok_or(error)?;
        if let Some(smaller) = refused_writes::smaller(&self.observed, &settled, &refused, now) {
            match write_status(&self.context.shared.client, self.object, version, old, &smaller.status).await {
                Ok(version) => return Ok(Outcome::Written(smaller, version)),
                Err(error) => refused = Refused::of(&error).ok_or(error)?,
            }
        }
        self.observed.refused(Write::Status, refused, now);
        Ok(Outcome::Refused(settled))
    }

    /// Ends the reconcile without its status, which the API server refuses.
    fn untold(&mut self, settled: &Settled, now: Timestamp) -> Action {
        let notices = self.observed.untold(settled, now);
        self.publish(notices);
        let left = self.observed.refusal(Write::Status, now).map(|(_, left)| left);
        self.observed.settled(settled.requeue, now);
        // A get of the run is still due.
        self.keep(true);
        left.map_or(settled.requeue, |left| settled.requeue.within(left)).action()
    }

    fn track(&self, status: &api::WorkflowExecutionStatus) {
        let object = reference(self.object);
        let deleted = self.observed.deleted.is_some();
        let start = status.start_time.as_ref().map_or(self.observed.created, |time| time.0);
        match &status.execution_id {
            Some(id) if is_started(status) && !is_finished(status) && !deleted => {
                let word = match self.observed.remote {
                    Remote::Found(_) => Word::Known,
                    Remote::Absent => Word::Unknown,
                    // The API has just accepted the run.
                    _ if !is_started(&self.observed.status) => Word::Known,
                    Remote::NotAsked | Remote::Unknown(_) => Word::None,
                };
                self.context.tracker.track(&self.key, &object, id, start, word);
            }
            _ => self.context.tracker.untrack(&self.key, &object),
        }
    }

    /// Patches the metadata, provided that nobody has changed the object meanwhile.
    async fn patch(&mut self, mut metadata: serde_json::Value) -> Result<(), Error> {
        if !failpoint::active!("failpoint-unconditional-claim") {
            metadata["resourceVersion"] = json!(self.resource_version);
        }
        let (client, namespace, name) = (&self.context.shared.client, &self.key.namespace, self.object.name_any());
        let patched = apiserver::patch_metadata::<WorkflowExecution>(client, namespace, &name, metadata).await?;
        self.wrote(patched.resource_version.unwrap_or_default());
        Ok(())
    }

    /// Deletes the resource, provided that it has not changed since the plan saw it.
    async fn delete(&self) -> Result<(), Error> {
        let api: Api<WorkflowExecution> = Api::namespaced(self.context.shared.client.clone(), &self.key.namespace);
        let preconditions =
            Preconditions { uid: self.object.uid(), resource_version: Some(self.resource_version.clone()) };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        call(api.delete(&self.object.name_any(), &parameters)).await?;
        tracing::debug!("deleted: spec.ttlSecondsAfterFinished has passed");
        Ok(())
    }

    fn wrote(&mut self, version: String) {
        self.written = Some(Written::now(version.clone()));
        self.observed.wrote(&version);
        self.resource_version = version;
    }

    fn finalizers(&self, ours: bool) -> Vec<String> {
        apiserver::finalizers(self.object.meta(), FINALIZER, ours)
    }

    fn keep(&self, look: bool) {
        let memory = self.observed.memory.clone();
        // The time of the end matters only if the resource is to be deleted some time after it.
        let ended = self.ended.filter(|_| self.observed.spec.ttl_seconds_after_finished.is_some());
        let cached = Cached { memory, ended };
        let state = CachedState { memory: cached, refresh: look, written: self.written.clone() };
        self.context.states.store(&self.observed.uid, state);
    }

    fn forget(&self) {
        self.context.states.remove(&self.observed.uid);
        self.context.tracker.untrack(&self.key, &reference(self.object));
    }
}

/// The step without its payload: a claim and an input are too long for a log line.
fn step_name(step: &Step) -> &'static str {
    match step {
        Step::Cluster(ClusterStep::WriteClaim { .. }) => "WriteClaim",
        Step::Cluster(ClusterStep::SetFinalizer(_)) => "SetFinalizer",
        Step::Cluster(ClusterStep::Release { .. }) => "Release",
        Step::Cluster(ClusterStep::ReadInput) => "ReadInput",
        Step::Cluster(ClusterStep::Linger) => "Linger",
        Step::Cluster(ClusterStep::WriteResult) => "WriteResult",
        Step::Cluster(ClusterStep::Delete) => "Delete",
        Step::Call(Call::GetTarget) => "GetTarget",
        Step::Call(Call::GetRun) => "GetRun",
        Step::Call(Call::Compare) => "Compare",
        Step::Call(Call::Start) => "Start",
        Step::Call(Call::ReadFailure) => "ReadFailure",
        Step::Call(Call::Stop(_)) => "Stop",
    }
}

/// Whether a change of this Workspace concerns the execution: it has not finished, or is being deleted.
pub fn waits_for(object: &Guarded, key: &Key) -> bool {
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
    fn a_pass_that_waits_is_not_as_large_as_its_largest_call() {
        fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        // Without boxed calls it would be 15 KB.
        assert!(size(reconcile) < 8 * 1024, "{} bytes", size(reconcile));
    }
}
