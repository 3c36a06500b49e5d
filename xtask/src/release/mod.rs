//! `cargo xtask release`: builds the images of a release, publishes them with the chart, and tries all of that out
//! against a registry on this machine.

mod build;
mod check;
mod publish;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};

use crate::demo::Result;

/// The version of everything that is released.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const OPERATOR: &str = "mistral-workflows-operator";

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, clap::Subcommand)]
enum Step {
    /// Build the operator's image for each architecture, and run what is in it (Linux, as root).
    Build(build::Options),
    /// Push images and chart to a registry, sign them, and write the files of the release.
    Publish(publish::Options),
    /// Do all of that against a registry on this machine, verify it, and install the chart from there.
    Check(check::Options),
}

pub fn run(options: Options) -> Result<()> {
    match options.step {
        Step::Build(options) => build::run(&options).map(|_| ()),
        Step::Publish(options) => publish::run(&options).map(|_| ()),
        Step::Check(options) => check::run(&options),
    }
}

/// The folder in which cargo has put this program's folder.
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().and_then(Path::parent).ok_or("this program is in no target folder.")?.to_owned())
}

/// The given folder, or the usual one. It exists afterwards.
fn output(given: Option<&PathBuf>) -> Result<PathBuf> {
    let output = given.cloned().map_or_else(|| Ok(target()?.join("release-files")), Result::Ok)?;
    fs::create_dir_all(&output)?;
    Ok(output)
}
