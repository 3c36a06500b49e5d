//! The project's own commands.

mod bench;
mod chaos;
mod demo;
mod docs;
mod e2e;
mod fuzz;

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
    /// Run the examples on a control plane of their own, against a simulated Mistral API, and check what came of it.
    Demo(demo::Options),
    /// Start many executions while processes are killed and the API fails, and check that each has run exactly once.
    Chaos(chaos::Options),
    /// Measure what executions and workflows cost the operator, beside the least that any controller has to do.
    Bench(bench::Options),
    /// The least that any controller has to do for an execution; what the bench compares with.
    #[command(hide = true)]
    Floor(bench::floor::Options),
    /// Give everything that reads bytes from outside bytes that nobody would send on purpose.
    Fuzz(fuzz::Options),
    /// Write the pages and pictures that are made from other files, and check links and tables of all pages.
    Docs(docs::Options),
    /// Install the chart on a node of its own (Linux, as root), upgrade it, kill its leader, uninstall it, and check what came of it.
    E2e(e2e::Options),
}

fn main() -> ExitCode {
    let (name, outcome) = match Cli::parse().command {
        Command::Demo(options) => ("demo", demo::run(options)),
        Command::Chaos(options) => ("chaos", chaos::run(options)),
        Command::Bench(options) => ("bench", bench::run(options)),
        Command::Floor(options) => ("floor program", bench::floor::run(options)),
        Command::Fuzz(options) => ("fuzzing", fuzz::run(options)),
        Command::Docs(options) => ("check of the documents", docs::run(&options)),
        Command::E2e(options) => ("end-to-end test", e2e::run(options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe {name} failed: {error}");
            // So that a script can tell what is wrong from what cannot be done here.
            if error.is::<e2e::NotHere>() { ExitCode::from(e2e::NOT_HERE) } else { ExitCode::FAILURE }
        }
    }
}
