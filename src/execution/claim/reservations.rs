//! Explicit execution ids: several resources may name the same one, but only one of them may call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::clock::{CLOCK_SKEW, later};
use crate::execution::Guarded;
use crate::execution::claim::{Claim, ClaimAnnotation, doubt_of_earlier_calls};
use crate::sync;

/// How long a reservation is kept after it has ended: longer than any reconcile takes.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// What identifies a run at the API: origin, Mistral workspace, execution id.
type Identity = (String, Option<String>, String);

/// Ids for which a call may be in flight: the UID of the calling resource, and until when. A reservation outlives its
/// resource, which may be deleted and created again meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    held: Mutex<HashMap<Identity, (String, Timestamp)>>,
    watched: Mutex<Watched>,
}

/// The claims on resources of which a watch has told, by the run that they name.
#[derive(Debug, Default)]
struct Watched {
    /// For each run the UIDs of the resources that claim it, and until when their calls may be in flight.
    by_run: HashMap<Identity, HashMap<String, Timestamp>>,
    /// The run and the UID of each resource.
    by_object: HashMap<ObjectRef<Guarded>, (Identity, String)>,
    /// The same as `by_run` for resources that the watch does not show, or not any more: those with the label of
    /// finished ones, and those that are gone. Their calls may be in flight all the same.
    unwatched: HashMap<Identity, HashMap<String, Timestamp>>,
}

impl Reservations {
    /// Reserves an id for the call of this claim. The API has said that no run has the id, in answer to a request that
    /// was sent after `asked`.
    ///
    /// If the call of a conflicting claim may have been in flight after `asked`, returns until when. Claims of other
    /// operators, and from before a restart, are known only as far as the watch has delivered them. Until `unheard`
    /// there may be others.
    pub(crate) fn reserve(
        &self,
        uid: &str,
        claim: &Claim,
        unheard: Option<Timestamp>,
        asked: Timestamp,
    ) -> Result<(), Timestamp> {
        let elsewhere = sync::lock(&self.watched).until(&identity(claim), uid);
        let mut held = self.lock();
        let here = held.get(&identity(claim)).filter(|(whose, _)| whose != uid).map(|(_, until)| *until);
        if let Some(until) = elsewhere.into_iter().chain(here).chain(unheard).max().filter(|until| *until > asked) {
            return Err(until);
        }
        held.insert(identity(claim), (uid.to_owned(), claim.outcome_known_by()));
        Ok(())
    }

    /// The watch has delivered this resource in another state, or shows that it is gone.
    pub(crate) fn watched(&self, object: &ObjectRef<Guarded>, now: Option<&Guarded>) {
        let claim = now.and_then(|now| {
            let execution = now.0.as_ref().ok()?;
            match ClaimAnnotation::read(execution.metadata.annotations.as_ref()) {
                ClaimAnnotation::Claim(claim) if !claim.read_only => Some((execution.uid().unwrap_or_default(), claim)),
                ClaimAnnotation::Claim(_) | ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => None,
            }
        });
        let mut watched = sync::lock(&self.watched);
        let before = watched.remove(object);
        if let Some((uid, claim)) = claim {
            watched.insert(object, uid, identity(&claim), at_most(claim.outcome_known_by(), Timestamp::now()));
        } else if now.is_none()
            && let Some((run, uid, until)) = before
        {
            watched.leave_behind(run, uid, until, Timestamp::now());
        }
    }

    /// Records the claim of a resource that the watch of finished resources shows. The label may hide a claim whose call is
    /// still in flight.
    pub(crate) fn marked(&self, metadata: &ObjectMeta, now: Timestamp) {
        if let ClaimAnnotation::Claim(claim) = ClaimAnnotation::read(metadata.annotations.as_ref())
            && !claim.read_only
            && let Some(uid) = &metadata.uid
        {
            let (run, until) = (identity(&claim), claim.outcome_known_by());
            sync::lock(&self.watched).leave_behind(run, uid.clone(), until, now);
        }
    }

    /// Releases the id, since the call of this claim started nothing.
    pub(crate) fn release(&self, uid: &str, claim: &Claim) {
        let mut held = self.lock();
        if held.get(&identity(claim)).is_some_and(|(whose, _)| whose == uid) {
            held.remove(&identity(claim));
        }
    }

    /// Drops reservations that no reconcile needs any more. A reconcile may act on an answer that is some minutes old.
    pub(crate) fn forget(&self) {
        let now = Timestamp::now();
        self.lock().retain(|_, (_, until)| later(*until, REMEMBERED) > now);
        sync::lock(&self.watched).unwatched.retain(|run, claims| {
            claims.retain(|uid, until| is_remembered(run, uid, *until, now));
            !claims.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, (String, Timestamp)>> {
        sync::lock(&self.held)
    }
}

/// A claim from the future counts for no longer than one that is made now: a clock was wrong, or somebody wrote it by hand
/// to keep others from the id.
fn at_most(until: Timestamp, now: Timestamp) -> Timestamp {
    until.min(later(doubt_of_earlier_calls(now), CLOCK_SKEW))
}

impl Watched {
    fn insert(&mut self, object: &ObjectRef<Guarded>, uid: String, run: Identity, until: Timestamp) {
        self.by_run.entry(run.clone()).or_default().insert(uid.clone(), until);
        self.by_object.insert(object.clone(), (run, uid));
    }

    fn remove(&mut self, object: &ObjectRef<Guarded>) -> Option<(Identity, String, Timestamp)> {
        let (run, uid) = self.by_object.remove(object)?;
        let Entry::Occupied(mut claims) = self.by_run.entry(run.clone()) else { return None };
        let until = claims.get_mut().remove(&uid)?;
        if claims.get().is_empty() {
            claims.remove();
        }
        Some((run, uid, until))
    }

    /// The claim of a resource that the watch does not show.
    fn leave_behind(&mut self, run: Identity, uid: String, until: Timestamp, now: Timestamp) {
        let until = at_most(until, now);
        if is_remembered(&run, &uid, until, now) {
            let known = self.unwatched.entry(run).or_default().entry(uid).or_insert(until);
            *known = until.max(*known);
        }
    }

    /// Until when calls of other resources for this run may be in flight.
    fn until(&self, run: &Identity, but: &str) -> Option<Timestamp> {
        let claims = self.by_run.get(run).into_iter().chain(self.unwatched.get(run)).flatten();
        claims.filter(|(uid, _)| *uid != but).map(|(_, until)| *until).max()
    }
}

fn identity(claim: &Claim) -> Identity {
    (claim.origin.clone(), claim.workspace_id.clone(), claim.execution_id.clone())
}

/// Whether a claim may still matter: for an explicit id also to a reconcile that acts on an answer some minutes old.
fn is_remembered((_, _, execution_id): &Identity, uid: &str, until: Timestamp, now: Timestamp) -> bool {
    let is_derived = execution_id.ends_with(uid);
    (if is_derived { until } else { later(until, REMEMBERED) }) > now
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::execution::claim::{CLAIM, Claimant, Owner};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn claim(now: Timestamp) -> Claim {
        let owner = Owner { cluster: "c".into(), namespace: "n".into(), name: "x".into() };
        let by = Claimant { instance: "i", origin: "https://api", workspace_id: None };
        Claim::new("mine".into(), 1, by, owner, "d".into(), now)
    }

    #[test]
    fn an_answer_from_before_the_end_of_anothers_call_is_no_reason_to_start_however_late_it_is_acted_on() {
        let reservations = Reservations::default();
        reservations.reserve("first", &claim(at(0)), None, at(0)).unwrap();
        let ends = claim(at(0)).outcome_known_by();
        // The call, its run and the reservation are long over by now.
        assert_eq!(reservations.reserve("second", &claim(at(600)), None, at(30)), Err(ends));
        assert_eq!(reservations.reserve("second", &claim(at(600)), None, at(100)), Ok(()));
    }

    #[test]
    fn a_claim_that_the_watch_has_shown_keeps_its_id_from_others_until_it_changes_or_goes() {
        let object = |name: &str, claim: &Claim| -> (ObjectRef<Guarded>, Guarded) {
            let annotations = json!({ CLAIM: claim.to_annotation() });
            let metadata = json!({ "name": name, "namespace": "n", "uid": name, "annotations": annotations });
            let object = json!({ "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "metadata": metadata, "spec": {} });
            (ObjectRef::new(name).within("n"), serde_json::from_value(object).unwrap())
        };
        let reservations = Reservations::default();
        let asks = |asked: i64| reservations.reserve("second", &claim(at(600)), None, at(asked));
        let until = Err(claim(at(0)).outcome_known_by());
        let (first, claimed) = object("first", &claim(at(0)));
        reservations.watched(&first, Some(&claimed));
        assert_eq!(asks(30), until);
        let (second, own) = object("second", &claim(at(600)));
        reservations.watched(&second, Some(&own));
        assert_eq!(asks(30), until, "its own claim is no reason");
        reservations.watched(&first, Some(&object("first", &Claim { read_only: true, ..claim(at(0)) }).1));
        assert_eq!(asks(30), Ok(()), "the first one only reads");
        reservations.watched(&first, Some(&object("first", &Claim { execution_id: "other".into(), ..claim(at(0)) }).1));
        assert_eq!(asks(30), Ok(()), "the first one claims another run");
        reservations.watched(&first, Some(&claimed));
        assert_eq!(asks(30), until);
        reservations.watched(&first, None);
        assert_eq!(asks(30), Ok(()), "the first one is gone");
        reservations.watched(&second, None);
        let watched = sync::lock(&reservations.watched);
        assert!(watched.by_run.is_empty() && watched.by_object.is_empty(), "{watched:?}");
    }

    #[test]
    fn a_claim_on_a_resource_that_the_watch_does_not_show_keeps_its_id_from_others_while_its_call_may_be_in_flight() {
        let now = Timestamp::now();
        let claimed = |claim: &Claim| ObjectMeta {
            uid: Some("first".into()),
            annotations: Some([(CLAIM.to_owned(), claim.to_annotation())].into()),
            ..ObjectMeta::default()
        };
        let until = claim(now).outcome_known_by();
        let asks = |reservations: &Reservations, uid: &str, asked: Timestamp| {
            reservations.reserve(uid, &claim(later(asked, SignedDuration::from_secs(1))), None, asked)
        };
        let reservations = Reservations::default();
        reservations.marked(&claimed(&Claim { read_only: true, ..claim(now) }), now);
        reservations.marked(&claimed(&Claim { refused: true, ..claim(now) }), now);
        reservations.marked(&claimed(&Claim { execution_id: "other".into(), ..claim(now) }), now);
        assert_eq!(asks(&reservations, "first", now), Ok(()), "nothing claims it");
        let reservations = Reservations::default();
        reservations.marked(&claimed(&claim(now)), now);
        reservations.forget();
        assert_eq!(asks(&reservations, "second", now), Err(until));
        assert_eq!(asks(&reservations, "first", now), Ok(()), "its own claim is no reason");
        let reservations = Reservations::default();
        reservations.marked(&claimed(&claim(now)), now);
        assert_eq!(asks(&reservations, "second", until), Ok(()), "its call is over");
        // Whoever forges a claim from the future keeps an id for no longer than a claim of today.
        let reservations = Reservations::default();
        reservations.marked(&claimed(&claim(later(now, SignedDuration::from_hours(9999)))), now);
        let longest = later(until, CLOCK_SKEW);
        assert_eq!(asks(&reservations, "second", longest), Ok(()));
    }

    #[test]
    fn a_claim_outlives_its_resource_in_the_watch_while_its_call_may_be_in_flight() {
        let now = Timestamp::now();
        let object = |claim: &Claim| -> Guarded {
            let annotations = json!({ CLAIM: claim.to_annotation() });
            let metadata = json!({ "name": "first", "namespace": "n", "uid": "first", "annotations": annotations });
            let object = json!({ "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "metadata": metadata, "spec": {} });
            serde_json::from_value(object).unwrap()
        };
        let reservations = Reservations::default();
        let first = ObjectRef::new("first").within("n");
        reservations.watched(&first, Some(&object(&claim(now))));
        reservations.watched(&first, None);
        reservations.forget();
        let until = claim(now).outcome_known_by();
        assert_eq!(reservations.reserve("second", &claim(now), None, now), Err(until));
        // A claim from the future, which a clock or a person made, counts like one of now.
        let future = claim(later(now, SignedDuration::from_hours(9000)));
        reservations.watched(&first, Some(&object(&future)));
        let until = reservations.reserve("second", &claim(now), None, now).unwrap_err();
        assert!(until <= later(at_most(Timestamp::MAX, now), SignedDuration::from_mins(1)), "{until}");
        // Ids that are derived from a UID are in nobody's way: they are not kept beyond their doubt.
        let derived = Claim { execution_id: "first-first".into(), ..claim(later(now, -SignedDuration::from_mins(5))) };
        reservations.watched(&first, Some(&object(&derived)));
        reservations.watched(&first, None);
        assert_eq!(sync::lock(&reservations.watched).unwatched.len(), 1);
    }
}
