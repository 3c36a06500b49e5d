//! A service account that has only the rights that a test grants.

use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{World, control_plane};

pub struct Account {
    pub kubeconfig: PathBuf,
    client: Client,
    namespace: String,
}

/// API group, resource and verb.
type Permission<'a> = (&'a str, &'a str, &'a str);

impl Account {
    /// Creates a service account in the world's namespace.
    pub async fn new(world: &World) -> Self {
        let (client, namespace) = (world.client.clone(), world.namespace.clone());
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        let account = serde_json::from_value(json!({ "metadata": { "name": "operator" } })).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let token = accounts.create_token_request("operator", &PostParams::default(), &request).await.unwrap();
        let text = std::fs::read_to_string(control_plane().kubeconfig()).unwrap();
        let lines = text.lines().map(|line| match line.split_once("token: ") {
            Some((indent, _)) => format!("{indent}token: {}", token.status.as_ref().unwrap().token),
            None => line.to_owned(),
        });
        let kubeconfig = control_plane().folder().join(format!("kubeconfig-{namespace}"));
        std::fs::write(&kubeconfig, lines.collect::<Vec<_>>().join("\n")).unwrap();
        Self { kubeconfig, client, namespace }
    }

    /// The account's user name for the API server.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:operator", self.namespace)
    }

    /// Grants these permissions in the account's namespace.
    pub async fn may(&self, permissions: &[Permission<'_>]) {
        self.may_in_namespace(&self.namespace, permissions).await;
    }

    /// Grants these permissions in another world's namespace.
    pub async fn may_in(&self, world: &World, permissions: &[Permission<'_>]) {
        self.may_in_namespace(&world.namespace, permissions).await;
    }

    async fn may_in_namespace(&self, namespace: &str, permissions: &[Permission<'_>]) {
        let (roles, bindings): (Api<Role>, Api<RoleBinding>) =
            (Api::namespaced(self.client.clone(), namespace), Api::namespaced(self.client.clone(), namespace));
        self.grant(&roles, &bindings, "Role", permissions).await;
    }

    /// Grants these permissions in all namespaces.
    pub async fn may_in_all(&self, permissions: &[Permission<'_>]) {
        let (roles, bindings): (Api<ClusterRole>, Api<ClusterRoleBinding>) =
            (Api::all(self.client.clone()), Api::all(self.client.clone()));
        self.grant(&roles, &bindings, "ClusterRole", permissions).await;
    }

    async fn grant<R, B>(&self, roles: &Api<R>, bindings: &Api<B>, kind: &str, permissions: &[Permission<'_>])
    where
        R: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
        B: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let rules: Vec<Value> = permissions
            .iter()
            .map(|(group, resource, verb)| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }))
            .collect();
        let metadata = json!({ "generateName": format!("{}-", self.namespace) });
        let role = serde_json::from_value(json!({ "metadata": metadata, "rules": rules })).unwrap();
        let role = roles.create(&PostParams::default(), &role).await.unwrap();
        let binding = json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role.meta().name },
            "subjects": [{ "kind": "ServiceAccount", "name": "operator", "namespace": self.namespace }],
        });
        bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    }
}
