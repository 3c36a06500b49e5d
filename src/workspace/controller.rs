//! Reads a Workspace's Secret, checks the key, and publishes the connection to the other controllers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::earlier;
use crate::platform::object::Decoded;
use crate::sync;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use secrecy::SecretString;
use url::Url;

use super::budgets::Budgets;
use super::connections::{Connections, Key, Live, State};
use super::line::Line;
use super::plan::{self, Accepted, Check, Discovered, Problem, READ_EVERY, Strained, reason};
use crate::api::conditions::{self, READY, Wait};
use crate::api::workspace::Discovery as Policy;
use crate::api::{Workspace, WorkspaceStatus};
use crate::mistral::budget::{Budget, Class};
use crate::mistral::{self, wire::WhoAmI};
use crate::platform::apiserver::{self, Error, call, write_status};
use crate::platform::events::Publisher;
use crate::platform::leader::lease::Term;
use crate::platform::metrics::Metrics;
use crate::platform::refused::Refused;
use crate::platform::requeue::{Failures, Refusal};
use crate::workflow::discovery::Discovery;
use crate::workflow::inventory::Inventory;

/// How long a check waits for a permit. Checks have a flow of their own, so only a pause of the API takes longer.
const TURN: Duration = Duration::from_secs(10);
/// When a check that got no permit is tried again.
const NEXT_TURN: Duration = Duration::from_secs(15);
/// The flow of the checks. If they waited behind all starts of their Workspace, a refused key would go unnoticed.
const LANE: &str = "(checks)";
/// The time between the first checks of two Workspaces: those of a thousand must not be made at once.
const BETWEEN_FIRST_CHECKS: Duration = Duration::from_millis(10);

/// What reconciles share.
pub struct Context {
    /// Of the Kubernetes API.
    pub client: Client,
    pub connections: Arc<Connections>,
    /// Knows how many workflows each Mistral workspace has.
    pub inventory: Arc<Inventory>,
    /// Knows which workflows have no resource.
    pub discovery: Arc<Discovery>,
    pub publisher: Arc<Publisher>,
    /// The API addresses that the operator may call.
    pub allowed: Vec<Url>,
    /// For how long this process may act.
    pub term: Term,
    pub metrics: Arc<Metrics>,
    /// Consecutive failed reconciles.
    pub failures: Failures,
    budgets: Budgets,
    first_checks: Arc<Line>,
    memory: Mutex<HashMap<Key, Memory>>,
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

impl Context {
    /// Starts with nothing remembered.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing, and they are named where it is called")]
    pub fn new(
        client: Client,
        connections: Arc<Connections>,
        inventory: Arc<Inventory>,
        discovery: Arc<Discovery>,
        publisher: Arc<Publisher>,
        allowed: Vec<Url>,
        max_requests_per_second: u32,
        term: Term,
        metrics: Arc<Metrics>,
    ) -> Self {
        let budgets = Budgets::new(max_requests_per_second, metrics.calls.clone(), Arc::clone(&connections));
        let (first_checks, memory) = (Arc::new(Line::new(BETWEEN_FIRST_CHECKS)), Mutex::default());
        Self {
            client,
            connections,
            inventory,
            discovery,
            publisher,
            allowed,
            term,
            metrics,
            failures: Failures::default(),
            budgets,
            first_checks,
            memory,
        }
    }

    /// Forgets Workspaces that are gone.
    pub fn forget_all_but(&self, exists: impl Fn(&Key) -> bool) {
        self.lock().retain(|key, _| exists(key));
        self.budgets.forget_all_but(exists);
        self.failures.forget();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Memory>> {
        sync::lock(&self.memory)
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
            context.publisher.undecodable(object.as_ref(), &invalid.error);
            return Ok(Action::await_change());
        }
    };
    if workspace.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let key = key_of(workspace);
    let mut memory = context.lock().get(&key).cloned().unwrap_or_default();

    let (outcome, wait) = look(&context, workspace, &key, &mut memory).await?;
    connect(&context, &key, workspace, &outcome, &memory);
    let strained = memory.budget.as_ref().and_then(|budget| strained(&context.budgets, &key, budget));
    let discovered = match workspace.spec.discovery {
        Policy::Observe => context.discovery.outcome(&key),
        Policy::Disabled => Discovered::Complete,
    };
    let drift = context.inventory.drift(&key);
    let mut refusal = memory.refusal.clone();
    context.lock().insert(key.clone(), memory);

    let old = workspace.status.clone();
    let blank = WorkspaceStatus::default();
    let (old_status, generation) = (old.as_ref().unwrap_or(&blank), workspace.metadata.generation);
    let (mut status, notices) =
        plan::report(old_status, generation, &outcome, strained.as_ref(), &discovered, &drift, Timestamp::now());
    if let Some(count) = context.inventory.count(&key_of(workspace)) {
        status.workflow_count = i64::try_from(count).ok();
    }
    let version = workspace.resource_version().unwrap_or_default();
    if context.term.is_over() {
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    if refusal.as_ref().is_none_or(|refusal| refusal.left(&version, now).is_none()) {
        match write_status(&context.client, workspace, &version, old.as_ref(), &status).await {
            Ok(_) => {
                refusal = None;
                context.publisher.publish(&apiserver::reference(workspace), notices);
            }
            Err(error) => {
                let refused = Refused::of(&error).ok_or(error)?;
                if refusal.is_none() {
                    let unsaid = conditions::find(&status.conditions, READY);
                    context.publisher.publish(&apiserver::reference(workspace), vec![refused.status(unsaid)]);
                }
                let uid = workspace.uid().unwrap_or_default();
                refusal = Some(Box::new(Refusal::once_more(refusal.as_deref(), refused, &version, &uid, now)));
            }
        }
    }
    let left = refusal.as_ref().and_then(|refusal| refusal.left(&version, now));
    if let Some(memory) = context.lock().get_mut(&key) {
        memory.refusal = refusal;
    }
    Ok(Action::requeue(left.map_or(wait, |left| wait.min(left))))
}

fn key_of(workspace: &Workspace) -> Key {
    Key { namespace: workspace.namespace().unwrap_or_default(), name: workspace.name_any() }
}

/// Reads the Secret, and checks the key if that is due. Returns the outcome, and when to reconcile again.
async fn look(
    context: &Context,
    workspace: &Workspace,
    key: &Key,
    memory: &mut Memory,
) -> Result<(Result<Accepted, Problem>, Duration), Error> {
    // Soon after a problem, then less often: somebody is probably correcting it.
    let soon = Duration::from_secs(1 << memory.retries.min(4)).min(Duration::from_secs(15));
    let address = match plan::address(&workspace.spec, &context.allowed) {
        Ok(address) => address,
        Err(problem) => return Ok((Err(problem), READ_EVERY)),
    };
    let token = match read_secret(context, workspace, key).await? {
        Ok(token) => token,
        Err(problem) => {
            memory.retries = memory.retries.saturating_add(1);
            return Ok((Err(problem), soon));
        }
    };
    let of = (address, token);
    let budget = context.budgets.join(key, &of.0, &of.1, workspace.spec.requests_per_second);
    memory.budget = Some(Arc::clone(&budget));
    let due = plan::check_due(
        memory.check.as_ref(),
        &of,
        context.connections.is_suspect(key),
        memory.retries,
        Timestamp::now(),
    );
    match (due, &memory.check) {
        (Err(wait), Some(check)) => {
            let read = if check.outcome.is_ok() { READ_EVERY } else { Duration::from_secs(15) };
            Ok((check.outcome.clone(), wait.min(read)))
        }
        (Ok(()), _) | (Err(_), None) => {
            if memory.check.is_none() {
                context.first_checks.wait(&key.namespace).await;
            }
            let patience = if budget.pause_left().is_some_and(|left| left > TURN) { Duration::ZERO } else { TURN };
            let Ok(turn) = tokio::time::timeout(patience, budget.take(Class::Start, LANE)).await else {
                return Ok((known_or(memory.check.as_ref(), &of, plan::no_turn()), NEXT_TURN));
            };
            context.connections.checking(key);
            let client = client(context, &of.0, &of.1).map(|client| client.in_turn(Arc::new(turn)));
            let outcome = check(client, &workspace.spec.auth.api_key_secret_ref.name).await;
            if let (Err(problem), Some(_)) = (&outcome, budget.pause_left())
                && problem.passing
            {
                return Ok((known_or(memory.check.as_ref(), &of, problem.clone()), NEXT_TURN));
            }
            memory.retries = if outcome.is_ok() { 0 } else { memory.retries.saturating_add(1) };
            let wait = if outcome.is_ok() { READ_EVERY } else { soon.max(Duration::from_secs(2)) };
            memory.check = Some(Check { of, at: Timestamp::now(), outcome: outcome.clone() });
            Ok((outcome, wait))
        }
    }
}

async fn read_secret(
    context: &Context,
    workspace: &Workspace,
    key: &Key,
) -> Result<Result<SecretString, Problem>, Error> {
    let at = &workspace.spec.auth.api_key_secret_ref;
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &key.namespace);
    match call(api.get_opt(&at.name)).await {
        Ok(secret) => Ok(plan::api_key(secret.as_ref(), at).map_err(|problem| {
            let created = workspace.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
            problem.of_a_workspace_from(created, Timestamp::now())
        })),
        Err(Error::Kube(error)) if matches!(&*error, kube::Error::Api(status) if status.code == 403) => {
            Ok(Err(Problem {
                reason: reason::SECRET_FORBIDDEN,
                message: format!(
                    "The operator may not read Secret \"{}\" in this namespace; grant it \"get\" on it.",
                    at.name
                ),
                passing: false,
            }))
        }
        Err(error) => Err(error),
    }
}

/// The last outcome for this key, if it has been checked before: an API that takes no calls now says nothing about the
/// key.
fn known_or(last: Option<&Check>, of: &(Url, SecretString), problem: Problem) -> Result<Accepted, Problem> {
    last.filter(|last| last.is_of(of)).map_or(Err(problem), |last| last.outcome.clone())
}

/// Why this Workspace's calls wait, if they wait for long.
fn strained(budgets: &Budgets, key: &Key, budget: &Budget) -> Option<Strained> {
    let (strain, lasts, waiting) = budget.strain()?;
    let (limit, limit_of) = budgets.limit(key);
    let since = earlier(Timestamp::now(), lasts);
    Some(Strained { strain, since, waiting, limit, limit_of })
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
    client.map(|client| client.counted_in(context.metrics.calls.clone())).map_err(|error| Problem {
        reason: reason::API_UNAVAILABLE,
        message: format!("The operator cannot make an HTTP client; look at its container image: {error}"),
        passing: true,
    })
}

/// Publishes the connection to the other controllers, if it differs from theirs.
fn connect(context: &Context, key: &Key, workspace: &Workspace, outcome: &Result<Accepted, Problem>, memory: &Memory) {
    let connections = &context.connections;
    let uid = &workspace.uid().unwrap_or_default();
    let resync = workspace.spec.resync();
    match (outcome, &memory.check, &memory.budget) {
        (Ok(accepted), Some(Check { of: (address, token), .. }), Some(budget)) => match connections.of(key, uid) {
            Some(State::Ready(live))
                if live.uses(address, token) && live.workspace_id == accepted.workspace_id && live.resync == resync => {
            }
            _ => match client(context, address, token) {
                Ok(client) => {
                    let origin = address.origin().ascii_serialization();
                    let (budget, workspace_id) = (Arc::clone(budget), accepted.workspace_id.clone());
                    connections.ready(key, uid, Live::new(client, budget, origin, workspace_id, resync));
                }
                Err(problem) => connections.not_ready(key, uid, problem.message, Wait::Stalled, true),
            },
        },
        // An API that is temporarily down is no reason to give up a connection that was good.
        (Err(problem), ..) if problem.passing && matches!(connections.of(key, uid), Some(State::Ready(_))) => {}
        (Err(problem), ..) => {
            let may_stop =
                matches!(problem.reason, reason::SECRET_NOT_FOUND | reason::SECRET_INVALID | reason::SECRET_FORBIDDEN);
            connections.not_ready(key, uid, problem.message.clone(), problem.wait(), may_stop);
        }
        (Ok(_), ..) => {}
    }
}
