//! What a reconcile does in the cluster: the claim, the finalizer, the input, the result, the deletion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::answer_memory::Room;
use crate::api::WorkflowExecution;
use crate::api::reasons::execution as reason;
use crate::execution::claim::{CLAIM, Claim, FINALIZER, SEND_WITHIN, TAKE_OVER};
use crate::execution::effects::{input_objects, result_object};
use crate::execution::finished::mark::{FINISHED, Mark, Returns};
use crate::execution::metrics;
use crate::execution::phase::{is_finished, is_started};
use crate::execution::plan::ClusterStep;
use crate::execution::plan::refused_writes;
use crate::execution::state::Report;
use crate::execution::state::input::{Admission, Input};
use crate::execution::state::outcomes::ResultWrite;
use crate::execution::state::refusals::Write;
use crate::execution::state::result;
use crate::platform::apiserver::{self, Error, call};
use crate::platform::failpoint;
use crate::platform::reconcile::Flow;
use crate::platform::refused::{Cause, Refused};
use crate::platform::requeue::jitter;
use crate::throttle::Priority;
use crate::workspace::access::{self};
use crate::workspace::permit::{self};

use crate::execution::controller::Reconciliation;

impl Reconciliation<'_> {
    /// Carries out a step that does not call Mistral's API.
    pub(crate) async fn act_in_cluster(&mut self, step: ClusterStep) -> Result<Flow, Error> {
        match step {
            ClusterStep::WriteClaim { claim, finalizer, send, consent } => {
                return Box::pin(self.write_claim(*claim, finalizer, send, consent)).await;
            }
            ClusterStep::SetFinalizer(_) | ClusterStep::Leave { .. } | ClusterStep::Delete
                if is_finished(&self.state.status) && self.context.housekeeping.check().is_err() =>
            {
                self.store_memory(false);
                let later = Duration::from_secs(1 + u64::from(jitter(&self.state.uid) % 60));
                return Ok(Flow::End(Action::requeue(later)));
            }
            ClusterStep::Delete => {
                let Err(error) = Box::pin(self.delete()).await else {
                    self.store_memory(false);
                    return Ok(Flow::End(Action::await_change()));
                };
                let refused = Refused::of(&error).ok_or(error)?;
                self.state.refused(Write::Deletion, refused, Timestamp::now());
            }
            ClusterStep::SetFinalizer(present) => {
                if Box::pin(self.set_finalizer(present)).await? {
                    self.state.finalizer_set(present);
                }
            }
            ClusterStep::Leave { returns } => return Box::pin(self.leave(returns)).await,
            ClusterStep::Release { abandoned } => {
                if abandoned {
                    tracing::warn!(
                        execution_id = self.state.execution_id(),
                        "the run could not be stopped within five minutes of the deletion and may go on; stop it in Mistral's console"
                    );
                }
                if Box::pin(self.set_finalizer(false)).await? {
                    self.forget();
                    return Ok(Flow::End(Action::await_change()));
                }
            }
            ClusterStep::ReadInput => return Box::pin(self.read_input()).await,
            ClusterStep::WriteResult => return Box::pin(self.write_result()).await,
            ClusterStep::Linger => self.linger().await,
            ClusterStep::MayReport => {
                let wait = self.report_turn();
                if !wait.is_zero() {
                    self.store_memory(self.state.refresh);
                    return Ok(Flow::End(Action::requeue(wait)));
                }
                self.state.outcomes.report = Report::Allowed;
            }
        }
        Ok(Flow::PlanAgain)
    }

    async fn write_claim(&mut self, claim: Claim, finalizer: bool, send: bool, consent: bool) -> Result<Flow, Error> {
        if self.state.refusal(Write::Claim, Timestamp::now()).is_some() {
            self.state.unclaimed(claim, send);
            return Ok(Flow::PlanAgain);
        }
        if send {
            if self.context.shared.term.stop.is_cancelled() {
                // The next process starts the run.
                return Ok(Flow::End(Action::await_change()));
            }
            if !self.ticket.has_permit() {
                // Planning again makes a new claim with the current time.
                return Ok(self.take_permit(Priority::Start).err().unwrap_or(Flow::PlanAgain));
            }
            if self.state.spec.execution_id.is_some()
                && let Err(until) = self.context.reservations.reserve(
                    &self.state.uid,
                    &claim,
                    self.context.settings.unlisted.until(),
                    self.state.began,
                )
            {
                self.state.outcomes.conflicting_claim_until = Some(until);
                return Ok(Flow::PlanAgain);
            }
            self.send_before = Some(Instant::now() + SEND_WITHIN.unsigned_abs());
        }
        let mut annotations = BTreeMap::from([(CLAIM, Some(claim.to_annotation()))]);
        if consent {
            // The consent counts once. If a backup restores the resource as it is now, a person has to consent again.
            annotations.insert(TAKE_OVER, None);
        }
        let metadata = json!({ "annotations": annotations, "finalizers": self.finalizers(finalizer) });
        if let Err(error) = self.patch(metadata).await {
            let refused = Refused::of(&error).ok_or(error)?;
            self.claim_refused(claim, send, refused);
            return Ok(Flow::PlanAgain);
        }
        tracing::debug!(execution_id = claim.execution_id, attempt = claim.attempt, send, "claimed");
        metrics::claimed(&self.context.settings.metrics, &self.state.annotation, &claim, send);
        if claim.refused {
            self.context.reservations.release(&self.state.uid, &claim);
        }
        self.state.finalizer = finalizer;
        self.state.take_over = self.state.take_over.take().filter(|_| !consent);
        self.state.memory.consented |= consent;
        self.state.claimed(claim, send);
        // The claim is remembered from now on, even if the rest of the reconcile fails.
        self.store_memory(false);
        Ok(Flow::PlanAgain)
    }

    /// The API server refuses this claim, so it is not on the resource.
    fn claim_refused(&mut self, claim: Claim, send: bool, refused: Refused) {
        self.send_before = None;
        if send {
            self.context.reservations.release(&self.state.uid, &claim);
        }
        // If a condition reports the refusal, that condition has its own Event.
        let untold = !send && (is_started(&self.state.status) || !claim.read_only);
        if untold && self.state.memory.refusals.claim.is_none() {
            self.publish(vec![refused_writes::unrecorded(&refused)]);
        }
        self.state.refused(Write::Claim, refused, Timestamp::now());
        self.state.unclaimed(claim, send);
        self.store_memory(self.state.refresh);
    }

    /// Sets or removes the finalizer. Returns whether the API server accepted that; a refusal is remembered.
    async fn set_finalizer(&mut self, present: bool) -> Result<bool, Error> {
        let metadata = json!({ "finalizers": self.finalizers(present) });
        let Err(error) = self.patch(metadata).await else { return Ok(true) };
        let refused = Refused::of(&error).ok_or(error)?;
        let deleted = self.state.deleted.is_some();
        // If a condition reports the refusal, that condition has its own Event.
        let untold = !deleted || is_finished(&self.state.status);
        if untold && self.state.memory.refusals.finalizer.is_none() {
            let so = match (present, deleted) {
                (true, _) => "deleting the resource would not stop its run.",
                (false, true) => "the deletion of the resource waits only for that.",
                (false, false) => "only a deletion waits for that.",
            };
            self.publish(vec![refused.finalizer(reason::FINALIZER_REFUSED, present, so)]);
        }
        self.state.refused(Write::Finalizer, refused, Timestamp::now());
        self.store_memory(self.state.refresh);
        Ok(false)
    }

    /// Takes the finished resource out of the watch, and its finalizer off.
    async fn leave(&mut self, returns: Returns) -> Result<Flow, Error> {
        let (Ok(uid), Some(generation)) = (self.state.uid.parse(), self.state.generation) else {
            self.set_finalizer(false).await?;
            return Ok(Flow::End(Action::await_change()));
        };
        let label = Mark { uid, generation, returns }.to_label();
        // The resource leaves before the answer arrives.
        self.context.left.leaves(uid, is_started(&self.state.status), self.ended);
        let metadata = json!({ "finalizers": self.finalizers(false), "labels": { FINISHED: label } });
        let refused = match self.patch(metadata).await {
            Ok(written) if written.labels.as_ref().is_some_and(|labels| labels.get(FINISHED) == Some(&label)) => {
                self.store_memory(false);
                return Ok(Flow::End(Action::await_change()));
            }
            Ok(_) => {
                self.state.finalizer_set(false);
                Refused { cause: Cause::Rule, said: format!("the label {FINISHED} was dropped") }
            }
            Err(error) => {
                if error.refusal().is_some() {
                    self.context.left.is_unmarked(uid);
                }
                Refused::of(&error).ok_or(error)?
            }
        };
        // Nobody misses the label. The finalizer goes without it.
        self.context.left.is_unmarked(uid);
        tracing::debug!(refused.said, "the resource stays in the watch");
        self.state.refused(Write::Label, refused, Timestamp::now());
        self.store_memory(self.state.refresh);
        Ok(Flow::PlanAgain)
    }

    /// Reads the parts of the input that are not known yet: fields that the cache leaves out, ConfigMaps and Secrets.
    async fn read_input(&mut self) -> Result<Flow, Error> {
        let client = &self.context.shared.client;
        let room = self.connection.as_ref().map_or_else(Room::default, |live| live.room().clone());
        if self.state.spec.left_out.is_some() && !is_started(&self.state.status) {
            let Some((spec, room)) = input_objects::read_spec(client, &room, self.object).await? else {
                // The resource is gone, or another one has its name and is woken by its own change.
                return Ok(Flow::End(Action::await_change()));
            };
            self.state.spec = spec;
            self.held.push(room);
        }
        let admission = self.admission();
        let (sources, room) =
            input_objects::read(client, &room, &self.key.namespace, &self.state.spec, &admission).await?;
        self.held.extend(room);
        self.state.outcomes.input = Input::Read(Arc::new(sources));
        Ok(Flow::PlanAgain)
    }

    /// Which Secrets may be sent. Once the run has started, its Secrets are read again only to redact texts.
    fn admission(&self) -> Admission {
        if is_started(&self.state.status) {
            return Admission::default();
        }
        let api_keys = access::api_key_secrets(&self.context.shared.workspaces, &self.key.namespace);
        Admission { api_keys, labelled_only: self.context.settings.labelled_inputs }
    }

    /// Writes the result into the object that the spec names.
    async fn write_result(&mut self) -> Result<Flow, Error> {
        // The plan requests this step only if there is a result.
        let Some(wanted) = result::wanted(&self.state) else {
            return Ok(Flow::End(Action::requeue(permit::RECHECK_AFTER)));
        };
        self.state.outcomes.stored =
            result_object::write(&self.context.shared.client, self.object, &wanted, &self.context.shared.term).await;
        failpoint::reach!("failpoint-result-written");
        // Nothing was tried only if the term of this process is over.
        let tried = self.state.outcomes.stored != ResultWrite::NotTried;
        Ok(if tried { Flow::PlanAgain } else { Flow::End(Action::await_change()) })
    }

    /// Patches the metadata, provided that nobody has changed the object meanwhile.
    async fn patch(&mut self, mut metadata: serde_json::Value) -> Result<ObjectMeta, Error> {
        if !failpoint::active!("failpoint-unconditional-claim") {
            metadata["resourceVersion"] = json!(self.resource_version);
        }
        let (client, namespace, name) = (&self.context.shared.client, &self.key.namespace, self.object.name_any());
        let patched = apiserver::patch_metadata::<WorkflowExecution>(client, namespace, &name, metadata).await?;
        self.wrote(patched.resource_version.clone().unwrap_or_default());
        Ok(patched)
    }

    /// Deletes the resource, provided that it has not changed since the plan saw it.
    async fn delete(&self) -> Result<(), Error> {
        let api: Api<WorkflowExecution> = Api::namespaced(self.context.shared.client.clone(), &self.key.namespace);
        let preconditions =
            Preconditions { uid: self.object.uid(), resource_version: Some(self.resource_version.clone()) };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        call(api.delete(&self.object.name_any(), &parameters)).await?;
        tracing::debug!("deleted: spec.ttlSecondsAfterFinished has passed");
        Ok(())
    }

    fn finalizers(&self, ours: bool) -> Vec<String> {
        apiserver::finalizers(self.object.meta(), FINALIZER, ours)
    }
}
