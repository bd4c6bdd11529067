//! The operator's own metrics, named by [`contract::metrics::OPERATOR`].

use contract::metrics::OPERATOR;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::sync::atomic::AtomicU64;

/// Label pairs.
pub type Labels = Vec<(&'static str, String)>;

/// All instruments.
#[derive(Debug)]
#[expect(missing_docs, reason = "contract::metrics documents each by name")]
pub struct Metrics {
    pub leader: Gauge,
    pub reconciles: Family<Labels, Counter>,
    pub reconcile_seconds: Histogram,
    pub writes: Family<Labels, Counter>,
    pub drift: Family<Labels, Counter>,
    pub scrapes: Family<Labels, Counter>,
    pub watch_errors: Family<Labels, Counter>,
    pub sample_age: Family<Labels, Gauge<f64, AtomicU64>>,
    pub desired: Family<Labels, Gauge>,
    registry: Registry,
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, metric: M) -> M {
    let help = OPERATOR.iter().find(|m| m.name == name).map_or("", |m| m.help);
    registry.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        Self {
            leader: add(r, "realtime_operator_leader", Gauge::default()),
            reconciles: add(r, "realtime_operator_reconciles", Family::default()),
            reconcile_seconds: add(
                r,
                "realtime_operator_reconcile_seconds",
                Histogram::new((0..12).map(|i| 0.001 * 2.5f64.powi(i))),
            ),
            writes: add(r, "realtime_operator_writes", Family::default()),
            drift: add(r, "realtime_operator_drift_corrected", Family::default()),
            scrapes: add(r, "realtime_operator_scrapes", Family::default()),
            watch_errors: add(r, "realtime_operator_watch_errors", Family::default()),
            sample_age: add(r, "realtime_operator_sample_age_seconds", Family::default()),
            desired: add(r, "realtime_operator_desired_replicas", Family::default()),
            registry,
        }
    }
}

impl Metrics {
    /// The Prometheus exposition.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts one.
    pub fn count<const N: usize>(
        counters: &Family<Labels, Counter>,
        pairs: [(&'static str, &str); N],
    ) {
        counters.get_or_create(&pairs.map(|(name, value)| (name, value.to_owned())).to_vec()).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_holds_exactly_the_catalogue() {
        let metrics = Metrics::default();
        let touch = |name: &str| -> Labels {
            let metric = OPERATOR.iter().find(|m| m.name == name).unwrap();
            metric.labels.iter().map(|label| (*label, "x".into())).collect()
        };
        for (name, counters) in [
            ("realtime_operator_reconciles", &metrics.reconciles),
            ("realtime_operator_writes", &metrics.writes),
            ("realtime_operator_drift_corrected", &metrics.drift),
            ("realtime_operator_scrapes", &metrics.scrapes),
            ("realtime_operator_watch_errors", &metrics.watch_errors),
        ] {
            counters.get_or_create(&touch(name)).inc();
        }
        metrics.sample_age.get_or_create(&touch("realtime_operator_sample_age_seconds")).set(1.0);
        metrics.desired.get_or_create(&touch("realtime_operator_desired_replicas")).set(1);
        let text = metrics.expose();
        let exposed: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .collect();
        let wanted: Vec<_> = OPERATOR.iter().map(|m| m.name).collect();
        assert_eq!(exposed, wanted);
    }
}
