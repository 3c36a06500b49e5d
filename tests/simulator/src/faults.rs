//! Faults that tests inject between a request and its answer.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::reply::Reply;
use crate::request::Request;

/// One fault: which requests it strikes, how often, and what it does.
///
/// An absent condition matches every request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// A label; the totals count strikes by name.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    workspace: Option<String>,
    #[serde(default)]
    method: Option<String>,
    /// A route's template, a literal path, or a path prefix that ends in `*`.
    #[serde(default)]
    route: Option<String>,
    /// The id in the path, or the one in the body of an execute call.
    #[serde(default)]
    execution_id: Option<String>,
    /// How many times the fault strikes; unlimited when absent.
    #[serde(default)]
    times: Option<u64>,
    /// The share of requests that the fault strikes; all when absent.
    #[serde(default)]
    rate: Option<f64>,
    kind: Kind,
    /// How many times the fault has struck. Every `PUT` resets the number.
    #[serde(default)]
    fired: u64,
}

/// Before or after the request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    BeforeEffect,
    AfterEffect,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Wait before the effect.
    LatencyMs(u64),
    Error(ErrorAnswer),
    /// Wait until a test releases the request.
    Hold(When),
    /// Close the connection without an answer.
    Close(When),
    /// Send half of the answer's body and close the connection.
    Truncate(bool),
    /// Break off a stream in the middle.
    CutStreamAfterMs(u64),
    /// End a stream with an error frame, as the API does.
    FailStreamAfterMs(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorAnswer {
    status: u16,
    /// JSON, or a string that is sent verbatim. Defaults to the usual body for the status.
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Whether the request still takes effect.
    #[serde(default)]
    after_effect: bool,
}

/// One step of a fault plan.
#[derive(Debug)]
pub(crate) enum Mishap {
    Sleep(Duration),
    Hold,
    Close,
    Answer(Reply),
    Truncate,
    EndStream(StreamEnd),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamEnd {
    pub(crate) after: Duration,
    /// Whether the stream ends with an error frame. Otherwise the connection breaks off.
    pub(crate) with_error: bool,
}

/// Everything that happens to a request, in order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) before: Vec<Mishap>,
    pub(crate) after: Vec<Mishap>,
}

/// The active faults.
#[derive(Debug)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    /// How often each fault has struck since the simulator started, by name, or by kind for unnamed faults.
    struck: BTreeMap<String, u64>,
    dice: Dice,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { list: Vec::new(), struck: BTreeMap::new(), dice: Dice(seed) }
    }

    /// Replaces all faults, and with `seed` also the random numbers for rates.
    pub(crate) fn replace(&mut self, list: Vec<Fault>, seed: Option<u64>) {
        self.list = list;
        for fault in &mut self.list {
            fault.fired = 0;
        }
        if let Some(seed) = seed {
            self.dice = Dice(seed);
        }
    }

    pub(crate) fn list(&self) -> &[Fault] {
        &self.list
    }

    pub(crate) fn struck(&self) -> &BTreeMap<String, u64> {
        &self.struck
    }

    /// Decides what happens to a request. A fault after one that ends the request does not strike.
    pub(crate) fn plan(&mut self, request: &Request, workspace: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        if self.list.is_empty() {
            return plan;
        }
        let execution_id = request.execution_id();
        for when in [When::BeforeEffect, When::AfterEffect] {
            for fault in &mut self.list {
                let strikes = fault.kind.when() == when
                    && fault.times.is_none_or(|times| fault.fired < times)
                    && (!fault.kind.is_for_streams() || request.is_for_a_stream())
                    && fault.concerns(request, workspace, execution_id.as_deref())
                    && fault.rate.is_none_or(|rate| self.dice.roll() < rate);
                let Some(mishap) = fault.kind.mishap().filter(|_| strikes) else {
                    continue;
                };
                fault.fired += 1;
                let name = fault.name.clone().unwrap_or_else(|| fault.kind.word().to_owned());
                *self.struck.entry(name).or_default() += 1;
                let is_last = !matches!(mishap, Mishap::Sleep(_) | Mishap::Hold);
                match when {
                    When::BeforeEffect => plan.before.push(mishap),
                    When::AfterEffect => plan.after.push(mishap),
                }
                if is_last {
                    return plan;
                }
            }
        }
        plan
    }
}

impl Fault {
    fn concerns(&self, request: &Request, workspace: Option<&str>, id: Option<&str>) -> bool {
        let same = |wanted: &Option<String>, actual: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == actual)
        };
        let on_route = |route: &String| match route.strip_suffix('*') {
            Some(prefix) => request.path.starts_with(prefix),
            None => *route == request.template() || *route == request.path,
        };
        same(&self.workspace, workspace)
            && same(&self.method, Some(&request.method))
            && same(&self.execution_id, id)
            && self.route.as_ref().is_none_or(on_route)
    }
}

impl Kind {
    fn when(&self) -> When {
        match self {
            Self::LatencyMs(_) => When::BeforeEffect,
            Self::Error(answer) if answer.after_effect => When::AfterEffect,
            Self::Error(_) => When::BeforeEffect,
            Self::Hold(when) | Self::Close(when) => *when,
            Self::Truncate(_) | Self::CutStreamAfterMs(_) | Self::FailStreamAfterMs(_) => When::AfterEffect,
        }
    }

    /// The kind's name in JSON.
    fn word(&self) -> &'static str {
        match self {
            Self::LatencyMs(_) => "latency_ms",
            Self::Error(_) => "error",
            Self::Hold(_) => "hold",
            Self::Close(_) => "close",
            Self::Truncate(_) => "truncate",
            Self::CutStreamAfterMs(_) => "cut_stream_after_ms",
            Self::FailStreamAfterMs(_) => "fail_stream_after_ms",
        }
    }

    fn is_for_streams(&self) -> bool {
        matches!(self, Self::CutStreamAfterMs(_) | Self::FailStreamAfterMs(_))
    }

    fn mishap(&self) -> Option<Mishap> {
        match self {
            Self::LatencyMs(ms) => Some(Mishap::Sleep(Duration::from_millis(*ms))),
            Self::Error(answer) => Some(Mishap::Answer(answer.reply())),
            Self::Hold(_) => Some(Mishap::Hold),
            Self::Close(_) => Some(Mishap::Close),
            Self::Truncate(on) => on.then_some(Mishap::Truncate),
            Self::CutStreamAfterMs(ms) => {
                Some(Mishap::EndStream(StreamEnd { after: Duration::from_millis(*ms), with_error: false }))
            }
            Self::FailStreamAfterMs(ms) => {
                Some(Mishap::EndStream(StreamEnd { after: Duration::from_millis(*ms), with_error: true }))
            }
        }
    }
}

impl ErrorAnswer {
    fn reply(&self) -> Reply {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = match &self.body {
            Some(Value::String(text)) => Reply::text(status, "text/plain", text.clone()),
            Some(body) => Reply::json(status, body),
            None => usual(status),
        };
        if let Some(content_type) = &self.content_type {
            reply.content_type = Some(content_type.clone());
        }
        let headers = self.headers.iter();
        reply.headers.extend(headers.map(|(name, value)| (name.clone(), value.clone())));
        reply
    }
}

/// The usual answer of the API, or of the gateway in front of it, for a status.
fn usual(status: StatusCode) -> Reply {
    let reason = status.canonical_reason().unwrap_or("Error");
    let body = match status.as_u16() {
        429 => json!({
            "object": "error", "message": "Rate limit exceeded", "type": "rate_limited",
            "param": null, "code": "1300", "raw_status_code": 429,
        }),
        500 => json!({ "detail": "An error occurred", "code": "WF_1000" }),
        502..=504 => {
            let page = format!("<html><body><h1>{status}</h1></body></html>\n");
            return Reply::text(status, "text/html", page);
        }
        _ => json!({ "detail": reason }),
    };
    Reply::json(status, &body)
}

/// A small generator (SplitMix64), so that a seed gives the same faults on every machine.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// A number from 0 to below 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // A double holds 53 bits.
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_numbers_below_one() {
        let rolls = |seed| {
            let mut dice = Dice(seed);
            std::iter::repeat_with(move || dice.roll()).take(1000).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        assert!(rolls(7).iter().all(|roll| (0.0..1.0).contains(roll)));
        let low = rolls(7).iter().filter(|roll| **roll < 0.5).count();
        assert!((400..600).contains(&low), "{low} of 1000");
    }
}
