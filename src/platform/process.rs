//! The metrics of the process itself, by the names that all Prometheus clients use.
//!
//! They are read from `/proc` at each rendering. Where there is no `/proc`, there are no such metrics.

use std::fmt::Error;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The unit of times in `/proc`, per second. It is part of the interface of Linux, whatever the kernel's own ticks are.
const TICKS: f64 = 100.0;

/// Encodes the metrics of this process.
#[derive(Debug)]
pub struct Process;

/// The names of these metrics, as they are queried, and their types.
pub const NAMES: [(&str, &str); 5] = [
    ("process_cpu_seconds_total", "counter"),
    ("process_start_time_seconds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
];

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let times = times();
        if let Some((cpu, _)) = times {
            let help = "CPU time that the process has taken.";
            let cpu = ConstCounter::new(cpu);
            cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)?;
        }
        let started = times.map(|(_, started)| started);
        for (name, help, value) in [
            ("process_start_time_seconds", "When the process started, in seconds since 1970.", started),
            ("process_resident_memory_bytes", "Memory of the process that is in RAM.", resident()),
            ("process_open_fds", "Open files and connections.", open_files()),
            ("process_max_fds", "How many files and connections may be open.", limit_of_files()),
        ] {
            let Some(value) = value else { continue };
            let value = ConstGauge::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
        }
        Ok(())
    }
}

/// CPU time, and when the process started.
fn times() -> Option<(f64, f64)> {
    let (used, started) = ticks(&fs::read_to_string("/proc/self/stat").ok()?)?;
    let all = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = all.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    Some((used / TICKS, booted + started / TICKS))
}

/// The ticks that a process has used, and after how many since the boot it started. The second field of the text is the
/// program's name, which may contain anything.
fn ticks(stat: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib: f64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())?;
    Some(kib * 1024.0)
}

fn open_files() -> Option<f64> {
    // The one through which they are counted is not counted.
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

fn limit_of_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_any_name_is_read() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 4200 1 1";
        assert_eq!(ticks(stat), Some((200.0, 4200.0)));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_plausible_values() {
        let (used, started) = times().unwrap();
        let now = k8s_openapi::jiff::Timestamp::now().as_second();
        let age = now - started as i64;
        assert!((0.0..3600.0 * 24.0).contains(&used) && (-2..24 * 3600).contains(&age), "{used} {age}");
        assert!(resident().unwrap() > 1e6);
        let file = fs::File::open("/proc/self/stat").unwrap();
        let (open, most) = (open_files().unwrap(), limit_of_files().unwrap());
        assert!((1.0..=most).contains(&open), "{open} of {most}");
        drop(file);
    }
}
