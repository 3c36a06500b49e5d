//! The operator against a real API server and, for the remote end, the simulator over HTTP.
//!
//! One binary, one control plane, a namespace and a simulator for each test. The operator under test
//! watches that namespace only; where a test has to kill it, it is a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the reason")]

mod api_server;
mod budget;
mod chart;
mod client;
mod execution;
mod expiry;
mod exposed;
mod figures;
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
mod refused;
mod release;
mod setup;
mod stop;
mod support;
mod tenants;
mod trouble;
mod undecodable;
mod values;
mod whose;
mod workflow;
mod workspace;
