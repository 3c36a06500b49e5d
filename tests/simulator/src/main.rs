//! The simulator as a program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use mistral_simulator::{Options, Simulator, WorkflowSpec};
use tokio::signal::unix::{SignalKind, signal};

/// A faithful in-memory Mistral Workflows API, for tests and demonstrations.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on. Port 0 picks a free port, which standard output shows.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// JSON file with a list of workflows that every workspace begins with.
    #[arg(long, value_name = "FILE")]
    workflows: Option<PathBuf>,

    /// A workspace and a token that opens it. Unlisted tokens share the workspace `default`.
    #[arg(long = "workspace", value_name = "NAME=TOKEN", value_parser = name_and_token)]
    workspaces: Vec<(String, String)>,

    /// Refuse tokens that no --workspace lists.
    #[arg(long)]
    only_listed_tokens: bool,

    /// Seed of the random numbers for fault rates.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn name_and_token(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, token)) if !name.is_empty() && !token.is_empty() => Ok((name.to_owned(), token.to_owned())),
        _ => Err("expected NAME=TOKEN".to_owned()),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Parse(PathBuf, serde_json::Error),
    #[error(transparent)]
    Start(#[from] mistral_simulator::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mistral-simulator: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let workflows = match &arguments.workflows {
        Some(path) => read_workflows(path)?,
        None => Vec::new(),
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signals)?;
    let simulator = Simulator::start(Options {
        listen: arguments.listen,
        workspaces: arguments.workspaces,
        only_listed_tokens: arguments.only_listed_tokens,
        workflows,
        seed: arguments.seed,
    })
    .await?;
    println!("listening on {}", simulator.url());
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::Signals),
        _ = terminate.recv() => Ok(()),
    }
}

fn read_workflows(path: &Path) -> Result<Vec<WorkflowSpec>, Failure> {
    let text = std::fs::read(path).map_err(|error| Failure::Read(path.to_owned(), error))?;
    serde_json::from_slice(&text).map_err(|error| Failure::Parse(path.to_owned(), error))
}
