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
