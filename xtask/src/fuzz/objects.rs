//! Readers of what the API server sends: objects in watches and lists, metadata, claims, the Lease, refusals.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::{ObjectList, ObjectMeta, Status, WatchEvent};
use mistral_workflows_operator::api::{Workflow, WorkflowExecution, Workspace};
use mistral_workflows_operator::execution::cache::trim_for_cache;
use mistral_workflows_operator::execution::claim::{CLAIM, Claim, ClaimAnnotation, ClaimBackup, FINALIZER, digest};
use mistral_workflows_operator::execution::finished::mark::{FINISHED, Mark, is_held};
use mistral_workflows_operator::execution::{metrics, undecodable};
use mistral_workflows_operator::json;
use mistral_workflows_operator::platform::apiserver::{Error, describe, finalizers, status_patch};
use mistral_workflows_operator::platform::decoded::{Decoded, Metadata, MetadataList};
use mistral_workflows_operator::platform::leader::elector;
use mistral_workflows_operator::platform::leader::plan::Candidate;
use mistral_workflows_operator::platform::refused::Refused;
use mistral_workflows_operator::platform::watch;
use mistral_workflows_operator::workspace::connections::Connections;
use mistral_workflows_operator::workspace::{credentials, status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc::unbounded_channel;
use url::Url;

use super::{Target, from_texts};

pub const TARGETS: &[Target] = &[
    Target { name: "object-execution", seeds: || from_texts(EXECUTIONS), check: executions },
    Target { name: "object-workflow", seeds: || from_texts(WORKFLOWS), check: workflows },
    Target { name: "object-workspace", seeds: || from_texts(WORKSPACES), check: workspaces },
    Target {
        name: "metadata",
        seeds: || {
            let mut seeds = from_texts(EXECUTIONS);
            seeds.push(
                format!(
                    r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{{"resourceVersion":"9","continue":"c"}},"items":[{},{}]}}"#,
                    EXECUTIONS[0], WORKSPACES[0]
                )
                .into_bytes(),
            );
            seeds.push(br#"{"metadata":{},"items":null}"#.to_vec());
            seeds
        },
        check: metadata,
    },
    Target {
        name: "claim",
        seeds: || {
            from_texts(&[
                r#"{"version":1,"executionId":"run-u-1","attempt":1,"claimant":"operator-0-4f","sendBefore":"2026-11-30T08:30:00.123456789Z","origin":"https://api.mistral.ai","workspaceId":"ws","owner":{"cluster":"c","namespace":"team","name":"run"},"digest":"00ff"}"#,
                r#"{"version":1,"executionId":"run","attempt":4294967295,"claimant":"","sendBefore":"9999-12-30T22:00:00.999999999Z","origin":"","owner":{"cluster":"","namespace":"","name":""},"digest":"","inputs":[{"kind":"Secret","name":"s","uid":"u","resourceVersion":"7"},{"kind":"ConfigMap","name":"c","uid":"v","resourceVersion":"8"}],"refused":true,"reading":true,"stopSince":"-009999-01-02T01:59:59Z","stopFor":"Deadline"}"#,
                r#"{"version":2,"executionId":"run","new":[[]]}"#,
            ])
        },
        check: claim,
    },
    Target { name: "mark", seeds: || from_texts(MARKED), check: mark },
    Target {
        name: "lease",
        seeds: || {
            from_texts(&[
                r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l","namespace":"n","resourceVersion":"7","managedFields":[{"manager":"m","operation":"Update","apiVersion":"coordination.k8s.io/v1","time":"2026-11-30T08:30:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}}}]},"spec":{"holderIdentity":"operator-0-4f","leaseDurationSeconds":10,"acquireTime":"2026-11-30T08:30:00.000000Z","renewTime":"2026-11-30T08:30:00.000000Z","leaseTransitions":3}}"#,
                r#"{"metadata":{"resourceVersion":"8","managedFields":[{"time":"9999-12-30T22:00:00Z"}]},"spec":{"leaseDurationSeconds":-1,"leaseTransitions":2147483647}}"#,
            ])
        },
        check: lease,
    },
    Target {
        name: "api-server-refusal",
        seeds: || {
            from_texts(&[
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"WorkflowExecution.workflows.mistral.ai \"run\" is invalid: metadata.annotations: Too long: must have at most 262144 bytes","reason":"Invalid","details":{"name":"run","kind":"WorkflowExecution","causes":[{"reason":"FieldValueTooLong","message":"m","field":"metadata.annotations"}]},"code":422}"#,
                r#"{"status":"Failure","message":"etcdserver: request is too large","code":500}"#,
                r#"{"message":"é\nis forbidden","reason":"Forbidden","code":403,"details":{"retryAfterSeconds":4294967295}}"#,
                r#"{"message":"too old resource version","reason":"Expired","code":410}"#,
            ])
        },
        check: api_server_refusal,
    },
];

pub const EXECUTIONS: &[&str] = &[
    r#"{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"WorkflowExecution","metadata":{"name":"run","namespace":"team","uid":"u-1","resourceVersion":"7","generation":1,"creationTimestamp":"2026-11-30T08:00:00Z","finalizers":["workflows.mistral.ai/stop-run"],"labels":{"a":"b"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","workflows.mistral.ai/take-over":"run-u-1","workflows.mistral.ai/claim":"{\"version\":1,\"executionId\":\"run-u-1\",\"attempt\":1,\"claimant\":\"operator\",\"sendBefore\":\"2026-11-30T08:00:15Z\",\"origin\":\"https://api.mistral.ai\",\"workspaceId\":\"ws\",\"owner\":{\"cluster\":\"cluster\",\"namespace\":\"team\",\"name\":\"run\"},\"digest\":\"00\"}"},"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"q","controller":true}],"managedFields":[{"manager":"argocd-controller","operation":"Update","apiVersion":"workflows.mistral.ai/v1alpha1","time":"2026-11-30T08:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:input":{"f:a":{}}}},"subresource":"status"}]},"spec":{"workspaceRef":{"name":"default"},"workflowIdentifier":"echo","input":{"a":[1,1E2,"x"]},"inputFrom":[{"secretKeyRef":{"name":"s","key":"k"},"path":"/b/c","as":"Json"}],"customTracingAttributes":{"order":"4711"},"extensions":{"c":null},"suspend":false,"terminationGracePeriodSeconds":30,"deletionPolicy":"Cancel","result":{"maxBytes":32768}},"status":{"conditions":[{"type":"Ready","status":"False","reason":"Running","message":"It runs.","lastTransitionTime":"2026-11-30T08:00:01Z","observedGeneration":1},{"type":"Started","status":"True","reason":"Started","message":"m","lastTransitionTime":"2026-11-30T08:00:01Z"}],"executionId":"run-u-1","status":"RUNNING","startTime":"2026-11-30T08:00:01Z","observedGeneration":1}}"#,
    r#"{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"WorkflowExecution","metadata":{"name":"done","namespace":"team","uid":"u-2","resourceVersion":"8","generation":1,"creationTimestamp":"2026-11-30T07:00:00Z","deletionTimestamp":"2026-11-30T08:00:00Z","finalizers":["workflows.mistral.ai/stop-run"]},"spec":{"workflowRef":{"name":"echo"},"executionId":"mine","startingDeadlineSeconds":60,"activeDeadlineSeconds":60,"shutdown":"Terminate","ttlSecondsAfterFinished":60,"terminationGracePeriodSeconds":86400,"deletionPolicy":"Terminate","result":{"maxBytes":0,"to":{"secret":{"name":"r"}}}},"status":{"conditions":[{"type":"Complete","status":"True","reason":"Completed","message":"It did.","lastTransitionTime":"2026-11-30T07:00:05Z","observedGeneration":1}],"result":{"b":2},"resultBytes":7,"endTime":"2026-11-30T07:00:05Z","durationMs":5000}}"#,
    r#"{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"WorkflowExecution","metadata":{"name":"new","namespace":"team","uid":"u-3","resourceVersion":"9","generation":1,"creationTimestamp":"2026-11-30T08:29:59Z"},"spec":{"registrationId":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a","deploymentName":"blue"}}"#,
];

pub const WORKFLOWS: &[&str] = &[
    r#"{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"Workflow","metadata":{"name":"invoices","namespace":"team","uid":"w-1","resourceVersion":"7","generation":2,"creationTimestamp":"2026-11-30T08:00:00Z","finalizers":["workflows.mistral.ai/archive"]},"spec":{"workspaceRef":{"name":"default"},"identifier":"invoices","managementPolicy":"Manage","displayName":"Send invoices","description":"","tags":["finance"," b ","b"],"availableInChatAssistant":false,"archived":false,"deletionPolicy":"Archive"},"status":{"conditions":[{"type":"Ready","status":"True","reason":"InSync","message":"m","lastTransitionTime":"2026-11-30T08:00:01Z","observedGeneration":1},{"type":"Contested","status":"True","reason":"Contested","message":"m","lastTransitionTime":"2026-11-30T08:00:01Z"}],"workflowId":"0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a","name":"invoices","registrations":[{"id":"r","deployment":"blue","active":true}],"definition":{"registrationId":"r","inputSchema":{"type":"object","maximum":1.0},"signals":["stop"]},"contestedFields":["tags"],"observedGeneration":1}}"#,
    r#"{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"Workflow","metadata":{"name":"runs","namespace":"team","uid":"w-2","resourceVersion":"8","deletionTimestamp":"2026-11-30T08:00:00Z"},"spec":{"managementPolicy":"Observe","suspend":true}}"#,
];

const WORKSPACES: &[&str] = &[
    r#"{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"Workspace","metadata":{"name":"default","namespace":"team","uid":"s-1","resourceVersion":"7","generation":1},"spec":{"baseURL":"https://api.mistral.ai","auth":{"apiKeySecretRef":{"name":"mistral","key":"api-key"}},"resyncInterval":"1h30m0.5s","requestsPerSecond":20,"discovery":"Observe"},"status":{"conditions":[{"type":"Ready","status":"True","reason":"Connected","message":"m","lastTransitionTime":"2026-11-30T08:00:01Z"}],"workspaceId":"ws","customerId":"c","workflowCount":3}}"#,
    r#"{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"Workspace","metadata":{"name":"ipv6","namespace":"team","uid":"s-2","resourceVersion":"8"},"spec":{"baseURL":"http://[::1]:8080/","auth":{"apiKeySecretRef":{"name":"m","key":"k"}}}}"#,
];

/// Finished executions with the label that keeps them out of the watch.
const MARKED: &[&str] = &[
    r#"{"metadata":{"name":"run","namespace":"team","uid":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b","generation":2,"labels":{"workflows.mistral.ai/finished":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b.2"},"annotations":{"workflows.mistral.ai/claim":"{\"version\":1,\"executionId\":\"run\",\"attempt\":1,\"claimant\":\"operator\",\"sendBefore\":\"2026-11-30T08:00:15Z\",\"origin\":\"https://api.mistral.ai\",\"owner\":{\"cluster\":\"c\",\"namespace\":\"team\",\"name\":\"run\"},\"digest\":\"00\"}"}}}"#,
    r#"{"metadata":{"uid":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b","generation":1,"labels":{"workflows.mistral.ai/finished":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b.1.1796027400"}}}"#,
    r#"{"metadata":{"uid":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b","generation":9223372036854775807,"labels":{"workflows.mistral.ai/finished":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b.9223372036854775807.tracked","kustomize.toolkit.fluxcd.io/name":"team"}}}"#,
    r#"{"metadata":{"uid":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b","generation":1,"finalizers":["workflows.mistral.ai/stop-run"],"labels":{"workflows.mistral.ai/finished":"7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b.1"}}}"#,
];

/// The metadata that any other reader would find in a text. `None` if no API server could have sent the text.
fn sane_metadata(text: &str) -> Option<ObjectMeta> {
    serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(text).ok()?;
    if !has_unique_names(text, false) {
        return None;
    }
    let (_, metadata) = json::fields(text)?.into_iter().find(|(name, _)| name == "metadata")?;
    let sane = serde_json::from_str(metadata.get()).ok()?;
    has_unique_names(metadata.get(), true).then_some(sane)
}

/// Whether no object has two fields of one name. With `inside`, this includes nested objects, whose depth must be
/// small.
fn has_unique_names(text: &str, inside: bool) -> bool {
    if let Some(fields) = json::fields(text) {
        let names: HashSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        return names.len() == fields.len()
            && (!inside || fields.iter().all(|(_, field)| has_unique_names(field.get(), true)));
    }
    let items = serde_json::from_str::<Vec<&RawValue>>(text).unwrap_or_default();
    !inside || items.iter().all(|item| has_unique_names(item.get(), true))
}

/// Reads a text as an object, in a watch, and in a list between two good objects. Returns the object if it can be
/// decoded.
fn object<K>(bytes: &[u8], good: &str) -> Option<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let text = String::from_utf8_lossy(bytes);
    let decoded = Decoded::<K>::from_text(&text);
    if let Some(sane) = sane_metadata(&text) {
        let meta = decoded.meta();
        assert_eq!(
            (&meta.name, &meta.namespace, &meta.uid, &meta.resource_version),
            (&sane.name, &sane.namespace, &sane.uid, &sane.resource_version),
            "who it is"
        );
        assert_eq!((&meta.finalizers, &meta.annotations), (&sane.finalizers, &sane.annotations), "how it is let go");
        assert_eq!(meta.deletion_timestamp, sane.deletion_timestamp, "whether it is deleted");
    }
    if let Err(undecodable) = &decoded.0 {
        assert!(undecodable.error.len() <= 256, "an error of {} bytes", undecodable.error.len());
    }
    if json::Json::from_text(text.clone().into_owned()).is_some() {
        let line = format!(r#"{{"type":"MODIFIED","object":{text}}}"#);
        let event: WatchEvent<Decoded<K>> = serde_json::from_str(&line).expect("a line of a watch is read");
        let WatchEvent::Modified(same) = event else { panic!("another event") };
        assert_eq!((same.meta(), same.0.is_ok()), (decoded.meta(), decoded.0.is_ok()), "an object in a watch");
        let list = format!(
            r#"{{"apiVersion":"v1","kind":"List","metadata":{{"resourceVersion":"9"}},"items":[{good},{text},{good}]}}"#
        );
        let list: ObjectList<Decoded<K>> = serde_json::from_str(&list).expect("a page is read");
        let [before, same, after] = &list.items[..] else { panic!("{} objects of three", list.items.len()) };
        assert!(before.0.is_ok() && after.0.is_ok(), "an object suffers from another one");
        assert_eq!((same.meta(), same.0.is_ok()), (decoded.meta(), decoded.0.is_ok()), "an object in a list");
    }
    decoded.0.ok()
}

/// The operator must be able to read what it writes.
fn can_be_written<K: Resource + Serialize + DeserializeOwned>(object: &K) {
    let again = serde_json::to_string(object).expect("an object is written");
    assert!(Decoded::<K>::from_text(&again).0.is_ok(), "an object is not read that was written");
}

fn executions(bytes: &[u8]) -> bool {
    let execution = object::<WorkflowExecution>(bytes, EXECUTIONS[0]);
    let mut guarded = Decoded::<WorkflowExecution>::from_text(&String::from_utf8_lossy(bytes));
    metrics::labels(&guarded);
    let before = guarded.clone();
    trim_for_cache(&mut guarded);
    assert_eq!(
        (&before.meta().name, &before.meta().uid, &before.meta().resource_version, &before.meta().finalizers),
        (&guarded.meta().name, &guarded.meta().uid, &guarded.meta().resource_version, &guarded.meta().finalizers),
        "what makes room leaves out who it is"
    );
    assert_eq!(metrics::labels(&before), metrics::labels(&guarded), "how it stands");
    if let Err(undecodable) = &guarded.0 {
        let connections = Connections::new(Vec::new(), unbounded_channel().0);
        let deleted = undecodable::being_deleted(&undecodable.metadata, &connections);
        let is_held = undecodable.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
        assert_eq!(deleted.is_some(), undecodable.metadata.deletion_timestamp.is_some() && is_held);
        finalizers(&undecodable.metadata, FINALIZER, false);
    }
    let Some(execution) = execution else { return false };
    can_be_written(&execution);
    if let Ok(lean) = &guarded.0
        && lean.spec.left_out.is_some()
        && lean.status.as_ref().is_none_or(|status| status.end_time.is_none())
    {
        assert_eq!(digest(&lean.spec), digest(&execution.spec), "the fingerprint of what is left out");
    }
    if let Some(status) = &execution.status {
        assert!(status_patch(Some(status), status).expect("a status is compared").is_empty(), "nothing has changed");
        status_patch(None, status).expect("a status is written");
    }
    true
}

fn workflows(bytes: &[u8]) -> bool {
    let workflow = object::<Workflow>(bytes, WORKFLOWS[0]);
    if let Some(workflow) = &workflow {
        can_be_written(workflow);
    }
    if let Some(status) = workflow.as_ref().and_then(|it| it.status.as_ref()) {
        assert!(status_patch(Some(status), status).expect("a status is compared").is_empty(), "nothing has changed");
    }
    let mut guarded = Decoded::<Workflow>::from_text(&String::from_utf8_lossy(bytes));
    watch::trim_for_cache(&mut guarded, |_| None, |_| false);
    workflow.is_some()
}

fn workspaces(bytes: &[u8]) -> bool {
    let Some(workspace) = object::<Workspace>(bytes, WORKSPACES[0]) else { return false };
    status::state(workspace.status.as_ref());
    let allowed = [Url::parse("https://api.mistral.ai").expect("an address")];
    if let Ok(address) = credentials::address(&workspace.spec, &allowed) {
        assert_eq!(address.origin(), allowed[0].origin(), "an address that is not on the list");
    }
    if let Ok(address) = credentials::parse_address(&workspace.spec.base_url) {
        assert!(matches!(address.scheme(), "http" | "https") && address.host_str().is_some());
        assert!(address.username().is_empty() && address.password().is_none() && address.path() == "/");
    }
    let resync = workspace.spec.resync();
    assert!((Duration::from_secs(5)..=Duration::from_secs(86_400)).contains(&resync), "it resyncs every {resync:?}");
    true
}

fn metadata(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let read = serde_json::from_str::<Metadata>(&text);
    if let Some(sane) = sane_metadata(&text) {
        let lean = read.as_ref().expect("sane metadata is read").metadata.clone();
        let whole = ObjectMeta { managed_fields: lean.managed_fields.clone(), ..sane.clone() };
        let lean = ObjectMeta {
            self_link: sane.self_link,
            deletion_grace_period_seconds: sane.deletion_grace_period_seconds,
            ..lean
        };
        assert_eq!(lean, whole, "the metadata");
    }
    let list = serde_json::from_str::<MetadataList>(&text);
    read.is_ok() || list.is_ok()
}

fn claim(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let note = |text: String| ClaimAnnotation::read(Some(&BTreeMap::from([(CLAIM.to_owned(), text)])));
    let claim = match note(text) {
        ClaimAnnotation::Claim(claim) => claim,
        ClaimAnnotation::Unreadable => return false,
        ClaimAnnotation::Absent => panic!("a claim that is there counts as absent"),
    };
    assert_eq!(
        note(claim.to_annotation()),
        ClaimAnnotation::Claim(claim.clone()),
        "a claim that was written and read again"
    );
    let id = &claim.execution_id;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    assert!((1..=256).contains(&id.len()) && id.bytes().all(allowed), "the id {id:.300}");
    assert!(claim.refused || claim.outcome_known_by() >= claim.send_before, "a doubt that ends before it begins");
    assert!(!claim.refused || claim.outcome_known_by() == Timestamp::MIN, "a refusal ages into a doubt");
    let (origin, workspace) = (claim.origin.as_str(), claim.workspace_id.as_deref());
    assert!(claim.is_for(origin, workspace, false) && !claim.is_for("https://other", workspace, true));
    // The fields that a process remembers of a claim must make the same claim again.
    let ClaimBackup {
        execution_id,
        attempt,
        revision,
        since,
        send_before,
        first: _,
        own: _,
        digest,
        inputs,
        read_only,
        ..
    } = ClaimBackup::of(&claim, "derived");
    let execution_id = execution_id.unwrap_or_else(|| "derived".to_owned());
    let same = *claim.clone();
    assert_eq!(
        *claim,
        Claim { execution_id, attempt, revision, since, send_before, digest, inputs, read_only, ..same }
    );
    true
}

fn mark(bytes: &[u8]) -> bool {
    let Ok(Metadata { mut metadata }) = serde_json::from_slice(bytes) else { return false };
    let now: Timestamp = "2026-11-30T08:30:00Z".parse().expect("a time");
    let Some(mark) = Mark::of(&metadata, now) else { return false };
    assert!(!is_held(&metadata), "what still has the finalizer is left out");
    assert_eq!(metadata.uid.as_deref().map(str::parse), Some(Ok(mark.uid)), "a copy is left out");
    assert_eq!(metadata.generation, Some(mark.generation), "an edited one is left out");
    if let ClaimAnnotation::Claim(claim) = ClaimAnnotation::read(metadata.annotations.as_ref()) {
        assert!(claim.outcome_known_by() <= now, "a call in flight is left out");
    }
    mark.due(&metadata);
    let label = mark.to_label();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    // A label of another spelling may be longer. What the operator writes is short enough.
    assert!(label.bytes().all(allowed), "the label {label}");
    metadata.labels.get_or_insert_default().insert(FINISHED.to_owned(), label);
    assert_eq!(Mark::of(&metadata, now), Some(mark), "a mark that was written and read again");
    true
}

fn lease(bytes: &[u8]) -> bool {
    let Ok(lease) = serde_json::from_slice::<Lease>(bytes) else { return false };
    let begun = elector::begun(&lease);
    let times = lease.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    assert!(times.map(|time| time.0).all(|time| time <= begun), "a term begins before the Lease was written");
    let record = elector::record(Some(&lease));
    let (name, now) = ("me".to_owned(), Instant::now());
    let mut candidate = Candidate::new(name, now);
    for seconds in [0, 5, 9, 61] {
        candidate.looked(record.clone(), now + Duration::from_secs(seconds));
        candidate.next(now + Duration::from_secs(seconds));
    }
    true
}

fn api_server_refusal(bytes: &[u8]) -> bool {
    let Ok(status) = serde_json::from_slice::<Status>(bytes) else { return false };
    let error = kube::Error::Api(Box::new(status));
    assert!(describe(&error).len() <= 1024, "an error of the API server is too long");
    let error = Error::Kube(Box::new(error));
    if let Some(refused) = Refused::of(&error) {
        assert!(refused.said.len() <= 400 && !refused.said.contains(char::is_control), "{}", refused.said);
    }
    let (_, _) = (error.is_conflict(), error.is_expired());
    true
}
