//! Prometheus metrics. `docs/reference/metrics.md` describes each one.
//!
//! No label holds a name or anything else that grows with the cluster.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::platform::decoded::Decoded;
use crate::sync;
use axum::body::Bytes;
use kube::Resource;
use kube::runtime::controller::Action;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use tokio::task::{JoinError, spawn_blocking};
use tracing::Instrument;

use crate::platform::apiserver::Error;
use crate::platform::classic_format;
use crate::platform::process::Process;
use crate::platform::reconcile::contained;

/// The media type of [`Metrics::render`]: OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets in seconds: from a reconcile that finds nothing to do to one that waits for a permit and a slow API.
const RECONCILE: [f64; 11] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
/// The label value for all words that have no label value of their own.
pub const OTHER: &str = "Other";
/// The outcomes of a reconcile.
const OUTCOMES: [&str; 7] = ["ok", "conflict", "gone", "undecodable", "timeout", "error", "panicked"];
/// Why an Event is not written.
const DROPPED: [&str; 5] = ["repeated", "object", "queue", "ended", "failed"];
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// The metrics of one process: those of any controller, and those that its parts register.
pub struct Metrics {
    kinds: &'static [&'static str],
    reconciles: Histograms<Reconcile>,
    events: Family<Reason, Counter>,
    leader: Gauge,
    registered: Mutex<Registered>,
    refreshes: Mutex<Vec<Refresh>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: Cow<'static, str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

struct Registered {
    registry: Registry,
    /// The metrics of the process, whose names have no prefix.
    process: Registry,
    /// Of all metrics with the prefix.
    names: Vec<&'static str>,
}

impl Metrics {
    /// The metrics of any controller. `prefix` begins each name; `kinds` are those that the process reconciles.
    pub fn new(prefix: &str, version: &'static str, kinds: &'static [&'static str]) -> Self {
        let reconcile: fn() -> Histogram = || Histogram::new(RECONCILE);
        let metrics = Self {
            kinds,
            reconciles: Family::new_with_constructor(reconcile),
            events: Family::default(),
            leader: Gauge::default(),
            registered: Mutex::new(Registered {
                registry: Registry::with_prefix(prefix),
                process: Registry::default(),
                names: Vec::new(),
            }),
            refreshes: Mutex::default(),
        };
        sync::lock(&metrics.registered).process.register_collector(Box::new(Process));
        let build = Family::<Version, Gauge>::default();
        metrics.register("build_info", "Version of the operator", build).get_or_create(&Version { version }).set(1);
        let help = "How long reconciles took, by kind and outcome";
        metrics.register("reconcile_duration_seconds", help, metrics.reconciles.clone());
        metrics.register("events_dropped", "Kubernetes Events that were not written", metrics.events.clone());
        metrics.register("leader", "Whether this process leads", metrics.leader.clone());
        for (kind, outcome) in kinds.iter().flat_map(|kind| OUTCOMES.map(|outcome| (*kind, outcome))) {
            drop(metrics.reconciles.get_or_create(&Reconcile { kind: kind.into(), outcome }));
        }
        for reason in DROPPED {
            drop(metrics.events.get_or_create(&Reason { reason }));
        }
        metrics
    }

    /// Adds a metric. A series whose label has a fixed set of values is to exist before anything happens: if its first
    /// increase created it, `rate()`, `increase()` and alerts would miss that increase.
    pub fn register<M: Metric + Clone>(&self, name: &'static str, help: &str, metric: M) -> M {
        let mut registered = sync::lock(&self.registered);
        registered.names.push(name);
        // The registry adds a full stop to the help text.
        registered.registry.register(name, help, metric.clone());
        metric
    }

    /// The names of all metrics with the prefix, without it.
    pub fn names(&self) -> Vec<&'static str> {
        sync::lock(&self.registered).names.clone()
    }

    /// The labels of these metrics that have a fixed set of values, with the values.
    pub fn closed(&self) -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
        vec![
            ("reconcile_duration_seconds", "kind", self.kinds.to_vec()),
            ("reconcile_duration_seconds", "outcome", OUTCOMES.to_vec()),
            ("events_dropped_total", "reason", DROPPED.to_vec()),
        ]
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
                && !matches!(error, Error::TooOften)
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
            Err(Error::TooOften) => "conflict",
            Err(error) if error.is_not_found() => "gone",
            Err(Error::Panicked) => "panicked",
            Err(Error::Timeout(_)) => "timeout",
            Err(Error::Kube(_)) => "error",
        };
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).observe(begun.elapsed().as_secs_f64());
        result
    }

    /// Counts an Event that was not written.
    pub fn event_dropped(&self, reason: &'static str) {
        debug_assert!(DROPPED.contains(&reason), "{reason}");
        self.events.get_or_create(&Reason { reason }).inc();
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
        let registered = sync::lock(&self.registered);
        let encoded = encode_registry(&mut text, &registered.registry)
            .and_then(|()| encode_registry(&mut text, &registered.process))
            .and_then(|()| encode_eof(&mut text));
        if let Err(error) = encoded {
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
    texts: Texts,
}

/// All metrics, in two formats.
#[derive(Clone)]
pub struct Texts {
    pub openmetrics: Bytes,
    pub classic: Bytes,
}

impl Exposition {
    /// Renders nothing until the first request.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, last: Arc::default() }
    }

    /// All metrics, at most a second old.
    ///
    /// # Errors
    /// When the rendering panicked, which is a bug.
    pub async fn texts(&self) -> Result<Texts, JoinError> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some(Rendered { at, texts }) = &*last
            && at.elapsed() < FRESH_FOR
        {
            return Ok(texts.clone());
        }
        let metrics = Arc::clone(&self.metrics);
        // The task takes the lock: the client may be gone before the end, and others must not start another rendering.
        spawn_blocking(move || {
            let text = metrics.render();
            let classic = classic_format::of_openmetrics(&text).into();
            let texts = Texts { openmetrics: text.into(), classic };
            *last = Some(Rendered { at: tokio::time::Instant::now(), texts: texts.clone() });
            texts
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[tokio::test]
    async fn reconciles_are_counted_by_kind_and_outcome() {
        let metrics = Metrics::new("test", "0", &["ConfigMap"]);
        let object: Decoded<ConfigMap> = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "team", "name": "default" }, "data": 1,
        }))
        .unwrap();
        let _ = metrics.measure(&object, async { panic!("a bug") }).await;
        let _ = metrics.measure(&object, async { Err(Error::Timeout(Duration::ZERO)) }).await;
        let _ = metrics.measure(&object, async { Ok(Action::await_change()) }).await;
        let text = metrics.render();
        for outcome in ["panicked", "timeout", "undecodable"] {
            let count = format!("test_reconcile_duration_seconds_count{{kind=\"ConfigMap\",outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&count), "{count} in {text}");
        }
        assert!(!text.contains("team") && !text.contains("default"));
    }

    /// Metrics that take a moment to render, and the number of renderings.
    fn counting() -> (Exposition, Arc<AtomicU64>) {
        let metrics = Metrics::new("test", "0", &[]);
        let renderings = metrics.register("renderings", "How many there were", Gauge::<i64>::default());
        let count = Arc::<AtomicU64>::default();
        let counts = Arc::clone(&count);
        metrics.at_each_scrape(move |_| {
            std::thread::sleep(Duration::from_millis(50));
            counts.fetch_add(1, Ordering::SeqCst);
            renderings.inc();
        });
        (Exposition::new(Arc::new(metrics)), count)
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_second_all_who_ask_get_the_same_rendering_and_then_a_new_one() {
        let (exposition, count) = counting();
        let all_get = async |rendering: &str| {
            let wanted = format!("test_renderings {rendering}\n");
            for text in futures::future::join_all((0..100).map(|_| exposition.texts())).await {
                let text = text.unwrap();
                assert!(str::from_utf8(&text.openmetrics).unwrap().contains(&wanted));
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
            let _ = tokio::time::timeout(Duration::from_millis(1), exposition.texts()).await;
        }
        exposition.texts().await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_rendering_does_not_hold_up_the_threads_that_do_the_work() {
        // This test has one such thread. A rendering on it would stop everything else.
        let (exposition, count) = counting();
        let rendering = async {
            exposition.texts().await.unwrap();
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
        assert!(exposition.texts().await.is_err());
        assert!(exposition.texts().await.is_ok());
    }
}
