//! Many Workflows: applied, changed, archived, and idle.

use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use mistral_simulator::WorkflowSpec;
use mistral_workflows_operator::api::Workflow;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::environment::{Environment, How, Operator, Stage};
use super::figures::{Figures, number};
use super::load::{self, Watch};
use super::measure::Writes;
use super::report::Table;
use crate::demo::Result;

/// A budget that does not limit the measurement.
const UNHINDERED: How = How { elected: false, calls_per_second: 1000 };
/// By then, no comparison uses lists from before the last change.
const SETTLES: Duration = Duration::from_secs(10);

/// The number of Workflows, and the idle phase.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub count: usize,
    /// How long to measure idle Workflows.
    pub rest: Duration,
    /// The resync interval of the idle phase.
    pub resync: &'static str,
}

fn name(index: usize) -> String {
    format!("w{index}")
}

pub async fn measure(environment: &mut Environment, shape: Shape) -> Result<Table> {
    let Shape { count, rest, resync } = shape;
    let registered: Vec<WorkflowSpec> = (0..count).map(|index| WorkflowSpec::new(name(index))).collect();
    let stage = environment.stage(&registered, Duration::from_millis(50)).await?;
    // Until the idle phase, the operator gets only what has changed.
    stage.furnish("1h").await?;
    let mut operator = environment.operator(&stage, UNHINDERED).await?;
    stage.until_accepted().await?;
    let watch = Watch::start::<Workflow>(&environment.client, &stage.namespace).await?;
    let (mut columns, resources) = (Vec::new(), stage.workflows());
    let change = async |index: usize, spec: &Value| {
        let patch = json!({ "spec": spec });
        resources.patch(&name(index), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    };
    let mut phase = Phase { environment, stage: &stage, operator: &mut operator, watch: &watch, count, generation: 0 };
    let applied = json!({ "tags": ["a"] });
    let apply = async |index| {
        stage.create::<Workflow>(&name(index), &applied).await?;
        Ok(())
    };
    columns.push(("apply".to_owned(), vec![phase.run("POST workflows 201", apply).await?]));
    let tag = async |index| change(index, &json!({ "tags": ["b"] })).await;
    columns.push(("change a tag of each".to_owned(), vec![phase.run("PATCH workflows 200", tag).await?]));
    let archive = async |index| change(index, &json!({ "archived": true })).await;
    columns.push(("archive".to_owned(), vec![phase.run("PATCH workflows 200", archive).await?]));
    let archived = archived(&resources).await?;
    if archived != count {
        return Err(format!("{archived} of {count} Workflows say that they are archived.").into());
    }

    sleep(SETTLES).await;
    stage.resync(resync).await?;
    println!("  at rest: looking for {} s", rest.as_secs());
    columns.push((format!("{} s at rest", rest.as_secs()), vec![phase.rest(rest).await?]));
    let notes = vec![
        format!(
            "From the first request until all are `InSync` again. At rest, the operator looks for changes every {resync}."
        ),
        "Writes without those of the bench itself, that create and change the Workflows.".to_owned(),
    ];
    Ok(Table { title: format!("workflows, N = {count}"), notes, columns, aims: Vec::new() })
}

/// The common parts of all phases.
struct Phase<'a> {
    environment: &'a Environment,
    stage: &'a Stage,
    operator: &'a mut Operator,
    watch: &'a Watch,
    count: usize,
    /// The generation of the Workflows.
    generation: i64,
}

impl Phase<'_> {
    /// Applies `what` to each Workflow and waits until all are in sync. The API server counts each write as `own`.
    async fn run(&mut self, own: &str, what: impl AsyncFn(usize) -> Result<()>) -> Result<Figures> {
        self.generation += 1;
        println!("  change {} of 3 to each of {}", self.generation, self.count);
        let (watch, count, generation) = (self.watch, self.count, self.generation);
        let before = self.before().await?;
        load::each(count, what).await?;
        let sent = before.begun.elapsed();
        let program = &mut self.operator.program;
        watch.until("in sync", count, program, |seen| seen.in_sync >= generation).await?;
        let mut figures = Figures::default();
        figures.add("seconds", before.begun.elapsed().as_secs_f64());
        figures.add("of them for the bench's own requests", sent.as_secs_f64());
        self.add(&mut figures, before, &[(own, count as u64)]).await?;
        Ok(figures)
    }

    /// Measures for a while without changes.
    async fn rest(&mut self, lasts: Duration) -> Result<Figures> {
        let before = self.before().await?;
        sleep(lasts).await;
        self.operator.program.check()?;
        let mut figures = Figures::default();
        figures.add("seconds", before.begun.elapsed().as_secs_f64());
        self.add(&mut figures, before, &[]).await?;
        Ok(figures)
    }

    async fn before(&self) -> Result<Before> {
        self.stage.simulated.forget_calls().await?;
        let writes = Writes::so_far(&self.environment.client).await?;
        Ok(Before { writes, cpu: self.operator.program.usage().cpu(), begun: Instant::now() })
    }

    async fn add(&self, figures: &mut Figures, before: Before, own: &[(&str, u64)]) -> Result<()> {
        let usage = self.operator.program.usage();
        let cpu = usage.cpu().zip(before.cpu).map(|(now, then)| now - then);
        let calls = self.stage.simulated.calls().await?;
        let writes = Writes::so_far(&self.environment.client).await?.since(&before.writes, own);
        if calls.is_empty() {
            return Err("no call was counted.".into());
        }
        figures.add("calls", number(calls.values().sum()));
        figures.add_each("of them ", &calls, 1.0);
        figures.add("writes, Events apart", number(writes.total()));
        figures.add_each("of them ", &writes.ours, 1.0);
        figures.add("Events", number(writes.events));
        figures.add_known("CPU seconds", cpu);
        figures.add_known("peak memory so far, MiB", usage.memory("VmHWM"));
        figures.add_known("anonymous memory in the end, MiB", usage.memory("RssAnon"));
        Ok(())
    }
}

struct Before {
    writes: Writes,
    cpu: Option<f64>,
    begun: Instant,
}

/// The number of Workflows whose status says that they are archived.
async fn archived(workflows: &Api<DynamicObject>) -> Result<usize> {
    let all = workflows.list(&kube::api::ListParams::default()).await?;
    Ok(all.iter().filter(|object| object.data["status"]["archived"] == json!(true)).count())
}
