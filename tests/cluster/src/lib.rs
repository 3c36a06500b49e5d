//! A real Kubernetes control plane for tests and demos: etcd, kube-apiserver and kube-controller-manager,
//! without nodes, on free ports of the loopback interface.
//!
//! ```no_run
//! # async fn example() -> Result<(), cluster::Error> {
//! let control_plane = cluster::ControlPlane::start()?;
//! let client = control_plane.client().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The programs come from the folder in `KUBEBUILDER_ASSETS`. Without that variable, they are built once per machine
//! from the Go module in `controlplane/`, which pins their versions ([`Binaries`]). `KUBERNETES_VERSION` chooses an older API
//! server, pinned in `kubernetes/`.
//! Tools that work with a cluster from outside are built from `gitops/` in the same way, on demand ([`GitOps`]), and those that
//! publish a release from `release/` ([`ReleaseTools`]); promtool, which checks metrics and alerts, from `prometheus/`.
//! [`Node`] adds a node that runs pods, if the machine allows it.
//! Every program ends with the process that started it, however that process ends ([`Supervised`]).

mod binaries;
mod control_plane;
mod environment;
mod error;
mod files;
mod go;
mod kept;
mod launch;
mod manifest;
mod node;
mod progress;
mod supervise;

pub use binaries::{Binaries, GitOps, NodeBinaries, ReleaseTools, find_or_build_actionlint, find_or_build_promtool};
pub use control_plane::ControlPlane;
pub use environment::Environment;
pub use error::Error;
pub use kept::{KeptControlPlane, stop_script};
pub use node::Node;
pub use supervise::Supervised;
