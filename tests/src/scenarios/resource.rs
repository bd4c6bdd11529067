//! The resource as a person and an API client meet it.

use super::{gateways, open_gateway};
use crate::cluster::{Background, DEADLINE, Namespace, Outcome, ensure, node, run, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub async fn status(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({"gateway": open_gateway()})).await?;
    // At no moment may it read as current for a generation that was not observed.
    let start = Instant::now();
    let mut looks = 0;
    loop {
        let chat = serde_json::to_value(namespace.chat().await?).map_err(|e| e.to_string())?;
        looks += 1;
        let reading = kstatus(&chat);
        let ready = namespace.gateways().await?.iter().filter(|(_, _, ready)| *ready).count();
        if reading == "Current" {
            ensure(ready >= 2, format!("current with {ready} ready gateways"))?;
            break;
        }
        ensure(reading == "InProgress", format!("kstatus reads {reading}"))?;
        ensure(start.elapsed() < DEADLINE, "never current")?;
    }
    let wide = namespace.kubectl(&["get", "rtc"]).await?;
    for column in ["READY", "GATEWAYS", "DESIRED", "CONNECTIONS", "REDIS", "AGE"] {
        ensure(wide.contains(column), format!("no column {column}: {wide}"))?;
    }
    let described = namespace.kubectl(&["describe", "rtc", "chat"]).await?;
    for text in ["GatewaysAdded", "AllReady", "Observed Generation"] {
        ensure(described.contains(text), format!("describe does not tell {text}"))?;
    }
    namespace.kubectl(&["scale", "rtc/chat", "--replicas=3"]).await?;
    gateways(&namespace, 3, 60).await?;
    namespace.ready().await?;
    // A broken image stalls, and the fixed spec heals without hands.
    let mut broken = open_gateway();
    broken["image"] = json!("localhost/no-such-image:1");
    broken["replicas"] = json!(3);
    namespace.apply(&json!({"gateway": broken})).await?;
    wait_for("Stalled", DEADLINE, async || {
        let chat = serde_json::to_value(namespace.chat().await?).map_err(|e| e.to_string())?;
        let reading = kstatus(&chat);
        if reading == "Failed" { Ok(()) } else { Err(reading.to_owned()) }
    })
    .await?;
    let serving = namespace.gateways().await?.iter().filter(|(_, _, ready)| *ready).count();
    ensure(serving >= 3, format!("only {serving} gateways serve while the new image is broken"))?;
    let mut fixed = open_gateway();
    fixed["replicas"] = json!(3);
    namespace.apply(&json!({"gateway": fixed})).await?;
    gateways(&namespace, 3, 120).await?;
    namespace.ready().await?;
    Ok(format!(
        "{looks} readings while starting, columns, describe, wait, scale, a broken image and its repair"
    ))
}

/// The reading of Flux and of Argo's health check for it: generation first, then the conditions.
fn kstatus(object: &Value) -> &'static str {
    let generation = &object["metadata"]["generation"];
    let is = |kind: &str| {
        object["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
    };
    match () {
        () if object["status"]["observedGeneration"] != *generation => "InProgress",
        () if is("Stalled") => "Failed",
        () if is("Reconciling") => "InProgress",
        () if is("Ready") => "Current",
        () => "InProgress",
    }
}

pub async fn empty_spec(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({})).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 60).await?;
    let url = format!("http://{}", namespace.service().await?);
    let refused = node("suite.mjs", &[&url]).await.err().unwrap_or_default();
    ensure(
        refused.contains("auth not configured: set spec.gateway.auth"),
        format!("clients are not told: {refused}"),
    )?;
    namespace.kubectl(&["scale", "rtc/chat", "--replicas=1"]).await?;
    gateways(&namespace, 1, 60).await?;
    let chat = serde_json::to_value(namespace.chat().await?).map_err(|e| e.to_string())?;
    ensure(
        chat["spec"] == json!({"gateway": {"replicas": 1}}),
        format!("spec was written: {}", chat["spec"]),
    )?;
    Ok("2 gateways and Redis, clients refused with the remedy, scaled to 1, spec untouched".into())
}

/// Wrong specs: what is wrong, and words that the refusal must hold.
fn wrong() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let gateway = |field: &str, value: Value| json!({"gateway": {field: value}});
    let long = "x".repeat(600);
    vec![
        ("negative", gateway("replicas", json!(-1)), &["spec.gateway.replicas"]),
        ("huge", gateway("replicas", json!(100_000)), &["spec.gateway.replicas", "1000"]),
        ("zero limit", gateway("limits", json!({"connectionsPerPod": 0})), &["connectionsPerPod"]),
        ("empty image", gateway("image", json!("")), &["spec.gateway.image"]),
        ("over-long image", gateway("image", json!(long)), &["spec.gateway.image"]),
        (
            "unknown enum",
            json!({"autoscaling": {"mode": "Magic"}}),
            &["spec.autoscaling.mode", "BuiltIn"],
        ),
        (
            "min above max",
            json!({"autoscaling": {"mode": "BuiltIn", "min": 5, "max": 2}}),
            &["autoscaling.min must not be greater"],
        ),
        (
            "BuiltIn without max",
            json!({"autoscaling": {"mode": "BuiltIn"}}),
            &["need autoscaling.max"],
        ),
        (
            "route without action",
            gateway("routes", json!([{"name": "a", "event": "a"}])),
            &["exactly one of join, leave, publish and echo"],
        ),
        (
            "two routes of a name",
            gateway(
                "routes",
                json!([{"name": "a", "event": "a", "echo": {}}, {"name": "a", "event": "b", "echo": {}}]),
            ),
            &["duplicate"],
        ),
        (
            "None with two gateways",
            json!({"redis": {"mode": "None"}}),
            &["set gateway.replicas to 1"],
        ),
        (
            "grace too short",
            json!({"gateway": {"drain": {"deadlineSeconds": 60}, "terminationGraceSeconds": 30}}),
            &["terminationGraceSeconds must be at least"],
        ),
        (
            "time-out without ClientIP",
            json!({"affinity": {"timeoutSeconds": 5}}),
            &["needs affinity.mode ClientIP"],
        ),
        (
            "bad size",
            json!({"redis": {"persistence": {"size": "lots"}}}),
            &["spec.redis.persistence.size"],
        ),
    ]
}

pub async fn wrong_specs(namespace: Namespace) -> Outcome<String> {
    let cases = wrong();
    for (what, spec, words) in &cases {
        // Server-side apply and, by `--raw`, a client without any validation of its own.
        let object = |name: &str| {
            json!({
                "apiVersion": "realtime-operator.dev/v1alpha1", "kind": "RealtimeCluster",
                "metadata": {"name": name}, "spec": spec,
            })
        };
        let path = format!(
            "/apis/realtime-operator.dev/v1alpha1/namespaces/{}/realtimeclusters",
            namespace.name
        );
        let file = std::env::temp_dir().join(format!("rtc-{}.json", std::process::id()));
        std::fs::write(&file, object("wrong").to_string()).map_err(|e| e.to_string())?;
        let raw =
            run("kubectl", &["create", "--raw", &path, "-f", &file.to_string_lossy()], "").await;
        let applied = ["-n", &namespace.name, "apply", "--server-side", "-f", "-"];
        let applied = run("kubectl", &applied, &object("wrong").to_string()).await;
        for (client, answer) in [("raw", raw), ("server-side apply", applied)] {
            let refusal = answer.err().ok_or(format!("{what} was accepted by {client}"))?;
            for word in *words {
                // The two clients spell some refusals differently.
                ensure(
                    refusal.to_lowercase().contains(&word.to_lowercase()),
                    format!("{what} ({client}) does not say {word:?}: {refusal}"),
                )?;
            }
        }
    }
    let name = "n".repeat(41);
    let long = json!({"apiVersion": "realtime-operator.dev/v1alpha1", "kind": "RealtimeCluster", "metadata": {"name": name}, "spec": {}});
    let refusal = run("kubectl", &["-n", &namespace.name, "create", "-f", "-"], &long.to_string())
        .await
        .err();
    ensure(
        refusal.is_some_and(|r| r.contains("at most 40 characters")),
        "a name of 41 characters was accepted",
    )?;
    let unknown = namespace.apply(&json!({"gatway": {}})).await.err();
    ensure(
        unknown.is_some_and(|r| r.contains("unknown field")),
        "an unknown field was accepted under strict validation",
    )?;
    let left = namespace.list("rtc").await?;
    ensure(left.is_empty(), "something was half-applied")?;
    Ok(format!(
        "{} wrong specs by 2 clients each, an over-long name, an unknown field",
        cases.len()
    ))
}

pub async fn unsigned(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({"gateway": open_gateway()})).await?;
    namespace.ready().await?;
    let ip = namespace.gateways().await?[0].1.clone();
    let calls = [
        ("GET", "/internal/v1/sample"),
        ("POST", "/internal/v1/cordon"),
        ("POST", "/internal/v1/drain"),
        ("POST", "/internal/v1/uncordon"),
        ("GET", "/internal/v1/engine?EIO=4&transport=polling"),
    ];
    for (method, path) in calls {
        let url = format!("http://{ip}:9091{path}");
        let args = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, &url];
        let code = run("curl", &args, "").await?;
        ensure(code == "401", format!("{method} {path} answered {code}"))?;
    }
    Ok(format!("{} calls, 401 each", calls.len()))
}

/// Resource versions of everything that belongs to the namespace's RealtimeCluster.
async fn versions(namespace: &Namespace) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for kind in [
        "rtc",
        "rs",
        "services",
        "configmaps",
        "pdb",
        "networkpolicies",
        "serviceaccounts",
        "secrets",
        "pods",
    ] {
        for object in namespace.list(kind).await? {
            let meta = &object["metadata"];
            all.push(format!("{kind}/{} {}", meta["name"], meta["resourceVersion"]));
        }
    }
    Ok(all)
}

async fn operator_writes() -> Outcome<i64> {
    let pods = ["-n", "realtime-system", "get", "pods", "-o", "jsonpath={.items[*].status.podIP}"];
    let ips = run("kubectl", &pods, "").await?;
    let mut sum = 0;
    for ip in ips.split(' ') {
        let text = run("curl", &["-s", &format!("http://{ip}:9090/metrics")], "").await?;
        let writes =
            text.lines().filter(|line| line.starts_with("realtime_operator_writes_total{"));
        sum += writes.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum::<i64>();
    }
    Ok(sum)
}

pub async fn quiet(namespace: Namespace) -> Outcome<String> {
    let spec = json!({
        "gateway": open_gateway(),
        "autoscaling": {"mode": "BuiltIn", "min": 2, "max": 6, "target": {"connections": 500}, "scaleDownWindowSeconds": 10},
    });
    namespace.apply(&spec).await?;
    namespace.ready().await?;
    let load = Background::load(&namespace.service().await?, 800, 800)?;
    wait_for("800 connections", DEADLINE, async || {
        let open = load.counter("open");
        if open == 800 { Ok(()) } else { Err(format!("{open} open")) }
    })
    .await?;
    // Let figures that still move reach the status once.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let (before, writes) = (versions(&namespace).await?, operator_writes().await?);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let (after, more) = (versions(&namespace).await?, operator_writes().await?);
    let changed: Vec<_> = after.iter().filter(|version| !before.contains(version)).collect();
    ensure(changed.is_empty(), format!("changed: {changed:?}"))?;
    ensure(more == writes, format!("{} writes by the operator", more - writes))?;
    load.stop().await;
    Ok(format!("800 connections for 300 s: 0 of {} objects changed, 0 writes", after.len()))
}
