//! Builds the controllers of all kinds and runs them for one term.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::store::Writer as StoreWriter;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::metrics::AllMetrics;
use super::scopes::Scope;
use super::triggers::{
    ExecutionTriggers, Notifiers, Triggers, WorkflowTriggers, WorkspaceTriggers, notify, receive, shards, triggers,
};
use crate::api::{Workspace, reasons};
use crate::execution::claim::unlisted::UnlistedClaims;
use crate::execution::finished::{self, mark::FINISHED};
use crate::execution::state::Instance;
use crate::execution::tracker::Tracker;
use crate::platform::apiserver;
use crate::platform::decoded::Decoded;
use crate::platform::events::{self, Writer};
use crate::platform::health::Health;
use crate::platform::leader::term::Term;
use crate::platform::requeue::Failures;
use crate::platform::status_writer::StatusWriter;
use crate::platform::watch;
use crate::workflow::discovery::Discovery;
use crate::workflow::drift::DriftDetector;
use crate::workflow::findings::Sweeps;
use crate::workspace::connections::{Connections, WorkspaceKey};
use crate::workspace::shared::Shared;
use crate::{execution, workflow, workspace};

/// How long reconciles in flight may take to end once the process is to stop. Pods get 30 s.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(25);
/// How often the memory of deleted resources is dropped.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What a process that leads works with.
pub struct Leader<'a> {
    pub config: &'a Config,
    pub client: Client,
    pub scopes: &'a [Scope],
    /// UID of the namespace `kube-system`.
    pub cluster: String,
    /// The name of this process.
    pub name: String,
    pub term: Term,
    pub health: &'a Health,
    pub metrics: AllMetrics,
}

/// What the controllers of one term consist of.
struct Controllers {
    shared: Shared,
    workspaces: Arc<workspace::controller::Context>,
    workflows: Arc<workflow::controller::Context>,
    executions: Arc<execution::controller::Context>,
    tracker: Arc<Tracker>,
    drift_detector: Arc<DriftDetector>,
    discovery: Arc<Discovery>,
}

/// Where the watches write what they see.
struct Stores {
    workspaces: StoreWriter<Decoded<Workspace>>,
    workflows: StoreWriter<workflow::Guarded>,
    executions: StoreWriter<execution::Guarded>,
}

impl Leader<'_> {
    /// Runs the controllers until the term's `stop`, then lets what is in flight end.
    pub async fn run(self) {
        let stop = self.term.stop.clone();
        let (notifiers, triggers) = triggers();
        let (controllers, stores, events) = self.build(&notifiers);
        controllers.measure(self.metrics.clone());
        let Triggers { workspaces, workflows, executions, sweeps } = triggers;
        let workspaces = controllers.reconcile_workspaces(workspaces);
        let workflows = controllers.reconcile_workflows(workflows, &notifiers);
        let executions = controllers.reconcile_executions(executions, self.scopes);
        let discovering = receive(sweeps).take_until(stop.cancelled()).for_each(|news| {
            controllers.discovery.take_up(news);
            std::future::ready(())
        });
        let (invite, guests) = unbounded_channel();
        let finished = finished::watch::follow(
            &controllers.executions,
            self.scopes,
            (|at| &at.listed.executions, |at| &at.listed.finished),
            invite,
        );
        let ended = CancellationToken::new();
        let reconciles = async {
            futures::join!(
                stop.run_until_cancelled(self.watch(stores, &notifiers, &controllers.executions, guests)),
                workspaces.collect::<()>(),
                workflows.collect::<()>(),
                executions,
                controllers.track_runs(),
                controllers.sweep_workflows(),
                discovering,
                controllers.forget(),
                stop.run_until_cancelled(finished),
            );
            ended.cancel();
        };
        let all = async { futures::join!(reconciles, events.run(ended.cancelled())) };
        tokio::select! {
            _ = all => tracing::info!("stopped"),
            () = shutdown_limit(&stop) => tracing::info!("stopped without waiting any longer; claims tell the next operator which calls were in flight"),
        }
    }

    /// Builds what the controllers consist of, and the writer of their Events.
    fn build(&self, notifiers: &Notifiers) -> (Controllers, Stores, Writer) {
        let instance = Instance { name: self.name.clone(), since: self.term.since, api_server_time: None };
        let (publisher, events) =
            events::publisher(self.client.clone(), instance.name.clone(), Arc::clone(&self.metrics.all));
        let (workspaces, workspace_writer) = watch::store();
        let (workflows, workflow_writer) = watch::store();
        let (executions, execution_writer) = watch::store();
        let publisher = Arc::new(publisher);
        let status_writer =
            StatusWriter::new(self.client.clone(), Arc::clone(&publisher), reasons::any::STATUS_CONTESTED);
        let shared = Shared {
            client: self.client.clone(),
            connections: Arc::new(Connections::new(notifiers.connection.to_vec(), notifiers.suspect.clone())),
            workspaces,
            workflows,
            executions,
            publisher,
            status_writer: Arc::new(status_writer),
            term: self.term.clone(),
            metrics: Arc::clone(&self.metrics.all),
            failures: Arc::new(Failures::default()),
        };
        let tracker = Arc::new(Tracker::new(notifiers.execution_woken.clone()));
        let drift_detector = Arc::new(DriftDetector::new(notifiers.workflow_woken.clone(), notifiers.swept.clone()));
        let discovery = Arc::new(Discovery::new(shared.clone()));
        let sweeps = Sweeps { drift_detector: Arc::clone(&drift_detector), discovery: Arc::clone(&discovery) };
        let settings = execution::controller::Settings {
            cluster: self.cluster.clone(),
            instance,
            unlisted: UnlistedClaims::from_now_on(
                self.scopes
                    .iter()
                    .flat_map(|scope| [scope.listed.executions.clone(), scope.listed.finished.clone()])
                    .collect(),
            ),
            labelled_inputs: self.config.input_secrets_need_label,
            metrics: self.metrics.executions.clone(),
        };
        let controllers = Controllers {
            workspaces: Arc::new(workspace::controller::Context::new(
                shared.clone(),
                Arc::new(sweeps),
                self.config.allow_base_urls.clone(),
                self.config.max_requests_per_second,
                self.metrics.workspaces.calls.clone(),
            )),
            workflows: Arc::new(workflow::controller::Context::new(
                shared.clone(),
                Arc::clone(&drift_detector),
                self.metrics.workflows.clone(),
            )),
            executions: Arc::new(execution::controller::Context::new(shared.clone(), Arc::clone(&tracker), settings)),
            shared,
            tracker,
            drift_detector,
            discovery,
        };
        let stores = Stores { workspaces: workspace_writer, workflows: workflow_writer, executions: execution_writer };
        (controllers, stores, events)
    }

    /// Keeps the stores as the API server has the objects, and wakes the controllers. Each kind is listed after the one
    /// that it refers to.
    async fn watch(
        &self,
        stores: Stores,
        notifiers: &Notifiers,
        executions: &execution::controller::Context,
        guests: UnboundedReceiver<watch::Guest<execution::Guarded>>,
    ) {
        let workspace_changed = |workspace: ObjectRef<Decoded<Workspace>>| {
            let key = WorkspaceKey {
                namespace: workspace.namespace.clone().unwrap_or_default(),
                name: workspace.name.clone(),
            };
            for listener in &notifiers.connection {
                notify(listener, key.clone());
            }
            notify(&notifiers.workspace, workspace);
        };
        let api_server = (&self.client, self.scopes, self.health);
        let unfinished = format!("!{FINISHED}");
        futures::join!(
            watch::run(
                api_server,
                None,
                |at| &at.served,
                |at| &at.listed.workspaces,
                |it| watch::trim_for_cache(it, |_| None, |_| false),
                stores.workspaces,
                workspace_changed,
            ),
            watch::run(
                api_server,
                None,
                |at| &at.listed.workspaces,
                |at| &at.listed.workflows,
                |it| watch::trim_for_cache(it, |_| None, |_| false),
                stores.workflows,
                |workflow| notify(&notifiers.workflow, workflow),
            ),
            watch::run(
                api_server,
                Some((&unfinished, guests)),
                |at| &at.listed.workflows,
                |at| &at.listed.executions,
                execution::cache::trim_for_cache,
                stores.executions,
                |execution| {
                    executions.watched(&execution);
                    notify(&notifiers.execution, execution);
                },
            ),
        );
    }
}

/// Ends when reconciles in flight have had their time to finish.
async fn shutdown_limit(stop: &CancellationToken) {
    stop.cancelled().await;
    tracing::info!("stopping; reconciles in flight finish first");
    tokio::time::sleep(SHUTDOWN_LIMIT).await;
}

impl Controllers {
    fn reconcile_workspaces(&self, triggers: WorkspaceTriggers) -> BoxStream<'static, ()> {
        let (shared, reconcile) = (&self.shared, workspace::controller::reconcile);
        controller(shared, &shared.workspaces, triggers.objects(), &self.workspaces, reconcile)
    }

    fn reconcile_workflows(&self, triggers: WorkflowTriggers, notifiers: &Notifiers) -> BoxStream<'static, ()> {
        let shared = &self.shared;
        let (objects, reconciled) = (triggers.objects(shared.workflows.clone()), notifiers.workflow_reconciled.clone());
        controller(shared, &shared.workflows, objects, &self.workflows, move |object, context| {
            notify(&reconciled, watch::reference(object.as_ref()));
            workflow::controller::reconcile(object, context)
        })
    }

    /// Reconciles executions once all namespaces have been listed or tried. In the end, waits for orphaned runs.
    fn reconcile_executions<'a>(
        &'a self,
        triggers: ExecutionTriggers,
        scopes: &'a [Scope],
    ) -> impl Future<Output = ()> + 'a {
        let shared = &self.shared;
        let (distributing, shards) = shards(triggers.objects(shared.executions.clone()));
        let controllers = stream::select_all(shards.into_iter().map(|mut shard| {
            let objects = stream::poll_fn(move |context| shard.poll_recv(context));
            let reconcile = execution::controller::reconcile;
            controller(shared, &shared.executions, objects, &self.executions, reconcile)
        }));
        let (stop, orphaned_runs) = (&shared.term.stop, &self.executions.orphaned_runs);
        async move {
            // Each reconcile may be about a run that another execution has claimed: see `Reservations`.
            stop.run_until_cancelled(join_all(scopes.iter().map(|scope| scope.is_tried(&scope.listed.executions))))
                .await;
            tracing::info!("watching");
            futures::join!(stop.run_until_cancelled(distributing), controllers.collect::<()>());
            orphaned_runs.close();
            orphaned_runs.wait().await;
        }
    }

    /// Has the metrics read what is known at each scrape.
    fn measure(&self, metrics: AllMetrics) {
        let AllMetrics { all, workspaces, workflows, executions } = metrics;
        let (executions_now, workspaces_now) = (self.shared.executions.clone(), self.shared.workspaces.clone());
        let (tracker, drift_detector, term) =
            (Arc::clone(&self.tracker), Arc::clone(&self.drift_detector), self.shared.term.clone());
        all.at_each_scrape(move |all| {
            executions.set_executions(executions_now.state().iter().map(|object| execution::metrics::labels(object)));
            let of_workspace = |object: &Decoded<Workspace>| match &object.0 {
                Ok(workspace) => workspace::status::state(workspace.status.as_ref()),
                Err(_) => ("Unknown", "Undecodable"),
            };
            workspaces.set_workspaces(workspaces_now.state().iter().map(|object| of_workspace(object)));
            workspaces.set_sweep_age("runs", tracker.longest_unseen());
            workspaces.set_sweep_age("workflows", drift_detector.age());
            workflows.set_overdue(drift_detector.overdue());
            all.set_leader(!term.is_over());
        });
    }

    /// Polls the runs that are in progress.
    fn track_runs(&self) -> impl Future<Output = ()> + use<> {
        let executions = self.shared.executions.clone();
        let exists = move |object: &ObjectRef<_>| executions.get(object).is_some();
        Arc::clone(&self.tracker).run(Arc::clone(&self.shared.connections), exists, self.shared.term.stop.clone())
    }

    /// Reads the lists of workflows.
    fn sweep_workflows(&self) -> impl Future<Output = ()> + use<> {
        let (workflows, discovery) = (self.shared.workflows.clone(), Arc::clone(&self.discovery));
        let exists = move |object: &ObjectRef<_>| workflows.get(object).is_some();
        let (connections, stop) = (Arc::clone(&self.shared.connections), self.shared.term.stop.clone());
        Arc::clone(&self.drift_detector).run(connections, exists, move || discovery.wanted(), stop)
    }

    /// Drops what is remembered about deleted resources, from time to time.
    async fn forget(&self) {
        let Shared { connections, workspaces, workflows, executions, failures, status_writer, term, .. } = &self.shared;
        while term.stop.run_until_cancelled(tokio::time::sleep(FORGET_EVERY)).await.is_some() {
            let uids: HashSet<String> = executions.state().iter().filter_map(|object| object.uid()).collect();
            self.executions.forget_all_but(|uid| uids.contains(uid));
            let uids: HashSet<String> = workflows.state().iter().filter_map(|object| object.uid()).collect();
            self.workflows.forget_all_but(|uid| uids.contains(uid));
            let exists =
                |key: &WorkspaceKey| workspaces.get(&ObjectRef::new(&key.name).within(&key.namespace)).is_some();
            self.workspaces.forget_all_but(exists);
            failures.forget();
            status_writer.forget();
            connections.gone_all_but(exists);
            connections.forget_all_but(exists);
            self.tracker.forget_all_but(exists);
        }
    }
}

/// Reconciles the objects of the store that the stream names. A failed reconcile is counted, logged and repeated.
///
/// After a list, the reconciles of all objects are created together. Each is boxed only when it is first polled, and most
/// end at once.
fn controller<K, C, F>(
    shared: &Shared,
    store: &Store<Decoded<K>>,
    objects: impl Stream<Item = ObjectRef<Decoded<K>>> + Send + 'static,
    context: &Arc<C>,
    reconcile: impl Fn(Arc<Decoded<K>>, Arc<C>) -> F + Clone + Send + Sync + 'static,
) -> BoxStream<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    C: Send + Sync + 'static,
    F: Future<Output = Result<Action, apiserver::Error>> + Send + 'static,
{
    let (metrics, failures) = (Arc::clone(&shared.metrics), Arc::clone(&shared.failures));
    let after = Arc::clone(&shared.failures);
    // No limit on reconciles, which wait for slow tenants: the limit on calls in flight with each key bounds the work.
    Controller::for_stream(stream::pending(), store.clone())
        .with_config(controller::Config::default().concurrency(0))
        .reconcile_on(objects)
        .graceful_shutdown_on(shared.term.stop.clone().cancelled_owned())
        .run(
            move |object, context| {
                let (metrics, failures, reconcile) = (Arc::clone(&metrics), Arc::clone(&failures), reconcile.clone());
                async move {
                    let reconcile = Box::pin(reconcile(Arc::clone(&object), context));
                    failures.of(object.as_ref(), metrics.measure(&object, reconcile)).await
                }
                .boxed()
            },
            move |object: Arc<Decoded<K>>, error, _| after.after(object.as_ref(), error),
            Arc::clone(context),
        )
        // Reconciles log their own results.
        .map(drop)
        .boxed()
}
