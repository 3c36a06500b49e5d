use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::files::{tail, write};
use crate::{Binaries, Error, Supervised};

/// Long enough for a machine that is busy compiling. An idle machine needs a few seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(100);

/// The controllers that tests without nodes rely on. Each further controller costs memory and requests.
const CONTROLLERS: &str = "clusterrole-aggregation-controller,garbage-collector-controller,namespace-controller,\
                           root-ca-certificate-publisher-controller,serviceaccount-controller";

/// Ports of the loopback interface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl Ports {
    /// Finds ports that are free now. Nothing reserves them until the components listen.
    pub(crate) fn free() -> io::Result<Self> {
        // All listeners stay open until all ports are found, so that the ports differ.
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (etcd, etcd_peer, api_server) = (listen()?, listen()?, listen()?);
        Ok(Self {
            etcd: etcd.local_addr()?.port(),
            etcd_peer: etcd_peer.local_addr()?.port(),
            api_server: api_server.local_addr()?.port(),
        })
    }
}

/// The components of a control plane that is ready.
pub(crate) struct Running {
    pub(crate) etcd: Supervised,
    pub(crate) api_server: Supervised,
    pub(crate) controller_manager: Option<Supervised>,
}

/// One attempt to start.
pub(crate) struct Launch<'a> {
    pub(crate) binaries: &'a Binaries,
    pub(crate) folder: &'a Path,
    pub(crate) ports: Ports,
    /// The address that the API server listens on. Outside of the loopback interface, it also serves nodes.
    pub(crate) address: Ipv4Addr,
    /// A feature gate of the API server to turn off.
    pub(crate) without: Option<&'a str>,
}

impl Launch<'_> {
    pub(crate) fn run(&self) -> Result<Running, Error> {
        let token = random_token().map_err(Error::io("read /dev/urandom"))?;
        self.write_credentials(&token)?;
        let mut etcd = self.spawn("etcd", &self.etcd_command())?;
        let mut api_server = self.spawn("kube-apiserver", &self.api_server_command())?;
        self.wait_until_ready(&mut etcd, &mut api_server)?;
        // Started last, because it gives up if the API server does not answer soon.
        let controller_manager = self.start_controller_manager()?;
        Ok(Running { etcd, api_server, controller_manager })
    }

    pub(crate) fn start_controller_manager(&self) -> Result<Option<Supervised>, Error> {
        let command = self.controller_manager_command();
        command.map(|command| self.spawn("kube-controller-manager", &command)).transpose()
    }

    /// Starts the API server again, with its credentials and data.
    pub(crate) fn restart_api_server(&self, etcd: &mut Supervised) -> Result<Supervised, Error> {
        let mut api_server = self.spawn("kube-apiserver", &self.api_server_command())?;
        self.wait_until_ready(etcd, &mut api_server)?;
        Ok(api_server)
    }

    /// Starts etcd again, with the data that it finds.
    pub(crate) fn restart_etcd(&self) -> Result<Supervised, Error> {
        self.spawn("etcd", &self.etcd_command())
    }

    /// The folder with etcd's data.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    fn spawn(&self, name: &str, command: &Command) -> Result<Supervised, Error> {
        let log = self.folder.join(format!("{name}.log"));
        // Only etcd's watcher removes the folder: a running etcd would create files in it again.
        let remove = if name == "etcd" { self.folder } else { Path::new("") };
        Supervised::spawn_in(command, &log, remove).map_err(Error::io(format!("start {name}")))
    }

    fn etcd_command(&self) -> Command {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let mut command = Command::new(&self.binaries.etcd);
        command
            .arg(flag_path("data-dir", &self.data()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .arg("--log-level=warn")
            // The data is deleted at the end anyway.
            .arg("--unsafe-no-fsync");
        command
    }

    fn api_server_command(&self) -> Command {
        // The server creates a certificate and its key in --cert-dir before it reads its other keys. So this key can
        // sign the service accounts' tokens as well.
        let key = self.certificates().join("apiserver.key");
        let mut command = Command::new(&self.binaries.kube_apiserver);
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd))
            .arg(format!("--bind-address={}", self.address))
            .arg(format!("--advertise-address={}", self.address))
            .arg(format!("--secure-port={}", self.ports.api_server))
            .arg(flag_path("cert-dir", &self.certificates()))
            .arg(flag_path("token-auth-file", &self.folder.join("tokens.csv")))
            .arg("--authorization-mode=RBAC")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(flag_path("service-account-key-file", &key))
            .arg(flag_path("service-account-signing-key-file", &key))
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg("--profiling=false");
        if let Some(feature) = self.without {
            command.arg(format!("--feature-gates={feature}=false"));
        }
        if self.address.is_loopback() {
            // The endpoint reconciler refuses a loopback address.
            command.arg("--endpoint-reconciler-type=none");
        } else {
            // How the API server reaches kubelets, for the logs of their pods.
            command.arg("--kubelet-preferred-address-types=InternalIP");
        }
        command
    }

    fn controller_manager_command(&self) -> Option<Command> {
        let mut command = Command::new(self.binaries.kube_controller_manager.as_ref()?);
        command
            .arg(flag_path("kubeconfig", &self.kubeconfig()))
            .arg(flag_path("root-ca-file", &self.certificates().join("apiserver.crt")))
            .arg("--leader-elect=false")
            .arg("--use-service-account-credentials=false")
            .arg("--profiling=false")
            // Nothing here uses this port.
            .arg("--secure-port=0");
        if self.address.is_loopback() {
            command.arg(format!("--controllers={CONTROLLERS}"));
        }
        Some(command)
    }

    fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn write_credentials(&self, token: &str) -> Result<(), Error> {
        write(&self.folder.join("tokens.csv"), &format!("{token},admin,admin,\"system:masters\"\n"))?;
        let certificate = self.certificates().join("apiserver.crt");
        let kubeconfig = format!(
            "apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: https://{}:{}
    certificate-authority: '{}'
users:
- name: admin
  user:
    token: {token}
contexts:
- name: test
  context:
    cluster: test
    user: admin
current-context: test
",
            self.address,
            self.ports.api_server,
            certificate.display(),
        );
        write(&self.kubeconfig(), &kubeconfig)
    }

    fn wait_until_ready(&self, etcd: &mut Supervised, api_server: &mut Supervised) -> Result<(), Error> {
        let start = Instant::now();
        let certificate = self.certificates().join("apiserver.crt");
        // The server reports ready a moment before it creates the namespaces.
        let mut paths =
            ["/readyz", "/api/v1/namespaces/default", "/api/v1/namespaces/kube-system"].into_iter().peekable();
        while let Some(path) = paths.peek() {
            fail_if_ended("etcd", etcd)?;
            fail_if_ended("kube-apiserver", api_server)?;
            if certificate.exists() && self.answers(path)? {
                paths.next();
                continue;
            }
            if start.elapsed() > READY_WITHIN {
                return Err(Error::NotReady {
                    waited: READY_WITHIN,
                    folder: self.folder.to_owned(),
                    tail: tail(api_server.log()),
                });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether the API server answers a GET with success. Uses kubectl, which brings TLS and needs no runtime.
    fn answers(&self, path: &str) -> Result<bool, Error> {
        let status = Command::new(&self.binaries.kubectl)
            .arg(flag_path("kubeconfig", &self.kubeconfig()))
            .args(["--request-timeout=5s", "get", "--raw", path])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(Error::io("run kubectl"))?;
        Ok(status.success())
    }
}

fn fail_if_ended(program: &'static str, process: &mut Supervised) -> Result<(), Error> {
    let ended = process.wait_exit(Duration::ZERO).map_err(Error::io(format!("watch {program}")))?;
    match ended {
        None => Ok(()),
        Some(_) => Err(Error::Ended { program, log: process.log().to_owned(), tail: tail(process.log()) }),
    }
}

fn flag_path(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(path);
    flag
}

fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
