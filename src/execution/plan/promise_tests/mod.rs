//! Tests the promise that a run happens exactly once, against a model of the world that fails in every way it can:
//! crashes at any step, lost answers, late effects, runs that become visible late, two operators with different clocks
//! and stale caches, edits that drop the claim or the status, and an API server that refuses writes.
//!
//! `events.rs` lists what can happen. `world.rs` and `mistral.rs` are the model; `reconcile.rs` drives the plan through
//! it, and `meddling.rs` is what people do meanwhile.

mod choices;
mod events;
mod meddling;
mod mistral;
mod reconcile;
mod world;

use proptest::prelude::*;
use serde_json::{Value, json};

use self::choices::{Choices, seconds};
use self::events::{PAUSES, Pause, RECONCILER};
use self::mistral::final_status;
use self::world::World;
use crate::api::WorkflowExecutionStatus;
use crate::api::conditions::{self, STARTED};
use crate::api::reasons::execution as reason;
use crate::execution::phase::is_finished;

/// Without stops: the run happens, and completes.
fn assert_happens_exactly_once(spec: &Value, choices: Vec<u8>) {
    assert_has_happened_exactly_once(run_to_the_end(spec, choices, false, None));
}

/// When somebody hides the execution, and the cluster's store is restored to before its claim.
#[derive(Clone, Copy, Debug)]
enum Hidden {
    BeforeTurn(usize),
    /// As soon as a start is in flight, or has a run that is not visible yet.
    InDoubt,
}

fn assert_happens_exactly_once_though_restored(spec: &Value, choices: Vec<u8>, hidden: Hidden) {
    assert_has_happened_exactly_once(run_to_the_end(spec, choices, false, Some(hidden)));
}

fn assert_has_happened_exactly_once((world, status): (World, WorkflowExecutionStatus)) {
    if has_changed_input(&status) {
        // Only a Secret that changed at the wrong time may lead here, and only if nothing has run.
        assert!(world.secret > 1 && world.object.spec.input_from.is_some(), "{}", world.story());
        assert_eq!(world.mistral.starts, 0, "{status:#?}\n{}", world.story());
        return;
    }
    assert_eq!(world.mistral.starts, 1, "{status:#?}\n{}", world.story());
    assert_eq!(status.status.as_deref(), Some("COMPLETED"));
    assert!(status.conditions.iter().any(|condition| condition.reason == reason::COMPLETED));
}

/// With stops, and deadlines in the spec: the final status says what happened, and no run goes on.
fn assert_ends_as_the_status_says(spec: &Value, choices: Vec<u8>) {
    let (world, status) = run_to_the_end(spec, choices, true, None);
    let story = world.story();
    let started = conditions::is_true(&status.conditions, STARTED);
    assert_eq!(world.mistral.starts, usize::from(started), "{status:#?}\n{story}");
    let end = world.mistral.run.map(|(_, end)| end);
    assert!(end.is_none_or(|end| end <= world.now), "it goes on: {status:#?}\n{story}");
    let expected = world.mistral.run.map(|_| final_status(world.mistral.stopped));
    assert_eq!(status.status.as_deref(), expected, "{story}");
}

fn run_to_the_end(
    spec: &Value,
    choices: Vec<u8>,
    may_stop: bool,
    mut hidden: Option<Hidden>,
) -> (World, WorkflowExecutionStatus) {
    let mut choices = Choices::new(choices);
    let mut world = World::new(spec, may_stop, &mut choices);
    let mut turn = 0;
    while !choices.is_over() {
        let is_time = |hidden: &mut Hidden| match hidden {
            Hidden::BeforeTurn(number) => *number == turn,
            Hidden::InDoubt => world.mistral.is_in_doubt(world.now),
        };
        if hidden.take_if(is_time).is_some() {
            world.hide_and_restore(&mut choices);
        }
        turn += 1;
        let who = choices.pick(&RECONCILER);
        let refresh = choices.pick(&[true, false]);
        let due = world.reconcile(who, refresh, &mut choices);
        world.meddle(&mut choices);
        let pause = match choices.pick(&PAUSES) {
            Pause::UntilDue => due.unwrap_or(seconds(1)),
            Pause::None => seconds(0),
            Pause::UpToOneMinute => seconds(choices.below(60)),
            Pause::UpToFourMinutes => seconds(choices.below(250)),
        };
        world.advance(pause, &mut choices);
    }
    // Nothing fails any more.
    world.object.spec.suspend = false;
    (world.refuses_claims, world.refuses_status) = (false, false);
    world.operators.iter_mut().for_each(|operator| operator.skew = seconds(0));
    for _ in 0..100 {
        let due = world.reconcile(0, true, &mut choices);
        world.advance(due.unwrap_or(seconds(10)), &mut choices);
        // What the status says of a changed input may be from before the last start, whose run may not be visible yet.
        if world.object.status.as_ref().is_some_and(is_finished) {
            break;
        }
    }
    let status = world.object.status.clone().unwrap_or_default();
    let ended = is_finished(&status) || has_changed_input(&status);
    assert!(ended, "lost: {status:#?}\n{}", world.story());
    (world, status)
}

fn has_changed_input(status: &WorkflowExecutionStatus) -> bool {
    status.conditions.iter().any(|condition| condition.reason == reason::INPUT_CHANGED)
}

#[test]
fn a_start_after_a_status_about_a_changed_input_is_found_once_its_run_is_visible() {
    let choices = vec![
        4, 0, 0, 0, 0, 0, 56, 117, 0, 0, 0, 152, 1, 0, 0, 15, 0, 0, 0, 119, 0, 87, 78, 0, 0, 58, 0, 0, 0, 0, 23, 212,
        0, 0, 0, 0, 0, 34, 81, 0, 222, 0, 126, 226, 0, 0, 0, 0, 0, 44, 0, 34, 44, 0, 0, 39, 82, 0, 95, 211, 76, 12, 0,
        40, 0, 252, 16, 0, 7, 191, 22, 0, 0, 0, 24, 0, 126, 2, 0, 0, 89, 3, 88, 0, 0, 231, 0, 139, 49, 0, 28, 0, 0, 0,
        0, 167, 116, 38, 0, 0, 0, 0, 0, 91, 0, 0, 50, 143, 94, 0, 0, 0, 0, 228, 8, 0, 157, 7, 20, 0, 0, 24, 119, 31,
        24, 0, 0, 0, 104, 38, 21, 8, 0, 0, 31, 88, 0, 0, 0, 0, 0, 54, 70, 20, 0, 0, 0, 0, 20, 0, 0, 0, 249, 10, 142, 0,
        0, 0, 0, 132, 8, 0, 15, 15, 4, 0, 0, 56, 0, 68, 24, 23, 29, 0, 85, 0, 0, 0, 7, 0, 119, 4, 8, 0, 0, 0, 24, 7,
        84, 3, 90, 127, 0, 215, 203, 0, 8, 40, 0, 0, 57, 48, 0, 0, 8, 0, 44, 24, 0, 27, 8, 0, 0, 0, 42, 2,
    ];
    let from = json!([{ "secretKeyRef": { "name": "s", "key": "k" }, "path": "/token" }]);
    assert_happens_exactly_once(&json!({ "workflowIdentifier": "w", "inputFrom": from }), choices);
}

#[test]
fn a_claim_of_a_second_operator_over_one_that_came_back_is_not_taken_for_an_older_one() {
    let choices = vec![
        0, 0, 91, 28, 0, 40, 0, 0, 0, 24, 0, 114, 66, 0, 0, 56, 20, 12, 0, 167, 20, 0, 24, 103, 186, 0, 8, 127, 114, 5,
        192, 0, 8, 0, 24, 164, 0, 26, 0, 0, 179, 22, 0, 0, 0, 0, 0, 86, 0, 0, 143, 2, 11, 0, 0, 247, 100, 0, 0, 10, 9,
        0, 15, 115, 79, 12, 0, 0, 0, 0, 84, 54, 84, 246, 60, 4, 0, 8, 91, 0, 26, 0, 12, 0, 120, 184, 144, 31, 0, 0, 0,
        20, 8, 0, 24, 8, 83, 9, 106, 42, 1, 27, 184, 0, 0, 0, 0, 56, 0, 0, 0, 0, 0, 0, 0, 0, 26, 0, 0, 0,
    ];
    assert_happens_exactly_once_though_restored(&json!({ "workflowIdentifier": "w" }), choices, Hidden::BeforeTurn(10));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(4000),
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_run_happens_exactly_once_whatever_fails(choices in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_happens_exactly_once(&json!({ "workflowIdentifier": "w" }), choices);
    }

    #[test]
    fn a_run_happens_exactly_once_though_it_is_hidden_and_the_store_restored_to_before_its_claim(
        before in 0_usize..20, choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let hidden = Hidden::BeforeTurn(before);
        assert_happens_exactly_once_though_restored(&json!({ "workflowIdentifier": "w" }), choices, hidden);
    }

    #[test]
    fn a_run_happens_exactly_once_though_it_is_hidden_in_doubt_and_the_store_restored_to_before_its_claim(
        explicit in any::<bool>(), choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let mut spec = json!({ "workflowIdentifier": "w" });
        if explicit {
            spec["executionId"] = json!("run");
        }
        assert_happens_exactly_once_though_restored(&spec, choices, Hidden::InDoubt);
    }

    #[test]
    fn a_run_with_an_explicit_id_happens_exactly_once_whatever_fails(
        choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        assert_happens_exactly_once(&json!({ "workflowIdentifier": "w", "executionId": "run" }), choices);
    }

    #[test]
    fn what_is_stopped_or_past_its_deadline_ran_at_most_once_and_ends_as_the_status_says(
        starting in prop::option::of(1_u32..400),
        active in prop::option::of(1_u32..200),
        grace in 0_u32..60,
        choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        assert_ends_as_the_status_says(
            &json!({
                "workflowIdentifier": "w", "startingDeadlineSeconds": starting, "activeDeadlineSeconds": active,
                "terminationGracePeriodSeconds": grace,
            }),
            choices,
        );
    }

    #[test]
    fn a_run_through_a_workflow_resource_that_comes_and_goes_happens_exactly_once(
        explicit in any::<bool>(), choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let mut spec = json!({ "workflowRef": { "name": "w" } });
        if explicit {
            spec["executionId"] = json!("run");
        }
        assert_happens_exactly_once(&spec, choices);
    }

    #[test]
    fn a_run_whose_input_comes_from_a_secret_that_changes_happens_at_most_once_and_once_if_it_does_not(
        explicit in any::<bool>(), choices in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let from = json!([{ "secretKeyRef": { "name": "s", "key": "k" }, "path": "/token" }]);
        let mut spec = json!({ "workflowIdentifier": "w", "inputFrom": from });
        if explicit {
            spec["executionId"] = json!("run");
        }
        assert_happens_exactly_once(&spec, choices);
    }
}
