//! How much memory one tenant can make the operator use.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::finished::{FINISHED, label};
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

#[tokio::test]
async fn long_metadata_of_executions_that_have_left_is_not_kept() {
    let world = World::new("long-metadata").await;
    let process = world.process(&[]);
    ready(&process).await;
    let Some(before) = peak(&process) else { return };
    drop(process);

    let annotations = json!({ "example.com/long": "x".repeat(250_000) });
    for n in 0..200 {
        leave(&world, &format!("held-{n}"), &annotations, "").await;
    }
    // It comes last in the list, and its time is over.
    leave(&world, "zero", &json!({}), ".1").await;
    let process = world.process(&[]);
    world.wait("zero", SOON, |object| label(object).is_none()).await;
    // All of it together is 50 MB.
    let peak = peak(&process).expect("a peak");
    assert!(peak < before + 20, "{peak} MiB, and {before} without them");
    assert_eq!(world.api.starts().await, 0);
}

/// Creates an execution with the label of one that has left.
async fn leave(world: &World, name: &str, annotations: &serde_json::Value, returns: &str) {
    world.execute(name, json!({ "workflowIdentifier": "echo", "suspend": true })).await;
    let uid = world.executions().get(name).await.unwrap().uid().unwrap();
    let labels = json!({ FINISHED: format!("{uid}.1{returns}") });
    let metadata = Patch::Merge(json!({ "metadata": { "annotations": annotations, "labels": labels } }));
    world.executions().patch(name, &PatchParams::default(), &metadata).await.unwrap();
}
