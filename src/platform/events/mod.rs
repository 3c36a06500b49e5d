//! Kubernetes Events: what a person should learn once.

pub(in crate::platform) mod limits;
mod notice;

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

use crate::platform::apiserver::{call, reference};
use crate::platform::events::limits::{Fact, Limits, Refusal};
use crate::platform::fair_queue::FairQueue;
use crate::platform::metrics::Metrics;
use crate::platform::names::REPORTING_CONTROLLER;
use crate::sync;
use crate::text::truncate;
pub use notice::Notice;

/// The longest note that the API server accepts, in bytes.
const MAX_NOTE: usize = 1024;
/// Events that may queue: this many warnings, and as many others. If a queue is full, an Event of the namespace with
/// the most is dropped.
const QUEUE: usize = 1000;
/// Time from one Event to the next. Thousands of runs make thousands of Events, and must not wait for the API server
/// behind them.
const PACE: Duration = Duration::from_millis(50);
/// How long queued Events are still written at shutdown: another operator waits for this one's Lease.
const IN_THE_END: Duration = Duration::from_secs(3);

/// Publishes notices: in the log, and as Events within the limits. Namespaces take turns: a namespace that makes
/// thousands of Events delays only its own.
///
/// kube's own recorder ignores the note when it compares Events, so a second Event with the same reason would repeat
/// the text of the first.
pub struct Publisher {
    limits: Limits,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    instance: String,
    count: AtomicU64,
}

/// The Events that wait to be written.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    warnings: FairQueue<(Event, Fact)>,
    normal: FairQueue<(Event, Fact)>,
    closed: bool,
}

impl Queue {
    /// Adds an Event. Returns the fact that is dropped to make room, if any.
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

    /// The next Event; none if the queue is empty. Warnings go first.
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

/// Writes the Events of one [`Publisher`], so that no reconcile waits for them.
pub struct Writer {
    client: Client,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    /// A write is in flight.
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
    /// Publishes notices about `about`. Each notice is logged, even if no Event can be written.
    pub fn publish(&self, about: &ObjectReference, notices: Vec<Notice>) {
        for notice in notices {
            // A quoted text may have several lines, even some that look like the operator's.
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

    /// Reports, with this reason, that an object cannot be decoded.
    pub fn undecodable<K: Resource<DynamicType = ()>>(&self, reason: &str, object: &K, error: &str) {
        let note = format!(
            "The operator cannot decode this {} and skips it. If a newer operator wrote it, upgrade this one; otherwise correct the resource: {error}",
            K::kind(&())
        );
        self.publish(&reference(object), vec![Notice::warning(reason, note)]);
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
            reporting_controller: Some(REPORTING_CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(type_.to_owned()),
            ..Event::default()
        }
    }
}

impl Writer {
    /// Writes Events until `ended`, warnings first. Then writes the queued ones without pauses while time is left.
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

    /// Waits for the next Event.
    async fn next(&self) -> Event {
        loop {
            if let Some(event) = self.queue.pop() {
                return event;
            }
            self.queue.news.notified().await;
        }
    }

    /// Writes an Event, or drops it if that fails, as in a terminating namespace.
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
        let metrics = Arc::new(Metrics::new("operator", "0", &[]));
        let (publisher, writer) = publisher(client, "test".into(), Arc::clone(&metrics));
        let notices = (0..3).map(|n| Notice::normal("Well", format!("{n}"))).collect();
        publisher.publish(&ObjectReference::default(), notices);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let writing = tokio::spawn(writer.run(async { drop(ended.await) }));
        let _asked = silent.accept().await.unwrap();
        end.send(()).unwrap();
        writing.await.unwrap();
        // The writer did not wait until the writes failed.
        let text = metrics.render();
        assert!(text.contains("events_dropped_total{reason=\"ended\"} 3"), "{text}");
    }

    /// Publishes a notice about an object of this namespace.
    fn publish(publisher: &Publisher, namespace: &str, n: usize, notice: fn(&str, String) -> Notice) {
        let (namespace, uid) = (Some(namespace.to_owned()), Some(format!("{namespace}-{n}")));
        let about = ObjectReference { namespace, uid, name: Some("run".into()), ..ObjectReference::default() };
        publisher.publish(&about, vec![notice("Trouble", format!("number {n}"))]);
    }

    fn made() -> (Publisher, Writer, Arc<Metrics>) {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let metrics = Arc::new(Metrics::new("operator", "0", &[]));
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
        // A dropped notice does not count as published: it may be published as soon as there is room.
        publish(&publisher, "team", 1400, Notice::normal);
        let text = metrics.render();
        assert!(text.contains("events_dropped_total{reason=\"repeated\"} 0"), "{text}");
    }
}
