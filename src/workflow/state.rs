//! What is known about one workflow during one reconcile, and how the outcome of a step adds to it.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use super::contest::Contests;
use super::fields::{self, Field};
use super::versions::Versions;
use crate::api::conditions::{self, READY};
use crate::api::reasons::workflow as reason;
use crate::api::{Workflow as Resource, WorkflowSpec, WorkflowStatus};
use crate::mistral::wire::Workflow;
use crate::mistral::{Error, Trouble, TroubleKind};
use crate::platform::requeue::{Refusal, Requeue, Retries};
use crate::workspace::access::{ConnectionInfo, Workspace};

/// The finalizer that lets the operator archive a workflow before its resource goes.
pub const FINALIZER: &str = "workflows.mistral.ai/archive";

/// Names that are also routes of the API: `GET /v1/workflows/runs` lists runs. Workflows with such a name are found by
/// list and addressed by UUID.
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
/// Everything that [`plan`](super::plan::plan) may read.
#[derive(Clone, Debug)]
pub struct WorkflowState {
    pub spec: WorkflowSpec,
    /// The status as last written.
    pub status: WorkflowStatus,
    /// Name or UUID of the workflow.
    pub identifier: String,
    /// UID of the resource.
    pub uid: String,
    pub generation: Option<i64>,
    pub created: Timestamp,
    /// When its deletion was requested, or since when this process leads if that is later: the deletion's limit does not
    /// count the time without an operator.
    pub deleted: Option<Timestamp>,
    /// Whether the resource has our finalizer.
    pub finalizer: bool,
    /// The resource version for the next conditional write.
    pub version: String,
    /// What this process remembers of earlier reconciles.
    pub memory: Memory,
    pub workspace: Workspace,
    /// A connection that may still be used to archive, even if its Workspace or Secret is gone.
    pub stop_with: Option<ConnectionInfo>,
    /// Whether to refresh from the API even if nothing seems to have changed.
    pub refresh: bool,

    /// Where API calls find the workflow: under its UUID if its name is a route.
    pub address: Address,
    pub remote: Remote,
    pub registrations: Registrations,
    /// What this reconcile has changed at the API.
    pub change: Change,
    /// What the status says about the workflow cannot be relied on.
    pub doubtful: bool,
    /// Other Workflows of this cluster that manage the same workflow. Known only where a field may be contested.
    pub others: Vec<String>,
}

/// What this process remembers of a resource. Losing it costs calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub retries: Retries<ConnectionInfo>,
    /// Fields that were set, and how often.
    pub contests: Contests,
    /// Fields that matched the spec and are still to be set back. The status no longer shows that they matched.
    pub drifted: Vec<Field>,
    /// The registrations could not be read and are to be read again.
    pub incomplete: bool,
    /// The API server's refusal of the finalizer.
    pub finalizer_refused: Option<Box<Refusal>>,
    /// The API server's refusal of the status.
    pub status_refused: Option<Box<Refusal>>,
}

/// How to address the workflow.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// By its name or UUID.
    Direct(String),
    /// The name is a route, and the UUID is not known yet.
    NotFetched,
    /// The API lists no workflow of that name.
    Absent,
    /// The API gave no conclusive answer.
    Unknown(Trouble),
}

/// The workflow at the API: unknown is not the same as absent.
#[derive(Clone, Debug, PartialEq)]
pub enum Remote {
    /// Not read in this reconcile.
    NotFetched,
    Found(Box<Workflow>),
    /// The API says that it does not exist.
    Absent,
    /// The API gave no conclusive answer.
    Unknown(Trouble),
}

/// The versions of the workflow.
#[derive(Clone, Debug, PartialEq)]
pub enum Registrations {
    /// Not read in this reconcile.
    NotFetched,
    /// As the status shows them.
    Read(Versions),
    /// The API gave no conclusive answer: what was known stays.
    Unknown(Trouble),
}

/// The change that a reconcile has made.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    None,
    /// These fields were set.
    Made {
        fields: Vec<Field>,
        /// Their previous values.
        before: Vec<Value>,
    },
    /// The API did not set these fields.
    Failed {
        fields: Vec<Field>,
        trouble: Trouble,
    },
}

impl WorkflowState {
    /// What the resource alone shows, before any step.
    pub fn new(
        object: &Resource,
        memory: Memory,
        workspace: Workspace,
        stop_with: Option<ConnectionInfo>,
        refresh: bool,
    ) -> Self {
        let meta = &object.metadata;
        let identifier = object.spec.identifier.clone().unwrap_or_else(|| object.name_any());
        let is_route = ROUTES.contains(&identifier.as_str());
        Self {
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
            address: if is_route { Address::NotFetched } else { Address::Direct(identifier.clone()) },
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
            refresh,
            remote: Remote::NotFetched,
            registrations: Registrations::NotFetched,
            change: Change::None,
            doubtful: false,
            others: Vec::new(),
        }
    }

    /// The same for a process that leads since this time, by the API server's clock.
    #[must_use]
    pub fn led_since(self, since: Timestamp) -> Self {
        Self { deleted: self.deleted.map(|deleted| deleted.max(since)), ..self }
    }

    /// Whether a field was set of late, so that somebody may set it back.
    pub fn may_be_contested(&self) -> bool {
        !self.status.contested_fields.is_empty() || !self.memory.contests.is_empty()
    }

    /// The list was searched for a workflow whose name is a route.
    pub fn found(&mut self, outcome: Result<Option<String>, Error>) {
        self.address = match outcome {
            Ok(Some(id)) => Address::Direct(id),
            Ok(None) => Address::Absent,
            Err(error) => Address::Unknown(Trouble::from(error)),
        };
    }

    /// The API has answered a `GET` of the workflow.
    pub fn fetched(&mut self, outcome: Result<Workflow, Error>) {
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

    /// The API was asked to set `fields`. Its answer may or may not hold the changed workflow.
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
                // Only a `GET` shows whether a worker is alive.
                let active = before.active;
                self.remote = match answer {
                    Some(after) => Remote::Found(Box::new(Workflow { active: after.active.or(active), ..after })),
                    None => Remote::NotFetched,
                };
                self.change = Change::Made { fields, before: held };
            }
            Err(Error::NotFound(_)) => self.remote = Remote::Absent,
            Err(error) => self.change = Change::Failed { fields, trouble: Trouble::from(error) },
        }
    }

    /// The workflow was to be archived without a `GET` first. If the API does not know its UUID, or does not change it,
    /// a `GET` follows after all: the workflow may have been registered again, or be another's.
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

    /// Whether the status shows enough to archive the workflow without a `GET` first.
    pub fn knows_it_is_ours(&self) -> bool {
        let status = &self.status;
        let said = conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str());
        !self.doubtful
            && status.workflow_id.is_some()
            && status.shared_namespace.is_none()
            && status.technical != Some(true)
            && !matches!(said, None | Some(reason::SHARED | reason::TECHNICAL | reason::WORKFLOW_NOT_FOUND))
    }

    /// Whether the workflow's versions have to be read: not if only the resource has changed.
    pub fn lacks_registrations(&self, workflow: &Workflow) -> bool {
        self.refresh
            || self.memory.incomplete
            || self.status.registrations.is_empty()
            || self.status.workflow_id.as_deref() != Some(&workflow.id)
    }

    /// Whether the field matched the spec at the last refresh.
    pub fn had_been_set(&self, field: Field) -> bool {
        let wanted = field.wanted(&self.spec);
        let same_spec = self.status.observed_generation == self.generation;
        wanted.is_some()
            && (field.last_seen(&self.status) == wanted || (same_spec && self.memory.drifted.contains(&field)))
    }

    /// Whether the status reports this spec's value of the field as contested.
    pub fn was_contested(&self, field: Field) -> bool {
        self.status.observed_generation == self.generation
            && self.status.contested_fields.iter().any(|name| name == field.name())
    }

    /// The reconcile ends: remembers what later ones need, such as when a retry is due.
    pub fn settled(&mut self, requeue: Requeue, now: Timestamp) {
        if let Remote::Found(workflow) = &self.remote {
            let differing = fields::differing(&self.spec, workflow);
            self.memory.contests.forget_settled(&differing, now);
            self.memory.drifted = differing.into_iter().filter(|field| self.had_been_set(*field)).collect();
        }
        match &self.registrations {
            Registrations::NotFetched => {}
            Registrations::Read(_) => self.memory.incomplete = false,
            Registrations::Unknown(trouble) => self.memory.incomplete = trouble.kind == TroubleKind::Unavailable,
        }
        self.memory.retries.settled(requeue, self.workspace.connection(), self.generation, now);
    }
}
