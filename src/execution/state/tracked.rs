//! Which tool tracks a resource and would create it again.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Field managers of Argo CD and Flux. Argo CD may track by a label that others use as well
/// (`app.kubernetes.io/instance`); only the field manager shows that the label is Argo CD's.
pub(crate) const MANAGERS: [(&str, &str); 3] =
    [("argocd-controller", "Argo CD"), ("kustomize-controller", "Flux"), ("helm-controller", "Flux")];

/// Annotations and labels by which tools track a resource, according to their documentation: Argo CD's tracking
/// annotation or label, the labels that Flux's two controllers set on what they apply, the annotation by which Helm
/// owns a resource, the label of the members of an ApplySet, and the labels that kro and Crossplane set on what they
/// make.
pub(crate) const MARKS: [(&str, &str); 8] = [
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("meta.helm.sh/release-name", "Helm"),
    ("applyset.kubernetes.io/part-of", "an ApplySet"),
    ("kro.run/owned", "kro"),
    ("crossplane.io/composite", "Crossplane"),
];

/// Owners, by API group and kind, that run to completion and create a resource once. Any other controller would create
/// it again.
const RUN_TO_COMPLETION: [(&str, &str); 8] = [
    ("", "Pod"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("argoproj.io", "Workflow"),
    ("argoproj.io", "CronWorkflow"),
    ("tekton.dev", "TaskRun"),
    ("tekton.dev", "PipelineRun"),
    ("workflows.mistral.ai", "WorkflowExecution"),
];

/// What tracks a resource and would create it again if it were deleted; none if nothing does.
pub(crate) fn tracked_by(metadata: &ObjectMeta) -> Option<String> {
    let has = |key: &str| {
        let within = |map: &Option<BTreeMap<String, String>>| map.as_ref().is_some_and(|map| map.contains_key(key));
        within(&metadata.annotations) || within(&metadata.labels)
    };
    let wrote =
        |name: &str| metadata.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(name));
    let mark = MARKS.iter().find(|(key, _)| has(key)).map(|(_, tool)| *tool);
    let tool = mark.or_else(|| MANAGERS.iter().find(|(name, _)| wrote(name)).map(|(_, tool)| *tool));
    tool.map(str::to_owned).or_else(|| controller(metadata))
}

/// The owner that controls a resource, unless it is one that runs to completion.
fn controller(metadata: &ObjectMeta) -> Option<String> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let ends = RUN_TO_COMPLETION.contains(&(group, owner.kind.as_str()));
    (!ends).then(|| format!("{} \"{}\"", owner.kind, owner.name))
}
