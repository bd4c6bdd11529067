//! One in-order pipeline for all publishes of this gateway: what queues while
//! one batch is under way becomes the next batch.

use super::{Publish, Shared, backoff};
use crate::broker::Published;
use ::redis::aio::MultiplexedConnection;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::mpsc;

/// Most publishes in one round trip.
const BATCH_MAX: usize = 256;

enum State {
    Up(MultiplexedConnection),
    Down(BoxFuture<'static, MultiplexedConnection>),
}

/// Runs until the broker is dropped.
pub async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Publish>) {
    let mut state = State::Down(connect(Arc::clone(&shared)));
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        match &mut state {
            State::Up(connection) => {
                if queue.recv_many(&mut batch, BATCH_MAX).await == 0 {
                    return;
                }
                if let Err(error) = pipeline(&batch).query_async::<()>(connection).await {
                    tracing::warn!(%error, "lost the command connection to redis");
                    shared.commands_up.store(false, Ordering::Relaxed);
                    state = State::Down(connect(Arc::clone(&shared)));
                    // Whether Redis took them is unknown: delivering here, too, could deliver twice.
                    finish(batch.drain(..), Published::Unavailable);
                } else {
                    finish(batch.drain(..), Published::Accepted);
                }
            }
            State::Down(connecting) => tokio::select! {
                connection = connecting => {
                    shared.commands_up.store(true, Ordering::Relaxed);
                    state = State::Up(connection);
                }
                taken = queue.recv_many(&mut batch, BATCH_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    deliver_here(&shared, &batch);
                    finish(batch.drain(..), Published::Local);
                }
            },
        }
    }
}

fn connect(shared: Arc<Shared>) -> BoxFuture<'static, MultiplexedConnection> {
    async move {
        let mut failures = 0;
        loop {
            match shared.options.connect().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(%error, failures, "failed to connect to redis");
                    failures += 1;
                    tokio::time::sleep(backoff(failures)).await;
                }
            }
        }
    }
    .boxed()
}

fn pipeline(batch: &[Publish]) -> ::redis::Pipeline {
    let mut pipeline = ::redis::Pipeline::with_capacity(batch.len());
    for publish in batch {
        pipeline.cmd("PUBLISH").arg(&publish.channel).arg(&publish.bytes[..]).ignore();
    }
    pipeline
}

/// Redis is lost: rooms without history go on among the members here (semantics section 8).
fn deliver_here(shared: &Shared, batch: &[Publish]) {
    for (room, envelope) in batch.iter().filter_map(|publish| publish.local.as_ref()) {
        shared.sink.deliver(room, Arc::clone(envelope), Instant::now());
    }
}

fn finish(batch: impl Iterator<Item = Publish>, outcome: Published) {
    for done in batch.filter_map(|publish| publish.done) {
        done(outcome);
    }
}
