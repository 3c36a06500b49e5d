//! Faults of streams.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::sse::{Block, Stream, kinds, sequences};
use crate::support::Sim;

const ALL: &str = "/v1/workflows/events/stream";

#[tokio::test]
async fn a_cut_stream_breaks_off_and_can_be_resumed_where_it_was() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    let cut = json!({ "times": 1, "kind": { "cut_stream_after_ms": 200 } });
    sim.faults(json!({ "faults": [cut] })).await;
    sim.run("a").await;
    let begin = Instant::now();
    let mut stream = Stream::open(&sim, ALL).await;
    assert_eq!(sequences(&stream.events(1).await), [1]);
    assert!(stream.block().await.is_err(), "no proper end");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    sim.cancel("a").await;
    let mut stream = Stream::open(&sim, &format!("{ALL}?start_seq=2")).await;
    assert_eq!(kinds(&stream.events(1).await), ["CANCELED"]);
}

#[tokio::test]
async fn a_failing_stream_says_so_and_ends() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    let failure = json!({ "route": ALL, "kind": { "fail_stream_after_ms": 100 } });
    sim.faults(json!({ "faults": [failure] })).await;
    sim.run("e").await;
    let mut stream = Stream::open(&sim, ALL).await;
    stream.event().await;
    let block = stream.block().await.unwrap().unwrap();
    let Block::Event { event, data, .. } = block else { panic!("{block:?}") };
    assert_eq!(event, "error");
    assert_eq!(data, json!({ "error": "The stream failed", "reason": "stream_error" }));
    assert_eq!(stream.block().await.unwrap(), None, "and that is the end");
}

#[tokio::test]
async fn faults_of_streams_strike_nothing_else() {
    let sim = Sim::with_job(json!({})).await;
    let cut = json!({ "times": 1, "kind": { "cut_stream_after_ms": 0 } });
    sim.faults(json!({ "faults": [cut] })).await;
    sim.run("e").await;
    assert_eq!(sim.ok("GET", "/__sim/faults", None).await["faults"][0]["fired"], 0);
    let mut stream = Stream::open(&sim, "/v1/workflows/executions/e/stream").await;
    assert!(stream.block().await.is_err());
    assert_eq!(sim.ok("GET", "/__sim/faults", None).await["faults"][0]["fired"], 1);
}

#[tokio::test]
async fn other_faults_strike_streams_as_they_strike_any_request() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    for (kind, expected) in [
        (json!({ "error": { "status": 503 } }), 503),
        (json!({ "error": { "status": 429, "after_effect": true } }), 429),
    ] {
        sim.faults(json!({ "faults": [{ "times": 1, "execution_id": "e", "kind": kind }] })).await;
        assert_eq!(sim.get("/v1/workflows/executions/e/stream").await.0, expected);
    }
    for kind in [json!({ "close": "after_effect" }), json!({ "truncate": true })] {
        sim.faults(json!({ "faults": [{ "times": 1, "kind": kind }] })).await;
        assert!(sim.request("GET", ALL).send().await.is_err(), "{kind}");
    }
    sim.faults(json!({ "faults": [{ "kind": { "hold": "after_effect" } }] })).await;
    let pending = tokio::spawn(sim.request("GET", "/v1/workflows/executions/e/stream").send());
    sim.held(1).await;
    sim.faults(json!({})).await;
    assert_eq!(pending.await.unwrap().unwrap().status(), 200);
}
