//! `Workflow`: makes a registered workflow look as its resource says, and tells what the API says of it.

pub mod archiving;
mod contest;
pub mod controller;
pub mod discovery;
pub mod fields;
pub mod import;
pub mod inventory;
mod lists;
pub mod observed;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod report;
pub mod versions;
