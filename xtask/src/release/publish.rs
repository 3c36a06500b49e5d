//! Pushes images and chart to a registry, signs them, and writes the files of the release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{Environment, GitOps, ReleaseTools};
use serde_json::Value;
use tempfile::TempDir;

use super::texts::{self, Published};
use super::{OPERATOR, VERSION, target};
use crate::command::{answer, succeed};
use crate::demo::programs::workspace_folder;
use crate::demo::{Result, heading};

const CYCLONEDX: &str = "0.5.9";
const CHART: &str = "charts/mistral-workflows-operator";
/// A signing configuration of cosign that uses no service: for a key of one's own.
const NO_SERVICE: &str = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Registry, and the path in it, as in ghcr.io/owner. You have to be logged in (docker login).
    #[arg(long, value_name = "REGISTRY")]
    registry: String,
    /// The tag in Git, which has to name the version of Cargo.toml: v0.1.0.
    #[arg(long, value_name = "TAG")]
    tag: String,
    /// Images of the operator, one for each architecture, as OCI archives.
    #[arg(long = "image", value_name = "FILE", required = true)]
    images: Vec<PathBuf>,
    /// Private key to sign with, without a transparency log; by default the workflow's own identity signs (keyless).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Folder for the files of the release [default: target/release-files]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Publishes what a tag names.
pub fn run(options: &Options) -> Result<()> {
    if options.tag != format!("v{VERSION}") {
        return Err(format!("the tag is {}, but Cargo.toml says {VERSION}.", options.tag).into());
    }
    let output = super::output(options.output.as_ref())?;
    let publisher = Publisher::new(&options.registry, options.key.clone(), output)?;
    let changes = fs::read_to_string(workspace_folder().join("CHANGELOG.md"))?;
    let changes = texts::section(&changes, VERSION)?;
    let published = publisher.publish(&options.images)?;
    fs::write(publisher.output.join("notes.md"), texts::notes(changes, &published, VERSION))?;
    Ok(())
}

/// Publishes to one registry.
pub struct Publisher {
    pub registry: String,
    key: Option<PathBuf>,
    pub output: PathBuf,
    pub tools: ReleaseTools,
    pub gitops: GitOps,
    scratch: TempDir,
}

impl Publisher {
    pub fn new(registry: &str, key: Option<PathBuf>, output: PathBuf) -> Result<Self> {
        let environment = Environment::of_process();
        Ok(Self {
            registry: registry.to_owned(),
            key,
            output,
            tools: ReleaseTools::find_or_build(&environment)?,
            gitops: GitOps::find_or_build(&environment)?,
            scratch: TempDir::with_prefix("mistral-workflows-release-")?,
        })
    }

    /// Publishes these images and the chart.
    pub fn publish(&self, images: &[PathBuf]) -> Result<Published> {
        heading("The SBOM");
        let sbom = self.sbom()?;
        heading("Pushing the images");
        let image = self.push_images(images)?;
        heading("Packaging and pushing the chart");
        let chart = self.push_chart(&image)?;
        heading("Signing");
        self.sign(&image, &["--recursive"])?;
        self.sign(&chart, &[])?;
        let mut attest = self.cosign("attest")?;
        succeed(attest.args(["--type", "cyclonedx", "--predicate"]).arg(&sbom).arg(&image))?;
        fs::copy(workspace_folder().join("crds/workflows.mistral.ai.yaml"), self.output.join("crds.yaml"))?;
        // In the form that GitHub's workflows take as the outputs of a step.
        let digest = |reference: &str| reference.split('@').next_back().unwrap_or_default().to_owned();
        fs::write(
            self.output.join("digests"),
            format!("image-digest={}\nchart-digest={}\n", digest(&image), digest(&chart)),
        )?;
        println!("image: {image}\nchart: {chart}");
        Ok(Published { image, chart })
    }

    /// The software that the operator is made of, in CycloneDX.
    fn sbom(&self) -> Result<PathBuf> {
        let tools = target()?.join("tools");
        let installed = tools.join("bin/cargo-cyclonedx");
        if !installed.is_file() {
            let mut install = Command::new("cargo");
            install.args(["install", "--locked", "--debug", "--version", CYCLONEDX, "cargo-cyclonedx", "--root"]);
            succeed(install.arg(&tools))?;
        }
        // The program runs on musl, whichever its architecture; the crates are the same.
        let mut cyclonedx = Command::new(&installed);
        cyclonedx.args(["cyclonedx", "--format", "json", "--target", "x86_64-unknown-linux-musl"]);
        succeed(cyclonedx.current_dir(workspace_folder()))?;
        // It writes one beside each member of the workspace.
        for member in ["tests/cluster/cluster", "tests/simulator/mistral-simulator", "xtask/xtask"] {
            let _ = fs::remove_file(workspace_folder().join(format!("{member}.cdx.json")));
        }
        let sbom = self.output.join(format!("{OPERATOR}-{VERSION}.cdx.json"));
        let written = workspace_folder().join(format!("{OPERATOR}.cdx.json"));
        fs::copy(&written, &sbom)?;
        fs::remove_file(written)?;
        Ok(sbom)
    }

    /// Pushes one image for each architecture, and an index of them under the version.
    fn push_images(&self, archives: &[PathBuf]) -> Result<String> {
        let repository = format!("{}/{OPERATOR}", self.registry);
        let mut index = Command::new(&self.tools.crane);
        index.args(["index", "append", "--tag", &format!("{repository}:{VERSION}")]);
        for (number, archive) in archives.iter().enumerate() {
            let layout = self.scratch.path().join(format!("image-{number}"));
            fs::create_dir_all(&layout)?;
            succeed(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout))?;
            // Under its digest: a tag for each architecture would be one more name to keep.
            let reference = format!("{repository}@{}", only_manifest(&layout)?);
            let mut push = Command::new(&self.tools.crane);
            let pushed = answer(push.arg("push").arg(&layout).arg(reference))?;
            println!("{}: {pushed}", archive.display());
            index.arg("--manifest").arg(pushed);
        }
        answer(&mut index)
    }

    /// Packages the chart, whose default image is the one that was pushed, and pushes it.
    fn push_chart(&self, image: &str) -> Result<String> {
        let chart = self.scratch.path().join(OPERATOR);
        succeed(Command::new("cp").arg("-RL").arg(workspace_folder().join(CHART)).arg(&chart))?;
        let values = chart.join("values.yaml");
        fs::write(&values, texts::with_image(&fs::read_to_string(&values)?, image)?)?;
        answer(Command::new(&self.gitops.helm).arg("package").arg(&chart).arg("--destination").arg(&self.output))?;
        fs::write(self.output.join("install.yaml"), self.gitops.manifest(&chart)?)?;
        let repository = format!("{}/charts", self.registry);
        let mut push = Command::new(&self.gitops.helm);
        push.arg("push").arg(self.package()).arg(format!("oci://{repository}"));
        if self.is_here() {
            push.arg("--plain-http");
        }
        succeed(&mut push)?;
        let repository = format!("{repository}/{OPERATOR}");
        let digest = answer(Command::new(&self.tools.crane).args(["digest", &format!("{repository}:{VERSION}")]))?;
        Ok(format!("{repository}@{digest}"))
    }

    /// The file that Helm has packaged.
    pub fn package(&self) -> PathBuf {
        self.output.join(format!("{OPERATOR}-{VERSION}.tgz"))
    }

    fn sign(&self, reference: &str, arguments: &[&str]) -> Result<()> {
        succeed(self.cosign("sign")?.args(arguments).arg(reference))
    }

    /// A command of cosign that signs.
    fn cosign(&self, verb: &str) -> Result<Command> {
        let mut cosign = Command::new(&self.tools.cosign);
        cosign.args([verb, "--yes"]);
        if let Some(key) = &self.key {
            let config = self.scratch.path().join("signing-config.json");
            fs::write(&config, NO_SERVICE)?;
            cosign.arg("--key").arg(key).arg("--signing-config").arg(config);
            if std::env::var_os("COSIGN_PASSWORD").is_none() {
                cosign.env("COSIGN_PASSWORD", "");
            }
        }
        Ok(cosign)
    }

    /// Whether the registry is on this machine, and so without TLS.
    fn is_here(&self) -> bool {
        self.registry.starts_with("127.0.0.1:")
    }
}

/// The digest of the only image in an OCI layout.
fn only_manifest(layout: &Path) -> Result<String> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    match (index["manifests"].as_array().map(Vec::len), index["manifests"][0]["digest"].as_str()) {
        (Some(1), Some(digest)) => Ok(digest.to_owned()),
        _ => Err(format!("{} is not the layout of one image.", layout.display()).into()),
    }
}
