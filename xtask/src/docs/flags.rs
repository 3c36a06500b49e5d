//! Generates the command-line reference from clap.

use mistral_workflows_operator::cli;

use super::cell;

const INTRODUCTION: &str = "# Flags

<!-- Made by `cargo xtask docs` from src/cli.rs. Do not edit. -->

The subcommands of `mistral-workflows-operator` and their flags. Where a variable stands beside a flag, the environment may
set it instead; the flag takes precedence. `--allow-base-url` of `run`, and `--namespace` of `run` and
`release-finalizers`, also take several values separated by commas.
";

const CLOSING: &str = "
## Environment

`HTTPS_PROXY` and `NO_PROXY` apply to the calls to Mistral; the operator always reaches the cluster directly.
`SSL_CERT_FILE` names a bundle of certificates to trust, such as one with an authority of your own. `KUBECONFIG` names the
kubeconfig; without one, the operator uses the service account of its pod. `MISTRAL_API_KEY` holds the key for `import`.
";

pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for command in cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        page += &format!("\n## {}\n\n{}\n", command.get_name(), sentence(&about));
        let mut rows = command
            .get_arguments()
            .filter(|argument| argument.get_long().is_some() && !argument.is_hide_set())
            .map(row)
            .peekable();
        if rows.peek().is_some() {
            page += "\n| Flag | Variable | Default | Meaning |\n|---|---|---|---|\n";
            page.extend(rows);
        }
    }
    page + CLOSING
}

fn row(argument: &clap::Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let (help, said) = match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let takes_value = argument.get_action().takes_values();
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
    let default = match (defaults.is_empty(), takes_value) {
        (false, true) => defaults.join(", "),
        (true, true) => said,
        (_, false) => "off".to_owned(),
    };
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let values = if takes_value && !values.is_empty() && argument.get_long() != Some("archived") {
        format!(" One of {}.", values.join(", "))
    } else {
        String::new()
    };
    let variable = argument.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
    let long = argument.get_long().unwrap_or_default();
    format!("| `--{long}` | {variable} | {} | {}{values} |\n", cell(&default), cell(&sentence(&help)))
}

/// Restores the full stop that clap removes.
fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}
