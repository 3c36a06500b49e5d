//! The command line.

use std::error::Error as _;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{Parser, Subcommand};
use kube::config::{InferConfigError, KubeconfigError};
use mistral_workflows_operator::platform::logs;
use mistral_workflows_operator::{api, mistral, operator, platform, workflow, workspace};
use secrecy::SecretString;
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
    /// Print manifests for the workflows that a Mistral workspace has. Applying them changes nothing. The API key is read from MISTRAL_API_KEY or from a file.
    Import(Box<Import>),
    /// Take the operator's finalizers off all resources, for when no operator is left to do it. Runs that go on are not stopped. Stop the operator first, or it puts them back.
    ReleaseFinalizers {
        /// In this namespace only, instead of all; may be repeated.
        #[arg(long = "namespace", value_name = "NAME", value_delimiter = ',')]
        namespaces: Vec<String>,
    },
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
    /// Calls a second to make with one API key at most, over all Workspaces that use it; a Workspace may ask for fewer.
    #[arg(long, env = "MAX_REQUESTS_PER_SECOND", value_name = "NUMBER", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_requests_per_second: u32,
    /// Let executions take input (spec.inputFrom) only from Secrets with the label workflows.mistral.ai/input=true.
    #[arg(long, env = "INPUT_SECRETS_NEED_LABEL", value_parser = FalseyValueParser::new())]
    input_secrets_need_label: bool,
    /// Watch this namespace only, instead of all; may be repeated.
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_name = "NAME", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Where to answer /healthz, /readyz and /metrics; [::] is every address, of IPv4 as well.
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", default_value = "[::]:8080")]
    listen: SocketAddr,
    /// The Lease by which one of several operators is elected; empty for no election.
    #[arg(long, env = "LEASE", value_name = "NAME", default_value = "mistral-workflows-operator")]
    lease: String,
    /// Where the Lease is [default: the pod's namespace; outside of a pod there is no election]
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAME")]
    lease_namespace: Option<String>,
    /// How to write logs.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: logs::Format,
    /// What to log: a level, or directives such as info,kube=debug.
    #[arg(long, env = "LOG", value_name = "DIRECTIVES", default_value = "info", value_parser = |text: &str| EnvFilter::try_new(text))]
    log: EnvFilter,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// Read the API key from this file, instead of from MISTRAL_API_KEY.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The address of the Mistral API.
    #[arg(long, value_name = "URL", default_value = "https://api.mistral.ai", value_parser = workspace::plan::parse_address)]
    base_url: Url,
    /// Only workflows with this tag; may be repeated, then with all of them.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only workflows with this text in their name or display name.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only archived workflows, or only others [default: both]
    #[arg(long, value_name = "true|false")]
    archived: Option<bool>,
    /// The Workspace that the manifests refer to.
    #[arg(long, value_name = "NAME", default_value = "default")]
    workspace: String,
    /// The namespace in the manifests [default: none]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Write one file for each workflow into this folder, over those that are there, instead of printing them.
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => to_the_end(run(*options)),
        Command::Crds => print_crds(),
        Command::Import(options) => to_the_end(import(*options)),
        Command::ReleaseFinalizers { namespaces } => to_the_end(release_finalizers(namespaces)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mistral-workflows-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_crds() -> Outcome {
    let mut out = std::io::stdout().lock();
    for crd in api::crds() {
        write!(out, "---\n{}", serde_saphyr::to_string(&crd)?)?;
    }
    Ok(())
}

/// Whatever still runs when the work has ended is not waited for: a process that leads no longer has to be gone at once.
fn to_the_end(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

async fn run(options: Run) -> Outcome {
    let Run {
        allow_base_urls,
        max_requests_per_second,
        input_secrets_need_label,
        namespaces,
        listen,
        lease,
        lease_namespace,
        log_format,
        log,
    } = options;
    logs::begin(log, log_format);
    platform::files::raise_limit();
    let namespaces = platform::watch::namespaces(&namespaces)?;
    let (kube, pod_namespace) = cluster().await?;
    let client = platform::apiserver::client(kube.clone())?;
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
    // An empty variable is as good as none.
    let given = |name: Option<String>| name.filter(|name| !name.is_empty());
    let lease = match given(lease_namespace).or(pod_namespace) {
        Some(namespace) if !lease.is_empty() => {
            let client = kube::Client::try_from(kube)?;
            Some(platform::leader::elector::LeaseConfig { name: lease, namespace, client })
        }
        _ => None,
    };
    let config = operator::Config {
        allow_base_urls,
        max_requests_per_second,
        input_secrets_need_label,
        namespaces,
        listen: Some(listen),
        lease,
    };
    // As a task, which takes turns with the passes that it begins. On the thread that waits here it would begin those of
    // a whole list, each of which takes memory, before the others have brought them to their ends.
    tokio::spawn(operator::run(config, client, stop)).await??;
    Ok(())
}

async fn release_finalizers(namespaces: Vec<String>) -> Outcome {
    logs::begin(EnvFilter::new("info"), logs::Format::Text);
    let namespaces = platform::watch::namespaces(&namespaces)?;
    let client = kube::Client::try_from(cluster().await?.0)?;
    let released = operator::release_finalizers::finalizers(&client, &namespaces).await;
    let mut failed = 0;
    for (kind, outcome) in released.outcomes {
        println!("{kind}: {} released", outcome.released);
        failed += outcome.failed;
    }
    match (failed, released.errors.is_empty()) {
        (0, true) => Ok(()),
        (0, false) => Err(released.errors.join("; ").into()),
        _ => {
            let errors: String = released.errors.iter().map(|error| format!("; {error}")).collect();
            Err(format!("{failed} resources still have a finalizer; run it again{errors}").into())
        }
    }
}

async fn import(options: Import) -> Outcome {
    logs::begin(EnvFilter::new("warn"), logs::Format::Text);
    let Import { api_key_file, base_url, tags, name, archived, workspace, namespace, output_dir } = options;
    let (key, from) = match &api_key_file {
        Some(file) => (std::fs::read_to_string(file), file.display().to_string()),
        None => {
            let key = std::env::var("MISTRAL_API_KEY").map_err(std::io::Error::other);
            (key, "MISTRAL_API_KEY".to_owned())
        }
    };
    let key = key.map_err(|error| {
        format!("No API key in {from} ({error}); set MISTRAL_API_KEY, or name a file with --api-key-file.")
    })?;
    let key = workspace::plan::bare_key(&key).map_err(|why| format!("What {from} holds is no API key: it {why}."))?;
    let key = SecretString::from(key);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = mistral::Client::new(base_url, key)?;
    let wanted = workflow::import::Wanted { tags, name, archived };
    let target = workflow::import::Target { workspace, namespace };
    let imported = workflow::import::import(&client, &wanted, &target)
        .await
        .map_err(|error| format!("The workflows could not be listed: {error}"))?;
    for remark in &imported.remarks {
        eprintln!("{remark}");
    }
    if let Some(folder) = &output_dir {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    for (name, manifest) in &imported.manifests {
        let text = workflow::import::yaml(manifest);
        match &output_dir {
            Some(folder) => {
                let file = folder.join(format!("{name}.yaml"));
                std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            None => writeln!(std::io::stdout(), "---\n{}", text.trim_end())?,
        }
    }
    eprintln!("{} workflows", imported.manifests.len());
    Ok(())
}

/// How to reach the cluster, by the kubeconfig or else by the pod's service account, and the pod's namespace if it is
/// the latter.
async fn cluster() -> Result<(kube::Config, Option<String>), Box<dyn std::error::Error>> {
    // One TLS provider for all clients, chosen here; a second call has no effect.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let by_pod = kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await.is_err();
    let config = platform::apiserver::tuned(kube::Config::infer().await.map_err(without_lines)?);
    let pod_namespace = by_pod.then(|| config.default_namespace.clone());
    Ok((config, pod_namespace))
}

/// What to say where no cluster is configured: nothing out of a kubeconfig that cannot be read, whose lines may hold a
/// token.
fn without_lines(error: InferConfigError) -> Box<dyn std::error::Error> {
    let of_kubeconfig = error.source().and_then(|error| error.downcast_ref());
    let Some(KubeconfigError::Parse(unreadable)) = of_kubeconfig else { return error.into() };
    let at = unreadable.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
    format!(
        "The kubeconfig cannot be read{}; its text is not shown, for it may hold credentials.",
        at.unwrap_or_default()
    )
    .into()
}
