//! The operator against a real API server, with the simulator as the Mistral API, over HTTP.
//!
//! All tests share one binary and one control plane. Each test has a namespace and a simulator. The operator under test
//! watches that namespace only. Where a test has to kill the operator, it is a separate process.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the reason")]

mod api_server;
mod budget;
mod chart;
mod client;
mod execution;
mod expiry;
mod exposed;
mod figures;
mod finished;
mod finished_label;
mod gitops;
mod idle;
mod intruder;
mod kill;
mod leader;
mod memory;
mod namespaces;
mod observe;
mod poison;
mod process;
mod promtool;
mod recipes;
mod refused;
mod release;
mod setup;
mod stop;
mod support;
mod tenants;
mod trouble;
mod two_operators;
mod undecodable;
mod values;
mod whose;
mod workflow;
mod workspace;
