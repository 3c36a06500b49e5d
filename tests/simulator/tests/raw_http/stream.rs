//! The event streams.

use serde_json::{Value, json};

use crate::sse::{Block, Stream, kinds, open_streams, sequences, told};
use crate::support::{Sim, keys, problem, sleep_ms};

const ALL: &str = "/v1/workflows/events/stream";

fn of(id: &str) -> String {
    format!("/v1/workflows/executions/{id}/stream")
}

fn told_so(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(kind, id): &(&str, &str)| (format!("WORKFLOW_EXECUTION_{kind}"), (*id).to_owned());
    expected.iter().map(own).collect()
}

#[tokio::test]
async fn a_frame_has_the_documented_lines_and_fields() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    let block = Stream::open(&sim, ALL).await.block().await.unwrap().unwrap();
    let Block::Event { id: None, event, data } = block else { panic!("{block:?}") };
    assert_eq!(event, "workflow.event");
    let fields = ["broker_sequence", "data", "metadata", "stream", "timestamp", "workflow_context"];
    assert_eq!(keys(&data), fields);
    let me = sim.ok("GET", "/v1/workflows/workers/whoami", None).await;
    let context = json!({
        "namespace": me["namespace"], "workflow_name": "job", "workflow_exec_id": "e",
        "parent_workflow_exec_id": null, "root_workflow_exec_id": "e",
    });
    assert_eq!(data["workflow_context"], context);
    assert_eq!(data["broker_sequence"], 1);
    assert_eq!(data["data"], sim.events("e").await[0], "the event is that of the event list");
    assert!(data["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_stream_replays_what_has_happened_and_goes_on_live() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("old").await;
    sim.cancel("old").await;
    let mut stream = Stream::open(&sim, ALL).await;
    assert_eq!(told(&stream.events(2).await), told_so(&[("STARTED", "old"), ("CANCELED", "old")]));
    assert!(stream.is_silent().await);
    sim.run("new").await;
    sim.finish("new", json!({ "outcome": "complete" })).await;
    assert_eq!(told(&stream.events(2).await), told_so(&[("STARTED", "new"), ("COMPLETED", "new")]));
}

#[tokio::test]
async fn what_time_brings_is_told_without_anybody_asking() {
    let sim = Sim::with_job(json!({ "duration_ms": 200 })).await;
    let mut stream = Stream::open(&sim, ALL).await;
    sim.run("e").await;
    assert_eq!(kinds(&stream.events(2).await), ["STARTED", "COMPLETED"]);
}

#[tokio::test]
async fn a_start_sequence_is_inclusive_and_a_last_event_id_is_not() {
    let sim = Sim::with_job(json!({})).await;
    for id in ["a", "b"] {
        sim.run(id).await;
    }
    for (query, expected) in [("", 1), ("?start_seq=0", 1), ("?start_seq=-5", 1), ("?start_seq=3", 3)] {
        let mut stream = Stream::open(&sim, &format!("{ALL}{query}")).await;
        assert_eq!(stream.event().await["broker_sequence"], expected, "{query}");
    }
    let request = sim.request("GET", &format!("{ALL}?start_seq=1")).header("last-event-id", "3");
    assert_eq!(Stream::of(request).await.event().await["broker_sequence"], 4);

    let own = format!("{}?last_event_id=3", of("b"));
    assert_eq!(sequences(&Stream::open(&sim, &own).await.rest().await), [4]);
    let request = sim.request("GET", &own).header("last-event-id", "2");
    assert_eq!(sequences(&Stream::of(request).await.rest().await), [3, 4], "the header wins");
}

#[tokio::test]
async fn a_start_in_the_future_waits_for_it() {
    let sim = Sim::with_job(json!({})).await;
    let mut stream = Stream::open(&sim, &format!("{ALL}?start_seq=4")).await;
    sim.run("a").await;
    sim.run("b").await;
    assert_eq!(told(&[stream.event().await]), told_so(&[("COMPLETED", "b")]));
}

#[tokio::test]
async fn sequences_are_counted_per_workspace_and_have_gaps_where_a_filter_is() {
    let sim = Sim::with_job(json!({})).await;
    sim.ok("PUT", "/__sim/tokens/theirs", Some(json!({ "workspace": "theirs" }))).await;
    sim.ok("POST", "/__sim/workflows?workspace=theirs", Some(json!({ "name": "job" }))).await;
    for id in ["a", "b", "c"] {
        sim.run(id).await;
        let path = sim.url("/v1/workflows/job/execute");
        let request = crate::support::client().post(path).bearer_auth("theirs");
        request.json(&json!({ "execution_id": id })).send().await.unwrap();
    }
    let query = format!("{ALL}?workflow_event_types=WORKFLOW_EXECUTION_COMPLETED");
    let events = Stream::open(&sim, &query).await.events(3).await;
    assert_eq!(sequences(&events), [2, 4, 6]);
}

#[tokio::test]
async fn events_are_filtered_by_each_documented_parameter() {
    let sim = Sim::with_job(json!({})).await;
    sim.register(json!({ "name": "bad", "behaviour": { "outcome": "fail", "activity_error": "x" } })).await;
    sim.run("e").await;
    sim.post("/v1/workflows/bad/execute", json!({ "execution_id": "f" })).await;
    for (query, expected) in [
        ("scope=*&workflow_name=*&workflow_exec_id=*&stream=*&activity_name=*", vec![1, 2, 3, 4, 5]),
        ("scope=workflow", vec![1, 2, 3, 5]),
        ("scope=activity", vec![4]),
        ("activity_name=activity", vec![4]),
        ("activity_id=1", vec![4]),
        ("activity_id=2", vec![]),
        ("workflow_name=bad", vec![3, 4, 5]),
        ("workflow_exec_id=e", vec![1, 2]),
        ("root_workflow_exec_id=f", vec![3, 4, 5]),
        ("parent_workflow_exec_id=e", vec![]),
        ("stream=other", vec![]),
        ("metadata_filters=%7B%7D", vec![1, 2, 3, 4, 5]),
        ("metadata_filters=%7B%22a%22%3A1%7D", vec![]),
        ("workflow_event_types=WORKFLOW_EXECUTION_STARTED", vec![1, 3]),
        ("workflow_event_types=WORKFLOW_EXECUTION_FAILED&workflow_event_types=ACTIVITY_TASK_FAILED", vec![4, 5]),
        ("workflow_exec_id=f&start_seq=4&scope=workflow", vec![5]),
    ] {
        let mut stream = Stream::open(&sim, &format!("{ALL}?{query}")).await;
        let events = stream.events(expected.len()).await;
        assert_eq!(sequences(&events), expected, "{query}");
        if expected.len() < 2 {
            assert!(stream.is_silent().await, "{query}");
        }
    }
}

#[tokio::test]
async fn wrong_values_of_stream_parameters_are_refused() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("e").await;
    for (query, name) in [
        ("scope=all", "scope"),
        ("start_seq=x", "start_seq"),
        ("workflow_event_types=WORKFLOW_EXECUTION_TERMINATED", "workflow_event_types"),
        ("metadata_filters=a", "metadata_filters"),
    ] {
        let refused = sim.get(&format!("{ALL}?{query}")).await;
        assert_eq!(problem(&refused).0, json!(["query", name]));
    }
    let refused = sim.get(&format!("{}?event_source=TAPE", of("e"))).await;
    assert_eq!(problem(&refused).0, json!(["query", "event_source"]));
    let refused = sim.get(&format!("{}?last_event_id=abc", of("e"))).await;
    assert_eq!(problem(&refused).0, json!(["header", "last-event-id"]));
}

#[tokio::test]
async fn a_stream_of_the_workspace_can_be_had_unless_the_switch_wants_an_execution() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    sim.switches(json!({ "unscoped_stream": "reject" })).await;
    assert_eq!(sim.get(ALL).await.0, 422);
    assert_eq!(sim.get(&format!("{ALL}?root_workflow_exec_id=*")).await.0, 422);
    let mut stream = Stream::open(&sim, &format!("{ALL}?root_workflow_exec_id=e")).await;
    assert_eq!(kinds(&stream.events(2).await), ["STARTED", "COMPLETED"]);
}

#[tokio::test]
async fn no_event_tells_of_a_termination_or_a_timeout() {
    let sim = Sim::with_job(json!({ "outcome": "time_out" })).await;
    sim.run("late").await;
    assert_eq!(sim.status_of("late").await, "TIMED_OUT");
    sim.register(json!({ "name": "job", "behaviour": { "outcome": "hang" } })).await;
    sim.run("killed").await;
    sim.terminate("killed").await;
    let mut stream = Stream::open(&sim, ALL).await;
    assert_eq!(told(&stream.events(2).await), told_so(&[("STARTED", "late"), ("STARTED", "killed")]));
    assert!(stream.is_silent().await);
}

#[tokio::test]
async fn lost_terminal_events_are_missing_from_the_stream_too() {
    let sim = Sim::with_job(json!({})).await;
    sim.switches(json!({ "drop_terminal_events": true })).await;
    sim.run("e").await;
    assert_eq!(kinds(&Stream::open(&sim, &of("e")).await.rest().await), ["STARTED"]);
    let mut stream = Stream::open(&sim, ALL).await;
    assert_eq!(kinds(&stream.events(1).await), ["STARTED"]);
    assert!(stream.is_silent().await);
}

#[tokio::test]
async fn an_executions_stream_ends_with_the_execution_after_its_last_event() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    for (id, outcome, last) in [("c", "complete", "COMPLETED"), ("f", "fail", "FAILED"), ("x", "cancel", "CANCELED")] {
        sim.run(id).await;
        let stream = Stream::open(&sim, &of(id)).await;
        sim.finish(id, json!({ "outcome": outcome })).await;
        assert_eq!(told(&stream.rest().await), told_so(&[("STARTED", id), (last, id)]));
    }
    sim.run("t").await;
    let stream = Stream::open(&sim, &of("t")).await;
    sim.terminate("t").await;
    assert_eq!(kinds(&stream.rest().await), ["STARTED"], "it ends without a word");
}

#[tokio::test]
async fn an_executions_stream_stays_open_by_switch() {
    let sim = Sim::with_job(json!({})).await;
    sim.switches(json!({ "execution_stream_ends": false, "heartbeat_ms": 20 })).await;
    sim.run("e").await;
    let mut stream = Stream::open(&sim, &of("e")).await;
    stream.events(2).await;
    assert!(stream.is_silent().await);
}

#[tokio::test]
async fn an_executions_stream_follows_continuations_but_not_other_starts_of_the_id() {
    let sim = Sim::with_job(json!({ "outcome": "fail" })).await;
    sim.run("e").await;
    let behaviour = json!({ "outcome": "continue_as_new", "duration_ms": 100 });
    sim.register(json!({ "name": "job", "behaviour": behaviour })).await;
    sim.run("e").await;
    let events = Stream::open(&sim, &of("e")).await.rest().await;
    assert_eq!(kinds(&events), ["STARTED", "STARTED", "COMPLETED"]);
    let run_id = |index: usize| events[index]["data"]["workflow_run_id"].clone();
    assert_eq!(events[1]["data"]["continued_run_id"], run_id(0));
    assert_ne!(run_id(0), run_id(1));
    sim.run("e").await;
    let events = Stream::open(&sim, ALL).await.events(6).await;
    assert_eq!(sequences(&events), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn sources_are_what_is_stored_what_is_to_come_or_both() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("e").await;
    let stored = Stream::open(&sim, &format!("{}?event_source=DATABASE", of("e"))).await;
    assert_eq!(kinds(&stored.rest().await), ["STARTED"]);
    let live = Stream::open(&sim, &format!("{}?event_source=LIVE", of("e"))).await;
    let both = Stream::open(&sim, &format!("{}?event_source=HYBRID", of("e"))).await;
    sim.cancel("e").await;
    assert_eq!(kinds(&live.rest().await), ["CANCELED"]);
    assert_eq!(kinds(&both.rest().await), ["STARTED", "CANCELED"]);
}

#[tokio::test]
async fn the_stream_of_an_unknown_execution_is_404() {
    let sim = Sim::with_job(json!({})).await;
    let (status, body) = sim.get(&of("none")).await;
    assert_eq!((status, &body["code"]), (404, &json!("WF_1100")));
}

#[tokio::test]
async fn events_come_from_workers_and_may_be_ahead_of_what_can_be_read() {
    let sim = Sim::with_job(json!({})).await;
    sim.faults(json!({ "hide_new_executions_ms": 60000 })).await;
    sim.run("e").await;
    assert_eq!(kinds(&Stream::open(&sim, ALL).await.events(2).await), ["STARTED", "COMPLETED"]);
    assert_eq!(sim.get("/v1/workflows/executions/e").await.0, 404);
    assert_eq!(sim.get(&of("e")).await.0, 404);
}

#[tokio::test]
async fn a_forgotten_execution_is_told_of_no_more_and_its_sequences_are_not_used_again() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("a").await;
    sim.ok("DELETE", "/__sim/executions/a", None).await;
    sim.run("b").await;
    let events = Stream::open(&sim, ALL).await.events(2).await;
    assert_eq!(sequences(&events), [3, 4]);
}

#[tokio::test]
async fn a_silent_stream_sends_heartbeats() {
    let sim = Sim::start().await;
    sim.switches(json!({ "heartbeat_ms": 30 })).await;
    let mut stream = Stream::open(&sim, ALL).await;
    for _ in 0..3 {
        let block = stream.block().await.unwrap().unwrap();
        assert_eq!(block, Block::Comment("heartbeat".to_owned()));
    }
}

#[tokio::test]
async fn frames_have_ids_by_switch() {
    let sim = Sim::with_job(json!({})).await;
    sim.switches(json!({ "stream_ids": true })).await;
    sim.run("e").await;
    let mut stream = Stream::open(&sim, &of("e")).await;
    for sequence in ["1", "2"] {
        let block = stream.block().await.unwrap().unwrap();
        assert!(matches!(block, Block::Event { id: Some(id), .. } if id == sequence));
    }
}

#[tokio::test]
async fn a_stream_is_a_call_without_an_effect() {
    let sim = Sim::start().await;
    let stream = Stream::open(&sim, ALL).await;
    open_streams(&sim, 1).await;
    assert_eq!(sim.calls("GET", ALL).await, (1, 0));
    drop(stream);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_stream() {
    let sim = Sim::start().await;
    let streams = [Stream::open(&sim, ALL).await, Stream::open(&sim, ALL).await];
    open_streams(&sim, 2).await;
    drop(streams);
    open_streams(&sim, 0).await;
}

#[tokio::test]
async fn streams_end_with_the_simulator() {
    let sim = Sim::start().await;
    let mut stream = Stream::open(&sim, ALL).await;
    drop(sim);
    assert!(stream.block().await.is_err(), "the connection breaks off");
}

#[tokio::test]
async fn an_open_stream_keeps_nobody_from_the_books() {
    let sim = Sim::with_job(json!({})).await;
    let streams = [Stream::open(&sim, ALL).await, Stream::open(&sim, ALL).await];
    sleep_ms(50).await;
    for number in 0..20 {
        sim.run(&format!("e{number}")).await;
    }
    for mut stream in streams {
        let expected: Vec<u64> = (1..=40).collect();
        assert_eq!(sequences(&stream.events(40).await), expected);
    }
    assert_eq!(sim.runs("page_size=100").await.len(), 20);
    assert!(sim.events("e0").await.iter().all(Value::is_object));
}

#[tokio::test]
async fn a_long_history_is_told_to_its_end() {
    let sim = Sim::with_job(json!({})).await;
    for number in 0..1200 {
        sim.run(&format!("e{number}")).await;
    }
    let events = Stream::open(&sim, ALL).await.events(2400).await;
    let expected: Vec<u64> = (1..=2400).collect();
    assert_eq!(sequences(&events), expected);
}
