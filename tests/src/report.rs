//! Prints PASS or FAIL a point and writes docs/verification/NAME.md.

use crate::cluster::root;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// The result of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// Figures, or why it failed.
    pub outcome: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

impl Point {
    /// Stands for what was not run yet.
    #[must_use]
    pub fn open() -> Self {
        let outcome = Err("not run yet".into());
        Self { name: String::new(), title: String::new(), outcome, took: Duration::ZERO }
    }

    /// Prints its line.
    pub fn print(&self) {
        let seconds = self.took.as_secs();
        match &self.outcome {
            Ok(figures) => println!("PASS {} ({seconds} s): {figures}", self.name),
            Err(error) => println!("FAIL {} ({seconds} s): {error}", self.name),
        }
    }
}

/// Where the points that passed are kept until a run is complete.
fn memory(suite: &str) -> PathBuf {
    root().join(".cache").join(format!("passed-{suite}.json"))
}

/// What passed in an earlier run that was cut short or had failures.
#[must_use]
pub fn recall(suite: &str) -> Vec<Point> {
    let text = std::fs::read_to_string(memory(suite)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Keeps what passed; forgets everything when nothing is left to do.
pub fn remember(suite: &str, points: &[Point]) {
    let passed: Vec<_> = points.iter().filter(|point| point.outcome.is_ok()).collect();
    let kept = if passed.len() == points.len() {
        std::fs::remove_file(memory(suite))
    } else {
        std::fs::write(memory(suite), serde_json::to_string(&passed).unwrap_or_default())
    };
    // Only a later --resume would miss it.
    if let Err(error) = kept
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("failed to remember what passed: {error}");
    }
}

fn command(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).current_dir(root()).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

/// Writes the report of a verify target.
///
/// # Errors
/// When the file cannot be written.
pub fn write(name: &str, points: &[Point]) -> std::io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().unwrap_or_default().replace("MemTotal:", "");
    let mut text =
        format!("# Verification: {name}\n\nMade by `make verify-{name}`; do not edit.\n\n");
    let _ = writeln!(
        text,
        "- commit: {}\n- date: {}\n- machine: {cores} cores, {} memory, kernel {}\n",
        command("git", &["describe", "--always", "--dirty"]),
        command("date", &["-u", "+%F %T UTC"]),
        memory.trim(),
        command("uname", &["-r"]),
    );
    let _ =
        writeln!(text, "| point | what it shows | result | figures | s |\n|---|---|---|---|---|");
    for point in points {
        let (result, figures) = match &point.outcome {
            Ok(figures) => ("PASS", figures.as_str()),
            Err(error) => ("FAIL", error.lines().next().unwrap_or_default()),
        };
        let seconds = point.took.as_secs();
        let _ = writeln!(
            text,
            "| {} | {} | {result} | {} | {seconds} |",
            point.name,
            point.title,
            figures.replace('|', "/")
        );
    }
    // Only the acceptance is a document; the smoke is a test.
    if name == "smoke" {
        return Ok(());
    }
    let folder = root().join("docs/verification");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("{name}.md")), text)
}
