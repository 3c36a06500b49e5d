//! Leader election by a Lease: of several processes one acts.

pub mod elector;
pub mod lease;
