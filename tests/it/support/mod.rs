//! A world for each test: a namespace, a simulator, and an operator that watches only that namespace.

mod account;
pub mod canary;
mod simulated;
mod workflows;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use cluster::{ControlPlane, Supervised};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client, ResourceExt};
use mistral_simulator::{Options, Simulator};
pub use mistral_workflows_operator::api::WorkflowExecution;
use mistral_workflows_operator::api::{Workspace, crds};
use mistral_workflows_operator::operator;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use account::Account;
pub use simulated::Simulated;
pub use workflows::{workflow_condition, workflow_status};

/// The key in the tests' Secrets. Every test searches for it wherever it must not be: see [`canary`].
pub const KEY: &str = "canary-5f1c6a0e9d";

/// How long something quick may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(120);

/// The environment of one test.
pub struct World {
    pub client: Client,
    pub namespace: String,
    pub api: Simulated,
    _simulator: Simulator,
}

/// Every test ends with a search for its secrets.
impl Drop for World {
    fn drop(&mut self) {
        let mut found = canary::logs().found();
        found.extend(canary::in_files(control_plane().folder(), &format!("operator-{}-", self.namespace)));
        // `drop` can neither block on this thread's runtime nor use a client that belongs to it.
        let namespace = self.namespace.clone();
        let search = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { canary::in_objects(&control_plane().client().await.unwrap(), &namespace).await })
        });
        if let Ok(objects) = search.join() {
            found.extend(objects);
        } else {
            found.push("the objects could not be searched".into());
        }
        canary::assert_none(&found);
    }
}

/// An operator in this process. Dropping it stops the operator.
pub struct InProcess {
    stop: CancellationToken,
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The control plane that all tests of this binary share.
pub fn control_plane() -> &'static ControlPlane {
    static CONTROL_PLANE: OnceLock<ControlPlane> = OnceLock::new();
    CONTROL_PLANE.get_or_init(|| ControlPlane::start().unwrap_or_else(|error| panic!("{error}")))
}

impl World {
    /// Creates a namespace with a Workspace `default` that connects to a simulator with some workflows.
    pub async fn new(name: &str) -> Self {
        let world = Self::bare(name).await;
        world.secret("mistral", "api-key", KEY).await;
        world.workspace("default", &world.api.url).await;
        world
    }

    /// The same without Secret and Workspace.
    pub async fn bare(name: &str) -> Self {
        canary::logs();
        let control_plane = tokio::task::spawn_blocking(control_plane).await.unwrap();
        let client = control_plane.client().await.unwrap();
        install_crds(&client).await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = json!({ "metadata": { "generateName": format!("{name}-") } });
        let namespace = namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await;
        let simulator = Simulator::start(Options::default()).await.unwrap();
        let api = Simulated::new(simulator.url());
        for (name, behaviour) in [
            ("echo", json!({ "duration_ms": 0 })),
            ("slow", json!({ "duration_ms": 3000 })),
            ("hang", json!({ "outcome": "hang" })),
            ("fail", json!({ "outcome": "fail", "error": "no such customer" })),
        ] {
            api.register(json!({ "name": name, "behaviour": behaviour })).await;
        }
        Self { client, namespace: namespace.unwrap().name_any(), api, _simulator: simulator }
    }

    pub async fn secret(&self, name: &str, key: &str, value: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value },
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
    }

    pub async fn workspace(&self, name: &str, url: &str) -> Workspace {
        let workspace = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workspace", "metadata": { "name": name },
            "spec": { "baseURL": url, "auth": { "apiKeySecretRef": { "name": "mistral", "key": "api-key" } } },
        });
        self.workspaces().create(&PostParams::default(), &serde_json::from_value(workspace).unwrap()).await.unwrap()
    }

    pub fn workspaces(&self) -> Api<Workspace> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn executions(&self) -> Api<WorkflowExecution> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an execution with this spec.
    pub async fn execute(&self, name: &str, spec: Value) -> WorkflowExecution {
        self.try_execute(name, spec).await.unwrap()
    }

    pub async fn try_execute(&self, name: &str, spec: Value) -> kube::Result<WorkflowExecution> {
        let dynamic: Api<kube::api::DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &execution_resource());
        let object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": name }, "spec": spec,
        });
        // Sent as a dynamic object, because the types of this version would change the spec.
        let made = dynamic.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await?;
        Ok(made.try_parse().unwrap())
    }

    pub async fn patch(&self, name: &str, patch: Value) -> kube::Result<WorkflowExecution> {
        self.executions().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    pub async fn delete(&self, name: &str) {
        self.executions().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The execution once `condition` holds for it.
    pub async fn wait(
        &self,
        name: &str,
        limit: Duration,
        condition: impl Fn(&WorkflowExecution) -> bool,
    ) -> WorkflowExecution {
        let holds = |object: Option<&WorkflowExecution>| object.is_some_and(&condition);
        let waited = tokio::time::timeout(limit, await_condition(self.executions(), name, holds)).await;
        match waited {
            Ok(object) => object.unwrap().unwrap(),
            Err(_) => {
                let now = self.executions().get_opt(name).await.unwrap();
                panic!("waited in vain; the execution is now {:#?}", now.map(|now| (now.metadata, now.status)))
            }
        }
    }

    /// The execution once `Ready` has this reason.
    pub async fn wait_for_reason(&self, name: &str, reason: &str) -> WorkflowExecution {
        self.wait(name, SOON, |object| ready_reason(object) == Some(reason)).await
    }

    pub async fn wait_until_gone(&self, name: &str, limit: Duration) {
        let gone = |object: Option<&WorkflowExecution>| object.is_none();
        tokio::time::timeout(limit, await_condition(self.executions(), name, gone))
            .await
            .expect("still there")
            .unwrap();
    }

    /// The Workspace once `Ready` has this reason.
    pub async fn wait_for_workspace(&self, name: &str, reason: &str) -> Workspace {
        let holds = |object: Option<&Workspace>| {
            object.is_some_and(|object| {
                let status = object.status.as_ref();
                status.is_some_and(|status| {
                    status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == reason)
                })
            })
        };
        let waited = tokio::time::timeout(SOON, await_condition(self.workspaces(), name, holds)).await;
        match waited {
            Ok(object) => object.unwrap().unwrap(),
            Err(_) => panic!("waited for {reason}; it is {:#?}", self.workspaces().get(name).await.unwrap().status),
        }
    }

    /// Starts an operator in this process, for this namespace.
    pub fn operator(&self) -> InProcess {
        self.operator_with(|_| {})
    }

    /// The same with other settings.
    pub fn operator_with(&self, edit: impl FnOnce(&mut operator::Config)) -> InProcess {
        let stop = CancellationToken::new();
        let mut config = operator::Config {
            allow_base_urls: vec![self.api.url.parse().unwrap()],
            max_requests_per_second: 50,
            input_secrets_need_label: false,
            namespaces: vec![self.namespace.clone()],
            listen: None,
            metrics_workflows: 0,
            leadership: operator::Leadership::Unconditional,
        };
        edit(&mut config);
        tokio::spawn(operator::run(config, self.client.clone(), stop.clone()));
        InProcess { stop }
    }

    /// Starts an operator as a separate process, for this namespace.
    pub fn process(&self, environment: &[(&str, &str)]) -> Process {
        self.process_with(&["--log-level", "debug,hyper_util=info,h2=info,tower=info,rustls=info"], environment)
    }

    /// The same with more arguments, which must set the log level.
    pub fn process_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
        command
            .args(["run", "--namespace", &self.namespace, "--allow-base-url", &self.api.url])
            .args(["--listen", &port.to_string()])
            .args(arguments)
            .env("KUBECONFIG", control_plane().kubeconfig())
            // Operators of other tests lead in the same cluster.
            .env("LEASE_NAME", "")
            .envs(environment.iter().copied());
        let log = control_plane().folder().join(format!("operator-{}-{}.log", self.namespace, port.port()));
        Process { child: Supervised::spawn(&command, &log).unwrap(), listen: port }
    }

    /// The Events about this object, oldest first, as `(reason, note)`.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut events = api.list(&ListParams::default()).await.unwrap().items;
        events.retain(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name)));
        events.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
        events.into_iter().map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
    }

    /// `kubectl` in this namespace: its output, and whether it succeeded.
    pub async fn kubectl(&self, arguments: &[&str]) -> (String, bool) {
        let mut command = control_plane().kubectl_command();
        command.args(["--namespace", &self.namespace]).args(arguments);
        let output = tokio::process::Command::from(command).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.success())
    }
}

/// An operator as a process.
pub struct Process {
    pub child: Supervised,
    pub listen: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let found: Vec<String> = canary::in_metrics(self.listen).into_iter().collect();
        canary::assert_none(&found);
    }
}

impl Process {
    /// Status and body of an HTTP GET. `None` while nothing listens.
    pub async fn ask(&self, path: &str) -> Option<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let response = client.get(format!("http://{}{path}", self.listen)).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.child.log()).unwrap_or_default()
    }
}

pub fn execution_resource() -> kube::api::ApiResource {
    kube::api::ApiResource::erase::<WorkflowExecution>(&())
}

async fn install_crds(client: &Client) {
    static INSTALLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    INSTALLED.get_or_init(async || install_crds_into(client, |_| true).await).await;
}

/// Installs the CRDs whose names `wanted` accepts.
pub async fn install_crds_into(client: &Client, wanted: impl Fn(&str) -> bool) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds().into_iter().filter(|crd| wanted(&crd.name_any())) {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
        let established = await_condition(api.clone(), &name, is_crd_established());
        tokio::time::timeout(SOON, established).await.expect("CRD established").unwrap();
    }
}

/// The administrator's kubeconfig with another port, and the port that it had.
pub fn kubeconfig_with_port(port: u16) -> (PathBuf, u16) {
    let text = std::fs::read_to_string(control_plane().kubeconfig()).unwrap();
    let (before, rest) = text.split_once("https://127.0.0.1:").unwrap();
    let (old, after) = rest.split_once('\n').unwrap();
    let file = control_plane().folder().join(format!("kubeconfig-{port}"));
    std::fs::write(&file, format!("{before}https://127.0.0.1:{port}\n{after}")).unwrap();
    (file, old.parse().unwrap())
}

/// Whether a process is stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim_start().starts_with('T')
}

pub fn status(object: &WorkflowExecution) -> mistral_workflows_operator::api::WorkflowExecutionStatus {
    object.status.clone().unwrap_or_default()
}

/// The result in the status.
pub fn result(object: &WorkflowExecution) -> Option<Value> {
    let result = object.status.as_ref()?.result.as_ref()?;
    Some(serde_json::from_str(result.text()).unwrap())
}

pub fn condition<'a>(
    object: &'a WorkflowExecution,
    type_: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    object.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

pub fn ready_reason(object: &WorkflowExecution) -> Option<&str> {
    condition(object, "Ready").map(|condition| condition.reason.as_str())
}

pub fn is_true(object: &WorkflowExecution, type_: &str) -> bool {
    condition(object, type_).is_some_and(|condition| condition.status == "True")
}

pub fn is_finished(object: &WorkflowExecution) -> bool {
    is_true(object, "Complete") || is_true(object, "Failed")
}

/// Repeats `done` until it returns a value, within `limit`.
pub async fn until<T>(limit: Duration, what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = done().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits for the next second. Creation timestamps are whole seconds: if a resource was created in the second in which
/// the operator started, the operator first checks whether another one has started the run. That reconcile makes two
/// calls with one permit.
pub async fn next_second() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
