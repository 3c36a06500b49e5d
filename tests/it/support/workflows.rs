//! Workflow resources of a world.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use mistral_workflows_operator::api::{Workflow, WorkflowStatus};
use serde_json::{Value, json};

use super::{SOON, World};

impl World {
    pub fn workflows(&self) -> Api<Workflow> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a Workflow with this spec.
    pub async fn workflow(&self, name: &str, spec: Value) -> Workflow {
        self.try_workflow(name, spec).await.unwrap()
    }

    pub async fn try_workflow(&self, name: &str, spec: Value) -> kube::Result<Workflow> {
        let resource = kube::api::ApiResource::erase::<Workflow>(&());
        let dynamic: Api<kube::api::DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workflow",
            "metadata": { "name": name }, "spec": spec,
        });
        // Sent as a dynamic object, because the types of this version would change the spec.
        let made = dynamic.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await?;
        Ok(made.try_parse().unwrap())
    }

    pub async fn patch_workflow(&self, name: &str, spec: Value) -> Workflow {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.workflows().patch(name, &PatchParams::default(), &patch).await.unwrap()
    }

    /// Sets the resync interval of the Workspace `default`.
    pub async fn resync(&self, interval: &str) {
        let patch = Patch::Merge(json!({ "spec": { "resyncInterval": interval } }));
        self.workspaces().patch("default", &PatchParams::default(), &patch).await.unwrap();
    }

    /// The Workflow once `condition` holds for it.
    pub async fn wait_workflow(&self, name: &str, limit: Duration, condition: impl Fn(&Workflow) -> bool) -> Workflow {
        let holds = |object: Option<&Workflow>| object.is_some_and(&condition);
        match tokio::time::timeout(limit, await_condition(self.workflows(), name, holds)).await {
            Ok(object) => object.unwrap().unwrap(),
            Err(_) => {
                let now = self.workflows().get_opt(name).await.unwrap();
                panic!("waited in vain; the workflow is now {:#?}", now.map(|now| (now.metadata, now.status)))
            }
        }
    }

    /// The Workflow once `Ready` has this reason for the current spec.
    pub async fn wait_for_workflow(&self, name: &str, reason: &str) -> Workflow {
        self.wait_workflow(name, SOON, |object| {
            let current = workflow_status(object).observed_generation == object.metadata.generation;
            current && workflow_condition(object, "Ready").is_some_and(|ready| ready.reason == reason)
        })
        .await
    }
}

pub fn workflow_status(object: &Workflow) -> WorkflowStatus {
    object.status.clone().unwrap_or_default()
}

pub fn workflow_condition<'a>(object: &'a Workflow, type_: &str) -> Option<&'a Condition> {
    object.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}
