//! Reasons that every kind can have.

/// A newer operator wrote the resource, or it breaks the CRD's rules, so this operator cannot decode it. The operator skips
/// the resource, and `kubectl get` still shows its old status. Deleting an execution still stops its run. A deleted
/// Workflow goes after five minutes without being archived.
///
/// On: Event
///
/// Do: upgrade the operator, or correct the resource.
pub const UNDECODABLE: &str = "Undecodable";
/// The API server does not let the operator add or remove its finalizer. The message quotes the API server. A
/// deletion waits until the operator can remove the finalizer.
///
/// On: `Ready` of a WorkflowExecution, Event
///
/// Do: change the policy, webhook or right that refuses the write.
pub const FINALIZER_REFUSED: &str = "FinalizerRefused";
/// The API server refuses the status, so `kubectl get` shows an old one. The Event says what the status would have
/// said.
///
/// On: Event
///
/// Do: remove the cause; see [refused writes](../how-to/troubleshooting.md#refused-writes).
pub const STATUS_REFUSED: &str = "StatusRefused";
/// Something else keeps changing the status, for example a second operator with other settings or of another version.
/// This operator then writes the status once in ten seconds at most.
///
/// On: Event
///
/// Do: let one operator serve the namespace; see [two operators](../how-to/troubleshooting.md#two-operators).
pub const STATUS_CONTESTED: &str = "StatusContested";
