//! Mixes of faults for the simulated API, which change every few seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::dice::Dice;
use crate::demo::Result;

const EXECUTE: &str = "/v1/workflows/{workflow_identifier}/execute";
const ONE: &str = "/v1/workflows/executions/*";

/// A request for a new execution that is still hidden.
const HIDDEN: &str = "invisible start";
/// A start that took effect although its answer is an error.
const AFTER_START: &str = "502 after a start";

/// An answer after which the operator pauses, and halves its call rate for some seconds.
const TOO_MANY: &str = "429";
/// One mix in this many contains it. If most did, hardly anything would ever start.
const TOO_MANY_EVERY: usize = 10;

/// One mix of faults.
#[derive(Clone, Debug)]
pub struct Phase {
    pub lasts: Duration,
    /// The body of the request to the simulator.
    pub orders: Value,
}

/// All kinds: the name, the route (none means any), the percentage of requests, and the effect. No fault exceeds what
/// the operator relies on: a start takes effect and becomes visible within 30 seconds.
fn kinds() -> Vec<(&'static str, Option<&'static str>, u64, Value)> {
    let error = |status: u16| json!({ "error": { "status": status } });
    let retry = json!({ "error": { "status": 429, "headers": { "retry-after": "1" } } });
    let gateway = json!({ "message": "no Route matched with those values" });
    vec![
        ("latency", None, 15, json!({ "latency_ms": 0 })),
        (TOO_MANY, None, 1, retry),
        ("503", None, 3, error(503)),
        ("500 to a start", Some(EXECUTE), 10, error(500)),
        (AFTER_START, Some(EXECUTE), 10, json!({ "error": { "status": 502, "after_effect": true } })),
        ("closed before a start", Some(EXECUTE), 8, json!({ "close": "before_effect" })),
        ("closed after a start", Some(EXECUTE), 10, json!({ "close": "after_effect" })),
        ("start held before its effect", Some(EXECUTE), 8, json!({ "hold": "before_effect" })),
        ("start held after its effect", Some(EXECUTE), 8, json!({ "hold": "after_effect" })),
        ("answer cut", None, 4, json!({ "truncate": true })),
        ("closed after a question or a stop", Some(ONE), 4, json!({ "close": "after_effect" })),
        ("404 of a gateway", Some(ONE), 4, json!({ "error": { "status": 404, "body": gateway } })),
    ]
}

/// The names of all kinds.
pub fn names() -> Vec<&'static str> {
    kinds().into_iter().map(|(name, ..)| name).chain([HIDDEN]).collect()
}

/// Mixes for a window of this length.
pub fn phases(dice: &mut Dice, window: Duration) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut planned = Duration::ZERO;
    while planned < window {
        let lasts = dice.ms(3000, 8000);
        planned += lasts;
        let mut faults = Vec::new();
        for (name, route, percent, mut kind) in kinds() {
            if name == "latency" {
                kind = json!({ "latency_ms": dice.between(20, 1500) });
            }
            let is_in = if name == TOO_MANY { phases.len() % TOO_MANY_EVERY == 1 } else { dice.percent(75) };
            if is_in {
                faults.push(fault(name, route, dice.between(percent.div_ceil(2), percent * 2), &kind));
            }
        }
        let mut orders = json!({ "faults": faults, "seed": dice.below(1 << 53) });
        if dice.percent(75) {
            orders["hide_new_executions_ms"] = json!(dice.between(500, 20_000));
        }
        phases.push(Phase { lasts, orders });
    }
    phases
}

fn fault(name: &str, route: Option<&str>, percent: u64, kind: &Value) -> Value {
    // A floating-point number that the simulator's dice take as exactly this many hundredths.
    #[expect(clippy::cast_precision_loss, reason = "it is below a hundred")]
    let rate = percent as f64 / 100.0;
    json!({ "name": name, "route": route, "rate": rate, "kind": kind })
}

/// A mix that makes these kinds, which have not struck so far, very likely.
pub fn of_these(missing: &[&str]) -> Value {
    let hides = missing.contains(&HIDDEN);
    // An operator gets a hidden start only if the start's answer got lost.
    let is_wanted = |name: &str| missing.contains(&name) || (hides && name == AFTER_START);
    let wanted = kinds().into_iter().filter(|(name, ..)| is_wanted(name));
    let faults: Vec<Value> =
        wanted.map(|(name, route, _, kind)| fault(name, route, if name == TOO_MANY { 5 } else { 40 }, &kind)).collect();
    json!({ "faults": faults, "hide_new_executions_ms": hides.then_some(5000) })
}

/// The simulator's controls.
#[derive(Clone, Debug)]
pub struct Controls {
    http: reqwest::Client,
    url: String,
}

impl Controls {
    /// The controls of the simulator at this address.
    pub fn new(url: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { http, url: format!("{url}/__sim/faults") })
    }

    /// Replaces the faults and releases the held requests.
    pub async fn put(&self, orders: &Value) -> Result<()> {
        self.http.put(&self.url).json(orders).send().await?.error_for_status()?;
        Ok(())
    }

    /// How often each kind has struck.
    pub async fn struck(&self) -> Result<BTreeMap<&'static str, u64>> {
        let told: Value = self.http.get(&self.url).send().await?.error_for_status()?.json().await?;
        let of = |name| match name {
            HIDDEN => told["concealed"].as_u64().unwrap_or_default(),
            _ => told["struck"][name].as_u64().unwrap_or_default(),
        };
        Ok(names().into_iter().map(|name| (name, of(name))).collect())
    }
}
