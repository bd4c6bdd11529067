//! Many Socket.IO connections from one process: enough of the protocol to be a
//! client, cheap enough that thousands share a core with what they load.

use futures_util::{SinkExt as _, StreamExt as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

/// What all connections did.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open right now.
    pub open: AtomicI64,
    /// Connected so far.
    pub connects: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Closes that were announced (WebSocket close 1012).
    pub announced: AtomicU64,
    /// Closes without notice.
    pub unannounced: AtomicU64,
    /// Messages received.
    pub messages: AtomicU64,
}

/// A load of `connections` clients that come back when they are closed.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to connect.
    pub target: SocketAddr,
    /// How many.
    pub connections: usize,
    /// New connections a second.
    pub rate: u32,
    /// Local addresses to spread over; any when empty.
    pub sources: Vec<IpAddr>,
    /// Rooms to spread over.
    pub rooms: usize,
    /// Messages published a second, by the first client of each room in turn.
    pub publish: u32,
}

impl Load {
    /// Runs until `stop` turns true.
    pub async fn run(self, counters: Arc<Counters>, stop: watch::Receiver<bool>) {
        let mut clients = Vec::with_capacity(self.connections);
        let mut pace = tokio::time::interval(Duration::from_secs(1) / self.rate.max(1));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        for index in 0..self.connections {
            let mut stopped = stop.clone();
            tokio::select! {
                _ = pace.tick() => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
            let load = self.clone();
            clients.push(tokio::spawn(load.client(index, Arc::clone(&counters), stop.clone())));
        }
        for client in clients {
            let _ = client.await;
        }
    }

    async fn client(self, index: usize, counters: Arc<Counters>, mut stop: watch::Receiver<bool>) {
        let mut wait = Duration::ZERO;
        loop {
            let life = async {
                tokio::time::sleep(wait).await;
                self.once(index, &counters).await
            };
            let ended = tokio::select! {
                ended = life => ended,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match ended {
                Ok(Some(1012)) => counters.announced.fetch_add(1, Ordering::Relaxed),
                Ok(_) => counters.unannounced.fetch_add(1, Ordering::Relaxed),
                Err(_) => counters.failures.fetch_add(1, Ordering::Relaxed),
            };
            // As stock clients do: around a second, spread.
            wait = Duration::from_millis(500 + (index as u64 * 7919) % 1000);
        }
    }

    /// One connection from its handshake to its end: the close code, when there was one.
    async fn once(
        &self,
        index: usize,
        counters: &Counters,
    ) -> Result<Option<u16>, Box<dyn std::error::Error + Send + Sync>> {
        let socket =
            if self.target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if !self.sources.is_empty() {
            socket.bind(SocketAddr::new(self.sources[index % self.sources.len()], 0))?;
        }
        let connect = async {
            let stream = socket.connect(self.target).await?;
            let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", self.target);
            let config = WebSocketConfig::default().read_buffer_size(4096);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                client_async_with_config(url, stream, Some(config)).await?.0,
            )
        };
        let mut socket = tokio::time::timeout(Duration::from_secs(15), connect).await??;
        socket.send(Message::Text("40".into())).await?;
        let mut open = Open { counters, counted: false };
        let room = format!("load-{}", index % self.rooms.max(1));
        // The first client of each room publishes its share.
        let publishes = index < self.rooms && self.publish > 0;
        let share =
            Duration::from_secs_f64(self.rooms.max(1) as f64 / f64::from(self.publish.max(1)));
        let mut pace = tokio::time::interval(share);
        loop {
            let message = tokio::select! {
                message = socket.next() => match message {
                    Some(message) => message,
                    None => return Ok(None),
                },
                _ = pace.tick(), if publishes && open.counted => {
                    let send = format!(r#"42["sendMessage","{room}",{{"from":{index}}}]"#);
                    socket.send(Message::Text(send.into())).await?;
                    continue;
                }
            };
            match message {
                Ok(Message::Text(text)) if text.as_str() == "2" => {
                    socket.send(Message::Text("3".into())).await?
                }
                Ok(Message::Text(text)) if text.starts_with("40") => {
                    open.count();
                    let join = format!(r#"420["joinRoom","{room}"]"#);
                    socket.send(Message::Text(join.into())).await?;
                }
                Ok(Message::Text(text)) if text.starts_with("42") => {
                    counters.messages.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Message::Close(frame)) => {
                    return Ok(frame.map(|CloseFrame { code, .. }| code.into()));
                }
                Ok(_) => {}
                Err(_) if open.counted => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Counts a connection as open until it is dropped, however that comes about.
struct Open<'a> {
    counters: &'a Counters,
    counted: bool,
}

impl Open<'_> {
    fn count(&mut self) {
        self.counted = true;
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.counters.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
