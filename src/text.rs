//! Texts from outside, kept short.

/// Cuts `text` to at most `max` bytes, at a character boundary.
pub fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
}

/// The first sentence of a message, in at most `max` bytes.
pub fn first_sentence(text: &str, max: usize) -> String {
    let mut sentence = text.find(". ").map_or(text, |end| &text[..=end]).to_owned();
    if sentence.len() > max {
        truncate(&mut sentence, max.saturating_sub('…'.len_utf8()));
        sentence.push('…');
    }
    sentence
}

/// A text from elsewhere that a sentence ends with: without a full stop of its own.
pub fn without_stop(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

/// A number of things, for a sentence: `1 Workflow`, `3 Workflows`.
pub fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_told_in_the_singular() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn of_a_message_the_first_sentence_is_its_short_form() {
        let message = "Version 1.2 is refused (HTTP 403). Give the key the right.";
        assert_eq!(first_sentence(message, 100), "Version 1.2 is refused (HTTP 403).");
        assert_eq!(first_sentence("It runs.", 100), "It runs.");
        assert_eq!(first_sentence("éééé", 7), "éé…");
        assert_eq!(without_stop("It is away. "), "It is away");
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let mut text = "aé".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a");
    }
}
