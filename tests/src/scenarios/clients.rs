//! Stock clients through a real Service.

use super::{gateways, open_gateway};
use crate::cluster::{Namespace, Outcome, ensure, node, sources};
use serde_json::{Value, json};
use std::collections::HashSet;

pub async fn messages(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({"gateway": open_gateway()})).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 60).await?;
    let pods = namespace.gateways().await?;
    let url = |ip: &str| format!("http://{ip}:8080");
    let output = node("suite.mjs", &[&url(&pods[0].1), &url(&pods[1].1)]).await?;
    let passed = output.lines().filter(|line| line.starts_with("PASS")).count();
    ensure(output.contains("all checks passed"), output.clone())?;
    let service = format!("http://{}", namespace.service().await?);
    let behind = node("suite.mjs", &[&service]).await?;
    ensure(behind.contains("all checks passed"), behind)?;
    Ok(format!("{passed} checks from pod to pod, and again through the Service without affinity"))
}

async fn connect(url: &str, repeats: usize) -> Outcome<Value> {
    let sources = sources();
    let repeats = repeats.to_string();
    let mut args = vec![url, &repeats];
    args.extend(sources.iter().map(String::as_str));
    let output = node("sources.mjs", &args).await?;
    serde_json::from_str(output.trim()).map_err(|e| format!("{e}: {output}"))
}

pub async fn default_options(namespace: Namespace) -> Outcome<String> {
    namespace.apply(&json!({"gateway": open_gateway()})).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 60).await?;
    let url = format!("http://{}", namespace.service().await?);
    let result = connect(&url, 4).await?;
    let errors = result["errors"].as_array().map_or(0, Vec::len);
    ensure(errors == 0, format!("{errors} errors, first: {}", result["errors"][0]))?;
    ensure(result["connected"] == 256, format!("connected {}", result["connected"]))?;
    Ok("256 connects, 0 errors".into())
}

pub async fn client_ip(namespace: Namespace) -> Outcome<String> {
    let spec = json!({
        "gateway": open_gateway(),
        "affinity": {"mode": "ClientIP", "timeoutSeconds": 600},
    });
    namespace.apply(&spec).await?;
    namespace.ready().await?;
    gateways(&namespace, 2, 60).await?;
    let url = format!("http://{}", namespace.service().await?);
    let result = connect(&url, 4).await?;
    ensure(result["errors"].as_array().is_some_and(Vec::is_empty), result["errors"].to_string())?;
    let mut used = HashSet::new();
    for (address, numbers) in result["gateways"].as_object().into_iter().flatten() {
        let numbers: HashSet<_> =
            numbers.as_array().into_iter().flatten().map(Value::to_string).collect();
        ensure(numbers.len() == 1, format!("{address} was on {numbers:?}"))?;
        used.extend(numbers);
    }
    ensure(used.len() == 2, format!("only {} of 2 gateways were used", used.len()))?;
    Ok("64 addresses, 4 connects each, every address on one of 2 pods".into())
}
