//! The gateways: ReplicaSet of one template revision, configuration, budget.

use super::{Desired, Kind, restricted_container};
use crate::crd::RedisMode;
use crate::names::Component;
use crate::settings::Settings;
use contract::labels::REVISION;
use contract::sign::hex;
use contract::{env, ports};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const CONFIG_FILE: &str = "gateway.json";
const CONFIG_DIR: &str = "/etc/realtime/config";
const INTERNAL_DIR: &str = "/etc/realtime/internal";
const REDIS_DIR: &str = "/etc/realtime/redis";
/// User and group of the gateway's process.
const USER: i64 = 65532;

/// The pods may use the API server for nothing.
#[must_use]
pub fn service_account(settings: &Settings) -> Desired {
    Desired::new(
        Kind::ServiceAccount,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Gateway), Component::Gateway),
            "automountServiceAccountToken": false,
        }),
    )
}

fn config_text(settings: &Settings) -> String {
    serde_json::to_string_pretty(&settings.config).unwrap_or_default()
}

fn config_name(settings: &Settings) -> String {
    let hash = hex(&Sha256::digest(config_text(settings).as_bytes()));
    format!("{}-{}", settings.child(Component::Gateway), &hash[..8])
}

/// The configuration file, immutable and named by its content (operator rule 10).
#[must_use]
pub fn config_map(settings: &Settings) -> Desired {
    Desired::new(
        Kind::ConfigMap,
        json!({
            "metadata": settings.metadata(&config_name(settings), Component::Gateway),
            "immutable": true,
            "data": {CONFIG_FILE: config_text(settings)},
        }),
    )
}

/// At most a tenth of the gateways is evicted at once.
#[must_use]
pub fn disruption_budget(settings: &Settings) -> Desired {
    Desired::new(
        Kind::PodDisruptionBudget,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Gateway), Component::Gateway),
            "spec": {
                // Kubernetes rounds a percentage of maxUnavailable up, so it is at least one.
                "maxUnavailable": "10%",
                "unhealthyPodEvictionPolicy": "IfHealthyBudget",
                "selector": {"matchLabels": settings.selector(Component::Gateway)},
            },
        }),
    )
}

/// Revision of the pod template: pods of another one are replaced.
#[must_use]
pub fn revision(settings: &Settings) -> String {
    let text = template(settings).to_string();
    hex(&Sha256::digest(text.as_bytes()))[..10].to_owned()
}

/// The set of the current revision.
#[must_use]
pub fn replica_set(settings: &Settings, replicas: i32) -> Desired {
    let revision = revision(settings);
    let name = format!("{}-{revision}", settings.child(Component::Gateway));
    let mut metadata = settings.metadata(&name, Component::Gateway);
    metadata["labels"][REVISION] = json!(revision);
    let mut selector = settings.selector(Component::Gateway);
    selector[REVISION] = json!(revision);
    let mut template = template(settings);
    template["metadata"]["labels"][REVISION] = json!(revision);
    Desired::new(
        Kind::ReplicaSet,
        json!({
            "metadata": metadata,
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": selector},
                "template": template,
            },
        }),
    )
}

fn template(settings: &Settings) -> Value {
    let overrides = &settings.overrides;
    let mut labels = json!(overrides.labels);
    merge(&mut labels, &settings.selector(Component::Gateway));
    let mut spec = json!({
        "serviceAccountName": settings.child(Component::Gateway),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [spread(settings, "kubernetes.io/hostname"), spread(settings, "topology.kubernetes.io/zone")],
        "containers": [container(settings)],
        "volumes": volumes(settings),
    });
    if !overrides.node_selector.is_empty() {
        spec["nodeSelector"] = json!(overrides.node_selector);
    }
    if let Some(class) = &overrides.priority_class_name {
        spec["priorityClassName"] = json!(class);
    }
    if !overrides.image_pull_secrets.is_empty() {
        let names: Vec<_> =
            overrides.image_pull_secrets.iter().map(|n| json!({"name": n})).collect();
        spec["imagePullSecrets"] = json!(names);
    }
    let mut metadata = json!({"labels": labels});
    if !overrides.annotations.is_empty() {
        metadata["annotations"] = json!(overrides.annotations);
    }
    json!({"metadata": metadata, "spec": spec})
}

fn merge(target: &mut Value, source: &Value) {
    for (key, value) in source.as_object().into_iter().flatten() {
        target[key] = value.clone();
    }
}

/// Preferred, not required: a small cluster must still run all replicas.
fn spread(settings: &Settings, key: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": settings.selector(Component::Gateway)},
    })
}

fn container(settings: &Settings) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: String| json!({"name": name, "value": value});
    let mut environment = vec![
        field(env::POD_NAME, "metadata.name"),
        field(env::POD_IP, "status.podIP"),
        field(env::POD_UID, "metadata.uid"),
        value(env::CONFIG, format!("{CONFIG_DIR}/{CONFIG_FILE}")),
        value(env::INTERNAL_KEY_DIR, INTERNAL_DIR.into()),
        value("LOG_FORMAT", "json".into()),
    ];
    if settings.redis_mode == RedisMode::Standalone {
        environment.extend([
            value(env::REDIS_HOST, settings.child(Component::Redis)),
            value(env::REDIS_PORT, ports::REDIS.to_string()),
            value(env::REDIS_PASSWORD_FILE, format!("{REDIS_DIR}/password")),
            value(env::REDIS_PREFIX, settings.redis_prefix()),
        ]);
    }
    let port =
        |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    let probe = |path: &str, period: i32, failures: i32| {
        json!({
            "httpGet": {"path": path, "port": "metrics"},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 2,
        })
    };
    json!({
        "name": "gateway",
        "image": settings.gateway_image,
        "imagePullPolicy": "IfNotPresent",
        "env": environment,
        "ports": [port("client", ports::CLIENT), port("metrics", ports::METRICS), port("api", ports::API)],
        "readinessProbe": probe(ports::READINESS_PATH, 2, 1),
        "livenessProbe": probe(ports::LIVENESS_PATH, 10, 3),
        "resources": resources(&settings.gateway_resources),
        "securityContext": restricted_container(),
        "volumeMounts": mounts(settings),
    })
}

/// Requests and limits, without empty maps.
pub(super) fn resources(resources: &crate::crd::Resources) -> Value {
    serde_json::to_value(resources).unwrap_or_default()
}

fn mounts(settings: &Settings) -> Vec<Value> {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = vec![mount("config", CONFIG_DIR), mount("internal", INTERNAL_DIR)];
    if settings.redis_mode == RedisMode::Standalone {
        mounts.push(mount("redis", REDIS_DIR));
    }
    mounts
}

/// Secrets are mounted as directories, so that a change reaches the running gateway.
fn volumes(settings: &Settings) -> Vec<Value> {
    let secret = |name: &str, secret: String| json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}});
    let mut volumes = vec![
        json!({"name": "config", "configMap": {"name": config_name(settings)}}),
        secret("internal", settings.internal_secret()),
    ];
    if settings.redis_mode == RedisMode::Standalone {
        let mut redis = secret("redis", settings.redis_secret());
        redis["secret"]["items"] = json!([{"key": "password", "path": "password"}]);
        volumes.push(redis);
    }
    volumes
}
