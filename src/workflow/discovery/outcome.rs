//! What discovery could not do, in words, and when it stops trying. No I/O here.

use kube::ResourceExt;

use super::plan::{Change, Several};
use crate::api::reasons::workspace as reason;
use crate::platform::apiserver::Error;
use crate::text::{counted, without_stop};
use crate::workspace::findings::Discovered as Outcome;

/// Consecutive refusals that end a sweep: they concern the operator, not one resource.
const REFUSED_IN_A_ROW: u32 = 20;

/// Says when an incomplete discovery is tried again.
pub const AGAIN: &str = "The operator tries again at each resync.";

/// Consecutive changes that the API server has refused.
#[derive(Debug, Default)]
pub struct Refusals {
    in_a_row: u32,
}

impl Refusals {
    /// Counts the answer to one change: none for success. Returns whether the sweep goes on.
    ///
    /// One refusal says nothing about other resources. Many consecutive ones do, for example if the operator lacks the
    /// permission, and so does an API server that does not answer. A conflict is about one resource: the API server
    /// would take another one.
    pub fn go_on(&mut self, error: Option<&Error>) -> bool {
        let Some(error) = error.filter(|error| !error.is_conflict()) else {
            self.in_a_row = 0;
            return true;
        };
        self.in_a_row += 1;
        let is_refusal = error.refusal().is_some_and(|said| (400..500).contains(&said.code) && said.code != 429);
        is_refusal && self.in_a_row < REFUSED_IN_A_ROW
    }
}

/// What a sweep asked for and did not get.
#[derive(Clone, Debug, Default)]
pub struct Undone {
    pub created: Several,
    pub deleted: Several,
    pub taken: Several,
    /// Changes given up after the API server did not answer, or refused too many.
    pub untried: usize,
    /// Why the list of workflows is not known to its end.
    pub unlisted: Option<String>,
}

impl Undone {
    /// Records that the API server refused a change, or did not answer.
    pub fn failed(&mut self, change: &Change, error: &Error) {
        match change {
            Change::Create(workflow) => self.created.add(|| refused(&workflow.name_any(), error)),
            Change::Remove(workflow) => self.deleted.add(|| refused(&workflow.name_any(), error)),
        }
    }

    pub fn outcome(&self) -> Outcome {
        let Self { created, deleted, taken, untried, unlisted } = self;
        let mut sentences = Vec::new();
        if let Some(why) = unlisted {
            sentences.push(format!(
                "Mistral's list of workflows could not be read to its end: {}. Other workflows may be missing, so the operator deletes no resource.",
                without_stop(why)
            ));
        }
        let mut say = |several: &Several, start: &str, noun: &str| {
            let first = without_stop(&several.first);
            match several.number {
                0 => {}
                1 => sentences.push(format!("{start} the {noun} {first}.")),
                number => sentences.push(format!("{start} {number} {noun}s, the first of which is {first}.")),
            }
        };
        say(created, "The operator could not create", "Workflow");
        say(deleted, "Mistral no longer has the workflow, but the operator could not delete", "Workflow");
        say(taken, "Another Workflow already has the name for", "workflow");
        if *untried > 0 {
            sentences.push(format!("The operator did not try {}.", counted(*untried, "more change")));
        }
        let failed = created.number + deleted.number + usize::from(unlisted.is_some());
        let reason = match (failed, taken.number) {
            (0, 0) => return Outcome::Complete,
            (0, _) => reason::NAME_TAKEN,
            _ => reason::DISCOVERY_FAILED,
        };
        sentences.push(AGAIN.into());
        Outcome::Incomplete { reason, message: sentences.join(" ") }
    }
}

/// The API server's message about one resource, and what to do.
fn refused(name: &str, error: &Error) -> String {
    let said = error.refusal().map_or_else(|| error.to_string(), |said| said.message.clone());
    // A quota or a policy may forbid this as well.
    let hint = if ["cannot create resource", "cannot delete resource"].iter().any(|words| said.contains(words)) {
        "; the chart's value discovery.enabled grants the operator the right"
    } else {
        ""
    };
    format!("\"{name}\": {}{hint}", without_stop(&said))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::core::Status;

    use super::*;

    fn answer(code: u16) -> Error {
        let status = Status::failure("no", "Why").with_code(code);
        Error::Kube(Box::new(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn only_consecutive_refusals_end_a_sweep_and_a_conflict_is_none() {
        let forbidden = answer(403);
        for interruption in [None, Some(answer(409))] {
            let mut refusals = Refusals::default();
            for _ in 1..REFUSED_IN_A_ROW {
                assert!(refusals.go_on(Some(&forbidden)));
            }
            assert!(refusals.go_on(interruption.as_ref()));
            for _ in 1..REFUSED_IN_A_ROW {
                assert!(refusals.go_on(Some(&forbidden)), "ended early after {interruption:?}");
            }
            assert!(!refusals.go_on(Some(&forbidden)));
        }
    }

    #[test]
    fn an_api_server_that_takes_no_writes_ends_a_sweep_at_once() {
        for error in [answer(429), answer(500), answer(503), Error::Timeout(Duration::from_secs(15))] {
            assert!(!Refusals::default().go_on(Some(&error)), "{error}");
        }
    }

    #[test]
    fn what_could_not_be_done_is_told_in_numbers_with_the_first_and_its_reason() {
        let several = |number, first: &str| Several { number, first: first.into() };
        assert_eq!(Undone::default().outcome(), Outcome::Complete);
        let taken = Undone { taken: several(2, "\"A\" (\"a\")"), ..Undone::default() };
        let refused = Undone { created: several(3, "\"b\": exceeded quota"), untried: 7, ..taken.clone() };
        let kept = Undone { deleted: several(1, "\"c\": no right."), untried: 1, ..Undone::default() };
        for (undone, expected, words) in [
            (
                &taken,
                reason::NAME_TAKEN,
                &["Another Workflow already has the name for 2 workflows, the first of which is \"A\" (\"a\")."]
                    as &[&str],
            ),
            (
                &refused,
                reason::DISCOVERY_FAILED,
                &[
                    "could not create 3 Workflows, the first of which is \"b\": exceeded quota.",
                    "for 2 workflows",
                    "7 more changes",
                ],
            ),
            (
                &kept,
                reason::DISCOVERY_FAILED,
                &["could not delete the Workflow \"c\": no right. The operator", "1 more change."],
            ),
        ] {
            let Outcome::Incomplete { reason, message } = undone.outcome() else { panic!("{undone:?}") };
            assert_eq!(reason, expected, "{message}");
            words.iter().for_each(|word| assert!(message.contains(word), "{word} in: {message}"));
        }
    }
}
