//! Does to the resources what the plan says, as a patient person would: whatever the API server refuses because it is
//! not there is done again.

use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::record::{Record, Seen};
use super::values;
use super::workload::{Planned, Step};
use crate::demo::Result;

/// How long the API server may be away.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a deletion may take (five minutes whatever is wrong), or a start to have its turn: on a busy machine, of
/// thousands some wait for minutes, and again after a question that the API left without an answer.
const PASSES_WITHIN: Duration = Duration::from_secs(900);
/// How often to look whether something has come.
const POLL: Duration = Duration::from_millis(300);

/// Plays the life of one resource.
pub async fn perform(api: Api<DynamicObject>, record: Record, planned: Planned, began: Instant) -> Result<()> {
    sleep_until(began + planned.at).await;
    let mut uid = create(&api, &record, &planned.name, &planned.spec).await?;
    for (wait, step) in &planned.steps {
        sleep(*wait).await;
        uid = act(&api, &record, &planned, uid, *step)
            .await
            .map_err(|error| format!("{step:?} of {} was not possible: {error}", planned.name))?;
    }
    Ok(())
}

/// Creates a resource, once, and returns its UID.
pub async fn create(api: &Api<DynamicObject>, record: &Record, name: &str, spec: &Value) -> Result<String> {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": name }, "spec": spec,
    }))?;
    let made = patiently(|| async {
        match api.create(&PostParams::default(), &object).await {
            // The answer to the first attempt got lost.
            Err(error) if code(&error) == Some(409) => api.get(name).await,
            made => made,
        }
    });
    let made = made.await?;
    record.note(&made);
    Ok(made.uid().unwrap_or_default())
}

/// Asks for the deletion of a resource.
pub async fn delete(api: &Api<DynamicObject>, record: &Record, name: &str) -> Result<()> {
    record.unwanted(name);
    let deleted = patiently(|| async {
        match api.delete(name, &DeleteParams::default()).await {
            Ok(answer) => Ok(answer.left()),
            // Already, by an attempt whose answer got lost.
            Err(error) if code(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    });
    if let Some(object) = deleted.await? {
        record.note(&object);
    }
    Ok(())
}

/// Takes a step with the resource of this UID; that of the one that it leaves.
async fn act(api: &Api<DynamicObject>, record: &Record, planned: &Planned, uid: String, step: Step) -> Result<String> {
    let name = &planned.name;
    match step {
        Step::Suspend(suspend) => {
            let patch = json!({ "spec": { "suspend": suspend } });
            patiently(|| async { api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await }).await?;
        }
        Step::Delete => delete(api, record, name).await?,
        Step::Shutdown(how) => {
            record.asked(&uid, how);
            let patch = json!({ "spec": { "shutdown": how } });
            patiently(|| async { api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await }).await?;
        }
        Step::Provide => values::provide(api.clone().into_client(), name).await?,
        Step::CreateAgain => {
            until(record, &uid, "it is still there", |seen| seen.gone).await?;
            return create(api, record, name, &planned.spec).await;
        }
        Step::Replace => {
            until(record, &uid, "it has no execution id", |seen| seen.status["executionId"].is_string()).await?;
            loop {
                let mut object = patiently(|| api.get(name)).await?;
                object.metadata.annotations = None;
                object.metadata.finalizers = None;
                let replaced = patiently(|| async { api.replace(name, &PostParams::default(), &object).await });
                match replaced.await {
                    Err(error) if code(&error) == Some(409) => {}
                    outcome => break outcome.map(|_| ())?,
                }
            }
        }
        Step::WipeStatus => loop {
            let mut object = patiently(|| api.get(name)).await?;
            object.data["status"] = json!({});
            match patiently(|| async { api.replace_status(name, &PostParams::default(), &object).await }).await {
                Err(error) if code(&error) == Some(409) => {}
                outcome => break outcome.map(|_| ())?,
            }
        },
    }
    Ok(uid)
}

/// Waits for something that the record will tell: asking the API server would keep it from its work.
async fn until(record: &Record, uid: &str, complaint: &str, is_so: impl Fn(&Seen) -> bool) -> Result<()> {
    let deadline = Instant::now() + PASSES_WITHIN;
    while !is_so(&record.get(uid)) {
        if Instant::now() > deadline {
            return Err(format!("{complaint} after {PASSES_WITHIN:?}").into());
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Deletes all and waits until they are gone; the names of those that stay.
pub async fn delete_all(api: &Api<DynamicObject>, limit: Duration) -> Result<Vec<String>> {
    let (one, all) = (DeleteParams::default(), kube::api::ListParams::default());
    patiently(|| api.delete_collection(&one, &all)).await?;
    let deadline = Instant::now() + limit;
    loop {
        let left = patiently(|| api.list_metadata(&all)).await?.items;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left.iter().map(ResourceExt::name_any).collect());
        }
        sleep(POLL).await;
    }
}

/// Makes a call again as long as the API server is not there to answer it.
pub async fn patiently<T, F>(mut call: impl FnMut() -> F) -> kube::Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = match timeout(Duration::from_secs(15), call()).await {
            Ok(outcome) => outcome,
            Err(_) if Instant::now() < deadline => continue,
            Err(_) => call().await,
        };
        match outcome {
            Err(error) if Instant::now() < deadline && may_pass(&error) => sleep(POLL).await,
            outcome => return outcome,
        }
    }
}

/// Whether it is the API server that is not there or not ready, rather than an answer.
fn may_pass(error: &kube::Error) -> bool {
    code(error).is_none_or(|code| code == 429 || code >= 500)
}

/// The HTTP status that the API server answered with.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
