//! The terminal output: lines during the test, and a table at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::ledger::Findings;
use super::operators::Operators;
use super::record::Record;
use super::served::Served;
use super::tally::Tally;
use crate::demo::Result;

/// How many complaints are shown. The files contain the rest.
const SHOWN: usize = 40;

/// Prints a line every ten seconds until it is aborted.
pub async fn progress(record: Record, operators: Arc<Mutex<Operators>>, began: Instant) {
    loop {
        sleep(Duration::from_secs(10)).await;
        let all = record.all();
        let count = |is: fn(&super::record::Seen) -> bool| all.iter().filter(|seen| is(seen)).count();
        let (started, ended) = (count(|seen| seen.started), count(|seen| seen.is_finished()));
        let (deleted, seconds) = (count(|seen| seen.deleted), began.elapsed().as_secs());
        let kills = operators.lock().await.tally.kills();
        println!(
            "{seconds:>5} s  {:>5} resources, {started:>5} started, {ended:>5} ended, {deleted:>4} deleted, {kills:>3} kills",
            all.len()
        );
    }
}

/// The outcome of the test.
pub struct Report {
    /// The ledger compared with the resources.
    pub findings: Findings,
    /// The disturbances of the processes.
    pub tally: Tally,
    /// How often each fault has struck.
    pub struck: BTreeMap<&'static str, u64>,
    /// The number of objects of each kind of poison.
    pub poison: BTreeMap<&'static str, u64>,
    /// How often the operator reported each kind of refusal.
    pub refused: BTreeMap<&'static str, u64>,
    /// How the executions without poison and refusals fared.
    pub served: Served,
    /// Runs left alone five minutes after the deletion of their resources.
    pub abandoned: u64,
    /// Faults, failpoints and the like that never struck.
    pub unstruck: Vec<String>,
    pub resources: usize,
    pub seconds: u64,
}

impl Report {
    /// Fails unless ledger and resources agree and everything has occurred.
    pub fn verdict(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let Findings { duplicates, losses, complaints, .. } = &self.findings;
        if !complaints.is_empty() {
            let number = complaints.len();
            wrong.push(format!("{number} things are wrong, among them {duplicates} duplicates and {losses} losses."));
        }
        if !self.unstruck.is_empty() {
            wrong.push(format!("never struck: {}.", self.unstruck.join(", ")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join(" ").into()) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, number: u64| writeln!(f, "{number:>8}  {name}");
        line("resources", self.resources as u64)?;
        line("starts", self.findings.starts)?;
        line("duplicates", self.findings.duplicates)?;
        line("losses", self.findings.losses)?;
        line("runs left alone after five minutes", self.abandoned)?;
        line("deletions that overtook a claim", self.findings.overtaken)?;
        line("  and the operator ended before it could stop the run", self.findings.unstopped)?;
        for (end, times) in &self.findings.ends {
            line(&format!("ended as {end}"), *times)?;
        }
        line("calls that waited for their turn", self.tally.waited)?;
        line("kills", self.tally.kills())?;
        for (kind, times) in &self.tally.disturbances {
            line(&format!("  {kind}"), *times)?;
        }
        for (point, times) in &self.tally.points {
            line(&format!("  killed at {point}"), *times)?;
        }
        line("operators that ended since they had lost the Lease", self.tally.lost_leases)?;
        line("faults", self.struck.values().sum())?;
        for (name, times) in &self.struck {
            line(&format!("  {name}"), *times)?;
        }
        line("poison", self.poison.values().sum())?;
        for (name, times) in &self.poison {
            line(&format!("  {name}"), *times)?;
        }
        line("refusals that were told", self.refused.values().sum())?;
        for (name, times) in &self.refused {
            line(&format!("  {name}"), *times)?;
        }
        line("runs beside them that ended", self.served.ended)?;
        line("  ms until the end was told, at most", self.served.longest)?;
        line("  ms until the end was told, at most, while no process was disturbed", self.served.longest_quiet)?;
        line(
            "ms until an operator was ready, at most",
            u64::try_from(self.tally.unready.as_millis()).unwrap_or(u64::MAX),
        )?;
        line("seconds", self.seconds)?;
        for complaint in self.findings.complaints.iter().take(SHOWN) {
            writeln!(f, "WRONG: {complaint}")?;
        }
        let more = self.findings.complaints.len().saturating_sub(SHOWN);
        if more > 0 { writeln!(f, "… and {more} more") } else { Ok(()) }
    }
}
