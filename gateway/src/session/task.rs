//! A session's task: the only loop that reads from a client and beats its heart.

use super::client::{Client, Finished};
use super::outbox::Unit;
use super::transport::{Event, WebSocket};
use super::{Carrier, CloseReason, Input, Session};
use crate::app::App;
use crate::metrics::{Labels, labels};
use crate::protocol::engineio::{self, Packet};
use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;

/// How long a closed polling session waits for the poll that tells the client.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// When the heart must act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    /// Send a ping then.
    Ping(Instant),
    /// A pong must have come by then.
    Pong(Instant),
}

struct Task {
    app: Arc<App>,
    session: Arc<Session>,
    client: Client,
    websocket: Option<WebSocket>,
    beat: Beat,
    connect_by: Instant,
    /// Packets behind one whose job is running.
    waiting: VecDeque<Packet>,
    job: Option<BoxFuture<'static, Finished>>,
}

/// Runs a session until it ends. A panic ends this session only, and is counted.
pub async fn run(
    app: Arc<App>,
    session: Arc<Session>,
    inputs: mpsc::Receiver<Input>,
    websocket: Option<WebSocket>,
) {
    app.registry.insert(Arc::clone(&session));
    let now = Instant::now();
    let options = &app.config.socketio;
    let carrier = if websocket.is_some() { Carrier::WebSocket } else { Carrier::Polling };
    app.metrics.connects.get_or_create(&carrier_labels(carrier)).inc();
    app.metrics.connections.get_or_create(&carrier_labels(carrier)).inc();
    let mut task = Task {
        client: Client::new(Arc::clone(&app), Arc::clone(&session)),
        websocket,
        beat: Beat::Ping(now + Duration::from_millis(options.ping_interval_ms.into())),
        connect_by: now + Duration::from_millis(options.connect_timeout_ms.into()),
        waiting: VecDeque::new(),
        job: None,
        app: Arc::clone(&app),
        session: Arc::clone(&session),
    };
    let reason = match AssertUnwindSafe(task.run(inputs)).catch_unwind().await {
        Ok(reason) => reason,
        Err(_) => {
            app.metrics.panics.inc();
            CloseReason::Protocol
        }
    };
    session.close(reason);
    task.client.leave_all();
    if task.websocket.is_none() && reason == CloseReason::Drain {
        // Between two polls nobody can be told: stay findable for the next one.
        let _ = tokio::time::timeout(TELL_TIMEOUT, session.told_closed()).await;
    }
    app.registry.remove(session.sid);
    let carrier = if task.websocket.is_some() { Carrier::WebSocket } else { Carrier::Polling };
    app.metrics.connections.get_or_create(&carrier_labels(carrier)).dec();
    let ended = labels([("protocol", "socketio"), ("reason", reason.label())]);
    app.metrics.disconnects.get_or_create(&ended).inc();
    if let Some(websocket) = task.websocket {
        websocket.close(reason).await;
    }
    // What nobody read must not stay in the gauge.
    session.discard();
}

fn carrier_labels(carrier: Carrier) -> Labels {
    let transport = if carrier == Carrier::WebSocket { "websocket" } else { "polling" };
    labels([("protocol", "socketio"), ("transport", transport)])
}

impl Task {
    async fn run(&mut self, mut inputs: mpsc::Receiver<Input>) -> CloseReason {
        let sleep = sleep_until(self.deadline());
        tokio::pin!(sleep);
        loop {
            if let Err(reason) = self.step(&mut inputs, sleep.as_mut()).await {
                return reason;
            }
        }
    }

    async fn step(
        &mut self,
        inputs: &mut mpsc::Receiver<Input>,
        mut sleep: std::pin::Pin<&mut Sleep>,
    ) -> Result<(), CloseReason> {
        if sleep.deadline() != self.deadline() {
            sleep.as_mut().reset(self.deadline());
        }
        // While a job runs nothing more is read, which is the client's backpressure.
        let idle = self.job.is_none();
        let (session, metrics) = (&self.session, &self.app.metrics);
        tokio::select! {
            biased;
            finished = async { match &mut self.job { Some(job) => job.await, None => std::future::pending().await } } => {
                self.job = None;
                self.client.finish(finished);
                self.run_waiting()
            }
            input = inputs.recv(), if idle || self.websocket.is_none() => match input {
                Some(input) => self.input(input).await,
                None => Err(CloseReason::Transport),
            },
            event = async { match &mut self.websocket {
                Some(websocket) => poll_fn(|cx| websocket.poll_event(cx, session, metrics, idle)).await,
                None => std::future::pending().await,
            } } => self.event(event),
            () = sleep.as_mut() => self.deadline_passed(),
        }
    }

    fn deadline(&self) -> Instant {
        let beat = match self.beat {
            Beat::Ping(at) | Beat::Pong(at) => at,
        };
        if self.client.connected_once() { beat } else { beat.min(self.connect_by) }
    }

    fn deadline_passed(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        if !self.client.connected_once() && now >= self.connect_by {
            return Err(CloseReason::ConnectTimeout);
        }
        match self.beat {
            Beat::Ping(at) if now >= at => {
                self.session.push(Unit::text("2"));
                let timeout = self.app.config.socketio.ping_timeout_ms;
                self.beat = Beat::Pong(now + Duration::from_millis(timeout.into()));
                Ok(())
            }
            Beat::Pong(at) if now >= at => {
                self.app.metrics.ping_timeouts.inc();
                Err(CloseReason::PingTimeout)
            }
            _ => Ok(()),
        }
    }

    async fn input(&mut self, input: Input) -> Result<(), CloseReason> {
        match input {
            Input::Closed => match (self.session.closed(), &self.websocket) {
                // A polling client fetches what is left and the close packet with its next GET.
                (Some(reason), None) => Err(reason),
                // The WebSocket writes what is left first and then reports the end.
                _ => Ok(()),
            },
            Input::Packets(packets) => {
                self.waiting.extend(packets);
                if self.job.is_none() { self.run_waiting() } else { Ok(()) }
            }
            Input::Upgraded(websocket) => {
                self.app.metrics.connections.get_or_create(&carrier_labels(Carrier::Polling)).dec();
                self.app
                    .metrics
                    .connections
                    .get_or_create(&carrier_labels(Carrier::WebSocket))
                    .inc();
                self.websocket = Some(*websocket);
                self.session.set_carrier(Carrier::WebSocket);
                Ok(())
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), CloseReason> {
        let packet = match event {
            Event::Ended(reason) => return Err(reason),
            Event::Message(Message::Text(text)) => {
                engineio::decode(&text).map_err(|_| CloseReason::Protocol)?
            }
            Event::Message(Message::Binary(bytes)) => Packet::Binary(bytes),
            Event::Message(_) => return Ok(()),
        };
        self.waiting.push_back(packet);
        self.run_waiting()
    }

    fn run_waiting(&mut self) -> Result<(), CloseReason> {
        while let Some(packet) = self.waiting.pop_front() {
            let job = match packet {
                Packet::Message(text) => self.client.on_text(text)?,
                Packet::Binary(bytes) => self.client.on_binary(bytes)?,
                Packet::Pong => {
                    // An extra pong starts nothing: there is one beat a session.
                    if matches!(self.beat, Beat::Pong(_)) {
                        let interval = self.app.config.socketio.ping_interval_ms;
                        self.beat =
                            Beat::Ping(Instant::now() + Duration::from_millis(interval.into()));
                    }
                    None
                }
                Packet::Noop => None,
                Packet::Close => return Err(CloseReason::Client),
                Packet::Ping(_) | Packet::Upgrade => return Err(CloseReason::Protocol),
            };
            if let Some(job) = job {
                self.job = Some(job.run(Arc::clone(&self.app)).boxed());
                return Ok(());
            }
        }
        Ok(())
    }
}
