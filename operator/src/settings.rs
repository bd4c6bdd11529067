//! The spec with every default filled in: the single input of all builders and
//! decisions. Nothing here is written back.

use crate::crd::{
    AffinityMode, AutoscalingMode, DefaultsStatus, PersistenceSpec, PodOverrides, RealtimeCluster,
    RedisMode, Resources,
};
use contract::config::{DrainConfig, GatewayConfig, Limits, SocketIo};
use contract::labels;
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// Version of the gateway pod template's shape. A change of the template that
/// would restart pods needs a new version, which resources keep until they adopt it.
pub const TEMPLATE_VERSION: i32 = 1;

/// What the operator was installed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Gateway image for specs that name none.
    pub gateway_image: String,
    /// Redis image for specs that name none.
    pub redis_image: String,
}

/// A RealtimeCluster, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of the resource.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Nothing is reconciled.
    pub paused: bool,
    /// Defaults in use, for status.
    pub defaults: DefaultsStatus,
    /// Gateway image in use.
    pub gateway_image: String,
    /// Redis image in use.
    pub redis_image: String,
    /// The gateway's configuration file.
    pub config: GatewayConfig,
    /// Seconds before SIGKILL.
    pub grace_seconds: i32,
    /// Resources of a gateway.
    pub gateway_resources: Resources,
    /// Additions to gateway pods.
    pub overrides: PodOverrides,
    /// Kind of Redis.
    pub redis_mode: RedisMode,
    /// Volume of Redis.
    pub persistence: Option<PersistenceSpec>,
    /// Resources of Redis.
    pub redis_resources: Resources,
    /// Seconds of ClientIP affinity; none without.
    pub client_ip_seconds: Option<i32>,
    /// Scaling.
    pub scaling: Scaling,
}

/// How many gateways, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// Who decides.
    pub mode: AutoscalingMode,
    /// `spec.gateway.replicas`.
    pub replicas: i32,
    /// Fewest.
    pub min: i32,
    /// Most.
    pub max: i32,
    /// Connections of one gateway.
    pub target_connections: i64,
    /// Milliseconds of gateway lag above which one is added.
    pub target_lag_ms: i32,
    /// Seconds the demand must stay low.
    pub window_seconds: u64,
}

impl Settings {
    /// Fills in the defaults. The operator's own defaults are those recorded in
    /// status until the user adopts new ones (operator rule 4).
    #[must_use]
    pub fn new(cluster: &RealtimeCluster, installed: &Installed) -> Self {
        let spec = &cluster.spec;
        let recorded = cluster.status.as_ref().and_then(|s| s.gateway.as_ref()?.defaults.clone());
        let adopt = cluster.annotations().get(labels::ADOPT_DEFAULTS).is_some_and(|v| v == "true");
        let defaults = recorded.filter(|_| !adopt).unwrap_or_else(|| DefaultsStatus {
            gateway_image: installed.gateway_image.clone(),
            redis_image: installed.redis_image.clone(),
            template: TEMPLATE_VERSION,
        });
        let gateway = &spec.gateway;
        let redis = spec.redis.clone().unwrap_or_default();
        let affinity = spec.affinity.clone().unwrap_or_default();
        let drain = gateway.drain.clone().unwrap_or_default();
        let propagation = drain.propagation_seconds.unwrap_or(10);
        let deadline = drain.deadline_seconds.unwrap_or(30);
        let client_ip = affinity.mode.unwrap_or_default() == AffinityMode::ClientIP;
        Self {
            name: cluster.name_any(),
            namespace: cluster.namespace().unwrap_or_default(),
            uid: cluster.uid().unwrap_or_default(),
            generation: cluster.metadata.generation.unwrap_or(0),
            paused: cluster.annotations().get(labels::PAUSED).is_some_and(|v| v == "true"),
            gateway_image: gateway.image.clone().unwrap_or_else(|| defaults.gateway_image.clone()),
            redis_image: redis.image.unwrap_or_else(|| defaults.redis_image.clone()),
            defaults,
            config: config(cluster, propagation, deadline, drain.rate.unwrap_or(100)),
            grace_seconds: gateway.termination_grace_seconds.unwrap_or(propagation + deadline + 15),
            gateway_resources: gateway
                .resources
                .clone()
                .unwrap_or_else(|| requests("100m", "128Mi")),
            overrides: gateway.pod_overrides.clone().unwrap_or_default(),
            redis_mode: redis.mode.unwrap_or_default(),
            persistence: redis.persistence,
            redis_resources: redis.resources.unwrap_or_else(|| requests("50m", "64Mi")),
            client_ip_seconds: client_ip.then(|| affinity.timeout_seconds.unwrap_or(10_800)),
            scaling: scaling(cluster),
        }
    }
}

fn requests(cpu: &str, memory: &str) -> Resources {
    let requests = [("cpu", cpu), ("memory", memory)];
    let requests = requests.map(|(k, v)| (k.to_owned(), v.to_owned()));
    Resources { requests: BTreeMap::from(requests), limits: BTreeMap::new() }
}

/// CEL keeps every number within its range; a negative one could only come from
/// an object stored before the CRD had the rule, and becomes 0.
fn unsigned(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn config(cluster: &RealtimeCluster, propagation: i32, deadline: i32, rate: i32) -> GatewayConfig {
    let gateway = &cluster.spec.gateway;
    let limits = gateway.limits.clone().unwrap_or_default();
    let socketio = gateway.socketio.clone().unwrap_or_default();
    let defaults = (Limits::default(), SocketIo::default());
    let or = |value: Option<i32>, default: u32| value.map_or(default, unsigned);
    let millis = |seconds: Option<i32>, default| seconds.map_or(default, |s| unsigned(s) * 1000);
    GatewayConfig {
        auth: gateway.auth.clone().unwrap_or_default(),
        rooms: gateway.rooms.clone(),
        routes: gateway.routes.clone(),
        limits: Limits {
            connections_per_pod: or(limits.connections_per_pod, defaults.0.connections_per_pod),
            message_bytes: or(limits.message_bytes, defaults.0.message_bytes),
            outbox_bytes: or(limits.outbox_bytes, defaults.0.outbox_bytes),
            rooms_per_connection: or(limits.rooms_per_connection, defaults.0.rooms_per_connection),
        },
        socketio: SocketIo {
            ping_interval_ms: millis(socketio.ping_interval_seconds, defaults.1.ping_interval_ms),
            ping_timeout_ms: millis(socketio.ping_timeout_seconds, defaults.1.ping_timeout_ms),
            namespaces: if socketio.namespaces.is_empty() {
                defaults.1.namespaces
            } else {
                socketio.namespaces
            },
            ..SocketIo::default()
        },
        drain: DrainConfig {
            propagation_ms: unsigned(propagation) * 1000,
            rate: unsigned(rate),
            deadline_ms: unsigned(deadline) * 1000,
        },
    }
}

fn scaling(cluster: &RealtimeCluster) -> Scaling {
    let spec = cluster.spec.autoscaling.clone().unwrap_or_default();
    let target = spec.target.unwrap_or_default();
    let replicas = cluster.spec.gateway.replicas;
    Scaling {
        mode: spec.mode.unwrap_or_default(),
        replicas,
        min: spec.min.unwrap_or(1),
        max: spec.max.unwrap_or(replicas),
        target_connections: target.connections.unwrap_or(5_000).max(1).into(),
        target_lag_ms: target.lag_milliseconds.unwrap_or(250),
        window_seconds: u64::from(unsigned(spec.scale_down_window_seconds.unwrap_or(300))),
    }
}
