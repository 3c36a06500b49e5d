//! The metrics of all parts of one operator. `docs/reference/metrics.md` describes each one.
//!
//! No label holds a name or anything else that grows with the cluster, except where `--metrics-workflows` allows some.

use std::sync::Arc;

use super::scopes::KINDS;
use crate::execution::metrics::ExecutionMetrics;
use crate::platform::metrics::Metrics;
use crate::workflow::metrics::WorkflowMetrics;
use crate::workspace::metrics::WorkspaceMetrics;

/// The metrics of one operator. Clones share them.
#[derive(Clone)]
pub struct AllMetrics {
    pub all: Arc<Metrics>,
    pub workspaces: WorkspaceMetrics,
    pub workflows: WorkflowMetrics,
    pub executions: ExecutionMetrics,
}

impl AllMetrics {
    /// Metrics with a label for the workflow where executions have ended, with up to `labelled_workflows` values; 0 for none.
    pub fn new(labelled_workflows: usize) -> Self {
        let all = Metrics::new("mistral_workflows", env!("CARGO_PKG_VERSION"), &KINDS);
        let (workspaces, workflows) = (WorkspaceMetrics::new(&all), WorkflowMetrics::new(&all));
        let executions = ExecutionMetrics::new(&all, labelled_workflows);
        Self { all: Arc::new(all), workspaces, workflows, executions }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::mistral::call_metrics::{Call, Status};
    use crate::platform::process;
    use crate::throttle::Priority;
    use crate::throttle::metrics::Waiting;

    /// Metrics with a value for each metric.
    fn touched() -> AllMetrics {
        let metrics = AllMetrics::new(0);
        let calls = &metrics.workspaces.calls;
        let call = Call { route: "/v1/workflows", method: "GET".into(), status: Status::Timeout };
        calls.durations.get_or_create(&call).observe(1.0);
        calls.waits.durations.get_or_create(&Waiting { priority: Priority::Stop }).observe(1.0);
        metrics.executions.set_executions([("RUNNING", "Running"); 3].into_iter());
        metrics.workspaces.set_workspaces([("True", "Connected")].into_iter());
        metrics.executions.finished("Completed", ("echo", true), Some(Duration::from_secs(2)));
        metrics.workspaces.set_sweep_age("runs", Some(Duration::from_secs(7)));
        metrics
    }

    /// The labels that have a fixed set of values, with the values.
    fn closed() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
        let parts = [WorkspaceMetrics::closed(), WorkflowMetrics::closed(), ExecutionMetrics::closed()];
        AllMetrics::new(0).all.closed().into_iter().chain(parts.into_iter().flatten()).collect()
    }

    /// Names, as they are queried, and types, by the `# TYPE` lines.
    fn exposed(text: &str) -> BTreeSet<(String, String)> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types
            .map(|(name, type_)| match type_ {
                "counter" => (format!("{name}_total"), type_.to_owned()),
                _ => (name.to_owned(), type_.to_owned()),
            })
            .collect()
    }

    #[test]
    fn every_metric_is_documented_and_every_documented_metric_exists() {
        let rows = include_str!("../../docs/reference/metrics.md")
            .lines()
            .filter(|line| line.starts_with("| `mistral_") || line.starts_with("| `process_"));
        let documented: BTreeSet<(String, String)> = rows
            .map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>())
            .map(|cells| (cells[1].to_owned(), cells[2].to_owned()))
            .collect();
        let metrics = touched();
        let exposed = exposed(&metrics.all.render());
        assert_eq!(documented, exposed);
        let all = metrics.all.names().len() + process::NAMES.len();
        assert_eq!(exposed.len(), all, "not all have a value here");
        for (name, type_) in process::NAMES {
            assert!(exposed.contains(&(name.to_owned(), type_.to_owned())), "{name}");
        }
    }

    /// The labels of each metric with a value, by the name that is queried.
    fn labels(text: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut labels = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            let (name, pairs) = series.split_once('{').unwrap_or((series, ""));
            let parts = ["_bucket", "_count", "_sum"];
            let name = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            // Each value ends with a quotation mark, and so does each part but that after the last one.
            let names = pairs.split('"').step_by(2).filter_map(|part| part.strip_suffix('='));
            let of: &mut BTreeSet<String> = labels.entry(name.to_owned()).or_default();
            of.extend(names.map(|name| name.trim_start_matches(',').to_owned()).filter(|name| name != "le"));
        }
        labels
    }

    #[test]
    fn the_labels_of_every_metric_are_documented() {
        let exposed = labels(&touched().all.render());
        assert!(exposed["mistral_workflows_workspaces"].len() == 2, "{exposed:?}");
        for row in include_str!("../../docs/reference/metrics.md").lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if let Some(found) = exposed.get(cells[1].trim_matches('`')) {
                let documented = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
                assert_eq!(*found, documented, "{row}");
            }
        }
    }

    /// The rules of <https://prometheus.io/docs/practices/naming/>, as `promtool check metrics` checks them.
    #[test]
    fn names_are_those_that_prometheus_asks_for() {
        let text = touched().all.render();
        for (name, type_) in exposed(&text) {
            assert_eq!(name.ends_with("_total"), type_ == "counter", "{name} is a {type_}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            for part in name.split('_') {
                let other_units =
                    ["ms", "millis", "milliseconds", "minutes", "hours", "days", "sec", "secs", "kib", "kb"];
                let types = ["counter", "gauge", "histogram", "summary", "count", "sum", "bucket"];
                assert!(!other_units.contains(&part) && !types.contains(&part), "{part} in {name}");
            }
            let measures =
                ["duration", "age", "wait", "overdue"].iter().any(|word| name.split('_').any(|part| part == *word));
            assert_eq!(
                measures || name == "process_cpu_seconds_total" || name == "process_start_time_seconds",
                name.contains("_seconds"),
                "{name}"
            );
        }
    }

    #[test]
    fn each_series_of_a_closed_set_of_labels_is_there_before_anything_happens_and_documented() {
        let text = AllMetrics::new(0).all.render();
        for (metric, label, values) in closed() {
            let name = if metric.ends_with("_total") { metric.to_owned() } else { format!("{metric}_count") };
            for value in &values {
                let is_this = |line: &str| {
                    line.starts_with(&format!("mistral_workflows_{name}{{"))
                        && line.contains(&format!("{label}=\"{value}\""))
                        && line.ends_with(" 0")
                };
                assert!(text.lines().any(is_this), "{name}, {label}={value} in {text}");
            }
        }
        let wanted: BTreeSet<String> = closed()
            .into_iter()
            .map(|(metric, label, values)| {
                format!("| `{label}` | `mistral_workflows_{metric}` | `{}` |", values.join("`, `"))
            })
            .collect();
        let page = include_str!("../../docs/reference/metrics.md");
        let (_, table) = page.split_once("## Values of labels").expect("the table's heading");
        let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
        let rows: BTreeSet<String> = table.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
        assert_eq!(rows, wanted, "docs/reference/metrics.md is to have the rows on the right");
    }

    #[test]
    fn every_metric_has_a_help_text_and_values_of_this_moment() {
        let metrics = touched();
        let executions = metrics.executions.clone();
        metrics.all.at_each_scrape(move |_| executions.set_executions([("RUNNING", "Running")].into_iter()));
        metrics.workspaces.set_sweep_age("runs", None);
        let text = metrics.all.render();
        assert_eq!(text.matches("# HELP ").count(), text.matches("# TYPE ").count());
        assert!(text.contains("mistral_workflows_executions{status=\"RUNNING\",reason=\"Running\"} 1\n"), "{text}");
        assert!(text.contains("mistral_workflows_events_dropped_total{reason=\"object\"} 0\n"), "{text}");
        assert!(text.contains("route=\"/v1/workflows\",method=\"GET\",status=\"timeout\""), "{text}");
        assert!(!text.contains("sweep_age_seconds{"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
