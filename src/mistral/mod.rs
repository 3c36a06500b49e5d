//! The Mistral Workflows API: wire types, a client, and errors classified by what a caller can do.
//!
//! Nothing here knows Kubernetes. The facts come from Mistral's OpenAPI document and from the behaviour of the official
//! Python client (`mistralai`). Where they leave something open, this client accepts both variants.

pub mod answer;
pub mod call_metrics;
mod client;
mod endpoints;
mod error;
mod filter;
mod pages;
mod redactor;
mod transport;
mod unescape;
pub mod wire;

pub use client::{Client, REQUEST_TIMEOUT};
pub use endpoints::ExecuteTarget;
pub use error::{ApiError, Error, Trouble, TroubleKind, is_forbidden, when_again};
pub use filter::{RegistrationFilter, RunFilter, WorkflowFilter};
pub use pages::{Gap, Pages};
pub use redactor::Redactor;
