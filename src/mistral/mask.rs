//! Keeps values out of texts: what the API says may quote what it was sent.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde_json::Value;

/// What stands where a value was.
const REDACTED: &str = "[redacted]";
/// Values with fewer characters are left in: they are found everywhere by chance, and what is left of a text
/// without them would tell nothing.
const SHORTEST: usize = 6;

/// Values that no text may show.
#[derive(Default)]
pub struct Mask {
    finder: Finder,
}

#[derive(Default)]
enum Finder {
    /// There is nothing to hide.
    #[default]
    Nothing,
    These(Box<AhoCorasick>),
    /// The values cannot be searched for, so nothing is shown.
    Everything,
}

/// Without the values.
impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl Mask {
    /// The most bytes that are searched for, of all values together: a search takes memory for each of them, in each of
    /// its spellings.
    pub const MOST: usize = 64 << 10;

    /// Hides these values, each as it is and as JSON and Python write it inside of quotes.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut forms, mut bytes) = (BTreeSet::new(), 0);
        for value in values {
            if Self::covers(value) {
                bytes += value.len();
                if bytes > Self::MOST {
                    return Self { finder: Finder::Everything };
                }
                forms.extend(spellings(value));
                forms.extend(spellings(value.trim()));
            }
        }
        // Of all kinds the one that takes least: the fastest takes gigabytes for what a Secret can hold.
        let finder = match AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(&forms) {
            _ if forms.is_empty() => Finder::Nothing,
            Ok(finder) => Finder::These(Box::new(finder)),
            Err(_) => Finder::Everything,
        };
        Self { finder }
    }

    /// Whether a value is long enough to be hidden.
    pub fn covers(value: &str) -> bool {
        value.trim().chars().count() >= SHORTEST
    }

    /// The text without the values.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let finder = match &self.finder {
            Finder::Nothing => return Cow::Borrowed(text),
            Finder::Everything => return Cow::Borrowed(REDACTED),
            Finder::These(finder) => finder,
        };
        // All of them, also where they overlap: no rest of one may stay beside another. They come by their ends.
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        for found in finder.find_overlapping_iter(text) {
            let mut start = found.start();
            while let Some(&(begun, _)) = hidden.last().filter(|(_, end)| *end > start) {
                start = start.min(begun);
                hidden.pop();
            }
            hidden.push((start, found.end()));
        }
        if hidden.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
        for (start, end) in hidden {
            shown.push_str(&text[at..start]);
            shown.push_str(REDACTED);
            at = end;
        }
        shown.push_str(&text[at..]);
        Cow::Owned(shown)
    }

    /// The JSON value without the values, be they in its texts, its numbers or the names of its fields.
    pub fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text).into_owned()),
            Value::Number(number) => match self.text(&number.to_string()) {
                Cow::Borrowed(_) if !matches!(self.finder, Finder::Everything) => value.clone(),
                text => Value::String(text.into_owned()),
            },
            Value::Array(items) => Value::Array(items.iter().map(|item| self.json(item)).collect()),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (self.text(name).into_owned(), self.json(value)));
                Value::Object(fields.collect())
            }
            Value::Null | Value::Bool(_) => value.clone(),
        }
    }
}

/// How a value may be quoted: as it is, in JSON, in JSON that knows only ASCII, and in Python's `repr`.
fn spellings(value: &str) -> [String; 5] {
    let json = Value::from(value).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let mut ascii = String::new();
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    let repr = json.replace("\\\"", "\"");
    let quoted = repr.replace('\'', "\\'");
    [value.to_owned(), json, ascii, repr, quoted]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_hidden_wherever_it_stands_in_a_text() {
        let mask = Mask::new(["s3cret-one", " s3cret-two\n", "pass\"w'o\nrd", "schlüssel"]);
        for (text, shown) in [
            ("nothing to see", "nothing to see"),
            ("s3cret-one", "[redacted]"),
            ("a s3cret-one, b s3cret-one.", "a [redacted], b [redacted]."),
            ("two: s3cret-two", "two: [redacted]"),
            ("pass\"w'o\nrd", "[redacted]"),
            (r#"{"a":"pass\"w'o\nrd"}"#, r#"{"a":"[redacted]"}"#),
            (r#"'pass"w\'o\nrd' is not valid"#, "'[redacted]' is not valid"),
            (r"schl\u00fcssel", "[redacted]"),
        ] {
            assert_eq!(mask.text(text), shown);
        }
    }

    #[test]
    fn of_values_that_overlap_nothing_is_left() {
        let mask = Mask::new(["abcdef", "efghij", "cdefgh", "zzzzzz"]);
        assert_eq!(mask.text("-abcdefghij-"), "-[redacted]-");
        assert_eq!(mask.text("zzzzzzzzz abcdefabcdef"), "[redacted] [redacted][redacted]");
        assert_eq!(mask.text("éabcdefé"), "é[redacted]é");
    }

    #[test]
    fn short_values_are_left_in() {
        assert_eq!(Mask::new(["true", "12345", "     abc "]).text("true 12345 abc"), "true 12345 abc");
        assert_eq!(Mask::new(["äöüäöü"]).text("äöüäöü"), "[redacted]");
        assert_eq!(Mask::new([]).text("text"), "text");
    }

    #[test]
    fn a_result_keeps_its_shape() {
        let mask = Mask::new(["123456", "s3cret"]);
        let result = json!({ "a": ["s3cret!", 123456, 1.5, null, true], "s3cret": { "b": 12 }, "c": "x" });
        let shown = json!({ "a": ["[redacted]!", "[redacted]", 1.5, null, true], "[redacted]": { "b": 12 }, "c": "x" });
        assert_eq!(mask.json(&result), shown);
    }

    #[test]
    fn more_than_can_be_searched_for_hides_everything() {
        let long = "x".repeat(Mask::MOST);
        assert_eq!(Mask::new([long.as_str()]).text("text"), "text");
        assert_eq!(Mask::new([long.as_str(), "s3cret"]).text("text"), "[redacted]");
        assert_eq!(Mask::new([long.as_str(), "short"]).text("text"), "text");
    }

    #[test]
    fn a_mask_says_nothing_about_what_it_hides() {
        assert_eq!(format!("{:?}", Mask::new(["s3cret"])), "Mask");
    }
}
