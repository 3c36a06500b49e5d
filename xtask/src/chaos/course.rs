//! The course of events: what goes wrong while executions come and go, and how all comes to its end.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::faults::{self, Controls};
use super::operators::Operators;
use super::perform::{create, delete, patiently};
use super::place::Place;
use super::record::{Record, Seen};
use super::values;
use super::workload::{Disturbance, Plan};
use crate::demo::Result;

/// How often to look after the processes.
const TICK: Duration = Duration::from_millis(100);
/// How long faults and crash points that have not struck in time may still take to.
const MORE: Duration = Duration::from_secs(120);
/// How long after the last fault everything may take to end: the doubt about a call (90 s), once more if the resource
/// is created again, five minutes for a deletion that cannot stop its run, and a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(400);

/// Looks after the processes until it is aborted.
pub async fn look_after(operators: Arc<Mutex<Operators>>) {
    for tick in 0_u64.. {
        let mut operators = operators.lock().await;
        operators.look_after();
        if tick.is_multiple_of(10) {
            operators.count_waits().await;
        }
        drop(operators);
        sleep(TICK).await;
    }
}

/// Has happen to the API and to the processes what is planned.
pub async fn disturb(
    place: &Place,
    operators: &Mutex<Operators>,
    controls: &Controls,
    record: &Record,
    plan: &Plan,
    began: Instant,
) -> Result<()> {
    let processes = async {
        for (at, what) in &plan.disturbances {
            sleep_until(began + *at).await;
            // Somebody will lead soon, unless the API server is away.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                // Between two resources of one id only one process keeps order.
                let must_wait = matches!(what, Disturbance::SecondLeader(_)) && record.has_undecided_twins();
                if (!must_wait && disturb_now(place, operators, *what).await?) || Instant::now() > deadline {
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
    tokio::try_join!(processes, api).map(|_| ())
}

async fn disturb_now(place: &Place, operators: &Mutex<Operators>, what: Disturbance) -> Result<bool> {
    let done = operators.lock().await.disturb(what, None).await?;
    if let Disturbance::RestartApiServer(after) = what {
        place.restart_api_server(after).await?;
    }
    Ok(done)
}

/// Goes on until every fault has struck and every crash point was reached, with more executions for them to strike;
/// tells which did not.
pub async fn strike_the_rest(
    place: &Place,
    operators: &Mutex<Operators>,
    controls: &Controls,
    record: &Record,
) -> Result<Vec<String>> {
    let (api, deadline) = (place.executions(), Instant::now() + MORE);
    let mut hanging: VecDeque<String> = VecDeque::new();
    for number in 0.. {
        let struck = controls.struck().await?;
        let faults: Vec<&str> = struck.iter().filter(|(_, times)| **times == 0).map(|(name, _)| *name).collect();
        let (points, undone, is_busy) = {
            let operators = operators.lock().await;
            (operators.unreached(), operators.undone(), operators.is_busy())
        };
        let missing = faults.iter().chain(&undone).map(|name| (*name).to_owned()).chain(points.iter().cloned());
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() || Instant::now() > deadline {
            for name in hanging {
                delete(&api, record, &name).await?;
            }
            return Ok(missing);
        }
        if number % 10 == 0 {
            println!("         going on until these have struck too: {}", missing.join(", "));
        }
        if let Some(point) = points.first() {
            // It acts at once, so that it is at the point soon.
            let what = Disturbance::SecondLeader(Duration::from_secs(10));
            operators.lock().await.disturb(what, Some(point.clone())).await?;
        } else if let Some(what) = undone.first().and_then(|kind| Disturbance::of_kind(kind)).filter(|_| !is_busy) {
            disturb_now(place, operators, what).await?;
        }
        if !faults.is_empty() {
            controls.put(&faults::of_these(&faults)).await?;
        }
        if !faults.is_empty() || !points.is_empty() {
            let name = format!("more-{number}");
            let hangs = number % 3 == 2;
            let workflow = if hangs { "hang" } else { "complete-300" };
            let result = values::result_to(&name);
            let spec = json!({ "workflowIdentifier": workflow, "input": { "more": number }, "result": result });
            create(&api, record, &name, &spec).await?;
            // There has to be something to stop as well.
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

/// Waits until all lives are lived and all runs have ended; the resources that are there then, and what is wrong if it
/// takes too long.
pub async fn settle(
    place: &Place,
    record: &Record,
    lives: &mut JoinSet<Result<()>>,
) -> Result<(Vec<Seen>, Vec<String>)> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let (api, all) = (place.executions(), ListParams::default());
    let mut wrong = Vec::new();
    loop {
        while let Some(life) = lives.try_join_next() {
            // The books are still worth a look.
            wrong.extend(life?.err().map(|error| error.to_string()));
        }
        let objects = patiently(|| api.list(&all)).await?.items;
        objects.iter().for_each(|object| record.note(object));
        let there: HashSet<String> = objects.iter().filter_map(ResourceExt::uid).collect();
        let seen = record.all().into_iter().filter(|seen| there.contains(&seen.uid));
        let (going, present): (Vec<Seen>, Vec<Seen>) = seen.partition(|seen| seen.deleted);
        let is_over = |seen: &Seen| (seen.is_finished() && !seen.has_time_to_live()) || seen.is_held_back();
        if Instant::now() > deadline {
            let going = going.iter().map(|seen| format!("{} is still being deleted", seen.name));
            let late = (!lives.is_empty()).then(|| format!("{} lives could not be lived to their end", lives.len()));
            return Ok((present, wrong.into_iter().chain(going).chain(late).collect()));
        }
        if lives.is_empty() && going.is_empty() && present.iter().all(is_over) {
            return Ok((present, wrong));
        }
        sleep(Duration::from_secs(1)).await;
    }
}
