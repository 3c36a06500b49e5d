//! JSON from outside, kept as text.
//!
//! JSON from outside respects no limit of depth or size. A worker's result may be nested a thousand levels deep, a
//! number may have four hundred digits, and an escape may be a lone surrogate, which is half of a character.
//! `serde_json` refuses such values, and everything around them. As text they pass through unharmed. Only values known
//! to be shallow and small are decoded. Nothing here recurses.

use std::borrow::Cow;
use std::fmt::{Debug, Formatter};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The deepest value that is written into a status, in levels of objects and arrays. `serde_json` reads 127, the API
/// server 10,000.
pub const MAX_DEPTH: usize = 64;

/// One JSON value as text. Cheap to clone.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// The text as it was received: valid JSON, including whitespace.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The text without whitespace between tokens. Numbers and strings keep their spelling.
    pub fn compact(&self) -> Self {
        let text = self.text();
        let compact: String = tokens(text).collect();
        if compact.len() == text.len() {
            self.clone()
        } else {
            Self::from_text(compact).unwrap_or_else(|| self.clone())
        }
    }

    /// Wraps a text; none if the text is not JSON.
    pub fn from_text(text: String) -> Option<Self> {
        RawValue::from_string(text).ok().map(Self::from)
    }

    pub fn is_null(&self) -> bool {
        self.text() == "null"
    }

    /// Levels of objects and arrays; 0 for a string or a number.
    pub fn depth(&self) -> usize {
        depth(self.text())
    }

    /// Whether a status can hold the value.
    ///
    /// # Errors
    /// Why not, as the end of a sentence whose subject is the value.
    pub fn is_keepable(&self) -> Result<(), String> {
        let depth = self.depth();
        if depth > MAX_DEPTH {
            return Err(format!("is nested {depth} levels deep, and a status holds {MAX_DEPTH} at most"));
        }
        let can_be_held = |token: &str| match token.as_bytes()[0] {
            b'"' => serde_json::from_str::<Cow<'_, str>>(token).is_ok(),
            b'-' | b'0'..=b'9' => serde_json::from_str::<serde_json::Number>(token).is_ok(),
            _ => true,
        };
        if tokens(self.text()).all(can_be_held) {
            Ok(())
        } else {
            Err("has a number or a text that Kubernetes cannot hold, such as 1e400 or half of a character".into())
        }
    }

    /// The text with numbers and strings in a normal spelling: other spellings of the same value give the same text.
    /// The fields of objects keep their order.
    pub fn normal(&self) -> String {
        let mut normal = String::with_capacity(self.text().len());
        for token in tokens(self.text()) {
            match token.as_bytes()[0] {
                b'"' => match string(token) {
                    Some(text) => normal.push_str(&Value::from(text).to_string()),
                    None => normal.push_str(token),
                },
                b'-' | b'0'..=b'9' => match serde_json::from_str::<serde_json::Number>(token) {
                    Ok(number) => normal.push_str(&number.to_string()),
                    Err(_) => normal.push_str(token),
                },
                _ => normal.push_str(token),
            }
        }
        normal
    }

    /// The fields of an object, in their order, each as text; none if the value is not an object.
    pub fn fields(&self) -> Option<Vec<(String, Json)>> {
        fields(self.text())
            .map(|fields| fields.into_iter().map(|(name, value)| (name, Self::from(value.to_owned()))).collect())
    }

    /// The value of one field of an object; none if there is no such field.
    pub fn field(&self, name: &str) -> Option<Json> {
        self.fields()?.into_iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The string, decoded; none if the value is not a string.
    pub fn string(&self) -> Option<String> {
        string(self.text()).map(Cow::into_owned)
    }

    /// Replaces leaves. `of` gets each string and each field name, decoded, and each number as it is spelled. It
    /// returns the string that replaces the leaf, or none to keep the leaf.
    pub fn map_leaves(&self, mut of: impl FnMut(&str) -> Option<String>) -> Self {
        let mut mapped = String::with_capacity(self.text().len());
        for token in tokens(self.text()) {
            let instead = match token.as_bytes()[0] {
                b'"' => string(token).and_then(|text| of(&text)),
                b'-' | b'0'..=b'9' => of(token),
                _ => None,
            };
            match instead {
                Some(text) => mapped.push_str(&Value::from(text).to_string()),
                None => mapped.push_str(token),
            }
        }
        Self::from_text(mapped).unwrap_or_else(|| self.clone())
    }

    /// Calls `each` with each string, decoded, and with each number as it is spelled, but not with the names of fields.
    pub fn leaves(&self, mut each: impl FnMut(&str)) {
        let mut parts = tokens(self.text()).peekable();
        while let Some(token) = parts.next() {
            match token.as_bytes()[0] {
                b'"' if parts.peek() != Some(&":") => {
                    if let Some(text) = string(token) {
                        each(&text);
                    }
                }
                b'-' | b'0'..=b'9' => each(token),
                _ => {}
            }
        }
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Self(Arc::from(raw))
    }
}

/// For values that the operator itself makes.
impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        // Every value in memory has a JSON text.
        Self::from_text(value.to_string()).unwrap_or_else(|| Self(Arc::from(RawValue::NULL.to_owned())))
    }
}

/// Compares values, whatever their spelling.
impl PartialEq<Value> for Json {
    fn eq(&self, other: &Value) -> bool {
        serde_json::from_str::<Value>(self.text()).is_ok_and(|value| value == *other)
    }
}

/// Compares spellings.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl Debug for Json {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::from)
    }
}

/// Decodes a field that may be null, missing or of an unexpected type. Such a field must not lose the fields beside it.
///
/// # Errors
/// Only if the input is not JSON at all.
pub fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

/// Like [`lenient`], for a string, which may hold lone surrogates.
///
/// # Errors
/// See [`lenient`].
pub fn lenient_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(string(raw.get()).map(Cow::into_owned))
}

/// A JSON value as text; none for null. For fields that may be missing.
///
/// # Errors
/// See [`lenient`].
pub fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Ok(Some(Json::deserialize(deserializer)?).filter(|json| !json.is_null()))
}

/// Rows of a list, each decoded alone: a malformed row loses only itself.
#[derive(Debug)]
pub struct Rows<T> {
    /// The rows that could be decoded, in their order.
    pub rows: Vec<T>,
    /// How many rows could not be decoded.
    pub unreadable: usize,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: DeserializeOwned> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Rows<T>;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Rows<T>, A::Error> {
                let mut rows = Rows { rows: Vec::new(), unreadable: 0 };
                // One at a time: the text of a row is freed before the next row is read.
                while let Some(raw) = list.next_element::<Box<RawValue>>()? {
                    match serde_json::from_str(raw.get()) {
                        Ok(row) => rows.rows.push(row),
                        Err(_) => rows.unreadable += 1,
                    }
                }
                Ok(rows)
            }
        }
        deserializer.deserialize_seq(Visitor(std::marker::PhantomData))
    }
}

/// Levels of objects and arrays in a JSON text.
pub fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0_usize, 0);
    for token in tokens(text) {
        match token {
            "{" | "[" => {
                now += 1;
                deepest = deepest.max(now);
            }
            "}" | "]" => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The fields of an object, each as text; none if the text is not an object.
pub fn fields(text: &str) -> Option<Vec<(String, &RawValue)>> {
    struct Fields<'a>(Vec<(String, &'a RawValue)>);
    impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor<'a>(std::marker::PhantomData<&'a ()>);
            impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
                type Value = Fields<'a>;
                fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
                    let mut fields = Vec::new();
                    while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                        fields.push((string(name.get()).unwrap_or_default().into_owned(), value));
                    }
                    Ok(Fields(fields))
                }
            }
            deserializer.deserialize_map(Visitor(std::marker::PhantomData))
        }
    }
    serde_json::from_str::<Fields<'_>>(text).ok().map(|fields| fields.0)
}

/// The string that a JSON string encodes; none if the text is not a string. A lone surrogate becomes U+FFFD.
pub fn string(json: &str) -> Option<Cow<'_, str>> {
    if !json.starts_with('"') {
        return None;
    }
    if let Some(plain) = json.get(1..json.len() - 1).filter(|text| !text.contains('\\')) {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str::<String>(json).or_else(|_| serde_json::from_str(&whole_characters(json))).ok().map(Cow::Owned)
}

/// A JSON string in which the escape of U+FFFD replaces each escape of a lone surrogate.
fn whole_characters(json: &str) -> String {
    let unit = |at: usize| {
        let hex = json.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(hex, 16).ok()
    };
    let mut whole = String::with_capacity(json.len());
    let mut at = 0;
    while let Some(rest) = json.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(escape) = rest.find('\\') else {
            whole.push_str(rest);
            break;
        };
        whole.push_str(&rest[..escape]);
        at += escape;
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                whole.push_str("\\ufffd");
                at += 6;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        let end = (at + length).min(json.len());
        whole.push_str(json.get(at..end).unwrap_or_default());
        at = end;
    }
    whole
}

/// The tokens of a JSON text, without whitespace: strings with their quotes, numbers, literals and punctuation.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        let start = at;
        match bytes.get(at)? {
            b'{' | b'}' | b'[' | b']' | b':' | b',' => at += 1,
            b'"' => {
                at += 1;
                while let Some(byte) = bytes.get(at) {
                    at += 1;
                    match byte {
                        b'\\' => at += 1,
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {
                let more = |byte: &u8| {
                    !matches!(byte, b'{' | b'}' | b'[' | b']' | b':' | b',' | b'"') && !byte.is_ascii_whitespace()
                };
                while bytes.get(at).is_some_and(more) {
                    at += 1;
                }
            }
        }
        at = at.min(bytes.len());
        text.get(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::from_text(text.to_owned()).unwrap_or_else(|| panic!("{text} is no JSON"))
    }

    #[test]
    fn what_serde_json_refuses_passes_through_as_it_was_spelled() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let digits = "7".repeat(400);
        for text in [r#"{"big":20000000000000000001,"e":1E2,"z":-0}"#, "1e400", &digits, r#""\udce9""#, &deep] {
            #[derive(Serialize, Deserialize)]
            struct Around {
                #[serde(default, deserialize_with = "any")]
                value: Option<Json>,
            }
            let around: Around = serde_json::from_str(&format!(r#"{{"value":{text}}}"#)).unwrap();
            assert_eq!(around.value.as_ref().unwrap().text(), text);
            assert_eq!(serde_json::to_string(&around).unwrap(), format!(r#"{{"value":{text}}}"#));
        }
    }

    #[test]
    fn only_what_is_shallow_and_can_be_held_is_kept() {
        let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        for (text, words) in [
            ("1e400", "such as 1e400"),
            (r#"["\udce9"]"#, "half of a character"),
            (&deep(MAX_DEPTH + 1), "nested 65 levels deep"),
            (&deep(20_000), "nested 20000 levels deep"),
        ] {
            let refused = json(text).is_keepable().unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(json(&deep(MAX_DEPTH)).is_keepable(), Ok(()));
        assert_eq!(json(r#"{"a":[1,"]]]]",20000000000000000001,-0,true]}"#).is_keepable(), Ok(()));
    }

    #[test]
    fn the_normal_text_is_that_of_the_value_in_memory() {
        for text in [
            r#" {"a" : [1E2, -0, 0.10, 20000000000000000001, "\u00e9\/\n"], "b": {"c": null, "d": true}} "#,
            "7",
            r#""""#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(json(text).normal(), value.to_string());
        }
        assert_eq!(json("[1e400]").normal(), "[1e400]");
    }

    #[test]
    fn compact_text_keeps_the_spelling_of_numbers_and_texts() {
        assert_eq!(
            json(" { \"a b\" : [ 1E2 , -0 ,\n\"\\u00e9 \\\" \" ] } ").compact().text(),
            r#"{"a b":[1E2,-0,"\u00e9 \" "]}"#
        );
        assert_eq!(json("null").compact().text(), "null");
    }

    #[test]
    fn halves_of_characters_become_a_replacement_and_whole_ones_stay() {
        for (text, meant) in [
            (r#""\udce9""#, "\u{fffd}"),
            (r#""a\ud83d\ude00b""#, "a\u{1f600}b"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\\udce9 \udce9é""#, "\\udce9 \u{fffd}é"),
            (r#""plain""#, "plain"),
            (r#""\ud83d""#, "\u{fffd}"),
        ] {
            assert_eq!(string(text).as_deref(), Some(meant), "{text}");
        }
        assert_eq!(string("7"), None);
    }

    #[test]
    fn leaves_are_told_as_they_are_spelled_and_names_are_no_leaves() {
        let mut leaves = Vec::new();
        json(r#"{"name":["a\u00e9",1E2,true,null,{"b":"c"}]}"#).leaves(|leaf| leaves.push(leaf.to_owned()));
        assert_eq!(leaves, ["a\u{e9}", "1E2", "c"]);
    }

    #[test]
    fn leaves_and_names_can_be_replaced_at_any_depth() {
        let deep = format!("{}{{\"secret\":[\"secret\",12345678,1]}}{}", "[".repeat(5000), "]".repeat(5000));
        let mapped = json(&deep).map_leaves(|leaf| (leaf != "1").then(|| "\"x\"".to_owned()));
        let expected = format!(r#"{}{{"\"x\"":["\"x\"","\"x\"",1]}}{}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(mapped.text(), expected);
    }

    #[test]
    fn a_row_that_is_not_as_promised_costs_only_itself() {
        #[derive(Deserialize, Debug, PartialEq)]
        struct Row {
            id: String,
            #[serde(default, deserialize_with = "lenient")]
            number: Option<f64>,
            #[serde(default, deserialize_with = "lenient_string")]
            name: Option<String>,
        }
        let deep = format!(r#"{{"id":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
        let text =
            format!(r#"[{{"id":"a","number":"12","name":"\udce9"}},7,{deep},{{"id":"b","name":[1],"number":1}}]"#);
        let rows: Rows<Row> = serde_json::from_str(&text).unwrap();
        let a = Row { id: "a".into(), number: None, name: Some("\u{fffd}".into()) };
        assert_eq!(rows.rows, [a, Row { id: "b".into(), number: Some(1.0), name: None }]);
        assert_eq!(rows.unreadable, 2);
    }

    #[test]
    fn fields_of_an_object_are_told_in_their_order() {
        let fields = json(r#"{"b":1E2,"a":{"c":[]},"\u00e9":null}"#).fields().unwrap();
        let told: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.text())).collect();
        assert_eq!(told, [("b", "1E2"), ("a", r#"{"c":[]}"#), ("é", "null")]);
        assert_eq!(json("[]").fields(), None);
    }
}
