//! The process around the controllers: wiring, leader election, health, Events, shutdown.

pub mod crash;
pub mod election;
pub mod events;
pub mod health;
pub mod kubernetes;
pub mod lease;
pub mod limits;
pub mod metrics;
pub mod release;
pub mod retry;
pub mod sabotage;

use std::collections::HashSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::api::{Workflow, WorkflowExecution, Workspace};
use crate::execution;
use crate::execution::controller::Guarded;
use crate::execution::observed::Instance;
use crate::execution::tracker::Tracker;
use crate::workflow;
use crate::workflow::discovery::Discovery;
use crate::workflow::inventory::{self, Inventory};
use crate::workspace;
use crate::workspace::connections::{Connections, Key};
use election::{Election, LeaseConfig};
use health::Health;
use lease::Term;
use metrics::Metrics;

/// How long passes that are under way may take to end once the process is to stop. Pods get 30 s.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(25);
/// How often what is remembered of resources that are gone is dropped.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// The longest rest between two looks at what is waited for at the start.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// What readiness waits for first.
const KUBERNETES: &str = "the Kubernetes API";
/// The kinds that are watched.
const KINDS: [&str; 3] = ["Workspace", "Workflow", "WorkflowExecution"];

/// What the operator is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses of the API that Workspaces may name.
    pub allow_base_urls: Vec<Url>,
    /// Calls a second that are made with one API key at most.
    pub max_requests_per_second: u32,
    /// The namespace to watch; all of them if none.
    pub namespace: Option<String>,
    /// Where health and readiness are answered; nowhere if none.
    pub listen: Option<SocketAddr>,
    /// The Lease by which one of several operators is elected; there is no election if none.
    pub lease: Option<LeaseConfig>,
}

/// Why the operator could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The health server could not listen.
    #[error("cannot listen on {address} for health checks; give another --listen address: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Another operator may act by now.
    #[error(
        "the Lease {lease} is no longer this process's: {reason}; it ends, to do nothing more, and may be started anew"
    )]
    Lost {
        /// Namespace and name.
        lease: String,
        /// Why.
        reason: String,
    },
}

/// Runs the controllers until `stop`, then lets what is under way come to its end.
///
/// # Errors
/// See [`Error`]. A Kubernetes API that is down, or CRDs that are missing, are waited for.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> Result<(), Error> {
    let health = Arc::new(Health::default());
    health.wait_for([KUBERNETES]);
    // From the beginning: a moment without anything to wait for would be taken for readiness.
    health.wait_for(config.lease.is_some().then_some(election::LEASE));
    let metrics = Arc::new(Metrics::default());
    if let Some(address) = config.listen {
        let listener =
            tokio::net::TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        tokio::spawn(health::serve(listener, Arc::clone(&health), Arc::clone(&metrics)));
    }
    let (name, since) = (format!("{}-{}", host_name(), Uuid::new_v4().simple()), Timestamp::now());
    tracing::info!(instance = name, version = env!("CARGO_PKG_VERSION"), namespace = config.namespace, "starting");
    let prepare = async {
        let cluster = cluster_id(&client, &health).await;
        health.wait_for(KINDS.map(crd));
        health.done(KUBERNETES);
        futures::join!(
            served::<Workspace>(&client, &config, &health),
            served::<Workflow>(&client, &config, &health),
            served::<WorkflowExecution>(&client, &config, &health),
        );
        cluster
    };
    let Some(cluster) = stop.run_until_cancelled(prepare).await else { return Ok(()) };

    let Some(lease) = config.lease.clone() else {
        tracing::info!("there is no election; let only one operator run");
        let term = Term::unlimited(stop, since);
        operate(&config, client, cluster, name, &term, &health, &metrics).await;
        return Ok(());
    };
    let mut election = Election::new(client.clone(), lease.clone(), name.clone());
    let Some(term) = election.win(&stop, &health).await else { return Ok(()) };
    // A task of its own: work on many resources must not keep it from renewing in time. If it ends, however it
    // does, so does all work, in the midst of it.
    let ended = CancellationToken::new();
    let mut keeping = tokio::spawn(election.keep(term.clone(), ended.clone()));
    let kept = tokio::select! {
        kept = &mut keeping => kept,
        () = operate(&config, client, cluster, name, &term, &health, &metrics) => {
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

/// Runs the controllers until the term's `stop`, then lets what is under way come to its end.
async fn operate(
    config: &Config,
    client: Client,
    cluster: String,
    name: String,
    term: &Term,
    health: &Health,
    metrics: &Arc<Metrics>,
) {
    health.wait_for(KINDS.map(list));
    health.done(election::LEASE);
    health.leads();
    let stop = &term.stop;
    let instance = Instance { name, since: term.since };
    let (changed, changes) = unbounded_channel();
    let (changed_too, workflow_changes) = unbounded_channel();
    let (suspect, suspects) = unbounded_channel();
    let (wake, woken) = unbounded_channel();
    let (wake_workflow, woken_workflows) = unbounded_channel();
    let connections = Arc::new(Connections::new(vec![changed, changed_too], suspect));
    let (publisher, writer) = events::publisher(client.clone(), instance.name.clone(), Arc::clone(metrics));
    let publisher = Arc::new(publisher);
    let tracker = Arc::new(Tracker::new(wake));
    let (swept, sweeps) = unbounded_channel();
    let inventory = Arc::new(Inventory::new(wake_workflow, swept));

    let workspaces = watch::<DeserializeGuard<Workspace>>(&client, config);
    let workspace_store = workspaces.store();
    let workspace_context = Arc::new(workspace::controller::Context::new(
        client.clone(),
        Arc::clone(&connections),
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
                let pass = workspace::controller::reconcile(Arc::clone(&object), Arc::clone(&context));
                context.metrics.pass(&object, pass).await
            }
            .boxed()
        },
        |_, error, _| kubernetes::after_error(error),
        Arc::clone(&workspace_context),
    );

    let workflows = watch::<inventory::Guarded>(&client, config);
    let workflow_store = workflows.store();
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
    let (of_changes, of_workspaces) = (workflow_store.clone(), workflow_store.clone());
    let (passed, passes_of_workflows) = unbounded_channel();
    let workflows = workflows
        .reconcile_on(receive(woken_workflows))
        .reconcile_on(receive(workflow_changes).flat_map(move |key| stream::iter(using(&of_changes, &key))))
        .watches(api::<DeserializeGuard<Workspace>>(&client, config), kubernetes::watching(), move |workspace| {
            let key = Key { namespace: workspace.namespace().unwrap_or_default(), name: workspace.name_any() };
            using(&of_workspaces, &key)
        })
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            move |object, context| {
                // By now the store has what the executions wait for, which another watch could not promise.
                let _ = passed.send(ObjectRef::from_obj(object.as_ref()));
                async move {
                    let pass = workflow::controller::reconcile(Arc::clone(&object), Arc::clone(&context));
                    context.metrics.pass(&object, pass).await
                }
                .boxed()
            },
            |_, error, _| kubernetes::after_error(error),
            Arc::clone(&workflow_context),
        );

    let discovery = Arc::new(Discovery::new(
        client.clone(),
        workspace_store.clone(),
        workflow_store.clone(),
        Arc::clone(&publisher),
        term.clone(),
    ));

    let executions = watch::<Guarded>(&client, config);
    let execution_store = executions.store();
    let execution_context = Arc::new(execution::controller::Context::new(
        client.clone(),
        cluster,
        instance,
        Arc::clone(&connections),
        execution_store.clone(),
        workspace_store.clone(),
        workflow_store.clone(),
        Arc::clone(&tracker),
        publisher,
        term.clone(),
        Arc::clone(metrics),
    ));
    let (of_changes, of_workspaces) = (execution_store.clone(), execution_store.clone());
    let of_workflows = execution_store.clone();
    let executions = executions
        .reconcile_on(receive(woken))
        .reconcile_on(receive(changes).flat_map(move |key| stream::iter(waiting_for(&of_changes, &key))))
        .reconcile_on(
            receive(passes_of_workflows).flat_map(move |workflow| stream::iter(referring_to(&of_workflows, &workflow))),
        )
        .watches(api::<DeserializeGuard<Workspace>>(&client, config), kubernetes::watching(), move |workspace| {
            let key = Key { namespace: workspace.namespace().unwrap_or_default(), name: workspace.name_any() };
            waiting_for(&of_workspaces, &key)
        })
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            |object, context| {
                async move {
                    let pass = execution::controller::reconcile(Arc::clone(&object), Arc::clone(&context));
                    context.metrics.pass(&object, pass).await
                }
                .boxed()
            },
            |_, error, _| kubernetes::after_error(error),
            Arc::clone(&execution_context),
        );

    let (executions_now, workspaces_now) = (execution_store.clone(), workspace_store.clone());
    let (tracker_now, inventory_now, term_now) = (Arc::clone(&tracker), Arc::clone(&inventory), term.clone());
    metrics.at_each_scrape(move |metrics| {
        metrics.set_executions(executions_now.state().iter().map(|object| execution::facts::state(object)));
        let of_workspace = |object: &DeserializeGuard<Workspace>| match &object.0 {
            Ok(workspace) => workspace::plan::state(workspace.status.as_ref()),
            Err(_) => ("Unknown", "Undecodable"),
        };
        metrics.set_workspaces(workspaces_now.state().iter().map(|object| of_workspace(object)));
        metrics.set_sweep_age("runs", tracker_now.longest_unseen());
        metrics.set_sweep_age("workflows", inventory_now.age());
        metrics.set_leader(!term_now.is_over());
    });

    // These run for as long as the process does: if one of them dies, so does the process.
    let exists = execution_store.clone();
    let tracking = tracker.run(Arc::clone(&connections), move |object| exists.get(object).is_some(), stop.clone());
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
        }
    };

    let ready = async {
        // Without the Workspaces, every execution would seem to lack its own.
        let _ = workspace_store.wait_until_ready().await;
        health.done(&list("Workspace"));
        let executions = async {
            // Nor would it do to take a Workflow that is not listed yet for one that does not exist.
            let _ = workflow_store.wait_until_ready().await;
            health.done(&list("Workflow"));
            report(executions, "WorkflowExecution").await;
        };
        let listed = async {
            let _ = execution_store.wait_until_ready().await;
            health.done(&list("WorkflowExecution"));
            tracing::info!("watching");
        };
        futures::join!(report(workflows, "Workflow"), executions, listed);
    };
    let ended = CancellationToken::new();
    let passes = async {
        futures::join!(report(workspaces, "Workspace"), ready, tracking, sweeping, discovering, forgetting);
        ended.cancel();
    };
    let all = async { futures::join!(passes, writer.run(ended.cancelled())) };
    let limit = async {
        stop.cancelled().await;
        if !health.is_ready() {
            // Nothing has begun, and a list that does not come would be waited for.
            return;
        }
        tracing::info!("stopping; what is under way comes to its end first");
        tokio::time::sleep(SHUTDOWN_LIMIT).await;
    };
    tokio::select! {
        _ = all => tracing::info!("stopped"),
        () = limit => tracing::info!("stopped without waiting any longer; claims tell the next operator of calls under way"),
    }
}

fn api<K>(client: &Client, config: &Config) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match &config.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn watch<K>(client: &Client, config: &Config) -> Controller<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    // Passes wait for slow tenants; what bounds the work is the calls that may be under way with each key.
    Controller::new(api(client, config), kubernetes::watching())
        .with_config(controller::Config::default().concurrency(0))
}

fn receive<T>(mut receiver: UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

fn waiting_for(store: &Store<Guarded>, key: &Key) -> Vec<ObjectRef<Guarded>> {
    let waits = |object: &Arc<Guarded>| execution::controller::waits_for(object, key);
    store.state().iter().filter(|object| waits(object)).map(|object| ObjectRef::from_obj(object.as_ref())).collect()
}

fn referring_to(store: &Store<Guarded>, workflow: &ObjectRef<inventory::Guarded>) -> Vec<ObjectRef<Guarded>> {
    let namespace = workflow.namespace.as_deref().unwrap_or_default();
    let refers = |object: &Arc<Guarded>| execution::controller::refers_to(object, namespace, &workflow.name);
    store.state().iter().filter(|object| refers(object)).map(|object| ObjectRef::from_obj(object.as_ref())).collect()
}

fn using(store: &Store<inventory::Guarded>, key: &Key) -> Vec<ObjectRef<inventory::Guarded>> {
    let uses = |object: &Arc<inventory::Guarded>| workflow::controller::uses(object, key);
    store.state().iter().filter(|object| uses(object)).map(|object| ObjectRef::from_obj(object.as_ref())).collect()
}

/// Drives a controller to its end. What passes return is theirs to log; what is left is the watch, whose trouble is
/// told once and not with each try.
async fn report<K, E>(
    passes: impl Stream<Item = Result<(ObjectRef<K>, Action), controller::Error<E, watcher::Error>>>,
    kind: &str,
) where
    K: Resource,
    E: std::error::Error + 'static,
{
    let mut told = String::new();
    let mut passes = pin!(passes);
    while let Some(pass) = passes.next().await {
        match pass {
            Ok(_) => told.clear(),
            Err(controller::Error::QueueError(error)) if error.to_string() != told => {
                told = error.to_string();
                tracing::warn!(error = told, "watching for {kind}s met with trouble and goes on");
            }
            Err(_) => {}
        }
    }
}

/// What readiness calls the CRD of a kind.
fn crd(kind: &str) -> String {
    format!("the CRD {}s.workflows.mistral.ai", kind.to_lowercase())
}

/// What readiness calls the watch of a kind.
fn list(kind: &str) -> String {
    format!("the list of {kind}s")
}

/// Waits until resources of a kind can be listed, and says what stands in the way.
async fn served<K>(client: &Client, config: &Config, health: &Health)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let (api, one) = (api::<K>(client, config), ListParams::default().limit(1));
    let mut wait = Duration::from_secs(1);
    let what = crd(&K::kind(&()));
    loop {
        let why = match kubernetes::call(api.list_metadata(&one)).await {
            Ok(_) => return health.done(&what),
            Err(error) if error.is_not_found() => {
                "it is missing; apply what `mistral-workflows-operator crds` prints".into()
            }
            Err(error) if error.is_forbidden() => {
                format!("the operator's account may not list it; grant what the README lists: {error}")
            }
            Err(error) => error.to_string(),
        };
        health.waits(&what, why);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN);
    }
}

/// UID of the namespace `kube-system`, by which clusters are told apart. Waits for it.
async fn cluster_id(client: &Client, health: &Health) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut wait = Duration::from_secs(1);
    loop {
        let why = match kubernetes::call(namespaces.get("kube-system")).await {
            Ok(Namespace { metadata: ObjectMeta { uid: Some(uid), .. }, .. }) => return uid,
            Ok(_) => "namespace kube-system has no UID".into(),
            Err(error) => format!("namespace kube-system cannot be read: {error}"),
        };
        health.waits(KUBERNETES, why);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN);
    }
}

/// The pod's name, where there is one.
fn host_name() -> String {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "operator".into())
}
