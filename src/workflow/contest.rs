//! Fields that somebody else keeps setting back. After three times within an hour the operator stops fighting, reports
//! the contest, and tries again hourly.

use crate::clock::later;
use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::fields::Field;

/// How often a field is set within [`WINDOW`] before it counts as contested.
const TIMES: usize = 3;
/// The time within which these attempts count, and how long a contested field is left alone.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// What this process has set, and how often. Losing it costs three more attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contests(BTreeMap<Field, Entry>);

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    wanted: Value,
    foreign: Value,
    /// The last times at which it was set, at most [`TIMES`].
    set: Vec<Timestamp>,
    /// If the same value comes back, the field is contested.
    exhausted: bool,
}

/// Until when a field that was set at `set` is left alone; none if that is over. A time in the future comes from a
/// clock that has been set back since.
pub(super) fn hold_ends(set: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let until = later(set, WINDOW);
    Some(until).filter(|until| set <= now && *until > now)
}

impl Contests {
    /// Whether no field was set of late.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Until when a field that now holds `foreign` is left alone; none if it may be set.
    pub fn held_until(&self, field: Field, wanted: &Value, foreign: &Value, now: Timestamp) -> Option<Timestamp> {
        let entry = self.0.get(&field).filter(|entry| entry.wanted == *wanted && entry.foreign == *foreign)?;
        let until = hold_ends(*entry.set.last()?, now)?;
        Some(until).filter(|_| entry.exhausted)
    }

    /// Whether the wanted value was set back so often that this field is contested.
    pub fn is_exhausted(&self, field: Field, wanted: &Value) -> bool {
        self.0.get(&field).is_some_and(|entry| entry.exhausted && entry.wanted == *wanted)
    }

    /// The value that somebody else last gave to the field.
    pub fn foreign(&self, field: Field) -> Option<&Value> {
        self.0.get(&field).map(|entry| &entry.foreign)
    }

    /// A field that held `foreign` is being set. `known`: it was contested before this process began.
    pub fn set(&mut self, field: Field, wanted: Value, foreign: Value, known: bool, now: Timestamp) {
        let fresh = Entry { wanted, foreign, set: Vec::new(), exhausted: known };
        let entry = self.0.entry(field).or_insert_with(|| fresh.clone());
        if (&entry.wanted, &entry.foreign) != (&fresh.wanted, &fresh.foreign) {
            *entry = fresh;
        }
        entry.set.push(now);
        if entry.set.len() > TIMES {
            entry.set.remove(0);
        }
        let since = entry.set.first().map_or(now, |first| later(*first, WINDOW));
        entry.exhausted |= entry.set.len() == TIMES && since >= now;
    }

    /// Fields that have matched the spec for an hour are no longer contested.
    pub fn forget_settled(&mut self, differing: &[Field], now: Timestamp) {
        self.0.retain(|field, entry| {
            let last = entry.set.last().map_or(now, |last| later(*last, WINDOW));
            differing.contains(field) || last > now
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    /// The minutes at which a field is set, if somebody sets it back at once and it is polled every 5 minutes.
    fn sets(foreign: impl Fn(i64) -> Value) -> Vec<i64> {
        let mut contests = Contests::default();
        let mut sets = Vec::new();
        for minute in (0..240).step_by(5) {
            let (wanted, foreign) = (json!("ours"), foreign(minute));
            if contests.held_until(Field::Tags, &wanted, &foreign, at(minute)).is_none() {
                contests.set(Field::Tags, wanted, foreign, false, at(minute));
                sets.push(minute);
            }
            contests.forget_settled(&[Field::Tags], at(minute));
        }
        sets
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_no_field_alone_for_longer() {
        assert_eq!(hold_ends(at(100), at(110)), Some(at(160)));
        assert_eq!(hold_ends(at(100), at(160)), None);
        assert_eq!(hold_ends(at(100), at(0)), None);
    }

    #[test]
    fn a_value_that_comes_back_three_times_is_fought_hourly() {
        assert_eq!(sets(|_| json!("theirs")), [0, 5, 10, 70, 130, 190]);
    }

    #[test]
    fn another_value_each_time_is_no_contest() {
        assert_eq!(sets(|minute| json!(minute)).len(), 48);
    }

    #[test]
    fn a_field_that_stays_as_wanted_for_an_hour_is_contested_no_more() {
        let mut contests = Contests::default();
        for minute in [0, 5, 10] {
            contests.set(Field::Tags, json!("ours"), json!("theirs"), false, at(minute));
        }
        contests.forget_settled(&[], at(60));
        assert!(contests.is_exhausted(Field::Tags, &json!("ours")));
        contests.forget_settled(&[], at(70));
        assert!(!contests.is_exhausted(Field::Tags, &json!("ours")));
    }
}
