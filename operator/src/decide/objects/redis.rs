//! One Redis: without a volume a ReplicaSet that is re-created anywhere by
//! itself, with one a StatefulSet (operator rule 13).

use super::gateway::resources;
use super::{Desired, Kind, restricted_container};
use crate::crd::RedisMode;
use crate::names::Component;
use crate::settings::Settings;
use contract::labels::REVISION;
use contract::ports;
use contract::sign::hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// User of the official Redis and Valkey images.
const USER: i64 = 999;
const CONFIG_DIR: &str = "/etc/redis";
const SECRET_DIR: &str = "/etc/redis-auth";
const DATA_DIR: &str = "/data";
/// A pod without volume leaves a lost node after this many seconds.
const NODE_LOSS_SECONDS: i32 = 30;

/// Everything Redis needs, or nothing.
#[must_use]
pub fn all(settings: &Settings) -> Vec<Desired> {
    if settings.redis_mode == RedisMode::None {
        return Vec::new();
    }
    let workload =
        if settings.persistence.is_some() { stateful_set(settings) } else { replica_set(settings) };
    vec![config_map(settings), workload]
}

/// What Redis is told; the password comes by `include`, so that this file holds no secret.
fn config(settings: &Settings) -> String {
    let persistence = if settings.persistence.is_some() {
        "appendonly yes\nsave 300 1\n"
    } else {
        "appendonly no\nsave \"\"\n"
    };
    format!(
        "include {SECRET_DIR}/auth.conf\nbind * -::*\nport {}\ndir {DATA_DIR}\n{persistence}\
         tcp-keepalive 60\nclient-output-buffer-limit pubsub 64mb 32mb 30\nmaxmemory-policy noeviction\n",
        ports::REDIS
    )
}

fn config_map(settings: &Settings) -> Desired {
    Desired::new(
        Kind::ConfigMap,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Redis), Component::Redis),
            "data": {"redis.conf": config(settings)},
        }),
    )
}

/// Revision of the pod template: the operator replaces the pod when it changes.
#[must_use]
pub fn revision(settings: &Settings) -> String {
    let text = format!("{}{}", config(settings), template(settings));
    hex(&Sha256::digest(text.as_bytes()))[..10].to_owned()
}

fn replica_set(settings: &Settings) -> Desired {
    let mut template = template(settings);
    template["metadata"]["labels"][REVISION] = json!(revision(settings));
    Desired::new(
        Kind::ReplicaSet,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Redis), Component::Redis),
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": settings.selector(Component::Redis)},
                "template": template,
            },
        }),
    )
}

fn stateful_set(settings: &Settings) -> Desired {
    let mut template = template(settings);
    template["metadata"]["labels"][REVISION] = json!(revision(settings));
    let persistence = settings.persistence.as_ref();
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": persistence.map_or("1Gi", |p| &p.size)}},
    });
    if let Some(class) = persistence.and_then(|p| p.storage_class_name.as_ref()) {
        claim["storageClassName"] = json!(class);
    }
    Desired::new(
        Kind::StatefulSet,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Redis), Component::Redis),
            "spec": {
                "replicas": 1,
                "serviceName": settings.child(Component::Redis),
                "selector": {"matchLabels": settings.selector(Component::Redis)},
                "template": template,
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
            },
        }),
    )
}

fn template(settings: &Settings) -> Value {
    let mut volumes = vec![
        json!({"name": "config", "configMap": {"name": settings.child(Component::Redis)}}),
        json!({"name": "auth", "secret": {"secretName": settings.redis_secret(), "defaultMode": 0o440}}),
    ];
    if settings.persistence.is_none() {
        volumes.push(json!({"name": "data", "emptyDir": {}}));
    }
    let mount = |name: &str, path: &str, read_only: bool| json!({"name": name, "mountPath": path, "readOnly": read_only});
    let tolerate = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOSS_SECONDS});
    json!({
        "metadata": {"labels": settings.selector(Component::Redis)},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "tolerations": [tolerate("node.kubernetes.io/not-ready"), tolerate("node.kubernetes.io/unreachable")],
            "containers": [{
                "name": "redis",
                "image": settings.redis_image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["redis-server", format!("{CONFIG_DIR}/redis.conf")],
                "ports": [{"name": "redis", "containerPort": ports::REDIS, "protocol": "TCP"}],
                "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 2, "failureThreshold": 2},
                "resources": resources(&settings.redis_resources),
                "securityContext": restricted_container(),
                "volumeMounts": [
                    mount("config", CONFIG_DIR, true), mount("auth", SECRET_DIR, true), mount("data", DATA_DIR, false),
                ],
            }],
            "volumes": volumes,
        },
    })
}
