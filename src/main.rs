//! The program: what each subcommand of the [command line](mistral_workflows_operator::cli) does.

use std::error::Error as _;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use kube::config::{InferConfigError, KubeconfigError};
use mistral_workflows_operator::cli::{Cli, Command, Import, Run};
use mistral_workflows_operator::operator::Leadership;
use mistral_workflows_operator::platform::logs;
use mistral_workflows_operator::text::counted;
use mistral_workflows_operator::{api, mistral, operator, platform, workflow, workspace};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

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

/// Exits after `work` without waiting for background tasks: a process that lost leadership must exit immediately.
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
        metrics_workflows,
        listen,
        lease_name,
        lease_namespace,
        log_format,
        log_level,
    } = options;
    logs::begin(log_level, log_format);
    platform::open_files::raise_limit();
    let namespaces = platform::watch::namespaces(&namespaces)?;
    let (kube, pod_namespace) = cluster().await?;
    let client = platform::apiserver::client(kube.clone())?;
    let address = kube.cluster_url.host().map(str::to_owned);
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
    let in_a_pod = pod_namespace.is_some();
    // An empty environment variable counts as unset.
    let given = |name: Option<String>| name.filter(|name| !name.is_empty());
    let leadership = match given(lease_namespace).or(pod_namespace) {
        _ if lease_name.is_empty() => Leadership::Unconditional,
        Some(namespace) => {
            let client = kube::Client::try_from(kube)?;
            Leadership::Elected(platform::leader::elector::LeaseConfig { name: lease_name, namespace, client })
        }
        None => Leadership::UnlessLed,
    };
    if !in_a_pod && !matches!(leadership, Leadership::Elected(_)) {
        tracing::warn!(
            cluster = address,
            "this operator runs outside of a pod and takes part in no election; run no other"
        );
    }
    let config = operator::Config {
        allow_base_urls,
        max_requests_per_second,
        input_secrets_need_label,
        namespaces,
        metrics_workflows: usize::from(metrics_workflows),
        listen: Some(listen),
        leadership,
    };
    // Runs as a task, which takes turns with the reconciles that it starts. On the thread that waits here, it would
    // start the reconciles of a whole list, each of which takes memory, before others have finished them.
    tokio::spawn(operator::run(config, client, stop)).await??;
    Ok(())
}

async fn release_finalizers(namespaces: Vec<String>) -> Outcome {
    logs::begin(EnvFilter::new("info"), logs::Format::Text);
    let namespaces = platform::watch::namespaces(&namespaces)?;
    let client = kube::Client::try_from(cluster().await?.0)?;
    for remark in operator::release_finalizers::remarks(&client, &namespaces).await {
        eprintln!("warning: {remark}");
    }
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
            Err(format!("finalizers that could not be released: {failed}; run the command again{errors}").into())
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
    let key = workspace::credentials::bare_key(&key)
        .map_err(|why| format!("The value in {from} is not an API key: it {why}."))?;
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
    eprintln!("{}", counted(imported.manifests.len(), "workflow"));
    Ok(())
}

/// The cluster's configuration, from the kubeconfig or else from the pod's service account. The latter also gives the
/// pod's namespace.
async fn cluster() -> Result<(kube::Config, Option<String>), Box<dyn std::error::Error>> {
    // Chooses one TLS provider for all clients; a second call has no effect.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let by_pod = kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await.is_err();
    let config = platform::apiserver::tuned(kube::Config::infer().await.map_err(without_lines)?);
    let pod_namespace = by_pod.then(|| config.default_namespace.clone());
    Ok((config, pod_namespace))
}

/// The error if no cluster is configured. It quotes nothing from an unreadable kubeconfig, whose lines may hold a
/// token.
fn without_lines(error: InferConfigError) -> Box<dyn std::error::Error> {
    let of_kubeconfig = error.source().and_then(|error| error.downcast_ref());
    let Some(KubeconfigError::Parse(unreadable)) = of_kubeconfig else { return error.into() };
    let at = unreadable.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
    format!(
        "The kubeconfig cannot be read{}; its text is not shown because it may hold credentials.",
        at.unwrap_or_default()
    )
    .into()
}
