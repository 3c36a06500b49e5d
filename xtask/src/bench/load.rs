//! Creates resources, and observes them with a watch of its own.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, Object};
use kube::core::object::NotUsed;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use mistral_workflows_operator::api::WorkflowExecution;
use mistral_workflows_operator::execution::finished::mark::FINISHED;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::environment::{AT_ONCE, Program, Stage};
use crate::demo::Result;

/// How long nothing may change while the bench waits for something.
const STANDSTILL: Duration = Duration::from_secs(180);
const LOOKS_EVERY: Duration = Duration::from_millis(50);
/// How often progress is printed.
const TELLS_EVERY: Duration = Duration::from_secs(10);

/// The fields of a status that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    observed_generation: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(default)]
    reason: String,
}

type Watched = Object<NotUsed, Status>;

/// The observed state of a resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// When it was first seen to be `Complete`.
    pub complete: Option<Timestamp>,
    /// Its run has started.
    pub started: bool,
    /// It has a finalizer.
    pub finalizer: bool,
    /// The operator no longer watches it.
    pub left: bool,
    /// The generation that its status reports as `InSync`.
    pub in_sync: i64,
}

impl Seen {
    fn update(&mut self, object: &Watched) {
        let status = object.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let is_true = |type_: &str| conditions.iter().find(|it| it.type_ == type_).filter(|it| it.status == "True");
        if is_true("Complete").is_some() && self.complete.is_none() {
            self.complete = Some(Timestamp::now());
        }
        self.started = is_true("Started").is_some();
        self.finalizer = !object.finalizers().is_empty();
        self.left = !self.finalizer && object.labels().contains_key(FINISHED);
        let is_in_sync = is_true("Ready").is_some_and(|ready| ready.reason == "InSync");
        self.in_sync = status.and_then(|status| status.observed_generation).filter(|_| is_in_sync).unwrap_or_default();
    }
}

#[derive(Debug, Default)]
struct State {
    seen: HashMap<String, Seen>,
    changes: u64,
    listed: bool,
}

/// A watch of the resources of one kind in one namespace. Dropping it ends the watch.
pub struct Watch {
    state: Arc<Mutex<State>>,
    completions: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Starts the watch and waits until it has listed the existing resources.
    pub async fn start<K: kube::Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Result<Self> {
        let api: Api<Watched> = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()));
        let state: Arc<Mutex<State>> = Arc::default();
        let completions = Arc::new(Semaphore::new(0));
        let task = tokio::spawn(keep(api, Arc::clone(&state), Arc::clone(&completions)));
        let watch = Self { state, completions, task };
        let begun = Instant::now();
        while !watch.lock().listed {
            if begun.elapsed() > STANDSTILL {
                return Err(format!("the API server did not list the resources within {STANDSTILL:?}.").into());
            }
            sleep(LOOKS_EVERY).await;
        }
        Ok(watch)
    }

    /// Waits until `holds` is true for `count` resources.
    pub async fn until(
        &self,
        what: &str,
        count: usize,
        program: &mut Program,
        holds: impl Fn(&Seen) -> bool,
    ) -> Result<()> {
        let (mut most, mut since, mut told) = (0, Instant::now(), Instant::now());
        loop {
            let number = self.count(&holds);
            if number >= count {
                return Ok(());
            }
            program.check()?;
            if number > most {
                (most, since) = (number, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                let tail = program.tail();
                return Err(format!(
                    "{number} of {count} are {what}, and nothing has changed for {STANDSTILL:?}.\n{tail}"
                )
                .into());
            }
            if told.elapsed() > TELLS_EVERY {
                println!("    {number} of {count} are {what}");
                told = Instant::now();
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    /// The number of resources for which `holds` is true.
    pub fn count(&self, holds: impl Fn(&Seen) -> bool) -> usize {
        self.lock().seen.values().filter(|seen| holds(seen)).count()
    }

    /// The number of changes, including creations, except the resources that existed at the start.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// The observed state of each resource.
    pub fn seen(&self) -> HashMap<String, Seen> {
        self.lock().seen.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep(api: Api<Watched>, state: Arc<Mutex<State>>, completions: Arc<Semaphore>) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut events = pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(Event::Apply(object)) => {
                lock().changes += 1;
                object
            }
            Ok(Event::InitApply(object)) => object,
            Ok(Event::InitDone) => {
                lock().listed = true;
                continue;
            }
            Ok(Event::Init | Event::Delete(_)) => continue,
            Err(error) => {
                println!("  the bench's own watch begins anew ({error}): what it missed, it sees late");
                continue;
            }
        };
        let mut state = lock();
        let seen = state.seen.entry(object.name_any()).or_default();
        let before = seen.complete;
        seen.update(&object);
        if seen.complete != before {
            completions.add_permits(1);
        }
    }
}

/// Calls `what` for each number below `count`, several at a time.
pub async fn each(count: usize, what: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    stream::iter((0..count).map(Ok)).try_for_each_concurrent(AT_ONCE, async |number| what(number).await).await
}

/// The name of the resource with this number.
pub fn name(number: usize) -> String {
    format!("run-{number}")
}

/// Creates `count` executions as fast as possible, but with at most `window` incomplete ones. Returns when the request
/// that creates each was sent.
pub async fn create(
    stage: &Stage,
    watch: &Watch,
    count: usize,
    window: usize,
    spec: impl Fn(usize) -> Value,
) -> Result<Vec<Timestamp>> {
    let sent = Mutex::new(vec![Timestamp::MAX; count]);
    let completions = &watch.completions;
    completions.add_permits(window);
    each(count, async |number| {
        completions.acquire().await?.forget();
        let spec = spec(number);
        sent.lock().unwrap_or_else(PoisonError::into_inner)[number] = Timestamp::now();
        stage.create::<WorkflowExecution>(&name(number), &spec).await?;
        Ok(())
    })
    .await?;
    Ok(sent.into_inner().unwrap_or_else(PoisonError::into_inner))
}
