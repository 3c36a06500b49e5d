//! Carrying out a plan: the calls to Mistral's API, and what is written and read in the cluster.

pub(crate) mod cluster_writes;
pub mod input_objects;
pub(crate) mod mistral_calls;
pub mod orphan;
pub mod result_object;
pub(crate) mod waiting;
