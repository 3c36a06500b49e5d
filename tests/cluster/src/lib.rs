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
//! The programs come from the folder that `KUBEBUILDER_ASSETS` names; without it they are built, once per machine,
//! from the Go module in `controlplane/`, which pins their versions ([`Binaries`]).
//! What works with a cluster from outside is built in the same way, when it is asked for, from `gitops/` ([`GitOps`]).
//! [`Node`] adds a node that runs pods, where the machine lets it.
//! Every program ends with the process that started it, however that one ends ([`Supervised`]).

mod binaries;
mod control_plane;
mod environment;
mod error;
mod files;
mod go;
mod kept;
mod launch;
mod node;
mod progress;
mod supervise;

pub use binaries::{Binaries, GitOps, NodeBinaries};
pub use control_plane::ControlPlane;
pub use environment::Environment;
pub use error::Error;
pub use kept::KeptControlPlane;
pub use node::Node;
pub use supervise::Supervised;
