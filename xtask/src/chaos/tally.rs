//! Counts of what has happened to the processes and of what has not.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::workload::Disturbance;
use crate::demo::Result;
use crate::demo::programs::workspace_folder;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Number of disturbances by kind.
    pub disturbances: BTreeMap<&'static str, u64>,
    /// How often a process was killed at this failpoint.
    pub points: BTreeMap<String, u64>,
    /// Processes that exited because they had lost the Lease.
    pub lost_leases: u64,
    /// Calls that waited for a permit, as far as their operators reported it before they ended.
    pub waited: u64,
    /// When something happened to a process.
    pub disturbed: Vec<Timestamp>,
    /// The longest time for which an operator was unready, from its start or later.
    pub unready: Duration,
    /// When operators ended, by their log files.
    pub ends: Vec<(PathBuf, Timestamp)>,
    /// Unexpected ends and other complaints.
    pub odd: Vec<String>,
}

impl Tally {
    /// A tally of all known kinds and failpoints, with zero counts.
    pub fn new() -> Result<Self> {
        Ok(Self {
            disturbances: Disturbance::KINDS.into_iter().map(|kind| (kind, 0)).collect(),
            points: failpoints()?.into_iter().map(|point| (point, 0)).collect(),
            ..Self::default()
        })
    }

    /// Killed processes, including the API server.
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
