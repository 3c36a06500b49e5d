//! Checks of query parameters.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;
use crate::page::Order;
use crate::reply::ApiError;
use crate::validate::{self, Problem, too_long, unprocessable};

/// Query parameters. Unknown ones are ignored, as the live API does.
pub(crate) struct Query<'a> {
    pairs: &'a [(String, String)],
    problems: Vec<Problem>,
}

impl<'a> Query<'a> {
    pub(crate) fn new(pairs: &'a [(String, String)]) -> Self {
        Self { pairs, problems: Vec::new() }
    }

    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(unprocessable(self.problems)) }
    }

    /// A scalar. The last occurrence of a repeated parameter counts.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.list(name).last().copied()
    }

    /// All values of a repeated parameter.
    pub(crate) fn list(&self, name: &str) -> Vec<&'a str> {
        let named = self.pairs.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// A repeated parameter with at most `max` values.
    pub(crate) fn bounded_list(&mut self, name: &str, max: usize) -> Vec<&'a str> {
        let values = self.list(name);
        if values.len() > max {
            self.report(name, too_long(&json!(values), values.len(), max));
        }
        values
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
            "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
            _ => {
                let message = "Input should be a valid boolean, unable to interpret input";
                self.report(name, Problem::new("bool_parsing", message, &text.into()));
                None
            }
        }
    }

    /// A page size between 1 and 1000.
    pub(crate) fn page_size(&mut self, name: &str, default: usize) -> usize {
        self.size(name, 1000).unwrap_or(default)
    }

    /// A number between 1 and `max`.
    pub(crate) fn size(&mut self, name: &str, max: usize) -> Option<usize> {
        let size = self.integer(name)?;
        let input = Value::from(self.text(name));
        let problem = match usize::try_from(size) {
            Ok(size) if (1..=max).contains(&size) => return Some(size),
            Ok(1..) => Problem::new("less_than_equal", format!("Input should be less than or equal to {max}"), &input)
                .with_context(json!({ "le": max })),
            Ok(0) | Err(_) => Problem::new("greater_than_equal", "Input should be greater than or equal to 1", &input)
                .with_context(json!({ "ge": 1 })),
        };
        self.report(name, problem);
        None
    }

    pub(crate) fn integer(&mut self, name: &str) -> Option<i64> {
        let text = self.text(name)?;
        let number = text.parse().ok();
        if number.is_none() {
            let message = "Input should be a valid integer, unable to parse string as an integer";
            self.report(name, Problem::new("int_parsing", message, &text.into()));
        }
        number
    }

    pub(crate) fn time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        let time = clock::parse(text);
        if time.is_none() {
            let message = "Input should be a valid datetime or date";
            self.report(name, Problem::new("datetime_from_date_parsing", message, &text.into()));
        }
        time
    }

    pub(crate) fn uuid(&mut self, name: &str) -> Option<Uuid> {
        match validate::uuid(&Value::from(self.text(name)?)) {
            Ok(id) => Some(id),
            Err(problem) => {
                self.report(name, problem);
                None
            }
        }
    }

    /// Every value must be one of `choices`.
    pub(crate) fn choices(&mut self, name: &str, choices: &[&str]) -> Vec<&'a str> {
        let values = self.list(name);
        for value in &values {
            if !choices.contains(value) {
                let expected = quoted_alternatives(choices);
                let message = format!("Input should be {expected}");
                let problem = Problem::new("literal_error", message, &Value::from(*value))
                    .with_context(json!({ "expected": expected }));
                self.report(name, problem);
            }
        }
        values
    }

    pub(crate) fn order(&mut self, default: Order) -> Order {
        match self.choices("order", &["asc", "desc"]).last() {
            Some(&"asc") => Order::Ascending,
            Some(&"desc") => Order::Descending,
            _ => default,
        }
    }

    pub(crate) fn report(&mut self, name: &str, problem: Problem) {
        self.problems.push(problem.inside(name).inside("query"));
    }
}

/// A refused pagination token.
pub(crate) fn bad_token(name: &str, token: Option<&str>) -> ApiError {
    let problem = Problem::new("value_error", "Value error, invalid pagination token", &token.into());
    unprocessable(vec![problem.inside(name).inside("query")])
}

fn quoted_alternatives(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("'{choice}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
