//! Runs scenarios on the cluster that kubectl points to.

use clap::Parser;
use std::collections::HashSet;
use std::process::ExitCode;
use tests::cluster::root;
use tests::report;
use tests::scenarios::skeleton;

/// Runs scenarios on the cluster that KUBECONFIG points to, each in a namespace of its own.
#[derive(Parser)]
struct Args {
    /// `smoke` (what `make test` runs) or `skeleton` (all, with a report).
    suite: String,
    /// Only scenarios of these names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leave out what passed in the last run that was cut short.
    #[arg(long)]
    resume: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let memory = root().join(".cache").join(format!("passed-{}", args.suite));
    let passed: HashSet<String> = if args.resume {
        std::fs::read_to_string(&memory).unwrap_or_default().lines().map(str::to_owned).collect()
    } else {
        HashSet::new()
    };
    let mut done: Vec<String> = passed.iter().cloned().collect();
    let mut points = Vec::new();
    let chosen: Vec<_> = skeleton()
        .into_iter()
        .filter(|s| args.suite == "skeleton" || s.smoke)
        .filter(|s| args.only.is_empty() || args.only.iter().any(|name| name == s.name))
        .filter(|s| !passed.contains(s.name))
        .collect();
    for (index, scenario) in chosen.iter().enumerate() {
        eprintln!("[{}/{}] {}: {}", index + 1, chosen.len(), scenario.name, scenario.title);
        let point = scenario.run().await;
        point.print();
        if point.outcome.is_ok() {
            done.push(scenario.name.into());
            let _ = std::fs::write(&memory, done.join("\n"));
        }
        points.push(point);
    }
    let failed = points.iter().filter(|point| point.outcome.is_err()).count();
    let whole = args.suite == "skeleton" && args.only.is_empty() && passed.is_empty();
    if whole && let Err(error) = report::write(&args.suite, &points) {
        eprintln!("failed to write the report: {error}");
    }
    println!("{} passed, {failed} failed", points.len() - failed);
    if failed == 0 {
        let _ = std::fs::remove_file(&memory);
    }
    ExitCode::from(u8::from(failed > 0))
}
