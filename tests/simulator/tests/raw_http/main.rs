//! The simulator over raw HTTP: each test states one fact about the API.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod batch;
mod concurrency;
mod controls;
mod deployments;
mod errors;
mod executions;
mod faults;
mod identity;
mod limits;
mod pagination;
mod program;
mod runs;
mod schedules;
mod seed_endpoints;
mod sse;
mod states;
mod stream;
mod stream_faults;
mod support;
mod switches;
mod waiting;
