//! The 90 seconds after a claim: when its call may be sent, how long the call may take, and when its run shows.

use k8s_openapi::jiff::SignedDuration;

use crate::clock::CLOCK_SKEW;

/// How long after the claim the call may be sent.
pub const SEND_WITHIN: SignedDuration = SignedDuration::from_secs(15);
/// How long the API may take to show a run that it has accepted.
pub const VISIBILITY: SignedDuration = SignedDuration::from_secs(30);
/// How long the call itself may take: see [`crate::mistral::REQUEST_TIMEOUT`].
pub(crate) const CALL: SignedDuration =
    SignedDuration::from_secs(crate::mistral::REQUEST_TIMEOUT.as_secs().cast_signed());

/// The longest time from sending a call until its run shows, by any clock of the cluster.
pub(crate) const SENT_TO_SHOWN: SignedDuration =
    SignedDuration::from_secs(CALL.as_secs() + VISIBILITY.as_secs() + CLOCK_SKEW.as_secs());

/// The longest time from a claim until its run shows.
pub(crate) const DOUBT: SignedDuration = SignedDuration::from_secs(SEND_WITHIN.as_secs() + SENT_TO_SHOWN.as_secs());
