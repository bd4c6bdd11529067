//! Wire formats, pure: bytes in, types out, and back. No I/O, no clock.

pub mod engineio;
pub mod socketio;
