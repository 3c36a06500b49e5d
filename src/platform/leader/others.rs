//! Finds out whether another operator leads, for a process that takes no part in an election.
//!
//! As in an election, no wall clocks are compared: a holder is at work if it renews its Lease while this process looks.
//! This process does not know the namespace of the other operators' Lease, so it looks in all namespaces. Anyone who may
//! write a Lease can therefore pretend to lead. Elected operators are not affected: each looks only at its own Lease.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::sleep;

use crate::platform::apiserver::{Error, PAGE, call, call_within};
use crate::platform::leader::elector::{record, written_by_us};
use crate::platform::leader::plan::{CALL, LEASE_DURATION, RETRY_PERIOD, Record};

/// Another operator that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Namespace and name of its Lease.
    pub lease: String,
    /// The process that holds the Lease.
    pub holder: String,
}

/// A Lease that may be held.
struct Suspect {
    api: Api<Lease>,
    lease: Lease,
}

/// An operator of this program that leads. Looks for the Leases of this program in all namespaces, or only in these
/// where not all may be listed. Takes as long as candidates leave an unchanged Lease alone, if there is a Lease that
/// nobody renews.
///
/// # Errors
/// When Leases cannot be listed.
pub async fn leads(client: &Client, namespaces: &[String]) -> Result<Option<Other>, Error> {
    let suspects = match held(client, None).await {
        Err(error) if error.is_forbidden() && !namespaces.is_empty() => {
            let mut found = Vec::new();
            for namespace in namespaces {
                found.extend(held(client, Some(namespace)).await?);
            }
            found
        }
        found => found?,
    };
    let begun = Instant::now();
    // A second more than the time after which a candidate would take the Lease.
    while !suspects.is_empty() && begun.elapsed() <= LEASE_DURATION + Duration::from_secs(1) {
        sleep(RETRY_PERIOD).await;
        for suspect in &suspects {
            let now = call_within(CALL, suspect.api.get_opt(&suspect.lease.name_any())).await;
            // An answer that is missing proves nothing; the next one may come.
            if let Ok(now) = now
                && let Some(holder) = renewed(&record(Some(&suspect.lease)), &record(now.as_ref()))
            {
                let namespace = suspect.lease.namespace().unwrap_or_default();
                return Ok(Some(Other { lease: format!("{namespace}/{}", suspect.lease.name_any()), holder }));
            }
        }
    }
    Ok(None)
}

/// The Leases that operators of this program have written, whatever their names, and that have a holder.
async fn held(client: &Client, namespace: Option<&str>) -> Result<Vec<Suspect>, Error> {
    let of = |namespace: &str| Api::namespaced(client.clone(), namespace);
    let api: Api<Lease> = namespace.map_or_else(|| Api::all(client.clone()), of);
    let (mut page, mut suspects) = (ListParams::default().limit(PAGE), Vec::new());
    loop {
        let list = call(api.list(&page)).await?;
        let ours = list.items.into_iter().filter(|lease| written_by_us(lease).is_some());
        let held = ours.filter(|lease| !record(Some(lease)).holder.is_empty());
        suspects.extend(held.map(|lease| Suspect { api: of(&lease.namespace().unwrap_or_default()), lease }));
        page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            return Ok(suspects);
        }
    }
}

/// The holder of a Lease that was `before` and is `now`, if somebody has renewed or taken it between the two.
fn renewed(before: &Record, now: &Record) -> Option<String> {
    let changed = now.version.is_some() && now.version != before.version;
    (changed && !now.holder.is_empty()).then(|| now.holder.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u64, holder: &str) -> Record {
        Record { version: Some(version.to_string()), holder: holder.into(), lasts: Some(LEASE_DURATION) }
    }

    #[test]
    fn only_a_lease_that_is_renewed_or_taken_is_held() {
        let before = record(1, "other");
        assert_eq!(renewed(&before, &record(1, "other")), None, "nobody has renewed it");
        assert_eq!(renewed(&before, &record(2, "other")), Some("other".into()));
        assert_eq!(renewed(&before, &record(2, "next")), Some("next".into()));
        assert_eq!(renewed(&before, &record(2, "")), None, "it was released");
        assert_eq!(renewed(&before, &Record::default()), None, "it was deleted");
    }
}
