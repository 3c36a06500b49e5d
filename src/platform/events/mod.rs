//! Kubernetes Events: what a person should hear of once.

mod limits;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use governor::clock::DefaultClock;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

pub use crate::api::reasons::any::UNDECODABLE;
use crate::platform::apiserver::{call, reference};
use crate::platform::events::limits::{Fact, Limits, Refusal};
use crate::platform::metrics::Metrics;
use crate::platform::turns::Turns;
use crate::sync;
use crate::text::truncate;

/// The longest note that the API server accepts, in bytes.
const MAX_NOTE: usize = 1024;
/// Who reports.
const CONTROLLER: &str = "workflows.mistral.ai/operator";
/// Events that may wait to be written: so many warnings, and as many others. Where there are more, those of the
/// namespace give way of which most wait.
const QUEUE: usize = 1000;
/// Time from one Event to the next. Thousands of runs make as many, and must not wait for the API server behind them.
const PACE: Duration = Duration::from_millis(50);
/// For how long Events are written that wait in the end: another operator waits for this one's Lease.
const IN_THE_END: Duration = Duration::from_secs(3);

/// Something that happened to a resource. A plan makes one per change, not one per pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `Normal` or `Warning`.
    pub type_: &'static str,
    /// A stable CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl Notice {
    /// All is well.
    pub fn normal(reason: &str, note: impl Into<String>) -> Self {
        Self { type_: "Normal", reason: reason.to_owned(), note: note.into() }
    }

    /// Something is wrong.
    pub fn warning(reason: &str, note: impl Into<String>) -> Self {
        Self { type_: "Warning", reason: reason.to_owned(), note: note.into() }
    }
}

/// Tells notices: in the log, and as Events as far as the limits let them. Namespaces take turns: one
/// that makes thousands holds up its own.
///
/// kube's own recorder tells Events apart without their note, so a second one of the same reason would
/// repeat the first one's text.
pub struct Publisher {
    limits: Limits,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    instance: String,
    count: AtomicU64,
}

/// What waits to be written.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    warnings: Turns<(Event, Fact)>,
    normal: Turns<(Event, Fact)>,
    closed: bool,
}

impl Queue {
    /// Puts one in. Returns the fact that is dropped for it, if one is.
    fn push(&self, event: Event, fact: Fact) -> Option<Fact> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Some(fact);
        }
        let warns = event.type_.as_deref() != Some("Normal");
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let turns = if warns { &mut waiting.warnings } else { &mut waiting.normal };
        let dropped = turns.push_within(QUEUE, &namespace, (event, fact));
        drop(waiting);
        self.news.notify_one();
        dropped.map(|(_, fact)| fact)
    }

    /// The next one; none if there is none now. Warnings go first.
    fn pop(&self) -> Option<Event> {
        let mut waiting = self.lock();
        waiting.warnings.pop().or_else(|| waiting.normal.pop()).map(|(event, _)| event)
    }

    fn close(&self) {
        self.lock().closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        sync::lock(&self.waiting)
    }
}

/// Writes the Events of one [`Publisher`], so that no pass waits for that.
pub struct Writer {
    client: Client,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    /// One is under way.
    writes: bool,
}

/// A publisher that signs as `instance`, and the writer that has to [run](Writer::run) beside it.
pub fn publisher(client: Client, instance: String, metrics: Arc<Metrics>) -> (Publisher, Writer) {
    let (limits, queue) = (Limits::new(DefaultClock::default()), Arc::new(Queue::default()));
    let count = AtomicU64::new(0);
    let publisher = Publisher { limits, metrics: Arc::clone(&metrics), queue: Arc::clone(&queue), instance, count };
    (publisher, Writer { client, metrics, queue, writes: false })
}

impl Publisher {
    /// Tells notices about `about`. Each is logged, also where no Event can be written.
    pub fn publish(&self, about: &ObjectReference, notices: Vec<Notice>) {
        for notice in notices {
            // A workflow's own words may have several lines, even some that look like ours.
            let line = notice.note.replace(char::is_control, " ");
            if notice.type_ == "Normal" {
                tracing::info!(reason = notice.reason, "{line}");
            } else {
                tracing::warn!(reason = notice.reason, "{line}");
            }
            let dropped = match self.limits.check(about.uid.as_deref().unwrap_or_default(), &notice) {
                Ok(fact) => match self.queue.push(self.event(about, notice), fact) {
                    Some(dropped) => {
                        self.limits.forget(dropped);
                        "queue"
                    }
                    None => continue,
                },
                Err(Refusal::Repeated) => "repeated",
                Err(Refusal::Object) => "object",
            };
            tracing::debug!(dropped, "an Event is not written");
            self.metrics.event_dropped(dropped);
        }
    }

    /// Tells that an object cannot be decoded.
    pub fn undecodable<K: Resource<DynamicType = ()>>(&self, object: &K, error: &str) {
        let note = format!(
            "This {} cannot be decoded and is skipped; was it written by a newer version of the operator? Upgrade this one, or correct the resource: {error}",
            K::kind(&())
        );
        self.publish(&reference(object), vec![Notice::warning(UNDECODABLE, note)]);
    }

    fn event(&self, about: &ObjectReference, notice: Notice) -> Event {
        let Notice { type_, reason, mut note } = notice;
        truncate(&mut note, MAX_NOTE);
        let now = Timestamp::now();
        let mut name = about.name.clone().unwrap_or_default();
        truncate(&mut name, 200);
        name.truncate(name.trim_end_matches(['.', '-']).len());
        let unique = self.count.fetch_add(1, Ordering::Relaxed);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}{unique:x}", now.as_nanosecond())),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some(reason.clone()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(reason),
            regarding: Some(about.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(type_.to_owned()),
            ..Event::default()
        }
    }
}

impl Writer {
    /// Writes Events until `ended`, warnings first, and then what waits without a rest, as far as there is time.
    pub async fn run(mut self, ended: impl Future<Output = ()> + Send) {
        let ended = ended.shared();
        let late = ended.clone().then(|()| tokio::time::sleep(IN_THE_END));
        tokio::select! {
            biased;
            () = self.write_all(ended) => return,
            () = late => {}
        }
        self.queue.close();
        if self.writes {
            self.metrics.event_dropped("ended");
        }
        while self.queue.pop().is_some() {
            self.metrics.event_dropped("ended");
        }
    }

    async fn write_all(&mut self, ended: impl Future<Output = ()>) {
        let mut ended = pin!(ended);
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = async {
                pace.tick().await;
                self.next().await
            };
            let event = tokio::select! {
                biased;
                () = &mut ended => break,
                event = next => event,
            };
            self.write(event).await;
        }
        self.queue.close();
        while let Some(event) = self.queue.pop() {
            self.write(event).await;
        }
    }

    /// Waits for the next one.
    async fn next(&self) -> Event {
        loop {
            if let Some(event) = self.queue.pop() {
                return event;
            }
            self.queue.news.notified().await;
        }
    }

    /// One that cannot be written, in a namespace that is going away, say, is dropped.
    async fn write(&mut self, event: Event) {
        self.writes = true;
        let about = event.regarding.clone().unwrap_or_default();
        let namespace = about.namespace.unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = call(api.create(&PostParams::default(), &event)).await {
            let (kind, name) = (about.kind.unwrap_or_default(), about.name.unwrap_or_default());
            let object = format_args!("{namespace}/{name}");
            tracing::debug!(%kind, %object, %error, "an Event could not be written");
            self.metrics.event_dropped("failed");
        }
        self.writes = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_keeps_nobody_in_the_end_and_what_is_left_is_counted() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(address.parse().unwrap())).unwrap();
        let metrics: Arc<Metrics> = Arc::default();
        let (publisher, writer) = publisher(client, "test".into(), Arc::clone(&metrics));
        let notices = (0..3).map(|n| Notice::normal("Well", format!("{n}"))).collect();
        publisher.publish(&ObjectReference::default(), notices);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let writing = tokio::spawn(writer.run(async { drop(ended.await) }));
        let _asked = silent.accept().await.unwrap();
        end.send(()).unwrap();
        writing.await.unwrap();
        // None was waited for until it failed.
        let text = metrics.render();
        assert!(text.contains("events_dropped_total{reason=\"ended\"} 3"), "{text}");
    }

    /// A notice about an object of this namespace.
    fn publish(publisher: &Publisher, namespace: &str, n: usize, notice: fn(&str, String) -> Notice) {
        let (namespace, uid) = (Some(namespace.to_owned()), Some(format!("{namespace}-{n}")));
        let about = ObjectReference { namespace, uid, name: Some("run".into()), ..ObjectReference::default() };
        publisher.publish(&about, vec![notice("Trouble", format!("number {n}"))]);
    }

    fn made() -> (Publisher, Writer, Arc<Metrics>) {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let metrics: Arc<Metrics> = Arc::default();
        let (publisher, writer) = publisher(client, "test".into(), Arc::clone(&metrics));
        (publisher, writer, metrics)
    }

    #[tokio::test]
    async fn thousands_of_events_of_one_namespace_neither_drop_nor_hold_up_those_of_another() {
        for notice in [Notice::warning, Notice::normal] {
            let (publisher, writer, metrics) = made();
            (0..5000).for_each(|n| publish(&publisher, "crowd", n, notice));
            (0..20).for_each(|n| publish(&publisher, "quiet", n, notice));
            let next: Vec<String> = (0..40).map(|_| writer.queue.pop().unwrap().metadata.namespace.unwrap()).collect();
            assert_eq!(next.iter().filter(|namespace| *namespace == "quiet").count(), 20, "{next:?}");
            let text = metrics.render();
            assert!(text.contains("events_dropped_total{reason=\"queue\"} 4020"), "{text}");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_also_where_a_thousand_runs_start_at_once() {
        let (publisher, writer, metrics) = made();
        (0..1500).for_each(|n| publish(&publisher, "team", n, Notice::normal));
        publish(&publisher, "team", 2000, Notice::warning);
        assert_eq!(writer.queue.pop().unwrap().type_.as_deref(), Some("Warning"));
        // Dropped is not told: it may be as soon as there is room.
        publish(&publisher, "team", 1400, Notice::normal);
        let text = metrics.render();
        assert!(text.contains("events_dropped_total{reason=\"repeated\"} 0"), "{text}");
    }
}
