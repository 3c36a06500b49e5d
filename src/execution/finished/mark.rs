//! The label on a finished execution that has left the watch.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

use crate::execution::claim::{ClaimAnnotation, FINALIZER};
use crate::execution::state::tracked::tracked_by;

/// The label by which the watch leaves out a finished execution. Its value is a [`Mark`].
pub const FINISHED: &str = "workflows.mistral.ai/finished";
/// How a mark says that only a tool keeps the resource.
const TRACKED: &str = "tracked";

/// What the label says: that this very resource, in this generation, needs nothing more until it comes back.
///
/// A label goes wherever its resource is copied to. So it names the resource by UID: what a backup or an export creates
/// anew has another one, and is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The UID of the resource that has finished.
    pub uid: Uuid,
    /// The generation whose end the status reports.
    pub generation: i64,
    /// When the operator has something to do again.
    pub returns: Returns,
}

/// When a finished resource comes back into the watch, if nobody edits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Not at all.
    Never,
    /// When `ttlSecondsAfterFinished` passes.
    At(Timestamp),
    /// `ttlSecondsAfterFinished` has passed, but a tool would create the resource again: once it no longer would.
    WhenUntracked,
}

impl Mark {
    /// The label's value: at most 63 letters, digits, dots and hyphens.
    pub fn to_label(self) -> String {
        let Self { uid, generation, returns } = self;
        match returns {
            Returns::Never => format!("{uid}.{generation}"),
            Returns::At(time) => format!("{uid}.{generation}.{}", time.as_second()),
            Returns::WhenUntracked => format!("{uid}.{generation}.{TRACKED}"),
        }
    }

    /// Reads a label's value.
    fn read(label: &str) -> Option<Self> {
        let mut parts = label.splitn(3, '.');
        let uid = parts.next()?.parse().ok()?;
        let generation = parts.next()?.parse().ok()?;
        let returns = match parts.next() {
            None => Returns::Never,
            Some(TRACKED) => Returns::WhenUntracked,
            Some(seconds) => Returns::At(Timestamp::from_second(seconds.parse().ok()?).ok()?),
        };
        Some(Self { uid, generation, returns })
    }

    /// The mark on a resource. None if there is none, or if it cannot be believed: it was made for another resource or
    /// an earlier generation; the operator's finalizer is there, which goes before the mark comes; or the claim's call
    /// may still be in flight.
    pub fn of(metadata: &ObjectMeta, now: Timestamp) -> Option<Self> {
        let mark = Self::read(metadata.labels.as_ref()?.get(FINISHED)?)?;
        let is_in_doubt = matches!(
            ClaimAnnotation::read(metadata.annotations.as_ref()),
            ClaimAnnotation::Claim(claim) if claim.outcome_known_by() > now
        );
        let uid: Uuid = metadata.uid.as_deref()?.parse().ok()?;
        let is_own = mark.uid == uid && Some(mark.generation) == metadata.generation;
        (is_own && !is_held(metadata) && !is_in_doubt).then_some(mark)
    }

    /// When the resource comes back; none if that is for an edit to decide.
    pub fn due(self, metadata: &ObjectMeta) -> Option<Timestamp> {
        match self.returns {
            Returns::Never => None,
            Returns::At(time) => Some(time),
            Returns::WhenUntracked => tracked_by(metadata).is_none().then_some(Timestamp::MIN),
        }
    }
}

/// Whether the operator's finalizer is on a resource.
pub fn is_held(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::execution::claim::CLAIM;

    const UID: &str = "7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b";

    fn now() -> Timestamp {
        Timestamp::from_second(1_900_000_000).unwrap()
    }

    fn marked(label: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(UID.into()),
            generation: Some(2),
            labels: Some(BTreeMap::from([(FINISHED.into(), label.into())])),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_mark_that_is_written_and_read_again_is_the_same_and_is_a_valid_label() {
        for returns in [Returns::Never, Returns::At(now()), Returns::WhenUntracked] {
            let mark = Mark { uid: UID.parse().unwrap(), generation: 2, returns };
            let label = mark.to_label();
            let is_valid = label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
            assert!(is_valid, "{label}");
            assert_eq!(Mark::of(&marked(&label), now()), Some(mark));
        }
    }

    #[test]
    fn a_mark_of_another_resource_or_generation_or_beside_the_finalizer_is_not_believed() {
        let good = format!("{UID}.2");
        assert!(Mark::of(&marked(&good), now()).is_some());
        let other = UID.replace('7', "8");
        let soon = format!("{UID}.2.soon");
        for wrong in [&format!("{other}.2"), &format!("{UID}.1"), UID, &soon, "kept", ""] {
            assert_eq!(Mark::of(&marked(wrong), now()), None, "{wrong}");
        }
        let held = ObjectMeta { finalizers: Some(vec![FINALIZER.into()]), ..marked(&good) };
        assert_eq!(Mark::of(&held, now()), None);
        assert_eq!(Mark::of(&ObjectMeta { labels: None, ..marked(&good) }, now()), None);
    }

    #[test]
    fn a_mark_beside_a_claim_whose_call_may_be_in_flight_is_not_believed() {
        let claim = json!({
            "version": 1, "executionId": "run", "attempt": 1, "claimant": "i", "sendBefore": now(), "origin": "https://api",
            "owner": { "cluster": "c", "namespace": "n", "name": "run" }, "digest": "d",
        });
        let annotations = Some(BTreeMap::from([(CLAIM.to_owned(), claim.to_string())]));
        let metadata = ObjectMeta { annotations, ..marked(&format!("{UID}.2")) };
        assert_eq!(Mark::of(&metadata, now()), None);
        let later = Timestamp::from_second(1_900_000_090).unwrap();
        assert!(Mark::of(&metadata, later).is_some());
    }

    #[test]
    fn what_only_a_tool_keeps_comes_back_once_the_tool_lets_go() {
        let mark = Mark { uid: UID.parse().unwrap(), generation: 2, returns: Returns::WhenUntracked };
        let mut metadata = marked(&mark.to_label());
        assert_eq!(mark.due(&metadata), Some(Timestamp::MIN));
        metadata.labels.get_or_insert_default().insert("kustomize.toolkit.fluxcd.io/name".into(), "team".into());
        assert_eq!(mark.due(&metadata), None);
    }
}
