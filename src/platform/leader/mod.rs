//! Leader election by a Lease: one of several processes acts.
//!
//! `plan.rs` decides from the Lease who leads, without I/O; `elector.rs` reads and writes the Lease. A process that
//! leads has a [`Term`](term::Term).

pub mod elector;
pub mod plan;
pub mod term;
