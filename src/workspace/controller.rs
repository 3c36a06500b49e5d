//! Reads a Workspace's Secret, checks the key, and keeps the connection for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use secrecy::SecretString;
use url::Url;

use super::connections::{Connections, Key, Live, State};
use super::plan::{self, Accepted, Check, Problem, READ_EVERY, reason};
use crate::api::{Workspace, WorkspaceStatus};
use crate::mistral::{self, wire::WhoAmI};
use crate::operator::events::Publisher;
use crate::operator::kubernetes::{self, Error, call, write_status};
use crate::operator::lease::Term;
use crate::operator::metrics::Metrics;

/// What reconciles share.
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// Where connections are kept.
    pub connections: Arc<Connections>,
    /// Events.
    pub publisher: Arc<Publisher>,
    /// The addresses that may be called.
    pub allowed: Vec<Url>,
    /// For how long this process may act.
    pub term: Term,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    memory: Mutex<HashMap<Key, Memory>>,
}

/// What this process remembers of a Workspace.
#[derive(Clone, Debug, Default)]
struct Memory {
    check: Option<Check>,
    /// Problems in a row.
    retries: u32,
}

impl Context {
    /// Nothing remembered yet.
    pub fn new(
        client: Client,
        connections: Arc<Connections>,
        publisher: Arc<Publisher>,
        allowed: Vec<Url>,
        term: Term,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { client, connections, publisher, allowed, term, metrics, memory: Mutex::default() }
    }

    /// Forgets Workspaces that are gone.
    pub fn forget_all_but(&self, exists: impl Fn(&Key) -> bool) {
        self.lock().retain(|key, _| exists(key));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pass over one Workspace.
///
/// # Errors
/// When the Kubernetes API cannot be used.
pub async fn reconcile(object: Arc<DeserializeGuard<Workspace>>, context: Arc<Context>) -> Result<Action, Error> {
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
    let key = Key { namespace: workspace.namespace().unwrap_or_default(), name: workspace.name_any() };
    let mut memory = context.lock().get(&key).cloned().unwrap_or_default();

    let (outcome, wait) = look(&context, workspace, &key, &mut memory).await?;
    connect(&context, &key, workspace, &outcome, memory.check.as_ref());
    context.lock().insert(key, memory);

    let old = workspace.status.clone();
    let blank = WorkspaceStatus::default();
    let (status, notice) =
        plan::report(old.as_ref().unwrap_or(&blank), workspace.metadata.generation, &outcome, Timestamp::now());
    let version = workspace.resource_version().unwrap_or_default();
    if context.term.is_over() {
        return Ok(Action::await_change());
    }
    write_status(&context.client, workspace, &version, old.as_ref(), &status).await?;
    context.publisher.publish(&kubernetes::reference(workspace), notice.into_iter().collect());
    Ok(Action::requeue(wait))
}

/// Reads, and checks if that is due. Returns what is so, and when to look again.
async fn look(
    context: &Context,
    workspace: &Workspace,
    key: &Key,
    memory: &mut Memory,
) -> Result<(Result<Accepted, Problem>, Duration), Error> {
    // Soon after a problem, then less often: whoever corrects it is probably at it.
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
            context.connections.checking(key);
            let outcome = check(context, &of, &workspace.spec.auth.api_key_secret_ref.name).await;
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
        Ok(secret) => Ok(plan::api_key(secret.as_ref(), at)),
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

async fn check(context: &Context, of: &(Url, SecretString), secret: &str) -> Result<Accepted, Problem> {
    let client = client(context, &of.0, &of.1)?;
    let answer = match client.whoami().await {
        // Not in every published description of the API; a list of one tells as well whether the key is good.
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

/// Hands the connection to the others, if it is another one than they have.
fn connect(
    context: &Context,
    key: &Key,
    workspace: &Workspace,
    outcome: &Result<Accepted, Problem>,
    check: Option<&Check>,
) {
    let connections = &context.connections;
    let uid = &workspace.uid().unwrap_or_default();
    let resync = Duration::from(workspace.spec.resync_interval);
    match (outcome, check) {
        (Ok(accepted), Some(Check { of: (address, token), .. })) => match connections.of(key, uid) {
            Some(State::Ready(live))
                if live.client.uses(address, token)
                    && live.workspace_id == accepted.workspace_id
                    && live.resync == resync => {}
            _ => match client(context, address, token) {
                Ok(client) => {
                    let origin = address.origin().ascii_serialization();
                    connections.ready(key, uid, Live::new(client, origin, accepted.workspace_id.clone(), resync));
                }
                Err(problem) => connections.not_ready(key, uid, problem.message, true),
            },
        },
        // An API that is down for a while is no reason to give up a connection that was good.
        (Err(problem), _) if problem.passing && matches!(connections.of(key, uid), Some(State::Ready(_))) => {}
        (Err(problem), _) => {
            let may_stop =
                matches!(problem.reason, reason::SECRET_NOT_FOUND | reason::SECRET_INVALID | reason::SECRET_FORBIDDEN);
            connections.not_ready(key, uid, problem.message.clone(), may_stop);
        }
        (Ok(_), None) => {}
    }
}
