//! Real parts for the suites: a Redis server, gateways on free ports, and a
//! round-robin balancer without affinity.

#![allow(dead_code, reason = "each suite uses its part")]

use gateway::app::Gateway;
use gateway::broker::redis::RedisOptions;
use gateway::config::{Config, KeyFiles, Strings};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// Deadline of every wait: generous, since tests assert state and never time.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A real redis-server that ends with the test.
pub struct Redis {
    child: Child,
    pub port: u16,
}

impl Redis {
    pub async fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut redis = Self { child: Self::spawn(port), port };
        redis.ready().await;
        redis
    }

    fn spawn(port: u16) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed by `make deps`")
    }

    async fn ready(&mut self) {
        wait_for("redis answers", async || {
            TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn restart(&mut self) {
        self.child = Self::spawn(self.port);
        self.ready().await;
    }

    pub fn options(&self) -> RedisOptions {
        let url = format!("redis://127.0.0.1:{}", self.port);
        let strings = HashMap::from([(contract::env::REDIS_URL, url)]);
        RedisOptions::from_strings(&Strs(strings)).unwrap().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Strs(HashMap<&'static str, String>);

impl Strings for Strs {
    fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }
}

/// Waits for a condition, level-triggered, and says what was missing.
pub async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A gateway on free ports, accepting, with a key for internal calls.
pub async fn gateway(redis: Option<RedisOptions>) -> Gateway {
    gateway_with(redis, |_| {}).await
}

/// The same with a changed configuration.
pub async fn gateway_with(
    redis: Option<RedisOptions>,
    change: impl FnOnce(&mut Config),
) -> Gateway {
    let mut config = Config::ephemeral(redis);
    config.keys = KeyFiles::at(keys());
    // Peers must know the API's port, so it cannot be 0.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.api = free.local_addr().unwrap();
    config.pod.address = config.api.to_string();
    drop(free);
    change(&mut config);
    let gateway = Gateway::start(config).await.unwrap();
    wait_for("gateway accepts", async || {
        gateway.app.phase() == contract::internal::Phase::Accepting
    })
    .await;
    gateway
}

fn keys() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("gateway-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("current"), "a key for tests").unwrap();
    dir
}

/// Balances TCP connections in turn, as a Service without affinity does.
pub async fn round_robin(backends: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut turn = backends.into_iter().cycle();
        while let Ok((mut client, _)) = listener.accept().await {
            let backend = turn.next().unwrap();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(backend).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    address
}

/// Runs a script of tests/clients with node and returns its output; panics when it fails.
pub async fn node(script: &str, args: &[&str]) -> String {
    let clients = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/clients");
    let output = tokio::process::Command::new("node")
        .arg(clients.join(script))
        .args(args)
        .kill_on_drop(true)
        .output()
        .await
        .expect("node is installed by `make deps`");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed:\n{text}\n{errors}");
    text
}
