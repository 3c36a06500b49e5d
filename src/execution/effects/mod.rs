//! Carrying out a plan: the calls to Mistral's API, and what is written and read in the cluster.

pub(crate) mod cluster_writes;
pub(crate) mod mistral_calls;
pub mod objects;
pub mod orphan;
