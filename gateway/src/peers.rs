//! The other gateways: which pod owns a session, and how to reach it.
//!
//! A pod takes a 24-bit number and announces it in Redis under a lease. The
//! number is all a session id says; the address is looked up among live peers.

use crate::app::App;
use crate::broker::redis::RedisOptions;
use crate::config::Pod;
use crate::engine::{TooLarge, collect};
use crate::metrics::Metrics;
use crate::session::{POD_NUMBER_MAX, Sid};
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use contract::internal::FORWARD_PATH;
use contract::sign::Call;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An announcement lives this long without renewal.
const LEASE: Duration = Duration::from_secs(15);
/// Renewed this often.
const RENEW: Duration = Duration::from_secs(5);
/// A looked-up peer is believed this long: its pod's address never changes.
const CACHE: Duration = Duration::from_secs(10);
/// A killed pod's announcement outlives it: connecting to it must fail fast.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Most peers remembered.
const CACHE_MAX: usize = 4096;

/// A live gateway as announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Peer {
    uid: String,
    address: String,
}

/// Our own number and the way to others.
pub struct Peers {
    number: OnceLock<u32>,
    pod: Pod,
    redis: Option<RedisOptions>,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    cache: Mutex<HashMap<u32, (Option<Peer>, Instant)>>,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Peers {
    /// Without Redis a gateway is alone and takes a number at once.
    #[must_use]
    pub fn new(pod: Pod, redis: Option<RedisOptions>) -> Self {
        let number = OnceLock::new();
        if redis.is_none() {
            let _ = number.set(rand::random::<u32>() & POD_NUMBER_MAX);
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Self {
            number,
            pod,
            redis,
            connection: tokio::sync::Mutex::default(),
            cache: Mutex::default(),
            http,
        }
    }

    /// Our number, once it is taken.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.number.get().copied()
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        let mut slot = self.connection.lock().await;
        if slot.is_none() {
            *slot = self.redis.as_ref()?.connect().await.ok();
        }
        slot.clone()
    }

    async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let mut connection = self.connection().await?;
        match command.query_async(&mut connection).await {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::debug!(%error, "peer directory is not available");
                *self.connection.lock().await = None;
                None
            }
        }
    }

    fn key(&self, number: u32) -> String {
        let prefix = self.redis.as_ref().map_or("", |r| r.prefix.as_str());
        format!("{prefix}:peer:{number:06x}")
    }

    /// Takes a number, or renews the lease of the one we have.
    async fn renew(&self) {
        let me = Peer { uid: self.pod.uid.clone(), address: self.pod.address.clone() };
        let Ok(value) = serde_json::to_string(&me) else { return };
        let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let set = |number| {
            redis::cmd("SET").arg(self.key(number)).arg(&value).arg("PX").arg(lease).clone()
        };
        if let Some(number) = self.number() {
            let _: Option<()> = self.query(&set(number)).await;
            return;
        }
        let number = rand::random::<u32>() & POD_NUMBER_MAX;
        // NX: a number is taken by one pod; another try follows with the next tick.
        let taken: Option<Option<String>> = self.query(set(number).arg("NX")).await;
        if let Some(Some(_)) = taken {
            let _ = self.number.set(number);
            tracing::info!(number, "announced to peers");
        }
    }

    async fn lookup(&self, number: u32) -> Option<Peer> {
        {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((peer, at)) = cache.get(&number)
                && at.elapsed() < CACHE
            {
                return peer.clone();
            }
        }
        let found: Option<Option<String>> =
            self.query(redis::cmd("GET").arg(self.key(number))).await;
        // Redis is lost: what was known stays better than nothing.
        let Some(found) = found else {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            return cache.get(&number).and_then(|(peer, _)| peer.clone());
        };
        let peer = found.and_then(|text| serde_json::from_str(&text).ok());
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(number, (peer.clone(), Instant::now()));
        peer
    }

    /// Passes a request on to the pod that owns `sid`; `None` when no live pod does.
    pub async fn forward(&self, app: &App, sid: Sid, request: Request) -> Option<Response> {
        let peer = self.lookup(sid.pod()).await?;
        let limit = app.config.limits.message_bytes as usize;
        let response = match self.send(app, &peer, request, limit).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(error = %error, "failed to forward to the owner");
                Metrics::count(&app.metrics.forwarded, [("result", "failed")]);
                return None;
            }
        };
        Metrics::count(&app.metrics.forwarded, [("result", "ok")]);
        Some(response)
    }

    async fn send(
        &self,
        app: &App,
        peer: &Peer,
        mut request: Request,
        limit: usize,
    ) -> Result<Response, ForwardError> {
        let client_side = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        let body = match collect(body, limit).await {
            Ok(body) => body,
            Err(TooLarge::Limit) => return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
            Err(TooLarge::Broken) => return Ok(StatusCode::BAD_REQUEST.into_response()),
        };
        let path = format!("{FORWARD_PATH}?{}", parts.uri.query().unwrap_or_default());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let call = Call {
            method: parts.method.as_str(),
            path: &path,
            body: &body,
            target: &peer.uid,
            time: now,
        };
        let signed = call.headers(&app.keys.read().unwrap_or_else(PoisonError::into_inner));
        for header in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
            parts.headers.remove(header);
        }
        for (name, value) in signed {
            parts
                .headers
                .insert(name, HeaderValue::from_str(&value).map_err(|_| ForwardError::Header)?);
        }
        parts.uri = format!("http://{}{path}", peer.address)
            .parse::<Uri>()
            .map_err(|_| ForwardError::Header)?;
        parts.version = http::Version::HTTP_11;
        let mut response = self.http.request(Request::from_parts(parts, Full::new(body))).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let owner_side = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                let (Ok(client), Ok(owner)) = tokio::join!(client_side, owner_side) else { return };
                let (mut client, mut owner) = (TokioIo::new(client), TokioIo::new(owner));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut owner).await;
            });
        }
        Ok(response.map(Body::new))
    }
}

#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("failed to build the forwarded request")]
    Header,
    #[error("failed to reach the owner")]
    Http(#[from] hyper_util::client::legacy::Error),
}

/// Takes a number and keeps its lease, for as long as the process runs.
pub async fn announce(app: Arc<App>) {
    if app.peers.redis.is_none() {
        return;
    }
    loop {
        app.peers.renew().await;
        let taken = app.peers.number().is_some();
        tokio::time::sleep(if taken { RENEW } else { Duration::from_millis(200) }).await;
    }
}
