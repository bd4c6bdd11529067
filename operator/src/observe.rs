//! I/O in: what the cluster and the gateways look like. A dated, partial and
//! maybe stale view; nothing is decided here.

use crate::decide::objects::Kind;
use crate::names::Component;
use crate::settings::Settings;
use crate::stores::Stores;
use contract::internal::Sample;
use contract::labels::{CLUSTER, COMPONENT, REVISION};
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A view of one RealtimeCluster's children.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Gateway sets of all revisions.
    pub sets: Vec<Set>,
    /// Gateway pods.
    pub gateway_pods: Vec<Pod>,
    /// Redis pods.
    pub redis_pods: Vec<Pod>,
    /// Template revision of the Redis set.
    pub redis_set_revision: Option<String>,
    /// Names of the gateway's ConfigMaps.
    pub config_maps: Vec<String>,
    /// Latest sample of each gateway by pod UID.
    pub samples: HashMap<String, Dated>,
    /// Live children by kind and name.
    pub children: HashMap<(Kind, String), Arc<DynamicObject>>,
}

/// A sample and when it was taken, by the operator's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Dated {
    /// When.
    pub at: SystemTime,
    /// What.
    pub sample: Sample,
    /// Handshakes accepted since the sample before, when there was one.
    pub accepts: Option<u64>,
}

/// A gateway set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: String,
    /// Its template's revision.
    pub revision: String,
    /// Its size.
    pub replicas: i32,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Address, once it has one.
    pub ip: Option<IpAddr>,
    /// Revision label.
    pub revision: String,
    /// Condition Ready.
    pub ready: bool,
    /// All containers were started.
    pub running: bool,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// The scheduler found no node.
    pub unschedulable: bool,
    /// Why a container does not start or keeps failing.
    pub trouble: Option<String>,
    /// When it was created.
    pub created: Option<SystemTime>,
    /// Deletion cost that a person or we wrote.
    pub deletion_cost: i64,
}

/// Annotation that ranks pods for the ReplicaSet controller.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

impl From<&core::Pod> for Pod {
    fn from(pod: &core::Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let condition = |kind: &str| {
            status.conditions.as_ref().and_then(|all| all.iter().find(|c| c.type_ == kind))
        };
        let containers = status.container_statuses.clone().unwrap_or_default();
        let trouble = containers.iter().find_map(|c| {
            let waiting = c.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.clone()?;
            (!["ContainerCreating", "PodInitializing"].contains(&reason.as_str())).then_some(reason)
        });
        let created = pod.creation_timestamp().map(|time| {
            SystemTime::UNIX_EPOCH
                + Duration::from_secs(u64::try_from(time.0.as_second()).unwrap_or(0))
        });
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            ip: status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
            revision: pod.labels().get(REVISION).cloned().unwrap_or_default(),
            ready: condition("Ready").is_some_and(|c| c.status == "True"),
            running: status.phase.as_deref() == Some("Running"),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            unschedulable: condition("PodScheduled").is_some_and(|c| {
                c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
            }),
            trouble,
            created,
            deletion_cost: pod
                .annotations()
                .get(DELETION_COST)
                .and_then(|c| c.parse().ok())
                .unwrap_or(0),
        }
    }
}

/// Reads the caches; samples are added by the caller.
#[must_use]
pub fn observe(settings: &Settings, stores: &Stores) -> Observed {
    let mut observed = Observed::default();
    for pod in stores.pods.state() {
        let of_ours = pod.namespace().as_deref() == Some(&settings.namespace)
            && pod.labels().get(CLUSTER) == Some(&settings.name);
        let finished = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if !of_ours || matches!(finished, Some("Failed" | "Succeeded")) {
            continue;
        }
        match pod.labels().get(COMPONENT).map(String::as_str) {
            Some("gateway") => observed.gateway_pods.push(Pod::from(&*pod)),
            Some("redis") => observed.redis_pods.push(Pod::from(&*pod)),
            _ => {}
        }
    }
    observed.gateway_pods.sort_by(|a, b| a.name.cmp(&b.name));
    for kind in Kind::ALL {
        for child in stores.children(kind) {
            let owned = child.owner_references().iter().any(|owner| owner.uid == settings.uid);
            if owned && child.namespace().as_deref() == Some(&settings.namespace) {
                observed.children.insert((kind, child.name_any()), child);
            }
        }
    }
    for ((kind, name), child) in &observed.children {
        let gateway =
            child.labels().get(COMPONENT).map(String::as_str) == Some(Component::Gateway.label());
        match (kind, gateway) {
            (Kind::ReplicaSet, true) if child.metadata.deletion_timestamp.is_none() => {
                observed.sets.push(Set {
                    name: name.clone(),
                    revision: child.labels().get(REVISION).cloned().unwrap_or_default(),
                    replicas: integer(&child.data["spec"]["replicas"]),
                })
            }
            (Kind::ReplicaSet, false) => {
                let labels = &child.data["spec"]["template"]["metadata"]["labels"];
                observed.redis_set_revision = labels[REVISION].as_str().map(str::to_owned);
            }
            (Kind::ConfigMap, true) => observed.config_maps.push(name.clone()),
            _ => {}
        }
    }
    observed.sets.sort_by(|a, b| a.name.cmp(&b.name));
    observed
}

fn integer(value: &Value) -> i32 {
    value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}
