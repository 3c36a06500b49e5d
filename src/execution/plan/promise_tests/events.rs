//! What can happen, as tables. The entries of a table are equally likely, so an event that occurs twice is twice as
//! likely. The first entry is what happens once nothing fails any more.
//!
//! A byte of a recorded case is an index into a table. So a table that changes its length or its order changes what the
//! recorded cases mean.

use k8s_openapi::jiff::SignedDuration;

/// Which operator reconciles: mostly the leader, at times one that still believes that it leads.
pub const RECONCILER: [usize; 4] = [0, 0, 0, 1];

/// How long nothing happens between two reconciles.
#[derive(Clone, Copy, Debug)]
pub enum Pause {
    UntilDue,
    None,
    UpToOneMinute,
    UpToFourMinutes,
}

pub const PAUSES: [Pause; 4] = [Pause::UntilDue, Pause::None, Pause::UpToOneMinute, Pause::UpToFourMinutes];

/// What people and tools do to a resource between two reconciles.
#[derive(Clone, Copy, Debug)]
pub enum Meddling {
    Nothing,
    /// `kubectl replace` from a file: the annotations go, the status stays.
    ReplaceFromFile,
    /// A restore: the status is dropped, the annotations stay. A resource that loses both has no record left.
    RestoreWithoutStatus,
    SuspendOrResume,
    AskToCancel,
    AskToTerminate,
    /// This is too late once the stop is recorded.
    WithdrawStop,
    ChangeSecret,
    /// A policy begins or ceases to refuse claims and finalizers.
    RefuseClaims,
    /// A policy begins or ceases to refuse the status.
    RefuseStatus,
    /// A clock is set wrong, and set right later.
    SetClock,
    /// `kubectl apply` of an export: an older claim comes back, the status stays.
    ReapplyOlderClaim,
    ReapplyOlderClaimWithoutStatus,
    ApplyClaimOfAnotherResource,
    /// The claim of an earlier resource of this name.
    ApplyClaimOfPredecessor,
    /// A tool restores `managedFields` from a backup, as if the API server's clock were wrong.
    RestoreManagedFields,
}

pub const MEDDLINGS: [Meddling; 16] = [
    Meddling::Nothing,
    Meddling::ReplaceFromFile,
    Meddling::RestoreWithoutStatus,
    Meddling::SuspendOrResume,
    Meddling::AskToCancel,
    Meddling::AskToTerminate,
    Meddling::WithdrawStop,
    Meddling::ChangeSecret,
    Meddling::RefuseClaims,
    Meddling::RefuseStatus,
    Meddling::SetClock,
    Meddling::ReapplyOlderClaim,
    Meddling::ReapplyOlderClaimWithoutStatus,
    Meddling::ApplyClaimOfAnotherResource,
    Meddling::ApplyClaimOfPredecessor,
    Meddling::RestoreManagedFields,
];

/// How far a clock is off once somebody has set it.
pub const CLOCK_ERRORS: [SignedDuration; 3] =
    [SignedDuration::ZERO, SignedDuration::from_hours(6), SignedDuration::from_hours(-6)];

/// What becomes of the call that starts the run.
#[derive(Clone, Copy, Debug)]
pub enum StartOutcome {
    Answered,
    /// The call takes effect, and the operator does not hear of it.
    AnswerLost,
    RequestLost,
    /// The call is in flight for as long as a call may take, and takes effect after the operator has given it up.
    Delayed,
    Transient,
    KeyRefused,
    WorkflowNotFound,
    DeploymentAmbiguous,
    /// The call takes effect, and the operator crashes before the answer.
    CrashAfterEffect,
    Rejected,
}

pub const START_OUTCOMES: [StartOutcome; 12] = [
    StartOutcome::Answered,
    StartOutcome::Answered,
    StartOutcome::AnswerLost,
    StartOutcome::RequestLost,
    StartOutcome::Delayed,
    StartOutcome::Delayed,
    StartOutcome::Transient,
    StartOutcome::KeyRefused,
    StartOutcome::WorkflowNotFound,
    StartOutcome::DeploymentAmbiguous,
    StartOutcome::CrashAfterEffect,
    StartOutcome::Rejected,
];

/// Which half of a `GET` of the run is slow.
#[derive(Clone, Copy, Debug)]
pub enum SlowHalf {
    Neither,
    Request,
    Answer,
}

pub const SLOW_HALVES: [SlowHalf; 4] = [SlowHalf::Neither, SlowHalf::Neither, SlowHalf::Request, SlowHalf::Answer];

/// Who answers a `GET` of the run.
#[derive(Clone, Copy, Debug)]
pub enum GetOutcome {
    Answered,
    Transient,
    /// A gateway says 404.
    GatewayNotFound,
}

pub const GET_OUTCOMES: [GetOutcome; 8] = [
    GetOutcome::Answered,
    GetOutcome::Answered,
    GetOutcome::Answered,
    GetOutcome::Answered,
    GetOutcome::Answered,
    GetOutcome::Answered,
    GetOutcome::Transient,
    GetOutcome::GatewayNotFound,
];

/// Whether the tracker polls the run while the operator lingers.
#[derive(Clone, Copy, Debug)]
pub enum LingerOutcome {
    NotPolled,
    Answered,
    Transient,
}

pub const LINGER_OUTCOMES: [LingerOutcome; 4] =
    [LingerOutcome::NotPolled, LingerOutcome::NotPolled, LingerOutcome::Answered, LingerOutcome::Transient];

/// What becomes of the call that stops the run.
#[derive(Clone, Copy, Debug)]
pub enum StopOutcome {
    Answered,
    Transient,
    AnswerLost,
    GatewayNotFound,
}

pub const STOP_OUTCOMES: [StopOutcome; 9] = [
    StopOutcome::Answered,
    StopOutcome::Answered,
    StopOutcome::Answered,
    StopOutcome::Answered,
    StopOutcome::Answered,
    StopOutcome::Answered,
    StopOutcome::Transient,
    StopOutcome::AnswerLost,
    StopOutcome::GatewayNotFound,
];

/// What a workflow does with a cancel.
#[derive(Clone, Copy, Debug)]
pub enum CancelEffect {
    Ignored,
    /// The run ends within a minute.
    Obeyed,
}

pub const CANCEL_EFFECTS: [CancelEffect; 2] = [CancelEffect::Ignored, CancelEffect::Obeyed];

/// What the Workflow resource is like, if the spec names one.
#[derive(Clone, Copy, Debug)]
pub enum NamedWorkflow {
    Ready,
    NotFound,
    Unregistered,
    Archived,
    /// Another workflow of the API has taken its name.
    Replaced,
}

pub const NAMED_WORKFLOWS: [NamedWorkflow; 6] = [
    NamedWorkflow::Ready,
    NamedWorkflow::NotFound,
    NamedWorkflow::Unregistered,
    NamedWorkflow::Archived,
    NamedWorkflow::Replaced,
    NamedWorkflow::Ready,
];

/// What a read of the Secret finds that the input comes from.
#[derive(Clone, Copy, Debug)]
pub enum SecretRead {
    Found,
    Absent,
    Forbidden,
}

pub const SECRET_READS: [SecretRead; 6] = [
    SecretRead::Found,
    SecretRead::Absent,
    SecretRead::Forbidden,
    SecretRead::Found,
    SecretRead::Found,
    SecretRead::Found,
];
