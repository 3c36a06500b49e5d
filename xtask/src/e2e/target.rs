//! The cluster under test. The test uses it only through kubectl and Helm, as a user would.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster::Node;
use serde_json::Value;
use tempfile::TempDir;

use super::Result;
use crate::demo::programs::workspace_folder;

/// The operator's namespace.
pub const OPERATOR: &str = "mistral-e2e-operator";
/// The resources' namespace.
pub const TEAM: &str = "mistral-e2e-team";
/// The simulator's namespace.
pub const SIMULATOR: &str = "mistral-e2e-simulator";

/// A cluster, and the programs to use it.
pub struct Target {
    /// The node, if the test has started one.
    pub node: Option<Node>,
    /// The kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    pub kubectl: PathBuf,
    pub helm: PathBuf,
    /// Temporary files.
    pub folder: TempDir,
}

impl Target {
    /// Runs kubectl in the repository's folder. Prints the command and its output, and returns the output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, None)
    }

    /// Like [`kubectl`](Self::kubectl), with this standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        println!("$ kubectl {}", arguments.join(" "));
        let text = run(self.command(&self.kubectl, arguments), input)?;
        print!("{text}");
        Ok(text)
    }

    /// Runs `kubectl wait` for these resources.
    pub fn wait(&self, namespace: &str, condition: &str, resources: &[&str], seconds: u32) -> Result<()> {
        let (condition, timeout) = (format!("--for={condition}"), format!("--timeout={seconds}s"));
        let wait = ["-n", namespace, "wait", &condition, &timeout];
        self.kubectl(&[&wait[..], resources].concat()).map(|_| ())
    }

    /// Runs kubectl and prints nothing.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        run(self.command(&self.kubectl, arguments), None)
    }

    /// What these resources have at a JSONPath. Prints nothing.
    pub fn field(&self, namespace: &str, resources: &[&str], path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        self.ask(&[&["-n", namespace, "get", "-o", &path][..], resources].concat())
    }

    /// Starts to create the objects in a file.
    pub fn begin_to_create(&self, file: &Path) -> Result<std::process::Child> {
        println!("$ kubectl create -f {}", file.display());
        let mut command = self.command(&self.kubectl, &["create", "-f"]);
        Ok(command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
    }

    /// Runs Helm. Prints the command, and its output up to the notes.
    pub fn helm(&self, arguments: &[&str]) -> Result<()> {
        println!("$ helm {}", arguments.join(" "));
        let text = run(self.command(&self.helm, arguments), None)?;
        text.lines().take_while(|line| *line != "NOTES:").for_each(|line| println!("{line}"));
        Ok(())
    }

    /// The simulator's answer to a request under `/__sim/`.
    pub fn simulator(&self, verb: &str, path: &str, body: Option<&Value>) -> Result<String> {
        let proxy = format!("/api/v1/namespaces/{SIMULATOR}/services/simulator:80/proxy/__sim/{path}");
        let mut command = self.command(&self.kubectl, &[verb, "--raw", &proxy]);
        if let Some(body) = body {
            let file = self.write("body.json", &body.to_string())?;
            command.arg("-f").arg(file);
        }
        run(command, None)
    }

    /// The simulator's ledger: one entry per execution id.
    pub fn ledger(&self) -> Result<Vec<Value>> {
        let mut ledger: Value = serde_json::from_str(&self.simulator("get", "executions", None)?)?;
        match ledger["executions"].take() {
            Value::Array(entries) => Ok(entries),
            other => Err(format!("the simulator's ledger is no list, but {other}.").into()),
        }
    }

    /// Writes a file for a command.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.folder.path().join(name);
        fs::write(&file, text).map_err(|error| format!("{} cannot be written: {error}.", file.display()))?;
        Ok(file)
    }

    /// Prints what a person would inspect first after a failure.
    pub fn show_the_trouble(&self) {
        let pods = "app.kubernetes.io/component=operator";
        for arguments in [
            &["-n", OPERATOR, "logs", "--prefix", "--tail=60", "--all-containers", "-l", pods][..],
            &["-n", SIMULATOR, "logs", "--tail=20", "simulator"],
            &["get", "all,mistral", "--all-namespaces"],
            &["get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp"],
        ] {
            if let Err(error) = self.kubectl(arguments) {
                println!("{error}");
            }
        }
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(workspace_folder());
        command.env("KUBECONFIG", &self.kubeconfig);
        let home = self.folder.path();
        command.env("KUBECACHEDIR", home.join("kubectl"));
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, home.join(name));
        }
        command
    }
}

/// Polls until `question` returns true.
pub fn until(what: &str, limit: Duration, mut question: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !question()? {
        if began.elapsed() > limit {
            return Err(format!("not within {} s: {what}.", limit.as_secs()).into());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn run(mut command: Command, input: Option<&str>) -> Result<String> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program} does not start: {error}."))?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(format!("{program} failed: {}\n{}", complaint.trim(), said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
