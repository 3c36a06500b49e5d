//! Archives and unarchives many workflows with few calls: requests that come within a moment leave as one.
//!
//! Everything kept here has a reconcile that waits for it. A process that ends loses no request, since the resource
//! still has it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::mistral::wire::{BulkOutcome, Workflow};
use crate::mistral::{ApiError, Error};
use crate::platform::leader::term::Term;
use crate::sync;
use crate::throttle::Priority;
use crate::workspace::connections::Connection;

/// How long a lone request waits for another one: a person does not notice.
const ALONE: Duration = Duration::from_millis(300);
/// How long several requests wait for another one: there are many, then.
const QUIET: Duration = Duration::from_secs(1);
/// How long a call waits at most for requests that come one after the other: a busy API server releases some fifty
/// resources a second.
const LONGEST: Duration = Duration::from_secs(3);
/// How long a reconcile waits for its answer: no resource may be held up for as long as the API refuses all calls.
const PATIENCE: Duration = Duration::from_secs(45);
/// Ids in one call; the API's maximum.
const AT_MOST: usize = 100;
/// The flow of these calls: one may be for many Workspaces, and queues behind none of them.
const FLOW: &str = "(archiving)";

type Answer = Result<Option<Workflow>, Error>;

/// Collected requests, by destination.
#[derive(Debug)]
pub struct Archiving {
    flows: Mutex<Vec<Flow>>,
    term: Term,
    patience: Duration,
}

/// Requests for one key and one direction. It exists while a task works it off.
#[derive(Debug)]
struct Flow {
    live: Connection,
    archived: bool,
    wishes: Vec<Wish>,
    /// Notified when a request is added.
    more: Arc<Notify>,
}

#[derive(Debug)]
struct Wish {
    /// The priority level of its call.
    priority: Priority,
    namespace: String,
    id: String,
    answer: oneshot::Sender<Answer>,
}

impl Archiving {
    /// Starts empty. Nothing is sent once the term is over.
    pub fn new(term: Term) -> Self {
        Self { flows: Mutex::default(), term, patience: PATIENCE }
    }

    /// Archives or unarchives the workflow with this UUID, together with other requests of that kind.
    ///
    /// # Errors
    /// See [`Error`]; those of this workflow, or of the whole call.
    pub async fn set(
        self: &Arc<Self>,
        live: &Connection,
        priority: Priority,
        namespace: &str,
        id: String,
        archived: bool,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let wish = Wish { priority, namespace: namespace.to_owned(), id, answer };
        let new_lane = {
            let mut flows = self.lock();
            match flows.iter_mut().find(|flow| flow.archived == archived && flow.live.is_as(live)) {
                Some(flow) => {
                    flow.wishes.push(wish);
                    flow.more.notify_one();
                    None
                }
                None => {
                    let more = Arc::new(Notify::new());
                    flows.push(Flow { live: live.clone(), archived, wishes: vec![wish], more: Arc::clone(&more) });
                    Some(more)
                }
            }
        };
        if let Some(more) = new_lane {
            tokio::spawn(Arc::clone(self).work_off(live.clone(), archived, more));
        }
        match tokio::time::timeout(self.patience, answered).await {
            // There is no answer when the term is over; nothing was sent then.
            Ok(answer) => answer.unwrap_or_else(|_| Err(not_sent())),
            Err(_) => Err(not_answered()),
        }
    }

    async fn work_off(self: Arc<Self>, live: Connection, archived: bool, more: Arc<Notify>) {
        let is_this = |flow: &Flow| flow.archived == archived && flow.live.is_as(&live);
        loop {
            let latest = Instant::now() + LONGEST;
            loop {
                let wishes = self.lock().iter().find(|flow| is_this(flow)).map_or(0, |flow| flow.wishes.len());
                if wishes >= AT_MOST {
                    break;
                }
                let quiet = Instant::now() + if wishes > 1 { QUIET } else { ALONE };
                if tokio::time::timeout_at(quiet.min(latest), more.notified()).await.is_err() {
                    break;
                }
            }
            let batch = {
                let mut flows = self.lock();
                let Some(at) = flows.iter().position(is_this) else { return };
                // A reconcile that has ended meanwhile does not wait any more, and a later one requests again.
                flows[at].wishes.retain(|wish| !wish.answer.is_closed());
                if flows[at].wishes.is_empty() || self.term.is_over() {
                    flows.remove(at);
                    return;
                }
                most_urgent(&mut flows[at].wishes, AT_MOST)
            };
            // On a task of its own, so that later requests do not wait for this answer.
            tokio::spawn(send(live.clone(), batch, archived));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Flow>> {
        sync::lock(&self.flows)
    }
}

/// Takes up to `limit` requests: those of a deletion before those that only correct drift.
fn most_urgent(wishes: &mut Vec<Wish>, limit: usize) -> Vec<Wish> {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for priority in Priority::ALL {
        let mut of_class: Vec<Wish> = wishes.extract_if(.., |wish| wish.priority == priority).collect();
        taken.extend(fair_share(&mut of_class, limit - taken.len()));
        left.extend(of_class);
    }
    *wishes = left;
    taken
}

/// Takes up to `limit` requests round-robin over the namespaces, in order of arrival.
fn fair_share(wishes: &mut Vec<Wish>, limit: usize) -> Vec<Wish> {
    let mut order: Vec<String> = Vec::new();
    let mut queues: HashMap<String, VecDeque<Wish>> = HashMap::new();
    for wish in wishes.drain(..) {
        if !queues.contains_key(&wish.namespace) {
            order.push(wish.namespace.clone());
        }
        queues.entry(wish.namespace.clone()).or_default().push_back(wish);
    }
    let mut taken = Vec::new();
    while taken.len() < limit {
        let before = taken.len();
        for namespace in &order {
            if taken.len() == limit {
                break;
            }
            taken.extend(queues.get_mut(namespace).and_then(VecDeque::pop_front));
        }
        if taken.len() == before {
            break;
        }
    }
    for namespace in order {
        wishes.extend(queues.remove(&namespace).unwrap_or_default());
    }
    taken
}

async fn send(live: Connection, mut batch: Vec<Wish>, archived: bool) {
    let client = |priority: Priority| live.waiting_in(priority, FLOW.to_owned());
    if let (Some(first), true) = (batch.iter().map(|wish| wish.priority).min(), batch.len() > 1) {
        // The call has the priority level of the most urgent request in it.
        let client = client(first).with_its_permit().await;
        // A reconcile that has given up meanwhile requests again.
        batch.retain(|wish| !wish.answer.is_closed());
        let ids: Vec<String> = batch.iter().map(|wish| wish.id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        match client.set_archived_many(&ids, archived).await {
            Ok(outcome) => return tell_each(batch, &outcome),
            // The call as such was refused: single calls show which workflow is the cause.
            Err(Error::Rejected(_) | Error::NotFound(_) | Error::Conflict(_)) => {}
            Err(error) => {
                for wish in batch {
                    let _ = wish.answer.send(Err(error.clone()));
                }
                return;
            }
        }
    }
    for wish in batch {
        let client = client(wish.priority).with_its_permit().await;
        if wish.answer.is_closed() {
            continue;
        }
        let outcome = client.set_archived(&wish.id, archived).await;
        let _ = wish.answer.send(outcome);
    }
}

/// Each request gets its own outcome. If the answer does not name a workflow, its outcome is unknown. But the API's own
/// examples have null for a workflow that is as requested, so if there is a null for each unnamed workflow, all of
/// these are done.
fn tell_each(batch: Vec<Wish>, outcome: &BulkOutcome) {
    let error = |wish: &Wish| outcome.errored.iter().find(|error| error.workflow_id.eq_ignore_ascii_case(&wish.id));
    let done = |wish: &Wish| {
        outcome.done.iter().flatten().find(|workflow| workflow.id.eq_ignore_ascii_case(&wish.id)).cloned()
    };
    let unnamed = batch.iter().filter(|wish| error(wish).is_none() && done(wish).is_none()).count();
    let all_are_meant = outcome.done.iter().filter(|workflow| workflow.is_none()).count() >= unnamed;
    for wish in batch {
        let answer = match error(&wish) {
            Some(error) => Err(Error::Rejected(ApiError {
                status: 200,
                code: None,
                detail: error.message.clone().unwrap_or_else(|| "not done, and no reason given".into()),
                deployments: Vec::new(),
                is_json: true,
            })),
            None => match done(&wish) {
                None if !all_are_meant => Err(not_told()),
                done => Ok(done),
            },
        };
        let _ = wish.answer.send(answer);
    }
}

fn not_answered() -> Error {
    Error::Transient { retry_after: None, message: "the call is still in the queue or in flight".into() }
}

fn not_told() -> Error {
    let message = "the API's answer does not mention this workflow; the operator asks again".into();
    Error::Transient { retry_after: None, message }
}

fn not_sent() -> Error {
    Error::Transient { retry_after: None, message: "the operator is stopping, and nothing was sent".into() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use secrecy::SecretString;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::mistral::Client;
    use crate::throttle::Budget;
    use crate::throttle::metrics::{Waiting, Waits};

    fn wish(namespace: &str, id: &str) -> Wish {
        Wish { priority: Priority::Stop, namespace: namespace.into(), id: id.into(), answer: oneshot::channel().0 }
    }

    /// A connection whose API refuses all calls for ten minutes.
    async fn refused(calls: Waits) -> Connection {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let budget = Budget::new(50, calls, || ());
        budget.take(Priority::Start, "n").await.refused(Some(Duration::from_secs(600)));
        let client = Client::new("http://127.0.0.1:9".parse().unwrap(), SecretString::from("key")).unwrap();
        Connection::new(client, budget, "http://127.0.0.1:9".into(), None, Duration::from_secs(300), "mistral".into())
    }

    fn archiving(patience: Duration) -> Arc<Archiving> {
        let term = Term::unlimited(CancellationToken::new(), Timestamp::now());
        Arc::new(Archiving { patience, ..Archiving::new(term) })
    }

    fn ids(wishes: &[Wish]) -> Vec<&str> {
        wishes.iter().map(|wish| wish.id.as_str()).collect()
    }

    #[tokio::test]
    async fn nobody_is_held_up_for_as_long_as_the_api_refuses_all_calls() {
        let (live, archiving) = (refused(Waits::default()).await, archiving(Duration::from_secs(1)));
        let answer = archiving.set(&live, Priority::Stop, "n", "id".into(), true);
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("still waits");
        assert!(matches!(answer, Err(Error::Transient { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn a_deletion_waits_as_one_also_together_with_drift_that_came_before_it() {
        let calls = Waits::default();
        let (live, archiving) = (refused(calls.clone()).await, archiving(PATIENCE));
        for priority in [Priority::Drift, Priority::Stop, Priority::Drift] {
            let (live, archiving) = (live.clone(), Arc::clone(&archiving));
            tokio::spawn(async move { archiving.set(&live, priority, "n", format!("{priority:?}"), true).await });
            tokio::task::yield_now().await;
        }
        let waiting = |priority: Priority| calls.now.get_or_create(&Waiting { priority }).get();
        let waits = async {
            while waiting(Priority::Stop) + waiting(Priority::Drift) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waits).await.expect("nothing waits");
        assert_eq!((waiting(Priority::Stop), waiting(Priority::Drift)), (1, 0));
    }

    #[tokio::test]
    async fn what_a_bulk_answer_does_not_name_is_not_done_but_not_known() {
        let told = async |answer: serde_json::Value| {
            let (wishes, answers): (Vec<_>, Vec<_>) = ["A", "b"]
                .map(|id| {
                    let (answer, answered) = oneshot::channel();
                    (Wish { answer, ..wish("n", id) }, answered)
                })
                .into_iter()
                .unzip();
            tell_each(wishes, &serde_json::from_value(answer).unwrap());
            let mut told = Vec::new();
            for answer in answers {
                told.push(match answer.await.unwrap() {
                    Ok(Some(_)) => "done",
                    Ok(None) => "done, as null tells",
                    Err(Error::Rejected(_)) => "refused",
                    Err(Error::Transient { .. }) => "not known",
                    Err(error) => panic!("{error}"),
                });
            }
            told
        };
        let row = |id: &str| serde_json::json!({ "id": id, "name": id });
        for (answer, outcomes) in [
            (serde_json::json!({ "archived": [row("a")] }), ["done", "not known"]),
            (serde_json::json!({ "archived": [] }), ["not known", "not known"]),
            (serde_json::json!({}), ["not known", "not known"]),
            (serde_json::json!({ "archived": [null] }), ["not known", "not known"]),
            (serde_json::json!({ "archived": [null, null] }), ["done, as null tells", "done, as null tells"]),
            (serde_json::json!({ "archived": [null, row("b")] }), ["done, as null tells", "done"]),
            (
                serde_json::json!({ "archived": [null], "errored": [{ "workflow_id": "b" }] }),
                ["done, as null tells", "refused"],
            ),
        ] {
            assert_eq!(told(answer.clone()).await, outcomes, "{answer}");
        }
    }

    #[test]
    fn more_than_a_call_takes_leave_in_the_order_of_what_they_are_for() {
        let of = |priority: Priority, id: &str| Wish { priority, ..wish("n", id) };
        let mut wishes = vec![
            of(Priority::Drift, "drift-0"),
            of(Priority::Start, "start-0"),
            of(Priority::Stop, "stop-0"),
            of(Priority::Drift, "drift-1"),
            of(Priority::Stop, "stop-1"),
        ];
        assert_eq!(ids(&most_urgent(&mut wishes, 4)), ["stop-0", "stop-1", "start-0", "drift-0"]);
        assert_eq!(ids(&most_urgent(&mut wishes, 4)), ["drift-1"]);
        assert!(wishes.is_empty());
    }

    #[test]
    fn a_namespace_with_many_wishes_does_not_keep_another_waiting() {
        let mut wishes: Vec<Wish> = (0..5).map(|n| wish("big", &format!("big-{n}"))).collect();
        wishes.push(wish("small", "small-0"));
        assert_eq!(ids(&fair_share(&mut wishes, 3)), ["big-0", "small-0", "big-1"]);
        assert_eq!(ids(&wishes), ["big-2", "big-3", "big-4"]);
        assert_eq!(ids(&fair_share(&mut wishes, 100)), ["big-2", "big-3", "big-4"]);
        assert!(wishes.is_empty() && fair_share(&mut wishes, 100).is_empty());
    }
}
