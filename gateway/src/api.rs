//! The ports that clients do not use: metrics and health (open), and the
//! signed internal calls of the operator and of peers.

use crate::app::App;
use crate::engine::{TooLarge, collect, handle};
use crate::life::phase_label;
use crate::metrics::cpu_seconds;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use contract::internal::{
    CORDON_PATH, Cordon, DRAIN_PATH, Drain, FORWARD_PATH, Phase, SAMPLE_PATH, Sample, UNCORDON_PATH,
};
use contract::ports::{LIVENESS_PATH, METRICS_PATH, READINESS_PATH};
use contract::sign;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Health, on the client port and on the metrics port.
pub fn health_router(app: Arc<App>) -> Router {
    Router::new()
        .route(LIVENESS_PATH, get(async || "ok"))
        .route(READINESS_PATH, get(readiness))
        .with_state(app)
}

/// The metrics port.
pub fn open_router(app: Arc<App>) -> Router {
    Router::new()
        .route(METRICS_PATH, get(metrics))
        .with_state(Arc::clone(&app))
        .merge(health_router(app))
}

/// The API port: every call is signed.
pub fn internal_router(app: Arc<App>) -> Router {
    Router::new()
        .route(SAMPLE_PATH, get(sample))
        .route(CORDON_PATH, post(cordon))
        .route(DRAIN_PATH, post(drain))
        .route(UNCORDON_PATH, post(uncordon))
        .route(FORWARD_PATH, any(forwarded))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), verify))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.expose()).into_response()
}

/// Ready = new clients may be sent here. A lost broker does not change that
/// (one Redis failure must not empty every endpoint), it is told in the detail.
async fn readiness(State(app): State<Arc<App>>) -> Response {
    let phase = app.phase();
    let health = app.broker.health();
    let status =
        if phase == Phase::Accepting { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let detail = serde_json::json!({
        "phase": phase_label(phase),
        "degraded": !health.up,
        "connections": app.registry.len(),
    });
    (status, Json(detail)).into_response()
}

async fn verify(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let limit = app.config.limits.message_bytes as usize;
    let body = match collect(body, limit).await {
        Ok(body) => body,
        Err(TooLarge::Limit) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(TooLarge::Broken) => return StatusCode::BAD_REQUEST.into_response(),
    };
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let checked = {
        let keys = app.keys.read().unwrap_or_else(PoisonError::into_inner);
        sign::verify(&keys, parts.method.as_str(), path, &body, header, &app.uid, now)
    };
    match checked {
        Ok(()) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(refused) => (StatusCode::UNAUTHORIZED, refused.to_string()).into_response(),
    }
}

async fn forwarded(State(app): State<Arc<App>>, request: Request) -> Response {
    handle(app, request, true).await
}

async fn sample(State(app): State<Arc<App>>) -> Json<Sample> {
    let health = app.broker.health();
    let total = |counters: &crate::metrics::Counters, pairs: &[(&'static str, &'static str)]| {
        pairs
            .iter()
            .map(|pair| {
                counters
                    .get_or_create(&crate::metrics::labels([("protocol", "socketio"), *pair]))
                    .get()
            })
            .sum()
    };
    let connections = app.registry.len() as u64;
    let accepts_total =
        total(&app.metrics.connects, &[("transport", "websocket"), ("transport", "polling")]);
    Json(Sample {
        uid: app.uid.clone(),
        phase: Some(app.phase()),
        cordoned_seconds: app.life.cordoned_for().map_or(0.0, |d| d.as_secs_f64()),
        connections,
        capacity: app.config.limits.connections_per_pod.into(),
        accepts_total,
        disconnects_total: accepts_total.saturating_sub(connections),
        gateway_lag_seconds: app.metrics.take_gateway_lag(),
        broker_lag_seconds: health.round_trip_seconds,
        cpu_seconds_total: cpu_seconds(),
        outbox_bytes: u64::try_from(app.metrics.outbox_bytes.get()).unwrap_or(0),
        degraded: !health.up,
        config: app.config_hash.clone(),
    })
}

async fn cordon(State(app): State<Arc<App>>, Json(cordon): Json<Cordon>) -> StatusCode {
    app.life.cordon(Duration::from_secs(cordon.lease_seconds.into()));
    StatusCode::NO_CONTENT
}

async fn drain(State(app): State<Arc<App>>, Json(drain): Json<Drain>) -> StatusCode {
    let lease = Duration::from_secs(drain.lease_seconds.into());
    app.life.drain(lease, drain.rate, Duration::from_secs(drain.deadline_seconds.into()));
    StatusCode::NO_CONTENT
}

async fn uncordon(State(app): State<Arc<App>>) -> StatusCode {
    app.life.uncordon();
    StatusCode::NO_CONTENT
}
