//! A reader of Server-Sent Events that keeps every line.

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::support::{Sim, sleep_ms};

/// Longer than any frame should take, so that a broken test fails and does not hang.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Stream {
    response: Response,
    buffer: String,
}

/// A block of lines between two blank lines.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    Comment(String),
    Event { id: Option<String>, event: String, data: Value },
}

impl Stream {
    pub(crate) async fn open(sim: &Sim, path: &str) -> Self {
        Self::of(sim.request("GET", path)).await
    }

    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(response.status(), 200);
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Self { response, buffer: String::new() }
    }

    /// The next block. `None` when the stream has ended, an error when it broke off.
    pub(crate) async fn block(&mut self) -> reqwest::Result<Option<Block>> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (parse(block), rest.to_owned());
                self.buffer = rest;
                return Ok(Some(block));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk());
            let Some(chunk) = chunk.await.expect("the stream is silent")? else {
                assert_eq!(self.buffer, "", "half a frame");
                return Ok(None);
            };
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The payload of the next event.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            match self.block().await.unwrap().expect("the stream has ended") {
                Block::Event { data, .. } => return data,
                Block::Comment(_) => {}
            }
        }
    }

    pub(crate) async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.event().await);
        }
        events
    }

    /// All payloads up to the stream's own end.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(block) = self.block().await.unwrap() {
            if let Block::Event { data, .. } = block {
                events.push(data);
            }
        }
        events
    }

    /// Whether the stream sends no event for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.event()).await.is_err()
    }
}

fn parse(block: &str) -> Block {
    let (mut id, mut event, mut data) = (None, String::new(), String::new());
    for line in block.lines() {
        match line.split_once(": ").unwrap() {
            ("", comment) => return Block::Comment(comment.to_owned()),
            ("id", text) => id = Some(text.to_owned()),
            ("event", text) => text.clone_into(&mut event),
            ("data", text) => data.push_str(text),
            _ => panic!("unexpected line: {line}"),
        }
    }
    Block::Event { id, event, data: serde_json::from_str(&data).unwrap() }
}

/// Pairs of `event_type` and `workflow_exec_id`.
pub(crate) fn told(events: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair = |event: &Value| (text(&event["data"]["event_type"]), text(&event["data"]["workflow_exec_id"]));
    events.iter().map(pair).collect()
}

/// The event types without their common prefix.
pub(crate) fn kinds(events: &[Value]) -> Vec<String> {
    let short = |kind: String| kind.replace("WORKFLOW_EXECUTION_", "");
    told(events).into_iter().map(|(kind, _)| short(kind)).collect()
}

pub(crate) fn sequences(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["broker_sequence"].as_u64().unwrap()).collect()
}

/// Waits until `count` streams are open.
pub(crate) async fn open_streams(sim: &Sim, count: u64) {
    for _ in 0..500 {
        if sim.ok("GET", "/__sim/streams", None).await["open"] == count {
            return;
        }
        sleep_ms(10).await;
    }
    panic!("there are not {count} open streams");
}
