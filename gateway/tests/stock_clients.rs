//! Unmodified socket.io-client from npm against real gateways and a real Redis.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{Redis, gateway, node, round_robin};

fn url(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_on_one_gateway_without_redis() {
    let gateway = gateway(None).await;
    let output = node("suite.mjs", &[&url(gateway.client_addr)]).await;
    assert!(output.contains("all checks passed"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_on_two_gateways_over_redis() {
    let redis = Redis::start().await;
    let (a, b) = (gateway(Some(redis.options())).await, gateway(Some(redis.options())).await);
    let output = node("suite.mjs", &[&url(a.client_addr), &url(b.client_addr)]).await;
    assert!(output.contains("all checks passed"), "{output}");
}

/// Every request may land on the wrong gateway: polls and upgrades are passed on to the owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_behind_a_balancer_without_affinity() {
    let redis = Redis::start().await;
    let (a, b) = (gateway(Some(redis.options())).await, gateway(Some(redis.options())).await);
    let balancer = round_robin(vec![a.client_addr, b.client_addr]).await;
    let output = node("suite.mjs", &[&url(balancer)]).await;
    assert!(output.contains("all checks passed"), "{output}");
    let forwarded = a.app.metrics.expose();
    assert!(
        forwarded.contains(r#"realtime_forwarded_requests_total{result="ok"}"#),
        "nothing was forwarded"
    );
}
