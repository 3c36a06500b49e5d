//! Serves liveness, readiness with what it waits for, and metrics.
//!
//! A process that hangs does not answer, so any answer proves that the process lives.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::platform::classic_format;
use crate::platform::metrics::{self, Exposition, Metrics};
use crate::platform::server;
use crate::sync;

/// What the process still waits for.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// What is waited for, and what stands in the way, if that is known.
    waiting: BTreeMap<String, Option<String>>,
    /// The leader while this process stands by; empty if there is no leader.
    leader: Option<String>,
}

impl Health {
    /// Makes readiness wait for all of this.
    pub fn wait_for<S: Into<String>>(&self, waiting: impl IntoIterator<Item = S>) {
        self.lock().waiting.extend(waiting.into_iter().map(|what| (what.into(), None)));
    }

    /// Reports why readiness still waits for this. Logged if the reason is new.
    pub fn waits(&self, what: &str, why: String) {
        if self.lock().waiting.insert(what.to_owned(), Some(why.clone())) != Some(Some(why.clone())) {
            tracing::warn!("waiting for {what}: {why}");
        }
    }

    /// Ends the wait for this.
    pub fn done(&self, what: &str) {
        if let Some(Some(_)) = self.lock().waiting.remove(what) {
            tracing::info!("no longer waiting for {what}");
        }
    }

    /// Another process leads. This one is ready all the same: standing by is its purpose.
    pub fn stands_by(&self, leader: &str) {
        self.lock().leader = Some(leader.to_owned());
    }

    /// This process leads.
    pub fn leads(&self) {
        self.lock().leader = None;
    }

    /// Whether nothing is left to wait for.
    pub fn is_ready(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        sync::lock(&self.state)
    }
}

/// Listens on `address`. If that stands for every address and the machine has no IPv6, listens on every IPv4 address.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let Some(other) = without_ipv6(address, error.kind()) else { return Err(error) };
    let listener = TcpListener::bind(other).await.map_err(|_| error)?;
    tracing::info!(%address, listening = %other, "this machine has no IPv6");
    Ok(listener)
}

/// The replacement of `address` on a machine without IPv6, if the error may mean that.
fn without_ipv6(address: SocketAddr, error: ErrorKind) -> Option<SocketAddr> {
    let every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    // The error for a missing address family has no `ErrorKind` of its own.
    let other_reason = matches!(error, ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    (every && !other_reason).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

/// Serves `/healthz`, `/readyz` and `/metrics` until the process ends.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>) {
    let routes = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readiness).with_state(health))
        .route("/metrics", get(exposition).with_state(Arc::new(Exposition::new(metrics))));
    server::serve(listener, routes).await;
}

async fn exposition(
    State(exposition): State<Arc<Exposition>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    match exposition.texts().await {
        Ok(texts) if classic_format::is_wanted(accepted) => {
            Ok(([(CONTENT_TYPE, classic_format::CONTENT_TYPE)], texts.classic))
        }
        Ok(texts) => Ok(([(CONTENT_TYPE, metrics::OPENMETRICS)], texts.openmetrics)),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered; this is a bug in the operator");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn readiness(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    answer(&health.lock())
}

fn answer(Waiting { waiting, leader }: &Waiting) -> (StatusCode, String) {
    if !waiting.is_empty() {
        let waiting: Vec<String> = waiting
            .iter()
            .map(|(what, why)| why.as_ref().map_or_else(|| what.clone(), |why| format!("{what} ({why})")))
            .collect();
        return (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", waiting.join(", ")));
    }
    let text = match leader.as_deref() {
        None => "ready\n".into(),
        Some("") => "ready (standby; nobody leads yet)\n".into(),
        Some(leader) => format!("ready (standby; {leader} leads)\n"),
    };
    (StatusCode::OK, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_every_one_of_ipv4_where_there_is_no_ipv6() {
        // The error of Linux without IPv6: EAFNOSUPPORT.
        let no_ipv6 = Error::from_raw_os_error(97).kind();
        for (address, error, instead) in [
            ("[::]:8080", no_ipv6, Some("0.0.0.0:8080")),
            ("[::]:8080", ErrorKind::AddrNotAvailable, Some("0.0.0.0:8080")),
            ("[::]:8080", ErrorKind::AddrInUse, None),
            ("[::]:80", ErrorKind::PermissionDenied, None),
            ("[::1]:8080", no_ipv6, None),
            ("0.0.0.0:8080", ErrorKind::AddrNotAvailable, None),
        ] {
            let instead = instead.map(|address| address.parse().unwrap());
            assert_eq!(without_ipv6(address.parse().unwrap(), error), instead, "{address}: {error}");
        }
    }

    #[test]
    fn readiness_says_what_is_waited_for_and_why_and_a_standby_is_ready() {
        let health = Health::default();
        let says = |status: u16, text: &str| {
            let (said, body) = answer(&health.lock());
            assert_eq!((said.as_u16(), body.as_str()), (status, text));
        };
        health.wait_for(["the Kubernetes API", "the CRD x"]);
        says(503, "waiting for the CRD x, the Kubernetes API\n");
        health.done("the Kubernetes API");
        health.waits("the CRD x", "it is missing".into());
        says(503, "waiting for the CRD x (it is missing)\n");
        health.done("the CRD x");
        health.stands_by("");
        says(200, "ready (standby; nobody leads yet)\n");
        health.stands_by("pod-1");
        says(200, "ready (standby; pod-1 leads)\n");
        health.leads();
        says(200, "ready\n");
    }
}
