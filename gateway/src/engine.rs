//! Engine.IO over HTTP: handshake, long-polling, the upgrade to WebSocket, and
//! passing on what belongs to another pod.

use crate::api;
use crate::app::App;
use crate::metrics::Metrics;
use crate::protocol::engineio::{self, HttpError};
use crate::session::outbox::{Taken, Unit};
use crate::session::transport::WebSocket;
use crate::session::{Carrier, CloseReason, Input, Session, Sid, task};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use bytes::Bytes;
use contract::internal::Phase;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Seconds a client that cannot be taken now is told to wait.
const RETRY_SECONDS: &str = "1";

/// The client port: the Socket.IO endpoint and health.
pub fn router(app: Arc<App>) -> Router {
    let path = app.config.socketio.path.clone();
    let bare = path.trim_end_matches('/').to_owned();
    let mut router = Router::new().route(&path, any(from_client));
    if !bare.is_empty() {
        router = router.route(&bare, any(from_client));
    }
    router.with_state(Arc::clone(&app)).merge(api::health_router(app))
}

async fn from_client(State(app): State<Arc<App>>, request: Request) -> Response {
    handle(app, request, false).await
}

/// What an Engine.IO request says in its URL.
#[derive(Debug, Default)]
struct Query {
    version: Option<String>,
    transport: Option<String>,
    sid: Option<String>,
}

impl Query {
    fn parse(query: Option<&str>) -> Self {
        let mut found = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "EIO" => found.version = Some(value.into()),
                "transport" => found.transport = Some(value.into()),
                "sid" => found.sid = Some(value.into()),
                _ => {}
            }
        }
        found
    }
}

/// Answers an Engine.IO request. `forwarded` requests came from a peer, were
/// checked there to be ours and are not passed on again.
pub async fn handle(app: Arc<App>, request: Request, forwarded: bool) -> Response {
    let query = Query::parse(request.uri().query());
    let upgrade = is_upgrade(&request);
    let transport = match query.transport.as_deref() {
        Some("polling") => Carrier::Polling,
        Some("websocket") => Carrier::WebSocket,
        _ => return refuse(&app, HttpError::UnknownTransport, upgrade),
    };
    let Some(sid) = query.sid else {
        return handshake(app, request, transport, query.version.as_deref(), upgrade).await;
    };
    let Some(sid) = Sid::parse(&sid) else { return refuse(&app, HttpError::UnknownSid, upgrade) };
    let Some(session) = app.registry.get(sid) else {
        let ours = app.peers.number() == Some(sid.pod());
        if forwarded || ours {
            return refuse(&app, HttpError::UnknownSid, upgrade);
        }
        return match app.peers.forward(&app, sid, request).await {
            Some(response) => response,
            None => refuse(&app, HttpError::UnknownSid, upgrade),
        };
    };
    match (transport, upgrade, session.carrier(), request.method()) {
        (Carrier::WebSocket, true, Carrier::Polling, &Method::GET) => probe(&app, session, request),
        (Carrier::Polling, _, Carrier::Polling | Carrier::Upgrading, &Method::GET) => {
            poll(&app, &session).await
        }
        (Carrier::Polling, _, Carrier::Polling | Carrier::Upgrading, &Method::POST) => {
            post(&app, &session, request).await
        }
        _ => refuse(&app, HttpError::BadRequest, upgrade),
    }
}

fn is_upgrade(request: &Request) -> bool {
    let upgrade = request.headers().get(UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && request.headers().contains_key(SEC_WEBSOCKET_KEY)
}

fn refuse(app: &App, error: HttpError, upgrade: bool) -> Response {
    let (code, message, label) = error.describe();
    Metrics::count(&app.metrics.handshake_errors, [("reason", label)]);
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    if upgrade {
        return (status, [(CONTENT_TYPE, "text/html")], message).into_response();
    }
    let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// A handshake that may succeed elsewhere or later.
fn come_back(app: &App, reason: &'static str) -> Response {
    Metrics::count(&app.metrics.handshake_errors, [("reason", reason)]);
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_SECONDS)], reason).into_response()
}

fn payload(body: impl Into<Body>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=UTF-8"), (CACHE_CONTROL, "no-store")];
    (headers, body.into()).into_response()
}

async fn handshake(
    app: Arc<App>,
    request: Request,
    carrier: Carrier,
    version: Option<&str>,
    upgrade: bool,
) -> Response {
    if request.method() != Method::GET {
        return refuse(&app, HttpError::BadHandshakeMethod, upgrade);
    }
    if (carrier == Carrier::WebSocket) != upgrade {
        return refuse(&app, HttpError::BadRequest, upgrade);
    }
    if version != Some("4") {
        return refuse(&app, HttpError::UnsupportedVersion, upgrade);
    }
    let Some(pod) = app.peers.number() else { return come_back(&app, "starting") };
    if app.phase() >= Phase::Draining {
        return come_back(&app, "draining");
    }
    if app.registry.len() >= app.config.limits.connections_per_pod as usize {
        Metrics::count(&app.metrics.limit_hits, [("limit", "connections_per_pod")]);
        return come_back(&app, "connections_per_pod");
    }
    let sid = Sid::new(pod);
    let limit = app.config.limits.outbox_bytes as usize;
    let (session, inputs) = Session::new(sid, carrier, limit, Arc::clone(&app.metrics));
    let options = &app.config.socketio;
    let open = engineio::Handshake {
        sid: &sid.to_string(),
        upgrade: carrier == Carrier::Polling,
        ping_interval_ms: options.ping_interval_ms,
        ping_timeout_ms: options.ping_timeout_ms,
        max_payload: app.config.limits.message_bytes,
    }
    .encode();
    if carrier == Carrier::Polling {
        // Registered before the client learns the id, so that its next request finds it.
        app.registry.insert(Arc::clone(&session));
        tokio::spawn(task::run(app, session, inputs, None));
        return payload(open);
    }
    session.push(Unit::text(open));
    let limits = Arc::clone(&app);
    switch(&limits, request, move |websocket| task::run(app, session, inputs, Some(websocket)))
}

async fn poll(app: &App, session: &Arc<Session>) -> Response {
    let Ok(in_flight) = session.begin_poll() else {
        return refuse(app, HttpError::BadRequest, false);
    };
    let max = app.config.limits.message_bytes as usize;
    let taken = poll_fn(|cx| session.poll_take(cx, max)).await;
    in_flight.finish();
    match taken {
        Taken::Closed(_) => {
            session.tell_closed();
            payload("1")
        }
        Taken::Units(units) if units.is_empty() => payload("6"),
        Taken::Units(units) => {
            let oldest = units.iter().find_map(|unit| unit.received);
            app.metrics.messages_sent.inc_by(units.len() as u64);
            app.metrics.sent_bytes.inc_by(units.iter().map(|u| u.size() as u64).sum());
            if let Some(oldest) = oldest {
                app.metrics.record_gateway_lag(oldest.elapsed());
            }
            payload(encode_units(&units))
        }
    }
}

fn encode_units(units: &[Unit]) -> Vec<u8> {
    let mut body = Vec::with_capacity(units.iter().map(|u| u.size() + 1).sum());
    for unit in units {
        if !body.is_empty() {
            body.push(engineio::SEPARATOR);
        }
        body.extend_from_slice(unit.text.as_bytes());
        for attachment in unit.attachments.iter().flat_map(|a| a.iter()) {
            body.push(engineio::SEPARATOR);
            engineio::encode_attachment(attachment, &mut body);
        }
    }
    body
}

async fn post(app: &App, session: &Arc<Session>, request: Request) -> Response {
    let Ok(in_flight) = session.begin_post() else {
        return refuse(app, HttpError::BadRequest, false);
    };
    let binary = request.headers().get(CONTENT_TYPE);
    if binary.is_some_and(|value| value.as_bytes() == b"application/octet-stream") {
        in_flight.finish();
        return refuse(app, HttpError::BadRequest, false);
    }
    let body = match collect(request.into_body(), app.config.limits.message_bytes as usize).await {
        Ok(body) => body,
        Err(TooLarge::Limit) => {
            in_flight.finish();
            Metrics::count(&app.metrics.limit_hits, [("limit", "message_bytes")]);
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        // The client went away: dropping `in_flight` ends the session.
        Err(TooLarge::Broken) => return StatusCode::BAD_REQUEST.into_response(),
    };
    in_flight.finish();
    let Ok(packets) = engineio::decode_payload(&body) else {
        session.close(CloseReason::Protocol);
        return refuse(app, HttpError::BadRequest, false);
    };
    if !session.send(Input::Packets(packets)).await {
        return refuse(app, HttpError::UnknownSid, false);
    }
    ([(CONTENT_TYPE, "text/html"), (CACHE_CONTROL, "no-store")], "ok").into_response()
}

/// Why a body was not collected.
#[derive(Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// It is larger than the limit.
    Limit,
    /// It ended early.
    Broken,
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// [`TooLarge`].
pub async fn collect(body: Body, limit: usize) -> Result<Bytes, TooLarge> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(TooLarge::Limit),
        Err(_) => Err(TooLarge::Broken),
    }
}

/// Answers 101 and runs `then` on the WebSocket.
fn switch<F>(
    app: &Arc<App>,
    mut request: Request,
    then: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|k| derive_accept_key(k.as_bytes()));
    let Some(accept) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else {
        return refuse(app, HttpError::BadRequest, true);
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let app = Arc::clone(app);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => then(WebSocket::accept(upgraded, &app.config.limits).await).await,
            Err(error) => tracing::debug!(%error, "client left before the upgrade"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// The upgrade of a polling session: `2probe`, `3probe`, `5`. Whatever goes
/// wrong closes the new transport only; the polling one keeps working.
fn probe(app: &Arc<App>, session: Arc<Session>, request: Request) -> Response {
    let timeout = Duration::from_millis(app.config.socketio.upgrade_timeout_ms.into());
    switch(app, request, move |mut websocket| async move {
        let probed = tokio::time::timeout(timeout, probe_messages(&session, &mut websocket)).await;
        if probed == Ok(true) {
            session.send(Input::Upgraded(Box::new(websocket))).await;
        } else {
            if session.carrier() == Carrier::Upgrading {
                session.set_carrier(Carrier::Polling);
            }
            websocket.close(CloseReason::Transport).await;
        }
    })
}

async fn probe_messages(session: &Session, websocket: &mut WebSocket) -> bool {
    let Some(Ok(Message::Text(ping))) = websocket.next().await else { return false };
    if ping.as_str() != "2probe" || websocket.send(Message::Text("3probe".into())).await.is_err() {
        return false;
    }
    // A pending poll is answered with a noop now, so that the client can pause polling.
    session.set_carrier(Carrier::Upgrading);
    matches!(websocket.next().await, Some(Ok(Message::Text(text))) if text.as_str() == "5")
}
