//! Which Workspaces are refused, and which edits of them.

use super::*;

#[tokio::test]
async fn a_base_url_is_a_scheme_a_host_and_a_port_and_stays() {
    let world = World::bare("base-url").await;
    let api = workspaces(&world);
    let spec = |url: &str| json!({ "baseURL": url, "auth": { "apiKeySecretRef": { "name": "mistral", "key": "k" } } });
    for (index, url) in [
        "https://api.eu.mistral.ai",
        "https://api.mistral.ai/",
        "http://localhost:8080",
        "http://127.0.0.1:1",
        "https://[::1]",
        "http://[fd00::1.2.3.4]:8443/",
    ]
    .into_iter()
    .enumerate()
    {
        let made = create(&api, "Workspace", &format!("good-{index}"), spec(url)).await.unwrap();
        assert_eq!(made.data["spec"]["baseURL"], url);
    }
    for url in [
        "https://api.mistral.ai/v1",
        "https://api.mistral.ai//",
        "https://user@api.mistral.ai",
        "https://user:password@api.mistral.ai",
        "https://api.mistral.ai?a=b",
        "https://api.mistral.ai/?a=b",
        "https://api.mistral.ai#a",
        "ftp://api.mistral.ai",
        "file:///etc/passwd",
        "api.mistral.ai",
        "//api.mistral.ai",
        "https://api mistral ai",
        "https://api.mistral.ai\n",
        "https://api.mistral.ai\\@evil.example",
        "https://[::1",
    ] {
        let outcome = create(&api, "Workspace", "bad", spec(url)).await;
        assert_refused(url, outcome, "baseURL must be a scheme (https or http), a host and an optional port");
    }
    let long = format!("https://{}.ai", "a".repeat(250));
    assert_refused("long", create(&api, "Workspace", "bad", spec(&long)).await, "may not be more than 256 bytes");

    for patch in [json!({ "baseURL": "https://api.us.mistral.ai" }), json!({ "baseURL": null })] {
        let outcome = merge(&api, "good-0", json!({ "spec": patch })).await;
        assert_refused(&patch.to_string(), outcome, "baseURL is immutable: create another Workspace");
    }
    let patch = json!({ "spec": { "auth": { "apiKeySecretRef": { "name": "rotated" } } } });
    let patched = merge(&api, "good-0", patch).await.unwrap();
    assert_eq!(patched.data["spec"]["auth"]["apiKeySecretRef"], json!({ "name": "rotated", "key": "k" }));
}

#[tokio::test]
async fn a_workspace_without_the_whole_reference_to_its_key_is_refused() {
    let world = World::bare("auth").await;
    for (auth, words) in [
        (Value::Null, "spec.auth: Required value"),
        (json!({}), "spec.auth.apiKeySecretRef: Required value"),
        (json!({ "apiKeySecretRef": { "key": "k" } }), "spec.auth.apiKeySecretRef.name: Required value"),
        (json!({ "apiKeySecretRef": { "name": "n" } }), "spec.auth.apiKeySecretRef.key: Required value"),
        (json!({ "apiKeySecretRef": { "name": "n", "key": "" } }), "should be at least 1 chars long"),
        (json!({ "apiKeySecretRef": { "name": "../n", "key": "k" } }), "apiKeySecretRef.name in body should match"),
        (json!({ "apiKeySecretRef": { "name": "n", "key": "a/b" } }), "apiKeySecretRef.key in body should match"),
    ] {
        let outcome = create(&workspaces(&world), "Workspace", "bad", json!({ "auth": auth })).await;
        assert_refused(&auth.to_string(), outcome, words);
    }
    assert_refused("no auth", create(&workspaces(&world), "Workspace", "bad", json!({})).await, "spec.auth: Required");
}
