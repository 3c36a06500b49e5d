//! The figures of a measurement, and statistics over several measurements.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Named numbers in the order of display.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<(String, f64)>);

impl Figures {
    pub fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    /// Adds a figure if its value is known.
    pub fn add_known(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds counts, each divided by `count`. Their names get the prefix `beginning`.
    pub fn add_each(&mut self, beginning: &str, counts: &BTreeMap<String, u64>, count: f64) {
        for (name, times) in counts {
            self.add(format!("{beginning}{name}"), number(*times) / count);
        }
    }

    /// The figure of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The median and the extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value, or the mean of the two middle values of an even number.
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// The spread of these values. `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values = sorted(values);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Some(Self { median, min, max })
    }
}

/// The smallest value that at least `percent` percent of the values do not exceed. `None` if there are none.
pub fn percentile(values: impl IntoIterator<Item = f64>, percent: usize) -> Option<f64> {
    let values = sorted(values);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A count as a floating-point number.
#[expect(clippy::cast_precision_loss, reason = "nothing here is counted to 2^53")]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// Milliseconds between two times. Negative if `to` is earlier.
pub fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values_and_leaves_so_many_above() {
        let values = || (1..=200).rev().map(f64::from);
        assert_eq!(percentile(values(), 50), Some(100.0));
        assert_eq!(percentile(values(), 99), Some(198.0));
        assert_eq!(percentile([7.0], 99), Some(7.0));
        assert_eq!(percentile([3.0, 1.0, 2.0], 50), Some(2.0));
        assert_eq!(percentile([], 50), None);
    }

    #[test]
    fn a_median_is_in_the_middle_of_the_values_whatever_their_order() {
        assert_eq!(Spread::of([9.0, 1.0, 4.0]), Some(Spread { median: 4.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
