//! What the operator reports besides the status: metrics, Events, and a log that shows the course of each resource.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use mistral_workflows_operator::platform::events::{self, Notice};
use mistral_workflows_operator::platform::metrics::Metrics;
use serde_json::{Value, json};

use crate::support::*;

async fn metrics(process: &Process) -> String {
    until(SOON, "the metrics", async || process.ask("/metrics").await.filter(|(status, _)| *status == 200)).await.1
}

/// The value of a series, whose labels must be in the order of the exposition.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("mistral_workflows_{series} ")))?;
    Some(line.parse().unwrap())
}

async fn set_secret_name(world: &World, name: &str) {
    let patch = json!({ "spec": { "auth": { "apiKeySecretRef": { "name": name } } } });
    world.workspaces().patch("default", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Eighteen executions that complete, and four others: one each that fails, is refused, waits and runs.
async fn executions_of_each_kind(world: &World) {
    let strict = json!({ "type": "object", "required": ["name"] });
    world.api.register(json!({ "name": "strict", "input_schema": strict })).await;
    let names: Vec<String> = (0..18).map(|n| format!("specimen-{n}")).collect();
    for name in &names {
        world.execute(name, json!({ "workflowIdentifier": "echo" })).await;
    }
    world.execute("specimen-fails", json!({ "workflowIdentifier": "fail" })).await;
    world.execute("specimen-refused", json!({ "workflowIdentifier": "strict", "input": {} })).await;
    world.execute("specimen-waits", json!({ "workflowIdentifier": "unheard-of" })).await;
    world.execute("specimen-runs", json!({ "workflowIdentifier": "hang" })).await;
    for name in &names {
        world.wait_for_reason(name, "Completed").await;
    }
    world.wait_for_reason("specimen-fails", "WorkflowFailed").await;
    world.wait_for_reason("specimen-refused", "InputRejected").await;
    world.wait_for_reason("specimen-waits", "TargetNotFound").await;
    world.wait_for_reason("specimen-runs", "Running").await;
}

#[tokio::test]
async fn the_metrics_tell_what_happened_and_name_nothing() {
    let world = World::new("metrics").await;
    let process = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    executions_of_each_kind(&world).await;

    // The operator writes the status a moment before the metrics count it, and the status returns by the watch.
    let text = until(SOON, "all to be counted", async || {
        let text = metrics(&process).await;
        let all = value(&text, r#"executions{status="RUNNING",reason="Running"}"#) == Some(1.0)
            && value(&text, r#"executions{status="COMPLETED",reason="Completed"}"#) == Some(18.0)
            && value(&text, r#"executions{status="NotStarted",reason="TargetNotFound"}"#) == Some(1.0);
        all.then_some(text)
    })
    .await;
    for (series, expected) in [
        (r#"executions{status="FAILED",reason="WorkflowFailed"}"#, 1.0),
        (r#"executions{status="NotStarted",reason="InputRejected"}"#, 1.0),
        (r#"executions_finished_total{outcome="Completed"}"#, 18.0),
        (r#"executions_finished_total{outcome="WorkflowFailed"}"#, 1.0),
        (r#"executions_finished_total{outcome="InputRejected"}"#, 1.0),
        (r#"execution_duration_seconds_count{outcome="Completed"}"#, 18.0),
        (r#"claims_total{outcome="written"}"#, 22.0),
        (r#"claims_total{outcome="started"}"#, 20.0),
        (r#"claims_total{outcome="refused"}"#, 2.0),
        (r#"workspaces{ready="True",reason="Connected"}"#, 1.0),
        (r#"api_calls_waiting{priority="Start"}"#, 0.0),
        (r#"api_calls_waiting{priority="Watch"}"#, 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    }
    // Nothing ran, so there is no duration.
    assert_eq!(value(&text, r#"execution_duration_seconds_count{outcome="InputRejected"}"#), Some(0.0));
    let route = r#"route="/v1/workflows/{workflow_identifier}/execute",method="POST""#;
    for (status, calls) in [("200", 20.0), ("422", 1.0), ("404", 1.0)] {
        let series = format!(r#"api_request_duration_seconds_count{{{route},status="{status}"}}"#);
        assert_eq!(value(&text, &series), Some(calls), "{series} in\n{text}");
    }
    let age = value(&text, r#"last_complete_sweep_age_seconds{kind="runs"}"#).unwrap();
    assert!(age < 60.0, "{age}");
    assert!(value(&text, r#"reconcile_duration_seconds_count{kind="WorkflowExecution",outcome="ok"}"#).unwrap() > 20.0);
    for name in [&world.namespace, "specimen", "strict", "unheard-of", "echo"] {
        assert!(!text.contains(name), "{name} in\n{text}");
    }
}

#[tokio::test]
async fn what_became_of_a_claim_without_an_accepted_start_is_counted_too() {
    let world = World::new("claims").await;
    let process = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    let body = json!({ "execution_id": "nightly-1", "input": {} });
    world.api.call("POST", "/v1/workflows/hang/execute", Some(body)).await;
    world.execute("adopted", json!({ "workflowIdentifier": "hang", "executionId": "nightly-1" })).await;
    world.wait_for_reason("adopted", "Running").await;
    world.execute("taken", json!({ "workflowIdentifier": "echo", "executionId": "nightly-1" })).await;
    world.wait_for_reason("taken", "ExecutionIDTaken").await;
    let lose = json!({ "route": "/v1/workflows/slow/execute", "times": 1, "kind": { "close": "after_effect" } });
    world.api.faults(json!({ "faults": [lose] })).await;
    world.execute("recovered", json!({ "workflowIdentifier": "slow" })).await;
    world.wait_for_reason("recovered", "Completed").await;
    let text = metrics(&process).await;
    for (outcome, count) in
        [("written", 1.0), ("started", 0.0), ("recovered", 1.0), ("adopted", 1.0), ("taken", 1.0), ("refused", 0.0)]
    {
        let series = format!("claims_total{{outcome=\"{outcome}\"}}");
        assert_eq!(value(&text, &series), Some(count), "{series} in\n{text}");
    }
}

#[tokio::test]
async fn while_the_api_is_down_the_age_of_the_last_sweep_grows_and_without_runs_there_is_none() {
    let world = World::new("age").await;
    let process = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    let series = r#"last_complete_sweep_age_seconds{kind="runs"}"#;
    assert_eq!(value(&metrics(&process).await, series), None);
    for name in ["one", "two", "three"] {
        world.execute(name, json!({ "workflowIdentifier": "hang" })).await;
    }
    for name in ["one", "two", "three"] {
        world.wait_for_reason(name, "Running").await;
    }
    world.api.faults(json!({ "faults": [{ "route": "/v1/*", "kind": { "error": { "status": 503 } } }] })).await;
    until(SOON, "a growing age", async || value(&metrics(&process).await, series).filter(|age| *age > 8.0)).await;
    let unavailable = r#"api_request_duration_seconds_count{route="/v1/workflows/runs",method="GET",status="503"}"#;
    assert!(value(&metrics(&process).await, unavailable) >= Some(1.0));
    world.api.heal().await;
    until(SOON, "a look", async || value(&metrics(&process).await, series).filter(|age| *age < 5.0)).await;
}

#[tokio::test]
async fn what_flaps_is_told_once_and_an_object_with_ever_new_facts_is_cut_short() {
    let world = World::bare("flapping").await;
    world.workspace("default", &world.api.url).await;
    let process = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "echo", "suspend": true })).await;
    let suspend = async |suspend: bool, reason: &str| {
        world.patch("run", json!({ "spec": { "suspend": suspend } })).await.unwrap();
        world.wait_for_reason("run", reason).await;
    };
    // Two facts, reported ten times each.
    for _ in 0..10 {
        suspend(true, "Suspended").await;
        suspend(false, "WorkspaceNotReady").await;
    }
    let stopped_at = async |count: usize| {
        until(SOON, "the Events", async || (world.events("run").await.len() >= count).then_some(())).await;
    };
    stopped_at(2).await;
    let events = world.events("run").await;
    assert_eq!(events.len(), 2, "{events:#?}");
    let text = metrics(&process).await;
    assert!(value(&text, r#"events_dropped_total{reason="repeated"}"#) >= Some(18.0), "{text}");

    // Thirty more facts, each new.
    for n in 0..30 {
        suspend(true, "Suspended").await;
        set_secret_name(&world, &format!("missing-{n}")).await;
        until(SOON, "the Workspace to tell", async || {
            let workspace = world.workspaces().get("default").await.unwrap();
            serde_json::to_string(&workspace.status).unwrap().contains(&format!("missing-{n}\\\"")).then_some(())
        })
        .await;
        suspend(false, "WorkspaceNotReady").await;
    }
    stopped_at(25).await;
    let dropped = until(SOON, "the rest to be dropped", async || {
        value(&metrics(&process).await, r#"events_dropped_total{reason="object"}"#).filter(|dropped| *dropped >= 6.0)
    })
    .await;
    let events = world.events("run").await;
    // The limit allows one more Event every five minutes.
    assert!((25..=26).contains(&events.len()), "{} Events, {dropped} dropped", events.len());
    let log = process.log();
    let told =
        log.lines().filter(|line| line.contains("Secret \"missing-29\"") && line.contains("WorkspaceNotReady")).count();
    assert!(told >= 1, "what is no Event is in the log all the same");
}

#[tokio::test]
async fn one_resource_can_be_followed_through_the_log_by_its_name() {
    let world = World::new("follow").await;
    let ours = |log: &str, name: &str| -> Vec<String> {
        let mark = format!("object={}/{name}}}", world.namespace);
        log.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
    };
    let mut process = world.process_with(&["--log-level", "info"], &[]);
    world.wait_for_workspace("default", "Connected").await;
    let forged = "first line\n2026-11-24T00:00:00Z ERROR forged";
    world.api.register(json!({ "name": "forge", "behaviour": { "outcome": "fail", "error": forged } })).await;
    for (name, workflow) in [("well", "echo"), ("ill", "fail"), ("forged", "forge")] {
        world.execute(name, json!({ "workflowIdentifier": workflow })).await;
    }
    world.wait_for_reason("well", "Completed").await;
    world.wait_for_reason("ill", "WorkflowFailed").await;
    world.wait_for_reason("forged", "WorkflowFailed").await;
    process.child.signal("TERM").unwrap();
    until(SOON, "the end", async || process.child.wait_exit(Duration::ZERO).unwrap()).await;
    let log = process.log();
    let well = ours(&log, "well");
    let [started, completed] = &well[..] else { panic!("{well:#?} of\n{log}") };
    assert!(started.contains("The API has accepted the run.") && completed.contains("The run completed"), "{well:#?}");
    assert!(log.contains("first line") && !log.contains("\n2026-11-24T00:00:00Z ERROR forged"), "{log}");
    let ill = ours(&log, "ill");
    assert!(ill.last().unwrap().contains("no such customer") && ill.last().unwrap().contains("WARN"), "{ill:#?}");
    assert!(ours(&log, "default").iter().any(|line| line.contains("The API accepts the key.")), "{log}");

    let second = world.process_with(&["--log-level", "warn", "--log-format", "json"], &[]);
    world.execute("lost", json!({ "workflowIdentifier": "unheard-of" })).await;
    world.wait_for_reason("lost", "TargetNotFound").await;
    let object = format!("{}/lost", world.namespace);
    until(SOON, "the line", async || {
        let lines: Vec<Value> = second.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter().find(|line| line["span"]["object"] == object && line["fields"]["reason"] == "TargetNotFound")
    })
    .await;
}

#[tokio::test]
async fn events_written_just_before_the_end_are_not_lost() {
    let world = World::new("last-words").await;
    let mut process = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    for n in 0..20 {
        world.execute(&format!("run-{n}"), json!({ "workflowIdentifier": "hang" })).await;
    }
    for n in 0..20 {
        world.wait_for_reason(&format!("run-{n}"), "Running").await;
    }
    process.child.signal("TERM").unwrap();
    until(SOON, "the end", async || process.child.wait_exit(Duration::ZERO).unwrap()).await;
    for n in 0..20 {
        let events = world.events(&format!("run-{n}")).await;
        assert_eq!(events.len(), 1, "{n}: {events:?}");
    }
}

#[tokio::test]
async fn a_secret_is_found_wherever_it_may_have_got_to() {
    let world = World::new("planted").await;
    let _process = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    // No test searches this namespace at its end.
    let (client, namespace) = (&world.client, "default");
    assert_eq!(canary::in_objects(client, &world.namespace).await, [""; 0]);

    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let event = json!({
        "metadata": { "generateName": "planted-", "namespace": namespace }, "eventTime": "2026-11-24T00:00:00.000000Z",
        "action": "Plant", "reason": "Planted", "type": "Normal", "note": format!("the key is {KEY}"),
        "reportingController": "test", "reportingInstance": "test",
        "regarding": { "kind": "Namespace", "name": namespace, "namespace": namespace },
    });
    events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    let found = canary::in_objects(client, namespace).await;
    assert!(found.iter().any(|found| found.contains("an Event") && found.contains("the key is")), "{found:#?}");

    let planted = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": "planted", "annotations": { "example.com/key": KEY } },
        "spec": { "workflowIdentifier": "echo", "suspend": true },
    });
    let executions: Api<mistral_workflows_operator::api::WorkflowExecution> =
        Api::namespaced(client.clone(), namespace);
    executions.create(&PostParams::default(), &serde_json::from_value(planted).unwrap()).await.unwrap();
    // Encoded as in a Secret's data.
    let status = json!({ "status": { "result": serde_json::to_value(k8s_openapi::ByteString(KEY.into())).unwrap() } });
    executions.patch_status("planted", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let found = canary::in_objects(client, namespace).await;
    for place in ["metadata of a WorkflowExecution", "status of a WorkflowExecution"] {
        assert!(found.iter().any(|found| found.contains(place)), "{place}: {found:#?}");
    }

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("operator-x-1.log"), format!("fine\nkey={}\n", &KEY[..9])).unwrap();
    assert_eq!(canary::in_files(folder.path(), "operator-x-").len(), 1);
    assert_eq!(canary::in_files(folder.path(), "operator-y-"), [""; 0]);

    let watched = canary::Watched::default();
    tracing::subscriber::with_default(canary::subscriber(&watched), || {
        tracing::trace!(target: "mistral_workflows_operator::somewhere", "fine");
        assert_eq!(watched.found(), [""; 0]);
        tracing::trace!(target: "mistral_workflows_operator::somewhere", KEY);
    });
    assert_eq!(watched.found().len(), 1);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        write!(stream, "HTTP/1.0 200 OK\r\n\r\nworkflows{{name=\"{KEY}\"}} 1\n").unwrap();
    });
    assert!(canary::in_metrics(address).is_some_and(|found| found.contains("workflows{name=")));
    served.join().unwrap();
}

#[tokio::test]
async fn of_events_that_wait_warnings_are_written_first_and_all_before_the_end() {
    let world = World::new("events-order").await;
    let (publisher, writer) =
        events::publisher(world.client.clone(), "test".into(), Arc::new(Metrics::new("test", "0", &[])));
    let about = ObjectReference {
        kind: Some("WorkflowExecution".into()),
        namespace: Some(world.namespace.clone()),
        name: Some("run".into()),
        uid: Some("6e0b".into()),
        ..ObjectReference::default()
    };
    let normal = (0..3).map(|n| Notice::normal("Well", format!("{n}"))).collect();
    publisher.publish(&about, normal);
    publisher.publish(&about, vec![Notice::warning("Wrong", "3"), Notice::warning("Wrong", "4")]);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(writer.run(async { drop(ended.await) }));
    let api: Api<Event> = Api::namespaced(world.client.clone(), &world.namespace);
    let written = async || {
        let mut events = api.list(&ListParams::default()).await.unwrap().items;
        events.sort_by_key(|event| event.metadata.resource_version.as_deref().unwrap().parse::<u64>().unwrap());
        events.into_iter().map(|event| event.note.unwrap()).collect::<Vec<_>>()
    };
    until(SOON, "an Event", async || (!written().await.is_empty()).then_some(())).await;
    end.send(()).unwrap();
    writing.await.unwrap();
    assert_eq!(written().await, ["3", "4", "0", "1", "2"]);
}

#[tokio::test]
async fn the_metrics_are_rendered_once_a_second_however_often_they_are_asked_for() {
    let world = World::new("scrapes").await;
    let process = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("run", "Running").await;
    // An age, which differs in each rendering.
    let age = r#"last_complete_sweep_age_seconds{kind="runs"}"#;
    until(SOON, "a run that is looked at", async || value(&metrics(&process).await, age)).await;
    let begun = Instant::now();
    let mut told = BTreeSet::new();
    for _ in 0..30 {
        told.insert(metrics(&process).await);
    }
    // One cached rendering, and one for each second that has begun.
    let most = 2 + begun.elapsed().as_secs();
    assert!(u64::try_from(told.len()).unwrap() <= most, "{} renderings in {:?}", told.len(), begun.elapsed());
}

#[tokio::test]
async fn who_accepts_only_plain_text_gets_the_classic_format_and_workflows_are_named_where_that_is_wanted() {
    let world = World::new("metrics-classic").await;
    let process = world.process(&[("METRICS_WORKFLOWS", "1")]);
    world.execute("first", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("first", "Completed").await;
    world.execute("second", json!({ "workflowIdentifier": "fail" })).await;
    world.wait_for_reason("second", "WorkflowFailed").await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |accept: &str| {
        let request = client.get(format!("http://{}/metrics", process.listen)).header("accept", accept);
        let answer = request.send().await.unwrap();
        let type_ = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (type_, answer.text().await.unwrap())
    };
    let counted =
        ["outcome=\"Completed\",workflow=\"echo\"} 1\n", "outcome=\"WorkflowFailed\",workflow=\"other\"} 1\n"];
    let (type_, text) = until(SOON, "both ends", async || {
        let (type_, text) = ask("text/plain").await;
        counted.iter().all(|series| text.contains(series)).then_some((type_, text))
    })
    .await;
    assert!(type_.starts_with("text/plain; version=0.0.4"), "{type_}");
    assert!(text.contains("# TYPE mistral_workflows_executions_finished_total counter\n"), "{text}");
    assert!(text.contains("# TYPE process_resident_memory_bytes gauge\n") && !text.contains("# EOF"), "{text}");
    let (type_, text) = ask("application/openmetrics-text;version=1.0.0,text/plain;q=0.5").await;
    assert!(type_.starts_with("application/openmetrics-text"), "{type_}");
    assert!(
        text.contains("# TYPE mistral_workflows_executions_finished counter\n") && text.ends_with("# EOF\n"),
        "{text}"
    );
}
