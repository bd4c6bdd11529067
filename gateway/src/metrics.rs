//! The gateway's metrics. Names and help come from [`contract::metrics`], so the
//! docs, the exposition and the code cannot drift apart.

use contract::metrics::GATEWAY;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Label pairs: names and values are bounded by construction, never room, user or error text.
pub type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// Counters by label.
pub type Counters = Family<Labels, Counter>;
/// Gauges by label.
pub type Gauges = Family<Labels, Gauge>;

/// Static label pairs.
#[must_use]
pub fn labels<const N: usize>(pairs: [(&'static str, &'static str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect()
}

/// All instruments; hot paths hold their counter directly instead of looking it up.
#[derive(Debug)]
#[expect(missing_docs, reason = "contract::metrics documents each by name")]
pub struct Metrics {
    pub connections: Gauges,
    pub connects: Counters,
    pub disconnects: Counters,
    pub handshake_errors: Counters,
    pub handshake_seconds: Histogram,
    pub messages_received: Counter,
    pub messages_sent: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub rooms: Gauge,
    pub memberships: Gauge,
    pub publishes: Counters,
    pub events_ignored: Counters,
    pub dropped: Counters,
    pub outbox_bytes: Gauge,
    pub limit_hits: Counters,
    pub ping_timeouts: Counter,
    pub lag_gateway: Histogram,
    pub lag_broker: Histogram,
    pub lag_total: Histogram,
    pub broker_up: Gauge,
    pub broker_reconnects: Counters,
    pub broker_subscriptions: Gauge,
    pub forwarded: Counters,
    pub phase: Gauges,
    pub panics: Counter,
    pub redis_status: Gauge,
    pub http_active: Gauges,
    pub http_requests: Counters,
    recent: RecentLag,
    registry: Registry,
}

/// The latest lags, for the operator's sample.
#[derive(Debug, Default)]
struct RecentLag {
    worst_micros: AtomicU64,
    broker_micros: AtomicU64,
}

impl RecentLag {
    fn broker(&self) -> f64 {
        self.broker_micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

fn micros(lag: Duration) -> u64 {
    u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)
}

/// Registers families under the catalogue's help texts.
struct Catalogue(Registry);

impl Catalogue {
    fn add<M: Metric + Clone>(&mut self, name: &str, metric: M) -> M {
        let help = GATEWAY.iter().find(|m| m.name == name).map_or("", |m| m.help);
        self.0.register(name, help, metric.clone());
        metric
    }

    fn family<M: Clone + Default + 'static>(&mut self, name: &str) -> Family<Labels, M>
    where
        Family<Labels, M>: Metric + Clone + Default,
    {
        self.add(name, Family::default())
    }
}

impl Metrics {
    /// Registers every metric of the catalogue. `broker` is the broker's label;
    /// Redis's own status appears only with the Redis broker.
    #[must_use]
    pub fn new(broker: &'static str) -> Self {
        let mut all = Catalogue(Registry::default());
        let protocol = labels([("protocol", "socketio")]);
        let broker_label = labels([("broker", broker)]);
        let lag: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| {
                // 50 µs to 7 s by factor 2.5: the goals lie between 1 ms and 1 s.
                Histogram::new((0..14).map(|i| 50e-6 * 2.5f64.powi(i)))
            });
        let lag = all.add("realtime_pubsub_lag_seconds", lag);
        let leg = |name| lag.get_or_create_owned(&labels([("leg", name)]));
        let metrics = Self {
            connections: all.family("realtime_connections"),
            connects: all.family("realtime_connects"),
            disconnects: all.family("realtime_disconnects"),
            handshake_errors: all.family("realtime_handshake_errors"),
            handshake_seconds: all.add(
                "realtime_handshake_seconds",
                Histogram::new((0..12).map(|i| 0.001 * 2.5f64.powi(i))),
            ),
            messages_received: all
                .family("realtime_messages_received")
                .get_or_create_owned(&protocol),
            messages_sent: all.family("realtime_messages_sent").get_or_create_owned(&protocol),
            received_bytes: all.family("realtime_received_bytes").get_or_create_owned(&protocol),
            sent_bytes: all.family("realtime_sent_bytes").get_or_create_owned(&protocol),
            rooms: all.add("realtime_rooms", Gauge::default()),
            memberships: all.add("realtime_room_memberships", Gauge::default()),
            publishes: all.family("realtime_publishes"),
            events_ignored: all.family("realtime_events_ignored"),
            dropped: all.family("realtime_dropped"),
            outbox_bytes: all.add("realtime_outbox_bytes", Gauge::default()),
            limit_hits: all.family("realtime_limit_hits"),
            ping_timeouts: all.add("realtime_ping_timeouts", Counter::default()),
            lag_gateway: leg("gateway"),
            lag_broker: leg("broker"),
            lag_total: leg("total"),
            broker_up: all.family("realtime_broker_up").get_or_create_owned(&broker_label),
            broker_reconnects: all.family("realtime_broker_reconnects"),
            broker_subscriptions: all
                .family("realtime_broker_subscriptions")
                .get_or_create_owned(&broker_label),
            forwarded: all.family("realtime_forwarded_requests"),
            phase: all.family("realtime_phase"),
            panics: all.add("realtime_panics", Counter::default()),
            redis_status: Gauge::default(),
            http_active: all.family("http_active_connections"),
            http_requests: all.family("http_requests"),
            recent: RecentLag::default(),
            registry: Registry::default(),
        };
        if broker == "redis" {
            all.add("redis_connection_status", metrics.redis_status.clone());
        }
        all.0.register_collector(Box::new(Process));
        Self { registry: all.0, ..metrics }
    }

    /// Notes how long one message took from the broker's hand to the kernel's.
    pub fn record_gateway_lag(&self, lag: Duration) {
        let gateway = lag.as_secs_f64();
        self.lag_gateway.observe(gateway);
        self.lag_total.observe(gateway + self.recent.broker());
        self.recent.worst_micros.fetch_max(micros(lag), Ordering::Relaxed);
    }

    /// Notes the broker's leg: a canary's round trip.
    pub fn record_broker_lag(&self, lag: Duration) {
        self.lag_broker.observe(lag.as_secs_f64());
        self.recent.broker_micros.store(micros(lag), Ordering::Relaxed);
    }

    /// Worst gateway leg since the last call, in seconds: the operator samples every second or two.
    #[must_use]
    pub fn take_gateway_lag(&self) -> f64 {
        self.recent.worst_micros.swap(0, Ordering::Relaxed) as f64 / 1e6
    }

    /// Counts one under static labels.
    pub fn count<const N: usize>(counters: &Counters, pairs: [(&'static str, &'static str); N]) {
        counters.get_or_create(&labels(pairs)).inc();
    }

    /// The Prometheus exposition (OpenMetrics text).
    #[must_use]
    pub fn expose(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            let _ = write!(text, "# failed to encode: {error}");
        }
        text
    }

    /// Open connections over all transports.
    #[must_use]
    pub fn open_connections(&self) -> i64 {
        ["websocket", "polling"]
            .iter()
            .map(|transport| {
                let labels = labels([("protocol", "socketio"), ("transport", transport)]);
                self.connections.get_or_create(&labels).get()
            })
            .sum()
    }
}

/// CPU and memory of the process, read from the kernel at each scrape.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for name in ["process_cpu_seconds", "process_resident_memory_bytes"] {
            let Some(metric) = GATEWAY.iter().find(|m| m.name == name) else { continue };
            if name == "process_cpu_seconds" {
                let value = ConstCounter::new(cpu_seconds());
                let kind = value.metric_type();
                value.encode(encoder.encode_descriptor(name, metric.help, None, kind)?)?;
            } else {
                let value = ConstGauge::new(resident_bytes());
                let kind = value.metric_type();
                value.encode(encoder.encode_descriptor(name, metric.help, None, kind)?)?;
            }
        }
        Ok(())
    }
}

/// User and system CPU seconds of this process; 0 where /proc is absent.
#[must_use]
pub fn cpu_seconds() -> f64 {
    // Fields 14 and 15 of proc(5) stat, in clock ticks: USER_HZ is 100 on every Linux ABI.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: f64 =
        behind_name.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn resident_bytes() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: i64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    pages * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_holds_exactly_the_catalogue() {
        let metrics = Metrics::new("redis");
        let family = |name: &str| GATEWAY.iter().find(|m| m.name == name).unwrap().labels;
        let touch = |name: &str| -> Labels {
            family(name).iter().map(|label| (*label, Cow::Borrowed("x"))).collect()
        };
        // A family shows itself with its first member only.
        for (name, gauges) in [
            ("realtime_connections", &metrics.connections),
            ("realtime_phase", &metrics.phase),
            ("http_active_connections", &metrics.http_active),
        ] {
            gauges.get_or_create(&touch(name)).set(1);
        }
        for (name, counters) in [
            ("realtime_connects", &metrics.connects),
            ("realtime_disconnects", &metrics.disconnects),
            ("realtime_handshake_errors", &metrics.handshake_errors),
            ("realtime_publishes", &metrics.publishes),
            ("realtime_events_ignored", &metrics.events_ignored),
            ("realtime_dropped", &metrics.dropped),
            ("realtime_limit_hits", &metrics.limit_hits),
            ("realtime_broker_reconnects", &metrics.broker_reconnects),
            ("realtime_forwarded_requests", &metrics.forwarded),
            ("http_requests", &metrics.http_requests),
        ] {
            counters.get_or_create(&touch(name)).inc();
        }
        let text = metrics.expose();
        let exposed: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .collect();
        let missing: Vec<_> = GATEWAY.iter().filter(|m| !exposed.contains(&m.name)).collect();
        assert!(missing.is_empty(), "not exposed: {missing:?}");
        for name in exposed {
            assert!(GATEWAY.iter().any(|m| m.name == name), "not in the catalogue: {name}");
        }
        assert!(!Metrics::new("memory").expose().contains("redis_connection_status"));
    }
}
