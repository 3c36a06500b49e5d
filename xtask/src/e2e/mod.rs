//! `cargo xtask e2e`: tests the image, the chart and the operator as users have them, in a cluster with a node.
//!
//! The test uses only kubectl and Helm. The simulated Mistral API is a pod beside the operator. In the end, its ledger
//! must agree with the resources.

mod failover;
mod images;
mod scenario;
mod simulator;
mod target;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use cluster::{Binaries, Environment, GitOps, Node, NodeBinaries};
use tempfile::TempDir;

use crate::command::succeed;
use crate::demo::{Result, heading};
use scenario::Images;
use target::Target;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Use the cluster of this kubeconfig, which must be able to pull both images.
    #[arg(long, value_name = "FILE", requires_all = ["image", "simulator_image"])]
    kubeconfig: Option<PathBuf>,
    /// Operator image, with its tag.
    #[arg(long, value_name = "IMAGE:TAG", requires = "kubeconfig")]
    image: Option<String>,
    /// Simulator image (tests/simulator/Dockerfile).
    #[arg(long, value_name = "IMAGE:TAG", requires = "kubeconfig")]
    simulator_image: Option<String>,
    /// Use a cluster that kind has created, and build the images with docker.
    #[arg(long, value_name = "CLUSTER", num_args = 0..=1, default_missing_value = "kind", conflicts_with = "kubeconfig")]
    kind: Option<String>,
    /// Only report whether this machine can have a node of its own.
    #[arg(long)]
    check: bool,
    /// Continue with these image archives, in a process that has the namespaces that a node needs.
    #[arg(long, hide = true, value_name = "FILE", num_args = 1..)]
    on_node: Vec<PathBuf>,
}

/// The exit code for [`NotHere`].
pub const NOT_HERE: u8 = 3;

/// This machine cannot have a node or build images, which says nothing about the operator.
#[derive(Debug)]
pub struct NotHere(String);

impl std::fmt::Display for NotHere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this machine cannot have a node, or build images for one: {}", self.0)
    }
}

impl std::error::Error for NotHere {}

impl NotHere {
    fn because(error: impl std::fmt::Display) -> Box<dyn std::error::Error + Send + Sync> {
        Box::new(Self(error.to_string()))
    }
}

/// Runs the end-to-end test. Fails if anything went wrong.
pub fn run(options: Options) -> Result<()> {
    if options.check {
        return check();
    }
    let local = || Images { operator: images::OPERATOR.to_owned(), simulator: images::SIMULATOR.to_owned() };
    if !options.on_node.is_empty() {
        on_node(&options.on_node, &local())
    } else if let (Some(kubeconfig), Some(operator), Some(simulator)) =
        (options.kubeconfig, options.image, options.simulator_image)
    {
        let kubeconfig =
            fs::canonicalize(&kubeconfig).map_err(|error| format!("{}: {error}.", kubeconfig.display()))?;
        on_cluster(kubeconfig, folder()?, &Images { operator, simulator })
    } else if let Some(cluster) = options.kind {
        timed("Building the images with docker", || images::build_for_kind(&cluster))?;
        let folder = folder()?;
        let kubeconfig = folder.path().join("kubeconfig");
        let mut kind = Command::new("kind");
        kind.args(["export", "kubeconfig", "--name", &cluster, "--kubeconfig"]).arg(&kubeconfig);
        succeed(&mut kind)?;
        on_cluster(kubeconfig, folder, &local())
    } else {
        prepare_node()
    }
}

fn check() -> Result<()> {
    Node::check().map_err(NotHere::because)?;
    images::check().map_err(NotHere::because)
}

/// Builds everything for a node, and replaces this process by one that has a node.
fn prepare_node() -> Result<()> {
    check()?;
    let environment = Environment::of_process();
    Binaries::find_or_build_for_node(&environment)?;
    GitOps::find_or_build(&environment)?;
    let node = NodeBinaries::find_or_build(&environment)?;
    let own = env::current_exe()?;
    // Next to the folder in which cargo has put this program.
    let target = own.parent().and_then(Path::parent).ok_or("this program is in no target folder.")?;
    let folder = target.join("e2e");
    fs::create_dir_all(&folder)?;
    let archives = timed("Building the images from their Dockerfiles", || images::build(&folder, &node))?;
    let error = Node::enter(Command::new(&own).args(["e2e", "--on-node"]).args(archives));
    Err(format!("unshare does not start: {error}.").into())
}

fn on_node(archives: &[PathBuf], images: &Images) -> Result<()> {
    let environment = Environment::of_process();
    let node = timed("Starting a node: containerd, kubelet, kube-scheduler, kube-proxy and a control plane", || {
        let binaries = (Binaries::find_or_build_for_node(&environment)?, NodeBinaries::find_or_build(&environment)?);
        let node = Node::start(&binaries.0, &binaries.1).map_err(NotHere::because)?;
        archives.iter().try_for_each(|archive| node.load(archive))?;
        Ok(node)
    })?;
    let target = Target {
        kubeconfig: node.control_plane().kubeconfig().to_owned(),
        kubectl: node.control_plane().kubectl().to_owned(),
        helm: GitOps::find_or_build(&environment)?.helm,
        folder: folder()?,
        node: Some(node),
    };
    scenario::run(&target, images).inspect_err(|_| target.show_the_trouble())
}

/// Tests in an existing cluster, and then removes everything that the test has created.
fn on_cluster(kubeconfig: PathBuf, folder: TempDir, images: &Images) -> Result<()> {
    let environment = Environment::of_process();
    let kubectl = Binaries::find_or_build(&environment)?.kubectl;
    let target = Target { node: None, kubeconfig, kubectl, helm: GitOps::find_or_build(&environment)?.helm, folder };
    scenario::refuse_foreign_crds(&target)?;
    let outcome = scenario::run(&target, images).inspect_err(|_| target.show_the_trouble());
    heading("Cleaning up");
    let remains = scenario::clean_up(&target);
    outcome.and(remains)
}

fn folder() -> Result<TempDir> {
    let folder = TempDir::with_prefix("mistral-workflows-e2e-");
    folder.map_err(|error| format!("no temporary folder can be made: {error}.").into())
}

/// Runs a step, with a heading before it and its duration after it.
fn timed<T>(title: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(title);
    let began = Instant::now();
    let result = step()?;
    println!("    {:.1} s", began.elapsed().as_secs_f64());
    Ok(result)
}
