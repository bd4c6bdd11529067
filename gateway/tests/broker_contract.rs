//! The contract of [`gateway::broker::Broker`], one suite for every implementation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use gateway::broker::memory::MemoryBroker;
use gateway::broker::redis::RedisBroker;
use gateway::broker::{Broker, Published, Sink};
use gateway::envelope::Envelope;
use gateway::metrics::Metrics;
use gateway::room::Room;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::{Redis, wait_for};
use tokio::sync::oneshot;

#[derive(Default)]
struct Seen(Mutex<Vec<(Room, String)>>);

impl Sink for Seen {
    fn deliver(&self, room: &Room, envelope: Arc<Envelope>, _received: Instant) {
        self.0.lock().unwrap().push((room.clone(), envelope.args.to_string()));
    }
}

impl Seen {
    fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }
}

/// A gateway as the broker sees it.
struct Node {
    broker: Arc<dyn Broker>,
    seen: Arc<Seen>,
}

impl Node {
    fn memory() -> Self {
        let seen = Arc::<Seen>::default();
        Self { broker: Arc::new(MemoryBroker::new(seen.clone())), seen }
    }

    async fn redis(redis: &Redis) -> Self {
        let seen = Arc::<Seen>::default();
        let metrics = Arc::new(Metrics::new("redis"));
        let broker = Arc::new(RedisBroker::start(redis.options(), seen.clone(), metrics));
        wait_for("broker is up", async || broker.health().up).await;
        Self { broker, seen }
    }

    fn publish(&self, room: &Room, text: &str) -> oneshot::Receiver<Published> {
        let (done, outcome) = oneshot::channel();
        let envelope = Arc::new(Envelope { args: text.into(), attachments: vec![] });
        self.broker.publish(
            room,
            envelope,
            Box::new(move |outcome| {
                // The test may have stopped waiting.
                let _ = done.send(outcome);
            }),
        );
        outcome
    }

    async fn saw(&self, wanted: &[String]) {
        wait_for(&format!("{wanted:?}"), async || self.seen.texts().len() >= wanted.len()).await;
        assert_eq!(self.seen.texts(), wanted);
    }
}

fn room(name: &str) -> Room {
    Room::named("/", name).unwrap()
}

async fn order_barrier_and_rooms(a: &Node, b: &Node) {
    let (here, elsewhere) = (room("here"), room("elsewhere"));
    for node in [a, b] {
        node.broker.subscribe(&here).await.unwrap();
    }
    let mut outcomes = Vec::new();
    for n in 0..500 {
        outcomes.push(a.publish(&here, &format!("[{n}]")));
        if n % 50 == 0 {
            outcomes.push(a.publish(&elsewhere, "[\"not subscribed\"]"));
        }
    }
    for outcome in outcomes {
        assert_eq!(outcome.await, Ok(Published::Accepted));
    }
    let wanted: Vec<_> = (0..500).map(|n| format!("[{n}]")).collect();
    a.saw(&wanted).await;
    b.saw(&wanted).await;
}

#[tokio::test]
async fn memory_keeps_order_within_a_room() {
    // The memory broker has no subscriptions: its hub knows the members.
    let node = Node::memory();
    let here = room("here");
    node.broker.subscribe(&here).await.unwrap();
    for n in 0..100 {
        assert_eq!(node.publish(&here, &format!("[{n}]")).await, Ok(Published::Accepted));
    }
    node.saw(&(0..100).map(|n| format!("[{n}]")).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_order_and_delivers_what_is_subscribed() {
    let redis = Redis::start().await;
    let (a, b) = (Node::redis(&redis).await, Node::redis(&redis).await);
    order_barrier_and_rooms(&a, &b).await;
    b.broker.unsubscribe(&room("here"));
    b.broker.subscribe(&room("barrier")).await.unwrap();
    assert_eq!(a.publish(&room("here"), "[\"after\"]").await, Ok(Published::Accepted));
    assert_eq!(a.publish(&room("barrier"), "[\"barrier\"]").await, Ok(Published::Accepted));
    wait_for("barrier", async || b.seen.texts().contains(&"[\"barrier\"]".into())).await;
    assert!(!b.seen.texts().contains(&"[\"after\"]".into()), "delivered after unsubscribe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_lost_means_local_until_it_is_back_by_itself() {
    let mut redis = Redis::start().await;
    let (a, b) = (Node::redis(&redis).await, Node::redis(&redis).await);
    let here = room("here");
    for node in [&a, &b] {
        node.broker.subscribe(&here).await.unwrap();
    }
    redis.kill();
    wait_for("degraded", async || !a.broker.health().up && !b.broker.health().up).await;
    wait_for("local", async || a.publish(&here, "[\"local\"]").await == Ok(Published::Local)).await;
    let local = a.seen.texts();
    assert!(local.iter().all(|text| text == "[\"local\"]") && !local.is_empty(), "{local:?}");
    assert_eq!(b.seen.texts(), Vec::<String>::new());
    // A join while it is away takes effect when it is back.
    let later = room("later");
    b.broker.subscribe(&later).await.unwrap();
    redis.restart().await;
    wait_for("back", async || a.broker.health().up && b.broker.health().up).await;
    assert_eq!(a.publish(&here, "[\"back\"]").await, Ok(Published::Accepted));
    assert_eq!(a.publish(&later, "[\"later\"]").await, Ok(Published::Accepted));
    b.saw(&["[\"back\"]".into(), "[\"later\"]".into()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_subscription_connection_is_made_anew() {
    let redis = Redis::start().await;
    let (a, b) = (Node::redis(&redis).await, Node::redis(&redis).await);
    let here = room("here");
    b.broker.subscribe(&here).await.unwrap();
    let mut admin = redis.options().connect().await.unwrap();
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("PUBSUB");
    let killed: i64 = kill.query_async(&mut admin).await.unwrap();
    assert_eq!(killed, 2);
    let mut n = 0;
    wait_for("live again", async || {
        n += 1;
        let _ = a.publish(&here, &format!("[{n}]")).await;
        !b.seen.texts().is_empty()
    })
    .await;
}
