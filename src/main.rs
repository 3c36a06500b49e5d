//! The command line.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use mistral_workflows_operator::{api, operator, workspace};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use url::Url;

/// Kubernetes operator for Mistral Workflows.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the cluster and run workflows, until SIGTERM or SIGINT.
    Run(Box<Run>),
    /// Print the CustomResourceDefinitions as YAML, for kubectl apply.
    Crds,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// An address of the Mistral API that Workspaces may name; may be repeated.
    #[arg(
        long = "allow-base-url",
        env = "ALLOW_BASE_URL",
        value_name = "URL",
        value_delimiter = ',',
        value_parser = workspace::plan::parse_address,
        default_values = ["https://api.mistral.ai", "https://api.eu.mistral.ai", "https://api.us.mistral.ai"],
    )]
    allow_base_urls: Vec<Url>,
    /// Watch this namespace only, instead of all.
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Where to answer /healthz, /readyz and /metrics.
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// How to write logs.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What to log: a level, or directives such as info,kube=debug.
    #[arg(long, env = "LOG", value_name = "DIRECTIVES", default_value = "info", value_parser = |text: &str| EnvFilter::try_new(text))]
    log: EnvFilter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run(*options),
        Command::Crds => print_crds(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mistral-workflows-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_crds() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for crd in api::crds() {
        write!(out, "---\n{}", serde_saphyr::to_string(&crd)?)?;
    }
    Ok(())
}

#[tokio::main]
async fn run(options: Run) -> Result<(), Box<dyn std::error::Error>> {
    let Run { allow_base_urls, namespace, listen, log_format, log } = options;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    // One TLS provider for both clients, chosen here; a second call has no effect.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let mut config = kube::Config::infer().await?;
    // kube would repeat writes up to 15 times by itself, and would send what is meant for the
    // cluster through the proxy that HTTPS_PROXY names for the Mistral API.
    config.default_retry = false;
    config.proxy_url = None;
    let client = kube::Client::try_from(config)?;

    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    let config = operator::Config { allow_base_urls, namespace, listen: Some(listen) };
    operator::run(config, client, stop).await?;
    Ok(())
}
