//! Writes that the API server refuses for good: the reason, and how it is reported to a person.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::platform::apiserver::{Error, RECONSTRUCTED};
use crate::platform::events::Notice;
use crate::text::{truncate, without_stop};

/// Limit of the API server's message in a report, in bytes.
const MAX_SAID: usize = 400;

/// The API server refuses a write, and will refuse it until the object, or a rule of the cluster, changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub cause: Cause,
    /// The API server's message.
    pub said: String,
}

/// Why a write is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The annotations of an object may have 256 KiB at most.
    Annotations,
    /// etcd takes 1.5 MiB in one request at most.
    Size,
    /// A rule: a missing right, a policy, a webhook, the schema.
    Rule,
}

impl Refused {
    /// Why the API server refuses for good; none if the same write may succeed the next time.
    pub fn of(error: &Error) -> Option<Self> {
        let status = error.refusal()?;
        let said = |text: &str| status.message.contains(text);
        let cause = match status.code {
            // A page from something between here and the API server, which may be gone in a moment.
            _ if status.reason == RECONSTRUCTED => return None,
            // A field that the patch refers to is missing: the object has changed, as with a conflict.
            422 if said("rejected our request due to an error in our request") => return None,
            422 if said("annotations") && said("Too long") => Cause::Annotations,
            // An API server that has just started refuses every write until it knows the policies and webhooks.
            403 if said("not yet ready to handle request") => return None,
            // etcd's own limit, and the limit of the API server's connection to etcd.
            500 if said("request is too large") || said("larger than max") => Cause::Size,
            413 => Cause::Size,
            400 | 403 | 405 | 422 => Cause::Rule,
            _ => return None,
        };
        let mut said = status.message.replace(char::is_control, " ");
        truncate(&mut said, MAX_SAID);
        Some(Self { cause, said })
    }

    /// The first Event about a refused finalizer, with this reason. `so` says what follows from the refusal.
    pub fn finalizer(&self, reason: &str, present: bool, so: &str) -> Notice {
        let what =
            if present { "add its finalizer to this resource" } else { "remove its finalizer from this resource" };
        let note = format!(
            "The API server does not let the operator {what}; {so} The operator tries again at growing intervals of up to 5 minutes, and at once when the resource changes. The API server said: {}",
            self.said
        );
        Notice::warning(reason, note)
    }

    /// The first Event about a refused status, with this reason. `unsaid` is what the status would have said.
    pub fn status(&self, reason: &str, unsaid: Option<&Condition>) -> Notice {
        let unsaid =
            unsaid.map(|it| format!(". The status would say: {}: {}", it.reason, it.message)).unwrap_or_default();
        let note = format!(
            "The API server refuses the status of this resource, so the status is out of date; remove the cause. The operator tries again at growing intervals of up to 5 minutes, and at once when the resource changes. The API server said: {}{unsaid}",
            without_stop(&self.said)
        );
        Notice::warning(reason, note)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::core::Status;

    use super::*;

    #[test]
    fn what_the_api_server_refuses_for_good_is_told_from_what_may_go_better_the_next_time() {
        let refused = |code: u16, message: &str| {
            let status = Status::failure(message, "Why").with_code(code);
            Refused::of(&Error::Kube(Box::new(kube::Error::Api(Box::new(status))))).map(|refused| refused.cause)
        };
        for (code, message, expected) in [
            (422, "metadata.annotations: Too long: must have at most 262144 bytes", Some(Cause::Annotations)),
            (500, "etcdserver: request is too large", Some(Cause::Size)),
            (500, "trying to send message larger than max (2100000 vs. 2097152)", Some(Cause::Size)),
            (413, "Request entity too large: limit is 3145728", Some(Cause::Size)),
            (403, "is forbidden: ValidatingAdmissionPolicy", Some(Cause::Rule)),
            (422, "is invalid: spec.input", Some(Cause::Rule)),
            (400, "admission webhook denied the request", Some(Cause::Rule)),
            (403, "configmaps \"a\" is forbidden: not yet ready to handle request", None),
            (422, "the server rejected our request due to an error in our request", None),
            (500, "failed calling webhook", None),
            (409, "the object has been modified", None),
            (404, "not found", None),
            (401, "Unauthorized", None),
            (429, "too many requests", None),
            (503, "etcdserver: leader changed", None),
            (504, "timeout", None),
        ] {
            assert_eq!(refused(code, message), expected, "{code} {message}");
        }
        assert_eq!(Refused::of(&Error::Timeout(Duration::from_secs(15))), None);
        let page = Status::failure("<html>a proxy</html>", RECONSTRUCTED).with_code(403);
        assert_eq!(Refused::of(&Error::Kube(Box::new(kube::Error::Api(Box::new(page))))), None);
        let long = Status::failure(&"é\n".repeat(1000), "Invalid").with_code(422);
        let long = Refused::of(&Error::Kube(Box::new(kube::Error::Api(Box::new(long))))).unwrap().said;
        assert!(long.len() <= MAX_SAID && !long.contains('\n'), "{long}");
    }
}
