//! Prometheus metrics. `docs/reference/metrics.md` describes each one.
//!
//! No label holds a name or anything else that grows with the cluster.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::platform::decoded::Decoded;
use crate::sync;
use axum::body::Bytes;
use kube::Resource;
use kube::runtime::controller::Action;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use tokio::task::{JoinError, spawn_blocking};
use tracing::Instrument;

use crate::execution::status::reason;
use crate::mistral::call_metrics::Calls;
use crate::platform::apiserver::{Error, contained};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets in seconds: from a reconcile that finds nothing to do to one that waits for a permit and a slow API.
const RECONCILE: [f64; 11] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
/// Buckets in seconds: from a second to a day.
const RUN: [f64; 11] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0];

/// The label value for all words that have no label value of their own.
pub const OTHER: &str = "Other";
const KINDS: [&str; 3] = ["Workspace", "Workflow", "WorkflowExecution"];
/// The outcomes of a reconcile.
const OUTCOMES: [&str; 7] = ["ok", "conflict", "gone", "undecodable", "timeout", "error", "panicked"];
/// The outcomes of a claim.
const CLAIMS: [&str; 8] = ["written", "started", "recovered", "refused", "adopted", "taken", "foreign", "stale"];
/// Why an Event is not written.
const DROPPED: [&str; 5] = ["repeated", "object", "queue", "ended", "failed"];
/// The fields of a workflow that the operator corrects.
const FIELDS: [&str; 5] = ["displayName", "description", "tags", "availableInChatAssistant", "archived"];

/// The outcomes of an execution.
fn ends() -> Vec<&'static str> {
    reason::ENDS.into_iter().chain([OTHER]).collect()
}

/// Counters and histograms whose labels have a fixed set of values, by metric and label. Each series exists from the
/// start: if its first increase created it, `rate()`, `increase()` and alerts would miss that increase.
#[cfg(test)]
fn closed() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let classes = vec!["Stop", "Start", "Watch", "Drift"];
    vec![
        ("reconcile_duration_seconds", "kind", KINDS.to_vec()),
        ("reconcile_duration_seconds", "outcome", OUTCOMES.to_vec()),
        ("executions_finished_total", "outcome", ends()),
        ("execution_duration_seconds", "outcome", ends()),
        ("claims_total", "outcome", CLAIMS.to_vec()),
        ("drift_corrected_total", "field", FIELDS.to_vec()),
        ("events_dropped_total", "reason", DROPPED.to_vec()),
        ("api_call_wait_seconds", "priority", classes),
    ]
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one operator.
pub struct Metrics {
    pub calls: Calls,
    reconciles: Histograms<Reconcile>,
    executions: Family<Execution, Gauge>,
    finished: Family<Outcome, Counter>,
    ran: Histograms<Outcome>,
    claims: Family<Outcome, Counter>,
    drift: Family<Field, Counter>,
    sweeps: Family<Kind, Gauge<f64, AtomicU64>>,
    overdue: Gauge<f64, AtomicU64>,
    workspaces: Family<Workspace, Gauge>,
    events: Family<Reason, Counter>,
    leader: Gauge,
    registered: Registered,
    refreshes: Mutex<Vec<Refresh>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: Cow<'static, str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Execution {
    status: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Workspace {
    ready: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Field {
    field: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

/// The registry, and the names in it, which the registry does not reveal.
struct Registered {
    registry: Registry,
    names: Vec<&'static str>,
}

impl Registered {
    fn add<M: Metric + Clone>(&mut self, name: &'static str, help: &str, metric: M) -> M {
        self.names.push(name);
        // The registry adds a full stop to the help text.
        self.registry.register(name, help, metric.clone());
        metric
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let reconcile: fn() -> Histogram = || Histogram::new(RECONCILE);
        let run: fn() -> Histogram = || Histogram::new(RUN);
        let mut all = Registered { registry: Registry::with_prefix("mistral_workflows"), names: Vec::new() };
        let calls = Calls::default();
        let version = Version { version: env!("CARGO_PKG_VERSION") };
        all.add("build_info", "Version of the operator", Family::<Version, Gauge>::default())
            .get_or_create(&version)
            .set(1);
        all.add(
            "api_request_duration_seconds",
            "How long calls to the Mistral API took, by route, method and HTTP status",
            calls.durations.clone(),
        );
        all.add("api_calls_in_flight", "Calls to the Mistral API in flight", calls.in_flight.clone());
        all.add(
            "api_calls_waiting",
            "Requests that wait for a permit to call the Mistral API, by priority level",
            calls.waits.now.clone(),
        );
        all.add(
            "api_call_wait_seconds",
            "How long requests waited for a permit to call the Mistral API",
            calls.waits.durations.clone(),
        );
        let metrics = Self {
            reconciles: all.add(
                "reconcile_duration_seconds",
                "How long reconciles took, by kind and outcome",
                Family::new_with_constructor(reconcile),
            ),
            executions: all.add("executions", "WorkflowExecutions that exist", Family::default()),
            finished: all.add("executions_finished", "Executions that ended", Family::default()),
            ran: all.add(
                "execution_duration_seconds",
                "How long finished runs took, by the API's clock",
                Family::new_with_constructor(run),
            ),
            claims: all.add("claims", "Claims on execution ids, by outcome", Family::default()),
            drift: all.add("drift_corrected", "Fields of workflows that the operator set back", Family::default()),
            sweeps: all.add(
                "last_complete_sweep_age_seconds",
                "The longest time for which a run or workflow was not polled",
                Family::default(),
            ),
            overdue: all.add(
                "drift_overdue_seconds",
                "The longest time for which workflows have been overdue for comparison with the API",
                Gauge::default(),
            ),
            workspaces: all.add("workspaces", "Workspaces that exist", Family::default()),
            events: all.add("events_dropped", "Kubernetes Events that were not written", Family::default()),
            leader: all.add("leader", "Whether this process leads", Gauge::default()),
            calls,
            registered: all,
            refreshes: Mutex::default(),
        };
        // Creates each series in advance: see `closed`.
        for (kind, outcome) in KINDS.into_iter().flat_map(|kind| OUTCOMES.map(|outcome| (kind, outcome))) {
            drop(metrics.reconciles.get_or_create(&Reconcile { kind: kind.into(), outcome }));
        }
        for outcome in ends() {
            drop(metrics.finished.get_or_create(&Outcome { outcome }));
            drop(metrics.ran.get_or_create(&Outcome { outcome }));
        }
        for outcome in CLAIMS {
            drop(metrics.claims.get_or_create(&Outcome { outcome }));
        }
        for field in FIELDS {
            drop(metrics.drift.get_or_create(&Field { field }));
        }
        for reason in DROPPED {
            drop(metrics.events.get_or_create(&Reason { reason }));
        }
        metrics
    }
}

impl Metrics {
    /// Runs one reconcile of an object: counts and times it, contains its panic, and gives its log lines a span with
    /// the object's name.
    ///
    /// # Errors
    /// Those of the reconcile, which are logged here.
    pub async fn measure<K>(
        &self,
        object: &Decoded<K>,
        reconcile: impl Future<Output = Result<Action, Error>>,
    ) -> Result<Action, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let kind = K::kind(&());
        let meta = object.meta();
        let name =
            format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        // The span has the highest level, so that it exists whatever is logged. It is not within kube's span, which
        // says the same in more words.
        let span = tracing::error_span!(parent: None, "reconcile", %kind, object = %name);
        let begun = Instant::now();
        let result = async {
            let result = contained(reconcile).await;
            if let Err(error) = &result
                && !error.is_conflict()
                && !error.is_not_found()
            {
                tracing::warn!(error = error.to_string(), "the reconcile failed; the operator tries again");
            }
            result
        }
        .instrument(span)
        .await;
        let outcome = match &result {
            Ok(_) if object.0.is_err() => "undecodable",
            Ok(_) => "ok",
            Err(error) if error.is_conflict() => "conflict",
            Err(error) if error.is_not_found() => "gone",
            Err(Error::Panicked) => "panicked",
            Err(Error::Timeout(_)) => "timeout",
            Err(Error::Kube(_)) => "error",
        };
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).observe(begun.elapsed().as_secs_f64());
        result
    }

    /// Counts an execution that has ended. `ran` is how long the run took, if there was one.
    pub fn finished(&self, outcome: &'static str, ran: Option<Duration>) {
        debug_assert!(ends().contains(&outcome), "{outcome}");
        self.finished.get_or_create(&Outcome { outcome }).inc();
        if let Some(ran) = ran {
            self.ran.get_or_create(&Outcome { outcome }).observe(ran.as_secs_f64());
        }
    }

    /// Counts an outcome of a claim.
    pub fn claim(&self, outcome: &'static str) {
        debug_assert!(CLAIMS.contains(&outcome), "{outcome}");
        self.claims.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a field of a workflow that differed from the resource and was corrected.
    pub fn drift_corrected(&self, field: &'static str) {
        debug_assert!(FIELDS.contains(&field), "{field}");
        self.drift.get_or_create(&Field { field }).inc();
    }

    /// Counts an Event that was not written.
    pub fn event_dropped(&self, reason: &'static str) {
        debug_assert!(DROPPED.contains(&reason), "{reason}");
        self.events.get_or_create(&Reason { reason }).inc();
    }

    /// Sets how many executions there are, by the status that the API reports and the reason of `Ready`.
    pub fn set_executions(&self, states: impl Iterator<Item = (&'static str, &'static str)>) {
        self.executions.clear();
        for (status, reason) in states {
            self.executions.get_or_create(&Execution { status, reason }).inc();
        }
    }

    /// Sets how many Workspaces there are, by status and reason of `Ready`.
    pub fn set_workspaces(&self, states: impl Iterator<Item = (&'static str, &'static str)>) {
        self.workspaces.clear();
        for (ready, reason) in states {
            self.workspaces.get_or_create(&Workspace { ready, reason }).inc();
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

    /// Sets how late the comparison of workflows with the API is.
    pub fn set_overdue(&self, late: Duration) {
        self.overdue.set(late.as_secs_f64());
    }

    /// Sets whether this process may act.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Calls `refresh` before each rendering: metrics that follow from existing state cost nothing until then.
    pub fn at_each_scrape(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        self.refreshes().push(Box::new(refresh));
    }

    /// All metrics, in the OpenMetrics text format.
    pub fn render(&self) -> String {
        // The lock is held to the end: two scrapes at a time would see each other's half-set metrics.
        let refreshes = self.refreshes();
        refreshes.iter().for_each(|refresh| refresh(self));
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registered.registry) {
            tracing::error!(%error, "the metrics cannot be written; this is a bug in the operator");
        }
        text
    }

    fn refreshes(&self) -> MutexGuard<'_, Vec<Refresh>> {
        sync::lock(&self.refreshes)
    }
}

/// How long one rendering serves all clients.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Serves the metrics, however many clients ask and however often.
///
/// Each rendering visits every resource, so clients must not decide how often it happens. Renderings happen one at a
/// time, a second or more apart, on a thread where they delay no reconcile.
pub struct Exposition {
    metrics: Arc<Metrics>,
    last: Arc<tokio::sync::Mutex<Option<Rendered>>>,
}

struct Rendered {
    at: tokio::time::Instant,
    text: Bytes,
}

impl Exposition {
    /// Renders nothing until the first request.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, last: Arc::default() }
    }

    /// All metrics, in the OpenMetrics text format, at most a second old.
    ///
    /// # Errors
    /// When the rendering panicked, which is a bug.
    pub async fn text(&self) -> Result<Bytes, JoinError> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some(Rendered { at, text }) = &*last
            && at.elapsed() < FRESH_FOR
        {
            return Ok(text.clone());
        }
        let metrics = Arc::clone(&self.metrics);
        // The task takes the lock: the client may be gone before the end, and others must not start another rendering.
        spawn_blocking(move || {
            let text = Bytes::from(metrics.render());
            *last = Some(Rendered { at: tokio::time::Instant::now(), text: text.clone() });
            text
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::api;

    /// Metrics with a value for each metric.
    fn touched() -> Metrics {
        let metrics = Metrics::default();
        let call = crate::mistral::call_metrics::Call {
            route: "/v1/workflows",
            method: "GET".into(),
            status: crate::mistral::call_metrics::Status::Timeout,
        };
        metrics.calls.durations.get_or_create(&call).observe(1.0);
        let priority = crate::throttle::Priority::Stop;
        metrics.calls.waits.durations.get_or_create(&crate::throttle::metrics::Waiting { priority }).observe(1.0);
        metrics.reconciles.get_or_create(&Reconcile { kind: "Workspace".into(), outcome: "ok" }).observe(1.0);
        metrics.set_executions([("RUNNING", "Running"); 3].into_iter());
        metrics.set_workspaces([("True", "Connected")].into_iter());
        metrics.finished("Completed", Some(Duration::from_secs(2)));
        metrics.set_sweep_age("runs", Some(Duration::from_secs(7)));
        metrics
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
        let rows =
            include_str!("../../docs/reference/metrics.md").lines().filter(|line| line.starts_with("| `mistral_"));
        let documented: BTreeSet<(String, String)> = rows
            .map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>())
            .map(|cells| (cells[1].to_owned(), cells[2].to_owned()))
            .collect();
        let metrics = touched();
        let exposed = exposed(&metrics.render());
        assert_eq!(documented, exposed);
        assert_eq!(exposed.len(), metrics.registered.names.len(), "not all have a value here");
    }

    #[test]
    fn each_series_of_a_closed_set_of_labels_is_there_before_anything_happens_and_documented() {
        let text = Metrics::default().render();
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
        metrics.at_each_scrape(|metrics| metrics.set_executions([("RUNNING", "Running")].into_iter()));
        metrics.set_sweep_age("runs", None);
        let text = metrics.render();
        assert_eq!(text.matches("# HELP ").count(), text.matches("# TYPE ").count());
        assert!(text.contains("mistral_workflows_executions{status=\"RUNNING\",reason=\"Running\"} 1\n"), "{text}");
        assert!(text.contains("mistral_workflows_events_dropped_total{reason=\"object\"} 0\n"), "{text}");
        assert!(text.contains("route=\"/v1/workflows\",method=\"GET\",status=\"timeout\""), "{text}");
        assert!(!text.contains("sweep_age_seconds{"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn reconciles_are_counted_by_kind_and_outcome() {
        let metrics = Metrics::default();
        let object: Decoded<api::Workspace> = serde_json::from_value(serde_json::json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workspace",
            "metadata": { "namespace": "team", "name": "default" }, "spec": { "auth": 1 },
        }))
        .unwrap();
        let _ = metrics.measure(&object, async { panic!("a bug") }).await;
        let _ = metrics.measure(&object, async { Err(Error::Timeout(Duration::ZERO)) }).await;
        let _ = metrics.measure(&object, async { Ok(Action::await_change()) }).await;
        let text = metrics.render();
        for outcome in ["panicked", "timeout", "undecodable"] {
            let count = format!(
                "mistral_workflows_reconcile_duration_seconds_count{{kind=\"Workspace\",outcome=\"{outcome}\"}} 1"
            );
            assert!(text.contains(&count), "{count} in {text}");
        }
        assert!(!text.contains("team") && !text.contains("default"));
    }

    /// Metrics that take a moment to render, and the number of renderings.
    fn counting() -> (Exposition, Arc<AtomicU64>) {
        let metrics = Metrics::default();
        let count = Arc::<AtomicU64>::default();
        let counts = Arc::clone(&count);
        metrics.at_each_scrape(move |metrics| {
            std::thread::sleep(Duration::from_millis(50));
            let rendered = counts.fetch_add(1, Ordering::SeqCst) + 1;
            metrics.set_sweep_age("runs", Some(Duration::from_secs(rendered)));
        });
        (Exposition::new(Arc::new(metrics)), count)
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_second_all_who_ask_get_the_same_rendering_and_then_a_new_one() {
        let (exposition, count) = counting();
        let all_get = async |rendering: &str| {
            let wanted = format!("sweep_age_seconds{{kind=\"runs\"}} {rendering}.0\n");
            for text in futures::future::join_all((0..100).map(|_| exposition.text())).await {
                let text = text.unwrap();
                assert!(str::from_utf8(&text).unwrap().contains(&wanted));
            }
        };
        all_get("1").await;
        tokio::time::advance(Duration::from_millis(900)).await;
        all_get("1").await;
        tokio::time::advance(Duration::from_millis(200)).await;
        all_get("2").await;
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn those_who_ask_and_go_away_begin_no_second_rendering_beside_the_first() {
        let (exposition, count) = counting();
        for _ in 0..20 {
            let _ = tokio::time::timeout(Duration::from_millis(1), exposition.text()).await;
        }
        exposition.text().await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_rendering_does_not_hold_up_the_threads_that_do_the_work() {
        // This test has one such thread. A rendering on it would stop everything else.
        let (exposition, count) = counting();
        let rendering = async {
            exposition.text().await.unwrap();
            count.load(Ordering::SeqCst)
        };
        let working = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            count.load(Ordering::SeqCst)
        };
        assert_eq!(futures::join!(rendering, working), (1, 0));
    }

    #[tokio::test]
    async fn a_rendering_that_panics_is_told_and_does_not_keep_the_next_one() {
        let (exposition, count) = counting();
        let first = Arc::clone(&count);
        exposition.metrics.at_each_scrape(move |_| assert!(first.load(Ordering::SeqCst) > 1, "a bug"));
        assert!(exposition.text().await.is_err());
        assert!(exposition.text().await.is_ok());
    }
}
