//! The objects a RealtimeCluster owns, as they shall be. Pure builders, one kind of part a file.

pub mod gateway;
pub mod network;
pub mod redis;

use crate::settings::Settings;
use serde_json::Value;

/// An object to be applied: the kind decides order and API, the value is what we own of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Complete manifest of the fields that are ours.
    pub object: Value,
}

/// Kinds we own, in the order of applying: what others refer to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// v1
    ServiceAccount,
    /// v1
    ConfigMap,
    /// v1
    Service,
    /// networking.k8s.io/v1
    NetworkPolicy,
    /// policy/v1
    PodDisruptionBudget,
    /// apps/v1
    StatefulSet,
    /// apps/v1
    ReplicaSet,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::StatefulSet,
        Self::ReplicaSet,
    ];

    /// Group, version, kind and plural.
    #[must_use]
    pub const fn api(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::PodDisruptionBudget => {
                ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
            }
            Self::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
        }
    }
}

impl Desired {
    /// An object of `kind`, with `apiVersion` and `kind` filled in.
    #[must_use]
    pub fn new(kind: Kind, mut object: Value) -> Self {
        let (group, version, name, _) = kind.api();
        let separator = if group.is_empty() { "" } else { "/" };
        object["apiVersion"] = format!("{group}{separator}{version}").into();
        object["kind"] = name.into();
        Self { kind, object }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Everything but the workloads whose size is decided elsewhere.
#[must_use]
pub fn fixed(settings: &Settings) -> Vec<Desired> {
    let mut all = network::all(settings);
    all.push(gateway::service_account(settings));
    all.push(gateway::config_map(settings));
    all.push(gateway::disruption_budget(settings));
    all.extend(redis::all(settings));
    all
}

/// Pod fields that every container of ours gets: the restricted profile.
#[must_use]
pub fn restricted_container() -> Value {
    serde_json::json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::crd::RealtimeCluster;
    use crate::settings::Installed;
    use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
    use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;
    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::json;

    /// A RealtimeCluster named differently from every product name, to catch swapped labels.
    pub(crate) fn settings(spec: serde_json::Value) -> Settings {
        let cluster: RealtimeCluster = serde_json::from_value(json!({
            "apiVersion": "realtime-operator.dev/v1alpha1",
            "kind": "RealtimeCluster",
            "metadata": {"name": "lobby", "namespace": "games", "uid": "u-1", "generation": 1},
            "spec": spec,
        }))
        .unwrap();
        Settings::new(
            &cluster,
            &Installed { gateway_image: "gw:1".into(), redis_image: "redis:1".into() },
        )
    }

    /// A misspelt or misplaced field would vanish in the typed round trip.
    fn is_typed<T: Serialize + DeserializeOwned>(object: &Value) {
        let typed: T = serde_json::from_value(object.clone()).unwrap();
        let back = serde_json::to_value(typed).unwrap();
        assert!(crate::drift::contains(&back, object), "fields are lost: {object:#}\n{back:#}");
    }

    #[test]
    fn every_object_survives_its_kubernetes_type() {
        for spec in [
            json!({}),
            json!({
                "redis": {"persistence": {"size": "1Gi", "storageClassName": "fast"}},
                "affinity": {"mode": "ClientIP", "timeoutSeconds": 60},
                "gateway": {"podOverrides": {"labels": {"a": "b"}, "nodeSelector": {"c": "d"},
                    "priorityClassName": "high", "imagePullSecrets": ["s"]}},
            }),
        ] {
            let settings = settings(spec);
            let mut all = fixed(&settings);
            all.push(gateway::replica_set(&settings, 3));
            for Desired { kind, object } in &all {
                match kind {
                    Kind::ServiceAccount => is_typed::<ServiceAccount>(object),
                    Kind::ConfigMap => is_typed::<ConfigMap>(object),
                    Kind::Service => is_typed::<Service>(object),
                    Kind::NetworkPolicy => is_typed::<NetworkPolicy>(object),
                    Kind::PodDisruptionBudget => is_typed::<PodDisruptionBudget>(object),
                    Kind::StatefulSet => is_typed::<StatefulSet>(object),
                    Kind::ReplicaSet => is_typed::<ReplicaSet>(object),
                }
            }
        }
    }

    #[test]
    fn selectors_are_frozen() {
        let settings = settings(json!({}));
        let set = gateway::replica_set(&settings, 1).object;
        let revision = gateway::revision(&settings);
        assert_eq!(
            set["spec"]["selector"]["matchLabels"],
            json!({
                "app.kubernetes.io/name": "realtime-cluster",
                "realtime-operator.dev/cluster": "lobby",
                "realtime-operator.dev/component": "gateway",
                "realtime-operator.dev/revision": revision,
            })
        );
    }

    /// The revision decides whether pods restart: an operator upgrade that changes
    /// it for an unchanged spec breaks operator rule 4. Raise TEMPLATE_VERSION and
    /// keep the old shape for resources that recorded the old version.
    #[test]
    fn the_revision_of_an_unchanged_spec_is_frozen() {
        assert_eq!(gateway::revision(&settings(json!({}))), "63a96e9cf5");
    }
}
