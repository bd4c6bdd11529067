//! Rooms as typed values (semantics section 1) and their names on the broker.

use contract::config::ROOM_NAME_MAX;

/// Where messages go. Only `Named` has a client-side spelling: whatever string
/// a client sends, it cannot reach a socket's or a user's room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Room {
    /// A room of a namespace.
    Named {
        /// Namespace, beginning with `/`.
        namespace: Box<str>,
        /// Name as clients spell it.
        name: Box<str>,
    },
    /// One Socket.IO socket.
    Socket(Box<str>),
    /// All connections of one user.
    User(Box<str>),
}

/// Why a text is no room name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or over 255 bytes.
    #[error("room name must have 1 to 255 bytes")]
    Length,
    /// Holds a control character.
    #[error("room name must not hold control characters")]
    Control,
}

impl Room {
    /// A room that a client names.
    ///
    /// # Errors
    /// [`NameError`] when the name breaks the rules of semantics section 1.
    pub fn named(namespace: &str, name: &str) -> Result<Self, NameError> {
        if name.is_empty() || name.len() > ROOM_NAME_MAX {
            return Err(NameError::Length);
        }
        if name.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        Ok(Self::Named { namespace: namespace.into(), name: name.into() })
    }

    /// Namespace of its members.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match self {
            Self::Named { namespace, .. } => namespace,
            Self::Socket(_) | Self::User(_) => "/",
        }
    }

    /// Name on the broker: kind, length of the namespace, bytes. Total and
    /// reversible, so two rooms never share a channel and user text is never a pattern.
    #[must_use]
    pub fn channel(&self) -> String {
        match self {
            Self::Named { namespace, name } => format!("n{}:{namespace}{name}", namespace.len()),
            Self::Socket(sid) => format!("s{sid}"),
            Self::User(id) => format!("u{id}"),
        }
    }

    /// The room of a channel name.
    #[must_use]
    pub fn from_channel(channel: &str) -> Option<Self> {
        match channel.split_at_checked(1)? {
            ("n", rest) => {
                let (length, rest) = rest.split_once(':')?;
                let (namespace, name) = rest.split_at_checked(length.parse().ok()?)?;
                Some(Self::Named { namespace: namespace.into(), name: name.into() })
            }
            ("s", sid) => Some(Self::Socket(sid.into())),
            ("u", id) => Some(Self::User(id.into())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_bounded() {
        assert_eq!(Room::named("/", ""), Err(NameError::Length));
        assert_eq!(Room::named("/", &"x".repeat(256)), Err(NameError::Length));
        assert_eq!(Room::named("/", "a\nb"), Err(NameError::Control));
        assert!(Room::named("/", &"x".repeat(255)).is_ok());
    }

    fn room() -> impl Strategy<Value = Room> {
        prop_oneof![
            ("/[^\\p{Cc},]{0,9}", "[^\\p{Cc}]{1,9}")
                .prop_map(|(namespace, name)| Room::named(&namespace, &name).unwrap()),
            "\\PC{1,9}".prop_map(|id| Room::Socket(id.into())),
            "\\PC{1,9}".prop_map(|id| Room::User(id.into())),
        ]
    }

    proptest! {
        #[test]
        fn the_channel_is_total_and_reversible(a in room(), b in room()) {
            prop_assert_eq!(Room::from_channel(&a.channel()), Some(a.clone()));
            prop_assert_eq!(a.channel() == b.channel(), a == b);
        }

        #[test]
        fn no_name_of_a_client_reaches_another_kind(name in "\\PC{1,40}") {
            if let Ok(room) = Room::named("/", &name) {
                let back = Room::from_channel(&room.channel());
                let named = matches!(back, Some(Room::Named { .. }));
                prop_assert!(named);
            }
        }
    }
}
