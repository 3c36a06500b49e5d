//! Many tenants in one operator, each with a namespace and a key. Trouble of one tenant must not affect the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use mistral_workflows_operator::api::{Workflow, WorkflowExecution, Workspace};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
/// How long a call may take before the operator gives up: the delay that a tenant with a hanging API could cause the
/// others.
const HANG: Duration = Duration::from_secs(30);

/// A namespace with a key, and a Workspace `default` that uses it.
struct Tenant {
    client: Client,
    namespace: String,
    /// The Mistral workspace that the key belongs to.
    at_the_api: String,
}

impl Tenant {
    async fn new(world: &World, at_the_api: &str, key: &str) -> Self {
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        let namespace = serde_json::from_value(json!({ "metadata": { "generateName": "tenant-" } })).unwrap();
        let namespace = namespaces.create(&PostParams::default(), &namespace).await.unwrap().name_any();
        world.api.admit(key, at_the_api).await;
        let client = world.client.clone();
        let tenant = Self { client, namespace, at_the_api: at_the_api.to_owned() };
        tenant.set_key(key).await;
        let workspace = json!({
            "metadata": { "name": "default" },
            "spec": { "baseURL": world.api.url, "auth": { "apiKeySecretRef": { "name": "mistral", "key": "api-key" } } },
        });
        tenant.create::<Workspace>(workspace).await;
        tenant
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let mut object = object;
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    async fn set_key(&self, key: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mistral" }, "stringData": { "api-key": key },
        });
        let apply = PatchParams::apply("test").force();
        self.api::<Secret>().patch("mistral", &apply, &Patch::Apply(secret)).await.unwrap();
    }

    async fn execute(&self, name: &str, workflow: &str) {
        let spec = json!({ "workflowIdentifier": workflow, "input": { "name": name }, "deletionPolicy": "Orphan" });
        self.create::<WorkflowExecution>(json!({ "metadata": { "name": name }, "spec": spec })).await;
    }

    async fn execute_many(&self, prefix: &str, number: usize, workflow: &str) {
        let names = (0..number).map(|n| format!("{prefix}-{n}"));
        stream::iter(names).for_each_concurrent(8, async |name| self.execute(&name, workflow).await).await;
    }

    /// The reason of this condition of the tenant's Workspace.
    async fn says(&self, type_: &str) -> Option<String> {
        let status = self.api::<Workspace>().get("default").await.unwrap().status?;
        status.conditions.into_iter().find(|condition| condition.type_ == type_).map(|condition| condition.reason)
    }

    async fn wait_for(&self, type_: &str, reason: &str) {
        let said = async || (self.says(type_).await.as_deref() == Some(reason)).then_some(());
        until(3 * SOON, &format!("{type_} {reason} of {}", self.at_the_api), said).await;
    }

    async fn wait_for_all(&self, number: usize) {
        let all = async || {
            let all = self.api::<WorkflowExecution>().list(&ListParams::default()).await.unwrap();
            (all.iter().filter(|object| is_true(object, "Complete")).count() >= number).then_some(())
        };
        until(3 * SOON, &format!("{number} completed of {}", self.at_the_api), all).await;
    }
}

/// An operator for these tenants and the world's namespace.
fn operator_of(world: &World, tenants: &[Tenant], more: &[&str]) -> Process {
    let namespaces: Vec<&str> = tenants.iter().map(|tenant| tenant.namespace.as_str()).collect();
    let namespaces = namespaces.join(",");
    let arguments = [&["--log-level", "info", "--namespace", &namespaces], more].concat();
    world.process_with(&arguments, &[])
}

/// When the first call of each run arrived, by Mistral workspace and the name in its input.
async fn arrivals(world: &World) -> HashMap<(String, String), Timestamp> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let runs = world.api.executions().await;
    let started = runs.iter().map(|run| {
        assert_eq!(run["starts"], 1, "{run}");
        let at = text(&run["start_time"]).parse().unwrap();
        ((text(&run["workspace"]), text(&run["input"]["name"])), at)
    });
    started.collect()
}

/// The times from just before the creation of a resource to the arrival of its call.
struct Latencies(Vec<Duration>);

impl Latencies {
    /// Measures executions of these tenants in turn, for this many rounds. They are created at a steady pace, whatever
    /// their progress.
    async fn measure(world: &World, tenants: &[Tenant], rounds: usize, prefix: &str) -> Self {
        const EVERY: Duration = Duration::from_millis(60);
        let begun = Instant::now();
        let names: Vec<String> = (0..rounds).map(|round| format!("{prefix}-{round}")).collect();
        let all = names.iter().flat_map(|name| tenants.iter().map(move |tenant| (tenant, name))).enumerate();
        let created = join_all(all.map(async |(n, (tenant, name))| {
            tokio::time::sleep_until((begun + EVERY * u32::try_from(n).unwrap()).into()).await;
            let created = Timestamp::now();
            tenant.execute(name, "echo").await;
            ((tenant.at_the_api.clone(), name.clone()), created)
        }))
        .await;
        let latencies = until(3 * SOON, "all starts", async || {
            let arrived = arrivals(world).await;
            created.iter().map(|(key, created)| Some(arrived.get(key)?.duration_since(*created))).collect()
        })
        .await;
        let latencies: Vec<_> = latencies;
        let mut latencies: Vec<_> = latencies.into_iter().map(|it| Duration::try_from(it).unwrap()).collect();
        latencies.sort();
        Self(latencies)
    }

    fn quantile(&self, part: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * part).round() as usize]
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |part| self.quantile(part).as_millis();
        let (half, most, all) = (ms(0.5), ms(0.99), ms(1.0));
        write!(f, "{} starts: p50 {half} ms, p99 {most} ms, the slowest {all} ms", self.0.len())
    }
}

/// Calls that came with the keys of one Mistral workspace.
async fn calls_of(world: &World, tenant: &Tenant) -> u64 {
    let ours = |call: &&Value| call["workspace"] == tenant.at_the_api.as_str();
    world.api.calls().await.iter().filter(ours).map(|call| call["arrivals"].as_u64().unwrap()).sum()
}

/// The API refuses the calls of one tenant, whose key was revoked, throttles those of another, and hangs on as many of the
/// third as may be in flight. Each has many executions to start.
async fn make_trouble(world: &World, hangs: &Tenant, refused: &Tenant, throttled: &Tenant) {
    let refuse = json!({ "error": { "status": 429, "headers": { "Retry-After": "5" } } });
    let refuse = json!({ "workspace": throttled.at_the_api, "kind": refuse });
    world.api.faults(json!({ "faults": [refuse] })).await;
    futures::join!(refused.execute_many("stuck", 80, "echo"), throttled.execute_many("stuck", 80, "echo"));
    refused.wait_for("Ready", "CredentialRefused").await;
    throttled.wait_for("Throttled", "RateLimited").await;
    let hold = json!({ "workspace": hangs.at_the_api, "kind": { "hold": "before_effect" } });
    world.api.faults(json!({ "faults": [hold, refuse] })).await;
    hangs.execute_many("stuck", 120, "echo").await;
    // The maximum number of starts in flight with one key.
    until(SOON, "calls that hang", async || (world.api.held().await.len() >= 96).then_some(())).await;
}

#[tokio::test]
async fn of_fifty_tenants_one_that_hangs_one_refused_and_one_throttled_slow_down_none_of_the_others() {
    let world = World::bare("fifty").await;
    let keys: Vec<(String, String)> = (0..50).map(|n| (format!("t{n}"), format!("canary-tenant-{n}-8d1f"))).collect();
    let mut tenants = Vec::new();
    for (at_the_api, key) in &keys {
        world.api.register_in(at_the_api, json!({ "name": "echo", "behaviour": { "duration_ms": 0 } })).await;
        tenants.push(Tenant::new(&world, at_the_api, key).await);
    }
    let process = operator_of(&world, &tenants, &[]);
    for tenant in &tenants {
        tenant.wait_for("Ready", "Connected").await;
    }
    let (broken, healthy) = tenants.split_at(3);
    let [hangs, refused, throttled] = broken else { panic!("three") };
    let alone = Latencies::measure(&world, healthy, 5, "alone").await;
    println!("47 tenants alone: {alone}");

    world.api.revoke(&keys[1].1).await;
    make_trouble(&world, hangs, refused, throttled).await;
    let before = (calls_of(&world, refused).await, calls_of(&world, throttled).await, Instant::now());
    let beside = Latencies::measure(&world, healthy, 5, "beside").await;
    let took = before.2.elapsed();
    let of_refused = calls_of(&world, refused).await - before.0;
    let of_throttled = calls_of(&world, throttled).await - before.1;
    let held = world.api.held().await.len();
    println!("beside three that hang, are refused and throttled: {beside}");
    println!("in these {took:.1?}: {held} calls hang, {of_refused} are refused, {of_throttled} throttled");
    assert!(held > 0, "nothing hung all the time");
    // Waiting for a hanging call would take half a minute.
    assert!(beside.quantile(1.0) < HANG / 2, "{beside}");
    assert!(beside.quantile(0.5) < 3 * alone.quantile(0.5) + Duration::from_secs(1), "{alone}; {beside}");
    // The operator does not call the API more often than necessary.
    assert!(of_refused <= 2 + took.as_secs() / 15, "{of_refused} calls with a key that is refused, in {took:?}");
    assert!(of_throttled <= 12 * (2 + took.as_secs() / 5), "{of_throttled} calls after a 429, in {took:?}");
    for tenant in healthy {
        tenant.wait_for_all(10).await;
        assert_eq!(tenant.says("Ready").await.as_deref(), Some("Connected"));
        assert_eq!(tenant.says("Throttled").await, None);
    }
    assert_eq!(refused.says("Ready").await.as_deref(), Some("CredentialRefused"));

    // With another key, and an API that answers again, everything continues in the same process.
    world.api.admit("canary-tenant-1-next", &refused.at_the_api).await;
    refused.set_key("canary-tenant-1-next").await;
    world.api.heal().await;
    refused.wait_for_all(80).await;
    throttled.wait_for_all(80).await;
    hangs.wait_for("Ready", "Connected").await;
    hangs.execute("after", "echo").await;
    hangs.wait_for_all(1).await;
    arrivals(&world).await;
    drop(process);
    let found = join_all(tenants.iter().map(|tenant| canary::in_objects(&world.client, &tenant.namespace))).await;
    canary::assert_none(&found.concat());
}

#[tokio::test]
async fn of_two_workspaces_with_one_key_the_one_that_wants_little_does_not_wait_for_the_one_that_wants_much() {
    let world = World::bare("one-key").await;
    world.api.register_in("shared", json!({ "name": "hang", "behaviour": { "outcome": "hang" } })).await;
    let tenants = [
        Tenant::new(&world, "shared", "canary-shared-41c0").await,
        Tenant::new(&world, "shared", "canary-shared-41c0").await,
    ];
    // So few that most of the executions still wait when a slow machine has created all of them.
    let _process = operator_of(&world, &tenants, &["--max-requests-per-second", "4"]);
    for tenant in &tenants {
        tenant.wait_for("Ready", "Connected").await;
    }
    let starts = async |prefix: &str| {
        let arrived = arrivals(&world).await;
        arrived.keys().filter(|(_, name)| name.starts_with(prefix)).count()
    };
    let [much, little] = &tenants;
    much.execute_many("much", 250, "hang").await;
    until(SOON, "the first starts", async || (starts("much").await > 0).then_some(())).await;
    let before = starts("much").await;
    little.execute_many("little", 10, "hang").await;
    until(SOON, "all starts of the one that wants little", async || (starts("little").await == 10).then_some(())).await;
    let meanwhile = starts("much").await - before;
    println!("beside 10 starts of one namespace {meanwhile} of another one with the same key; {before} before");
    assert!(before + meanwhile < 250, "nothing waited");
    // The Workspaces take turns, one start each, but creating ten executions takes a moment too.
    assert!(meanwhile <= 40, "{meanwhile} of the others left before 10");
    assert!(world.api.arrivals(Some(EXECUTE)).await >= 10);
}

#[tokio::test]
async fn workspaces_with_one_key_take_turns_also_in_one_namespace() {
    let world = World::new("one-line").await;
    world.workspace("little", &world.api.url).await;
    let slow = Patch::Merge(json!({ "spec": { "requestsPerSecond": 10 } }));
    world.workspaces().patch("default", &PatchParams::default(), &slow).await.unwrap();
    let _operator = world.operator();
    for name in ["default", "little"] {
        world.wait_for_workspace(name, "Connected").await;
    }
    let execute = async |prefix: &str, number: usize, workspace: &str| {
        let names = (0..number).map(|n| format!("{prefix}-{n}"));
        let spec = |name: &str| {
            json!({
                "workspaceRef": { "name": workspace }, "workflowIdentifier": "hang", "input": { "name": name },
                "deletionPolicy": "Orphan",
            })
        };
        stream::iter(names).for_each_concurrent(8, async |name| drop(world.execute(&name, spec(&name)).await)).await;
    };
    let starts = async |prefix: &str| {
        let arrived = arrivals(&world).await;
        arrived.keys().filter(|(_, name)| name.starts_with(prefix)).count()
    };
    execute("much", 250, "default").await;
    until(SOON, "the first starts", async || (starts("much").await > 0).then_some(())).await;
    let before = starts("much").await;
    execute("little", 10, "little").await;
    until(SOON, "all starts of the one that wants little", async || (starts("little").await == 10).then_some(())).await;
    let meanwhile = starts("much").await - before;
    println!("beside 10 starts of one Workspace {meanwhile} of another one with the same key; {before} before");
    assert!(before + meanwhile < 250, "nothing waited");
    assert!(meanwhile <= 40, "{meanwhile} of the others left before 10");
}

/// The number of writes to each object since this resource version.
async fn writes<K>(api: Api<K>, since: &str) -> HashMap<String, usize>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let events = api.watch(&WatchParams::default().timeout(2), since).await.unwrap();
    let events: Vec<WatchEvent<K>> = events.boxed().try_collect().await.unwrap();
    let mut writes = HashMap::new();
    for event in events {
        match event {
            WatchEvent::Modified(object) => *writes.entry(object.name_any()).or_default() += 1,
            WatchEvent::Bookmark(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    writes
}

async fn passes(process: &Process) -> u64 {
    let (_, metrics) = process.ask("/metrics").await.unwrap();
    let counts = metrics.lines().filter(|line| line.starts_with("mistral_workflows_reconcile_duration_seconds_count"));
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn resources_of_a_deleted_workspace_say_so_once_and_rest_until_there_is_one_again() {
    let world = World::new("deleted").await;
    world.resync("5s").await;
    let process = world.process_with(&["--log-level", "info"], &[]);
    world.wait_for_workspace("default", "Connected").await;
    world.workflow("echo", json!({ "displayName": "Echo" })).await;
    world.workflow("nowhere", json!({})).await;
    world.execute("running", json!({ "workflowIdentifier": "hang" })).await;
    world.execute("waiting", json!({ "workflowIdentifier": "nowhere" })).await;
    world.execute("suspended", json!({ "workflowIdentifier": "echo", "suspend": true })).await;
    world.wait_for_workflow("echo", "InSync").await;
    world.wait_for_workflow("nowhere", "WorkflowNotFound").await;
    world.wait_for_reason("running", "Running").await;
    world.wait_for_reason("waiting", "TargetNotFound").await;
    world.wait_for_reason("suspended", "Suspended").await;
    world.execute("done", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("done", "Completed").await;

    let all = ListParams::default();
    let since_workflows = world.workflows().list(&all).await.unwrap().metadata.resource_version.unwrap();
    let since = world.executions().list(&all).await.unwrap().metadata.resource_version.unwrap();
    world.workspaces().delete("default", &DeleteParams::default()).await.unwrap();
    for name in ["echo", "nowhere"] {
        let told = world.wait_for_workflow(name, "WorkspaceNotFound").await;
        let message = &workflow_condition(&told, "Ready").unwrap().message;
        assert!(message.contains("\"default\"") && message.to_lowercase().contains("create"), "{message}");
    }
    for name in ["running", "waiting"] {
        let told = world.wait_for_reason(name, "WorkspaceNotFound").await;
        let message = &condition(&told, "Ready").unwrap().message;
        assert!(message.contains("\"default\"") && message.to_lowercase().contains("create"), "{message}");
    }
    // Lets the calls finish that were in flight at the deletion.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.api.forget_calls().await;
    let before = passes(&process).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.api.calls().await, Vec::<Value>::new());
    let passed = passes(&process).await - before;
    println!("{passed} passes in 10 s over the resources of a deleted Workspace");
    assert!(passed <= 2, "{passed} passes in 10 s over resources that wait for a person");
    let once = |names: [&str; 2]| names.map(|name| (name.to_owned(), 1)).into();
    assert_eq!(writes::<Workflow>(world.workflows(), &since_workflows).await, once(["echo", "nowhere"]));
    assert_eq!(writes(world.executions(), &since).await, once(["running", "waiting"]));

    world.workspace("default", &world.api.url).await;
    world.wait_for_reason("running", "Running").await;
    world.wait_for_workflow("echo", "InSync").await;
    world.api.register(json!({ "name": "nowhere" })).await;
    world.wait_for_reason("waiting", "Completed").await;
}
