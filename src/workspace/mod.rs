//! `Workspace`: a checked connection for the other resources to use.

pub mod access;
pub mod budgets;
pub mod connections;
pub mod controller;
pub mod credentials;
pub mod findings;
mod line;
pub mod plan;
pub mod shared;
pub mod state;
pub mod status;
pub mod turn;
