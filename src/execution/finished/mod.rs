//! Finished executions leave the watch: nothing reads them, so they cost neither memory nor time at a restart.
//!
//! The write that takes the finalizer off also sets a label ([`mark`]), and the watch of executions leaves labelled
//! resources out. A second watch ([`watch`]), of metadata alone, follows the labelled ones without storing them. It
//! brings back those that are not finished business after all: edited ones, expired ones, and copies, whose label names
//! another resource. [`left`] is what stays in memory.

pub mod left;
pub mod mark;
pub mod watch;
