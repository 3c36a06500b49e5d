//! `cargo xtask chaos`: runs many executions while everything around them fails, then compares the simulator's ledger
//! with the resources.
//!
//! A seed determines the resources and the steps on them, the faults of the API, the disturbances of the processes, and
//! all times. The same seed gives the same plan. Its effects vary, because the processes are real.

mod course;
pub mod dice;
mod ends;
mod environment;
mod faults;
mod ledger;
mod operators;
mod perform;
mod poison;
mod record;
mod refusals;
mod report;
mod served;
mod tally;
mod told;
mod values;
mod workflows;
mod workload;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::demo::programs::Binaries;
use crate::demo::{Result, heading};
use environment::Environment;
use faults::Controls;
use ledger::Around;
use operators::{Operators, Recipe};
use perform::{delete_all, perform};
use record::Record;
use report::Report;
use served::Served;
use workload::Plan;

/// How long the final deletion may take once all runs have ended. Each resource adds a fiftieth of a second.
const GONE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Number of executions to create.
    #[arg(long, value_name = "N", default_value_t = 200)]
    executions: usize,
    /// Create 5,000 executions.
    #[arg(long, conflicts_with = "executions")]
    long: bool,
    /// Seed of the plan; a random number by default.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Keep the folder with the logs even if every check passes.
    #[arg(long)]
    keep: bool,
    /// Turn off a safeguard of the operators, to see that the run notices.
    #[arg(long, hide = true, value_name = "SAFEGUARD", value_parser = ["no-get-first", "unconditional-claim"])]
    without: Option<String>,
}

impl Options {
    fn executions(&self) -> usize {
        if self.long { 5000 } else { self.executions }
    }

    /// The command that repeats the plan.
    fn command(&self, seed: u64) -> String {
        let without = self.without.as_ref().map(|safeguard| format!(" --without {safeguard}"));
        format!("cargo xtask chaos --executions {} --seed {seed}{}", self.executions(), without.unwrap_or_default())
    }
}

/// Runs the test. Fails if the ledger and the resources disagree, or if something that was to go wrong did not.
pub fn run(options: Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().1);
    println!("Seed {seed}. The same plan again: {}", options.command(seed));
    heading("Building the operator and the simulator");
    let binaries = Binaries::build()?;
    let mut folder = TempDir::with_prefix("mistral-workflows-chaos-")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = chaos(&options, seed, &binaries, &folder) => outcome,
            _ = tokio::signal::ctrl_c() => Err("it was interrupted.".into()),
        }
    });
    runtime.shutdown_background();
    if options.keep || outcome.is_err() {
        folder.disable_cleanup(true);
        println!("The logs, the ledger and the record are in {}.", folder.path().display());
    }
    outcome.map_err(|error| format!("{error}\n\nThe same plan again: {}", options.command(seed)).into())
}

/// Writes down what the findings follow from, each in a file of its own.
fn write_down(folder: &TempDir, all: &Value) -> Result<()> {
    for (name, what) in all.as_object().into_iter().flatten() {
        fs::write(folder.path().join(format!("{name}.json")), serde_json::to_vec_pretty(what)?)?;
    }
    Ok(())
}

/// How the operators of this run are started.
fn recipe(
    options: &Options,
    binaries: &Binaries,
    folder: &TempDir,
    environment: &Environment,
    plan: &Plan,
) -> Result<Recipe> {
    let logs = folder.path().join("operators");
    fs::create_dir(&logs)?;
    Ok(Recipe {
        program: binaries.operator.clone(),
        kubeconfig: environment.kubeconfig(),
        url: environment.url.clone(),
        folder: logs,
        // Debug logs of thousands of executions would take gigabytes.
        log: if plan.executions.len() > 500 { "info" } else { "info,mistral_workflows_operator=debug" },
        without: options.without.clone(),
    })
}

async fn chaos(options: &Options, seed: u64, binaries: &Binaries, folder: &TempDir) -> Result<()> {
    let plan = Plan::new(seed, options.executions());
    heading("Starting a control plane, the simulator and two operators");
    let environment = Environment::start(binaries, folder.path(), seed).await?;
    environment.furnish().await?;
    let recipe = recipe(options, binaries, folder, &environment, &plan)?;
    let operators = Arc::new(Mutex::new(Operators::start(recipe, seed)?));
    let looking_after = tokio::spawn(course::look_after(Arc::clone(&operators)));
    environment.until_ready().await?;

    heading(&format!("{} executions in {} s, with faults", plan.executions.len(), plan.window.as_secs()));
    let began = Instant::now();
    let record = Record::default();
    let keeping = tokio::spawn(record.clone().keep(environment.executions().all()));
    let progress = tokio::spawn(report::progress(record.clone(), Arc::clone(&operators), began));
    let mut lives = JoinSet::new();
    for planned in &plan.executions {
        lives.spawn(perform(environment.executions(), record.clone(), planned.clone(), began));
    }
    let controls = Controls::new(&environment.url)?;
    course::disturb(&environment, &operators, &controls, &record, &plan, began).await?;
    let unstruck = course::strike_the_rest(&environment, &operators, &controls, &record, &mut lives).await?;

    heading("No more faults: everything has to come to its end");
    controls.put(&json!({})).await?;
    operators.lock().await.calm_down()?;
    let (present, mut complaints) = course::settle(&environment, &record, &mut lives).await?;
    let results = values::results(environment.client.clone()).await?;
    let gone_within = GONE_WITHIN + Duration::from_millis(present.len() as u64 * 20);
    let stuck = delete_all(&environment.executions(), gone_within).await?;
    complaints.extend(stuck.iter().map(|name| format!("{name} is still there, {gone_within:?} after its deletion")));

    let struck = controls.struck().await?;
    let refused = refusals::struck(&environment.client).await?;
    for task in [looking_after, progress] {
        task.abort();
        // The task was aborted, so this is an error.
        let _ = task.await;
    }
    let operators = Arc::into_inner(operators).ok_or("somebody still holds the operators.")?;
    let (tally, abandoned, ends) = operators.into_inner().stop()?;
    // Read only now: until the operators stopped, they could have started runs.
    let ledger = told::ledger(&environment.url).await?;
    keeping.abort();
    let recorded = record.all();
    let all = json!({ "books": ledger, "record": recorded, "present": present, "results": results });
    write_down(folder, &all)?;
    let mut findings = ledger::compare(&ledger, &recorded, &present, &Around { abandoned, results, ends });
    findings.complaints.extend(complaints);
    findings.complaints.extend(tally.odd.iter().cloned());
    let served = Served::of(&ledger, &recorded, &tally.disturbed);
    findings.complaints.extend(served.complaint());
    let (resources, seconds, poison) = (recorded.len(), began.elapsed().as_secs(), record.poison());
    let report = Report { findings, tally, struck, poison, refused, served, abandoned, unstruck, resources, seconds };
    println!("{report}");
    report.verdict()
}
