//! Names and labels of everything a RealtimeCluster owns. Selectors are frozen
//! by a golden test: they can never change for an object that exists.

use crate::settings::Settings;
use contract::labels::{APP_NAME, CLUSTER, COMPONENT};
use serde_json::{Value, json};

/// Part of a RealtimeCluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The gateways.
    Gateway,
    /// Redis.
    Redis,
}

impl Component {
    /// Label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Redis => "redis",
        }
    }
}

impl Settings {
    /// `NAME-gateway` or `NAME-redis`: Service, PDB, policy, ServiceAccount.
    #[must_use]
    pub fn child(&self, component: Component) -> String {
        format!("{}-{}", self.name, component.label())
    }

    /// Secret with the keys of internal calls.
    #[must_use]
    pub fn internal_secret(&self) -> String {
        format!("{}-internal", self.name)
    }

    /// Secret with Redis's password.
    #[must_use]
    pub fn redis_secret(&self) -> String {
        format!("{}-redis", self.name)
    }

    /// Prefix of keys and channels: two resources may share a Redis.
    #[must_use]
    pub fn redis_prefix(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Labels that select a component's pods, all revisions.
    #[must_use]
    pub fn selector(&self, component: Component) -> Value {
        json!({
            "app.kubernetes.io/name": APP_NAME,
            (CLUSTER): self.name,
            (COMPONENT): component.label(),
        })
    }

    /// The same as text, for `/scale`.
    #[must_use]
    pub fn selector_text(&self, component: Component) -> String {
        format!(
            "app.kubernetes.io/name={APP_NAME},{CLUSTER}={},{COMPONENT}={}",
            self.name,
            component.label()
        )
    }

    /// `metadata` of a child.
    #[must_use]
    pub fn metadata(&self, name: &str, component: Component) -> Value {
        let mut labels = self.selector(component);
        labels["app.kubernetes.io/managed-by"] = json!("realtime-operator");
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "realtime-operator.dev/v1alpha1",
                "kind": "RealtimeCluster",
                "name": self.name,
                "uid": self.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        })
    }
}
