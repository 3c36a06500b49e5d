//! Answers whether the process lives, whether it is ready and if not, what it waits for, and what it has counted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::{self, Metrics};

/// What is still waited for.
#[derive(Debug)]
pub struct Health {
    waiting: Mutex<BTreeSet<&'static str>>,
}

impl Health {
    /// All of this has to come before the process is ready.
    pub fn new(waiting: &[&'static str]) -> Self {
        Self { waiting: Mutex::new(waiting.iter().copied().collect()) }
    }

    /// This has come.
    pub fn done(&self, what: &str) {
        self.lock().remove(what);
    }

    /// Whether all has come.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until the process ends.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>) {
    let routes = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readiness).with_state(health))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.render())));
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the health server ended");
    }
}

async fn readiness(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    let waiting: Vec<&str> = health.lock().iter().copied().collect();
    if waiting.is_empty() {
        (StatusCode::OK, "ready\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", waiting.join(", ")))
    }
}
