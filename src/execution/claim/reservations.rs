//! Explicit execution ids: several resources may name the same one, but only one of them may call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::clock::later;
use crate::execution::Guarded;
use crate::execution::claim::{Claim, ClaimAnnotation};
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

/// The claims that the watch has delivered, by the run that they name.
#[derive(Debug, Default)]
struct Watched {
    /// For each run the UIDs of the resources that claim it, and until when their calls may be in flight.
    by_run: HashMap<Identity, HashMap<String, Timestamp>>,
    /// The run and the UID of each resource.
    by_object: HashMap<ObjectRef<Guarded>, (Identity, String)>,
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
        watched.remove(object);
        if let Some((uid, claim)) = claim {
            watched.insert(object, uid, identity(&claim), claim.outcome_known_by());
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
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, (String, Timestamp)>> {
        sync::lock(&self.held)
    }
}

impl Watched {
    fn insert(&mut self, object: &ObjectRef<Guarded>, uid: String, run: Identity, until: Timestamp) {
        self.by_run.entry(run.clone()).or_default().insert(uid.clone(), until);
        self.by_object.insert(object.clone(), (run, uid));
    }

    fn remove(&mut self, object: &ObjectRef<Guarded>) {
        let Some((run, uid)) = self.by_object.remove(object) else { return };
        if let Entry::Occupied(mut claims) = self.by_run.entry(run) {
            claims.get_mut().remove(&uid);
            if claims.get().is_empty() {
                claims.remove();
            }
        }
    }

    /// Until when calls of other resources for this run may be in flight.
    fn until(&self, run: &Identity, but: &str) -> Option<Timestamp> {
        let claims = self.by_run.get(run)?;
        claims.iter().filter(|(uid, _)| *uid != but).map(|(_, until)| *until).max()
    }
}

fn identity(claim: &Claim) -> Identity {
    (claim.origin.clone(), claim.workspace_id.clone(), claim.execution_id.clone())
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
}
