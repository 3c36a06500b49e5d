//! The claim: the annotation on a resource that says that a run of it may exist.
//!
//! The operator writes the claim before the call that starts the run, conditional on the resource version. So the claim
//! survives a crash, a failover, and a restore that drops the status. If two operators want to start the same run, only
//! one of them gets to write it.

pub mod reservations;
pub mod timing;
pub mod unlisted;

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::api::WorkflowExecutionSpec;
use crate::api::values::Kind;
use crate::clock::{CLOCK_SKEW, later};
use crate::json::Json;

pub(crate) use timing::{CALL, DOUBT, SENT_TO_SHOWN};
pub use timing::{SEND_WITHIN, VISIBILITY};

/// The annotation that holds the claim.
pub const CLAIM: &str = "workflows.mistral.ai/claim";
/// The annotation by which a person lets this resource own a run that another resource claimed. Its value is the
/// execution id, so that a copied consent does not cover another run.
pub const TAKE_OVER: &str = "workflows.mistral.ai/take-over";
/// The finalizer that lets the operator stop a run before its resource goes.
pub const FINALIZER: &str = "workflows.mistral.ai/stop-run";

/// The version of the claim format that this operator writes and understands.
const VERSION: u32 = 1;
/// States that a run with this id may exist, and on whose behalf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The version of the format.
    pub version: u32,
    /// The id of the run at the API.
    pub execution_id: String,
    /// 1 for the first call, incremented for each further one.
    pub attempt: u32,
    /// Incremented with each write of the annotation. It exposes an old claim that comes back over a newer one.
    #[serde(default)]
    pub revision: u32,
    /// The operator process that claimed.
    pub claimant: String,
    /// When the call was claimed. A run that began earlier was not started by this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The claimant sends the call before this moment or not at all.
    pub send_before: Timestamp,
    /// Scheme, host and port that the call goes to.
    pub origin: String,
    /// The Mistral workspace, if the API names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The resource that the claim speaks of.
    pub owner: Owner,
    /// UID of the resource that the claim was written on. Another UID comes with a backup or an export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Fingerprint of what is started. It reveals an edit that slipped through.
    pub digest: String,
    /// The objects that the input was read from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputVersion>,
    /// The call of this attempt was definitely refused or never sent, so it left no run behind.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// The claim is read-only: the run was found, not started by this resource. It is never stopped or repeated.
    #[serde(default, rename = "reading", skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// When the operator decided to stop the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_since: Option<Timestamp>,
    /// Why the run is stopped, unless it is for a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_for: Option<StopFor>,
}

/// What a process remembers of the newest claim that it has written or seen, to restore that claim if it is lost. The
/// rest is known from the resource.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimBackup {
    /// See [`Claim::execution_id`]. None if it is the id derived from the resource.
    pub execution_id: Option<String>,
    /// See [`Claim::attempt`].
    pub attempt: u32,
    /// See [`Claim::revision`].
    pub revision: u32,
    /// See [`Claim::since`].
    pub since: Option<Timestamp>,
    /// See [`Claim::send_before`]. It distinguishes one call from another.
    pub send_before: Timestamp,
    /// When this process first knew of that call.
    pub first: Instant,
    /// Whether this process made the claim, so that it knows of every earlier call.
    pub own: bool,
    /// Whether this process has seen that the call started nothing. A claim that says so may have been edited by hand.
    pub refused: bool,
    /// See [`Claim::digest`].
    pub digest: String,
    /// See [`Claim::inputs`].
    pub inputs: Vec<InputVersion>,
    /// See [`Claim::read_only`].
    pub read_only: bool,
    /// See [`Claim::stop_since`].
    pub stop_since: Option<Timestamp>,
    /// See [`Claim::stop_for`].
    pub stop_for: Option<StopFor>,
}

impl ClaimBackup {
    /// The memory of a claim. `derived` is the id that the run would have without the claim.
    pub fn of(claim: &Claim, derived: &str) -> Self {
        Self {
            execution_id: (claim.execution_id != derived).then(|| claim.execution_id.clone()),
            attempt: claim.attempt,
            revision: claim.revision,
            since: claim.since,
            send_before: claim.send_before,
            first: Instant::now(),
            own: false,
            refused: false,
            digest: claim.digest.clone(),
            inputs: claim.inputs.clone(),
            read_only: claim.read_only,
            stop_since: claim.stop_since,
            stop_for: claim.stop_for,
        }
    }

    /// The same claim, if the call of this one was sent later: what it says stays, and its call is in doubt again.
    pub fn with_call_of(&self, claim: &Claim) -> Self {
        Self {
            attempt: self.attempt.max(claim.attempt),
            since: self.since.min(claim.since),
            send_before: claim.send_before,
            first: Instant::now(),
            own: false,
            refused: false,
            ..self.clone()
        }
    }
}

/// Why a run is stopped while its resource stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopFor {
    /// `spec.shutdown` asks for it.
    Shutdown,
    /// `spec.activeDeadlineSeconds` has passed.
    Deadline,
}

/// A resource, distinguished from its copies in other clusters and namespaces and under other names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    /// UID of the namespace `kube-system`.
    pub cluster: String,
    pub namespace: String,
    pub name: String,
}

/// A ConfigMap or Secret as it was when the input was read from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputVersion {
    /// ConfigMap or Secret.
    pub kind: Kind,
    pub name: String,
    /// Distinguishes the object from earlier and later ones with the same name.
    pub uid: String,
    /// Changes with each change of the object.
    pub resource_version: String,
}

/// What the claim annotation of a resource says.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimAnnotation {
    Absent,
    /// A claim of the version that this operator writes.
    Claim(Box<Claim>),
    /// Something else: written by a newer operator, or by hand.
    Unreadable,
}

impl ClaimAnnotation {
    /// Reads the annotation.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let Some(text) = annotations.and_then(|annotations| annotations.get(CLAIM)) else {
            return Self::Absent;
        };
        match serde_json::from_str::<Claim>(text) {
            Ok(claim) if claim.version == VERSION && is_execution_id(&claim.execution_id) => {
                Self::Claim(Box::new(claim))
            }
            _ => Self::Unreadable,
        }
    }
}

impl Claim {
    /// A claim whose call may be sent for the next [`SEND_WITHIN`].
    pub fn new(
        execution_id: String,
        attempt: u32,
        by: Claimant<'_>,
        owner: Owner,
        digest: String,
        now: Timestamp,
    ) -> Self {
        let Claimant { instance, origin, workspace_id } = by;
        Self {
            version: VERSION,
            execution_id,
            attempt,
            revision: 0,
            claimant: instance.to_owned(),
            since: Some(now),
            send_before: later(now, SEND_WITHIN),
            origin: origin.to_owned(),
            workspace_id: workspace_id.map(str::to_owned),
            owner,
            uid: None,
            digest,
            inputs: Vec::new(),
            refused: false,
            read_only: false,
            stop_since: None,
            stop_for: None,
        }
    }

    /// The time from which a 404 proves that this claim's call started nothing: the latest moment to send, plus the
    /// longest call, the longest time until a run shows, and the clock skew.
    pub fn outcome_known_by(&self) -> Timestamp {
        if self.refused { Timestamp::MIN } else { later(self.send_before, SENT_TO_SHOWN) }
    }

    /// Whether a run with this start cannot be the one that this claim's call started.
    pub fn is_younger_than(&self, start: Timestamp) -> bool {
        self.since.is_some_and(|since| later(start, CLOCK_SKEW) < since)
    }

    /// Whether the claim is for this Mistral workspace. If the API no longer names the workspace, a run that has
    /// started is still polled, but nothing is started on a guess.
    pub fn is_for(&self, origin: &str, workspace_id: Option<&str>, started: bool) -> bool {
        let same_workspace = match (self.workspace_id.as_deref(), workspace_id) {
            (Some(claimed), Some(present)) => claimed == present,
            (Some(_), None) => started,
            (None, _) => true,
        };
        self.origin == origin && same_workspace
    }

    /// The claim as the value of the annotation.
    pub fn to_annotation(&self) -> String {
        json!(self).to_string()
    }
}

/// The time from which no call claimed before `now` can be in flight.
pub fn doubt_of_earlier_calls(now: Timestamp) -> Timestamp {
    later(now, DOUBT)
}

/// Who claims, and for which Mistral workspace.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The operator process.
    pub instance: &'a str,
    /// Scheme, host and port of the API.
    pub origin: &'a str,
    /// The Mistral workspace, if the API names it.
    pub workspace_id: Option<&'a str>,
}

/// Fingerprint of everything that decides what a run does.
pub fn digest(spec: &WorkflowExecutionSpec) -> String {
    if let Some(left_out) = &spec.left_out {
        return left_out.digest.clone();
    }
    // The API server hands out objects with sorted keys, so equal inputs have equal texts.
    let normal = |json: &Option<Json>| json.as_ref().map_or_else(|| "null".to_owned(), Json::normal);
    let mut what = vec![
        json!(spec.workflow_identifier).to_string(),
        json!(spec.registration_id).to_string(),
        json!(spec.deployment_name).to_string(),
        normal(&spec.input),
        json!(spec.custom_tracing_attributes).to_string(),
        normal(&spec.extensions),
    ];
    // Claims from before `workflowRef` existed keep their fingerprint.
    what.extend(spec.workflow_ref.as_ref().map(|named| json!(named).to_string()));
    what.extend(spec.input_from.as_ref().map(|inputs| json!(inputs).to_string()));
    let hash = Sha256::digest(format!("[{}]", what.join(",")));
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the API accepts this as an execution id. The API server does not check annotations.
fn is_execution_id(id: &str) -> bool {
    (1..=256).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The id of a run whose resource names none. It is readable, and new for each resource that is created.
pub fn derived_id(name: &str, uid: &str) -> String {
    let name: String = name
        .chars()
        .take(150)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    format!("{name}-{uid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_id_is_within_the_apis_charset_and_length() {
        let id = derived_id(&"a.b".repeat(84), "01234567-89ab-cdef-0123-456789abcdef");
        assert!(id.len() <= 240, "{}", id.len());
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        assert!(id.starts_with("a-ba-b"));
    }

    #[test]
    fn the_charts_policy_refuses_no_execution_that_could_be_claimed() {
        let policy = include_str!("../../../charts/mistral-workflows-operator/templates/admissionpolicy.yaml");
        let (_, rest) = policy.split_once("sum() <= ").unwrap();
        let limit: usize = rest.lines().next().unwrap().parse().unwrap();
        let uid = "01234567-89ab-cdef-0123-456789abcdef";
        let owner = Owner { cluster: uid.into(), namespace: "n".into(), name: "x".into() };
        let by = Claimant { instance: "", origin: "http://a", workspace_id: None };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        // An explicit id may be shorter than a derived one.
        let shortest = Claim::new("i".into(), 1, by, owner, "0".repeat(32), now);
        let shortest = Claim { uid: Some(uid.into()), ..shortest };
        let all = CLAIM.len() + shortest.to_annotation().len();
        assert!(limit + all >= 256 * 1024, "a claim takes {all} bytes, and {limit} are allowed beside it");
    }

    #[test]
    fn the_format_of_a_claim_stays_as_earlier_versions_wrote_it() {
        let owner = Owner { cluster: "c".into(), namespace: "n".into(), name: "x".into() };
        let by = Claimant { instance: "i", origin: "http://a", workspace_id: Some("w") };
        let claim = Claim::new("id".into(), 2, by, owner, "d".into(), Timestamp::UNIX_EPOCH);
        let claim = Claim { uid: Some("u".into()), refused: true, read_only: true, ..claim };
        let written: serde_json::Value = serde_json::from_str(&claim.to_annotation()).unwrap();
        let fields: Vec<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "attempt",
            "claimant",
            "digest",
            "executionId",
            "origin",
            "owner",
            "reading",
            "refused",
            "sendBefore",
            "since",
            "uid",
            "version",
            "workspaceId",
        ];
        assert_eq!(fields.iter().filter(|field| **field != "revision").copied().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_claim_of_another_version_is_not_understood() {
        let annotations = |text: &str| Some(BTreeMap::from([(CLAIM.to_owned(), text.to_owned())]));
        assert_eq!(ClaimAnnotation::read(annotations("{}").as_ref()), ClaimAnnotation::Unreadable);
        assert_eq!(ClaimAnnotation::read(None), ClaimAnnotation::Absent);
        let owner = Owner { cluster: "c".into(), namespace: "n".into(), name: "x".into() };
        let by = Claimant { instance: "i", origin: "https://api.mistral.ai", workspace_id: None };
        let mut claim = Claim::new("id".into(), 1, by, owner, "d".into(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            ClaimAnnotation::read(annotations(&claim.to_annotation()).as_ref()),
            ClaimAnnotation::Claim(Box::new(claim.clone()))
        );
        claim.execution_id = "../workers".into();
        assert_eq!(ClaimAnnotation::read(annotations(&claim.to_annotation()).as_ref()), ClaimAnnotation::Unreadable);
        claim.execution_id = "id".into();
        claim.version = 2;
        assert_eq!(ClaimAnnotation::read(annotations(&claim.to_annotation()).as_ref()), ClaimAnnotation::Unreadable);
    }
}
