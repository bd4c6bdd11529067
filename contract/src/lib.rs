//! What the operator and the gateway must agree on, and nothing else: ports,
//! paths, environment keys, metric names, the gateway's configuration file and
//! the signed internal calls between the two.
//!
//! Everything here is versioned and additive: operator N works with gateways
//! N-1 and N+1 (unknown fields are ignored, new fields have defaults).

pub mod config;
pub mod env;
pub mod internal;
pub mod labels;
pub mod metrics;
pub mod pattern;
pub mod ports;
pub mod sign;
