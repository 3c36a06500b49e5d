//! The API server's record of each resource, including deleted resources.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::poison::{self, CLAIM, LATER, Poison};
use super::refusals::{REFUSE, WHILE_STRICT};
use super::told::Told;

/// Keeps a resource until its run has been stopped.
const FINALIZER: &str = "workflows.mistral.ai/stop-run";

/// One resource from its creation to its end.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Seen {
    /// Its name. An earlier resource may have had the same name.
    pub name: String,
    pub namespace: String,
    /// As last seen.
    pub labels: BTreeMap<String, String>,
    pub uid: String,
    /// The resource version of the other fields. The API server counts up.
    pub version: u64,
    /// As last seen.
    pub spec: Value,
    /// As last seen.
    pub status: Value,
    /// When the API server created it.
    pub created: Option<Timestamp>,
    /// It has had a claim that is not read-only.
    pub claimed: bool,
    /// The process that wrote its last claim.
    pub claimant: String,
    /// At some time, the API server refused writes of the operator.
    pub refused: bool,
    /// At some time, nothing about the resource forbade its start.
    pub free: bool,
    /// When its status was first seen to report the end of the run.
    pub finished_at: Option<Timestamp>,
    /// When `spec.shutdown` was first set to each value.
    pub shutdowns: BTreeMap<String, Timestamp>,
    /// Its status has reported the start of the run.
    pub started: bool,
    /// Someone other than the operator has deleted it, or is about to.
    pub unwanted: bool,
    /// Its deletion was requested.
    pub deleted: bool,
    /// It no longer exists.
    pub gone: bool,
    /// When it was first seen to be gone.
    pub gone_at: Option<Timestamp>,
    /// The API server deleted it despite the operator's finalizer, which was added while the deletion was in progress.
    pub overtaken: bool,
    /// It disappeared while the watch was interrupted, so its record is incomplete.
    pub vanished: bool,
}

impl Seen {
    /// Whether the resource belongs to this execution id.
    pub fn is_of(&self, id: &str) -> bool {
        match self.spec["executionId"].as_str() {
            Some(explicit) => explicit == id,
            // Every form of derived id ends with the UID, which only this resource has.
            None => id.ends_with(&self.uid),
        }
    }

    /// Whether this condition is true.
    pub fn is_true(&self, condition: &str) -> bool {
        let all = self.status["conditions"].as_array();
        all.is_some_and(|all| all.iter().any(|one| one["type"] == condition && one["status"] == "True"))
    }

    /// Whether the status has this condition with this reason.
    pub fn has_reason(&self, condition: &str, reason: &str) -> bool {
        let all = self.status["conditions"].as_array();
        all.is_some_and(|all| all.iter().any(|one| one["type"] == condition && one["reason"] == reason))
    }

    /// Whether something holds back the start permanently.
    pub fn is_held_back(&self) -> bool {
        let ends = ["shutdown", "startingDeadlineSeconds"].into_iter().any(|field| !self.spec[field].is_null());
        let suspended = self.spec["suspend"] == json!(true) && !ends;
        let odd = self.spec["deletionPolicy"] == LATER || self.is_poison(Poison::OddClaim);
        (suspended || odd || self.refuses("claim")) && !self.claimed
    }

    /// Whether the resource is poison of this kind.
    pub fn is_poison(&self, kind: Poison) -> bool {
        self.labels.get(poison::LABEL).is_some_and(|name| name == kind.name())
    }

    /// Whether the API server permanently refuses these writes of the operator.
    pub fn refuses(&self, what: &str) -> bool {
        let refused = self.labels.get(REFUSE).is_some_and(|refused| refused == what || refused == "all");
        refused && !self.labels.contains_key(WHILE_STRICT)
    }

    /// Whether the operator deletes the resource after its end.
    pub fn has_time_to_live(&self) -> bool {
        !self.spec["ttlSecondsAfterFinished"].is_null()
    }

    /// A number of seconds in the spec, if it is set.
    pub fn seconds(&self, field: &str) -> Option<i64> {
        self.spec[field].as_i64()
    }

    /// Whether the status reports the end of the run.
    pub fn is_finished(&self) -> bool {
        self.is_true("Complete") || self.is_true("Failed")
    }
}

/// The record, by UID. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Record {
    all: Arc<Mutex<BTreeMap<String, Seen>>>,
}

impl Record {
    /// All resources that were ever seen.
    pub fn all(&self) -> Vec<Seen> {
        self.lock().values().cloned().collect()
    }

    /// The resource of this UID.
    pub fn get(&self, uid: &str) -> Seen {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Records the present state of a resource.
    pub fn note(&self, object: &Told) {
        let Some(uid) = object.uid() else { return };
        let mut all = self.lock();
        let seen = all.entry(uid.clone()).or_default();
        // A long list may arrive late. Changes that the watch has brought in the meantime are newer.
        let version = object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
        if version < seen.version {
            return;
        }
        seen.version = version;
        seen.name = object.name_any();
        seen.namespace = object.namespace().unwrap_or_default();
        seen.labels = object.labels().clone();
        seen.uid = uid;
        seen.spec = object.data["spec"].clone();
        seen.status = object.data["status"].clone();
        seen.created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        seen.refused |= seen.labels.contains_key(REFUSE);
        seen.free |= seen.spec["suspend"] != json!(true)
            && seen.spec["shutdown"].is_null()
            && seen.spec["deletionPolicy"] != LATER
            && !seen.is_poison(Poison::OddClaim);
        if let Some(how) = seen.spec["shutdown"].as_str() {
            seen.shutdowns.entry(how.to_owned()).or_insert_with(Timestamp::now);
        }
        seen.deleted |= object.metadata.deletion_timestamp.is_some();
        let claim = object.annotations().get(CLAIM).and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(claim) = claim {
            seen.claimed |= claim["reading"] != json!(true);
            seen.claimant = claim["claimant"].as_str().unwrap_or_default().to_owned();
        }
        seen.started |= seen.is_true("Started");
        if seen.is_finished() {
            seen.finished_at.get_or_insert_with(Timestamp::now);
        }
    }

    /// The number of resources of each kind of poison.
    pub fn poison(&self) -> BTreeMap<&'static str, u64> {
        let all = self.lock();
        let of = |kind: &Poison| all.values().filter(|seen| seen.is_poison(*kind)).count() as u64;
        Poison::ALL.iter().map(|kind| (kind.name(), of(kind))).collect()
    }

    /// Records that the resource of this name is about to be deleted.
    pub fn unwanted(&self, name: &str) {
        self.lock().values_mut().filter(|seen| seen.name == name && !seen.gone).for_each(|seen| seen.unwanted = true);
    }

    /// Whether two resources share an explicit id and one of them may still be started.
    pub fn has_undecided_twins(&self) -> bool {
        let all = self.lock();
        let present = all.values().filter(|seen| !seen.gone && seen.spec["executionId"].is_string());
        let mut by_id: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
        for seen in present {
            by_id.entry(seen.spec["executionId"].as_str().unwrap_or_default()).or_default().push(seen);
        }
        by_id.values().any(|twins| twins.len() > 1 && !twins.iter().all(|seen| seen.started || seen.is_finished()))
    }

    /// Records that `spec.shutdown` is about to be set to this value.
    pub fn asked(&self, uid: &str, how: &str) {
        if let Some(seen) = self.lock().get_mut(uid) {
            seen.shutdowns.entry(how.to_owned()).or_insert_with(Timestamp::now);
        }
    }

    fn gone(&self, uid: &str, unseen: bool) {
        if let Some(seen) = self.lock().get_mut(uid) {
            seen.gone_at.get_or_insert_with(Timestamp::now);
            seen.vanished |= unseen && !seen.deleted;
            (seen.deleted, seen.gone) = (true, true);
        }
    }

    /// Watches until dropped.
    pub async fn keep(self, api: Api<Told>) {
        let mut changes = pin!(watcher(api, watcher::Config::default()));
        // Resources that were known when a list began and have not appeared in it.
        let mut missing = BTreeSet::new();
        while let Some(change) = changes.next().await {
            match change {
                Ok(Event::Init) => missing = self.lock().keys().cloned().collect(),
                Ok(Event::InitApply(object)) => {
                    missing.remove(&object.uid().unwrap_or_default());
                    self.note(&object);
                }
                Ok(Event::InitDone) => missing.iter().for_each(|uid| self.gone(uid, true)),
                Ok(Event::Apply(object)) => self.note(&object),
                Ok(Event::Delete(object)) => {
                    self.note(&object);
                    let uid = object.uid().unwrap_or_default();
                    self.gone(&uid, false);
                    // With a finalizer, the deletion would have waited, and the resource would have a deletion
                    // timestamp. (The last state of a resource that did wait also has the finalizer: the API server
                    // sends the state before its end.)
                    let waited = object.metadata.deletion_timestamp.is_some();
                    let overtaken = !waited && object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
                    if let Some(seen) = self.lock().get_mut(&uid) {
                        seen.overtaken = overtaken;
                    }
                }
                // Retry soon: changes in the meantime are missed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_comes_late_does_not_take_back_what_the_watch_has_told() {
        let object = |version: &str, status: &str| -> Told {
            let conditions = json!([{ "type": "Complete", "status": status }]);
            let metadata = json!({ "name": "run-1", "uid": "u-1", "resourceVersion": version });
            let object = json!({ "metadata": metadata, "spec": {}, "status": { "conditions": conditions } });
            serde_json::from_value(object).unwrap()
        };
        let record = Record::default();
        record.note(&object("99", "False"));
        record.note(&object("101", "True"));
        record.note(&object("100", "False"));
        assert!(record.get("u-1").is_finished());
    }
}
