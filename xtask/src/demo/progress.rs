//! Watches resources, prints their changes, and waits for conditions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::core::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use mistral_workflows_operator::api::{Workflow, WorkflowExecution, Workspace, conditions};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Result;
use super::display::{self, Mark};

/// The last seen state by kind and name, such as `workflowexecution/greet`.
pub type Seen = BTreeMap<String, Row>;

/// The displayed state of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Whether the condition `Ready` is true.
    pub is_ready: bool,
    /// Whether it is an execution that has ended, successfully or not.
    pub has_ended: bool,
    /// The reason of the condition `Ready`.
    reason: String,
    /// The API's status word of a run.
    word: String,
    /// The message of the condition `Ready`.
    message: String,
}

impl Row {
    fn mark(&self) -> Mark {
        match (self.is_ready, self.has_ended) {
            (true, _) => Mark::Done,
            (false, true) => Mark::Failed,
            (false, false) => Mark::Pending,
        }
    }
}

/// A watch of the resources of a namespace, which prints each change. Dropping it ends the watch.
pub struct Progress {
    seen: watch::Receiver<Seen>,
    _tasks: JoinSet<()>,
}

impl Progress {
    /// Starts to watch and to print.
    pub fn watch(client: &Client, namespace: &str) -> Self {
        let (sender, seen) = watch::channel(Seen::new());
        let board = Arc::new(Board { began: Instant::now(), sender });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(Api::namespaced(client.clone(), namespace), Arc::clone(&board), of_workspace));
        tasks.spawn(follow(Api::namespaced(client.clone(), namespace), Arc::clone(&board), of_workflow));
        tasks.spawn(follow(Api::namespaced(client.clone(), namespace), board, of_execution));
        Self { seen, _tasks: tasks }
    }

    /// Waits until `done`. The error begins with `complaint` and then says what was seen instead.
    pub async fn until(&mut self, complaint: &str, limit: Duration, done: impl FnMut(&Seen) -> bool) -> Result<()> {
        if let Ok(Ok(_)) = tokio::time::timeout(limit, self.seen.wait_for(done)).await {
            return Ok(());
        }
        let mut error = format!("{complaint} within {} s. Last seen:", limit.as_secs());
        for (name, row) in &*self.seen.borrow() {
            let reason = if row.reason.is_empty() { "no condition Ready yet" } else { &row.reason };
            error += &format!("\n  {name}: {reason}. {}", row.message);
        }
        Err(error.into())
    }
}

/// Collects what the watches see.
struct Board {
    began: Instant,
    sender: watch::Sender<Seen>,
}

impl Board {
    fn put(&self, name: String, row: Row) {
        self.sender.send_modify(|seen| {
            if seen.get(&name) != Some(&row) {
                let reason = if row.reason.is_empty() { "created" } else { &row.reason };
                let line =
                    format!("{:>6.1} s  {name:<42} {reason:<20} {}", self.began.elapsed().as_secs_f64(), row.word);
                println!("{}", display::marked(&line, row.mark()));
                seen.insert(name, row);
            }
        });
    }
}

async fn follow<K>(api: Api<K>, board: Arc<Board>, show: fn(&K) -> Row)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&()).to_lowercase();
    let mut changes = pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    while let Some(change) = changes.next().await {
        match change {
            Ok(object) => board.put(format!("{kind}/{}", object.name_any()), show(&object)),
            // The watch retries. If that does not help, the waiting side times out.
            Err(error) => println!("The watch of {kind} resources was interrupted: {error}"),
        }
    }
}

fn of_workspace(workspace: &Workspace) -> Row {
    let status = workspace.status.clone().unwrap_or_default();
    of_conditions(&status.conditions)
}

fn of_workflow(workflow: &Workflow) -> Row {
    of_conditions(&workflow.status.clone().unwrap_or_default().conditions)
}

fn of_execution(execution: &WorkflowExecution) -> Row {
    let status = execution.status.clone().unwrap_or_default();
    let all = &status.conditions;
    Row {
        has_ended: conditions::is_true(all, conditions::COMPLETE) || conditions::is_true(all, conditions::FAILED),
        word: status.status.unwrap_or_default(),
        ..of_conditions(all)
    }
}

fn of_conditions(all: &[Condition]) -> Row {
    let ready = conditions::find(all, conditions::READY).cloned();
    let (reason, message) = ready.map(|ready| (ready.reason, ready.message)).unwrap_or_default();
    Row { is_ready: conditions::is_true(all, conditions::READY), reason, message, ..Row::default() }
}
