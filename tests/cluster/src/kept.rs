use std::path::PathBuf;

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

impl ControlPlane {
    /// Lets the control plane outlive this process, together with `others` that work with it.
    pub fn keep(self, others: Vec<Supervised>) -> Result<KeptControlPlane, Error> {
        let folder = self.folder.path().to_owned();
        // In the order in which to stop them: an API server must not lose its etcd.
        let programs: Vec<Supervised> =
            others.into_iter().chain(self.controller_manager).chain([self.api_server, self.etcd]).collect();

        let mut script = String::from(include_str!("stop.sh"));
        for program in &programs {
            script += &format!("stop {}\n", program.pid());
        }
        script += &format!("rm -rf '{}'\n", folder.display());
        let file = folder.join("stop");
        write(&file, &script)?;

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
