//! A WebSocket driven by one poll function: it writes what the outbox holds,
//! several messages a write, and reads, without splitting the stream and
//! without a slow reader ever stopping the heartbeat.

use super::outbox::{Taken, Unit};
use super::{CloseReason, Session};
use crate::metrics::Metrics;
use contract::config::Limits;
use futures_util::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The stream below.
type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// Bytes taken from the outbox for one write.
const BATCH_BYTES: usize = 64 * 1024;
/// tungstenite allocates this eagerly for each connection; its default is 128 KiB.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// How long a closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a WebSocket reports.
#[derive(Debug)]
pub enum Event {
    /// A message of the client.
    Message(Message),
    /// It ended, by the client or by us.
    Ended(CloseReason),
}

/// A client's WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: Stream,
    flushing: bool,
    /// When the oldest message of the batch being flushed came from the broker.
    oldest: Option<Instant>,
    batch_units: u64,
    batch_bytes: u64,
}

impl WebSocket {
    /// Takes over an upgraded connection.
    pub async fn accept(upgraded: Upgraded, limits: &Limits) -> Self {
        let message_bytes = limits.message_bytes as usize;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(BATCH_BYTES)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(message_bytes))
            .max_frame_size(Some(message_bytes));
        let io = TokioIo::new(upgraded);
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self { stream, flushing: false, oldest: None, batch_units: 0, batch_bytes: 0 }
    }

    /// Next message while the WebSocket is being probed, when no outbox is attached yet.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        self.stream.next().await
    }

    /// Sends one message at once.
    ///
    /// # Errors
    /// The transport's error.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.stream.send(message).await
    }

    /// Writes what waits and, when `read` is set, reads the next message.
    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        session: &Session,
        metrics: &Metrics,
        read: bool,
    ) -> Poll<Event> {
        loop {
            if self.flushing {
                match Pin::new(&mut self.stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.flushed(metrics),
                    Poll::Ready(Err(error)) => return Poll::Ready(Event::Ended(reason(&error))),
                    // Who does not read will not read the rest either.
                    Poll::Pending if session.closed() == Some(CloseReason::SlowConsumer) => {
                        return Poll::Ready(Event::Ended(CloseReason::SlowConsumer));
                    }
                    Poll::Pending => break,
                }
            }
            match session.poll_take(cx, BATCH_BYTES) {
                Poll::Ready(Taken::Units(units)) => {
                    if let Err(error) = self.write(units) {
                        return Poll::Ready(Event::Ended(reason(&error)));
                    }
                }
                Poll::Ready(Taken::Closed(reason)) => return Poll::Ready(Event::Ended(reason)),
                Poll::Pending => break,
            }
        }
        if !read {
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(Ok(Message::Close(_))) => Poll::Ready(Event::Ended(CloseReason::Client)),
            Some(Ok(message)) => Poll::Ready(Event::Message(message)),
            Some(Err(error)) => Poll::Ready(Event::Ended(reason(&error))),
            None => Poll::Ready(Event::Ended(CloseReason::Transport)),
        }
    }

    fn write(&mut self, units: Vec<Unit>) -> Result<(), Error> {
        for unit in units {
            self.batch_units += 1;
            self.batch_bytes += unit.size() as u64;
            if self.oldest.is_none() {
                self.oldest = unit.received;
            }
            Pin::new(&mut self.stream).start_send(Message::Text(unit.text))?;
            for attachment in unit.attachments.iter().flat_map(|a| a.iter()) {
                Pin::new(&mut self.stream).start_send(Message::Binary(attachment.clone()))?;
            }
        }
        self.flushing = true;
        Ok(())
    }

    fn flushed(&mut self, metrics: &Metrics) {
        self.flushing = false;
        metrics.messages_sent.inc_by(std::mem::take(&mut self.batch_units));
        metrics.sent_bytes.inc_by(std::mem::take(&mut self.batch_bytes));
        if let Some(oldest) = self.oldest.take() {
            metrics.record_gateway_lag(oldest.elapsed());
        }
    }

    /// Closes with the reason's code and waits a little for the client's answer:
    /// dropping the socket with unread bytes would reset it and lose the code.
    pub async fn close(mut self, reason: CloseReason) {
        let frame = CloseFrame { code: reason.code().into(), reason: reason.label().into() };
        let goodbye = async {
            if self.stream.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

/// The session's reason for a transport error.
fn reason(error: &Error) -> CloseReason {
    match error {
        Error::Capacity(_) => CloseReason::TooLarge,
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => CloseReason::Transport,
        Error::Protocol(_) | Error::Utf8(_) => CloseReason::Protocol,
        _ => CloseReason::Transport,
    }
}
