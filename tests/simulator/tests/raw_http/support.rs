//! A separate simulator for each test, and a client that knows only HTTP.

use std::sync::Once;
use std::time::Duration;

use mistral_simulator::{Options, Simulator};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// An answer: its status, and its body as JSON or a string.
pub(crate) type Answer = (u16, Value);

pub(crate) struct Sim {
    client: Client,
    base: String,
    pub(crate) token: String,
    _simulator: Simulator,
}

pub(crate) fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().no_proxy().build().unwrap()
}

impl Sim {
    pub(crate) async fn start() -> Self {
        let simulator = Simulator::start(Options::default()).await.unwrap();
        Self { client: client(), base: simulator.url(), token: "token".to_owned(), _simulator: simulator }
    }

    /// A simulator with one workflow, `job`, that has this behaviour.
    pub(crate) async fn with_job(behaviour: Value) -> Self {
        let sim = Self::start().await;
        sim.register(json!({ "name": "job", "behaviour": behaviour })).await;
        sim
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, self.url(path));
        request.bearer_auth(&self.token)
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    /// A call that must succeed.
    pub(crate) async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, body) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {body}");
        body
    }

    pub(crate) async fn register(&self, spec: Value) -> Value {
        self.ok("POST", "/__sim/workflows", Some(spec)).await
    }

    pub(crate) async fn switches(&self, switches: Value) {
        self.ok("PUT", "/__sim/switches", Some(switches)).await;
    }

    pub(crate) async fn faults(&self, faults: Value) {
        self.ok("PUT", "/__sim/faults", Some(faults)).await;
    }

    /// Executes workflow `job`.
    pub(crate) async fn execute(&self, body: Value) -> Answer {
        self.post("/v1/workflows/job/execute", body).await
    }

    /// Starts an execution of `job` that must be accepted.
    pub(crate) async fn run(&self, id: &str) -> Value {
        let (status, body) = self.execute(json!({ "execution_id": id })).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn execution(&self, id: &str) -> Value {
        let path = format!("/v1/workflows/executions/{id}");
        self.ok("GET", &path, None).await
    }

    pub(crate) async fn status_of(&self, id: &str) -> String {
        let execution = self.execution(id).await;
        execution["status"].as_str().unwrap_or("null").to_owned()
    }

    /// Waits until an execution has the given status.
    pub(crate) async fn becomes(&self, id: &str, status: &str) {
        for _ in 0..1000 {
            if self.status_of(id).await == status {
                return;
            }
            sleep_ms(10).await;
        }
        panic!("{id} does not become {status}");
    }

    pub(crate) async fn cancel(&self, id: &str) -> Answer {
        let path = format!("/v1/workflows/executions/{id}/cancel");
        self.call("POST", &path, None).await
    }

    pub(crate) async fn terminate(&self, id: &str) -> Answer {
        let path = format!("/v1/workflows/executions/{id}/terminate");
        self.call("POST", &path, None).await
    }

    pub(crate) async fn finish(&self, id: &str, body: Value) {
        let path = format!("/__sim/executions/{id}/finish");
        self.ok("POST", &path, Some(body)).await;
    }

    /// The rows of `GET /v1/workflows/runs`.
    pub(crate) async fn runs(&self, query: &str) -> Vec<Value> {
        let path = format!("/v1/workflows/runs?{query}");
        let body = self.ok("GET", &path, None).await;
        body["executions"].as_array().unwrap().clone()
    }

    /// The events of an execution.
    pub(crate) async fn events(&self, id: &str) -> Vec<Value> {
        let path = format!("/v1/workflows/events/list?workflow_exec_id={id}");
        let body = self.ok("GET", &path, None).await;
        body["events"].as_array().unwrap().clone()
    }

    /// Arrivals and effects of a method and route.
    pub(crate) async fn calls(&self, method: &str, route: &str) -> (u64, u64) {
        let body = self.ok("GET", "/__sim/calls", None).await;
        let rows = body["calls"].as_array().unwrap();
        let row = rows.iter().find(|row| row["method"] == method && row["route"] == route);
        row.map_or((0, 0), |row| {
            let count = |key: &str| row[key].as_u64().unwrap();
            (count("arrivals"), count("effects"))
        })
    }

    /// The ledger entry of an execution under `/__sim`.
    pub(crate) async fn booked(&self, id: &str) -> Option<Value> {
        let body = self.ok("GET", "/__sim/executions", None).await;
        let rows = body["executions"].as_array().unwrap();
        rows.iter().find(|row| row["execution_id"] == id).cloned()
    }

    /// The held requests, as soon as there are `count`.
    pub(crate) async fn held(&self, count: usize) -> Vec<Value> {
        for _ in 0..500 {
            let body = self.ok("GET", "/__sim/held", None).await;
            let held = body["held"].as_array().unwrap().clone();
            if held.len() == count {
                return held;
            }
            sleep_ms(10).await;
        }
        panic!("there are not {count} held requests");
    }
}

pub(crate) const EXECUTE: &str = "/v1/workflows/{workflow_identifier}/execute";

pub(crate) async fn read(response: Response) -> Answer {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, body)
}

pub(crate) async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// The first problem of a `422`, as (`loc`, `type`).
pub(crate) fn problem((status, body): &Answer) -> (Value, String) {
    assert_eq!(*status, 422, "{body}");
    let first = &body["detail"][0];
    assert!(first["msg"].is_string() && first.get("input").is_some(), "{body}");
    let kind = first["type"].as_str().unwrap().to_owned();
    (first["loc"].clone(), kind)
}

/// The keys of an object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}

/// The field `key` of each row.
pub(crate) fn pluck(rows: &[Value], key: &str) -> Vec<String> {
    let text = |row: &Value| row[key].as_str().unwrap().to_owned();
    rows.iter().map(text).collect()
}
