//! Kubernetes Events: what a person should hear of once.

use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use super::kubernetes::call;
use crate::api::conditions::truncate;

/// The longest note that the API server accepts, in bytes.
const MAX_NOTE: usize = 1024;
/// Who reports.
const CONTROLLER: &str = "workflows.mistral.ai/operator";

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

/// Publishes notices. kube's own recorder tells Events apart without their note, so a second one of
/// the same reason would repeat the first one's text.
pub struct Publisher {
    client: Client,
    instance: String,
    count: AtomicU64,
}

impl Publisher {
    /// A publisher that signs as `instance`.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance, count: AtomicU64::new(0) }
    }

    /// Publishes notices about `about`, as far as that is possible: an Event that cannot be written
    /// (in a namespace that is going away, say) is logged and dropped.
    pub async fn publish(&self, about: &ObjectReference, notices: Vec<Notice>) {
        let namespace = about.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        for Notice { type_, reason, mut note } in notices {
            truncate(&mut note, MAX_NOTE);
            let now = Timestamp::now();
            let mut name = about.name.clone().unwrap_or_default();
            truncate(&mut name, 200);
            name.truncate(name.trim_end_matches(['.', '-']).len());
            let unique = self.count.fetch_add(1, Ordering::Relaxed);
            let event = Event {
                metadata: ObjectMeta {
                    name: Some(format!("{name}.{:x}{unique:x}", now.as_nanosecond())),
                    namespace: Some(namespace.clone()),
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
            };
            if let Err(error) = call(api.create(&PostParams::default(), &event)).await {
                tracing::debug!(%error, "an Event could not be written");
            }
        }
    }
}
