//! Tries a release out: a registry on this machine, a key that lives as long as the check, and a control plane into which
//! the chart is installed from that registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster::{ControlPlane, Supervised};
use tempfile::TempDir;

use super::build::{self, Architecture};
use super::publish::Publisher;
use super::texts::Published;
use super::{OPERATOR, VERSION};
use crate::command::answer;
use crate::demo::{Result, heading};

/// How long the registry may take to start.
const SOON: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "mistral-system";

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Architectures of the images to build.
    #[arg(long = "architecture", value_name = "NAME", value_enum, default_values = ["amd64", "arm64"])]
    architectures: Vec<Architecture>,
    /// Images that are already built, as OCI archives, instead of building them.
    #[arg(long = "image", value_name = "FILE", conflicts_with = "architectures")]
    images: Vec<PathBuf>,
}

/// Builds, publishes, verifies and installs. Fails if anything went wrong.
pub fn run(options: &Options) -> Result<()> {
    let folder = TempDir::with_prefix("mistral-workflows-release-check-")?;
    let output = super::output(Some(&folder.path().join("files")))?;
    let images = if options.images.is_empty() {
        let output = Some(folder.path().join("images"));
        build::run(&build::Options { architectures: options.architectures.clone(), output })?
    } else {
        options.images.clone()
    };
    heading("Starting a registry");
    let mut publisher = Publisher::new("", Some(folder.path().join("cosign.key")), output)?;
    let (_registry, address) = registry(&publisher, folder.path())?;
    publisher.registry = format!("{address}/us");
    println!("It is at {address}.");
    for name in ["cosign", "stranger"] {
        key_pair(&publisher, &folder.path().join(name))?;
    }
    let published = publisher.publish(&images)?;
    let check = Check { publisher: &publisher, published: &published, folder: folder.path() };
    heading("Verifying");
    check.signatures()?;
    check.index(images.len())?;
    check.chart()?;
    heading("Installing the chart from the registry");
    check.install()?;
    println!("\nThe release can be published, verified and installed.");
    Ok(())
}

/// Starts a registry. It ends with this process, or when it is dropped.
fn registry(publisher: &Publisher, folder: &Path) -> Result<(Supervised, String)> {
    let mut serve = Command::new(&publisher.tools.crane);
    serve.args(["registry", "serve", "--address", "127.0.0.1:0"]);
    let registry = Supervised::spawn(&serve, &folder.join("registry.log"))?;
    let began = Instant::now();
    while began.elapsed() < SOON {
        let log = fs::read_to_string(registry.log())?;
        if let Some((_, port)) = log.split_once("serving on port ") {
            return Ok((registry, format!("127.0.0.1:{}", port.lines().next().unwrap_or_default())));
        }
        sleep(Duration::from_millis(50));
    }
    Err("the registry did not start in time.".into())
}

/// Creates the key pair NAME.key and NAME.pub.
fn key_pair(publisher: &Publisher, name: &Path) -> Result<()> {
    let mut generate = Command::new(&publisher.tools.cosign);
    answer(generate.args(["generate-key-pair", "--output-key-prefix"]).arg(name).env("COSIGN_PASSWORD", "")).map(|_| ())
}

struct Check<'a> {
    publisher: &'a Publisher,
    published: &'a Published,
    folder: &'a Path,
}

impl Check<'_> {
    /// Image and chart are signed with our key, and with no other; the SBOM is attested.
    fn signatures(&self) -> Result<()> {
        for reference in [&self.published.image, &self.published.chart] {
            self.verify("cosign", &["verify"], reference)?;
            if self.verify("stranger", &["verify"], reference).is_ok() {
                return Err(format!("{reference} is said to be signed by a key that has signed nothing.").into());
            }
            println!("{reference} is signed, by our key alone.");
        }
        self.verify("cosign", &["verify-attestation", "--type", "cyclonedx"], &self.published.image)?;
        println!("The SBOM of the image is attested.");
        Ok(())
    }

    fn verify(&self, key: &str, verb: &[&str], reference: &str) -> Result<String> {
        let mut cosign = Command::new(&self.publisher.tools.cosign);
        // Nothing was written to a transparency log.
        cosign.args(verb).args(["--insecure-ignore-tlog", "--key"]).arg(self.folder.join(format!("{key}.pub")));
        answer(cosign.arg(reference))
    }

    /// The index names each architecture once, and this machine's image holds an operator of this version.
    fn index(&self, images: usize) -> Result<()> {
        let crane = || Command::new(&self.publisher.tools.crane);
        let listed = answer(crane().args(["index", "list", &self.published.image]))?;
        println!("{listed}");
        let platforms = listed.lines().filter(|line| line.contains(" linux/")).count();
        if platforms != images {
            return Err(format!("the index has {platforms} platforms, not {images}.").into());
        }
        let archive = self.folder.join("exported.tar");
        let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
        answer(crane().args(["export", "--platform", platform, &self.published.image]).arg(&archive))?;
        answer(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(self.folder).arg(OPERATOR))?;
        let version = answer(Command::new(self.folder.join(OPERATOR)).arg("--version"))?;
        if version == format!("{OPERATOR} {VERSION}") {
            return Ok(());
        }
        Err(format!("the image in the registry holds {version}.").into())
    }

    /// The registry has the chart that was packaged.
    fn chart(&self) -> Result<()> {
        let pulled = self.folder.join("pulled");
        fs::create_dir_all(&pulled)?;
        answer(self.helm().arg("pull").args(self.chart_arguments()).arg("--destination").arg(&pulled))?;
        let package = self.publisher.package();
        let name = package.file_name().unwrap_or_default();
        if fs::read(&package)? == fs::read(pulled.join(name))? {
            return Ok(());
        }
        Err("the chart in the registry is not the one that was packaged.".into())
    }

    /// Helm installs the chart by its address alone, and the Deployment names the signed image.
    fn install(&self) -> Result<()> {
        let control_plane = ControlPlane::start()?;
        let mut install = self.helm();
        install.arg("install").arg(OPERATOR).args(self.chart_arguments());
        install.args(["--namespace", NAMESPACE, "--create-namespace", "--kubeconfig"]).arg(control_plane.kubeconfig());
        answer(&mut install)?;
        let mut get = control_plane.kubectl_command();
        get.args(["--namespace", NAMESPACE, "get", "deployments", "--output"]);
        let image = answer(get.arg("jsonpath={.items[*].spec.template.spec.containers[*].image}"))?;
        if image != self.published.image {
            return Err(format!("the Deployment's image is {image}, not {}.", self.published.image).into());
        }
        Ok(())
    }

    fn helm(&self) -> Command {
        let mut helm = Command::new(&self.publisher.gitops.helm);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(name, self.folder.join(name));
        }
        helm
    }

    fn chart_arguments(&self) -> [String; 4] {
        let repository = self.published.chart.split('@').next().unwrap_or_default();
        [format!("oci://{repository}"), "--version".into(), VERSION.into(), "--plain-http".into()]
    }
}
