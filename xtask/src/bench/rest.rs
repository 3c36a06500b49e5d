//! Idle executions, and an operator that restarts among them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams};
use mistral_simulator::{Behaviour, Outcome, WorkflowSpec};
use mistral_workflows_operator::api::WorkflowExecution;
use mistral_workflows_operator::execution::claim::{CLAIM, derived_id};
use mistral_workflows_operator::execution::finished::mark::{FINISHED, Mark, Returns};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::environment::{Environment, How, Operator, Stage};
use super::figures::{Figures, milliseconds, number};
use super::load::{self, Watch};
use super::measure::{Counts, Meter, Writes};
use super::report::{Aim, Bound, Table, operator_column};
use crate::demo::Result;

const ENDS: &str = "ends";
const HANGS: &str = "hangs";
/// The default budget of an operator.
const BUDGET: u32 = 50;
const AS_INSTALLED: How = How { elected: true, calls_per_second: BUDGET };
const LEASES: &str = "writes of Leases, the API server's own included";
/// Length of inputs, and therefore of results, in bytes.
const PADDING: usize = 1000;
/// How many calls may be sent within a second: the budget plus a burst of one fifth.
const AT_MOST_A_SECOND: f64 = BUDGET as f64 * 1.2;

/// The number of executions and the durations.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Executions whose runs continue.
    pub running: usize,
    /// How long to wait until everything is idle.
    pub settles: Duration,
    /// How long to measure idle executions.
    pub rest: Duration,
    /// How long to measure after a restart.
    pub restarted: Duration,
}

/// Idle executions and the operator that watches them.
pub struct Scene {
    stage: Stage,
    operator: Operator,
    watch: Watch,
    shape: Shape,
    /// A finished execution as the operator leaves it.
    model: DynamicObject,
    /// How many copies of the model there are.
    finished: usize,
}

impl Scene {
    /// Creates the executions whose runs continue.
    pub async fn set(environment: &mut Environment, shape: Shape) -> Result<Self> {
        let hangs = Behaviour { outcome: Outcome::Hang, ..Behaviour::default() };
        let hangs = WorkflowSpec { behaviour: Some(hangs), ..WorkflowSpec::new(HANGS) };
        let stage = environment.stage(&[WorkflowSpec::new(ENDS), hangs], Duration::from_millis(50)).await?;
        stage.furnish("5m").await?;
        let watch = Watch::start::<WorkflowExecution>(&environment.client, &stage.namespace).await?;
        let mut operator = environment.operator(&stage, AS_INSTALLED).await?;
        stage.until_accepted().await?;
        stage.create::<WorkflowExecution>("model", &spec(ENDS)).await?;
        watch.until("complete", 1, &mut operator.program, |seen| seen.complete.is_some()).await?;
        let model = stage.executions().get("model").await?;
        println!("  starting {} that go on", shape.running);
        load::each(shape.running, async |number| {
            stage.create::<WorkflowExecution>(&load::name(number), &spec(HANGS)).await?;
            Ok(())
        })
        .await?;
        let all = shape.running + 1;
        watch.until("started", all, &mut operator.program, |seen| seen.started).await?;
        Ok(Self { stage, operator, watch, shape, model, finished: 0 })
    }

    /// Adds finished executions until there are this many: copies of the model, written while no operator runs.
    pub async fn grow(&mut self, environment: &mut Environment, finished: usize) -> Result<()> {
        let more = finished.saturating_sub(self.finished);
        println!("  writing {more} executions that have ended");
        self.operator.stop()?;
        let before = self.finished;
        load::each(more, async |number| {
            if number > 0 && number.is_multiple_of(5000) {
                println!("    {number} of {more}");
            }
            copy(&self.stage, &self.model, &format!("finished-{}", before + number), &spec(ENDS)).await
        })
        .await?;
        self.finished += more;
        self.operator = environment.operator(&self.stage, AS_INSTALLED).await?;
        println!("  waiting {} s until all is at rest", self.shape.settles.as_secs());
        sleep(self.shape.settles).await;
        Ok(())
    }

    /// Measures the idle executions.
    pub async fn rest(&mut self, environment: &Environment) -> Result<Table> {
        let lasts = self.shape.rest;
        println!("  looking for {} s", lasts.as_secs());
        let before = self.look(environment).await?;
        self.stage.simulated.forget_calls().await?;
        let meter = Meter::start(self.stage.simulated.clone());
        let begun = Instant::now();
        sleep(lasts).await;
        self.operator.program.check()?;
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        let counted = self.count(environment, &before, meter).await?;

        let mut figures = Figures::default();
        figures.add("writes, Leases and Events apart", number(counted.writes.total()));
        figures.add_each("of them ", &counted.writes.ours, 1.0);
        figures.add(LEASES, number(counted.writes.leases));
        figures.add("Events", number(counted.writes.events));
        figures.add("calls per minute", number(counted.calls.values().sum()) / minutes);
        figures.add_each("of them ", &counted.calls, minutes);
        figures.add("calls about one execution", number(about_one(&counted.calls)));
        figures.add_known("CPU seconds per minute", counted.cpu.map(|seconds| seconds / minutes));
        self.add_memory(&mut figures);
        if counted.writes.leases == 0 {
            return Err("no renewal of a Lease was counted.".into());
        }
        let aims = vec![
            Aim { figure: "writes, Leases and Events apart", bound: Bound::Most(0.0) },
            Aim { figure: "calls about one execution", bound: Bound::Most(0.0) },
            Aim { figure: "peak memory, MiB", bound: Bound::Most(48.0) },
        ];
        Ok(self.table("rest", vec![(operator_column(None), vec![figures])], aims))
    }

    /// Restarts each operator this many times, in turn, and measures the effects.
    pub async fn restarts(&mut self, environment: &mut Environment, rounds: usize) -> Result<Table> {
        let operators = environment.operators();
        let named = |(other, _): &(Option<String>, PathBuf)| (operator_column(other.as_deref()), Vec::new());
        let mut columns: Vec<(String, Vec<Figures>)> = operators.iter().map(named).collect();
        for round in 0..rounds {
            for (place, (_, program)) in operators.iter().enumerate() {
                println!("  round {} of {rounds}: {}", round + 1, columns[place].0);
                let figures = self.restart(environment, program).await?;
                columns[place].1.push(figures);
            }
        }
        let aims = vec![
            Aim { figure: "seconds from the Lease to ready", bound: Bound::Most(2.0) },
            Aim { figure: "most calls within a second", bound: Bound::Most(AT_MOST_A_SECOND) },
            Aim { figure: "writes to executions that changed nothing", bound: Bound::Most(0.0) },
            Aim { figure: "peak memory, MiB", bound: Bound::Most(48.0) },
        ];
        let mut table = self.table("restart", columns, aims);
        table.notes.push(format!(
            "Counted for {} s from the new process's start, with the budget of {BUDGET} calls a second, a fifth of which may leave at once.",
            self.shape.restarted.as_secs()
        ));
        Ok(table)
    }

    /// Stops the operator, starts this one, and measures the effects.
    async fn restart(&mut self, environment: &mut Environment, program: &Path) -> Result<Figures> {
        let lasts = self.shape.restarted;
        println!("  starting the operator anew, and looking for {} s", lasts.as_secs());
        let told = Instant::now();
        self.operator.stop()?;
        let stopped = told.elapsed();
        let before = self.look(environment).await?;
        self.stage.simulated.forget_calls().await?;
        let meter = Meter::start(self.stage.simulated.clone());
        let api_server = environment.api_server();
        let api_server_before = api_server.cpu();
        let begun = Instant::now();
        self.operator = environment.operator_of(program, &self.stage, AS_INSTALLED).await?;
        let (ready, is_ready) = (begun.elapsed(), Timestamp::now());
        let leads_since = self.stage.leads_since().await?;
        sleep(lasts.saturating_sub(ready)).await;
        self.operator.program.check()?;
        // The CPU time of the new process began at zero.
        let before = Before { cpu: self.operator.program.usage().cpu().map(|_| 0.0), ..before };
        let counted = self.count(environment, &before, meter).await?;

        let mut figures = Figures::default();
        figures.add("seconds to its end", stopped.as_secs_f64());
        figures.add("seconds from its start to ready", ready.as_secs_f64());
        figures.add("seconds from the Lease to ready", milliseconds(leads_since, is_ready) / 1000.0);
        figures.add("calls", number(counted.calls.values().sum()));
        figures.add_each("of them ", &counted.calls, 1.0);
        figures.add("most calls within a second", number(counted.most));
        figures.add("writes, Leases and Events apart", number(counted.writes.total()));
        figures.add_each("of them ", &counted.writes.ours, 1.0);
        figures.add("writes to executions that changed nothing", number(counted.idle_writes));
        figures.add(LEASES, number(counted.writes.leases));
        figures.add("Events", number(counted.writes.events));
        figures.add_known("CPU seconds", counted.cpu);
        let worked = api_server.cpu().zip(api_server_before).map(|(now, then)| now - then);
        figures.add_known("CPU seconds, kube-apiserver", worked);
        self.add_memory(&mut figures);
        if counted.calls.is_empty() {
            return Err("no call was counted.".into());
        }
        Ok(figures)
    }

    fn table(&self, name: &str, columns: Vec<(String, Vec<Figures>)>, aims: Vec<Aim>) -> Table {
        let Shape { running, rest, .. } = self.shape;
        let finished = self.finished;
        let mut notes = vec![format!(
            "{finished} executions that have ended and {running} that go on, with inputs and results of {PADDING} bytes and more."
        )];
        if name == "rest" {
            notes.push(format!("Looked at for {} s.", rest.as_secs()));
        }
        Table { title: format!("{name}, N = {}", finished + running), notes, columns, aims }
    }

    async fn look(&self, environment: &Environment) -> Result<Before> {
        let cpu = self.operator.program.usage().cpu();
        Ok(Before { writes: Writes::so_far(&environment.client).await?, changes: self.watch.changes(), cpu })
    }

    async fn count(&self, environment: &Environment, before: &Before, meter: Meter) -> Result<Counted> {
        let cpu = self.operator.program.usage().cpu().zip(before.cpu).map(|(now, then)| now - then);
        let calls = self.stage.simulated.calls().await?;
        let most = meter.stop().await?;
        let writes = Writes::so_far(&environment.client).await?.since(&before.writes, &[]);
        // The last writes have not yet reached the watch.
        sleep(Duration::from_secs(2)).await;
        let changes = self.watch.changes() - before.changes;
        let to_executions = |what: &&String| what.contains(" workflowexecutions") && what.ends_with(" 200");
        let made: u64 = writes.ours.iter().filter(|(what, _)| to_executions(what)).map(|(_, count)| count).sum();
        Ok(Counted { idle_writes: made.saturating_sub(changes), writes, calls, most, cpu })
    }

    fn add_memory(&self, figures: &mut Figures) {
        let usage = self.operator.program.usage();
        figures.add_known("peak memory, MiB", usage.memory("VmHWM"));
        figures.add_known("memory in the end, MiB", usage.memory("VmRSS"));
        figures.add_known("of it anonymous, MiB", usage.memory("RssAnon"));
    }
}

struct Before {
    writes: Writes,
    changes: u64,
    cpu: Option<f64>,
}

struct Counted {
    writes: Writes,
    /// Writes to executions that no change followed.
    idle_writes: u64,
    calls: Counts,
    /// The most calls within a second.
    most: u64,
    cpu: Option<f64>,
}

/// Calls whose route names a single execution.
fn about_one(calls: &Counts) -> u64 {
    calls.iter().filter(|(route, _)| route.contains("{execution_id}")).map(|(_, count)| count).sum()
}

fn spec(workflow: &str) -> Value {
    let input = json!({ "order": 4711, "padding": "x".repeat(PADDING) });
    json!({ "workflowIdentifier": workflow, "input": input })
}

/// Writes an execution as the operator leaves it two minutes after the run's end: with the claim, its own names in it,
/// the mark, the model's status, and no finalizer.
async fn copy(stage: &Stage, model: &DynamicObject, name: &str, spec: &Value) -> Result<()> {
    let executions = stage.executions();
    let uid = stage.create::<WorkflowExecution>(name, spec).await?;
    let id = derived_id(name, &uid);
    let claim = model.annotations().get(CLAIM).ok_or("the model has no claim.")?;
    let mut claim: Value = serde_json::from_str(claim)?;
    claim["executionId"] = json!(id);
    claim["owner"]["name"] = json!(name);
    claim["uid"] = json!(uid);
    // Of thousands of ended executions, few calls may still be in flight.
    claim["sendBefore"] = json!("2026-01-01T00:00:00Z");
    let mark = Mark { uid: uid.parse()?, generation: 1, returns: Returns::Never };
    let labels = json!({ FINISHED: mark.to_label() });
    let metadata = json!({ "metadata": { "annotations": { CLAIM: claim.to_string() }, "labels": labels } });
    executions.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&metadata)).await?;
    let mut status = model.data["status"].clone();
    status["executionId"] = json!(id);
    status["rootExecutionId"] = json!(id);
    executions.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await?;
    Ok(())
}
