//! Kills the leader in the middle of its work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Result;
use super::simulator::{SHORT, execution};
use super::target::{OPERATOR, TEAM, Target, until};

const EXECUTIONS: usize = 50;
/// How many executions have been started when the leader dies. Only the half without latency counts.
const STARTED: usize = 10;
/// For a call that the leader had in flight, the new leader checks for a run before it repeats the call, some 90 s
/// after the call was sent.
const COMPLETE_WITHIN: Duration = Duration::from_secs(300);

/// Creates executions, kills the leader's pod while it starts them, and waits until they are complete.
pub fn kill_the_leader(target: &Target, release: &str) -> Result<()> {
    // Half of the calls stay in flight so long that the leader dies before their answers.
    let route = "/v1/workflows/{workflow_identifier}/execute";
    let slow = json!({ "faults": [{ "method": "POST", "route": route, "rate": 0.5, "kind": { "latency_ms": 5000 } }] });
    target.simulator("replace", "faults", Some(&slow))?;
    let items: Vec<Value> = (0..EXECUTIONS).map(labelled).collect();
    let list =
        target.write("fifty.json", &json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())?;

    let leader = leader(target, release)?;
    let pod = leader.get(..leader.len() - INSTANCE).ok_or_else(|| format!("{leader} names no pod."))?;
    println!("The pod {pod} leads.");
    let container = target.field(OPERATOR, &["pod", pod], "{.status.containerStatuses[0].containerID}")?;
    let mut creating = target.begin_to_create(&list)?;
    until("executions are started", Duration::from_secs(60), || Ok(count(target, "starts")? >= STARTED))?;
    // Kill the process first, then delete the pod: deletion alone would let the leader shut down gracefully.
    if let (Some(node), Some((_, id))) = (&target.node, container.split_once("://")) {
        node.kill(id)?;
    }
    let killed = Instant::now();
    target.kubectl(&["-n", OPERATOR, "delete", "pod", pod, "--force", "--grace-period=0"])?;
    let started = count(target, "starts")?;
    target.simulator("replace", "faults", Some(&json!({ "faults": [] })))?;
    println!("{started} of {EXECUTIONS} had been started when the leader was killed.");
    if started >= EXECUTIONS {
        return Err("the leader was killed too late: it had started them all.".into());
    }

    until("another pod leads", Duration::from_secs(60), || Ok(!self::leader(target, release)?.starts_with(pod)))?;
    println!("{:.1} s after that, {} led.", killed.elapsed().as_secs_f64(), self::leader(target, release)?);
    if !creating.wait()?.success() {
        return Err("the executions could not be created.".into());
    }
    let mut last = 0;
    until("all executions are complete", COMPLETE_WITHIN, || {
        let ended = target.field(TEAM, &["workflowexecutions", "-l", "batch=fifty"], "{.items[*].status.status}")?;
        let complete = ended.split_whitespace().filter(|status| *status == "COMPLETED").count();
        if complete != last {
            println!("{:>6.1} s  {complete} complete", killed.elapsed().as_secs_f64());
            last = complete;
        }
        Ok(complete == EXECUTIONS)
    })?;
    let complete = ["-n", TEAM, "wait", "--for=condition=Complete", "--timeout=10s"];
    target.ask(&[&complete[..], &["workflowexecutions", "-l", "batch=fifty"]].concat())?;
    if count(target, "starts")? != EXECUTIONS {
        return Err(format!("the simulator has {} starts of {EXECUTIONS} executions.", count(target, "starts")?).into());
    }
    println!("The simulator's ledger: {EXECUTIONS} executions, {EXECUTIONS} starts.");
    Ok(())
}

/// The length of the suffix after the pod's name in the Lease: a hyphen and a UUID without hyphens.
const INSTANCE: usize = 33;

fn leader(target: &Target, release: &str) -> Result<String> {
    target.field(OPERATOR, &["lease", release], "{.spec.holderIdentity}")
}

/// The sum of a count over all runs of the batch.
fn count(target: &Target, what: &str) -> Result<usize> {
    let ledger = target.ledger()?;
    let batch = ledger.iter().filter(|entry| entry["workflow_name"] == SHORT && entry["input"]["batch"] == "fifty");
    Ok(batch.filter_map(|entry| entry[what].as_u64()).sum::<u64>().try_into()?)
}

fn labelled(number: usize) -> Value {
    let mut execution = execution(&format!("fifty-{number}"), SHORT, &json!({ "batch": "fifty", "number": number }));
    execution["metadata"]["labels"] = json!({ "batch": "fifty" });
    execution
}
