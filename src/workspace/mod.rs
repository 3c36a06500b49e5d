//! `Workspace`: a checked connection for the other resources to use.

pub mod access;
pub mod connections;
pub mod controller;
pub mod plan;
