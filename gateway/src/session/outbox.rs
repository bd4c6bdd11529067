//! What waits to be written to one client: a queue bounded in bytes.
//!
//! There is one consumer at a time (the WebSocket task or the pending poll),
//! so a single waker under the queue's own lock is enough.

use super::CloseReason;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// An Engine.IO message and its attachments: queued, dropped and written as one.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The Engine.IO packet as text.
    pub text: Utf8Bytes,
    /// Attachments that follow; empty for nearly all.
    pub attachments: Option<Arc<[Bytes]>>,
    /// When it came from the broker, for the lag of the gateway's leg.
    pub received: Option<Instant>,
}

impl Unit {
    /// A unit of text and attachments; bytes are shared, not copied.
    #[must_use]
    pub fn new(text: Utf8Bytes, attachments: &[Bytes]) -> Self {
        let attachments = (!attachments.is_empty()).then(|| attachments.into());
        Self { text, attachments, received: None }
    }

    /// A unit of text.
    #[must_use]
    pub fn text(text: impl Into<Utf8Bytes>) -> Self {
        Self { text: text.into(), attachments: None, received: None }
    }

    /// Notes when the broker handed it over.
    #[must_use]
    pub fn received_at(self, received: Instant) -> Self {
        Self { received: Some(received), ..self }
    }

    /// Payload bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.text.len() + self.attachments.as_ref().map_or(0, |a| a.iter().map(Bytes::len).sum())
    }
}

/// The queue with its limit.
#[derive(Debug)]
pub struct Outbox {
    queue: VecDeque<Unit>,
    bytes: usize,
    limit: usize,
    closed: Option<CloseReason>,
    waker: Option<Waker>,
}

/// What a consumer finds.
#[derive(Debug)]
pub enum Taken {
    /// Units to write, in order.
    Units(Vec<Unit>),
    /// Nothing is left and the session is closed.
    Closed(CloseReason),
}

impl Outbox {
    /// An empty outbox that holds at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, limit, closed: None, waker: None }
    }

    /// Queues a unit. On overflow the session is closed as a slow consumer: it
    /// reconnects and recovers, which beats a gap it is not told of.
    /// False when the unit was dropped.
    pub fn push(&mut self, unit: Unit) -> bool {
        if self.closed.is_some() {
            return false;
        }
        let size = unit.size();
        if self.bytes + size > self.limit && !self.queue.is_empty() {
            self.close(CloseReason::SlowConsumer);
            return false;
        }
        self.bytes += size;
        self.queue.push_back(unit);
        self.wake();
        true
    }

    /// Takes units up to about `max` bytes (at least one), or registers to be woken.
    pub fn poll_take(&mut self, cx: &Context<'_>, max: usize) -> Poll<Taken> {
        let mut units = Vec::new();
        let mut size = 0;
        while let Some(unit) = self.queue.front() {
            if !units.is_empty() && size + unit.size() > max {
                break;
            }
            size += unit.size();
            units.extend(self.queue.pop_front());
        }
        self.bytes -= size;
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            // A burst must not keep its memory for the connection's life.
            self.queue = VecDeque::new();
        }
        if !units.is_empty() {
            return Poll::Ready(Taken::Units(units));
        }
        if let Some(reason) = self.closed {
            return Poll::Ready(Taken::Closed(reason));
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Closes it; the first reason stays. What a slow consumer did not read is dropped.
    pub fn close(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(reason);
        if reason == CloseReason::SlowConsumer {
            self.queue = VecDeque::new();
            self.bytes = 0;
        }
        self.wake();
    }

    /// Why it is closed.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.closed
    }

    /// Bytes waiting.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Wakes the consumer, if one waits.
    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn texts(taken: Poll<Taken>) -> Vec<String> {
        match taken {
            Poll::Ready(Taken::Units(units)) => units.iter().map(|u| u.text.to_string()).collect(),
            other => panic!("expected units, found {other:?}"),
        }
    }

    #[test]
    fn the_consumer_is_woken_once_and_takes_in_order_up_to_the_batch() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let mut outbox = Outbox::new(100);
        assert!(outbox.poll_take(&cx, 10).is_pending());
        for text in ["aaaa", "bbbb", "cccc"] {
            assert!(outbox.push(Unit::text(text)));
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(texts(outbox.poll_take(&cx, 10)), ["aaaa", "bbbb"]);
        assert_eq!(texts(outbox.poll_take(&cx, 1)), ["cccc"]);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn overflow_closes_the_slow_consumer_and_frees_its_bytes() {
        let cx = Context::from_waker(Waker::noop());
        let mut outbox = Outbox::new(10);
        assert!(outbox.push(Unit::text("larger than the whole limit is let through alone")));
        assert!(!outbox.push(Unit::text("x")));
        assert_eq!((outbox.bytes(), outbox.closed()), (0, Some(CloseReason::SlowConsumer)));
        assert!(matches!(
            outbox.poll_take(&cx, 10),
            Poll::Ready(Taken::Closed(CloseReason::SlowConsumer))
        ));
    }

    #[test]
    fn what_was_queued_before_a_close_is_still_written() {
        let cx = Context::from_waker(Waker::noop());
        let mut outbox = Outbox::new(100);
        assert!(outbox.push(Unit::text("last words")));
        outbox.close(CloseReason::Drain);
        assert!(!outbox.push(Unit::text("too late")));
        assert_eq!(texts(outbox.poll_take(&cx, 100)), ["last words"]);
        assert!(matches!(
            outbox.poll_take(&cx, 10),
            Poll::Ready(Taken::Closed(CloseReason::Drain))
        ));
    }
}
