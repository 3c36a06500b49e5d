//! The list of runs.

use serde_json::{Value, json};

use crate::support::{Sim, keys, pluck, problem, sleep_ms};

#[tokio::test]
async fn a_row_is_an_execution_without_its_result_and_with_its_run_id() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    let body = sim.ok("GET", "/v1/workflows/runs", None).await;
    assert_eq!(keys(&body), ["executions", "next_page_token"]);
    let row = &body["executions"][0];
    let mut expected = sim.execution("e").await;
    let fields = expected.as_object_mut().unwrap();
    fields.remove("result");
    fields.remove("search_keys");
    fields.insert("run_id".to_owned(), row["run_id"].clone());
    assert_eq!(*row, expected);
    let run_id = row["run_id"].as_str().unwrap();
    assert_eq!(&run_id[14..15], "7", "a UUID of version 7");
    let events = sim.events("e").await;
    assert_ne!(events[0]["workflow_run_id"], row["run_id"]);
}

#[tokio::test]
async fn a_run_is_found_by_its_id_with_its_result() {
    let sim = Sim::with_job(json!({})).await;
    for input in [1, 2] {
        sim.execute(json!({ "execution_id": "e", "input": { "n": input } })).await;
    }
    let rows = sim.runs("order=asc").await;
    for (row, input) in rows.iter().zip([1, 2]) {
        let path = format!("/v1/workflows/runs/{}", row["run_id"].as_str().unwrap());
        let run = sim.ok("GET", &path, None).await;
        assert_eq!(run["run_id"], row["run_id"]);
        assert_eq!(run["result"], json!({ "n": input }));
    }
    let refused = sim.get("/v1/workflows/runs/e").await;
    assert_eq!(problem(&refused).0, json!(["path", "run_id"]));
    let unknown = "/v1/workflows/runs/019b2bd7-96e7-7219-8c0b-45a73da50088";
    assert_eq!(sim.get(unknown).await.0, 404);
}

async fn with_runs() -> Sim {
    let sim = Sim::start().await;
    for spec in [
        json!({ "name": "job", "tags": ["a", "b"], "display_name": "Payroll" }),
        json!({ "name": "bad", "tags": ["a"], "behaviour": { "outcome": "fail" } }),
        json!({ "name": "__internal__", "is_technical": true }),
        json!({ "name": "long", "behaviour": { "outcome": "hang" } }),
    ] {
        let name = spec["name"].as_str().unwrap().to_owned();
        sim.register(spec).await;
        let path = format!("/v1/workflows/{name}/execute");
        let body = json!({ "execution_id": format!("of-{name}") });
        sim.ok("POST", &path, Some(body)).await;
    }
    sim
}

#[tokio::test]
async fn runs_are_filtered_by_each_documented_parameter() {
    let sim = with_runs().await;
    let job = sim.ok("GET", "/v1/workflows/job", None).await["workflow"].clone();
    let by_id = format!("workflow_identifier={}", job["id"].as_str().unwrap());
    let user = sim.execution("of-job").await["user_id"].clone();
    let by_user = format!("user_id={}", user.as_str().unwrap());
    let all = ["of-__internal__", "of-bad", "of-job", "of-long"];
    for (query, expected) in [
        ("", &all[..]),
        ("workflow_identifier=job", &["of-job"]),
        (by_id.as_str(), &["of-job"]),
        ("workflow_identifier=nobody", &[]),
        ("root_execution_id=of-bad", &["of-bad"]),
        ("search=payr", &["of-job"]),
        ("status=FAILED", &["of-bad"]),
        ("status=FAILED&status=RUNNING", &["of-bad", "of-long"]),
        ("deployment_name=long-deployment", &["of-long"]),
        ("workflow_tags=a", &["of-bad", "of-job"]),
        ("workflow_tags=a&workflow_tags=b", &["of-job"]),
        ("include_internal=false", &["of-bad", "of-job", "of-long"]),
        ("user_id=current", &all),
        (by_user.as_str(), &all),
        ("user_id=someone", &[]),
        ("search_key=k:v", &[]),
    ] {
        let mut ids = pluck(&sim.runs(query).await, "execution_id");
        ids.sort();
        assert_eq!(ids, expected, "{query}");
    }
}

#[tokio::test]
async fn time_bounds_are_inclusive_and_those_of_the_end_leave_out_running_ones() {
    let sim = Sim::with_job(json!({ "duration_ms": 20 })).await;
    for id in ["a", "b", "c"] {
        sim.run(id).await;
        sleep_ms(30).await;
    }
    sim.register(json!({ "name": "job", "behaviour": { "outcome": "hang" } })).await;
    sim.run("d").await;
    let b = sim.execution("b").await;
    let [start, end] = ["start_time", "end_time"].map(|key| b[key].as_str().unwrap());
    for (query, expected) in [
        (format!("start_time_after={start}"), &["b", "c", "d"][..]),
        (format!("start_time_before={start}"), &["a", "b"]),
        (format!("end_time_after={end}"), &["b", "c"]),
        (format!("end_time_before={end}"), &["a", "b"]),
        (format!("end_time_after={end}&end_time_before={end}"), &["b"]),
        ("end_time_after=2000-01-01T00:00:00%2B01:00".to_owned(), &["a", "b", "c"]),
    ] {
        let ids = pluck(&sim.runs(&format!("{query}&order=asc")).await, "execution_id");
        assert_eq!(ids, expected, "{query}");
    }
}

#[tokio::test]
async fn runs_are_sorted_by_start_or_end_newest_first_by_default() {
    let sim = Sim::with_job(json!({ "duration_ms": 500 })).await;
    sim.run("slow").await;
    sim.register(json!({ "name": "job" })).await;
    sim.run("quick").await;
    sim.becomes("slow", "COMPLETED").await;
    for (query, expected) in [
        ("", ["quick", "slow"]),
        ("order=asc", ["slow", "quick"]),
        ("sort_by=start_time&order=desc", ["quick", "slow"]),
        ("sort_by=end_time", ["slow", "quick"]),
        ("sort_by=end_time&order=asc", ["quick", "slow"]),
    ] {
        assert_eq!(pluck(&sim.runs(query).await, "execution_id"), expected, "{query}");
    }
}

#[tokio::test]
async fn wrong_values_of_run_filters_are_refused() {
    let sim = Sim::start().await;
    for (query, kind) in [
        ("status=DONE", "literal_error"),
        ("sort_by=name", "literal_error"),
        ("order=up", "literal_error"),
        ("start_time_after=yesterday", "datetime_from_date_parsing"),
        ("end_time_before=1", "datetime_from_date_parsing"),
        ("include_internal=2", "bool_parsing"),
    ] {
        let refused = sim.get(&format!("/v1/workflows/runs?{query}")).await;
        let name = query.split('=').next().unwrap();
        assert_eq!(problem(&refused), (json!(["query", name]), kind.to_owned()));
    }
}

#[tokio::test]
async fn events_are_filtered_by_execution_root_and_run() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("a").await;
    sim.run("a").await;
    sim.run("b").await;
    let events = sim.events("a").await;
    assert_eq!(events.len(), 4);
    let count = async |query: String| {
        let path = format!("/v1/workflows/events/list?{query}");
        let body = sim.ok("GET", &path, None).await;
        body["events"].as_array().unwrap().len()
    };
    assert_eq!(count(String::new()).await, 6);
    assert_eq!(count("root_workflow_exec_id=b".to_owned()).await, 2);
    let run = events[0]["workflow_run_id"].as_str().unwrap();
    assert_eq!(count(format!("workflow_run_id={run}")).await, 2);
    assert_eq!(count("workflow_exec_id=none".to_owned()).await, 0);
}

#[tokio::test]
async fn an_event_has_the_documented_fields() {
    let sim = Sim::with_job(json!({})).await;
    sim.execute(json!({ "execution_id": "e", "input": { "a": 1 } })).await;
    let events = sim.events("e").await;
    let started = &events[0];
    assert_eq!(
        keys(started),
        [
            "attributes",
            "chain_run_id",
            "continued_run_id",
            "event_id",
            "event_timestamp",
            "event_type",
            "first_execution_run_id",
            "parent_workflow_exec_id",
            "root_workflow_exec_id",
            "schedule_id",
            "workflow_exec_id",
            "workflow_name",
            "workflow_run_id"
        ]
    );
    let input = json!({ "type": "json", "value": [{ "a": 1 }] });
    assert_eq!(started["attributes"]["input"], input, "the arguments are a list");
    let nanoseconds = started["event_timestamp"].as_i64().unwrap();
    assert!(nanoseconds > 1_700_000_000_000_000_000);
    assert_eq!(started["parent_workflow_exec_id"], Value::Null);
}
