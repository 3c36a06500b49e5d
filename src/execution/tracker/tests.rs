//! When runs are swept and fetched, and who is notified.

use super::*;

fn watched(runs: usize, now: Instant) -> Watched {
    let run = |_| Run {
        execution_id: "id".into(),
        started: Timestamp::UNIX_EPOCH,
        next_look: now,
        asked: now,
        looked: now,
        unanswered: 0,
        doubtful: false,
    };
    let runs = (0..runs).map(|n| (Ref::new(&format!("run-{n}")), run(n))).collect();
    Watched { runs, ..Watched::default() }
}

#[test]
fn one_run_is_asked_about_and_many_are_swept() {
    let now = Instant::now();
    assert!(matches!(watched(1, now).due(now, Timestamp::UNIX_EPOCH), Due::Questions(asked) if asked.len() == 1));
    assert_eq!(watched(50, now).due(now, Timestamp::UNIX_EPOCH), Due::Sweep(Vec::new()));
    assert_eq!(watched(0, now).due(now, Timestamp::UNIX_EPOCH), Due::Nothing);
}

#[test]
fn questions_are_cheaper_than_a_sweep_of_many_pages() {
    let now = Instant::now();
    let mut watched = Watched { pages: 5, ..watched(5, now) };
    assert!(matches!(watched.due(now, Timestamp::UNIX_EPOCH), Due::Questions(asked) if asked.len() == 5));
}

#[test]
fn a_run_is_asked_about_now_and_then_whatever_sweeps_say_and_seldom_if_they_prove_that_it_goes_on() {
    let begun = Instant::now();
    let due = |after: u64, swept: u64, doubtful: bool| {
        let mut watched = watched(50, begun);
        let now = begun + Duration::from_secs(after);
        for run in watched.runs.values_mut() {
            (run.looked, run.doubtful) = (begun + Duration::from_secs(swept), doubtful);
        }
        match watched.due(now, Timestamp::UNIX_EPOCH) {
            Due::Sweep(asked) => asked.len(),
            other => panic!("{other:?}"),
        }
    };
    // Sweeps never cover the run; cover it each time; cover it, but prove nothing.
    assert_eq!([due(59, 0, false), due(91, 0, false)], [0, 50]);
    assert_eq!([due(1799, 1790, false), due(2701, 2690, false)], [0, 50]);
    assert_eq!([due(59, 50, true), due(91, 80, true)], [0, 50]);
    // Sweeps that fail for a while do not make all gets due at once.
    assert_eq!(due(1000, 950, false), 0);
}

#[test]
fn no_sweep_proves_that_a_run_goes_on_which_is_told_of_or_unknown_or_in_trouble_or_from_an_earlier_life() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let tracker = Tracker::new(wake);
    let key = WorkspaceKey { namespace: "n".into(), name: "default".into() };
    let track = |name: &str, word| tracker.track(&key, &Ref::new(name), name, Timestamp::UNIX_EPOCH, word);
    let doubtful = |name: &str| lock(&tracker.watched)[&key].runs[&Ref::new(name)].doubtful;
    for (name, word, doubt) in [
        ("known", ApiAnswer::Exists, false),
        ("unknown", ApiAnswer::NotFound, true),
        ("earlier", ApiAnswer::None, true),
    ] {
        track(name, word);
        assert_eq!(doubtful(name), doubt, "{name}");
    }
    // The operator's own writes do not change that, and an answer ends the doubt.
    track("earlier", ApiAnswer::None);
    assert!(doubtful("earlier"));
    track("earlier", ApiAnswer::Exists);
    assert!(!doubtful("earlier"));
    tracker.had_trouble(&key, &Ref::new("known"), None);
    assert!(doubtful("known"));
}

#[test]
fn how_long_no_run_was_seen_is_told_only_where_one_goes_on() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let tracker = Tracker::new(wake);
    let (key, run) = (WorkspaceKey { namespace: "n".into(), name: "default".into() }, Ref::new("run"));
    assert_eq!(tracker.longest_unseen(), None);
    tracker.track(&key, &run, "id", Timestamp::UNIX_EPOCH, ApiAnswer::None);
    let unseen_for = |wait| {
        let mut all = lock(&tracker.watched);
        all.get_mut(&key).unwrap().runs.get_mut(&run).unwrap().looked -= wait;
    };
    unseen_for(Duration::from_secs(30));
    assert_eq!(tracker.longest_unseen().map(|age| age.as_secs()), Some(30));
    // The operator's own writes wake the resource, but do not show the state of the run.
    tracker.track(&key, &run, "id", Timestamp::UNIX_EPOCH, ApiAnswer::None);
    assert_eq!(tracker.longest_unseen().map(|age| age.as_secs()), Some(30));
    tracker.track(&key, &run, "id", Timestamp::UNIX_EPOCH, ApiAnswer::Exists);
    assert_eq!(tracker.longest_unseen().map(|age| age.as_secs()), Some(0));
    tracker.untrack(&key, &run);
    assert_eq!(tracker.longest_unseen(), None);
}

#[test]
fn a_sweep_after_one_that_was_cut_short_does_not_make_up_for_it() {
    let wall = Timestamp::now();
    let mut run = watched(1, Instant::now()).runs.into_values().next().unwrap();
    assert!(run.is_covered(Some(wall), wall) && run.is_covered(None, wall));
    run.looked -= Duration::from_secs(300);
    assert!(!run.is_covered(Some(wall), wall));
    assert!(run.is_covered(Some(wall - SignedDuration::from_secs(300)), wall));
    assert!(run.is_covered(Some(Timestamp::MIN), wall));
}

#[test]
fn a_workspace_that_is_gone_is_forgotten_once_nobody_waits_there() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let tracker = Tracker::new(wake);
    let key = |name: &str| WorkspaceKey { namespace: "n".into(), name: name.into() };
    for name in ["left", "waits", "stays"] {
        tracker.track(&key(name), &Ref::new(name), "id", Timestamp::UNIX_EPOCH, ApiAnswer::Exists);
    }
    for name in ["left", "stays"] {
        tracker.untrack(&key(name), &Ref::new(name));
    }
    tracker.forget_all_but(|key| key.name == "stays");
    let known = || lock(&tracker.watched).keys().map(|key| key.name.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(known(), ["stays", "waits"].map(str::to_owned).into());
    tracker.untrack(&key("waits"), &Ref::new("waits"));
    tracker.forget_all_but(|key| key.name == "stays");
    assert_eq!(known(), ["stays".to_owned()].into());
}

#[tokio::test]
async fn a_run_whose_object_is_gone_is_dropped_also_where_the_workspace_cannot_be_used() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let (suspect, _suspects) = tokio::sync::mpsc::unbounded_channel();
    let (tracker, connections) = (Arc::new(Tracker::new(wake)), Arc::new(Connections::new(Vec::new(), suspect)));
    let key = WorkspaceKey { namespace: "n".into(), name: "gone".into() };
    for name in ["there", "gone"] {
        tracker.track(&key, &Ref::new(name), "id", Timestamp::UNIX_EPOCH, ApiAnswer::Exists);
        lock(&tracker.refreshes).insert(Ref::new(name), None);
    }
    let stop = CancellationToken::new();
    let exists = |object: &Ref| object.name == "there";
    let running = tokio::spawn(Arc::clone(&tracker).run(connections, exists, stop.clone()));
    let dropped = async {
        while lock(&tracker.refreshes).len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), dropped).await.expect("still known");
    assert_eq!(lock(&tracker.watched)[&key].runs.len(), 1);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_reconcile_that_waits_for_a_reason_to_ask_is_told_and_nobody_is_woken_besides() {
    let (wake, mut woken) = tokio::sync::mpsc::unbounded_channel();
    let tracker = Tracker::new(wake);
    let (waits, other) = (Ref::new("waits"), Ref::new("other"));
    let told = async {
        tokio::task::yield_now().await;
        tracker.wake_all(vec![waits.clone(), other.clone()]);
    };
    let (run_id, ()) = tokio::join!(tracker.refresh(&waits), told);
    assert_eq!((run_id, woken.try_recv().ok()), (None, Some(other)));
    // A reconcile that has stopped waiting is woken, so that the reason is not lost.
    {
        let mut refresh = std::pin::pin!(tracker.refresh(&waits));
        assert!(futures::poll!(refresh.as_mut()).is_pending());
        tracker.wake_all(vec![waits.clone()]);
        assert!(woken.try_recv().is_err());
    }
    assert_eq!(woken.try_recv().ok(), Some(waits.clone()));
    assert_eq!(tracker.take_refresh(&waits), Some(None));
}

#[test]
fn the_more_runs_start_the_more_often_a_list_of_one_page_is_read_until_the_last_one_is_not_young_any_more() {
    let begun = Instant::now();
    let in_ticks = |pages, started, after| {
        let starts = std::iter::repeat_n(begun, started).collect();
        let apart = Watched { pages, starts, ..watched(3, begun) }.sweeps_apart(begun + Duration::from_millis(after));
        apart.as_millis().div_ceil(TICK.as_millis())
    };
    assert_eq!([0, 25, 50, 100, 1000].map(|started| in_ticks(1, started, 1000)), [4, 4, 2, 1, 1]);
    assert_eq!(in_ticks(2, 1000, 1000), 4);
    assert_eq!([2999, 3000].map(|after| in_ticks(1, 1000, after)), [1, 4]);
}

#[test]
fn a_start_counts_once_and_only_if_it_was_of_late() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let (tracker, key) = (Tracker::new(wake), WorkspaceKey { namespace: "n".into(), name: "default".into() });
    let track = |name: &str, started, word| tracker.track(&key, &Ref::new(name), name, started, word);
    for _ in 0..2 {
        track("new", Timestamp::now(), ApiAnswer::Exists);
        track("old", Timestamp::UNIX_EPOCH, ApiAnswer::Exists);
        track("from an earlier life", Timestamp::now(), ApiAnswer::None);
    }
    tracker.untrack(&key, &Ref::new("new"));
    assert_eq!(lock(&tracker.watched)[&key].starts.len(), 1);
}

#[test]
fn a_run_that_is_due_waits_for_the_list_that_serves_others_too_instead_of_being_asked_about() {
    let begun = Instant::now();
    let after = |millis| begun + Duration::from_millis(millis);
    let due = |swept: Option<u64>, others_due: u64, now: u64| {
        let mut watched = Watched { pages: 1, swept: swept.map(after), ..watched(11, after(others_due)) };
        watched.runs.values_mut().next().unwrap().next_look = begun;
        watched.due(after(now), Timestamp::UNIX_EPOCH)
    };
    assert_eq!(due(None, 900, 0), Due::Sweep(Vec::new()));
    assert_eq!([due(Some(0), 900, 500), due(Some(0), 900, 875)], [Due::Nothing, Due::Sweep(Vec::new())]);
    // The other runs are due so late that they would be polled again anyway.
    assert!(matches!(due(Some(0), 2000, 500), Due::Questions(asked) if asked.len() == 1));
}

#[test]
fn nothing_is_due_while_the_api_is_in_trouble() {
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let tracker = Tracker::new(wake);
    let key = WorkspaceKey { namespace: "n".into(), name: "default".into() };
    tracker.track(&key, &Ref::new("run"), "id", Timestamp::UNIX_EPOCH, ApiAnswer::None);
    assert!(!tracker.had_trouble(&key, &Ref::new("run"), None));
    let mut all = lock(&tracker.watched);
    let watched = all.get_mut(&key).unwrap();
    assert_eq!(watched.due(Instant::now(), Timestamp::UNIX_EPOCH), Due::Nothing);
    assert!(matches!(watched.due(Instant::now() + Duration::from_secs(3), Timestamp::UNIX_EPOCH), Due::Questions(_)));
}
