//! The commands of `docs/how-to/recipes.md`, run as they stand there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::*;

const HUNDRED: usize = 100;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The commands under this heading of the page: its blocks that are marked with `sh`.
fn commands(heading: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repository("docs/how-to/recipes.md")).unwrap();
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no recipe {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let blocks: Vec<String> =
        section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect();
    assert!(!blocks.is_empty(), "{heading} has no commands");
    blocks
}

/// A shell as people have it: in the repository, with kubectl and a current namespace.
struct Shell {
    folder: tempfile::TempDir,
}

impl Shell {
    fn new(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(control_plane().kubeconfig(), folder.path().join("kubeconfig")).unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(control_plane().kubectl(), bin.join("kubectl")).unwrap();
        std::os::unix::fs::symlink(repository("examples"), folder.path().join("examples")).unwrap();
        let shell = Self { folder };
        let (said, done) =
            shell.try_run(&format!("kubectl config set-context --current --namespace {}", world.namespace));
        assert!(done, "{said}");
        shell
    }

    fn try_run(&self, script: &str) -> (String, bool) {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-c", script])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("KUBECACHEDIR", self.folder.path().join("cache"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.success())
    }

    /// Runs a block that has to succeed. The test goes on with its other tasks meanwhile.
    async fn run(&self, script: &str) -> String {
        let (text, succeeded) = tokio::task::block_in_place(|| self.try_run(script));
        assert!(succeeded, "{script}\n{text}");
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_a_run_now_makes_a_new_run_each_time() {
    let world = World::new("recipe-now").await;
    let _operator = world.operator();
    world.api.register(json!({ "name": "nightly-report" })).await;
    let shell = Shell::new(&world);
    for _ in 0..2 {
        shell.run(&commands("Run a workflow now")[0]).await;
    }
    until(SOON, "both runs started", async || (world.api.starts().await == 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_ci_succeeds_with_the_run_and_fails_with_it() {
    for (workflow, succeeds) in [("echo", true), ("fail", false)] {
        let world = World::new("recipe-ci").await;
        let _operator = world.operator();
        world.execute("greet", json!({ "workflowIdentifier": workflow })).await;
        let shell = Shell::new(&world);
        let (text, succeeded) =
            tokio::task::block_in_place(|| shell.try_run(&commands("Wait in CI, and fail when the run fails")[0]));
        assert_eq!(succeeded, succeeds, "{workflow}: {text}");
        assert_eq!(text.contains("no such customer"), !succeeds, "a failure is explained: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_waiting_ends_with_the_run() {
    let world = World::new("recipe-wait").await;
    let _operator = world.operator();
    world.execute("greet", json!({ "workflowIdentifier": "slow" })).await;
    let text = Shell::new(&world).run(&commands("Wait for a run")[0]).await;
    assert_eq!(text.matches("condition met").count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_a_hundred_inputs_runs_each_once_and_the_next_ones_list_and_repeat_what_failed() {
    let world = World::new("recipe-hundred").await;
    let _operator = world.operator();
    let schema = json!({ "type": "object", "properties": { "customer": { "type": "integer" } } });
    world.api.register(json!({ "name": "invoice", "input_schema": schema })).await;
    let shell = Shell::new(&world);
    // The API refuses the last input, since its customer is no number.
    let customer = |number: usize| if number < HUNDRED { json!(number) } else { json!("nobody's") };
    let lines: Vec<String> = (1..=HUNDRED).map(|number| json!({ "customer": customer(number) }).to_string()).collect();
    std::fs::write(shell.folder.path().join("inputs.jsonl"), lines.join("\n\n") + "\n").unwrap();
    let blocks = commands("Run a hundred inputs from a file");
    shell.run(&blocks[0]).await;
    let text = shell.run(&blocks[1]).await;
    assert_eq!(text.matches("condition met").count(), HUNDRED, "{text}");
    let text = shell.run(&blocks[0]).await;
    assert_eq!(text.matches(" unchanged").count(), HUNDRED, "applied again, they stay as they are: {text}");

    let runs = world.api.executions().await;
    let mut customers: Vec<u64> = runs.iter().filter_map(|run| run["input"]["customer"].as_u64()).collect();
    customers.sort_unstable();
    assert_eq!(customers, (1..HUNDRED as u64).collect::<Vec<_>>(), "each input ran once");
    let failed = shell.run(&commands("List what failed")[0]).await;
    assert_eq!(failed.split_whitespace().take(2).collect::<Vec<_>>(), ["invoice-100", "InputRejected"]);
    assert!(failed.lines().count() == 1 && failed.contains("nothing was started"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_a_hundred_inputs_creates_nothing_if_a_line_is_no_json() {
    let world = World::bare("recipe-broken").await;
    let shell = Shell::new(&world);
    std::fs::write(shell.folder.path().join("inputs.jsonl"), "{\"a\": 1}\n{\"a\": 2\n{\"a\": 3}\n").unwrap();
    let script = &commands("Run a hundred inputs from a file")[0];
    let (text, succeeded) = tokio::task::block_in_place(|| shell.try_run(script));
    assert!(!succeeded && text.contains("error"), "{text}");
    let created = world.executions().list(&kube::api::ListParams::default()).await.unwrap().items;
    assert!(created.is_empty(), "{created:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_running_again_makes_another_run_with_the_same_input() {
    let world = World::new("recipe-again").await;
    let _operator = world.operator();
    let spec = json!({ "workflowIdentifier": "fail", "executionId": "first-try", "input": { "customer": 7 } });
    world.execute("greet", spec).await;
    world.wait_for_reason("greet", "WorkflowFailed").await;
    Shell::new(&world).run(&commands("Run again what failed")[0]).await;
    world.wait_for_reason("greet-again", "WorkflowFailed").await;
    let runs = world.api.executions().await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(runs.iter().all(|run| run["input"] == json!({ "customer": 7 })), "{runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_a_batch_cancels_all_of_its_runs_and_no_other() {
    let world = World::new("recipe-cancel").await;
    let _operator = world.operator();
    for name in ["first", "second", "other"] {
        world.execute(name, json!({ "workflowIdentifier": "hang" })).await;
        world.wait_for_reason(name, "Running").await;
    }
    let shell = Shell::new(&world);
    shell.run("kubectl label mwfx first second batch=november").await;
    shell.run(&commands("Cancel all runs of a batch")[0]).await;
    for name in ["first", "second"] {
        world.wait_for_reason(name, "Canceled").await;
    }
    assert_eq!(ready_reason(&world.executions().get("other").await.unwrap()), Some("Running"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_a_chain_passes_the_result_of_one_run_to_the_next() {
    let world = World::new("recipe-chain").await;
    let _operator = world.operator();
    world.api.register(json!({ "name": "hello-world" })).await;
    Shell::new(&world).run(&commands("Chain runs: the result of one is the input of the next")[0]).await;
    let second = world.wait("load", 2 * SOON, is_finished).await;
    assert_eq!(result(&second), Some(json!({ "extracted": { "name": "World" } })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_for_a_schedule_has_all_rights_that_its_pod_needs() {
    let world = World::new("recipe-night").await;
    let _operator = world.operator();
    world.api.register(json!({ "name": "nightly-report" })).await;
    let shell = Shell::new(&world);
    shell.run("kubectl apply -f examples/cronjob.yaml").await;
    shell.run("kubectl get configmap nightly-report -o jsonpath='{.data.execution\\.yaml}' >execution.yaml").await;
    // What the pod does, as its account. A second night makes a second run.
    let account = format!("system:serviceaccount:{}:nightly-report", world.namespace);
    for _ in 0..2 {
        shell.run(&format!("kubectl create --filename=execution.yaml --as={account}")).await;
    }
    until(SOON, "both nights ran", async || (world.api.starts().await == 2).then_some(())).await;
}
