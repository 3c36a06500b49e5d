//! The process around the controllers: wiring, leader election, health, Events, shutdown.

mod config;
pub mod controllers;
pub mod metrics;
pub mod release_finalizers;
pub mod scopes;
pub mod triggers;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::select_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::config::{Config, Leadership};
use self::controllers::Leader;
use self::metrics::AllMetrics;
use self::scopes::{KINDS, Scope};
use crate::platform::apiserver;
use crate::platform::health::{self, Health};
use crate::platform::leader::elector::{self, Election};
use crate::platform::leader::others::{self, Other};
use crate::platform::leader::term::Term;
use crate::platform::watch;

/// What readiness waits for first.
const KUBERNETES: &str = "the Kubernetes API";
/// What readiness waits for if there is no election.
const WATCHES: &str = "the watches";

/// Why the operator could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The health server could not listen.
    #[error("cannot listen on {address} for health checks; give another --listen address: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        source: std::io::Error,
    },
    /// Another operator acts, and this one was not told to act beside it.
    #[error(
        "another operator leads in this cluster: {} holds the Lease {}. Two that act at once get in each other's way. \
         Stop the other one; or stand by for it, with the flags --lease-namespace and --lease-name that name its Lease; \
         or act beside it all the same, with --lease-name \"\"",
        .0.holder, .0.lease
    )]
    Led(Other),
    /// Another operator may act by now.
    #[error("this process no longer holds the Lease {lease}: {reason}; the process exits, and may be restarted")]
    Lost {
        /// Namespace and name.
        lease: String,
        reason: String,
    },
}

/// Runs the controllers until `stop`, then lets reconciles in flight finish.
///
/// # Errors
/// See [`Error`]. The operator waits for a Kubernetes API that is down, and for missing CRDs.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> Result<(), Error> {
    let health = Arc::new(Health::default());
    health.wait_for([KUBERNETES]);
    // Set from the start: a process with nothing to wait for would briefly count as ready.
    let elected = matches!(config.leadership, Leadership::Elected(_));
    health.wait_for([if elected { elector::LEASE } else { WATCHES }]);
    let metrics = AllMetrics::new(config.metrics_workflows);
    if let Some(address) = config.listen {
        let listener = health::listen(address).await.map_err(|source| Error::Listen { address, source })?;
        tokio::spawn(health::serve(listener, Arc::clone(&health), Arc::clone(&metrics.all)));
    }
    let (name, since) = (format!("{}-{}", host_name(), Uuid::new_v4().simple()), Timestamp::now());
    tracing::info!(instance = name, version = env!("CARGO_PKG_VERSION"), namespaces = ?config.namespaces, "starting");
    let scopes: Vec<Scope> = watch::scopes(&config.namespaces);
    let prepared = stop.run_until_cancelled(prepare(&client, &scopes, &health, &stop)).await;
    let Some(cluster) = prepared else { return Ok(()) };

    let leader_name = name.clone();
    let lead = |term: Term| {
        health.wait_for(scopes.iter().flat_map(|scope| KINDS.map(|kind| scope.list(kind))));
        health.done(elector::LEASE);
        health.done(WATCHES);
        health.leads();
        let (config, scopes, health) = (&config, &scopes[..], &*health);
        Leader { config, client: client.clone(), scopes, cluster, name: leader_name, term, health, metrics }.run()
    };
    if let Leadership::UnlessLed = config.leadership {
        let Some(other) = stop.run_until_cancelled(other_leader(&client, &config.namespaces)).await else {
            return Ok(());
        };
        other.map_or(Ok(()), |other| Err(Error::Led(other)))?;
    }
    let Leadership::Elected(lease) = config.leadership.clone() else {
        tracing::info!("there is no leader election; run only one operator");
        // While this process looked for another leader, one may have acted.
        let since = if matches!(config.leadership, Leadership::UnlessLed) { Timestamp::now() } else { since };
        let term = Term::unlimited(stop, since);
        lead(term).await;
        return Ok(());
    };
    let mut election = Election::new(lease.clone(), name);
    let Some(term) = election.win(&stop, &health).await else { return Ok(()) };
    lead_while_elected(election, term, lead).await.map_err(|reason| {
        let error = Error::Lost { lease: format!("{}/{}", lease.namespace, lease.name), reason };
        tracing::error!("{error}");
        error
    })
}

/// Another operator that leads. Without the right to look for one, only a warning says so.
async fn other_leader(client: &Client, namespaces: &[String]) -> Option<Other> {
    let mut wait = watch::FIRST_LOOK;
    loop {
        match others::leads(client, namespaces).await {
            Ok(other) => return other,
            Err(error) if error.is_forbidden() => {
                tracing::warn!(%error, "this operator cannot see whether another one leads, and acts");
                return None;
            }
            Err(error) => tracing::warn!(%error, "this operator cannot see yet whether another one leads"),
        }
        watch::rest(&mut wait).await;
    }
}

/// Waits until the operator can watch something. Returns the UID that identifies the cluster.
async fn prepare(client: &Client, scopes: &[Scope], health: &Arc<Health>, stop: &CancellationToken) -> String {
    let cluster = cluster_id(client, health).await;
    health.wait_for(scopes.iter().map(Scope::name));
    health.done(KUBERNETES);
    for scope in scopes.iter().cloned() {
        let (client, health, stop) = (client.clone(), Arc::clone(health), stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(scopes::prepare(scope, client, &health)).await });
    }
    // Namespaces that cannot be watched yet join when they can.
    select_all(scopes.iter().map(|scope| Box::pin(scope.served.cancelled()))).await;
    cluster
}

/// Leads for as long as this process holds the Lease.
///
/// # Errors
/// Why the process no longer holds the Lease.
async fn lead_while_elected<F>(election: Election, term: Term, lead: impl FnOnce(Term) -> F) -> Result<(), String>
where
    F: Future<Output = ()>,
{
    // Renewals have a task of their own: work on many resources must not delay them. If the task ends, for any reason,
    // all work stops at once, unfinished.
    let ended = CancellationToken::new();
    let mut keeping = tokio::spawn(election.keep(term.clone(), ended.clone()));
    let kept = tokio::select! {
        kept = &mut keeping => kept,
        () = lead(term) => {
            ended.cancel();
            keeping.await
        }
    };
    match kept {
        Ok(kept) => kept.map_err(|lost| lost.to_string()),
        Err(panic) => Err(panic.to_string()),
    }
}

/// The UID of the namespace `kube-system`, which identifies the cluster. Waits until it can be read.
async fn cluster_id(client: &Client, health: &Health) -> String {
    let mut wait = watch::FIRST_LOOK;
    loop {
        let why = match apiserver::get_metadata::<Namespace>(client, None, "kube-system").await {
            Ok(Some(ObjectMeta { uid: Some(uid), .. })) => return uid,
            Ok(Some(_)) => "namespace kube-system has no UID".into(),
            Ok(None) => "there is no namespace kube-system".into(),
            Err(error) => format!("namespace kube-system cannot be read: {error}"),
        };
        health.waits(KUBERNETES, why);
        watch::rest(&mut wait).await;
    }
}

/// The pod's name, if there is one.
fn host_name() -> String {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "operator".into())
}
