//! The environment of the demo: a control plane of its own, or the user's cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{Binaries, ControlPlane};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client, Config, ResourceExt};
use mistral_workflows_operator::api;
use tempfile::TempDir;
use uuid::Uuid;

use super::Result;
use super::display;
use super::programs::{Programs, TO_TRY, workspace_folder};

/// Marks the CRDs that a demo has installed in the user's cluster.
const OWNER: (&str, &str) = ("app.kubernetes.io/managed-by", "mistral-workflows-demo");

/// The interval of progress messages while the control plane starts, which takes seconds on an idle machine.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// How long the API server may take to serve a new kind.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

pub struct Environment {
    cluster: Cluster,
    client: Client,
    namespace: String,
}

enum Cluster {
    Own(Box<ControlPlane>),
    Current { context: String, folder: TempDir },
}

impl Environment {
    /// Starts a control plane of this version of Kubernetes, which stops with this process.
    pub async fn own_control_plane(kubernetes: Option<String>) -> Result<Self> {
        let start = || {
            let environment = cluster::Environment::of_process();
            let kubernetes = kubernetes.or(environment.kubernetes);
            ControlPlane::start_with(&Binaries::find_or_build(&cluster::Environment { kubernetes, ..environment })?)
        };
        let began = Instant::now();
        let mut starting = tokio::task::spawn_blocking(start);
        let control_plane = loop {
            match tokio::time::timeout(SIGN_OF_LIFE, &mut starting).await {
                Ok(started) => break started??,
                Err(_) => println!("  still starting, {} s so far", began.elapsed().as_secs()),
            }
        };
        let client = control_plane.client().await?;
        Ok(Self { cluster: Cluster::Own(Box::new(control_plane)), client, namespace: "default".to_owned() })
    }

    /// The cluster of the current context. Fails if the operator is installed there.
    pub async fn current_cluster() -> Result<Self> {
        // Fails only if a provider is already installed, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let unusable = |error| format!("the kubeconfig cannot be used: {error}.");
        let context = Kubeconfig::read().map_err(unusable)?.current_context.filter(|context| !context.is_empty());
        let context =
            context.ok_or("the kubeconfig has no current context; choose one: kubectl config use-context.")?;
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let client = Client::try_from(Config::from_kubeconfig(&options).await.map_err(unusable)?)?;
        refuse_foreign_crds(&client, &context).await?;

        let namespace = format!("mistral-demo-{}", &Uuid::new_v4().simple().to_string()[..8]);
        super::heading(&format!("Using the cluster of context {context}, in the new namespace {namespace}"));
        let folder = TempDir::with_prefix("mistral-workflows-demo-")
            .map_err(|error| format!("no temporary folder can be made: {error}."))?;
        Ok(Self { cluster: Cluster::Current { context, folder }, client, namespace })
    }

    /// A client with the user's rights.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The namespace of the demo's resources.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A folder for files and logs.
    pub fn folder(&self) -> &Path {
        match &self.cluster {
            Cluster::Own(control_plane) => control_plane.folder(),
            Cluster::Current { folder, .. } => folder.path(),
        }
    }

    /// The arguments that limit the operator to the demo's part of the cluster.
    pub fn operator_arguments(&self) -> Vec<&str> {
        match self.cluster {
            Cluster::Own(_) => Vec::new(),
            Cluster::Current { .. } => vec!["--namespace", &self.namespace],
        }
    }

    /// The environment variables that select the operator's cluster.
    pub fn environment(&self) -> Vec<(&str, &Path)> {
        match &self.cluster {
            Cluster::Own(control_plane) => vec![("KUBECONFIG", control_plane.kubeconfig())],
            Cluster::Current { .. } => Vec::new(),
        }
    }

    /// Installs the CRDs as a user would: `mistral-workflows-operator crds | kubectl apply -f -`.
    pub async fn install_crds(&self, operator: &Path) -> Result<()> {
        let mut printing = Command::new(operator).arg("crds").stdout(Stdio::piped()).spawn()?;
        let crds = printing.stdout.take().map_or_else(Stdio::null, Stdio::from);
        println!("$ mistral-workflows-operator crds | kubectl apply -f -");
        let applied = run(self.kubectl_command(), &["apply", "-f", "-"], crds).await;
        if !printing.wait()?.success() {
            return Err("the operator could not print its CRDs.".into());
        }
        applied?;

        if let Cluster::Current { .. } = self.cluster {
            let label = format!("{}={}", OWNER.0, OWNER.1);
            let names = crd_names();
            let mut arguments = vec!["label", "--overwrite", "crd"];
            arguments.extend(names.iter().map(String::as_str));
            arguments.push(&label);
            self.kubectl(&arguments).await?;
        }
        let served: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for name in crd_names() {
            let established = await_condition(served.clone(), &name, is_crd_established());
            tokio::time::timeout(ESTABLISHED_WITHIN, established)
                .await
                .map_err(|_| format!("the API server did not serve {name} within {ESTABLISHED_WITHIN:?}."))??;
        }
        Ok(())
    }

    /// Creates the namespace in the user's cluster.
    pub async fn create_namespace(&self) -> Result<()> {
        if let Cluster::Current { .. } = self.cluster {
            self.kubectl(&["create", "namespace", &self.namespace]).await?;
        }
        Ok(())
    }

    /// Runs kubectl in the demo's namespace and the repository's folder. Prints the command and its output, and returns
    /// the output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        println!("$ {} {}", self.kubectl_words(), arguments.join(" "));
        run(self.kubectl_command(), arguments, Stdio::null()).await
    }

    /// How a user calls kubectl in this environment.
    fn kubectl_words(&self) -> String {
        match &self.cluster {
            Cluster::Own(_) => "kubectl".to_owned(),
            Cluster::Current { .. } => format!("kubectl --namespace {}", self.namespace),
        }
    }

    fn kubectl_command(&self) -> Command {
        let mut command = match &self.cluster {
            Cluster::Own(control_plane) => control_plane.kubectl_command(),
            Cluster::Current { context, .. } => {
                let mut command = Command::new("kubectl");
                command.args(["--context", context, "--namespace", &self.namespace]);
                command
            }
        };
        command.current_dir(workspace_folder());
        command
    }

    /// Removes the namespace from the user's cluster while the operator still runs. The demo's own control plane ends
    /// by itself.
    pub async fn clean_up(&self) -> Result<()> {
        if let Cluster::Current { context, .. } = &self.cluster {
            super::heading("Cleaning up");
            let arguments = ["delete", "namespace", &self.namespace, "--ignore-not-found", "--timeout=60s"];
            self.kubectl(&arguments).await?;
            println!("The CRDs stay in the cluster of context {context}. To remove them as well:\n");
            println!("  {}", remove_crds(context));
        }
        Ok(())
    }

    /// Writes an execution of each workflow to try. Returns the files, and what comes of each.
    fn write_executions_to_try(&self) -> Result<Vec<(String, &'static str)>> {
        let write = |(name, effect): (&str, &'static str)| {
            let manifest = format!(
                "apiVersion: workflows.mistral.ai/v1alpha1\nkind: WorkflowExecution\nmetadata:\n  generateName: {name}-\n\
                 spec:\n  workflowIdentifier: {name}\n"
            );
            let file = self.folder().join(format!("{name}.yaml"));
            fs::write(&file, manifest)?;
            Ok((file.display().to_string(), effect))
        };
        TO_TRY.into_iter().map(write).collect()
    }

    /// Leaves everything running and prints how to continue.
    pub fn keep(self, programs: Programs) -> Result<()> {
        let kubectl = self.kubectl_words();
        let (log, url) = (programs.operator.log().to_owned(), programs.url.clone());
        let tries = self.write_executions_to_try()?;
        let (preparation, stop) = match self.cluster {
            Cluster::Own(control_plane) => {
                let kept = control_plane.keep(vec![programs.operator, programs.simulator])?;
                let preparation = format!(
                    "  export KUBECONFIG='{}'\n  export PATH='{}':\"$PATH\"\n\n",
                    kept.kubeconfig.display(),
                    kept.kubectl.parent().unwrap_or(&kept.kubectl).display()
                );
                (preparation, kept.stop_command)
            }
            Cluster::Current { context, folder } => {
                let folder = folder.keep();
                let file = folder.join("stop");
                let kept = [programs.operator, programs.simulator];
                fs::write(&file, cluster::stop_script(&kept)?)?;
                for program in kept {
                    program.keep();
                }
                let stop = format!(
                    "kubectl --context '{context}' delete namespace {} &&\n  \
                     sh '{}' && rm -r '{}' &&\n  {}",
                    self.namespace,
                    file.display(),
                    folder.display(),
                    remove_crds(&context),
                );
                (String::new(), stop)
            }
        };
        println!("Everything goes on running. Some things to try, in the folder of this repository:\n");
        print!("{preparation}");
        println!("  {kubectl} get mistral");
        println!("  {kubectl} describe workflowexecution charge");
        println!("  {kubectl} get workflowexecution greet -o jsonpath='{{.status.result}}'");
        println!("  {kubectl} create -f examples/execution-generate-name.yaml");
        println!("  {kubectl} get mwfx --watch");
        println!("  tail -f '{}'", log.display());
        println!("\nThree more workflows show what else can happen:\n");
        for (file, effect) in tries {
            println!("  {kubectl} create -f '{file}'\n    # {effect}");
        }
        println!(
            "\nThe simulated Mistral API answers at {url}. It lists all runs, and what you change there is a change in"
        );
        println!("Mistral's console, which the operator takes back:\n");
        println!("  curl {url}/__sim/executions");
        println!(
            "  curl -X PATCH -d '{{\"display_name\": \"Hullo\"}}' '{url}/__sim/workflows/hello-world?workspace=demo'"
        );
        println!("  {kubectl} get workflow hello-world --watch");
        println!("\nTo stop it and remove its data:\n\n  {stop}");
        Ok(())
    }
}

/// An installed operator would act on the demo's resources as well, and its CRDs might differ from the demo's.
async fn refuse_foreign_crds(client: &Client, context: &str) -> Result<()> {
    let installed: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in crd_names() {
        let found = installed.get_opt(&name).await;
        let found = found.map_err(|error| format!("the cluster of context {context} cannot be asked: {error}."))?;
        if found.is_some_and(|crd| crd.labels().get(OWNER.0).is_none_or(|owner| owner != OWNER.1)) {
            return Err(format!(
                "the cluster of context {context} has the CRD {name}, and not from a demo. An operator that is \
                 installed there would act on the demo's resources too; take another cluster."
            )
            .into());
        }
    }
    Ok(())
}

/// The command that removes the CRDs, and with them all resources of their kinds.
fn remove_crds(context: &str) -> String {
    format!("kubectl --context '{context}' delete crd {}", crd_names().join(" "))
}

fn crd_names() -> Vec<String> {
    api::crds().iter().map(ResourceExt::name_any).collect()
}

/// Runs a command, prints its output and returns it.
async fn run(mut command: Command, arguments: &[&str], input: Stdio) -> Result<String> {
    command.args(arguments).stdin(input);
    let program = command.get_program().display().to_string();
    let output = tokio::process::Command::from(command).output().await;
    let output = output.map_err(|error| format!("{program} does not start: {error}; is it installed?"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in text.lines() {
        println!("{}", display::fitted(line));
    }
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`kubectl {}` failed: {}", arguments.join(" "), complaint.trim()).into());
    }
    Ok(text)
}
