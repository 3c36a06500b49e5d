//! The settings of an operator process.

use std::net::SocketAddr;

use url::Url;

use crate::platform::leader::elector::LeaseConfig;

/// The settings of an operator process.
#[derive(Clone)]
pub struct Config {
    /// The base URLs of the Mistral API that Workspaces may name.
    pub allow_base_urls: Vec<Url>,
    /// Limit of calls per second with one API key.
    pub max_requests_per_second: u32,
    /// Executions may take input only from Secrets that are labelled for it.
    pub input_secrets_need_label: bool,
    /// The namespaces to watch, each once; empty for all.
    pub namespaces: Vec<String>,
    /// The address of the health and metrics server; none for no server.
    pub listen: Option<SocketAddr>,
    /// The Lease by which one of several operators is elected; none for no election.
    pub lease: Option<LeaseConfig>,
}
