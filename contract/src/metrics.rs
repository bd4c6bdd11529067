//! Names, labels and meanings of the gateway's and the operator's metrics.
//! docs/metrics.md and both expositions are compared with this table by tests.

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution in fixed buckets.
    Histogram,
}

/// One metric family. A counter is exposed with the suffix `_total`.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name without `_total`.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Meaning, with the unit.
    pub help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

/// What a gateway exposes.
pub const GATEWAY: &[Metric] = &[
    metric(
        "realtime_connections",
        Kind::Gauge,
        &["protocol", "transport"],
        "Open client connections",
    ),
    metric("realtime_connects", Kind::Counter, &["protocol", "transport"], "Handshakes accepted"),
    metric(
        "realtime_disconnects",
        Kind::Counter,
        &["protocol", "reason"],
        "Connections ended, by reason",
    ),
    metric(
        "realtime_handshake_errors",
        Kind::Counter,
        &["reason"],
        "Handshakes and namespace connects refused",
    ),
    metric(
        "realtime_handshake_seconds",
        Kind::Histogram,
        &[],
        "From the handshake request to the first namespace connected",
    ),
    metric(
        "realtime_messages_received",
        Kind::Counter,
        &["protocol"],
        "Events and acks received from clients",
    ),
    metric(
        "realtime_messages_sent",
        Kind::Counter,
        &["protocol"],
        "Packets handed to the kernel for clients",
    ),
    metric(
        "realtime_received_bytes",
        Kind::Counter,
        &["protocol"],
        "Payload bytes received from clients",
    ),
    metric(
        "realtime_sent_bytes",
        Kind::Counter,
        &["protocol"],
        "Payload bytes handed to the kernel for clients",
    ),
    metric("realtime_rooms", Kind::Gauge, &[], "Rooms with a member here"),
    metric("realtime_room_memberships", Kind::Gauge, &[], "Sum of the members of all rooms here"),
    metric(
        "realtime_publishes",
        Kind::Counter,
        &["result"],
        "Publishes by clients: ok, denied, limited, unavailable, local",
    ),
    metric(
        "realtime_events_ignored",
        Kind::Counter,
        &["reason"],
        "Client events that did nothing: no_route, bad_argument",
    ),
    metric(
        "realtime_dropped",
        Kind::Counter,
        &["reason"],
        "Deliveries dropped: outbox_full, fanout_full, envelope",
    ),
    metric("realtime_outbox_bytes", Kind::Gauge, &[], "Bytes waiting for slow clients"),
    metric("realtime_limit_hits", Kind::Counter, &["limit"], "Refusals by a configured limit"),
    metric("realtime_ping_timeouts", Kind::Counter, &[], "Connections closed for a missing pong"),
    metric(
        "realtime_pubsub_lag_seconds",
        Kind::Histogram,
        &["leg"],
        "Publish to socket write: the gateway's leg, the broker's leg, and both",
    ),
    metric("realtime_broker_up", Kind::Gauge, &["broker"], "1 while the broker is connected"),
    metric(
        "realtime_broker_reconnects",
        Kind::Counter,
        &["broker", "reason"],
        "Subscription connections made anew",
    ),
    metric(
        "realtime_broker_subscriptions",
        Kind::Gauge,
        &["broker"],
        "Rooms subscribed at the broker",
    ),
    metric(
        "realtime_forwarded_requests",
        Kind::Counter,
        &["result"],
        "Engine.IO requests passed to the pod that owns the session",
    ),
    metric("realtime_phase", Kind::Gauge, &["phase"], "1 for the phase of life the gateway is in"),
    metric("realtime_panics", Kind::Counter, &[], "Connection tasks that panicked"),
    metric(
        "redis_connection_status",
        Kind::Gauge,
        &[],
        "1 while Redis answers, 0 while it does not; absent without Redis",
    ),
    metric("http_active_connections", Kind::Gauge, &["listener"], "Open TCP connections"),
    metric(
        "http_requests",
        Kind::Counter,
        &["listener", "route", "status"],
        "HTTP requests answered",
    ),
    metric("process_cpu_seconds", Kind::Counter, &[], "User and system CPU time"),
    metric("process_resident_memory_bytes", Kind::Gauge, &[], "Resident memory"),
];

/// What the operator exposes.
pub const OPERATOR: &[Metric] = &[
    metric("realtime_operator_leader", Kind::Gauge, &[], "1 on the replica that reconciles"),
    metric(
        "realtime_operator_reconciles",
        Kind::Counter,
        &["result"],
        "Reconcile passes: ok, or the step that failed",
    ),
    metric("realtime_operator_reconcile_seconds", Kind::Histogram, &[], "Duration of a pass"),
    metric(
        "realtime_operator_writes",
        Kind::Counter,
        &["kind", "verb"],
        "Mutating requests to the API server",
    ),
    metric(
        "realtime_operator_drift_corrected",
        Kind::Counter,
        &["kind"],
        "Owned objects found changed and set right",
    ),
    metric("realtime_operator_scrapes", Kind::Counter, &["result"], "Gateway samples asked for"),
    metric(
        "realtime_operator_watch_errors",
        Kind::Counter,
        &["kind"],
        "Watches of the API server that failed and are tried again",
    ),
    metric(
        "realtime_operator_sample_age_seconds",
        Kind::Gauge,
        &["namespace", "name"],
        "Age of the oldest gateway sample in the last decision",
    ),
    metric(
        "realtime_operator_desired_replicas",
        Kind::Gauge,
        &["namespace", "name"],
        "Gateways wanted by the last decision",
    ),
];
