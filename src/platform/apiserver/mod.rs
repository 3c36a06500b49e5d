//! Calls to the API server that every controller needs.

mod call;
mod client;
mod error;
mod metadata;
mod objects;
mod status;
mod undecodable;

pub use call::{call, call_within, reference};
pub use client::{PAGE, client, tuned, watching};
pub(super) use error::RECONSTRUCTED;
pub use error::{Error, describe};
pub use metadata::{Written, finalizers, get_metadata, list_metadata, patch_metadata, written_by_us};
pub use objects::{get, get_by_list};
pub use status::{Operation, send_status, status_patch, status_request};
pub use undecodable::let_go_of_undecodable;
