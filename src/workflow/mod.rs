//! `Workflow`: makes a registered workflow match its resource, and reports its state at the API.

pub mod archiving;
mod contest;
pub mod controller;
pub mod discovery;
pub mod drift;
pub mod fields;
pub mod findings;
pub mod import;
mod lists;
pub mod metrics;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod state;
pub mod status;
pub mod versions;

use crate::api::Workflow;
use crate::platform::decoded::Decoded;

/// A Workflow from the watch. One that cannot be decoded must not hide the others.
pub type Guarded = Decoded<Workflow>;
