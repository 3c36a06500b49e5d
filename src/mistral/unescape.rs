//! Undoes the escapes of a text, and maps each part back to its place in the text.
//!
//! Languages differ in which characters they escape, and how. What an escape stands for is the same in all of them.

/// Marks where a text was cut, perhaps within an escape: the dots of pydantic and Python's `reprlib`, and the ellipsis
/// character.
pub(super) const ELLIPSES: [&str; 2] = ["...", "…"];

/// A text whose escapes are undone.
#[derive(Debug)]
pub(super) struct View {
    /// The unescaped text. Bytes, since an escape may stand for a single byte of a character.
    pub text: Vec<u8>,
    pieces: Vec<Piece>,
}

/// One escape, or the text between two.
#[derive(Debug)]
struct Piece {
    /// Where the piece begins in the view.
    here: usize,
    /// Where the piece begins in the original text.
    there: usize,
    /// The length of the piece in the original text, if it is an escape.
    escape: Option<usize>,
}

impl View {
    /// Undoes the escapes of a text; `None` if it has none.
    pub fn of(text: &[u8]) -> Option<Self> {
        let mut view = Self { text: Vec::new(), pieces: Vec::new() };
        let (mut at, mut plain) = (0, 0);
        while let Some(found) = text[at..].iter().position(|byte| *byte == b'\\') {
            let start = at + found;
            let Some((meaning, length)) = escape(&text[start..]) else {
                at = start + 1;
                continue;
            };
            if start > plain {
                view.push(&text[plain..start], plain, None);
            }
            view.push(&meaning, start, Some(length));
            (at, plain) = (start + length, start + length);
        }
        if view.pieces.is_empty() {
            return None;
        }
        view.push(&text[plain..], plain, None);
        Some(view)
    }

    fn push(&mut self, bytes: &[u8], there: usize, escape: Option<usize>) {
        self.pieces.push(Piece { here: self.text.len(), there, escape });
        self.text.extend_from_slice(bytes);
    }

    /// Where a part of the view is in the original text. The range holds whole escapes only.
    pub fn original(&self, (start, end): (usize, usize)) -> (usize, usize) {
        let piece = |at: usize| {
            let next = self.pieces.partition_point(|piece| piece.here <= at);
            &self.pieces[next.saturating_sub(1)]
        };
        let (first, last) = (piece(start), piece(end));
        let start = first.there + if first.escape.is_some() { 0 } else { start - first.here };
        let into = end - last.here;
        (start, last.there + last.escape.filter(|_| into > 0).unwrap_or(into))
    }
}

/// The meaning and the length of the escape at the beginning of the text. An escape that was cut at an ellipsis means
/// nothing.
fn escape(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let of = |c: char| c.to_string().into_bytes();
    let simple = |byte: u8| Some((vec![byte], 2));
    let whole = match text.get(1)? {
        byte @ (b'"' | b'\'' | b'\\' | b'/' | b'`') => simple(*byte),
        b'0' => simple(0),
        b'a' => simple(0x07),
        b'b' => simple(0x08),
        b't' => simple(b'\t'),
        b'n' => simple(b'\n'),
        b'v' => simple(0x0b),
        b'f' => simple(0x0c),
        b'r' => simple(b'\r'),
        b'x' => hex(text, 2, 2).and_then(|byte| Some((vec![u8::try_from(byte).ok()?], 4))),
        b'U' => hex(text, 2, 8).and_then(|c| Some((of(char::from_u32(c)?), 10))),
        b'u' if text.get(2) == Some(&b'{') => {
            let digits = text[3..].iter().take(7).position(|byte| *byte == b'}');
            digits.and_then(|digits| Some((of(char::from_u32(hex(text, 3, digits)?)?), digits + 4)))
        }
        b'u' => hex(text, 2, 4).map(|unit| {
            let rest = &text[6..];
            match (0xD800..0xDC00).contains(&unit).then(|| low_surrogate(rest)) {
                Some(Some(low)) => {
                    let c = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                    (of(char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER)), 12)
                }
                // A surrogate pair that was cut.
                Some(None) if let Some(length) = cut(rest) => (Vec::new(), 6 + length),
                _ => (of(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)), 6),
            }
        }),
        _ => None,
    };
    whole.or_else(|| cut(text).map(|length| (Vec::new(), length)))
}

fn low_surrogate(text: &[u8]) -> Option<u32> {
    text.starts_with(b"\\u").then(|| hex(text, 2, 4))?.filter(|low| (0xDC00..0xE000).contains(low))
}

/// The number that `digits` hexadecimal digits make, starting at `from`.
fn hex(text: &[u8], from: usize, digits: usize) -> Option<u32> {
    let digits = text.get(from..from + digits).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The length of the incomplete escape at the beginning of the text, if an ellipsis follows it.
fn cut(text: &[u8]) -> Option<usize> {
    let digits = |text: &[u8]| text.iter().take(8).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let length = match text {
        [b'\\', b'u', b'{', rest @ ..] => 3 + digits(rest),
        [b'\\', b'u' | b'U' | b'x', rest @ ..] => 2 + digits(rest),
        [b'\\', ..] => 1,
        _ => 0,
    };
    ELLIPSES.iter().any(|dots| text[length..].starts_with(dots.as_bytes())).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_view_is_found_again_in_the_text_that_it_is_of() {
        let text = r"a\u00fcb\nc\\d\ud83d\ude00e";
        let view = View::of(text.as_bytes()).unwrap();
        assert_eq!(std::str::from_utf8(&view.text).unwrap(), "aüb\nc\\d😀e");
        for (part, original) in [
            ("a", "a"),
            ("ü", r"\u00fc"),
            ("üb", r"\u00fcb"),
            ("b\n", r"b\n"),
            ("c\\d", r"c\\d"),
            ("d😀", r"d\ud83d\ude00"),
            ("e", "e"),
            ("aüb\nc\\d😀e", text),
        ] {
            let at = std::str::from_utf8(&view.text).unwrap().find(part).unwrap();
            let (start, end) = view.original((at, at + part.len()));
            assert_eq!(&text[start..end], original);
        }
        // A part within a character that an escape stands for.
        assert_eq!(view.original((2, 3)), (1, 7));
    }

    #[test]
    fn a_text_without_escapes_has_no_view_of_its_own() {
        for text in ["", "plain", r"C:\Program Files\q", "\\", r"\u12", r"\u{}", r"\u{110000}", r"\U00110000", r"\xg0"]
        {
            assert!(View::of(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn an_escape_that_was_cut_means_nothing_and_goes_with_what_stands_before_it() {
        for text in [r"ab\...", r"ab\u...", r"ab\u00f…", r"ab\ud83d...", r"ab\ud83d\ude...", r"ab\x1...", r"ab\u{1..."]
        {
            let view = View::of(text.as_bytes()).unwrap();
            assert!(view.text.starts_with(b"ab.") || view.text.starts_with("ab…".as_bytes()), "{text}");
            let (start, end) = view.original((0, 2));
            assert_eq!(text[end..].trim_start_matches(['.', '…']), "", "{text}");
            assert_eq!(start, 0);
        }
    }
}
