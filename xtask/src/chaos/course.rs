//! The course of the test: disturbances while executions come and go, and the wait for their ends.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::dice::Dice;
use super::environment::{DEFAULT, Environment};
use super::faults::{self, Controls};
use super::operators::Operators;
use super::perform::{create, delete, patiently, perform};
use super::record::{Record, Seen};
use super::told::Told;
use super::workload::{Disturbance, Plan, Planned};
use super::{refusals, told, values};
use crate::demo::Result;

/// How often to check the processes.
const TICK: Duration = Duration::from_millis(100);
/// How long faults and failpoints that have not struck in time may still take to.
const MORE: Duration = Duration::from_secs(120);
/// How long everything may take to end after the last fault: 90 s until the outcome of a call is known, once more if
/// the resource is created again, five minutes for a deletion that cannot stop its run, and slack for a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(400);

/// Supervises the processes until aborted.
pub async fn look_after(operators: Arc<Mutex<Operators>>) {
    for tick in 0_u64.. {
        let mut operators = operators.lock().await;
        operators.look_after();
        if tick.is_multiple_of(10) {
            operators.count_waits().await;
            operators.look_at_readiness().await;
        }
        drop(operators);
        sleep(TICK).await;
    }
}

/// Applies the planned faults and disturbances.
pub async fn disturb(
    environment: &Environment,
    operators: &Mutex<Operators>,
    controls: &Controls,
    record: &Record,
    plan: &Plan,
    began: Instant,
) -> Result<()> {
    let processes = async {
        for (at, what) in &plan.disturbances {
            sleep_until(began + *at).await;
            // A leader appears soon, unless the API server is away.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                // Only a single process keeps two resources of one id apart.
                let must_wait = matches!(what, Disturbance::SecondLeader(_)) && record.has_undecided_twins();
                if (!must_wait && disturb_now(environment, operators, *what).await?) || Instant::now() > deadline {
                    break;
                }
                sleep(TICK).await;
            }
        }
        Ok(())
    };
    let api = async {
        for phase in &plan.phases {
            controls.put(&phase.orders).await?;
            sleep(phase.lasts).await;
        }
        Ok(())
    };
    let all = async { tokio::try_join!(processes, api).map(|_| ()) };
    let outcome = tokio::select! {
        outcome = all => outcome,
        outcome = refusals::take_turns(environment.client.clone()) => outcome,
    };
    refusals::be_strict(&environment.client, false).await?;
    outcome
}

async fn disturb_now(environment: &Environment, operators: &Mutex<Operators>, what: Disturbance) -> Result<bool> {
    let done = operators.lock().await.disturb(what, None).await?;
    if let Disturbance::RestartApiServer(after) = what {
        environment.restart_api_server(after).await?;
    }
    Ok(done)
}

/// Goes on until every fault has struck and every failpoint was reached, with more executions for them to strike;
/// tells which did not.
pub async fn strike_the_rest(
    environment: &Environment,
    operators: &Mutex<Operators>,
    controls: &Controls,
    record: &Record,
    lives: &mut JoinSet<Result<()>>,
) -> Result<Vec<String>> {
    let (api, deadline) = (environment.executions().of(DEFAULT), Instant::now() + MORE);
    let mut dice = Dice::new(0);
    let mut hanging: VecDeque<String> = VecDeque::new();
    for number in 0.. {
        let struck = controls.struck().await?;
        let faults: Vec<&str> = struck.iter().filter(|(_, times)| **times == 0).map(|(name, _)| *name).collect();
        let (points, undone, is_busy) = {
            let operators = operators.lock().await;
            (operators.unreached(), operators.undone(), operators.is_busy())
        };
        let (poison, refused) = (record.poison(), refusals::struck(&environment.client).await?);
        let odd: Vec<&str> =
            poison.iter().chain(&refused).filter(|(_, times)| **times == 0).map(|(name, _)| *name).collect();
        let missing = faults.iter().chain(&undone).chain(&odd).map(|name| (*name).to_owned());
        let missing: Vec<String> = missing.chain(points.iter().cloned()).collect();
        if missing.is_empty() || Instant::now() > deadline {
            for name in hanging {
                delete(&api, record, &name).await?;
            }
            return Ok(missing);
        }
        if number % 10 == 0 {
            println!("         going on until these have struck too: {}", missing.join(", "));
        }
        let what = undone.first().and_then(|kind| Disturbance::of_kind(kind)).filter(|_| !is_busy);
        disturb_once_more(environment, operators, points.first(), what).await?;
        for (reason, _) in refused.iter().filter(|(_, times)| **times == 0 && number % 20 == 0) {
            let mut planned = refusals::that_would_tell(reason).planned(number, 1, &mut dice);
            planned.name = format!("more-{}", planned.name);
            lives.spawn(perform(environment.executions(), record.clone(), planned, Instant::now()));
        }
        if !faults.is_empty() {
            controls.put(&faults::of_these(&faults)).await?;
        }
        if !faults.is_empty() || !points.is_empty() {
            // Some runs must remain, so that there is something to stop.
            let hangs = number % 3 == 2;
            let name = one_more(&api, record, number, hangs).await?;
            if hangs {
                hanging.push_back(name);
            }
        }
        if hanging.len() > 1
            && let Some(name) = hanging.pop_front()
        {
            delete(&api, record, &name).await?;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(Vec::new())
}

/// Makes an operator reach this failpoint, or disturbs what was not disturbed yet.
async fn disturb_once_more(
    environment: &Environment,
    operators: &Mutex<Operators>,
    point: Option<&String>,
    what: Option<Disturbance>,
) -> Result<()> {
    if let Some(point) = point {
        // The second leader acts at once, so it reaches the failpoint soon.
        let what = Disturbance::SecondLeader(Duration::from_secs(10));
        operators.lock().await.disturb(what, Some(point.clone())).await?;
    } else if let Some(what) = what {
        disturb_now(environment, operators, what).await?;
    }
    Ok(())
}

/// Creates another execution for the faults to strike. Returns its name.
async fn one_more(api: &Api<Told>, record: &Record, number: usize, hangs: bool) -> Result<String> {
    let name = format!("more-{number}");
    let workflow = if hangs { "hang" } else { "complete-300" };
    let result = values::result_to(&name);
    let spec = json!({ "workflowIdentifier": workflow, "input": { "more": number }, "result": result });
    create(api, record, &Planned::new(name.clone(), spec, Duration::ZERO)).await?;
    Ok(name)
}

/// Waits until all steps are done and all runs have ended. Returns the resources that exist then, and complaints if
/// that takes too long.
pub async fn settle(
    environment: &Environment,
    record: &Record,
    lives: &mut JoinSet<Result<()>>,
) -> Result<(Vec<Seen>, Vec<String>)> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let (api, all) = (environment.executions().all(), ListParams::default());
    let mut wrong = Vec::new();
    loop {
        while let Some(life) = lives.try_join_next() {
            // Continue despite the error: the ledger is still worth checking.
            wrong.extend(life?.err().map(|error| error.to_string()));
        }
        let asked = Instant::now();
        let objects = patiently(|| api.list(&all)).await?.items;
        // Long lists take the API server's time, which the operators need.
        let rest = Duration::from_secs(1).max(asked.elapsed() * 9);
        objects.iter().for_each(|object| record.note(object));
        let there: HashSet<String> = objects.iter().filter_map(ResourceExt::uid).collect();
        let seen = record.all().into_iter().filter(|seen| there.contains(&seen.uid));
        let (deleted, present): (Vec<Seen>, Vec<Seen>) = seen.partition(|seen| seen.deleted);
        // The others disappear once the API server no longer refuses.
        let going: Vec<Seen> = deleted.into_iter().filter(|seen| !seen.refuses("finalizer")).collect();
        let is_over = |seen: &Seen| {
            (seen.is_finished() && !seen.has_time_to_live()) || seen.is_held_back() || seen.refuses("status")
        };
        if Instant::now() > deadline {
            let going = going.iter().map(|seen| format!("{} is still being deleted", seen.name));
            let late = (!lives.is_empty()).then(|| format!("{} lives could not be lived to their end", lives.len()));
            return Ok((present, wrong.into_iter().chain(going).chain(late).collect()));
        }
        let is_over = lives.is_empty() && going.is_empty() && present.iter().all(is_over);
        if is_over && silent_runs_have_ended(environment, &present).await? {
            return Ok((present, wrong));
        }
        sleep(rest).await;
    }
}

/// Whether all runs have ended whose executions may never report it.
async fn silent_runs_have_ended(environment: &Environment, present: &[Seen]) -> Result<bool> {
    let silent: Vec<&Seen> = present.iter().filter(|seen| seen.refuses("status") && !seen.is_held_back()).collect();
    if silent.is_empty() {
        return Ok(true);
    }
    let ledger = told::ledger(&environment.url).await?;
    let ended: Vec<&str> = ledger
        .iter()
        .filter(|entry| entry["status"] != "RUNNING")
        .filter_map(|entry| entry["execution_id"].as_str())
        .collect();
    Ok(silent.iter().all(|seen| ended.iter().any(|id| seen.is_of(id))))
}
