//! Builds images with buildah. It needs no daemon, and works where the kernel cannot stack file systems.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{answer, succeed};
use crate::demo::Result;
use crate::demo::programs::workspace_folder;

/// The image name of a builder with this machine's own programs.
const LOCAL_BUILDER: &str = "localhost/builder:e2e";
/// The folders of this machine that such a builder sees read-only.
const OWN: [&str; 6] = ["/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/include", "/etc/alternatives"];
/// C libraries and headers for other architectures, as Debian has them.
const FOREIGN: [&str; 2] = ["/usr/aarch64-linux-gnu", "/usr/x86_64-linux-gnu"];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// buildah with its own storage.
pub struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    /// Keeps images and caches below this folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.join("buildah") }
    }

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

    pub fn pull(&self, image: &str) -> Result<()> {
        println!("Pulling {image}");
        answer(self.command()?.args(["pull", "--quiet", "--policy", "missing", image])).map(|_| ())
    }

    pub fn bud(&self, name: &str, dockerfile: &Path, context: &Path, arguments: &[String]) -> Result<()> {
        let mut bud = self.command()?;
        bud.args(["bud", "--isolation", "chroot", "--layers=false", "--tag", name, "--file"]).arg(dockerfile);
        succeed(bud.args(arguments).arg(context))
    }

    /// Makes an image one for this architecture. (With `bud --platform`, buildah would look for a builder of that
    /// architecture as well.)
    pub fn name_architecture(&self, name: &str, architecture: &str) -> Result<()> {
        let container = answer(self.command()?.args(["from", "--pull-never", name]))?;
        answer(self.command()?.args(["config", "--arch", architecture, &container]))?;
        answer(self.command()?.args(["commit", "--quiet", "--squash", "--rm", &container, name])).map(|_| ())
    }

    /// Writes an image into an OCI archive in the folder.
    pub fn archive(&self, name: &str, folder: &Path) -> Result<PathBuf> {
        let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
        let archive = folder.join(format!("{file}.tar"));
        let _ = fs::remove_file(&archive);
        succeed(self.command()?.args(["push", "--quiet", name, &format!("oci-archive:{}:{name}", archive.display())]))?;
        #[expect(clippy::cast_precision_loss, reason = "it is only shown")]
        let size = fs::metadata(&archive)?.len() as f64 / 1_048_576.0;
        println!("{name}: {size:.1} MiB, compressed");
        Ok(archive)
    }

    /// Copies a file of an image.
    pub fn take(&self, name: &str, file: &str, to: &Path) -> Result<()> {
        let container = answer(self.command()?.args(["from", "--pull-never", name]))?;
        let taken = answer(self.command()?.args(["mount", &container]))
            .and_then(|root| Ok(fs::copy(Path::new(&root).join(file.trim_start_matches('/')), to)?));
        answer(self.command()?.args(["rm", &container]))?;
        taken.map(|_| ()).map_err(|error| format!("{file} cannot be taken from {name}: {error}").into())
    }

    /// Creates a builder from this machine's Rust, C compilers and downloaded crates. It compiles for these
    /// architectures (`x86_64`, `aarch64`). Returns the arguments for using it.
    /// Nothing is copied: the image has little more than the mount points.
    pub fn local_builder(&self, architectures: &[&str]) -> Result<Vec<String>> {
        let sysroot = answer(Command::new("rustc").args(["--print", "sysroot"]))?;
        let mut settings = String::new();
        for architecture in architectures {
            let target = format!("{architecture}-unknown-linux-musl");
            if !Path::new(&sysroot).join("lib/rustlib").join(&target).is_dir() {
                succeed(Command::new("rustup").args(["target", "add", &target]))?;
            }
            settings.push_str(&compiler(architecture)?);
        }
        succeed(Command::new("cargo").args(["fetch", "--locked"]).current_dir(workspace_folder()))?;
        let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo_home =
            cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).ok_or("there is no home.")?;

        let context = self.folder.join("builder");
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
        let path = "PATH=/toolchain/bin:/usr/bin CARGO_HOME=/cargo CARGO_NET_OFFLINE=true";
        fs::write(context.join("Dockerfile"), format!("FROM scratch\nCOPY root /\nENV {path}{settings}\n"))?;
        self.bud(LOCAL_BUILDER, &context.join("Dockerfile"), &context, &[])?;

        let mut arguments = vec![format!("--build-arg=BUILDER_IMAGE={LOCAL_BUILDER}")];
        let folders = OWN.into_iter().chain(FOREIGN).filter(|folder| Path::new(folder).is_dir());
        arguments.extend(folders.map(|folder| volume(folder, folder)));
        arguments.push(volume(&sysroot, "/toolchain"));
        arguments.push(volume(&cargo_home.join("registry").display().to_string(), "/cargo/registry"));
        Ok(arguments)
    }
}

/// The settings that make cargo compile and link for an architecture. For others than the machine's own, Rust's linker
/// does, and the C library is the one that comes with Rust's target.
fn compiler(architecture: &str) -> Result<String> {
    if architecture == ARCH {
        if !Path::new("/usr/bin/musl-gcc").is_file() {
            return Err("a C compiler for musl is needed; on Debian or Ubuntu: apt-get install gcc musl-tools.".into());
        }
        return Ok(String::new());
    }
    let (gcc, headers) = (format!("{architecture}-linux-gnu-gcc"), format!("/usr/{architecture}-linux-gnu/include"));
    if !Path::new("/usr/bin").join(&gcc).is_file() || !Path::new(&headers).is_dir() {
        let packages = match architecture {
            "aarch64" => "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
            _ => "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
        };
        let needed =
            format!("a C compiler for {architecture} is needed; on Debian or Ubuntu: apt-get install {packages}.");
        return Err(needed.into());
    }
    let lower = format!("{architecture}_unknown_linux_musl");
    let upper = lower.to_uppercase();
    // Without the checks of glibc, whose functions musl does not have.
    Ok(format!(
        " CC_{lower}={gcc} CFLAGS_{lower}=\"-U_FORTIFY_SOURCE -fno-stack-protector\" \
         CARGO_TARGET_{upper}_LINKER=rust-lld CARGO_TARGET_{upper}_RUSTFLAGS=\"-Clink-self-contained=yes\""
    ))
}

fn volume(from: &str, to: &str) -> String {
    format!("--volume={from}:{to}:ro")
}

/// Creates an empty folder, and removes an old one.
pub fn anew(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    Ok(fs::create_dir_all(folder)?)
}
