//! `Workspace`: a checked connection for the other resources to use.

pub mod access;
pub mod call_limits;
pub mod connections;
pub mod controller;
pub mod credentials;
pub mod findings;
mod first_checks;
pub mod metrics;
pub mod permit;
pub mod plan;
pub mod problem;
pub mod shared;
pub mod state;
pub mod status;
