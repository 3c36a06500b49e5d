//! Executions that finished under another version, and this version among them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use kube::ResourceExt;
use mistral_simulator::WorkflowSpec;
use mistral_workflows_operator::api::WorkflowExecution;
use mistral_workflows_operator::execution::finished::mark::FINISHED;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::environment::{Environment, How, Operator, Stage};
use super::figures::{Figures, number};
use super::load::{self, Watch};
use super::measure::Writes;
use super::report::{Aim, Bound, Table, operator_column};
use crate::demo::Result;

const ENDS: &str = "ends";
/// A budget that does not slow down the creation.
const UNHINDERED: How = How { elected: true, calls_per_second: 1000 };
/// How the new version is installed.
const AS_INSTALLED: How = How { elected: true, calls_per_second: 50 };
/// How long to look on after the last execution has left.
const LOOKS_ON: Duration = Duration::from_secs(60);
const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// How long nothing may change.
const STANDSTILL: Duration = Duration::from_secs(300);
const TELLS_EVERY: Duration = Duration::from_secs(30);

/// Runs `count` executions by `before`, replaces it by the operator of this build, and follows how they leave the watch.
/// Fails if a run is started then.
pub async fn measure(environment: &mut Environment, before: &Path, count: usize) -> Result<Table> {
    let stage = environment.stage(&[WorkflowSpec::new(ENDS)], Duration::ZERO).await?;
    stage.furnish("5m").await?;
    let watch = Watch::start::<WorkflowExecution>(&environment.client, &stage.namespace).await?;
    let mut earlier = environment.operator_of(before, &stage, UNHINDERED).await?;
    stage.until_accepted().await?;
    let spec = |index: usize| json!({ "workflowIdentifier": ENDS, "input": { "n": index } });
    tokio::try_join!(
        load::create(&stage, &watch, count, count, spec),
        watch.until("complete", count, &mut earlier.program, |seen| seen.complete.is_some()),
    )?;
    earlier.stop()?;

    let runs = starts(&stage).await?;
    stage.simulated.forget_calls().await?;
    let writes = Writes::so_far(&environment.client).await?;
    let begun = Instant::now();
    let mut operator = environment.operator(&stage, AS_INSTALLED).await?;
    let mut figures = Figures::default();
    figures.add("seconds from its start to ready", begun.elapsed().as_secs_f64());
    let most = until_left(&watch, &mut operator, count).await?;
    figures.add("seconds until the last has left", begun.elapsed().as_secs_f64());
    figures.add("most that left within a second", number(most));
    sleep(LOOKS_ON).await;
    operator.program.check()?;

    let writes = Writes::so_far(&environment.client).await?.since(&writes, &[]);
    figures.add("writes per execution, Leases and Events apart", number(writes.total()) / number(count as u64));
    figures.add("Events", number(writes.events));
    let calls = stage.simulated.calls().await?;
    figures.add("calls", number(calls.values().sum()));
    figures.add_each("of them ", &calls, 1.0);
    figures.add_known("CPU seconds", operator.program.usage().cpu());
    figures.add_known("peak memory, MiB", operator.program.usage().memory("VmHWM"));
    figures.add_known("memory in the end, MiB", operator.program.usage().memory("VmRSS"));
    if starts(&stage).await? != runs {
        return Err("a run was started, or forgotten, after the upgrade.".into());
    }
    let left = marked(&stage).await?;
    if left != count {
        return Err(format!("{left} of {count} have left, and the watch saw all of them leave.").into());
    }
    let notes = vec![format!(
        "{count} executions that another version has run; the new one starts at once after the last is complete. No run was started."
    )];
    let aims = vec![Aim { figure: "writes per execution, Leases and Events apart", bound: Bound::Most(1.0) }];
    Ok(Table {
        title: format!("upgrade, N = {count}"),
        notes,
        columns: vec![(operator_column(None), vec![figures])],
        aims,
    })
}

/// Waits until all executions have left the watch. Returns the most that left within a second.
async fn until_left(watch: &Watch, operator: &mut Operator, count: usize) -> Result<u64> {
    let (mut before, mut most, mut changed, mut told) = (0, 0, Instant::now(), Instant::now());
    loop {
        let left = watch.count(|seen| seen.left);
        most = most.max(left - before);
        if left >= count {
            return Ok(most as u64);
        }
        operator.program.check()?;
        if left > before {
            changed = Instant::now();
        }
        if changed.elapsed() > STANDSTILL {
            let tail = operator.program.tail();
            return Err(
                format!("{left} of {count} have left, and nothing has changed for {STANDSTILL:?}.\n{tail}").into()
            );
        }
        if told.elapsed() > TELLS_EVERY {
            println!("    {left} of {count} have left");
            told = Instant::now();
        }
        before = left;
        sleep(LOOKS_EVERY).await;
    }
}

/// How often each run was started, by its input.
async fn starts(stage: &Stage) -> Result<HashMap<String, u64>> {
    let runs = stage.simulated.runs().await?;
    Ok(runs.into_iter().map(|run| (run.input.to_string(), run.starts)).collect())
}

/// How many executions have the label, by a list of all of them.
async fn marked(stage: &Stage) -> Result<usize> {
    let all = stage.executions().list_metadata(&kube::api::ListParams::default()).await?;
    Ok(all.items.iter().filter(|object| object.labels().contains_key(FINISHED)).count())
}
