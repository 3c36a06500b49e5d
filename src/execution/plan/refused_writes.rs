//! Writes that the API server refuses for good: how the plan goes on without them, reports them and repeats them.
//!
//! Each kind of write has a wait of its own, which grows to five minutes and ends when somebody else changes the
//! resource. Until then a step that would write is answered from memory.
//!
//! - A claim whose call would follow: nothing is started, and the condition says why.
//! - Any other claim records what has happened already. This process goes by it all the same, and writes it when that is
//!   due. So a stop that cannot be recorded is sent: somebody wants the run to end, and to ask twice does no harm. What
//!   a restart loses is when the stop began, so that the grace is counted anew, and a stop whose wish was taken back.
//!   Only a run of somebody else is not told as started before its claim is recorded: a restart would take it for ours.
//! - The finalizer: the run goes on without it; a resource that is being deleted waits for it and nothing else.
//! - The deletion of a resource whose time is over: the resource stays, and a condition says why.
//! - The status: a smaller one, and if that is refused too, Events. A run that has ended is not asked about until the
//!   API server takes a status again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::WorkflowExecutionStatus as Status;
use crate::api::conditions::{self, READY, Wait};
use crate::execution::claim::{Claim, Note};
use crate::execution::plan::blocked::blocked;
use crate::execution::plan::stop;
use crate::execution::plan::{Decision, Settled, settle};
use crate::execution::state::Observed;
use crate::execution::status::{self, is_finished, is_started, reason};
use crate::platform::events::Notice;
use crate::platform::refused::{Cause, Refused};
use crate::platform::requeue::{Refusal, Requeue};
use crate::text::truncate;

/// Bytes that each text of a smaller status has at most.
const SHORT: usize = 300;

/// What the API server refuses to write of one resource, as far as this process remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusals {
    /// The claim.
    pub claim: Option<Box<Refusal>>,
    /// The finalizer.
    pub finalizer: Option<Box<Refusal>>,
    /// The status.
    pub status: Option<Box<Refusal>>,
    /// The deletion.
    pub deletion: Option<Box<Refusal>>,
    /// The claim that could not be recorded, and what the resource said then.
    pub unrecorded: Option<Box<(Claim, Note)>>,
    /// The end that the status could not say.
    pub end: Option<Box<End>>,
    /// The reason that was last told in an Event for want of a status.
    pub(crate) told: Option<String>,
}

/// An end that the status could not say.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// What the status is to say next.
    status: Status,
    /// The claim that this process went by then: by another one a run may have started since.
    over: Note,
    /// The generation of the spec that it ended by.
    generation: Option<i64>,
}

/// A write that may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The claim.
    Claim,
    /// The finalizer.
    Finalizer,
    /// The status.
    Status,
    /// The deletion of a resource whose time is over.
    Deletion,
}

impl Refusals {
    /// The claim that this process goes by.
    pub(crate) fn note(&self, recorded: &Note) -> Note {
        match self.unrecorded.as_deref() {
            Some((claim, over)) if over == recorded => Note::Claim(Box::new(claim.clone())),
            Some(_) | None => recorded.clone(),
        }
    }

    fn of(&mut self, write: Write) -> &mut Option<Box<Refusal>> {
        match write {
            Write::Claim => &mut self.claim,
            Write::Finalizer => &mut self.finalizer,
            Write::Status => &mut self.status,
            Write::Deletion => &mut self.deletion,
        }
    }
}

impl Observed {
    /// The refusal because of which this write is not tried now, and for how long not.
    pub fn refusal(&self, write: Write, now: Timestamp) -> Option<(&Refusal, Duration)> {
        let refusals = &self.memory.refusals;
        let refusal = match write {
            Write::Claim => refusals.claim.as_deref(),
            Write::Finalizer => refusals.finalizer.as_deref(),
            Write::Status => refusals.status.as_deref(),
            Write::Deletion => refusals.deletion.as_deref(),
        }?;
        Some((refusal, refusal.left(&self.version, now)?))
    }

    /// The API server has refused this write.
    pub fn refused(&mut self, write: Write, refused: Refused, now: Timestamp) {
        let last = self.memory.refusals.of(write);
        let next = Refusal::once_more(last.as_deref(), refused, &self.version, &self.uid, now);
        *last = Some(Box::new(next));
    }

    /// This claim is not on the resource, since the API server refuses it. One whose call would follow is dropped; any
    /// other is gone by all the same.
    pub fn unclaimed(&mut self, claim: Claim, send: bool) {
        if !send {
            self.memory.claim = Some(Box::new(self.known(&claim)));
            self.memory.refusals.unrecorded = Some(Box::new((claim.clone(), self.recorded.clone())));
            self.note = Note::Claim(Box::new(claim));
        }
    }

    /// Whether the claim that is gone by is not on the resource.
    pub(crate) fn is_unrecorded(&self) -> bool {
        matches!(self.memory.refusals.unrecorded.as_deref(), Some((_, over)) if *over == self.recorded)
    }

    /// The operator has written to the resource, which has this version now.
    pub fn wrote(&mut self, version: &str) {
        for write in [Write::Claim, Write::Finalizer, Write::Status, Write::Deletion] {
            if let Some(refusal) = self.memory.refusals.of(write) {
                refusal.follow(&self.version, version);
            }
        }
        version.clone_into(&mut self.version);
    }

    /// The finalizer was set.
    pub fn finalizer_set(&mut self, present: bool) {
        self.finalizer = present;
        self.memory.refusals.finalizer = None;
    }

    /// The status was written, or says all already.
    pub fn told(&mut self, status: &Status) {
        let refusals = &mut self.memory.refusals;
        // A word ahead of an end that is still to come, and may be refused again.
        let ahead = refusals.end.take().is_some() && !is_finished(status);
        match &mut refusals.status {
            Some(refusal) if ahead => refusal.make_due(),
            _ => (refusals.status, refusals.told) = (None, None),
        }
    }

    /// The status cannot be written. What is to be told in Events instead: once for each reason.
    pub fn untold(&mut self, settled: &Settled, now: Timestamp) -> Vec<Notice> {
        if is_finished(&settled.status) && !is_finished(&self.status) {
            let end = match &settled.status.result {
                // It may be long: the API is asked for it again once it can be written.
                Some(_) => status::end_pending(self, &settled.status, now),
                None => settled.status.clone(),
            };
            let (over, generation) = (self.note.clone(), self.generation);
            self.memory.refusals.end = Some(Box::new(End { status: end, over, generation }));
        }
        let Some(refused) = self.memory.refusals.status.as_ref().map(|it| it.refused.clone()) else {
            return Vec::new();
        };
        let unsaid = conditions::find(&settled.status.conditions, READY);
        let word = unsaid.map(|ready| ready.reason.clone()).unwrap_or_default();
        let first = self.memory.refusals.told.is_none();
        if self.memory.refusals.told.replace(word.clone()).is_some_and(|told| told == word) {
            return Vec::new();
        }
        let refusal = first.then(|| refused.status(unsaid));
        refusal.into_iter().chain(settled.notices.iter().cloned()).collect()
    }
}

/// What an Event says of a claim that was refused and that nothing waits for.
pub(crate) fn unrecorded(refused: &Refused) -> Notice {
    let note = format!(
        "The API server refuses to record on this resource what has become of its run. The operator goes by it all the same, until it restarts: a run that is to be stopped is stopped. {} The operator tries again, less and less often, and at once when the resource changes. The API server said: {}",
        advice(refused),
        refused.said
    );
    Notice::warning(reason::CLAIM_REFUSED, note)
}

/// The API server refuses the claim, and so nothing is started.
pub(crate) fn claim_refused(o: &Observed, now: Timestamp) -> Option<Decision> {
    let (refusal, left) = o.refusal(Write::Claim, now)?;
    let refused = &refusal.refused;
    let so = if o.is_unrecorded() {
        format!(
            "The API server refuses to record on this resource which run \"{}\" is, so its state is not told and nothing was started.",
            o.execution_id()
        )
    } else {
        "Nothing was started, since the API server refuses the claim that has to be on this resource before the start."
            .to_owned()
    };
    let message = format!(
        "{so} {} The operator tries again, less and less often, and at once when the resource changes. The API server said: {}",
        advice(refused),
        refused.said
    );
    Some(blocked(o, reason::CLAIM_REFUSED, message, Requeue::After(left), now))
}

fn advice(refused: &Refused) -> &'static str {
    match refused.cause {
        Cause::Annotations => {
            "Its annotations are too long: create it with kubectl create, or kubectl apply --server-side, which keep no copy of the manifest in an annotation."
        }
        Cause::Size => "It is too large: create another with a smaller input.",
        Cause::Rule => "See to the policy, webhook or right that refuses it.",
    }
}

/// What does not go on while the status is refused: to ask about a run again and again would tell nobody anything. A
/// stop goes on.
pub(crate) fn status_refused(o: &Observed, now: Timestamp) -> Option<Decision> {
    // Without a claim it is seen from the resource alone, and may be the end of one that has lost its claim meanwhile.
    let end = o.memory.refusals.end.as_deref().filter(|_| o.claim_exists());
    let end = end.filter(|end| end.over == o.note && end.generation == o.generation).map(|end| &end.status);
    if let Some((_, left)) = o.refusal(Write::Status, now)
        && (end.is_some() || (o.may_have_started() && !stop::is_due(o, now)))
    {
        return Some(settle(o, o.status.clone(), Requeue::Hold(left)));
    }
    end.map(|end| {
        let requeue = if is_finished(end) { Requeue::OnChange } else { Requeue::After(Duration::ZERO) };
        settle(o, end.clone(), requeue)
    })
}

/// What a resource says that is being deleted and of which only the finalizer is left, which cannot be taken off.
pub(crate) fn release_refused(o: &Observed, now: Timestamp) -> Option<Decision> {
    let (refusal, left) = o.refusal(Write::Finalizer, now)?;
    let status = if is_finished(&o.status) {
        o.status.clone()
    } else {
        let message = format!(
            "The resource is being deleted, and waits only for the API server to let the operator take its finalizer off. {} The operator tries again, less and less often. The API server said: {}",
            advice(&refusal.refused),
            refusal.refused.said
        );
        status::blind(o, Wait::Stalled, reason::FINALIZER_REFUSED, message, now)
    };
    Some(settle(o, status, Requeue::After(left)))
}

/// When a write that nothing waits for is due again; none if there is no such write.
pub(crate) fn next_retry(o: &Observed, now: Timestamp) -> Option<Duration> {
    let claim = o.refusal(Write::Claim, now).filter(|_| o.is_unrecorded());
    let finalizer = o.refusal(Write::Finalizer, now);
    claim.into_iter().chain(finalizer).map(|(_, left)| left).min()
}

/// The same end of a pass in fewer words, and without the result; none if that would be the same.
pub fn smaller(o: &Observed, settled: &Settled, refused: &Refused, now: Timestamp) -> Option<Settled> {
    let mut status = settled.status.clone();
    for condition in &mut status.conditions {
        shorten(&mut condition.message);
    }
    if let Some(failure) = &mut status.failure {
        shorten(&mut failure.message);
    }
    if status.result.take().is_some() {
        status::result_left_out(&mut status, o, refused, now);
    }
    if status == settled.status {
        return None;
    }
    match settle(o, status, settled.requeue) {
        Decision::Settle(settled) => Some(*settled),
        Decision::Act(_) => None,
    }
}

fn shorten(text: &mut String) {
    if text.len() > SHORT {
        truncate(text, SHORT - '…'.len_utf8());
        text.push('…');
    }
}

/// Whether nothing goes on before the API server takes the claim: a start, or the news that a run of somebody else was
/// found.
pub(crate) fn waits_for_claim(o: &Observed) -> bool {
    !is_started(&o.status) && (!o.is_unrecorded() || o.is_reading())
}
