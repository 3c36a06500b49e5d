//! Counts of calls: arrivals, effects and statuses.

use std::collections::BTreeMap;

use serde::Serialize;

/// The key of a counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct CallKey {
    /// Absent for calls without a token.
    pub(crate) workspace: Option<String>,
    pub(crate) method: String,
    /// The route's template, or `unknown`.
    pub(crate) route: String,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    arrivals: u64,
    effects: u64,
    statuses: BTreeMap<u16, u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Calls {
    counts: BTreeMap<CallKey, Counts>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    key: &'a CallKey,
    #[serde(flatten)]
    counts: &'a Counts,
}

#[derive(Default, Serialize)]
struct Total {
    arrivals: u64,
    effects: u64,
}

/// The body of `GET /__sim/calls`.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    calls: Vec<Row<'a>>,
    total: Total,
}

impl Calls {
    /// Counts a request.
    pub(crate) fn arrived(&mut self, key: &CallKey) {
        self.counts(key).arrivals += 1;
    }

    /// Counts an effect: the request changed something.
    pub(crate) fn took_effect(&mut self, key: &CallKey) {
        self.counts(key).effects += 1;
    }

    /// Counts an answer.
    pub(crate) fn answered(&mut self, key: &CallKey, status: u16) {
        *self.counts(key).statuses.entry(status).or_default() += 1;
    }

    pub(crate) fn reset(&mut self) {
        self.counts.clear();
    }

    /// The counts of one workspace, or of all.
    pub(crate) fn report(&self, workspace: Option<&str>) -> Report<'_> {
        let wanted = |key: &CallKey| workspace.is_none() || key.workspace.as_deref() == workspace;
        let rows = self.counts.iter().filter(|(key, _)| wanted(key));
        let calls: Vec<_> = rows.map(|(key, counts)| Row { key, counts }).collect();
        let total = calls.iter().fold(Total::default(), |sum, row| Total {
            arrivals: sum.arrivals + row.counts.arrivals,
            effects: sum.effects + row.counts.effects,
        });
        Report { calls, total }
    }

    fn counts(&mut self, key: &CallKey) -> &mut Counts {
        self.counts.entry(key.clone()).or_default()
    }
}
