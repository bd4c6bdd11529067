//! Faults and changes: the system heals alone, nobody is cut without notice.

use super::{gateways, open_gateway};
use crate::cluster::{Background, DEADLINE, Namespace, Outcome, ensure, root, run, wait_for};
use serde_json::json;

async fn all_open(load: &Background, count: i64) -> Outcome {
    wait_for("all clients are connected", DEADLINE, async || {
        let open = load.counter("open");
        if open == count { Ok(()) } else { Err(format!("{open} open")) }
    })
    .await
}

pub async fn rollout(namespace: Namespace) -> Outcome<String> {
    let mut gateway = open_gateway();
    gateway["replicas"] = json!(4);
    namespace.apply(&json!({"gateway": gateway})).await?;
    namespace.ready().await?;
    let load = Background::load(&namespace.service().await?, 1_000, 1_000)?;
    all_open(&load, 1_000).await?;
    let before = namespace.gateways().await?;
    gateway["limits"] = json!({"roomsPerConnection": 64});
    namespace.apply(&json!({"gateway": gateway})).await?;
    wait_for("all pods are new and ready", DEADLINE, async || {
        let now = namespace.gateways().await?;
        let old =
            now.iter().filter(|(name, ..)| before.iter().any(|(other, ..)| other == name)).count();
        let ready = now.iter().filter(|(_, _, ready)| *ready).count();
        if old == 0 && ready == 4 && now.len() == 4 {
            Ok(())
        } else {
            Err(format!("{old} old, {ready} ready"))
        }
    })
    .await?;
    all_open(&load, 1_000).await?;
    let end = load.stop().await;
    ensure(end["unannounced"] == 0, format!("{} closes without notice", end["unannounced"]))?;
    let sets = namespace.list("rs").await?.len();
    ensure(
        sets == 2,
        format!("{sets} ReplicaSets are left, wanted one for gateways and one for Redis"),
    )?;
    Ok(format!(
        "4 pods replaced under 1 000 clients: {} closes, all announced, 0 without notice",
        end["announced"]
    ))
}

async fn joined(client: &Background, after: usize) -> Outcome {
    wait_for("the client is back in its room", DEADLINE, async || {
        let lines = client.lines();
        let last = lines.iter().skip(after).rev().find(|line| line["event"] != "message");
        match last {
            Some(line) if line["event"] == "joined" && line["answer"]["ok"] == true => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

pub async fn heal(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({"gateway": open_gateway()})).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 60).await?;
    let url = format!("http://{}", namespace.service().await?);
    let client = Background::stay(&url, "lobby")?;
    joined(&client, 0).await?;

    // A gateway dies.
    for (name, ..) in namespace.gateways().await? {
        namespace.kubectl(&["delete", "pod", &name, "--grace-period=0", "--force"]).await?;
    }
    gateways(&namespace, 2, 90).await?;
    joined(&client, 1).await?;

    // Redis dies: sockets stay, and messages cross again when it is back.
    let seen = client.lines().len();
    let redis = [
        "delete",
        "pod",
        "-l",
        "realtime-operator.dev/component=redis",
        "--grace-period=0",
        "--force",
    ];
    namespace.kubectl(&redis).await?;
    wait_for("Redis is back and gateways reach it", DEADLINE, async || {
        let mut degraded = 0;
        for (_, ip, _) in namespace.gateways().await? {
            let text =
                run("curl", &["-s", &format!("http://{ip}:9090/health/readiness")], "").await?;
            degraded += usize::from(!text.contains("\"degraded\":false"));
        }
        ensure(degraded == 0, format!("{degraded} gateways are degraded"))
    })
    .await?;
    let closed =
        client.lines().iter().skip(seen).filter(|line| line["event"] == "disconnect").count();
    ensure(closed == 0, "a Redis restart closed a client")?;
    let pods = namespace.gateways().await?;
    let urls: Vec<_> = pods.iter().map(|(_, ip, _)| format!("http://{ip}:8080")).collect();
    let crossed = crate::cluster::node("suite.mjs", &[&urls[0], &urls[1]]).await?;
    ensure(crossed.contains("all checks passed"), crossed)?;

    // Somebody edits a child; another manager's field survives.
    namespace.kubectl(&["label", "service", "chat-gateway", "team=blue"]).await?;
    let patch = r#"{"spec":{"sessionAffinity":"ClientIP"}}"#;
    namespace.kubectl(&["patch", "service", "chat-gateway", "--type=merge", "-p", patch]).await?;
    namespace.kubectl(&["delete", "pdb", "chat-gateway"]).await?;
    restored(&namespace).await?;

    // The operator dies in the middle of a scale-up.
    let operator = [
        "-n",
        "realtime-system",
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=realtime-operator",
        "--grace-period=0",
        "--force",
    ];
    namespace.kubectl(&["scale", "rtc/chat", "--replicas=4"]).await?;
    run("kubectl", &operator, "").await?;
    gateways(&namespace, 4, 90).await?;

    // The API server restarts.
    run(&root().join("tests/cluster/cluster").to_string_lossy(), &["restart-apiserver"], "")
        .await?;
    namespace.kubectl(&["scale", "rtc/chat", "--replicas=3"]).await?;
    gateways(&namespace, 3, 120).await?;
    namespace.ready().await?;
    drop(client);
    Ok("both gateways, Redis and the operator killed, children edited and deleted, API server restarted".into())
}

async fn restored(namespace: &Namespace) -> Outcome {
    wait_for("children are restored", DEADLINE, async || {
        let services = namespace.list("services").await?;
        let service = services
            .iter()
            .find(|s| s["metadata"]["name"] == "chat-gateway")
            .ok_or("no service")?;
        ensure(service["spec"]["sessionAffinity"] == "None", "sessionAffinity is still edited")?;
        ensure(service["metadata"]["labels"]["team"] == "blue", "another manager's label is gone")?;
        ensure(namespace.list("pdb").await?.len() == 1, "the PDB is still gone")
    })
    .await
}
