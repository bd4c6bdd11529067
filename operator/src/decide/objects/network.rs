//! Services and NetworkPolicies.

use super::{Desired, Kind};
use crate::crd::RedisMode;
use crate::names::Component;
use crate::settings::Settings;
use contract::ports;
use serde_json::json;

/// Services and policies of all parts.
#[must_use]
pub fn all(settings: &Settings) -> Vec<Desired> {
    let mut all = vec![gateway_service(settings), gateway_policy(settings)];
    if settings.redis_mode == RedisMode::Standalone {
        all.extend([redis_service(settings), redis_policy(settings)]);
    }
    all
}

/// Where clients connect. Without affinity by default: long-polling is passed on to the owner.
fn gateway_service(settings: &Settings) -> Desired {
    let mut spec = json!({
        "type": "ClusterIP",
        "selector": settings.selector(Component::Gateway),
        "ports": [{
            "name": "client", "port": ports::CLIENT, "targetPort": "client", "protocol": "TCP",
            "appProtocol": "kubernetes.io/ws",
        }],
        "sessionAffinity": "None",
    });
    if let Some(seconds) = settings.client_ip_seconds {
        spec["sessionAffinity"] = json!("ClientIP");
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
    }
    let metadata = settings.metadata(&settings.child(Component::Gateway), Component::Gateway);
    Desired::new(Kind::Service, json!({"metadata": metadata, "spec": spec}))
}

fn redis_service(settings: &Settings) -> Desired {
    Desired::new(
        Kind::Service,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Redis), Component::Redis),
            "spec": {
                "type": "ClusterIP",
                "selector": settings.selector(Component::Redis),
                "ports": [{"name": "redis", "port": ports::REDIS, "targetPort": "redis", "protocol": "TCP"}],
            },
        }),
    )
}

/// 8080 and 9090 for everybody, 9091 for the operator and this resource's gateways alone (operator rule 8).
fn gateway_policy(settings: &Settings) -> Desired {
    let port = |port: u16| json!({"port": port, "protocol": "TCP"});
    Desired::new(
        Kind::NetworkPolicy,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Gateway), Component::Gateway),
            "spec": {
                "podSelector": {"matchLabels": settings.selector(Component::Gateway)},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {"ports": [port(ports::CLIENT), port(ports::METRICS)]},
                    {
                        "ports": [port(ports::API)],
                        "from": [
                            {"podSelector": {"matchLabels": settings.selector(Component::Gateway)}},
                            {
                                "namespaceSelector": {},
                                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "realtime-operator"}},
                            },
                        ],
                    },
                ],
            },
        }),
    )
}

fn redis_policy(settings: &Settings) -> Desired {
    Desired::new(
        Kind::NetworkPolicy,
        json!({
            "metadata": settings.metadata(&settings.child(Component::Redis), Component::Redis),
            "spec": {
                "podSelector": {"matchLabels": settings.selector(Component::Redis)},
                "policyTypes": ["Ingress"],
                "ingress": [{
                    "ports": [{"port": ports::REDIS, "protocol": "TCP"}],
                    "from": [{"podSelector": {"matchLabels": settings.selector(Component::Gateway)}}],
                }],
            },
        }),
    )
}
