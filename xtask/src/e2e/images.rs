//! Builds the images from the Dockerfiles and puts them where a node can load them.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cluster::{Node, NodeBinaries};

use super::{NotHere, Result};
use crate::demo::programs::workspace_folder;

/// The operator's image.
pub const OPERATOR: &str = "localhost/mistral-workflows-operator:e2e";
/// The simulator's image.
pub const SIMULATOR: &str = "localhost/mistral-simulator:e2e";

const DOCKERFILES: [(&str, &str); 2] = [(OPERATOR, "Dockerfile"), (SIMULATOR, "tests/simulator/Dockerfile")];

/// The image name of a builder with this machine's own programs.
const LOCAL_BUILDER: &str = "localhost/builder:e2e";
/// The folders of this machine that such a builder sees read-only.
const OWN: [&str; 6] = ["/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/include", "/etc/alternatives"];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whether images can be built for a node.
pub fn check() -> Result<()> {
    answer(Command::new("buildah").arg("--version")).map(|_| ())
}

/// Builds the images with buildah into OCI archives in the folder.
pub fn build(folder: &Path, node: &NodeBinaries) -> Result<Vec<PathBuf>> {
    let buildah = Buildah { folder: folder.join("buildah") };
    let dockerfile = fs::read_to_string(workspace_folder().join("Dockerfile"))?;
    let mut arguments = Vec::new();
    if let Err(why) = buildah.pull(default_of(&dockerfile, "BASE_IMAGE")?) {
        println!("The base image is out of reach ({why}); building on `scratch` instead.");
        arguments.push("--build-arg=BASE_IMAGE=scratch".to_owned());
    }
    if let Err(why) = buildah.pull(default_of(&dockerfile, "BUILDER_IMAGE")?) {
        println!("The builder image is out of reach ({why}); building with this machine's own Rust instead.");
        arguments.extend(local_builder(&buildah).map_err(NotHere::because)?);
    }
    let mut archives = Vec::new();
    for (name, dockerfile) in DOCKERFILES {
        println!("Building {name} from {dockerfile}; minutes, the first time.");
        let dockerfile = workspace_folder().join(dockerfile);
        buildah.bud(name, &dockerfile, workspace_folder(), &arguments)?;
        archives.push(buildah.archive(name, folder)?);
    }
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

/// Creates a builder from this machine's Rust, C compiler and downloaded crates. Returns the arguments for using it.
/// Nothing is copied: the image has little more than the mount points.
fn local_builder(buildah: &Buildah) -> Result<Vec<String>> {
    let sysroot = answer(Command::new("rustc").args(["--print", "sysroot"]))?;
    let target = format!("{ARCH}-unknown-linux-musl");
    if !Path::new(&sysroot).join("lib/rustlib").join(&target).is_dir() {
        succeed(Command::new("rustup").args(["target", "add", &target]))?;
    }
    if !Path::new("/usr/bin/musl-gcc").is_file() {
        return Err("a C compiler for musl is needed; on Debian or Ubuntu: apt-get install gcc musl-tools.".into());
    }
    succeed(Command::new("cargo").args(["fetch", "--locked"]).current_dir(workspace_folder()))?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).ok_or("there is no home.")?;

    let context = buildah.folder.join("builder");
    anew(&context)?;
    let root = context.join("root");
    for folder in ["etc/ssl/certs", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(CERTIFICATES, root.join(&CERTIFICATES[1..]))?;
    for link in ["bin", "lib", "lib64", "sbin"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(link)) {
            symlink(target, root.join(link))?;
        }
    }
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY root /\nENV PATH=/toolchain/bin:/usr/bin CARGO_HOME=/cargo CARGO_NET_OFFLINE=true\n",
    )?;
    buildah.bud(LOCAL_BUILDER, &context.join("Dockerfile"), &context, &[])?;

    let mut arguments = vec![format!("--build-arg=BUILDER_IMAGE={LOCAL_BUILDER}")];
    arguments.extend(OWN.into_iter().filter(|folder| Path::new(folder).is_dir()).map(|folder| volume(folder, folder)));
    arguments.push(volume(&sysroot, "/toolchain"));
    arguments.push(volume(&cargo_home.join("registry").display().to_string(), "/cargo/registry"));
    Ok(arguments)
}

fn volume(from: &str, to: &str) -> String {
    format!("--volume={from}:{to}:ro")
}

/// buildah with its own storage. It needs no daemon, and works where the kernel cannot stack file systems.
struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    fn command(&self) -> Result<Command> {
        // The folder of cache mounts, which make a second build fast.
        let temporary = self.folder.join("tmp");
        fs::create_dir_all(&temporary)?;
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs"]);
        command.arg("--root").arg(self.folder.join("storage")).arg("--runroot").arg(self.folder.join("run"));
        command.env("TMPDIR", temporary);
        Ok(command)
    }

    fn pull(&self, image: &str) -> Result<()> {
        println!("Pulling {image}");
        answer(self.command()?.args(["pull", "--quiet", "--policy", "missing", image])).map(|_| ())
    }

    fn bud(&self, name: &str, dockerfile: &Path, context: &Path, arguments: &[String]) -> Result<()> {
        let mut bud = self.command()?;
        bud.args(["bud", "--isolation", "chroot", "--layers=false", "--tag", name, "--file"]).arg(dockerfile);
        succeed(bud.args(arguments).arg(context))
    }

    fn archive(&self, name: &str, folder: &Path) -> Result<PathBuf> {
        let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
        let archive = folder.join(format!("{file}.tar"));
        let _ = fs::remove_file(&archive);
        succeed(self.command()?.args(["push", "--quiet", name, &format!("oci-archive:{}:{name}", archive.display())]))?;
        #[expect(clippy::cast_precision_loss, reason = "it is only shown")]
        let size = fs::metadata(&archive)?.len() as f64 / 1_048_576.0;
        println!("{name}: {size:.1} MiB, compressed");
        Ok(archive)
    }
}

/// Creates an empty folder, and removes an old one.
fn anew(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    Ok(fs::create_dir_all(folder)?)
}

/// Runs a command that prints its own progress.
pub fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|error| format!("{program} does not start: {error}; is it installed?"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed ({status}); it says why above.").into()) }
}

/// Runs a command and returns its output without the final newline.
fn answer(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program} does not start: {error}; is it installed?"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(complaint.trim().lines().last().unwrap_or("it does not say why").to_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
