//! A Workspace: what makes it ready, what it reports when it is not, and what it costs.

use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use mistral_simulator::{Options, Simulator};
use mistral_workflows_operator::api::{Workspace, WorkspaceStatus};
use mistral_workflows_operator::operator;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::*;

const WHOAMI: &str = "/v1/workflows/workers/whoami";
const EXECUTE: &str = "/v1/workflows/{workflow_identifier}/execute";
/// Another key that the simulator accepts.
const NEXT: &str = "canary-next-77ab";

/// Creates a Workspace that reads `api-key` from this Secret.
async fn workspace_of(world: &World, name: &str, url: &str, secret: &str) {
    let workspace = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workspace", "metadata": { "name": name },
        "spec": { "baseURL": url, "auth": { "apiKeySecretRef": { "name": secret, "key": "api-key" } } },
    });
    world.workspaces().create(&PostParams::default(), &serde_json::from_value(workspace).unwrap()).await.unwrap();
}

/// Makes a Secret hold this value and nothing else.
async fn secret_of(world: &World, name: &str, key: &str, value: &[u8]) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
        "data": { key: ByteString(value.to_vec()) },
    });
    secrets(world).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
}

fn secrets(world: &World) -> Api<Secret> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

/// An operator in this process that may call only these addresses.
fn operator_allowing(world: &World, urls: &[String]) -> DropGuard {
    let stop = CancellationToken::new();
    let config = operator::Config {
        allow_base_urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
        max_requests_per_second: 50,
        input_secrets_need_label: false,
        namespaces: vec![world.namespace.clone()],
        listen: None,
        metrics_workflows: 0,
        leadership: operator::Leadership::Unconditional,
    };
    tokio::spawn(operator::run(config, world.client.clone(), stop.clone()));
    stop.drop_guard()
}

/// The organization and the workspace that the API reports for the key.
async fn whoami(world: &World) -> (String, String) {
    let me = world.api.call("GET", WHOAMI, None).await;
    let (customer, workspace) = me["namespace"].as_str().unwrap().split_once(':').unwrap();
    (customer.to_owned(), workspace.to_owned())
}

fn status_of(workspace: &Workspace) -> WorkspaceStatus {
    workspace.status.clone().unwrap_or_default()
}

fn ready(workspace: &Workspace) -> Condition {
    let conditions = status_of(workspace).conditions;
    conditions.into_iter().find(|condition| condition.type_ == "Ready").expect("condition Ready")
}

/// All conditions as `(type, status, reason)`, in alphabetical order.
fn conditions(workspace: &Workspace) -> Vec<(String, String, String)> {
    let all = status_of(workspace).conditions.into_iter();
    let mut all: Vec<_> = all.map(|condition| (condition.type_, condition.status, condition.reason)).collect();
    all.sort();
    all
}

/// kstatus reads these conditions as ready.
fn assert_current(workspace: &Workspace) {
    assert_eq!(conditions(workspace), [("Ready".into(), "True".into(), "Connected".into())]);
}

/// kstatus reads these conditions as failed until a person acts.
fn assert_stalled(workspace: &Workspace, reason: &str) {
    let expected =
        [("Ready".into(), "False".into(), reason.into()), ("Stalled".into(), "True".into(), reason.to_owned())];
    assert_eq!(conditions(workspace), expected);
}

/// Waits until the Workspace asks for a person: while it is young, what it refers to may still arrive.
async fn wait_for_stalled(world: &World, name: &str) -> Workspace {
    until(Duration::from_secs(60), "a person to be asked for", async || {
        let workspace = world.workspaces().get(name).await.unwrap();
        conditions(&workspace).iter().any(|(type_, ..)| type_ == "Stalled").then_some(workspace)
    })
    .await
}

/// kstatus reads these conditions as in progress.
fn assert_reconciling(workspace: &Workspace, reason: &str) {
    let expected =
        [("Ready".into(), "False".into(), reason.into()), ("Reconciling".into(), "True".into(), reason.to_owned())];
    assert_eq!(conditions(workspace), expected);
}

fn assert_mentions(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word} in: {text}");
    }
}

/// The reasons of the Events about this Workspace, once one exists.
async fn event_reasons(world: &World, name: &str) -> Vec<String> {
    until(SOON, "an Event", async || {
        let events = world.events(name).await;
        (!events.is_empty()).then(|| events.into_iter().map(|(reason, _)| reason).collect())
    })
    .await
}

#[tokio::test]
async fn a_good_key_makes_it_ready_and_tells_whose_key_it_is() {
    let world = World::bare("good").await;
    world.api.admit(KEY, "mine").await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    let _operator = world.operator();
    let workspace = world.wait_for_workspace("default", "Connected").await;
    assert_current(&workspace);
    let status = status_of(&workspace);
    let (customer, mine) = whoami(&world).await;
    assert_eq!((status.customer_id, status.workspace_id), (Some(customer), Some(mine)));
    assert_eq!(status.observed_generation, workspace.metadata.generation);
    assert_eq!(event_reasons(&world, "default").await, ["Connected"]);
}

#[tokio::test]
async fn a_ready_workspace_costs_no_write_and_hardly_a_call() {
    let world = World::new("idle").await;
    let _operator = world.operator();
    let before = world.wait_for_workspace("default", "Connected").await;
    event_reasons(&world, "default").await;
    world.api.forget_calls().await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    let after = world.workspaces().get("default").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    let calls = world.api.arrivals(None).await;
    assert!(calls <= 2, "{calls} calls in 70 s");
    assert_eq!(event_reasons(&world, "default").await, ["Connected"]);
    // Proves that the operator ran all the time.
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
}

#[tokio::test]
async fn a_missing_secret_is_named_and_taken_up_within_a_minute() {
    let world = World::bare("late-secret").await;
    let _operator = world.operator();
    world.workspace("default", &world.api.url).await;
    let workspace = world.wait_for_workspace("default", "SecretNotFound").await;
    // The Secret may still arrive.
    assert_reconciling(&workspace, "SecretNotFound");
    assert_mentions(&ready(&workspace).message, &["\"mistral\"", "\"api-key\""]);
    assert_stalled(&wait_for_stalled(&world, "default").await, "SecretNotFound");
    assert_eq!(world.api.arrivals(None).await, 0);
    world.secret("mistral", "api-key", KEY).await;
    assert_current(&world.wait_for_workspace("default", "Connected").await);
    until(SOON, "both Events", async || {
        let reasons = event_reasons(&world, "default").await;
        (reasons == ["SecretNotFound", "Connected"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_secret_of_another_namespace_does_not_help() {
    let (world, other) = tokio::join!(World::bare("own"), World::bare("foreign"));
    other.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    let _operator = world.operator();
    let before = world.wait_for_workspace("default", "SecretNotFound").await;
    // The operator checks for the Secret several times meanwhile.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let after = world.workspaces().get("default").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    assert_eq!(world.api.arrivals(None).await, 0);
    world.secret("mistral", "api-key", KEY).await;
    world.wait_for_workspace("default", "Connected").await;
}

#[tokio::test]
async fn a_secret_without_a_usable_key_is_invalid_until_it_has_one() {
    let world = World::bare("invalid").await;
    let invalid: [(&str, &str, &[u8]); 5] = [
        ("other-key", "token", KEY.as_bytes()),
        ("empty", "api-key", b""),
        ("blank", "api-key", b" \n\t"),
        ("binary", "api-key", &[0xff, 0xfe, 0x00]),
        ("two-lines", "api-key", b"canary-first\ncanary-second"),
    ];
    for (name, key, value) in invalid {
        secret_of(&world, name, key, value).await;
        workspace_of(&world, name, &world.api.url, name).await;
    }
    let _operator = world.operator();
    for (name, ..) in invalid {
        let workspace = world.wait_for_workspace(name, "SecretInvalid").await;
        assert_stalled(&workspace, "SecretInvalid");
        let message = ready(&workspace).message;
        assert_mentions(&message, &[&format!("\"{name}\""), "\"api-key\""]);
        assert!(!message.contains("canary"), "the Secret's text in: {message}");
    }
    assert_eq!(world.api.arrivals(None).await, 0);
    for (name, ..) in invalid {
        secret_of(&world, name, "api-key", KEY.as_bytes()).await;
    }
    for (name, ..) in invalid {
        assert_current(&world.wait_for_workspace(name, "Connected").await);
    }
}

#[tokio::test]
async fn white_space_around_the_key_is_not_part_of_it() {
    let world = World::bare("trim").await;
    // Only the exact key leads to this workspace.
    world.api.admit(KEY, "mine").await;
    for (name, value) in [("newline", format!("{KEY}\n")), ("blanks", format!(" \t{KEY} \r\n\n"))] {
        secret_of(&world, name, "api-key", value.as_bytes()).await;
        workspace_of(&world, name, &world.api.url, name).await;
    }
    let _operator = world.operator();
    let (_, mine) = whoami(&world).await;
    for name in ["newline", "blanks"] {
        let workspace = world.wait_for_workspace(name, "Connected").await;
        assert_eq!(status_of(&workspace).workspace_id.as_ref(), Some(&mine));
    }
}

#[tokio::test]
async fn a_refused_key_is_told_in_the_apis_words_and_a_corrected_one_works_within_a_minute() {
    let world = World::new("refused").await;
    world.api.revoke(KEY).await;
    let _operator = world.operator();
    let workspace = world.wait_for_workspace("default", "CredentialRefused").await;
    assert_stalled(&workspace, "CredentialRefused");
    assert_mentions(&ready(&workspace).message, &["\"mistral\"", "Unauthorized (HTTP 401)"]);
    assert_eq!(status_of(&workspace).workspace_id, None);
    world.secret("mistral", "api-key", NEXT).await;
    assert_current(&world.wait_for_workspace("default", "Connected").await);
}

#[tokio::test]
async fn a_key_that_the_api_admits_again_works_by_itself_within_ninety_seconds() {
    let world = World::new("admitted").await;
    world.api.revoke(KEY).await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "CredentialRefused").await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "WorkspaceNotReady").await;
    world.api.admit(KEY, "default").await;
    world.wait("run", Duration::from_secs(90), |run| ready_reason(run) == Some("Completed")).await;
    assert_current(&world.workspaces().get("default").await.unwrap());
}

#[tokio::test]
async fn a_refused_key_is_tried_once_a_minute_however_many_executions_wait() {
    let world = World::new("bounded").await;
    let _operator = world.operator();
    for name in ["running-0", "running-1"] {
        world.execute(name, json!({ "workflowIdentifier": "hang" })).await;
        world.wait_for_reason(name, "Running").await;
    }
    let ids: Vec<String> =
        world.api.executions().await.iter().map(|run| run["execution_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    world.api.revoke(KEY).await;
    world.wait_for_workspace("default", "CredentialRefused").await;
    for name in ["waiting-0", "waiting-1", "waiting-2"] {
        world.execute(name, json!({ "workflowIdentifier": "echo" })).await;
    }
    for name in ["waiting-0", "waiting-1", "waiting-2"] {
        let waiting = world.wait_for_reason(name, "WorkspaceNotReady").await;
        assert_mentions(&condition(&waiting, "Ready").unwrap().message, &["\"default\"", "HTTP 401"]);
    }
    world.api.forget_calls().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = world.api.arrivals(None).await;
    assert!(calls <= 2, "{calls} calls in a minute: {:#?}", world.api.calls().await);
    assert_eq!(world.api.arrivals(Some(("POST", EXECUTE))).await, 0);

    world.secret("mistral", "api-key", NEXT).await;
    for name in ["waiting-0", "waiting-1", "waiting-2"] {
        world.wait_for_reason(name, "Completed").await;
    }
    for id in ids {
        world.api.finish(&id, json!({ "outcome": "complete" })).await;
    }
    for name in ["running-0", "running-1"] {
        world.wait_for_reason(name, "Completed").await;
    }
    assert_eq!(world.api.starts().await, 5);
}

#[tokio::test]
async fn a_rotated_key_serves_the_next_calls_as_soon_as_the_old_one_is_revoked() {
    let world = World::new("rotated").await;
    let _operator = world.operator();
    let going = world.execute("going", json!({ "workflowIdentifier": "hang" })).await;
    let id = status(&world.wait_for_reason(&going.name_any(), "Running").await).execution_id.unwrap();
    world.secret("mistral", "api-key", NEXT).await;
    world.api.revoke(KEY).await;
    world.execute("next", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("next", "Completed").await;
    world.api.finish(&id, json!({ "outcome": "complete" })).await;
    world.wait_for_reason("going", "Completed").await;
    assert_eq!(world.api.starts().await, 2);
    // The refused key is not reported, because the Secret already had a valid one.
    assert_eq!(event_reasons(&world, "default").await, ["Connected"]);
}

#[tokio::test]
async fn a_changed_or_removed_secret_is_noticed_within_a_minute_though_all_goes_well() {
    let world = World::bare("noticed").await;
    world.api.admit(NEXT, "other").await;
    for name in ["rotated", "removed"] {
        world.secret(name, "api-key", KEY).await;
        workspace_of(&world, name, &world.api.url, name).await;
    }
    let _operator = world.operator();
    let first = status_of(&world.wait_for_workspace("rotated", "Connected").await);
    world.wait_for_workspace("removed", "Connected").await;
    world.secret("rotated", "api-key", NEXT).await;
    secrets(&world).delete("removed", &DeleteParams::default()).await.unwrap();
    let changed = Instant::now();
    world.wait_for_workspace("removed", "SecretNotFound").await;
    until(SOON.saturating_sub(changed.elapsed()), "the other key's workspace", async || {
        let now = status_of(&world.workspaces().get("rotated").await.unwrap());
        (now.workspace_id.is_some() && now.workspace_id != first.workspace_id).then_some(())
    })
    .await;
    until(SOON, "the Event about the other workspace", async || {
        event_reasons(&world, "rotated").await.contains(&"WorkspaceChanged".to_owned()).then_some(())
    })
    .await;
    // Depending on how soon the removal is noticed, the Workspace is still young enough for its Secret to arrive.
    assert_stalled(&wait_for_stalled(&world, "removed").await, "SecretNotFound");
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_never_called() {
    let world = World::bare("forbidden").await;
    world.secret("mistral", "api-key", KEY).await;
    // Notices every connection, not only requests.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = Simulator::start(Options::default()).await.unwrap();
    let other = Simulated::new(other.url());
    world.workspace("default", &url).await;
    world.workspace("simulator", &other.url).await;
    let _operator = operator_allowing(&world, &[world.api.url.clone(), "https://api.mistral.ai".into()]);
    for (name, url) in [("default", &url), ("simulator", &other.url)] {
        let workspace = world.wait_for_workspace(name, "BaseURLNotAllowed").await;
        assert_stalled(&workspace, "BaseURLNotAllowed");
        let message = ready(&workspace).message;
        assert_mentions(&message, &[url, &world.api.url, "https://api.mistral.ai", "--allow-base-url"]);
    }
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "WorkspaceNotReady").await;
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(other.arrivals(None).await, 0);
}

#[tokio::test]
async fn an_api_in_trouble_is_waited_for() {
    let world = World::bare("down").await;
    world.secret("mistral", "api-key", KEY).await;
    // Bound but not listening: connections are refused, and no other program gets the port.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let down = closed.local_addr().unwrap();
    let mut urls = vec![("down", format!("http://{down}"))];
    let mut troubled = Vec::new();
    for (name, kind) in [
        ("bad-gateway", json!({ "error": { "status": 502 } })),
        ("gateway-404", json!({ "error": { "status": 404, "body": "<html>", "content_type": "text/html" } })),
        ("not-json", json!({ "error": { "status": 200, "body": "<html>", "content_type": "text/html" } })),
        ("closes", json!({ "close": "before_effect" })),
        ("breaks-off", json!({ "truncate": true })),
    ] {
        let simulator = Simulator::start(Options::default()).await.unwrap();
        let api = Simulated::new(simulator.url());
        api.faults(json!({ "faults": [{ "route": "/v1/*", "kind": kind }] })).await;
        urls.push((name, simulator.url()));
        troubled.push((api, simulator));
    }
    for (name, url) in &urls {
        world.workspace(name, url).await;
    }
    let _operator = operator_allowing(&world, &urls.iter().map(|(_, url)| url.clone()).collect::<Vec<_>>());
    for (name, _) in &urls {
        assert_reconciling(&world.wait_for_workspace(name, "APIUnavailable").await, "APIUnavailable");
    }
    let refused = ready(&world.workspaces().get("down").await.unwrap()).message;
    assert_mentions(&refused, &[&urls[0].1, "refused"]);
    let gateway = ready(&world.workspaces().get("bad-gateway").await.unwrap()).message;
    assert_mentions(&gateway, &["HTTP 502"]);

    drop(closed);
    let _up = Simulator::start(Options { listen: down, ..Options::default() }).await.unwrap();
    for (api, _) in &troubled {
        api.heal().await;
    }
    for (name, _) in &urls {
        assert_current(&world.wait_for_workspace(name, "Connected").await);
    }
}

#[tokio::test]
async fn an_api_without_whoami_is_checked_by_a_list_of_one() {
    let world = World::new("no-whoami").await;
    let missing = json!({ "error": { "status": 404, "body": { "detail": "Not Found" } } });
    world.api.faults(json!({ "faults": [{ "route": WHOAMI, "kind": missing }] })).await;
    let _operator = world.operator();
    let workspace = world.wait_for_workspace("default", "Connected").await;
    assert_current(&workspace);
    assert_eq!(status_of(&workspace).workspace_id, None);
    assert_eq!(world.api.arrivals(Some(("GET", "/v1/workflows"))).await, 1);
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
}

#[tokio::test]
async fn a_key_that_may_not_use_workflows_is_told_in_the_apis_words() {
    let world = World::new("forbidden-key").await;
    let forbidden = json!({ "error": { "status": 403, "body": { "detail": "Workflows are not enabled here" } } });
    world.api.faults(json!({ "faults": [{ "kind": forbidden }] })).await;
    let _operator = world.operator();
    let workspace = world.wait_for_workspace("default", "RequestRefused").await;
    assert_stalled(&workspace, "RequestRefused");
    assert_mentions(&ready(&workspace).message, &["\"mistral\"", "Workflows are not enabled here (HTTP 403)"]);
}

#[tokio::test]
async fn executions_notice_each_time_that_their_workspace_goes_and_comes() {
    let world = World::bare("comes-and-goes").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    for _ in 0..8 {
        let waiting = world.wait_for_reason("run", "WorkspaceNotFound").await;
        assert_mentions(&condition(&waiting, "Ready").unwrap().message, &["\"default\""]);
        world.workspace("default", &world.api.url).await;
        world.wait_for_reason("run", "WorkspaceNotReady").await;
        world.workspaces().delete("default", &DeleteParams::default()).await.unwrap();
    }
    world.wait_for_reason("run", "WorkspaceNotFound").await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    world.wait_for_reason("run", "Completed").await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_workspace_created_again_for_another_address_is_not_used_with_the_old_one() {
    let world = World::new("moved").await;
    let simulator = Simulator::start(Options::default()).await.unwrap();
    let moved = Simulated::new(simulator.url());
    moved.register(json!({ "name": "echo", "behaviour": { "duration_ms": 0 } })).await;
    let _operator = operator_allowing(&world, &[world.api.url.clone(), moved.url.clone()]);
    world.wait_for_workspace("default", "Connected").await;
    world.workspaces().delete("default", &DeleteParams::default()).await.unwrap();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "WorkspaceNotFound").await;
    world.workspace("default", &moved.url).await;
    world.wait_for_reason("run", "Completed").await;
    assert_eq!((world.api.starts().await, moved.starts().await), (0, 1));
}
