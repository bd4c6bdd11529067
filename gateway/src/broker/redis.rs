//! The Redis broker: one channel a room, subscribed only where it has members.
//!
//! Publishes go through one in-order pipeline on a command connection;
//! subscriptions have a connection of their own that this module supervises
//! itself: a canary is published every second through the real path and must
//! come back, whatever the client library believes about its connection.

mod publisher;
mod subscriber;

use super::{Broker, Done, Health, Published, Sink, SubscribeError};
use crate::config::Strings;
use crate::envelope::Envelope;
use crate::metrics::Metrics;
use crate::room::Room;
use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, RedisResult,
};
use bytes::Bytes;
use contract::config::Mistake;
use contract::{env, ports};
use futures_util::future::{BoxFuture, FutureExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// A connection must stand within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A command must be answered within this time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Most publishes waiting; more are refused as limited.
const PUBLISHES_MAX: usize = 16_384;
/// A canary is sent this often.
const CANARY_INTERVAL: Duration = Duration::from_secs(1);
/// Without a canary for this long the subscription connection is made anew.
const CANARY_SILENCE: Duration = Duration::from_secs(3);
/// Reconnects wait at most this long, with full jitter.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    info: ConnectionInfo,
    password_file: Option<PathBuf>,
    /// Prefix of every key and channel.
    pub prefix: String,
}

impl RedisOptions {
    /// Options from the environment; `None` when nothing names a Redis.
    ///
    /// # Errors
    /// The [`Mistake`] in it.
    pub fn from_strings(strings: &dyn Strings) -> Result<Option<Self>, Mistake> {
        let wrong = |field: &str, message: String| Mistake { field: field.into(), message };
        let info = if let Some(url) = strings.get(env::REDIS_URL) {
            // The URL may hold a password, so the library's error is not shown.
            let message = "is no redis:// or rediss:// URL".to_owned();
            url.as_str().into_connection_info().map_err(|_| wrong(env::REDIS_URL, message))?
        } else if let Some(host) = strings.get(env::REDIS_HOST) {
            let port = match strings.get(env::REDIS_PORT).map(|port| port.parse()) {
                None => ports::REDIS,
                Some(Ok(port)) => port,
                Some(Err(_)) => return Err(wrong(env::REDIS_PORT, "is no port number".into())),
            };
            let info = (host.as_str(), port).into_connection_info();
            let info = info.map_err(|e| wrong(env::REDIS_HOST, format!("is not valid: {e}")))?;
            match strings.get(env::REDIS_PASSWORD) {
                Some(password) => with_password(info, &password),
                None => info,
            }
        } else {
            return Ok(None);
        };
        Ok(Some(Self {
            info,
            password_file: strings.get(env::REDIS_PASSWORD_FILE).map(PathBuf::from),
            prefix: strings.get(env::REDIS_PREFIX).unwrap_or_else(|| "realtime".into()),
        }))
    }

    /// The file is read at each connect, so a rotated password needs no restart.
    fn client(&self) -> RedisResult<Client> {
        let password =
            self.password_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        Client::open(match password {
            Some(password) => with_password(self.info.clone(), password.trim()),
            None => self.info.clone(),
        })
    }

    /// A connection for commands.
    ///
    /// # Errors
    /// Redis's or the network's error.
    pub async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        self.client()?.get_multiplexed_async_connection_with_config(&config).await
    }

    fn channel(&self, room: &Room) -> String {
        format!("{}:{}", self.prefix, room.channel())
    }
}

fn with_password(info: ConnectionInfo, password: &str) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_password(password);
    info.set_redis_settings(settings)
}

/// Full jitter: after `failures` in a row wait anything up to the doubled delay.
fn backoff(failures: u32) -> Duration {
    let ceiling = Duration::from_millis(50).saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX);
    ceiling.mul_f64(rand::random::<f64>())
}

/// A publish on its way to the publisher task.
struct Publish {
    channel: String,
    bytes: Bytes,
    /// What to deliver here when Redis is lost; none for a canary.
    local: Option<(Room, Arc<Envelope>)>,
    done: Option<Done>,
}

enum Subscription {
    Add { channel: String, done: oneshot::Sender<()> },
    Remove { channel: String },
}

/// State that the tasks share.
struct Shared {
    options: RedisOptions,
    sink: Arc<dyn Sink>,
    metrics: Arc<Metrics>,
    canary_channel: String,
    started: AtomicBool,
    commands_up: AtomicBool,
    subscriptions_up: AtomicBool,
    canary: Mutex<Canary>,
    round_trip_micros: AtomicU64,
}

/// The last canary sent and when one last came back.
struct Canary {
    sent: u64,
    sent_at: Instant,
    seen_at: Instant,
}

impl Shared {
    fn canary(&self) -> std::sync::MutexGuard<'_, Canary> {
        self.canary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn canary_seen(&self, nonce: u64) {
        let mut canary = self.canary();
        canary.seen_at = Instant::now();
        if nonce == canary.sent {
            let round_trip = canary.sent_at.elapsed();
            self.metrics.record_broker_lag(round_trip);
            let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
            self.round_trip_micros.store(micros, Ordering::Relaxed);
        }
    }

    fn canary_silent(&self) -> bool {
        self.canary().seen_at.elapsed() > CANARY_SILENCE
    }

    fn up(&self) -> bool {
        self.commands_up.load(Ordering::Relaxed) && self.subscriptions_up.load(Ordering::Relaxed)
    }
}

/// Messages between gateways over one Redis.
pub struct RedisBroker {
    shared: Arc<Shared>,
    publishes: mpsc::Sender<Publish>,
    subscriptions: mpsc::UnboundedSender<Subscription>,
}

impl RedisBroker {
    /// Starts the tasks on the current runtime; connecting goes on in the background.
    #[must_use]
    pub fn start(options: RedisOptions, sink: Arc<dyn Sink>, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            canary_channel: format!("{}:canary:{:016x}", options.prefix, rand::random::<u64>()),
            options,
            sink,
            metrics,
            started: AtomicBool::new(false),
            commands_up: AtomicBool::new(false),
            subscriptions_up: AtomicBool::new(false),
            canary: Mutex::new(Canary { sent: 0, sent_at: now, seen_at: now }),
            round_trip_micros: AtomicU64::new(0),
        });
        let (publishes, publish_queue) = mpsc::channel(PUBLISHES_MAX);
        let (subscriptions, subscription_queue) = mpsc::unbounded_channel();
        tokio::spawn(publisher::run(Arc::clone(&shared), publish_queue));
        tokio::spawn(subscriber::run(Arc::clone(&shared), subscription_queue));
        tokio::spawn(send_canaries(Arc::clone(&shared), publishes.clone()));
        Self { shared, publishes, subscriptions }
    }
}

/// Keeps sending canaries and publishes the broker's state as metrics.
async fn send_canaries(shared: Arc<Shared>, publishes: mpsc::Sender<Publish>) {
    let mut tick = tokio::time::interval(CANARY_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !publishes.is_closed() {
        tick.tick().await;
        let nonce = {
            let mut canary = shared.canary();
            canary.sent += 1;
            canary.sent_at = Instant::now();
            canary.sent
        };
        let bytes = Bytes::copy_from_slice(&nonce.to_be_bytes());
        let channel = shared.canary_channel.clone();
        let _ = publishes.try_send(Publish { channel, bytes, local: None, done: None });
        let up = i64::from(shared.up());
        shared.metrics.broker_up.set(up);
        shared.metrics.redis_status.set(up);
    }
}

impl Broker for RedisBroker {
    fn publish(&self, room: &Room, envelope: Arc<Envelope>, done: Done) {
        let publish = Publish {
            channel: self.shared.options.channel(room),
            bytes: envelope.encode(),
            local: Some((room.clone(), envelope)),
            done: Some(done),
        };
        if let Err(error) = self.publishes.try_send(publish) {
            let publish = error.into_inner();
            if let Some(done) = publish.done {
                done(Published::Limited);
            }
        }
    }

    fn subscribe(&self, room: &Room) -> BoxFuture<'static, Result<(), SubscribeError>> {
        let (done, confirmed) = oneshot::channel();
        let channel = self.shared.options.channel(room);
        let _ = self.subscriptions.send(Subscription::Add { channel, done });
        async move { confirmed.await.map_err(|_| SubscribeError) }.boxed()
    }

    fn unsubscribe(&self, room: &Room) {
        let channel = self.shared.options.channel(room);
        let _ = self.subscriptions.send(Subscription::Remove { channel });
    }

    fn health(&self) -> Health {
        Health {
            started: self.shared.started.load(Ordering::Relaxed),
            up: self.shared.up(),
            round_trip_seconds: self.shared.round_trip_micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}
