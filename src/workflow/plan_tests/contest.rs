//! A field that somebody else sets as well.

use super::*;
use crate::clock::moment_text;

#[test]
fn a_value_that_comes_back_is_set_three_times_and_then_hourly() {
    let mut state = wanting(json!({ "tags": ["ours"] }));
    let mut sets = Vec::new();
    for minute in (0..130).step_by(5) {
        let now = at(minute * 60);
        let mut pass = answered(WorkflowState { refresh: true, ..state.clone() }, json!({ "tags": ["theirs"] }));
        if let Decision::Act(Step::Call(Call::Update(_, fields))) = plan(&pass, now) {
            sets.push(minute);
            pass.changed(fields, Ok(Some(workflow(json!({ "tags": ["ours"] })))), now);
        }
        let end = settled(&pass, now);
        assert_eq!(is_true(&end.status.conditions, CONTESTED), minute >= 10, "{minute}");
        assert_eq!(end.news.iter().filter(|it| it.reason == reason::CONTESTED).count(), usize::from(minute == 10));
        if minute >= 15 && !sets.contains(&minute) {
            assert!(is_true(&end.status.conditions, STALLED));
            assert_eq!(end.status.contested_fields, ["tags"]);
        }
        state = next(&pass, now);
    }
    assert_eq!(sets, [0, 5, 10, 70]);
}

#[test]
fn a_restart_does_not_begin_the_fight_anew() {
    let restarted = WorkflowState { memory: Memory::default(), ..contested() };
    let pass = |now| plan(&answered(restarted.clone(), json!({ "tags": ["theirs"] })), now);
    assert!(matches!(pass(at(600)), Decision::Settle(_)));
    assert!(matches!(pass(at(3900)), Decision::Act(Step::Call(Call::Update(..)))));
    // Once the field is set again after the hour, the next reversal makes it contested at once.
    let mut last = answered(restarted.clone(), json!({ "tags": ["theirs"] }));
    last.changed(vec![Field::Tags], Ok(Some(workflow(json!({ "tags": ["ours"] })))), at(3900));
    let state = answered(WorkflowState { refresh: true, ..next(&last, at(3900)) }, json!({ "tags": ["theirs"] }));
    assert_eq!(ready(&settled(&state, at(4000)).status), reason::CONTESTED);
}

#[test]
fn a_value_that_the_api_keeps_otherwise_does_not_spin() {
    let mut state = wanting(json!({ "displayName": "Invoices" }));
    let mut sets = 0;
    for second in (0..1000).step_by(10) {
        let mut pass = answered(state.clone(), json!({ "display_name": "INVOICES" }));
        if let Decision::Act(Step::Call(Call::Update(_, fields))) = plan(&pass, at(second)) {
            sets += 1;
            pass.changed(fields, Ok(Some(workflow(json!({ "display_name": "INVOICES" })))), at(second));
        }
        state = next(&pass, at(second));
    }
    assert_eq!(sets, 3);
    assert_eq!(ready(&state.status), reason::CONTESTED);
}

/// A workflow with a contested field, at the time at which that is reported.
fn contested() -> WorkflowState {
    let mut state = wanting(json!({ "tags": ["ours"] }));
    for minute in 0..4 {
        let mut pass = answered(WorkflowState { refresh: true, ..state.clone() }, json!({ "tags": ["theirs"] }));
        if let Decision::Act(Step::Call(Call::Update(_, fields))) = plan(&pass, at(minute * 60)) {
            pass.changed(fields, Ok(Some(workflow(json!({ "tags": ["ours"] })))), at(minute * 60));
        }
        state = next(&pass, at(minute * 60));
    }
    assert_eq!(ready(&state.status), reason::CONTESTED);
    state
}

#[test]
fn a_contest_names_the_other_workflow_of_this_cluster() {
    let of = |others: Vec<String>| {
        let state = WorkflowState { others, ..contested() };
        let end = settled(&answered(state, json!({ "tags": ["theirs"] })), at(300));
        find(&end.status.conditions, READY).unwrap().message.clone()
    };
    let message = of(vec!["a Workflow of another namespace".into()]);
    assert!(message.contains("a Workflow of another namespace, which manages the same"), "{message}");
    assert!(of(Vec::new()).contains("perhaps a worker"), "{}", of(Vec::new()));
}

#[test]
fn a_contest_names_the_other_value_and_when_it_is_tried_again() {
    let end = settled(&answered(contested(), json!({ "tags": ["theirs"] })), at(300));
    let message = &find(&end.status.conditions, READY).unwrap().message;
    // The third attempt was made at minute 2.
    let again = format!("sets the field again at {}", moment_text(at(3720)));
    for part in ["set back tags to [\"theirs\"] three times", &again] {
        assert!(message.contains(part), "{message}");
    }
    // While the field is as wanted, the value is known, and no attempt is due.
    let end = settled(&answered(contested(), json!({ "tags": ["ours"] })), at(300));
    let message = &find(&end.status.conditions, CONTESTED).unwrap().message;
    for part in ["set back tags to [\"theirs\"] three times", "sets the field at most once an hour"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_edit_ends_the_contest_whichever_way_it_goes() {
    for spec in [json!({}), json!({ "tags": ["theirs"] })] {
        let agreed = WorkflowState { generation: Some(2), spec: wanting(spec.clone()).spec, ..contested() };
        let end = settled(&answered(agreed, json!({ "tags": ["theirs"] })), at(300));
        assert_eq!(ready(&end.status), reason::IN_SYNC, "{spec}");
        assert!(find(&end.status.conditions, CONTESTED).is_none() && end.status.contested_fields.is_empty(), "{spec}");
        assert_eq!(end.requeue, Requeue::OnChange);
    }
    // A new value is set at once, also by a process that remembers nothing, and after trouble.
    let spec = wanting(json!({ "tags": ["new"] })).spec;
    let mut edited = WorkflowState { generation: Some(2), spec, memory: Memory::default(), ..contested() };
    edited.fetched(Err(Error::Transient { retry_after: None, message: "down".into() }));
    let state = answered(next(&edited, at(300)), json!({ "tags": ["theirs"] }));
    assert!(matches!(plan(&state, at(310)), Decision::Act(Step::Call(Call::Update(..)))));
}
