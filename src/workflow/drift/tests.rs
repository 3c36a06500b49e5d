//! What the detector compares, and when.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::api::workflow::RegistrationStatus;
use crate::mistral::wire::WorkflowRow;
use crate::workflow::lists::LISTS;

fn workflow(id: &str, fields: serde_json::Value) -> WorkflowRow {
    let mut all = json!({ "id": id, "name": "w", "display_name": "W", "archived": false, "tags": ["a"] });
    all.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap_or_default());
    serde_json::from_value(all).unwrap()
}

fn seen() -> LastObserved {
    LastObserved::Found(Box::new(WorkflowStatus {
        workflow_id: Some("1".into()),
        display_name: Some("W".into()),
        tags: Some(vec!["a".into()]),
        archived: Some(false),
        active: Some(true),
        available_in_chat_assistant: Some(false),
        ..WorkflowStatus::default()
    }))
}

fn swept(row: WorkflowRow) -> ListSnapshot {
    ListSnapshot {
        names: HashSet::from([row.name.clone()]),
        active: Some(HashSet::from([row.id.clone()])),
        in_chat: Some(HashSet::new()),
        registrations: Some(HashMap::new()),
        rows: Some(HashMap::from([(row.id.clone(), row)])),
        calls: LISTS,
        without_rows: None,
        gaps: Vec::new(),
    }
}

#[test]
fn a_workflow_as_it_was_seen_is_left_in_peace() {
    assert!(!swept(workflow("1", json!({}))).differs(&seen()));
    assert!(!swept(workflow("1", json!({ "description": "" }))).differs(&seen()));
}

#[test]
fn every_field_that_a_list_tells_is_compared() {
    for fields in [
        json!({ "display_name": "X" }),
        json!({ "description": "new" }),
        json!({ "tags": ["a", "b"] }),
        json!({ "tags": null }),
        json!({ "archived": true }),
        json!({ "id": "2" }),
    ] {
        assert!(swept(workflow("1", fields.clone())).differs(&seen()), "{fields}");
    }
    let row = || workflow("1", json!({}));
    assert!(ListSnapshot { active: Some(HashSet::new()), ..swept(row()) }.differs(&seen()));
    assert!(ListSnapshot { in_chat: Some(HashSet::from(["1".into()])), ..swept(row()) }.differs(&seen()));
    let registrations = Some(HashMap::from([("1".to_owned(), BTreeSet::from(["r".to_owned()]))]));
    assert!(ListSnapshot { registrations, ..swept(row()) }.differs(&seen()));
}

#[test]
fn a_list_that_cannot_be_had_is_not_compared_and_without_the_main_one_each_is_asked_about() {
    let row = || workflow("1", json!({}));
    let bare = ListSnapshot { active: None, in_chat: None, registrations: None, ..swept(row()) };
    assert!(!bare.differs(&seen()));
    assert!(ListSnapshot { rows: None, ..swept(row()) }.differs(&seen()));
}

#[test]
fn nothing_follows_from_what_an_unfinished_list_does_not_have() {
    let unfinished = || ListSnapshot {
        without_rows: Some("it has 1 row that cannot be read".into()),
        ..swept(workflow("1", json!({})))
    };
    // The rows in an unfinished list are compared.
    assert!(!unfinished().differs(&seen()));
    let changed = ListSnapshot { without_rows: Some(String::new()), ..swept(workflow("1", json!({ "tags": ["b"] }))) };
    assert!(changed.differs(&seen()));
    // Workflows that it lacks are refreshed: a known one may still exist, and an absent one may have come.
    let other = ListSnapshot { without_rows: Some(String::new()), ..swept(workflow("2", json!({}))) };
    assert!(other.differs(&seen()));
    assert!(unfinished().differs(&LastObserved::Absent("another".into())));
    // The sweep is not complete, and the number of its rows is not the length of the list.
    let start = Instant::now();
    let mut watched = watched(1, start);
    watched.count = Some(7);
    assert_eq!(watched.compare(&unfinished(), start + Duration::from_secs(1)), []);
    assert_eq!(watched.count, Some(7));
    assert!(watched.complete < start + Duration::from_secs(1));
    assert!(watched.workflows.values().all(|entry| entry.at > start), "it was compared");
}

#[test]
fn three_sweeps_in_a_row_without_an_answer_are_told_once_and_the_next_one_with_an_answer_too() {
    let mut watched = watched(2, Instant::now());
    let error = |words: &str| Error::Transient { retry_after: None, message: words.to_owned() };
    let mut news = Vec::new();
    for n in 1..=6 {
        watched.put_off(None);
        news.push(watched.sees_nothing(&error(&format!("down, {n}"))));
    }
    assert_eq!(news, [false, false, true, false, false, false]);
    assert!(matches!(&watched.drift, Drift::Unseen { since, why } if *since == watched.seen_until && why == "down, 3"));
    assert!(watched.sees());
    assert!(!watched.sees());
    watched.put_off(None);
    assert!(!watched.sees_nothing(&error("down")), "one is no news");
    assert_eq!(watched.drift, Drift::Seen);
}

#[test]
fn an_absent_archived_flag_is_as_good_as_false() {
    for there in [json!(null), json!(false)] {
        for known in [None, Some(false)] {
            let LastObserved::Found(status) = seen() else { panic!() };
            let seen = LastObserved::Found(Box::new(WorkflowStatus { archived: known, ..*status }));
            assert!(!swept(workflow("1", json!({ "archived": there }))).differs(&seen), "{there} {known:?}");
        }
    }
}

#[test]
fn an_active_version_older_than_the_twenty_that_a_status_holds_is_no_difference() {
    let LastObserved::Found(status) = seen() else { panic!() };
    let id = |n: usize| format!("0198a000-0000-7000-8000-0000000000{n:02}");
    let registration = |n| RegistrationStatus { id: id(n), deployment: None, active: n == 40 };
    let status = WorkflowStatus { registrations: (21..41).rev().map(registration).collect(), ..*status };
    let listed = |ids: &[usize]| {
        let all = ids.iter().map(|n| id(*n)).collect::<BTreeSet<_>>();
        ListSnapshot { registrations: Some(HashMap::from([("1".to_owned(), all)])), ..swept(workflow("1", json!({}))) }
    };
    assert!(!listed(&[5, 40]).differs(&LastObserved::Found(Box::new(status.clone()))));
    assert!(listed(&[5, 30, 40]).differs(&LastObserved::Found(Box::new(status))));
}

#[test]
fn a_workflow_that_was_absent_is_looked_for_by_name_and_by_uuid() {
    let swept = swept(workflow("1", json!({})));
    for (identifier, there) in [("w", true), ("1", true), ("other", false)] {
        assert_eq!(swept.differs(&LastObserved::Absent(identifier.into())), there, "{identifier}");
    }
}

const RESYNC: Duration = Duration::from_secs(300);

/// `count` workflows, last refreshed at `at`.
fn watched(count: usize, at: Instant) -> Watched {
    let mut watched = Watched::new(at);
    for n in 0..count {
        watched.track(&Ref::new(&n.to_string()), seen(), RefreshOutcome { asked: Some(at), changed: false });
    }
    watched
}

#[test]
fn one_is_asked_about_and_many_are_swept() {
    let now = Instant::now();
    assert_eq!(watched(0, now).due(now, RESYNC), Due::Nothing);
    assert!(matches!(watched(1, now).due(now, RESYNC), Due::Refreshes(objects) if objects.len() == 1));
    let mut many = watched(2, now);
    assert_eq!(many.due(now, RESYNC), Due::Sweep);
    assert_eq!(many.due(now + RESYNC * 2, RESYNC), Due::Nothing, "one sweep at a time");
}

#[test]
fn a_row_from_before_the_last_look_is_no_news() {
    let began = Instant::now();
    let swept = swept(workflow("1", json!({ "display_name": "X" })));
    assert_eq!(watched(1, began + Duration::from_secs(1)).compare(&swept, began), []);
    assert_eq!(watched(1, began).compare(&swept, began + Duration::from_secs(2)), [Ref::new("0")]);
}

#[test]
fn a_reconcile_that_asked_nothing_does_not_make_the_lists_old() {
    let began = Instant::now();
    let mut watched = watched(1, began);
    watched.track(&Ref::new("0"), seen(), RefreshOutcome { asked: None, changed: false });
    let swept = swept(workflow("1", json!({ "display_name": "X" })));
    assert_eq!(watched.compare(&swept, began + Duration::from_millis(1)), [Ref::new("0")]);
}

#[test]
fn a_row_that_was_looked_into_in_vain_wakes_nobody_again_until_it_changes() {
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let refresh = |seconds, changed| RefreshOutcome { asked: Some(later(seconds)), changed };
    let object = Ref::new("0");
    let mut watched = watched(1, start);
    let odd = || swept(workflow("1", json!({ "tags": null })));
    assert_eq!(watched.compare(&odd(), later(1)), std::slice::from_ref(&object));
    watched.track(&object, seen(), refresh(2, false));
    assert_eq!(watched.compare(&odd(), later(3)), []);
    let other = swept(workflow("1", json!({ "tags": ["b"] })));
    assert_eq!(watched.compare(&other, later(4)), std::slice::from_ref(&object));
    // Corrected drift may come back with the same row.
    watched.track(&object, seen(), refresh(5, true));
    assert_eq!(watched.compare(&other, later(6)), [object]);
}

#[test]
fn the_api_is_left_alone_for_as_long_as_it_asks_whatever_the_interval() {
    let now = Instant::now();
    let mut watched = watched(2, now);
    assert_eq!(watched.due(now, Duration::from_secs(5)), Due::Sweep);
    watched.put_off(Some(Duration::from_secs(600)));
    assert_eq!(watched.due(now + Duration::from_secs(500), Duration::from_secs(5)), Due::Nothing);
    assert_eq!(watched.due(now + Duration::from_secs(601), Duration::from_secs(5)), Due::Sweep);
}

#[test]
fn another_mistral_workspace_is_looked_at_soon() {
    let now = Instant::now();
    let mut watched = watched(2, now);
    watched.is_of(Some("one"));
    assert_eq!(watched.due(now, RESYNC), Due::Sweep);
    watched.sweeping = false;
    let soon = now + Duration::from_secs(6);
    assert_eq!(watched.due(soon, RESYNC), Due::Nothing);
    watched.is_of(Some("one"));
    assert_eq!(watched.due(soon, RESYNC), Due::Nothing);
    watched.is_of(Some("two"));
    assert_eq!(watched.due(soon, RESYNC), Due::Sweep);
}

#[test]
fn an_api_that_does_not_answer_shows_in_the_age() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let detector = DriftDetector::new(wake, tokio::sync::mpsc::unbounded_channel().0);
    assert_eq!(detector.age(), None);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
    let key = WorkspaceKey { namespace: "n".into(), name: "default".into() };
    let mut all = watched(1, long_ago);
    all.complete = long_ago;
    assert!(matches!(all.due(Instant::now(), RESYNC), Due::Refreshes(_)), "asking is not answering");
    lock(&detector.watched).insert(key, all);
    assert!(detector.age().unwrap() >= Duration::from_secs(3));
}

#[test]
fn a_comparison_is_overdue_by_the_interval_of_its_own_workspace() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let detector = DriftDetector::new(wake, tokio::sync::mpsc::unbounded_channel().0);
    assert_eq!(detector.overdue(), Duration::ZERO);
    let ago = |minutes: u64| Instant::now().checked_sub(Duration::from_secs(60 * minutes)).unwrap();
    let add = |name: &str, minutes: u64, resync: Duration| {
        let mut all = watched(1, ago(minutes));
        all.complete = ago(minutes);
        all.due(Instant::now(), resync);
        lock(&detector.watched).insert(WorkspaceKey { namespace: "n".into(), name: name.into() }, all);
    };
    add("hours", 60, Duration::from_secs(3 * 3600));
    assert_eq!(detector.overdue(), Duration::ZERO, "it is due in two hours");
    add("minutes", 10, Duration::from_secs(300));
    let late = detector.overdue().as_secs();
    assert!((265..=300).contains(&late), "{late} s");
}
