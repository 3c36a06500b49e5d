//! Many executions at once, by the baseline and by the operator in turn.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use mistral_simulator::{Behaviour, WorkflowSpec};
use serde_json::json;

use super::baseline::DURATION;
use super::environment::{Environment, How, Operator, Program, Stage};
use super::figures::{Figures, milliseconds, number, percentile};
use super::load::{self, Watch};
use super::measure::{Booked, Machine, Usage, Writes};
use super::report::{Aim, Bound, RATE, Table, operator_column};
use crate::demo::Result;
use mistral_workflows_operator::api::WorkflowExecution;

/// The durations of the runs in milliseconds, in rotation.
const DURATIONS: [u64; 5] = [0, 500, 1000, 1500, 2000];
/// A budget that does not limit the measurement.
const UNHINDERED: How = How { elected: false, calls_per_second: 1000 };
/// Uncounted executions by the baseline before the first measurement: a new API server is slower.
const WARM_UP: usize = 100;

/// From the request that creates a resource to the call that starts its run.
const STARTS: &str = "create to POST, p50, ms";
/// From a run's end to the condition `Complete` of its resource.
const ENDS: &str = "end to Complete, p50, ms";
const CALLS: &str = "calls per execution";
const WRITES: &str = "writes per execution, Events apart";
const CPU: &str = "CPU ms per execution";

/// The parameters of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub count: usize,
    /// How many of them may be incomplete at a time.
    pub window: usize,
    /// How long each call to the simulator takes.
    pub latency: Duration,
    /// Whether to wait until the finalizers are removed, at least a minute and a half after the end.
    pub to_the_end: bool,
    /// Whether each execution has an `executionId`, whose claims are compared with all others.
    pub explicit_ids: bool,
}

/// The measured program.
#[derive(Clone, Debug)]
pub enum Who {
    /// The baseline program, which works on this many executions at a time.
    Baseline(usize),
    /// The operator, or one of another build, which has a name.
    Operator(Option<String>, PathBuf),
}

impl Who {
    fn name(&self) -> String {
        match self {
            Self::Baseline(at_once) => format!("baseline, {at_once} at once"),
            Self::Operator(other, _) => operator_column(other.as_deref()),
        }
    }
}

enum Running {
    Baseline(Program),
    Operator(Operator),
}

impl Running {
    fn program(&mut self) -> &mut Program {
        match self {
            Self::Baseline(program) => program,
            Self::Operator(operator) => &mut operator.program,
        }
    }
}

/// Measures each of `baselines` and the operator in every round. Each round begins with another program.
pub async fn rounds(environment: &mut Environment, shape: Shape, baselines: &[usize], rounds: usize) -> Result<Table> {
    let warm_up = Shape { count: WARM_UP, window: WARM_UP, latency: Duration::ZERO, to_the_end: false, ..shape };
    turn(environment, &Who::Baseline(32), warm_up).await?;
    let operators = environment.operators().into_iter().map(|(other, program)| Who::Operator(other, program));
    let everyone: Vec<Who> = baselines.iter().map(|at_once| Who::Baseline(*at_once)).chain(operators).collect();
    let mut columns: Vec<(String, Vec<Figures>)> = everyone.iter().map(|who| (who.name(), Vec::new())).collect();
    for round in 0..rounds {
        for position in 0..everyone.len() {
            let index = (position + round) % everyone.len();
            let figures = turn(environment, &everyone[index], shape).await?;
            let rate = figures.get(RATE).unwrap_or_default();
            println!("  round {} of {rounds}: {}: {rate:.1} executions a second", round + 1, everyone[index].name());
            columns[index].1.push(figures);
        }
    }
    let mut notes = vec![format!(
        "{} executions, {} at most unfinished at a time; {} ms latency; runs of 0 to 2 s; medians of {rounds}, with the smallest and the largest.",
        shape.count,
        shape.window,
        shape.latency.as_millis()
    )];
    if !shape.to_the_end {
        notes.push("Finalizers were not waited for: the writes that take them off are missing.".to_owned());
    }
    Ok(Table { title: String::new(), notes, columns, aims: Vec::new() })
}

/// The aims for a burst of this size.
pub fn aims(count: usize) -> Vec<Aim> {
    let mut aims =
        vec![Aim { figure: CALLS, bound: Bound::Most(2.1) }, Aim { figure: WRITES, bound: Bound::Most(3.2) }];
    if count == 1000 {
        aims.push(Aim { figure: RATE, bound: Bound::LeastOfBaseline(0.8) });
        aims.push(Aim { figure: STARTS, bound: Bound::MostOfBaseline(1.5) });
        aims.push(Aim { figure: ENDS, bound: Bound::Most(2000.0) });
    }
    aims
}

async fn turn(environment: &mut Environment, who: &Who, shape: Shape) -> Result<Figures> {
    let workflow = |lasts: u64| WorkflowSpec {
        behaviour: Some(Behaviour { duration_ms: Some(lasts), ..Behaviour::default() }),
        ..WorkflowSpec::new(workflow(lasts))
    };
    let stage = environment.stage(&DURATIONS.map(workflow), shape.latency).await?;
    let mut running = match who {
        Who::Baseline(at_once) => Running::Baseline(environment.baseline(&stage, *at_once).await?),
        Who::Operator(_, program) => {
            stage.furnish("5m").await?;
            let operator = environment.operator_of(program, &stage, UNHINDERED).await?;
            stage.until_accepted().await?;
            Running::Operator(operator)
        }
    };
    let figures = measure(environment, &stage, &mut running, shape).await?;
    stage.clear(running.program()).await?;
    Ok(figures)
}

fn workflow(lasts: u64) -> String {
    format!("run-{lasts}")
}

async fn measure(environment: &Environment, stage: &Stage, running: &mut Running, shape: Shape) -> Result<Figures> {
    let Shape { count, window, .. } = shape;
    let each = number(count as u64);
    let watch = Watch::start::<WorkflowExecution>(&environment.client, &stage.namespace).await?;
    stage.simulated.forget_calls().await?;
    let before = Writes::so_far(&environment.client).await?;
    let is_operator = matches!(running, Running::Operator(_));
    let program = running.program();
    let usage = program.usage();
    let (cpu, machine) = (usage.cpu(), Machine::now());
    let others = environment.others(stage).map(|(name, usage)| (name, usage, usage.cpu()));

    let spec = |index: usize| {
        let lasts = DURATIONS[index % DURATIONS.len()];
        let mut spec = json!({ "workflowIdentifier": workflow(lasts), "input": { "n": index, DURATION: lasts } });
        if shape.explicit_ids {
            spec["executionId"] = json!(format!("{}-{index}", stage.namespace));
        }
        spec
    };
    let (created, ()) = tokio::try_join!(
        load::create(stage, &watch, count, window, spec),
        watch.until("complete", count, program, |seen| seen.complete.is_some()),
    )?;
    let since = |usage: Usage, then: Option<f64>| usage.cpu().zip(then).map(|(now, then)| now - then);
    let (busy, worked) = (Machine::busy_since(machine), since(usage, cpu));
    let others = others.map(|(name, usage, then)| (name, since(usage, then)));
    let calls = stage.simulated.calls().await?;
    if is_operator && shape.to_the_end {
        watch.until("without finalizer", count, program, |seen| seen.complete.is_some() && !seen.finalizer).await?;
    }
    let writes = Writes::so_far(&environment.client).await?;
    let writes = writes.since(&before, &[("POST workflowexecutions 201", count as u64)]);
    let runs = stage.simulated.runs().await?;

    let mut figures = times(&watch, &created, &by_number(runs, count)?)?;
    figures.add(CALLS, number(calls.values().sum()) / each);
    figures.add_each("of them ", &calls, each);
    figures.add(WRITES, number(writes.total()) / each);
    figures.add_each("of them ", &writes.ours, each);
    figures.add("Events per execution", number(writes.events) / each);
    figures.add_known("CPU seconds", worked);
    figures.add_known(CPU, worked.map(|seconds| seconds * 1000.0 / each));
    for (name, worked) in others {
        figures.add_known(&format!("CPU ms per execution, {name}"), worked.map(|seconds| seconds * 1000.0 / each));
    }
    figures.add_known("peak memory, MiB", usage.memory("VmHWM"));
    figures.add_known("anonymous memory in the end, MiB", usage.memory("RssAnon"));
    figures.add_known("machine busy, %", busy);
    if calls.is_empty() || writes.total() == 0 {
        return Err("neither calls nor writes were counted.".into());
    }
    Ok(figures)
}

/// How long it took: all executions, and each from its creation to the start of its run, and from the run's end to
/// `Complete`.
fn times(watch: &Watch, created: &[Timestamp], runs: &[Booked]) -> Result<Figures> {
    let seen = watch.seen();
    let complete = |index: usize| seen.get(&load::name(index)).and_then(|seen| seen.complete);
    let first = created.iter().min().copied().ok_or("nothing was created.")?;
    let last = (0..runs.len()).filter_map(complete).max().ok_or("nothing was completed.")?;
    let starts: Vec<f64> = created.iter().zip(runs).map(|(sent, run)| milliseconds(*sent, run.arrived)).collect();
    let ended = |(index, run): (usize, &Booked)| Some(milliseconds(run.ended?, complete(index)?));
    let ends: Vec<f64> = runs.iter().enumerate().filter_map(ended).collect();
    let mut figures = Figures::default();
    figures.add(RATE, number(runs.len() as u64) / (milliseconds(first, last) / 1000.0));
    figures.add_known(STARTS, percentile(starts.iter().copied(), 50));
    figures.add_known("create to POST, p99, ms", percentile(starts, 99));
    figures.add_known(ENDS, percentile(ends.iter().copied(), 50));
    figures.add_known("end to Complete, p99, ms", percentile(ends, 99));
    Ok(figures)
}

/// The runs in the order of their resources. Fails unless there is exactly one run for each, started once.
fn by_number(runs: Vec<Booked>, count: usize) -> Result<Vec<Booked>> {
    let mut sorted: Vec<Option<Booked>> = vec![None; count];
    let all = runs.len();
    for run in runs {
        let index = run.input["n"].as_u64().and_then(|number| usize::try_from(number).ok());
        match index.and_then(|index| sorted.get_mut(index)) {
            Some(place @ None) if run.starts == 1 => *place = Some(run),
            _ => return Err(format!("a run was started more than once, or is nobody's: {run:?}.").into()),
        }
    }
    let sorted: Option<Vec<Booked>> = sorted.into_iter().collect();
    Ok(sorted.ok_or_else(|| format!("{count} executions have {all} runs."))?)
}

/// How the cost of an execution has grown from one size to another.
pub fn growth(small: &Table, large: &Table) -> Vec<String> {
    let of = |figure: &str| {
        let (small, large) = (small.median(figure)?, large.median(figure)?);
        (small > 0.0).then(|| format!("{figure}: {:+.1} %", 100.0 * (large / small - 1.0)))
    };
    [CALLS, WRITES, CPU].into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_one_run_that_was_started_once() {
        let run = |n: u64, starts| {
            let time = "2026-11-24T00:00:00Z".parse().unwrap();
            Booked { input: json!({ "n": n }), starts, arrived: time, ended: None }
        };
        let sorted = by_number(vec![run(1, 1), run(0, 1)], 2).unwrap();
        assert_eq!(sorted.iter().map(|run| run.input["n"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
        for wrong in
            [vec![run(0, 1)], vec![run(0, 2), run(1, 1)], vec![run(0, 1), run(0, 1)], vec![run(0, 1), run(2, 1)]]
        {
            assert!(by_number(wrong, 2).is_err());
        }
    }
}
