//! The project's own commands.

mod bench;
mod buildah;
mod chaos;
mod command;
mod demo;
mod docs;
mod e2e;
mod fuzz;
mod manifest;
mod release;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the examples against a simulated Mistral API, on a control plane of their own, and check the results.
    Demo(demo::Options),
    /// Run many executions while processes are killed and the API fails, and check that each runs exactly once.
    Chaos(chaos::Options),
    /// Measure what executions and workflows cost the operator, compared with the least that any controller must do.
    Bench(bench::Options),
    /// The baseline of the bench: the least that any controller must do for an execution.
    #[command(hide = true)]
    Baseline(bench::baseline::Options),
    /// Give malformed and hostile input to every part that reads external data.
    Fuzz(fuzz::Options),
    /// Generate the pages and pictures that derive from other files, and check links and tables of all pages.
    Docs(docs::Options),
    /// Print what the chart renders by default as one file, for kubectl apply --server-side.
    Manifest,
    /// Install the chart on a node of its own (Linux, as root), upgrade it, kill its leader, uninstall it, and check
    /// the results.
    E2e(e2e::Options),
    /// Build the images of a release, publish them with the chart, or try all of that on this machine.
    Release(release::Options),
}

fn main() -> ExitCode {
    let (name, outcome) = match Cli::parse().command {
        Command::Demo(options) => ("demo", demo::run(options)),
        Command::Chaos(options) => ("chaos", chaos::run(options)),
        Command::Bench(options) => ("bench", bench::run(options)),
        Command::Baseline(options) => ("baseline program", bench::baseline::run(options)),
        Command::Fuzz(options) => ("fuzzing", fuzz::run(options)),
        Command::Docs(options) => ("check of the documents", docs::run(&options)),
        Command::Manifest => ("rendering of the manifest", manifest::run()),
        Command::E2e(options) => ("end-to-end test", e2e::run(options)),
        Command::Release(options) => ("release", release::run(options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe {name} failed: {error}");
            // The exit code lets scripts tell a failure from a machine that cannot run the test.
            if error.is::<e2e::NotHere>() { ExitCode::from(e2e::NOT_HERE) } else { ExitCode::FAILURE }
        }
    }
}
