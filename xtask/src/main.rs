//! The project's own commands.

mod demo;

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
}

fn main() -> ExitCode {
    let Command::Demo(options) = Cli::parse().command;
    match demo::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}
