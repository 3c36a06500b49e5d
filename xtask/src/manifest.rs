//! `cargo xtask manifest`: the chart as one file, for those without Helm.

use cluster::{Environment, GitOps};

use crate::demo::Result;
use crate::demo::programs::workspace_folder;

/// Prints the file.
pub fn run() -> Result<()> {
    let tools = GitOps::find_or_build(&Environment::of_process())?;
    print!("{}", tools.manifest(&workspace_folder().join("charts/mistral-workflows-operator"))?);
    Ok(())
}
