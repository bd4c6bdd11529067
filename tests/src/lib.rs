//! End-to-end scenarios on a real cluster, a load tool, and the demo.

pub mod cluster;
pub mod load;
pub mod report;
pub mod scenarios;
pub mod view;
