//! The command line, from which `cargo xtask docs` makes docs/reference/flags.md.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::platform::logs;
use crate::workspace;

/// Kubernetes operator for Mistral Workflows.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the cluster and run workflows, until SIGTERM or SIGINT.
    Run(Box<Run>),
    /// Print the CustomResourceDefinitions as YAML, for kubectl apply.
    Crds,
    /// Print manifests for the workflows of a Mistral workspace. Applying them changes nothing. The API key comes from
    /// MISTRAL_API_KEY or from a file.
    Import(Box<Import>),
    /// Remove the operator's finalizers from all resources after the operator is gone. Runs are not stopped. Stop the
    /// operator first, or it adds the finalizers again. The command warns if an operator holds a Lease; it cannot see an operator
    /// without leader election.
    ReleaseFinalizers {
        /// Limit to this namespace, instead of all; may be repeated.
        #[arg(long = "namespace", value_name = "NAME", value_delimiter = ',')]
        namespaces: Vec<String>,
    },
}

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// An address of the Mistral API that Workspaces may name. The operator sends API keys only to these addresses. May
    /// be repeated.
    #[arg(
        long = "allow-base-url",
        env = "ALLOW_BASE_URL",
        value_name = "URL",
        value_delimiter = ',',
        value_parser = workspace::credentials::parse_address,
        default_values = ["https://api.mistral.ai", "https://api.eu.mistral.ai", "https://api.us.mistral.ai"],
    )]
    pub allow_base_urls: Vec<Url>,
    /// The maximum number of calls per second with one API key, over all Workspaces that use the key. A Workspace may
    /// set a lower limit. 1 to 1000.
    #[arg(long, env = "MAX_REQUESTS_PER_SECOND", value_name = "NUMBER", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_requests_per_second: u32,
    /// Let executions take input (spec.inputFrom) only from Secrets with the label workflows.mistral.ai/input=true.
    #[arg(long, env = "INPUT_SECRETS_NEED_LABEL", value_parser = FalseyValueParser::new())]
    pub input_secrets_need_label: bool,
    /// Watch only this namespace, instead of all; may be repeated.
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_name = "NAME", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Give the metrics of executions that have ended a label for the workflow, with up to this many values; further
    /// workflows count as other. 0 to 1000; with 0 there is no such label.
    #[arg(long, env = "METRICS_WORKFLOWS", value_name = "NUMBER", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub metrics_workflows: u16,
    /// The address that serves /healthz, /readyz (which says what it waits for) and /metrics. The default is every
    /// address, including IPv4.
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", default_value = "[::]:8080", value_parser = listen_address)]
    pub listen: SocketAddr,
    /// The Lease that elects the leader among several operators. An empty name turns leader election off: the operator
    /// then acts even if another one does.
    #[arg(long, alias = "lease", env = "LEASE_NAME", value_name = "NAME", default_value = former("LEASE", "mistral-workflows-operator"))]
    pub lease_name: String,
    /// The namespace of the Lease. Outside of a pod there is no default: then there is no leader election, and the
    /// operator ends if another one leads in the cluster [default: the pod's]
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAME")]
    pub lease_namespace: Option<String>,
    /// The format of the log.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: logs::Format,
    /// What to log: a level (off, error, warn, info, debug or trace), or directives such as
    /// info,mistral_workflows_operator=debug.
    #[arg(long, alias = "log", env = "LOG_LEVEL", value_name = "DIRECTIVES", default_value = former("LOG", "info"), value_parser = logs::directives)]
    pub log_level: EnvFilter,
}

/// An address and a port to listen on.
fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "give ADDRESS:PORT, such as [::]:8080 or 127.0.0.1:8080; a host name is no address")
}

/// Flags of `import`.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Read the API key from this file, instead of from MISTRAL_API_KEY.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// The address of the Mistral API.
    #[arg(long, value_name = "URL", default_value = "https://api.mistral.ai", value_parser = workspace::credentials::parse_address)]
    pub base_url: Url,
    /// Only workflows with this tag; may be repeated to require several tags.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only workflows with this text in their name or display name.
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Only archived workflows (true), or only others (false) [default: both]
    #[arg(long, value_name = "true|false")]
    pub archived: Option<bool>,
    /// The Workspace that the manifests refer to.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub workspace: String,
    /// The namespace in the manifests [default: none]
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Write one file per workflow into this folder, replacing existing ones, instead of printing the manifests.
    #[arg(long, value_name = "FOLDER")]
    pub output_dir: Option<PathBuf>,
}

/// The default of a flag: what the environment has under its former name, if anything.
fn former(variable: &str, default: &'static str) -> &'static str {
    // clap keeps defaults for as long as the process runs.
    std::env::var(variable).map_or(default, |value| Box::leak(value.into_boxed_str()))
}

/// The command line, as clap sees it.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_spellings_of_flags_are_still_taken() {
        let run = |arguments: &[&str]| match Cli::try_parse_from([&["operator", "run"], arguments].concat()) {
            Ok(Cli { command: Command::Run(run) }) => run,
            other => panic!("{other:?}"),
        };
        for [lease, log] in [["--lease", "--log"], ["--lease-name", "--log-level"]] {
            let run = run(&[lease, "mine", log, "warn"]);
            assert_eq!((run.lease_name.as_str(), run.log_level.to_string().as_str()), ("mine", "warn"));
        }
    }

    #[test]
    fn an_address_that_cannot_be_listened_on_is_refused_with_one_that_can() {
        for wrong in ["8080", ":8080", "localhost:8080", "127.0.0.1"] {
            assert!(listen_address(wrong).unwrap_err().contains("such as [::]:8080"), "{wrong}");
        }
        assert_eq!(listen_address("127.0.0.1:0").map(|address| address.port()), Ok(0));
    }
}
