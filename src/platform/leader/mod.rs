//! Leader election by a Lease: one of several processes acts.

pub mod elector;
pub mod lease;
