//! Where the chaos takes place: a control plane and a simulator of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::{ControlPlane, Supervised};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client, ResourceExt};
use mistral_workflows_operator::api::{self, WorkflowExecution, Workspace};
use serde_json::{Value, json};

use super::values::{SECRET, TOKEN};
use super::workflows::{self, REFERENCED};
use crate::demo::Result;
use crate::demo::programs::{self, Binaries};

const API_KEY: &str = "chaos-key";
/// How long the first things may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A control plane and a simulator; both end when it is dropped.
pub struct Place {
    control_plane: Arc<Mutex<ControlPlane>>,
    /// An administrator's.
    pub client: Client,
    /// Of the simulated API.
    pub url: String,
    _simulator: Supervised,
}

impl Place {
    /// Starts both. Logs go to the folder.
    pub async fn start(binaries: &Binaries, folder: &Path, seed: u64) -> Result<Self> {
        let control_plane = tokio::task::spawn_blocking(ControlPlane::start).await??;
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

    /// A kubeconfig file of the administrator's.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.control_plane.lock().unwrap_or_else(PoisonError::into_inner).kubeconfig().to_owned()
    }

    /// The executions, as they stand.
    pub fn executions(&self) -> Api<DynamicObject> {
        self.resources(&ApiResource::erase::<WorkflowExecution>(&()))
    }

    /// Installs the CRDs and creates a Workspace and some Workflows.
    pub async fn furnish(&self) -> Result<()> {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in api::crds() {
            let name = crd.name_any();
            crds.patch(&name, &PatchParams::apply("chaos"), &Patch::Apply(&crd)).await?;
            tokio::time::timeout(SOON, await_condition(crds.clone(), &name, is_crd_established()))
                .await
                .map_err(|_| format!("the API server did not serve {name} within {SOON:?}."))??;
        }
        let secret = ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&());
        let key = json!({ "metadata": { "name": "mistral" }, "stringData": { "api-key": API_KEY } });
        self.apply(&secret, key).await?;
        let (name, key) = SECRET;
        self.apply(&secret, json!({ "metadata": { "name": name }, "stringData": { key: TOKEN } })).await?;
        let auth = json!({ "apiKeySecretRef": { "name": "mistral", "key": "api-key" } });
        let spec = json!({ "baseURL": self.url, "auth": auth });
        let workspace = json!({ "metadata": { "name": "default" }, "spec": spec });
        self.apply(&ApiResource::erase::<Workspace>(&()), workspace).await?;
        for name in REFERENCED {
            let workflow = json!({ "metadata": { "name": name }, "spec": { "managementPolicy": "Observe" } });
            self.apply(&ApiResource::erase::<api::Workflow>(&()), workflow).await?;
        }
        Ok(())
    }

    /// Waits until an operator has accepted the Workspace and the Workflows.
    pub async fn until_ready(&self) -> Result<()> {
        let workspaces = ApiResource::erase::<Workspace>(&());
        let workflows = ApiResource::erase::<api::Workflow>(&());
        for (kind, name) in [(&workspaces, "default")].into_iter().chain(REFERENCED.map(|name| (&workflows, name))) {
            let ready = |object: Option<&DynamicObject>| {
                let conditions = object.and_then(|object| object.data["status"]["conditions"].as_array());
                conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
            };
            tokio::time::timeout(SOON, await_condition(self.resources(kind), name, ready))
                .await
                .map_err(|_| format!("{} {name} was not ready within {SOON:?}.", kind.kind))??;
        }
        Ok(())
    }

    /// Kills the API server and starts it again after so long.
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

    fn resources(&self, kind: &ApiResource) -> Api<DynamicObject> {
        Api::default_namespaced_with(self.client.clone(), kind)
    }

    async fn apply(&self, kind: &ApiResource, mut object: Value) -> Result<()> {
        object["apiVersion"] = json!(kind.api_version);
        object["kind"] = json!(kind.kind);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.resources(kind).patch(&name, &PatchParams::apply("chaos"), &Patch::Apply(&object)).await?;
        Ok(())
    }
}
