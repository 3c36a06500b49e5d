//! Follows the marked executions by their metadata, and brings back those that need something.
//!
//! Where the mark cannot be removed, an execution that still has the operator's finalizer becomes a guest: it is read
//! and put into the store of the watched ones although it is marked. It is reconciled there like any other, so its
//! deletion does not wait for whoever wants the mark.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer_memory::Room;
use crate::api::WorkflowExecution;
use crate::api::reasons::execution as reason;
use crate::clock::later;
use crate::execution::Guarded;
use crate::execution::cache::trim_for_cache;
use crate::execution::controller::Context;
use crate::execution::finished::left::Returning;
use crate::execution::finished::mark::{FINISHED, Mark, is_held};
use crate::platform::apiserver::{self, Error};
use crate::platform::events::Notice;
use crate::platform::refused::Refused;
use crate::platform::watch::{self, Guest, Scope};

/// How often to look for marked resources that are due to come back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When to try again after the API server could not be used.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// When to try again after it refused the write.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(300);
/// How often a guest is read again, and the removal of its label is retried.
const GUEST_FOR: Duration = Duration::from_secs(30);

/// Where guests are announced.
type Guests = UnboundedSender<Guest<Guarded>>;
/// A list of a scope: its token is cancelled once the list is complete.
type List<L> = fn(&Scope<L>) -> &CancellationToken;

/// Follows the marked executions of these scopes. Each scope is listed once its `after` token is cancelled; the complete
/// list cancels `listed`. Ends only if dropped.
pub async fn follow<L>(context: &Context, scopes: &[Scope<L>], (after, listed): (List<L>, List<L>), guests: Guests) {
    // Executions that need the operator come first.
    let all = scopes.iter().enumerate().map(async |(number, scope)| {
        after(scope).cancelled().await;
        follow_scope(context, number, scope, listed(scope)).await;
    });
    futures::join!(join_all(all), bring_back(context, &guests));
}

async fn follow_scope<L>(context: &Context, number: usize, scope: &Scope<L>, listed: &CancellationToken) {
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
                listed.cancel();
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
    // Its call may be in flight, and the store does not have it.
    context.reservations.marked(metadata, now);
    let due = match Mark::of(metadata, now) {
        _ if context.left.is_guest(uid) => Some(Timestamp::MIN),
        Some(mark) => mark.due(metadata),
        // A deletion may wait for the operator.
        None if is_held(metadata) => Some(Timestamp::MIN),
        // Whoever puts a wrong label back again and again causes no more writes than this.
        None => Some(later(now, signed(context.left.put_back_for(uid)))),
    };
    let created = metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    context.left.is_marked(scope, resource, created >= context.settings.instance.since, due);
}

/// Removes the mark from resources whose time has come: in each namespace one after the other, so that one in which
/// writes fail or hang delays no other.
async fn bring_back(context: &Context, guests: &Guests) {
    let (mut waiting, mut working) = (HashMap::<Box<str>, VecDeque<Returning>>::new(), FuturesUnordered::new());
    let work = async |resource: Returning| {
        let again = look_after(context, guests, &resource).await;
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
                match again {
                    Some(again) => context.left.still_marked(resource, later(Timestamp::now(), again)),
                    None => context.left.is_settled(resource.uid),
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

/// Brings back a resource whose time has come, or makes it a guest. Returns when to look at it again.
async fn look_after(context: &Context, guests: &Guests, resource: &Returning) -> Option<SignedDuration> {
    let (left, uid) = (&context.left, resource.uid);
    let mut refused = None;
    if !left.is_guest(uid) && left.unmark_in(uid).is_zero() {
        match unmark(context, resource).await {
            Unmarked::Done => return None,
            Unmarked::NotNow => return Some(TRY_AGAIN),
            Unmarked::Refused(said) => refused = Some(said),
        }
    }
    // The mark stays for now.
    let Ok(found) = read(context, resource).await else { return Some(TRY_AGAIN) };
    let Some(object) = found else {
        quit(context, guests, resource, None);
        left.is_unmarked(uid);
        return None;
    };
    if !object.labels().contains_key(FINISHED) {
        // The watch shows it, so it stays in the store.
        left.quits(uid);
        left.is_unmarked(uid);
        return None;
    }
    if is_held(object.meta()) {
        return receive(context, guests, resource, object, refused).await;
    }
    quit(context, guests, resource, Some(&object));
    let now = Timestamp::now();
    match (refused, Mark::of(object.meta(), now)) {
        (Some(said), _) => {
            publish(context, resource, "so the resource is not looked at", &said);
            Some(REFUSED_FOR)
        }
        (None, Some(mark)) => mark.due(object.meta()).map(|due| due.duration_since(now)),
        (None, None) => Some(signed(left.put_back_for(uid))),
    }
}

/// Puts a resource into the store although it is marked. `refused` is what the API server has just said about the
/// removal of the mark.
async fn receive(
    context: &Context,
    guests: &Guests,
    resource: &Returning,
    mut object: Guarded,
    mut refused: Option<String>,
) -> Option<SignedDuration> {
    let (left, uid) = (&context.left, resource.uid);
    if refused.is_none() && left.is_guest(uid) && left.unmark_in(uid).is_zero() {
        match unmark(context, resource).await {
            Unmarked::Done => return None,
            Unmarked::NotNow => {}
            Unmarked::Refused(said) => refused = Some(said),
        }
    }
    let unmark_in = match left.unmark_in(uid) {
        Duration::ZERO => GUEST_FOR,
        wait => wait,
    };
    if let Some(said) = refused {
        publish(context, resource, "so the resource keeps it, and is looked at all the same", &said);
    }
    if !left.enters(resource, unmark_in) {
        return None;
    }
    trim_for_cache(&mut object);
    // If the receiver is gone, the process is ending.
    let _ = guests.send(Guest::Here(object));
    Some(signed(unmark_in.min(GUEST_FOR)))
}

/// Takes a guest out of the store: it is gone, or this is the last that is to be known of it.
fn quit(context: &Context, guests: &Guests, resource: &Returning, last: Option<&Guarded>) {
    if context.left.quits(resource.uid) {
        let object = ObjectRef::new(&resource.name).within(&resource.namespace);
        let version = last.and_then(ResourceExt::resource_version);
        let _ = guests.send(Guest::Gone { object, uid: resource.uid.to_string(), version });
    }
}

/// The resource as it is now. None if it is gone.
async fn read(context: &Context, resource: &Returning) -> Result<Option<Guarded>, Error> {
    let (client, room, namespace) = (&context.shared.client, Room::default(), Some(&*resource.namespace));
    let read = apiserver::get_by_list::<WorkflowExecution, Guarded>(client, &room, namespace, &resource.name).await?;
    let found = read.map(|(object, _)| object);
    Ok(found.filter(|object| object.uid().is_some_and(|uid| uid.parse() == Ok(resource.uid))))
}

/// What became of the removal of a mark.
enum Unmarked {
    /// The resource appears in the watch, or is gone.
    Done,
    /// The API server could not be used.
    NotNow,
    /// The API server has said why not.
    Refused(String),
}

/// Removes the mark, so that the resource appears in the watch.
async fn unmark(context: &Context, resource: &Returning) -> Unmarked {
    let Returning { namespace, name, uid } = resource;
    // The UID makes the patch fail if another resource has the name by now.
    let metadata = json!({ "uid": uid.to_string(), "labels": { FINISHED: null } });
    let client = &context.shared.client;
    match apiserver::patch_metadata::<WorkflowExecution>(client, namespace, name, metadata).await {
        Ok(metadata) if metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(FINISHED)) => {
            Unmarked::Refused("the label was there again after it had been removed".to_owned())
        }
        Ok(_) => {
            context.left.is_brought_back(*uid);
            Unmarked::Done
        }
        Err(error) if !context.left.is_guest(*uid) && (error.is_not_found() || is_another(&error)) => {
            context.left.is_unmarked(*uid);
            Unmarked::Done
        }
        Err(error) => {
            tracing::debug!(%error, "the label {FINISHED} of {namespace}/{name} could not be removed");
            Refused::of(&error).map_or(Unmarked::NotNow, |refused| Unmarked::Refused(refused.said))
        }
    }
}

/// Says that the mark cannot be removed, and what follows from that.
fn publish(context: &Context, resource: &Returning, so: &str, said: &str) {
    let Returning { namespace, name, uid } = resource;
    let note = format!(
        "The API server does not let the operator remove the label {FINISHED}, {so}; remove the label, or what forbids its removal. The operator tries again within 5 minutes. The API server said: {said}"
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
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Whether another resource has the name by now: the API server takes the patch for a change of its UID.
fn is_another(error: &Error) -> bool {
    error.refusal().is_some_and(|said| matches!(said.code, 409 | 422) && said.message.contains("metadata.uid"))
}
