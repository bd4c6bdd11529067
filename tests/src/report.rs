//! Prints PASS or FAIL a point and writes docs/verification/NAME.md.

use crate::cluster::root;
use std::fmt::Write as _;
use std::time::Duration;

/// The result of one scenario.
#[derive(Clone, Debug)]
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
    /// Prints its line.
    pub fn print(&self) {
        let seconds = self.took.as_secs();
        match &self.outcome {
            Ok(figures) => println!("PASS {} ({seconds} s): {figures}", self.name),
            Err(error) => println!("FAIL {} ({seconds} s): {error}", self.name),
        }
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
    let folder = root().join("docs/verification");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("{name}.md")), text)
}
