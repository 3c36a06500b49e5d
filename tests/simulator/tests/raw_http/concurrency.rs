//! Many requests at once.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::sse::{Stream, open_streams, sequences};
use crate::support::{Answer, EXECUTE, Sim, pluck, read};

const IDS: usize = 20;
const ROUNDS: usize = 10;

/// A simulator with a workflow that runs until it is stopped, and 50 others.
async fn busy() -> Arc<Sim> {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    for number in 0..50 {
        sim.register(json!({ "name": format!("w{number}") })).await;
    }
    Arc::new(sim)
}

async fn statuses(mut pending: JoinSet<Answer>) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(answer) = pending.join_next().await {
        statuses.push(answer.unwrap().0);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_simultaneous_requests_of_all_kinds_leave_the_books_in_order() {
    let sim = busy().await;
    let list = sim.ok("GET", "/v1/workflows?limit=100", None).await;
    let workflow_ids = pluck(list["workflows"].as_array().unwrap(), "id");
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(&sim, "/v1/workflows/events/stream").await);
    }

    let (mut starts, mut others) = (JoinSet::new(), JoinSet::new());
    for round in 0..ROUNDS {
        for id in 0..IDS {
            let start = json!({ "execution_id": format!("e{id}") });
            let (one, body) = (Arc::clone(&sim), start.clone());
            starts.spawn(async move { one.execute(body).await });
            let (one, ids) = (Arc::clone(&sim), workflow_ids.clone());
            others.spawn(async move {
                match round % 5 {
                    0 => one.get(&format!("/v1/workflows/executions/e{id}")).await,
                    1 => one.get("/v1/workflows/runs").await,
                    2 => one.put("/v1/workflows/archive", json!({ "workflow_ids": ids })).await,
                    3 => one.put("/v1/workflows/unarchive", json!({ "workflow_ids": ids })).await,
                    _ => one.get("/v1/workflows/events/list").await,
                }
            });
        }
    }
    let starts = statuses(starts).await;
    assert_eq!(starts.iter().filter(|status| **status == 200).count(), IDS, "one start per id");
    assert_eq!(starts.iter().filter(|status| **status == 409).count(), IDS * (ROUNDS - 1));
    assert!(statuses(others).await.iter().all(|status| [200, 404].contains(status)));
    assert_eq!(sim.calls("POST", EXECUTE).await, ((IDS * ROUNDS) as u64, IDS as u64));

    // Cancels, single and in batches, several for each execution.
    let mut cancels = JoinSet::new();
    for number in 0..IDS * 3 {
        let sim = Arc::clone(&sim);
        cancels.spawn(async move {
            let id = format!("e{}", number % IDS);
            if number % 2 == 0 {
                return sim.cancel(&id).await;
            }
            sim.post("/v1/workflows/executions/cancel", json!({ "execution_ids": [id] })).await
        });
    }
    assert!(statuses(cancels).await.iter().all(|status| [200, 204, 409].contains(status)));
    for id in 0..IDS {
        let booked = sim.booked(&format!("e{id}")).await.unwrap();
        assert_eq!((&booked["starts"], &booked["runs"]), (&json!(1), &json!(1)));
        assert_eq!(booked["status"], "CANCELED");
    }

    // Every reader received all events in the same order.
    let expected: Vec<u64> = (1..=IDS as u64 * 2).collect();
    for mut stream in streams {
        let events = stream.events(IDS * 2).await;
        assert_eq!(sequences(&events), expected);
    }
    open_streams(&sim, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_wait_for_results_at_once_and_each_gets_its_own() {
    let sim = Arc::new(Sim::with_job(json!({ "duration_ms": 200 })).await);
    let mut pending = JoinSet::new();
    for number in 0..200 {
        let sim = Arc::clone(&sim);
        let body = json!({ "execution_id": format!("e{number}"), "input": { "n": number }, "wait_for_result": true });
        pending.spawn(async move { (number, sim.execute(body).await) });
    }
    while let Some(done) = pending.join_next().await {
        let (number, (status, body)) = done.unwrap();
        assert_eq!((status, &body["result"]["n"]), (200, &json!(number)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_id_that_ends_and_starts_all_the_time_never_runs_twice_at_once() {
    let sim = Arc::new(Sim::with_job(json!({ "duration_ms": 1 })).await);
    let mut pending = JoinSet::new();
    for _ in 0..200 {
        let sim = Arc::clone(&sim);
        pending.spawn(async move { sim.execute(json!({ "execution_id": "e" })).await });
    }
    let accepted = statuses(pending).await.into_iter().filter(|status| *status == 200).count();
    sim.becomes("e", "COMPLETED").await;
    let runs = sim.runs("page_size=1000&order=asc").await;
    assert_eq!(runs.len(), accepted);
    for pair in runs.windows(2) {
        assert!(pair[0]["end_time"].as_str() <= pair[1]["start_time"].as_str(), "{pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_leave_in_the_middle_disturb_nobody() {
    let sim = busy().await;
    let mut pending = JoinSet::new();
    for number in 0..100 {
        let body = json!({ "execution_id": format!("e{number}"), "wait_for_result": number % 2 == 0 });
        let request = sim.request("POST", "/v1/workflows/job/execute").json(&body);
        pending.spawn(async move { request.send().await });
    }
    while sim.ok("GET", "/__sim/executions", None).await["executions"].as_array().unwrap().len() < 50 {}
    pending.abort_all();
    while pending.join_next().await.is_some() {}
    let rows: Value = sim.ok("GET", "/__sim/executions", None).await;
    for row in rows["executions"].as_array().unwrap() {
        assert_eq!((&row["starts"], &row["status"]), (&json!(1), &json!("RUNNING")));
    }
    let answer = read(sim.request("GET", "/v1/workflows").send().await.unwrap()).await;
    assert_eq!(answer.0, 200);
}
