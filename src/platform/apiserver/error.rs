//! Why a call to the API server failed, in words that quote no object.

use std::time::Duration;

use kube::core::Status;

use crate::text::truncate;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused the call or could not be reached.
    #[error("the Kubernetes API: {}", describe(.0))]
    Kube(Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("the Kubernetes API did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// Somebody else keeps changing what the operator has written.
    #[error("the status changes too often; an Event says more")]
    TooOften,
    /// The reconcile panicked. This is a bug, but it affects only this object.
    #[error("the reconcile panicked; this is a bug in the operator")]
    Panicked,
}

impl Error {
    /// Somebody else changed the object first.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409)
    }

    /// The object is gone. Only the API server itself can say so: a 404 of something on the way there proves nothing.
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(|status| status.code == 404 && status.reason != RECONSTRUCTED)
    }

    /// Nothing is served at this path, as before the CRD is installed: the API server's answer is then a bare text.
    pub fn is_unserved(&self) -> bool {
        self.has_code(404)
    }

    /// The API server forbids the call.
    pub fn is_forbidden(&self) -> bool {
        self.has_code(403)
    }

    /// A paged list has expired: too much has changed since its first page.
    pub fn is_expired(&self) -> bool {
        self.has_code(410)
    }

    /// The API server's refusal, if the error is one.
    pub fn refusal(&self) -> Option<&Status> {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Timeout(_) | Self::TooOften | Self::Panicked => None,
        }
    }

    fn has_code(&self, code: u16) -> bool {
        self.refusal().is_some_and(|status| status.code == code)
    }
}

/// The longest text of an error that is passed on, in bytes.
const MAX_TEXT: usize = 1024;
/// The `reason` that kube gives to an error response that does not come from the API server itself.
pub(in crate::platform) const RECONSTRUCTED: &str = "Failed to parse error data";

/// Describes an error without the response body, which may hold another tenant's input or a gateway's page.
pub fn describe(error: &kube::Error) -> String {
    let mut text = match error {
        kube::Error::Api(status) if status.reason == RECONSTRUCTED => {
            format!("something between the operator and the API server answered with HTTP {}", status.code)
        }
        // The details of the status are left out: they may quote the object.
        kube::Error::Api(status) => format!("{} ({}, HTTP {})", status.message, status.reason, status.code),
        // serde's message may quote a value.
        kube::Error::SerdeError(error) => not_understood(error),
        kube::Error::FromUtf8(_) => "its answer is not UTF-8".to_owned(),
        error => error.to_string(),
    };
    truncate(&mut text, MAX_TEXT);
    text
}

/// Reports the position of the error, not the text there.
fn not_understood(error: &serde_json::Error) -> String {
    format!("its answer cannot be understood (line {}, column {})", error.line(), error.column())
}
