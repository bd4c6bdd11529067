//! The demo: a RealtimeCluster from one `kubectl apply`, stock clients on two
//! pods, thousands of connections, and the autoscaler at work.

use clap::Parser;
use kube::Client;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::cluster::{Background, Namespace, Outcome, ensure, node, root, wait_for};
use tests::view::{Gateway, Moment, View};

const NAME: &str = "quickstart";
const MINUTE: Duration = Duration::from_secs(60);

/// Applies examples/quickstart.yaml, lets stock clients talk across pods, ramps a
/// load up and down and shows how the fleet follows. Leaves the cluster up.
#[derive(Parser)]
struct Args {
    /// Connections of the load.
    #[arg(long, default_value_t = 3000)]
    connections: usize,
    /// Connections left after the drop.
    #[arg(long, default_value_t = 300)]
    rest: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match demo(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "\x1b[31mdemo failed:\x1b[0m {error}\nlook around with: eval \"$(tests/cluster/cluster env)\"; kubectl describe rtc {NAME}"
            );
            ExitCode::FAILURE
        }
    }
}

fn step(text: &str) {
    println!("\n\x1b[1m▶ {text}\x1b[0m");
}

struct Demo {
    client: Client,
    namespace: Namespace,
    view: View,
    start: Instant,
    target: i64,
    /// Sum and number of all lags at the last look: the view shows what came since.
    lag: Mutex<(f64, f64)>,
}

/// One row of the summary.
struct Row(&'static str, String);

async fn demo(args: Args) -> Outcome {
    let namespace = Namespace { name: "default".into() };
    step("kubectl apply -f examples/quickstart.yaml");
    let manifest = root().join("examples/quickstart.yaml");
    namespace.kubectl(&["delete", "rtc", NAME, "--ignore-not-found", "--timeout=60s"]).await?;
    let applied = Instant::now();
    print!("{}", namespace.kubectl(&["apply", "-f", &manifest.to_string_lossy()]).await?);
    namespace
        .kubectl(&["wait", "--for=condition=Ready", &format!("rtc/{NAME}"), "--timeout=120s"])
        .await?;
    let ready = applied.elapsed();
    print!("{}", namespace.kubectl(&["get", "rtc", NAME]).await?);

    let mut demo = Demo {
        client: Client::try_default().await.map_err(|e| e.to_string())?,
        namespace,
        view: View::default(),
        start: Instant::now(),
        target: 500,
        lag: Mutex::new((0.0, 0.0)),
    };
    step("socket.io-client from npm, one on each pod");
    let pods = demo.namespace.gateways().await?;
    ensure(pods.len() >= 2, "fewer than two gateways")?;
    let urls: Vec<_> = pods.iter().map(|(_, ip, _)| format!("http://{ip}:8080")).collect();
    print!("{}", node("suite.mjs", &[&urls[0], &urls[1]]).await?);

    step(&format!("a load of {} connections, {} a gateway wanted", args.connections, demo.target));
    let path = "jsonpath={.spec.clusterIP}:8080";
    let service =
        demo.namespace.kubectl(&["get", "service", &format!("{NAME}-gateway"), "-o", path]).await?;
    let rest = Background::load(&service, args.rest, 500)?;
    let burst = Background::load(&service, args.connections - args.rest, 400)?;
    demo.start = Instant::now();
    let full = i64::try_from(args.connections).unwrap_or(0);
    let wanted = usize::try_from((full + demo.target - 1) / demo.target).unwrap_or(0);
    let risen = demo
        .watch("load rises", &rest, Some(&burst), 3 * MINUTE, |m| {
            m.open >= full && m.gateways.iter().filter(|g| g.ready).count() >= wanted
        })
        .await?;
    demo.hold("load holds: messages flow", &rest, &burst, Duration::from_secs(8)).await?;
    let dropped = Instant::now();
    let burst = burst.stop().await;
    demo.watch("load falls: drain, then remove", &rest, None, 3 * MINUTE, |m| {
        m.gateways.len() == 2
    })
    .await?;
    let fallen = dropped.elapsed();
    let left = rest.stop().await;

    step("summary");
    let count = |value: &Value, name: &str| value[name].as_i64().unwrap_or(0);
    summary(&[
        Row("apply → Ready", seconds(ready)),
        Row(
            "load begins → all gateways ready",
            format!("{} for {full} connections on {wanted} gateways", seconds(risen)),
        ),
        Row(
            "load falls → back to 2 gateways",
            format!("{} (window 20 s, then drained)", seconds(fallen)),
        ),
        Row(
            "closes announced / without notice",
            format!(
                "{} / {}",
                count(&left, "announced") + count(&burst, "announced"),
                count(&left, "unannounced") + count(&burst, "unannounced")
            ),
        ),
    ]);
    println!(
        "\nThe cluster stays up. Try next:\n  eval \"$(tests/cluster/cluster env)\"\n  kubectl get rtc,pods -o wide\n  \
         kubectl describe rtc {NAME}          # Events tell each decision\n  kubectl edit rtc {NAME}              # change the target and watch\n  make cluster-down"
    );
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn summary(rows: &[Row]) {
    let width = rows.iter().map(|Row(name, _)| name.chars().count()).max().unwrap_or(0);
    for Row(name, value) in rows {
        println!("  {name:<width$}   {value}");
    }
}

impl Demo {
    /// Draws until the condition holds; the time since the load began.
    async fn watch(
        &mut self,
        act: &str,
        rest: &Background,
        burst: Option<&Background>,
        deadline: Duration,
        done: impl Fn(&Moment) -> bool,
    ) -> Outcome<Duration> {
        let start = self.start;
        wait_for(act, deadline, async || {
            let moment = self.moment(act, rest, burst).await?;
            self.view.draw(&moment);
            ensure(
                done(&moment),
                format!("{} connections, {} gateways", moment.open, moment.gateways.len()),
            )
        })
        .await?;
        Ok(start.elapsed())
    }

    async fn hold(
        &mut self,
        act: &str,
        rest: &Background,
        burst: &Background,
        time: Duration,
    ) -> Outcome {
        let until = Instant::now() + time;
        self.watch(act, rest, Some(burst), 2 * time, |_| Instant::now() >= until).await.map(drop)
    }

    async fn moment(
        &self,
        act: &str,
        rest: &Background,
        burst: Option<&Background>,
    ) -> Outcome<Moment> {
        let text = self.namespace.kubectl(&["get", "rtc", NAME, "-o", "json"]).await?;
        let cluster: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let autoscaling = &cluster["status"]["autoscaling"];
        let mut moment = Moment {
            at: self.start.elapsed(),
            act: act.into(),
            desired: autoscaling["desired"]
                .as_i64()
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(0),
            reason: autoscaling["reason"].as_str().unwrap_or_default().into(),
            open: rest.counter("open") + burst.map_or(0, |burst| burst.counter("open")),
            target: self.target,
            ..Moment::default()
        };
        let (mut lag_sum, mut lag_count) = (0.0, 0.0);
        for pod in self.namespace.list("pods").await? {
            let meta = &pod["metadata"];
            if meta["labels"]["realtime-operator.dev/component"] != "gateway"
                || !meta["deletionTimestamp"].is_null()
            {
                continue;
            }
            let name = meta["name"].as_str().unwrap_or_default();
            let metrics = self.metrics(name).await.unwrap_or_default();
            let value = |start: &str| -> f64 {
                let lines = metrics.lines().filter(|line| line.starts_with(start));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
            };
            lag_sum += value("realtime_pubsub_lag_seconds_sum{leg=\"total\"}");
            lag_count += value("realtime_pubsub_lag_seconds_count{leg=\"total\"}");
            let phase = metrics.lines().find_map(|line| {
                line.strip_prefix("realtime_phase{phase=\"")?.strip_suffix("\"} 1")
            });
            moment.gateways.push(Gateway {
                name: name.into(),
                node: pod["spec"]["nodeName"].as_str().unwrap_or("-").into(),
                ready: pod["status"]["conditions"].as_array().is_some_and(|all| {
                    all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
                }),
                phase: phase.unwrap_or("-").into(),
                connections: value("realtime_connections{") as i64,
            });
        }
        let mut before = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        // Removed gateways take their counters along.
        let (sum, count) = (lag_sum - before.0, lag_count - before.1);
        moment.lag_ms = if count > 0.0 && sum >= 0.0 { sum / count * 1000.0 } else { 0.0 };
        *before = (lag_sum, lag_count);
        Ok(moment)
    }

    /// A pod's metrics through the API server, which works on any cluster.
    async fn metrics(&self, pod: &str) -> Outcome<String> {
        let path =
            format!("/api/v1/namespaces/{}/pods/{pod}:9090/proxy/metrics", self.namespace.name);
        let request = http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string())?;
        self.client.request_text(request).await.map_err(|e| e.to_string())
    }
}
