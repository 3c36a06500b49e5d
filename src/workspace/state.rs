//! What is known of one Workspace during one reconcile, and how the outcome of a step adds to it.

use k8s_openapi::jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::credentials;
use super::problem::Problem;
use crate::api::reasons::workspace as reason;
use crate::api::{Workspace, WorkspaceSpec};

/// Everything that the plan may look at.
#[derive(Clone, Debug)]
pub struct State {
    pub spec: WorkspaceSpec,
    pub created: Timestamp,
    /// The address, if the operator may call it.
    pub address: Result<Url, Problem>,
    /// What the last check of this Workspace found.
    pub check: Option<Check>,
    /// Consecutive problems.
    pub retries: u32,
    /// A call has been refused since the last check, or something else casts doubt on the key.
    pub suspect: bool,

    pub api_key: ApiKey,
    pub checked: Checked,
}

/// The API key in the Secret.
#[derive(Clone, Debug)]
pub enum ApiKey {
    /// The Secret has not been read in this reconcile.
    NotRead,
    Read(Result<SecretString, Problem>),
}

/// What this reconcile has done about the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    NotTried,
    /// The API has no time for a check now, which says nothing about the key.
    PutOff(Problem),
    /// The outcome is in [`State::check`].
    Done,
}

impl State {
    /// What the resource says by itself, with what earlier reconciles have found.
    pub fn new(object: &Workspace, allowed: &[Url], check: Option<Check>, retries: u32, suspect: bool) -> Self {
        Self {
            spec: object.spec.clone(),
            created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            address: credentials::address(&object.spec, allowed),
            check,
            retries,
            suspect,
            api_key: ApiKey::NotRead,
            checked: Checked::NotTried,
        }
    }

    /// The Secret was read.
    pub fn api_key_read(&mut self, api_key: Result<SecretString, Problem>, now: Timestamp) {
        let api_key = api_key.map_err(|problem| problem.of_a_workspace_from(self.created, now));
        if api_key.is_err() {
            self.retries = self.retries.saturating_add(1);
        }
        self.api_key = ApiKey::Read(api_key);
    }

    /// The key was checked. `paused`: the API has just asked for fewer calls.
    pub fn checked(
        &mut self,
        of: (Url, SecretString),
        outcome: Result<Accepted, Problem>,
        paused: bool,
        now: Timestamp,
    ) {
        if let Err(problem) = &outcome
            && paused
            && problem.passing
        {
            self.checked = Checked::PutOff(problem.clone());
            return;
        }
        self.retries = if outcome.is_ok() { 0 } else { self.retries.saturating_add(1) };
        self.check = Some(Check { of, at: now, outcome });
        self.checked = Checked::Done;
    }

    /// The check got no permit in time.
    pub fn not_permitted(&mut self) {
        let message = "The key has not been checked yet: its calls wait in the queue. If that takes long, the condition Throttled reports it. The operator tries again.".into();
        self.checked = Checked::PutOff(Problem { reason: reason::API_UNAVAILABLE, message, passing: true });
    }
}

/// A connection whose key was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The Mistral workspace, if the API reports it.
    pub workspace_id: Option<String>,
    /// The Mistral organization, if the API reports it.
    pub customer_id: Option<String>,
}

/// The last check of a key.
#[derive(Clone, Debug)]
pub struct Check {
    /// The address and key that were checked.
    pub of: (Url, SecretString),
    pub at: Timestamp,
    pub outcome: Result<Accepted, Problem>,
}

impl Check {
    /// Whether this address and key were checked.
    pub fn is_of(&self, of: &(Url, SecretString)) -> bool {
        self.of.0 == of.0 && self.of.1.expose_secret() == of.1.expose_secret()
    }
}
