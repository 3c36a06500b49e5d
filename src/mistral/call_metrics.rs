//! Metrics of calls: how many are queued or in flight, and how long each took.

use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::throttle::metrics::Waits;

/// In seconds, from a fast response to the longest call that is waited for.
const BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Metrics of the calls of all clients in a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Calls {
    pub in_flight: Gauge,
    /// How long calls took, by route, method and outcome.
    pub durations: Family<Call, Histogram, fn() -> Histogram>,
    pub waits: Waits,
}

/// The labels of one kind of call. None of them holds a name or an id, so the number of kinds is bounded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// The path, with the names of its parameters instead of their values.
    pub route: &'static str,
    pub method: String,
    pub status: Status,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// A response with this HTTP status.
    Code(u16),
    /// No connection.
    Connect,
    /// No response in time.
    Timeout,
    /// No response, or only a part of one: the connection broke.
    Broken,
}

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        match self {
            Self::Code(code) => code.encode(encoder),
            Self::Connect => "connect".encode(encoder),
            Self::Timeout => "timeout".encode(encoder),
            Self::Broken => "broken".encode(encoder),
        }
    }
}

impl Status {
    /// Why there was no response.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if error.is_connect() || error.is_builder() {
            Self::Connect
        } else if error.is_timeout() {
            Self::Timeout
        } else {
            Self::Broken
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self {
            in_flight: Gauge::default(),
            durations: Family::new_with_constructor(histogram),
            waits: Waits::default(),
        }
    }
}

impl Calls {
    pub(super) fn made(&self, route: &'static str, method: String, status: Status, begun: Instant) {
        self.durations.get_or_create(&Call { route, method, status }).observe(begun.elapsed().as_secs_f64());
    }
}
