//! The environment of the test: its own control plane and simulator.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::{ControlPlane, Supervised};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client, ResourceExt};
use mistral_workflows_operator::api::{self, WorkflowExecution, Workspace};
use serde_json::{Value, json};

use super::poison::{LATER, nested};
use super::refusals;
use super::told::Told;
use super::values::{SECRET, TOKEN};
use super::workflows::{self, DEEP_SCHEMA, REFERENCED};
use crate::demo::Result;
use crate::demo::programs::{self, Binaries};

/// The namespace of ordinary executions, with poison and refusals among them.
pub const DEFAULT: &str = "default";
/// A namespace with only poison.
pub const POISONED: &str = "poisoned";
/// A namespace of ordinary executions, without poison and refusals.
pub const APART: &str = "apart";
/// All watched namespaces.
pub const NAMESPACES: [&str; 3] = [DEFAULT, POISONED, APART];
/// The feature of the API server that sends lists as streams.
const STREAMS: &str = "WatchList";

const API_KEY: &str = "chaos-key";
/// How long each step of the setup may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A control plane and a simulator. Dropping it stops both.
pub struct Environment {
    control_plane: Arc<Mutex<ControlPlane>>,
    /// A client with an administrator's rights.
    pub client: Client,
    /// URL of the simulated API.
    pub url: String,
    _simulator: Supervised,
}

#[derive(Clone)]
pub struct Executions {
    client: Client,
    kind: ApiResource,
}

impl Executions {
    /// The executions of a namespace.
    pub fn of(&self, namespace: &str) -> Api<Told> {
        Api::namespaced_with(self.client.clone(), namespace, &self.kind)
    }

    /// The executions of all namespaces.
    pub fn all(&self) -> Api<Told> {
        Api::all_with(self.client.clone(), &self.kind)
    }
}

impl Environment {
    /// Starts both, with logs in `folder`. On every second seed the API server sends lists in pages, as older ones do.
    pub async fn start(binaries: &Binaries, folder: &Path, seed: u64) -> Result<Self> {
        let start = move || {
            if seed.is_multiple_of(2) { ControlPlane::start() } else { ControlPlane::start_without(STREAMS) }
        };
        let control_plane = tokio::task::spawn_blocking(start).await??;
        let client = control_plane.client().await?;
        let file = folder.join("workflows.json");
        fs::write(&file, serde_json::to_vec_pretty(&workflows::all())?)?;
        let mut command = Command::new(&binaries.simulator);
        command.args(["--listen", &format!("{}:0", Ipv4Addr::LOCALHOST), "--seed", &seed.to_string()]);
        command.arg("--workflows").arg(file).args(["--workspace", &format!("chaos={API_KEY}")]);
        let simulator = Supervised::spawn(&command, &folder.join("simulator.log"))?;
        let url = programs::address(&simulator).await?;
        let control_plane = Arc::new(Mutex::new(control_plane));
        Ok(Self { control_plane, client, url, _simulator: simulator })
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.control_plane.lock().unwrap_or_else(PoisonError::into_inner).kubeconfig().to_owned()
    }

    pub fn executions(&self) -> Executions {
        Executions { client: self.client.clone(), kind: ApiResource::erase::<WorkflowExecution>(&()) }
    }

    /// Installs the CRDs and the policy, and creates a Workspace and some Workflows in each namespace.
    pub async fn furnish(&self) -> Result<()> {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for mut crd in api::crds() {
            allow_later(&mut crd)?;
            let name = crd.name_any();
            crds.patch(&name, &PatchParams::apply("chaos"), &Patch::Apply(&crd)).await?;
            tokio::time::timeout(SOON, await_condition(crds.clone(), &name, is_crd_established()))
                .await
                .map_err(|_| format!("the API server did not serve {name} within {SOON:?}."))??;
        }
        for namespace in NAMESPACES {
            self.furnish_namespace(namespace).await?;
        }
        refusals::install(&self.client, &self.executions()).await
    }

    async fn furnish_namespace(&self, namespace: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let this: Namespace = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
        }))?;
        namespaces.patch(namespace, &PatchParams::apply("chaos"), &Patch::Apply(&this)).await?;
        let secret = ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&());
        let key = json!({ "metadata": { "name": "mistral" }, "stringData": { "api-key": API_KEY } });
        self.apply(&secret, namespace, key).await?;
        let (name, key) = SECRET;
        self.apply(&secret, namespace, json!({ "metadata": { "name": name }, "stringData": { key: TOKEN } })).await?;
        let auth = json!({ "apiKeySecretRef": { "name": "mistral", "key": "api-key" } });
        let spec = json!({ "baseURL": self.url, "auth": auth });
        let workspace = json!({ "metadata": { "name": "default" }, "spec": spec });
        self.apply(&ApiResource::erase::<Workspace>(&()), namespace, workspace).await?;
        for name in REFERENCED.into_iter().chain([DEEP_SCHEMA]) {
            let annotations =
                if name == DEEP_SCHEMA { json!({ "chaos/deep": nested(10_000, "1") }) } else { json!({}) };
            let metadata = json!({ "name": name, "annotations": annotations });
            let workflow = json!({ "metadata": metadata, "spec": { "managementPolicy": "Observe" } });
            self.apply(&ApiResource::erase::<api::Workflow>(&()), namespace, workflow).await?;
        }
        Ok(())
    }

    /// Waits until an operator has accepted the Workspace and the Workflows.
    pub async fn until_ready(&self) -> Result<()> {
        let workspaces = ApiResource::erase::<Workspace>(&());
        let workflows = ApiResource::erase::<api::Workflow>(&());
        let kinds = [(&workspaces, "default"), (&workflows, DEEP_SCHEMA)].into_iter();
        let kinds: Vec<_> = kinds.chain(REFERENCED.map(|name| (&workflows, name))).collect();
        for ((kind, name), namespace) in kinds.into_iter().flat_map(|it| NAMESPACES.map(|namespace| (it, namespace))) {
            let ready = |object: Option<&DynamicObject>| {
                let conditions = object.and_then(|object| object.data["status"]["conditions"].as_array());
                conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
            };
            tokio::time::timeout(SOON, await_condition(self.resources(kind, namespace), name, ready))
                .await
                .map_err(|_| format!("{} {namespace}/{name} was not ready within {SOON:?}.", kind.kind))??;
        }
        Ok(())
    }

    /// Kills the API server and restarts it after this time.
    pub async fn restart_api_server(&self, after: Duration) -> Result<()> {
        let control_plane = Arc::clone(&self.control_plane);
        let restarted = tokio::task::spawn_blocking(move || {
            let mut control_plane = control_plane.lock().unwrap_or_else(PoisonError::into_inner);
            control_plane.kill_api_server()?;
            std::thread::sleep(after);
            control_plane.restart_api_server()
        });
        Ok(restarted.await??)
    }

    fn resources(&self, kind: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, kind)
    }

    async fn apply(&self, kind: &ApiResource, namespace: &str, mut object: Value) -> Result<()> {
        object["apiVersion"] = json!(kind.api_version);
        object["kind"] = json!(kind.kind);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.resources(kind, namespace).patch(&name, &PatchParams::apply("chaos"), &Patch::Apply(&object)).await?;
        Ok(())
    }
}

/// Makes the CRD accept a deletion policy that the operator does not know.
fn allow_later(crd: &mut CustomResourceDefinition) -> Result<()> {
    let mut text = json!(crd);
    let policy = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/deletionPolicy/enum";
    if let Some(policies) = text.pointer_mut(policy).and_then(Value::as_array_mut) {
        policies.push(json!(LATER));
        *crd = serde_json::from_value(text)?;
    }
    Ok(())
}
