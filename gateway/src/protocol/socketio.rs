//! Socket.IO protocol 5: packets inside Engine.IO messages.
//!
//! Source: docs/socket.io-protocol/v5-current.md of socketio/socket.io and
//! socket.io-parser 4.2.6 (limit of ten attachments, reserved event names).

use serde_json::value::RawValue;

/// Most binary attachments of one packet, as in socket.io-parser 4.2.6.
pub const ATTACHMENTS_MAX: usize = 10;
/// Deepest nesting of arrays and objects in a payload.
pub const DEPTH_MAX: usize = 64;
/// Most digits of an ack id: it must fit the client's safe integers.
const ID_DIGITS_MAX: usize = 15;
/// Event names a client may not send (socket.io-parser's RESERVED_EVENTS).
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `0`
    Connect,
    /// `1`
    Disconnect,
    /// `2`, or `5` with attachments
    Event,
    /// `3`, or `6` with attachments
    Ack,
}

/// A packet from a client; text borrowed from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub kind: Kind,
    /// Attachments that follow as binary messages.
    pub attachments: usize,
    /// Namespace, `/` when none is written.
    pub namespace: &'a str,
    /// Ack id, when an answer is wanted or given.
    pub id: Option<u64>,
    /// JSON behind the header, maybe empty.
    pub data: &'a str,
}

/// Why a message is not a packet; each closes the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No type, or one a client may not send (CONNECT_ERROR among them).
    #[error("unknown packet type")]
    UnknownType,
    /// Attachment count missing, malformed or over [`ATTACHMENTS_MAX`].
    #[error("bad attachment count")]
    Attachments,
    /// Ack id is too long, or an ACK has none.
    #[error("bad ack id")]
    Id,
    /// Payload is not what the packet type needs.
    #[error("bad payload")]
    Payload,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("payload nested too deeply")]
    Depth,
    /// Event name is reserved, or neither text nor number.
    #[error("bad event name")]
    EventName,
    /// Text where an attachment must come, or the reverse.
    #[error("attachment out of place")]
    OutOfPlace,
}

impl<'a> Packet<'a> {
    /// Parses the text behind Engine.IO's `4`. The payload's JSON is not looked at yet.
    ///
    /// # Errors
    /// [`ParseError`] for a header that no client may send.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        let (kind, binary) = match text.as_bytes().first() {
            Some(b'0') => (Kind::Connect, false),
            Some(b'1') => (Kind::Disconnect, false),
            Some(b'2') => (Kind::Event, false),
            Some(b'3') => (Kind::Ack, false),
            Some(b'5') => (Kind::Event, true),
            Some(b'6') => (Kind::Ack, true),
            _ => return Err(ParseError::UnknownType),
        };
        let mut rest = &text[1..];
        let mut attachments = 0;
        if binary {
            let (count, behind) = rest.split_once('-').ok_or(ParseError::Attachments)?;
            let digits = !count.is_empty() && count.len() <= 2 && all_digits(count);
            attachments = if digits { count.parse().unwrap_or(usize::MAX) } else { usize::MAX };
            if attachments == 0 || attachments > ATTACHMENTS_MAX {
                return Err(ParseError::Attachments);
            }
            rest = behind;
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            // The trailing comma is optional when nothing follows; a query
            // behind the namespace was legal in older protocols and is dropped.
            let (name, behind) = rest.split_once(',').unwrap_or((rest, ""));
            namespace = name.split_once('?').map_or(name, |(name, _)| name);
            rest = behind;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let id = match digits {
            0 => None,
            1..=ID_DIGITS_MAX => Some(rest[..digits].parse().map_err(|_| ParseError::Id)?),
            _ => return Err(ParseError::Id),
        };
        let data = &rest[digits..];
        match kind {
            Kind::Ack if id.is_none() => return Err(ParseError::Id),
            Kind::Disconnect if !data.is_empty() => return Err(ParseError::Payload),
            Kind::Connect if !(data.is_empty() || data.starts_with('{')) => {
                return Err(ParseError::Payload);
            }
            _ => {}
        }
        Ok(Self { kind, attachments, namespace, id, data })
    }
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The arguments of an EVENT, each as its original JSON text.
#[derive(Debug)]
pub struct Event<'a> {
    /// Event name; a number keeps its digits.
    pub name: String,
    /// Arguments behind the name.
    pub args: Vec<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Parses an EVENT's payload.
    ///
    /// # Errors
    /// [`ParseError`] when it is no array, empty, nested too deeply, or its name is not allowed.
    pub fn parse(data: &'a str) -> Result<Self, ParseError> {
        check_depth(data)?;
        let mut args: Vec<&RawValue> =
            serde_json::from_str(data).map_err(|_| ParseError::Payload)?;
        if args.is_empty() {
            return Err(ParseError::Payload);
        }
        let first = args.remove(0).get();
        let name = match first.as_bytes().first() {
            Some(b'"') => serde_json::from_str(first).map_err(|_| ParseError::EventName)?,
            Some(b'-' | b'0'..=b'9') => first.to_owned(),
            _ => return Err(ParseError::EventName),
        };
        if RESERVED.contains(&name.as_str()) {
            return Err(ParseError::EventName);
        }
        Ok(Self { name, args })
    }
}

/// Refuses JSON nested deeper than [`DEPTH_MAX`], in one pass without recursion.
///
/// # Errors
/// [`ParseError::Depth`].
pub fn check_depth(json: &str) -> Result<(), ParseError> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(ParseError::Depth);
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Appends `nsp,` unless the namespace is `/`.
fn push_namespace(namespace: &str, out: &mut String) {
    if namespace != "/" {
        out.push_str(namespace);
        out.push(',');
    }
}

/// An EVENT as an Engine.IO message: `args` is the whole JSON array, name first.
#[must_use]
pub fn encode_event(namespace: &str, args: &str, attachments: usize) -> String {
    let mut out = String::with_capacity(args.len() + namespace.len() + 8);
    if attachments == 0 {
        out.push_str("42");
    } else {
        out.push_str("45");
        out.push_str(&attachments.to_string());
        out.push('-');
    }
    push_namespace(namespace, &mut out);
    out.push_str(args);
    out
}

/// An ACK as an Engine.IO message: `args` is the whole JSON array.
#[must_use]
pub fn encode_ack(namespace: &str, id: u64, args: &str, attachments: usize) -> String {
    let mut out = String::with_capacity(args.len() + namespace.len() + 16);
    if attachments == 0 {
        out.push_str("43");
    } else {
        out.push_str("46");
        out.push_str(&attachments.to_string());
        out.push('-');
    }
    push_namespace(namespace, &mut out);
    out.push_str(&id.to_string());
    out.push_str(args);
    out
}

/// The CONNECT reply.
#[must_use]
pub fn encode_connect(namespace: &str, sid: &str) -> String {
    let mut out = String::from("40");
    push_namespace(namespace, &mut out);
    out.push_str(r#"{"sid":""#);
    out.push_str(sid);
    out.push_str(r#""}"#);
    out
}

/// A refused CONNECT; the transport stays open.
#[must_use]
pub fn encode_connect_error(namespace: &str, message: &str) -> String {
    let mut out = String::from("44");
    push_namespace(namespace, &mut out);
    out.push_str(&serde_json::json!({ "message": message }).to_string());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_of_the_protocol_document_are_read() {
        let packet = |text| Packet::parse(text).unwrap();
        assert_eq!(packet("0").namespace, "/");
        assert_eq!(packet("0/admin").namespace, "/admin");
        assert_eq!(packet("0/admin,{\"token\":\"x\"}").data, "{\"token\":\"x\"}");
        assert_eq!(packet("1/admin,").kind, Kind::Disconnect);
        let event = packet("2/admin,456[\"project:delete\",123]");
        assert_eq!(
            (event.kind, event.id, event.data),
            (Kind::Event, Some(456), "[\"project:delete\",123]")
        );
        let binary = packet("51-/admin,7[\"x\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!((binary.attachments, binary.namespace, binary.id), (1, "/admin", Some(7)));
        assert_eq!(packet("3/admin,456[]").kind, Kind::Ack);
    }

    #[test]
    fn packets_no_client_may_send_are_refused() {
        for (text, error) in [
            ("", ParseError::UnknownType),
            ("4{}", ParseError::UnknownType),
            ("9", ParseError::UnknownType),
            ("5[\"x\"]", ParseError::Attachments),
            ("50-[\"x\"]", ParseError::Attachments),
            ("511-[\"x\"]", ParseError::Attachments),
            ("51000000000-[\"x\"]", ParseError::Attachments),
            ("3[\"x\"]", ParseError::Id),
            ("21234567890123456[\"x\"]", ParseError::Id),
            ("0[1]", ParseError::Payload),
            ("1{}", ParseError::Payload),
        ] {
            assert_eq!(Packet::parse(text), Err(error), "{text}");
        }
        for (data, error) in [
            ("{}", ParseError::Payload),
            ("[]", ParseError::Payload),
            ("[\"x\"", ParseError::Payload),
            ("abc[\"x\"]", ParseError::Payload),
            ("[null]", ParseError::EventName),
            ("[\"disconnect\"]", ParseError::EventName),
        ] {
            assert_eq!(Event::parse(data).err(), Some(error), "{data}");
        }
        let deep = format!("[\"x\",{}{}]", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert_eq!(Event::parse(&deep).err(), Some(ParseError::Depth));
        let quoted = format!("[\"x\",\"{}\"]", "[".repeat(1000));
        assert!(Event::parse(&quoted).is_ok());
    }

    #[test]
    fn arguments_keep_their_original_bytes() {
        let event = Event::parse(r#"["m", {"b": 1.0,  "a":2e3} ,null]"#).unwrap();
        let args: Vec<_> = event.args.iter().map(|a| a.get()).collect();
        assert_eq!(args, [r#"{"b": 1.0,  "a":2e3}"#, "null"]);
        assert_eq!(Event::parse("[7]").unwrap().name, "7");
    }

    #[test]
    fn what_is_sent_is_what_the_protocol_document_shows() {
        assert_eq!(encode_event("/", "[\"m\"]", 0), "42[\"m\"]");
        assert_eq!(encode_event("/admin", "[\"m\"]", 2), "452-/admin,[\"m\"]");
        assert_eq!(encode_ack("/admin", 13, "[]", 0), "43/admin,13[]");
        assert_eq!(encode_connect("/", "s"), "40{\"sid\":\"s\"}");
        assert_eq!(
            encode_connect_error("/random", "Invalid namespace"),
            "44/random,{\"message\":\"Invalid namespace\"}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read_without_panic(text in "\\PC{0,60}") {
            if let Ok(packet) = Packet::parse(&text) {
                let _ = Event::parse(packet.data);
            }
        }

        #[test]
        fn an_event_we_write_is_the_event_we_read(namespace in "/[a-z]{0,5}", word in "[a-z]{1,8}") {
            let args = format!("[\"ev-{word}\",1]");
            let encoded = encode_event(&namespace, &args, 0);
            let packet = Packet::parse(&encoded[1..]).unwrap();
            prop_assert_eq!(packet.namespace, namespace.as_str());
            prop_assert_eq!(packet.data, args.as_str());
        }
    }
}
