//! A parsed request to the API.

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use uuid::Uuid;

use crate::clock;
use crate::reply::{ApiError, Reply};
use crate::route::{self, Endpoint, Target};
use crate::stream::Feed;

#[derive(Debug)]
pub(crate) struct Request {
    /// When the request arrived, before any latency.
    pub(crate) arrived: Timestamp,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) target: Target,
    pub(crate) query: Vec<(String, String)>,
    /// The bearer token.
    pub(crate) token: Option<String>,
    pub(crate) content_type: Option<String>,
    /// The event after which the client resumes a stream.
    pub(crate) last_event_id: Option<String>,
    pub(crate) body: Bytes,
    /// Whether the body exceeded the server's limit.
    pub(crate) oversized: bool,
}

impl Request {
    /// A request whose body has not been read yet.
    pub(crate) fn new(parts: &Parts) -> Self {
        let path = parts.uri.path();
        Self {
            arrived: clock::now(),
            method: parts.method.to_string(),
            path: path.to_owned(),
            target: route::find(parts.method.as_str(), path),
            query: parse_query(parts.uri.query().unwrap_or_default()),
            token: bearer(&parts.headers),
            content_type: header(&parts.headers, CONTENT_TYPE.as_str()).map(str::to_owned),
            last_event_id: header(&parts.headers, "last-event-id").map(str::to_owned),
            body: Bytes::new(),
            oversized: false,
        }
    }

    /// The template of the request's route, or `unknown`.
    pub(crate) fn template(&self) -> &'static str {
        match &self.target {
            Target::Endpoint { route, .. } => route.template,
            Target::MethodNotAllowed { .. } | Target::NotFound => "unknown",
        }
    }

    /// Whether a successful answer is a stream.
    pub(crate) fn is_for_a_stream(&self) -> bool {
        let streams = [Endpoint::StreamEvents, Endpoint::StreamExecution];
        matches!(&self.target, Target::Endpoint { route, .. } if streams.contains(&route.endpoint))
    }

    /// The execution that the request names, if it names one.
    pub(crate) fn execution_id(&self) -> Option<String> {
        let Target::Endpoint { route, parameters } = &self.target else {
            return None;
        };
        match route.endpoint {
            Endpoint::GetExecution | Endpoint::StreamExecution | Endpoint::Cancel | Endpoint::Terminate => {
                parameters.first().cloned()
            }
            Endpoint::Execute | Endpoint::ExecuteRegistration => {
                let body: Value = serde_json::from_slice(&self.body).ok()?;
                body.get("execution_id")?.as_str().map(str::to_owned)
            }
            _ => None,
        }
    }
}

/// An endpoint's answer or error.
pub(crate) type Handled = Result<Answer, ApiError>;

/// A successful answer of an endpoint.
pub(crate) enum Answer {
    /// A reply, and whether the request changed anything.
    Done { reply: Reply, changed: bool },
    /// The request started an execution and is answered when the execution has ended.
    Wait(Wait),
    /// A stream of events.
    Stream(Feed),
}

impl Answer {
    pub(crate) fn read(reply: Reply) -> Handled {
        Ok(Self::Done { reply, changed: false })
    }

    pub(crate) fn write(reply: Reply, changed: bool) -> Handled {
        Ok(Self::Done { reply, changed })
    }
}

/// A wait for the end of an execution.
pub(crate) struct Wait {
    pub(crate) execution_id: String,
    /// The engine's id of the run that the request started. A later start of the same id does not count.
    pub(crate) first_engine_id: Uuid,
    pub(crate) limit: std::time::Duration,
}

/// Splits a query string. `+` is a space.
pub(crate) fn parse_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = header(headers, AUTHORIZATION.as_str())?.split_once(' ')?;
    let token = token.trim();
    let present = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
    present.then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_strings_are_decoded_and_keep_repeated_keys() {
        let expected = [("a", "1 2"), ("a", "ü&"), ("b", ""), ("c", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(parse_query("a=1+2&a=%C3%BC%26&b=&&c"), expected);
    }
}
