//! The alerts and the dashboard, and the pages that explain what they show.

use std::collections::{BTreeMap, BTreeSet};

use mistral_workflows_operator::api::reasons::{execution, workspace};

use super::*;
use crate::promtool::promtool;

/// All expressions that are written for Prometheus: of the chart, and of the page.
fn expressions(objects: &[Value]) -> Vec<String> {
    let mut all = Vec::new();
    for object in objects {
        let rules = object["spec"]["groups"][0]["rules"].as_array();
        all.extend(rules.into_iter().flatten().map(|rule| rule["expr"].as_str().unwrap().to_owned()));
        if let Some(dashboard) = object["data"]["mistral-workflows.json"].as_str() {
            let dashboard: Value = serde_json::from_str(dashboard).unwrap();
            let panels = dashboard["panels"].as_array().unwrap().iter();
            let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
            all.extend(targets.map(|target| {
                target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$namespace", ".*")
            }));
        }
    }
    for block in page().split("```promql\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        // Each expression follows its comment.
        let mut lines = block.lines().peekable();
        while lines.next_if(|line| line.starts_with('#')).is_some() {
            let of_one = std::iter::from_fn(|| lines.next_if(|line| !line.starts_with('#')));
            all.push(of_one.collect::<Vec<_>>().join("\n"));
        }
    }
    all
}

fn page() -> String {
    std::fs::read_to_string(repository("docs/reference/metrics.md")).unwrap()
}

/// The labels of each metric that the page documents, and which the code is compared with.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = page();
    let rows = page.lines().filter(|line| line.starts_with("| `mistral_workflows_"));
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.map(|row| row.split('|').collect::<Vec<_>>())
        .map(|cells| (words(cells[1]).remove(0), words(cells[3]).into_iter().collect()))
        .collect()
}

/// The metrics that an expression selects, each with its matchers: label, operator and value.
fn selectors(expression: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let mut all = Vec::new();
    for (at, _) in expression.match_indices("mistral_workflows_") {
        let rest = &expression[at..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inner, _)| inner);
        let parts: Vec<&str> = matchers.split('"').collect();
        let matchers = parts.chunks_exact(2).map(|pair| (pair[0].trim_matches(|c: char| ",=!~".contains(c)), pair[1]));
        all.push((name, matchers.collect()));
    }
    all
}

#[tokio::test]
async fn every_expression_is_one_that_prometheus_can_read() {
    let world = World::bare("chart-expressions").await;
    let (Some(tools), Some(mut promtool)) = (tools().await, promtool().await) else { return };
    let expressions = expressions(&render(tools, &world.namespace, EVERYTHING, &[]));
    assert!(expressions.len() > 30, "{expressions:?}");
    let rules: Vec<Value> =
        (0..).zip(&expressions).map(|(n, expr): (u32, _)| json!({ "record": format!("e{n}"), "expr": expr })).collect();
    let file = json!({ "groups": [{ "name": "expressions", "rules": rules }] }).to_string();
    let said = succeed(promtool.args(["check", "rules", "--lint-fatal"]), &file);
    assert!(said.contains(&format!("{} rules found", expressions.len())), "{said}");
}

#[tokio::test]
async fn every_expression_uses_only_metrics_labels_and_values_that_are_documented() {
    let world = World::bare("chart-metrics").await;
    let Some(tools) = tools().await else { return };
    let (documented, page) =
        (documented(), page() + &std::fs::read_to_string(repository("docs/reference/reasons.md")).unwrap());
    let mut used = BTreeSet::new();
    for expression in expressions(&render(tools, &world.namespace, EVERYTHING, &[])) {
        // Those that Prometheus adds, and that of buckets.
        let mut labels = BTreeSet::from(["namespace".to_owned(), "job".to_owned(), "le".to_owned()]);
        for (name, matchers) in selectors(&expression) {
            let parts = ["_bucket", "_count", "_sum"];
            let family = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            let Some(own) = documented.get(family) else { panic!("{name} is not in docs/reference/metrics.md") };
            for (label, value) in matchers.iter().filter(|(label, _)| !["namespace", "job"].contains(label)) {
                assert!(own.contains(*label), "{name} has no label {label}: {expression}");
                for value in value.split('|').filter(|value| value.chars().all(|c| c.is_ascii_alphabetic())) {
                    assert!(page.contains(&format!("`{value}`")), "no {label} is {value}: {expression}");
                }
            }
            labels.extend(own.iter().cloned());
            used.insert(family.to_owned());
            if ["executions_finished_total", "execution_duration_seconds"].iter().any(|end| family.ends_with(end)) {
                labels.insert("workflow".into());
            }
        }
        for by in expression.split("by (").skip(1) {
            for label in by.split_once(')').unwrap().0.split(',').map(str::trim) {
                assert!(labels.contains(label), "nothing has the label {label}: {expression}");
            }
        }
    }
    assert!(used.len() > 10, "{used:?}");
}

#[tokio::test]
async fn each_alert_says_of_which_operator_it_is() {
    let world = World::bare("chart-alerts").await;
    let Some(tools) = tools().await else { return };
    let objects = render(tools, &world.namespace, "prometheusRule: { enabled: true }", &[]);
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let at = format!("namespace=\"{}\",job=\"release-mistral-workflows-operator\"", world.namespace);
    for alert in rule["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let labels = &alert["labels"];
        assert_eq!(labels["namespace"], world.namespace, "{alert}");
        assert_eq!(labels["job"], "release-mistral-workflows-operator", "{alert}");
        assert!(labels["severity"].is_string(), "{alert}");
        let expression = alert["expr"].as_str().unwrap();
        assert_eq!(expression.matches(&at).count(), expression.matches("mistral_workflows_").count(), "{alert}");
    }
}

#[test]
fn every_reason_is_in_the_table_of_what_to_do_about_it() {
    let page = std::fs::read_to_string(repository("docs/reference/reasons.md")).unwrap();
    for reason in execution::ALL.into_iter().chain(workspace::ALL) {
        assert!(page.contains(&format!("`{reason}`")), "{reason} is not in docs/reference/reasons.md");
    }
}
