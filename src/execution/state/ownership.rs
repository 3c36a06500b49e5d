//! Whose run it is: what the claim on a resource says, and how far it can be trusted.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::ExecutionState;
use crate::api::DeletionPolicy;
use crate::clock::later;
use crate::execution::claim::{self, Claim, ClaimAnnotation, ClaimBackup, Claimant, DOUBT, SENT_TO_SHOWN, derived_id};
use crate::execution::phase::is_started;
use crate::workspace::access::ConnectionInfo;

/// Whose claim is on the resource.
pub(crate) enum Ownership<'a> {
    /// There is no claim, or it says nothing about the run of this resource: see [`ExecutionState::is_void`].
    Unclaimed,
    /// The resource's own claim.
    Ours(&'a Claim),
    /// A read-only claim: the run belongs to somebody else.
    ReadOnly(&'a Claim),
    /// A claim of another cluster or namespace, as after a restore or a clone.
    Foreign(&'a Claim),
    /// The claim cannot be read.
    Unreadable,
}

pub(crate) fn ownership(state: &ExecutionState) -> Ownership<'_> {
    match &state.annotation {
        ClaimAnnotation::Absent => Ownership::Unclaimed,
        ClaimAnnotation::Unreadable => Ownership::Unreadable,
        ClaimAnnotation::Claim(claim) if state.is_void(claim) => Ownership::Unclaimed,
        ClaimAnnotation::Claim(claim) if claim.owner != state.owner => Ownership::Foreign(claim),
        ClaimAnnotation::Claim(claim) if claim.read_only => Ownership::ReadOnly(claim),
        ClaimAnnotation::Claim(claim) => Ownership::Ours(claim),
    }
}

impl ExecutionState {
    /// What is remembered of a claim. For a call that is already known, the time of the first sighting stays.
    pub(crate) fn known(&self, claim: &Claim) -> ClaimBackup {
        let known = ClaimBackup::of(claim, &self.derived_id());
        let is_there =
            matches!(&self.annotation, ClaimAnnotation::Claim(there) if there.send_before == claim.send_before);
        match &self.memory.claim {
            Some(before) if before.send_before == known.send_before => {
                ClaimBackup { first: before.first, own: before.own, refused: before.refused, ..known }
            }
            Some(_) | None => ClaimBackup { own: !is_there && claim.claimant == self.instance.name, ..known },
        }
    }

    /// Whether a claim says nothing about the run of this resource. It speaks of another resource, as in a copied
    /// manifest, or is older than a later claim, as in an exported manifest that was applied again.
    pub(crate) fn is_void(&self, claim: &Claim) -> bool {
        if claim.owner.name != self.owner.name {
            return true;
        }
        let other_run = self.spec.execution_id.is_none()
            && self.status.execution_id.as_ref().is_some_and(|id| *id != claim.execution_id);
        let known = self.memory.claim.as_deref();
        other_run
            || known.is_some_and(|known| {
                claim.revision < known.revision || claim.owner != self.owner || self.names_another_uid(claim)
            })
    }

    /// Whether a claim was written on an earlier resource with this name.
    pub(crate) fn names_another_uid(&self, claim: &Claim) -> bool {
        claim.uid.as_ref().is_some_and(|uid| *uid != self.uid)
    }

    /// Whether the claim's call has definitely started nothing, and no other call has. The refused claim of an earlier
    /// process may have come back over a newer one, so it does not count. Nor does a refusal once the API has shown a
    /// run.
    pub(crate) fn is_refused(&self, claim: &Claim) -> bool {
        let known = self.memory.claim.as_deref().filter(|_| !self.memory.seen);
        let is_known = |known: &ClaimBackup| known.own && known.refused && known.send_before == claim.send_before;
        claim.refused && known.is_some_and(is_known)
    }

    /// How long a 404 still proves nothing: the claim's call may be in flight, or the API may not show its run yet. The
    /// refused claim of an earlier process proves nothing either, since that process may have written a newer one.
    pub(crate) fn doubt(&self, claim: &Claim) -> Duration {
        if self.is_refused(claim) {
            return Duration::ZERO;
        }
        let age = self.age(claim).map_or(self.known_for, |age| age.max(self.known_for));
        DOUBT.unsigned_abs().saturating_sub(age)
    }

    /// How long ago this claim was written, if it is the newest that any operator has written. By the API server's
    /// clock, and only if this process's own clock agrees that the call is over: either clock may be wrong.
    fn age(&self, claim: &Claim) -> Option<Duration> {
        let is_there =
            matches!(&self.recorded, ClaimAnnotation::Claim(there) if there.send_before == claim.send_before);
        let known = self.memory.claim.as_deref();
        // This process times its own calls more reliably, by the monotonic clock.
        let is_own = known.is_some_and(|known| known.own && known.send_before == claim.send_before);
        let is_over = later(claim.send_before, SENT_TO_SHOWN) <= self.began;
        self.claim_age.filter(|_| is_there && !is_own && is_over)
    }

    /// How long ago an operator wrote the claim on the resource, if `written` is the time of that write by the API
    /// server's clock.
    pub(crate) fn age_of_claim(&self, written: Option<Timestamp>) -> Option<Duration> {
        let ClaimAnnotation::Claim(claim) = &self.recorded else { return None };
        if claim.uid.as_ref() != Some(&self.uid) || claim.owner != self.owner {
            return None;
        }
        // A claim older than its resource came with a backup.
        let written = written.filter(|written| *written >= self.created)?;
        // The API server cuts the time to whole seconds.
        let written = later(written, SignedDuration::from_secs(1));
        Duration::try_from(self.instance.api_server_time?.duration_since(written)).ok()
    }

    /// The time from which the API shows every run that was started before this process led.
    pub(crate) fn earlier_calls_end(&self) -> Timestamp {
        later(self.instance.since, SENT_TO_SHOWN)
    }

    /// The claim, if it speaks of this resource.
    pub(crate) fn claimed_by(&self) -> Option<&Claim> {
        match &self.annotation {
            ClaimAnnotation::Claim(claim) => Some(claim.as_ref()).filter(|claim| !self.is_void(claim)),
            ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => None,
        }
    }

    pub(crate) fn derived_id(&self) -> String {
        derived_id(&self.owner.name, &self.uid)
    }

    /// Whether the claim may come from an earlier resource of this name. It may have replaced a claim of this resource
    /// and left no trace of it.
    pub(crate) fn may_be_predecessors(&self, claim: &Claim) -> bool {
        self.spec.execution_id.is_none()
            && self.status.execution_id.is_none()
            && self.memory.claim.is_none()
            && self.created < self.instance.since
            && self.names_another_uid(claim)
    }

    /// The id of the run: the first that exists of the spec's, the claim's, the status's, the remembered and the
    /// derived one.
    pub fn execution_id(&self) -> String {
        let claimed =
            self.claimed_by().filter(|claim| !self.may_be_predecessors(claim)).map(|claim| &claim.execution_id);
        self.spec
            .execution_id
            .as_ref()
            .or(claimed)
            .or(self.status.execution_id.as_ref())
            .or(self.memory.claim.as_ref().and_then(|known| known.execution_id.as_ref()))
            .cloned()
            .unwrap_or_else(|| self.derived_id())
    }

    /// A claim by this process for the next attempt.
    pub fn claim(&self, connection: &ConnectionInfo, attempt: u32, now: Timestamp) -> Claim {
        let by = Claimant {
            instance: &self.instance.name,
            origin: &connection.origin,
            workspace_id: connection.workspace_id.as_deref(),
        };
        let digest = claim::digest(&self.spec);
        Claim::new(self.execution_id(), attempt, by, self.owner.clone(), digest, now)
    }

    /// Whether a claim speaks of this resource, so that the execution id is settled.
    pub(crate) fn claim_exists(&self) -> bool {
        !matches!(ownership(self), Ownership::Unclaimed | Ownership::Unreadable)
    }

    /// Whether the run belongs to somebody else.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(ownership(self), Ownership::ReadOnly(_) | Ownership::Foreign(_))
    }

    /// Whether the spec differs from what was claimed.
    pub(crate) fn is_edited(&self) -> bool {
        matches!(ownership(self), Ownership::Ours(claim) if claim.digest != claim::digest(&self.spec))
    }

    /// Whether a run may exist. It must then be looked after even while starts are on hold.
    pub(crate) fn may_have_started(&self) -> bool {
        is_started(&self.status)
            || match ownership(self) {
                Ownership::Unclaimed => self.has_lost_a_claim(),
                Ownership::Ours(claim) => !self.is_refused(claim),
                Ownership::ReadOnly(_) | Ownership::Foreign(_) | Ownership::Unreadable => true,
            }
    }

    /// Whether there was a claim once, if there is none now. `kubectl replace` drops annotations but not the status,
    /// and the finalizer comes with the first claim.
    pub(crate) fn has_lost_a_claim(&self) -> bool {
        self.memory.claim.is_some() || self.status.execution_id.is_some() || self.finalizer
    }

    /// Whether this process has seen the resource from its creation and never claimed it. Only then is it certain that
    /// no run can exist.
    pub(crate) fn no_run_can_exist(&self) -> bool {
        self.spec.execution_id.is_none()
            && self.annotation == ClaimAnnotation::Absent
            && self.status.execution_id.is_none()
            && self.memory.claim.is_none()
            && self.memory.left.is_none()
            && self.created >= self.instance.since
    }

    pub(crate) fn wants_finalizer(&self) -> bool {
        self.spec.deletion_policy != DeletionPolicy::Orphan
    }
}
