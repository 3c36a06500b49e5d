//! Finds a Python on any machine and gives it its own packages.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::say;

/// The user's `python3` first, then the newest.
const NAMES: &[&str] =
    &["python3", "python3.15", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "python"];

const QUICK: Duration = Duration::from_secs(60);
const INSTALL_LIMIT: Duration = Duration::from_secs(240);

/// A Python and the folder of its packages, unless they are in its own environment.
pub(crate) struct Python {
    program: PathBuf,
    packages: Option<PathBuf>,
}

impl Python {
    /// Installs packages for Python 3.10 or newer, all inside `folder`. The error says why that failed.
    pub(crate) async fn with_packages(requirements: &Path, folder: &Path) -> Result<Self, String> {
        let found = find().await.ok_or_else(|| {
            format!("There is no Python 3.10 or newer: none of {} is one. Install one.", NAMES.join(", "))
        })?;
        let (python, target) = match environment(found, folder).await {
            Some(program) => (Self { program, packages: None }, None),
            // Debian ships Python without the modules that create environments, but pip may be there.
            None => {
                let packages = folder.join("packages");
                (Self { program: found.into(), packages: Some(packages.clone()) }, Some(packages))
            }
        };
        say(&format!("installing Mistral's Python client for {found} into {}", folder.display()));
        let mut pip = python.command();
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        // An unreachable package index should show soon. Compiling a package takes minutes and needs a compiler.
        pip.args(["--retries", "1", "--timeout", "15", "--only-binary", ":all:", "--requirement"]).arg(requirements);
        if let Some(target) = target {
            pip.arg("--target").arg(target);
        }
        let installed = run(&mut pip, INSTALL_LIMIT).await;
        installed.map_err(|output| format!("Its packages cannot be installed for {found}:\n{output}"))?;
        Ok(python)
    }

    /// Runs this Python, independent of the user's variables for Python, proxies and Mistral.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for name in ["PYTHONHOME", "PYTHONPATH", "MISTRAL_API_KEY", "MISTRAL_SA_TOKEN_PATH"] {
            command.env_remove(name);
        }
        if let Some(packages) = &self.packages {
            command.env("PYTHONPATH", packages);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            // pip may need the proxy, so existing exceptions stay.
            let others = std::env::var(name).unwrap_or_default();
            command.env(name, format!("127.0.0.1,{others}"));
        }
        command
    }
}

/// The first Python that is new enough.
async fn find() -> Option<&'static str> {
    for name in NAMES {
        let mut command = Command::new(name);
        command.args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]);
        if run(&mut command, QUICK).await.is_ok() {
            return Some(name);
        }
    }
    None
}

/// Creates an environment and returns its Python.
async fn environment(python: &str, folder: &Path) -> Option<PathBuf> {
    for module in ["venv", "virtualenv"] {
        let place = folder.join(module);
        let mut command = Command::new(python);
        command.args(["-m", module]).arg(&place);
        if run(&mut command, QUICK).await.is_ok() {
            return Some(place.join("bin/python"));
        }
    }
    None
}

/// Runs a command to its end and returns its output. If the command fails, the output is the error.
pub(crate) async fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output()).await;
    let output = output.map_err(|_| format!("{command:?} takes longer than {} s", limit.as_secs()))?;
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{}\n{text}", output.status)) }
}
