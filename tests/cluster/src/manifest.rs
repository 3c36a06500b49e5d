use std::path::Path;
use std::process::Command;

use crate::{Error, GitOps};

const RELEASE: &str = "mistral-workflows-operator";
const NAMESPACE: &str = "mistral-system";

/// What only Helm reads, or what only Helm may claim.
const MARKS: [&str; 3] = ["# Source: ", "helm.sh/chart: ", "app.kubernetes.io/managed-by: "];
/// The annotation of the CRDs, which is their only one.
const KEPT: &str = "  annotations:\n    helm.sh/resource-policy: keep\n";

impl GitOps {
    /// What the chart renders by default, with its namespace, as one file for `kubectl apply --server-side`.
    pub fn manifest(&self, chart: &Path) -> Result<String, Error> {
        let mut helm = Command::new(&self.helm);
        // Hooks are Helm's: the Job after an uninstall, and the pod of `helm test`.
        helm.args(["template", RELEASE]).arg(chart).args(["--namespace", NAMESPACE, "--no-hooks"]);
        let output = helm.output().map_err(Error::io("run helm"))?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::Command { command: "helm template".into(), output });
        }
        Ok(without_helm(&String::from_utf8_lossy(&output.stdout)))
    }
}

fn without_helm(rendered: &str) -> String {
    let namespace = format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n");
    let rendered = rendered.replace(KEPT, "");
    let lines = rendered.lines().filter(|line| {
        let text = line.trim_start();
        !text.is_empty() && !MARKS.iter().any(|mark| text.starts_with(mark))
    });
    lines.fold(namespace, |manifest, line| manifest + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_helm_are_left_out_and_nothing_else() {
        let rendered = "---\n# Source: chart/templates/crds.yaml\nmetadata:\n  annotations:\n    \
                        helm.sh/resource-policy: keep\n  labels:\n    helm.sh/chart: a-1\n    a: b\n    \
                        app.kubernetes.io/managed-by: Helm\n\n# Why.\nspec: {}\n";
        let manifest = "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: mistral-system\n\
                        ---\nmetadata:\n  labels:\n    a: b\n# Why.\nspec: {}\n";
        assert_eq!(without_helm(rendered), manifest);
    }
}
