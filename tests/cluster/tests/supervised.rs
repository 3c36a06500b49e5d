//! The guarantees for a supervised program.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use cluster::{Supervised, stop_script};
use tempfile::TempDir;

/// Makes the test binary the process that starts supervised programs, and names their folder.
const STARTER: &str = "CLUSTER_TEST_STARTER";

fn sh(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn spawn(script: &str, folder: &TempDir) -> Supervised {
    Supervised::spawn(&sh(script), &folder.path().join("log")).unwrap()
}

/// Whether the process runs. A zombie does not.
fn runs(pid: &str) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", pid]).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn it_gets_arguments_environment_and_folder_and_its_output_is_logged() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let mut command = sh(r#"echo "$1" "$COLOUR" "$(pwd)"; echo problem >&2; cat; exit 3"#);
    command.args(["name", "an argument"]).env("COLOUR", "a colour").current_dir("/");
    let mut program = Supervised::spawn(&command, &log).unwrap();
    let status = program.wait_exit(Duration::from_secs(10)).unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(3));
    assert_eq!(read(&log), "an argument a colour /\nproblem\n");
    assert!(program.signal("TERM").is_err());
}

#[test]
fn its_pid_is_the_programs_own() {
    let folder = TempDir::new().unwrap();
    let mut program = spawn("echo $$", &folder);
    program.wait_exit(Duration::from_secs(10)).unwrap();
    assert_eq!(read(program.log()).trim(), program.pid().to_string());
}

#[test]
fn a_program_that_does_not_exist_is_explained_in_the_log() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let mut program = Supervised::spawn(&Command::new("/no/such/program"), &log).unwrap();
    let status = program.wait_exit(Duration::from_secs(10)).unwrap();
    assert_eq!(status.and_then(|status| status.code()), Some(127));
    assert!(read(&log).contains("/no/such/program"));
}

#[test]
fn it_can_be_paused_and_killed() {
    let folder = TempDir::new().unwrap();
    let mut program = spawn("while :; do echo tick; sleep 0.05; done", &folder);
    let size = |program: &Supervised| fs::metadata(program.log()).map_or(0, |log| log.len());
    eventually("it runs", || size(&program) > 0);

    program.signal("STOP").unwrap();
    sleep(Duration::from_millis(200));
    let paused = size(&program);
    sleep(Duration::from_millis(300));
    assert_eq!(size(&program), paused);

    program.signal("CONT").unwrap();
    eventually("it goes on", || size(&program) > paused);

    let pid = program.pid().to_string();
    program.signal("STOP").unwrap();
    assert!(!program.kill().unwrap().success());
    assert!(!runs(&pid));
}

#[test]
fn a_dropped_one_may_tidy_up() {
    let folder = TempDir::new().unwrap();
    let program = spawn("trap 'echo tidy; exit' TERM; echo ready; while :; do sleep 0.05; done", &folder);
    let log = program.log().to_owned();
    eventually("it is ready", || read(&log) == "ready\n");
    drop(program);
    assert_eq!(read(&log), "ready\ntidy\n");
}

#[test]
fn one_that_ignores_the_request_to_end_is_killed() {
    let folder = TempDir::new().unwrap();
    let mut program = spawn("trap '' TERM; echo ready; while :; do sleep 0.05; done", &folder);
    eventually("it is ready", || read(program.log()) == "ready\n");
    assert!(!program.stop().unwrap().success());
}

#[test]
fn children_end_when_their_starter_is_killed() {
    let folder = TempDir::new().unwrap();
    let mut starter = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "starter"])
        .env(STARTER, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pids = || read(&folder.path().join("pids"));
    eventually("the children run", || pids().ends_with('\n'));
    let children: Vec<String> = pids().split_whitespace().map(str::to_owned).collect();
    assert_eq!(children.len(), 5);
    assert!(children.iter().all(|pid| runs(pid)));

    starter.kill().unwrap();
    starter.wait().unwrap();

    let (kept, supervised) = children.split_last().unwrap();
    for pid in supervised {
        eventually("the child has ended", || !runs(pid));
    }
    assert!(runs(kept));
    assert!(sh(&format!("kill {kept}")).status().unwrap().success());
}

#[test]
fn the_script_that_stops_kept_programs_leaves_a_process_alone_that_only_has_the_number_of_one() {
    let folder = TempDir::new().unwrap();
    let mut programs = [spawn("exec sleep 600", &folder), spawn("exec sleep 600", &folder)];
    let script = stop_script(&programs).unwrap();
    // As if the number of the second one had been given to a process that started at another time.
    let (second, mark) = (programs[1].pid(), "stop_same");
    assert!(script.contains(&format!("{mark} {second} '")), "{script}");
    let script = script.replace(&format!("{mark} {second} '"), &format!("{mark} {second} '1"));
    let output = sh(&script).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(&format!("process {second} has ended before")),
        "{output:?}"
    );
    assert!(programs[0].wait_exit(Duration::from_secs(10)).unwrap().is_some());
    assert_eq!(programs[1].wait_exit(Duration::ZERO).unwrap(), None);
}

/// Not a test: the process that [`children_end_when_their_starter_is_killed`] kills.
#[test]
#[ignore = "started by another test"]
fn starter() {
    let Some(folder) = env::var_os(STARTER) else {
        return;
    };
    let folder = Path::new(&folder);
    let spawn = |script: &str| Supervised::spawn(&sh(script), &folder.join("log")).unwrap();
    let obedient = spawn("exec sleep 600");
    let deaf = spawn("trap '' HUP INT TERM; exec sleep 600");
    let paused = spawn("exec sleep 600");
    paused.signal("STOP").unwrap();
    let parent = Supervised::spawn(&sh("sleep 600 & echo $!; wait"), &folder.join("parent")).unwrap();
    eventually("the grandchild runs", || read(parent.log()).ends_with('\n'));
    let grandchild = read(parent.log());
    let mut pids = [&obedient, &deaf, &paused].map(|child| child.pid().to_string()).join(" ");
    pids += &format!(" {}", grandchild.trim());
    let kept = spawn("exec sleep 600").keep();
    pids += &format!(" {kept}\n");
    fs::write(folder.join("pids"), pids).unwrap();
    sleep(Duration::from_secs(600));
}
