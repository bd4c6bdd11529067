//! The gateway: the data plane of a RealtimeCluster.
//!
//! Life of a message, in and out:
//!
//! ```text
//! bytes → protocol (pure codecs) → session (one task a client, bounded outbox)
//!       → route (what the event stands for) → broker ⇄ other gateways
//! broker → hub (one owner task a room) → outboxes → bytes
//! ```

pub mod api;
pub mod app;
pub mod broker;
pub mod config;
pub mod drain;
pub mod engine;
pub mod envelope;
pub mod hub;
pub mod life;
pub mod metrics;
pub mod peers;
pub mod protocol;
pub mod room;
pub mod route;
pub mod server;
pub mod session;
