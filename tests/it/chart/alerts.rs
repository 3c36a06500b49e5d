//! The alerts, as Prometheus evaluates them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::promtool::promtool;

/// The namespace in the tests' expectations.
const NAMESPACE: &str = "mistral-system";

/// The groups of the chart's PrometheusRule.
fn groups(tools: &GitOps, values: &str) -> Value {
    let objects = render(tools, NAMESPACE, values, &[]);
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").expect("a PrometheusRule");
    rule["spec"]["groups"].clone()
}

fn rules(groups: &Value) -> &[Value] {
    groups[0]["rules"].as_array().unwrap()
}

#[tokio::test]
async fn each_alert_fires_when_it_should_and_reads_as_it_should_and_does_not_fire_when_it_should_not() {
    let world = World::bare("alerts").await;
    let (Some(tools), Some(mut promtool)) = (tools().await, promtool().await) else { return };
    let groups = groups(tools, "prometheusRule: { enabled: true }");
    let folder = control_plane().folder().join(&world.namespace);
    std::fs::create_dir(&folder).unwrap();
    // JSON is YAML.
    std::fs::write(folder.join("rules.yaml"), json!({ "groups": groups }).to_string()).unwrap();
    std::fs::copy(repository("tests/it/chart/alerts.yaml"), folder.join("alerts.yaml")).unwrap();
    promtool.current_dir(&folder);
    promtool.args(["test", "rules", "alerts.yaml"]);
    succeed(&mut promtool, "");
}

/// Each alert that a group of the file expects, and whether the group expects it to fire at any time.
fn expectations() -> Vec<BTreeMap<String, bool>> {
    let text = std::fs::read_to_string(repository("tests/it/chart/alerts.yaml")).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let mut all = Vec::new();
    for group in file["tests"].as_array().unwrap() {
        let mut of_group = BTreeMap::new();
        for expectation in group["alert_rule_test"].as_array().unwrap() {
            let alert = expectation["alertname"].as_str().unwrap().to_owned();
            *of_group.entry(alert).or_default() |= !expectation["exp_alerts"].as_array().unwrap().is_empty();
        }
        all.push(of_group);
    }
    all
}

#[tokio::test]
async fn of_each_alert_one_test_says_when_it_fires_and_another_what_does_not_make_it_fire() {
    let _world = World::bare("alerts-tested").await;
    let Some(tools) = tools().await else { return };
    let groups = groups(tools, "prometheusRule: { enabled: true }");
    let alerts: BTreeSet<&str> = rules(&groups).iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    let expectations = expectations();
    for fires in [true, false] {
        let tested = expectations.iter().flatten().filter(|(_, firing)| **firing == fires);
        assert_eq!(
            alerts,
            tested.map(|(alert, _)| alert.as_str()).collect(),
            "those that have a test, firing: {fires}"
        );
    }
}

#[tokio::test]
async fn the_link_of_each_alert_leads_to_what_the_page_says_about_it() {
    let _world = World::bare("alerts-linked").await;
    let Some(tools) = tools().await else { return };
    let page = std::fs::read_to_string(repository("docs/how-to/monitoring.md")).unwrap();
    let groups = groups(tools, "prometheusRule: { enabled: true }");
    let address = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/how-to/monitoring.md#");
    for rule in rules(&groups) {
        let alert = rule["alert"].as_str().unwrap();
        assert_eq!(rule["annotations"]["runbook_url"], format!("{address}{}", alert.to_lowercase()));
        assert!(page.contains(&format!("\n### {alert}\n")), "{alert} has no section");
    }
}

#[tokio::test]
async fn the_share_of_failed_executions_that_raises_an_alert_can_be_chosen() {
    let _world = World::bare("alerts-share").await;
    let Some(tools) = tools().await else { return };
    for share in ["1", "0.05"] {
        let groups = groups(tools, &format!("prometheusRule: {{ enabled: true, failingShare: {share} }}"));
        let mut failing = rules(&groups).iter().filter(|rule| rule["alert"] == "MistralWorkflowsExecutionsFailing");
        let expression = failing.next().unwrap()["expr"].as_str().unwrap();
        assert!(expression.trim().ends_with(&format!(">= {share}")), "{expression}");
    }
}
