//! Builds, starts and calls the operator and the simulator.

use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use cluster::Supervised;
use mistral_simulator::{Behaviour, DeploymentSpec, Outcome, WorkflowSpec};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Result;
use super::environment::Environment;

const OPERATOR: &str = "mistral-workflows-operator";
const SIMULATOR: &str = "mistral-simulator";
const XTASK: &str = "xtask";

/// How long the simulator may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

pub struct Binaries {
    pub operator: PathBuf,
    pub simulator: PathBuf,
    /// This program.
    pub xtask: PathBuf,
}

impl Binaries {
    /// Builds the programs, with cargo's own progress on standard error.
    pub fn build() -> Result<Self> {
        Self::build_with(&[])
    }

    /// Builds the programs for release: timings of a debug build mean nothing.
    pub fn build_release() -> Result<Self> {
        Self::build_with(&["--release"])
    }

    fn build_with(arguments: &[&str]) -> Result<Self> {
        let mut cargo = Command::new(env!("CARGO"));
        // Build the whole workspace, as `cargo test --workspace` does. For a part of it, cargo would choose other
        // features of the dependencies and compile them again.
        cargo.args(["build", "--workspace", "--bins", "--locked", "--message-format", "json-render-diagnostics"]);
        cargo.args(arguments);
        cargo.current_dir(workspace_folder()).stderr(Stdio::inherit());
        // `cargo run` sets these variables for this program's package. Some build scripts would take them for a change.
        for (name, _) in env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
                cargo.env_remove(name);
            }
        }
        let output = cargo.output().map_err(|error| format!("cargo does not start: {error}."))?;
        if !output.status.success() {
            return Err("the build failed; cargo says why above.".into());
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let built: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let find = |name: &str| {
            let is_it = |message: &&Value| message["target"]["name"] == name && message["executable"].is_string();
            let file = built.iter().find(is_it).and_then(|message| message["executable"].as_str());
            file.map(PathBuf::from).ok_or_else(|| format!("cargo did not say where it built {name}."))
        };
        Ok(Self { operator: find(OPERATOR)?, simulator: find(SIMULATOR)?, xtask: find(XTASK)? })
    }
}

/// The folder of the repository, which contains `examples/`.
pub fn workspace_folder() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The running programs. Dropping them stops them, the operator first.
pub struct Programs {
    pub operator: Supervised,
    pub simulator: Supervised,
    /// URL of the simulated API.
    pub url: String,
}

impl Programs {
    /// Starts a simulator that knows the examples' workflows and the API key, and an operator that may call it.
    pub async fn start(binaries: &Binaries, environment: &Environment, key: &str) -> Result<Self> {
        let workflows = environment.folder().join("workflows.json");
        let known: Vec<WorkflowSpec> = workflows_of_the_examples().into_iter().chain(workflows_to_try()).collect();
        fs::write(&workflows, serde_json::to_vec_pretty(&known)?)
            .map_err(|error| format!("{} cannot be written: {error}.", workflows.display()))?;
        let mut command = Command::new(&binaries.simulator);
        command.args(["--listen", &format!("{}:0", Ipv4Addr::LOCALHOST)]).arg("--workflows").arg(workflows);
        command.args(["--workspace", &format!("demo={key}"), "--only-listed-tokens"]);
        let simulator = spawn(&command, &environment.folder().join("simulator.log"))?;
        let url = address(&simulator).await?;

        let mut command = Command::new(&binaries.operator);
        command
            .args(["run", "--allow-base-url", &url, "--listen", &format!("{}:0", Ipv4Addr::LOCALHOST)])
            .args(environment.operator_arguments())
            .envs(environment.environment())
            .env("NO_COLOR", "1")
            // The simulator is on this machine.
            .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")]);
        let operator = spawn(&command, &environment.folder().join("operator.log"))?;
        Ok(Self { operator, simulator, url })
    }
}

/// Waits until a program ends.
pub async fn ended(program: &mut Supervised) -> ExitStatus {
    loop {
        if let Ok(Some(status)) = program.wait_exit(Duration::ZERO) {
            return status;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The ledger of the simulator at this address: one entry per execution id.
pub async fn ledger(url: &str) -> Result<Vec<Value>> {
    let url = format!("{url}/__sim/executions");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let answer = async { client.get(&url).send().await?.error_for_status()?.json::<Value>().await };
    let mut ledger = answer.await.map_err(|error| format!("the simulator does not show its ledger: {error}."))?;
    match ledger["executions"].take() {
        Value::Array(entries) => Ok(entries),
        other => Err(format!("the simulator's ledger is no list, but {other}.").into()),
    }
}

/// The simulated API as another client with the same key uses it.
pub struct Api {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Api {
    pub fn new(url: &str, key: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { http, url: format!("{url}/v1/workflows"), key: key.to_owned() })
    }

    /// These workflows as the API describes them.
    pub async fn workflows(&self, names: &[&str]) -> Result<Vec<Value>> {
        let mut workflows = Vec::new();
        for name in names {
            let mut answer = self.send(self.http.get(format!("{}/{name}", self.url))).await?;
            workflows.push(answer["workflow"].take());
        }
        Ok(workflows)
    }

    /// Changes display fields of a workflow.
    pub async fn edit(&self, name: &str, fields: &Value) -> Result<()> {
        self.send(self.http.put(format!("{}/{name}", self.url)).json(fields)).await.map(|_| ())
    }

    pub async fn unarchive(&self, name: &str) -> Result<()> {
        self.send(self.http.put(format!("{}/{name}/unarchive", self.url))).await.map(|_| ())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let answer = async { request.bearer_auth(&self.key).send().await?.error_for_status()?.json::<Value>().await };
        Ok(answer.await.map_err(|error| format!("the simulator does not do what it was asked: {error}."))?)
    }
}

/// The last lines of a program's log.
pub fn tail(program: &Supervised) -> String {
    const LINES: usize = 20;
    let text = fs::read(program.log()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The workflows that `examples/` names. A run's result is its input.
pub fn workflows_of_the_examples() -> [WorkflowSpec; 4] {
    let workflow = |name: &str, behaviour| WorkflowSpec { behaviour: Some(behaviour), ..WorkflowSpec::new(name) };
    let lasting = |seconds: u64| Behaviour { duration_ms: Some(seconds * 1000), ..Behaviour::default() };
    let error = Some("the payment of customer c-4711 was declined".to_owned());
    [
        workflow("hello-world", lasting(2)),
        workflow("nightly-report", lasting(4)),
        workflow("old-report", lasting(4)),
        workflow("always-fails", Behaviour { outcome: Outcome::Fail, error, ..lasting(1) }),
    ]
}

/// Workflows that show what else can happen: a run that never ends, an input that is refused, an ambiguous start.
fn workflows_to_try() -> [WorkflowSpec; 3] {
    let hangs = Behaviour { outcome: Outcome::Hang, ..Behaviour::default() };
    let input_schema = serde_json::json!({
        "type": "object", "required": ["customer"], "properties": { "customer": { "type": "string" } },
    });
    let deployment = |name: &str| DeploymentSpec { name: name.to_owned(), active: true };
    [
        WorkflowSpec { behaviour: Some(hangs), ..WorkflowSpec::new("never-ends") },
        WorkflowSpec { input_schema: Some(input_schema), ..WorkflowSpec::new("needs-input") },
        WorkflowSpec {
            deployments: Some(vec![deployment("blue"), deployment("green")]),
            ..WorkflowSpec::new("two-deployments")
        },
    ]
}

/// The names of the [workflows to try](workflows_to_try), and what comes of an execution that names nothing else.
pub const TO_TRY: [(&str, &str); 3] = [
    ("never-ends", "runs until you stop or delete it"),
    ("needs-input", "is refused: it lacks input.customer"),
    ("two-deployments", "waits for deploymentName: blue or green"),
];

fn spawn(command: &Command, log: &Path) -> Result<Supervised> {
    let program = command.get_program().display();
    Supervised::spawn(command, log).map_err(|error| format!("{program} does not start: {error}.").into())
}

/// The address in the simulator's first line of output, once the line is there.
pub async fn address(simulator: &Supervised) -> Result<String> {
    let deadline = Instant::now() + LISTENS_WITHIN;
    while Instant::now() < deadline {
        let log = fs::read_to_string(simulator.log()).unwrap_or_default();
        let whole_lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        if let Some(url) = whole_lines.filter_map(|line| line.strip_prefix("listening on ")).next() {
            return Ok(url.to_owned());
        }
        sleep(Duration::from_millis(20)).await;
    }
    let waited = LISTENS_WITHIN.as_secs();
    Err(format!("the simulator did not listen within {waited} s. Its log:\n{}", tail(simulator)).into())
}
