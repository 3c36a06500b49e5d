//! `release-finalizers`: resources can be deleted when no operator is left.

use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::support::*;

/// Runs the command. Returns whether it succeeded, and its output.
async fn release(kubeconfig: &std::path::Path, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    command.arg("release-finalizers").args(arguments).env("KUBECONFIG", kubeconfig).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, command.output()).await.expect("an end").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Creates a resource with this finalizer and somebody else's.
async fn held(world: &World, kind: &str, name: &str, finalizer: &str, spec: serde_json::Value) {
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": kind, "spec": spec,
        "metadata": { "name": name, "finalizers": ["example.com/theirs", finalizer] },
    });
    let file = control_plane().folder().join(format!("{}-{name}.json", world.namespace));
    std::fs::write(&file, object.to_string()).unwrap();
    let (said, well) = world.kubectl(&["create", "--validate=false", "-f", file.to_str().unwrap()]).await;
    assert!(well, "{said}");
}

#[tokio::test]
async fn our_finalizers_are_taken_off_all_resources_of_a_namespace_and_others_stay() {
    let (world, elsewhere) = (World::bare("release").await, World::bare("release-not").await);
    let spec = json!({ "workflowIdentifier": "echo" });
    // More than one page of the list.
    for n in 0..520 {
        let object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "spec": spec,
            "metadata": { "name": format!("run-{n}"), "finalizers": ["workflows.mistral.ai/stop-run"] },
        });
        world.executions().create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    held(&world, "WorkflowExecution", "with-theirs", "workflows.mistral.ai/stop-run", spec.clone()).await;
    held(&world, "Workflow", "flow", "workflows.mistral.ai/archive", json!({})).await;
    held(&elsewhere, "WorkflowExecution", "other", "workflows.mistral.ai/stop-run", spec).await;
    let deleted = world.executions().delete("run-7", &DeleteParams::default()).await.unwrap();
    assert!(deleted.left().is_some_and(|object| object.metadata.deletion_timestamp.is_some()));

    let kubeconfig = control_plane().kubeconfig();
    let (well, said) = release(kubeconfig, &["--namespace", &world.namespace]).await;
    assert!(well, "{said}");
    assert!(said.contains("WorkflowExecutions: 521 released\nWorkflows: 1 released\n"), "{said}");
    let all = world.executions().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), 520, "the deleted one is gone");
    for object in all {
        let theirs: &[&str] = if object.name_any() == "with-theirs" { &["example.com/theirs"] } else { &[] };
        assert_eq!(object.finalizers(), theirs);
    }
    assert_eq!(world.workflows().get("flow").await.unwrap().finalizers(), ["example.com/theirs"]);
    assert_eq!(elsewhere.executions().get("other").await.unwrap().finalizers().len(), 2);
    let (well, said) = release(kubeconfig, &["--namespace", &world.namespace]).await;
    assert!(well && said.contains("WorkflowExecutions: 0 released\nWorkflows: 0 released\n"), "{said}");
}

#[tokio::test]
async fn of_several_namespaces_one_that_cannot_be_listed_is_named_and_does_not_keep_the_others() {
    let (denied, first) = (World::bare("release-denied").await, World::bare("release-first").await);
    let (second, elsewhere) = (World::bare("release-second").await, World::bare("release-third").await);
    let spec = json!({ "workflowIdentifier": "echo" });
    for world in [&denied, &first, &second, &elsewhere] {
        held(world, "WorkflowExecution", "run", "workflows.mistral.ai/stop-run", spec.clone()).await;
    }
    let account = Account::new(&denied).await;
    let rights = ["list", "get", "patch"].map(|verb| ("workflows.mistral.ai", "workflowexecutions", verb));
    account.may_in(&first, &rights).await;
    account.may_in(&second, &rights).await;
    let all = format!("{},{}", denied.namespace, first.namespace);
    let released = async || {
        let (well, said) = release(&account.kubeconfig, &["--namespace", &all, "--namespace", &second.namespace]).await;
        assert!(!well, "{said}");
        let sentence = format!("the WorkflowExecutions of namespace {} could not be listed", denied.namespace);
        assert!(said.contains(&sentence), "{said}");
        said.contains("WorkflowExecutions: 2 released").then_some(())
    };
    // The API server may learn of the rights a moment later.
    until(SOON, "both rights", async || {
        let may = async |world: &World| {
            world.kubectl(&["auth", "can-i", "patch", "workflowexecutions", "--as", &account.user()]).await.1
        };
        (may(&first).await && may(&second).await).then_some(())
    })
    .await;
    until(SOON, "both", released).await;
    for (world, finalizers) in [(&denied, 2), (&first, 1), (&second, 1), (&elsewhere, 2)] {
        assert_eq!(world.executions().get("run").await.unwrap().finalizers().len(), finalizers, "{}", world.namespace);
    }
    let (well, said) = release(control_plane().kubeconfig(), &["--namespace", &format!("{all},")]).await;
    assert!(!well && said.contains("--namespace has an empty entry"), "{said}");
    assert_eq!(denied.executions().get("run").await.unwrap().finalizers().len(), 2);
}

#[tokio::test]
async fn a_namespace_that_does_not_exist_is_said() {
    let world = World::bare("release-typo").await;
    let missing = format!("{}-x", world.namespace);
    let (well, said) = release(control_plane().kubeconfig(), &["--namespace", &missing]).await;
    assert!(well && said.contains(&format!("warning: the namespace {missing} does not exist")), "{said}");
    let (well, said) = release(control_plane().kubeconfig(), &["--namespace", &world.namespace]).await;
    assert!(well && !said.contains("does not exist"), "{said}");
}

#[tokio::test]
async fn without_a_cluster_or_the_permission_it_fails_and_says_why() {
    let world = World::bare("release-forbidden").await;
    let (well, said) = release("/nonexistent/kubeconfig".as_ref(), &[]).await;
    assert!(!well && said.contains("mistral-workflows-operator: "), "{said}");
    let account = Account::new(&world).await;
    let (well, said) = release(&account.kubeconfig, &["--namespace", &world.namespace]).await;
    assert!(!well && said.contains("forbidden"), "{said}");
    // The account may list, but not write.
    account
        .may(&[("workflows.mistral.ai", "workflows", "list"), ("workflows.mistral.ai", "workflowexecutions", "list")])
        .await;
    held(&world, "WorkflowExecution", "run", "workflows.mistral.ai/stop-run", json!({ "workflowIdentifier": "x" }))
        .await;
    let (well, said) = until(SOON, "the permission", async || {
        let (well, said) = release(&account.kubeconfig, &["--namespace", &world.namespace]).await;
        said.contains("released").then_some((well, said))
    })
    .await;
    assert!(!well && said.contains("finalizers that could not be released: 1"), "{said}");
    assert!(said.contains(&format!("{}/run", world.namespace)), "{said}");
}
