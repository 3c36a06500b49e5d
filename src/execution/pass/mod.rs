//! What a reconcile does besides its calls to the Mistral API.

pub mod objects;
pub mod orphan;
