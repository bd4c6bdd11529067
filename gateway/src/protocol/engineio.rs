//! Engine.IO protocol 4: packets and polling payloads.
//!
//! Source: the protocol document of engine.io v4 (docs/engine.io-protocol/v4-current.md
//! of socketio/socket.io) and the behaviour of engine.io 6.6.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Separates the packets of a polling payload.
pub const SEPARATOR: u8 = 0x1e;
/// Most packets in one polling payload: a client packs what it has queued, so
/// this only stops a payload made of nothing but separators.
pub const PAYLOAD_PACKETS_MAX: usize = 4096;

/// A packet from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `1`: the client closes the transport.
    Close,
    /// `2…`: only legal as `2probe` on an upgrading transport.
    Ping(Utf8Bytes),
    /// `3`: answers our ping.
    Pong,
    /// `4…`: a Socket.IO packet, without the `4`.
    Message(Utf8Bytes),
    /// A binary attachment.
    Binary(Bytes),
    /// `5`: the client finishes its upgrade.
    Upgrade,
    /// `6`: nothing.
    Noop,
}

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing where a packet must be.
    #[error("empty packet")]
    Empty,
    /// A type no client may send.
    #[error("unknown packet type")]
    UnknownType,
    /// `b…` that is not base64.
    #[error("attachment is not base64")]
    Base64,
    /// Not UTF-8.
    #[error("payload is not utf-8")]
    Utf8,
    /// More than [`PAYLOAD_PACKETS_MAX`].
    #[error("too many packets in one payload")]
    TooMany,
}

/// Decodes the text of one WebSocket message.
///
/// # Errors
/// [`ParseError`] when it is empty or has a type that a client may not send.
pub fn decode(text: &Utf8Bytes) -> Result<Packet, ParseError> {
    match text.as_bytes().first().ok_or(ParseError::Empty)? {
        b'1' => Ok(Packet::Close),
        b'2' => Ok(Packet::Ping(rest(text))),
        b'3' => Ok(Packet::Pong),
        b'4' => Ok(Packet::Message(rest(text))),
        b'5' => Ok(Packet::Upgrade),
        b'6' => Ok(Packet::Noop),
        _ => Err(ParseError::UnknownType),
    }
}

/// Everything behind the first byte, which is ASCII, without copying.
fn rest(text: &Utf8Bytes) -> Utf8Bytes {
    let bytes: Bytes = text.clone().into();
    // The first byte is ASCII, so the remainder still is UTF-8.
    Utf8Bytes::try_from(bytes.slice(1..)).unwrap_or_default()
}

/// Decodes a polling payload.
///
/// # Errors
/// The first [`ParseError`] in it: a payload is taken whole or not at all.
pub fn decode_payload(body: &Bytes) -> Result<Vec<Packet>, ParseError> {
    let mut packets = Vec::new();
    let mut start = 0;
    for end in memchr_separators(body).chain(std::iter::once(body.len())) {
        if packets.len() == PAYLOAD_PACKETS_MAX {
            return Err(ParseError::TooMany);
        }
        let part = body.slice(start..end);
        packets.push(match part.first() {
            Some(b'b') => {
                Packet::Binary(STANDARD.decode(&part[1..]).map_err(|_| ParseError::Base64)?.into())
            }
            _ => decode(&Utf8Bytes::try_from(part).map_err(|_| ParseError::Utf8)?)?,
        });
        start = end + 1;
    }
    Ok(packets)
}

fn memchr_separators(body: &[u8]) -> impl Iterator<Item = usize> {
    body.iter().enumerate().filter(|(_, byte)| **byte == SEPARATOR).map(|(at, _)| at)
}

/// Appends an attachment to a polling payload.
pub fn encode_attachment(attachment: &[u8], payload: &mut Vec<u8>) {
    payload.push(b'b');
    payload.extend_from_slice(STANDARD.encode(attachment).as_bytes());
}

/// What the handshake tells the client: exactly these five keys.
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    /// Session id.
    pub sid: &'a str,
    /// True when the client may go on to WebSocket.
    pub upgrade: bool,
    /// Milliseconds between heartbeats.
    pub ping_interval_ms: u32,
    /// Milliseconds to answer one.
    pub ping_timeout_ms: u32,
    /// Largest message in bytes.
    pub max_payload: u32,
}

impl Handshake<'_> {
    /// The open packet.
    #[must_use]
    pub fn encode(&self) -> String {
        let upgrades = if self.upgrade { "\"websocket\"" } else { "" };
        format!(
            r#"0{{"sid":"{}","upgrades":[{upgrades}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            self.sid, self.ping_interval_ms, self.ping_timeout_ms, self.max_payload
        )
    }
}

/// The protocol's HTTP errors, with the reference server's codes and texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// `transport` is neither polling nor websocket.
    UnknownTransport,
    /// Nobody has this session.
    UnknownSid,
    /// A handshake must be a GET.
    BadHandshakeMethod,
    /// The request does not fit the session.
    BadRequest,
    /// Refused.
    Forbidden,
    /// `EIO` is not 4.
    UnsupportedVersion,
}

impl HttpError {
    /// Code, text and a bounded label for metrics.
    #[must_use]
    pub const fn describe(self) -> (u8, &'static str, &'static str) {
        match self {
            Self::UnknownTransport => (0, "Transport unknown", "transport_unknown"),
            Self::UnknownSid => (1, "Session ID unknown", "sid_unknown"),
            Self::BadHandshakeMethod => (2, "Bad handshake method", "bad_method"),
            Self::BadRequest => (3, "Bad request", "bad_request"),
            Self::Forbidden => (4, "Forbidden", "forbidden"),
            Self::UnsupportedVersion => (5, "Unsupported protocol version", "bad_version"),
        }
    }

    /// HTTP status: 403 for [`HttpError::Forbidden`], else 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        if matches!(self, Self::Forbidden) { 403 } else { 400 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_payload_is_taken_whole_or_not_at_all() {
        let packets = decode_payload(&Bytes::from_static(b"4hello\x1ebAQID\x1e3")).unwrap();
        assert_eq!(
            packets,
            [
                Packet::Message("hello".into()),
                Packet::Binary(Bytes::from_static(&[1, 2, 3])),
                Packet::Pong
            ]
        );
        for (body, error) in [
            (&b""[..], ParseError::Empty),
            (b"4a\x1e", ParseError::Empty),
            (b"4a\x1eb!", ParseError::Base64),
            (b"4a\x1e9", ParseError::UnknownType),
            (b"4\xff", ParseError::Utf8),
        ] {
            assert_eq!(decode_payload(&Bytes::from_static(body)), Err(error), "{body:?}");
        }
        let many = vec![SEPARATOR; PAYLOAD_PACKETS_MAX];
        let many: Vec<u8> = many.into_iter().flat_map(|s| [b'3', s]).chain([b'3']).collect();
        assert_eq!(decode_payload(&many.into()), Err(ParseError::TooMany));
    }

    #[test]
    fn the_handshake_has_exactly_the_five_keys() {
        let handshake = Handshake {
            sid: "abc",
            upgrade: true,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            max_payload: 1_000_000,
        };
        assert_eq!(
            handshake.encode(),
            r#"0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
        );
        let on_websocket = Handshake { upgrade: false, ..handshake }.encode();
        assert!(on_websocket.contains(r#""upgrades":[],"#));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_taken_without_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_payload(&body.into());
        }

        #[test]
        fn an_attachment_survives_a_polling_payload(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut payload = Vec::new();
            encode_attachment(&bytes, &mut payload);
            prop_assert_eq!(decode_payload(&payload.into()), Ok(vec![Packet::Binary(bytes.into())]));
        }
    }
}
