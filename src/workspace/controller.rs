//! Reads a Workspace's Secret, checks the key, and publishes the connection to the other controllers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use secrecy::SecretString;
use url::Url;

use super::call_limits::Budgets;
use super::connections::{self, Connection, WorkspaceKey};
use super::credentials;
use super::findings::{Discovered, Findings};
use super::first_checks::Line;
use super::plan::{self, Decision, Settled, Step, plan};
use super::problem::Problem;
use super::shared::Shared;
use super::state::{Accepted, Check, State};
use super::status::{self, Saturated};
use crate::api::conditions::{self, Progress, READY};
use crate::api::reasons::workspace as reason;
use crate::api::workspace::Discovery as Policy;
use crate::api::{Workspace, WorkspaceStatus};
use crate::clock::earlier;
use crate::mistral::call_metrics::Calls;
use crate::mistral::{self, wire::WhoAmI};
use crate::platform::apiserver::{self, Error, call};
use crate::platform::decoded::Decoded;
use crate::platform::reconcile::{self, Flow, Reconcile};
use crate::platform::refused::Refused;
use crate::platform::requeue::Refusal;
use crate::sync;
use crate::throttle::{Budget, Priority};

/// How long a check waits for a permit. Checks have a flow of their own, so only a pause of the API takes longer.
const PERMIT_WITHIN: Duration = Duration::from_secs(10);
/// The flow of the checks. If they waited behind all starts of their Workspace, a refused key would go unnoticed.
const FLOW: &str = "(checks)";
/// The time between the first checks of two Workspaces: those of a thousand must not be made at once.
const BETWEEN_FIRST_CHECKS: Duration = Duration::from_millis(10);

/// What reconciles of Workspaces share.
pub struct Context {
    pub shared: Shared,
    /// What is known of the workflows of each Workspace.
    pub findings: Arc<dyn Findings>,
    /// The API addresses that the operator may call.
    pub allowed: Vec<Url>,
    /// Counts the calls of all clients.
    pub calls: Calls,
    budgets: Budgets,
    first_checks: Arc<Line>,
    memory: Mutex<HashMap<WorkspaceKey, Memory>>,
}

/// What this process remembers about a Workspace.
#[derive(Clone, Debug, Default)]
struct Memory {
    check: Option<Check>,
    /// The budget of the Workspace's key, kept also while the key cannot be checked.
    budget: Option<Arc<Budget>>,
    /// Consecutive problems.
    retries: u32,
    /// The status that the API server refuses.
    refusal: Option<Box<Refusal>>,
}

/// One reconcile of one Workspace.
struct Reconciliation<'a> {
    context: &'a Context,
    object: &'a Workspace,
    key: WorkspaceKey,
    state: State,
    budget: Option<Arc<Budget>>,
    refusal: Option<Box<Refusal>>,
}

impl Context {
    /// Nothing remembered yet.
    pub fn new(
        shared: Shared,
        findings: Arc<dyn Findings>,
        allowed: Vec<Url>,
        max_requests_per_second: u32,
        calls: Calls,
    ) -> Self {
        let (waits, connections) = (calls.waits.clone(), Arc::clone(&shared.connections));
        Self {
            shared,
            findings,
            allowed,
            calls,
            budgets: Budgets::new(max_requests_per_second, waits, connections),
            first_checks: Arc::new(Line::new(BETWEEN_FIRST_CHECKS)),
            memory: Mutex::default(),
        }
    }

    /// Forgets Workspaces that are gone.
    pub fn forget_all_but(&self, exists: impl Fn(&WorkspaceKey) -> bool) {
        sync::lock(&self.memory).retain(|key, _| exists(key));
        self.budgets.forget_all_but(exists);
    }
}

/// Reconciles one Workspace.
///
/// # Errors
/// When the Kubernetes API cannot be used.
pub async fn reconcile(object: Arc<Decoded<Workspace>>, context: Arc<Context>) -> Result<Action, Error> {
    let workspace = match &object.0 {
        Ok(workspace) => workspace,
        Err(invalid) => {
            context.shared.publisher.undecodable(reason::UNDECODABLE, object.as_ref(), &invalid.error);
            return Ok(Action::await_change());
        }
    };
    if workspace.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    reconcile::run(&mut Reconciliation::new(&context, workspace), &context.shared.term).await
}

impl Reconcile for Reconciliation<'_> {
    type Step = Step;
    type Settled = Settled;

    fn plan(&self, now: Timestamp) -> Decision {
        plan(&self.state, now)
    }

    async fn act(&mut self, step: Step) -> Result<Flow, Error> {
        match step {
            Step::ReadSecret(address) => self.read_secret(&address).await?,
            Step::Check(address, token) => self.check(address, token).await,
        }
        Ok(Flow::PlanAgain)
    }

    async fn settle(&mut self, settled: Settled) -> Result<Action, Error> {
        let Settled { outcome, wait } = settled;
        self.connect(&outcome);
        self.store_memory();
        let left = self.write_status(&outcome).await?;
        // Only if the Workspace has not been forgotten meanwhile.
        if let Some(memory) = sync::lock(&self.context.memory).get_mut(&self.key) {
            memory.refusal.clone_from(&self.refusal);
        }
        Ok(Action::requeue(left.map_or(wait, |left| wait.min(left))))
    }
}

impl<'a> Reconciliation<'a> {
    fn new(context: &'a Context, object: &'a Workspace) -> Self {
        let key = WorkspaceKey { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
        let memory = sync::lock(&context.memory).get(&key).cloned().unwrap_or_default();
        let Memory { check, budget, retries, refusal } = memory;
        let suspect = context.shared.connections.is_suspect(&key);
        let state = State::new(object, &context.allowed, check, retries, suspect);
        Self { context, object, key, state, budget, refusal }
    }

    async fn read_secret(&mut self, address: &Url) -> Result<(), Error> {
        let at = &self.object.spec.auth.api_key_secret_ref;
        let api: Api<Secret> = Api::namespaced(self.context.shared.client.clone(), &self.key.namespace);
        let api_key = match call(api.get_opt(&at.name)).await {
            Ok(secret) => credentials::api_key(secret.as_ref(), at),
            Err(Error::Kube(error)) if matches!(&*error, kube::Error::Api(status) if status.code == 403) => {
                let message = format!(
                    "The operator's service account may not get Secret \"{}\" in this namespace (HTTP 403). Restore its Role, or add the name to rbac.secretNames of the chart. The operator looks again within a minute.",
                    at.name
                );
                Err(Problem { reason: reason::SECRET_FORBIDDEN, message, passing: false })
            }
            Err(error) => return Err(error),
        };
        if let Ok(token) = &api_key {
            let rate = self.object.spec.requests_per_second;
            self.budget = Some(self.context.budgets.join(&self.key, address, token, rate));
        }
        // A call may have been refused while the Secret was read.
        self.state.suspect = self.context.shared.connections.is_suspect(&self.key);
        self.state.api_key_read(api_key, Timestamp::now());
        Ok(())
    }

    /// Asks the API whether it accepts the key, if there is a permit in time.
    async fn check(&mut self, address: Url, token: SecretString) {
        // The plan asks for a check only of a key that was read, which has a budget.
        let Some(budget) = self.budget.clone() else { return self.state.not_permitted() };
        if self.state.check.is_none() {
            self.context.first_checks.wait(&self.key.namespace).await;
        }
        let patience =
            if budget.pause_left().is_some_and(|left| left > PERMIT_WITHIN) { Duration::ZERO } else { PERMIT_WITHIN };
        let Ok(permit) = tokio::time::timeout(patience, budget.take(Priority::Start, FLOW)).await else {
            return self.state.not_permitted();
        };
        self.context.shared.connections.checking(&self.key);
        let client = client(self.context, &address, &token).map(|client| client.with_permit(Arc::new(permit)));
        let outcome = check(client, &self.object.spec.auth.api_key_secret_ref.name).await;
        self.state.checked((address, token), outcome, budget.pause_left().is_some(), Timestamp::now());
    }

    /// Writes the status if it differs. Returns how long a status that the API server refuses is put off.
    async fn write_status(&mut self, outcome: &Result<Accepted, Problem>) -> Result<Option<Duration>, Error> {
        let (context, object) = (self.context, self.object);
        let Shared { publisher, status_writer, term, .. } = &context.shared;
        let saturated = self.budget.as_ref().and_then(|budget| saturated(&context.budgets, &self.key, budget));
        let discovered = match object.spec.discovery {
            Policy::Observe => context.findings.discovered(&self.key),
            Policy::Disabled => Discovered::Complete,
        };
        let (drift, old, blank) =
            (context.findings.drift(&self.key), object.status.as_ref(), WorkspaceStatus::default());
        let (mut status, notices) = status::report(
            old.unwrap_or(&blank),
            object.metadata.generation,
            outcome,
            saturated.as_ref(),
            &discovered,
            &drift,
            Timestamp::now(),
        );
        if let Some(count) = context.findings.count(&self.key) {
            status.workflow_count = i64::try_from(count).ok();
        }
        if term.is_over() {
            return Ok(None);
        }
        let (version, now) = (object.resource_version().unwrap_or_default(), Timestamp::now());
        if self.refusal.as_ref().is_none_or(|refusal| refusal.left(&version, now).is_none()) {
            match status_writer.write(object, &version, old, &status).await {
                Ok(_) => {
                    self.refusal = None;
                    publisher.publish(&apiserver::reference(object), notices);
                }
                Err(error) => {
                    let refused = Refused::of(&error).ok_or(error)?;
                    if self.refusal.is_none() {
                        let unsaid = conditions::find(&status.conditions, READY);
                        publisher.publish(
                            &apiserver::reference(object),
                            vec![refused.status(reason::STATUS_REFUSED, unsaid)],
                        );
                    }
                    let uid = object.uid().unwrap_or_default();
                    let next = Refusal::once_more(self.refusal.as_deref(), refused, &version, &uid, now);
                    self.refusal = Some(Box::new(next));
                }
            }
        }
        Ok(self.refusal.as_ref().and_then(|refusal| refusal.left(&version, now)))
    }

    fn store_memory(&self) {
        let memory = Memory {
            check: self.state.check.clone(),
            budget: self.budget.clone(),
            retries: self.state.retries,
            refusal: self.refusal.clone(),
        };
        sync::lock(&self.context.memory).insert(self.key.clone(), memory);
    }

    /// Publishes the connection to the other controllers, if it differs from theirs.
    fn connect(&self, outcome: &Result<Accepted, Problem>) {
        let (context, key, workspace) = (self.context, &self.key, self.object);
        let connections = &context.shared.connections;
        let uid = &workspace.uid().unwrap_or_default();
        let (resync, secret) = (workspace.spec.resync(), &workspace.spec.auth.api_key_secret_ref.name);
        match (outcome, &self.state.check, &self.budget) {
            (Ok(accepted), Some(Check { of: (address, token), .. }), Some(budget)) => match connections.of(key, uid) {
                Some(connections::State::Ready(live))
                    if live.uses(address, token)
                        && live.workspace_id == accepted.workspace_id
                        && live.resync == resync
                        && live.secret == *secret => {}
                _ => match client(context, address, token) {
                    Ok(client) => {
                        let origin = address.origin().ascii_serialization();
                        let (budget, workspace_id) = (Arc::clone(budget), accepted.workspace_id.clone());
                        let live = Connection::new(client, budget, origin, workspace_id, resync, secret.clone());
                        connections.ready(key, uid, live);
                    }
                    Err(problem) => connections.not_ready(key, uid, problem.message, Progress::Stalled, true),
                },
            },
            // An API that is temporarily down is no reason to give up a connection that was good.
            (Err(problem), ..)
                if problem.passing && matches!(connections.of(key, uid), Some(connections::State::Ready(_))) => {}
            (Err(problem), ..) => {
                let may_stop = matches!(
                    problem.reason,
                    reason::SECRET_NOT_FOUND | reason::SECRET_INVALID | reason::SECRET_FORBIDDEN
                );
                connections.not_ready(key, uid, problem.message.clone(), problem.wait(), may_stop);
            }
            (Ok(_), ..) => {}
        }
    }
}

/// Why this Workspace's calls wait, if they wait for long.
fn saturated(budgets: &Budgets, key: &WorkspaceKey, budget: &Budget) -> Option<Saturated> {
    let (saturation, lasts, waiting) = budget.saturation()?;
    let (limit, limit_of) = budgets.limit(key);
    let now = Timestamp::now();
    Some(Saturated { saturation, since: earlier(now, lasts), now, waiting, rate: budget.rate(), limit, limit_of })
}

async fn check(client: Result<mistral::Client, Problem>, secret: &str) -> Result<Accepted, Problem> {
    let client = client?;
    let answer = match client.whoami().await {
        // Not every published description of the API has this route. A list of one workflow also shows whether the key
        // is valid.
        Err(mistral::Error::NotFound(_) | mistral::Error::Rejected(_)) => {
            let filter = mistral::WorkflowFilter { limit: 1, ..mistral::WorkflowFilter::default() };
            client.list_workflows(&filter).await.map(|_| WhoAmI::default())
        }
        answer => answer,
    };
    plan::judge(answer, secret)
}

fn client(context: &Context, address: &Url, token: &SecretString) -> Result<mistral::Client, Problem> {
    let client = mistral::Client::new(address.clone(), token.clone());
    client.map(|client| client.counted_in(context.calls.clone())).map_err(|error| Problem {
        reason: reason::API_UNAVAILABLE,
        message: format!("The operator cannot create an HTTP client; check its container image: {error}"),
        passing: true,
    })
}
