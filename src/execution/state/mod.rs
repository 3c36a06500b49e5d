//! What is known about one execution during one pass, and how the outcome of a step adds to it.

pub mod comparison;
pub mod input;
pub mod memory;
pub mod outcomes;
pub mod ownership;
pub mod result;
pub mod workflow_ref;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{WorkflowExecution, WorkflowExecutionSpec, WorkflowExecutionStatus};
use crate::execution::claim::{CLAIM, FINALIZER, Note, Owner, TAKE_OVER};
use crate::execution::plan::finish::{Ended, tracked_by};
use crate::execution::state::input::Input;
use crate::execution::state::result::Stored;
use crate::execution::status::is_finished;
use crate::mistral::wire::Execution;
use crate::mistral::{ApiError, Error, Trouble};
use crate::platform::apiserver::written_by_us;
use crate::workspace::access::{Connection, Workspace};
pub use memory::{Instance, Memory};
pub use outcomes::failure_text;
pub use workflow_ref::{Named, Referent};

/// Everything that [`plan`](crate::execution::plan::plan) may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What was asked for.
    pub spec: WorkflowExecutionSpec,
    /// The status as last written.
    pub status: WorkflowExecutionStatus,
    /// Which resource this is.
    pub owner: Owner,
    /// UID of the resource.
    pub uid: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// When the resource was created, by the API server's clock.
    pub created: Timestamp,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// The claim on it; or the one that the API server refuses to record, and that this process goes by all the same.
    pub note: Note,
    /// The claim that is on it.
    pub recorded: Note,
    /// The version of it that the next write refers to.
    pub version: String,
    /// The resource came with a claim that speaks of another one.
    pub copied: bool,
    /// The execution id for which a person lets this resource take over another's claim.
    pub take_over: Option<String>,
    /// What this process remembers of earlier passes.
    pub memory: Memory,
    /// When the pass began: each of its questions was sent later, however long the answer took.
    pub began: Timestamp,
    /// How long this process had known of the claim's call when the pass began, by the monotonic clock: the wall clock
    /// may be set, and the machine suspended, while the call is under way.
    pub known_for: Duration,
    /// How long ago an operator wrote the claim that is on the resource, by the API server's clock; none if somebody else
    /// has changed it since, so that it may be an older one that came back.
    pub claim_age: Option<Duration>,
    /// This process.
    pub instance: Instance,
    /// The connection.
    pub workspace: Workspace,
    /// What the Workflow resource says that the spec names.
    pub referent: Referent,
    /// A connection that may still be used to stop the run, even if its Workspace or Secret is gone.
    pub stop_with: Option<Connection>,
    /// Whether to ask the API about a run that is not known to have ended.
    pub look: bool,
    /// What this process has seen of the run's end, if it has ended.
    pub ended: Option<Ended>,
    /// What keeps track of the resource and would create it again.
    pub tracked_by: Option<String>,

    /// Until when a call of another resource with the same explicit id may be under way.
    pub rival: Option<Timestamp>,
    /// The claim was written in this pass, so its call may be sent in it.
    pub fresh: bool,
    /// The answer to the call that starts the run.
    pub sent: Sent,
    /// It was waited for whether the run that was just accepted ends at once.
    pub lingered: bool,
    /// What the API knows of the run.
    pub remote: Remote,
    /// Whether what is to be run exists.
    pub target: Target,
    /// What the spec wants from ConfigMaps and Secrets.
    pub input: Input,
    /// The text of a failure.
    pub failure: FailureText,
    /// What became of the result that goes to an object.
    pub stored: Stored,
    /// The answer to a stop.
    pub stopped: Option<Result<(), Error>>,
    /// Whether the run that was found is what the spec asks for.
    pub comparison: Comparison,
}

/// What the API knows of the run: not known is not the same as not there.
#[derive(Clone, Debug, PartialEq)]
pub enum Remote {
    /// Not asked in this pass.
    NotAsked,
    /// It exists.
    Found(Box<Execution>),
    /// The API says that there is none.
    Absent,
    /// There was no answer that tells.
    Unknown(Trouble),
}

/// Whether a run that was found under an explicit id is what the spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// Not compared in this pass.
    NotTried,
    /// It is.
    Same,
    /// It is a run of this other workflow.
    OtherWorkflow(String),
    /// Its input differs, here.
    OtherInput(String),
    /// Its input is not known, and why.
    Unknown(String),
}

/// Whether the workflow or registration to be run exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Not asked in this pass.
    NotAsked,
    /// It exists.
    Exists,
    /// It does not.
    Absent,
    /// There was no answer that tells.
    Unknown(Trouble),
}

/// What became of the call that starts the run.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// Nothing was sent in this pass.
    Nothing,
    /// The claim had grown too old to send on it.
    TooLate,
    /// The run exists.
    Accepted(Box<Execution>),
    /// A run of this id exists and has not ended.
    AlreadyStarted,
    /// Nothing was started, and the same call will fare no better until something changes.
    Refused(Refusal),
    /// Nothing was started; later may be better.
    NotStarted(Trouble),
    /// Something may have been started.
    Unknown(Trouble),
}

/// Why the API refused to start a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// No such workflow or registration.
    TargetNotFound(ApiError),
    /// Several deployments own the workflow.
    Ambiguous(ApiError),
    /// The input, or something else in the request, is wrong for good (HTTP 422).
    Input(ApiError),
    /// Any other refusal.
    Other(ApiError),
}

/// The text of a failure.
#[derive(Clone, Debug, PartialEq)]
pub enum FailureText {
    /// Not asked in this pass.
    NotAsked,
    /// What the events say, if anything.
    Read(Option<String>),
}

/// How to stop a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCall {
    /// Ask it to.
    Cancel,
    /// End it.
    Terminate,
}

/// What the other resources here say that this one names.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The connection.
    pub workspace: Workspace,
    /// A connection that may still be used to stop the run.
    pub stop_with: Option<Connection>,
    /// The Workflow.
    pub referent: Referent,
}

impl Observed {
    /// What a resource says by itself, before any step.
    pub fn new(
        object: &WorkflowExecution,
        cluster: &str,
        instance: Instance,
        memory: Memory,
        surroundings: Surroundings,
        look: bool,
        now: Timestamp,
    ) -> Self {
        let Surroundings { workspace, stop_with, referent } = surroundings;
        let meta = &object.metadata;
        let recorded = Note::read(meta.annotations.as_ref());
        let owner = Owner {
            cluster: cluster.to_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        let mut observed = Self {
            spec: object.spec.clone(),
            status: object.status.clone().unwrap_or_default(),
            owner,
            uid: object.uid().unwrap_or_default(),
            generation: meta.generation,
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            deleted: meta.deletion_timestamp.as_ref().map(|time| time.0),
            finalizer: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            copied: false,
            note: memory.refusals.note(&recorded),
            recorded,
            version: object.resource_version().unwrap_or_default(),
            take_over: object.annotations().get(TAKE_OVER).cloned(),
            memory,
            began: now,
            known_for: Duration::ZERO,
            claim_age: None,
            instance,
            workspace,
            referent,
            stop_with,
            look,
            ended: None,
            tracked_by: tracked_by(meta),
            rival: None,
            fresh: false,
            sent: Sent::Nothing,
            lingered: false,
            remote: Remote::NotAsked,
            target: Target::NotAsked,
            input: Input::NotRead,
            failure: FailureText::NotAsked,
            stored: Stored::NotTried,
            stopped: None,
            comparison: Comparison::NotTried,
        };
        observed.claim_age = observed.age_of_claim(written_by_us(meta.managed_fields.iter().flatten(), CLAIM));
        observed.copied = matches!(&observed.recorded, Note::Claim(claim) if observed.is_void(claim));
        observed.learn();
        observed.known_for = observed.memory.claim.as_ref().map_or(Duration::ZERO, |known| known.first.elapsed());
        observed
    }

    /// Remembers the claim on the resource: should an older one come back, this process knows of the newer.
    fn learn(&mut self) {
        if let Note::Claim(claim) = &self.note
            && claim.owner == self.owner
            && !self.is_of_another_life(claim)
            && !self.is_void(claim)
            // Of most that had ended before this process began, there is nothing to remember.
            && (self.memory.claim.is_some() || !is_finished(&self.status))
        {
            self.memory.claim = Some(Box::new(self.known(claim)));
        }
    }
}
