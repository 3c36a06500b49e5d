//! The address and the API key of a Workspace, as a person may have written them.

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;
use url::Url;

use super::problem::Problem;
use crate::api::WorkspaceSpec;
use crate::api::reasons::workspace as reason;
use crate::api::workspace::SecretKeyRef;

/// The address to call, if the operator may call it.
///
/// # Errors
/// When it is not an address or not on the list.
pub fn address(spec: &WorkspaceSpec, allowed: &[Url]) -> Result<Url, Problem> {
    let refuse = |why: &str| {
        let list: Vec<String> = allowed.iter().map(|url| url.origin().ascii_serialization()).collect();
        let message = format!(
            "spec.baseURL {} {why}; the operator may call {}: use one of these, or start the operator with --allow-base-url.",
            spec.base_url,
            list.join(", ")
        );
        Problem::stalled(reason::BASE_URL_NOT_ALLOWED, message)
    };
    let url = parse_address(&spec.base_url).map_err(|why| refuse(&why))?;
    if allowed.iter().any(|allowed| allowed.origin() == url.origin()) {
        Ok(url)
    } else {
        Err(refuse("is not on the operator's list"))
    }
}

/// Reads an address of the API: scheme, host and port and nothing else.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence.
pub fn parse_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.path() == "/";
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err("is not an http or https address".into());
    }
    if bare { Ok(url) } else { Err("has a user, path, query or fragment".into()) }
}

/// The API key in the Secret, without white space around it.
///
/// # Errors
/// When there is no Secret, no such entry in it, or nothing in the entry that can be sent as a key.
pub fn api_key(secret: Option<&Secret>, at: &SecretKeyRef) -> Result<SecretString, Problem> {
    let SecretKeyRef { name, key } = at;
    let Some(secret) = secret else {
        let message = format!(
            "There is no Secret \"{name}\" in this namespace; create it with the API key under \"{key}\". The operator looks again within a minute."
        );
        return Err(Problem::stalled(reason::SECRET_NOT_FOUND, message));
    };
    let invalid = |why: &str| {
        Problem::stalled(
            reason::SECRET_INVALID,
            format!("Secret \"{name}\" {why}; put the API key there. The operator looks again within a minute."),
        )
    };
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Err(invalid(&format!("has no key \"{key}\"")));
    };
    let unusable = |why: &str| {
        let message = format!(
            "The value of \"{key}\" in Secret \"{name}\" is not an API key: it {why}. The operator looks again within a minute."
        );
        Problem::stalled(reason::SECRET_INVALID, message)
    };
    let text = std::str::from_utf8(&value.0).map_err(|_| {
        unusable("is not UTF-8 text, perhaps because it was saved as UTF-16 or encoded twice; put the bare key there")
    })?;
    bare_key(text).map(SecretString::from).map_err(unusable)
}

/// The API key in a text, without white space around it.
///
/// # Errors
/// The likely mistake, as the end of a sentence that never quotes the text. The API would only refuse the text as it
/// is.
pub fn bare_key(text: &str) -> Result<&str, &'static str> {
    const QUOTES: [char; 9] = ['"', '\'', '`', '“', '”', '„', '‘', '’', '«'];
    let text = text.trim();
    let begins = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if text.is_empty() {
        return Err("is empty; put the API key there");
    }
    if text.starts_with('\u{feff}') {
        return Err("begins with a byte order mark, which some editors write; save it as UTF-8 without the mark");
    }
    if begins("Bearer ") || begins("Bearer\t") || begins("Authorization:") {
        return Err(
            "begins with \"Bearer\" or \"Authorization\", which the operator adds itself; put the bare key there",
        );
    }
    if begins("MISTRAL_API_KEY=") || begins("export ") {
        return Err("begins with the name of a variable; put only the part after the equals sign there");
    }
    if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
        return Err("has quotation marks around it; put the key there without them");
    }
    if text.chars().any(char::is_whitespace) {
        return Err("has white space or a line break inside; put the key alone there, on one line");
    }
    if !text.is_ascii() {
        return Err("has characters beyond ASCII, perhaps invisible ones; copy the key again from Mistral's console");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has control characters inside; copy the key again from Mistral's console");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn what_cannot_be_a_key_is_said_in_words_that_do_not_quote_it() {
        let at = SecretKeyRef { name: "mistral".into(), key: "api-key".into() };
        let judged = |value: &[u8]| {
            let data = [("api-key".to_owned(), k8s_openapi::ByteString(value.to_vec()))];
            api_key(Some(&Secret { data: Some(data.into()), ..Secret::default() }), &at)
        };
        for (value, words) in [
            (&b"Bearer s3cret"[..], "begins with \"Bearer\""),
            (b"bearer\ts3cret", "begins with \"Bearer\""),
            (b"Authorization: Bearer s3cret", "begins with \"Bearer\" or \"Authorization\""),
            ("\u{feff}s3cret".as_bytes(), "begins with a byte order mark"),
            (b"\xff\xfes\x003\x00c\x00", "is not UTF-8 text"),
            (b"\"s3cret\"\n", "quotation marks around it"),
            (b"'s3cret'", "quotation marks around it"),
            ("“s3cret”".as_bytes(), "quotation marks around it"),
            (b"s3 cret", "white space or a line break inside"),
            (b"s3cret\n\nother", "white space or a line break inside"),
            ("s3\u{a0}cret".as_bytes(), "white space or a line break inside"),
            ("s3cr\u{200b}et".as_bytes(), "characters beyond ASCII"),
            (b"s3\x00cret", "control characters"),
            (b"MISTRAL_API_KEY=s3cret", "name of a variable"),
            (b" \n", "is empty"),
        ] {
            let problem = judged(value).unwrap_err();
            assert_eq!(problem.reason, reason::SECRET_INVALID);
            let message = problem.message;
            assert!(message.contains(words) && message.contains("\"api-key\""), "{words} in: {message}");
            assert!(!message.contains("s3") && message.ends_with('.'), "{message}");
        }
        assert_eq!(judged(b" s3cret-+/=_.~\r\n").unwrap().expose_secret(), "s3cret-+/=_.~");
    }
}
