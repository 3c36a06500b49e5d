//! Where the programs come from, and the errors when they are missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use cluster::{Binaries, ControlPlane, Environment, Error};
use tempfile::TempDir;

/// Another process writes the file. A program cannot start while any process has its file open for writing (`Text file
/// busy`), and each child of this process inherits open files until it calls exec.
fn script(file: &Path, text: &str) {
    let write = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
    assert!(Command::new("/bin/sh").args(["-c", write, "sh"]).arg(file).arg(text).status().unwrap().success());
}

/// A cache folder, and a `PATH` whose `go` is the given script, or is missing.
fn with_go(folder: &TempDir, go: Option<&str>) -> Environment {
    let path = folder.path().join("path");
    fs::create_dir(&path).unwrap();
    if let Some(go) = go {
        script(&path.join("go"), go);
    }
    Environment {
        cache: Some(folder.path().join("cache")),
        path: Some(path.into_os_string()),
        ..Environment::default()
    }
}

/// A `go` that records each build in `builds`. The script `build` creates the program, whose file is `$6`.
fn fake_go(folder: &TempDir, build: &str) -> String {
    format!(
        "PATH=/usr/bin:/bin\ncase $1 in\nenv) echo go1.99.0 ;;\nbuild) echo \"$6\" >>'{}/builds'; {build} ;;\nesac",
        folder.path().display()
    )
}

fn failure(environment: &Environment) -> (Error, String) {
    let error = Binaries::find_or_build(environment).unwrap_err();
    let text = error.to_string();
    (error, text)
}

#[test]
fn without_go_the_error_says_where_to_get_it() {
    let folder = TempDir::new().unwrap();
    let (error, text) = failure(&with_go(&folder, None));
    assert!(matches!(error, Error::GoMissing { .. }), "{text}");
    assert!(text.contains("https://go.dev/dl"), "{text}");
    assert!(text.contains("KUBEBUILDER_ASSETS"), "{text}");
}

#[test]
fn an_old_go_is_named_next_to_the_one_needed() {
    let folder = TempDir::new().unwrap();
    let (error, text) = failure(&with_go(&folder, Some("echo go1.20.14")));
    assert!(matches!(error, Error::GoTooOld { .. }), "{text}");
    assert!(text.contains("go1.20.14 was found"), "{text}");
    assert!(text.contains("Go 1.26.0 or newer"), "{text}");
}

#[test]
fn a_go_that_cannot_run_is_quoted() {
    let folder = TempDir::new().unwrap();
    let (error, text) = failure(&with_go(&folder, Some("echo toolchain not available >&2; exit 1")));
    assert!(matches!(error, Error::GoBroken { .. }), "{text}");
    assert!(text.contains("toolchain not available"), "{text}");
}

#[test]
fn a_failed_build_is_quoted_and_leaves_no_half_program() {
    let folder = TempDir::new().unwrap();
    let go = fake_go(&folder, "echo half >\"$6\"; echo 'undefined: x' >&2; exit 1");
    let environment = with_go(&folder, Some(&go));
    for _ in 0..2 {
        let (error, text) = failure(&environment);
        assert!(matches!(error, Error::Build { program: "etcd", .. }), "{text}");
        assert!(text.ends_with("undefined: x"), "{text}");
    }
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let folder = TempDir::new().unwrap();
    let go = fake_go(&folder, "echo 'write /x/y.a: no space left on device' >&2; exit 1");
    let (error, text) = failure(&with_go(&folder, Some(&go)));
    assert!(matches!(error, Error::NoSpace { .. }), "{text}");
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
}

#[test]
fn two_that_start_at_once_build_once() {
    let folder = TempDir::new().unwrap();
    let go = fake_go(&folder, "sleep 0.2; echo program >\"$6\"");
    let environment = with_go(&folder, Some(&go));
    let find = || Binaries::find_or_build(&environment).unwrap();
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(find);
        let two = scope.spawn(find);
        (one.join().unwrap(), two.join().unwrap())
    });
    assert!(one.kube_apiserver.is_file());
    assert_eq!(one.kube_apiserver, two.kube_apiserver);
    let builds = fs::read_to_string(folder.path().join("builds")).unwrap();
    assert_eq!(builds.lines().count(), 4, "{builds}");
}

#[test]
fn an_older_api_server_is_built_beside_the_newest_etcd_and_kubectl() {
    let folder = TempDir::new().unwrap();
    let go = fake_go(&folder, "echo program >\"$6\"");
    let environment = Environment { kubernetes: Some("1.33".into()), ..with_go(&folder, Some(&go)) };
    let older = Binaries::find_or_build(&environment).unwrap();
    let newest = Binaries::find_or_build(&Environment { kubernetes: None, ..environment.clone() }).unwrap();
    assert!(older.kube_apiserver.to_str().unwrap().contains("/kubernetes/1.33/v1.33."), "{older:?}");
    assert_ne!(
        (&older.kube_apiserver, &older.kube_controller_manager),
        (&newest.kube_apiserver, &newest.kube_controller_manager)
    );
    assert_eq!((&older.etcd, &older.kubectl), (&newest.etcd, &newest.kubectl));
    assert_eq!(Binaries::find_or_build_for_node(&environment).unwrap().kube_apiserver, newest.kube_apiserver);
    let (_, text) = failure(&Environment { kubernetes: Some("1.32".into()), ..environment });
    assert!(text.contains("no control plane of Kubernetes 1.32"), "{text}");
}

/// A folder of programs, each of which is the given script.
fn assets(folder: &TempDir, programs: &[(&str, &str)]) -> Environment {
    for (name, text) in programs {
        script(&folder.path().join(name), text);
    }
    Environment { assets: Some(folder.path().to_owned()), ..Environment::default() }
}

#[test]
fn a_program_missing_in_the_assets_is_named() {
    let folder = TempDir::new().unwrap();
    let (error, text) = failure(&assets(&folder, &[("etcd", ""), ("kubectl", "")]));
    assert!(matches!(error, Error::AssetMissing { program: "kube-apiserver", .. }), "{text}");
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
}

#[test]
fn ready_programs_have_the_version_that_they_have() {
    let folder = TempDir::new().unwrap();
    let environment = assets(&folder, &[("etcd", ""), ("kubectl", ""), ("kube-apiserver", "")]);
    let (error, text) = failure(&Environment { kubernetes: Some("1.33".into()), ..environment });
    assert!(matches!(error, Error::VersionOfAssets { .. }), "{text}");
}

#[test]
fn assets_may_lack_the_controller_manager() {
    let folder = TempDir::new().unwrap();
    let environment = assets(&folder, &[("etcd", ""), ("kubectl", ""), ("kube-apiserver", "")]);
    let binaries = Binaries::find_or_build(&environment).unwrap();
    assert_eq!(binaries.kube_controller_manager, None);
    assert_eq!(binaries.etcd, folder.path().join("etcd"));
}

#[test]
fn for_a_node_they_may_not_lack_it() {
    let folder = TempDir::new().unwrap();
    let environment = assets(&folder, &[("etcd", ""), ("kubectl", ""), ("kube-apiserver", "")]);
    let text = Binaries::find_or_build_for_node(&environment).unwrap_err().to_string();
    let sentence = format!("KUBEBUILDER_ASSETS is {}, which has no kube-controller-manager", folder.path().display());
    assert!(text.contains(&sentence), "{text}");
    let environment = assets(&folder, &[("kube-controller-manager", "")]);
    assert!(Binaries::find_or_build_for_node(&environment).unwrap().kube_controller_manager.is_some());
}

/// Starts a control plane whose API server is the given script.
fn start_with_api_server(text: &str) -> Error {
    let folder = TempDir::new().unwrap();
    let environment = assets(&folder, &[("etcd", "exec sleep 600"), ("kube-apiserver", text), ("kubectl", "exit 1")]);
    let binaries = Binaries::find_or_build(&environment).unwrap();
    ControlPlane::start_with(&binaries).unwrap_err()
}

#[test]
fn a_component_that_ends_early_is_quoted_and_its_log_kept() {
    let error = start_with_api_server("echo unknown flag >&2; exit 1");
    let text = error.to_string();
    let Error::Ended { program: "kube-apiserver", log, .. } = error else {
        panic!("{text}");
    };
    assert!(text.ends_with("unknown flag"), "{text}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "unknown flag\n");
    let folder: PathBuf = log.parent().unwrap().to_owned();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_port_that_is_taken_is_tried_again_and_then_explained() {
    let error = start_with_api_server("echo 'listen tcp: bind: address already in use' >&2; exit 1");
    assert!(matches!(error, Error::PortTaken { .. }), "{error}");
}
