//! Metrics of Workflows: the drift that was corrected, and how late it is looked for.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::fields;
use crate::platform::metrics::Metrics;

/// Metrics of Workflows. Clones share them.
#[derive(Clone)]
pub struct WorkflowMetrics {
    drift: Family<Field, Counter>,
    overdue: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Field {
    field: &'static str,
}

impl WorkflowMetrics {
    /// Registers them.
    pub fn new(all: &Metrics) -> Self {
        let metrics = Self {
            drift: all.register("drift_corrected", "Fields of workflows that the operator set back", Family::default()),
            overdue: all.register(
                "drift_overdue_seconds",
                "The longest time for which workflows have been overdue for comparison with the API",
                Gauge::default(),
            ),
        };
        for field in fields::ALL {
            drop(metrics.drift.get_or_create(&Field { field: field.name() }));
        }
        metrics
    }

    /// Counts a field of a workflow that differed from the resource and was corrected.
    pub fn drift_corrected(&self, field: fields::Field) {
        self.drift.get_or_create(&Field { field: field.name() }).inc();
    }

    /// Sets how late the comparison of workflows with the API is.
    pub fn set_overdue(&self, late: Duration) {
        self.overdue.set(late.as_secs_f64());
    }

    /// The labels that have a fixed set of values, with the values.
    pub fn closed() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
        vec![("drift_corrected_total", "field", fields::ALL.into_iter().map(fields::Field::name).collect())]
    }
}
