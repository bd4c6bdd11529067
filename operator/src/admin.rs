//! The operator's health and metrics.

use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;

/// Serves /healthz, /readyz and /metrics until the process ends. Followers are ready, too.
///
/// # Errors
/// When the address is taken.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(async || "ok"))
        .route("/metrics", get(async |State(metrics): State<Arc<Metrics>>| metrics.expose()))
        .with_state(metrics);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await
}
