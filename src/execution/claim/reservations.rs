//! Explicit execution ids: several resources may name the same one, but only one of them may call.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::Store;

use crate::clock::later;
use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::execution::controller::Guarded;
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
        all: &Store<Guarded>,
        unheard: Option<Timestamp>,
        asked: Timestamp,
    ) -> Result<(), Timestamp> {
        let elsewhere = all.state().into_iter().filter_map(|other| {
            let other = other.0.as_ref().ok().filter(|other| other.uid().as_deref() != Some(uid))?;
            match ClaimAnnotation::read(other.metadata.annotations.as_ref()) {
                ClaimAnnotation::Claim(theirs) if identity(&theirs) == identity(claim) && !theirs.read_only => {
                    Some(theirs.outcome_known_by())
                }
                ClaimAnnotation::Claim(_) | ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => None,
            }
        });
        let mut held = self.lock();
        let here = held.get(&identity(claim)).filter(|(whose, _)| whose != uid).map(|(_, until)| *until);
        if let Some(until) = elsewhere.chain(here).chain(unheard).max().filter(|until| *until > asked) {
            return Err(until);
        }
        held.insert(identity(claim), (uid.to_owned(), claim.outcome_known_by()));
        Ok(())
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

fn identity(claim: &Claim) -> Identity {
    (claim.origin.clone(), claim.workspace_id.clone(), claim.execution_id.clone())
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;

    use super::*;
    use crate::execution::claim::{Claimant, Owner};

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
        let (store, _writer) = reflector::store();
        let reservations = Reservations::default();
        reservations.reserve("first", &claim(at(0)), &store, None, at(0)).unwrap();
        let ends = claim(at(0)).outcome_known_by();
        // The call, its run and the reservation are long over by now.
        assert_eq!(reservations.reserve("second", &claim(at(600)), &store, None, at(30)), Err(ends));
        assert_eq!(reservations.reserve("second", &claim(at(600)), &store, None, at(100)), Ok(()));
    }
}
