//! The operator: the control plane of RealtimeClusters.
//!
//! ```text
//! observe (I/O in) → decide (pure) → apply (I/O out) → status (pure), each pass from live state
//! ```

pub mod admin;
pub mod apply;
pub mod controller;
pub mod crd;
pub mod decide;
pub mod drift;
pub mod gateways;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod secrets;
pub mod settings;
pub mod status;
pub mod stores;
