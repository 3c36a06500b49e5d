//! Claims of an earlier leader, in namespaces whose executions are not listed yet. Both lists count: that of the watched
//! executions, and that of the ones with the label of finished executions, which somebody may have put on any.

use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::execution::claim::doubt_of_earlier_calls;

/// Until when a call may be in flight whose claim this process has not seen.
#[derive(Clone, Debug)]
pub struct UnlistedClaims {
    listed: Vec<CancellationToken>,
    until: Timestamp,
}

impl UnlistedClaims {
    /// For a leader that begins now. Each token is cancelled once a list of executions is complete.
    pub fn from_now_on(listed: Vec<CancellationToken>) -> Self {
        Self { listed, until: doubt_of_earlier_calls(Timestamp::now()) }
    }

    /// None once all executions are listed.
    pub fn until(&self) -> Option<Timestamp> {
        (!self.listed.iter().all(CancellationToken::is_cancelled)).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_all_executions_are_listed_calls_may_be_under_way_whose_claim_nobody_has_seen() {
        let listed = [CancellationToken::new(), CancellationToken::new()];
        let unlisted = UnlistedClaims::from_now_on(listed.to_vec());
        listed[0].cancel();
        assert!(unlisted.until().is_some_and(|until| until > Timestamp::now()));
        listed[1].cancel();
        assert_eq!(unlisted.until(), None);
    }
}
