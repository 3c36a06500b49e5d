//! The bench's tables and JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::figures::{Figures, Spread};

/// The figure that determines the best of several baselines.
pub const RATE: &str = "executions per second";

/// How the columns of other builds begin.
const AGAINST: &str = "against ";

/// The column of the operator, or of one of another build.
pub fn operator_column(other: Option<&str>) -> String {
    other.map_or_else(|| "operator".to_owned(), |name| format!("{AGAINST}{name}"))
}

/// The results of one scenario.
#[derive(Debug, Default)]
pub struct Table {
    /// The scenario and its number of resources.
    pub title: String,
    /// What a reader needs to know.
    pub notes: Vec<String>,
    /// The name of each column, and the figures of each measurement.
    pub columns: Vec<(String, Vec<Figures>)>,
    /// The aims for the last column.
    pub aims: Vec<Aim>,
}

/// An aim. Missing it does not fail the bench.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    pub figure: &'static str,
    pub bound: Bound,
}

/// The limit of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// At most this.
    Most(f64),
    /// At most this multiple of the baseline's figure.
    MostOfBaseline(f64),
    /// At least this multiple of the baseline's figure.
    LeastOfBaseline(f64),
}

impl Bound {
    /// Whether a figure and its ratio to the baseline's are within the bound. Unknown without a baseline to compare
    /// with.
    fn is_met(self, value: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::Most(most) => Some(value <= most),
            Self::MostOfBaseline(most) => ratio.map(|ratio| ratio <= most),
            Self::LeastOfBaseline(least) => ratio.map(|ratio| ratio >= least),
        }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Most(most) => write!(f, "≤ {most}"),
            Self::MostOfBaseline(most) => write!(f, "≤ {most} × baseline"),
            Self::LeastOfBaseline(least) => write!(f, "≥ {least} × baseline"),
        }
    }
}

impl Table {
    /// The spread of a figure over the measurements of a column.
    fn spread(&self, column: usize, figure: &str) -> Option<Spread> {
        Spread::of(self.columns.get(column)?.1.iter().filter_map(|turn| turn.get(figure)))
    }

    /// The column of the baseline, or of the other build, with the most executions per second.
    fn best_baseline(&self) -> Option<usize> {
        let compared = |name: &str| name.starts_with("baseline") || name.starts_with(AGAINST);
        let baselines = (0..self.columns.len()).filter(|column| compared(&self.columns[*column].0));
        let rate = |column: &usize| self.spread(*column, RATE).map_or(0.0, |spread| spread.median);
        baselines.max_by(|one, other| rate(one).total_cmp(&rate(other)))
    }

    /// The last column's median of a figure.
    pub fn median(&self, figure: &str) -> Option<f64> {
        self.spread(self.columns.len().checked_sub(1)?, figure).map(|spread| spread.median)
    }

    /// The last column's median of a figure, as a multiple of the best baseline's.
    fn ratio(&self, figure: &str) -> Option<f64> {
        let baseline = self.spread(self.best_baseline()?, figure)?.median;
        (baseline > 0.0).then_some(self.median(figure)? / baseline)
    }

    /// The names of all figures. Each name stands after the one that it follows in its measurement.
    fn figures(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for turn in self.columns.iter().flat_map(|(_, turns)| turns) {
            let mut next = 0;
            for name in turn.names() {
                let known = names.iter().position(|known| *known == name);
                let place = known.unwrap_or_else(|| {
                    names.insert(next, name);
                    next
                });
                next = place + 1;
            }
        }
        names
    }

    fn aim(&self, figure: &str) -> String {
        let Some(aim) = self.aims.iter().find(|aim| aim.figure == figure) else { return String::new() };
        let value = self.median(figure).unwrap_or_default();
        match aim.bound.is_met(value, self.ratio(figure)) {
            Some(true) => format!("{}: met", aim.bound),
            Some(false) => format!("{}: missed", aim.bound),
            None => aim.bound.to_string(),
        }
    }

    /// JSON with each measurement, the spreads and the ratios.
    pub fn to_json(&self) -> Value {
        let columns: Vec<Value> = (0..self.columns.len())
            .map(|column| {
                let (name, turns) = &self.columns[column];
                let spreads: BTreeMap<&str, Spread> =
                    self.figures().into_iter().filter_map(|name| Some((name, self.spread(column, name)?))).collect();
                json!({ "name": name, "turns": turns, "figures": spreads })
            })
            .collect();
        let ratios: BTreeMap<&str, f64> =
            self.figures().into_iter().filter_map(|name| Some((name, self.ratio(name)?))).collect();
        let baseline = self.best_baseline().map(|column| &self.columns[column].0);
        json!({ "title": self.title, "notes": self.notes, "columns": columns, "baseline": baseline, "ratios_to_baseline": ratios })
    }
}

impl Display for Table {
    /// Markdown that is readable as plain text.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        for note in &self.notes {
            writeln!(f, "{note}\n")?;
        }
        let best = self.best_baseline();
        let mut head = vec![String::new()];
        head.extend(self.columns.iter().map(|(name, _)| name.clone()));
        head.extend(best.map(|best| format!("÷ {}", self.columns[best].0)));
        if !self.aims.is_empty() {
            head.push("aim".to_owned());
        }
        let mut rows = vec![head];
        for name in self.figures() {
            let mut row = vec![name.to_owned()];
            row.extend((0..self.columns.len()).map(|column| self.spread(column, name).map(cell).unwrap_or_default()));
            row.extend(best.map(|_| self.ratio(name).map(shown).unwrap_or_default()));
            if !self.aims.is_empty() {
                row.push(self.aim(name));
            }
            rows.push(row);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
            if number == 0 {
                let line: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(f, "|-{}-|", line.join("-|-"))?;
            }
        }
        Ok(())
    }
}

fn cell(spread: Spread) -> String {
    let (median, min, max) = (shown(spread.median), shown(spread.min), shown(spread.max));
    if min == max { median } else { format!("{median} ({min} to {max})") }
}

/// Three significant digits, or all digits of a whole number.
fn shown(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 || size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(figures: &[(&str, f64)]) -> Figures {
        let mut all = Figures::default();
        for (name, value) in figures {
            all.add(*name, *value);
        }
        all
    }

    #[test]
    fn the_operator_is_compared_with_the_baseline_that_is_faster() {
        let baseline = |rate| vec![turn(&[(RATE, rate), ("POST p50", 100.0)])];
        let operator = [150.0, 180.0, 120.0].map(|rate| turn(&[(RATE, rate), ("POST p50", 160.0), ("own", 1.0)]));
        let aims = vec![
            Aim { figure: RATE, bound: Bound::LeastOfBaseline(0.8) },
            Aim { figure: "POST p50", bound: Bound::MostOfBaseline(1.5) },
            Aim { figure: "own", bound: Bound::Most(2.0) },
        ];
        let columns = vec![
            ("baseline 32".into(), baseline(160.0)),
            ("baseline 128".into(), baseline(200.0)),
            ("operator".into(), operator.into()),
        ];
        let table = Table { title: "burst".into(), notes: vec!["A note.".into()], columns, aims };
        assert_eq!(
            table.to_string(),
            "\
### burst

A note.

|                       | baseline 32 | baseline 128 | operator         | ÷ baseline 128 | aim                      |
|-----------------------|-------------|--------------|------------------|----------------|--------------------------|
| executions per second | 160         | 200          | 150 (120 to 180) | 0.750          | ≥ 0.8 × baseline: missed |
| POST p50              | 100         | 100          | 160              | 1.60           | ≤ 1.5 × baseline: missed |
| own                   |             |              | 1                |                | ≤ 2: met                 |
"
        );
        let json = table.to_json();
        assert_eq!((&json["baseline"], &json["ratios_to_baseline"][RATE]), (&json!("baseline 128"), &json!(0.75)));
        assert_eq!(json["columns"][2]["figures"][RATE], json!({ "median": 150.0, "min": 120.0, "max": 180.0 }));
        assert_eq!(json["columns"][2]["turns"][1][RATE], 180.0);
    }

    #[test]
    fn what_only_a_later_column_has_stands_where_it_was_measured() {
        let columns = vec![
            ("apply".to_owned(), vec![turn(&[("calls", 1.0), ("of them GET", 1.0), ("writes", 1.0)])]),
            (
                "archive".to_owned(),
                vec![turn(&[("calls", 2.0), ("of them GET", 1.0), ("of them PUT", 1.0), ("writes", 1.0)])],
            ),
        ];
        let table = Table { columns, ..Table::default() };
        assert_eq!(table.figures(), ["calls", "of them GET", "of them PUT", "writes"]);
    }

    #[test]
    fn a_scenario_without_a_baseline_has_no_ratios_and_can_have_aims() {
        let aims = vec![Aim { figure: "writes", bound: Bound::Most(0.0) }];
        let columns = vec![("operator".to_owned(), vec![turn(&[("writes", 0.0)])])];
        let table = Table { title: "rest".into(), notes: Vec::new(), columns, aims };
        assert!(table.to_string().ends_with("| writes | 0        | ≤ 0: met |\n"), "{table}");
        assert_eq!(table.to_json()["baseline"], Value::Null);
    }
}
