use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the control plane cannot start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `PATH` has no `go`.
    #[error(
        "Go is needed to build the test control plane, Helm and the like (kube-apiserver has no other source here): \
         install Go {needed} or newer from https://go.dev/dl, or set KUBEBUILDER_ASSETS to a folder with etcd, \
         kube-apiserver, kubectl and, optionally, kube-controller-manager"
    )]
    GoMissing {
        /// The version that go.mod asks for.
        needed: String,
    },

    /// The `go` in `PATH` is older than go.mod asks for.
    #[error(
        "Go {needed} or newer is needed to build the test control plane, and {found} was found: \
         install a newer one from https://go.dev/dl, or set KUBEBUILDER_ASSETS to a folder with ready programs"
    )]
    GoTooOld {
        /// The output of `go env GOVERSION`.
        found: String,
        /// The version that go.mod asks for.
        needed: String,
    },

    /// `go env GOVERSION` failed.
    #[error("`go env GOVERSION` failed; repair the Go installation. It said:\n{output}")]
    GoBroken {
        /// What it wrote to stderr.
        output: String,
    },

    /// `go build` failed.
    #[error(
        "building {program} failed; after a failed download, check GOPROXY and the network, then start again: \
         what is built already is kept. `go build` ended with:\n{output}"
    )]
    Build {
        /// The program being built.
        program: &'static str,
        /// The last lines of the output.
        output: String,
    },

    /// The disk filled up during a build.
    #[error(
        "no space left while building {program}: the first build of the control plane needs about 6 GB, \
         most of it in Go's caches (see `go env GOCACHE GOMODCACHE GOTMPDIR`), 320 MB in {cache}; \
         make room and start again, what is built already is kept"
    )]
    NoSpace {
        /// The program being built.
        program: &'static str,
        /// The folder for built programs.
        cache: PathBuf,
    },

    /// There is no module for this version of Kubernetes.
    #[error("there is no control plane of Kubernetes {version}; there are {newest}, which is the default, {}", .known.join(", "))]
    UnknownKubernetes {
        /// The version that was asked for.
        version: String,
        /// The older minor versions that there are.
        known: Vec<&'static str>,
        /// The default version.
        newest: &'static str,
    },

    /// Ready programs have the version that they have.
    #[error("KUBEBUILDER_ASSETS names ready programs, so Kubernetes {version} cannot be chosen: unset one of the two")]
    VersionOfAssets {
        /// The version that was asked for.
        version: String,
    },

    /// `KUBEBUILDER_ASSETS` names a folder without one of the programs.
    #[error(
        "KUBEBUILDER_ASSETS is {folder}, which has no {program}: \
         point it at a folder that has etcd, kube-apiserver and kubectl, or unset it to have them built"
    )]
    AssetMissing {
        /// The folder.
        folder: PathBuf,
        /// The missing file.
        program: &'static str,
    },

    /// `KUBEBUILDER_ASSETS` names a folder without kube-controller-manager, which creates the pods of Deployments.
    #[error(
        "KUBEBUILDER_ASSETS is {folder}, which has no kube-controller-manager, so that no Deployment would ever get a \
         pod: put one there, or unset it to have all programs built"
    )]
    ControllerManagerMissing {
        /// The folder.
        folder: PathBuf,
    },

    /// The user's cache folder is unknown.
    #[error("no home folder: set HOME or XDG_CACHE_HOME, so that the built control plane can be kept")]
    NoCacheFolder,

    /// A component ended before the control plane was ready.
    #[error("{program} ended while the control plane was starting; its log is {log} and ends with:\n{tail}")]
    Ended {
        /// The component.
        program: &'static str,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// Other programs took ports that had just been free, on several consecutive attempts.
    #[error(
        "another program took the control plane's ports {attempts} times in a row: start again, \
         and if it happens again, look for a program that takes many local ports"
    )]
    PortTaken {
        /// The number of attempts.
        attempts: u32,
    },

    /// The control plane runs but does not become ready.
    #[error(
        "the control plane was not ready after {waited:?} (is the machine overloaded?); \
         its logs are in {folder}, and kube-apiserver's ends with:\n{tail}"
    )]
    NotReady {
        /// How long the start was given.
        waited: Duration,
        /// The folder with the logs.
        folder: PathBuf,
        /// The last lines of the API server's log.
        tail: String,
    },

    /// This machine lacks programs that a node needs.
    #[error("a node needs Linux, root, and {}; on Debian or Ubuntu: apt-get install {}", .missing.join(", "), .packages.join(" "))]
    NodeProgramsMissing {
        /// The programs.
        missing: Vec<&'static str>,
        /// The Debian packages that contain the programs.
        packages: Vec<&'static str>,
    },

    /// The node's components run, but the node does not become ready.
    #[error("the node was not ready after {waited:?}; kubelet's log ends with:\n{tail}")]
    NodeNotReady {
        /// How long the start was given.
        waited: Duration,
        /// The last lines of kubelet's log.
        tail: String,
    },

    /// A command failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command.
        command: String,
        /// What it wrote to stderr.
        output: String,
    },

    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// kube-rs refused the kubeconfig.
    #[error("kube-rs cannot use the control plane's kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),

    /// kube-rs could not make a client.
    #[error("kube-rs cannot make a client for the control plane: {0}")]
    Client(#[source] Box<kube::Error>),
}

impl Error {
    /// For `map_err`: wraps an I/O error and says what was attempted.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
