//! The environment of the bench: a control plane, and a namespace and a simulator for each measurement.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use cluster::{ControlPlane, Supervised};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client, ResourceExt};
use mistral_simulator::WorkflowSpec;
use mistral_workflows_operator::api::{self, Workflow, WorkflowExecution, Workspace};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::baseline;
use super::measure::{Simulated, Usage};
use crate::demo::Result;
use crate::demo::programs;

const API_KEY: &str = "bench-key";
const LEASE: &str = "bench";
/// How long a program may take to start.
const SOON: Duration = Duration::from_secs(60);
/// How long resources may take to disappear: their finalizers are removed one after the other.
const GONE_WITHIN: Duration = Duration::from_secs(600);
/// How long an API server needs for its internal work on new kinds.
const SETTLES: Duration = Duration::from_secs(5);
/// Creation times are whole seconds. If a resource was created in the second of the operator's own start, the operator
/// first asks the API whether another operator has started the run.
const ANOTHER_SECOND: Duration = Duration::from_secs(1);
/// How many requests to create, change or delete resources are sent at a time.
pub const AT_ONCE: usize = 32;

/// The programs in release builds.
#[derive(Clone, Debug)]
pub struct Built {
    pub operator: PathBuf,
    pub simulator: PathBuf,
    /// Operators of other builds, which are measured in turn with this one.
    pub against: Vec<Against>,
}

/// An operator of another build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Against {
    pub name: String,
    pub operator: PathBuf,
}

impl FromStr for Against {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => {
                Ok(Self { name: name.to_owned(), operator: file.into() })
            }
            _ => Err("give a name and a program, as in before=/tmp/operator".into()),
        }
    }
}

/// A control plane with the CRDs. Dropping it stops the control plane.
pub struct Environment {
    control_plane: ControlPlane,
    /// A client with an administrator's rights.
    pub client: Client,
    built: Built,
    /// Folder for logs.
    folder: PathBuf,
    stages: usize,
    started: usize,
}

impl Environment {
    /// Starts a control plane. Creates `folder` for logs.
    pub async fn start(built: &Built, folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let control_plane = tokio::task::spawn_blocking(ControlPlane::start).await??;
        let client = control_plane.client().await?;
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in api::crds() {
            let name = crd.name_any();
            crds.patch(&name, &PatchParams::apply("bench"), &Patch::Apply(&crd)).await?;
            let established = await_condition(crds.clone(), &name, is_crd_established());
            soon(&format!("the API server to serve {name}"), established).await??;
        }
        sleep(SETTLES).await;
        Ok(Self { control_plane, client, built: built.clone(), folder, stages: 0, started: 0 })
    }

    /// Creates a namespace and a simulator with these workflows. Each call to the simulator takes `latency`.
    pub async fn stage(&mut self, workflows: &[WorkflowSpec], latency: Duration) -> Result<Stage> {
        self.stages += 1;
        let namespace = format!("bench-{}", self.stages);
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
        namespaces.create(&PostParams::default(), &object).await?;
        let file = self.folder.join(format!("workflows-{}.json", self.stages));
        fs::write(&file, serde_json::to_vec(workflows)?)?;
        let mut command = Command::new(&self.built.simulator);
        command.args(["--listen", &format!("{}:0", Ipv4Addr::LOCALHOST)]).arg("--workflows").arg(file);
        command.args(["--workspace", &format!("bench={API_KEY}")]);
        let simulator = Supervised::spawn(&command, &self.folder.join(format!("simulator-{}.log", self.stages)))?;
        let url = programs::address(&simulator).await?;
        let simulated = Simulated::new(&url)?;
        if !latency.is_zero() {
            simulated.latency(latency).await?;
        }
        Ok(Stage { client: self.client.clone(), namespace, simulated, url, simulator })
    }

    /// The API server's process.
    pub fn api_server(&self) -> Usage {
        Usage(self.control_plane.api_server_pid())
    }

    /// The processes that share the machine's processors with the measured program.
    pub fn others(&self, stage: &Stage) -> [(&'static str, Usage); 4] {
        [
            ("kube-apiserver", self.api_server()),
            ("etcd", Usage(self.control_plane.etcd_pid())),
            ("simulator", Usage(stage.simulator.pid())),
            ("bench", Usage(std::process::id())),
        ]
    }

    /// A log file for one more program.
    fn log(&mut self, name: &str) -> PathBuf {
        self.started += 1;
        self.folder.join(format!("{:02}-{name}.log", self.started))
    }

    /// Starts the baseline program and waits until it watches.
    pub async fn baseline(&mut self, stage: &Stage, at_once: usize) -> Result<Program> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["baseline", "--at-once", &at_once.to_string(), "--namespace", &stage.namespace]);
        command.args(["--url", &stage.url]).arg("--kubeconfig").arg(self.control_plane.kubeconfig());
        command.env(baseline::KEY, API_KEY);
        let child = Supervised::spawn(&command, &self.log(&format!("baseline-{at_once}")))?;
        let mut program = Program { name: "the baseline program", child };
        let deadline = Instant::now() + SOON;
        while !fs::read_to_string(program.child.log())?.lines().any(|line| line == baseline::WATCHING) {
            program.check()?;
            if Instant::now() > deadline {
                return Err("the baseline program did not watch in time.".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(program)
    }

    /// Starts the operator for the stage's namespace, and waits until it leads.
    pub async fn operator(&mut self, stage: &Stage, how: How) -> Result<Operator> {
        let operator = self.built.operator.clone();
        self.operator_of(&operator, stage, how).await
    }

    /// The operators to measure in turn: those of other builds, then this one, which has no name.
    pub fn operators(&self) -> Vec<(Option<String>, PathBuf)> {
        let others = self.built.against.iter().map(|other| (Some(other.name.clone()), other.operator.clone()));
        others.chain([(None, self.built.operator.clone())]).collect()
    }

    /// Starts an operator of this build or another one.
    pub async fn operator_of(&mut self, program: &Path, stage: &Stage, how: How) -> Result<Operator> {
        // The port is free now. If another process takes it, the operator ends.
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let lease = if how.elected { LEASE } else { "" };
        let mut command = Command::new(program);
        command
            .args(["run", "--namespace", &stage.namespace, "--allow-base-url", &stage.url, "--log-level", "info"])
            .args(["--listen", &listen.to_string(), "--lease-name", lease, "--lease-namespace", &stage.namespace])
            .args(["--max-requests-per-second", &how.calls_per_second.to_string()])
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .env("NO_COLOR", "1")
            // The simulator is on this machine.
            .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")]);
        let child = Supervised::spawn(&command, &self.log("operator"))?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let mut operator = Operator { program: Program { name: "the operator", child }, http, listen };
        let deadline = Instant::now() + SOON;
        while !operator.leads().await {
            operator.program.check()?;
            if Instant::now() > deadline {
                return Err(format!("the operator was not ready within {SOON:?}.\n{}", operator.program.tail()).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(operator)
    }
}

/// How an operator is started.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Whether a Lease elects the operator, as in the chart.
    pub elected: bool,
    pub calls_per_second: u32,
}

/// A measured program. Dropping it stops the process.
pub struct Program {
    name: &'static str,
    child: Supervised,
}

impl Program {
    /// Fails if the program has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.wait_exit(Duration::ZERO)? {
            None => Ok(()),
            Some(status) => Err(format!("{} ended ({status}):\n{}", self.name, self.tail()).into()),
        }
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        programs::tail(&self.child)
    }

    pub fn usage(&self) -> Usage {
        Usage(self.child.pid())
    }
}

pub struct Operator {
    pub program: Program,
    http: reqwest::Client,
    listen: SocketAddr,
}

impl Operator {
    /// Whether the operator is ready and not on standby.
    async fn leads(&self) -> bool {
        let answer = async { self.http.get(format!("http://{}/readyz", self.listen)).send().await?.text().await };
        answer.await.is_ok_and(|text| text == "ready\n")
    }

    /// Tells the operator to end and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.program.child.stop()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the operator ended with {status} when told to end.").into())
        }
    }
}

/// A namespace and a simulator. Dropping it stops the simulator.
pub struct Stage {
    client: Client,
    pub namespace: String,
    pub simulated: Simulated,
    url: String,
    simulator: Supervised,
}

impl Stage {
    /// Creates a Workspace for the simulator with this resync interval.
    pub async fn furnish(&self, resync: &str) -> Result<()> {
        let secret = json!({ "metadata": { "name": "mistral" }, "stringData": { "api-key": API_KEY } });
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
        let auth = json!({ "apiKeySecretRef": { "name": "mistral", "key": "api-key" } });
        let spec = json!({ "baseURL": self.url, "auth": auth, "resyncInterval": resync });
        self.create::<Workspace>("default", &spec).await?;
        Ok(())
    }

    /// When the operator that leads became the leader.
    pub async fn leads_since(&self) -> Result<Timestamp> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let acquired = leases.get(LEASE).await?.spec.and_then(|spec| spec.acquire_time);
        Ok(acquired.ok_or("the Lease has no acquireTime.")?.0)
    }

    /// Waits until an operator has accepted the Workspace.
    pub async fn until_accepted(&self) -> Result<()> {
        let ready = |object: Option<&DynamicObject>| {
            let conditions = object.and_then(|object| object.data["status"]["conditions"].as_array());
            conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
        };
        let workspaces = self.api(&ApiResource::erase::<Workspace>(&()));
        soon("the operator to accept the Workspace", await_condition(workspaces, "default", ready)).await??;
        sleep(ANOTHER_SECOND).await;
        Ok(())
    }

    pub fn executions(&self) -> Api<DynamicObject> {
        self.api(&ApiResource::erase::<WorkflowExecution>(&()))
    }

    pub fn workflows(&self) -> Api<DynamicObject> {
        self.api(&ApiResource::erase::<Workflow>(&()))
    }

    /// Sets the resync interval.
    pub async fn resync(&self, every: &str) -> Result<()> {
        let patch = json!({ "spec": { "resyncInterval": every } });
        let workspaces = self.api(&ApiResource::erase::<Workspace>(&()));
        workspaces.patch("default", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Creates a resource and returns its UID.
    pub async fn create<K: kube::Resource<DynamicType = ()>>(&self, name: &str, spec: &Value) -> Result<String> {
        let kind = ApiResource::erase::<K>(&());
        let object = DynamicObject::new(name, &kind).data(json!({ "spec": spec }));
        let created = self.api(&kind).create(&PostParams::default(), &object).await?;
        Ok(created.uid().unwrap_or_default())
    }

    /// Deletes the executions, and waits until they are gone.
    pub async fn clear(&self, program: &mut Program) -> Result<()> {
        let executions = self.executions();
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let left = executions.list_metadata(&ListParams::default()).await?.items;
            if left.is_empty() {
                return Ok(());
            }
            let doomed = left.iter().filter(|object| object.metadata.deletion_timestamp.is_none());
            stream::iter(doomed.map(ResourceExt::name_any))
                .map(Ok::<_, kube::Error>)
                .try_for_each_concurrent(AT_ONCE, async |name| {
                    match executions.delete(&name, &DeleteParams::default()).await {
                        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
                        answer => answer.map(|_| ()),
                    }
                })
                .await?;
            program.check()?;
            if Instant::now() > deadline {
                return Err(
                    format!("{} executions are not gone {GONE_WITHIN:?} after their deletion.", left.len()).into()
                );
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn api(&self, kind: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, kind)
    }
}

/// Waits at most `SOON`.
async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::time::timeout(SOON, waiting).await.map_err(|_| format!("waited in vain for {what}, for {SOON:?}."))?)
}
