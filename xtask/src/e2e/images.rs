//! Builds the images from the Dockerfiles and puts them where a node can load them.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{Node, NodeBinaries};

use super::{NotHere, Result};
use crate::buildah::{Buildah, anew};
use crate::command::{answer, succeed};
use crate::demo::programs::workspace_folder;

/// The operator's image.
pub const OPERATOR: &str = "localhost/mistral-workflows-operator:e2e";
/// The simulator's image.
pub const SIMULATOR: &str = "localhost/mistral-simulator:e2e";

const DOCKERFILES: [(&str, &str); 2] = [(OPERATOR, "Dockerfile"), (SIMULATOR, "tests/simulator/Dockerfile")];

/// Whether images can be built for a node.
pub fn check() -> Result<()> {
    answer(Command::new("buildah").arg("--version")).map(|_| ())
}

/// Builds the images with buildah into OCI archives in the folder. The operator itself is there afterwards as well, for
/// whoever wants to examine a release.
pub fn build(folder: &Path, node: &NodeBinaries) -> Result<Vec<PathBuf>> {
    let buildah = Buildah::new(folder);
    let dockerfile = fs::read_to_string(workspace_folder().join("Dockerfile"))?;
    let mut arguments = Vec::new();
    if let Err(why) = buildah.pull(default_of(&dockerfile, "BUILDER_IMAGE")?) {
        println!("The builder image is out of reach ({why}); building with this machine's own Rust instead.");
        arguments.extend(buildah.local_builder(&[ARCH]).map_err(NotHere::because)?);
    }
    let mut archives = Vec::new();
    for (name, dockerfile) in DOCKERFILES {
        println!("Building {name} from {dockerfile}; minutes, the first time.");
        let dockerfile = workspace_folder().join(dockerfile);
        buildah.bud(name, &dockerfile, workspace_folder(), &arguments)?;
        archives.push(buildah.archive(name, folder)?);
    }
    buildah.take(OPERATOR, "/mistral-workflows-operator", &folder.join("mistral-workflows-operator"))?;
    let pause = folder.join("pause");
    anew(&pause)?;
    fs::copy(&node.pause, pause.join("pause"))?;
    fs::write(pause.join("Dockerfile"), "FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n")?;
    buildah.bud(Node::PAUSE_IMAGE, &pause.join("Dockerfile"), &pause, &[])?;
    archives.push(buildah.archive(Node::PAUSE_IMAGE, folder)?);
    Ok(archives)
}

/// Builds the images with docker and loads them into a cluster that kind has created.
pub fn build_for_kind(cluster: &str) -> Result<()> {
    for (name, dockerfile) in DOCKERFILES {
        let mut docker = Command::new("docker");
        docker.args(["build", "--file", dockerfile, "--tag", name, "."]).current_dir(workspace_folder());
        succeed(&mut docker)?;
        succeed(Command::new("kind").args(["load", "docker-image", "--name", cluster, name]))?;
    }
    Ok(())
}

/// The default of a Dockerfile's argument.
fn default_of<'a>(dockerfile: &'a str, argument: &str) -> Result<&'a str> {
    let start = format!("ARG {argument}=");
    let found = dockerfile.lines().find_map(|line| line.strip_prefix(&start));
    Ok(found.ok_or_else(|| format!("the Dockerfile has no line that begins with `{start}`."))?)
}
