//! Signatures of internal calls (operator rule 8): HMAC-SHA-256 over method,
//! path with query, body digest, target pod UID and time.
//!
//! The caller signs with the current key; the callee accepts the current and
//! the previous one, so that a rotation refuses no call.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Unix seconds at which the call was signed.
pub const TIME_HEADER: &str = "x-realtime-time";
/// UID of the pod the call is meant for.
pub const TARGET_HEADER: &str = "x-realtime-target";
/// Lower-case hex signature.
pub const SIGNATURE_HEADER: &str = "x-realtime-signature";
/// Most seconds a signature's time may differ from the callee's clock.
pub const MAX_SKEW_SECONDS: u64 = 300;

/// The keys of one side. `current` signs, both verify.
#[derive(Clone, Default)]
pub struct Keys {
    /// Key in use.
    pub current: Vec<u8>,
    /// Key before the last rotation.
    pub previous: Option<Vec<u8>>,
}

/// Why a call was refused. The text is safe to show to the caller.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// A header is missing or malformed.
    #[error("internal call is not signed")]
    Unsigned,
    /// The signature's time is too far from our clock.
    #[error("internal call's signature is expired")]
    Expired,
    /// Signed for another pod.
    #[error("internal call is meant for another pod")]
    WrongTarget,
    /// No key of ours made this signature.
    #[error("internal call's signature is wrong")]
    WrongSignature,
    /// This process has no key, so it takes no internal call.
    #[error("internal calls are off: no key is configured")]
    NoKey,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// HTTP method, upper case.
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// Whole body (empty for an upgrade).
    pub body: &'a [u8],
    /// UID of the pod that is called.
    pub target: &'a str,
    /// Unix seconds.
    pub time: u64,
}

impl Call<'_> {
    fn mac(&self, key: &[u8]) -> Hmac<Sha256> {
        // HMAC takes keys of any length; an empty one cannot occur (see `verify`).
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key).expect("hmac accepts a key of any length");
        mac.update(b"v1\n");
        for part in [self.method, self.path, &hex(&Sha256::digest(self.body)), self.target] {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        mac.update(self.time.to_string().as_bytes());
        mac
    }

    /// The three headers to send.
    #[must_use]
    pub fn headers(&self, keys: &Keys) -> [(&'static str, String); 3] {
        let signature = hex(&self.mac(&keys.current).finalize().into_bytes());
        [
            (TIME_HEADER, self.time.to_string()),
            (TARGET_HEADER, self.target.to_owned()),
            (SIGNATURE_HEADER, signature),
        ]
    }
}

/// Checks a received call. `header` looks a header up by name; `own_uid` is the
/// callee's pod UID and `now` its clock in Unix seconds.
///
/// # Errors
/// [`Refused`], whatever is wrong first.
pub fn verify<'a>(
    keys: &Keys,
    method: &str,
    path: &str,
    body: &[u8],
    header: impl Fn(&str) -> Option<&'a str>,
    own_uid: &str,
    now: u64,
) -> Result<(), Refused> {
    if keys.current.is_empty() {
        return Err(Refused::NoKey);
    }
    let time: u64 = header(TIME_HEADER).and_then(|t| t.parse().ok()).ok_or(Refused::Unsigned)?;
    let target = header(TARGET_HEADER).ok_or(Refused::Unsigned)?;
    let signature = header(SIGNATURE_HEADER).and_then(unhex).ok_or(Refused::Unsigned)?;
    if time.abs_diff(now) > MAX_SKEW_SECONDS {
        return Err(Refused::Expired);
    }
    if target != own_uid {
        return Err(Refused::WrongTarget);
    }
    let call = Call { method, path, body, target, time };
    let fits = |key: &Vec<u8>| call.mac(key).verify_slice(&signature).is_ok();
    if fits(&keys.current) || keys.previous.as_ref().is_some_and(fits) {
        Ok(())
    } else {
        Err(Refused::WrongSignature)
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn keys(current: &str, previous: Option<&str>) -> Keys {
        Keys { current: current.into(), previous: previous.map(Into::into) }
    }

    fn check(
        callee: &Keys,
        headers: &HashMap<&str, String>,
        body: &[u8],
        uid: &str,
        now: u64,
    ) -> Result<(), Refused> {
        verify(
            callee,
            "POST",
            "/internal/v1/drain?x=1",
            body,
            |n| headers.get(n).map(String::as_str),
            uid,
            now,
        )
    }

    #[test]
    fn a_call_is_taken_by_its_target_alone_in_time_and_unchanged() {
        let old = keys("old", None);
        let call = Call {
            method: "POST",
            path: "/internal/v1/drain?x=1",
            body: b"{}",
            target: "uid-1",
            time: 1_000,
        };
        let headers: HashMap<_, _> = call.headers(&old).into_iter().collect();
        assert_eq!(check(&old, &headers, b"{}", "uid-1", 1_200), Ok(()));
        assert_eq!(check(&keys("new", Some("old")), &headers, b"{}", "uid-1", 1_000), Ok(()));
        assert_eq!(
            check(&keys("new", None), &headers, b"{}", "uid-1", 1_000),
            Err(Refused::WrongSignature)
        );
        assert_eq!(check(&old, &headers, b"{ }", "uid-1", 1_000), Err(Refused::WrongSignature));
        assert_eq!(check(&old, &headers, b"{}", "uid-2", 1_000), Err(Refused::WrongTarget));
        assert_eq!(check(&old, &headers, b"{}", "uid-1", 1_301), Err(Refused::Expired));
        assert_eq!(check(&old, &HashMap::new(), b"{}", "uid-1", 1_000), Err(Refused::Unsigned));
        assert_eq!(check(&Keys::default(), &headers, b"{}", "uid-1", 1_000), Err(Refused::NoKey));
        let mut odd = headers.clone();
        odd.insert(SIGNATURE_HEADER, "abc".into());
        assert_eq!(check(&old, &odd, b"{}", "uid-1", 1_000), Err(Refused::Unsigned));
    }
}
