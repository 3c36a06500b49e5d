//! Reasons of a Workspace.

pub use super::any::{STATUS_REFUSED, UNDECODABLE};

/// The API accepts the key.
///
/// On: `Ready`, Event
///
/// Do: nothing.
pub const CONNECTED: &str = "Connected";
/// The operator's `--allow-base-url` does not list the address.
///
/// On: `Ready`, Event
///
/// Do: add the address to `allowBaseURLs` of the chart, or correct the Workspace.
pub const BASE_URL_NOT_ALLOWED: &str = "BaseURLNotAllowed";
/// The Secret does not exist.
///
/// On: `Ready`, Event
///
/// Do: create the Secret in the Workspace's namespace; the operator finds it within a minute.
pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
/// The Secret has no entry of the name that the spec gives, or the entry cannot be an API key. The message names what
/// does not belong there, such as `Bearer`, quotation marks, a byte order mark or a line break.
///
/// On: `Ready`, Event
///
/// Do: put the bare API key where `spec.auth.apiKeySecretRef.key` points.
pub const SECRET_INVALID: &str = "SecretInvalid";
/// The operator may not read the Secret.
///
/// On: `Ready`, Event
///
/// Do: let the operator's service account `get` the Secret. `rbac.secretNames` lacks the name, or somebody changed
/// the operator's Role.
pub const SECRET_FORBIDDEN: &str = "SecretForbidden";
/// The API refuses the key (401).
///
/// On: `Ready`, Event
///
/// Do: put a valid key into the Secret.
pub const CREDENTIAL_REFUSED: &str = "CredentialRefused";
/// The API refuses the check for another reason, which the message quotes. Often the key lacks a permission (403).
///
/// On: `Ready`, Event
///
/// Do: correct what the API names, or give the key the permission (403).
pub const REQUEST_REFUSED: &str = "RequestRefused";
/// The API does not answer, or its answer is invalid. The operator tries again.
///
/// On: `Ready`, Event
///
/// Do: wait. If the reason stays, check egress, proxy, DNS and Mistral's status page.
pub const API_UNAVAILABLE: &str = "APIUnavailable";

/// The API answers 429: too many calls.
///
/// On: `Throttled`, Event
///
/// Do: set `requestsPerSecond` to what Mistral allows for the key, or ask Mistral for more; see
/// [throttling](../explanation/throttling.md).
pub const RATE_LIMITED: &str = "RateLimited";
/// There are more calls than the limit allows, or the API is slow, so calls wait in the queue.
///
/// On: `Throttled`, Event
///
/// Do: raise the limit that the message names; see [throttling](../explanation/throttling.md).
pub const AT_LIMIT: &str = "AtLimit";

/// With `discovery: Observe`, the API server refuses to create or delete a Workflow (a right, a quota, a policy),
/// or the operator cannot read the whole list of workflows from Mistral. The message quotes the refusal. If the
/// list is incomplete (unreadable rows, or more than 50,000 workflows), the operator discovers the workflows that
/// it has read, and deletes no resource.
///
/// On: `DiscoveryIncomplete`, Event
///
/// Do: grant the right (`discovery.enabled`), raise the quota or change the policy; or do what the API's message
/// asks for.
pub const DISCOVERY_FAILED: &str = "DiscoveryFailed";
/// The operator failed to read the lists of workflows three consecutive times, so it does not see changes made in
/// Mistral. The message says since when and why. Runs are not affected. The operator tries again every minute.
///
/// On: `DriftUnseen`, Event
///
/// Do: wait. If the reason stays, ask Mistral why these lists fail.
pub const LISTS_FAILED: &str = "ListsFailed";
/// Another Workflow has the name that discovery would use.
///
/// On: `DiscoveryIncomplete`, Event
///
/// Do: create a Workflow of another name, with the identifier in the message.
pub const NAME_TAKEN: &str = "NameTaken";
/// Discovery has created Workflows; the message counts them.
///
/// On: Event
///
/// Do: nothing.
pub const DISCOVERED: &str = "Discovered";
/// The key in the Secret opens another Mistral workspace than the key before. The operator no longer follows the runs that
/// it started in the old workspace; those executions have the reason `WorkspaceChanged`.
///
/// On: Event
///
/// Do: restore the old key, and create another Workspace for the new key; or nothing, if no run goes on.
pub const WORKSPACE_CHANGED: &str = "WorkspaceChanged";

/// The reasons of `Ready`.
pub const ALL: [&str; 8] = [
    CONNECTED,
    BASE_URL_NOT_ALLOWED,
    SECRET_NOT_FOUND,
    SECRET_INVALID,
    SECRET_FORBIDDEN,
    CREDENTIAL_REFUSED,
    REQUEST_REFUSED,
    API_UNAVAILABLE,
];
