//! Leader election by a Lease: one of several processes acts.
//!
//! `plan.rs` decides who leads. It sees the Lease and does no I/O. `elector.rs` reads and writes the Lease. The leader
//! holds a [`Term`](term::Term). `others.rs` finds a leader from outside of its election.

pub mod elector;
pub mod others;
pub mod plan;
pub mod term;
