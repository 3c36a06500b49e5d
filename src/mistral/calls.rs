//! What calls cost: how many are under way, and how long each took.

use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::budget::Class;

/// From a fast answer to the longest call that is waited for.
const BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// From no wait to one for ten thousand others at the slowest.
const WAITS: [f64; 11] = [0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// What all clients of a process have called. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Calls under way.
    pub in_flight: Gauge,
    /// How long calls took, by what was called and what came of it.
    pub durations: Family<Call, Histogram, fn() -> Histogram>,
    /// Those who wait for their turn to call.
    pub waiting: Family<Waiting, Gauge>,
    /// How long turns were waited for.
    pub waits: Family<Waiting, Histogram, fn() -> Histogram>,
}

/// What is waited with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Waiting {
    /// What the call is for.
    pub class: Class,
}

/// One kind of call. None of its parts holds a name or an id, so there are only so many.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// The path, with its parameters by name.
    pub route: &'static str,
    /// The HTTP method.
    pub method: String,
    /// What came of it.
    pub status: Status,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// An answer with this HTTP status.
    Code(u16),
    /// No answer: no connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// No answer, or only a part of one: the connection broke.
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
    /// Why there was no answer.
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
        let waits: fn() -> Histogram = || Histogram::new(WAITS);
        let calls = Self {
            in_flight: Gauge::default(),
            durations: Family::new_with_constructor(histogram),
            waiting: Family::default(),
            waits: Family::new_with_constructor(waits),
        };
        for class in Class::ALL {
            calls.waiting(class).set(0);
            // See `closed` in `src/platform/metrics.rs`.
            drop(calls.waits.get_or_create(&Waiting { class }));
        }
        calls
    }
}

impl Calls {
    pub(super) fn waiting(&self, class: Class) -> Gauge {
        self.waiting.get_or_create_owned(&Waiting { class })
    }

    pub(super) fn waited(&self, class: Class, waited: Duration) {
        self.waits.get_or_create(&Waiting { class }).observe(waited.as_secs_f64());
    }

    pub(super) fn made(&self, route: &'static str, method: String, status: Status, begun: Instant) {
        self.durations.get_or_create(&Call { route, method, status }).observe(begun.elapsed().as_secs_f64());
    }
}

/// One more for as long as this lives, also where a future is dropped on its way.
#[derive(Debug)]
pub struct OneMore(Gauge);

impl OneMore {
    /// Counts one more.
    pub fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.dec();
    }
}
