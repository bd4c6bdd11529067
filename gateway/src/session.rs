//! One Engine.IO session: the shared handle that others push to and close, and
//! the task (in [`task`]) that reads, runs the Socket.IO side and beats the heart.

pub mod client;
pub mod outbox;
pub mod registry;
pub mod task;
pub mod transport;

use crate::metrics::Metrics;
use crate::protocol::engineio::Packet;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use outbox::{Outbox, Taken, Unit};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::{Notify, mpsc};
use transport::WebSocket;

/// Highest pod number: 24 bits of the session id.
pub const POD_NUMBER_MAX: u32 = (1 << 24) - 1;

/// Session id: 24-bit pod number and 96 random bits, never an address (semantics section 13).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid([u8; 15]);

impl Sid {
    /// A new id of this pod.
    #[must_use]
    pub fn new(pod: u32) -> Self {
        let mut bytes = rand::random::<[u8; 15]>();
        bytes[..3].copy_from_slice(&pod.to_be_bytes()[1..]);
        Self(bytes)
    }

    /// Reads an id that a client sent.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 20 {
            return None;
        }
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Number of the pod that made it.
    #[must_use]
    pub fn pod(self) -> u32 {
        u32::from_be_bytes([0, self.0[0], self.0[1], self.0[2]])
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id is a bearer secret: logs get the pod only.
        write!(f, "Sid(pod {})", self.pod())
    }
}

/// A socket (a connection's membership of one namespace) on this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(u64);

impl SocketId {
    /// The next unused id of this process.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it in the protocol's way.
    Client,
    /// The transport ended without a word.
    Transport,
    /// No pong in time.
    PingTimeout,
    /// No namespace connected in time.
    ConnectTimeout,
    /// The outbox overflowed.
    SlowConsumer,
    /// What it sent is not the protocol.
    Protocol,
    /// Its message was too large.
    TooLarge,
    /// Announced: this pod must go (semantics section 12).
    Drain,
}

impl CloseReason {
    /// Bounded label for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Transport => "transport",
            Self::PingTimeout => "ping_timeout",
            Self::ConnectTimeout => "connect_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::Drain => "drain",
        }
    }

    /// WebSocket close code. All of them make stock clients reconnect: only a
    /// Socket.IO DISCONNECT packet would stop them, and none is ever sent here.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Drain => 1012,
            Self::SlowConsumer => 1013,
            Self::Protocol => 1002,
            Self::TooLarge => 1009,
            _ => 1000,
        }
    }
}

/// What reaches a session's task from HTTP requests.
#[derive(Debug)]
pub enum Input {
    /// Packets of a POST.
    Packets(Vec<Packet>),
    /// The client finished its upgrade on this WebSocket.
    Upgraded(Box<WebSocket>),
    /// Look at the outbox: it was closed.
    Closed,
}

/// How the client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Long-polling.
    Polling,
    /// Polling, with a WebSocket being probed.
    Upgrading,
    /// WebSocket.
    WebSocket,
}

struct State {
    outbox: Outbox,
    carrier: Carrier,
    polling: bool,
    posting: bool,
}

/// Shared handle of a session.
pub struct Session {
    /// Its id.
    pub sid: Sid,
    state: Mutex<State>,
    inbox: mpsc::Sender<Input>,
    told: Notify,
    metrics: Arc<Metrics>,
}

/// A second poll or post while one is in flight: both get an error and the session ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict;

impl Session {
    /// A session and the receiver for its task.
    #[must_use]
    pub fn new(
        sid: Sid,
        carrier: Carrier,
        outbox_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, mpsc::Receiver<Input>) {
        // One POST may be in flight at a time; an upgrade and a close may join it.
        let (inbox, inputs) = mpsc::channel(4);
        let state =
            State { outbox: Outbox::new(outbox_bytes), carrier, polling: false, posting: false };
        (
            Arc::new(Self { sid, state: Mutex::new(state), inbox, told: Notify::new(), metrics }),
            inputs,
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding it cannot leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a unit for the client; false when it was dropped.
    pub fn push(&self, unit: Unit) -> bool {
        let (pushed, closed) = {
            let mut state = self.state();
            let before = state.outbox.bytes();
            let was_open = state.outbox.closed().is_none();
            let pushed = state.outbox.push(unit);
            self.metrics.outbox_bytes.inc_by(difference(state.outbox.bytes(), before));
            (pushed, was_open && state.outbox.closed().is_some())
        };
        if closed {
            let _ = self.inbox.try_send(Input::Closed);
        }
        pushed
    }

    /// Ends the session; the first reason stays.
    pub fn close(&self, reason: CloseReason) {
        {
            let mut state = self.state();
            let before = state.outbox.bytes();
            state.outbox.close(reason);
            self.metrics.outbox_bytes.inc_by(difference(state.outbox.bytes(), before));
        }
        // A full inbox means the task is about to run and will see the outbox closed.
        let _ = self.inbox.try_send(Input::Closed);
    }

    /// Why it is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.state().outbox.closed()
    }

    /// True while a poll is pending.
    #[must_use]
    pub fn is_polled(&self) -> bool {
        self.state().polling
    }

    /// How the client is connected.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.state().carrier
    }

    /// Moves on to another carrier and lets a pending poll go.
    pub fn set_carrier(&self, carrier: Carrier) {
        let mut state = self.state();
        state.carrier = carrier;
        state.outbox.wake();
    }

    /// Hands something to the session's task.
    pub async fn send(&self, input: Input) -> bool {
        self.inbox.send(input).await.is_ok()
    }

    /// Takes what waits for the client, or registers the caller to be woken.
    pub fn poll_take(&self, cx: &Context<'_>, max: usize) -> Poll<Taken> {
        let mut state = self.state();
        let before = state.outbox.bytes();
        let taken = state.outbox.poll_take(cx, max);
        self.metrics.outbox_bytes.inc_by(difference(state.outbox.bytes(), before));
        // A poll must return at once while the client probes a WebSocket, so
        // that it can pause polling: an empty batch becomes a noop packet.
        if taken.is_pending() && state.polling && state.carrier != Carrier::Polling {
            return Poll::Ready(Taken::Units(Vec::new()));
        }
        taken
    }

    /// The client's poll was answered with the close packet.
    pub fn tell_closed(&self) {
        self.told.notify_one();
    }

    /// Resolves when a polling client was told that the session is closed.
    pub async fn told_closed(&self) {
        self.told.notified().await;
    }

    /// Forgets what nobody will read any more.
    pub fn discard(&self) {
        let cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Taken::Units(units)) = self.poll_take(&cx, usize::MAX) {
            if units.is_empty() {
                break;
            }
        }
    }

    /// Begins a poll.
    ///
    /// # Errors
    /// [`Conflict`] when one is pending; the session is closed then.
    pub fn begin_poll(self: &Arc<Self>) -> Result<InFlight, Conflict> {
        self.begin(|state| &mut state.polling)
    }

    /// Begins a post.
    ///
    /// # Errors
    /// [`Conflict`] when one is in flight; the session is closed then.
    pub fn begin_post(self: &Arc<Self>) -> Result<InFlight, Conflict> {
        self.begin(|state| &mut state.posting)
    }

    fn begin(self: &Arc<Self>, flag: fn(&mut State) -> &mut bool) -> Result<InFlight, Conflict> {
        if std::mem::replace(flag(&mut self.state()), true) {
            self.close(CloseReason::Protocol);
            return Err(Conflict);
        }
        Ok(InFlight { session: Arc::clone(self), flag, finished: false })
    }
}

/// A poll or post in flight. Dropped unfinished (the client went away), it ends the session.
pub struct InFlight {
    session: Arc<Session>,
    flag: fn(&mut State) -> &mut bool,
    finished: bool,
}

impl InFlight {
    /// Ends it in order.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        *(self.flag)(&mut self.session.state()) = false;
        if !self.finished {
            self.session.close(CloseReason::Transport);
        }
    }
}

fn difference(after: usize, before: usize) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_names_its_pod_and_nothing_else_is_one() {
        let sid = Sid::new(0x00ab_cdef);
        let text = sid.to_string();
        assert_eq!(text.len(), 20);
        assert_eq!(Sid::parse(&text).map(Sid::pod), Some(0x00ab_cdef));
        for odd in ["", "short", "abcdefghijklmnopqrst!", "ÿÿÿÿÿÿÿÿÿÿ", "abcdefghijklmnopqrs="]
        {
            assert_eq!(Sid::parse(odd), None, "{odd}");
        }
    }
}
