//! The process around the controllers: wiring, leader election, health, Events, shutdown.

pub mod release_finalizers;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_all};
use futures::{FutureExt, Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::api::Workspace;
use crate::execution;
use crate::execution::claim::unlisted::UnlistedClaims;
use crate::execution::controller::Guarded;
use crate::execution::state::Instance;
use crate::execution::tracker::Tracker;
use crate::platform::apiserver;
use crate::platform::events;
use crate::platform::health::{self, Health};
use crate::platform::leader::elector::{self, Election, LeaseConfig};
use crate::platform::leader::lease::Term;
use crate::platform::metrics::Metrics;
use crate::platform::object::Decoded;
use crate::platform::watch::{self, Scope};
use crate::workflow;
use crate::workflow::discovery::Discovery;
use crate::workflow::inventory::{self, Inventory};
use crate::workspace;
use crate::workspace::connections::{Connections, Key};

/// How long reconciles in flight may take to end once the process is to stop. Pods get 30 s.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(25);
/// How often the memory of deleted resources is dropped.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Controllers that share the executions: see [`divided`].
const PARTS: u64 = 16;
/// Objects that may queue for each of these controllers.
const QUEUED: usize = 64;
/// What readiness waits for first.
const KUBERNETES: &str = "the Kubernetes API";
/// What readiness waits for if there is no election.
const WATCHES: &str = "the watches";
const KINDS: [&str; 3] = ["Workspace", "Workflow", "WorkflowExecution"];

/// The settings of an operator process.
#[derive(Clone)]
pub struct Config {
    /// The base URLs of the Mistral API that Workspaces may name.
    pub allow_base_urls: Vec<Url>,
    /// Limit of calls per second with one API key.
    pub max_requests_per_second: u32,
    /// Executions may take input only from Secrets that are labelled for it.
    pub input_secrets_need_label: bool,
    /// The namespaces to watch, each once; empty for all.
    pub namespaces: Vec<String>,
    /// The address of the health and metrics server; none for no server.
    pub listen: Option<SocketAddr>,
    /// The Lease by which one of several operators is elected; none for no election.
    pub lease: Option<LeaseConfig>,
}

/// Why the operator could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The health server could not listen.
    #[error("cannot listen on {address} for health checks; give another --listen address: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        source: std::io::Error,
    },
    /// Another operator may act by now.
    #[error(
        "the Lease {lease} is no longer this process's: {reason}; it ends, to do nothing more, and may be started anew"
    )]
    Lost {
        /// Namespace and name.
        lease: String,
        reason: String,
    },
}

/// Runs the controllers until `stop`, then lets reconciles in flight finish.
///
/// # Errors
/// See [`Error`]. The operator waits for a Kubernetes API that is down, and for missing CRDs.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> Result<(), Error> {
    let health = Arc::new(Health::default());
    health.wait_for([KUBERNETES]);
    // Set from the start: a process with nothing to wait for would briefly count as ready.
    health.wait_for([if config.lease.is_some() { elector::LEASE } else { WATCHES }]);
    let metrics = Arc::new(Metrics::default());
    if let Some(address) = config.listen {
        let listener = health::listen(address).await.map_err(|source| Error::Listen { address, source })?;
        tokio::spawn(health::serve(listener, Arc::clone(&health), Arc::clone(&metrics)));
    }
    let (name, since) = (format!("{}-{}", host_name(), Uuid::new_v4().simple()), Timestamp::now());
    tracing::info!(instance = name, version = env!("CARGO_PKG_VERSION"), namespaces = ?config.namespaces, "starting");
    let scopes = watch::scopes(&config.namespaces);
    let prepare = async {
        let cluster = cluster_id(&client, &health).await;
        health.wait_for(scopes.iter().map(Scope::name));
        health.done(KUBERNETES);
        for scope in scopes.clone() {
            let (client, health, stop) = (client.clone(), Arc::clone(&health), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(scope.prepare(client, &health)).await });
        }
        // Namespaces that cannot be watched yet join when they can.
        select_all(scopes.iter().map(|scope| Box::pin(scope.served.cancelled()))).await;
        cluster
    };
    let Some(cluster) = stop.run_until_cancelled(prepare).await else { return Ok(()) };

    let Some(lease) = config.lease.clone() else {
        tracing::info!("there is no election; let only one operator run");
        let term = Term::unlimited(stop, since);
        operate(&config, client, &scopes, cluster, name, &term, &health, &metrics).await;
        return Ok(());
    };
    let mut election = Election::new(lease.clone(), name.clone());
    let Some(term) = election.win(&stop, &health).await else { return Ok(()) };
    // Renewals have a task of their own: work on many resources must not delay them. If the task ends, for any reason,
    // all work stops at once, unfinished.
    let ended = CancellationToken::new();
    let mut keeping = tokio::spawn(election.keep(term.clone(), ended.clone()));
    let kept = tokio::select! {
        kept = &mut keeping => kept,
        () = operate(&config, client, &scopes, cluster, name, &term, &health, &metrics) => {
            ended.cancel();
            keeping.await
        }
    };
    let reason = match kept {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(lost)) => lost.to_string(),
        Err(panic) => panic.to_string(),
    };
    let error = Error::Lost { lease: format!("{}/{}", lease.namespace, lease.name), reason };
    tracing::error!("{error}");
    Err(error)
}

/// Runs the controllers until the term's `stop`, then lets reconciles in flight finish.
#[expect(clippy::too_many_arguments, reason = "what the process has made ready, each a different thing")]
async fn operate(
    config: &Config,
    client: Client,
    scopes: &[Scope],
    cluster: String,
    name: String,
    term: &Term,
    health: &Health,
    metrics: &Arc<Metrics>,
) {
    health.wait_for(scopes.iter().flat_map(|scope| KINDS.map(|kind| scope.list(kind))));
    health.done(elector::LEASE);
    health.done(WATCHES);
    health.leads();
    let stop = &term.stop;
    let instance = Instance { name, since: term.since, api_server_time: None };
    let (changed, changes) = unbounded_channel();
    let (changed_too, workflow_changes) = unbounded_channel();
    let (suspect, suspects) = unbounded_channel();
    let (wake, woken) = unbounded_channel();
    let (wake_workflow, woken_workflows) = unbounded_channel();
    let (touched, touched_workspaces) = unbounded_channel();
    let (touched_workflow, touched_workflows) = unbounded_channel();
    let (touched_execution, touched_executions) = unbounded_channel();
    let connections = Arc::new(Connections::new(vec![changed.clone(), changed_too.clone()], suspect));
    let (publisher, writer) = events::publisher(client.clone(), instance.name.clone(), Arc::clone(metrics));
    let publisher = Arc::new(publisher);
    let tracker = Arc::new(Tracker::new(wake));
    let (swept, sweeps) = unbounded_channel();
    let inventory = Arc::new(Inventory::new(wake_workflow, swept));

    let (workspace_store, workspace_writer) = watch::store();
    let (workflow_store, workflow_writer) = watch::store();
    let (execution_store, execution_writer) = watch::store();
    let discovery = Arc::new(Discovery::new(
        client.clone(),
        workspace_store.clone(),
        workflow_store.clone(),
        Arc::clone(&connections),
        Arc::clone(&publisher),
        term.clone(),
    ));
    let workspaces = controller(&workspace_store, receive(touched_workspaces));
    let workspace_context = Arc::new(workspace::controller::Context::new(
        client.clone(),
        Arc::clone(&connections),
        Arc::clone(&inventory),
        Arc::clone(&discovery),
        Arc::clone(&publisher),
        config.allow_base_urls.clone(),
        config.max_requests_per_second,
        term.clone(),
        Arc::clone(metrics),
    ));
    let suspected = receive(suspects).map(|key: Key| ObjectRef::new(&key.name).within(&key.namespace));
    let workspaces = workspaces.reconcile_on(suspected).graceful_shutdown_on(stop.clone().cancelled_owned()).run(
        |object, context| {
            async move {
                let pass = Box::pin(workspace::controller::reconcile(Arc::clone(&object), Arc::clone(&context)));
                context.failures.of(object.as_ref(), context.metrics.pass(&object, pass)).await
            }
            .boxed()
        },
        |object, error, context| context.failures.after(object.as_ref(), error),
        Arc::clone(&workspace_context),
    );

    let workflows = controller(&workflow_store, receive(touched_workflows));
    let workflow_context = Arc::new(workflow::controller::Context::new(
        client.clone(),
        Arc::clone(&connections),
        workspace_store.clone(),
        workflow_store.clone(),
        Arc::clone(&inventory),
        Arc::clone(&publisher),
        term.clone(),
        Arc::clone(metrics),
    ));
    let of_changes = workflow_store.clone();
    let (passed, passes_of_workflows) = unbounded_channel();
    let workflows = workflows
        .reconcile_on(receive(woken_workflows))
        .reconcile_on(receive(workflow_changes).flat_map(move |key| stream::iter(using(&of_changes, &key))))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            move |object, context| {
                // By now the store has the Workflow that the executions wait for. A separate watch could not promise
                // that.
                let _ = passed.send(watch::reference(object.as_ref()));
                async move {
                    let pass = Box::pin(workflow::controller::reconcile(Arc::clone(&object), Arc::clone(&context)));
                    context.failures.of(object.as_ref(), context.metrics.pass(&object, pass)).await
                }
                .boxed()
            },
            |object, error, context| context.failures.after(object.as_ref(), error),
            Arc::clone(&workflow_context),
        );

    let execution_context = Arc::new(execution::controller::Context::new(
        client.clone(),
        cluster,
        instance,
        Arc::clone(&connections),
        execution_store.clone(),
        workspace_store.clone(),
        workflow_store.clone(),
        UnlistedClaims::from_now_on(scopes.iter().map(|scope| scope.executions.clone()).collect()),
        config.input_secrets_need_label,
        Arc::clone(&tracker),
        publisher,
        term.clone(),
        Arc::clone(metrics),
    ));
    let (of_changes, of_workflows) = (execution_store.clone(), execution_store.clone());
    let named = stream::select_all([
        receive(woken).boxed(),
        receive(touched_executions).boxed(),
        receive(changes).flat_map(move |key| stream::iter(waiting_for(&of_changes, &key))).boxed(),
        receive(passes_of_workflows)
            .flat_map(move |workflow| stream::iter(referring_to(&of_workflows, &workflow)))
            .boxed(),
    ]);
    let (dividing, parts) = divided(named);
    let executions = parts.into_iter().map(|mut part| {
        let part = stream::poll_fn(move |context| part.poll_recv(context));
        controller(&execution_store, part).graceful_shutdown_on(stop.clone().cancelled_owned()).run(
            |object, context| {
                async move {
                    let pass = Box::pin(execution::controller::reconcile(Arc::clone(&object), Arc::clone(&context)));
                    context.failures.of(object.as_ref(), context.metrics.pass(&object, pass)).await
                }
                .boxed()
            },
            |object, error, context| context.failures.after(object.as_ref(), error),
            Arc::clone(&execution_context),
        )
    });
    let executions = stream::select_all(executions.map(StreamExt::boxed));

    let (executions_now, workspaces_now) = (execution_store.clone(), workspace_store.clone());
    let (tracker_now, inventory_now, term_now) = (Arc::clone(&tracker), Arc::clone(&inventory), term.clone());
    metrics.at_each_scrape(move |metrics| {
        metrics.set_executions(executions_now.state().iter().map(|object| execution::metrics::state(object)));
        let of_workspace = |object: &Decoded<Workspace>| match &object.0 {
            Ok(workspace) => workspace::plan::state(workspace.status.as_ref()),
            Err(_) => ("Unknown", "Undecodable"),
        };
        metrics.set_workspaces(workspaces_now.state().iter().map(|object| of_workspace(object)));
        metrics.set_sweep_age("runs", tracker_now.longest_unseen());
        metrics.set_sweep_age("workflows", inventory_now.age());
        metrics.set_overdue(inventory_now.overdue());
        metrics.set_leader(!term_now.is_over());
    });

    // These run as long as the process. If one of them panics, the process ends.
    let exists = execution_store.clone();
    let tracking =
        Arc::clone(&tracker).run(Arc::clone(&connections), move |object| exists.get(object).is_some(), stop.clone());
    let exists = workflow_store.clone();
    let (discovery, wanted) = (Arc::clone(&discovery), discovery);
    let exists = move |object: &ObjectRef<inventory::Guarded>| exists.get(object).is_some();
    let sweeping = inventory.run(Arc::clone(&connections), exists, move || wanted.wanted(), stop.clone());
    let discovering = receive(sweeps).take_until(stop.cancelled()).for_each(|news| {
        discovery.take_up(news);
        std::future::ready(())
    });
    let forgetting = async {
        while stop.run_until_cancelled(tokio::time::sleep(FORGET_EVERY)).await.is_some() {
            let uids: HashSet<String> = execution_store.state().iter().filter_map(|object| object.uid()).collect();
            execution_context.forget_all_but(|uid| uids.contains(uid));
            let uids: HashSet<String> = workflow_store.state().iter().filter_map(|object| object.uid()).collect();
            workflow_context.forget_all_but(|uid| uids.contains(uid));
            let exists = |key: &Key| workspace_store.get(&ObjectRef::new(&key.name).within(&key.namespace)).is_some();
            workspace_context.forget_all_but(exists);
            connections.gone_all_but(exists);
            connections.forget_all_but(exists);
            tracker.forget_all_but(exists);
        }
    };

    let watching = async {
        let tell_workspace = |workspace: ObjectRef<Decoded<Workspace>>| {
            let key = Key { namespace: workspace.namespace.clone().unwrap_or_default(), name: workspace.name.clone() };
            for listener in [&changed, &changed_too] {
                tell(listener, key.clone());
            }
            tell(&touched, workspace);
        };
        let tell_workflow = |workflow| tell(&touched_workflow, workflow);
        let tell_execution = |execution| tell(&touched_execution, execution);
        let keeping = (&client, scopes, health);
        let slim = execution::cache::slim;
        futures::join!(
            watch::keep(
                keeping,
                |at| &at.served,
                |at| &at.workspaces,
                |it| watch::slim(it, |_| None, |_| false),
                workspace_writer,
                tell_workspace
            ),
            watch::keep(
                keeping,
                |at| &at.workspaces,
                |at| &at.workflows,
                |it| watch::slim(it, |_| None, |_| false),
                workflow_writer,
                tell_workflow
            ),
            watch::keep(keeping, |at| &at.workflows, |at| &at.executions, slim, execution_writer, tell_execution),
        );
    };
    let executions = async {
        // Any execution may be about a run that another one has claimed, so all lists come first: see `Reservations`.
        stop.run_until_cancelled(join_all(scopes.iter().map(Scope::is_tried))).await;
        tracing::info!("watching");
        futures::join!(stop.run_until_cancelled(dividing), executions.for_each(told));
        execution_context.leftovers.close();
        execution_context.leftovers.wait().await;
    };
    let ended = CancellationToken::new();
    let passes = async {
        futures::join!(
            stop.run_until_cancelled(watching),
            workspaces.for_each(told),
            workflows.for_each(told),
            executions,
            tracking,
            sweeping,
            discovering,
            forgetting,
        );
        ended.cancel();
    };
    let all = async { futures::join!(passes, writer.run(ended.cancelled())) };
    let limit = async {
        stop.cancelled().await;
        tracing::info!("stopping; what is under way comes to its end first");
        tokio::time::sleep(SHUTDOWN_LIMIT).await;
    };
    tokio::select! {
        _ = all => tracing::info!("stopped"),
        () = limit => tracing::info!("stopped without waiting any longer; claims tell the next operator of calls under way"),
    }
}

/// Reconciles each object of the store that `touched` names, and those of triggers that callers add.
///
/// After a list, the reconciles of all objects are created together. Callers box each only when it is first polled, and
/// most end at once.
fn controller<K>(store: &Store<K>, touched: impl Stream<Item = ObjectRef<K>> + Send + 'static) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    // No limit on reconciles, which wait for slow tenants: the limit on calls in flight with each key bounds the work.
    Controller::for_stream(stream::pending(), store.clone())
        .with_config(controller::Config::default().concurrency(0))
        .reconcile_on(touched)
}

/// Distributes objects over several controllers. The same object always goes to the same controller.
///
/// Whenever one reconcile makes progress, kube's controller visits each reconcile in flight, and each object that waits
/// for its own reconcile to end. There may be thousands of executions in this state: those whose runs may end in a
/// moment, or whose API server is slow.
///
/// The queues are short. A change of a Workspace concerns all its executions, and many such changes should wait as
/// changes, not as thousands of objects each.
fn divided<K>(objects: impl Stream<Item = ObjectRef<K>>) -> (impl Future<Output = ()>, Vec<Receiver<ObjectRef<K>>>)
where
    K: Resource<DynamicType = ()>,
{
    let (queues, parts): (Vec<_>, Vec<_>) = (0..PARTS).map(|_| channel(QUEUED)).unzip();
    let hashing = RandomState::new();
    let dividing = async move {
        let mut objects = pin!(objects);
        while let Some(object) = objects.next().await {
            let part = usize::try_from(hashing.hash_one(&object) % PARTS).unwrap_or_default();
            // If the receiver is gone, the process is ending.
            let _ = queues[part].send(object).await;
        }
    };
    (dividing, parts)
}

/// Notifies a listener. If the receiver is gone, the process is ending.
fn tell<T>(listener: &UnboundedSender<T>, news: T) {
    let _ = listener.send(news);
}

/// Drops what a reconcile returns: reconciles log their own results.
async fn told<T>(_: T) {}

fn receive<T>(mut receiver: UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

fn waiting_for(store: &Store<Guarded>, key: &Key) -> Vec<ObjectRef<Guarded>> {
    let waits = |object: &Arc<Guarded>| execution::controller::waits_for(object, key);
    store.state().iter().filter(|object| waits(object)).map(|object| watch::reference(object.as_ref())).collect()
}

fn referring_to(store: &Store<Guarded>, workflow: &ObjectRef<inventory::Guarded>) -> Vec<ObjectRef<Guarded>> {
    let namespace = workflow.namespace.as_deref().unwrap_or_default();
    let refers = |object: &Arc<Guarded>| execution::controller::refers_to(object, namespace, &workflow.name);
    store.state().iter().filter(|object| refers(object)).map(|object| watch::reference(object.as_ref())).collect()
}

fn using(store: &Store<inventory::Guarded>, key: &Key) -> Vec<ObjectRef<inventory::Guarded>> {
    let uses = |object: &Arc<inventory::Guarded>| workflow::controller::uses(object, key);
    store.state().iter().filter(|object| uses(object)).map(|object| watch::reference(object.as_ref())).collect()
}

/// The UID of the namespace `kube-system`, which identifies the cluster. Waits until it can be read.
async fn cluster_id(client: &Client, health: &Health) -> String {
    let mut wait = watch::FIRST_LOOK;
    loop {
        let why = match apiserver::get_metadata::<Namespace>(client, None, "kube-system").await {
            Ok(Some(ObjectMeta { uid: Some(uid), .. })) => return uid,
            Ok(Some(_)) => "namespace kube-system has no UID".into(),
            Ok(None) => "there is no namespace kube-system".into(),
            Err(error) => format!("namespace kube-system cannot be read: {error}"),
        };
        health.waits(KUBERNETES, why);
        watch::rest(&mut wait).await;
    }
}

/// The pod's name, if there is one.
fn host_name() -> String {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "operator".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_always_goes_to_the_same_controller_and_all_of_them_get_some() {
        // Only the name and namespace may count: the rest of a reference differs with each version.
        let object = |n: usize| {
            let mut object = ObjectRef::<Workspace>::new(&format!("run-{}", n % 500)).within("team");
            object.extra.resource_version = Some(n.to_string());
            object
        };
        let (dividing, parts) = divided(stream::iter((0..1000).map(object)));
        let taking = join_all(parts.into_iter().map(async |mut part| {
            let mut taken = Vec::new();
            while let Some(object) = part.recv().await {
                taken.push(object);
            }
            taken
        }));
        let ((), parts) = futures::join!(dividing, taking);
        let mut all = HashSet::new();
        for part in parts {
            let count = part.len();
            let of_part: HashSet<_> = part.into_iter().collect();
            assert!(count > 0);
            assert_eq!(count, 2 * of_part.len(), "an object is in several parts");
            all.extend(of_part);
        }
        assert_eq!(all.len(), 500);
    }

    #[tokio::test]
    async fn changes_that_concern_thousands_wait_as_changes_until_a_controller_can_take_them() {
        let taken = std::cell::Cell::new(0);
        let all = stream::iter(0..100_000).map(|n| {
            taken.set(taken.get() + 1);
            ObjectRef::<Workspace>::new(&format!("run-{n}")).within("team")
        });
        let (dividing, _parts) = divided(all);
        assert!(tokio::time::timeout(Duration::from_secs(1), dividing).await.is_err(), "nobody reads");
        assert!(taken.get() <= usize::try_from(PARTS).unwrap() * QUEUED + 1, "{} are in memory", taken.get());
    }
}
