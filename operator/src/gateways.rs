//! Signed calls to gateways: samples in, orders out.

use crate::decide::fleet::Order;
use crate::observe::Pod;
use crate::settings::Settings;
use bytes::Bytes;
use contract::internal::{
    CORDON_LEASE_SECONDS, CORDON_PATH, Cordon, DRAIN_PATH, Drain, SAMPLE_PATH, Sample,
    UNCORDON_PATH,
};
use contract::ports;
use contract::sign::{Call, Keys};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A gateway that does not answer within this time has no sample in this pass.
const SAMPLE_TIMEOUT: Duration = Duration::from_millis(500);
/// Orders may wait a little longer.
const ORDER_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer.
const ANSWER_MAX: usize = 16 * 1024;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The pod has no address yet.
    #[error("gateway has no address")]
    NoAddress,
    /// Not within the time-out.
    #[error("gateway did not answer in time")]
    Timeout,
    /// Connection refused, reset, and the like.
    #[error("failed to reach the gateway")]
    Http(#[from] hyper_util::client::legacy::Error),
    /// It answered with an error.
    #[error("gateway answered {0}")]
    Status(http::StatusCode),
    /// The answer is not what was asked for.
    #[error("gateway's answer cannot be read")]
    Body,
}

/// A client with kept-alive connections to all gateways.
#[derive(Clone)]
pub struct Gateways {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Gateways {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(SAMPLE_TIMEOUT));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { http }
    }
}

impl Gateways {
    /// The gateway's state right now.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn sample(&self, pod: &Pod, keys: &Keys) -> Result<Sample, CallError> {
        let call = self.call(pod, keys, Method::GET, SAMPLE_PATH, Bytes::new());
        let body =
            tokio::time::timeout(SAMPLE_TIMEOUT, call).await.map_err(|_| CallError::Timeout)??;
        serde_json::from_slice(&body).map_err(|_| CallError::Body)
    }

    /// Carries out an order.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn order(
        &self,
        settings: &Settings,
        pod: &Pod,
        keys: &Keys,
        order: &Order,
    ) -> Result<(), CallError> {
        let lease_seconds = CORDON_LEASE_SECONDS;
        let (path, body) = match order {
            Order::Cordon => (CORDON_PATH, json(&Cordon { lease_seconds })),
            Order::Uncordon => (UNCORDON_PATH, Bytes::new()),
            Order::Drain { rate } => {
                let deadline_seconds = settings.config.drain.deadline_ms / 1000;
                (DRAIN_PATH, json(&Drain { lease_seconds, rate: *rate, deadline_seconds }))
            }
        };
        let call = self.call(pod, keys, Method::POST, path, body);
        tokio::time::timeout(ORDER_TIMEOUT, call).await.map_err(|_| CallError::Timeout)??;
        Ok(())
    }

    async fn call(
        &self,
        pod: &Pod,
        keys: &Keys,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let ip = pod.ip.ok_or(CallError::NoAddress)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let call = Call { method: method.as_str(), path, body: &body, target: &pod.uid, time: now };
        let address = SocketAddr::new(ip, ports::API);
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("http://{address}{path}"))
            .header("content-type", "application/json");
        for (name, value) in call.headers(keys) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.clone())).map_err(|_| CallError::Body)?;
        let response = self.http.request(request).await?;
        if !response.status().is_success() {
            return Err(CallError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        Ok(body.map_err(|_| CallError::Body)?.to_bytes())
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
