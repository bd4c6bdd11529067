//! The fleet follows the connections.

use super::{gateways, open_gateway};
use crate::cluster::{Background, DEADLINE, Namespace, Outcome, ensure, run, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Runs of the step; rule 15 asks for five or more.
const RUNS: usize = 5;

fn spec(min: i32, max: i32, target: i32, window: i32) -> Value {
    json!({
        "gateway": open_gateway(),
        "autoscaling": {
            "mode": "BuiltIn", "min": min, "max": max,
            "target": {"connections": target}, "scaleDownWindowSeconds": window,
        },
    })
}

pub async fn smoke(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&spec(2, 4, 100, 5)).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 60).await?;
    let target = namespace.service().await?;
    let load = Background::load(&target, 350, 500)?;
    gateways(&namespace, 4, 60).await?;
    let chat = namespace.chat().await?;
    let autoscaling = chat.status.and_then(|s| s.autoscaling).unwrap_or_default();
    ensure(autoscaling.reason.contains("connections at 100 a gateway"), autoscaling.reason)?;
    // A killed pod is replaced and its clients come back.
    let victim = namespace.gateways().await?[0].0.clone();
    namespace.kubectl(&["delete", "pod", &victim, "--grace-period=0", "--force"]).await?;
    gateways(&namespace, 4, 60).await?;
    wait_for("clients are back", DEADLINE, async || {
        let open = load.counter("open");
        if open == 350 { Ok(()) } else { Err(format!("{open} open")) }
    })
    .await?;
    // An upgrade of the chart changes nothing for pods that run.
    let before = namespace.gateways().await?;
    helm_upgrade(&[]).await?;
    ensure(namespace.gateways().await? == before, "the upgrade changed the fleet")?;
    load.stop().await;
    gateways(&namespace, 2, 90).await?;
    namespace.ready().await?;
    Ok("2 → 4 → 2 gateways, pod kill and helm upgrade in between".into())
}

/// `helm upgrade` with the values in use.
pub async fn helm_upgrade(more: &[&str]) -> Outcome<String> {
    let chart = crate::cluster::root().join("charts/realtime-operator");
    let chart = chart.to_string_lossy();
    let mut args = vec![
        "upgrade",
        "realtime-operator",
        &chart,
        "-n",
        "realtime-system",
        "--reuse-values",
        "--wait",
        "--timeout",
        "90s",
    ];
    args.extend(more);
    run("helm", &args, "").await
}

pub async fn step(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&spec(2, 8, 500, 10)).await?;
    namespace.ready().await?;
    let target = namespace.service().await?;
    let (mut decided, mut followed, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for attempt in 0..RUNS {
        gateways(&namespace, 2, 120).await?;
        let load = Background::load(&target, 3_000, 3_000)?;
        wait_for("2 900 connections", DEADLINE, async || {
            let open = load.counter("open");
            if open >= 2_900 { Ok(()) } else { Err(format!("{open} open")) }
        })
        .await?;
        let stepped = Instant::now();
        patched(&namespace, 6).await?;
        decided.push(stepped.elapsed());
        gateways(&namespace, 6, 120).await?;
        followed.push(stepped.elapsed());
        let dropped = Instant::now();
        load.stop().await;
        let lowest = watch_down(&namespace, &mut down, dropped).await?;
        ensure(lowest >= 2, format!("run {attempt}: {lowest} gateways, below the minimum"))?;
    }
    let text = |mut all: Vec<Duration>| {
        all.sort();
        let seconds = |d: Duration| format!("{:.1} s", d.as_secs_f64());
        format!("median {}, worst {}", seconds(all[all.len() / 2]), seconds(all[all.len() - 1]))
    };
    decided.sort();
    let median = decided[decided.len() / 2];
    let earliest = down.iter().min().copied().unwrap_or_default();
    ensure(
        earliest >= Duration::from_secs(10),
        format!("scaled down after {earliest:?}, within the window"),
    )?;
    ensure(median <= Duration::from_secs(5), format!("replicas right after {median:?} (median)"))?;
    Ok(format!(
        "{RUNS} runs: replicas patched {} (goal 5 s), pods ready {}, first removal {} after the drop (window 10 s)",
        text(decided),
        text(followed),
        text(down)
    ))
}

/// Waits until the sets ask for `count` gateways.
async fn patched(namespace: &Namespace, count: i64) -> Outcome {
    wait_for("patched replicas", DEADLINE, async || {
        let sets = namespace.list("rs").await?;
        let asked: i64 = sets
            .iter()
            .filter(|set| set["metadata"]["labels"]["realtime-operator.dev/component"] == "gateway")
            .filter_map(|set| set["spec"]["replicas"].as_i64())
            .sum();
        if asked == count { Ok(()) } else { Err(format!("{asked} replicas")) }
    })
    .await
}

/// Follows the way down; the fewest gateways seen.
async fn watch_down(
    namespace: &Namespace,
    down: &mut Vec<Duration>,
    dropped: Instant,
) -> Outcome<usize> {
    let mut lowest = usize::MAX;
    let mut first = None;
    wait_for("2 gateways", DEADLINE, async || {
        let count = namespace.gateways().await?.len();
        lowest = lowest.min(count);
        if count < 6 && first.is_none() {
            first = Some(dropped.elapsed());
        }
        if count <= 2 { Ok(()) } else { Err(format!("{count} gateways")) }
    })
    .await?;
    down.extend(first);
    Ok(lowest)
}
