//! The simulator over raw HTTP: each test states one fact about the API.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod controls;
mod errors;
mod executions;
mod faults;
mod identity;
mod limits;
mod pagination;
mod program;
mod runs;
mod seed_endpoints;
mod states;
mod support;
mod waiting;
