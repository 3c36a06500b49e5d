//! `WorkflowExecution`: from a resource to a run at the API, exactly once, and back to its status.

mod backoff;
pub mod claim;
mod class;
mod comparison;
pub mod controller;
mod deletion;
mod ends;
pub mod expiry;
pub mod facts;
mod identity;
pub mod input;
mod lengths;
pub mod objects;
pub mod observed;
mod obstacles;
mod overtaken;
pub mod plan;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod promise_tests;
#[cfg(test)]
mod reference_tests;
mod refusals;
pub mod report;
pub mod result;
pub mod slim;
mod stopping;
pub mod tracker;
pub mod undecodable;
pub mod unlisted;
