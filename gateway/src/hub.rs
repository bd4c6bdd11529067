//! Rooms and their members on this gateway.
//!
//! Every room has one owner: a worker task chosen by the room's hash. Joins,
//! leaves and deliveries of a room pass through that worker's queue, so their
//! order is the order of the queue and no lock is held while fanning out.

use crate::broker::{Broker, Sink};
use crate::envelope::Envelope;
use crate::metrics::{Metrics, labels};
use crate::protocol::socketio;
use crate::room::Room;
use crate::session::outbox::Unit;
use crate::session::{Session, SocketId};
use indexmap::IndexMap;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Workers: rooms are spread over them, so a huge room delays only those that share its worker.
const WORKERS: usize = 16;
/// Most deliveries waiting for one worker; more are dropped and counted, because
/// the broker's reader must never wait.
const DELIVERIES_MAX: usize = 65_536;
/// A worker yields after this many sockets, so that one room cannot hold a core.
const SOCKETS_PER_TURN: usize = 256;
/// An empty room stays subscribed this long: reconnecting members find it warm.
const EMPTY_ROOM_LINGER: Duration = Duration::from_secs(5);

/// Why a join failed. Retryable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("room is not available right now")]
pub struct JoinError;

enum Command {
    Join {
        room: Room,
        socket: SocketId,
        session: Arc<Session>,
        done: oneshot::Sender<Result<(), JoinError>>,
    },
    Leave {
        room: Room,
        socket: SocketId,
        done: Option<oneshot::Sender<()>>,
    },
    Subscribed {
        room: Room,
        ok: bool,
    },
    Deliver {
        room: Room,
        envelope: Arc<Envelope>,
        received: Instant,
    },
}

struct Worker {
    queue: mpsc::UnboundedSender<Command>,
    deliveries: Arc<AtomicUsize>,
}

/// Handle to all workers.
pub struct Hub {
    workers: Vec<Worker>,
    hasher: RandomState,
    metrics: Arc<Metrics>,
    /// The broker needs the hub as its sink and the hub needs the broker: set once at start.
    broker: Arc<OnceLock<Arc<dyn Broker>>>,
}

impl Hub {
    /// Starts the workers on the current runtime.
    #[must_use]
    pub fn start(metrics: Arc<Metrics>) -> Arc<Self> {
        let broker = Arc::new(OnceLock::new());
        let workers = (0..WORKERS)
            .map(|_| {
                let (queue, commands) = mpsc::unbounded_channel();
                let deliveries = Arc::new(AtomicUsize::new(0));
                let task = RoomWorker {
                    rooms: HashMap::new(),
                    broker: Arc::clone(&broker),
                    metrics: Arc::clone(&metrics),
                    queue: queue.downgrade(),
                    deliveries: Arc::clone(&deliveries),
                };
                tokio::spawn(task.run(commands));
                Worker { queue, deliveries }
            })
            .collect();
        Arc::new(Self { workers, hasher: RandomState::new(), metrics, broker })
    }

    /// Sets the broker; called once, before the first client.
    pub fn attach(&self, broker: Arc<dyn Broker>) {
        // A second call would be a programming error and is ignored.
        let _ = self.broker.set(broker);
    }

    fn worker(&self, room: &Room) -> &Worker {
        let hash = usize::try_from(self.hasher.hash_one(room) >> 32).unwrap_or(0);
        &self.workers[hash % WORKERS]
    }

    fn send(&self, room: &Room, command: Command) {
        // Workers end only with the runtime.
        let _ = self.worker(room).queue.send(command);
    }

    /// Adds a socket to a room; resolves when messages accepted from now on reach it.
    ///
    /// # Errors
    /// [`JoinError`] when the broker could not confirm the subscription.
    pub async fn join(
        &self,
        room: Room,
        socket: SocketId,
        session: Arc<Session>,
    ) -> Result<(), JoinError> {
        let (done, answer) = oneshot::channel();
        let target = room.clone();
        self.send(&target, Command::Join { room, socket, session, done });
        answer.await.unwrap_or(Err(JoinError))
    }

    /// Removes a socket; when it resolves, nothing of the room follows.
    pub async fn leave(&self, room: Room, socket: SocketId) {
        let (done, answer) = oneshot::channel();
        let target = room.clone();
        self.send(&target, Command::Leave { room, socket, done: Some(done) });
        let _ = answer.await;
    }

    /// Removes the sockets of a connection that is gone.
    pub fn forget(&self, room: Room, socket: SocketId) {
        let target = room.clone();
        self.send(&target, Command::Leave { room, socket, done: None });
    }
}

impl Sink for Hub {
    fn deliver(&self, room: &Room, envelope: Arc<Envelope>, received: Instant) {
        let worker = self.worker(room);
        if worker.deliveries.fetch_add(1, Ordering::Relaxed) >= DELIVERIES_MAX {
            worker.deliveries.fetch_sub(1, Ordering::Relaxed);
            Metrics::count(&self.metrics.dropped, [("reason", "fanout_full")]);
            return;
        }
        let _ = worker.queue.send(Command::Deliver { room: room.clone(), envelope, received });
    }
}

/// Members in joining order; removal swaps, which order does not matter for.
type Members = IndexMap<SocketId, Arc<Session>>;

#[derive(Default)]
struct RoomEntry {
    members: Members,
    /// Joins that wait for the first subscription.
    waiting: Vec<oneshot::Sender<Result<(), JoinError>>>,
    subscribed: bool,
    empty_since: Option<Instant>,
}

struct RoomWorker {
    rooms: HashMap<Room, RoomEntry>,
    broker: Arc<OnceLock<Arc<dyn Broker>>>,
    metrics: Arc<Metrics>,
    queue: mpsc::WeakUnboundedSender<Command>,
    deliveries: Arc<AtomicUsize>,
}

impl RoomWorker {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => return,
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Join { room, socket, session, done } => self.join(room, socket, session, done),
            Command::Leave { room, socket, done } => {
                self.leave(&room, socket);
                if let Some(done) = done {
                    let _ = done.send(());
                }
            }
            Command::Subscribed { room, ok } => self.subscribed(&room, ok),
            Command::Deliver { room, envelope, received } => {
                self.deliveries.fetch_sub(1, Ordering::Relaxed);
                self.deliver(&room, &envelope, received).await;
            }
        }
    }

    fn join(
        &mut self,
        room: Room,
        socket: SocketId,
        session: Arc<Session>,
        done: oneshot::Sender<Result<(), JoinError>>,
    ) {
        let new = !self.rooms.contains_key(&room);
        let entry = self.rooms.entry(room.clone()).or_default();
        if new {
            self.metrics.rooms.inc();
        }
        entry.empty_since = None;
        if entry.members.insert(socket, session).is_none() {
            self.metrics.memberships.inc();
        }
        if entry.subscribed {
            let _ = done.send(Ok(()));
            return;
        }
        entry.waiting.push(done);
        if entry.waiting.len() > 1 {
            return;
        }
        let Some(broker) = self.broker.get() else { return };
        let confirmed = broker.subscribe(&room);
        let queue = self.queue.clone();
        // The worker must not wait for the broker, so the answer comes back through its queue.
        tokio::spawn(async move {
            let ok = confirmed.await.is_ok();
            if let Some(queue) = queue.upgrade() {
                let _ = queue.send(Command::Subscribed { room, ok });
            }
        });
    }

    fn subscribed(&mut self, room: &Room, ok: bool) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        entry.subscribed = ok;
        for done in entry.waiting.drain(..) {
            let _ = done.send(if ok { Ok(()) } else { Err(JoinError) });
        }
        if !ok {
            self.metrics.memberships.dec_by(i64::try_from(entry.members.len()).unwrap_or(0));
            self.metrics.rooms.dec();
            self.rooms.remove(room);
        }
    }

    fn leave(&mut self, room: &Room, socket: SocketId) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        if entry.members.swap_remove(&socket).is_some() {
            self.metrics.memberships.dec();
        }
        if entry.members.is_empty() && entry.empty_since.is_none() {
            entry.empty_since = Some(Instant::now());
        }
    }

    /// Gives up rooms that stayed empty.
    fn sweep(&mut self) {
        let Some(broker) = self.broker.get() else { return };
        let metrics = &self.metrics;
        self.rooms.retain(|room, entry| {
            let over = entry.waiting.is_empty()
                && entry.empty_since.is_some_and(|since| since.elapsed() >= EMPTY_ROOM_LINGER);
            if over {
                broker.unsubscribe(room);
                metrics.rooms.dec();
            }
            !over
        });
    }

    /// One message to every member: encoded once, its bytes shared.
    async fn deliver(&mut self, room: &Room, envelope: &Envelope, received: Instant) {
        let Some(entry) = self.rooms.get(room) else { return };
        if entry.members.is_empty() {
            return;
        }
        let text =
            socketio::encode_event(room.namespace(), &envelope.args, envelope.attachments.len());
        let unit = Unit::new(text.into(), &envelope.attachments).received_at(received);
        for (index, session) in entry.members.values().enumerate() {
            if index > 0 && index % SOCKETS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            if !session.push(unit.clone()) {
                self.metrics.dropped.get_or_create(&labels([("reason", "outbox_full")])).inc();
            }
        }
    }
}
