//! `status`: decisions, not telemetry (operator rule 7).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator found and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RealtimeClusterStatus {
    /// Generation of the spec that this status is about; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// kstatus-compatible Ready, Reconciling and Stalled, and one condition a part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// The autoscaler's last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
}

/// The gateways.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// Gateways that exist, of all revisions.
    pub replicas: i32,
    /// Gateways that take clients.
    pub ready_replicas: i32,
    /// Gateways of the current revision.
    pub updated_replicas: i32,
    /// Gateways that are being drained.
    pub draining_replicas: i32,
    /// Label selector of the gateway pods, as text, for HPA and `kubectl scale`.
    pub selector: String,
    /// Open connections when the status was last written; live figures are in the metrics.
    pub connections: i64,
    /// Current revision of the pod template.
    pub revision: String,
    /// Operator defaults in use; kept over operator upgrades until they are adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<DefaultsStatus>,
}

/// Operator defaults a resource was created with (operator rule 4).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultsStatus {
    /// Gateway image used when the spec names none.
    pub gateway_image: String,
    /// Redis image used when the spec names none.
    pub redis_image: String,
    /// Version of the pod template's shape.
    pub template: i32,
}

/// The autoscaler's last decision and why.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingStatus {
    /// Gateways in service.
    pub current: i32,
    /// Gateways wanted.
    pub desired: i32,
    /// Why, in words.
    pub reason: String,
    /// What kept the decision from going further: Minimum, Maximum, StepLimit, Window, StaleSamples, Unschedulable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
}
