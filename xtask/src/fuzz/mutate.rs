//! Makes inputs from seeds: bytes that are wrong anywhere, and JSON with wrong parts.

use crate::chaos::dice::Dice;

/// Separates the parts of an input that has several. No external text contains it unescaped.
pub const SEPARATOR: u8 = 0x1e;

/// The longest input, in bytes, unless nesting makes an input longer.
const LONGEST: usize = 64 << 10;

/// JSON values that are known to break readers. Each is also an input by itself.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "\"true\"",
    "0",
    "-0",
    "-1",
    "0.1",
    "1E2",
    "1e400",
    "-1e400",
    "1e-400",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "\"\"",
    "\" \"",
    "\"0\"",
    "\"é\"",
    "\"NaN\"",
    "\"\\udce9\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\"\\u0000\"",
    "\"\\/\\b\\f\\n\\r\\t\"",
    "\"[redacted]\"",
    "\"...\"",
    "\"\u{feff}\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"-009999-01-01T00:00:00Z\"",
    "\"2026-09-06 19:58:30.688462+00:00\"",
    "\"0s\"",
    "\"-1h\"",
    "\"999999999999999h\"",
    "\"999999999999999999999999h\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"a\":{}}",
    "{\"a\":1,\"a\":2}",
    "{\"\\udce9\":1}",
];

/// Bytes that are no values.
const TOKENS: &[&[u8]] = &[
    b"NaN",
    b"-Infinity",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\r\n",
    b"\0",
    b"\x0c",
    b"\\",
    b"\"",
    b"}",
    b"]",
    b",",
    b":",
    b"\\u",
    b"\\ud83d",
    b"\\u00",
    b"...",
    "…".as_bytes(),
    b"[redacted]",
    &[SEPARATOR],
];

/// Nesting depths: around each limit that a reader has, and occasionally far beyond.
const DEPTHS: &[usize] = &[1, 2, 3, 62, 63, 64, 65, 66, 119, 120, 126, 127, 128, 129, 130];

/// A mutator for one target.
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    dice: Dice,
}

impl Mutator {
    /// A mutator with these seeds.
    pub fn new(seeds: Vec<Vec<u8>>, dice: Dice) -> Self {
        Self { seeds, dice }
    }

    /// The first inputs of every target: its seeds, the values known to break readers, and each seed with deep nesting
    /// inside and around it.
    pub fn known(&self) -> Vec<Vec<u8>> {
        let mut all = self.seeds.clone();
        all.push(Vec::new());
        all.extend(VALUES.iter().map(|value| value.as_bytes().to_vec()));
        all.extend(TOKENS.iter().map(|token| token.to_vec()));
        all.push("7".repeat(400).into_bytes());
        all.push(format!("\"{}\"", "x".repeat(1 << 20)).into_bytes());
        for depth in [120, 130, 5_000] {
            all.push(nested(b"1", depth, false));
            all.push(nested(b"1", depth, true));
        }
        all.push(nested(b"1", 100_000, false));
        all.push("[".repeat(100_000).into_bytes());
        for (n, seed) in self.seeds.iter().enumerate() {
            // Extreme depth in only one place of one seed: it takes as long as thousands of other inputs.
            let depths: &[usize] = if n == 0 { &[130, 100_000] } else { &[130] };
            for &depth in depths {
                // The first value after the key of the first object that has one: near the root, where readers look.
                if let Some(&(start, end)) =
                    spans(seed).iter().rfind(|(start, _)| preceding_colon(seed, *start).is_some())
                {
                    let deep = nested(&seed[start..end], depth, true);
                    all.push([&seed[..start], &deep, &seed[end..]].concat());
                }
            }
            all.push([b"\xef\xbb\xbf", seed.as_slice()].concat());
            all.push(
                seed.iter().flat_map(|byte| if *byte == b' ' { vec![b'\r', b'\n'] } else { vec![*byte] }).collect(),
            );
        }
        all
    }

    /// The next input.
    pub fn next(&mut self) -> Vec<u8> {
        let seeds = std::mem::take(&mut self.seeds);
        let mut input = self.dice.one_of(&seeds).clone();
        // Mostly one or two changes at a time: an input with many faults is refused for the first of them.
        let changes = *self.dice.one_of(&[1, 1, 1, 2, 2, 3, 5]);
        for _ in 0..changes {
            let other = self.dice.one_of(&seeds);
            input = self.change(input, other);
        }
        self.seeds = seeds;
        input
    }

    fn at(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64 + 1)).unwrap_or_default()
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        let start = self.at(length);
        let most = (length - start).min(*self.dice.one_of(&[1, 4, 16, 256, 4096]));
        (start, start + self.at(most))
    }

    fn change(&mut self, mut input: Vec<u8>, other: &[u8]) -> Vec<u8> {
        match self.dice.below(16) {
            0 => {
                let at = self.at(input.len());
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.dice.below(8);
                }
                input
            }
            1 => {
                let at = self.at(input.len());
                let token: &&[u8] = self.dice.one_of(TOKENS);
                splice(&input, (at, at), token)
            }
            2 => {
                let range = self.range(input.len());
                splice(&input, range, b"")
            }
            3 => {
                let (start, end) = self.range(input.len());
                let most = LONGEST.saturating_sub(input.len()) / (end - start).max(1);
                let times = (*self.dice.one_of(&[1, 2, 100, 10_000])).min(most);
                splice(&input, (end, end), &input[start..end].repeat(times))
            }
            4 => {
                let (range, from) = (self.range(input.len()), self.range(other.len()));
                splice(&input, range, &other[from.0..from.1])
            }
            5 => {
                let at = self.at(input.len());
                input.truncate(at);
                input
            }
            kind => self.change_value(input, other, kind),
        }
    }

    /// Changes a part of a JSON text. Valid JSON stays valid.
    fn change_value(&mut self, input: Vec<u8>, other: &[u8], kind: u64) -> Vec<u8> {
        let spans = spans(&input);
        if spans.is_empty() {
            return input;
        }
        let (start, end) = *self.dice.one_of(&spans);
        let value = &input[start..end];
        match kind {
            6..=9 => {
                let value = self.value();
                splice(&input, (start, end), &value)
            }
            10 | 11 => {
                let theirs = self::spans(other);
                if theirs.is_empty() {
                    return input;
                }
                let (from, to) = *self.dice.one_of(&theirs);
                splice(&input, (start, end), &other[from..to])
            }
            12 | 13 => {
                let depth = match self.dice.below(10_000) {
                    0 => 100_000,
                    1..=19 => 5_000,
                    20..=99 => 1_000,
                    _ => *self.dice.one_of(DEPTHS),
                };
                let objects = self.dice.percent(50);
                splice(&input, (start, end), &nested(value, depth, objects))
            }
            14 => splice(&input, field(&input, &spans, start, end), b""),
            _ => {
                // Repeats the field or the item.
                let (from, _) = field(&input, &spans, start, end);
                let name = input[from..start].to_vec();
                let value = if self.dice.percent(50) { value.to_vec() } else { self.value() };
                let name = name.strip_prefix(b",").unwrap_or(&name);
                splice(&input, (end, end), &[b",", name, &value].concat())
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.dice.below(VALUES.len() as u64 + 3) {
            0 => "7".repeat(400).into_bytes(),
            1 => format!("\"{}\"", "x".repeat(5_000)).into_bytes(),
            2 => self.dice.below(u64::MAX).to_string().into_bytes(),
            _ => self.dice.one_of(VALUES).as_bytes().to_vec(),
        }
    }
}

fn splice(input: &[u8], (start, end): (usize, usize), with: &[u8]) -> Vec<u8> {
    [&input[..start], with, &input[end..]].concat()
}

/// A value inside this many arrays or objects.
pub fn nested(value: &[u8], depth: usize, objects: bool) -> Vec<u8> {
    let (open, close): (&[u8], &[u8]) = if objects { (b"{\"a\":", b"}") } else { (b"[", b"]") };
    [&open.repeat(depth), value, &close.repeat(depth)].concat()
}

/// The spans of the values of a JSON text, including field names, inner values first. Accepts any bytes.
fn spans(text: &[u8]) -> Vec<(usize, usize)> {
    let (mut spans, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => open.push(start),
            b'}' | b']' => spans.extend(open.pop().map(|start| (start, at))),
            b'"' => {
                while let Some(&byte) = text.get(at) {
                    at += 1;
                    match byte {
                        b'\\' => at += 1,
                        b'"' => break,
                        _ => {}
                    }
                }
                at = at.min(text.len());
                spans.push((start, at));
            }
            b',' | b':' | SEPARATOR => {}
            byte if byte.is_ascii_whitespace() => {}
            _ => {
                let ends = |byte: &u8| matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"' | &SEPARATOR);
                while text.get(at).is_some_and(|byte| !ends(byte) && !byte.is_ascii_whitespace()) {
                    at += 1;
                }
                spans.push((start, at));
            }
        }
    }
    spans
}

fn before(text: &[u8], mut at: usize) -> usize {
    while at > 0 && text[at - 1].is_ascii_whitespace() {
        at -= 1;
    }
    at
}

fn preceding_colon(text: &[u8], start: usize) -> Option<usize> {
    before(text, start).checked_sub(1).filter(|at| text[*at] == b':')
}

/// The span of a value together with its field name, if it has one, and an adjacent comma.
fn field(text: &[u8], spans: &[(usize, usize)], start: usize, end: usize) -> (usize, usize) {
    let name = preceding_colon(text, start).map(|colon| before(text, colon));
    let start = name.and_then(|end| spans.iter().find(|span| span.1 == end)).map_or(start, |name| name.0);
    match before(text, start).checked_sub(1) {
        Some(comma) if text[comma] == b',' => (comma, end),
        _ if text.get(end) == Some(&b',') => (start, end + 1),
        _ => (start, end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_text_are_found_and_fields_go_with_their_names() {
        let text = br#"{"a": [1, "x\"y"], "b":null}"#;
        let spans = spans(text);
        let parts: Vec<&str> = spans.iter().map(|(start, end)| str::from_utf8(&text[*start..*end]).unwrap()).collect();
        assert_eq!(
            parts,
            ["\"a\"", "1", r#""x\"y""#, r#"[1, "x\"y"]"#, "\"b\"", "null", str::from_utf8(text).unwrap()]
        );
        let without = |part: usize| {
            let (start, end) = spans[part];
            String::from_utf8(splice(text, field(text, &spans, start, end), b"")).unwrap()
        };
        assert_eq!(without(5), r#"{"a": [1, "x\"y"]}"#);
        assert_eq!(without(3), r#"{ "b":null}"#);
        assert_eq!(without(2), r#"{"a": [1], "b":null}"#);
    }

    #[test]
    fn a_seed_gives_the_same_inputs_each_time() {
        let inputs = || {
            let mut mutator = Mutator::new(vec![br#"{"a":[1,2,{"b":"c"}]}"#.to_vec()], Dice::new(7));
            (0..1000).map(|_| mutator.next()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(), inputs());
    }
}
