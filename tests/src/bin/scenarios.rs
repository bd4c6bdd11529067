//! Runs scenarios on the cluster that kubectl points to.

use clap::Parser;
use std::process::ExitCode;
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
    /// Keep what passed in the last run that was cut short or had failures.
    #[arg(long)]
    resume: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let all: Vec<_> =
        skeleton().into_iter().filter(|s| args.suite == "skeleton" || s.smoke).collect();
    let mut points = if args.resume { report::recall(&args.suite) } else { Vec::new() };
    let chosen: Vec<_> = all
        .iter()
        .filter(|s| args.only.is_empty() || args.only.iter().any(|name| name == s.name))
        .filter(|s| points.iter().all(|point| point.name != s.name))
        .collect();
    for (index, scenario) in chosen.iter().enumerate() {
        eprintln!("[{}/{}] {}: {}", index + 1, chosen.len(), scenario.name, scenario.title);
        let point = scenario.run().await;
        point.print();
        points.push(point);
        if args.only.is_empty() && points.len() < all.len() {
            // A run that is cut now goes on from here.
            report::remember(&args.suite, &[&points[..], &[report::Point::open()]].concat());
        }
    }
    let failed = points.iter().filter(|point| point.outcome.is_err()).count();
    if points.len() == all.len() {
        points.sort_by_key(|point| all.iter().position(|s| s.name == point.name));
        report::remember(&args.suite, &points);
        if let Err(error) = report::write(&args.suite, &points) {
            eprintln!("failed to write the report: {error}");
        }
    }
    println!("{} passed, {failed} failed", points.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}
