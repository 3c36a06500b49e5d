//! Faults, and which requests took effect nevertheless.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{EXECUTE, Sim, read, sleep_ms};

fn on_execute(kind: Value) -> Value {
    json!({ "faults": [{ "route": EXECUTE, "kind": kind }] })
}

fn start(sim: &Sim, id: &str) -> tokio::task::JoinHandle<reqwest::Result<reqwest::Response>> {
    let request = sim.request("POST", "/v1/workflows/job/execute");
    tokio::spawn(request.json(&json!({ "execution_id": id })).send())
}

async fn hanging() -> Sim {
    Sim::with_job(json!({ "outcome": "hang" })).await
}

#[tokio::test]
async fn a_client_that_leaves_while_held_before_the_effect_has_had_none() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "hold": "before_effect" }))).await;
    let pending = start(&sim, "e");
    let held = sim.held(1).await;
    assert_eq!(held[0]["when"], "before_effect");
    pending.abort();
    sim.held(0).await;
    sim.ok("POST", "/__sim/held/release", None).await;
    sleep_ms(50).await;
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 0));
    assert!(sim.booked("e").await.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_as_it_is_released_has_had_no_effect_either() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "hold": "before_effect" }))).await;
    // A raw connection, which is fully closed before the test continues.
    let mut stream = TcpStream::connect(sim.address()).await.unwrap();
    let body = r#"{"execution_id":"e"}"#;
    let head = format!(
        "POST /v1/workflows/job/execute HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    sim.held(1).await;
    drop(stream);
    sim.ok("POST", "/__sim/held/release", None).await;
    sleep_ms(50).await;
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 0));
}

#[tokio::test]
async fn a_request_held_before_its_effect_takes_it_when_released() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "hold": "before_effect" }))).await;
    let pending = start(&sim, "e");
    let held = sim.held(1).await;
    assert_eq!(held[0]["method"], "POST");
    assert_eq!(held[0]["path"], "/v1/workflows/job/execute");
    assert_eq!(held[0]["route"], EXECUTE);
    assert_eq!(held[0]["workspace"], "default");
    assert_eq!(held[0]["execution_id"], "e");
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 0));
    let path = format!("/__sim/held/{}/release", held[0]["id"]);
    sim.ok("POST", &path, None).await;
    assert_eq!(pending.await.unwrap().unwrap().status(), 200);
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 1));
    assert_eq!(sim.call("POST", &path, None).await.0, 404);
}

#[tokio::test]
async fn a_request_held_after_its_effect_has_taken_it_even_if_its_client_leaves() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "hold": "after_effect" }))).await;
    let pending = start(&sim, "e");
    let held = sim.held(1).await;
    assert_eq!(held[0]["when"], "after_effect");
    pending.abort();
    sim.held(0).await;
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 1));
    assert_eq!(sim.status_of("e").await, "RUNNING");
}

#[tokio::test]
async fn new_faults_release_all_held_requests() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "hold": "before_effect" }))).await;
    let pending = [start(&sim, "a"), start(&sim, "b")];
    sim.held(2).await;
    sim.faults(json!({ "faults": [] })).await;
    for one in pending {
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn latency_comes_before_the_effect() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "latency_ms": 400 }))).await;
    let begin = Instant::now();
    let pending = start(&sim, "e");
    sleep_ms(50).await;
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 0));
    assert_eq!(pending.await.unwrap().unwrap().status(), 200);
    assert!(begin.elapsed() >= Duration::from_millis(400));
    let booked = sim.booked("e").await.unwrap();
    let [arrived, started] = ["arrival_time", "start_time"].map(|key| booked[key].as_str().unwrap().parse().unwrap());
    let waited = |arrived: Timestamp, started: Timestamp| started.duration_since(arrived).as_millis();
    assert!((400..10_000).contains(&waited(arrived, started)), "{booked}");

    let pending = start(&sim, "left");
    sleep_ms(50).await;
    pending.abort();
    sleep_ms(500).await;
    assert_eq!(sim.calls("POST", EXECUTE).await, (2, 1));
}

#[tokio::test]
async fn an_error_comes_instead_of_the_effect_or_after_it() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "error": { "status": 503 } }))).await;
    assert_eq!(sim.execute(json!({ "execution_id": "e" })).await.0, 503);
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 0));
    let after = json!({ "error": { "status": 504, "after_effect": true } });
    sim.faults(on_execute(after)).await;
    assert_eq!(sim.execute(json!({ "execution_id": "e" })).await.0, 504);
    assert_eq!(sim.calls("POST", EXECUTE).await, (2, 1));
    assert_eq!(sim.status_of("e").await, "RUNNING");
}

#[tokio::test]
async fn an_error_has_the_body_and_headers_it_is_given() {
    let sim = hanging().await;
    let error = json!({
        "status": 429, "body": { "message": "Requests rate limit exceeded" },
        "headers": { "Retry-After": "3", "X-RateLimit-Remaining": "0" },
    });
    sim.faults(on_execute(json!({ "error": error }))).await;
    let response = start(&sim, "e").await.unwrap().unwrap();
    assert_eq!(response.headers()["retry-after"], "3");
    assert_eq!(response.headers()["x-ratelimit-remaining"], "0");
    let expected = json!({ "message": "Requests rate limit exceeded" });
    assert_eq!(read(response).await, (429, expected));

    let error = json!({ "status": 500, "body": "<oops>", "content_type": "text/html" });
    sim.faults(on_execute(json!({ "error": error }))).await;
    let response = start(&sim, "e").await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "text/html");
    assert_eq!(read(response).await, (500, json!("<oops>")));
}

#[tokio::test]
async fn an_error_without_a_body_has_the_usual_one() {
    let sim = hanging().await;
    let usual = async |status: u16| {
        sim.faults(on_execute(json!({ "error": { "status": status } }))).await;
        let response = start(&sim, "e").await.unwrap().unwrap();
        read(response).await.1
    };
    assert_eq!(usual(429).await["raw_status_code"], 429);
    assert_eq!(usual(500).await, json!({ "detail": "An error occurred", "code": "WF_1000" }));
    assert_eq!(usual(401).await, json!({ "detail": "Unauthorized" }));
    for gateway in [502, 503, 504] {
        assert!(usual(gateway).await.as_str().unwrap().starts_with("<html>"));
    }
}

#[tokio::test]
async fn a_closed_connection_has_not_a_byte_of_an_answer() {
    let sim = hanging().await;
    for (when, effects) in [("before_effect", 0), ("after_effect", 1)] {
        sim.faults(on_execute(json!({ "close": when }))).await;
        assert!(start(&sim, "e").await.unwrap().is_err());
        assert_eq!(sim.calls("POST", EXECUTE).await.1, effects);
    }
    let close = json!({ "faults": [{ "kind": { "close": "before_effect" } }] });
    sim.faults(close).await;
    assert_eq!(raw_get(&sim, "/v1/workflows").await, "");
}

#[tokio::test]
async fn a_truncated_answer_breaks_off_in_the_middle_after_the_effect() {
    let sim = hanging().await;
    sim.faults(on_execute(json!({ "truncate": true }))).await;
    let response = start(&sim, "e").await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 1));

    sim.faults(json!({ "faults": [{ "kind": { "truncate": true } }] })).await;
    let answer = raw_get(&sim, "/v1/workflows").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    assert_eq!(body.len(), length / 2);
}

async fn raw_get(sim: &Sim, path: &str) -> String {
    let mut stream = TcpStream::connect(sim.address()).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_fault_strikes_as_often_as_it_is_told_and_says_how_often_it_has() {
    let sim = hanging().await;
    let fault = json!({ "name": "two", "times": 2, "kind": { "error": { "status": 503 } } });
    sim.faults(json!({ "faults": [fault] })).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(sim.get("/v1/workflows").await.0);
    }
    assert_eq!(statuses, [503, 503, 200]);
    let faults = sim.ok("GET", "/__sim/faults", None).await;
    assert_eq!(faults["faults"][0]["fired"], 2);
    assert_eq!(faults["faults"][0]["name"], "two");
}

#[tokio::test]
async fn how_often_faults_have_struck_and_hidden_executions_were_asked_for_outlives_the_orders() {
    let sim = Sim::with_job(json!({})).await;
    let latency = json!({ "kind": { "latency_ms": 0 } });
    let error = json!({ "name": "busy", "kind": { "error": { "status": 503 } } });
    sim.faults(json!({ "faults": [latency, error] })).await;
    sim.get("/v1/workflows").await;
    sim.faults(json!({ "faults": [error], "hide_new_executions_ms": 60000 })).await;
    sim.get("/v1/workflows").await;
    sim.faults(json!({ "hide_new_executions_ms": 60000 })).await;
    sim.run("e").await;
    assert_eq!(sim.get("/v1/workflows/executions/e").await.0, 404);
    assert_eq!(sim.cancel("e").await.0, 404);
    assert_eq!(sim.get("/v1/workflows/executions/nobody").await.0, 404);
    sim.faults(json!({})).await;
    assert_eq!(sim.get("/v1/workflows/executions/e").await.0, 200);
    let told = sim.ok("GET", "/__sim/faults", None).await;
    assert_eq!(told["struck"], json!({ "busy": 2, "latency_ms": 1 }));
    assert_eq!(told["concealed"], 2);
}

#[tokio::test]
async fn a_fault_strikes_the_requests_it_is_meant_for() {
    let sim = hanging().await;
    sim.run("a").await;
    sim.run("b").await;
    let error = json!({ "error": { "status": 503 } });
    let get = "/v1/workflows/executions/{execution_id}";
    for (mut conditions, struck) in [
        (json!({ "route": get }), [true, true, false]),
        (json!({ "route": "/v1/workflows/executions/a" }), [true, false, false]),
        (json!({ "route": "/v1/workflows/executions/*" }), [true, true, false]),
        (json!({ "route": "/v1/workflows" }), [false, false, true]),
        (json!({ "route": "/v1/workflows*" }), [true, true, true]),
        (json!({ "execution_id": "b" }), [false, true, false]),
        (json!({ "method": "POST" }), [false, false, false]),
        (json!({ "workspace": "default" }), [true, true, true]),
        (json!({ "workspace": "other" }), [false, false, false]),
        (json!({}), [true, true, true]),
    ] {
        conditions["kind"] = error.clone();
        sim.faults(json!({ "faults": [conditions] })).await;
        let paths = ["/v1/workflows/executions/a", "/v1/workflows/executions/b", "/v1/workflows"];
        for (path, struck) in paths.iter().zip(struck) {
            let expected = if struck { 503 } else { 200 };
            assert_eq!(sim.get(path).await.0, expected, "{path} {conditions}");
        }
    }
    let fault = json!({ "execution_id": "c", "kind": error });
    sim.faults(json!({ "faults": [fault] })).await;
    assert_eq!(sim.execute(json!({ "execution_id": "c" })).await.0, 503);
    assert_eq!(sim.execute(json!({ "execution_id": "d" })).await.0, 200);
}

#[tokio::test]
async fn a_rate_strikes_a_share_of_the_requests_the_same_ones_for_the_same_seed() {
    let sim = hanging().await;
    let mut patterns = Vec::new();
    for seed in [7, 7, 8] {
        let fault = json!({ "rate": 0.5, "kind": { "error": { "status": 503 } } });
        sim.faults(json!({ "faults": [fault], "seed": seed })).await;
        let mut pattern = Vec::new();
        for _ in 0..40 {
            pattern.push(sim.get("/v1/workflows").await.0);
        }
        assert!(pattern.contains(&200) && pattern.contains(&503));
        patterns.push(pattern);
    }
    assert_eq!(patterns[0], patterns[1]);
    assert_ne!(patterns[0], patterns[2]);
}

#[tokio::test]
async fn a_new_execution_can_be_invisible_for_a_while_also_when_it_has_ended() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("old").await;
    sim.faults(json!({ "faults": [], "hide_new_executions_ms": 60000 })).await;
    sim.run("new").await;
    assert_eq!(sim.get("/v1/workflows/executions/new").await.0, 404);
    assert_eq!(sim.cancel("new").await.0, 404);
    assert_eq!(sim.terminate("new").await.0, 404);
    assert_eq!(sim.runs("").await.len(), 1, "the old one stays visible");
    assert_eq!(sim.booked("new").await.unwrap()["status"], "COMPLETED");
    sim.faults(json!({})).await;
    assert_eq!(sim.status_of("new").await, "COMPLETED");
    assert_eq!(sim.runs("").await.len(), 2);
}

#[tokio::test]
async fn an_invisible_execution_appears_when_its_time_has_come() {
    let sim = Sim::with_job(json!({})).await;
    sim.faults(json!({ "hide_new_executions_ms": 200 })).await;
    let begin = Instant::now();
    sim.run("e").await;
    while sim.get("/v1/workflows/executions/e").await.0 == 404 {
        sleep_ms(5).await;
    }
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn an_invisible_execution_still_guards_its_id_while_it_runs() {
    let sim = hanging().await;
    sim.faults(json!({ "hide_new_executions_ms": 60000 })).await;
    sim.run("e").await;
    assert_eq!(sim.get("/v1/workflows/executions/e").await.0, 404);
    let (status, body) = sim.execute(json!({ "execution_id": "e" })).await;
    assert_eq!((status, &body["code"]), (409, &json!("WF_1101")));
    sim.faults(json!({})).await;
    assert_eq!(sim.status_of("e").await, "RUNNING");
}
