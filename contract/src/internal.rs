//! `/internal/v1`: what the operator asks of a gateway. Every call is signed
//! (see [`crate::sign`]); unknown fields are ignored on both sides.

use serde::{Deserialize, Serialize};

/// `GET`: a [`Sample`], at most 2 KiB.
pub const SAMPLE_PATH: &str = "/internal/v1/sample";
/// `POST` [`Cordon`]: stop being ready for as long as the lease lives.
pub const CORDON_PATH: &str = "/internal/v1/cordon";
/// `POST` [`Drain`]: close transports at a rate; implies a cordon.
pub const DRAIN_PATH: &str = "/internal/v1/drain";
/// `POST`: accept again at once (load came back).
pub const UNCORDON_PATH: &str = "/internal/v1/uncordon";
/// Prefix under which peers forward Engine.IO requests to the owner of a session.
pub const FORWARD_PATH: &str = "/internal/v1/engine";

/// Seconds a cordon lasts without renewal (operator rule 2).
pub const CORDON_LEASE_SECONDS: u32 = 30;

/// Where a gateway is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
pub enum Phase {
    /// Not yet connected to its broker.
    Starting,
    /// Takes new connections.
    Accepting,
    /// Not ready: keeps what it has, is offered nothing new.
    Cordoned,
    /// Closes its transports at the drain's rate.
    Draining,
    /// Drained to the last connection, or to the deadline.
    Drained,
}

/// Renewed by the operator each tick; lapses into accepting again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cordon {
    /// Seconds from now at which the cordon lapses.
    pub lease_seconds: u32,
}

/// A paced drain. Asking again renews the lease and updates the rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// Seconds from now at which the drain lapses into accepting again.
    pub lease_seconds: u32,
    /// Transports closed a second.
    pub rate: u32,
    /// Seconds after the drain's begin at which the rest closes at once.
    pub deadline_seconds: u32,
}

/// The state of one gateway: the same counters as `/metrics`, small enough to be read every second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// UID of the pod that answers.
    pub uid: String,
    /// Phase of its life.
    pub phase: Option<Phase>,
    /// Seconds since it was cordoned; 0 when it is not.
    pub cordoned_seconds: f64,
    /// Open client connections.
    pub connections: u64,
    /// Most connections it takes (`limits.connectionsPerPod`).
    pub capacity: u64,
    /// Handshakes accepted since start.
    pub accepts_total: u64,
    /// Connections ended since start.
    pub disconnects_total: u64,
    /// Worst received-from-broker → handed to the kernel, in seconds, since the last sample.
    pub gateway_lag_seconds: f64,
    /// Round trip, in seconds, of the last canary through the broker.
    pub broker_lag_seconds: f64,
    /// CPU seconds used since start.
    pub cpu_seconds_total: f64,
    /// Bytes waiting in outboxes.
    pub outbox_bytes: u64,
    /// True while the broker is lost.
    pub degraded: bool,
    /// Hash of the configuration in use.
    pub config: String,
}
