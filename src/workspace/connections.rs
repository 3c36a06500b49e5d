//! The connections that are in use, kept by the Workspace controller and read by the others.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::sync::mpsc::UnboundedSender;
use url::Url;

use crate::api::conditions::Wait;
use crate::mistral::Client;
use crate::mistral::budget::{Budget, Class, Turn};
use crate::room::Room;
use crate::sync;

/// How long a connection may still stop runs after its Workspace or Secret is gone.
const STOPS_FOR: Duration = Duration::from_secs(600);

/// Namespace and name of a Workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The lane of its calls, which takes turns with those of the other Workspaces that use the same API key.
    pub fn lane(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A connection that has been checked.
#[derive(Clone, Debug)]
pub struct Live {
    /// Calls the API, but for turns: whoever calls takes one.
    client: Client,
    /// Scheme, host and port.
    pub origin: String,
    /// The Mistral workspace, when the API tells.
    pub workspace_id: Option<String>,
    /// How often to look for changes that were made at the API.
    pub resync: Duration,
    /// Another number for each connection that was made.
    pub epoch: u64,
    /// Bounds how many calls leave a second and how many are under way, over all that use the same key.
    pub budget: Arc<Budget>,
}

impl Live {
    /// Another connection.
    pub fn new(
        client: Client,
        budget: Arc<Budget>,
        origin: String,
        workspace_id: Option<String>,
        resync: Duration,
    ) -> Self {
        static EPOCH: AtomicU64 = AtomicU64::new(0);
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        Self { client, origin, workspace_id, resync, epoch, budget }
    }

    /// The room for what is long that comes by way of its key.
    pub fn room(&self) -> &Room {
        self.client.room()
    }

    /// A client whose calls are all of this turn.
    pub fn in_turn(&self, turn: Arc<Turn>) -> Client {
        self.client.clone().in_turn(turn)
    }

    /// A client each of whose calls waits for its turn: for tasks of this Workspace.
    pub fn waiting(&self, class: Class, key: &Key) -> Client {
        self.waiting_in(class, key.lane())
    }

    /// The same in a lane of its own: for calls that are made for several Workspaces.
    pub fn waiting_in(&self, class: Class, lane: String) -> Client {
        self.client.clone().waiting(Arc::clone(&self.budget), class, lane)
    }

    /// Whether another one calls the same address with the same key.
    pub fn is_as(&self, other: &Self) -> bool {
        self.client.is_as(&other.client)
    }

    /// Whether it calls this address with this key.
    pub fn uses(&self, address: &Url, token: &SecretString) -> bool {
        self.client.uses(address, token)
    }
}

/// What may be done with a Workspace.
#[derive(Clone, Debug)]
pub enum State {
    /// Anything.
    Ready(Live),
    /// Nothing, for the reason given, which may pass by itself; perhaps what runs may still be stopped.
    NotReady(String, Wait, Option<Live>),
}

/// All connections.
#[derive(Debug)]
pub struct Connections {
    entries: Mutex<HashMap<Key, Entry>>,
    suspects: Mutex<HashSet<Key>>,
    changed: Vec<UnboundedSender<Key>>,
    suspect: UnboundedSender<Key>,
}

#[derive(Debug)]
struct Entry {
    /// UID of the Workspace: one created again under the same name is another one.
    uid: String,
    state: State,
    since: Instant,
}

impl Connections {
    /// None yet. All of `changed` hear of each connection that others may have waited for, `suspect` of
    /// each that somebody had trouble with.
    pub fn new(changed: Vec<UnboundedSender<Key>>, suspect: UnboundedSender<Key>) -> Self {
        Self { entries: Mutex::default(), suspects: Mutex::default(), changed, suspect }
    }

    /// What may be done with this Workspace; none if it has not been checked yet.
    pub fn get(&self, key: &Key) -> Option<State> {
        self.lock().get(key).map(|entry| entry.state.clone())
    }

    /// Those of these Workspaces with which anything may be done.
    pub fn ready_among<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<(Key, Live)> {
        let entries = self.lock();
        keys.filter_map(|key| match entries.get(key)?.state {
            State::Ready(ref live) => Some((key.clone(), live.clone())),
            State::NotReady(..) => None,
        })
        .collect()
    }

    /// What may be done with the Workspace of this UID only.
    pub fn of(&self, key: &Key, uid: &str) -> Option<State> {
        self.lock().get(key).filter(|entry| entry.uid == uid).map(|entry| entry.state.clone())
    }

    /// A connection for stopping runs: the present one, or one that was good not long ago.
    pub fn for_stopping(&self, key: &Key) -> Option<Live> {
        match self.lock().get(key) {
            Some(Entry { state: State::Ready(live), .. }) => Some(live.clone()),
            Some(Entry { state: State::NotReady(_, _, live), since, .. }) if since.elapsed() < STOPS_FOR => {
                live.clone()
            }
            Some(_) | None => None,
        }
    }

    /// A Workspace of this namespace whose connection may stop runs and is the wanted one.
    pub fn stopper_in(&self, namespace: &str, wanted: impl Fn(&Live) -> bool) -> Option<Key> {
        let keys: Vec<Key> = self.lock().keys().filter(|key| key.namespace == namespace).cloned().collect();
        keys.into_iter().find(|key| self.for_stopping(key).is_some_and(|live| wanted(&live)))
    }

    /// Whether this Workspace's calls, if it may make any, are of that budget.
    pub fn calls_from(&self, key: &Key, budget: u64) -> bool {
        self.for_stopping(key).is_some_and(|live| live.budget.id() == budget)
    }

    /// The Workspace can be used.
    pub fn ready(&self, key: &Key, uid: &str, live: Live) {
        self.set(key, uid, State::Ready(live));
    }

    /// The Workspace cannot be used. With `may_stop` its last good connection may still stop runs.
    pub fn not_ready(&self, key: &Key, uid: &str, why: String, wait: Wait, may_stop: bool) {
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

    /// The Workspace does not exist any more: nothing new is done with its connection.
    pub fn gone(&self, key: &Key) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key)
            && let State::Ready(live) = &entry.state
        {
            let state = State::NotReady("there is no such Workspace".into(), Wait::Stalled, Some(live.clone()));
            *entry = Entry { uid: entry.uid.clone(), state, since: Instant::now() };
            drop(entries);
            self.tell(key);
        }
    }

    /// None but these Workspaces exist: whoever has not heard of that yet does now.
    pub fn gone_all_but(&self, exists: impl Fn(&Key) -> bool) {
        let missing: Vec<Key> = self.lock().keys().filter(|key| !exists(key)).cloned().collect();
        missing.iter().for_each(|key| self.gone(key));
    }

    /// Someone had trouble with this connection: it shall be checked soon.
    pub fn suspect(&self, key: &Key) {
        if self.suspects().insert(key.clone()) {
            // A receiver that is gone means that the process is ending.
            let _ = self.suspect.send(key.clone());
        }
    }

    /// There is news of the Workspace that its status does not tell yet.
    pub fn look_again(&self, key: &Key) {
        // A receiver that is gone means that the process is ending.
        let _ = self.suspect.send(key.clone());
    }

    /// Whether someone had trouble with it since it was last checked.
    pub fn is_suspect(&self, key: &Key) -> bool {
        self.suspects().contains(key)
    }

    /// It is being checked now.
    pub fn checking(&self, key: &Key) {
        self.suspects().remove(key);
    }

    /// Forgets connections of Workspaces that are gone, once they may not stop runs any more.
    pub fn forget_all_but(&self, exists: impl Fn(&Key) -> bool) {
        self.lock().retain(|key, entry| exists(key) || entry.since.elapsed() < STOPS_FOR);
        self.suspects().retain(|key| exists(key));
    }

    fn suspects(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
        sync::lock(&self.suspects)
    }

    fn set(&self, key: &Key, uid: &str, state: State) {
        let mut entries = self.lock();
        let since = match entries.get(key) {
            Some(Entry { state: State::NotReady(..), since, .. }) if matches!(state, State::NotReady(..)) => *since,
            Some(_) | None => Instant::now(),
        };
        entries.insert(key.clone(), Entry { uid: uid.to_owned(), state, since });
        drop(entries);
        self.tell(key);
    }

    fn tell(&self, key: &Key) {
        for listener in &self.changed {
            // A receiver that is gone means that the process is ending.
            let _ = listener.send(key.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        sync::lock(&self.entries)
    }
}
