//! What an intruder in the cluster can get out of the operator's port and log.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cluster::Supervised;
use serde_json::{Value, json};

use crate::support::*;

/// Starts the operator with these arguments, after the shell has set limits.
fn limited(limits: &str, arguments: &[&str], kubeconfig: &Path, folder: &Path, name: &str) -> Process {
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("{limits}; exec \"$@\""), "limited", env!("CARGO_BIN_EXE_mistral-workflows-operator")])
        .args(["run", "--listen", &listen.to_string()])
        .args(arguments)
        .env("KUBECONFIG", kubeconfig);
    let log = folder.join(format!("operator-{name}-{}.log", listen.port()));
    Process { child: Supervised::spawn(&command, &log).unwrap(), listen }
}

/// An API server that gives these answers, and a kubeconfig for it.
async fn api_server(answer: impl Fn(&Uri) -> Response + Clone + Send + Sync + 'static, folder: &Path) -> String {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().fallback(async move |uri: Uri| answer(&uri));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "users": [{ "name": "test", "user": { "token": "the-token" } }],
    });
    let file = folder.join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Opens connections that send nothing, and keeps the last 300 of them open, until told to stop.
fn flood(address: SocketAddr, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut idle, mut opened) = (VecDeque::new(), 0);
        while !stop.load(Ordering::SeqCst) {
            if let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
                idle.push_back(connection);
                opened += 1;
            }
            if idle.len() > 300 {
                idle.pop_front();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        opened
    })
}

#[tokio::test]
async fn idle_connections_to_the_health_port_keep_the_operator_neither_from_answering_nor_from_its_work() {
    let world = World::new("flood").await;
    let arguments = ["--namespace", &world.namespace, "--allow-base-url", &world.api.url, "--log-level", "info"];
    let (kubeconfig, folder) = (control_plane().kubeconfig(), control_plane().folder());
    // A limit that the idle connections alone would exhaust.
    let process = limited("ulimit -n 256", &arguments, kubeconfig, folder, &world.namespace);
    until(SOON, "readiness", async || process.ask("/readyz").await.filter(|(status, _)| *status == 200)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = flood(process.listen, Arc::clone(&stop));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..5 {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = process.ask(path).await.map(|(status, _)| status);
            assert_eq!(answer, Some(200), "{path} among idle connections; the log:\n{}", process.log());
        }
        let name = format!("run-{n}");
        world.execute(&name, json!({ "workflowIdentifier": "echo" })).await;
        world.wait_for_reason(&name, "Completed").await;
    }
    stop.store(true, Ordering::SeqCst);
    let opened = flooding.join().unwrap();
    assert!(opened > 1100, "{opened}");
    assert!(!process.log().contains("cannot accept"), "{}", process.log());
}

#[tokio::test]
async fn the_operator_may_open_as_many_files_as_its_hard_limit_lets_it() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = api_server(|_| StatusCode::SERVICE_UNAVAILABLE.into_response(), folder.path()).await;
    let limits = "ulimit -S -n 100 && ulimit -H -n 200";
    let process = limited(limits, &["--log-level", "debug"], kubeconfig.as_ref(), folder.path(), "limit");
    until(SOON, "the limit", async || process.log().contains("open files limit=200").then_some(())).await;
}

/// Texts in the answers that no log may contain.
const BODY: &str = "the-body-of-an-answer";
const HEADER: &str = "the-header-of-an-answer";
const DETAIL: &str = "the-detail-of-a-status";
const PAGE: &str = "the-text-of-a-page";

/// An API server that first fails in every way, then lets the operator start, and refuses its watches.
fn troubled(asked: &AtomicUsize, uri: &Uri) -> Response {
    let json = |code: StatusCode, body: Value| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("x-header", HEADER.parse().unwrap());
        (code, headers, body.to_string()).into_response()
    };
    let refused = |code: StatusCode| {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "no",
            "code": code.as_u16(), "details": { "causes": [{ "reason": "Why", "message": DETAIL }] },
        });
        json(code, status)
    };
    let page = || (StatusCode::BAD_GATEWAY, format!("<html>{PAGE}</html>")).into_response();
    let undecodable = || json(StatusCode::OK, json!({ "metadata": 7, "items": 7, "data": { "key": BODY } }));
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    if path == "/api/v1/namespaces/kube-system" {
        return match asked.fetch_add(1, Ordering::SeqCst) {
            0 => undecodable(),
            1 => refused(StatusCode::INTERNAL_SERVER_ERROR),
            2 => page(),
            _ => json(StatusCode::OK, json!({ "metadata": { "name": "kube-system", "uid": "1" } })),
        };
    }
    match (query.contains("watch=true"), query.contains("timeoutSeconds=1&") || query.ends_with("timeoutSeconds=1")) {
        // The check whether a watch is allowed.
        (true, true) => (StatusCode::OK, [("x-header", HEADER)]).into_response(),
        (true, false) => refused(StatusCode::FORBIDDEN),
        (false, _) if query.contains("limit=1&") || query.ends_with("limit=1") => json(
            StatusCode::OK,
            json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": [] }),
        ),
        // The pages of a list.
        (false, _) if query.contains("limit=") => match asked.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => undecodable(),
            1 => refused(StatusCode::FORBIDDEN),
            _ => page(),
        },
        (false, _) => json(StatusCode::OK, json!({ "metadata": { "name": "team" } })),
    }
}

#[tokio::test]
async fn no_level_brings_the_body_of_an_answer_into_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let asked_of_server = Arc::clone(&asked);
    let kubeconfig = api_server(move |uri| troubled(&asked_of_server, uri), folder.path()).await;
    let directives = "trace,kube_client=trace,kube_client::client=trace,kube_runtime::watcher=trace";
    let arguments = ["--namespace", "team", "--log-level", directives, "--log-format", "json"];
    let process = limited("true", &arguments, kubeconfig.as_ref(), folder.path(), "bodies");
    // Four requests about the cluster, three pages, and one more: by then, the answers before it have been logged.
    until(SOON, "all kinds of answers", async || (asked.load(Ordering::SeqCst) >= 8).then_some(())).await;
    let log = process.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ours = |line: &Value| line["target"].as_str().is_some_and(|of| of.starts_with("mistral_workflows_operator"));
    for secret in [BODY, HEADER, "the-token"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
    for secret in [DETAIL, PAGE] {
        let line = lines.iter().find(|line| !ours(line) && line.to_string().contains(secret));
        assert_eq!(line, None, "a library has logged {secret}");
    }
    // Other messages of these libraries stay in the log.
    for told in ["requesting", "failed with status 500"] {
        assert!(log.contains(told), "{told} is missing in\n{log}");
    }
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_read_is_told_of_without_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, "users:\n- name: x\n  user:\n    token: the-token\n     other: x\n").unwrap();
    let mut process = limited("true", &["--log-level", "trace"], &file, folder.path(), "kubeconfig");
    let end = until(SOON, "the end", async || process.child.wait_exit(Duration::ZERO).unwrap()).await;
    let log = process.log();
    assert!(!end.success() && log.contains("The kubeconfig cannot be read at line 5, column"), "{log}");
    assert!(!log.contains("the-token"), "{log}");
}
