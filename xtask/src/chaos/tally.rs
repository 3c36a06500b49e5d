//! What has been done to the processes, and what there is to be done.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::workload::Disturbance;
use crate::demo::Result;
use crate::demo::programs::workspace_folder;

/// What has been done to the processes so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By kind of disturbance.
    pub disturbances: BTreeMap<&'static str, u64>,
    /// How often a process was killed at this failpoint.
    pub points: BTreeMap<String, u64>,
    /// Processes that ended themselves since they had lost the Lease.
    pub lost_leases: u64,
    /// Calls that had to wait for their turn, as far as their operators told before they ended.
    pub waited: u64,
    /// When something happened to a process.
    pub disturbed: Vec<Timestamp>,
    /// The longest that an operator was not ready, from its start or afterwards.
    pub unready: Duration,
    /// When operators ended, by their logs.
    pub ends: Vec<(PathBuf, Timestamp)>,
    /// Ends that nobody expected.
    pub odd: Vec<String>,
}

impl Tally {
    /// Nothing yet, of all that there is.
    pub fn new() -> Result<Self> {
        Ok(Self {
            disturbances: Disturbance::KINDS.into_iter().map(|kind| (kind, 0)).collect(),
            points: failpoints()?.into_iter().map(|point| (point, 0)).collect(),
            ..Self::default()
        })
    }

    /// Processes that were killed, the API server among them.
    pub fn kills(&self) -> u64 {
        let killed = self.disturbances.iter().filter(|(kind, _)| kind.ends_with("killed")).map(|(_, times)| times);
        killed.chain(self.points.values()).sum()
    }
}

/// The failpoints that the operator's sources name.
fn failpoints() -> Result<Vec<String>> {
    let mut points = Vec::new();
    let mut folders = vec![workspace_folder().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                let named = text.split("failpoint::reach!(\"").skip(1).filter_map(|rest| rest.split_once('"'));
                points.extend(named.map(|(name, _)| name.to_owned()));
            }
        }
    }
    points.sort_unstable();
    points.dedup();
    if points.is_empty() { Err("src names no failpoints.".into()) } else { Ok(points) }
}
