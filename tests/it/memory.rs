//! How much memory one tenant can make the operator use.

use serde_json::json;

use crate::support::*;

/// The peak memory of a process so far, in MiB. `None` where the system does not report it.
fn peak(process: &Process) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.pid())).ok();
    let Some(status) = status else {
        eprintln!("SKIPPED: /proc tells no peak of memory here, so none is checked");
        return None;
    };
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib >> 10)
}

async fn ready(process: &Process) {
    until(SOON, "readiness", async || process.ask("/readyz").await.filter(|(code, _)| *code == 200)).await;
}

#[tokio::test]
async fn long_inputs_of_executions_that_are_held_back_are_not_kept() {
    let world = World::new("long-inputs").await;
    let zeros = vec![0; 700_000];
    for n in 0..10 {
        let spec = json!({ "workflowIdentifier": "echo", "suspend": true, "input": { "a": zeros } });
        world.execute(&format!("held-{n}"), spec).await;
    }
    let process = world.process(&[]);
    ready(&process).await;
    for n in 0..10 {
        world.wait_for_reason(&format!("held-{n}"), "Suspended").await;
    }
    // Inputs that were decoded and kept took 540 MiB.
    if let Some(peak) = peak(&process) {
        assert!(peak < 150, "{peak} MiB");
    }
    // The operator reads the omitted input again for the start.
    world.patch("held-3", json!({ "spec": { "suspend": false, "result": { "maxBytes": 32768 } } })).await.unwrap();
    let done = world.wait("held-3", SOON, |object| is_true(object, "Complete")).await;
    assert_eq!(status(&done).result_bytes, Some(1_400_007));
    assert!(condition(&done, "Edited").is_none());
    assert_eq!(world.api.starts().await, 1);
}
