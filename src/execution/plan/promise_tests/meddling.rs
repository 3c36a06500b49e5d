//! What people and tools do to a resource between two reconciles.

use std::time::Duration;

use kube::ResourceExt;

use super::choices::{Choices, seconds};
use super::events::{CLOCK_ERRORS, MEDDLINGS, Meddling};
use super::world::{World, claim_in};
use crate::api::{Shutdown, WorkflowExecution};
use crate::execution::claim::{CLAIM, Claim, DOUBT, Owner};
use crate::execution::finished::left;
use crate::execution::state::{Memory, WorkflowRefState};

impl World {
    pub fn meddle(&mut self, choices: &mut Choices) {
        let meddling = choices.pick(&MEDDLINGS);
        self.tell(format!("meddling: {meddling:?}"));
        match meddling {
            Meddling::Nothing => {}
            Meddling::ReplaceFromFile => {
                self.apply(None, false);
            }
            Meddling::RestoreWithoutStatus => {
                self.apply(self.object.metadata.annotations.clone(), true);
            }
            Meddling::SuspendOrResume => self.edit(|spec| spec.suspend = !spec.suspend),
            Meddling::AskToCancel => self.ask_to_stop(Shutdown::Cancel, choices),
            Meddling::AskToTerminate => self.ask_to_stop(Shutdown::Terminate, choices),
            Meddling::WithdrawStop => self.edit(|spec| spec.shutdown = None),
            Meddling::ChangeSecret => self.secret += 1,
            Meddling::RefuseClaims => self.refuses_claims = !self.refuses_claims,
            Meddling::RefuseStatus => self.refuses_status = !self.refuses_status,
            Meddling::SetClock => self.set_clock(choices),
            Meddling::ReapplyOlderClaim => self.reapply_older_claim(false, choices),
            Meddling::ReapplyOlderClaimWithoutStatus => self.reapply_older_claim(true, choices),
            Meddling::ApplyClaimOfAnotherResource => self.apply_claim_of_another_resource(choices),
            Meddling::ApplyClaimOfPredecessor => self.apply_claim_of_predecessor(choices),
            Meddling::RestoreManagedFields => self.restore_managed_fields(),
        }
    }

    /// Only sometimes, or hardly a run would reach its own end.
    fn ask_to_stop(&mut self, shutdown: Shutdown, choices: &mut Choices) {
        if self.may_stop && choices.pick(&[false, false, true]) {
            self.edit(|spec| spec.shutdown = Some(shutdown));
        }
    }

    fn set_clock(&mut self, choices: &mut Choices) {
        let who = usize::from(choices.below(2));
        let skew = choices.pick(&CLOCK_ERRORS);
        // One of the two clocks has to be right.
        match &mut self.api_server_skew {
            Some(of_api_server) => *of_api_server = skew,
            None => self.operators[who].skew = skew,
        }
    }

    fn reapply_older_claim(&mut self, empties_status: bool, choices: &mut Choices) {
        let back = usize::from(choices.below(8));
        let is_claimed = |older: &&WorkflowExecution| older.annotations().contains_key(CLAIM);
        if let Some(older) = self.history.iter().rev().filter(is_claimed).nth(back) {
            self.apply(older.metadata.annotations.clone(), empties_status);
        }
    }

    fn apply_claim_of_another_resource(&mut self, choices: &mut Choices) {
        if let Some(claim) = claim_in(self.object.annotations()) {
            let owner = Owner { name: "other".into(), ..claim.owner.clone() };
            let refused = choices.pick(&[true, false]);
            let empties_status = choices.pick(&[true, false]);
            self.apply_claim(&Claim { owner, refused, ..claim }, empties_status);
        }
    }

    fn apply_claim_of_predecessor(&mut self, choices: &mut Choices) {
        if let Some(claim) = claim_in(self.object.annotations()) {
            let execution_id = self.object.spec.execution_id.clone().unwrap_or_else(|| "earlier".into());
            let refused = choices.pick(&[true, false]);
            let empties_status = choices.pick(&[true, false]);
            let claim = Claim { uid: Some("earlier".into()), execution_id, revision: 9, refused, ..claim };
            if self.apply_claim(&claim, empties_status) && empties_status {
                (0..2).for_each(|who| self.crash(who));
            }
        }
    }

    fn apply_claim(&mut self, claim: &Claim, empties_status: bool) -> bool {
        self.apply(Some([(CLAIM.to_owned(), claim.to_annotation())].into()), empties_status)
    }

    fn restore_managed_fields(&mut self) {
        if self.api_server_skew.is_none() {
            return;
        }
        let created = self.object.metadata.creation_timestamp.clone();
        if let Some([ours]) = self.object.metadata.managed_fields.as_deref_mut() {
            ours.time = created;
        }
    }

    /// Somebody puts the label of finished executions on the resource. Once no call can be in flight any more, the
    /// operators forget all but that it left in this term. Then the cluster's store is restored to before the claim.
    pub fn hide_and_restore(&mut self, choices: &mut Choices) {
        for who in 0..2 {
            // Both have seen the claim by then.
            self.operators[who].memory = self.state(who, &self.object, WorkflowRefState::NotNamed, false).memory;
            self.operators[who].known_for(self.now);
        }
        // A leader that has just taken over, and sees no claim of an earlier one, knows of no call. That is not promised.
        self.leads_until = self.now + DOUBT;
        let all_know = self.operators.iter().all(|operator| operator.memory.claim.is_some());
        let is_known = all_know || !self.mistral.is_in_doubt(self.now);
        let hidden_for = if is_known { choices.pick(&[150, 0, 20, 60, 89, 91]) } else { 150 };
        self.tell(format!("hidden, and restored to before its claim after {hidden_for} s"));
        self.advance(seconds(hidden_for), choices);
        let left = left::Memory { had_run: false, end: None, stays: Duration::ZERO };
        for operator in &mut self.operators {
            let known_for = operator.known_for(self.now);
            if !operator.memory.may_have_called_after(known_for) {
                operator.memory = Memory::default();
            }
            operator.memory.left = Some(left);
        }
        let restore = |object: &mut WorkflowExecution| {
            object.metadata.annotations = None;
            object.metadata.managed_fields = None;
            object.metadata.finalizers = None;
            object.status = None;
        };
        // Nothing of what has happened since is in the store.
        self.history.iter_mut().for_each(restore);
        let mut version = self.object.metadata.resource_version.clone().unwrap();
        self.write(&mut version, restore);
        self.history.iter_mut().for_each(restore);
    }
}
