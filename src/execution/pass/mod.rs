//! What a pass does beside its calls to the Mistral API.

pub mod objects;
pub mod orphan;
