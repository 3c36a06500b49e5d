//! All that the simulator remembers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::books::Books;
use crate::calls::Calls;
use crate::catalog::{Catalog, Placement};
use crate::clock;
use crate::faults::Faults;
use crate::held::Held;
use crate::spec::WorkflowSpec;
use crate::switches::{Reregistration, Switches};

/// The workspace of every token that no other workspace has.
pub(crate) const DEFAULT_WORKSPACE: &str = "default";

/// The state and the news about it, shared by all connections.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes those who wait for a run to end or for events whenever something other than time may have brought them.
    pub(crate) changed: Notify,
    /// How many streams are open.
    pub(crate) streams: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Notify::new(), streams: AtomicUsize::new(0) }
    }

    /// The state. A panic of another request leaves nothing half done that would matter more than going on.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that the simulator remembers.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) workspaces: BTreeMap<String, Workspace>,
    pub(crate) tokens: Tokens,
    pub(crate) calls: Calls,
    pub(crate) faults: Faults,
    pub(crate) held: Held,
    pub(crate) hiding: Option<Hiding>,
    /// How often an execution was asked for and hidden.
    pub(crate) concealed: AtomicU64,
    pub(crate) switches: Switches,
    customer_id: Uuid,
    seeds: Vec<WorkflowSpec>,
}

impl State {
    /// A fresh state; every workspace begins with the workflows of `seeds`, which must be valid.
    pub(crate) fn new(tokens: Tokens, seeds: Vec<WorkflowSpec>, seed: u64) -> Self {
        Self {
            workspaces: BTreeMap::new(),
            tokens,
            calls: Calls::default(),
            faults: Faults::new(seed),
            held: Held::default(),
            hiding: None,
            concealed: AtomicU64::new(0),
            switches: Switches::default(),
            customer_id: Uuid::new_v4(),
            seeds,
        }
    }

    /// The workspace of that name, created when it is first spoken of, with its books settled; and what else an endpoint needs.
    pub(crate) fn open(&mut self, name: &str) -> (&mut Workspace, Context<'_>) {
        let context =
            Context { now: clock::now(), hiding: self.hiding, concealed: &self.concealed, switches: &self.switches };
        let workspace =
            self.workspaces.entry(name.to_owned()).or_insert_with(|| Workspace::new(self.customer_id, &self.seeds));
        workspace.books.settle(context.now);
        (workspace, context)
    }
}

/// What an endpoint needs besides its workspace.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) hiding: Option<Hiding>,
    pub(crate) concealed: &'a AtomicU64,
    pub(crate) switches: &'a Switches,
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) id: Uuid,
    pub(crate) customer_id: Uuid,
    /// The user that the workspace's API keys belong to.
    pub(crate) user_id: Uuid,
    pub(crate) catalog: Catalog,
    pub(crate) books: Books,
}

impl Workspace {
    fn new(customer_id: Uuid, seeds: &[WorkflowSpec]) -> Self {
        let mut catalog = Catalog::default();
        for seed in seeds {
            // Cannot fail: the seeds were tried when the simulator started.
            let _ = catalog.register(seed.clone(), Reregistration::Keep);
        }
        Self { id: Uuid::new_v4(), customer_id, user_id: Uuid::new_v4(), catalog, books: Books::default() }
    }

    /// The name of the workspace in the workflow engine.
    pub(crate) fn namespace(&self) -> String {
        format!("{}:{}", self.customer_id, self.id)
    }

    /// Hands the runs that wait for a worker to those that are alive now.
    pub(crate) fn serve_waiting(&mut self, now: Timestamp) {
        let waiting: Vec<_> = self
            .books
            .runs()
            .iter()
            .enumerate()
            .filter(|(_, run)| run.worker.is_none() && run.end.is_none() && !run.forgotten)
            .filter_map(|(index, run)| {
                let workflow = self.catalog.by_id(run.job.workflow_id)?;
                match workflow.place(run.job.deployment.as_deref()) {
                    Placement::Worker(worker) => Some((index, worker)),
                    _ => None,
                }
            })
            .collect();
        for (index, worker) in waiting {
            self.books.pick_up(index, worker, now);
        }
    }
}

/// For how long executions stay invisible after their start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hiding {
    /// Executions that are older than the order to hide stay visible.
    pub(crate) since: Timestamp,
    pub(crate) length: Duration,
}

impl Hiding {
    pub(crate) fn covers(self, started: Timestamp, now: Timestamp) -> bool {
        started >= self.since && now < clock::after(started, self.length)
    }
}

/// Which workspace a token opens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    listed: HashMap<String, String>,
    revoked: HashSet<String>,
}

impl Tokens {
    /// Lets a token in, also one that was revoked.
    pub(crate) fn grant(&mut self, token: String, workspace: String) {
        self.revoked.remove(&token);
        self.listed.insert(token, workspace);
    }

    pub(crate) fn revoke(&mut self, token: String) {
        self.revoked.insert(token);
    }

    pub(crate) fn is_revoked(&self, token: &str) -> bool {
        self.revoked.contains(token)
    }

    /// The workspace of a token; a revoked token still has one, so that its refused calls are counted there.
    pub(crate) fn workspace(&self, token: &str) -> &str {
        self.listed.get(token).map_or(DEFAULT_WORKSPACE, |name| name)
    }
}
