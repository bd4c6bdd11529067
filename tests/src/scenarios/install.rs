//! Helm and the operator's own life.

use super::autoscale::helm_upgrade;
use super::{gateways, open_gateway};
use crate::cluster::{DEADLINE, Namespace, Outcome, ensure, root, run, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

pub async fn operator_upgrade(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({"gateway": open_gateway()})).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 60).await?;
    let before = namespace.gateways().await?;
    // A newer operator brings newer default images.
    helm_upgrade(&["--set", "podAnnotations.upgraded=yes,defaultImages.gateway=localhost/realtime-gateway:next,defaultImages.redis=localhost/redis:next"]).await?;
    settled(&namespace, &before).await?;
    // Adopted only when the user says so.
    namespace
        .kubectl(&["annotate", "rtc", "chat", "realtime-operator.dev/adopt-defaults=true"])
        .await?;
    wait_for("new defaults are adopted", DEADLINE, async || {
        let defaults =
            namespace.chat().await?.status.and_then(|s| s.gateway?.defaults).unwrap_or_default();
        ensure(defaults.gateway_image.ends_with(":next"), defaults.gateway_image)
    })
    .await?;
    helm_upgrade(&["--set", "podAnnotations=null,defaultImages.gateway=localhost/realtime-gateway:dev,defaultImages.redis=localhost/redis:dev"]).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 120).await?;
    // A restart never lowers the fleet: without clients one gateway would do, but
    // each restart begins the window of 30 s anew, and four take longer than that.
    let other = json!({
        "gateway": open_gateway(),
        "autoscaling": {"mode": "BuiltIn", "min": 1, "max": 6, "scaleDownWindowSeconds": 30},
    });
    namespace.apply(&other).await?;
    let before = namespace.gateways().await?;
    let begun = std::time::Instant::now();
    let label = "app.kubernetes.io/name=realtime-operator";
    let kill =
        ["-n", "realtime-system", "delete", "pod", "-l", label, "--grace-period=0", "--force"];
    for _ in 0..4 {
        run("kubectl", &kill, "").await?;
        settled(&namespace, &before).await?;
    }
    let took = begun.elapsed().as_secs();
    ensure(took > 30, format!("4 restarts within {took} s prove nothing"))?;
    gateways(&namespace, 1, 90).await?;
    Ok(format!(
        "new default images: no pod touched until adopted; 4 operator kills over {took} s: none touched, window 30 s"
    ))
}

/// The operator is up and for ten seconds no gateway comes or goes.
async fn settled(namespace: &Namespace, wanted: &[(String, String, bool)]) -> Outcome {
    let status =
        ["-n", "realtime-system", "rollout", "status", "deploy/realtime-operator", "--timeout=90s"];
    run("kubectl", &status, "").await?;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = namespace.gateways().await?;
        ensure(now == wanted, format!("gateways changed: {now:?}"))?;
    }
    Ok(())
}

pub async fn helm_twice(_namespace: Namespace) -> Outcome<String> {
    let chart = root().join("charts/realtime-operator");
    let chart = chart.to_string_lossy();
    let manifest = async || {
        run("helm", &["get", "manifest", "realtime-operator", "-n", "realtime-system"], "").await
    };
    helm_upgrade(&["--server-side=true"]).await?;
    let (first, before) = (manifest().await?, installed().await?);
    helm_upgrade(&["--server-side=true"]).await?;
    ensure(manifest().await? == first, "two upgrades render differently")?;
    let after = installed().await?;
    ensure(after == before, format!("the second upgrade changed objects: {before:?} {after:?}"))?;
    let images = "defaultImages.gateway=a,defaultImages.redis=b";
    run("helm", &["lint", &chart, "--set", images], "").await?;
    Ok(format!(
        "2 upgrades, no conflict, none of {} objects changed, helm lint is clean",
        after.len()
    ))
}

/// What the chart installed, with versions that an upgrade without changes must not touch.
async fn installed() -> Outcome<Vec<String>> {
    let unchanging = "customresourcedefinitions,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts";
    let mut all = Vec::new();
    for (kinds, version) in [(unchanging, "resourceVersion"), ("deployments", "generation")] {
        let args = ["get", kinds, "-n", "realtime-system", "-o", "json"];
        let list: Value = serde_json::from_str(&run("kubectl", &args, "").await?)
            .map_err(|error| error.to_string())?;
        for object in list["items"].as_array().into_iter().flatten() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if name.contains("realtime") {
                let kind = &object["kind"];
                all.push(format!("{kind}/{name} {}", object["metadata"][version]));
            }
        }
    }
    Ok(all)
}

pub async fn delete_offline(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({"gateway": open_gateway()})).await?;
    namespace.ready().await?;
    let scale = |n: &'static str| async move {
        run("kubectl", &["-n", "realtime-system", "scale", "deploy/realtime-operator", n], "").await
    };
    scale("--replicas=0").await?;
    let deleted = async {
        namespace.kubectl(&["delete", "rtc", "chat", "--timeout=60s"]).await?;
        wait_for("everything is gone", DEADLINE, async || {
            let mut left = 0;
            for kind in
                ["rs", "statefulset", "pods", "services", "pdb", "networkpolicies", "secrets"]
            {
                left += namespace.list(kind).await?.len();
            }
            ensure(left == 0, format!("{left} objects are left"))
        })
        .await
    }
    .await;
    scale("--replicas=1").await?;
    run(
        "kubectl",
        &[
            "-n",
            "realtime-system",
            "rollout",
            "status",
            "deploy/realtime-operator",
            "--timeout=90s",
        ],
        "",
    )
    .await?;
    deleted?;
    Ok("no finalizer: all children went with the resource while no operator ran".into())
}
