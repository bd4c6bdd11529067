//! `RealtimeCluster` v1alpha1: the types are the truth, `crds/` is generated from them.
//!
//! Rules for every field (operator rules 5, 12): a documented default that is
//! never written back, a bound on every number, string and list, and a message
//! that names the remedy. Only `spec.gateway` and its `replicas` have schema
//! defaults, because GET /scale fails without a value at that path.

mod status;

pub use status::*;

use contract::config::{Auth, RoomRule, Route};
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest `metadata.name`: names of children must stay within 63 characters.
pub const NAME_MAX: usize = 40;

/// A realtime tier: gateways that unmodified Socket.IO clients connect to,
/// Redis between them, and an autoscaler that follows the connections.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "realtime-operator.dev",
    version = "v1alpha1",
    kind = "RealtimeCluster",
    plural = "realtimeclusters",
    shortname = "rtc",
    category = "realtime",
    namespaced,
    status = "RealtimeClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    cel,
    doc = "A realtime tier: gateways that unmodified Socket.IO clients connect to, Redis between them, and an autoscaler that follows the connections.",
    scale(
        spec_replicas_path = ".spec.gateway.replicas",
        status_replicas_path = ".status.gateway.replicas",
        label_selector_path = ".status.gateway.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Gateways", type_ = "integer", json_path = ".status.gateway.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.autoscaling.desired"),
    printcolumn(name = "Connections", type_ = "integer", json_path = ".status.gateway.connections"),
    printcolumn(name = "Redis", type_ = "string", json_path = ".status.conditions[?(@.type=='RedisReady')].reason"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.autoscaling.reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name must have at most 40 characters, so that the names of its Services and pods stay valid")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.redis) && has(self.redis.mode) && self.redis.mode == 'None') || (self.gateway.replicas <= 1 && !(has(self.autoscaling) && has(self.autoscaling.mode) && self.autoscaling.mode == 'BuiltIn'))").message("redis.mode None needs exactly one gateway: set gateway.replicas to 1 and autoscaling.mode to Off, or use redis.mode Standalone"),
)]
pub struct RealtimeClusterSpec {
    /// The gateways.
    #[serde(default)]
    pub gateway: GatewaySpec,
    /// Redis between the gateways. Default: one Redis without persistence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisSpec>,
    /// Whether a client stays on its gateway. Default: no, and nothing needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinitySpec>,
    /// Who decides how many gateways run. Default: `gateway.replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
}

/// The gateways.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.drain) || !has(self.terminationGraceSeconds) || self.terminationGraceSeconds >= (has(self.drain.propagationSeconds) ? self.drain.propagationSeconds : 10) + (has(self.drain.deadlineSeconds) ? self.drain.deadlineSeconds : 30) + 10").message("terminationGraceSeconds must be at least drain.propagationSeconds + drain.deadlineSeconds + 10, or the kubelet cuts the drain short"),
)]
pub struct GatewaySpec {
    /// Number of gateways when autoscaling is Off or External. Default 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Container image. Default: the image the operator was installed with when this resource was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Who may connect. Default: nobody, clients are told what to set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// What clients may do with which rooms. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rooms: Vec<RoomRule>,
    /// What each client event does. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(r, (has(r.join) ? 1 : 0) + (has(r.leave) ? 1 : 0) + (has(r.publish) ? 1 : 0) + (has(r.echo) ? 1 : 0) == 1)").message("each route must have exactly one of join, leave, publish and echo"),
    )]
    pub routes: Vec<Route>,
    /// Bounds of one gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// Socket.IO options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socketio: Option<SocketIoSpec>,
    /// How connections are closed when a gateway must go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainSpec>,
    /// Seconds a gateway has to stop. Default: drain.propagationSeconds + drain.deadlineSeconds + 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub termination_grace_seconds: Option<i32>,
    /// CPU and memory. Default: requests of 100m and 128Mi, no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Additions to the gateway pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            image: None,
            auth: None,
            rooms: Vec::new(),
            routes: Vec::new(),
            limits: None,
            socketio: None,
            drain: None,
            termination_grace_seconds: None,
            resources: None,
            pod_overrides: None,
        }
    }
}

/// Bounds of one gateway; each is metered when it is hit.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitsSpec {
    /// Most client connections of one gateway. Default 10 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections_per_pod: Option<i32>,
    /// Largest message from a client in bytes, text and attachments together. Default 1 000 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 104857600))]
    pub message_bytes: Option<i32>,
    /// Most bytes waiting for one slow client before it is disconnected. Default 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4096, max = 1073741824))]
    pub outbox_bytes: Option<i32>,
    /// Most rooms one connection may be in. Default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub rooms_per_connection: Option<i32>,
}

/// Socket.IO options; defaults are the reference server's.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SocketIoSpec {
    /// Seconds between heartbeats. Default 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub ping_interval_seconds: Option<i32>,
    /// Seconds the client has to answer one. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub ping_timeout_seconds: Option<i32>,
    /// Namespaces that exist. Default: `/` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^/[^,]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
}

/// How connections are closed when a gateway must go.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DrainSpec {
    /// Seconds between "not ready" and the first close, for endpoints and load balancers to follow. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 600))]
    pub propagation_seconds: Option<i32>,
    /// Connections closed a second, over all gateways that drain. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub rate: Option<i32>,
    /// Seconds after which the rest is closed at once. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub deadline_seconds: Option<i32>,
}

/// CPU and memory as Kubernetes quantities.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler reserves.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 8))]
    pub requests: BTreeMap<String, String>,
    /// What must not be exceeded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 8))]
    pub limits: BTreeMap<String, String>,
}

/// Additions to pods; the security context cannot be loosened.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    /// Labels; the operator's own win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Nodes by label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Names of Secrets to pull images with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub image_pull_secrets: Vec<String>,
}

/// Redis between the gateways.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.persistence) || !has(self.mode) || self.mode == 'Standalone'").message("persistence is for redis.mode Standalone: remove it or change the mode"),
    validation = Rule::new("(has(self.mode) ? self.mode : 'Standalone') == (has(oldSelf.mode) ? oldSelf.mode : 'Standalone')").message("redis.mode cannot be changed in place: create a new RealtimeCluster and move the clients"),
    validation = Rule::new("has(self.persistence) == has(oldSelf.persistence)").message("redis.persistence cannot be switched on or off in place: create a new RealtimeCluster and move the clients"),
)]
pub struct RedisSpec {
    /// `Standalone` (default): one Redis of this resource. `None`: a single gateway alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RedisMode>,
    /// Container image, compatible with the official Redis or Valkey image. Default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Keep the data on a volume. Default: in memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<PersistenceSpec>,
    /// CPU and memory. Default: requests of 50m and 64Mi, no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// What kind of Redis.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisMode {
    /// One Redis of this resource.
    #[default]
    Standalone,
    /// No Redis: one gateway alone.
    None,
}

/// A volume for Redis.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PersistenceSpec {
    /// Size of the volume. Cannot be changed in place.
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^[1-9][0-9]*(Ki|Mi|Gi|Ti)$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("persistence.size cannot be changed in place"))]
    pub size: String,
    /// StorageClass. Default: the cluster's. Cannot be changed in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("persistence.storageClassName cannot be changed in place"))]
    pub storage_class_name: Option<String>,
}

/// Whether a client stays on its gateway.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.timeoutSeconds) || (has(self.mode) && self.mode == 'ClientIP')").message("affinity.timeoutSeconds needs affinity.mode ClientIP"),
)]
pub struct AffinitySpec {
    /// `None` (default) or `ClientIP`. Long-polling works without affinity: requests are passed on to the owning gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AffinityMode>,
    /// Seconds a client's address stays with its gateway. Default 10 800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
}

/// Kind of affinity.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffinityMode {
    /// Any gateway.
    #[default]
    None,
    /// The Service keeps a client address on its gateway.
    ClientIP,
}

/// Who decides how many gateways run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.mode) || !(self.mode in ['BuiltIn', 'Advice']) || has(self.max)").message("autoscaling.mode BuiltIn and Advice need autoscaling.max"),
    validation = Rule::new("!has(self.max) || (has(self.min) ? self.min : 1) <= self.max").message("autoscaling.min must not be greater than autoscaling.max"),
)]
pub struct AutoscalingSpec {
    /// `Off` (default): gateway.replicas is the count. `BuiltIn`: the operator decides. `Advice`: it only says what it would do. `External`: an HPA or a person drives /scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AutoscalingMode>,
    /// Fewest gateways. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: Option<i32>,
    /// Most gateways. Required for BuiltIn and Advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: Option<i32>,
    /// What one gateway shall bear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSpec>,
    /// Seconds over which the demand must stay low before a gateway goes. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 86400))]
    pub scale_down_window_seconds: Option<i32>,
}

/// Who decides.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoscalingMode {
    /// `gateway.replicas` is the count.
    #[default]
    Off,
    /// The operator decides.
    BuiltIn,
    /// The operator only says what it would do.
    Advice,
    /// An HPA, KEDA or a person drives `/scale`.
    External,
}

/// What one gateway shall bear.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetSpec {
    /// Connections of one gateway. Default 5 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections: Option<i32>,
    /// Milliseconds from the broker's hand to the socket, above which a gateway is added. Default 250.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60000))]
    pub lag_milliseconds: Option<i32>,
}

fn default_replicas() -> i32 {
    2
}

/// The CRD as it is installed.
#[must_use]
pub fn definition() -> serde_json::Value {
    let mut crd = serde_json::to_value(RealtimeCluster::crd()).unwrap_or_default();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    // Nothing may read as current before the first status was written.
    schema["status"]["default"] = serde_json::json!({"observedGeneration": -1});
    keep_defaults(&mut schema["spec"], "spec");
    if let Some(parts) = schema["status"]["properties"].as_object_mut() {
        parts.values_mut().for_each(|part| keep_defaults(part, "status"));
    }
    drop_formats(&mut crd);
    crd
}

/// Leaves only the schema defaults of rule 5; `#[serde(default)]` makes schemars write more.
fn keep_defaults(schema: &mut serde_json::Value, path: &str) {
    let Some(object) = schema.as_object_mut() else { return };
    let kept = match path {
        "spec.gateway" => Some(serde_json::json!({})),
        "spec.gateway.replicas" => Some(serde_json::json!(2)),
        _ => None,
    };
    object.remove("default");
    object.extend(kept.map(|default| ("default".to_owned(), default)));
    if let Some(properties) = object.get_mut("properties").and_then(|p| p.as_object_mut()) {
        for (name, property) in properties {
            keep_defaults(property, &format!("{path}.{name}"));
        }
    }
    if let Some(items) = object.get_mut("items") {
        keep_defaults(items, &format!("{path}[]"));
    }
}

/// Formats that Kubernetes does not know only make it warn.
fn drop_formats(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            let known = ["int32", "int64", "date-time"];
            if fields.get("format").and_then(|f| f.as_str()).is_some_and(|f| !known.contains(&f)) {
                fields.remove("format");
            }
            fields.values_mut().for_each(drop_formats);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_formats),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_crd_has_the_two_defaults_of_rule_5_and_nothing_that_makes_gitops_drift() {
        let crd = definition();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        assert_eq!(schema["status"]["default"], json!({"observedGeneration": -1}));
        assert_eq!(schema["spec"]["properties"]["gateway"]["default"], json!({}));
        assert_eq!(
            schema["spec"]["properties"]["gateway"]["properties"]["replicas"]["default"],
            json!(2)
        );
        let text = crd.to_string();
        assert_eq!(text.matches("\"default\":").count(), 3, "a default was added");
        assert!(
            !text.contains("[]") && !text.contains(":null"),
            "empty lists and nulls are never in sync"
        );
        assert!(text.len() < 256 * 1024, "too large for an annotation");
    }

    /// The rules of the CRD, run here without a cluster.
    fn refusal(spec: &Value) -> String {
        let mut cluster: RealtimeCluster = serde_json::from_value(json!({
            "apiVersion": "realtime-operator.dev/v1alpha1", "kind": "RealtimeCluster",
            "metadata": {"name": "lobby"}, "spec": spec,
        }))
        .unwrap();
        cluster.status = None;
        match cluster.validate_cel() {
            Ok(()) => String::new(),
            Err(errors) => format!("{errors:?}"),
        }
    }

    #[test]
    fn rules_across_fields_name_the_remedy() {
        assert_eq!(refusal(&json!({})), "");
        assert_eq!(refusal(&json!({"redis": {"mode": "None"}, "gateway": {"replicas": 1}})), "");
        for (spec, words) in [
            (json!({"redis": {"mode": "None"}}), "set gateway.replicas to 1"),
            (json!({"autoscaling": {"mode": "BuiltIn"}}), "need autoscaling.max"),
            (
                json!({"autoscaling": {"mode": "BuiltIn", "min": 3, "max": 2}}),
                "must not be greater",
            ),
            (json!({"affinity": {"timeoutSeconds": 5}}), "needs affinity.mode ClientIP"),
            (json!({"gateway": {"routes": [{"name": "a", "event": "a"}]}}), "exactly one of"),
            (
                json!({"gateway": {"drain": {"deadlineSeconds": 60}, "terminationGraceSeconds": 30}}),
                "terminationGraceSeconds must be at least",
            ),
        ] {
            let found = refusal(&spec);
            assert!(found.contains(words), "{spec}: {found}");
        }
    }
}
