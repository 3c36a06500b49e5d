//! Keeps values out of texts: what the API says may quote what it was sent.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde_json::Value;

use crate::json::Json;

/// What stands where a value was.
const REDACTED: &str = "[redacted]";
/// Values with fewer characters are left in: they are found everywhere by chance, and what is left of a text
/// without them would tell nothing. So are the first or last characters of one beside an ellipsis.
const SHORTEST: usize = 6;
/// The longest beginning or end of a shortened value that is looked for, in bytes.
const LONGEST_PART: usize = 256;
/// What one text may cost to search: matches, and bytes that are compared. Only what is made to be slow comes near.
const MOST_WORK: usize = 50_000_000;
/// How what was left out of a value is shown: as pydantic and Python's `reprlib` do, and with the character for it.
const ELLIPSES: [&str; 2] = ["...", "…"];

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
    These(Box<Searches>),
    /// The values cannot be searched for, so nothing is shown.
    Everything,
}

struct Searches {
    /// Finds the values in all their spellings.
    whole: AhoCorasick,
    /// Finds the beginnings of the spellings and their ends, one after the other.
    parts: AhoCorasick,
    spellings: Vec<String>,
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
        let finder = match Searches::new(forms.into_iter().collect()) {
            Ok(searches) if searches.spellings.is_empty() => Finder::Nothing,
            Ok(searches) => Finder::These(Box::new(searches)),
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
        let searches = match &self.finder {
            Finder::Nothing => return Cow::Borrowed(text),
            Finder::Everything => return Cow::Borrowed(REDACTED),
            Finder::These(searches) => searches,
        };
        let Some(mut hidden) = searches.find(text) else { return Cow::Borrowed(REDACTED) };
        if hidden.is_empty() {
            return Cow::Borrowed(text);
        }
        hidden.sort_unstable();
        let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
        for (n, (start, end)) in hidden.into_iter().enumerate() {
            // Where two overlap, no rest of one may stay beside the other.
            if n == 0 || start >= at {
                shown.push_str(&text[at..start]);
                shown.push_str(REDACTED);
            }
            at = at.max(end);
        }
        shown.push_str(&text[at..]);
        Cow::Owned(shown)
    }

    /// The JSON value without the values, be they in its texts, its numbers or the names of its fields.
    pub fn json(&self, value: &Json) -> Json {
        value.map_leaves(|leaf| match self.text(leaf) {
            Cow::Borrowed(_) if !matches!(self.finder, Finder::Everything) => None,
            text => Some(text.into_owned()),
        })
    }
}

impl Searches {
    fn new(spellings: Vec<String>) -> Result<Self, aho_corasick::BuildError> {
        // Of all kinds the one that takes least: the fastest takes gigabytes for what a Secret can hold.
        let mut builder = AhoCorasick::builder();
        let builder = builder.kind(Some(AhoCorasickKind::ContiguousNFA));
        let parts = spellings.iter().flat_map(|spelling| {
            let (first, last) = (spelling.char_indices().nth(SHORTEST), spelling.char_indices().nth_back(SHORTEST - 1));
            [&spelling[..first.map_or(spelling.len(), |(at, _)| at)], &spelling[last.map_or(0, |(at, _)| at)..]]
        });
        Ok(Self { whole: builder.build(&spellings)?, parts: builder.build(parts)?, spellings })
    }

    /// Where something is to be hidden, from where to where; none if that takes too long to find out.
    fn find(&self, text: &str) -> Option<Vec<(usize, usize)>> {
        let mut work = 0_usize;
        // All of them, also where they overlap: no rest of one may stay beside another. They come by their ends.
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        for found in self.whole.find_overlapping_iter(text) {
            work += 1;
            let mut start = found.start();
            while let Some(&(begun, _)) = hidden.last().filter(|(_, end)| *end > start) {
                start = start.min(begun);
                hidden.pop();
            }
            hidden.push((start, found.end()));
            if work > MOST_WORK {
                return None;
            }
        }
        for (before, after) in
            ELLIPSES.iter().flat_map(|dots| text.match_indices(dots)).map(|(at, dots)| (at, at + dots.len()))
        {
            hidden.extend(self.beginning_of_one(text, before, &mut work).map(|start| (start, before)));
            hidden.extend(self.end_of_one(text, after, &mut work).map(|end| (after, end)));
            if work > MOST_WORK {
                return None;
            }
        }
        Some(hidden)
    }

    /// From where on the text up to `end` is the beginning of a value.
    fn beginning_of_one(&self, text: &str, end: usize, work: &mut usize) -> Option<usize> {
        let from = text.floor_char_boundary(end.saturating_sub(LONGEST_PART));
        let hits = self.parts.find_overlapping_iter(&text[from..end]).filter_map(|found| {
            let (spelling, is_beginning) = self.part(found.pattern().as_usize())?;
            let start = from + found.start();
            *work += end - start;
            (is_beginning && spelling.starts_with(&text[start..end])).then_some(start)
        });
        hits.min()
    }

    /// Up to where the text from `start` on is the end of a value.
    fn end_of_one(&self, text: &str, start: usize, work: &mut usize) -> Option<usize> {
        let to = text.ceil_char_boundary((start + LONGEST_PART).min(text.len()));
        let hits = self.parts.find_overlapping_iter(&text[start..to]).filter_map(|found| {
            let (spelling, is_beginning) = self.part(found.pattern().as_usize())?;
            let end = start + found.end();
            *work += end - start;
            (!is_beginning && spelling.ends_with(&text[start..end])).then_some(end)
        });
        hits.max()
    }

    /// Of which spelling a pattern of `parts` is a part, and whether it is its beginning.
    fn part(&self, pattern: usize) -> Option<(&str, bool)> {
        Some((self.spellings.get(pattern / 2)?, pattern.is_multiple_of(2)))
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
    fn a_value_that_was_shortened_is_hidden_as_well() {
        let mask = Mask::new(["sk-live-0123456789abcdefghijklmnopqrstuvwxyz", "schlüssel-für-alles", "abcdef.ghijkl"]);
        for (text, shown) in [
            (
                "input_value='sk-live-0123456789abcdef...fghijklmnopqrstuvwxyz', input_type=str",
                "input_value='[redacted]...[redacted]', input_type=str",
            ),
            ("{'key': 'sk-live-01...', 'other': 1}", "{'key': '[redacted]...', 'other': 1}"),
            ("…rstuvwxyz", "…[redacted]"),
            ("schlüssel…alles", "[redacted]…alles"),
            (r"schl\u00fcssel...r-alles", "[redacted]...[redacted]"),
            // A value with dots of its own.
            ("'abcdef...' and ...ghijkl", "'[redacted]...' and ...[redacted]"),
            // By chance, or too little to tell.
            ("sk-live-01 and more", "sk-live-01 and more"),
            ("sk-li...vwxyz", "sk-li...vwxyz"),
            ("sk-live-0123456789abcdefghijklmnopqrstuvwxyz...", "[redacted]..."),
        ] {
            assert_eq!(mask.text(text), shown);
        }
    }

    #[test]
    fn a_text_that_is_made_to_be_slow_to_search_is_hidden_as_a_whole() {
        let nested: Vec<String> = (6..256).map(|length| "a".repeat(length)).collect();
        let mask = Mask::new(nested.iter().map(String::as_str));
        assert_eq!(mask.text(&"a".repeat(1 << 20)), "[redacted]");
        assert_eq!(mask.text(&"aaaaab...".repeat(10_000)).len(), 90_000);
        let long = "a".repeat(60_000);
        let mask = Mask::new([long.as_str()]);
        assert_eq!(mask.text(&"a...".repeat(100_000)).len(), 400_000);
        let slow = mask.text(&format!("{}...", "a".repeat(250)).repeat(4_000)).into_owned();
        assert!(!slow.contains("aaaaaa"));
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
        let masked = mask.json(&Json::from(&result));
        assert_eq!(serde_json::from_str::<Value>(masked.text()).unwrap(), shown);
        let everything = Mask::new(["x".repeat(Mask::MOST + 1).as_str()]);
        let hidden = json!({ "[redacted]": ["[redacted]", "[redacted]", null] });
        assert_eq!(everything.json(&Json::from(&json!({ "a": ["b", 1, null] }))), Json::from(&hidden));
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
