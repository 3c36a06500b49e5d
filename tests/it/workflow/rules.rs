//! What the API server refuses of a Workflow. No operator runs in these tests.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::*;

fn assert_refused<T: std::fmt::Debug>(case: &str, outcome: kube::Result<T>, words: &str) {
    match outcome {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 422, "{case}: {}", status.message);
            assert!(status.message.contains(words), "{case}: {words:?} is not in {:?}", status.message);
        }
        other => panic!("{case}: {other:?}"),
    }
}

#[tokio::test]
async fn what_the_api_would_refuse_is_refused_before_it_gets_there() {
    let world = World::bare("wf-rules").await;
    let cases = [
        ("an empty display name", json!({ "displayName": "" }), "at least 1 chars long"),
        ("a blank display name", json!({ "displayName": " \t " }), "displayName must not be blank"),
        (
            "a display name of no-break spaces",
            json!({ "displayName": "\u{a0}\u{2003}" }),
            "displayName must not be blank",
        ),
        ("129 characters", json!({ "displayName": "x".repeat(129) }), "may not be more than 128 bytes"),
        ("a tag of 101 characters", json!({ "tags": ["ok", "t".repeat(101)] }), "may not be more than 100 bytes"),
        ("a blank tag", json!({ "tags": ["ok", "  "] }), "a tag must not be blank"),
        ("an empty tag", json!({ "tags": [""] }), "at least 1 chars long"),
        (
            "65 tags",
            json!({ "tags": (0..65).map(|n| n.to_string()).collect::<Vec<_>>() }),
            "must have at most 64 items",
        ),
        ("a number as a tag", json!({ "tags": [1] }), "must be of type string"),
        ("a word as archived", json!({ "archived": "true" }), "must be of type boolean"),
        ("an identifier with a slash", json!({ "identifier": "a/b" }), "spec.identifier in body should match"),
        ("an identifier of 129", json!({ "identifier": "w".repeat(129) }), "may not be more than 128 bytes"),
        ("an unknown policy", json!({ "managementPolicy": "Ignore" }), "supported values: \"Manage\", \"Observe\""),
        ("an unknown deletion", json!({ "deletionPolicy": "Delete" }), "supported values: \"Retain\", \"Archive\""),
        (
            "observing and archiving",
            json!({ "managementPolicy": "Observe", "deletionPolicy": "Archive" }),
            "managementPolicy Observe rules out",
        ),
    ];
    for (case, spec, words) in cases {
        assert_refused(case, world.try_workflow("refused", spec).await, words);
    }
    assert_refused("a name with a dot", world.try_workflow("a.b", json!({})).await, "set spec.identifier");
    assert_refused("a long name", world.try_workflow(&"w".repeat(129), json!({})).await, "set spec.identifier");
    let null = json!({ "identifier": null });
    assert_refused("a null identifier", world.try_workflow("a.b", null).await, "set spec.identifier");
    world.workflow("a.b", json!({ "identifier": "Some_Workflow" })).await;
}

#[tokio::test]
async fn the_limits_themselves_are_accepted_in_characters_not_bytes() {
    let world = World::bare("wf-limits").await;
    let tags: Vec<String> = (0..64).map(|n| format!("{n}{}", "ü".repeat(98))).collect();
    let spec = json!({
        "identifier": "w".repeat(128), "displayName": "ü".repeat(128), "tags": tags,
        "description": "d".repeat(16_384), "availableInChatAssistant": false, "archived": false,
    });
    world.workflow("largest", spec).await;
    let nulls = json!({
        "displayName": null, "description": null, "tags": null, "availableInChatAssistant": null, "archived": null,
    });
    let made = world.workflow("nulls", nulls.clone()).await;
    assert_eq!((made.spec.tags, made.spec.display_name), (None, None));
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workflow", "metadata": { "name": "applied" },
        "spec": nulls,
    });
    world.workflows().patch("applied", &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
}

#[tokio::test]
async fn which_workflow_it_is_cannot_be_edited() {
    let world = World::bare("wf-immutable").await;
    world.workflow("plain", json!({})).await;
    world.workflow("named", json!({ "identifier": "echo" })).await;
    let edit = async |name: &str, spec: Value| {
        let patch = Patch::Merge(json!({ "spec": spec }));
        world.workflows().patch(name, &PatchParams::default(), &patch).await
    };
    assert_refused("added", edit("plain", json!({ "identifier": "echo" })).await, "identifier is immutable");
    assert_refused("changed", edit("named", json!({ "identifier": "slow" })).await, "identifier is immutable");
    assert_refused("removed", edit("named", json!({ "identifier": null })).await, "identifier is immutable");
    assert_refused(
        "moved",
        edit("named", json!({ "workspaceRef": { "name": "x" } })).await,
        "workspaceRef is immutable",
    );
    edit("named", json!({ "managementPolicy": "Observe", "suspend": true, "tags": [] })).await.unwrap();
}

#[tokio::test]
async fn how_often_to_look_is_within_reason() {
    let world = World::new("wf-resync").await;
    let edit = async |interval: &str| {
        let patch = Patch::Merge(json!({ "spec": { "resyncInterval": interval } }));
        world.workspaces().patch("default", &PatchParams::default(), &patch).await
    };
    for wrong in ["4s", "25h", "0s"] {
        assert_refused(wrong, edit(wrong).await, "resyncInterval must be from 5s to 24h");
    }
    for wrong in ["5", "-5m", "1d", "", "five minutes", "99999999999999999h"] {
        assert!(edit(wrong).await.is_err(), "{wrong}");
    }
    for right in ["5s", "1h30m", "24h", "7.5m"] {
        edit(right).await.unwrap();
    }
    let plain = world.workspace("plain", "https://api.mistral.ai").await;
    assert_eq!(plain.spec.resync_interval, std::time::Duration::from_secs(300));
}
