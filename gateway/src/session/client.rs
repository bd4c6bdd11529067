//! The Socket.IO side of a session: namespaces, events, acks. Synchronous; what
//! must wait (a join for its subscription) is returned as a [`Job`].

use super::outbox::Unit;
use super::{CloseReason, Session, SocketId};
use crate::app::App;
use crate::broker::Published;
use crate::metrics::Metrics;
use crate::protocol::socketio::{self, Event, Kind, Packet};
use crate::room::Room;
use crate::route::{self, Action};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Told to clients while nothing says who may connect (operator rule 5).
pub const AUTH_NOT_CONFIGURED: &str = "auth not configured: set spec.gateway.auth";
/// Most namespaces one connection may be in.
const NAMESPACES_MAX: usize = 16;

/// A packet whose attachments have not all arrived.
struct Incomplete {
    text: Utf8Bytes,
    attachments: Vec<Bytes>,
    wanted: usize,
    bytes: usize,
}

/// A connection's membership of one namespace.
struct Socket {
    id: SocketId,
    namespace: Box<str>,
    rooms: HashSet<Room>,
}

/// Where an answer goes.
#[derive(Clone)]
struct AckTo {
    session: Arc<Session>,
    namespace: Box<str>,
    id: Option<u64>,
}

impl AckTo {
    fn send(&self, args: &str, attachments: &[Bytes]) {
        if let Some(id) = self.id {
            let text = socketio::encode_ack(&self.namespace, id, args, attachments.len());
            self.session.push(Unit::new(text.into(), attachments));
        }
    }

    fn ok(&self) {
        self.send(r#"[{"ok":true}]"#, &[]);
    }

    fn refuse(&self, code: &str, retryable: bool, message: &str) {
        let answer = serde_json::json!([{"ok": false, "code": code, "retryable": retryable, "message": message}]);
        self.send(&answer.to_string(), &[]);
    }
}

/// Work that waits for the hub. While it runs, nothing more is read from the
/// client, so its events keep their order.
pub struct Job {
    socket: SocketId,
    room: Room,
    join: bool,
    ack: AckTo,
}

/// A finished [`Job`].
pub struct Finished {
    job: Job,
    ok: bool,
}

impl Job {
    /// Runs it.
    pub async fn run(self, app: Arc<App>) -> Finished {
        let ok = if self.join {
            let session = Arc::clone(&self.ack.session);
            app.hub.join(self.room.clone(), self.socket, session).await.is_ok()
        } else {
            app.hub.leave(self.room.clone(), self.socket).await;
            true
        };
        Finished { job: self, ok }
    }
}

/// State of one connection's Socket.IO side.
pub struct Client {
    app: Arc<App>,
    session: Arc<Session>,
    sockets: Vec<Socket>,
    incomplete: Option<Incomplete>,
    opened: Instant,
    connected_once: bool,
}

impl Client {
    /// A connection without namespaces.
    #[must_use]
    pub fn new(app: Arc<App>, session: Arc<Session>) -> Self {
        let opened = Instant::now();
        Self { app, session, sockets: Vec::new(), incomplete: None, opened, connected_once: false }
    }

    /// True once a namespace was connected.
    #[must_use]
    pub fn connected_once(&self) -> bool {
        self.connected_once
    }

    /// A Socket.IO packet.
    ///
    /// # Errors
    /// The reason to close the session when it is not the protocol.
    pub fn on_text(&mut self, text: Utf8Bytes) -> Result<Option<Job>, CloseReason> {
        self.app.metrics.messages_received.inc();
        self.app.metrics.received_bytes.inc_by(text.len() as u64);
        if self.incomplete.is_some() {
            return Err(CloseReason::Protocol);
        }
        let packet = Packet::parse(&text).map_err(|_| CloseReason::Protocol)?;
        if packet.attachments > 0 {
            let (wanted, bytes) = (packet.attachments, text.len());
            self.incomplete = Some(Incomplete { text, attachments: Vec::new(), wanted, bytes });
            return Ok(None);
        }
        self.dispatch(packet, &[])
    }

    /// An attachment.
    ///
    /// # Errors
    /// The reason to close the session when none was announced, or it is too much.
    pub fn on_binary(&mut self, bytes: Bytes) -> Result<Option<Job>, CloseReason> {
        self.app.metrics.received_bytes.inc_by(bytes.len() as u64);
        let incomplete = self.incomplete.as_mut().ok_or(CloseReason::Protocol)?;
        incomplete.bytes += bytes.len();
        if incomplete.bytes > self.app.config.limits.message_bytes as usize {
            Metrics::count(&self.app.metrics.limit_hits, [("limit", "message_bytes")]);
            return Err(CloseReason::TooLarge);
        }
        incomplete.attachments.push(bytes);
        if incomplete.attachments.len() < incomplete.wanted {
            return Ok(None);
        }
        let Some(whole) = self.incomplete.take() else { return Ok(None) };
        let packet = Packet::parse(&whole.text).map_err(|_| CloseReason::Protocol)?;
        self.dispatch(packet, &whole.attachments)
    }

    fn dispatch(
        &mut self,
        packet: Packet<'_>,
        attachments: &[Bytes],
    ) -> Result<Option<Job>, CloseReason> {
        let at = self.sockets.iter().position(|s| &*s.namespace == packet.namespace);
        match (packet.kind, at) {
            (Kind::Connect, None) => self.connect(packet),
            (Kind::Disconnect, Some(at)) => {
                let socket = self.sockets.swap_remove(at);
                self.forget(socket);
                Ok(None)
            }
            // Packets in flight when we or the client left a namespace are no offence.
            (Kind::Disconnect, None) => Ok(None),
            (Kind::Event, Some(at)) => self.event(at, packet, attachments),
            (Kind::Ack, Some(_)) => Ok(None),
            (Kind::Connect, Some(_)) | (Kind::Event | Kind::Ack, None) => {
                Err(CloseReason::Protocol)
            }
        }
    }

    fn connect(&mut self, packet: Packet<'_>) -> Result<Option<Job>, CloseReason> {
        let refusal = if !packet.data.is_empty() && !is_object(packet.data) {
            return Err(CloseReason::Protocol);
        } else if !self.app.config.socketio.namespaces.iter().any(|n| n == packet.namespace) {
            Some(("namespace", "Invalid namespace"))
        } else if !self.app.config.auth.anonymous {
            Some(("auth_not_configured", AUTH_NOT_CONFIGURED))
        } else if self.sockets.len() >= NAMESPACES_MAX {
            Some(("namespaces", "too many namespaces on one connection"))
        } else {
            None
        };
        if let Some((reason, message)) = refusal {
            Metrics::count(&self.app.metrics.handshake_errors, [("reason", reason)]);
            let text = socketio::encode_connect_error(packet.namespace, message);
            self.session.push(Unit::text(text));
            return Ok(None);
        }
        // The socket id is public; it is not the session's id, which is a secret.
        let public = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 15]>());
        self.sockets.push(Socket {
            id: SocketId::next(),
            namespace: packet.namespace.into(),
            rooms: HashSet::new(),
        });
        if !std::mem::replace(&mut self.connected_once, true) {
            self.app.metrics.handshake_seconds.observe(self.opened.elapsed().as_secs_f64());
        }
        self.session.push(Unit::text(socketio::encode_connect(packet.namespace, &public)));
        Ok(None)
    }

    fn event(
        &mut self,
        at: usize,
        packet: Packet<'_>,
        attachments: &[Bytes],
    ) -> Result<Option<Job>, CloseReason> {
        let event = Event::parse(packet.data).map_err(|_| CloseReason::Protocol)?;
        let socket = &self.sockets[at];
        let ack = AckTo {
            session: Arc::clone(&self.session),
            namespace: socket.namespace.clone(),
            id: packet.id,
        };
        let app = Arc::clone(&self.app);
        match app.routes.get(&event.name) {
            Some(Action::Join(room)) => Ok(self.join(at, room.pick_text(&event.args), ack)),
            Some(Action::Leave(room)) => Ok(self.leave(at, room.pick_text(&event.args), ack)),
            Some(Action::Publish { room, event: name, data }) => {
                let envelope = route::envelope(name, data.as_ref(), &event.args, attachments);
                self.publish(room.pick_text(&event.args), envelope, ack);
                Ok(None)
            }
            Some(Action::Echo) => {
                ack.send(&array(&event.args), attachments);
                Ok(None)
            }
            None => {
                Metrics::count(&app.metrics.events_ignored, [("reason", "no_route")]);
                Ok(None)
            }
        }
    }

    /// The room a client names, or the refusal already sent.
    fn room(&self, name: Option<String>, ack: &AckTo) -> Option<(String, Room)> {
        let Some(name) = name else {
            Metrics::count(&self.app.metrics.events_ignored, [("reason", "bad_argument")]);
            ack.refuse("denied", false, "the event's arguments name no room");
            return None;
        };
        match Room::named(&ack.namespace, &name) {
            Ok(room) => Some((name, room)),
            Err(error) => {
                Metrics::count(&self.app.metrics.events_ignored, [("reason", "bad_argument")]);
                ack.refuse("denied", false, &error.to_string());
                None
            }
        }
    }

    fn join(&mut self, at: usize, name: Option<String>, ack: AckTo) -> Option<Job> {
        let (name, room) = self.room(name, &ack)?;
        if !self.app.config.allow(&name).join {
            ack.refuse("denied", false, "no room pattern allows to join");
            return None;
        }
        let joined: usize = self.sockets.iter().map(|s| s.rooms.len()).sum();
        let socket = &mut self.sockets[at];
        if socket.rooms.contains(&room) {
            ack.ok();
            return None;
        }
        if joined >= self.app.config.limits.rooms_per_connection as usize {
            Metrics::count(&self.app.metrics.limit_hits, [("limit", "rooms_per_connection")]);
            ack.refuse("limited", false, "too many rooms on one connection");
            return None;
        }
        socket.rooms.insert(room.clone());
        Some(Job { socket: socket.id, room, join: true, ack })
    }

    fn leave(&mut self, at: usize, name: Option<String>, ack: AckTo) -> Option<Job> {
        let (_, room) = self.room(name, &ack)?;
        let socket = &mut self.sockets[at];
        if !socket.rooms.remove(&room) {
            ack.ok();
            return None;
        }
        Some(Job { socket: socket.id, room, join: false, ack })
    }

    fn publish(
        &self,
        name: Option<String>,
        envelope: Option<crate::envelope::Envelope>,
        ack: AckTo,
    ) {
        let publishes = &self.app.metrics.publishes;
        let Some((name, room)) = self.room(name, &ack) else { return };
        let Some(envelope) = envelope else {
            Metrics::count(&self.app.metrics.events_ignored, [("reason", "bad_argument")]);
            ack.refuse("denied", false, "the event's arguments hold no data to publish");
            return;
        };
        if !self.app.config.allow(&name).publish {
            Metrics::count(publishes, [("result", "denied")]);
            ack.refuse("denied", false, "no room pattern allows to publish");
            return;
        }
        let metrics = Arc::clone(&self.app.metrics);
        let done = Box::new(move |outcome| {
            let label = match outcome {
                Published::Accepted => "ok",
                Published::Local => "local",
                Published::Unavailable => "unavailable",
                Published::Limited => "limited",
            };
            Metrics::count(&metrics.publishes, [("result", label)]);
            match outcome {
                Published::Accepted | Published::Local => ack.ok(),
                Published::Unavailable => {
                    ack.refuse("unavailable", true, "the broker did not answer")
                }
                Published::Limited => ack.refuse("limited", true, "too many publishes are waiting"),
            }
        });
        self.app.broker.publish(&room, Arc::new(envelope), done);
    }

    /// Takes a finished job's result.
    pub fn finish(&mut self, finished: Finished) {
        let Finished { job, ok } = finished;
        if ok {
            job.ack.ok();
            return;
        }
        if let Some(socket) = self.sockets.iter_mut().find(|s| s.id == job.socket) {
            socket.rooms.remove(&job.room);
        }
        job.ack.refuse("unavailable", true, "the room is not available right now");
    }

    fn forget(&self, socket: Socket) {
        for room in socket.rooms {
            self.app.hub.forget(room, socket.id);
        }
    }

    /// The connection is gone: leave everything.
    pub fn leave_all(&mut self) {
        for socket in std::mem::take(&mut self.sockets) {
            self.forget(socket);
        }
    }
}

fn is_object(json: &str) -> bool {
    socketio::check_depth(json).is_ok()
        && serde_json::from_str::<&RawValue>(json).is_ok_and(|raw| raw.get().starts_with('{'))
}

fn array(args: &[&RawValue]) -> String {
    let mut out = String::from("[");
    for (index, arg) in args.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(arg.get());
    }
    out.push(']');
    out
}
