//! Guarantees of the program and of the library.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use mistral_simulator::{Behaviour, Error, Options, Outcome, Simulator, WorkflowSpec};
use serde_json::{Value, json};

use crate::support::client;

async fn get(url: &str, token: &str) -> reqwest::Result<Value> {
    let request = client().get(url).bearer_auth(token);
    request.send().await?.json().await
}

#[tokio::test]
async fn the_program_says_where_it_listens_and_seeds_every_workspace() {
    let file = std::env::temp_dir().join(format!("workflows-{}.json", std::process::id()));
    std::fs::write(&file, r#"[{"name":"seeded"}]"#).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_mistral-simulator"))
        .args(["--listen", "127.0.0.1:0", "--workspace", "team=secret", "--workflows"])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(program.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let base = line.trim().strip_prefix("listening on ").unwrap();
    for token in ["secret", "another"] {
        let list = get(&format!("{base}/v1/workflows"), token).await.unwrap();
        assert_eq!(list["workflows"][0]["name"], "seeded");
    }
    let calls = get(&format!("{base}/__sim/calls?workspace=team"), "x").await;
    assert_eq!(calls.unwrap()["total"]["arrivals"], 1);
    program.kill().unwrap();
    program.wait().unwrap();
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn tokens_that_are_not_listed_are_refused_where_that_is_asked_for() {
    let workspaces = vec![("a".into(), "token-a".into())];
    let simulator =
        Simulator::start(Options { workspaces, only_listed_tokens: true, ..Options::default() }).await.unwrap();
    let url = format!("{}/v1/workflows", simulator.url());
    let status = async |token: &str| client().get(&url).bearer_auth(token).send().await.unwrap().status().as_u16();
    assert_eq!((status("token-a").await, status("another").await), (200, 401));
}

#[tokio::test]
async fn a_dropped_simulator_answers_no_more() {
    let simulator = Simulator::start(Options::default()).await.unwrap();
    let url = format!("{}/v1/workflows", simulator.url());
    assert!(get(&url, "t").await.is_ok());
    drop(simulator);
    tokio::task::yield_now().await;
    assert!(get(&url, "t").await.is_err());
}

#[tokio::test]
async fn options_list_workspaces_and_workflows() {
    let mut spec = WorkflowSpec::new("job");
    spec.behaviour = Some(Behaviour { outcome: Outcome::Hang, ..Behaviour::default() });
    let options =
        Options { workspaces: vec![("a".into(), "token-a".into())], workflows: vec![spec], ..Options::default() };
    let simulator = Simulator::start(options).await.unwrap();
    let url = format!("{}/v1/workflows/job", simulator.url());
    let workspace = async |token| get(&url, token).await.unwrap()["workflow"]["workspace_id"].clone();
    assert_eq!(workspace("token-a").await, workspace("token-a").await);
    assert_ne!(workspace("token-a").await, workspace("token-b").await);
}

#[tokio::test]
async fn a_workflow_that_makes_no_sense_stops_the_start() {
    let mut spec = WorkflowSpec::new("job");
    spec.input_schema = Some(json!({ "type": "nonsense" }));
    let options = Options { workflows: vec![spec], ..Options::default() };
    let failed = Simulator::start(options).await;
    assert!(matches!(failed, Err(Error::Workflow(_))));
}

#[tokio::test]
async fn an_address_in_use_stops_the_start() {
    let simulator = Simulator::start(Options::default()).await.unwrap();
    let listen = simulator.url().strip_prefix("http://").unwrap().parse().unwrap();
    let options = Options { listen, ..Options::default() };
    let failed = Simulator::start(options).await;
    assert!(matches!(failed, Err(Error::Listen { .. })));
}
