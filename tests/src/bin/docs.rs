//! Writes the generated documentation: `docs metrics` and `docs reference`.

use contract::metrics::{GATEWAY, Metric, OPERATOR};
use serde_json::Value;
use std::fmt::Write as _;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("metrics") => print!("{}", metrics()),
        Some("reference") => print!("{}", reference()),
        _ => {
            eprintln!("usage: docs metrics|reference");
            std::process::exit(2);
        }
    }
}

fn metrics() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated from `contract::metrics` by `make gen`; tests compare it with what the binaries expose.\n\
         Labels are bounded: never a room, a user or an error's text. Units are in the name; seconds and bytes.\n",
    );
    for (title, all) in
        [("Gateway (`:9090/metrics`)", GATEWAY), ("Operator (`:9090/metrics`)", OPERATOR)]
    {
        let _ = write!(
            text,
            "\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"
        );
        for Metric { name, kind, labels, help } in all {
            let suffix = if format!("{kind:?}") == "Counter" { "_total" } else { "" };
            let kind = format!("{kind:?}").to_lowercase();
            let _ =
                writeln!(text, "| `{name}{suffix}` | {kind} | {} | {help} |", labels.join(", "));
        }
    }
    text
}

fn reference() -> String {
    let crd = operator::crd::definition();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut text = String::from(
        "# RealtimeCluster reference\n\nGenerated from the CRD by `make gen`. All fields of this version are of class `restart`: a change\n\
         rolls the gateways, drained first. `autoscaling` and `affinity` take effect without a restart.\n\n\
         | field | type | bounds | meaning |\n|---|---|---|---|\n",
    );
    fields(&schema["spec"], "spec", &mut text);
    text += "\n## Rules across fields\n\n";
    rules(&schema["spec"], "spec", &mut text);
    text
}

fn fields(schema: &Value, path: &str, text: &mut String) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let kind = field["type"].as_str().unwrap_or("any");
        let meaning = field["description"]
            .as_str()
            .unwrap_or_default()
            .replace('\n', " ")
            .replace('|', "\\|");
        let _ = writeln!(text, "| `{path}` | {kind} | {} | {meaning} |", bounds(field));
        fields(field, &path, text);
        fields(&field["items"], &format!("{path}[]"), text);
    }
}

fn bounds(field: &Value) -> String {
    let range =
        |low: &str, high: &str, unit: &str| match (field[low].as_f64(), field[high].as_f64()) {
            (Some(low), Some(high)) => Some(format!("{low} to {high}{unit}")),
            (None, Some(high)) => Some(format!("at most {high}{unit}")),
            _ => None,
        };
    let values = field["enum"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    values
        .or_else(|| range("minimum", "maximum", ""))
        .or_else(|| range("minLength", "maxLength", " characters"))
        .or_else(|| range("minItems", "maxItems", " entries"))
        .or_else(|| range("minProperties", "maxProperties", " entries"))
        .unwrap_or_default()
}

fn rules(schema: &Value, path: &str, text: &mut String) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "- `{path}`: {}", rule["message"].as_str().unwrap_or_default());
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        rules(field, &format!("{path}.{name}"), text);
    }
}
