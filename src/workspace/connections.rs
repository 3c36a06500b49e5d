//! The connections in use. The Workspace controller maintains them, and the other controllers read them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::sync::mpsc::UnboundedSender;
use url::Url;

use crate::answer_memory::Room;
use crate::api::conditions::Progress;
use crate::mistral::Client;
use crate::sync;
use crate::throttle::{Budget, Permit, Priority};

/// How long a connection may still stop runs after its Workspace or Secret is gone.
const STOPS_FOR: Duration = Duration::from_secs(600);

/// Namespace and name of a Workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkspaceKey {
    pub namespace: String,
    pub name: String,
}

impl WorkspaceKey {
    /// The flow of its calls. The flows of all Workspaces with the same API key are served in turn.
    pub fn flow(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A connection that has been checked.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Calls the API without a permit: callers have to take one.
    client: Client,
    /// Scheme, host and port.
    pub origin: String,
    /// The Mistral workspace, if the API reports it.
    pub workspace_id: Option<String>,
    /// How often to detect changes that were made at the API.
    pub resync: Duration,
    /// Unique for each connection that was made.
    pub epoch: u64,
    /// Limits the rate of calls and the calls in flight, over all users of the same key.
    pub budget: Arc<Budget>,
    /// Name of the Secret that holds the key.
    pub secret: String,
}

impl Connection {
    /// Makes a connection with an epoch of its own.
    pub fn new(
        client: Client,
        budget: Arc<Budget>,
        origin: String,
        workspace_id: Option<String>,
        resync: Duration,
        secret: String,
    ) -> Self {
        static EPOCH: AtomicU64 = AtomicU64::new(0);
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        Self { client, origin, workspace_id, resync, epoch, budget, secret }
    }

    /// The memory limit for long responses and inputs of this key.
    pub fn room(&self) -> &Room {
        self.client.room()
    }

    /// A client that makes all its calls with this permit.
    pub fn with_permit(&self, permit: Arc<Permit>) -> Client {
        self.client.clone().with_permit(permit)
    }

    /// A client for tasks of this Workspace: each of its calls waits for a permit of its own.
    pub fn waiting(&self, priority: Priority, key: &WorkspaceKey) -> Client {
        self.waiting_in(priority, key.flow())
    }

    /// The same in another flow: for calls on behalf of several Workspaces.
    pub fn waiting_in(&self, priority: Priority, flow: String) -> Client {
        self.client.clone().waiting(Arc::clone(&self.budget), priority, flow)
    }

    /// Whether `other` calls the same address with the same key.
    pub fn is_as(&self, other: &Self) -> bool {
        self.client.is_as(&other.client)
    }

    /// Whether this connection calls this address with this key.
    pub fn uses(&self, address: &Url, token: &SecretString) -> bool {
        self.client.uses(address, token)
    }
}

/// What may be done with a Workspace.
#[derive(Clone, Debug)]
pub enum State {
    /// Everything is allowed.
    Ready(Connection),
    /// No new work is allowed: why, and whether this may pass without intervention. With a connection, runs may still
    /// be stopped.
    NotReady(String, Progress, Option<Connection>),
}

#[derive(Debug)]
pub struct Connections {
    entries: Mutex<HashMap<WorkspaceKey, Entry>>,
    suspects: Mutex<HashSet<WorkspaceKey>>,
    changed: Vec<UnboundedSender<WorkspaceKey>>,
    suspect: UnboundedSender<WorkspaceKey>,
}

#[derive(Debug)]
struct Entry {
    /// UID of the Workspace: a Workspace created again under the same name is a different one.
    uid: String,
    state: State,
    since: Instant,
}

impl Connections {
    /// Starts empty. `changed` receive each Workspace whose connection others may have waited for, `suspect` each
    /// Workspace whose connection had trouble.
    pub fn new(changed: Vec<UnboundedSender<WorkspaceKey>>, suspect: UnboundedSender<WorkspaceKey>) -> Self {
        Self { entries: Mutex::default(), suspects: Mutex::default(), changed, suspect }
    }

    /// What may be done with this Workspace; `None` if it has not been checked yet.
    pub fn get(&self, key: &WorkspaceKey) -> Option<State> {
        self.lock().get(key).map(|entry| entry.state.clone())
    }

    /// Those of these Workspaces that can be used, with their connections.
    pub fn ready_among<'a>(&self, keys: impl Iterator<Item = &'a WorkspaceKey>) -> Vec<(WorkspaceKey, Connection)> {
        let entries = self.lock();
        keys.filter_map(|key| match entries.get(key)?.state {
            State::Ready(ref live) => Some((key.clone(), live.clone())),
            State::NotReady(..) => None,
        })
        .collect()
    }

    /// Like `get`, but only for the Workspace with this UID.
    pub fn of(&self, key: &WorkspaceKey, uid: &str) -> Option<State> {
        self.lock().get(key).filter(|entry| entry.uid == uid).map(|entry| entry.state.clone())
    }

    /// A connection for stopping runs: the current one, or one that was good recently.
    pub fn for_stopping(&self, key: &WorkspaceKey) -> Option<Connection> {
        match self.lock().get(key) {
            Some(Entry { state: State::Ready(live), .. }) => Some(live.clone()),
            Some(Entry { state: State::NotReady(_, _, live), since, .. }) if since.elapsed() < STOPS_FOR => {
                live.clone()
            }
            Some(_) | None => None,
        }
    }

    /// A Workspace of this namespace whose connection may stop runs and is `wanted`.
    pub fn stopper_in(&self, namespace: &str, wanted: impl Fn(&Connection) -> bool) -> Option<WorkspaceKey> {
        let keys: Vec<WorkspaceKey> = self.lock().keys().filter(|key| key.namespace == namespace).cloned().collect();
        keys.into_iter().find(|key| self.for_stopping(key).is_some_and(|live| wanted(&live)))
    }

    /// Whether this Workspace's calls, if it may make any, use this budget.
    pub fn calls_from(&self, key: &WorkspaceKey, budget: u64) -> bool {
        self.for_stopping(key).is_some_and(|live| live.budget.id() == budget)
    }

    /// Records that the Workspace can be used.
    pub fn ready(&self, key: &WorkspaceKey, uid: &str, live: Connection) {
        self.set(key, uid, State::Ready(live));
    }

    /// Records that the Workspace cannot be used. With `may_stop`, its last good connection may still stop runs.
    pub fn not_ready(&self, key: &WorkspaceKey, uid: &str, why: String, wait: Progress, may_stop: bool) {
        let before = self.get(key);
        let last = match before {
            Some(State::NotReady(old, waited, _)) if old == why && waited == wait && self.of(key, uid).is_some() => {
                return;
            }
            Some(State::Ready(live)) if may_stop => Some(live),
            Some(State::NotReady(_, _, live)) if may_stop => live,
            Some(_) | None => None,
        };
        self.set(key, uid, State::NotReady(why, wait, last));
    }

    /// Records that the Workspace no longer exists. Its connection takes no new work.
    pub fn gone(&self, key: &WorkspaceKey) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key)
            && let State::Ready(live) = &entry.state
        {
            let state = State::NotReady("there is no such Workspace".into(), Progress::Stalled, Some(live.clone()));
            *entry = Entry { uid: entry.uid.clone(), state, since: Instant::now() };
            drop(entries);
            self.tell(key);
        }
    }

    /// Records that only these Workspaces exist, and notifies the listeners of each that is newly gone.
    pub fn gone_all_but(&self, exists: impl Fn(&WorkspaceKey) -> bool) {
        let missing: Vec<WorkspaceKey> = self.lock().keys().filter(|key| !exists(key)).cloned().collect();
        missing.iter().for_each(|key| self.gone(key));
    }

    /// Reports trouble with this connection, so that it is checked soon.
    pub fn suspect(&self, key: &WorkspaceKey) {
        if self.suspects().insert(key.clone()) {
            // A receiver that is gone means that the process is ending.
            let _ = self.suspect.send(key.clone());
        }
    }

    /// Requests a reconcile: there is news of the Workspace that its status does not show yet.
    pub fn look_again(&self, key: &WorkspaceKey) {
        // A receiver that is gone means that the process is ending.
        let _ = self.suspect.send(key.clone());
    }

    /// Whether trouble with this connection was reported since it was last checked.
    pub fn is_suspect(&self, key: &WorkspaceKey) -> bool {
        self.suspects().contains(key)
    }

    /// Records that the connection is being checked now.
    pub fn checking(&self, key: &WorkspaceKey) {
        self.suspects().remove(key);
    }

    /// Forgets connections of Workspaces that are gone, once they may no longer stop runs.
    pub fn forget_all_but(&self, exists: impl Fn(&WorkspaceKey) -> bool) {
        self.lock().retain(|key, entry| exists(key) || entry.since.elapsed() < STOPS_FOR);
        self.suspects().retain(|key| exists(key));
    }

    fn suspects(&self) -> std::sync::MutexGuard<'_, HashSet<WorkspaceKey>> {
        sync::lock(&self.suspects)
    }

    fn set(&self, key: &WorkspaceKey, uid: &str, state: State) {
        let mut entries = self.lock();
        let since = match entries.get(key) {
            Some(Entry { state: State::NotReady(..), since, .. }) if matches!(state, State::NotReady(..)) => *since,
            Some(_) | None => Instant::now(),
        };
        entries.insert(key.clone(), Entry { uid: uid.to_owned(), state, since });
        drop(entries);
        self.tell(key);
    }

    fn tell(&self, key: &WorkspaceKey) {
        for listener in &self.changed {
            // A receiver that is gone means that the process is ending.
            let _ = listener.send(key.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkspaceKey, Entry>> {
        sync::lock(&self.entries)
    }
}
