//! The subscription connection, supervised here: subscribed anew in batches
//! after every loss, and given up when the canary falls silent.

use super::{CANARY_INTERVAL, CONNECT_TIMEOUT, RESPONSE_TIMEOUT, Shared, Subscription, backoff};
use crate::envelope::Envelope;
use crate::metrics::{Metrics, labels};
use crate::room::Room;
use ::redis::aio::{PubSubSink, PubSubStream};
use ::redis::{ErrorKind, RedisError, RedisResult};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Channels of one SUBSCRIBE.
const CHANNELS_PER_COMMAND: usize = 512;

/// Why a connection was given up; a bounded label.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Ended,
    Silent,
    Failed,
    Closing,
}

/// Runs until the broker is dropped.
pub async fn run(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<Subscription>) {
    let mut wanted = HashSet::new();
    let mut failures = 0;
    loop {
        let channels = std::iter::once(&shared.canary_channel).chain(&wanted).cloned().collect();
        let connecting = connect(&shared, channels);
        tokio::pin!(connecting);
        // Joins do not wait for a broker that is away: they take effect when it is back.
        let mut early = Vec::new();
        let connected = loop {
            tokio::select! {
                connected = &mut connecting => break connected,
                command = queue.recv() => match command {
                    Some(command) => early.push(command),
                    None => return,
                },
            }
            if failures > 0 {
                answer(&mut early);
            }
        };
        let lost = match connected {
            Ok((sink, stream)) => {
                failures = 0;
                shared.started.store(true, Ordering::Relaxed);
                shared.subscriptions_up.store(true, Ordering::Relaxed);
                tracing::info!(channels = wanted.len(), "subscribed at redis");
                let lost = serve(&shared, sink, stream, &mut queue, &mut wanted, early).await;
                shared.subscriptions_up.store(false, Ordering::Relaxed);
                lost
            }
            Err(error) => {
                tracing::warn!(%error, failures, "failed to subscribe at redis");
                for command in &mut early {
                    note(&mut wanted, command);
                }
                answer(&mut early);
                Lost::Failed
            }
        };
        let reason = match lost {
            Lost::Closing => return,
            Lost::Ended => "ended",
            Lost::Silent => "canary_silent",
            Lost::Failed => "failed",
        };
        let lost_labels = labels([("broker", "redis"), ("reason", reason)]);
        shared.metrics.broker_reconnects.get_or_create(&lost_labels).inc();
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
}

fn note(wanted: &mut HashSet<String>, command: &Subscription) {
    match command {
        Subscription::Add { channel, .. } => wanted.insert(channel.clone()),
        Subscription::Remove { channel } => wanted.remove(channel),
    };
}

fn answer(commands: &mut [Subscription]) {
    for command in commands {
        if let Subscription::Add { done, .. } = command {
            let _ = std::mem::replace(done, oneshot::channel().0).send(());
        }
    }
}

fn timed_out() -> RedisError {
    RedisError::from((ErrorKind::Io, "timed out"))
}

async fn connect(
    shared: &Shared,
    channels: Vec<String>,
) -> RedisResult<(PubSubSink, PubSubStream)> {
    let client = shared.options.client()?;
    let connected = timeout(CONNECT_TIMEOUT, client.get_async_pubsub()).await;
    let (mut sink, stream) = connected.map_err(|_| timed_out())??.split();
    for some in channels.chunks(CHANNELS_PER_COMMAND) {
        timeout(RESPONSE_TIMEOUT, sink.subscribe(some)).await.map_err(|_| timed_out())??;
    }
    shared.canary().seen_at = Instant::now();
    Ok((sink, stream))
}

async fn serve(
    shared: &Arc<Shared>,
    mut sink: PubSubSink,
    stream: PubSubStream,
    queue: &mut mpsc::UnboundedReceiver<Subscription>,
    wanted: &mut HashSet<String>,
    early: Vec<Subscription>,
) -> Lost {
    // Reading is a task of its own, so that it never waits for a confirmation.
    let mut reader = tokio::spawn(read(Arc::clone(shared), stream));
    let mut canary = tokio::time::interval(CANARY_INTERVAL);
    let mut commands = early;
    let lost = loop {
        if !commands.is_empty() && change(&mut sink, wanted, &mut commands).await.is_err() {
            // They are noted as wanted and take effect with the next connection.
            answer(&mut commands);
            break Lost::Failed;
        }
        shared.metrics.broker_subscriptions.set(i64::try_from(wanted.len()).unwrap_or(i64::MAX));
        tokio::select! {
            taken = queue.recv_many(&mut commands, CHANNELS_PER_COMMAND) => if taken == 0 {
                break Lost::Closing;
            },
            _ = &mut reader => break Lost::Ended,
            _ = canary.tick() => if shared.canary_silent() {
                break Lost::Silent;
            },
        }
    };
    reader.abort();
    lost
}

/// Carries out subscriptions in batches: runs of the same kind become one command.
async fn change(
    sink: &mut PubSubSink,
    wanted: &mut HashSet<String>,
    commands: &mut Vec<Subscription>,
) -> RedisResult<()> {
    for command in commands.iter() {
        note(wanted, command);
    }
    let is_add = |command: &Subscription| matches!(command, Subscription::Add { .. });
    for run in commands.chunk_by(|a, b| is_add(a) == is_add(b)) {
        let channels: Vec<&str> = run
            .iter()
            .map(|command| match command {
                Subscription::Add { channel, .. } | Subscription::Remove { channel } => {
                    channel.as_str()
                }
            })
            .collect();
        let changed = async {
            if is_add(&run[0]) {
                sink.subscribe(&channels).await
            } else {
                sink.unsubscribe(&channels).await
            }
        };
        timeout(RESPONSE_TIMEOUT, changed).await.map_err(|_| timed_out())??;
    }
    answer(commands);
    commands.clear();
    Ok(())
}

async fn read(shared: Arc<Shared>, mut stream: PubSubStream) {
    while let Some(message) = stream.next().await {
        let channel = message.get_channel_name();
        let bytes = message.get_payload_bytes();
        if channel == shared.canary_channel {
            shared.canary_seen(bytes.try_into().map_or(0, u64::from_be_bytes));
            continue;
        }
        let received = Instant::now();
        let name =
            channel.strip_prefix(&shared.options.prefix).and_then(|rest| rest.strip_prefix(':'));
        let envelope = Envelope::decode(&Bytes::copy_from_slice(bytes));
        match (name.and_then(Room::from_channel), envelope) {
            (Some(room), Ok(envelope)) => shared.sink.deliver(&room, Arc::new(envelope), received),
            _ => Metrics::count(&shared.metrics.dropped, [("reason", "envelope")]),
        }
    }
}
