//! Two operators and what befalls them: killed, stopped, ended at failpoints, and always started again.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use cluster::Supervised;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::dice::Dice;
use super::environment::NAMESPACES;
use super::tally::Tally;
use super::values::TOKEN;
use super::workload::Disturbance;
use crate::demo::Result;

const SIGKILL: i32 = 9;
/// Calls per second: enough overall, but too few when another operator takes over or the API comes back.
const CALLS_PER_SECOND: &str = "50";
/// How long an operator may be unready while the API server comes back on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The settings for starting an operator.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
    /// URL of the simulated API.
    pub url: String,
    /// Folder for logs.
    pub folder: PathBuf,
    /// Log level.
    pub log: &'static str,
    /// A safeguard to turn off.
    pub without: Option<String>,
}

struct Process {
    child: Supervised,
    listen: SocketAddr,
    /// The failpoint at which it is to be killed.
    armed: Option<String>,
    /// SIGTERM was sent.
    told_to_end: bool,
    continue_at: Option<Instant>,
    /// Calls that have waited for a permit so far.
    waited: u64,
    /// Since when the process is unready.
    unready: Option<Instant>,
}

pub struct Operators {
    recipe: Recipe,
    http: reqwest::Client,
    dice: Dice,
    two: Vec<Process>,
    second_leader: Option<(Process, Instant)>,
    /// Whether those that are started from now on get failpoints.
    arming: bool,
    begun: u64,
    pub tally: Tally,
}

impl Operators {
    /// Starts two, each with a failpoint.
    pub fn start(recipe: Recipe, seed: u64) -> Result<Self> {
        let tally = Tally::new()?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let (two, dice) = (Vec::new(), Dice::new(seed));
        let mut new = Self { recipe, http, dice, two, second_leader: None, arming: true, begun: 0, tally };
        for _ in 0..2 {
            let point = new.next_point();
            let process = new.spawn(point, true)?;
            new.two.push(process);
        }
        Ok(new)
    }

    /// The failpoints that have not been reached.
    pub fn unreached(&self) -> Vec<String> {
        self.tally.points.iter().filter(|(_, times)| **times == 0).map(|(point, _)| point.clone()).collect()
    }

    /// The kinds of disturbances that have not been completed once.
    pub fn undone(&self) -> Vec<&'static str> {
        self.tally.disturbances.iter().filter(|(_, times)| **times == 0).map(|(kind, _)| *kind).collect()
    }

    /// Does what is not for the API server; the second leader gets a failpoint if one is given. Tells whether it could
    /// be done now: what is for a leader needs one.
    pub async fn disturb(&mut self, what: Disturbance, point: Option<String>) -> Result<bool> {
        self.tally.disturbed.push(Timestamp::now());
        match what {
            Disturbance::RestartApiServer(_) => self.count(what),
            Disturbance::SecondLeader(lasts) => {
                if self.second_leader.is_none() {
                    self.second_leader = Some((self.spawn(point, false)?, Instant::now() + lasts));
                }
            }
            _ => {
                let Some(leader) = self.leader().await else { return Ok(false) };
                self.disturb_one_of_two(what, leader)?;
            }
        }
        Ok(true)
    }

    fn disturb_one_of_two(&mut self, what: Disturbance, leader: usize) -> Result<()> {
        let process = &mut self.two[leader];
        match what {
            Disturbance::EndLeader => {
                process.child.signal("TERM")?;
                process.told_to_end = true;
                self.count(what);
            }
            Disturbance::StopLeader(lasts) => {
                process.child.signal("STOP")?;
                process.continue_at = Some(Instant::now() + lasts);
            }
            _ => {
                let index = if what == Disturbance::KillLeader { leader } else { 1 - leader };
                self.two[index].child.kill()?;
                self.count(what);
                self.replace(index)?;
            }
        }
        Ok(())
    }

    /// Whether a process is stopped or a second leader acts.
    pub fn is_busy(&self) -> bool {
        self.second_leader.is_some() || self.two.iter().any(|process| process.continue_at.is_some())
    }

    /// Replaces processes that have ended, and ends disturbances whose time is up.
    pub fn look_after(&mut self) {
        if let Err(error) = self.try_to_look_after() {
            self.tally.odd.push(format!("an operator could not be looked after: {error}"));
        }
    }

    fn try_to_look_after(&mut self) -> Result<()> {
        for index in 0..self.two.len() {
            let process = &mut self.two[index];
            if let Some(status) = process.child.wait_exit(Duration::ZERO)? {
                self.judge(index, status);
                self.replace(index)?;
            } else if process.continue_at.is_some_and(|at| Instant::now() >= at) {
                process.child.signal("CONT")?;
                process.continue_at = None;
                self.tally.disturbed.push(Timestamp::now());
                self.count(Disturbance::StopLeader(Duration::ZERO));
            }
        }
        let Some((mut process, until)) = self.second_leader.take() else { return Ok(()) };
        let log = process.child.log().to_owned();
        match (process.child.wait_exit(Duration::ZERO)?, &process.armed) {
            (Some(status), Some(point)) if status.signal() == Some(SIGKILL) => {
                *self.tally.points.entry(point.clone()).or_default() += 1;
            }
            (Some(status), _) => self.tally.odd.push(format!("the second leader ended by itself ({status})")),
            (None, _) if Instant::now() >= until => {
                process.child.kill()?;
                self.count(Disturbance::SecondLeader(Duration::ZERO));
            }
            (None, _) => self.second_leader = Some((process, until)),
        }
        if self.second_leader.is_none() {
            self.tally.ends.push((log, Timestamp::now()));
        }
        Ok(())
    }

    /// Ends the disturbances: those with failpoints are replaced by some without.
    pub fn calm_down(&mut self) -> Result<()> {
        self.arming = false;
        for index in 0..self.two.len() {
            if self.two[index].armed.is_some() {
                self.two[index].child.kill()?;
                self.replace(index)?;
            }
        }
        Ok(())
    }

    /// Reads how many calls have waited for a permit.
    pub async fn count_waits(&mut self) {
        for process in self.two.iter_mut().filter(|process| process.continue_at.is_none()) {
            let answer = self.http.get(format!("http://{}/metrics", process.listen)).send().await;
            let Ok(answer) = answer else { continue };
            let waited = answer.text().await.map(|text| waits(&text)).unwrap_or_default();
            self.tally.waited += waited.saturating_sub(process.waited);
            process.waited = process.waited.max(waited);
        }
    }

    /// Checks which operators are ready. Only an absent API server may make an operator unready, and not for long.
    pub async fn look_at_readiness(&mut self) {
        for process in &mut self.two {
            // A stopped process would not answer.
            if process.continue_at.is_some() {
                process.unready = None;
                continue;
            }
            let said = match self.http.get(format!("http://{}/readyz", process.listen)).send().await {
                Ok(answer) if answer.status().is_success() => {
                    process.unready = None;
                    continue;
                }
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            let since = *process.unready.get_or_insert_with(Instant::now);
            self.tally.unready = self.tally.unready.max(since.elapsed());
            if since.elapsed() > READY_WITHIN {
                let log = process.child.log().display();
                self.tally
                    .odd
                    .push(format!("an operator was not ready within {READY_WITHIN:?}: {said}; its log is {log}"));
                process.unready = Some(Instant::now());
            }
        }
    }

    /// Stops all operators and collects complaints from their logs. Also returns how many runs were finally left alone,
    /// and when each process ended that ended earlier.
    pub fn stop(mut self) -> Result<(Tally, u64, BTreeMap<String, Timestamp>)> {
        for process in &mut self.two {
            process.child.stop()?;
        }
        let (mut abandoned, mut ends) = (0, BTreeMap::new());
        let ended: BTreeMap<PathBuf, Timestamp> = self.tally.ends.iter().cloned().collect();
        for entry in fs::read_dir(&self.recipe.folder)? {
            let path = entry?.path();
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            for line in text.lines() {
                let instance = line.split_once("instance=").and_then(|(_, rest)| rest.split_whitespace().next());
                if let (Some(instance), Some(at)) = (instance, ended.get(&path)) {
                    ends.entry(instance.trim_matches('"').to_owned()).or_insert(*at);
                }
                if line.contains(TOKEN) {
                    self.tally.odd.push(format!("{}: it tells a Secret", path.display()));
                }
                abandoned += u64::from(line.contains("could not be stopped within five minutes"));
                if line.contains("panicked at") || line.contains("this is a bug") {
                    self.tally.odd.push(format!("{}: {line}", path.display()));
                }
            }
        }
        Ok((self.tally, abandoned, ends))
    }

    fn judge(&mut self, index: usize, status: ExitStatus) {
        let process = &self.two[index];
        match (status.signal(), status.code(), &process.armed) {
            (Some(SIGKILL), _, Some(point)) => *self.tally.points.entry(point.clone()).or_default() += 1,
            (_, Some(0), _) if process.told_to_end => {}
            (_, Some(1), _) if log_ends_with_lost_lease(process.child.log()) => self.tally.lost_leases += 1,
            _ => {
                let log = process.child.log().display();
                self.tally.odd.push(format!("an operator ended by itself ({status}); its log is {log}"));
            }
        }
    }

    fn replace(&mut self, index: usize) -> Result<()> {
        self.tally.ends.push((self.two[index].child.log().to_owned(), Timestamp::now()));
        self.tally.disturbed.push(Timestamp::now());
        let point = self.next_point();
        self.two[index] = self.spawn(point, true)?;
        Ok(())
    }

    /// The failpoint for the next process: one that is still to be reached and that no other process has, else any
    /// or none.
    fn next_point(&mut self) -> Option<String> {
        if !self.arming {
            return None;
        }
        let is_taken = |point: &String| self.two.iter().any(|process| process.armed.as_ref() == Some(point));
        if let Some(point) = self.unreached().into_iter().find(|point| !is_taken(point)) {
            return Some(point);
        }
        let all: Vec<String> = self.tally.points.keys().cloned().collect();
        (self.unreached().is_empty() && self.dice.percent(15)).then(|| self.dice.one_of(&all).clone())
    }

    fn spawn(&mut self, armed: Option<String>, elected: bool) -> Result<Process> {
        self.begun += 1;
        // The port is free now. If another process takes it, the operator ends and its successor gets another port.
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let Recipe { program, kubeconfig, url, folder, log, without } = &self.recipe;
        let mut command = Command::new(program);
        command
            .args(["run", "--allow-base-url", url, "--listen", &listen.to_string()])
            .args([
                "--lease-name",
                if elected { "chaos" } else { "" },
                "--lease-namespace",
                "default",
                "--log-level",
                log,
            ])
            .args(["--max-requests-per-second", CALLS_PER_SECOND])
            .env("KUBECONFIG", kubeconfig)
            .env("NO_COLOR", "1")
            // The simulator is on this machine.
            .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")]);
        // Every second operator watches each namespace separately; the others watch all namespaces with one watch.
        if self.begun.is_multiple_of(2) {
            command.args(NAMESPACES.map(|namespace| format!("--namespace={namespace}")));
        }
        let kill = armed.iter().map(|point| format!("{point}=kill"));
        let active = without.iter().map(|safeguard| format!("failpoint-{safeguard}=active"));
        let failpoints: Vec<String> = kill.chain(active).collect();
        if !failpoints.is_empty() {
            command.env("OPERATOR_FAILPOINTS", failpoints.join(","));
        }
        let role = if elected { "operator" } else { "second-leader" };
        let child = Supervised::spawn(&command, &folder.join(format!("{role}-{:04}.log", self.begun)))?;
        Ok(Process {
            child,
            listen,
            armed,
            told_to_end: false,
            continue_at: None,
            waited: 0,
            unready: Some(Instant::now()),
        })
    }

    async fn leader(&self) -> Option<usize> {
        for (index, process) in self.two.iter().enumerate() {
            // A stopped process would not answer.
            if process.continue_at.is_some() {
                continue;
            }
            let answer = self.http.get(format!("http://{}/metrics", process.listen)).send().await;
            if let Ok(answer) = answer
                && answer.text().await.is_ok_and(|text| text.contains("\nmistral_workflows_leader 1\n"))
            {
                return Some(index);
            }
        }
        None
    }

    fn count(&mut self, what: Disturbance) {
        *self.tally.disturbances.entry(what.kind()).or_default() += 1;
    }
}

/// The calls of all priority levels that have waited longer than a tenth of a second for a permit.
fn waits(metrics: &str) -> u64 {
    let sum = |name: &str, label: &str| -> u64 {
        let rows = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        rows.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    let all = sum("mistral_workflows_api_call_wait_seconds_count", "");
    all.saturating_sub(sum("mistral_workflows_api_call_wait_seconds_bucket", "le=\"0.1\""))
}

fn log_ends_with_lost_lease(log: &Path) -> bool {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).contains("this process no longer holds the Lease")
}
