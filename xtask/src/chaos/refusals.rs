//! Writes that a policy of the cluster refuses, temporarily or permanently.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy as Policy, ValidatingAdmissionPolicyBinding as Binding,
};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::dice::Dice;
use super::environment::{DEFAULT, Executions};
use super::perform::{create, patiently};
use super::record::Record;
use super::workflows::{ENDING, STOPPED};
use super::workload::{Planned, Step};
use crate::demo::Result;

/// The label that selects which of the operator's writes to an execution are refused: claim, status, finalizer or all.
pub const REFUSE: &str = "chaos/refuse";
/// The label of an execution whose writes are refused only while its namespace is strict.
pub const WHILE_STRICT: &str = "chaos/while-strict";
/// The label of a strict namespace.
const STRICT: &str = "chaos/strict";
/// How long a namespace is strict, and then how long it is not.
const TURN: Duration = Duration::from_secs(6);
/// How long the API server may take to enforce a new policy on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// The policy's message.
const SAID: &str = "the audit department says no";

/// The reasons of the operator's Events about refusals.
const REASONS: [&str; 3] = ["ClaimRefused", "StatusRefused", "FinalizerRefused"];

/// When a refusal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until the label is removed.
    Unlabelled,
    /// Until the namespace is no longer strict. Nothing about the execution itself changes.
    Relaxed,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// From the creation on.
    AtOnce(&'static str, Until),
    /// From a later time until the label is removed.
    Midway(&'static str),
    /// For an execution that is deleted while its run continues.
    Deleted(Until),
}

impl Refusal {
    pub const ALL: [Self; 14] = [
        Self::AtOnce("claim", Until::Unlabelled),
        Self::AtOnce("claim", Until::Relaxed),
        Self::AtOnce("claim", Until::Never),
        Self::AtOnce("status", Until::Unlabelled),
        Self::AtOnce("status", Until::Relaxed),
        Self::AtOnce("status", Until::Never),
        Self::AtOnce("all", Until::Unlabelled),
        Self::AtOnce("all", Until::Relaxed),
        Self::AtOnce("all", Until::Never),
        Self::Midway("claim"),
        Self::Midway("status"),
        Self::Midway("all"),
        Self::Deleted(Until::Unlabelled),
        Self::Deleted(Until::Never),
    ];

    /// An execution of this kind.
    pub fn planned(self, number: usize, window: u64, dice: &mut Dice) -> Planned {
        let workflow = if matches!(self, Self::Deleted(_)) { *dice.one_of(&STOPPED) } else { *dice.one_of(&ENDING) };
        let spec = json!({ "workflowIdentifier": workflow, "input": { "refused": number } });
        let mut planned = Planned::new(format!("refused-{number}"), spec, dice.ms(0, window));
        let Planned { labels, steps, .. } = &mut planned;
        match self {
            Self::AtOnce(what, until) => {
                *labels = json!({ REFUSE: what });
                match until {
                    Until::Unlabelled => steps.push((dice.ms(3000, 15_000), Step::Allow)),
                    Until::Relaxed => labels[WHILE_STRICT] = json!(""),
                    Until::Never => {}
                }
            }
            Self::Midway(what) => {
                steps.push((dice.ms(0, 3000), Step::Refuse(what)));
                steps.push((dice.ms(3000, 12_000), Step::Allow));
            }
            Self::Deleted(until) => {
                steps.push((dice.ms(0, 2000), Step::RefuseRelease));
                steps.push((dice.ms(0, 2000), Step::Delete));
                if until == Until::Unlabelled {
                    steps.push((dice.ms(5000, 12_000), Step::Allow));
                }
            }
        }
        planned
    }
}

/// Makes the API server refuse the labelled writes, and waits until it does.
pub async fn install(client: &Client, executions: &Executions) -> Result<()> {
    let binding =
        json!({ "metadata": { "name": "chaos" }, "spec": { "policyName": "chaos", "validationActions": ["Deny"] } });
    let (policies, bindings): (Api<Policy>, Api<Binding>) = (Api::all(client.clone()), Api::all(client.clone()));
    policies.create(&PostParams::default(), &serde_json::from_value(policy())?).await?;
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    be_strict(client, true).await?;
    until_in_force(executions).await
}

/// The policy that refuses the labelled writes.
fn policy() -> Value {
    // Other changes, such as to the label itself, are never refused.
    let unless = |refused: &str, allowed: &str| {
        let expression = format!("!(variables.refused in ['{refused}', 'all']) || {allowed}");
        json!({ "expression": expression, "message": SAID })
    };
    let same = |field: &str, none: &str| {
        let of = |object: &str| format!("(has({object}.metadata.{field}) ? {object}.metadata.{field} : {none})");
        format!("variables.status || {} == {}", of("object"), of("oldObject"))
    };
    let labels = "has(oldObject.metadata.labels)";
    let label = |name: &str| format!("'{name}' in oldObject.metadata.labels");
    let strict = format!("has(namespaceObject.metadata.labels) && '{STRICT}' in namespaceObject.metadata.labels");
    let refused = format!(
        "{labels} && {} && (!({}) || ({strict})) ? oldObject.metadata.labels['{REFUSE}'] : ''",
        label(REFUSE),
        label(WHILE_STRICT),
    );
    json!({
        "metadata": { "name": "chaos" },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["workflows.mistral.ai"], "apiVersions": ["*"], "operations": ["UPDATE"],
                "resources": ["workflowexecutions", "workflowexecutions/status"],
            }] },
            "variables": [
                { "name": "refused", "expression": refused },
                // This field exists only in requests to a subresource.
                { "name": "status", "expression": "has(request.subResource) && request.subResource == 'status'" },
            ],
            "validations": [
                unless("claim", &same("annotations", "{}")),
                unless("finalizer", &same("finalizers", "[]")),
                unless("status", "!variables.status"),
            ],
        },
    })
}

/// Waits until the API server refuses a labelled write.
async fn until_in_force(executions: &Executions) -> Result<()> {
    // No operator works on this execution: its Workspace does not exist, and it is deleted before an operator starts.
    let spec = json!({ "workflowIdentifier": "none", "suspend": true, "workspaceRef": { "name": "none" } });
    let mut probe = Planned::new("probe".into(), spec, Duration::ZERO);
    probe.labels = json!({ REFUSE: "all", WHILE_STRICT: "" });
    let api = executions.of(DEFAULT);
    create(&api, &Record::default(), &probe).await?;
    let deadline = Instant::now() + SOON;
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    let change = json!({ "metadata": { "annotations": { "chaos/probe": "" } } });
    loop {
        match api.patch("probe", &dry_run, &Patch::Merge(&change)).await {
            Err(kube::Error::Api(refusal)) if refusal.message.contains(SAID) => break,
            _ if Instant::now() < deadline => sleep(Duration::from_millis(200)).await,
            outcome => return Err(format!("the policy was not in force within {SOON:?}: {outcome:?}").into()),
        }
    }
    api.delete("probe", &DeleteParams::default()).await?;
    Ok(())
}

/// Makes the namespace of ordinary executions strict, or relaxes it.
pub async fn be_strict(client: &Client, strict: bool) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let label = if strict { json!("") } else { Value::Null };
    let patch = json!({ "metadata": { "labels": { STRICT: label } } });
    patiently(|| async { namespaces.patch(DEFAULT, &PatchParams::default(), &Patch::Merge(&patch)).await }).await?;
    Ok(())
}

/// Alternately makes the namespace strict and relaxes it, until dropped.
pub async fn take_turns(client: Client) -> Result<()> {
    loop {
        for strict in [true, false] {
            be_strict(&client, strict).await?;
            sleep(TURN).await;
        }
    }
}

/// How often the operator has reported each kind of refusal.
pub async fn struck(client: &Client) -> Result<BTreeMap<&'static str, u64>> {
    let events: Api<Event> = Api::all(client.clone());
    let mut struck = BTreeMap::new();
    for reason in REASONS {
        let wanted = ListParams::default().fields(&format!("reason={reason}"));
        let told = patiently(|| events.list(&wanted)).await?.items.len();
        struck.insert(reason, u64::try_from(told)?);
    }
    Ok(struck)
}

/// A kind of refusal that the operator reports by Events of this reason.
pub fn that_would_tell(reason: &str) -> Refusal {
    match reason {
        "ClaimRefused" => Refusal::AtOnce("claim", Until::Unlabelled),
        "StatusRefused" => Refusal::AtOnce("status", Until::Unlabelled),
        _ => Refusal::Deleted(Until::Unlabelled),
    }
}
