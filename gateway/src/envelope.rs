//! A message on its way: what one gateway hands the others through the broker.
//!
//! On the wire: a version byte, then fields of tag (1 byte), length (u32, big
//! endian) and bytes. Unknown tags are skipped, so that gateways of two
//! versions understand one another (operator rule 4).

use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;

const VERSION: u8 = 1;
const TAG_ARGS: u8 = 1;
const TAG_ATTACHMENT: u8 = 2;

/// One event: text and attachments belong together and are delivered as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The JSON array, event name first, as its original bytes.
    pub args: Utf8Bytes,
    /// Binary attachments, numbered by the placeholders in `args`.
    pub attachments: Vec<Bytes>,
}

/// Why bytes from the broker are no envelope; counted and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A version that cannot be read additively.
    #[error("unknown envelope version")]
    Version,
    /// Ends within a field.
    #[error("envelope is cut short")]
    Short,
    /// No arguments, or not UTF-8.
    #[error("envelope has no valid arguments")]
    Args,
}

impl Envelope {
    /// Bytes for the broker.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size: usize = self.attachments.iter().map(|a| a.len() + 5).sum();
        let mut out = BytesMut::with_capacity(6 + self.args.len() + size);
        out.put_u8(VERSION);
        put_field(&mut out, TAG_ARGS, self.args.as_bytes());
        for attachment in &self.attachments {
            put_field(&mut out, TAG_ATTACHMENT, attachment);
        }
        out.freeze()
    }

    /// Reads bytes from the broker, sharing them.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not an envelope.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.first() != Some(&VERSION) {
            return Err(DecodeError::Version);
        }
        let mut at = 1;
        let (mut args, mut attachments) = (None, Vec::new());
        while at < bytes.len() {
            let header = bytes.get(at..at + 5).ok_or(DecodeError::Short)?;
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            let end = at.checked_add(5 + length).filter(|end| *end <= bytes.len());
            let end = end.ok_or(DecodeError::Short)?;
            let field = bytes.slice(at + 5..end);
            match header[0] {
                TAG_ARGS => args = Some(Utf8Bytes::try_from(field).map_err(|_| DecodeError::Args)?),
                TAG_ATTACHMENT => attachments.push(field),
                _ => {}
            }
            at = end;
        }
        Ok(Self { args: args.ok_or(DecodeError::Args)?, attachments })
    }
}

fn put_field(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    // Messages are bounded by `limits.messageBytes`, a u32.
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_newer_gateways_fields_are_skipped() {
        let envelope = Envelope { args: "[\"m\"]".into(), attachments: vec![] };
        let mut bytes = BytesMut::from(&envelope.encode()[..]);
        put_field(&mut bytes, 200, b"from the future");
        assert_eq!(Envelope::decode(&bytes.freeze()), Ok(envelope));
    }

    #[test]
    fn broken_bytes_are_refused() {
        let good = Envelope { args: "[1]".into(), attachments: vec![Bytes::from_static(b"x")] };
        let bytes = good.encode();
        assert_eq!(Envelope::decode(&bytes.slice(..bytes.len() - 1)), Err(DecodeError::Short));
        assert_eq!(Envelope::decode(&Bytes::from_static(b"\x02")), Err(DecodeError::Version));
        assert_eq!(Envelope::decode(&Bytes::from_static(b"\x01")), Err(DecodeError::Args));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(args in "\\PC{0,50}", attachments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4)) {
            let attachments = attachments.into_iter().map(Bytes::from).collect();
            let envelope = Envelope { args: args.into(), attachments };
            prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Envelope::decode(&bytes.into());
        }
    }
}
