//! Metrics of the queue for permits: how many requests wait, and how long they have waited.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::Priority;

/// In seconds, from no wait to the slowest wait behind ten thousand other calls.
const WAITS: [f64; 11] = [0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// Metrics of the queues of all keys in a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Waits {
    /// Requests that wait for a permit, by priority level.
    pub now: Family<Waiting, Gauge>,
    /// How long requests waited for a permit, by priority level.
    pub durations: Family<Waiting, Histogram, fn() -> Histogram>,
}

/// The labels of both metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Waiting {
    pub priority: Priority,
}

impl Default for Waits {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(WAITS);
        let waits = Self { now: Family::default(), durations: Family::new_with_constructor(histogram) };
        for priority in Priority::ALL {
            waits.waiting(priority).set(0);
            // See `closed` in `src/platform/metrics.rs`.
            drop(waits.durations.get_or_create(&Waiting { priority }));
        }
        waits
    }
}

impl Waits {
    pub(super) fn waiting(&self, priority: Priority) -> Gauge {
        self.now.get_or_create_owned(&Waiting { priority })
    }

    pub(super) fn waited(&self, priority: Priority, waited: Duration) {
        self.durations.get_or_create(&Waiting { priority }).observe(waited.as_secs_f64());
    }
}

/// Counts one in a gauge until it is dropped, also when a future is cancelled.
#[derive(Debug)]
pub struct InFlightGuard(Gauge);

impl InFlightGuard {
    /// Increments the gauge.
    pub fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
