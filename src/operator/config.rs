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
    /// How many workflows have a label value in the metrics of ended executions; 0 for no such label.
    pub metrics_workflows: usize,
    /// The address of the health and metrics server; none for no server.
    pub listen: Option<SocketAddr>,
    /// Which of several operators acts.
    pub leadership: Leadership,
}

/// Which of several operators acts.
#[derive(Clone)]
pub enum Leadership {
    /// The one that holds the Lease.
    Elected(LeaseConfig),
    /// This one, unless another one leads when it starts.
    UnlessLed,
    /// This one, whoever else acts.
    Unconditional,
}
