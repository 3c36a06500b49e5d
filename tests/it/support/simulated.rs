//! The simulator's controls over HTTP, as any client would use them.

use std::time::Duration;

use serde_json::{Value, json};

pub struct Simulated {
    pub url: String,
    http: reqwest::Client,
}

impl Simulated {
    pub fn new(url: String) -> Self {
        // Another test may have installed a provider in this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { url, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub async fn register(&self, workflow: Value) -> Value {
        self.send(self.http.post(self.at("workflows")).json(&workflow)).await
    }

    /// Registers a workflow in the Mistral workspace of this name.
    pub async fn register_in(&self, workspace: &str, workflow: Value) -> Value {
        let at = self.at(&format!("workflows?workspace={workspace}"));
        self.send(self.http.post(at).json(&workflow)).await
    }

    /// Replaces all faults, and releases the requests that they held.
    pub async fn faults(&self, faults: Value) {
        self.send(self.http.put(self.at("faults")).json(&faults)).await;
    }

    pub async fn heal(&self) {
        self.faults(json!({ "faults": [] })).await;
    }

    pub async fn switches(&self, switches: Value) {
        self.send(self.http.put(self.at("switches")).json(&switches)).await;
    }

    /// The requests that a fault holds.
    pub async fn held(&self) -> Vec<Value> {
        array(&self.send(self.http.get(self.at("held"))).await["held"])
    }

    pub async fn release(&self) {
        self.send(self.http.post(self.at("held/release"))).await;
    }

    /// The ledger: one entry per execution id.
    pub async fn executions(&self) -> Vec<Value> {
        array(&self.send(self.http.get(self.at("executions"))).await["executions"])
    }

    /// The total number of starts of all runs.
    pub async fn starts(&self) -> u64 {
        self.executions().await.iter().map(|execution| execution["starts"].as_u64().unwrap()).sum()
    }

    /// Ends a hanging run.
    pub async fn finish(&self, execution_id: &str, outcome: Value) {
        self.send(self.http.post(self.at(&format!("executions/{execution_id}/finish"))).json(&outcome)).await;
    }

    /// Forgets a run, as if its retention had passed.
    pub async fn forget(&self, execution_id: &str) {
        self.send(self.http.delete(self.at(&format!("executions/{execution_id}")))).await;
    }

    /// Changes a workflow at the API, as another client would.
    pub async fn edit(&self, workflow: &str, fields: Value) {
        self.send(self.http.patch(self.at(&format!("workflows/{workflow}"))).json(&fields)).await;
    }

    /// Removes a workflow, as if nobody had ever registered it.
    pub async fn unregister(&self, workflow: &str) {
        self.send(self.http.delete(self.at(&format!("workflows/{workflow}")))).await;
    }

    /// The same in the Mistral workspace of this name.
    pub async fn unregister_in(&self, workspace: &str, workflow: &str) {
        self.unregister(&format!("{workflow}?workspace={workspace}")).await;
    }

    pub async fn revoke(&self, token: &str) {
        self.send(self.http.delete(self.at(&format!("tokens/{token}")))).await;
    }

    pub async fn admit(&self, token: &str, workspace: &str) {
        self.send(self.http.put(self.at(&format!("tokens/{token}"))).json(&json!({ "workspace": workspace }))).await;
    }

    /// The number of requests that arrived, in total or for one route, such as `POST /v1/workflows/{…}/execute`.
    pub async fn arrivals(&self, wanted: Option<(&str, &str)>) -> u64 {
        self.count("arrivals", wanted).await
    }

    pub async fn effects(&self, wanted: Option<(&str, &str)>) -> u64 {
        self.count("effects", wanted).await
    }

    async fn count(&self, what: &str, wanted: Option<(&str, &str)>) -> u64 {
        self.calls()
            .await
            .iter()
            .filter(|call| wanted.is_none_or(|(method, route)| call["method"] == method && call["route"] == route))
            .map(|call| call[what].as_u64().unwrap())
            .sum()
    }

    pub async fn calls(&self) -> Vec<Value> {
        array(&self.send(self.http.get(self.at("calls"))).await["calls"])
    }

    pub async fn forget_calls(&self) {
        self.send(self.http.delete(self.at("calls"))).await;
    }

    /// A direct call to the API, as another client with the same key.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url)).bearer_auth(super::KEY);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        self.send(request).await
    }

    fn at(&self, path: &str) -> String {
        format!("{}/__sim/{path}", self.url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Value {
        let response = request.timeout(Duration::from_secs(60)).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no array: {value}")).clone()
}
