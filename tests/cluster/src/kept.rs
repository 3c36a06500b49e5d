use std::path::PathBuf;
use std::process::Command;

use crate::files::write;
use crate::{ControlPlane, Error, Supervised};

/// A control plane that outlives the process that started it.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeptControlPlane {
    /// An administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// A kubectl of the API server's version.
    pub kubectl: PathBuf,
    /// The shell command that stops everything and removes the folder with the data and the logs.
    pub stop_command: String,
}

/// A shell script that stops these programs, in this order. It leaves a process alone that is not the one it was
/// written for: a process id is given to another process once the machine has used all others, or after a restart.
pub fn stop_script(programs: &[Supervised]) -> Result<String, Error> {
    let functions = concat!(include_str!("stop.sh"), include_str!("kept.sh"));
    let mut script = functions.to_owned();
    for program in programs {
        let pid = program.pid().to_string();
        let ask = format!("{functions}identity \"$1\"");
        let output = Command::new("/bin/sh").args(["-c", &ask, "identity", &pid]).output();
        let output = output.map_err(Error::io("ask when a program started"))?;
        let identity = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
        script += &format!("stop_same {pid} '{identity}'\n");
    }
    Ok(script)
}

impl ControlPlane {
    /// Lets the control plane outlive this process, together with `others` that work with it.
    pub fn keep(self, others: Vec<Supervised>) -> Result<KeptControlPlane, Error> {
        let folder = self.folder.path().to_owned();
        // In the order in which to stop them: an API server must not lose its etcd.
        let programs: Vec<Supervised> =
            others.into_iter().chain(self.controller_manager).chain([self.api_server, self.etcd]).collect();

        let script = stop_script(&programs)? + &format!("rm -rf '{}'\n", folder.display());
        write(&folder.join("stop"), &script)?;

        for program in programs {
            program.keep();
        }
        Ok(KeptControlPlane {
            kubeconfig: self.kubeconfig,
            kubectl: self.binaries.kubectl,
            stop_command: format!("sh '{}'", self.folder.keep().join("stop").display()),
        })
    }
}
