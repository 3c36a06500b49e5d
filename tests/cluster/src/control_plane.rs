use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

use crate::launch::{Launch, Ports, Running};
use crate::progress::say;
use crate::{Binaries, Environment, Error, Supervised};

/// How many starts to attempt when another program takes a port that was free a moment ago.
const ATTEMPTS: u32 = 4;

/// A running control plane. Dropping it, or ending its process, stops it and deletes its data.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped in this order: an API server without its etcd takes long to stop, and so does a client without its API
    // server.
    pub(crate) controller_manager: Option<Supervised>,
    pub(crate) api_server: Supervised,
    pub(crate) etcd: Supervised,
    pub(crate) kubeconfig: PathBuf,
    ports: Ports,
    address: Ipv4Addr,
    without: Option<String>,
    pub(crate) binaries: Binaries,
    pub(crate) folder: TempDir,
}

impl ControlPlane {
    /// Finds or builds the programs according to the process's environment, and starts them.
    ///
    /// Blocks until the API server is ready and its first namespaces exist. This takes seconds, and many minutes on the
    /// first use on a machine.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&Binaries::find_or_build(&Environment::of_process())?)
    }

    /// Starts the given programs.
    pub fn start_with(binaries: &Binaries) -> Result<Self, Error> {
        Self::start_at(binaries, Ipv4Addr::LOCALHOST)
    }

    /// Like [`Self::start`], but with a feature of the API server turned off, as in older API servers
    /// ([feature gates](https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/)).
    pub fn start_without(feature: &str) -> Result<Self, Error> {
        let binaries = Binaries::find_or_build(&Environment::of_process())?;
        Self::start_somewhere(&binaries, Ipv4Addr::LOCALHOST, Some(feature))
    }

    /// Starts the given programs at an address that nodes can reach. Off the loopback interface, all controllers run.
    pub(crate) fn start_at(binaries: &Binaries, address: Ipv4Addr) -> Result<Self, Error> {
        Self::start_somewhere(binaries, address, None)
    }

    /// Starts on free ports.
    fn start_somewhere(binaries: &Binaries, address: Ipv4Addr, without: Option<&str>) -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            match Self::try_start(binaries, address, without) {
                Err(error) if is_port_taken(&error) => {
                    say("another program took a port that had been free");
                }
                result => return result,
            }
        }
        Err(Error::PortTaken { attempts: ATTEMPTS })
    }

    fn try_start(binaries: &Binaries, address: Ipv4Addr, without: Option<&str>) -> Result<Self, Error> {
        let mut folder =
            TempDir::with_prefix("mistral-workflows-cluster-").map_err(Error::io("create a temporary folder"))?;
        let ports = Ports::free().map_err(Error::io("find free ports"))?;
        let launch = Launch { binaries, folder: folder.path(), ports, address, without };
        match launch.run() {
            Ok(Running { etcd, api_server, controller_manager }) => Ok(Self {
                controller_manager,
                api_server,
                etcd,
                kubeconfig: launch.kubeconfig(),
                ports,
                address,
                without: without.map(Into::into),
                binaries: binaries.clone(),
                folder,
            }),
            Err(error) => {
                // The error refers to logs in this folder.
                folder.disable_cleanup(!is_port_taken(&error));
                Err(error)
            }
        }
    }

    /// Ends the API server by `SIGKILL`. etcd and the controllers keep running.
    pub fn kill_api_server(&mut self) -> Result<(), Error> {
        self.api_server.kill().map_err(Error::io("kill kube-apiserver"))?;
        Ok(())
    }

    /// Restarts a killed API server with the same data, address and certificate. Restarts the controllers too if they
    /// have ended with it. Blocks until the API server is ready.
    pub fn restart_api_server(&mut self) -> Result<(), Error> {
        let folder = self.folder.path();
        let without = self.without.as_deref();
        let launch = Launch { binaries: &self.binaries, folder, ports: self.ports, address: self.address, without };
        self.api_server = launch.restart_api_server(&mut self.etcd)?;
        // Controllers that are starting wait only ten seconds for the API server, so the kill may have ended them.
        let has_ended = |controllers: &mut Supervised| {
            controllers.wait_exit(Duration::ZERO).map_err(Error::io("look after kube-controller-manager"))
        };
        if let Some(controllers) = &mut self.controller_manager
            && has_ended(controllers)?.is_some()
        {
            self.controller_manager = launch.start_controller_manager()?;
        }
        Ok(())
    }

    /// Copies the data of etcd. Stops etcd and the API server meanwhile, and blocks until they serve again.
    pub fn snapshot(&mut self) -> Result<TempDir, Error> {
        let copied =
            TempDir::with_prefix("mistral-workflows-snapshot-").map_err(Error::io("create a temporary folder"))?;
        self.with_data_at_rest(|data| copy(data, copied.path()))?;
        Ok(copied)
    }

    /// Replaces the data of etcd by a snapshot of it, as a restore from a backup does. Blocks until the API server
    /// serves it.
    pub fn restore(&mut self, snapshot: &TempDir) -> Result<(), Error> {
        self.with_data_at_rest(|data| {
            fs::remove_dir_all(data)?;
            copy(snapshot.path(), data)
        })
    }

    /// Does something with the data of etcd while neither etcd nor the API server runs.
    fn with_data_at_rest(&mut self, act: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
        self.api_server.stop().map_err(Error::io("stop kube-apiserver"))?;
        self.etcd.stop().map_err(Error::io("stop etcd"))?;
        let folder = self.folder.path();
        let without = self.without.as_deref();
        let launch = Launch { binaries: &self.binaries, folder, ports: self.ports, address: self.address, without };
        act(&launch.data()).map_err(Error::io("copy the data of etcd"))?;
        self.etcd = launch.restart_etcd()?;
        self.restart_api_server()
    }

    /// The API server's process id. It changes with a restart.
    pub fn api_server_pid(&self) -> u32 {
        self.api_server.pid()
    }

    /// The process id of etcd.
    pub fn etcd_pid(&self) -> u32 {
        self.etcd.pid()
    }

    /// An administrator's kubeconfig, valid while the control plane runs.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubectl of the API server's version.
    pub fn kubectl(&self) -> &Path {
        &self.binaries.kubectl
    }

    /// A kubectl command with the administrator's kubeconfig, and with its cache outside of the home folder.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.binaries.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self.folder.path().join("kubectl-cache"));
        command
    }

    /// The folder with the data and the logs. It is deleted with the control plane. Programs that work with the control
    /// plane may log here too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration of a kube-rs client for the administrator.
    pub async fn config(&self) -> Result<kube::Config, Error> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // The proxy comes from the environment, and cannot reach an address of this machine.
        config.proxy_url = None;
        Ok(config)
    }

    /// A kube-rs client for the administrator. A client belongs to the tokio runtime that created it: create one per
    /// runtime.
    ///
    /// Installs *ring* as the process's rustls provider if there is none yet.
    pub async fn client(&self) -> Result<kube::Client, Error> {
        // Fails only if a provider is installed, which then serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        kube::Client::try_from(self.config().await?).map_err(|error| Error::Client(Box::new(error)))
    }
}

/// Copies the files of a folder into another one, which may exist.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn is_port_taken(error: &Error) -> bool {
    matches!(error, Error::Ended { tail, .. } if tail.contains("address already in use"))
}
