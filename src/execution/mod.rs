//! `WorkflowExecution`: from a resource to a run at the API, exactly once, and back to its status.

pub mod cache;
pub mod claim;
pub mod controller;
mod ends;
pub mod metrics;
pub mod pass;
pub mod plan;
mod run_durations;
pub mod state;
pub mod status;
pub mod tracker;
pub mod undecodable;
