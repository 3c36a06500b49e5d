//! The names of this operator in the cluster: all that another operator has to change in this folder.

/// The program, as people call it.
pub const PROGRAM: &str = "mistral-workflows-operator";
/// The name under which the API server records which metadata fields this operator wrote last. GitOps tools can be told
/// to ignore a manager's fields.
pub const FIELD_MANAGER: &str = PROGRAM;
/// The operator's name in the API server's audit log. The part up to the slash is also the manager of the fields that
/// are written without naming a [manager](FIELD_MANAGER).
pub const USER_AGENT: &str = concat!("mistral-workflows-operator/", env!("CARGO_PKG_VERSION"));
/// The reporting controller of the operator's Events.
pub const REPORTING_CONTROLLER: &str = "workflows.mistral.ai/operator";
/// The prefix of names that the operator itself writes into metadata.
pub const PREFIX: &str = "workflows.mistral.ai/";
