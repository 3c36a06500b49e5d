//! The alerts and the dashboard, and the pages that explain what they show.

use std::collections::BTreeSet;

use mistral_workflows_operator::api::reasons::{execution, workspace};

use super::*;

#[tokio::test]
async fn every_metric_of_the_alerts_and_the_dashboard_is_documented() {
    let world = World::bare("chart-metrics").await;
    let Some(tools) = tools().await else { return };
    let documented = std::fs::read_to_string(repository("docs/reference/metrics.md")).unwrap();
    let mut used = BTreeSet::new();
    for object in render(tools, &world.namespace, EVERYTHING, &[]) {
        let text = object.to_string();
        for (at, _) in text.match_indices("mistral_workflows_") {
            let end = text[at..].find(|c: char| !c.is_ascii_lowercase() && c != '_').map_or(text.len(), |end| at + end);
            used.insert(text[at..end].to_owned());
        }
    }
    // The crate's name appears in the log directives.
    used.remove("mistral_workflows_operator");
    assert!(used.len() > 10, "{used:?}");
    for metric in used {
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|part| metric.strip_suffix(part)).unwrap_or(&metric);
        assert!(documented.contains(&format!("| `{family}` |")), "{metric} is not in docs/reference/metrics.md");
    }
}

#[tokio::test]
async fn each_alert_says_of_which_operator_it_is_and_fires_for_what_its_name_says() {
    let world = World::bare("chart-alerts").await;
    let Some(tools) = tools().await else { return };
    let objects = render(tools, &world.namespace, "prometheusRule: { enabled: true }", &[]);
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let alerts = rule["spec"]["groups"][0]["rules"].as_array().unwrap();
    let at = format!("namespace=\"{}\",job=\"release-mistral-workflows-operator\"", world.namespace);
    for alert in alerts {
        let labels = &alert["labels"];
        assert_eq!(labels["namespace"], world.namespace, "{alert}");
        assert_eq!(labels["job"], "release-mistral-workflows-operator", "{alert}");
        assert!(labels["severity"].is_string(), "{alert}");
        assert!(alert["expr"].as_str().unwrap().contains(&at), "{alert}");
    }
    let expression = |name: &str| {
        let named = |alert: &&Value| alert["alert"] == format!("MistralWorkflows{name}");
        alerts.iter().find(named).unwrap()["expr"].as_str().unwrap()
    };
    assert!(expression("CredentialRefused").contains(",reason=\"CredentialRefused\"}"));
    assert!(expression("WorkspaceNotReady").contains("reason!~\"APIUnavailable|CredentialRefused|None\""));
    assert!(expression("DriftUnseen").contains("mistral_workflows_drift_overdue_seconds{"));
}

#[test]
fn every_reason_is_in_the_table_of_what_to_do_about_it() {
    let page = std::fs::read_to_string(repository("docs/reference/reasons.md")).unwrap();
    for reason in execution::ALL.into_iter().chain(workspace::ALL) {
        assert!(page.contains(&format!("`{reason}`")), "{reason} is not in docs/reference/reasons.md");
    }
}
