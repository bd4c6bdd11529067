//! The gateway's configuration file, and the parts of it that the resource
//! carries in `spec.gateway`. Unknown fields are ignored (an older gateway
//! reads a newer operator's file); every field has a default.

use crate::pattern;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most rooms rules and most routes of one configuration.
pub const RULES_MAX: usize = 64;
/// Longest room name in bytes.
pub const ROOM_NAME_MAX: usize = 255;

/// Everything a gateway is told by file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayConfig {
    /// Who may connect. Nothing said = every client is refused.
    pub auth: Auth,
    /// What may be done with which rooms. Nothing said = no join, no publish.
    pub rooms: Vec<RoomRule>,
    /// What each client event does. An event without a route is ignored and counted.
    pub routes: Vec<Route>,
    /// Bounds of one pod.
    pub limits: Limits,
    /// Socket.IO and Engine.IO options.
    pub socketio: SocketIo,
    /// How connections are closed when the pod must go.
    pub drain: DrainConfig,
}

/// Who may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// Let everybody in, without identity. Default false: clients are refused
    /// with a message that says what to set.
    #[serde(skip_serializing_if = "is_false")]
    pub anonymous: bool,
}

/// What clients may do with the rooms that a pattern covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomRule {
    /// Name of the rule, unique in the list.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Room name, or a prefix that ends in `*`. An exact name wins over a
    /// prefix, a longer prefix over a shorter one; list order never matters.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 255))]
    pub pattern: String,
    /// What is allowed. Nothing = nothing.
    #[serde(default)]
    pub allow: Allow,
}

/// Rights on a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Allow {
    /// Clients may join. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub join: bool,
    /// Clients may publish. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub publish: bool,
}

/// What one client event does. Exactly one of `join`, `leave`, `publish` and `echo` is set.
///
/// Rooms and data are picked from the event's arguments by expressions: `$[0]`
/// is the first argument, `$[1].a.b` a field of the second, `$.room` a field of
/// the first; alternatives are separated by `||` and the first that exists wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Name of the route, unique in the list.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The client's event name.
    #[schemars(length(min = 1, max = 128))]
    pub event: String,
    /// Join a room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<RoomTarget>,
    /// Leave a room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<RoomTarget>,
    /// Publish to a room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// Acknowledge with the event's own arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<Echo>,
}

/// The room that a route is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomTarget {
    /// Expression that gives the room's name.
    #[schemars(length(min = 1, max = 256))]
    pub room: String,
}

/// A publish by a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// Expression that gives the room's name.
    #[schemars(length(min = 1, max = 256))]
    pub room: String,
    /// Event the members receive. Default `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub event: Option<String>,
    /// Expression that gives the one argument the members receive. Default:
    /// all arguments, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub data: Option<String>,
}

/// Acknowledge with the event's own arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Echo {}

/// Bounds of one pod; each is metered when it is hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Most client connections. Default 10 000; more are refused with 503.
    pub connections_per_pod: u32,
    /// Largest message from a client in bytes, which is also Engine.IO's `maxPayload`. Default 1 000 000, as the reference server.
    pub message_bytes: u32,
    /// Most bytes waiting for one slow client before it is disconnected. Default 1 MiB.
    pub outbox_bytes: u32,
    /// Most rooms one connection may be in. Default 128.
    pub rooms_per_connection: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_pod: 10_000,
            message_bytes: 1_000_000,
            outbox_bytes: 1 << 20,
            rooms_per_connection: 128,
        }
    }
}

/// Options of the Socket.IO protocol; defaults are the reference server's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SocketIo {
    /// Milliseconds between heartbeats. Default 25 000.
    pub ping_interval_ms: u32,
    /// Milliseconds the client has to answer one. Default 20 000.
    pub ping_timeout_ms: u32,
    /// Milliseconds a client has to finish a transport upgrade. Default 10 000.
    pub upgrade_timeout_ms: u32,
    /// Milliseconds a client has to connect to a namespace. Default 45 000.
    pub connect_timeout_ms: u32,
    /// Namespaces that exist. Default `["/"]`.
    pub namespaces: Vec<String>,
    /// HTTP path. Default `/socket.io/`.
    pub path: String,
}

impl Default for SocketIo {
    fn default() -> Self {
        Self {
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            upgrade_timeout_ms: 10_000,
            connect_timeout_ms: 45_000,
            namespaces: vec!["/".into()],
            path: crate::ports::CLIENT_PATH.into(),
        }
    }
}

/// How connections are closed when the pod must go, by SIGTERM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DrainConfig {
    /// Milliseconds between "not ready" and the first close, for endpoints to follow. Default 0 alone, 10 000 under the operator.
    pub propagation_ms: u32,
    /// Transports closed a second. Default 100.
    pub rate: u32,
    /// Milliseconds after which the rest closes at once. Default 5 000 alone, 30 000 under the operator.
    pub deadline_ms: u32,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { propagation_ms: 0, rate: 100, deadline_ms: 5_000 }
    }
}

/// One mistake in a configuration: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Path of the field.
    pub field: String,
    /// What is wrong and the remedy.
    pub message: String,
}

impl GatewayConfig {
    /// The server that runs without any configuration: everybody may connect,
    /// join and publish. Announced in its log; never used under the operator.
    #[must_use]
    pub fn development() -> Self {
        let room = |room: &str| Some(RoomTarget { room: room.into() });
        let route = |name: &str| Route {
            name: name.into(),
            event: name.into(),
            join: None,
            leave: None,
            publish: None,
            echo: None,
        };
        Self {
            auth: Auth { anonymous: true },
            rooms: vec![RoomRule {
                name: "all".into(),
                pattern: "*".into(),
                allow: Allow { join: true, publish: true },
            }],
            routes: vec![
                Route { join: room("$[0]"), ..route("joinRoom") },
                Route { leave: room("$[0]"), ..route("leaveRoom") },
                Route {
                    publish: Some(Publish {
                        room: "$.room || $.roomId || $[0]".into(),
                        event: None,
                        data: Some("$[1] || $[0]".into()),
                    }),
                    ..route("sendMessage")
                },
                Route { echo: Some(Echo {}), ..route("echo") },
            ],
            ..Self::default()
        }
    }

    /// The rights on `room`: those of the best pattern, or none.
    #[must_use]
    pub fn allow(&self, room: &str) -> Allow {
        pattern::best(&self.rooms, |rule| &rule.pattern, room).map(|r| r.allow).unwrap_or_default()
    }

    /// All mistakes at once; empty when the configuration is sound.
    #[must_use]
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        let mut wrong = |field: String, message: &str| {
            found.push(Mistake { field, message: message.into() });
        };
        for (list, length) in [("rooms", self.rooms.len()), ("routes", self.routes.len())] {
            if length > RULES_MAX {
                wrong(list.into(), "has more than 64 entries: merge some by a wider pattern");
            }
        }
        for (index, rule) in self.rooms.iter().enumerate() {
            if rule.pattern.is_empty() || rule.pattern.trim_end_matches('*').contains('*') {
                wrong(
                    format!("rooms[{index}].match"),
                    "must be a room name, or a prefix followed by one *",
                );
            }
        }
        for (index, route) in self.routes.iter().enumerate() {
            let actions = usize::from(route.join.is_some())
                + usize::from(route.leave.is_some())
                + usize::from(route.publish.is_some())
                + usize::from(route.echo.is_some());
            if actions != 1 {
                wrong(
                    format!("routes[{index}]"),
                    "must have exactly one of join, leave, publish and echo",
                );
            }
            let twin = self.routes[..index].iter().any(|other| other.event == route.event);
            if twin {
                wrong(
                    format!("routes[{index}].event"),
                    "is already routed: an event has one route",
                );
            }
        }
        let limits = &self.limits;
        for (field, value) in [
            ("limits.connectionsPerPod", limits.connections_per_pod),
            ("limits.messageBytes", limits.message_bytes),
            ("limits.outboxBytes", limits.outbox_bytes),
            ("limits.roomsPerConnection", limits.rooms_per_connection),
            ("socketio.pingIntervalMs", self.socketio.ping_interval_ms),
            ("socketio.pingTimeoutMs", self.socketio.ping_timeout_ms),
            ("drain.rate", self.drain.rate),
        ] {
            if value == 0 {
                wrong(field.into(), "must be at least 1");
            }
        }
        if !self.socketio.path.starts_with('/') || !self.socketio.path.ends_with('/') {
            wrong("socketio.path".into(), "must begin and end with /");
        }
        if self.socketio.namespaces.iter().any(|n| !n.starts_with('/') || n.contains(',')) {
            wrong("socketio.namespaces".into(), "each must begin with / and hold no comma");
        }
        found
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_development_configuration_is_sound_and_the_empty_one_refuses() {
        assert_eq!(GatewayConfig::development().mistakes(), vec![]);
        let empty = GatewayConfig::default();
        assert_eq!(empty.mistakes(), vec![]);
        assert!(!empty.auth.anonymous);
        assert_eq!(empty.allow("chat:1"), Allow::default());
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut config = GatewayConfig::development();
        config.routes[1].event = "joinRoom".into();
        config.routes[2].echo = Some(Echo {});
        config.rooms[0].pattern = "a*b*".into();
        config.limits.outbox_bytes = 0;
        config.socketio.path = "socket.io".into();
        let fields: Vec<_> = config.mistakes().into_iter().map(|m| m.field).collect();
        assert_eq!(
            fields,
            [
                "rooms[0].match",
                "routes[1].event",
                "routes[2]",
                "limits.outboxBytes",
                "socketio.path"
            ]
        );
    }
}
