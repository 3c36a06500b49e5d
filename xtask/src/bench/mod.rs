//! `cargo xtask bench`: measures what executions and workflows cost the operator, compared with the least that any
//! controller must do on the same machine.
//!
//! Control plane, simulator, operator and baseline program are separate processes, built for release. So is the bench,
//! which creates the resources and watches them beside the measured program. Nothing here fails for being slow.
//! With `--quick`, debug builds do: its figures mean little anyway.

pub mod baseline;
mod burst;
mod environment;
mod figures;
mod load;
mod measure;
mod report;
mod rest;
mod upgrade;
mod workflows;

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::demo::programs::{Binaries, workspace_folder};
use crate::demo::{Result, heading};
use environment::{Against, Built, Environment};
use report::Table;
use rest::Scene;

/// The highest load of the machine, in the minute before, that does not disturb the bench.
const IDLE: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// 200, 1,000 and 5,000 executions at once, by the baseline and by the operator in turn.
    Burst,
    /// 400 executions, 200 at a time, with an API that takes two seconds per call.
    Slow,
    /// 1,000 Workflows: applied, changed, archived, and idle.
    Workflows,
    /// 10,000 finished executions and 1,000 running ones, idle for five minutes.
    Rest,
    /// The same executions, with an operator that restarts.
    Restart,
    /// Executions that the operator given by --against has finished, and then this operator. Only by name.
    Upgrade,
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Scenarios to measure; all by default.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Use small numbers, to check in about two minutes that the bench works. The figures mean little.
    #[arg(long)]
    quick: bool,
    /// Number of rounds in burst and slow [default: 3; 1 with 5,000 executions and with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Measure one burst of this many executions instead of the usual ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    executions: Option<u32>,
    /// Give each execution of burst an executionId.
    #[arg(long)]
    explicit_ids: bool,
    /// Number of finished executions in rest, restart and upgrade; give several to see how the figures grow [default: 10000;
    /// 500 with --quick]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    finished: Vec<u32>,
    /// Operator of another build to measure in turn with this one, in burst and restart; can be repeated. Burst then
    /// has no baseline, and waits for no finalizer. In upgrade it comes first.
    #[arg(long, value_name = "NAME=FILE")]
    against: Vec<Against>,
    /// File for all figures, as JSON [default: target/bench.json, in the repository]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Operator that is already built.
    #[arg(long, hide = true, value_name = "FILE", requires = "simulator")]
    operator: Option<PathBuf>,
    /// Simulator that is already built.
    #[arg(long, hide = true, value_name = "FILE", requires = "operator")]
    simulator: Option<PathBuf>,
}

impl Options {
    fn wants(&self, scenario: Scenario) -> bool {
        self.scenarios.is_empty() && scenario != Scenario::Upgrade || self.scenarios.contains(&scenario)
    }

    fn rounds(&self, usual: u32) -> usize {
        let rounds = self.rounds.unwrap_or(if self.quick { 1 } else { usual });
        usize::try_from(rounds).unwrap_or(usize::MAX)
    }

    /// How often each operator is restarted.
    fn restarts(&self) -> usize {
        if self.against.is_empty() { 1 } else { self.rounds(3) }
    }

    fn json(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| workspace_folder().join("target/bench.json"))
    }

    /// The number of executions of each burst, and its number of rounds.
    fn bursts(&self) -> Vec<(usize, usize)> {
        let sizes = match (self.executions, self.quick) {
            (Some(count), _) => vec![(count, if count < 5000 { 3 } else { 1 })],
            (None, true) => vec![(100, 1)],
            (None, false) => vec![(200, 3), (1000, 3), (5000, 1)],
        };
        let size = |(count, usual)| (usize::try_from(count).unwrap_or(usize::MAX), self.rounds(usual));
        sizes.into_iter().map(size).collect()
    }

    fn burst(&self, count: usize) -> burst::Shape {
        let latency = Duration::from_millis(50);
        let (to_the_end, explicit_ids) = (!self.quick && self.against.is_empty(), self.explicit_ids);
        burst::Shape { count, window: count, latency, to_the_end, explicit_ids }
    }

    fn slow(&self) -> burst::Shape {
        let (count, window) = if self.quick { (20, 20) } else { (400, 200) };
        burst::Shape { count, window, latency: Duration::from_secs(2), to_the_end: false, explicit_ids: false }
    }

    fn workflows(&self) -> workflows::Shape {
        let (count, rest, resync) = if self.quick { (50, 12, "5s") } else { (1000, 60, "10s") };
        workflows::Shape { count, rest: Duration::from_secs(rest), resync }
    }

    fn rest(&self) -> rest::Shape {
        let [settles, rest, restarted] = if self.quick { [2, 20, 10] } else { [180, 300, 60] }.map(Duration::from_secs);
        rest::Shape { running: if self.quick { 50 } else { 1000 }, settles, rest, restarted }
    }

    /// The numbers of finished executions, from the smallest to the largest.
    fn finished(&self) -> Vec<usize> {
        let usual = [if self.quick { 500 } else { 10_000 }];
        let given = if self.finished.is_empty() { &usual[..] } else { &self.finished };
        let mut all: Vec<usize> = given.iter().map(|count| usize::try_from(*count).unwrap_or(usize::MAX)).collect();
        all.sort_unstable();
        all
    }
}

/// Measures, and prints the results. Fails if something did not complete, or nothing was counted.
pub fn run(options: Options) -> Result<()> {
    let (Some(operator), Some(simulator)) = (&options.operator, &options.simulator) else {
        return run_built(options.quick);
    };
    let built = Built { operator: operator.clone(), simulator: simulator.clone(), against: options.against.clone() };
    let mut folder = TempDir::with_prefix("mistral-workflows-bench-")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = bench(&options, &built, folder.path()) => outcome,
            _ = tokio::signal::ctrl_c() => Err("it was interrupted.".into()),
        }
    });
    runtime.shutdown_background();
    if outcome.is_err() {
        folder.disable_cleanup(true);
        println!("The logs are in {}.", folder.path().display());
    }
    outcome
}

/// Builds everything, and replaces this process by the bench of that build.
fn run_built(quick: bool) -> Result<()> {
    heading(&format!(
        "Building the operator, the simulator and the bench for {}",
        if quick { "debug" } else { "release" }
    ));
    let binaries = if quick { Binaries::build()? } else { Binaries::build_release()? };
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = Command::new(&binaries.xtask);
    command.args(given).arg("--operator").arg(&binaries.operator).arg("--simulator").arg(&binaries.simulator);
    // Returns only on failure.
    Err(format!("{} does not start: {}.", binaries.xtask.display(), command.exec()).into())
}

/// The environment of the bench, and the results so far.
struct Course<'a> {
    options: &'a Options,
    built: &'a Built,
    folder: &'a Path,
    environment: Option<Environment>,
    machine: Value,
    tables: Vec<Table>,
}

impl Course<'_> {
    /// The control plane of a scenario. Quick scenarios, whose figures mean little, share one.
    async fn environment(&mut self, scenario: &str) -> Result<&mut Environment> {
        if !self.options.quick {
            // The previous control plane ends before the next one starts.
            self.environment = None;
        }
        let environment = match self.environment.take() {
            Some(environment) => environment,
            None => {
                heading(&format!("{scenario}: starting a control plane"));
                Environment::start(self.built, self.folder.join(scenario)).await?
            }
        };
        if self.machine.is_null() {
            self.machine = measure::describe_machine(&environment.client).await?;
            println!("{}", self.machine);
            if self.machine["load_before"].as_f64().is_some_and(|load| load > IDLE) {
                println!("Others are at work on this machine: what is measured now is not what it can do.");
            }
        }
        heading(scenario);
        Ok(self.environment.insert(environment))
    }

    /// Prints a table, and writes all tables so far, because a later scenario may fail.
    fn add(&mut self, table: Table) -> Result<()> {
        println!("\n{table}");
        self.tables.push(table);
        let file = self.options.json();
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let tables: Vec<Value> = self.tables.iter().map(Table::to_json).collect();
        let all = json!({ "machine": self.machine, "quick": self.options.quick, "scenarios": tables });
        fs::write(&file, serde_json::to_vec_pretty(&all)?)
            .map_err(|error| format!("{} cannot be written: {error}.", file.display()))?;
        Ok(())
    }

    async fn bursts(&mut self) -> Result<()> {
        let options = self.options;
        for (count, rounds) in options.bursts() {
            let environment = self.environment(&format!("burst-{count}")).await?;
            let baselines: &[usize] = if options.against.is_empty() { &[32, 128] } else { &[] };
            let mut table = burst::rounds(environment, options.burst(count), baselines, rounds).await?;
            table.title = format!("burst, N = {count}");
            table.aims = burst::aims(count);
            if let Some(small) = self.tables.last()
                && count == 5000
            {
                let growth = burst::growth(small, &table).join("; ");
                table.notes.push(format!("The operator, compared with {}: {growth} (aim: within 15 %).", small.title));
            }
            self.add(table)?;
        }
        Ok(())
    }

    async fn slow(&mut self) -> Result<()> {
        let (shape, rounds) = (self.options.slow(), self.options.rounds(3));
        let baselines: &[usize] = if self.options.quick { &[128] } else { &[128, 200] };
        let mut table = burst::rounds(self.environment("slow").await?, shape, baselines, rounds).await?;
        table.title = format!("slow, N = {}", shape.count);
        self.add(table)
    }

    async fn rest(&mut self, looks: bool, restarts: bool) -> Result<()> {
        let shape = self.options.rest();
        let mut scene = Scene::set(self.environment("rest").await?, shape).await?;
        for finished in self.options.finished() {
            let Some(environment) = &mut self.environment else { return Ok(()) };
            scene.grow(environment, finished).await?;
            if looks {
                let table = scene.rest(environment).await?;
                self.add(table)?;
            }
            if restarts && let Some(environment) = &mut self.environment {
                let table = scene.restarts(environment, self.options.restarts()).await?;
                self.add(table)?;
            }
        }
        Ok(())
    }

    async fn upgrade(&mut self) -> Result<()> {
        let before = self.built.against.first().ok_or("upgrade needs the operator before: --against NAME=FILE.")?;
        for count in self.options.finished() {
            let table = upgrade::measure(self.environment("upgrade").await?, &before.operator, count).await?;
            self.add(table)?;
        }
        Ok(())
    }
}

async fn bench(options: &Options, built: &Built, folder: &Path) -> Result<()> {
    let begun = Instant::now();
    if !Path::new("/proc/self/stat").exists() {
        println!("This system has no /proc: nothing is told of processor time and memory.");
    }
    let mut course = Course { options, built, folder, environment: None, machine: Value::Null, tables: Vec::new() };
    if options.wants(Scenario::Burst) {
        course.bursts().await?;
    }
    if options.wants(Scenario::Slow) {
        course.slow().await?;
    }
    if options.wants(Scenario::Workflows) {
        let table = workflows::measure(course.environment("workflows").await?, options.workflows()).await?;
        course.add(table)?;
    }
    let (looks, restarts) = (options.wants(Scenario::Rest), options.wants(Scenario::Restart));
    if looks || restarts {
        course.rest(looks, restarts).await?;
    }
    if options.wants(Scenario::Upgrade) {
        course.upgrade().await?;
    }
    println!("All figures are in {}. It took {:.0} s.", options.json().display(), begun.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(arguments: &[&str]) -> Options {
        Cli::try_parse_from([&["bench"], arguments].concat()).unwrap().options
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        assert!(parsed(&[]).wants(Scenario::Rest) && parsed(&[]).wants(Scenario::Burst));
        let some = parsed(&["restart", "slow"]);
        assert!(some.wants(Scenario::Slow) && some.wants(Scenario::Restart) && !some.wants(Scenario::Rest));
        assert!(!parsed(&[]).wants(Scenario::Upgrade) && parsed(&["upgrade"]).wants(Scenario::Upgrade));
    }

    #[test]
    fn an_operator_of_another_build_has_a_name_and_takes_the_baselines_place() {
        let options = parsed(&["burst", "--against", "before=/tmp/one", "--against", "without=/tmp/a=b"]);
        let given = options.against.iter().map(|it| (it.name.as_str(), it.operator.to_str().unwrap()));
        assert_eq!(given.collect::<Vec<_>>(), [("before", "/tmp/one"), ("without", "/tmp/a=b")]);
        assert!(!options.burst(1000).to_the_end && parsed(&[]).burst(1000).to_the_end);
        assert!(Cli::try_parse_from(["bench", "--against", "/tmp/one"]).is_err());
    }

    #[test]
    fn the_number_of_finished_executions_only_grows() {
        assert_eq!((parsed(&[]).finished(), parsed(&["--quick"]).finished()), (vec![10_000], vec![500]));
        assert_eq!(parsed(&["--finished", "1000,100000,10000"]).finished(), [1000, 10_000, 100_000]);
    }

    #[test]
    fn short_turns_are_taken_three_times_unless_it_is_said_otherwise() {
        assert_eq!(parsed(&[]).bursts(), [(200, 3), (1000, 3), (5000, 1)]);
        assert_eq!(parsed(&["--rounds", "2"]).bursts(), [(200, 2), (1000, 2), (5000, 2)]);
        assert_eq!(parsed(&["--quick"]).bursts(), [(100, 1)]);
        assert_eq!(parsed(&["--executions", "300"]).bursts(), [(300, 3)]);
    }
}
