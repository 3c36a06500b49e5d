//! Builds the operator's image for each architecture. All are compiled here, by this machine's Rust.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{OPERATOR, VERSION, target};
use crate::buildah::Buildah;
use crate::command::answer;
use crate::demo::programs::workspace_folder;
use crate::demo::{Result, heading};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Architectures of the images.
    #[arg(long = "architecture", value_name = "NAME", value_enum, default_values = ["amd64", "arm64"])]
    pub architectures: Vec<Architecture>,
    /// Folder for the images, as OCI archives [default: target/release-files]
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// The name that images use.
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The name that Rust, GCC and QEMU use.
    fn of_machines(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

/// Builds the images. Returns their archives.
pub fn run(options: &Options) -> Result<Vec<PathBuf>> {
    let output = super::output(options.output.as_ref())?;
    // The folder of the end-to-end test, whose build continues here.
    let buildah = Buildah::new(&target()?.join("e2e"));
    let machines: Vec<&str> = options.architectures.iter().map(|it| it.of_machines()).collect();
    heading("Preparing a builder from this machine's Rust");
    let builder = buildah.local_builder(&machines)?;
    options.architectures.iter().map(|it| image(&buildah, &builder, *it, &output)).collect()
}

fn image(buildah: &Buildah, builder: &[String], architecture: Architecture, output: &Path) -> Result<PathBuf> {
    heading(&format!("Building the image for {}", architecture.name()));
    let name = format!("localhost/{OPERATOR}:{}", architecture.name());
    let mut arguments = builder.to_vec();
    arguments.push(format!("--build-arg=ARCHITECTURE={}", architecture.name()));
    arguments.push(format!("--build-arg=VERSION={VERSION}"));
    arguments.push(format!("--build-arg=REVISION={}", revision()?));
    buildah.bud(&name, &workspace_folder().join("Dockerfile"), workspace_folder(), &arguments)?;
    if architecture.of_machines() != ARCH {
        buildah.name_architecture(&name, architecture.name())?;
    }
    let program = output.join(format!("{OPERATOR}-linux-{}", architecture.name()));
    buildah.take(&name, &format!("/{OPERATOR}"), &program)?;
    check_program(&program, architecture)?;
    buildah.archive(&name, output)
}

/// Runs the program of an image, under QEMU where it is for another architecture.
fn check_program(program: &Path, architecture: Architecture) -> Result<()> {
    let run = |argument: &str| {
        let mut command = if architecture.of_machines() == ARCH {
            Command::new(program)
        } else {
            let mut qemu = Command::new(format!("qemu-{}", architecture.of_machines()));
            qemu.arg(program);
            qemu
        };
        let name = program.display();
        answer(command.arg(argument)).map_err(|error| format!("{name} {argument}: {error} (QEMU is in qemu-user.)"))
    };
    let version = run("--version")?;
    if version != format!("{OPERATOR} {VERSION}") {
        return Err(format!("the image for {} holds {version}, not {VERSION}.", architecture.name()).into());
    }
    let crds = fs::read_to_string(workspace_folder().join("crds/workflows.mistral.ai.yaml"))?;
    if run("crds")? != crds.trim() {
        return Err(format!("the operator for {} prints other CRDs than those in crds/.", architecture.name()).into());
    }
    println!("{} runs: {version}; its CRDs are those in crds/.", program.display());
    Ok(())
}

fn revision() -> Result<String> {
    answer(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(workspace_folder()))
}
