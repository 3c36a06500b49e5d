//! Every reason of a condition or an Event. Reasons are part of the API: people and tools match on them.
//!
//! `cargo xtask docs` makes `docs/reference/reasons.md` from the comments in this folder. The comment of a reason has
//! three paragraphs: what the reason means; `On:`, the conditions and Events that carry the reason; and `Do:`, what a
//! person does about it.

pub mod any;
pub mod execution;
pub mod workflow;
pub mod workspace;
