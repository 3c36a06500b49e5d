//! The log, which never holds the bodies of responses.
//!
//! A response of the API server may be a Secret, and one of another server a customer's data. Some libraries log whole
//! bodies: kube at `WARN` if it cannot decode one, and at lower levels if it is an error. The level is no protection:
//! people raise it to find a fault. So a filter behind the directives of `--log-level` silences these targets, and the
//! directives cannot open them again. Failed connections, status codes and URLs come from other targets and are kept.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// The most that a target may write, whatever `--log-level` says, and why. An entry covers the targets below it, unless they
/// have entries of their own.
const AT_MOST: [(&str, LevelFilter, &str); 7] = [
    (
        "kube_client::client",
        LevelFilter::OFF,
        "WARN: bodies that cannot be decoded; DEBUG: a Status with all its details, and error pages; TRACE: headers",
    ),
    ("kube_client::client::builder", LevelFilter::TRACE, "only method, URL, status and errors of the connection"),
    ("kube_client::client::tls", LevelFilter::TRACE, "only that certificates were not verified or not read again"),
    ("kube_client::config", LevelFilter::DEBUG, "TRACE: lines of a kubeconfig that cannot be read"),
    ("kube_runtime::watcher", LevelFilter::OFF, "WARN and DEBUG: a Status with all its details, and error pages"),
    ("reqwest::connect::verbose", LevelFilter::OFF, "TRACE: every byte that is read or written"),
    ("rustls", LevelFilter::DEBUG, "TRACE: messages of the handshake, with the ticket of an earlier session"),
];

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The levels, as directives spell them.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads what to log: a level, or directives with targets. An empty text counts as unset.
///
/// A word that is no level would stand for a target, and silence everything else: it is refused.
///
/// # Errors
/// A sentence about the directive that cannot be meant.
pub fn directives(text: &str) -> Result<EnvFilter, String> {
    let text = if text.trim().is_empty() { "info" } else { text };
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    for directive in directives.iter().filter(|directive| !directive.contains('[')) {
        let (target, word) = directive.rsplit_once('=').unwrap_or(("", directive));
        // A target is a path of Rust modules. One with a hyphen matches nothing, and silences everything else.
        if target.contains('-') {
            let meant = target.replace('-', "_");
            return Err(format!("\"{target}\" is no target, since a target has no hyphen; did you mean {meant}?"));
        }
        // A path, such as that of a crate, cannot be meant as a level.
        if !is_level(word) && !word.contains(['_', ':']) {
            let hint = nearest(word).map(|level| format!("; did you mean {level}?")).unwrap_or_default();
            return Err(format!("\"{word}\" is no level: use one of {}, or TARGET=LEVEL{hint}", LEVELS.join(", ")));
        }
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| error.to_string())
}

fn is_level(word: &str) -> bool {
    // A number is a level too, as in the crate that reads the directives.
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
}

/// The level that a word may stand for: one that it begins with, or that begins with it, or that two edits make of it.
fn nearest(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let level = LEVELS.into_iter().min_by_key(|level| edits(&word, level))?;
    let extended =
        LEVELS.into_iter().find(|level| !word.is_empty() && (word.starts_with(level) || level.starts_with(&word)));
    extended.or((edits(&word, level) <= 2).then_some(level))
}

/// How many letters have to be inserted, removed or replaced to make one word of the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Logs to standard error from now on: what the directives let through and `AT_MOST` does not withhold.
pub fn begin(directives: EnvFilter, format: Format) {
    subscriber(directives, format, io::stderr, io::stderr().is_terminal()).init();
}

fn subscriber<W>(directives: EnvFilter, format: Format, writer: W, ansi: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Levels that the directives exclude stop here: otherwise each record of the crate `log` would be checked.
    let withheld = withheld(directives.max_level_hint().unwrap_or(LevelFilter::TRACE));
    let lines = fmt::layer().with_writer(writer).with_ansi(ansi);
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().boxed(),
    };
    Registry::default().with(directives).with(lines.with_filter(withheld))
}

/// Lets everything up to this level through, except what [`AT_MOST`] withholds.
fn withheld(level: LevelFilter) -> Targets {
    let targets = AT_MOST.iter().map(|(target, most, _)| (*target, (*most).min(level)));
    Targets::new().with_default(level).with_targets(targets)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What these directives let through of the lines logged here.
    fn written(directives: &str, format: Format) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(EnvFilter::new(directives), format, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::error_span!(target: "kube_client::client", "in a span", body = "the-body").entered();
            tracing::error!(target: "kube_client::client", "the-body");
            tracing::warn!(target: "kube_client::client::some_new_module", "the-body");
            tracing::trace!(target: "kube_client::config", "the-body");
            tracing::error!(target: "kube_runtime::watcher", "the-body");
            tracing::error!(target: "reqwest::connect::verbose", "the-body");
            tracing::trace!(target: "rustls::client::hs", "the-body");
            tracing::error!(target: "kube_client::client::builder", "failed with status 500");
            tracing::warn!(target: "kube_client::config", "impersonating user");
            tracing::debug!(target: "rustls::client::hs", "ALPN protocol");
            tracing::trace!(target: "reqwest::connect", "starting new connection");
            tracing::info!("our own line");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_directive_brings_bodies_into_the_log_and_other_lines_of_the_same_libraries_stay() {
        for format in [Format::Text, Format::Json] {
            for directives in [
                "trace",
                "info,kube_client=trace,kube_runtime=trace,reqwest=trace,rustls=trace",
                "trace,kube_client::client=trace,kube_runtime::watcher=trace,reqwest::connect::verbose=trace",
                "trace,[in a span]=trace",
            ] {
                let written = written(directives, format);
                assert!(!written.contains("the-body"), "{directives}: {written}");
                for kept in ["status 500", "impersonating", "ALPN", "new connection", "our own line"] {
                    assert!(written.contains(kept), "{directives}: {kept} is missing in {written}");
                }
            }
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_the_level_that_may_be_meant() {
        for (text, hint) in [
            ("wran", "did you mean warn?"),
            ("warning", "did you mean warn?"),
            ("err", "did you mean error?"),
            ("inf0", "did you mean info?"),
            ("verbose", "\"verbose\" is no level"),
            ("info,kube=debgu", "did you mean debug?"),
            ("info,kube", "\"kube\" is no level"),
            ("kube=", "\"\" is no level"),
            ("my-operator=debug", "did you mean my_operator?"),
            ("info,kube-runtime=off", "\"kube-runtime\" is no target"),
        ] {
            let said = super::directives(text).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
        assert!(!super::directives("verbose").unwrap_err().contains("did you mean"));
        for (text, means) in [
            ("warn", "warn"),
            ("WARN", "warn"),
            ("", "info"),
            ("off", "off"),
            ("3", "info"),
            ("info, kube=off", "info,kube=off"),
            ("info,kube_runtime::watcher", "info,kube_runtime::watcher=trace"),
            ("warn,[reconcile{kind=Deployment}]=debug", "[reconcile{kind=Deployment}]=debug,warn"),
        ] {
            let read = super::directives(text).unwrap().to_string();
            let parts = |text: &str| text.split(',').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(parts(&read), parts(means), "{text}");
        }
    }

    #[test]
    fn directives_hold_for_what_is_not_withheld() {
        let written = written("warn", Format::Text);
        let kept: Vec<bool> =
            ["status 500", "impersonating", "ALPN", "our own"].map(|text| written.contains(text)).into();
        assert_eq!(kept, [true, true, false, false], "{written}");
    }

    #[test]
    fn another_version_of_a_library_that_logs_bodies_has_to_be_read_before_it_is_used() {
        let lock = include_str!("../../Cargo.lock");
        for (name, version) in [("kube-client", "5.0.0"), ("kube-runtime", "5.0.0"), ("reqwest", "0.13.5")] {
            let read = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&read), "read what {name} logs now, see to AT_MOST, and correct the version here");
        }
    }
}
