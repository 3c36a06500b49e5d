//! What an idle operator costs.

use std::time::Duration;

use serde_json::json;

use crate::support::*;

/// The operator removes the finalizers of finished executions one and a half to two minutes after their end, twenty per
/// second.
const SETTLED: Duration = Duration::from_secs(150);
const MEASURED: Duration = Duration::from_secs(60);
/// Linux counts the CPU time of a process in ticks. This is their number per second.
const TICKS: f64 = 100.0;

/// A line of /proc/PID/status, in MiB.
pub fn memory(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// The CPU time of all threads of a process, including ended ones, in seconds.
fn worked(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse().unwrap()).collect();
    ticks.iter().sum::<f64>() / TICKS
}

/// Measures one operator with this many resources at rest.
async fn measure(workflows: usize, executions: usize) {
    let world = if executions == 0 { World::bare("idle").await } else { World::new("idle").await };
    let lease = ["--log-level", "info", "--lease-name", "operator", "--lease-namespace", &world.namespace];
    let process = world.process_with(&lease, &[]);
    let ready = async || process.ask("/readyz").await.filter(|(_, body)| body == "ready\n");
    until(SOON, "readiness", ready).await;
    for name in ["echo", "slow", "fail"].into_iter().take(workflows) {
        world.workflow(name, json!({})).await;
        world.wait_for_workflow(name, "InSync").await;
    }
    for n in 0..executions {
        world.execute(&format!("run-{n}"), json!({ "workflowIdentifier": "echo", "input": { "n": n } })).await;
    }
    for n in 0..executions {
        world.wait(&format!("run-{n}"), 5 * SOON, is_finished).await;
    }
    tokio::time::sleep(SETTLED).await;
    let pid = process.child.pid();
    let before = worked(pid);
    tokio::time::sleep(MEASURED).await;
    println!(
        "{workflows} Workflows and {executions} finished executions: RSS {:.1} MiB, of it anonymous {:.1} MiB; \
         {:.2} s of CPU time in {} s",
        memory(pid, "VmRSS"),
        memory(pid, "RssAnon"),
        worked(pid) - before,
        MEASURED.as_secs()
    );
}

#[tokio::test]
#[ignore = "ten minutes, for the figures: cargo test --release --test it idle_cost -- --ignored --nocapture"]
async fn idle_cost() {
    if cfg!(debug_assertions) {
        panic!("what a debug build takes means nothing: add --release");
    }
    // Each operator is a separate process.
    tokio::join!(measure(0, 0), measure(3, 10), measure(3, 1000));
}
