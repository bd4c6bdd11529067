//! TCP ports of a gateway pod.

/// Clients: Engine.IO at [`CLIENT_PATH`] and, without configuration, health.
pub const CLIENT: u16 = 8080;
/// Metrics and health, open inside the cluster, never exposed to clients.
pub const METRICS: u16 = 9090;
/// Server API and signed internal calls (drain, sample, peer forwarding).
pub const API: u16 = 9091;
/// Redis as the operator deploys it.
pub const REDIS: u16 = 6379;

/// Default HTTP path of the Socket.IO endpoint.
pub const CLIENT_PATH: &str = "/socket.io/";
/// Liveness: the process answers.
pub const LIVENESS_PATH: &str = "/health/liveness";
/// Readiness: clients may be sent here (false while starting, cordoned or draining).
pub const READINESS_PATH: &str = "/health/readiness";
/// Prometheus exposition.
pub const METRICS_PATH: &str = "/metrics";
