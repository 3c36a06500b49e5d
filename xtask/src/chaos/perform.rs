//! Performs the planned steps on the resources, as a patient user would: a request that fails because the API server is
//! away is repeated.

use std::time::Duration;

use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Request};
use kube::core::ObjectList;
use kube::{Api, ResourceExt};
use mistral_workflows_operator::api::Workflow;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::environment::{Executions, NAMESPACES};
use super::poison::{CLAIM, LATER, nested};
use super::record::{Record, Seen};
use super::refusals::REFUSE;
use super::told::Told;
use super::values;
use super::workload::{OLDER, Planned, Step};
use crate::demo::Result;

/// How long the API server may be away.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a deletion may take (five minutes whatever is wrong), or a start may wait for a permit. On a busy machine,
/// some of thousands of starts wait for minutes, and again after a request that the API left unanswered.
const PASSES_WITHIN: Duration = Duration::from_secs(900);
/// How often to check a condition.
const POLL: Duration = Duration::from_millis(300);

/// Performs all steps on one resource.
pub async fn perform(executions: Executions, record: Record, planned: Planned, began: Instant) -> Result<()> {
    let api = executions.of(planned.namespace);
    sleep_until(began + planned.at).await;
    let mut uid = create(&api, &record, &planned).await?;
    for (wait, step) in &planned.steps {
        sleep(*wait).await;
        uid = act(&api, &record, &planned, uid, *step)
            .await
            .map_err(|error| format!("{step:?} of {} was not possible: {error}", planned.name))?;
    }
    Ok(())
}

/// Creates a resource once and returns its UID.
pub async fn create(api: &Api<Told>, record: &Record, planned: &Planned) -> Result<String> {
    let Planned { name, labels, annotations, spec, input, .. } = planned;
    let mut object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": name, "labels": labels, "annotations": annotations }, "spec": spec,
    });
    let mut text = object.to_string();
    if let Some(input) = input {
        // No type here can hold such an input.
        let place = uuid::Uuid::new_v4().to_string();
        object["spec"]["input"] = json!(place);
        text = object.to_string().replace(&format!("\"{place}\""), &input.text());
    }
    let client = api.clone().into_client();
    let made = patiently(|| async {
        let request = Request::new(api.resource_url());
        let request =
            request.create(&PostParams::default(), text.clone().into_bytes()).map_err(kube::Error::BuildRequest)?;
        match client.request::<Told>(request).await {
            // The answer to the first attempt got lost.
            Err(error) if code(&error) == Some(409) => api.get(name).await,
            made => made,
        }
    });
    let made = made.await?;
    record.note(&made);
    Ok(made.uid().unwrap_or_default())
}

/// Requests the deletion of a resource.
pub async fn delete(api: &Api<Told>, record: &Record, name: &str) -> Result<()> {
    record.unwanted(name);
    let client = api.clone().into_client();
    // kube would decode the answer, which may be too deep.
    let deleted = patiently(|| async {
        let request = Request::new(api.resource_url());
        let request = request.delete(name, &DeleteParams::default()).map_err(kube::Error::BuildRequest)?;
        match client.request_text(request).await {
            // An earlier attempt, whose answer got lost, has deleted it.
            Err(error) if code(&error) == Some(404) => Ok(String::new()),
            outcome => outcome,
        }
    });
    if let Ok(object) = serde_json::from_str::<Told>(&deleted.await?) {
        record.note(&object);
    }
    Ok(())
}

async fn merge(api: &Api<Told>, name: &str, patch: &Value) -> Result<()> {
    patiently(|| async { api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await }).await?;
    Ok(())
}

/// Ends all refusals of the operator's writes to this resource.
async fn allow(api: &Api<Told>, name: &str) -> Result<()> {
    let patch = Patch::Merge(json!({ "metadata": { "labels": { REFUSE: null } } }));
    let allowed = patiently(|| async {
        match api.patch(name, &PatchParams::default(), &patch).await {
            // An earlier attempt, whose answer got lost, has let a deletion come to its end.
            Err(error) if code(&error) == Some(404) => Ok(None),
            outcome => outcome.map(Some),
        }
    });
    allowed.await?;
    Ok(())
}

/// Performs a step on the resource of this UID. Returns the UID of the resource that exists afterwards.
async fn act(api: &Api<Told>, record: &Record, planned: &Planned, uid: String, step: Step) -> Result<String> {
    let name = &planned.name;
    match step {
        Step::Suspend(suspend) => merge(api, name, &json!({ "spec": { "suspend": suspend } })).await?,
        Step::Delete => delete(api, record, name).await?,
        Step::Shutdown(how) => {
            record.asked(&uid, how);
            merge(api, name, &json!({ "spec": { "shutdown": how } })).await?;
        }
        Step::Provide => values::provide(api.clone().into_client(), name).await?,
        Step::Refuse(what) => merge(api, name, &json!({ "metadata": { "labels": { REFUSE: what } } })).await?,
        Step::RefuseRelease => {
            until(record, &uid, "it has not started", |seen| seen.started).await?;
            merge(api, name, &json!({ "metadata": { "labels": { REFUSE: "finalizer" } } })).await?;
        }
        Step::Allow => allow(api, name).await?,
        Step::Spoil => {
            until(record, &uid, "it has not started", |seen| seen.started).await?;
            merge(api, name, &json!({ "spec": { "deletionPolicy": LATER } })).await?;
        }
        Step::OddWorkflow => odd_workflow(api.clone().into_client(), planned).await?,
        Step::CreateAgain => {
            until(record, &uid, "it is still there", |seen| seen.gone).await?;
            return create(api, record, planned).await;
        }
        Step::Replace => {
            until(record, &uid, "it has no execution id", |seen| seen.status["executionId"].is_string()).await?;
            replace(api, name).await?;
        }
        Step::Reapply(which) => {
            until(record, &uid, "it has no execution id", |seen| seen.status["executionId"].is_string()).await?;
            reapply(api, name, which).await?;
        }
        Step::WipeStatus => wipe_status(api, name).await?,
    }
    Ok(uid)
}

/// Replaces the resource by one without annotations and finalizers.
async fn replace(api: &Api<Told>, name: &str) -> Result<()> {
    loop {
        let mut object = patiently(|| api.get(name)).await?;
        object.metadata.annotations = None;
        object.metadata.finalizers = None;
        match patiently(|| async { api.replace(name, &PostParams::default(), &object).await }).await {
            Err(error) if code(&error) == Some(409) => {}
            outcome => return Ok(outcome.map(|_| ())?),
        }
    }
}

/// Applies an exported claim again, an older one or another resource's.
async fn reapply(api: &Api<Told>, name: &str, which: &str) -> Result<()> {
    let object = patiently(|| api.get(name)).await?;
    let claim = object.metadata.annotations.iter().flatten().find(|(name, _)| *name == CLAIM);
    let Some((_, claim)) = claim else { return Ok(()) };
    let mut claim: Value = serde_json::from_str(claim)?;
    claim["refused"] = json!(true);
    if which == OLDER {
        claim["revision"] = json!(0);
    } else {
        claim["owner"]["name"] = json!("other");
    }
    merge(api, name, &json!({ "metadata": { "annotations": { CLAIM: claim.to_string() } } })).await
}

/// Empties the status.
async fn wipe_status(api: &Api<Told>, name: &str) -> Result<()> {
    loop {
        let mut object = patiently(|| api.get(name)).await?;
        object.data["status"] = json!({});
        match patiently(|| async { api.replace_status(name, &PostParams::default(), &object).await }).await {
            Err(error) if code(&error) == Some(409) => {}
            outcome => return Ok(outcome.map(|_| ())?),
        }
    }
}

/// Waits until the record meets a condition. Polling the API server would keep it from its work.
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

/// Creates a Workflow of the execution's name that the operator cannot decode.
async fn odd_workflow(client: kube::Client, planned: &Planned) -> Result<()> {
    let kind = ApiResource::erase::<Workflow>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, planned.namespace, &kind);
    let workflow: DynamicObject = serde_json::from_value(json!({
        "apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": { "name": planned.name, "annotations": { "chaos/deep": nested(10_000, "1") } },
        "spec": { "identifier": "complete-0", "deletionPolicy": LATER },
    }))?;
    match patiently(|| async { api.create(&PostParams::default(), &workflow).await }).await {
        // The answer to the first attempt got lost.
        Err(error) if code(&error) == Some(409) => Ok(()),
        outcome => Ok(outcome.map(|_| ())?),
    }
}

/// Deletes all executions and waits until they are gone. Returns the names of those that remain.
pub async fn delete_all(executions: &Executions, limit: Duration) -> Result<Vec<String>> {
    let (one, all) = (DeleteParams::default(), ListParams::default());
    for namespace in NAMESPACES {
        let api = executions.of(namespace);
        let client = api.clone().into_client();
        // kube would decode the answer, which may be too deep.
        patiently(|| async {
            let request = Request::new(api.resource_url());
            let request = request.delete_collection(&one, &all).map_err(kube::Error::BuildRequest)?;
            client.request_text(request).await
        })
        .await?;
    }
    // Only after the deletion: otherwise an execution whose claim was refused could start.
    let refused = ListParams::default().labels(REFUSE);
    for object in patiently(|| async { executions.all().list(&refused).await }).await?.items {
        let api = executions.of(&object.namespace().unwrap_or_default());
        match allow(&api, &object.name_any()).await {
            // The execution is already gone.
            Err(error) if error.downcast_ref().and_then(code) == Some(404) => {}
            outcome => outcome?,
        }
    }
    let deadline = Instant::now() + limit;
    loop {
        let left = patiently(|| async {
            let api = executions.all();
            let request = Request::new(api.resource_url()).list_metadata(&all).map_err(kube::Error::BuildRequest)?;
            api.into_client().request::<ObjectList<Told>>(request).await
        });
        let left = left.await?.items;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left.iter().map(ResourceExt::name_any).collect());
        }
        sleep(POLL).await;
    }
}

/// Repeats a call while the API server is unavailable.
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

/// Whether the error means that the API server is away or not ready.
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
