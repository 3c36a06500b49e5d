//! Follows the marked executions by their metadata, and brings back those that need something.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::WorkflowExecution;
use crate::api::reasons::execution as reason;
use crate::clock::later;
use crate::execution::controller::Context;
use crate::execution::finished::left::Returning;
use crate::execution::finished::mark::{FINISHED, Mark};
use crate::platform::apiserver::{self, Error};
use crate::platform::events::Notice;
use crate::platform::refused::Refused;
use crate::platform::watch::{self, Scope};

/// How often to look for marked resources that are due to come back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When to try again after the API server could not be used.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// When to try again after it refused the write.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(300);
/// When to bring back a resource whose label was put back, or which was edited twice.
const PUT_BACK_FOR: SignedDuration = SignedDuration::from_secs(60);

/// Follows the marked executions of these scopes. Ends only if dropped.
pub async fn follow<L>(context: &Context, scopes: &[Scope<L>], listed: fn(&Scope<L>) -> &CancellationToken) {
    // Executions that need the operator come first.
    let all = scopes.iter().enumerate().map(async |(number, scope)| {
        listed(scope).cancelled().await;
        follow_scope(context, number, scope).await;
    });
    futures::join!(join_all(all), bring_back(context));
}

async fn follow_scope<L>(context: &Context, number: usize, scope: &Scope<L>) {
    let client = &context.shared.client;
    let list = scope.list("finished WorkflowExecution");
    let mut events = pin!(watch::metadata::watched::<WorkflowExecution>(client, scope.namespace(), FINISHED, list));
    let (mut list_begun, mut failed) = (None, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {}
            Ok(Event::InitApply(object)) => {
                list_begun.get_or_insert_with(Instant::now);
                look(context, number, object.meta());
            }
            Ok(Event::InitDone) => {
                let begun = list_begun.take().unwrap_or_else(Instant::now);
                context.left.listed(number, begun);
            }
            Ok(Event::Apply(object)) => look(context, number, object.meta()),
            Ok(Event::Delete(object)) => {
                if let Some(uid) = object.meta().uid.as_deref().and_then(|uid| uid.parse().ok()) {
                    context.left.is_unmarked(uid);
                }
            }
            Err(error) => {
                if !failed {
                    let (place, error) = (scope.name(), watch::describe(&error));
                    tracing::warn!(
                        error,
                        "the watch of finished executions in {place} failed; the operator tries again"
                    );
                }
                failed = true;
                continue;
            }
        }
        failed = false;
    }
}

/// Takes note of a marked resource. One that is not finished business is due to come back at once.
fn look(context: &Context, scope: usize, metadata: &ObjectMeta) {
    let (Some(namespace), Some(name)) = (metadata.namespace.as_deref(), metadata.name.as_deref()) else { return };
    let Some(uid) = metadata.uid.as_deref().and_then(|uid| uid.parse().ok()) else { return };
    let resource = Returning { namespace: namespace.into(), name: name.into(), uid };
    let now = Timestamp::now();
    let due = match Mark::of(metadata, now) {
        Some(mark) => mark.due(metadata),
        // Whoever puts a wrong label back again and again causes no more writes than this.
        None => Some(if context.left.was_brought_back(uid) { later(now, PUT_BACK_FOR) } else { Timestamp::MIN }),
    };
    let created = metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    context.left.is_marked(scope, resource, created >= context.settings.instance.since, due);
}

/// Removes the mark from resources whose time has come: in each namespace one after the other, so that one in which
/// writes fail or hang delays no other.
async fn bring_back(context: &Context) {
    let (mut waiting, mut working) = (HashMap::<Box<str>, VecDeque<Returning>>::new(), FuturesUnordered::new());
    let work = async |resource: Returning| {
        let again = unmark(context, &resource).await;
        (resource, again)
    };
    loop {
        while !context.shared.term.is_over()
            && let Some(resource) = context.left.take_due(Timestamp::now())
        {
            match waiting.get_mut(&resource.namespace) {
                Some(queue) => queue.push_back(resource),
                None => {
                    waiting.insert(resource.namespace.clone(), VecDeque::new());
                    working.push(work(resource));
                }
            }
        }
        tokio::select! {
            Some((resource, again)) = working.next(), if !working.is_empty() => {
                let namespace = resource.namespace.clone();
                if let Some(again) = again {
                    context.left.still_marked(resource, later(Timestamp::now(), again));
                }
                match waiting.get_mut(&namespace).and_then(VecDeque::pop_front) {
                    Some(next) if !context.shared.term.is_over() => working.push(work(next)),
                    _ => drop(waiting.remove(&namespace)),
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Removes the mark, so that the resource appears in the watch. Returns when to try again if that failed.
async fn unmark(context: &Context, resource: &Returning) -> Option<SignedDuration> {
    let Returning { namespace, name, uid } = resource;
    // The UID makes the patch fail if another resource has the name by now.
    let metadata = json!({ "uid": uid.to_string(), "labels": { FINISHED: null } });
    let client = &context.shared.client;
    let said = match apiserver::patch_metadata::<WorkflowExecution>(client, namespace, name, metadata).await {
        Ok(metadata) if metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(FINISHED)) => {
            "the label was there again after it had been removed".to_owned()
        }
        Ok(_) => {
            context.left.is_brought_back(*uid);
            return None;
        }
        Err(error) if error.is_not_found() || is_another(&error) => {
            context.left.is_unmarked(*uid);
            return None;
        }
        Err(error) => {
            tracing::debug!(%error, "the label {FINISHED} of {namespace}/{name} could not be removed");
            match Refused::of(&error) {
                Some(refused) => refused.said,
                None => return Some(TRY_AGAIN),
            }
        }
    };
    let note = format!(
        "The API server does not let the operator remove the label {FINISHED}, so the resource is not looked at; remove the label, or what forbids its removal. The operator tries again every 5 minutes. The API server said: {said}"
    );
    let reference = ObjectReference {
        uid: Some(uid.to_string()),
        namespace: Some(namespace.to_string()),
        name: Some(name.to_string()),
        api_version: Some(WorkflowExecution::api_version(&()).into_owned()),
        kind: Some(WorkflowExecution::kind(&()).into_owned()),
        ..ObjectReference::default()
    };
    context.shared.publisher.publish(&reference, vec![Notice::warning(reason::LABEL_REFUSED, note)]);
    Some(REFUSED_FOR)
}

/// Whether another resource has the name by now: the API server takes the patch for a change of its UID.
fn is_another(error: &Error) -> bool {
    error.refusal().is_some_and(|said| matches!(said.code, 409 | 422) && said.message.contains("metadata.uid"))
}
