//! Redacts values in texts: what the API says may quote what was sent to it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::unescape::{ELLIPSES, View};
use crate::json::Json;

const REDACTED: &str = "[redacted]";
/// Values with fewer characters are not redacted: they occur everywhere by chance, and a text without them would say
/// nothing. The same holds for the first or last characters of a value beside an ellipsis.
const SHORTEST: usize = 6;
/// The longest beginning or end of a shortened value that is searched for, in bytes.
const LONGEST_PART: usize = 256;
/// The most work that a search of one text may take: matches, plus bytes that are compared. Only texts that are made to
/// be slow come near.
const MOST_WORK: usize = 50_000_000;
/// How many levels of quotation are undone: JSON in JSON in the text of an error.
const QUOTED: usize = 3;
/// The longest rest of a cut escape behind an ellipsis, in bytes: `u00fc` of `\u00fc`.
const CUT_ESCAPE: usize = 5;

/// Values to redact.
#[derive(Default)]
pub struct Redactor {
    finder: Finder,
}

#[derive(Default)]
enum Finder {
    /// There is nothing to redact.
    #[default]
    Nothing,
    These(Box<Searches>),
    /// The values cannot be searched for, so each text is redacted as a whole.
    Everything,
}

struct Searches {
    /// Finds the values in all their forms.
    whole: AhoCorasick,
    /// Finds the beginnings and the ends of the forms, alternately: a beginning and an end for each form.
    parts: AhoCorasick,
    ellipses: AhoCorasick,
    forms: Vec<Vec<u8>>,
}

/// Does not show the values.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// The most bytes of all values together that are searched for: a search takes memory for each byte, in each form.
    pub const MOST: usize = 64 << 10;

    /// Redacts these values verbatim, as any language escapes them within quotes, and as Base64.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut all, mut bytes) = (BTreeSet::new(), 0);
        for value in values {
            if Self::covers(value) {
                bytes += value.len();
                if bytes > Self::MOST {
                    return Self { finder: Finder::Everything };
                }
                all.extend(forms(value));
                all.extend(forms(value.trim()));
            }
        }
        let finder = match Searches::new(all.into_iter().collect()) {
            Ok(searches) if searches.forms.is_empty() => Finder::Nothing,
            Ok(searches) => Finder::These(Box::new(searches)),
            Err(_) => Finder::Everything,
        };
        Self { finder }
    }

    /// Whether a value is long enough to be redacted.
    pub fn covers(value: &str) -> bool {
        value.trim().chars().count() >= SHORTEST
    }

    /// Redacts the values in a text.
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
            // Where two values overlap, no part of either may stay beside the other.
            if n == 0 || start >= at {
                shown.push_str(&text[at..start]);
                shown.push_str(REDACTED);
            }
            at = at.max(end);
        }
        shown.push_str(&text[at..]);
        Cow::Owned(shown)
    }

    /// Redacts the values in the strings, numbers and field names of a JSON value.
    pub fn json(&self, value: &Json) -> Json {
        value.map_leaves(|leaf| match self.text(leaf) {
            Cow::Borrowed(_) if !matches!(self.finder, Finder::Everything) => None,
            text => Some(text.into_owned()),
        })
    }
}

impl Searches {
    fn new(forms: Vec<Vec<u8>>) -> Result<Self, aho_corasick::BuildError> {
        // This kind takes the least memory. The fastest takes gigabytes for what a Secret can hold.
        let mut builder = AhoCorasick::builder();
        let builder = builder.kind(Some(AhoCorasickKind::ContiguousNFA));
        let parts = forms.iter().flat_map(|form| {
            let begins = |(_, byte): &(usize, &u8)| !is_continuation(**byte);
            let first = form.iter().enumerate().filter(begins).nth(SHORTEST).map_or(form.len(), |(at, _)| at);
            let last = form.iter().enumerate().filter(begins).nth_back(SHORTEST - 1).map_or(0, |(at, _)| at);
            [&form[..first], &form[last..]]
        });
        Ok(Self {
            whole: builder.build(&forms)?,
            parts: builder.build(parts)?,
            ellipses: builder.build(ELLIPSES)?,
            forms,
        })
    }

    /// The ranges to redact; `None` if the search takes too long.
    ///
    /// The text is searched as it stands, and then with its escapes undone, once for each level of quotation. So it
    /// does not matter which characters a language has escaped, and how.
    fn find(&self, text: &str) -> Option<Vec<(usize, usize)>> {
        let mut work = 0;
        let mut hidden = self.find_in(text.as_bytes(), &mut work)?;
        let mut views: Vec<View> = Vec::new();
        while views.len() < QUOTED {
            let Some(view) = View::of(views.last().map_or(text.as_bytes(), |view| &view.text)) else { break };
            let found = self.find_in(&view.text, &mut work)?;
            views.push(view);
            hidden.extend(
                found.into_iter().map(|range| views.iter().rev().fold(range, |range, view| view.original(range))),
            );
        }
        for (start, end) in &mut hidden {
            (*start, *end) = (text.floor_char_boundary(*start), text.ceil_char_boundary(*end));
        }
        Some(hidden)
    }

    fn find_in(&self, text: &[u8], work: &mut usize) -> Option<Vec<(usize, usize)>> {
        // All matches count, also overlapping ones: no part of one may stay beside another. They come in the order of
        // their ends.
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        for found in self.whole.find_overlapping_iter(text) {
            *work += 1;
            let mut start = found.start();
            while let Some(&(begun, _)) = hidden.last().filter(|(_, end)| *end > start) {
                start = start.min(begun);
                hidden.pop();
            }
            hidden.push((start, found.end()));
            if *work > MOST_WORK {
                return None;
            }
        }
        for found in self.ellipses.find_iter(text) {
            let (before, after) = (found.start(), found.end());
            hidden.extend(self.beginning_of_one(text, before, work).map(|start| (start, before)));
            hidden.extend(self.end_of_one(text, after, work).map(|end| (after, end)));
            if *work > MOST_WORK {
                return None;
            }
        }
        Some(hidden)
    }

    /// Where the longest beginning of a value starts that stops at `end`.
    fn beginning_of_one(&self, text: &[u8], end: usize, work: &mut usize) -> Option<usize> {
        let from = end.saturating_sub(LONGEST_PART);
        let hits = self.parts.find_overlapping_iter(&text[from..end]).filter_map(|found| {
            let (form, is_beginning) = self.part(found.pattern().as_usize())?;
            let start = from + found.start();
            *work += end - start;
            (is_beginning && form.starts_with(&text[start..end])).then_some(start)
        });
        hits.min()
    }

    /// Where the longest end of a value stops that starts at `start`, or behind the rest of a cut escape there.
    fn end_of_one(&self, text: &[u8], start: usize, work: &mut usize) -> Option<usize> {
        let to = (start + LONGEST_PART).min(text.len());
        let cut = text[start..to].iter().take(CUT_ESCAPE).take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let hits = self.parts.find_overlapping_iter(&text[start..to]).filter_map(|found| {
            let (form, is_beginning) = self.part(found.pattern().as_usize())?;
            let end = start + found.end();
            *work += (end - start) * (cut + 1);
            let is_end = || (0..=cut).any(|cut| start + cut < end && form.ends_with(&text[start + cut..end]));
            (!is_beginning && is_end()).then_some(end)
        });
        hits.max()
    }

    /// The form that a pattern of `parts` belongs to, and whether the pattern is its beginning.
    fn part(&self, pattern: usize) -> Option<(&[u8], bool)> {
        Some((self.forms.get(pattern / 2)?, pattern.is_multiple_of(2)))
    }
}

/// Whether the byte continues a UTF-8 character.
fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// The forms of a value without escapes: verbatim; with one byte for each character up to U+00FF, as Python's `ascii`
/// writes it (`\xfc`); and in the two alphabets of Base64.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![value.as_bytes().to_owned()];
    if !value.is_ascii() {
        let narrow = value.chars().flat_map(|c| match u8::try_from(c) {
            Ok(byte) => vec![byte],
            Err(_) => c.to_string().into_bytes(),
        });
        forms.push(narrow.collect());
    }
    // Not every encoder writes the padding.
    forms.extend([STANDARD_NO_PAD.encode(value).into_bytes(), URL_SAFE_NO_PAD.encode(value).into_bytes()]);
    forms
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_value_is_hidden_wherever_it_stands_in_a_text() {
        let redactor = Redactor::new(["s3cret-one", " s3cret-two\n", "pass\"w'o\nrd", "schlüssel"]);
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
            assert_eq!(redactor.text(text), shown);
        }
    }

    #[test]
    fn a_value_is_hidden_whichever_of_its_characters_a_language_escapes() {
        let redactor = Redactor::new(["p<a>s&s/w+o'rd\"ü😀\\n\u{1b}!"]);
        for (language, text) in [
            ("as it is", "p<a>s&s/w+o'rd\"ü😀\\n\u{1b}!"),
            ("Go", r#"p\u003ca\u003es\u0026s/w+o'rd\"ü😀\\n\u001b!"#),
            ("Go, with %q", r#"p<a>s&s/w+o'rd\"ü😀\\n\x1b!"#),
            ("JavaScript", r#"p<a>s&s/w+o'rd\"ü😀\\n\u001b!"#),
            ("PHP", r#"p<a>s&s\/w+o'rd\"\u00fc\ud83d\ude00\\n\u001b!"#),
            ("Python's json", r#"p<a>s&s/w+o'rd\"\u00fc\ud83d\ude00\\n\u001b!"#),
            ("Python's repr", r#"p<a>s&s/w+o\'rd"ü😀\\n\x1b!"#),
            ("Python's ascii", r#"p<a>s&s/w+o\'rd"\xfc\U0001f600\\n\x1b!"#),
            ("Python's bytes", r#"p<a>s&s/w+o\'rd"\xc3\xbc\xf0\x9f\x98\x80\\n\x1b!"#),
            (".NET", r"p\u003Ca\u003Es\u0026s/w\u002Bo\u0027rd\u0022\u00FC\uD83D\uDE00\\n\u001B!"),
            ("Java", r"p\u003ca\u003es\u0026s\/w+o\u0027rd\u0022\u00FC\uD83D\uDE00\u005cn\u001B!"),
            ("Rust", r#"p<a>s&s/w+o'rd\"ü😀\\n\u{1b}!"#),
        ] {
            assert_eq!(redactor.text(&format!("it's \"{text}\"é.")), "it's \"[redacted]\"é.", "{language}");
        }
    }

    #[test]
    fn a_value_is_hidden_in_a_quotation_within_a_quotation() {
        let redactor = Redactor::new(["pass\"w'o\\rdü"]);
        let mut text = "pass\"w'o\\rdü".to_owned();
        for _ in 0..=QUOTED {
            assert_eq!(redactor.text(&format!("<{text}>")), "<[redacted]>", "{text}");
            text = serde_json::Value::from(text).to_string();
            text = text[1..text.len() - 1].replace('ü', "\\u00FC");
        }
    }

    #[test]
    fn the_base64_of_a_value_is_hidden_in_both_alphabets_and_without_padding() {
        let redactor = Redactor::new(["pass>>>???word"]);
        for (text, shown) in [
            ("cGFzcz4+Pj8/P3dvcmQ=", "[redacted]="),
            ("'cGFzcz4-Pj8_P3dvcmQ'", "'[redacted]'"),
            (r"cGFzcz4\u002BPj8\/P3dvcmQ=", "[redacted]="),
        ] {
            assert_eq!(redactor.text(text), shown);
        }
    }

    #[test]
    fn what_only_looks_like_an_escape_is_left_as_it_is() {
        let redactor = Redactor::new(["nowhere", r"C:\new\u12"]);
        for text in [r"\u12", r"\", r"a\q \x \xg \ud83d \U00110000 \u{} \u{110000} \\\", "\\é"] {
            assert_eq!(redactor.text(text), text);
        }
        assert_eq!(
            redactor.text(r"\ud83dnowhere C:\new\u12 \q\u006eowhere\"),
            r"\ud83d[redacted] [redacted] \q[redacted]\"
        );
    }

    #[test]
    fn of_values_that_overlap_nothing_is_left() {
        let redactor = Redactor::new(["abcdef", "efghij", "cdefgh", "zzzzzz"]);
        assert_eq!(redactor.text("-abcdefghij-"), "-[redacted]-");
        assert_eq!(redactor.text("zzzzzzzzz abcdefabcdef"), "[redacted] [redacted][redacted]");
        assert_eq!(redactor.text("éabcdefé"), "é[redacted]é");
    }

    #[test]
    fn a_value_that_was_shortened_is_hidden_as_well() {
        let redactor =
            Redactor::new(["sk-live-0123456789abcdefghijklmnopqrstuvwxyz", "schlüssel-für-alles", "abcdef.ghijkl"]);
        for (text, shown) in [
            (
                "input_value='sk-live-0123456789abcdef...fghijklmnopqrstuvwxyz', input_type=str",
                "input_value='[redacted]...[redacted]', input_type=str",
            ),
            ("{'key': 'sk-live-01...', 'other': 1}", "{'key': '[redacted]...', 'other': 1}"),
            ("…rstuvwxyz", "…[redacted]"),
            ("schlüssel…alles", "[redacted]…alles"),
            (r"schl\u00fcssel...r-alles", "[redacted]...[redacted]"),
            (r"schl\u00fcssel-f\u00...r-alles", r"[redacted]...[redacted]"),
            (r"schl\u00FCssel-f\...FCr-alles", r"[redacted]...[redacted]"),
            // A value with dots of its own.
            ("'abcdef...' and ...ghijkl", "'[redacted]...' and ...[redacted]"),
            // A chance match without an ellipsis, or too little to tell.
            ("sk-live-01 and more", "sk-live-01 and more"),
            ("sk-li...vwxyz", "sk-li...vwxyz"),
            ("sk-live-0123456789abcdefghijklmnopqrstuvwxyz...", "[redacted]..."),
        ] {
            assert_eq!(redactor.text(text), shown);
        }
    }

    #[test]
    fn a_text_that_is_made_to_be_slow_to_search_is_hidden_as_a_whole() {
        let nested: Vec<String> = (6..256).map(|length| "a".repeat(length)).collect();
        let redactor = Redactor::new(nested.iter().map(String::as_str));
        assert_eq!(redactor.text(&"a".repeat(1 << 20)), "[redacted]");
        assert_eq!(redactor.text(&"aaaaab...".repeat(10_000)).len(), 90_000);
        let long = "a".repeat(60_000);
        let redactor = Redactor::new([long.as_str()]);
        assert_eq!(redactor.text(&"a...".repeat(100_000)).len(), 400_000);
        let slow = redactor.text(&format!("{}...", "a".repeat(250)).repeat(4_000)).into_owned();
        assert!(!slow.contains("aaaaaa"));
    }

    #[test]
    fn short_values_are_left_in() {
        assert_eq!(Redactor::new(["true", "12345", "     abc "]).text("true 12345 abc"), "true 12345 abc");
        assert_eq!(Redactor::new(["äöüäöü"]).text("äöüäöü"), "[redacted]");
        assert_eq!(Redactor::new([]).text("text"), "text");
    }

    #[test]
    fn a_result_keeps_its_shape() {
        let redactor = Redactor::new(["123456", "s3cret"]);
        let result = json!({ "a": ["s3cret!", 123456, 1.5, null, true], "s3cret": { "b": 12 }, "c": "x" });
        let shown = json!({ "a": ["[redacted]!", "[redacted]", 1.5, null, true], "[redacted]": { "b": 12 }, "c": "x" });
        let redacted = redactor.json(&Json::from(&result));
        assert_eq!(serde_json::from_str::<Value>(redacted.text()).unwrap(), shown);
        let everything = Redactor::new(["x".repeat(Redactor::MOST + 1).as_str()]);
        let hidden = json!({ "[redacted]": ["[redacted]", "[redacted]", null] });
        assert_eq!(everything.json(&Json::from(&json!({ "a": ["b", 1, null] }))), Json::from(&hidden));
    }

    #[test]
    fn more_than_can_be_searched_for_hides_everything() {
        let long = "x".repeat(Redactor::MOST);
        assert_eq!(Redactor::new([long.as_str()]).text("text"), "text");
        assert_eq!(Redactor::new([long.as_str(), "s3cret"]).text("text"), "[redacted]");
        assert_eq!(Redactor::new([long.as_str(), "short"]).text("text"), "text");
    }

    #[test]
    fn a_redactor_says_nothing_about_what_it_hides() {
        assert_eq!(format!("{:?}", Redactor::new(["s3cret"])), "Redactor");
    }
}
