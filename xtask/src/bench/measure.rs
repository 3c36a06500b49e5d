//! Counts from other sources: the API server, the operating system and the simulator.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::demo::Result;

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// The units per second in which Linux counts a process's time.
const TICKS: f64 = 100.0;
/// How often a [`Meter`] polls.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// The API groups whose writes are counted.
const GROUPS: [&str; 3] = ["workflows.mistral.ai", EVENTS, LEASES];
const EVENTS: &str = "events.k8s.io";
const LEASES: &str = "coordination.k8s.io";
const WRITES: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];

/// Writes that an API server has counted, in the form `PATCH workflowexecutions/status 200`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Writes to the operator's resources.
    pub ours: Counts,
    pub events: u64,
    /// Renewals of Leases.
    pub leases: u64,
}

impl Writes {
    pub async fn so_far(client: &Client) -> Result<Self> {
        // This makes a plain GET of the path; nothing is listed.
        let request = kube::core::Request::new("/metrics").list(&ListParams::default())?;
        Ok(Self::parse(&client.request_text(request).await?))
    }

    fn parse(metrics: &str) -> Self {
        let mut writes = Self::default();
        for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                let value = line.split_once(&format!("{name}=\"")).map(|(_, rest)| rest);
                value.and_then(|value| value.split_once('"')).map_or("", |(value, _)| value)
            };
            let (group, verb) = (label("group"), label("verb"));
            if !GROUPS.contains(&group) || !WRITES.contains(&verb) {
                continue;
            }
            // Prometheus writes counts as floating-point numbers.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small and whole")]
            let count =
                line.rsplit_once(' ').and_then(|(_, count)| count.parse::<f64>().ok()).unwrap_or_default() as u64;
            match group {
                EVENTS => writes.events += count,
                LEASES => writes.leases += count,
                _ => {
                    let subresource = label("subresource");
                    let slash = if subresource.is_empty() { "" } else { "/" };
                    let what = format!("{verb} {}{slash}{subresource} {}", label("resource"), label("code"));
                    *writes.ours.entry(what).or_default() += count;
                }
            }
        }
        writes
    }

    /// The writes after `before`, without the bench's `own`.
    pub fn since(&self, before: &Self, own: &[(&str, u64)]) -> Self {
        let mut ours = since(&self.ours, &before.ours);
        for (what, times) in own {
            if let Some(count) = ours.get_mut(*what) {
                *count = count.saturating_sub(*times);
            }
        }
        ours.retain(|_, count| *count > 0);
        let (events, leases) = (self.events - before.events, self.leases - before.leases);
        Self { ours, events, leases }
    }

    /// The number of writes to the operator's resources.
    pub fn total(&self) -> u64 {
        self.ours.values().sum()
    }
}

/// The increase of each count.
fn since(now: &Counts, before: &Counts) -> Counts {
    let more = |(what, count): (&String, &u64)| {
        (what.clone(), count.saturating_sub(before.get(what).copied().unwrap_or_default()))
    };
    now.iter().map(more).filter(|(_, count)| *count > 0).collect()
}

/// A process whose usage the system reports. Systems without `/proc` report nothing.
#[derive(Clone, Copy, Debug)]
pub struct Usage(pub u32);

impl Usage {
    /// Processor time of all threads, including ended ones, in seconds.
    pub fn cpu(self) -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        let (_, fields) = text.rsplit_once(") ")?;
        Some(fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS)
    }

    /// Memory of this kind in MiB. For example, `VmHWM` is the peak.
    pub fn memory(self, kind: &str) -> Option<f64> {
        kibibytes(&fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?, kind).map(|all| all / 1024.0)
    }
}

/// Processor time of this machine since it started: the busy time and the total.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    worked: f64,
    had: f64,
}

impl Machine {
    /// The current times. `None` on systems without `/proc`.
    pub fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        let times: Vec<f64> =
            stat.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|time| time.parse().ok()).collect();
        let had: f64 = times.iter().sum();
        // The fourth value is idle time, the fifth is time spent waiting for disks.
        Some(Self { worked: had - times.get(3)? - times.get(4)?, had })
    }

    /// The busy share of processor time since `before`, in percent.
    pub fn busy_since(before: Option<Self>) -> Option<f64> {
        let (before, now) = (before?, Self::now()?);
        let had = now.had - before.had;
        (had > 0.0).then_some(100.0 * (now.worked - before.worked) / had)
    }
}

pub async fn describe_machine(client: &Client) -> Result<Value> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(json!({
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "memory_mib": kibibytes(&read("/proc/meminfo"), "MemTotal").map(|all| (all / 1024.0).round()),
        "cpu": model.map(|(_, model)| model),
        "system": std::env::consts::OS,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
        "kube_apiserver": client.apiserver_version().await?.git_version,
        "measured": format!("{:.0}", Timestamp::now()),
    }))
}

fn kibibytes(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The controls of a simulator.
#[derive(Clone, Debug)]
pub struct Simulated {
    http: reqwest::Client,
    url: String,
}

/// A run in the simulator's ledger.
#[derive(Clone, Debug)]
pub struct Booked {
    pub input: Value,
    pub starts: u64,
    /// When the call that started it arrived.
    pub arrived: Timestamp,
    pub ended: Option<Timestamp>,
}

impl Simulated {
    /// The controls of the simulator at this address.
    pub fn new(url: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, url: format!("{url}/__sim") })
    }

    /// Makes every call wait this long before its effect.
    pub async fn latency(&self, lasts: Duration) -> Result<()> {
        let ms = u64::try_from(lasts.as_millis())?;
        let faults = json!({ "faults": [{ "name": "latency", "kind": { "latency_ms": ms } }] });
        self.http.put(format!("{}/faults", self.url)).json(&faults).send().await?.error_for_status()?;
        Ok(())
    }

    /// Resets the counts of calls.
    pub async fn forget_calls(&self) -> Result<()> {
        self.http.delete(format!("{}/calls", self.url)).send().await?.error_for_status()?;
        Ok(())
    }

    /// The calls that have arrived, by route such as `GET /v1/workflows/runs`.
    pub async fn calls(&self) -> Result<Counts> {
        let told = self.get("calls").await?;
        let rows = told["calls"].as_array().ok_or("the simulator does not tell its calls.")?;
        let row = |row: &Value| {
            let word = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            (format!("{} {}", word("method"), word("route")), row["arrivals"].as_u64().unwrap_or_default())
        };
        let mut calls = Counts::new();
        for (route, arrivals) in rows.iter().map(row) {
            *calls.entry(route).or_default() += arrivals;
        }
        Ok(calls)
    }

    pub async fn runs(&self) -> Result<Vec<Booked>> {
        let mut told = self.get("executions").await?;
        let rows = told["executions"].as_array_mut().ok_or("the simulator's ledger is no list.")?;
        let booked = |row: &mut Value| {
            let time = |row: &Value, field: &str| row[field].as_str().and_then(|time| time.parse().ok());
            Some(Booked {
                input: row["input"].take(),
                starts: row["starts"].as_u64()?,
                arrived: time(row, "arrival_time")?,
                ended: time(row, "end_time"),
            })
        };
        let runs: Option<Vec<Booked>> = rows.iter_mut().map(booked).collect();
        Ok(runs.ok_or("the simulator's ledger lacks a field.")?)
    }

    async fn get(&self, what: &str) -> Result<Value> {
        Ok(self.http.get(format!("{}/{what}", self.url)).send().await?.error_for_status()?.json().await?)
    }
}

/// Measures how many calls arrive within a second. The meter polls ten times a second, so it does not count calls
/// together that are exactly a second apart.
pub struct Meter(JoinHandle<u64>, tokio::sync::oneshot::Sender<()>);

impl Meter {
    /// Starts to poll.
    pub fn start(simulated: Simulated) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut looks: Vec<(Instant, u64)> = Vec::new();
            loop {
                if let Ok(calls) = simulated.calls().await {
                    looks.push((Instant::now(), calls.values().sum()));
                }
                tokio::select! {
                    () = sleep(LOOKS_EVERY) => {}
                    _ = &mut stopped => return most_within_a_second(&looks),
                }
            }
        });
        Self(task, stop)
    }

    /// Stops polling. Returns the most calls that arrived within any second.
    pub async fn stop(self) -> Result<u64> {
        // If the receiver is gone, the result of the task says so.
        let _ = self.1.send(());
        Ok(self.0.await?)
    }
}

/// The largest increase between two polls that are at most a second apart.
fn most_within_a_second(looks: &[(Instant, u64)]) -> u64 {
    let mut first = 0;
    let mut most = 0;
    for (at, total) in looks {
        while at.duration_since(looks[first].0) > Duration::from_secs(1) {
            first += 1;
        }
        most = most.max(total.saturating_sub(looks[first].1));
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE apiserver_request_total counter
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"workflows.mistral.ai\",resource=\"workflowexecutions\",scope=\"resource\",subresource=\"status\",verb=\"PATCH\",version=\"v1alpha1\"} 12
apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"workflows.mistral.ai\",resource=\"workflowexecutions\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1alpha1\"} 1.2e+06
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"workflows.mistral.ai\",resource=\"workflowexecutions\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1alpha1\"} 7
apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"events.k8s.io\",resource=\"events\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 5
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"coordination.k8s.io\",resource=\"leases\",scope=\"resource\",subresource=\"\",verb=\"PUT\",version=\"v1\"} 3
apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"secrets\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 9
";

    #[test]
    fn writes_are_counted_by_what_they_write_with_events_and_leases_apart() {
        let now = Writes::parse(METRICS);
        let counts = |all: &[(&str, u64)]| all.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
        let ours = counts(&[("PATCH workflowexecutions/status 200", 12), ("POST workflowexecutions 201", 1_200_000)]);
        assert_eq!(now, Writes { ours, events: 5, leases: 3 });
        let before = Writes { ours: counts(&[("PATCH workflowexecutions/status 200", 2)]), events: 1, leases: 3 };
        let own = [("POST workflowexecutions 201", 1_200_000)];
        let ours = counts(&[("PATCH workflowexecutions/status 200", 10)]);
        assert_eq!(now.since(&before, &own), Writes { ours, events: 4, leases: 0 });
    }

    #[test]
    fn what_a_machine_did_is_neither_idle_nor_waiting_for_disks() {
        let machine = Machine::parse("cpu  10 0 20 60 10 0 0 0 0 0\ncpu0 …\n").unwrap();
        assert_eq!((machine.worked, machine.had), (30.0, 100.0));
        assert_eq!(kibibytes("VmPeak:\t  9 kB\nVmHWM:\t   2048 kB\n", "VmHWM"), Some(2048.0));
        assert_eq!(kibibytes("", "VmHWM"), None);
    }

    #[test]
    fn calls_within_a_second_are_those_between_looks_that_close() {
        let begun = Instant::now();
        let at = |ms: u64, total| (begun + Duration::from_millis(ms), total);
        let looks = [at(0, 0), at(500, 40), at(1000, 50), at(1400, 95), at(3000, 100)];
        assert_eq!(most_within_a_second(&looks), 55);
        assert_eq!(most_within_a_second(&[]), 0);
    }
}
