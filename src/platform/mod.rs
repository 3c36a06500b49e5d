//! What any controller needs, whatever its kind: the API server, watches, leader election, Events, metrics, health.

pub mod apiserver;
pub mod clock;
pub mod crash;
pub mod events;
pub mod files;
pub mod health;
pub mod leader;
pub mod logs;
pub mod metrics;
pub mod object;
pub mod refused;
pub mod requeue;
pub mod sabotage;
mod server;
pub mod turns;
pub mod watch;
