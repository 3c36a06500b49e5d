//! `cargo xtask docs`: generates pages and pictures from other files, and checks every page.

mod alerts;
mod api;
mod chart;
mod flags;
mod lint;
mod picture;
mod reasons;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use crate::demo::Result;

/// Has a generated table.
const CHART_README: &str = "charts/mistral-workflows-operator/README.md";
/// Has a generated table, too.
const MONITORING: &str = "docs/how-to/monitoring.md";

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Write nothing; fail if a page is stale, a link does not resolve or a table is broken.
    #[arg(long)]
    check: bool,
}

/// Writes the generated files, or reports stale ones. Fails if anything is wrong with the pages.
pub fn run(options: &Options) -> Result<()> {
    let root = root();
    let mut faults = Vec::new();
    for (path, text) in generated(&root)? {
        let file = root.join(path);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        if options.check {
            faults.push(format!("{path} is stale: run `cargo xtask docs`."));
        } else {
            fs::write(&file, text).map_err(|error| format!("{path} cannot be written: {error}."))?;
            println!("{path} is written.");
        }
    }
    faults.extend(lint::faults(&root)?);
    if faults.is_empty() {
        println!("The documents are in order.");
        return Ok(());
    }
    Err(format!("\n{}", faults.join("\n")).into())
}

/// The path and content of each generated file.
fn generated(root: &Path) -> Result<Vec<(&'static str, String)>> {
    let performance = read(root, "docs/internals/performance.md")?;
    let scale = read(root, "docs/internals/scale.md")?;
    let chart_values = read(root, "charts/mistral-workflows-operator/values.yaml")?;
    let chart_readme = read(root, CHART_README)?;
    let alerts = read(root, "charts/mistral-workflows-operator/files/alerts.yaml")?;
    Ok(vec![
        ("docs/reference/api.md", api::page(&read(root, "crds/workflows.mistral.ai.yaml")?)?),
        ("docs/reference/reasons.md", reasons::page(&root.join("src/api/reasons"))?),
        ("docs/reference/flags.md", flags::page()),
        ("docs/reference/chart-values.md", values::page(&chart_values)?),
        (CHART_README, values::readme(&chart_readme, &chart_values)?),
        (MONITORING, alerts::page(&read(root, MONITORING)?, &alerts)?),
        ("docs/images/overview.svg", picture::draw(&read(root, "docs/images/overview.txt")?)?),
        ("docs/images/burst-rate.svg", chart::burst(&performance, "executions per second", "Executions per second")?),
        (
            "docs/images/burst-latency.svg",
            chart::burst(&performance, "create to POST, p50, ms", "From creation to the call, median, in ms")?,
        ),
        ("docs/images/tenants.svg", chart::tenants(&scale)?),
        ("docs/images/finished-ready.svg", chart::finished(&performance, "seconds from its start to ready")?),
        ("docs/images/finished-memory.svg", chart::finished(&performance, "peak memory, MiB")?),
        ("docs/images/finished-api-server.svg", chart::finished(&performance, "CPU seconds of kube-apiserver")?),
    ])
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).map_err(|error| format!("{path} cannot be read: {error}.").into())
}

/// Formats a text as a table cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Escapes a text for SVG.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
