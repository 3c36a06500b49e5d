//! The simulator's state.

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

/// The workspace of all unlisted tokens.
pub(crate) const DEFAULT_WORKSPACE: &str = "default";

/// The state and its change notifications, shared by all connections.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Notifies waiting requests and streams after every change that is not due to time.
    pub(crate) changed: Notify,
    /// The number of open streams.
    pub(crate) streams: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Notify::new(), streams: AtomicUsize::new(0) }
    }

    /// Locks the state, even after another request panicked: any half-done change matters less than continuing.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The simulator's state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) workspaces: BTreeMap<String, Workspace>,
    pub(crate) tokens: Tokens,
    pub(crate) calls: Calls,
    pub(crate) faults: Faults,
    pub(crate) held: Held,
    pub(crate) hiding: Option<Hiding>,
    /// How often a request named a hidden execution.
    pub(crate) concealed: AtomicU64,
    pub(crate) switches: Switches,
    customer_id: Uuid,
    seeds: Vec<WorkflowSpec>,
}

impl State {
    /// A fresh state. Every workspace begins with the workflows of `seeds`, which must be valid.
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

    /// The workspace of this name with its ledger settled, and the context for endpoints. Creates the workspace on
    /// first use.
    pub(crate) fn open(&mut self, name: &str) -> (&mut Workspace, Context<'_>) {
        let context =
            Context { now: clock::now(), hiding: self.hiding, concealed: &self.concealed, switches: &self.switches };
        let workspace =
            self.workspaces.entry(name.to_owned()).or_insert_with(|| Workspace::new(self.customer_id, &self.seeds));
        workspace.books.settle(context.now);
        (workspace, context)
    }
}

/// Everything that an endpoint needs besides its workspace.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) hiding: Option<Hiding>,
    pub(crate) concealed: &'a AtomicU64,
    pub(crate) switches: &'a Switches,
}

#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) id: Uuid,
    pub(crate) customer_id: Uuid,
    /// The user who owns the workspace's API keys.
    pub(crate) user_id: Uuid,
    pub(crate) catalog: Catalog,
    pub(crate) books: Books,
}

impl Workspace {
    fn new(customer_id: Uuid, seeds: &[WorkflowSpec]) -> Self {
        let mut catalog = Catalog::default();
        for seed in seeds {
            // Cannot fail: the seeds were checked when the simulator started.
            let _ = catalog.register(seed.clone(), Reregistration::Keep);
        }
        Self { id: Uuid::new_v4(), customer_id, user_id: Uuid::new_v4(), catalog, books: Books::default() }
    }

    /// The name of the workspace in the workflow engine.
    pub(crate) fn namespace(&self) -> String {
        format!("{}:{}", self.customer_id, self.id)
    }

    /// Assigns waiting runs to workers that are alive now.
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

/// How long executions stay invisible after their start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hiding {
    /// Executions that started earlier stay visible.
    pub(crate) since: Timestamp,
    pub(crate) length: Duration,
}

impl Hiding {
    pub(crate) fn covers(self, started: Timestamp, now: Timestamp) -> bool {
        started >= self.since && now < clock::after(started, self.length)
    }
}

/// Maps tokens to workspaces.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    listed: HashMap<String, String>,
    revoked: HashSet<String>,
    /// Whether only listed tokens are admitted.
    only_listed: bool,
}

impl Tokens {
    /// Admits a token, even a revoked one.
    pub(crate) fn grant(&mut self, token: String, workspace: String) {
        self.revoked.remove(&token);
        self.listed.insert(token, workspace);
    }

    pub(crate) fn revoke(&mut self, token: String) {
        self.revoked.insert(token);
    }

    /// Refuses tokens that are not listed.
    pub(crate) fn admit_only_listed(&mut self) {
        self.only_listed = true;
    }

    pub(crate) fn is_refused(&self, token: &str) -> bool {
        self.revoked.contains(token) || (self.only_listed && !self.listed.contains_key(token))
    }

    /// The workspace of a token. A revoked token keeps its workspace, so that its refused calls are counted there.
    pub(crate) fn workspace(&self, token: &str) -> &str {
        self.listed.get(token).map_or(DEFAULT_WORKSPACE, |name| name)
    }
}
