//! Raw bytes against a gateway: what stock clients never send, and what peers may not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures_util::{SinkExt as _, StreamExt as _};
use gateway::app::Gateway;
use gateway::life::phase_label;
use support::{DEADLINE, gateway, gateway_with, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// One HTTP/1.1 exchange; the whole answer as text.
async fn http(gateway: &Gateway, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway.client_addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(gateway: &Gateway, query: &str) -> String {
    http(
        gateway,
        &format!("GET /socket.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
    .await
}

async fn post(gateway: &Gateway, query: &str, body: &str) -> String {
    let length = body.len();
    http(gateway, &format!("POST /socket.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")).await
}

async fn websocket(gateway: &Gateway) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(gateway.client_addr).await.unwrap();
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", gateway.client_addr);
    let (mut socket, _) = client_async(url, stream).await.unwrap();
    assert!(text(&mut socket).await.starts_with("0{\"sid\":\""));
    socket
}

async fn text(socket: &mut WebSocketStream<TcpStream>) -> String {
    match tokio::time::timeout(DEADLINE, socket.next()).await.expect("a message in time") {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("expected text, found {other:?}"),
    }
}

/// The code of the close that must come next.
async fn closed(socket: &mut WebSocketStream<TcpStream>) -> u16 {
    loop {
        match tokio::time::timeout(DEADLINE, socket.next()).await.expect("a close in time") {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("expected a close, found {other:?}"),
        }
    }
}

/// True when some session has a poll pending.
fn polled(gateway: &Gateway) -> bool {
    gateway.app.registry.all().iter().any(|session| session.is_polled())
}

fn sid(answer: &str) -> String {
    let (_, rest) = answer.split_once("\"sid\":\"").unwrap_or_else(|| panic!("no sid: {answer}"));
    rest[..20].to_owned()
}

#[tokio::test]
async fn http_errors_have_the_reference_servers_codes() {
    let gateway = gateway(None).await;
    for (query, code) in [
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
        ("EIO=4&transport=polling&sid=abc", 1),
        ("EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", 1),
        ("EIO=4&transport=websocket", 3),
        ("EIO=3&transport=polling", 5),
        ("transport=polling", 5),
    ] {
        let answer = get(&gateway, query).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{query}: {answer}");
        assert!(answer.contains(&format!("{{\"code\":{code},")), "{query}: {answer}");
    }
    let answer = post(&gateway, "EIO=4&transport=polling", "x").await;
    assert!(answer.contains("{\"code\":2,"), "{answer}");
}

#[tokio::test]
async fn a_second_poll_ends_both_and_the_session() {
    let gateway = gateway(None).await;
    let sid = sid(&get(&gateway, "EIO=4&transport=polling").await);
    let query = format!("EIO=4&transport=polling&sid={sid}");
    let (first, second) = tokio::join!(get(&gateway, &query), async {
        wait_for("the first poll is pending", async || polled(&gateway)).await;
        get(&gateway, &query).await
    });
    assert!(first.ends_with("1"), "{first}");
    assert!(second.starts_with("HTTP/1.1 400"), "{second}");
    wait_for("the session is gone", async || gateway.app.registry.is_empty()).await;
}

#[tokio::test]
async fn an_aborted_poll_ends_the_session() {
    let gateway = gateway(None).await;
    let sid = sid(&get(&gateway, "EIO=4&transport=polling").await);
    let mut stream = TcpStream::connect(gateway.client_addr).await.unwrap();
    let request =
        format!("GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    wait_for("the poll is pending", async || polled(&gateway)).await;
    drop(stream);
    wait_for("the session is gone", async || gateway.app.registry.is_empty()).await;
}

#[tokio::test]
async fn posts_that_break_the_protocol_end_the_session() {
    let gateway = gateway(None).await;
    for body in ["", "abc", "4\x1e", "b!!!"] {
        let sid = sid(&get(&gateway, "EIO=4&transport=polling").await);
        let answer = post(&gateway, &format!("EIO=4&transport=polling&sid={sid}"), body).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
    }
    wait_for("all sessions are gone", async || gateway.app.registry.is_empty()).await;
    let sid = sid(&get(&gateway, "EIO=4&transport=polling").await);
    let large = "4".repeat(gateway.app.config.limits.message_bytes as usize + 1);
    let answer = post(&gateway, &format!("EIO=4&transport=polling&sid={sid}"), &large).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn packets_that_break_the_protocol_close_the_websocket() {
    let gateway = gateway(None).await;
    for packets in [
        &["abc"][..],
        &["2"],
        &["42[\"echo\"]"],
        &["40", "40"],
        &["40", "42{}"],
        &["40", "44{}"],
        &["40", "42[\"disconnect\"]"],
        &["40", "4511-[\"x\"]"],
        &["40", "451-[\"x\",{\"_placeholder\":true,\"num\":0}]", "42[\"echo\"]"],
    ] {
        let mut socket = websocket(&gateway).await;
        for packet in packets {
            socket.send(Message::Text((*packet).into())).await.unwrap();
        }
        assert_eq!(closed(&mut socket).await, 1002, "{packets:?}");
    }
    let mut socket = websocket(&gateway).await;
    socket.send(Message::Binary(vec![1].into())).await.unwrap();
    assert_eq!(closed(&mut socket).await, 1002);
    wait_for("all sessions are gone", async || gateway.app.registry.is_empty()).await;
    assert_eq!(gateway.app.metrics.open_connections(), 0);
}

#[tokio::test]
async fn without_auth_a_client_is_told_what_to_set() {
    let gateway = gateway_with(None, |config| config.file.auth.anonymous = false).await;
    let mut socket = websocket(&gateway).await;
    socket.send(Message::Text("40".into())).await.unwrap();
    assert_eq!(
        text(&mut socket).await,
        "44{\"message\":\"auth not configured: set spec.gateway.auth\"}"
    );
}

#[tokio::test]
async fn silence_ends_in_a_ping_timeout_and_no_namespace_in_a_connect_timeout() {
    let gateway = gateway_with(None, |config| {
        config.file.socketio.ping_interval_ms = 100;
        config.file.socketio.ping_timeout_ms = 100;
        config.file.socketio.connect_timeout_ms = 60_000;
    })
    .await;
    let mut socket = websocket(&gateway).await;
    assert_eq!(text(&mut socket).await, "2");
    assert_eq!(closed(&mut socket).await, 1000);
    assert_eq!(gateway.app.metrics.ping_timeouts.get(), 1);
    let impatient =
        gateway_with(None, |config| config.file.socketio.connect_timeout_ms = 100).await;
    let mut socket = websocket(&impatient).await;
    assert_eq!(closed(&mut socket).await, 1000);
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_others_are_not() {
    let gateway = gateway_with(None, |config| config.file.limits.outbox_bytes = 64 * 1024).await;
    let mut slow = websocket(&gateway).await;
    let mut fast = websocket(&gateway).await;
    for socket in [&mut slow, &mut fast] {
        for packet in ["40", "420[\"joinRoom\",\"r\"]"] {
            socket.send(Message::Text(packet.into())).await.unwrap();
            text(socket).await;
        }
    }
    let send = format!("42[\"sendMessage\",\"r\",\"{}\"]", "x".repeat(50_000));
    let drops = || {
        let labels =
            gateway::metrics::labels([("protocol", "socketio"), ("reason", "slow_consumer")]);
        gateway.app.metrics.disconnects.get_or_create(&labels).get()
    };
    // `slow` reads nothing; the kernel's buffers fill first, then its outbox.
    for _ in 0..2_000 {
        fast.send(Message::Text(send.clone().into())).await.unwrap();
        text(&mut fast).await;
        if gateway.app.registry.len() == 1 {
            break;
        }
    }
    wait_for("the slow reader is closed", async || drops() == 1).await;
    assert_eq!(gateway.app.registry.len(), 1);
}

#[tokio::test]
async fn a_full_gateway_says_come_back_later() {
    let gateway = gateway_with(None, |config| config.file.limits.connections_per_pod = 1).await;
    let _socket = websocket(&gateway).await;
    let answer = get(&gateway, "EIO=4&transport=polling").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn half_a_request_is_given_up() {
    let gateway = gateway(None).await;
    let mut stream = TcpStream::connect(gateway.client_addr).await.unwrap();
    stream.write_all(b"GET /socket.io/?EIO=4 HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection was held for ever");
}

#[tokio::test]
async fn a_drain_announces_every_close_and_refuses_newcomers() {
    let gateway = gateway_with(None, |config| config.file.drain.deadline_ms = 5_000).await;
    let mut socket = websocket(&gateway).await;
    socket.send(Message::Text("40".into())).await.unwrap();
    text(&mut socket).await;
    let sid = sid(&get(&gateway, "EIO=4&transport=polling").await);
    let ((), code, polled) = tokio::join!(gateway.drain(), closed(&mut socket), async {
        // Closed between two polls: the next one must be told.
        wait_for("the polling session is closed", async || {
            let all = gateway.app.registry.all();
            all.iter().any(|s| s.sid.to_string() == sid && s.closed().is_some())
        })
        .await;
        get(&gateway, &format!("EIO=4&transport=polling&sid={sid}")).await
    });
    assert_eq!(code, 1012);
    // The polling client, too, is told: Engine.IO's close packet.
    assert!(polled.ends_with("\r\n\r\n1"), "{polled}");
    assert_eq!(phase_label(gateway.app.phase()), "drained");
}

#[tokio::test]
async fn unsigned_internal_calls_are_refused() {
    let gateway = gateway(None).await;
    for (method, path) in [
        ("GET", "/internal/v1/sample"),
        ("POST", "/internal/v1/drain"),
        ("GET", "/internal/v1/engine?EIO=4"),
    ] {
        let mut stream = TcpStream::connect(gateway.api_addr).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
    }
}
