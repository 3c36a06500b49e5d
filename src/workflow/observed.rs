//! What is known about one workflow during one pass, and how the outcome of a step adds to it.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use super::contest::Contests;
use super::fields::{self, Field};
use super::report::reason;
use super::versions::Versions;
use crate::api::conditions::{self, READY};
use crate::api::{Workflow as Resource, WorkflowSpec, WorkflowStatus};
use crate::mistral::wire::Workflow;
use crate::mistral::{Error, Trouble, TroubleKind};
use crate::platform::requeue::{Refusal, Requeue, Retries};
use crate::workspace::access::{Connection, Workspace};

/// The finalizer that lets the operator archive a workflow before its resource goes.
pub const FINALIZER: &str = "workflows.mistral.ai/archive";

/// Names that are routes of the API as well: `GET /v1/workflows/runs` lists runs. Workflows that are
/// called so are found by list and addressed by UUID.
const ROUTES: [&str; 10] = [
    "archive",
    "deployments",
    "events",
    "executions",
    "register",
    "registrations",
    "runs",
    "schedules",
    "unarchive",
    "workers",
];
/// Everything that [`plan`](super::plan::plan) may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What was asked for.
    pub spec: WorkflowSpec,
    /// The status as last written.
    pub status: WorkflowStatus,
    /// Name or UUID of the workflow.
    pub identifier: String,
    /// UID of the resource.
    pub uid: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// When the resource was created.
    pub created: Timestamp,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// The version of it that the next write refers to.
    pub version: String,
    /// What this process remembers of earlier passes.
    pub memory: Memory,
    /// The connection.
    pub workspace: Workspace,
    /// A connection that may still be used to archive, even if its Workspace or Secret is gone.
    pub stop_with: Option<Connection>,
    /// Whether to ask the API even where nothing seems to have changed.
    pub look: bool,

    /// The UUID of a workflow whose name is a route.
    pub address: Address,
    /// What the API has.
    pub remote: Remote,
    /// The workflow's versions.
    pub registrations: Registrations,
    /// What this pass has changed at the API.
    pub change: Change,
    /// What the status says of the workflow is not to be relied upon.
    pub doubtful: bool,
}

/// What this process remembers of a resource. Losing it costs calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Its retries.
    pub retries: Retries<Connection>,
    /// Fields that were set, and how often.
    pub contests: Contests,
    /// Fields that had been as the spec says and are still to be set back: the status no longer tells.
    pub drifted: Vec<Field>,
    /// The registrations could not be read and are to be read again.
    pub incomplete: bool,
    /// The finalizer that the API server refuses.
    pub finalizer_refused: Option<Box<Refusal>>,
    /// The status that the API server refuses.
    pub status_refused: Option<Box<Refusal>>,
}

/// How to address the workflow.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// By its name or UUID.
    Direct(String),
    /// The name is a route, and the UUID not known yet.
    NotAsked,
    /// The API lists no workflow of that name.
    Absent,
    /// There was no answer that tells.
    Unknown(Trouble),
}

/// What the API has: not known is not the same as not there.
#[derive(Clone, Debug, PartialEq)]
pub enum Remote {
    /// Not asked in this pass.
    NotAsked,
    /// The workflow.
    Found(Box<Workflow>),
    /// The API says that there is none.
    Absent,
    /// There was no answer that tells.
    Unknown(Trouble),
}

/// The versions of the workflow.
#[derive(Clone, Debug, PartialEq)]
pub enum Registrations {
    /// Not asked in this pass.
    NotAsked,
    /// As the status shows them.
    Read(Versions),
    /// There was no answer that tells: what was known stays.
    Unknown(Trouble),
}

/// The change that a pass has made.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// None.
    None,
    /// These fields were set.
    Made {
        /// Which.
        fields: Vec<Field>,
        /// What each held before.
        before: Vec<Value>,
    },
    /// The API did not set these fields.
    Failed {
        /// Which.
        fields: Vec<Field>,
        /// Why.
        trouble: Trouble,
    },
}

impl Observed {
    /// What a resource says by itself, before any step.
    pub fn new(
        object: &Resource,
        memory: Memory,
        workspace: Workspace,
        stop_with: Option<Connection>,
        look: bool,
    ) -> Self {
        let meta = &object.metadata;
        let identifier = object.spec.identifier.clone().unwrap_or_else(|| object.name_any());
        let is_route = ROUTES.contains(&identifier.as_str());
        Self {
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
            address: if is_route { Address::NotAsked } else { Address::Direct(identifier.clone()) },
            identifier,
            uid: object.uid().unwrap_or_default(),
            generation: meta.generation,
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            deleted: meta.deletion_timestamp.as_ref().map(|time| time.0),
            finalizer: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            version: object.resource_version().unwrap_or_default(),
            memory,
            workspace,
            stop_with,
            look,
            remote: Remote::NotAsked,
            registrations: Registrations::NotAsked,
            change: Change::None,
            doubtful: false,
        }
    }

    /// The list was searched for a workflow whose name is a route.
    pub fn found(&mut self, outcome: Result<Option<String>, Error>) {
        self.address = match outcome {
            Ok(Some(id)) => Address::Direct(id),
            Ok(None) => Address::Absent,
            Err(error) => Address::Unknown(Trouble::from(error)),
        };
    }

    /// The API was asked about the workflow.
    pub fn asked(&mut self, outcome: Result<Workflow, Error>) {
        self.remote = match outcome {
            Ok(workflow) => Remote::Found(Box::new(workflow)),
            Err(Error::NotFound(_)) => Remote::Absent,
            Err(error) => Remote::Unknown(Trouble::from(error)),
        };
    }

    /// The registrations were read.
    pub fn registrations_read(&mut self, outcome: Result<Versions, Error>) {
        self.registrations = match outcome {
            Ok(versions) => Registrations::Read(versions),
            Err(error) => Registrations::Unknown(Trouble::from(error)),
        };
    }

    /// The API was asked to set `fields`; it may or may not have told the workflow as it is then.
    pub fn changed(&mut self, fields: Vec<Field>, outcome: Result<Option<Workflow>, Error>, now: Timestamp) {
        let Remote::Found(before) = &self.remote else {
            self.archived_unseen(fields, outcome);
            return;
        };
        match outcome {
            Ok(answer) => {
                let held: Vec<Value> = fields.iter().map(|field| field.at_the_api(before)).collect();
                for (field, foreign) in fields.iter().zip(&held) {
                    let wanted = field.wanted(&self.spec).unwrap_or_default();
                    let known = self.was_contested(*field);
                    self.memory.contests.set(*field, wanted, foreign.clone(), known, now);
                }
                // Whether a worker lives is told only when the workflow is asked for.
                let active = before.active;
                self.remote = match answer {
                    Some(after) => Remote::Found(Box::new(Workflow { active: after.active.or(active), ..after })),
                    None => Remote::NotAsked,
                };
                self.change = Change::Made { fields, before: held };
            }
            Err(Error::NotFound(_)) => self.remote = Remote::Absent,
            Err(error) => self.change = Change::Failed { fields, trouble: Trouble::from(error) },
        }
    }

    /// The workflow was to be archived without being asked about. If the API does not have it under the UUID that was
    /// known, or leaves it as it is, it is asked about after all: it may have been registered anew, or be another's.
    fn archived_unseen(&mut self, fields: Vec<Field>, outcome: Result<Option<Workflow>, Error>) {
        match outcome {
            Ok(_) => {
                let before = fields.iter().map(|field| field.last_seen(&self.status).unwrap_or_default()).collect();
                self.change = Change::Made { fields, before };
            }
            Err(Error::NotFound(_) | Error::Rejected(_) | Error::Conflict(_)) => self.doubtful = true,
            Err(error) => self.change = Change::Failed { fields, trouble: Trouble::from(error) },
        }
    }

    /// Whether the status tells enough to archive the workflow without asking first.
    pub fn knows_it_is_ours(&self) -> bool {
        let status = &self.status;
        let said = conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str());
        !self.doubtful
            && status.workflow_id.is_some()
            && status.shared_namespace.is_none()
            && status.technical != Some(true)
            && !matches!(said, None | Some(reason::SHARED | reason::TECHNICAL | reason::WORKFLOW_NOT_FOUND))
    }

    /// Whether the workflow's versions have to be read: not for a change that only this side has made.
    pub fn lacks_registrations(&self, workflow: &Workflow) -> bool {
        self.look
            || self.memory.incomplete
            || self.status.registrations.is_empty()
            || self.status.workflow_id.as_deref() != Some(&workflow.id)
    }

    /// Whether the field had been as the spec says when it was last looked at.
    pub fn had_been_set(&self, field: Field) -> bool {
        let wanted = field.wanted(&self.spec);
        let same_spec = self.status.observed_generation == self.generation;
        wanted.is_some()
            && (field.last_seen(&self.status) == wanted || (same_spec && self.memory.drifted.contains(&field)))
    }

    /// Whether the status says that what this spec wants of the field is contested.
    pub fn was_contested(&self, field: Field) -> bool {
        self.status.observed_generation == self.generation
            && self.status.contested_fields.iter().any(|name| name == field.name())
    }

    /// The pass ends: what it found out about when to come back is remembered.
    pub fn settled(&mut self, requeue: Requeue, now: Timestamp) {
        if let Remote::Found(workflow) = &self.remote {
            let differing = fields::differing(&self.spec, workflow);
            self.memory.contests.forget_settled(&differing, now);
            self.memory.drifted = differing.into_iter().filter(|field| self.had_been_set(*field)).collect();
        }
        match &self.registrations {
            Registrations::NotAsked => {}
            Registrations::Read(_) => self.memory.incomplete = false,
            Registrations::Unknown(trouble) => self.memory.incomplete = trouble.kind == TroubleKind::Unavailable,
        }
        self.memory.retries.settled(requeue, self.workspace.connection(), self.generation, now);
    }
}
