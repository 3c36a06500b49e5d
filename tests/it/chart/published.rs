//! What the chart says of itself where it is published.

use std::collections::BTreeSet;

use kube::ResourceExt;
use mistral_workflows_operator::api::crds;

use super::*;

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

fn about() -> Value {
    serde_saphyr::from_str(&read("charts/mistral-workflows-operator/Chart.yaml")).unwrap()
}

/// An annotation for Artifact Hub that holds YAML.
fn annotation(name: &str) -> Vec<Value> {
    serde_saphyr::from_str(about()["annotations"][format!("artifacthub.io/{name}")].as_str().unwrap()).unwrap()
}

#[test]
fn artifact_hub_learns_of_each_crd_and_of_the_changes() {
    let told: BTreeSet<String> = annotation("crds")
        .iter()
        .map(|crd| {
            assert!(crd["description"].is_string() && crd["displayName"] == crd["kind"], "{crd}");
            format!("{} {} {}", crd["name"], crd["kind"], crd["version"])
        })
        .collect();
    let ours = crds()
        .into_iter()
        .map(|crd| format!("{:?} {:?} {:?}", crd.name_any(), crd.spec.names.kind, crd.spec.versions[0].name));
    assert_eq!(told, ours.collect());
    let changes = annotation("changes");
    assert!(!changes.is_empty());
    for change in changes {
        let kinds = ["added", "changed", "deprecated", "removed", "fixed", "security"];
        assert!(kinds.iter().any(|kind| change["kind"] == *kind) && change["description"].is_string(), "{change}");
    }
    assert_eq!(about()["home"], REPOSITORY);
    assert_eq!(about()["annotations"]["artifacthub.io/operator"], "true");
    serde_saphyr::from_str::<Value>(&read("charts/artifacthub-repo.yml")).unwrap();
}

#[tokio::test]
async fn the_api_server_accepts_the_examples_that_artifact_hub_shows() {
    let world = World::bare("chart-examples").await;
    let examples = annotation("crdsExamples");
    let kinds: BTreeSet<&str> = examples.iter().map(|example| example["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), crds().len());
    for example in &examples {
        let mut kubectl = control_plane().kubectl_command();
        kubectl.args(["apply", "--dry-run=server", "--validate=strict", "--namespace", &world.namespace, "-f", "-"]);
        succeed(&mut kubectl, &example.to_string());
    }
}

#[tokio::test]
async fn each_image_that_the_chart_renders_is_named_and_those_of_others_have_a_digest() {
    let world = World::bare("chart-images").await;
    let Some(tools) = tools().await else { return };
    let mut rendered = BTreeSet::new();
    for object in render(tools, &world.namespace, "", &[]) {
        let spec = if object["kind"] == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
        let containers = spec["containers"].as_array().into_iter().flatten();
        rendered.extend(containers.map(|container| container["image"].as_str().unwrap().to_owned()));
    }
    let named: BTreeSet<String> =
        annotation("images").iter().map(|image| image["image"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named, rendered);
    let (own, others): (Vec<_>, Vec<_>) = named.iter().partition(|image| image.contains("mistral-workflows-operator"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(own, [&format!("ghcr.io/mistral-workflows-operator/mistral-workflows-operator:{version}")]);
    let mut others: Vec<String> = others.into_iter().cloned().collect();
    for dockerfile in ["Dockerfile", "tests/simulator/Dockerfile"] {
        let text = read(dockerfile);
        others.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("ARG ")?.split_once("_IMAGE="))
                .map(|(_, image)| image.to_owned()),
        );
    }
    assert_eq!(others.len(), 3, "{others:?}");
    for image in others {
        let digest = image.split_once("@sha256:").map(|(_, digest)| digest.len());
        assert_eq!(digest, Some(64), "{image}");
    }
}

/// The chart is published without the files beside it.
#[tokio::test]
async fn links_from_the_chart_are_absolute_and_lead_to_pages_that_exist() {
    let world = World::bare("chart-links").await;
    let Some(tools) = tools().await else { return };
    let chart = chart();
    let arguments =
        ["install", "release", chart.to_str().unwrap(), "--dry-run=client", "--namespace", &world.namespace];
    let notes = succeed(&mut helm(tools, control_plane().kubeconfig(), &arguments), "");
    let notes = notes.split_once("NOTES:").unwrap().1;
    let readme = read("charts/mistral-workflows-operator/README.md");
    let relative = |text: &str| {
        let targets = text.split("](").skip(1);
        targets.filter(|target| !target.starts_with("https://") && !target.starts_with('#')).count()
    };
    assert_eq!(relative(&readme), 0);
    let mut found = 0;
    for text in [notes, &readme, &read("charts/mistral-workflows-operator/Chart.yaml")] {
        for link in text.split(&format!("{REPOSITORY}/blob/main/")).skip(1) {
            let link = link.split(|c: char| c.is_whitespace() || c == ')').next().unwrap();
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let page = read(path);
            let has = |heading: &str| heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == anchor;
            assert!(anchor.is_empty() || page.lines().any(|line| line.starts_with('#') && has(line)), "{link}");
            found += 1;
        }
    }
    assert!(found > 6, "{found} links");
}

/// Nobody can pull the default image before it is published.
#[tokio::test]
async fn the_notes_say_where_the_image_comes_from_and_what_to_do_if_it_is_not_there() {
    let world = World::bare("chart-notes").await;
    let Some(tools) = tools().await else { return };
    let chart = chart();
    let arguments =
        ["install", "release", chart.to_str().unwrap(), "--dry-run=client", "--namespace", &world.namespace];
    let notes = |values: &str| {
        let mut helm = helm(tools, control_plane().kubeconfig(), &arguments);
        succeed(helm.args(["--values", "-"]), values).split_once("NOTES:").unwrap().1.to_owned()
    };
    let (default, own) = (notes(""), notes("image: { repository: registry.example/operator }"));
    assert!(
        default.contains("the pods will show ImagePullBackOff") && default.contains("set image.repository"),
        "{default}"
    );
    assert!(own.contains("registry.example/operator:") && !own.contains("ImagePullBackOff"), "{own}");
}
