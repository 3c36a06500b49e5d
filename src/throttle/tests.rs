//! Tests of the budget: its decisions with a simulated clock, and its shell with the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::dispatcher::{Asked, Dispatcher, KEPT_FOR, Next, PER_LEVEL, PERMITS, Requester, Saturation};
use super::{Budget, Permit, Priority, Wake};
use crate::throttle::metrics::Waits;

fn requester(flow: &str, object: &str) -> Requester {
    Requester { flow: flow.into(), object: object.into() }
}

/// The calls of one key, at a time that the test sets.
struct Calls {
    dispatcher: Dispatcher<()>,
    now: Instant,
}

impl Calls {
    fn new(limit: f64) -> Self {
        let now = Instant::now();
        Self { dispatcher: Dispatcher::new(limit, now), now }
    }

    fn ask(&mut self, priority: Priority, flow: &str, object: &str) -> bool {
        self.dispatcher.ask(priority, &requester(flow, object), self.now, || ()).is_some()
    }

    /// Requests a permit, and makes one call if it is granted now.
    fn call(&mut self, priority: Priority, flow: &str, object: &str) -> bool {
        let asked = self.dispatcher.ask(priority, &requester(flow, object), self.now, || ());
        asked.is_some_and(|Asked { priority, .. }| {
            self.dispatcher.ended(priority, false, self.now);
            true
        })
    }

    /// A key with no token left: calls have used them all.
    fn exhausted(limit: f64) -> Self {
        let mut calls = Self::new(limit);
        while calls.call(Priority::Start, "", "first") {}
        calls.dispatcher.leave("first", calls.now);
        calls
    }

    /// Advances the clock until a permit is granted. Its object then requests it again and makes one call.
    fn next(&mut self) -> Option<String> {
        loop {
            match self.dispatcher.next(self.now) {
                Next::Permit(object) => {
                    assert!(self.call(Priority::Drift, "", &object));
                    return Some(object);
                }
                Next::At(at) => self.now = at.max(self.now + Duration::from_micros(1)),
                Next::Full | Next::Idle => return None,
            }
        }
    }
}

#[test]
fn the_place_in_the_queue_is_about_the_number_of_those_that_are_served_before() {
    let mut calls = Calls::exhausted(1.0);
    for n in 0..20 {
        assert!(!calls.ask(Priority::Start, "a", &format!("a-{n}")));
    }
    assert!(!calls.ask(Priority::Start, "b", "b-0"));
    assert!(!calls.ask(Priority::Watch, "a", "watch"));
    let ahead = |calls: &mut Calls, object: &str| calls.dispatcher.place(object, calls.now).map(|place| place.ahead);
    assert_eq!(ahead(&mut calls, "a-0"), Some(1), "the flows take turns");
    assert_eq!(ahead(&mut calls, "a-19"), Some(20));
    assert_eq!(ahead(&mut calls, "b-0"), Some(1));
    assert_eq!(ahead(&mut calls, "watch"), Some(21));
    assert_eq!(ahead(&mut calls, "nobody"), None);
    let place = calls.dispatcher.place("a-0", calls.now).unwrap();
    assert!((place.limit - 1.0).abs() < 1e-9 && (place.rate - 1.0).abs() < 1e-9, "{place:?}");
    while calls.next().is_some_and(|served| served != "b-0") {}
    assert_eq!(ahead(&mut calls, "b-0"), None, "served");
}

#[test]
fn a_caller_that_is_busy_for_longer_than_a_permit_is_kept_for_loses_no_place_in_the_queue() {
    let mut calls = Calls::exhausted(1.0);
    for object in ["slow", "second", "third"] {
        assert!(!calls.ask(Priority::Start, "a", object));
    }
    // Its status is being written when its turn comes.
    calls.dispatcher.set_busy("slow", true, calls.now);
    calls.now += Duration::from_secs(2);
    assert_eq!(calls.dispatcher.next(calls.now), Next::Permit("slow".into()));
    calls.now += KEPT_FOR + Duration::from_secs(1);
    assert_eq!(calls.next().as_deref(), Some("second"), "it holds up nobody meanwhile");
    assert_eq!(calls.dispatcher.permits(), 0);
    assert!(!calls.ask(Priority::Start, "a", "fourth"));
    calls.dispatcher.set_busy("slow", false, calls.now);
    assert_eq!(calls.next().as_deref(), Some("slow"));
    assert_eq!(calls.next().as_deref(), Some("third"));

    // A permit that it gets while it is busy is kept for it from the moment when it can take it.
    assert!(!calls.ask(Priority::Start, "a", "slow"));
    calls.dispatcher.set_busy("slow", true, calls.now);
    assert_eq!(calls.next().as_deref(), Some("fourth"));
    calls.now += Duration::from_secs(2);
    assert_eq!(calls.dispatcher.next(calls.now), Next::Permit("slow".into()));
    calls.now += KEPT_FOR - Duration::from_secs(1);
    calls.dispatcher.set_busy("slow", false, calls.now);
    calls.now += KEPT_FOR - Duration::from_secs(1);
    assert!(calls.ask(Priority::Start, "a", "slow"));
    calls.dispatcher.ended(Priority::Start, false, calls.now);

    // Nobody else waits: the permit comes once the caller is no longer busy.
    let mut calls = Calls::exhausted(1.0);
    assert!(!calls.ask(Priority::Start, "a", "slow"));
    calls.dispatcher.set_busy("slow", true, calls.now);
    calls.now += Duration::from_secs(2);
    assert_eq!(calls.dispatcher.next(calls.now), Next::Permit("slow".into()));
    calls.now += KEPT_FOR;
    assert_eq!(calls.dispatcher.next(calls.now), Next::Full, "the task that grants permits has to wait for it");
    calls.dispatcher.set_busy("slow", false, calls.now);
    assert_eq!(calls.next().as_deref(), Some("slow"));
    assert_eq!((calls.dispatcher.waiting(), calls.dispatcher.permits()), (0, 0));
}

#[test]
fn a_stop_comes_next_while_ten_thousand_starts_wait_and_none_of_them_is_lost() {
    let mut calls = Calls::exhausted(50.0);
    let start = calls.now;
    for n in 0..10_000 {
        assert!(!calls.ask(Priority::Start, &format!("team-{}", n % 7), &format!("start {n}")));
    }
    let mut seen = BTreeSet::new();
    for round in 0..100 {
        for _ in 0..20 {
            seen.insert(calls.next().unwrap());
        }
        let (asked, stop) = (calls.now, format!("stop {round}"));
        assert!(!calls.ask(Priority::Stop, "team-0", &stop));
        assert_eq!(calls.next(), Some(stop));
        assert!(calls.now - asked < Duration::from_millis(21), "waited {:?}", calls.now - asked);
    }
    seen.extend(std::iter::from_fn(|| calls.next()));
    assert_eq!(seen.len(), 10_000);
    assert_eq!((calls.dispatcher.waiting(), calls.dispatcher.permits()), (0, 0));
    let took = (calls.now - start).as_secs_f64();
    assert!((201.0..203.0).contains(&took), "10,100 calls at 50 a second took {took} s");
}

#[test]
fn flows_take_turns_within_a_priority_level() {
    let mut calls = Calls::exhausted(50.0);
    for n in 0..1000 {
        calls.ask(Priority::Start, "many", &format!("many {n}"));
    }
    for n in 0..3 {
        calls.ask(Priority::Start, "few", &format!("few {n}"));
    }
    let first: Vec<_> = (0..7).map(|_| calls.next().unwrap()).collect();
    assert_eq!(first, ["many 0", "few 0", "many 1", "few 1", "many 2", "few 2", "many 3"]);
}

#[test]
fn who_asks_again_stands_in_the_queue_once_and_may_move_up_but_not_down() {
    let mut calls = Calls::exhausted(50.0);
    calls.ask(Priority::Start, "team", "start");
    calls.ask(Priority::Watch, "team", "a");
    calls.ask(Priority::Watch, "team", "a");
    calls.ask(Priority::Stop, "team", "a");
    calls.ask(Priority::Drift, "team", "a");
    assert_eq!(calls.dispatcher.waiting(), 2);
    assert_eq!(std::iter::from_fn(|| calls.next()).collect::<Vec<_>>(), ["a", "start"]);
}

#[test]
fn a_turn_that_nobody_takes_up_comes_back() {
    let mut calls = Calls::exhausted(1.0);
    calls.ask(Priority::Start, "team", "late");
    calls.ask(Priority::Start, "team", "next");
    calls.now += Duration::from_secs(1);
    assert_eq!(calls.dispatcher.next(calls.now), Next::Permit("late".into()));
    assert!(matches!(calls.dispatcher.next(calls.now), Next::At(_)));
    assert_eq!(calls.dispatcher.permits(), 1);
    calls.now += KEPT_FOR;
    assert_eq!(calls.dispatcher.next(calls.now), Next::Permit("next".into()));
    assert_eq!((calls.dispatcher.permits(), calls.dispatcher.waiting()), (1, 1));
    assert!(!calls.ask(Priority::Start, "team", "late"), "it had come too late, and stands behind");
}

#[test]
fn slow_calls_of_one_level_leave_permits_for_the_others_and_no_more_than_128_are_granted() {
    let mut calls = Calls::new(1000.0);
    let mut had = |priority: Priority| {
        let asked: Vec<_> = (0..100).map(|n| format!("{priority:?} {n}")).collect();
        let had = asked.iter().filter(|object| calls.ask(priority, "team", object)).count();
        calls.now += Duration::from_secs(1);
        had
    };
    assert_eq!(
        [Priority::Start, Priority::Watch, Priority::Drift].map(&mut had),
        [PER_LEVEL, PERMITS - 8 - PER_LEVEL, 0]
    );
    assert_eq!((had(Priority::Stop), calls.dispatcher.permits()), (8, PERMITS));
    assert_eq!(calls.dispatcher.next(calls.now), Next::Full);
    calls.dispatcher.ended(Priority::Start, false, calls.now);
    assert!(matches!(calls.dispatcher.next(calls.now), Next::Permit(object) if object.starts_with("Stop")));
    calls.dispatcher.ended(Priority::Start, false, calls.now);
    assert!(matches!(calls.dispatcher.next(calls.now), Next::Permit(object) if object.starts_with("Stop")));
}

#[test]
fn permits_that_were_granted_are_put_off_when_the_api_refuses() {
    let mut calls = Calls::exhausted(50.0);
    for n in 0..5 {
        calls.ask(Priority::Start, "team", &format!("start {n}"));
    }
    calls.now += Duration::from_secs(1);
    assert_eq!(calls.dispatcher.next(calls.now), Next::Permit("start 0".into()));
    assert_eq!(calls.dispatcher.next(calls.now), Next::Permit("start 1".into()));
    calls.dispatcher.refused(Some(Duration::from_secs(30)), calls.now);
    assert!(!calls.ask(Priority::Start, "team", "start 0"));
    assert_eq!(calls.dispatcher.permits(), 0);
    let until = calls.now + Duration::from_secs(30);
    assert_eq!(calls.dispatcher.next(calls.now), Next::At(until));
    let order: Vec<_> = std::iter::from_fn(|| calls.next()).collect();
    assert!(calls.now >= until);
    assert_eq!(order.len(), 5);
    assert!(order[..2].iter().all(|object| ["start 0", "start 1"].contains(&object.as_str())), "{order:?}");
}

#[test]
fn what_keeps_calls_waiting_is_told_once_it_lasts_and_for_as_long_as_it_does() {
    let mut calls = Calls::exhausted(1.0);
    let start = calls.now;
    for n in 0..30 {
        calls.ask(Priority::Start, "team", &format!("start {n}"));
    }
    assert_eq!(calls.dispatcher.saturation(start + Duration::from_secs(9)), None);
    assert_eq!(calls.dispatcher.saturation(start + Duration::from_secs(10)), Some((Saturation::Queued, start)));
    while calls.next().is_some() {}
    let end = calls.now;
    assert_eq!(calls.dispatcher.saturation(end + Duration::from_secs(60)), Some((Saturation::Queued, start)));
    assert_eq!(calls.dispatcher.saturation(end + Duration::from_secs(121)), None);
    let refused = end + Duration::from_secs(200);
    calls.dispatcher.refused(None, refused);
    assert_eq!(calls.dispatcher.saturation(refused), Some((Saturation::Refused, refused)));
    // Single refusals with a full recovery between them are one saturation, not one each.
    let again = refused + Duration::from_secs(60);
    calls.dispatcher.refused(None, again);
    assert_eq!(calls.dispatcher.saturation(again), Some((Saturation::Refused, refused)));
    assert_eq!(calls.dispatcher.saturation(refused + Duration::from_secs(400)), None);
}

#[derive(Clone, Debug)]
enum Act {
    Ask { priority: usize, flow: u8, object: u8 },
    Leave(u8),
    Borrow,
    Refused(u8),
    Rest(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..4_usize, 0..3_u8, 0..40_u8).prop_map(|(priority, flow, object)| Act::Ask { priority, flow, object }),
        1 => (0..40_u8).prop_map(Act::Leave),
        1 => Just(Act::Borrow),
        1 => (0..5_u8).prop_map(Act::Refused),
        5 => (0..400_u16).prop_map(Act::Rest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, a permit is granted only when all calls so far, including borrowed ones, fit the limit. None
    /// is granted during a pause that the API asked for. In the end, no request waits and no permit is kept.
    #[test]
    fn never_too_many_calls_and_nothing_is_left_behind(limit in 1..60_u32, acts in proptest::collection::vec(act(), 1..300)) {
        let mut calls = Calls::new(f64::from(limit));
        let start = calls.now;
        let burst = (f64::from(limit) / 5.0).max(1.0);
        let (mut sent, mut paused_until) = (0.0, start);
        let allowed = |now: Instant| burst + f64::from(limit) * (now - start).as_secs_f64() + 0.01;
        for act in acts {
            match act {
                Act::Ask { priority, flow, object } => {
                    let object = object.to_string();
                    if calls.call(Priority::ALL[priority], &flow.to_string(), &object) {
                        sent += 1.0;
                        prop_assert!(calls.now >= paused_until, "in a pause");
                        prop_assert!(sent <= allowed(calls.now), "{sent} calls");
                    }
                }
                Act::Leave(object) => calls.dispatcher.leave(&object.to_string(), calls.now),
                Act::Borrow => {
                    calls.dispatcher.bucket().borrow(calls.now);
                    sent += 1.0;
                }
                Act::Refused(seconds) => {
                    let wait = Duration::from_secs(seconds.into());
                    calls.dispatcher.refused(Some(wait), calls.now);
                    paused_until = paused_until.max(calls.now + wait.max(Duration::from_secs(1)));
                }
                Act::Rest(milliseconds) => {
                    let until = calls.now + Duration::from_millis(milliseconds.into());
                    loop {
                        match calls.dispatcher.next(calls.now) {
                            Next::Permit(object) => {
                                prop_assert!(calls.call(Priority::Drift, "0", &object));
                                sent += 1.0;
                                prop_assert!(calls.now >= paused_until, "in a pause");
                                prop_assert!(sent <= allowed(calls.now), "{sent} calls");
                            }
                            Next::At(at) if at < until => calls.now = at.max(calls.now + Duration::from_micros(1)),
                            _ => break,
                        }
                    }
                    calls.now = until;
                }
            }
            prop_assert!(calls.dispatcher.waiting() <= 40);
        }
        while calls.next().is_some() {}
        prop_assert_eq!((calls.dispatcher.waiting(), calls.dispatcher.permits()), (0, 0));
    }

    /// Of the priority levels that always wait, each gets a tenth, and the highest of them gets the rest.
    #[test]
    fn none_is_starved(waiting in proptest::sample::subsequence(Priority::ALL.to_vec(), 1..=4)) {
        let mut calls = Calls::exhausted(1000.0);
        let mut turns: BTreeMap<String, usize> = BTreeMap::new();
        for n in 0..1000 {
            for priority in &waiting {
                for spare in n..n + 2 {
                    calls.ask(*priority, "team", &format!("{priority:?} {spare}"));
                }
            }
            let object = calls.next().unwrap();
            *turns.entry(object.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
        for (place, priority) in waiting.iter().enumerate() {
            let had = turns.get(&format!("{priority:?}")).copied().unwrap_or_default();
            let least = if place == 0 { 1000 - 105 * (waiting.len() - 1) } else { 98 };
            prop_assert!(had >= least, "{priority:?} had {had} of 1000 turns: {turns:?}");
        }
    }
}

fn budget(limit: u32) -> (Arc<Budget>, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(0));
    let tell = Arc::clone(&told);
    let budget = Budget::new(limit, Waits::default(), move || {
        tell.fetch_add(1, Ordering::Relaxed);
    });
    (budget, told)
}

fn take_all(budget: &Arc<Budget>) -> Vec<Permit> {
    let nobody = || -> Wake { Box::new(|| false) };
    let who = requester("team", "greedy");
    let turns = std::iter::from_fn(|| budget.ask(Priority::Start, &who, nobody)).collect();
    budget.leave(&who.object);
    turns
}

#[tokio::test]
async fn who_was_told_to_wait_is_woken_and_has_its_turn_then() {
    let (budget, _) = budget(20);
    drop(take_all(&budget).into_iter().inspect(|permit| permit.spend().unwrap()).collect::<Vec<_>>());
    let (wakes, mut woken) = tokio::sync::mpsc::unbounded_channel();
    let who = requester("team", "patient");
    let wake = || -> Wake { Box::new(move || wakes.send(()).is_ok()) };
    assert!(budget.ask(Priority::Start, &who, wake).is_none());
    tokio::time::timeout(Duration::from_secs(10), woken.recv()).await.unwrap().unwrap();
    let permit = budget.ask(Priority::Start, &who, || unreachable!("it had its turn")).unwrap();
    assert_eq!(permit.spend(), Ok(()));
    assert_eq!(permit.spend(), Ok(()), "a second call of the same turn does not wait");
}

#[tokio::test]
async fn who_is_gone_when_its_turn_comes_holds_up_nobody() {
    let (budget, _) = budget(1);
    let spent = take_all(&budget);
    spent.iter().for_each(|permit| permit.spend().unwrap());
    for n in 0..1000 {
        let gone = || -> Wake { Box::new(|| false) };
        assert!(budget.ask(Priority::Stop, &requester("team", &format!("gone {n}")), gone).is_none());
    }
    let begun = Instant::now();
    let permit = budget.take(Priority::Drift, "team").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "a thousand that are gone were waited for");
    drop((spent, permit));
    // The task gets its tenth of the permits before the last requester that is gone has been skipped.
    while budget.lock().dispatcher.waiting() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "some that are gone still wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_task_that_is_given_up_while_it_waits_leaves_nothing_behind() {
    let (budget, _) = budget(1);
    let first = take_all(&budget);
    first.iter().for_each(|permit| permit.spend().unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(50), budget.take(Priority::Start, "team")).await.is_err());
    assert_eq!(budget.lock().dispatcher.waiting(), 0);
    drop(first);
    assert_eq!(budget.lock().dispatcher.permits(), 0);
}

#[tokio::test]
async fn a_turn_without_a_call_costs_nothing_and_a_refusal_is_told_once() {
    let (budget, told) = budget(50);
    let all = take_all(&budget).len();
    assert_eq!(take_all(&budget).len(), all, "unused tokens did not come back");
    let turns = take_all(&budget);
    turns.iter().for_each(|permit| permit.refused(Some(Duration::from_secs(60))));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(turns[0].spend().is_err_and(|left| left > Duration::from_secs(59)));
    assert!(matches!(budget.saturation(), Some((Saturation::Refused, _, 0))));
    drop(turns);
    assert!(take_all(&budget).is_empty());
}
