//! Metrics of Workspaces, of the calls with their keys, and of the sweeps for them.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::mistral::call_metrics::Calls;
use crate::platform::metrics::Metrics;

/// Metrics of Workspaces. Clones share them.
#[derive(Clone)]
pub struct WorkspaceMetrics {
    pub calls: Calls,
    workspaces: Family<State, Gauge>,
    sweeps: Family<Kind, Gauge<f64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    ready: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl WorkspaceMetrics {
    /// Registers them.
    pub fn new(all: &Metrics) -> Self {
        let calls = Calls::default();
        all.register(
            "api_request_duration_seconds",
            "How long calls to the Mistral API took, by route, method and HTTP status",
            calls.durations.clone(),
        );
        all.register("api_calls_in_flight", "Calls to the Mistral API in flight", calls.in_flight.clone());
        all.register(
            "api_calls_waiting",
            "Requests that wait for a permit to call the Mistral API, by priority level",
            calls.waits.now.clone(),
        );
        all.register(
            "api_call_wait_seconds",
            "How long requests waited for a permit to call the Mistral API",
            calls.waits.durations.clone(),
        );
        Self {
            calls,
            workspaces: all.register("workspaces", "Workspaces that exist", Family::default()),
            sweeps: all.register(
                "last_complete_sweep_age_seconds",
                "The longest time for which a run or workflow was not polled",
                Family::default(),
            ),
        }
    }

    /// Sets how many Workspaces there are, by status and reason of `Ready`.
    pub fn set_workspaces(&self, states: impl Iterator<Item = (&'static str, &'static str)>) {
        self.workspaces.clear();
        for (ready, reason) in states {
            self.workspaces.get_or_create(&State { ready, reason }).inc();
        }
    }

    /// Sets how long something of this kind (`runs`, `workflows`) was not polled. None if there is nothing to poll,
    /// which is no reason for an alert.
    pub fn set_sweep_age(&self, kind: &'static str, age: Option<Duration>) {
        match age {
            Some(age) => {
                self.sweeps.get_or_create(&Kind { kind }).set(age.as_secs_f64());
            }
            None => {
                self.sweeps.remove(&Kind { kind });
            }
        }
    }

    /// The labels that have a fixed set of values, with the values.
    pub fn closed() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
        vec![("api_call_wait_seconds", "priority", vec!["Stop", "Start", "Watch", "Drift"])]
    }
}
