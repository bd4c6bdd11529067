//! The accept loop: hyper with a header timeout (axum's own server has none, so
//! a slow handshake would hold its socket for ever) and a connection limit.

use crate::app::App;
use crate::metrics::{Metrics, labels};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// A client must have sent its request's headers within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Largest request head in bytes: a URL of 8 KiB and its headers fit.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A bound port with its limit.
pub struct Listener {
    name: &'static str,
    listener: TcpListener,
    stop: watch::Receiver<bool>,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Serves at most `connections` TCP connections until `stop` turns true.
    #[must_use]
    pub fn new(
        name: &'static str,
        listener: TcpListener,
        stop: watch::Receiver<bool>,
        connections: usize,
    ) -> Self {
        Self { name, listener, stop, connections: Arc::new(Semaphore::new(connections)) }
    }
}

/// Runs the accept loop in the background.
pub fn spawn(listener: Listener, router: Router, app: &Arc<App>) {
    let count = Counted { app: Arc::clone(app), listener: listener.name };
    let router = router.layer(middleware::from_fn_with_state(count, count_request));
    tokio::spawn(accept(listener, router, Arc::clone(&app.metrics)));
}

async fn accept(mut listener: Listener, router: Router, metrics: Arc<Metrics>) {
    let active = metrics.http_active.get_or_create_owned(&labels([("listener", listener.name)]));
    loop {
        let accepted = tokio::select! {
            accepted = listener.listener.accept() => accepted,
            // A dropped sender means that this listener is never stopped.
            Ok(_) = listener.stop.wait_for(|stop| *stop) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, say: wait for some to come back.
                tracing::warn!(listener = listener.name, %error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&listener.connections).try_acquire_owned() else {
            Metrics::count(&metrics.limit_hits, [("limit", "tcp_connections")]);
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let active = active.clone();
        tokio::spawn(async move {
            active.inc();
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended with an error");
            }
            active.dec();
            drop(permit);
        });
    }
}

#[derive(Clone)]
struct Counted {
    app: Arc<App>,
    listener: &'static str,
}

async fn count_request(State(counted): State<Counted>, request: Request, next: Next) -> Response {
    // The matched route, never the path itself: labels are bounded.
    let route =
        request.extensions().get::<MatchedPath>().map_or("none".into(), |m| m.as_str().to_owned());
    let response = next.run(request).await;
    let labels = vec![
        ("listener", Cow::Borrowed(counted.listener)),
        ("route", Cow::Owned(route)),
        ("status", Cow::Owned(response.status().as_str().to_owned())),
    ];
    counted.app.metrics.http_requests.get_or_create(&labels).inc();
    response
}
