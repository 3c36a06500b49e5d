//! Who wakes whom: what makes the operator reconcile an object besides a change of the object itself.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;

use futures::{Stream, StreamExt, stream};
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};

use crate::api::{Workflow, WorkflowExecution, Workspace};
use crate::platform::decoded::Decoded;
use crate::platform::watch;
use crate::workflow::drift::News;
use crate::workspace::connections::WorkspaceKey;
use crate::{execution, workflow};

type WorkspaceRef = ObjectRef<Decoded<Workspace>>;
type WorkflowRef = ObjectRef<Decoded<Workflow>>;
type ExecutionRef = ObjectRef<Decoded<WorkflowExecution>>;

/// Controllers that share the executions: see [`shards`].
const SHARDS: u64 = 16;
/// Objects that may queue for each of these controllers.
const SHARD_QUEUE: usize = 64;

/// Where those who wake somebody send what they know.
pub struct Notifiers {
    /// The watch saw a change of this Workspace.
    pub workspace: UnboundedSender<WorkspaceRef>,
    /// The watch saw a change of this Workflow.
    pub workflow: UnboundedSender<WorkflowRef>,
    /// The watch saw a change of this execution.
    pub execution: UnboundedSender<ExecutionRef>,
    /// The connection of this Workspace appeared, changed or went, for Workflows and for executions.
    pub connection: [UnboundedSender<WorkspaceKey>; 2],
    /// A call has cast doubt on the key of this Workspace.
    pub suspect: UnboundedSender<WorkspaceKey>,
    /// A sweep found this workflow changed at Mistral, or a permit for its call came.
    pub workflow_woken: UnboundedSender<WorkflowRef>,
    /// A sweep found the run of this execution changed, or a permit for its call came.
    pub execution_woken: UnboundedSender<ExecutionRef>,
    /// This Workflow is being reconciled, so the store has what its executions wait for. Their own watch could not
    /// promise that.
    pub workflow_reconciled: UnboundedSender<WorkflowRef>,
    /// A sweep read all workflows of a Mistral workspace.
    pub swept: UnboundedSender<News>,
}

/// What wakes Workspaces.
pub struct WorkspaceTriggers {
    changed: UnboundedReceiver<WorkspaceRef>,
    suspect: UnboundedReceiver<WorkspaceKey>,
}

/// What wakes Workflows.
pub struct WorkflowTriggers {
    changed: UnboundedReceiver<WorkflowRef>,
    woken: UnboundedReceiver<WorkflowRef>,
    connection: UnboundedReceiver<WorkspaceKey>,
}

/// What wakes executions.
pub struct ExecutionTriggers {
    changed: UnboundedReceiver<ExecutionRef>,
    woken: UnboundedReceiver<ExecutionRef>,
    connection: UnboundedReceiver<WorkspaceKey>,
    workflow_reconciled: UnboundedReceiver<WorkflowRef>,
}

/// The triggers of all kinds, and what discovery takes up.
pub struct Triggers {
    pub workspaces: WorkspaceTriggers,
    pub workflows: WorkflowTriggers,
    pub executions: ExecutionTriggers,
    pub sweeps: UnboundedReceiver<News>,
}

/// Both ends of all triggers.
pub fn triggers() -> (Notifiers, Triggers) {
    let (workspace, workspace_changed) = unbounded_channel();
    let (workflow, workflow_changed) = unbounded_channel();
    let (execution, execution_changed) = unbounded_channel();
    let (of_workflows, workflow_connection) = unbounded_channel();
    let (of_executions, execution_connection) = unbounded_channel();
    let (suspect, suspected) = unbounded_channel();
    let (workflow_woken, woken_workflows) = unbounded_channel();
    let (execution_woken, woken_executions) = unbounded_channel();
    let (workflow_reconciled, reconciled_workflows) = unbounded_channel();
    let (swept, sweeps) = unbounded_channel();
    let notifiers = Notifiers {
        workspace,
        workflow,
        execution,
        connection: [of_workflows, of_executions],
        suspect,
        workflow_woken,
        execution_woken,
        workflow_reconciled,
        swept,
    };
    let triggers = Triggers {
        workspaces: WorkspaceTriggers { changed: workspace_changed, suspect: suspected },
        workflows: WorkflowTriggers {
            changed: workflow_changed,
            woken: woken_workflows,
            connection: workflow_connection,
        },
        executions: ExecutionTriggers {
            changed: execution_changed,
            woken: woken_executions,
            connection: execution_connection,
            workflow_reconciled: reconciled_workflows,
        },
        sweeps,
    };
    (notifiers, triggers)
}

impl WorkspaceTriggers {
    /// The Workspaces to reconcile.
    pub fn objects(self) -> impl Stream<Item = WorkspaceRef> + Send + 'static {
        let suspected = receive(self.suspect).map(|key: WorkspaceKey| ObjectRef::new(&key.name).within(&key.namespace));
        stream::select(receive(self.changed), suspected)
    }
}

impl WorkflowTriggers {
    /// The Workflows to reconcile.
    pub fn objects(self, store: Store<Decoded<Workflow>>) -> impl Stream<Item = WorkflowRef> + Send + 'static {
        let of_connection = receive(self.connection)
            .flat_map(move |key| stream::iter(those(&store, |object| workflow::controller::uses(object, &key))));
        stream::select_all([receive(self.changed).boxed(), receive(self.woken).boxed(), of_connection.boxed()])
    }
}

impl ExecutionTriggers {
    /// The executions to reconcile.
    pub fn objects(
        self,
        store: Store<Decoded<WorkflowExecution>>,
    ) -> impl Stream<Item = ExecutionRef> + Send + 'static {
        let also = store.clone();
        let of_connection = receive(self.connection)
            .flat_map(move |key| stream::iter(those(&store, |object| execution::controller::waits_for(object, &key))));
        let of_workflow = receive(self.workflow_reconciled).flat_map(move |workflow| {
            let namespace = workflow.namespace.as_deref().unwrap_or_default();
            let refers = |object: &_| execution::controller::refers_to(object, namespace, &workflow.name);
            stream::iter(those(&also, refers))
        });
        stream::select_all([
            receive(self.woken).boxed(),
            receive(self.changed).boxed(),
            of_connection.boxed(),
            of_workflow.boxed(),
        ])
    }
}

fn those<K>(store: &Store<K>, concerned: impl Fn(&K) -> bool) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let objects = store.state();
    objects.iter().filter(|object| concerned(object)).map(|object| watch::reference(object.as_ref())).collect()
}

/// Notifies a listener. If the receiver is gone, the process is ending.
pub fn notify<T>(listener: &UnboundedSender<T>, news: T) {
    let _ = listener.send(news);
}

/// What a channel receives, as a stream.
pub fn receive<T>(mut receiver: UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// Distributes objects over several controllers. The same object always goes to the same controller.
///
/// Whenever one reconcile makes progress, kube's controller visits each reconcile in flight, and each object that waits
/// for its own reconcile to end. There may be thousands of executions in this state: those whose runs may end in a
/// moment, or whose API server is slow.
///
/// The queues are short. A change of a Workspace concerns all its executions, and many such changes should wait as
/// changes, not as thousands of objects each.
pub fn shards<K>(objects: impl Stream<Item = ObjectRef<K>>) -> (impl Future<Output = ()>, Vec<Receiver<ObjectRef<K>>>)
where
    K: Resource<DynamicType = ()>,
{
    let (queues, shards): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| channel(SHARD_QUEUE)).unzip();
    let hashing = RandomState::new();
    let distributing = async move {
        let mut objects = pin!(objects);
        while let Some(object) = objects.next().await {
            let shard = usize::try_from(hashing.hash_one(&object) % SHARDS).unwrap_or_default();
            // If the receiver is gone, the process is ending.
            let _ = queues[shard].send(object).await;
        }
    };
    (distributing, shards)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn an_object_always_goes_to_the_same_controller_and_all_of_them_get_some() {
        // Only the name and namespace may count: the rest of a reference differs with each version.
        let object = |n: usize| {
            let mut object = ObjectRef::<Workspace>::new(&format!("run-{}", n % 500)).within("team");
            object.extra.resource_version = Some(n.to_string());
            object
        };
        let (distributing, shards) = shards(stream::iter((0..1000).map(object)));
        let taking = join_all(shards.into_iter().map(async |mut shard| {
            let mut taken = Vec::new();
            while let Some(object) = shard.recv().await {
                taken.push(object);
            }
            taken
        }));
        let ((), shards) = futures::join!(distributing, taking);
        let mut all = HashSet::new();
        for shard in shards {
            let count = shard.len();
            let of_shard: HashSet<_> = shard.into_iter().collect();
            assert!(count > 0);
            assert_eq!(count, 2 * of_shard.len(), "an object is in several shards");
            all.extend(of_shard);
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
        let (distributing, _shards) = shards(all);
        assert!(tokio::time::timeout(Duration::from_secs(1), distributing).await.is_err(), "nobody reads");
        assert!(taken.get() <= usize::try_from(SHARDS).unwrap() * SHARD_QUEUE + 1, "{} are in memory", taken.get());
    }
}
