//! Requests and responses in the API's wire format.
//!
//! Every field that the API could leave out is optional here. A field of an unexpected type counts as absent.
//! Enumerations are open strings. Unknown fields are skipped: the API adds some now and then.

mod events;
mod executions;
mod lenient;
mod registrations;
mod workflows;

use serde::Deserialize;

use crate::json;

pub use events::{Event, EventAttributes, EventFailure, StartAttributes, StartEvent, StartInput};
pub use executions::{ExecuteRequest, Execution, TERMINAL, is_terminal};
pub use registrations::{Definition, Registration, RegistrationRow};
pub use workflows::{
    BulkError, BulkOutcome, MAX_DESCRIPTION, UpdateRequest, Workflow, WorkflowMetadata, WorkflowRow, fingerprint,
};

/// One page of a list and how to get the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The cursor or token of the next page; `None` at the end.
    pub next: Option<String>,
    /// Rows that could not be read.
    pub unreadable: usize,
}

/// A row of any list, for callers that need only to know which rows exist.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Id {
    /// UUID.
    pub id: String,
}

/// The owner of a key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct WhoAmI {
    /// On the live API: `<customer uuid>:<workspace uuid>`.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub namespace: Option<String>,
}
