//! A real control plane, from start to end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use cluster::ControlPlane;
use tempfile::TempDir;

/// Makes the test binary the process that starts a control plane, and says where to write the facts.
const STARTER: &str = "CLUSTER_TEST_STARTER";

fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> String {
    let output = control_plane.kubectl_command().args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn port(kubeconfig: &Path) -> u16 {
    let text = fs::read_to_string(kubeconfig).unwrap();
    let (_, rest) = text.split_once("server: https://127.0.0.1:").unwrap();
    rest.lines().next().unwrap().parse().unwrap()
}

fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 60 s: {what}");
        sleep(Duration::from_millis(100));
    }
}

#[tokio::test]
async fn it_serves_kubectl_and_kube_until_it_is_dropped() {
    let control_plane = ControlPlane::start().unwrap();
    let port = port(control_plane.kubeconfig());
    let folder = control_plane.folder().to_owned();
    assert!(is_open(port));

    let client = control_plane.client().await.unwrap();
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.major, "1");
    assert!(version.git_version.starts_with("v1."), "{}", version.git_version);

    kubectl(&control_plane, &["create", "namespace", "one"]);
    kubectl(&control_plane, &["-n", "one", "create", "configmap", "owner"]);
    kubectl(&control_plane, &["-n", "one", "create", "configmap", "owned", "--from-literal=a=b"]);
    let value = kubectl(&control_plane, &["-n", "one", "get", "configmap", "owned", "-o", "jsonpath={.data.a}"]);
    assert_eq!(value, "b");

    drop(control_plane);
    assert!(!is_open(port));
    assert!(!folder.exists());
}

#[test]
fn its_controllers_collect_garbage_and_finish_namespaces() {
    let control_plane = ControlPlane::start().unwrap();
    kubectl(&control_plane, &["create", "namespace", "one"]);
    let in_one = |arguments: &[&str]| kubectl(&control_plane, &[&["-n", "one"], arguments].concat());
    in_one(&["create", "configmap", "owner"]);
    in_one(&["create", "configmap", "owned"]);
    let uid = in_one(&["get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}"]);
    let owner = format!(
        r#"{{"metadata":{{"ownerReferences":[{{"apiVersion":"v1","kind":"ConfigMap","name":"owner","uid":"{uid}"}}]}}}}"#
    );
    in_one(&["patch", "configmap", "owned", "-p", &owner]);
    in_one(&["delete", "configmap", "owner"]);
    eventually("the owned ConfigMap is deleted", || !in_one(&["get", "configmaps", "-o", "name"]).contains("owned"));
    kubectl(&control_plane, &["delete", "namespace", "one", "--timeout=60s"]);
}

#[test]
fn an_api_server_that_was_killed_comes_back_at_its_address_with_its_data() {
    let mut control_plane = ControlPlane::start().unwrap();
    let port = port(control_plane.kubeconfig());
    kubectl(&control_plane, &["create", "configmap", "kept", "--from-literal=a=b"]);
    control_plane.kill_api_server().unwrap();
    assert!(!is_open(port));
    control_plane.restart_api_server().unwrap();
    assert_eq!(kubectl(&control_plane, &["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]), "b");
    // The controllers reconnect with their own backoff, which may take more than a minute.
    kubectl(&control_plane, &["create", "namespace", "one"]);
    kubectl(&control_plane, &["delete", "namespace", "one", "--timeout=180s"]);
}

#[test]
fn nothing_is_left_when_its_starter_is_killed() {
    let facts = start_and_kill("killed");
    eventually("the API server has ended", || !is_open(port_in(&facts)));
    eventually("the folder is deleted", || !Path::new(facts.lines().nth(1).unwrap()).exists());
}

#[test]
fn a_kept_one_outlives_its_starter_until_its_stop_command() {
    let facts = start_and_kill("kept");
    sleep(Duration::from_secs(2));
    assert!(is_open(port_in(&facts)));
    let stop = Command::new("/bin/sh").args(["-c", facts.lines().nth(2).unwrap()]).status().unwrap();
    assert!(stop.success());
    assert!(!is_open(port_in(&facts)));
    assert!(!Path::new(facts.lines().nth(1).unwrap()).exists());
}

fn port_in(facts: &str) -> u16 {
    facts.lines().next().unwrap().parse().unwrap()
}

/// Lets a process start a control plane, kills the process, and returns the facts that it wrote: port, folder, stop
/// command.
fn start_and_kill(how: &str) -> String {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("facts");
    let mut starter = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "starter"])
        .env(STARTER, &file)
        .env("HOW", how)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let facts = || fs::read_to_string(&file).unwrap_or_default();
    while !facts().ends_with("end\n") {
        let early = starter.try_wait().unwrap();
        assert_eq!(early, None, "the starter has failed");
        sleep(Duration::from_millis(100));
    }
    starter.kill().unwrap();
    starter.wait().unwrap();
    facts()
}

/// Not a test: the process that [`start_and_kill`] kills.
#[test]
#[ignore = "started by another test"]
fn starter() {
    let Some(file) = env::var_os(STARTER) else {
        return;
    };
    let control_plane = ControlPlane::start().unwrap();
    let port = port(control_plane.kubeconfig());
    let folder = control_plane.folder().display().to_string();
    if env::var("HOW").unwrap() == "kept" {
        let stop = control_plane.keep(Vec::new()).unwrap().stop_command;
        fs::write(file, format!("{port}\n{folder}\n{stop}\nend\n")).unwrap();
        sleep(Duration::from_secs(600));
    } else {
        fs::write(file, format!("{port}\n{folder}\n\nend\n")).unwrap();
        sleep(Duration::from_secs(600));
        drop(control_plane);
    }
}
