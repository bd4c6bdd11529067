//! The broker contract: how gateways hear one another.

pub mod memory;
pub mod redis;

use crate::envelope::Envelope;
use crate::room::Room;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Instant;

/// Outcome of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The broker accepted it: every gateway with members gets it, in order.
    Accepted,
    /// The broker is lost and the room's policy is local: members here got it.
    Local,
    /// Not accepted, or unknown whether it was. Retryable.
    Unavailable,
    /// Too many publishes are waiting. Retryable.
    Limited,
}

/// Called exactly once, from any task, with the outcome of a publish.
pub type Done = Box<dyn FnOnce(Published) + Send>;

/// A subscription could not be confirmed. Retryable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to subscribe at the broker")]
pub struct SubscribeError;

/// What the hub gives a broker: where arriving messages go.
pub trait Sink: Send + Sync + 'static {
    /// Hands one message to the members of `room` here. Must never wait: the
    /// caller reads the broker's connection. Calls for one room are made in
    /// the broker's order.
    fn deliver(&self, room: &Room, envelope: Arc<Envelope>, received: Instant);
}

/// Health as told by readiness detail, metrics and the operator's sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// True once it was connected for the first time.
    pub started: bool,
    /// True while it is connected and its canary comes back.
    pub up: bool,
    /// Round trip of the last canary in seconds (0 for the memory broker).
    pub round_trip_seconds: f64,
}

/// Messages between gateways, tier `Live` (semantics section 2).
///
/// Guarantees that every implementation keeps, checked by the contract suite:
/// - **Order.** Publishes to one room by one gateway are delivered everywhere
///   in the order of the `publish` calls.
/// - **At most once.** A message is never delivered twice to one gateway; on
///   broker loss or a slow gateway it may be lost.
/// - **Barrier.** A message accepted after `subscribe` of its room resolved on
///   a gateway is delivered there. Nothing arrives after `unsubscribe`, except
///   what is already on its way.
/// - **No echo path.** The publishing gateway, too, delivers what returns from
///   the broker and nothing else; only [`Published::Local`] is delivered directly.
/// - **Loss.** While the broker is lost, `publish` answers at once with
///   `Local`, `subscribe` resolves and takes effect when the broker is back.
pub trait Broker: Send + Sync + 'static {
    /// Queues a publish in order and returns at once; `done` tells the outcome.
    fn publish(&self, room: &Room, envelope: Arc<Envelope>, done: Done);

    /// Resolves when messages of `room` arrive here.
    fn subscribe(&self, room: &Room) -> BoxFuture<'static, Result<(), SubscribeError>>;

    /// No more messages of `room` are needed.
    fn unsubscribe(&self, room: &Room);

    /// Current health.
    fn health(&self) -> Health;
}
