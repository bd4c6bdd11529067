//! The gateway as a whole: what is built from the configuration, what runs, how it ends.

use crate::broker::Broker;
use crate::broker::memory::MemoryBroker;
use crate::broker::redis::{RedisBroker, RedisOptions};
use crate::config::Config;
use crate::hub::Hub;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::route::Routes;
use crate::server::{self, Listener};
use crate::session::registry::Registry;
use crate::{api, drain, engine};
use contract::config::GatewayConfig;
use contract::sign::Keys;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Shared state of a running gateway.
pub struct App {
    /// The file's content.
    pub config: GatewayConfig,
    /// Hash of the file, as the sample reports it.
    pub config_hash: String,
    /// Its compiled routes.
    pub routes: Routes,
    /// Instruments.
    pub metrics: Arc<Metrics>,
    /// Sessions by id.
    pub registry: Registry,
    /// Rooms.
    pub hub: Arc<Hub>,
    /// How other gateways are heard.
    pub broker: Arc<dyn Broker>,
    /// Other gateways by number, and our own number.
    pub peers: Peers,
    /// Phase of life.
    pub life: Life,
    /// Keys of signed internal calls; files are read anew, so a rotation needs no restart.
    pub keys: RwLock<Keys>,
    /// UID of this pod.
    pub uid: String,
}

/// A running gateway; ports are those really bound.
pub struct Gateway {
    /// Shared state.
    pub app: Arc<App>,
    /// Where clients connect.
    pub client_addr: SocketAddr,
    /// Metrics and health.
    pub metrics_addr: SocketAddr,
    /// Server API and internal calls.
    pub api_addr: SocketAddr,
    stop_accepting: watch::Sender<bool>,
}

/// The gateway could not start.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} for {purpose}")]
pub struct BindError {
    purpose: &'static str,
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

async fn bind(purpose: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { purpose, address, source })
}

impl Gateway {
    /// Binds the listeners and starts everything. Tests pass port 0.
    ///
    /// # Errors
    /// [`BindError`] when an address is taken.
    pub async fn start(config: Config) -> Result<Self, BindError> {
        let client = bind("clients", config.client).await?;
        let metrics_listener = bind("metrics", config.metrics).await?;
        let api_listener = bind("the API", config.api).await?;
        let metrics =
            Arc::new(Metrics::new(if config.redis.is_some() { "redis" } else { "memory" }));
        let hub = Hub::start(Arc::clone(&metrics));
        let peers = Peers::new(config.pod.clone(), config.redis.clone());
        let broker: Arc<dyn Broker> = match &config.redis {
            Some(options) => start_redis(options, &hub, &metrics),
            None => Arc::new(MemoryBroker::new(hub.clone())),
        };
        hub.attach(Arc::clone(&broker));
        let app = Arc::new(App {
            config_hash: config.file_hash,
            config: config.file,
            routes: config.routes,
            metrics,
            registry: Registry::new(),
            hub,
            broker,
            peers,
            life: Life::default(),
            keys: RwLock::new(config.keys.read()),
            uid: config.pod.uid.clone(),
        });
        tokio::spawn(crate::life::watch(Arc::clone(&app), config.keys));
        tokio::spawn(crate::peers::announce(Arc::clone(&app)));
        let (stop_accepting, stop) = watch::channel(false);
        let gateway = Self {
            client_addr: local(&client, config.client),
            metrics_addr: local(&metrics_listener, config.metrics),
            api_addr: local(&api_listener, config.api),
            app: Arc::clone(&app),
            stop_accepting,
        };
        let forever = watch::channel(false).1;
        let connections = app.config.limits.connections_per_pod as usize;
        server::spawn(
            Listener::new("client", client, stop, connections),
            engine::router(Arc::clone(&app)),
            &app,
        );
        server::spawn(
            Listener::new("metrics", metrics_listener, forever.clone(), 256),
            api::open_router(Arc::clone(&app)),
            &app,
        );
        server::spawn(
            Listener::new("api", api_listener, forever, 4096),
            api::internal_router(Arc::clone(&app)),
            &app,
        );
        Ok(gateway)
    }

    /// The SIGTERM drain: not ready, wait for endpoints to follow, close
    /// transports at the configured rate, at the deadline the rest.
    pub async fn drain(&self) {
        drain::on_sigterm(&self.app).await;
        let _ = self.stop_accepting.send(true);
    }
}

fn local(listener: &TcpListener, wanted: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(wanted)
}

fn start_redis(options: &RedisOptions, hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Arc<dyn Broker> {
    let sink: Arc<dyn crate::broker::Sink> = hub.clone();
    Arc::new(RedisBroker::start(options.clone(), sink, Arc::clone(metrics)))
}
