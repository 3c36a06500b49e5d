//! Kubernetes operator for the Mistral Workflows API.
//!
//! `docs/explanation/architecture.md` follows one execution through these modules.

pub mod answer_memory;
pub mod api;
pub mod cli;
pub mod clock;
pub mod execution;
pub mod json;
#[cfg(test)]
mod layers_tests;
pub mod mistral;
pub mod operator;
pub mod platform;
pub mod sync;
pub mod text;
pub mod throttle;
pub mod workflow;
pub mod workspace;
