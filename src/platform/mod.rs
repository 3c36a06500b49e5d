//! What any controller needs, whatever its kind: the API server, watches, leader election, Events, metrics, health.

pub mod apiserver;
pub mod classic_format;
pub mod decoded;
pub mod events;
pub mod failpoint;
pub mod fair_queue;
pub mod health;
pub mod leader;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod open_files;
pub mod process;
pub mod reconcile;
pub mod refused;
pub mod requeue;
mod server;
pub mod status_writer;
pub mod watch;
