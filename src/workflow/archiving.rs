//! Archiving and unarchiving many workflows with few calls: what comes within a moment leaves as one.
//!
//! Nothing is kept here that a pass does not wait for: a process that ends loses no wish, since the resource still has
//! it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::mistral::budget::Class;
use crate::mistral::wire::{BulkOutcome, Workflow};
use crate::mistral::{ApiError, Error};
use crate::platform::leader::lease::Term;
use crate::sync;
use crate::workspace::connections::Live;

/// How long a lone wish waits for another one: a person does not notice.
const ALONE: Duration = Duration::from_millis(300);
/// How long several wait for another one: there are many, then.
const QUIET: Duration = Duration::from_secs(1);
/// How long a call waits at most for others that come one after the other: an API server that is busy lets go of
/// some fifty resources a second.
const LONGEST: Duration = Duration::from_secs(3);
/// How long a pass waits for its answer: no resource may be held up for as long as the API refuses all calls.
const PATIENCE: Duration = Duration::from_secs(45);
/// Ids in one call; what the API takes at most.
const AT_MOST: usize = 100;
/// The lane of these calls: one may be for many Workspaces, and stands behind none of them.
const LANE: &str = "(archiving)";

type Answer = Result<Option<Workflow>, Error>;

/// Wishes that are gathered, by where they go.
#[derive(Debug)]
pub struct Archiving {
    lanes: Mutex<Vec<Lane>>,
    term: Term,
    patience: Duration,
}

/// Wishes for one key and one direction. It exists while a task works it off.
#[derive(Debug)]
struct Lane {
    live: Live,
    archived: bool,
    wishes: Vec<Wish>,
    /// There is another one.
    more: Arc<Notify>,
}

#[derive(Debug)]
struct Wish {
    /// What its call is for.
    class: Class,
    namespace: String,
    id: String,
    answer: oneshot::Sender<Answer>,
}

impl Archiving {
    /// Nothing to do yet. Nothing is sent once the term is over.
    pub fn new(term: Term) -> Self {
        Self { lanes: Mutex::default(), term, patience: PATIENCE }
    }

    /// Archives the workflow with this UUID, or takes it out of the archive, with others that wish the same.
    ///
    /// # Errors
    /// See [`Error`]; those of this workflow, or of the whole call.
    pub async fn set(
        self: &Arc<Self>,
        live: &Live,
        class: Class,
        namespace: &str,
        id: String,
        archived: bool,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let wish = Wish { class, namespace: namespace.to_owned(), id, answer };
        let new_lane = {
            let mut lanes = self.lock();
            match lanes.iter_mut().find(|lane| lane.archived == archived && lane.live.is_as(live)) {
                Some(lane) => {
                    lane.wishes.push(wish);
                    lane.more.notify_one();
                    None
                }
                None => {
                    let more = Arc::new(Notify::new());
                    lanes.push(Lane { live: live.clone(), archived, wishes: vec![wish], more: Arc::clone(&more) });
                    Some(more)
                }
            }
        };
        if let Some(more) = new_lane {
            tokio::spawn(Arc::clone(self).work_off(live.clone(), archived, more));
        }
        match tokio::time::timeout(self.patience, answered).await {
            // Not answered when the term is over; nothing was sent then.
            Ok(answer) => answer.unwrap_or_else(|_| Err(not_sent())),
            Err(_) => Err(not_answered()),
        }
    }

    async fn work_off(self: Arc<Self>, live: Live, archived: bool, more: Arc<Notify>) {
        let is_this = |lane: &Lane| lane.archived == archived && lane.live.is_as(&live);
        loop {
            let latest = Instant::now() + LONGEST;
            loop {
                let wishes = self.lock().iter().find(|lane| is_this(lane)).map_or(0, |lane| lane.wishes.len());
                if wishes >= AT_MOST {
                    break;
                }
                let quiet = Instant::now() + if wishes > 1 { QUIET } else { ALONE };
                if tokio::time::timeout_at(quiet.min(latest), more.notified()).await.is_err() {
                    break;
                }
            }
            let batch = {
                let mut lanes = self.lock();
                let Some(at) = lanes.iter().position(is_this) else { return };
                // Whose pass has ended meanwhile does not wait any more, and will wish again.
                lanes[at].wishes.retain(|wish| !wish.answer.is_closed());
                if lanes[at].wishes.is_empty() || self.term.is_over() {
                    lanes.remove(at);
                    return;
                }
                most_urgent(&mut lanes[at].wishes, AT_MOST)
            };
            // On a task of its own: whoever comes later does not wait for this answer.
            tokio::spawn(send(live.clone(), batch, archived));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lane>> {
        sync::lock(&self.lanes)
    }
}

/// Takes up to `limit` wishes: those of a deletion before those that only set back what somebody has changed.
fn most_urgent(wishes: &mut Vec<Wish>, limit: usize) -> Vec<Wish> {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for class in Class::ALL {
        let mut of_class: Vec<Wish> = wishes.extract_if(.., |wish| wish.class == class).collect();
        taken.extend(fair_share(&mut of_class, limit - taken.len()));
        left.extend(of_class);
    }
    *wishes = left;
    taken
}

/// Takes up to `limit` wishes, one of each namespace in turn, in the order in which they came.
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

async fn send(live: Live, mut batch: Vec<Wish>, archived: bool) {
    let client = |class: Class| live.waiting_in(class, LANE.to_owned());
    if let (Some(first), true) = (batch.iter().map(|wish| wish.class).min(), batch.len() > 1) {
        // The call is worth as much as the most urgent wish in it.
        let client = client(first).at_its_turn().await;
        // Whoever has given up meanwhile wishes again.
        batch.retain(|wish| !wish.answer.is_closed());
        let ids: Vec<String> = batch.iter().map(|wish| wish.id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        match client.set_archived_many(&ids, archived).await {
            Ok(outcome) => return tell_each(batch, &outcome),
            // The call as such was refused: whose fault it is shows one by one.
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
        let client = client(wish.class).at_its_turn().await;
        if wish.answer.is_closed() {
            continue;
        }
        let outcome = client.set_archived(&wish.id, archived).await;
        let _ = wish.answer.send(outcome);
    }
}

/// Each wish gets its own outcome. One that the answer does not name has none: nobody knows what became of it. The API's
/// own examples have null for a workflow that is as asked, and a null for each that is not named will do.
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
                detail: error.message.clone().unwrap_or_else(|| "not done, without a text".into()),
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
    Error::Transient { retry_after: None, message: "the call still waits for its turn, or for its answer".into() }
}

fn not_told() -> Error {
    let message = "the API's answer does not tell what became of this workflow, so it is asked again".into();
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
    use crate::mistral::budget::Budget;
    use crate::mistral::calls::{Calls, Waiting};

    fn wish(namespace: &str, id: &str) -> Wish {
        Wish { class: Class::Stop, namespace: namespace.into(), id: id.into(), answer: oneshot::channel().0 }
    }

    /// A connection whose API refuses all calls for ten minutes.
    async fn refused(calls: Calls) -> Live {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let budget = Budget::new(50, calls, || ());
        budget.take(Class::Start, "n").await.refused(Some(Duration::from_secs(600)));
        let client = Client::new("http://127.0.0.1:9".parse().unwrap(), SecretString::from("key")).unwrap();
        Live::new(client, budget, "http://127.0.0.1:9".into(), None, Duration::from_secs(300))
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
        let (live, archiving) = (refused(Calls::default()).await, archiving(Duration::from_secs(1)));
        let answer = archiving.set(&live, Class::Stop, "n", "id".into(), true);
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("still waits");
        assert!(matches!(answer, Err(Error::Transient { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn a_deletion_waits_as_one_also_together_with_drift_that_came_before_it() {
        let calls = Calls::default();
        let (live, archiving) = (refused(calls.clone()).await, archiving(PATIENCE));
        for class in [Class::Drift, Class::Stop, Class::Drift] {
            let (live, archiving) = (live.clone(), Arc::clone(&archiving));
            tokio::spawn(async move { archiving.set(&live, class, "n", format!("{class:?}"), true).await });
            tokio::task::yield_now().await;
        }
        let waiting = |class: Class| calls.waiting.get_or_create(&Waiting { class }).get();
        let waits = async {
            while waiting(Class::Stop) + waiting(Class::Drift) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waits).await.expect("nothing waits");
        assert_eq!((waiting(Class::Stop), waiting(Class::Drift)), (1, 0));
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
        let of = |class: Class, id: &str| Wish { class, ..wish("n", id) };
        let mut wishes = vec![
            of(Class::Drift, "drift-0"),
            of(Class::Start, "start-0"),
            of(Class::Stop, "stop-0"),
            of(Class::Drift, "drift-1"),
            of(Class::Stop, "stop-1"),
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
