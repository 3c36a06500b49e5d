//! The text format that Prometheus had before OpenMetrics.

use std::collections::HashSet;
use std::fmt::Write;

/// The media type of this format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a client that accepts this wants the classic format: it names plain text, and not OpenMetrics.
pub fn is_wanted(accept: &str) -> bool {
    !accept.contains("application/openmetrics-text") && accept.contains("text/plain")
}

/// Metrics in OpenMetrics text, in the classic format: a counter has its suffix in its type too, and there are neither
/// units nor a mark at the end. The samples are the same, since these metrics have no exemplars.
pub fn of_openmetrics(text: &str) -> String {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let counters: HashSet<&str> = types.filter(|(_, type_)| *type_ == "counter").map(|(name, _)| name).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines() {
        let comment = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        let written = match comment {
            Some((word @ ("HELP" | "TYPE"), rest)) => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let suffix = if counters.contains(name) { "_total" } else { "" };
                writeln!(classic, "# {word} {name}{suffix} {rest}")
            }
            _ if line.starts_with('#') => Ok(()),
            _ => writeln!(classic, "{line}"),
        };
        debug_assert!(written.is_ok(), "a String takes all text");
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_typed_by_the_name_of_its_samples_and_the_end_is_not_marked() {
        let text = "# HELP a_claims Claims made.\n# TYPE a_claims counter\na_claims_total{outcome=\"x\"} 2\n\
                    # HELP a_wait_seconds Waits.\n# TYPE a_wait_seconds histogram\n# UNIT a_wait_seconds seconds\n\
                    a_wait_seconds_sum 1.5\na_wait_seconds_count 1\na_wait_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let classic = "# HELP a_claims_total Claims made.\n# TYPE a_claims_total counter\na_claims_total{outcome=\"x\"} 2\n\
                       # HELP a_wait_seconds Waits.\n# TYPE a_wait_seconds histogram\n\
                       a_wait_seconds_sum 1.5\na_wait_seconds_count 1\na_wait_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(of_openmetrics(text), classic);
    }

    #[test]
    fn who_names_openmetrics_gets_it_and_who_names_plain_text_alone_gets_that() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, wanted) in [
            (prometheus, false),
            ("*/*", false),
            ("", false),
            ("text/plain", true),
            ("text/plain;version=0.0.4, */*", true),
        ] {
            assert_eq!(is_wanted(accept), wanted, "{accept}");
        }
    }
}
