//! `Workspace`: a checked connection for the other resources to use.

pub mod access;
pub mod budgets;
pub mod connections;
pub mod controller;
mod line;
pub mod plan;
pub mod turn;
