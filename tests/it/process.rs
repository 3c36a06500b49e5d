//! The operator as a process: its health, shutdown, logs and flags, and that it leaks no secrets.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::Duration;

use cluster::Supervised;
use k8s_openapi::ByteString;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: &str = "/v1/workflows/{workflow_identifier}/execute";

async fn wait_until_ready(process: &Process) {
    until(SOON, "readiness", async || (process.ask("/readyz").await == Some((200, "ready\n".into()))).then_some(()))
        .await;
}

async fn wait_for_line(process: &Process, text: &str) {
    until(SOON, text, async || process.log().contains(text).then_some(())).await;
}

/// The exit status of the process. Does not block the other tasks of this test's runtime.
async fn wait_for_end(process: &mut Process, limit: Duration) -> ExitStatus {
    until(limit, "the operator's end", async || process.child.wait_exit(Duration::ZERO).unwrap()).await
}

/// Forwards connections to this port of the loopback interface while the tests run.
fn forward(listener: TcpListener, port: u16) {
    let pass = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    };
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            pass(near.try_clone().unwrap(), far.try_clone().unwrap());
            pass(far, near);
        }
    });
}

/// A proxy that answers every request with 502, and the first line of each request.
fn refusing_proxy() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            let _end_of_head = lines.find(String::is_empty);
            // The test may have ended.
            let _ = seen.send(first);
            let _ = (&stream).write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, requests)
}

/// Runs the program to its end. Returns whether it succeeded, and its error output.
async fn run_to_the_end(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    command.args(arguments).envs(environment.iter().copied()).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, command.output()).await.expect("an end").unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Everything that people and programs can read in this namespace, except the Secret itself.
async fn readable(world: &World) -> String {
    let events: Api<Event> = Api::namespaced(world.client.clone(), &world.namespace);
    let all = ListParams::default();
    let events = serde_json::to_string(&events.list(&all).await.unwrap().items).unwrap();
    let workspaces = serde_json::to_string(&world.workspaces().list(&all).await.unwrap().items).unwrap();
    let executions = serde_json::to_string(&world.executions().list(&all).await.unwrap().items).unwrap();
    [events, workspaces, executions].join("\n")
}

#[tokio::test]
async fn a_call_held_for_ever_does_not_keep_the_process_and_the_next_operator_runs_it_exactly_once() {
    let world = World::new("held").await;
    let hold = |workflow: &str, when: &str| json!({ "route": format!("/v1/workflows/{workflow}/execute"), "kind": { "hold": when } });
    world.api.faults(json!({ "faults": [hold("echo", "before_effect"), hold("slow", "after_effect")] })).await;
    let mut process = world.process(&[]);
    world.execute("not-begun", json!({ "workflowIdentifier": "echo", "input": { "n": 1 } })).await;
    world.execute("begun", json!({ "workflowIdentifier": "slow", "input": { "n": 2 } })).await;
    until(SOON, "both calls", async || (world.api.held().await.len() == 2).then_some(())).await;
    process.child.signal("TERM").unwrap();
    let end = wait_for_end(&mut process, Duration::from_secs(30)).await;
    assert!(end.success(), "{end}");
    assert_eq!(world.api.starts().await, 1);

    world.api.heal().await;
    let _next = world.operator();
    let limit = Duration::from_secs(120);
    for (name, n) in [("begun", 2), ("not-begun", 1)] {
        let done = world.wait(name, limit, is_finished).await;
        assert_eq!(result(&done), Some(json!({ "n": n })));
    }
    let starts: Vec<Value> = world.api.executions().await.iter().map(|run| run["starts"].clone()).collect();
    assert_eq!(starts, [1, 1]);
}

#[tokio::test]
async fn a_call_that_is_answered_after_sigterm_is_recorded_before_the_end() {
    let world = World::new("finish").await;
    let hold = json!({ "route": EXECUTE, "kind": { "hold": "before_effect" } });
    world.api.faults(json!({ "faults": [hold] })).await;
    let mut process = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    until(SOON, "the call", async || (world.api.held().await.len() == 1).then_some(())).await;
    process.child.signal("TERM").unwrap();
    wait_for_line(&process, "stopping").await;
    // The process waits for the call.
    assert_eq!(process.child.wait_exit(Duration::ZERO).unwrap(), None);
    world.api.heal().await;
    let end = wait_for_end(&mut process, Duration::from_secs(10)).await;
    assert!(end.success(), "{end}");
    let run = world.executions().get("run").await.unwrap();
    assert!(is_true(&run, "Started"), "{:#?}", run.status);
    assert_eq!(ready_reason(&run), Some("Running"));
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn an_idle_operator_is_healthy_and_ready_and_ends_at_once_when_asked() {
    let world = World::new("idle-process").await;
    for signal in ["TERM", "INT"] {
        let mut process = world.process(&[]);
        wait_until_ready(&process).await;
        assert_eq!(process.ask("/healthz").await, Some((200, "alive\n".into())));
        world.wait_for_workspace("default", "Connected").await;
        // A run that the operator polls from time to time.
        world.execute(&signal.to_lowercase(), json!({ "workflowIdentifier": "hang" })).await;
        world.wait_for_reason(&signal.to_lowercase(), "Running").await;
        process.child.signal(signal).unwrap();
        let end = wait_for_end(&mut process, Duration::from_secs(5)).await;
        assert!(end.success(), "{signal}: {end}");
    }
    assert_eq!(world.api.starts().await, 2);
}

#[tokio::test]
async fn without_the_kubernetes_api_it_is_alive_and_says_what_it_waits_for_until_the_api_is_there() {
    let world = World::new("no-kubernetes").await;
    // Bound but not listening: connections are refused, and no other program gets the port.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (kubeconfig, port) = kubeconfig_with_port(closed.local_addr().unwrap().port());
    let environment = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let mut given_up = world.process(&environment);
    let process = world.process(&environment);
    wait_for_line(&process, "waiting for the Kubernetes API").await;
    assert_eq!(process.ask("/healthz").await, Some((200, "alive\n".into())));
    let (status, body) = process.ask("/readyz").await.unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("waiting for the Kubernetes API"), "{body}");

    wait_for_line(&given_up, "waiting for the Kubernetes API").await;
    given_up.child.signal("TERM").unwrap();
    let end = wait_for_end(&mut given_up, Duration::from_secs(5)).await;
    assert!(end.success(), "{end}");

    let listener = closed.listen(64).unwrap().into_std().unwrap();
    listener.set_nonblocking(false).unwrap();
    forward(listener, port);
    wait_until_ready(&process).await;
    world.wait_for_workspace("default", "Connected").await;
}

#[tokio::test]
async fn json_logs_are_json_in_every_line_and_text_logs_are_not() {
    let world = World::new("logs").await;
    for (format, is_json) in [("json", true), ("text", false)] {
        let mut process = world.process(&[("LOG_FORMAT", format)]);
        wait_until_ready(&process).await;
        world.execute(format, json!({ "workflowIdentifier": "echo" })).await;
        world.wait_for_reason(format, "Completed").await;
        process.child.signal("TERM").unwrap();
        wait_for_end(&mut process, SOON).await;
        let log = process.log();
        assert!(log.lines().count() > 5, "{log}");
        for line in log.lines() {
            let parsed = serde_json::from_str::<Value>(line);
            assert_eq!(parsed.is_ok_and(|line| line["level"].is_string()), is_json, "{line}");
        }
    }
}

#[tokio::test]
async fn a_healthy_object_is_not_mentioned_in_the_logs_of_a_restarted_operator() {
    let world = World::new("quiet").await;
    let mut first = world.process_with(&["--log-level", "info"], &[]);
    let names: Vec<String> = (0..5).map(|n| format!("finished-{n}")).collect();
    for name in &names {
        world.execute(name, json!({ "workflowIdentifier": "echo" })).await;
    }
    for name in &names {
        world.wait_for_reason(name, "Completed").await;
    }
    first.child.signal("TERM").unwrap();
    wait_for_end(&mut first, SOON).await;

    let second = world.process_with(&["--log-level", "info"], &[]);
    wait_until_ready(&second).await;
    world.execute("new", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("new", "Completed").await;
    wait_for_line(&second, "/new").await;
    for (log, mentioned) in [(first.log(), true), (second.log(), false)] {
        for name in &names {
            assert_eq!(log.contains(name.as_str()), mentioned, "{name} in:\n{log}");
        }
    }
}

#[tokio::test]
async fn a_flag_that_makes_no_sense_is_refused_with_a_sentence() {
    // None of these commands reaches the cluster.
    let nowhere = [("KUBECONFIG", "/nonexistent/kubeconfig")];
    for (flag, value, sentence) in [
        ("--allow-base-url", "https://api.mistral.ai/v1", "has a user, path, query or fragment"),
        ("--allow-base-url", "https://user@api.mistral.ai", "has a user, path, query or fragment"),
        ("--allow-base-url", "https://:password@api.mistral.ai", "has a user, path, query or fragment"),
        ("--allow-base-url", "https://api.mistral.ai?x=1", "has a user, path, query or fragment"),
        ("--allow-base-url", "ftp://api.mistral.ai", "is not an http or https address"),
        ("--allow-base-url", "api.mistral.ai", "is not a URL"),
        ("--max-requests-per-second", "0", "is not in 1..=1000"),
        ("--listen", "localhost", "give ADDRESS:PORT, such as [::]:8080"),
        ("--namespace", "team-a,,team-b", "has an empty entry"),
        ("--namespace", "Team", "\"Team\" cannot be a namespace"),
        ("--log-format", "xml", "possible values: text, json"),
    ] {
        let (success, said) = run_to_the_end(&["run", flag, value], &nowhere).await;
        assert!(!success && said.contains(flag) && said.contains(sentence), "{flag} {value}: {said}");
    }
    let variable = [nowhere[0], ("ALLOW_BASE_URL", "https://api.mistral.ai,https://proxy.example/v1")];
    let (success, said) = run_to_the_end(&["run"], &variable).await;
    assert!(!success && said.contains("https://proxy.example/v1") && said.contains("path"), "{said}");
    let (success, said) = run_to_the_end(&["run"], &[nowhere[0], ("WATCH_NAMESPACE", "team-a,b c")]).await;
    assert!(!success && said.contains("\"b c\" cannot be a namespace"), "{said}");
}

#[tokio::test]
async fn log_directives_that_cannot_be_read_are_refused_rather_than_ignored() {
    let nowhere = [("KUBECONFIG", "/nonexistent/kubeconfig")];
    let (success, said) = run_to_the_end(&["run", "--log-level", "kube=loud"], &nowhere).await;
    assert!(!success && said.contains("'kube=loud' for '--log-level"), "{said}");
    let (success, said) = run_to_the_end(&["run", "--log-level", "wran"], &nowhere).await;
    assert!(!success && said.contains("did you mean warn?"), "{said}");
}

#[tokio::test]
async fn every_address_means_those_of_ipv4_and_of_ipv6() {
    let world = World::bare("listen-all").await;
    let (ipv4, ipv6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    // A machine without IPv6 has only the IPv4 address.
    let addresses = if TcpListener::bind((ipv6, 0)).is_ok() { vec![ipv4, ipv6] } else { vec![ipv4] };
    let port = TcpListener::bind((ipv4, 0)).unwrap().local_addr().unwrap().port();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    command.args(["run", "--namespace", &world.namespace, "--listen", &format!("[::]:{port}")]);
    command.env("KUBECONFIG", control_plane().kubeconfig()).env("LEASE_NAME", "");
    let log = control_plane().folder().join(format!("operator-{}-{port}.log", world.namespace));
    let child = Supervised::spawn(&command, &log).unwrap();
    let mut process = Process { child, listen: SocketAddr::from((ipv4, port)) };
    for address in addresses {
        process.listen = SocketAddr::from((address, port));
        let answers = async || process.ask("/healthz").await.filter(|(status, _)| *status == 200);
        until(SOON, &process.listen.to_string(), answers).await;
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let _world = World::bare("listen").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let kubeconfig = [("KUBECONFIG", control_plane().kubeconfig().to_str().unwrap())];
    let (success, said) = run_to_the_end(&["run", "--listen", &address], &kubeconfig).await;
    let sentence = format!("cannot listen on {address} for health checks");
    assert!(!success && said.contains(&sentence) && said.contains("in use"), "{said}");
}

/// The text before `secret`, if `text` contains it: enough to find out how the secret got there.
fn before<'a>(text: &'a str, secret: &str) -> Option<&'a str> {
    text.find(secret).map(|at| &text[text.floor_char_boundary(at.saturating_sub(300))..at])
}

/// Makes the API repeat the key in various errors.
async fn let_the_api_repeat(world: &World, key: &str) {
    let fault = |workflow: &str, status: u16, body: Value| json!({ "route": format!("/v1/workflows/{workflow}/execute"), "kind": { "error": { "status": status, "body": body } } });
    let faults = json!({ "faults": [
        fault("echo", 422, json!({ "detail": [{ "loc": ["header", key], "msg": format!("not with {key}") }] })),
        fault("slow", 409, json!({ "detail": { "message": key }, "code": "AMBIGUOUS_WORKFLOW", "deployments": [key] })),
        fault("hang", 403, json!({ "message": format!("{key} may not"), "code": key })),
        fault("fail", 429, json!({ "detail": format!("{key} is too fast") })),
    ] });
    world.api.faults(faults).await;
    for (workflow, reason) in [
        ("echo", "InputRejected"),
        ("slow", "AmbiguousDeployment"),
        ("hang", "RequestRefused"),
        ("fail", "APIUnavailable"),
    ] {
        world.execute(workflow, json!({ "workflowIdentifier": workflow })).await;
        let object = world.wait_for_reason(workflow, reason).await;
        let message = &condition(&object, "Ready").unwrap().message;
        assert!(message.contains("[redacted]"), "the API's words are missing: {message}");
    }
}

#[tokio::test]
async fn the_key_is_neither_in_logs_nor_in_events_nor_in_objects_also_when_the_api_repeats_it() {
    let world = World::new("secret").await;
    let process = world.process_with(&["--log-level", "trace"], &[]);
    world.wait_for_workspace("default", "Connected").await;
    world.execute("well", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("well", "Completed").await;
    let_the_api_repeat(&world, KEY).await;
    // The same for the Workspace's own check, which a refused start triggers.
    let refusal = json!({ "error": { "status": 401, "body": { "detail": format!("no such key: {KEY}") } } });
    world.api.faults(json!({ "faults": [{ "kind": refusal }] })).await;
    world.execute("refused", json!({ "workflowIdentifier": "echo" })).await;
    let workspace = world.wait_for_workspace("default", "CredentialRefused").await;
    assert!(serde_json::to_string(&workspace).unwrap().contains("no such key: [redacted]"));

    let encoded = serde_json::to_value(ByteString(KEY.into())).unwrap();
    let (log, objects) = (process.log(), readable(&world).await);
    assert!(log.contains("started") && objects.contains("[redacted]"));
    for text in [&log, &objects] {
        for secret in [KEY, encoded.as_str().unwrap()] {
            assert_eq!(before(text, secret), None, "the key follows this text");
        }
    }
}

#[tokio::test]
async fn a_long_answer_does_not_let_the_beginning_of_the_key_through() {
    let world = World::new("cut").await;
    let process = world.process_with(&["--log-level", "trace"], &[]);
    world.wait_for_workspace("default", "Connected").await;
    // The operator passes on 1 KiB of the API's text, which ends in the middle of the key.
    let detail = format!("{}{KEY}", "x".repeat(1010));
    let refusal = json!({ "error": { "status": 422, "body": { "detail": detail } } });
    world.api.faults(json!({ "faults": [{ "route": EXECUTE, "kind": refusal }] })).await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let object = world.wait_for_reason("run", "InputRejected").await;
    assert!(condition(&object, "Ready").unwrap().message.contains("xxxx"));
    for text in [readable(&world).await, process.log()] {
        assert_eq!(before(&text, &KEY[..8]), None, "the key's beginning follows this text");
    }
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_used_for_the_api_and_not_for_the_cluster() {
    let world = World::bare("proxy").await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", "https://api.mistral.ai").await;
    let (address, requests) = refusing_proxy();
    let proxy = format!("http://{address}");
    let process = world.process_with(
        &["--allow-base-url", "https://api.mistral.ai", "--log-level", "debug"],
        &[("HTTPS_PROXY", &proxy), ("https_proxy", &proxy), ("NO_PROXY", ""), ("no_proxy", "")],
    );
    wait_until_ready(&process).await;
    let workspace = world.wait_for_workspace("default", "APIUnavailable").await;
    let seen: Vec<String> = requests.try_iter().collect();
    assert!(!seen.is_empty(), "the proxy was not asked");
    for request in seen {
        assert_eq!(request, "CONNECT api.mistral.ai:443 HTTP/1.1");
    }
    let text = serde_json::to_string(&workspace).unwrap();
    assert!(text.contains("https://api.mistral.ai cannot be reached"), "{text}");
}

#[tokio::test]
async fn what_the_operator_writes_bears_its_name() {
    let world = World::new("manager").await;
    let _operator = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    let of_the_operator = done.managed_fields().iter().filter(|entry| {
        // GitOps tools can be told to ignore this manager.
        entry.manager.as_deref() == Some("mistral-workflows-operator")
    });
    let subresources: Vec<_> = of_the_operator.map(|entry| entry.subresource.as_deref()).collect();
    assert_eq!(subresources, [None, Some("status")]);
}
