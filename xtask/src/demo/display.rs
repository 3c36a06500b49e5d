//! How the demo writes to a terminal: colours and marks, and no line that is wider than a terminal.

use std::io::{IsTerminal, stdout};

/// The widest line, in characters.
pub const WIDTH: usize = 100;

const BOLD: &str = "\u{1b}[1m";
const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const RESET: &str = "\u{1b}[0m";

/// What a line reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Done,
    Failed,
    Pending,
}

/// Whether standard output is a terminal whose user wants colours.
fn in_colour() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    wants_colour(stdout().is_terminal(), set("NO_COLOR").is_some(), set("TERM").is_some_and(|term| term == "dumb"))
}

/// See <https://no-color.org>.
fn wants_colour(terminal: bool, no_color: bool, dumb: bool) -> bool {
    terminal && !no_color && !dumb
}

pub fn heading(text: &str) -> String {
    styled(&format!("==> {text}"), BOLD, in_colour())
}

/// The line with its mark. Without colours there is a mark all the same.
pub fn marked(line: &str, mark: Mark) -> String {
    let (sign, colour) = match mark {
        Mark::Done => ("✓", GREEN),
        Mark::Failed => ("✗", RED),
        Mark::Pending => (" ", ""),
    };
    let line = fitted(&format!("{sign} {line}"));
    styled(line.trim_end(), colour, in_colour())
}

fn styled(text: &str, style: &str, in_colour: bool) -> String {
    if in_colour && !style.is_empty() { format!("{style}{text}{RESET}") } else { text.to_owned() }
}

/// The line, cut where it is too wide.
pub fn fitted(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    line.chars().take(WIDTH - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_has_not_declined_them() {
        assert!(wants_colour(true, false, false));
        for (terminal, no_color, dumb) in [(false, false, false), (true, true, false), (true, false, true)] {
            assert!(!wants_colour(terminal, no_color, dumb));
        }
        assert_eq!(styled("a", GREEN, true), "\u{1b}[32ma\u{1b}[0m");
        assert_eq!((styled("a", GREEN, false), styled("a", "", true)), ("a".to_owned(), "a".to_owned()));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        assert_eq!(fitted("short"), "short");
        let long = "ü".repeat(WIDTH + 1);
        assert_eq!(fitted(&long).chars().count(), WIDTH);
        assert_eq!(fitted(&long[..2 * WIDTH]), long[..2 * WIDTH]);
    }
}
