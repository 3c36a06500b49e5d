use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use crate::files::{tail, write};
use crate::{Binaries, ControlPlane, Error, NodeBinaries, Supervised};

/// The node's address, which is also the pods' gateway. It exists in the node's network namespace only.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
const PODS: &str = "10.89.0.0/24";
const BRIDGE: &str = "pods0";

const NAME: &str = "node";

/// Long enough for a machine that is busy compiling. An idle machine needs ten seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Prepares the namespaces, runs the command in them, and removes what outlives them. Files written into the folders
/// stay in memory. Kernel settings that kubelet would change for the whole machine go into files instead. The shell
/// keeps running: as the first process of its PID namespace it must reap orphaned processes.
const ENTER: &str = r#"
set -e
for folder in /run /var/log /var/lib/cni /var/lib/kubelet; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
mkdir /run/tmp /run/settings
for setting in vm/overcommit_memory kernel/panic kernel/panic_on_oops; do
    file=/run/settings/${setting#*/}
    cat "/proc/sys/$setting" >"$file"
    mount --bind "$file" "/proc/sys/$setting"
done
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
ip link add "$BRIDGE" type bridge
ip address add "$ADDRESS" dev "$BRIDGE"
ip link set "$BRIDGE" up
status=0
"$@" || status=$?
containers=$(ls /run/containerd/io.containerd.runtime.v2.task/k8s.io 2>/dev/null) || :
if kill -s KILL -- -1 2>/dev/null; then
    sleep 1
    for container in $containers; do
        find /sys/fs/cgroup -depth -type d -path "*/k8s.io/$container*" -exec rmdir {} + || :
    done
fi
exit "$status"
"#;

/// Programs that a node needs besides the built ones, with their Debian packages.
const PROGRAMS: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
];
const NETWORK_PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// A control plane with a node that runs pods: containerd, kubelet, kube-scheduler and kube-proxy, as root, on Linux.
///
/// The node lives in a process [with namespaces of its own](Self::enter). Its network, mounts, pods and files disappear
/// with that process, however the process ends, and never touch those of the machine. Only a killed process leaves
/// something behind: its containers' empty cgroups.
#[derive(Debug)]
pub struct Node {
    // Dropped in this order.
    _kube_proxy: Supervised,
    _kube_scheduler: Supervised,
    kubelet: Supervised,
    _containerd: Supervised,
    control_plane: ControlPlane,
}

impl Node {
    /// The image that holds a pod's namespaces. It contains [`NodeBinaries::pause`]. [Load](Self::load) the image
    /// first.
    pub const PAUSE_IMAGE: &str = "localhost/pause:local";

    /// Checks that this machine has what a node needs, and lets this process create namespaces.
    pub fn check() -> Result<(), Error> {
        let path = env::var_os("PATH").unwrap_or_default();
        let has = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
        let mut missing: Vec<_> = PROGRAMS.into_iter().filter(|(program, _)| !has(program)).collect();
        if network_plugins().is_none() {
            missing.push(("the CNI plugin `bridge`", "containernetworking-plugins"));
        }
        if !missing.is_empty() {
            let (missing, mut packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
            packages.dedup();
            return Err(Error::NodeProgramsMissing { missing, packages });
        }
        output(&mut in_namespaces(&Command::new("true"))).map(|_| ())
    }

    /// Replaces this process with `command` and its arguments, in namespaces for a node. [Start](Self::start) the node
    /// there. Returns only on failure.
    pub fn enter(command: &Command) -> io::Error {
        in_namespaces(command).exec()
    }

    /// Starts a control plane and its node, and waits until the node is ready.
    pub fn start(binaries: &Binaries, node_binaries: &NodeBinaries) -> Result<Self, Error> {
        let control_plane = ControlPlane::start_at(binaries, ADDRESS)?;
        let folder = control_plane.folder();
        let spawn = |name: &str, command: &Command| {
            let log = folder.join(format!("{name}.log"));
            Supervised::spawn(command, &log).map_err(Error::io(format!("start {name}")))
        };
        let path = |name: &str| folder.join(name).display().to_string();
        let kubeconfig = format!("--kubeconfig={}", control_plane.kubeconfig().display());

        write_configuration(folder)?;
        let containerd = spawn("containerd", Command::new("containerd").args(["--config", &path("containerd.toml")]))?;
        let mut kubelet = Command::new(&node_binaries.kubelet);
        kubelet
            .arg(&kubeconfig)
            .arg(format!("--config={}", path("kubelet.yaml")))
            .arg(format!("--root-dir={}", path("kubelet")))
            .arg(format!("--cert-dir={}", path("kubelet-certificates")))
            .arg(format!("--node-ip={ADDRESS}"))
            .arg(format!("--hostname-override={NAME}"));
        let kubelet = spawn("kubelet", &kubelet)?;
        let mut kube_scheduler = Command::new(&node_binaries.kube_scheduler);
        kube_scheduler.arg(&kubeconfig).args(["--leader-elect=false", "--secure-port=0"]);
        let kube_scheduler = spawn("kube-scheduler", &kube_scheduler)?;
        let mut kube_proxy = Command::new(&node_binaries.kube_proxy);
        kube_proxy.arg(format!("--config={}", path("kube-proxy.yaml")));
        let kube_proxy = spawn("kube-proxy", &kube_proxy)?;

        let node = Self {
            _kube_proxy: kube_proxy,
            _kube_scheduler: kube_scheduler,
            kubelet,
            _containerd: containerd,
            control_plane,
        };
        node.wait_until_ready()?;
        Ok(node)
    }

    /// The node's control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Imports an image from an OCI archive, so that pods can run it.
    pub fn load(&self, archive: &Path) -> Result<(), Error> {
        let mut import = containerd_client();
        import.args(["images", "import", "--snapshotter", "native"]).arg(archive);
        output(&mut import).map(|_| ())
    }

    /// Ends the processes of a pod's container by `SIGKILL`.
    pub fn kill(&self, container_id: &str) -> Result<(), Error> {
        output(containerd_client().args(["tasks", "kill", "--signal", "SIGKILL", container_id])).map(|_| ())
    }

    fn wait_until_ready(&self) -> Result<(), Error> {
        let start = Instant::now();
        let mut get = self.control_plane.kubectl_command();
        get.args(["get", "node", NAME, "-o"]).arg(r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#);
        while !output(&mut get).is_ok_and(|ready| ready == "True") {
            if start.elapsed() > READY_WITHIN {
                return Err(Error::NodeNotReady { waited: READY_WITHIN, tail: tail(self.kubelet.log()) });
            }
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}

fn in_namespaces(command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    // No proxy can be reached from these namespaces.
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        unshare.env_remove(name).env_remove(name.to_lowercase());
    }
    unshare
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["/bin/sh", "-c", ENTER, "node"])
        .arg(command.get_program())
        .args(command.get_args())
        .env("ADDRESS", format!("{ADDRESS}/24"))
        .env("BRIDGE", BRIDGE)
        .env("TMPDIR", "/run/tmp");
    unshare
}

fn network_plugins() -> Option<&'static str> {
    NETWORK_PLUGINS.into_iter().find(|folder| Path::new(folder).join("bridge").is_file())
}

fn containerd_client() -> Command {
    let mut command = Command::new("ctr");
    command.args(["--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io"]);
    command
}

fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(Error::io(format!("run {program}")))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Command { command: program, output });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes the configuration files of the components.
fn write_configuration(folder: &Path) -> Result<(), Error> {
    let path = |name: &str| -> PathBuf { folder.join(name) };
    let network = path("cni");
    fs::create_dir(&network).map_err(Error::io(format!("create {}", network.display())))?;
    write(
        &network.join("pods.conflist"),
        &format!(
            r#"{{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{{
    "type": "bridge", "bridge": "{BRIDGE}", "isGateway": true, "hairpinMode": true,
    "ipam": {{ "type": "host-local", "dataDir": "{}", "ranges": [[{{ "subnet": "{PODS}", "gateway": "{ADDRESS}" }}]],
               "routes": [{{ "dst": "0.0.0.0/0" }}] }}
  }}]
}}
"#,
            path("cni-addresses").display(),
        ),
    )?;
    write(
        &path("containerd.toml"),
        &format!(
            r#"version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# A root that is confined itself may not lower it.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".containerd]
# Needs nothing of the file system below it.
snapshotter = "native"
"#,
            root = path("containerd").display(),
            pause = Node::PAUSE_IMAGE,
            plugins = network_plugins().unwrap_or_default(),
            network = network.display(),
        ),
    )?;
    // Never evict pods or collect images, however full the machine's disk is.
    write(
        &path("kubelet.yaml"),
        &format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {ADDRESS}
authentication: {{ anonymous: {{ enabled: true }}, webhook: {{ enabled: false }} }}
authorization: {{ mode: AlwaysAllow }}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
resolvConf: ""
evictionHard: {{ memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%" }}
imageGCHighThresholdPercent: 100
"#
        ),
    )?;
    // Pods share a bridge, so replies between pods would bypass the address translation. Masquerading sends them to the
    // node first.
    write(
        &path("kube-proxy.yaml"),
        &format!(
            r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {{ kubeconfig: "{}" }}
hostnameOverride: {NAME}
conntrack: {{ maxPerCore: 0 }}
iptables: {{ masqueradeAll: true }}
"#,
            folder.join("kubeconfig").display(),
        ),
    )
}
