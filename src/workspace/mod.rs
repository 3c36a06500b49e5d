//! `Workspace`: a checked connection for the other resources to use.

pub mod connections;
pub mod controller;
pub mod plan;
